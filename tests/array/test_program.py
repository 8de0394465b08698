"""Programming: near the target, within the budget, and what does not get there is in the mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_cells import FakeCells

from experiments.array.bench import Bench
from experiments.array.program import plan, program
from experiments.array.settings import ProgramSettings
from hil.backend import Pulse
from hil.errors import LimitError
from hil.fault_map import Fault

SHAPE = (8, 8)
ALL = np.ones(SHAPE, np.bool_)
GRADIENT_S = np.linspace(2e-6, 25e-6, 64, dtype=np.float32).reshape(SHAPE)
MakeBench = Callable[..., Bench]
BOTH = pytest.mark.parametrize("mode", ["ispp", "pi"])


def settings(**changes: Any) -> ProgramSettings:
    return ProgramSettings(**changes)


@BOTH
def test_a_gradient_is_reached(make_bench: MakeBench, mode: str) -> None:
    cells = FakeCells(SHAPE)
    bench = make_bench(cells)
    found = program(bench, ALL, settings(mode=mode), GRADIENT_S)
    assert found.mask_ok.mean() >= 0.98
    assert (np.abs(cells.true_s - GRADIENT_S) <= 1e-6).mean() >= 0.98
    pulses = cells.pulsed["set"] + cells.pulsed["reset"]
    assert pulses.max() <= 60
    assert found.summary["pulses_max"] == pulses.max()
    assert found.summary["pulses_median"] == np.median(pulses) <= 20
    np.testing.assert_array_equal(found.mask_ok, np.abs(bench.history.last_conductance_s - GRADIENT_S) <= 1e-6)


@BOTH
def test_cells_that_cannot_get_there_are_in_the_mask(make_bench: MakeBench, mode: str) -> None:
    cells = FakeCells(SHAPE)
    cells.stuck[5] = True
    cells.true_s[5] = 12e-6
    target_s = np.full(SHAPE, 20e-6, np.float32)
    found = program(make_bench(cells), ALL, settings(mode=mode), target_s)
    assert not found.mask_ok[5].any()
    assert found.mask_ok[~cells.stuck].mean() > 0.95
    assert (cells.pulsed["set"] + cells.pulsed["reset"]).max() <= 60


def test_a_stuck_cell_is_given_up_at_the_highest_amplitude(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE)
    cells.stuck[:] = True
    cells.true_s[:] = 5e-6
    program(make_bench(cells), ALL, settings(), np.full(SHAPE, 20e-6, np.float32))
    assert cells.pulsed["set"].max() < 15


def test_a_cell_without_target_and_one_outside_the_mask_are_left_alone(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE)
    target_s, mask = GRADIENT_S.copy(), ALL.copy()
    target_s[:, 0], mask[:, 1] = np.nan, False
    found = program(make_bench(cells), mask, settings(), target_s)
    pulses = cells.pulsed["set"] + cells.pulsed["reset"]
    assert not pulses[:, :2].any()
    assert found.summary["cells"] == 6 * 8
    assert not found.mask_ok[:, :2].any()


def test_an_unformed_cell_is_not_pulsed(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE)
    cells.is_formed[3], cells.true_s[3] = False, 0.1e-6
    found = program(make_bench(cells), ALL, settings(), GRADIENT_S)
    assert not cells.pulsed["set"][3].any()
    assert (found.faults[3] == Fault.UNFORMED).all()
    assert found.summary["cells_unformed"] == 8
    assert found.summary["fraction_ok"] > 0.95


def test_a_cell_that_gives_no_reading_is_not_pulsed(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE)
    bench = make_bench(cells)
    bench.pulse(ALL, Pulse("set", 2.0, 1.2, 2e-7), "before")
    cells.true_s[3, 3] = np.nan
    found = program(bench, ALL, settings(), GRADIENT_S)
    assert bench.history.pulse_count[3, 3] == 1
    assert not found.mask_ok[3, 3]


def test_a_cell_in_place_is_not_pulsed(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, noise=0.0)
    found = program(make_bench(cells), ALL, settings(), cells.true_s.astype(np.float32))
    assert not cells.pulsed["set"].any()
    assert found.mask_ok.all()


def test_the_budget_holds(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, cycle=0.5)
    found = program(make_bench(cells), ALL, settings(pulses_per_cell_max=7), GRADIENT_S)
    assert (cells.pulsed["set"] + cells.pulsed["reset"]).max() == 7
    assert not found.mask_ok.all()


def test_cells_with_equal_amplitudes_share_a_pulse(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, spread=0.0, cycle=0.0, noise=0.0)
    cells.true_s[:] = 2e-6
    bench = make_bench(cells)
    program(bench, ALL, settings(), np.full(SHAPE, 20e-6, np.float32))
    pulses = [operation for operation in bench.history.operations if operation.verb == "pulse"]
    assert {operation.n_cells for operation in pulses} == {64}
    steps = np.array([o.v_gate_v if o.kind == "set" else o.voltage_v for o in pulses]) / 0.04
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)


@pytest.mark.parametrize(("target", "example"), [(40e-6, "4e-05"), (0.5e-6, "5e-07")])
def test_a_target_out_of_reach_is_refused_before_anything_is_applied(target: float, example: str) -> None:
    target_s = GRADIENT_S.copy()
    target_s[2, 3] = target_s[4, 5] = target
    with pytest.raises(LimitError, match=rf"2 of 64 targets .* such as {example} S of cell \(2, 3\)"):
        plan(ALL, settings(), FakeCells(SHAPE).info, 100, target_s)


def test_no_target_at_all_is_refused() -> None:
    with pytest.raises(LimitError, match="no cell of the region has a target"):
        plan(ALL, settings(), FakeCells(SHAPE).info, 100, np.full(SHAPE, np.nan, np.float32))
