"""Fits of SET and RESET sweeps: find the parameters of simulated sweeps, repeat measured ones, refuse other files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.errors import DataError
from sim_backend.fits import MODELS, reset
from sim_backend.fits import set as set_fit
from sim_backend.fits.fit import with_settings
from sim_backend.fits.sweep import SweepRows, Sweeps, load_sweep, match, simulate_sweeps
from sim_backend.settings import SwitchingSettings
from sim_backend.switching import Switching

DATA = (
    Path(os.environ.get("CROSSBAR_HIL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "rram-1t1r"
)
SET_FILES = ["set-sweep-bl-200ns-step-0.05-9-21-20", "set-sweep-wl-200ns-step-0.05-9-21-20"]
RESET_FILES = ["reset-sweep-sl-200ns-step-0.05-7-30-20", "reset-sweep-wl-200ns-step-0.05-7-30-20"]

N_CELLS, N_SWEEPS = 60, 6
ARRAY: dict[str, Any] = {
    "set_voltage_v": 0.2,
    "set_cell_v": 0.1,
    "set_line_s_per_v": 500e-6,
    "set_gate_s_per_v": 400e-6,
    "set_series_ohm": 2500.0,
    "set_cell": 0.1,
    "set_cycle": 0.01,
    "reset_voltage_v": 1.8,
    "reset_cell_v": 0.2,
    "reset_cycle_v": 0.1,
    "reset_s": 40e-6,
    "reset_slope_v": 0.5,
    "reset_floor_s": 1e-9,
    "reset_cell": 0.3,
    "reset_cycle": 0.4,
    "reset_keep": 0.35,
    "reset_back": 1.0,
}


def rows_of(sweeps: Sweeps, start_s: np.ndarray, held_v: float) -> SweepRows:
    sweep, step = np.nonzero(np.isfinite(sweeps.final_s))
    initial_s = np.column_stack([start_s, sweeps.final_s[:, :-1]])
    return SweepRows(
        swept="line",
        cell=sweep // N_SWEEPS,
        sweep=sweep,
        voltage_v=sweeps.voltage_v[step],
        initial_s=initial_s[sweep, step],
        final_s=sweeps.final_s[sweep, step],
        held_v=held_v,
        width_s=200e-9,
    )


def simulated_rows(verb: str) -> SweepRows:
    model = Switching.from_settings(SwitchingSettings.model_validate(ARRAY))
    rng = np.random.default_rng(4)
    cells = model.draw_cells(rng, (N_CELLS,)).at(np.arange(N_CELLS).repeat(N_SWEEPS))
    law, first_s, held_v, end_s, sign = {
        "set": (model.after_set_s, 165e-6, 3.0, 250e-6, 1),
        "reset": (model.after_reset_s, 220e-6, 4.0, 9e-6, -1),
    }[verb]
    start_s = first_s * np.exp(0.02 * rng.standard_normal(N_CELLS * N_SWEEPS))
    grid = SweepRows("line", *(np.zeros(61, int),) * 2, np.arange(61) * 0.05, *(np.zeros(61),) * 2, held_v, 200e-9)  # type: ignore[arg-type]
    sweeps = simulate_sweeps(grid, law, cells, start_s, rng)
    return rows_of(sweeps.until(sign * sweeps.final_s >= sign * end_s), start_s, held_v)


def test_the_set_fit_finds_what_the_sweeps_were_drawn_from() -> None:
    fit = set_fit.fit(simulated_rows("set"))
    for name, tolerance in (
        ("set_voltage_v", 0.15),
        ("set_cell_v", 0.04),
        ("set_series_ohm", 500.0),
        ("set_cycle", 3e-3),
    ):
        assert fit.parameters[name].value == pytest.approx(ARRAY[name], abs=tolerance), name
    assert fit.distances["SET voltage (V)"].ks < 0.25  # 30 cells against 600


def test_the_reset_fit_finds_what_the_sweeps_were_drawn_from() -> None:
    fit = reset.fit(simulated_rows("reset"))
    for name, share in (
        ("reset_voltage_v", 0.06),
        ("reset_s", 0.4),
        ("reset_slope_v", 0.25),
        ("reset_cycle", 0.15),
        ("reset_cell", 0.35),
    ):
        assert fit.parameters[name].value == pytest.approx(ARRAY[name], rel=share), name
    assert fit.parameters["reset_keep"].value == pytest.approx(ARRAY["reset_keep"], abs=0.12)
    assert 0.5 < fit.parameters["reset_cell_tail"].value < 2.0
    assert fit.parameters["reset_cycle_cell"].value < 0.3  # six sweeps a cell say no more
    name = "RESET voltage (V)"
    assert fit.distances[name].ks < fit.goodness[f"ks between measured halves, {name}"] + 0.1


@pytest.mark.parametrize(("module", "verb"), [(set_fit, "set"), (reset, "reset")])
def test_fitted_settings_load_into_the_simulator_and_equal_seeds_give_equal_fits(module: Any, verb: str) -> None:
    rows = simulated_rows(verb)
    fit = module.fit(rows, seed=2)
    assert fit.settings == module.fit(rows, seed=2).settings
    switching = with_settings(fit.settings).switching
    for key, value in fit.settings.items():
        assert getattr(switching, key.removeprefix("switching.")) == value


def test_sweeps_that_do_not_switch_are_refused() -> None:
    rows = simulated_rows("set")
    still = replace(rows, final_s=np.full_like(rows.final_s, 165e-6))
    with pytest.raises(DataError, match="raise conductance"):
        set_fit.fit(still)
    with pytest.raises(DataError, match="RESET a cell"):
        reset.fit(still)


LINE = "9700\t200\t{v}\t4\t5000\t5100\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("500\t2.0\t3.2\t7216\t1\n", "line 1 .* has 5 numbers instead of 6"),
        (LINE.format(v=1) * 3, "sweeps 0 of v_sl, v_wl"),
        (LINE.format(v=1) + "9700\t200\t2\t3\t5000\t5100\n", "sweeps 2 of v_sl, v_wl"),
        (LINE.format(v=1) + "9700\t100\t2\t4\t5000\t5100\n", "2 pulse widths"),
        (LINE.format(v=50), "v_sl is 50 instead of a voltage"),
        ("9700\t200\t1\t4\t0\t5100\n", "r_initial is 0 instead of a resistance"),
        ("9700\t0\t1\t4\t10\t5100\n", "pulse_width is 0 instead of"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "sweep.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        reset.load(tmp_path / "sweep.csv")


def test_a_sweep_ends_where_the_voltage_falls_back_or_the_cell_changes(tmp_path: Path) -> None:
    rows = [(1, 0.0), (1, 0.1), (1, 0.0), (1, 0.1), (2, 0.2), (2, 0.3)]
    text = "".join(f"{cell}\t200\t{v}\t3\t6000\t5000\n" for cell, v in rows)
    (tmp_path / "sweep.csv").write_text(text)
    loaded = load_sweep(tmp_path / "sweep.csv", "v_bl")
    assert loaded.sweep.tolist() == [0, 0, 1, 1, 2, 2]
    assert loaded.cell.tolist() == [0, 0, 0, 0, 1, 1]
    assert (loaded.swept, loaded.held_v, loaded.width_s) == ("line", 3.0, pytest.approx(200e-9))
    assert loaded.ended_early.tolist() == [False, True, False, True, False, False]


def test_models_are_named_and_imported_late() -> None:
    assert {"forming", "set", "reset", "cycling"} <= set(MODELS)
    assert all(path == f"sim_backend.fits.{name}" for name, path in MODELS.items())


def test_a_sweep_goes_no_further_than_the_pulse_that_ends_it() -> None:
    sweeps = Sweeps(np.arange(3.0), np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(
        sweeps.until(sweeps.final_s >= 2.0).final_s, [[1.0, 2.0, np.nan], [1.0, 1.0, 1.0], [2.0, np.nan, np.nan]]
    )


def test_matching_finds_parameters_and_how_well_they_are_known() -> None:
    rng = np.random.default_rng(0)
    cells, normal = rng.normal(3.0, 0.5, 200), rng.standard_normal(4000)
    known = match(
        lambda values: np.quantile(values[0] + values[1] * normal, [0.1, 0.3, 0.5, 0.7, 0.9]),
        lambda pick: np.quantile(cells[pick], [0.1, 0.3, 0.5, 0.7, 0.9]),
        200,
        np.array([2.0, 1.0]),
        rng,
    )
    np.testing.assert_allclose(known[0], [3.0, 0.5], atol=0.1)
    np.testing.assert_allclose(known[1], [0.5 / np.sqrt(200), 0.5 / np.sqrt(400)], rtol=0.7)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no measured data in {DATA}")
def test_no_simulated_cell_stays_where_it_started_when_none_measured_does() -> None:
    fit = set_fit.fit(set_fit.load(DATA / f"{SET_FILES[1]}.csv.gz"))
    last = [name for name in fit.samples if name.startswith("conductance")][-1]
    measured_s, simulated_s = fit.samples[last]
    assert (simulated_s < measured_s.min()).mean() < 0.01
    assert np.median(simulated_s) == pytest.approx(np.median(measured_s), rel=0.025)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no measured data in {DATA}")
@pytest.mark.parametrize(
    ("module", "name", "quantity"),
    [
        *((set_fit, name, "SET voltage (V)") for name in SET_FILES),
        *((reset, name, "RESET voltage (V)") for name in RESET_FILES),
    ],
)
def test_simulated_sweeps_are_near_the_measured(module: Any, name: str, quantity: str) -> None:
    """As near as 25 cells of the same array are to 25 others."""
    fit = module.fit(module.load(DATA / f"{name}.csv.gz"))
    assert fit.distances[quantity].ks < fit.goodness[f"ks between measured halves, {quantity}"] + 0.1
