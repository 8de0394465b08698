"""Endurance: cycles of SET and RESET until cells fail, read at cycles that are even on a logarithmic axis.

A cell whose window between SET and RESET has closed is taken out at once and gets no further pulse. A resumed run
goes on where each cell stood; a pulse that nobody confirmed is applied again, lest a cell seem to have failed for want
of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan, PlannedPulses
from experiments.array.read import n_steps
from experiments.array.schedule import log_counts
from experiments.array.settings import EnduranceSettings
from experiments.array.trajectory import Mask, Trajectory, cell_places, counts, on_map
from hil.backend import BackendInfo, Pulse
from hil.errors import LimitError
from hil.fault_map import Fault

_HIGH, _LOW = "endurance high", "endurance low"
#: bytes in the run file of one primitive (operation and outcome), of one array row of its mask, and of one reading
_PULSE_BYTES, _ROW_BYTES, _READING_BYTES = 360, 14, 24


def plan(mask: Mask, settings: EnduranceSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `endurance` would do at most.

    Raises:
        LimitError: the record of so many cycles would grow too large.
    """
    del info
    n, looks = int(mask.sum()), len(_read_cycles(settings))
    needed_bytes = record_bytes(mask, settings, n_steps(n, cells_per_step))
    if needed_bytes > settings.record_max_bytes:
        raise LimitError(
            f"{settings.n_cycles} cycles of {n} cells would record {needed_bytes / 1e9:.1f} GB, "
            f"array.endurance.record_max_bytes allows {settings.record_max_bytes / 1e9:.1f} GB",
            fix="use fewer cycles or cells in fewer rows, or raise it",
        )
    return Plan(
        text=f"{settings.n_cycles} cycles of SET and RESET, read in {looks} of them",
        n_cells=n,
        pulses=(
            PlannedPulses("set", settings.set_v, settings.set_gate_v, settings.width_s, settings.n_cycles),
            PlannedPulses("reset", settings.reset_v, settings.reset_gate_v, settings.width_s, settings.n_cycles),
        ),
        pulses_needed=2 * settings.n_cycles,
        reads_per_cell=2 * looks,
        primitives=2 * (settings.n_cycles + looks) * n_steps(n, cells_per_step),
    )


def record_bytes(mask: Mask, settings: EnduranceSettings, n_parts: int) -> int:
    """What the rows of a whole run take in its file, about; `n_parts` primitives make one pulse on all cells."""
    rows, looks = int(mask.any(axis=1).sum()), len(_read_cycles(settings))
    per_pulse = _PULSE_BYTES * n_parts + rows * (_ROW_BYTES + -(-mask.shape[1] // 8))
    per_look = _PULSE_BYTES * n_parts + int(mask.sum()) * _READING_BYTES
    return 2 * (settings.n_cycles * per_pulse + looks * per_look)


def _read_cycles(settings: EnduranceSettings) -> NDArray[np.int64]:
    return log_counts(settings.n_cycles, settings.per_decade, settings.every_until)


def endurance(bench: Bench, mask: Mask, settings: EnduranceSettings) -> Outcome:
    """Cycle the cells of a mask; a resumed run goes on at the cycle that each cell had reached."""
    cycles = _read_cycles(settings)
    look_of = {int(cycle): k for k, cycle in enumerate(cycles)}
    pulses = {
        _HIGH: Pulse("set", settings.set_v, settings.set_gate_v, settings.width_s),
        _LOW: Pulse("reset", settings.reset_v, settings.reset_gate_v, settings.width_s),
    }
    n_read = {name: counts(bench, name) for name in pulses}
    newest_s = {name: _newest(bench, name, mask) for name in pulses}
    n_done = bench.history.done_count
    active, last_cycle = mask & ~_failed(bench, mask, settings), _last_cycle(bench)
    # From the last cycle whose pulses all cells had: its reading may be missing.
    first = int(n_done["reset"][active].min(initial=settings.n_cycles))
    for cycle in range(max(first, 1), settings.n_cycles + 1):
        if not active.any():
            break
        active &= cycle <= last_cycle
        bench.progress("endurance", cycle - 1, settings.n_cycles, f"{int(active.sum())} cells left")
        look = look_of.get(cycle)
        for name, pulse in pulses.items():
            # What each cell had so far tells which cells of an interrupted cycle still lack this pulse or reading.
            bench.pulse(active & (n_done[pulse.kind] < cycle), pulse, "endurance")
            if look is not None:
                rest = active & (n_read[name] <= look)
                newest_s[name][rest] = bench.read(rest, name)[rest]
        if look is not None:
            active &= ~_closed(newest_s[_HIGH], newest_s[_LOW], settings)
    bench.progress("endurance", settings.n_cycles, settings.n_cycles)
    return _outcome(bench, mask, settings, cycles)


def _last_cycle(bench: Bench) -> NDArray[np.int64]:
    """Cycle that each cell can reach: pulses that nobody confirmed are given again, and count all the same."""
    history = bench.history
    unconfirmed = history.pulse_count.astype(np.int64) - history.done_count["set"] - history.done_count["reset"]
    return (bench.info.limits.pulses_per_cell_max - unconfirmed) // 2


def _closed(high_s: NDArray[np.float32], low_s: NDArray[np.float32], settings: EnduranceSettings) -> NDArray[np.bool_]:
    """Whether the window between both is too small."""
    return high_s < np.float32(settings.window_min) * np.maximum(low_s, 0)


def _newest(bench: Bench, name: str, mask: Mask) -> NDArray[np.float32]:
    """Newest reading of each cell from an earlier session, NaN without one; as exact as the file keeps it."""
    found = Trajectory.of(bench, name, mask)
    n = np.isfinite(found.conductance_s).sum(axis=0)
    with_nothing = np.vstack([np.full((1, len(n)), np.nan, np.float32), found.conductance_s])
    return on_map(with_nothing[n, np.arange(len(n))], found.cells, bench.shape)


def _windows(bench: Bench, mask: Mask) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Conductance after SET and after RESET, (looks, cells), of all complete looks."""
    high, low = (Trajectory.of(bench, name, mask).conductance_s for name in (_HIGH, _LOW))
    n = min(len(high), len(low))
    return high[:n], low[:n]


def _failed(bench: Bench, mask: Mask, settings: EnduranceSettings) -> Mask:
    """Cells that an earlier session took out."""
    high_s, low_s = _windows(bench, mask)
    return on_map(_closed(high_s, low_s, settings).any(axis=0), np.flatnonzero(mask), bench.shape, False)


def _outcome(bench: Bench, mask: Mask, settings: EnduranceSettings, cycles: NDArray[np.int64]) -> Outcome:
    cells = np.flatnonzero(mask)
    high_s, low_s = _windows(bench, mask)
    closed = _closed(high_s, low_s, settings)
    failed = closed.any(axis=0)
    at = closed.argmax(axis=0)
    failed_at = np.where(failed, cycles[at], 0)
    columns = np.arange(len(cells))
    level_s = np.sqrt(np.maximum(high_s[at, columns], 0) * np.maximum(low_s[at, columns], 0))
    stuck_on = failed & (level_s > settings.middle_s)
    faults = np.where(stuck_on, Fault.STUCK_ON, np.where(failed, Fault.STUCK_OFF, 0)).astype(np.uint8)
    cycles_of_cell = bench.history.done_count["reset"][mask]
    at_ceiling = ~failed & (cycles_of_cell < settings.n_cycles)
    summary = {
        "cells": len(cells),
        "cycles": settings.n_cycles,
        "cycles_of_worst_cell": int(cycles_of_cell.min()),
        "cells_failed": int(failed.sum()),
        "cells_at_ceiling": int(at_ceiling.sum()),
        "cells_stuck_on": int(stuck_on.sum()),
        "cells_stuck_off": int((failed & ~stuck_on).sum()),
        "pulses_per_cell_max": int(bench.history.pulse_count[mask].max()),
    }
    for name, k in (("first", 0), ("last", -1)):
        good = ~failed & np.isfinite(high_s[k]) & (low_s[k] > 0)
        if good.any():
            summary[f"window_{name}_median"] = float(np.median(high_s[k][good] / low_s[k][good]))
    if failed.any():
        summary["failed_at_median_cycle"] = float(np.median(failed_at[failed]))
    return Outcome(
        mask_ok=on_map(~failed & ~at_ceiling, cells, bench.shape, False),
        faults=on_map(faults, cells, bench.shape, 0),
        summary=summary,
        results={
            "cells": cell_places(cells, bench.shape),
            "endurance_cycle": cycles[: len(high_s)],
            "endurance_high_s": high_s,
            "endurance_low_s": low_s,
            "failed_at_cycle": on_map(failed_at, cells, bench.shape, 0),
        },
    )
