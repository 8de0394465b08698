"""Fit of `sim_backend.relaxation` to reads at several times after programming, at room temperature.

File: `.npz` with `<T>_relax_addr` (cell), `<T>_relax_timept_s` (nominal time of the read), `<T>_relax_g` (S) and
`<T>_relax_g_initial` (S, first read), one row per read, for a technology `<T>` of one letter; conductance of full scale
is 240 uS for A and 128 uS for B (public repository akashlevy/RRAM-Relaxation-Master-Model).

Cells are sorted into levels by their first read, and each level's parameters are fitted by themselves. Half of the
cells are fitted, the other half is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hil.errors import DataError
from sim_backend.fits.fit import Fit, Parameter, halves, with_settings
from sim_backend.fits.log_steps import Condition, LevelFit, LevelRows, fit_level, shared
from sim_backend.fits.npz import read_arrays
from sim_backend.relaxation import Relaxation

FULL_SCALE_S = {"A": 240e-6, "B": 128e-6}
_ROOM_C = 25.0
#: a level of fewer fitted cells is joined with the next
_CELLS_MIN = 100
#: reads above this time are compared, not fitted: see the note of the fit
_FITTED_TO_S = 1000.0
#: edges of levels, as fractions of full scale
LEVEL_EDGES = (0.0, 0.06, 0.11, 0.17, 0.24, 0.32, 0.41, 0.51, 0.62, 0.75, 0.9, np.inf)
#: edges of the wider classes that are compared, as fractions of full scale
CLASS_EDGES = (0.0, 0.125, 0.25, 0.5, 0.75, np.inf)
_FREE = ("trend", "spread", "jump_rate", "jump_up_share", "jump_up", "jump_down", "read_noise", "start_s")
_START = {
    "trend": 0.0,
    "spread": 0.01,
    "jump_rate": 0.15,
    "jump_up_share": 0.4,
    "jump_up": 0.1,
    "jump_down": 0.2,
    "read_noise": 0.01,
    "start_s": 1e-3,
    "activation_ev": 0.0,
    "loss_per_s": 1e-9,
    "loss_spread": 1.0,
    "loss_activation_ev": 0.0,
}
#: tables of the settings, one value per level
TABLES = ("trend", "spread", "jump_rate", "jump_up_share", "jump_up", "jump_down")


@dataclass(frozen=True, eq=False)
class Rows:
    """Reads after programming.

    Attributes:
        technology: letter of the arrays in the file.
        cell: number of the cell of each read.
        time_s: nominal time since the first read, above 0.
        conductance_s, initial_s: at that time and at first.
    """

    technology: str
    cell: NDArray[np.int64]
    time_s: NDArray[np.float64]
    conductance_s: NDArray[np.float64]
    initial_s: NDArray[np.float64]


def load(path: str | Path) -> Rows:
    """Reads of the file's technology.

    Raises:
        DataError: the file is not an `.npz` with these arrays, or they do not belong together.
    """
    found = {technology: _columns(path, technology, optional=True) for technology in ("B", "A")}
    technology = next((technology for technology, columns in found.items() if columns), "B")
    columns = found[technology] or _columns(path, technology)
    cell, time_s, conductance_s, initial_s = columns.values()
    later = time_s > 0.0
    positive = (conductance_s > 0.0) & (initial_s > 0.0)
    if not positive.all():
        raise DataError(
            f"{path}: {np.count_nonzero(~positive)} of {len(positive)} conductances are not above 0 S",
            fix="give conductances in siemens, and leave out cells that could not be read",
        )
    if not np.any(later & (time_s <= _FITTED_TO_S)):
        raise DataError(
            f"{path}: no read is later than 0 s and not later than {_FITTED_TO_S:g} s after programming",
            fix="give reads at several such times",
        )
    return Rows(technology, cell[later].astype(np.int64), time_s[later], conductance_s[later], initial_s[later])


def _columns(path: str | Path, technology: str, *, optional: bool = False) -> dict[str, NDArray[np.float64]]:
    names = tuple(f"{technology}_relax_{part}" for part in ("addr", "timept_s", "g", "g_initial"))
    return read_arrays(path, names, optional=optional)


def fit(rows: Rows, seed: int = 0) -> Fit:
    """Parameters per level on half of the cells, compared with the other half."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(31,)))
    fitted, kept = halves(rows.cell, rng)
    full_scale_s = FULL_SCALE_S[rows.technology]
    used = fitted & (rows.time_s <= _FITTED_TO_S)
    centres, levels = split_levels(rows.initial_s[used] / full_scale_s, rows.cell[used])
    change = np.log(rows.conductance_s / rows.initial_s)[used]
    times_s, time_index = np.unique(rows.time_s[used], return_inverse=True)
    cells = np.unique(rows.cell[used], return_inverse=True)[1]
    conditions = tuple(Condition(float(time_s), _ROOM_C) for time_s in times_s)
    parts = [
        LevelRows(change[level], time_index[level], cells[level], conditions, _ROOM_C, _ROOM_C) for level in levels
    ]
    single = [fit_level(part, _START, _START, _FREE) for part in parts]
    start_s, start_error_s = shared(single, "start_s")
    free = _FREE[:-1]
    fits = [
        fit_level(part, _START, {**first.values, "start_s": start_s}, free)
        for part, first in zip(parts, single, strict=True)
    ]
    settings = {
        "relaxation.start_s": start_s,
        "relaxation.full_scale_s": full_scale_s,
        "relaxation.levels": centres,
        **{f"relaxation.{name}": tuple(float(fit.values[name]) for fit in fits) for name in TABLES},
    }
    noise = np.array([fit.values["read_noise"] for fit in fits])
    model = Relaxation.from_settings(with_settings(settings).relaxation)
    simulated_s = _simulate(model, rows, kept, centres, noise, rng)
    return Fit(
        model="relaxation",
        parameters={
            "start_s": Parameter(start_s, start_error_s, "s"),
            **level_parameters(fits, (*TABLES, "read_noise"), centres, full_scale_s),
        },
        goodness={
            "log_likelihood_per_read": sum(fit.log_likelihood for fit in fits) / float(used.sum()),
            "cells_fitted": float(np.unique(rows.cell[fitted]).size),
            "cells_compared": float(np.unique(rows.cell[kept]).size),
            **_memory(rows, kept, rows.conductance_s, "measured"),
            **_memory(rows, kept, simulated_s, "simulated"),
        },
        samples=changes(
            "change after {} s", rows.time_s, rows.initial_s, rows.conductance_s, simulated_s, kept, full_scale_s
        ),
        settings=settings,
        n_rows=len(rows.cell),
        notes=(
            "reads later than 1000 s are compared, not fitted: in the file, a cell's read at 10000 s has hardly to do "
            "with its read at 1000 s (see the correlations), as if it were of another programming",
            "one cell's jumps tend to be undone within a decade or two; the model's are not, so that its spread at "
            "each time is right, but single cells change less from one read to the next than measured",
            "read_noise is of the difference of two reads of the measuring instrument; it is no setting",
        ),
    )


def split_levels(
    level: NDArray[np.float64], cell: NDArray[np.int64]
) -> tuple[tuple[float, ...], list[NDArray[np.bool_]]]:
    """Centres of levels with enough cells, and which reads belong to each; `level` is a fraction of full scale."""
    low, bounds = LEVEL_EDGES[0], [LEVEL_EDGES[0]]
    for high in LEVEL_EDGES[1:]:
        if np.unique(cell[(level >= low) & (level < high)]).size >= _CELLS_MIN:
            low = high
            bounds.append(high)
    # what is left over above the last level belongs to it
    bounds[-1 if len(bounds) > 1 else 1 :] = [np.inf]
    members = [(level >= a) & (level < b) for a, b in pairwise(bounds)]
    return tuple(float(np.median(level[chosen])) for chosen in members), members


def level_parameters(
    fits: list[LevelFit], names: tuple[str, ...], centres: tuple[float, ...], full_scale_s: float
) -> dict[str, Parameter]:
    """Parameters of all levels, each named with its level's conductance."""
    return {
        f"{name} at {centre * full_scale_s * 1e6:.0f} uS": Parameter(
            float(fit.values[name]), float(fit.errors[name]), "1/s" if name.endswith("per_s") else ""
        )
        for name in names
        for centre, fit in zip(centres, fits, strict=True)
    }


def _simulate(
    model: Relaxation,
    rows: Rows,
    kept: NDArray[np.bool_],
    centres: tuple[float, ...],
    noise: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """The kept reads as the model makes them, each cell carried from one time to the next; NaN for other reads."""
    cells, cell_index = np.unique(rows.cell, return_inverse=True)
    initial_s = np.zeros(len(cells))
    initial_s[cell_index] = rows.initial_s
    relative_noise = np.interp(initial_s / FULL_SCALE_S[rows.technology], centres, noise)
    now_s, age_s = initial_s.copy(), 0.0
    simulated_s = np.full(len(rows.cell), np.nan)
    for time_s in np.unique(rows.time_s):
        now_s = model.step_s(now_s, initial_s, age_s, time_s, _ROOM_C, rng)
        age_s = time_s
        read_s = now_s * np.exp(relative_noise * rng.standard_normal(len(cells)))
        at = kept & (rows.time_s == time_s)
        simulated_s[at] = read_s[cell_index[at]]
    return simulated_s


def changes(
    what: str,
    condition: NDArray[np.floating | np.integer],
    start_s: NDArray[np.floating],
    measured_s: NDArray[np.floating],
    simulated_s: NDArray[np.float64],
    kept: NDArray[np.bool_],
    full_scale_s: float,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Change from `start_s` in uS, measured and simulated, for each condition and class of conductance.

    Args:
        what: names a quantity; `{}` stands for the condition.
        condition: time or temperature of each row.
        kept: rows that count.
    """
    level = start_s / full_scale_s
    samples = {}
    for value in np.unique(condition):
        for low, high in pairwise(CLASS_EDGES):
            chosen = kept & (condition == value) & (level >= low) & (level < high)
            if chosen.sum() < 30:
                continue
            upper = f"to {high * full_scale_s * 1e6:.0f}" if np.isfinite(high) else "and more"
            name = f"{what.format(f'{value:g}')}, {low * full_scale_s * 1e6:.0f} {upper} uS [uS]"
            from_s = start_s[chosen]
            samples[name] = ((measured_s[chosen] - from_s) * 1e6, (simulated_s[chosen] - from_s) * 1e6)
    return samples


def _memory(rows: Rows, kept: NDArray[np.bool_], conductance_s: NDArray[np.float64], whose: str) -> dict[str, float]:
    """Rank correlation, over cells, of the relative change up to one time with that up to the next."""
    times_s = np.unique(rows.time_s)
    cells, cell_index = np.unique(rows.cell[kept], return_inverse=True)
    change = np.full((len(times_s), len(cells)), np.nan)
    change[np.searchsorted(times_s, rows.time_s[kept]), cell_index] = np.log(conductance_s / rows.initial_s)[kept]
    found = {}
    for early, late in pairwise(range(len(times_s))):
        both = np.isfinite(change[early]) & np.isfinite(change[late])
        if both.sum() > 2:
            correlation = stats.spearmanr(change[early][both], change[late][both]).statistic
            found[f"correlation of changes after {times_s[early]:g} s and {times_s[late]:g} s, {whose}"] = float(
                correlation
            )
    return found
