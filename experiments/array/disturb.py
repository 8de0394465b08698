"""Disturb: what many reads do to a cell, and what pulses on its row or column do to it.

Cells that are only looked at, at the same times, are the control: what happens to them is drift, and is subtracted. In
mode 'read' they are a random part of the region. In mode 'half-select' a few cells of different rows and columns are
pulsed (aggressors); the other cells of their lines are the victims, and those that share no line are the control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan, PlannedPulses
from experiments.array.read import n_steps
from experiments.array.schedule import log_counts
from experiments.array.settings import DisturbSettings
from experiments.array.trajectory import Mask, Trajectory, cell_places, counts, on_map
from hil.backend import BackendInfo, Pulse
from hil.errors import ConfigError

_LOOK, _STRESS = "disturb look", "disturb"
#: conversions of one disturbing read at most; more are several reads
_CONVERSIONS = 1000
CONTROL = "control"


@dataclass(frozen=True, eq=False)
class Roles:
    """Which cells do what.

    Attributes:
        stressed: cells that are read or pulsed.
        groups: cells that are looked at, by name; `CONTROL` among them, which may be empty.
    """

    stressed: Mask
    groups: dict[str, Mask]

    @property
    def watched(self) -> Mask:
        """All cells that are looked at."""
        return np.any(list(self.groups.values()), axis=0)


def roles(mask: Mask, settings: DisturbSettings) -> Roles:
    """Draw which cells are stressed and which are looked at.

    Raises:
        ConfigError: the region has no cell that could be a victim.
    """
    rng = np.random.default_rng(settings.seed)
    cells = rng.permutation(np.flatnonzero(mask))
    if settings.mode == "read":
        control = _mask(cells[: min(round(settings.control_share * len(cells)), len(cells) - 1)], mask.shape)
        return Roles(mask & ~control, {"read": mask & ~control, CONTROL: control})
    aggressors = _aggressors(cells, mask.shape, settings.n_aggressors)
    row = mask & aggressors.any(axis=1)[:, None] & ~aggressors
    col = mask & aggressors.any(axis=0)[None, :] & ~aggressors
    if not (row | col).any():
        raise ConfigError(
            f"a region of {int(mask.sum())} cells has none beside an aggressor in its row or column",
            fix="choose a region of several rows and columns",
        )
    groups = {"same row": row & ~col, "same column": col & ~row, "both": row & col}
    return Roles(aggressors, {**groups, CONTROL: mask & ~row & ~col & ~aggressors})


def _aggressors(cells: NDArray[np.intp], shape: tuple[int, ...], n: int) -> Mask:
    """Up to n of the cells, no two in one row or column; the first that fit."""
    chosen: list[int] = []
    rows, cols = set[int](), set[int]()
    for cell in cells.tolist():
        row, col = divmod(cell, shape[1])
        if row not in rows and col not in cols:
            chosen.append(cell)
            rows.add(row)
            cols.add(col)
        if len(chosen) == n:
            break
    return _mask(np.array(chosen, np.intp), shape)


def _mask(cells: NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    found = np.zeros(shape, np.bool_)
    found.ravel()[cells] = True
    return found


def plan(mask: Mask, settings: DisturbSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `disturb` would do at most.

    Raises:
        ConfigError: more pulses than their ceiling, or a region without a victim.
    """
    del info
    chosen = roles(mask, settings)
    n, looks = int(chosen.watched.sum()), 1 + len(_look_counts(settings))
    n_stressed = int(chosen.stressed.sum())
    n_parts = n_steps(n, cells_per_step)
    if settings.mode == "read":
        stress = sum(map(len, _reads(settings)))
        return Plan(
            text=f"read {n_stressed} cells {settings.count} times at {settings.v_disturb_v:g} V, look at {n} cells "
            f"{looks} times",
            n_cells=n,
            v_read_v=(settings.v_disturb_v,),
            reads_per_cell=looks + stress,
            primitives=(looks + stress) * n_parts,
        )
    if settings.count > settings.pulses_per_cell_max:
        raise ConfigError(
            f"array.disturb.count = {settings.count} pulses are more than pulses_per_cell_max = "
            f"{settings.pulses_per_cell_max}",
            fix="use fewer pulses",
        )
    return Plan(
        text=f"{settings.count} {settings.kind} pulses of {settings.voltage_v:g} V on {n_stressed} cells, look at "
        f"{n} others {looks} times",
        n_cells=n + n_stressed,
        pulses=(PlannedPulses(settings.kind, settings.voltage_v, settings.v_gate_v, settings.width_s, settings.count),),
        pulses_needed=settings.count,
        reads_per_cell=looks,
        primitives=looks * n_parts + settings.count,
    )


def _look_counts(settings: DisturbSettings) -> NDArray[np.int64]:
    return log_counts(settings.count, settings.per_decade)


def _reads(settings: DisturbSettings) -> list[list[int]]:
    """Conversions of each disturbing read, for each look."""
    more = np.diff(_look_counts(settings), prepend=0).tolist()
    return [[_CONVERSIONS] * (n // _CONVERSIONS) + [n % _CONVERSIONS] * (n % _CONVERSIONS > 0) for n in more]


def disturb(bench: Bench, mask: Mask, settings: DisturbSettings) -> Outcome:
    """Stress cells and look at them and at others; a resumed run goes on where each cell stood."""
    chosen = roles(mask, settings)
    how = bench.read_settings.model_copy(update={"n_average": settings.n_average})
    n_looks = counts(bench, _LOOK)
    bench.read(chosen.watched & (n_looks == 0), _LOOK, how)
    stress = {"read": _read_stress, "half-select": _pulse_stress}[settings.mode](bench, chosen, settings)
    for k, count in enumerate(_look_counts(settings).tolist()):
        stress(k, count)
        bench.read(chosen.watched & (n_looks <= k + 1), _LOOK, how)
        bench.progress("disturb", count, settings.count)
    return _outcome(bench, chosen, settings)


def _read_stress(bench: Bench, chosen: Roles, settings: DisturbSettings) -> Any:
    """Reads that bring the stressed cells to look k; those that a cell had in an earlier session are left out."""
    n_stress, reads = counts(bench, _STRESS), _reads(settings)
    before = np.concatenate([[0], np.cumsum([len(part) for part in reads])]).tolist()

    def stress(k: int, count: int) -> None:
        del count
        for number, n_average in enumerate(reads[k], start=before[k]):
            how = bench.read_settings.model_copy(
                update={"n_average": n_average, "v_read_v": settings.v_disturb_v, "correction": "none"}
            )
            bench.read(chosen.stressed & (n_stress <= number), _STRESS, how)

    return stress


def _pulse_stress(bench: Bench, chosen: Roles, settings: DisturbSettings) -> Any:
    """Pulses that bring the aggressors to a count."""
    pulse = Pulse(settings.kind, settings.voltage_v, settings.v_gate_v, settings.width_s)

    def able() -> Mask:
        return chosen.stressed & (bench.pulses_left(settings.pulses_per_cell_max) > 0)

    def stress(k: int, count: int) -> None:
        del k
        n_done = bench.history.done_count[settings.kind]
        while (rest := able() & (n_done < count)).any():
            # Those that had fewest first: after an interruption all come to the same count again.
            bench.pulse(rest & (n_done == n_done[rest].min()), pulse, _STRESS)

    return stress


@dataclass(frozen=True)
class Shift:
    """Mean change of a group of cells beyond that of the control.

    Attributes:
        mean_s, error_s: with standard error from the scatter between cells.
        relative: over the mean conductance of the group; 0 where that is 0.
    """

    mean_s: float
    error_s: float
    relative: float


def shift_beyond(change_s: NDArray[np.float64], control_s: NDArray[np.float64], level_s: float) -> Shift:
    """Compare changes of conductance, one per cell; an empty control means that nothing is subtracted."""

    def mean_and_variance(values: NDArray[np.float64]) -> tuple[float, float]:
        if values.size < 2:
            return (float(values.mean()), np.inf) if values.size else (0.0, 0.0)
        return float(values.mean()), float(values.var(ddof=1) / values.size)

    (mean, variance), (drift, drift_variance) = mean_and_variance(change_s), mean_and_variance(control_s)
    shift = mean - drift
    return Shift(shift, float(np.sqrt(variance + drift_variance)), shift / level_s if level_s else 0.0)


def _outcome(bench: Bench, chosen: Roles, settings: DisturbSettings) -> Outcome:
    found = Trajectory.of(bench, _LOOK, chosen.watched)
    looks_s = found.conductance_s.astype(np.float64)
    change_s = looks_s[1:] - looks_s[0]
    member = {name: group.ravel()[found.cells] for name, group in chosen.groups.items()}
    look_counts = _look_counts(settings)
    groups = [name for name in member if name != CONTROL and member[name].any()]
    shifts = {
        name: [
            shift_beyond(row[member[name]], row[member[CONTROL]], float(looks_s[0][member[name]].mean()))
            for row in change_s
        ]
        for name in groups
    }
    summary: dict[str, Any] = {
        "cells": len(found.cells),
        "cells_stressed": int(chosen.stressed.sum()),
        "cells_control": int(member[CONTROL].sum()),
        "count": settings.count,
    }
    for name, series in shifts.items():
        key, last = name.replace(" ", "_"), series[-1]
        summary |= {
            f"{key}_cells": int(member[name].sum()),
            f"{key}_shift_relative": last.relative,
            f"{key}_shift_s": last.mean_s,
            f"{key}_shift_per_count_s": last.mean_s / settings.count,
            f"{key}_significant": bool(abs(last.mean_s) > settings.z_min * last.error_s),
        }
        if np.isfinite(last.error_s):  # a single cell has no spread to judge by
            summary[f"{key}_shift_error_s"] = last.error_s
            summary[f"{key}_shift_per_count_error_s"] = last.error_s / settings.count
    reference_s = np.maximum(np.abs(looks_s[0]), np.median(np.abs(looks_s[0])))
    disturbed = np.abs(change_s[-1]) > settings.change_max * reference_s
    summary["cells_disturbed"] = int((disturbed & ~member[CONTROL]).sum())
    return Outcome(
        mask_ok=on_map(~disturbed, found.cells, bench.shape, False),
        faults=np.zeros(bench.shape, np.uint8),
        summary=summary,
        results={
            "cells": cell_places(found.cells, bench.shape),
            "disturb_count": look_counts,
            "disturb_conductance_s": found.conductance_s,
            "disturb_groups": ",".join(groups),
            "disturb_shift_s": np.array([[s.mean_s for s in shifts[name]] for name in groups]).T,
            "disturb_shift_error_s": np.array([[s.error_s for s in shifts[name]] for name in groups]).T,
            "disturb_change_s": on_map(change_s[-1], found.cells, bench.shape),
        },
    )
