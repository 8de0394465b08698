"""Health: injected faults are found and named, and no healthy cell is accused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_array import FakeArray
from verbs import run_verb

from experiments.array.health import odd_lines
from experiments.array.settings import HealthSettings
from hil.fault_map import Fault, FaultMap
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

SHAPE = (16, 16)
MASK = np.ones(SHAPE, np.bool_)
STRESS = HealthSettings(stress=True)


def test_a_healthy_array_has_no_fault_and_keeps_its_state(tmp_path: Path) -> None:
    array = FakeArray(SHAPE)
    before = array.conductance_s.copy()
    outcome = run_verb(tmp_path, array, "health", MASK, HealthSettings())
    assert not outcome.faults.any()
    assert outcome.mask_ok.all()
    np.testing.assert_array_equal(array.conductance_s, before)


def test_cells_are_named_by_what_they_conduct(tmp_path: Path) -> None:
    array = FakeArray(SHAPE)
    array.conductance_s[1, 2], array.conductance_s[3, 4] = 0.05e-6, 100e-6
    array.noisy[5, 6] = True
    expected = np.zeros(SHAPE, np.uint8)
    expected[1, 2], expected[3, 4], expected[5, 6] = Fault.UNFORMED, Fault.STUCK_ON, Fault.NOISY
    outcome = run_verb(tmp_path, array, "health", MASK, HealthSettings())
    np.testing.assert_array_equal(outcome.faults, expected)
    np.testing.assert_array_equal(outcome.mask_ok, expected == 0)
    assert outcome.summary["cells_healthy"] == 253
    expected[1, 2] = Fault.STUCK_OFF
    outcome = run_verb(tmp_path, array, "health", MASK, HealthSettings(assume_formed=True))
    np.testing.assert_array_equal(outcome.faults, expected)


def test_lines_are_named_and_their_cells_are_not_accused_of_more(tmp_path: Path) -> None:
    array = FakeArray(SHAPE, lines={"open_rows": [2], "open_cols": [5], "short_rows": [7], "short_cols": [11]})
    outcome = run_verb(tmp_path, array, "health", MASK, HealthSettings())
    assert FaultMap(outcome.faults).lines() == {"row_open": [2], "col_open": [5], "row_short": [7], "col_short": [11]}
    rest = np.ones(SHAPE, np.bool_)
    rest[[2, 7]] = rest[:, [5, 11]] = False
    assert not outcome.faults[rest].any()
    line_faults = Fault.ROW_OPEN | Fault.COL_OPEN | Fault.ROW_SHORT | Fault.COL_SHORT
    assert not (outcome.faults & ~np.uint8(line_faults)).any()


def test_stress_tells_stuck_cells_from_low_and_high_ones(tmp_path: Path) -> None:
    array = FakeArray(SHAPE)
    array.conductance_s[0, 0] = 60e-6  # high, but it switches
    array.conductance_s[0, 1] = 0.2e-6  # low, but it switches
    array.conductance_s[0, 2], array.stuck[0, 2] = 12e-6, True  # looks healthy, and does not RESET
    array.conductance_s[0, 3], array.stuck[0, 3] = 1e-6, True  # conducts a little, and does not SET
    array.conductance_s[0, 4], array.stuck[0, 4] = 0.05e-6, True  # never formed, or stuck off
    array.conductance_s[0, 5] = 30e-6  # RESETs to a level that SET reaches, too: it switches
    array.set_at_v[0, 5], array.off_s = 9.0, np.full(SHAPE, 2e-6)
    array.off_s[0, 5] = 12e-6
    expected = np.zeros(SHAPE, np.uint8)
    expected[0, 2:5] = Fault.STUCK_ON, Fault.STUCK_OFF, Fault.UNFORMED
    np.testing.assert_array_equal(run_verb(tmp_path, array, "health", MASK, STRESS).faults, expected)


def test_stress_spares_the_cells_of_broken_lines(tmp_path: Path) -> None:
    array = FakeArray(SHAPE, lines={"short_rows": [7]})
    run_verb(tmp_path, array, "health", MASK, STRESS)
    assert not array.n_set[7].any()
    assert (np.delete(array.n_set, 7, axis=0) == 1).all()


def test_an_unformed_array_has_unformed_cells_and_no_open_lines(tmp_path: Path) -> None:
    array = FakeArray(SHAPE)
    array.conductance_s[:] = 0.1e-6
    outcome = run_verb(tmp_path, array, "health", MASK, HealthSettings())
    assert (outcome.faults == Fault.UNFORMED).all()


@pytest.mark.parametrize("formed_share", [0.2, 0.5, 0.8])
def test_sparse_arrays_have_no_open_lines(formed_share: float) -> None:
    """Half of the cells unformed is a state of this array, not a fault of its lines."""
    rng = np.random.default_rng(1)
    accused = sum(
        int(odd_lines(rng.random((32, 32)) > formed_share, np.ones((32, 32), np.bool_), axis, 0.9).sum())
        for axis in (0, 1)
        for _ in range(200)
    )
    assert accused == 0


def test_a_region_says_nothing_of_the_cells_outside_it(tmp_path: Path) -> None:
    array = FakeArray(SHAPE, lines={"open_rows": [2]})
    region = np.zeros(SHAPE, np.bool_)
    region[:8, :8] = True
    outcome = run_verb(tmp_path, array, "health", region, HealthSettings())
    assert (outcome.faults[2, :8] == Fault.ROW_OPEN).all()
    assert not outcome.faults[~region].any()
    assert not outcome.mask_ok[~region].any()


@pytest.mark.parametrize("stress", [False, True])
def test_faults_of_the_simulator_are_found_and_named(stress: bool, tmp_path: Path) -> None:
    """Against the faults that the simulated chip was drawn with."""
    settings = SimSettings(
        rows=64,
        cols=64,
        faults={"stuck_on": 0.01, "stuck_off": 0.01, "noisy": 0.01, "line_open": 0.02, "line_short": 0.02},
    )
    backend = SimBackend(settings, seed=5)
    mask = np.ones((64, 64), np.bool_)
    outcome = run_verb(tmp_path, backend, "health", mask, HealthSettings(stress=stress, assume_formed=True))
    truth = true_faults(backend)
    wrong = outcome.faults != truth
    assert (wrong & (truth == 0)).sum() <= 2  # of 3600 healthy cells; a few have telegraph noise
    assert (wrong & (truth != 0)).sum() <= 0.02 * (truth != 0).sum()


def true_faults(backend: SimBackend) -> np.ndarray:
    """What the simulated chip was drawn with, as a fault map."""
    drawn = backend._chip.faults
    kinds = np.array([0, Fault.STUCK_ON, Fault.STUCK_OFF, Fault.NOISY], np.uint8)
    lines = (
        (drawn.open_rows[:, None], Fault.ROW_OPEN),
        (drawn.open_cols[None, :], Fault.COL_OPEN),
        (drawn.shorted_rows[:, None], Fault.ROW_SHORT),
        (drawn.shorted_cols[None, :], Fault.COL_SHORT),
    )
    found = np.zeros(drawn.kind.shape, np.uint8)
    for line, fault in lines:
        found |= np.where(line, np.uint8(fault), np.uint8(0))
    return np.where(found > 0, found, kinds[drawn.kind])
