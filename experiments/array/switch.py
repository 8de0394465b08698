"""SET and RESET: trains of equal pulses, each cell read after every one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench, steps
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan, PlannedPulses
from experiments.array.read import conductance_summary, n_steps
from experiments.array.settings import ResetSettings, TrainSettings
from hil.backend import BackendInfo, Pulse, PulseKind

Mask = NDArray[np.bool_]


def plan_set(mask: Mask, settings: TrainSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `set_cells` would do."""
    return _plan("set", mask, settings, info, cells_per_step)


def plan_reset(mask: Mask, settings: ResetSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `reset_cells` would do."""
    return _plan("reset", mask, settings, info, cells_per_step)


def _plan(kind: PulseKind, mask: Mask, settings: TrainSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    del info
    n, per_cell = int(mask.sum()), min(settings.n_pulses, settings.pulses_per_cell_max)
    return Plan(
        text=f"{per_cell} {kind} pulses on each cell, a read after every one",
        n_cells=n,
        pulses=(PlannedPulses(kind, settings.voltage_v, settings.v_gate_v, settings.width_s, per_cell),),
        pulses_needed=per_cell,
        reads_per_cell=1 + per_cell,
        primitives=(1 + 2 * per_cell) * n_steps(n, cells_per_step),
    )


def set_cells(bench: Bench, mask: Mask, settings: TrainSettings) -> Outcome:
    """A train of SET pulses on each cell."""
    return _train("set", bench, mask, settings)


def reset_cells(bench: Bench, mask: Mask, settings: ResetSettings) -> Outcome:
    """A train of RESET pulses on each cell."""
    return _train("reset", bench, mask, settings)


def _train(kind: PulseKind, bench: Bench, mask: Mask, settings: TrainSettings) -> Outcome:
    pulse = Pulse(kind, settings.voltage_v, settings.v_gate_v, settings.width_s)
    history = bench.history
    wanted, total = settings.n_pulses, int(mask.sum()) * settings.n_pulses
    for part in steps(mask, bench.cells_per_step):
        bench.read_unknown(part)
        while (rest := _rest(kind, bench, part, settings)).any():
            bench.pulse(rest, pulse, kind)
            bench.read(rest, "verify")
            done = np.minimum(history.done_count[kind][mask], wanted).sum()
            bench.progress(kind, int(done), total)
    bench.progress(kind, total, total)
    complete = mask & (history.done_count[kind] >= wanted)
    first_s, last_s = history.first_conductance_s, history.last_conductance_s
    summary = {
        "cells": int(mask.sum()),
        "pulses_per_cell": wanted,
        "cells_at_ceiling": int((mask & ~complete).sum()),
        **{f"before_{name}": value for name, value in conductance_summary(first_s[mask]).items()},
        **conductance_summary(last_s[mask]),
    }
    return Outcome(
        mask_ok=complete & ~np.isnan(last_s),
        faults=np.zeros(bench.shape, np.uint8),
        summary=summary,
        results={"before_s": np.where(mask, first_s, np.float32(np.nan))},
    )


def _rest(kind: PulseKind, bench: Bench, part: Mask, settings: TrainSettings) -> Mask:
    """Cells that lack a pulse of the train and may have it."""
    lacking = bench.history.done_count[kind] < settings.n_pulses
    return part & lacking & (bench.pulses_left(settings.pulses_per_cell_max) > 0)
