"""I-V: ohmic cells are found ohmic, bent curves bent by as much; switching voltages are those of the cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_array import FakeArray
from verbs import run_verb

from experiments.array.iv import fit_ohmic
from experiments.array.settings import IvSettings
from hil.errors import ConfigError, LimitError
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

MASK = np.zeros((8, 8), np.bool_)
MASK[2:6, 1:7] = True


@pytest.mark.parametrize("cubic", [0.0, 0.3, -0.2])
def test_the_cubic_part_of_the_current_is_found(cubic: float, tmp_path: Path) -> None:
    array = FakeArray(cubic=cubic, noise=0.005)
    outcome = run_verb(tmp_path, array, "iv", MASK, IvSettings(v_read_stop_v=0.3))
    found, error = outcome.results["nonlinearity"][MASK], outcome.results["nonlinearity_error"][MASK]
    assert found.mean() == pytest.approx(cubic, abs=0.005)
    assert 0.6 < error.mean() / found.std() < 1.6
    np.testing.assert_allclose(outcome.results["ohmic_s"][MASK], array.conductance_s[MASK], rtol=0.02)
    assert outcome.summary["cells_not_ohmic"] == (0 if cubic == 0 else MASK.sum())
    np.testing.assert_array_equal(outcome.mask_ok, MASK if cubic == 0 else np.zeros_like(MASK))


def test_curves_run_through_both_polarities_where_the_backend_has_them(tmp_path: Path) -> None:
    both = run_verb(tmp_path, FakeArray(), "iv", MASK, IvSettings(n_points=4)).results["iv_voltage_v"][0]
    np.testing.assert_allclose(both, np.linspace(-0.3, 0.3, 9), atol=1e-12)
    one = run_verb(tmp_path, FakeArray(bipolar=False), "iv", MASK, IvSettings(n_points=4)).results["iv_voltage_v"][0]
    np.testing.assert_allclose(one, np.linspace(0, 0.3, 5), atol=1e-12)


def test_an_offset_current_is_not_taken_for_conductance() -> None:
    voltage_v = np.linspace(-0.3, 0.3, 13)
    fit = fit_ohmic(voltage_v, (10e-6 * voltage_v + 5e-7)[:, None])
    assert fit.conductance_s[0] == pytest.approx(10e-6)
    assert fit.nonlinearity[0] == pytest.approx(0.0, abs=1e-9)


def test_a_cell_that_conducts_nothing_has_no_error() -> None:
    fit = fit_ohmic(np.linspace(0, 0.3, 5), np.zeros((5, 1)))
    assert fit.conductance_s[0] == fit.nonlinearity[0] == fit.nonlinearity_error[0] == 0


def test_switching_voltages_are_those_of_the_cells(tmp_path: Path) -> None:
    array = FakeArray()
    array.set_at_v = np.random.default_rng(1).choice([0.9, 1.2, 1.5], array.shape)
    array.reset_at_v = np.random.default_rng(2).choice([0.8, 1.1], array.shape)
    array.set_at_v[2, 1] = 9.0  # never SETs
    array.reset_at_v[3, 3] = 9.0  # never RESETs
    settings = IvSettings(mode="switch", set_start_v=0.6, reset_start_v=0.5)
    outcome = run_verb(tmp_path, array, "iv", MASK, settings)
    switching = MASK.copy()
    switching[2, 1] = switching[3, 3] = False
    np.testing.assert_array_equal(outcome.mask_ok, switching)
    np.testing.assert_allclose(outcome.results["set_at_v"][switching], array.set_at_v[switching], atol=1e-9)
    np.testing.assert_allclose(outcome.results["reset_at_v"][switching], array.reset_at_v[switching], atol=1e-9)
    assert np.isnan(outcome.results["set_at_v"][2, 1])
    assert np.isnan(outcome.results["reset_at_v"][3, 3])
    loop_v = outcome.results["loop_voltage_v"]
    assert outcome.results["loop_conductance_s"].shape == (len(loop_v), MASK.sum())
    assert loop_v.max() == pytest.approx(2.0)
    assert loop_v.min() == pytest.approx(-2.2)


def test_a_cell_that_conducts_too_much_gets_no_further_set(tmp_path: Path) -> None:
    array = FakeArray(on_s=90e-6)
    settings = IvSettings(mode="switch", n_loops=1, set_start_v=1.0, set_stop_v=2.0, reset_start_v=0.5, step_v=0.5)
    outcome = run_verb(tmp_path, array, "iv", MASK, settings)
    assert (array.n_set[MASK] == 2).all()  # 1.0 V, and 1.5 V, which brings it above
    assert outcome.results["loop_conductance_s"].shape[0] == 3 + 4


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (IvSettings(v_read_stop_v=0.6), LimitError, "read voltage 0.6 V"),
        (IvSettings(mode="switch", set_stop_v=5.5), LimitError, "set voltage 5.5 V"),
        (IvSettings(mode="switch", reset_start_v=3.0), ConfigError, "reset_stop_v = 2.2 V is below"),
        (IvSettings(mode="switch", n_loops=100), ConfigError, "pulses_per_cell_max allows 1000"),
    ],
)
def test_what_goes_beyond_limits_is_refused_before_anything_is_applied(
    settings: IvSettings, error: type[Exception], message: str, tmp_path: Path
) -> None:
    array = FakeArray()
    with pytest.raises(error, match=message):
        run_verb(tmp_path, array, "iv", MASK, settings)
    assert array.calls == 0


def test_the_simulator_is_ohmic_and_switches(tmp_path: Path) -> None:
    backend = SimBackend(SimSettings(rows=8, cols=8), seed=3)
    assert run_verb(tmp_path, backend, "iv", MASK, IvSettings(n_average=64)).mask_ok[MASK].mean() > 0.9
    outcome = run_verb(tmp_path, backend, "iv", MASK, IvSettings(mode="switch", step_v=0.2))
    assert outcome.mask_ok[MASK].mean() > 0.9
    assert outcome.summary["on_median_s"] > 3 * outcome.summary["off_median_s"]
