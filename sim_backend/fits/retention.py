"""Fit of the part that heat plays in `sim_backend.relaxation` to reads before and after bakes.

File: `.npz` with `<T>_bake_addr` (cell), `<T>_bake_time_s` (since programming: near 0 before the bake, at least 100
after it), `<T>_bake_g` (S) and `<T>_bake_temp_C`, one row per read, two reads of every cell at every temperature, for a
technology `<T>` of one letter (public repository akashlevy/RRAM-Relaxation-Master-Model).

One read after one bake per temperature: that the loss grows in proportion to time is taken from the model, the data
cannot tell. Half of the cells are fitted, the other half is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError
from sim_backend.fits.fit import Fit, Parameter, halves, with_settings
from sim_backend.fits.log_steps import Condition, LevelRows, fit_level, shared
from sim_backend.fits.npz import read_arrays
from sim_backend.fits.relaxation import FULL_SCALE_S, TABLES, changes, level_parameters, split_levels
from sim_backend.relaxation import Relaxation

#: a read later than this is one after the bake
_AFTER_S = 100.0
#: least conductance of which a logarithm is taken: a tenth of the noise of a read
_FLOOR_S = 0.1e-6
_LOSS_REFERENCE_C = 220.0
_SHARED = ("activation_ev", "loss_activation_ev", "loss_spread")
_FREE = (*(name for name in TABLES if name != "trend"), "loss_per_s")
_START = {
    "trend": 0.0,
    "spread": 0.02,
    "jump_rate": 0.15,
    "jump_up_share": 0.5,
    "jump_up": 0.15,
    "jump_down": 0.15,
    "read_noise": 1e-4,
    "start_s": 1e-3,
    "activation_ev": 1.0,
    "loss_per_s": 1e-5,
    "loss_spread": 0.5,
    "loss_activation_ev": 1.0,
}


@dataclass(frozen=True, eq=False)
class Rows:
    """Cells before and after bakes; one row per cell and temperature.

    Attributes:
        technology: letter of the arrays in the file.
        cell: number of the cell.
        temperature_c, time_s: of the bake.
        before_s, after_s: conductance.
    """

    technology: str
    cell: NDArray[np.int64]
    temperature_c: NDArray[np.float64]
    time_s: NDArray[np.float64]
    before_s: NDArray[np.float64]
    after_s: NDArray[np.float64]


def load(path: str | Path, technology: str = "A") -> Rows:
    """Bakes of one technology; A is the one that loses conductance to heat.

    Raises:
        DataError: the file is not an `.npz` with these arrays, or reads before and after do not belong together.
    """
    names = tuple(f"{technology}_bake_{part}" for part in ("addr", "time_s", "g", "temp_C"))
    cell, time_s, conductance_s, temperature_c = read_arrays(path, names).values()
    late = time_s > _AFTER_S
    order = np.lexsort((cell, temperature_c, late))
    n_before = int(np.count_nonzero(~late))
    before, after = order[:n_before], order[n_before:]
    paired = len(before) == len(after) and all(
        np.array_equal(column[before], column[after]) for column in (cell, temperature_c)
    )
    keys = np.stack([cell[before], temperature_c[before]])
    if not paired or np.unique(keys, axis=1).shape[1] != n_before:
        raise DataError(
            f"{path}: of technology {technology}, {n_before} reads are before a bake ({names[1]} up to {_AFTER_S:g} s) "
            f"and {len(after)} after it, but not one and one of each cell at each temperature",
            fix="give two reads of every cell at every temperature",
        )
    return Rows(
        technology,
        cell[before].astype(np.int64),
        temperature_c[before],
        time_s[after],
        np.maximum(conductance_s[before], _FLOOR_S),
        np.maximum(conductance_s[after], _FLOOR_S),
    )


def fit(rows: Rows, seed: int = 0) -> Fit:
    """Parameters per level, and activation energies of all levels, on half of the cells; compared with the rest."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(32,)))
    fitted, kept = halves(rows.cell, rng)
    full_scale_s = FULL_SCALE_S[rows.technology]
    temperatures_c = np.unique(rows.temperature_c)
    if len(temperatures_c) < 2:
        raise DataError(
            f"bakes at {temperatures_c[0]:g} degC alone cannot tell an activation energy",
            fix="give bakes at two temperatures or more",
        )
    conditions = tuple(
        Condition(float(np.median(rows.time_s[rows.temperature_c == t])), float(t)) for t in temperatures_c
    )
    bake = np.searchsorted(temperatures_c, rows.temperature_c)
    reference_c = float(temperatures_c[0])
    centres, levels = split_levels(rows.before_s[fitted] / full_scale_s, rows.cell[fitted])
    change = np.log(rows.after_s / rows.before_s)[fitted]
    cells = np.unique(rows.cell[fitted], return_inverse=True)[1]
    parts = [
        LevelRows(change[level], bake[fitted][level], cells[level], conditions, reference_c, _LOSS_REFERENCE_C)
        for level in levels
    ]
    single = [fit_level(part, _START, _START, (*_FREE, *_SHARED)) for part in parts]
    common = {name: shared(single, name) for name in _SHARED}
    fixed = {name: value for name, (value, _) in common.items()}
    fits = [
        fit_level(part, _START, {**first.values, **fixed}, _FREE) for part, first in zip(parts, single, strict=True)
    ]
    settings = {
        "relaxation.start_s": _START["start_s"],
        "relaxation.full_scale_s": full_scale_s,
        "relaxation.reference_c": reference_c,
        "relaxation.loss_reference_c": _LOSS_REFERENCE_C,
        "relaxation.levels": centres,
        **{f"relaxation.{name}": tuple(float(fit.values[name]) for fit in fits) for name in _FREE},
        **{f"relaxation.{name}": value for name, value in fixed.items()},
    }
    model = Relaxation.from_settings(with_settings(settings).relaxation)
    simulated_s = np.empty(len(rows.cell))
    for number, (time_s, temperature_c) in enumerate(conditions):
        at = bake == number
        before_s = rows.before_s[at]
        simulated_s[at] = model.step_s(before_s, before_s, 0.0, time_s, temperature_c, rng)
    energies = {
        f"{name} at {centre * full_scale_s * 1e6:.0f} uS, fitted alone": float(level_fit.values[name])
        for name in ("activation_ev", "loss_activation_ev")
        for centre, level_fit in zip(centres, single, strict=True)
    }
    return Fit(
        model="retention",
        parameters={
            **{name: Parameter(*common[name], "eV" if name.endswith("ev") else "") for name in _SHARED},
            **level_parameters(fits, _FREE, centres, full_scale_s),
        },
        goodness={
            "log_likelihood_per_cell": sum(one.log_likelihood for one in fits) / float(fitted.sum()),
            "log_likelihood_per_cell_alone": sum(one.log_likelihood for one in single) / float(fitted.sum()),
            **energies,
        },
        samples=changes(
            "change by {} degC", rows.temperature_c, rows.before_s, rows.after_s, simulated_s, kept, full_scale_s
        ),
        settings=settings,
        n_rows=len(rows.cell),
        notes=(
            "one bake per temperature, read once: how the change grows with time is the model's assumption "
            f"(logarithmic from {_START['start_s']:g} s on, loss in proportion to time); bakes differ in length",
            "read noise of the instrument is part of the fitted spread",
            "errors of what all levels share come from the scatter between levels",
        ),
    )
