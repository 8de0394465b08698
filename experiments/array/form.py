"""Form cells: the first pulse of their life, with the current limited by the gate of the select transistor.

Three ways: one uniform voltage for all (random weights, as the paper's array was made), a ramp until each cell is
formed (its forming voltage), and a fraction of all cells (the voltage chooses the sparsity). A cell that conducts as a
formed one does is left alone, always: each cell is read before its first pulse and after every one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench, steps
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan, PlannedPulses
from experiments.array.read import conductance_summary, n_steps, pair_summary
from experiments.array.settings import FormSettings
from hil.backend import BackendInfo, Pulse
from hil.errors import ConfigError
from hil.fault_map import Fault

Mask = NDArray[np.bool_]

#: two voltages nearer than this are one: sums of steps carry rounding
_SAME_V = 1e-9


def plan(mask: Mask, settings: FormSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `form` would do at most.

    Raises:
        ConfigError: a ramp that ends below its start.
    """
    del info
    n = int(mask.sum())
    if settings.mode != "uniform" and settings.v_stop_v < settings.v_start_v:
        raise ConfigError(
            f"array.form.v_stop_v = {settings.v_stop_v:g} V is below v_start_v = {settings.v_start_v:g} V",
            fix="let the ramp rise",
        )
    ramp = len(ramp_v(settings))
    per_cell, voltage_v, text = {
        "uniform": (1, settings.voltage_v, f"one pulse of {settings.voltage_v:g} V on each cell that is not formed"),
        "ramp": (
            ramp,
            settings.v_stop_v,
            f"pulses from {settings.v_start_v:g} to {settings.v_stop_v:g} V in steps of {settings.v_step_v:g} V until "
            "each cell is formed",
        ),
        "sparsity": (
            settings.pulses_per_cell_max,
            settings.v_stop_v,
            f"rising pulses from {settings.v_start_v:g} to at most {settings.v_stop_v:g} V until "
            f"{100 * settings.target_fraction:g} % of the cells are formed",
        ),
    }[settings.mode]
    per_cell = min(per_cell, settings.pulses_per_cell_max)
    return Plan(
        text=text,
        n_cells=n,
        pulses=(PlannedPulses("form", voltage_v, settings.v_gate_v, settings.width_s, per_cell),),
        reads_per_cell=1 + per_cell,
        primitives=(1 + 2 * per_cell) * n_steps(n, cells_per_step),
    )


def ramp_v(settings: FormSettings) -> list[float]:
    """Voltages of a ramp, the last one included."""
    n = math.floor((settings.v_stop_v - settings.v_start_v) / settings.v_step_v + _SAME_V)
    # Rounding of the sum must not take the last one over a limit that equals it.
    return [min(settings.v_start_v + k * settings.v_step_v, settings.v_stop_v) for k in range(n + 1)]


def form(bench: Bench, mask: Mask, settings: FormSettings) -> Outcome:
    """Form the cells of a mask in the way that `settings.mode` names."""
    {"uniform": _uniform, "ramp": _ramp, "sparsity": _sparsity}[settings.mode](bench, mask, settings)
    history = bench.history
    formed = mask & is_formed(bench, settings)
    missing = mask & ~formed
    pulsed = history.done_count["form"] > 0
    formed_at_v = np.where(formed & pulsed, history.last_voltage_v["form"], np.nan)
    n, n_formed = int(mask.sum()), int(formed.sum())
    enough = settings.mode == "sparsity" and n_formed >= (settings.target_fraction - settings.fraction_tolerance) * n
    summary = {
        "cells": n,
        "cells_formed": n_formed,
        "yield": n_formed / n,
        "cells_unformed": n - n_formed,
        "cells_formed_before": int((formed & ~pulsed).sum()),
        "pulses_per_cell_max": int(history.pulse_count[mask].max()),
        **conductance_summary(history.last_conductance_s[formed]),
        **pair_summary(history.last_conductance_s, formed),
    }
    if settings.mode != "uniform" and np.isfinite(formed_at_v).any():
        summary["formed_at_mean_v"] = float(np.nanmean(formed_at_v))
        summary["formed_at_sigma_v"] = float(np.nanstd(formed_at_v))
    return Outcome(
        mask_ok=mask.copy() if enough else formed,
        faults=np.where(missing, np.uint8(Fault.UNFORMED), np.uint8(0)),
        summary=summary,
        results={"formed": formed} if settings.mode == "uniform" else {"formed": formed, "formed_at_v": formed_at_v},
    )


def is_formed(bench: Bench, settings: FormSettings) -> Mask:
    """Cells that conduct as a formed one does; a NaN does not."""
    return bench.history.last_conductance_s > settings.formed_above_s


def _uniform(bench: Bench, mask: Mask, settings: FormSettings) -> None:
    def once(part: Mask) -> None:
        _pulse(bench, part & (bench.history.done_count["form"] == 0), settings.voltage_v, settings)

    _in_steps(bench, mask, settings, once)


def _ramp(bench: Bench, mask: Mask, settings: FormSettings) -> None:
    def rise(part: Mask) -> None:
        for voltage_v in ramp_v(settings):
            if (
                not _pulse(bench, part & ~_had(bench, voltage_v), voltage_v, settings)
                and not _waiting(bench, part, settings).any()
            ):
                break

    _in_steps(bench, mask, settings, rise)


def _in_steps(bench: Bench, mask: Mask, settings: FormSettings, treat: Callable[[Mask], None]) -> None:
    """Read, treat and thereby verify one group of rows after the other: a kill leaves one group half-way."""
    total, done, n_formed = int(mask.sum()), 0, 0
    bench.progress("form", done, total)
    for part in steps(mask, bench.cells_per_step):
        bench.read_unknown(part)
        treat(part)
        done += int(part.sum())
        n_formed += int((part & is_formed(bench, settings)).sum())
        bench.progress("form", done, total, f"yield {100 * n_formed / done:.2f} %")


def _sparsity(bench: Bench, mask: Mask, settings: FormSettings) -> None:
    """Raise the voltage for all cells together, by smaller steps the nearer the fraction comes."""
    bench.read_unknown(mask)
    total = int(mask.sum())
    target = settings.target_fraction
    enough = target - 0.5 * settings.fraction_tolerance
    had_v = bench.history.last_voltage_v["form"][mask]
    # A resumed run goes on at its last voltage: a pulse that only some cells had is completed.
    voltage_v = float(np.nanmax(had_v)) if np.isfinite(had_v).any() else settings.v_start_v
    step_v = settings.v_step_min_v if np.isfinite(had_v).any() else settings.v_step_v
    before = _fraction(bench, mask, settings)
    while before < enough and voltage_v <= settings.v_stop_v + _SAME_V:
        bench.progress("form", round(before * total), round(target * total))
        if not _waiting(bench, mask, settings).any():
            break
        _pulse(bench, mask & ~_had(bench, voltage_v), min(voltage_v, settings.v_stop_v), settings)
        now = _fraction(bench, mask, settings)
        per_volt = (now - before) / step_v
        # Half of the way that the last step promises: forming voltages crowd towards their mean.
        wanted_v = 0.5 * (target - now) / per_volt if per_volt > 0 else settings.v_step_v
        step_v = min(settings.v_step_v, max(settings.v_step_min_v, wanted_v))
        if voltage_v < settings.v_stop_v < voltage_v + step_v:
            step_v = settings.v_stop_v - voltage_v
        voltage_v, before = voltage_v + step_v, now
    bench.progress("form", round(target * total), round(target * total))


def _fraction(bench: Bench, mask: Mask, settings: FormSettings) -> float:
    return float((mask & is_formed(bench, settings)).sum() / mask.sum())


def _waiting(bench: Bench, part: Mask, settings: FormSettings) -> Mask:
    """Cells that are not formed and may have another pulse."""
    # A cell that gives no reading would be pulsed blindly.
    known = bench.history.read_since_pulse
    return part & known & ~is_formed(bench, settings) & (bench.pulses_left(settings.pulses_per_cell_max) > 0)


def _had(bench: Bench, voltage_v: float) -> Mask:
    """Cells that had a pulse of that voltage or more, for sure."""
    # The voltages of a cell rise, and only its newest pulse may be unconfirmed.
    above_v = bench.history.last_voltage_v["form"] - voltage_v
    return np.where(bench.history.confirmed, above_v >= -_SAME_V, above_v > _SAME_V)


def _pulse(bench: Bench, part: Mask, voltage_v: float, settings: FormSettings) -> bool:
    """One pulse on the unformed cells of a part, and the read that tells which of them are formed now."""
    cells = _waiting(bench, part, settings)
    if not cells.any():
        return False
    bench.pulse(cells, Pulse("form", voltage_v, settings.v_gate_v, settings.width_s), "form")
    bench.read(cells, "verify")
    return True
