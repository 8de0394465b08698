"""Fit of forming: finds the parameters of simulated cells, repeats measured ones, refuses other files."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from hil.errors import DataError
from sim_backend.fits import forming
from sim_backend.fits.fit import Distance, halves, with_settings
from sim_backend.forming import FormingStatistics
from sim_backend.settings import FormingSettings

DATA = (
    Path(os.environ.get("CROSSBAR_HIL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "rram-1t1r"
)


def simulated_rows(n: int = 4000, **settings: object) -> forming.FormingRows:
    model = FormingStatistics.from_settings(FormingSettings.model_validate({"preset": "custom", **settings}))
    voltage_v, conductance_s = forming.simulate(model, n, 1.0, np.random.default_rng(3))
    return forming.FormingRows(np.arange(len(voltage_v)), np.full(len(voltage_v), 2.0), voltage_v, conductance_s)


def test_the_fit_finds_what_the_cells_were_drawn_from() -> None:
    true = {
        "breakdown_mean_v": 3.0,
        "breakdown_sigma_v": 0.2,
        "early_share": 0.15,
        "early_scale_v": 0.6,
        "leaky_share": 0.03,
        "mean_s": 150e-6,
        "weak_share": 0.4,
    }
    fit = forming.fit(simulated_rows(8000, sigma_difference_s=30e-6, **true))
    for name, value in true.items():
        found = fit.parameters[name]
        assert abs(found.value - value) < 4 * found.error + 0.02 * value, name
    assert fit.settings["forming.sigma_difference_s"] == pytest.approx(30e-6, rel=0.1)


def test_fitted_settings_make_a_simulator_whose_cells_are_not_told_from_the_measured() -> None:
    rows = simulated_rows(mean_s=150e-6, sigma_difference_s=30e-6)
    fit = forming.fit(rows)
    model = FormingStatistics.from_settings(with_settings(fit.settings).forming)
    voltage_v, conductance_s = forming.simulate(model, 20_000, 1.0, np.random.default_rng(99))
    assert Distance.between(rows.formed_at_v, voltage_v).ks < 0.05
    assert Distance.between(rows.conductance_s, conductance_s).ks < 0.05


def test_equal_seeds_give_equal_fits_and_measured_samples_are_those_kept_out() -> None:
    rows = simulated_rows(500, mean_s=150e-6, sigma_difference_s=30e-6)
    one, other = forming.fit(rows, seed=5), forming.fit(rows, seed=5)
    assert one.settings == other.settings
    assert len(one.samples["forming voltage (V)"][0]) == len(rows.cell) // 2


def test_halves_keep_the_rows_of_a_cell_together() -> None:
    cell = np.repeat(np.arange(21), 5)
    first, second = halves(cell, np.random.default_rng(0))
    assert not set(cell[first]) & set(cell[second])
    assert (first ^ second).all()
    assert len(set(cell[first])) == 11


def test_a_sample_has_no_distance_to_itself() -> None:
    values = np.arange(100.0)
    assert Distance.between(values, values) == Distance(0.0, 1.0, 0.0)
    apart = Distance.between(values, values + 1000)
    assert (apart.ks, apart.p_value, apart.wasserstein) == pytest.approx((1.0, 0.0, 1000.0), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no rows"),
        ("500\t2.0\t3.2\t7216\n", "line 1 .* has 4 numbers instead of 5"),
        ("500\t2\t3\t7216\t1\n501\t2\tx\t7216\t1\n", "line 2 .* not a row of numbers"),
        ("500\t2\t3\t7216\t1\n501\t2\tnan\t7216\t1\n", "line 2 .* not finite"),
        ("500\t2\t3.2\t-5\t1\n", "line 1 .*r_final is -5 instead of a resistance"),
        ("500\t2\t3.2\t7000\t7\n", "success is 7 instead of 0 or 1"),
        ("500\t200\t1.5\t0\t4\n", "success is 4"),
    ],
)
def test_another_file_is_refused_with_the_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "form.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        forming.load(tmp_path / "form.csv")


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv\.gz cannot be read"):
        forming.load(tmp_path / "none.csv.gz")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"500\t2\t3\t7216\t1\n" * 1000)[:40])
    with pytest.raises(DataError, match=r"cut\.csv\.gz cannot be read as text"):
        forming.load(tmp_path / "cut.csv.gz")


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(DataError, match="8 cells"):
        forming.fit(simulated_rows(8, mean_s=150e-6, sigma_difference_s=1e-6))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no measured data in {DATA}")
@pytest.mark.parametrize("name", ["form-5-1-20", "form-5-23-20", "form-6-10-20"])
def test_simulated_forming_voltages_are_those_measured(name: str) -> None:
    fit = forming.fit(forming.load(DATA / f"{name}.csv.gz"))
    assert fit.distances["forming voltage (V)"].ks <= 0.05
    assert fit.distances["conductance after forming (S)"].ks <= 0.1
