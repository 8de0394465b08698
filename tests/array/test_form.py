"""Forming: each cell once, verified, and what does not form is in the mask."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_cells import FakeCells, fail_at
from hypothesis import given
from hypothesis import strategies as st
from small_arrays import pristine_sim

from experiments.array.bench import Bench
from experiments.array.form import form, plan, ramp_v
from experiments.array.settings import FormSettings
from hil.backend import Limits
from hil.errors import ConfigError, DeviceError, LimitError
from hil.fault_map import Fault

SHAPE = (16, 16)
ALL = np.ones(SHAPE, np.bool_)
MakeBench = Callable[..., Bench]


def highest_v(bench: Bench) -> float:
    return max(operation.voltage_v for operation in bench.history.operations if operation.verb == "pulse")


def test_uniform_gives_every_cell_one_pulse_and_a_read(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    bench = make_bench(cells, cells_per_step=40)
    found = form(bench, ALL, FormSettings())
    assert found.mask_ok.all()
    assert not found.faults.any()
    assert (cells.pulsed["form"] == 1).all()
    assert bench.history.read_since_pulse.all()
    assert found.summary["yield"] == 1.0
    np.testing.assert_allclose(bench.history.last_conductance_s, cells.true_s, rtol=0.03)


@pytest.mark.parametrize("mode", ["uniform", "ramp", "sparsity"])
def test_a_formed_cell_is_left_alone(make_bench: MakeBench, mode: str) -> None:
    cells = FakeCells(SHAPE, formed=False)
    before = np.zeros(SHAPE, np.bool_)
    before[:, ::3] = True
    cells.is_formed |= before
    cells.true_s[before] = 10e-6
    found = form(make_bench(cells), ALL, FormSettings(mode=mode))  # type: ignore[arg-type]
    assert not cells.pulsed["form"][before].any()
    assert not cells.formed_again.any()
    assert found.summary["cells_formed_before"] == before.sum()


def test_only_the_mask_is_touched(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    mask = np.zeros(SHAPE, np.bool_)
    mask[3, 4:9] = True
    found = form(make_bench(cells), mask, FormSettings())
    np.testing.assert_array_equal(cells.pulsed["form"] > 0, mask)
    np.testing.assert_array_equal(found.mask_ok, mask)


def test_cells_that_do_not_form_are_in_the_mask_and_had_one_pulse(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    cells.stuck[2:4] = True
    found = form(make_bench(cells), ALL, FormSettings())
    np.testing.assert_array_equal(found.mask_ok, ~cells.stuck)
    np.testing.assert_array_equal(found.faults, np.where(cells.stuck, Fault.UNFORMED, 0))
    assert cells.pulsed["form"].max() == 1
    assert found.summary["cells_unformed"] == 32


def test_a_ramp_finds_the_forming_voltage_of_each_cell(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    cells.forms_at_v[0, 0] = 4.5
    found = form(make_bench(cells), ALL, FormSettings(mode="ramp"))
    at_v = found.results["formed_at_v"]
    assert np.isnan(at_v[0, 0])
    assert found.faults[0, 0] == Fault.UNFORMED
    rest = at_v[cells.is_formed]
    excess_v = rest - np.maximum(cells.forms_at_v[cells.is_formed], 3.0)
    assert excess_v.min() >= -1e-9
    assert excess_v.max() < 0.05 + 1e-9
    assert not cells.formed_again.any()


def test_a_pulse_that_nobody_confirmed_is_repeated_at_its_own_voltage(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    cells.forms_at_v[:] = 3.62
    bench = make_bench(cells)
    cells.fail = fail_at(2 + 2 * 5, DeviceError("broken", fix="mend it"), applied=False)
    ramp = FormSettings(mode="ramp")
    with pytest.raises(DeviceError):
        form(bench, ALL, ramp)
    cells.fail = lambda call, applied: None
    bench.read_uncertain()
    form(bench, ALL, ramp)
    given_v = [operation.voltage_v for operation in bench.history.operations if operation.verb == "pulse"]
    assert given_v == pytest.approx([3.0, 3.05, 3.1, 3.15, 3.2, 3.25, *np.arange(3.25, 3.66, 0.05)])


def test_a_cell_that_gives_no_reading_is_not_pulsed(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    cells.true_s[4, 4] = np.nan
    found = form(make_bench(cells), ALL, FormSettings(mode="ramp"))
    assert not cells.pulsed["form"][4, 4]
    assert not found.mask_ok[4, 4]
    assert found.mask_ok.sum() == ALL.size - 1


@given(st.floats(0.1, 5), st.floats(0.01, 3), st.floats(0.001, 1))
def test_no_voltage_of_a_ramp_is_above_its_last(start_v: float, rise_v: float, step_v: float) -> None:
    settings = FormSettings(mode="ramp", v_start_v=start_v, v_stop_v=start_v + rise_v, v_step_v=step_v)
    assert max(ramp_v(settings)) <= settings.v_stop_v


def test_a_ramp_ends_at_its_last_voltage() -> None:
    assert ramp_v(FormSettings(v_start_v=3.0, v_stop_v=3.2, v_step_v=0.05)) == pytest.approx([3, 3.05, 3.1, 3.15, 3.2])
    assert ramp_v(FormSettings(v_start_v=3.0, v_stop_v=3.0)) == [3.0]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_sparsity_comes_within_a_percent_and_never_above_its_ceiling(make_bench: MakeBench, fraction: float) -> None:
    cells = FakeCells((64, 64), formed=False)
    bench = make_bench(cells)
    found = form(bench, np.ones((64, 64), np.bool_), FormSettings(mode="sparsity", target_fraction=fraction))
    assert abs(cells.is_formed.mean() - fraction) <= 0.01
    assert found.summary["yield"] == pytest.approx(cells.is_formed.mean())
    assert found.mask_ok.all()
    assert not cells.formed_again.any()
    assert highest_v(bench) <= 4.0 + 1e-9


def test_a_fraction_that_is_out_of_reach_is_a_result(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    bench = make_bench(cells)
    found = form(bench, ALL, FormSettings(mode="sparsity", target_fraction=0.9, v_stop_v=3.4))
    assert found.mask_ok.sum() == cells.is_formed.sum() < 0.7 * ALL.size
    assert max(
        operation.voltage_v for operation in bench.history.operations if operation.verb == "pulse"
    ) == pytest.approx(3.4)


def test_no_cell_gets_more_pulses_than_its_ceiling(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False)
    cells.stuck[:] = True
    form(make_bench(cells), ALL, FormSettings(mode="ramp", pulses_per_cell_max=3))
    assert (cells.pulsed["form"] == 3).all()


def test_the_ceiling_of_the_session_holds_too(make_bench: MakeBench) -> None:
    cells = FakeCells(SHAPE, formed=False, limits=Limits(0.5, 5.0, 5.0, 1e-2, pulses_per_cell_max=2))
    cells.stuck[:] = True
    found = form(make_bench(cells), ALL, FormSettings(mode="ramp"))
    assert (cells.pulsed["form"] == 2).all()
    assert not found.mask_ok.any()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (FormSettings(voltage_v=6.0), "form voltage 6 V is outside 0 to 5 V"),
        (FormSettings(v_gate_v=6.0), "gate voltage of form 6 V"),
        (FormSettings(width_s=1.0), "form pulse of 1 s"),
        (FormSettings(mode="ramp", v_stop_v=5.5), "form voltage 5.5 V"),
    ],
)
def test_what_is_over_a_limit_is_refused_by_the_plan(settings: FormSettings, words: str) -> None:
    info = FakeCells(SHAPE).info
    with pytest.raises(LimitError, match=words):
        plan(ALL, settings, info, 100).check(info)


def test_a_falling_ramp_is_refused() -> None:
    with pytest.raises(ConfigError, match="below v_start_v"):
        plan(ALL, FormSettings(mode="ramp", v_stop_v=2.0), FakeCells(SHAPE).info, 100)


def test_progress_tells_cells_and_yield(make_bench: MakeBench) -> None:
    told: list[tuple[object, ...]] = []
    bench = make_bench(FakeCells(SHAPE, formed=False), cells_per_step=64, progress=lambda *state: told.append(state))
    form(bench, ALL, FormSettings())
    assert told == [("form", 0, 256), *(("form", done, 256, "yield 100.00 %") for done in (64, 128, 192, 256))]


def test_the_simulated_array_has_the_statistics_of_its_preset(make_bench: MakeBench) -> None:
    bench = make_bench(pristine_sim(64, 64))
    found = form(bench, np.ones((64, 64), np.bool_), FormSettings())
    assert found.summary["yield"] > 0.99
    assert found.summary["mean_s"] == pytest.approx(14.25e-6, rel=0.03)
    assert found.summary["sigma_difference_s"] == pytest.approx(6.61e-6, rel=0.06)
