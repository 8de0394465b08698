"""Endurance: cells that wear out are found at their cycle, and get no further pulse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_array import LIMITS, FakeArray
from verbs import resume_verb, run_verb

from experiments.array.endurance import record_bytes
from experiments.array.schedule import log_counts, log_times
from experiments.array.settings import EnduranceSettings
from hil.errors import DeviceError, LimitError
from hil.fault_map import Fault
from hil.runfile import open_run

MASK = np.ones((8, 8), np.bool_)


def test_cells_that_do_not_fail_have_all_cycles_and_a_window(tmp_path: Path) -> None:
    array = FakeArray()
    outcome = run_verb(tmp_path, array, "endurance", MASK, EnduranceSettings(n_cycles=30))
    assert (array.n_set == 30).all()
    assert outcome.mask_ok.all()
    assert outcome.results["endurance_cycle"].tolist() == log_counts(30, 5, 10).tolist()
    assert outcome.summary["window_last_median"] == pytest.approx(7, rel=0.03)
    assert outcome.summary["pulses_per_cell_max"] == 60


def test_worn_cells_are_found_named_and_left_alone(tmp_path: Path) -> None:
    array = FakeArray()
    array.wear_after = np.full((8, 8), np.inf)
    array.wear_after[0, 0] = 4  # sticks where RESET left it
    array.stuck[1, 1] = True
    array.conductance_s[1, 1] = 14e-6
    outcome = run_verb(tmp_path, array, "endurance", MASK, EnduranceSettings(n_cycles=20))
    bad = np.zeros_like(MASK)
    bad[0, 0] = bad[1, 1] = True
    np.testing.assert_array_equal(outcome.mask_ok, ~bad)
    assert outcome.faults[0, 0] == Fault.STUCK_OFF or outcome.faults[0, 0] == Fault.STUCK_ON
    assert outcome.faults[1, 1] == Fault.STUCK_ON
    assert outcome.results["failed_at_cycle"][bad].tolist() == [4, 1]
    assert array.n_set[0, 0] == 4
    assert array.n_set[1, 1] == 1
    assert (array.n_set[~bad] == 20).all()


def test_a_run_ends_when_no_cell_is_left(tmp_path: Path) -> None:
    array = FakeArray()
    array.stuck[:] = True
    outcome = run_verb(tmp_path, array, "endurance", MASK, EnduranceSettings(n_cycles=1000))
    assert array.calls == 4
    assert not outcome.mask_ok.any()


def test_a_pulse_that_is_given_again_does_not_take_a_cell_over_its_ceiling(tmp_path: Path) -> None:
    settings, array = EnduranceSettings(n_cycles=5), FakeArray(fail_at=5)  # SET of the second cycle
    array.limits = replace(LIMITS, pulses_per_cell_max=10)
    with pytest.raises(DeviceError):
        run_verb(tmp_path, array, "endurance", MASK, settings)
    array.fail_at = None
    outcome = resume_verb(next(tmp_path.glob("*.h5")), array, "endurance", MASK, settings)
    assert (array.n_set <= 10).all()
    assert outcome.summary["pulses_per_cell_max"] <= 10
    assert outcome.summary["cells_at_ceiling"] == MASK.size
    assert outcome.summary["cycles_of_worst_cell"] == 4
    assert not outcome.mask_ok.any()


def test_a_record_that_would_grow_too_large_is_refused(tmp_path: Path) -> None:
    array = FakeArray()
    with pytest.raises(LimitError, match="would record"):
        run_verb(tmp_path, array, "endurance", MASK, EnduranceSettings(n_cycles=1_000_000, record_max_bytes=10**8))
    assert array.calls == 0


def test_the_estimate_of_the_record_is_what_its_rows_take(tmp_path: Path) -> None:
    """Else the ceiling means nothing."""
    settings = EnduranceSettings(n_cycles=60)
    run_verb(tmp_path, FakeArray(), "endurance", MASK, settings)
    with open_run(next(tmp_path.glob("*.h5"))) as run:
        tables = [run.table(name) for name in ("operations", "masks", "outcomes", "readings")]
        specs = [run.table_spec(name) for name in ("operations", "masks", "outcomes", "readings")]
    sizes = [sum(np.dtype(c.dtype).itemsize * int(np.prod(c.shape)) for c in spec.columns) + 8 for spec in specs]
    stored = sum(size * len(table["op"]) for size, table in zip(sizes, tables, strict=True))
    assert record_bytes(MASK, settings, 1) == pytest.approx(stored, rel=0.15)


def test_schedules_rise_to_their_last_value() -> None:
    assert log_counts(1, 5, 10).tolist() == [1]
    assert log_counts(7, 5, 10).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert log_counts(1000, 1, 1).tolist() == [1, 10, 100, 1000]
    np.testing.assert_allclose(log_times(1, 100, 2), [1, 10**0.5, 10, 10**1.5, 100])
    assert log_times(5, 5, 3).tolist() == [5]
