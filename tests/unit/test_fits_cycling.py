"""Fit of cycling: finds the spreads of simulated runs, repeats the measured one, refuses other files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hil.errors import DataError
from sim_backend.fits import cycling
from sim_backend.fits.fit import with_settings
from sim_backend.switching import Switching

DATA = (
    Path(os.environ.get("CROSSBAR_HIL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "rram-1t1r"
)


def run(
    n_cells: int = 200,
    n_cycles: int = 120,
    high: tuple[float, ...] = (8e4, 0.8, 0.6, 0.3),
    low: tuple[float, ...] = (5e3, 0.1, 0.05, 0.5),
) -> cycling.CyclingRows:
    """Log-normal resistances: (median, spread between cells, spread between cycles, how that differs) of both."""
    rng = np.random.default_rng(6)
    states = []
    for median_ohm, cell, cycle, differ in (high, low):
        of_cell = cell * rng.standard_normal((n_cells, 1))
        cycles = cycle * np.exp(differ * rng.standard_normal((n_cells, 1)))
        states.append(median_ohm * np.exp(of_cell + cycles * rng.standard_normal((n_cells, n_cycles))))
    return cycling.CyclingRows(np.arange(n_cells), *states)


def test_the_fit_finds_levels_and_spreads() -> None:
    fit = cycling.fit(run())
    true = {"high_ohm": 8e4, "high_cell": 0.8, "high_cycle": 0.6, "high_cycle_cell": 0.3}
    true |= {"low_ohm": 5e3, "low_cell": 0.1, "low_cycle": 0.05, "low_cycle_cell": 0.5}
    for name, value in true.items():
        found = fit.parameters[name]
        assert abs(found.value - value) < 4 * found.error + 0.01 * value, name
    for name in ("first_tenth", "drift_per_decade", "memory"):
        assert abs(fit.parameters[name].value) < 4 * fit.parameters[name].error + 0.02


def test_a_simulator_with_the_fitted_settings_cycles_as_fitted() -> None:
    fit = cycling.fit(run())
    wanted = {name: p.value for name, p in fit.parameters.items()}
    model = Switching.from_settings(with_settings(fit.settings).switching)
    states = cycling.simulate(model, 2000, 50, np.random.default_rng(11))
    for name, log_ohm in zip(("high", "low"), states, strict=True):
        median = np.median(log_ohm, axis=1)
        assert np.median(median) == pytest.approx(np.log(wanted[f"{name}_ohm"]), abs=0.08)
        assert median.std() == pytest.approx(wanted[f"{name}_cell"], rel=0.1)
        spread = (log_ohm - median[:, np.newaxis]).std(axis=1)
        assert np.median(spread) == pytest.approx(wanted[f"{name}_cycle"], rel=0.1)
        assert np.log(spread).std() == pytest.approx(wanted[f"{name}_cycle_cell"], rel=0.15)


def test_cells_that_do_not_switch_are_counted_and_left_out() -> None:
    rows = run()
    rows.low_ohm[:3] = 1e6
    fit = cycling.fit(rows)
    assert fit.goodness["cells_failed"] == 3.0
    assert fit.parameters["low_ohm"].value == pytest.approx(5e3, rel=0.05)


def test_drift_and_settling_are_measured() -> None:
    rows = run(high=(8e4, 0.5, 0.2, 0.0))
    rows.high_ohm[:] *= np.maximum(np.arange(120), 1) ** (-0.3 / np.log(10.0))
    assert cycling.fit(rows).parameters["drift_per_decade"].value == pytest.approx(-0.3, abs=0.1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "first line .* has 0 numbers"),
        ("1\t5000\t6000\n", "first line .* has 3 numbers"),
        ("1" + "\t5000\t60" * 40 + "\n2\t7\n", "line 2 .* has 2 numbers instead of 81"),
        ("1" + "\t5000\t60" * 40 + "\n2" + "\t5000\t0" * 40 + "\n", "line 2 .* 0 ohm or less"),
        ("1" + "\t5000\tx" * 40 + "\n", "line 1 .* not a row of numbers"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "cycling.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        cycling.load(tmp_path / "cycling.csv")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no measured data in {DATA}")
def test_simulated_cycling_is_near_the_measured() -> None:
    fit = cycling.fit(cycling.load(DATA / "cycling-4-14-20.csv.gz"))
    for name in fit.samples:
        assert fit.distances[name].ks < fit.goodness[f"ks between measured halves, {name}"] + 0.1
