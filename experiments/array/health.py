"""Health: what is wrong with which cell or line, as a fault map.

From reads alone, a cell that conducts next to nothing is called unformed and one that conducts far too much stuck on;
these are suspicions, since only pulses show whether a cell switches, and reads cannot tell a cell that never formed
from one that is stuck off. With `stress`, each cell of a working line gets one RESET and one SET: one that then
switches is cleared, and one that does not is stuck on or off. The cells lose their state by that.

A row or column is called open or shorted if nearly all of its cells conduct nothing or far too much while other lines
do not look like it. Nothing can be said about lines of an array that is unformed as a whole. Cells of a faulty line
have that fault only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan, PlannedPulses
from experiments.array.read import n_steps
from experiments.array.settings import HealthSettings
from experiments.array.trajectory import Mask, Trajectory, counts, on_map
from hil.backend import BackendInfo, Pulse
from hil.fault_map import COL_FAULTS, ROW_FAULTS, Fault, FaultMap

_READ, _OFF, _ON = "health", "health off", "health on"
#: quartiles of a normal distribution lie so many sigma apart
_QUARTILES = 1.349
#: fewest cells of a line that say anything about it
_LINE_CELLS_MIN = 4
#: standard errors by which a line must differ from the others
_LINE_Z = 5.0


def plan(mask: Mask, settings: HealthSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `health` would do at most."""
    del info
    n = int(mask.sum())
    pulses = (
        PlannedPulses("reset", settings.reset_v, settings.reset_gate_v, settings.width_s, 1),
        PlannedPulses("set", settings.set_v, settings.set_gate_v, settings.width_s, 1),
    )
    stress = settings.stress
    return Plan(
        text=f"read each cell {settings.n_reads} times" + (", then RESET and SET it" if stress else ""),
        n_cells=n,
        pulses=pulses if stress else (),
        pulses_needed=2 if stress else 0,
        reads_per_cell=settings.n_reads + 2 * stress,
        primitives=(settings.n_reads + 4 * stress) * n_steps(n, cells_per_step),
    )


def health(bench: Bench, mask: Mask, settings: HealthSettings) -> Outcome:
    """Make the fault map of the cells of a mask."""
    how = bench.read_settings.model_copy(update={"n_average": 1})
    n_read = counts(bench, _READ)
    for k in range(settings.n_reads):
        bench.progress("health", k, settings.n_reads)
        bench.read(mask & (n_read <= k), _READ, how)
    bench.progress("health", settings.n_reads, settings.n_reads)
    reads_s = Trajectory.of(bench, _READ, mask).conductance_s
    cells = np.flatnonzero(mask)
    mean_s = on_map(reads_s.mean(axis=0, dtype=np.float64), cells, bench.shape)
    sigma_s = on_map(_robust_sigma(reads_s), cells, bench.shape)
    faults = _from_reads(mask, mean_s, sigma_s, settings)
    results = {"mean_s": mean_s, "sigma_s": sigma_s}
    if settings.stress:
        off_s, on_s = _stress(bench, mask & ~faults.having(ROW_FAULTS | COL_FAULTS), settings)
        faults = _from_stress(faults, mean_s, off_s, on_s, settings)
        results |= {"after_reset_s": off_s, "after_set_s": on_s}
    healthy, lines = mask & faults.healthy, faults.lines()
    n = int(mask.sum())
    return Outcome(
        mask_ok=healthy,
        faults=faults.faults,
        summary={
            "cells": n,
            "cells_healthy": int(healthy.sum()),
            "healthy_share": float(healthy.sum() / n),
            **{f"cells_{name}": count for name, count in faults.count().items() if name not in lines},
            **{f"lines_{name}": len(found) for name, found in lines.items()},
            "stressed": settings.stress,
        },
        results=results,
    )


def _robust_sigma(reads_s: NDArray[np.float32]) -> NDArray[np.float64]:
    """Spread of the reads of each cell by their quartiles, so that one odd read does not make a cell noisy."""
    low, high = np.percentile(reads_s, (25, 75), axis=0)
    return np.asarray((high - low) / _QUARTILES, np.float64)


def _from_reads(
    mask: Mask, mean_s: NDArray[np.float64], sigma_s: NDArray[np.float64], settings: HealthSettings
) -> FaultMap:
    low, high = mask & (mean_s < settings.unformed_below_s), mask & (mean_s > settings.on_above_s)
    shorted = mask & (mean_s > settings.short_above_s)
    noisy = mask & (sigma_s > settings.noisy_above * np.maximum(mean_s, settings.noise_reference_s))
    found = FaultMap.healthy_array(mask.shape)  # pyright: ignore[reportArgumentType]
    on_line = np.zeros(mask.shape, np.bool_)
    for odd, axis, fault in (
        (low, 1, Fault.ROW_OPEN),
        (low, 0, Fault.COL_OPEN),
        (shorted, 1, Fault.ROW_SHORT),
        (shorted, 0, Fault.COL_SHORT),
    ):
        line = np.expand_dims(odd_lines(odd, mask, axis, settings.line_share), axis)
        found = found.with_faults(mask & line, fault)
        on_line |= mask & line
    low_fault = Fault.STUCK_OFF if settings.assume_formed else Fault.UNFORMED
    for cells, fault in ((low, low_fault), (high, Fault.STUCK_ON), (noisy, Fault.NOISY)):
        found = found.with_faults(cells & ~on_line, fault)
    return found


def odd_lines(odd: Mask, mask: Mask, axis: int, share_min: float) -> NDArray[np.bool_]:
    """Lines along `axis` nearly all of whose cells are odd, although those of most other lines are not.

    The share of odd cells of the median line is what chance gives; where that is large, as in an unformed array, no
    line stands out.
    """
    n = mask.sum(axis=axis)
    share = odd.sum(axis=axis) / np.maximum(n, 1)
    enough = n >= _LINE_CELLS_MIN
    if not enough.any():
        return enough
    usual = float(np.median(share[enough]))
    some = np.maximum(n, 1)
    # As if one more cell of the line were odd: a spread of zero would make chance impossible.
    usual_with_one = (usual * some + 1) / (some + 1)
    error = np.sqrt(usual_with_one * (1 - usual_with_one) / some)
    return enough & (share >= share_min) & (share - usual > _LINE_Z * error)


def _stress(bench: Bench, mask: Mask, settings: HealthSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Conductance after one RESET and after one SET."""
    halves = (
        (_OFF, Pulse("reset", settings.reset_v, settings.reset_gate_v, settings.width_s)),
        (_ON, Pulse("set", settings.set_v, settings.set_gate_v, settings.width_s)),
    )
    found: list[NDArray[np.float64]] = []
    for purpose, pulse in halves:
        # A pulse that nobody confirmed is applied again, lest a cell seem stuck for want of it.
        bench.pulse(mask & (bench.history.done_count[pulse.kind] == 0), pulse, purpose)
        bench.read(mask & (counts(bench, purpose) == 0), purpose)
        after = Trajectory.of(bench, purpose, mask)
        found.append(on_map(after.conductance_s[0].astype(np.float64), after.cells, bench.shape))
    return found[0], found[1]


def _from_stress(
    suspected: FaultMap,
    mean_s: NDArray[np.float64],
    off_s: NDArray[np.float64],
    on_s: NDArray[np.float64],
    settings: HealthSettings,
) -> FaultMap:
    """Put what the pulses showed in the place of what reads let suspect; cells that had none keep that."""
    tested = np.isfinite(off_s) & np.isfinite(on_s)
    # Two readings of a cell that does not conduct may differ by any factor: they count as next to nothing.
    before, off, on = (np.maximum(g, settings.unformed_below_s) for g in (mean_s, off_s, on_s))
    resets, sets = before > settings.switch_factor * off, on > settings.switch_factor * off
    # A cell that RESETs from far up and conducts well in the end switches, too, however little its SET adds.
    stuck = tested & ~sets & ~(resets & (on > settings.middle_s))
    stuck_on = stuck & (on > settings.middle_s)
    never_formed = stuck & ~stuck_on & (mean_s < settings.unformed_below_s) & (not settings.assume_formed)
    by_state = np.uint8(~(Fault.UNFORMED | Fault.STUCK_ON | Fault.STUCK_OFF) & 0xFF)
    found = FaultMap(np.where(tested, suspected.faults & by_state, suspected.faults).astype(np.uint8))
    for cells, fault in (
        (stuck_on, Fault.STUCK_ON),
        (never_formed, Fault.UNFORMED),
        (stuck & ~stuck_on & ~never_formed, Fault.STUCK_OFF),
    ):
        found = found.with_faults(cells, fault)
    return found
