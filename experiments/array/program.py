"""Program cells to a target conductance each: pulse, read, correct, until every cell is near enough.

SET raises a cell to a conductance that the word line limits, RESET lowers it to one that its voltage sets; both laws
are unknown and differ from cell to cell. So each cell is its own calibration: the newest amplitude of each kind and the
conductance found after it say where the next amplitude must lie. Two laws make the step:

- `ispp`: incremental steps, each a part of what the error asks for (Incremental Step Pulse Programming, with the step
  taken from the cell's own answer and going back after an overshoot);
- `pi`: proportional-integral control in velocity form, `du = (Kp (e_k - e_k-1) + Ki e_k) / slope`, which needs no state
  but the last amplitude and the last two errors.

Amplitudes lie on a grid, and cells with equal ones share a pulse.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan, PlannedPulses
from experiments.array.read import n_steps
from experiments.array.settings import ProgramSettings, ReadSettings
from hil.backend import BackendInfo, Pulse
from hil.errors import LimitError
from hil.fault_map import Fault

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

#: groups of cells with equal amplitudes in one pass, for the estimate of a plan
_GROUPS_PER_PASS = 40


def plan(
    mask: Mask, settings: ProgramSettings, info: BackendInfo, cells_per_step: int, target_s: NDArray[np.float32]
) -> Plan:
    """What `program` would do at most.

    Raises:
        LimitError: targets outside the reachable range, or none in the mask.
    """
    del info
    goal = mask & np.isfinite(target_s)
    n = int(goal.sum())
    if not n:
        raise LimitError("no cell of the region has a target", fix="give a target other than NaN to at least one cell")
    low_s, high_s = settings.reachable_min_s, settings.reachable_max_s
    outside = goal & ~((target_s >= low_s) & (target_s <= high_s))
    if outside.any():
        row, col = np.argwhere(outside)[0].tolist()
        raise LimitError(
            f"{int(outside.sum())} of {n} targets are outside the reachable range of {low_s:g} to {high_s:g} S, "
            f"such as {target_s[row, col]:g} S of cell ({row}, {col})",
            fix="scale the targets, or set array.program.reachable_min_s and reachable_max_s to what the cells can do",
        )
    budget = settings.pulses_per_cell_max
    return Plan(
        text=f"SET and RESET pulses until each cell is within {settings.tolerance_s:g} S of its target",
        n_cells=n,
        pulses=(
            PlannedPulses("set", settings.set_voltage_v, settings.set_gate_max_v, settings.width_s, budget),
            PlannedPulses("reset", settings.reset_max_v, settings.reset_gate_v, settings.width_s, budget),
        ),
        reads_per_cell=1 + budget + settings.final_passes * settings.final_reads,
        wait_s=settings.final_passes * settings.final_reads * settings.settle_s,
        primitives=budget * (_GROUPS_PER_PASS + n_steps(n, cells_per_step)),
    )


def program(bench: Bench, mask: Mask, settings: ProgramSettings, target_s: NDArray[np.float32]) -> Outcome:
    """Bring each cell that has a target to it; unformed cells are left alone."""
    history = bench.history
    goal = mask & np.isfinite(target_s)
    bench.read_unknown(goal, _reads(bench, settings))
    unformed = goal & (history.pulse_count == 0) & ~(history.last_conductance_s > settings.formed_above_s)
    formed = goal & ~unformed
    wanted = _Targets(settings, target_s.astype(np.float64))
    near_s = settings.accept_fraction * settings.tolerance_s
    far = formed & ~wanted.within(bench, near_s)
    verified_s, due = np.full(bench.shape, np.nan), formed
    for _ in range(settings.final_passes):
        _approach(bench, far, formed, wanted, near_s)
        verified_s[due] = _verify(bench, due, settings)[due]
        # Well inside the tolerance: noise and relaxation may take those beyond it out by the next read.
        far = formed & ~(np.abs(verified_s - wanted.target_s) <= settings.final_fraction * settings.tolerance_s)
        due = wanted.can_go_on(bench, far)
        if not due.any():
            break
    return _outcome(bench, goal, unformed, wanted, verified_s)


class _Targets:
    """Targets, and the amplitudes that lead there."""

    def __init__(self, settings: ProgramSettings, target_s: Floats) -> None:
        self.settings = settings
        self.target_s = target_s

    def within(self, bench: Bench, tolerance_s: float) -> Mask:
        """Cells whose newest reading is near enough."""
        return np.abs(bench.history.last_conductance_s - self.target_s) <= tolerance_s

    def can_go_on(self, bench: Bench, cells: Mask) -> Mask:
        """Those of the cells that have pulses left and did not fail at the highest amplitude."""
        history, s = bench.history, self.settings
        low = history.last_conductance_s < self.target_s
        top = 0.5 * s.grid_v
        spent = np.where(
            low,
            (history.last_gate_v["set"] >= s.set_gate_max_v - top) & (history.after_s["set"] < self.target_s),
            (history.last_voltage_v["reset"] >= s.reset_max_v - top) & (history.after_s["reset"] > self.target_s),
        )
        # A cell that gives no reading would be pulsed blindly.
        return cells & history.read_since_pulse & ~spent & (bench.pulses_left(s.pulses_per_cell_max) > 0)

    def pulses(self, bench: Bench, cells: Mask) -> Iterator[tuple[Mask, Pulse]]:
        """One pulse for each cell, cells with equal amplitudes together."""
        s, history = self.settings, bench.history
        low = history.last_conductance_s < self.target_s
        for at in self._groups(cells & low, self._gate_v(bench), s.set_gate_max_v):
            yield at[0], Pulse("set", s.set_voltage_v, at[1], s.width_s)
        for at in self._groups(cells & ~low, self._reset_v(bench), s.reset_max_v):
            yield at[0], Pulse("reset", at[1], s.reset_gate_v, s.width_s)

    def _groups(self, cells: Mask, amplitude_v: Floats, highest_v: float) -> Iterator[tuple[Mask, float]]:
        grid_v = self.settings.grid_v
        highest = int(highest_v / grid_v + 1e-6)
        index = np.flatnonzero(cells)
        level = np.clip(np.rint(amplitude_v.reshape(-1)[index] / grid_v), 1, highest).astype(np.int64)
        for value in np.unique(level):
            group = np.zeros(cells.size, np.bool_)
            group[index[level == value]] = True
            yield group.reshape(cells.shape), min(float(value * grid_v), highest_v)

    def _gate_v(self, bench: Bench) -> Floats:
        """Next word-line voltage of SET."""
        step_v = self._correction_s(bench, "set") / self.settings.set_s_per_v
        return self._next_v(bench.history.last_gate_v["set"], step_v, self.settings.set_gate_start_v)

    def _reset_v(self, bench: Bench) -> Floats:
        """Next voltage of RESET: conductance falls exponentially with it."""
        s = self.settings
        step_v = -self._correction_s(bench, "reset") / self.target_s * s.reset_v_per_e
        return self._next_v(bench.history.last_voltage_v["reset"], step_v, s.reset_start_v)

    def _next_v(self, last_v: Floats, step_v: Floats, start_v: float) -> Floats:
        s = self.settings
        step_v = np.clip(
            np.where(np.abs(step_v) < s.grid_v, np.copysign(s.grid_v, step_v), step_v), -s.step_max_v, s.step_max_v
        )
        return np.where(np.isnan(last_v), start_v, last_v + step_v)

    def _correction_s(self, bench: Bench, kind: str) -> Floats:
        """By how much the next pulse of a kind is to leave more than its newest one did."""
        s, history = self.settings, bench.history
        error_s = self.target_s - history.after_s[kind]
        if s.mode == "ispp":
            return s.gain * error_s
        change_s = np.nan_to_num(history.after_previous_s[kind] - history.after_s[kind])
        return s.gain_p * change_s + s.gain_i * error_s


def _reads(bench: Bench, settings: ProgramSettings) -> ReadSettings:
    """How this procedure reads."""
    return bench.read_settings.model_copy(update={"n_average": settings.n_average})


def _approach(bench: Bench, far: Mask, formed: Mask, wanted: _Targets, near_s: float) -> None:
    """Pass after pass over the cells that are not near yet: one pulse each, then one read of all of them."""
    how = _reads(bench, wanted.settings)
    total = int(formed.sum())
    while (cells := wanted.can_go_on(bench, far)).any():
        n_left = int(cells.sum())
        n_ok = int((formed & wanted.within(bench, wanted.settings.tolerance_s)).sum())
        bench.progress("program", total - n_left, total, f"yield {100 * n_ok / total:.2f} %")
        for group, pulse in list(wanted.pulses(bench, cells)):
            bench.pulse(group, pulse, "program")
        bench.read(cells, "verify", how)
        far = cells & ~wanted.within(bench, near_s)
    bench.progress("program", total, total)


def _verify(bench: Bench, cells: Mask, settings: ProgramSettings) -> Floats:
    """Mean of a few reads with pauses: what a cell conducts once it has relaxed, and slow noise is averaged."""
    how = _reads(bench, settings)
    total_s = np.zeros(bench.shape)
    for _ in range(settings.final_reads):
        if settings.settle_s:
            bench.wait(settings.settle_s, "settle")
        total_s += bench.read(cells, "final", how)
    return total_s / settings.final_reads


def _outcome(bench: Bench, goal: Mask, unformed: Mask, wanted: _Targets, verified_s: Floats) -> Outcome:
    history, settings = bench.history, wanted.settings
    formed = goal & ~unformed
    error_s = np.where(formed, verified_s - wanted.target_s, np.nan)
    ok = formed & (np.abs(error_s) <= settings.tolerance_s)
    pulses = history.pulse_count[formed]
    n_formed, n_ok = int(formed.sum()), int(ok.sum())
    summary = {
        "cells": int(goal.sum()),
        "cells_unformed": int(unformed.sum()),
        "cells_ok": n_ok,
        "cells_failed": n_formed - n_ok,
        "fraction_ok": n_ok / n_formed if n_formed else 0.0,
        "tolerance_s": settings.tolerance_s,
    }
    if n_formed:
        summary |= {
            "error_mean_s": float(np.nanmean(error_s)),
            "error_sigma_s": float(np.nanstd(error_s)),
            "pulses_median": float(np.median(pulses)),
            "pulses_p95": float(np.percentile(pulses, 95)),
            "pulses_max": int(pulses.max()),
        }
    return Outcome(
        mask_ok=ok,
        faults=np.where(unformed, np.uint8(Fault.UNFORMED), np.uint8(0)),
        summary=summary,
        results={
            "target_s": np.where(goal, wanted.target_s, np.nan),
            "error_s": error_s,
            "tolerance_s": np.float64(settings.tolerance_s),
        },
    )
