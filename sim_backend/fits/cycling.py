"""Fit of cycling: resistance after each RESET and each SET of cells switched many times, and the life of cells.

Layout of a file: one cell per line, tab-separated, plain or gzip'd: address, then resistance in ohm after RESET and
after SET in turn, one pair per cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError
from sim_backend.fits.fit import (
    Fit,
    Parameter,
    between_halves,
    bootstrap,
    halves,
    parse_numbers,
    read_lines,
    require_cells,
    with_settings,
)
from sim_backend.settings import SwitchingSettings
from sim_backend.switching import Switching

#: Cells change in the first cycles; what is fitted is what follows.
SETTLED_AFTER = 30
#: A cell whose median resistance after SET is this many times that of the median cell does not switch any more.
FAILED = 2.0
#: Pulses of the simulated run. The file does not say the measured ones; what they leave is fitted.
SET_V, SET_GATE_V, RESET_V, RESET_GATE_V = 2.0, 2.0, 2.5, 4.0
_SIMULATED_CELLS = 400


@dataclass(frozen=True, eq=False)
class CyclingRows:
    """Resistance in ohm after each RESET (high) and SET (low), shape (cells, cycles)."""

    cell: NDArray[np.float64]
    high_ohm: NDArray[np.float64]
    low_ohm: NDArray[np.float64]


def load(path: Path) -> CyclingRows:
    """Read a file of measured cycling."""
    lines = read_lines(path)
    fields = len(lines[0].split("\t")) if lines else 0
    expected = "an address and then pairs of resistances after RESET and SET, the same number on each line"
    if fields < 2 * SETTLED_AFTER or fields % 2 == 0:
        raise DataError(
            f"the first line of {path} has {fields} numbers; expected is {expected}, {SETTLED_AFTER} pairs or more",
            fix="give a cycling file, tab-separated",
        )
    table = np.array(
        [parse_numbers(line, "\t", fields, f"line {n} of {path}", expected) for n, line in enumerate(lines, 1)]
    )
    if (table[:, 1:] <= 0).any():
        row = int(np.flatnonzero((table[:, 1:] <= 0).any(axis=1))[0])
        raise DataError(f"line {row + 1} of {path} has a resistance of 0 ohm or less", fix="leave that cell out")
    return CyclingRows(table[:, 0], table[:, 1::2], table[:, 2::2])


def fit(rows: CyclingRows, seed: int = 0) -> Fit:
    """Level and spread of both states, between cells and between cycles; compared with the cells kept out."""
    require_cells(rows.cell, 10)
    rng, simulation_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    switches = np.median(rows.low_ohm, axis=1) < FAILED * np.median(rows.low_ohm)
    high, low = np.log(rows.high_ohm[switches]), np.log(rows.low_ohm[switches])
    fitted, kept_out = halves(rows.cell[switches], rng)
    used = slice(SETTLED_AFTER, None)

    def estimate(pick: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.r_[
            _levels(high[fitted][pick][:, used]), _levels(low[fitted][pick][:, used]), _trends(high[fitted][pick])
        ]

    values, errors = bootstrap(estimate, int(fitted.sum()), rng)
    parameters = {
        name: Parameter(float(value), float(error), unit)
        for (name, unit), value, error in zip(_NAMES, values, errors, strict=True)
    }
    settings = _settings(parameters)
    model = Switching.from_settings(with_settings(settings).switching)
    simulated = simulate(model, _SIMULATED_CELLS, high.shape[1] - SETTLED_AFTER, simulation_rng)
    samples = compare((high[kept_out][:, used], low[kept_out][:, used]), simulated)
    other_half = compare(
        (high[kept_out][:, used], low[kept_out][:, used]), (high[fitted][:, used], low[fitted][:, used])
    )
    return Fit(
        model="cycling",
        parameters=parameters,
        goodness={
            "cells_fitted": float(fitted.sum()),
            "cells_kept_out": float(kept_out.sum()),
            "cells_failed": float((~switches).sum()),
            **between_halves(samples, other_half),
        },
        samples=samples,
        settings=settings,
        n_rows=rows.high_ohm.size,
        notes=(
            f"{int((~switches).sum())} of {len(switches)} cells do not switch (resistance after SET over {FAILED:g} "
            "times the median) and are left out.",
            f"The first {SETTLED_AFTER} cycles, in which cells settle, are left out of levels and spreads. The drift "
            "after them and the memory from one cycle to the next (first_tenth, drift, memory) are measured, not "
            "simulated.",
            "The pulses of the run are not in the file: settings are such that the simulator's pulses of "
            f"{SET_V:g} V (gate {SET_GATE_V:g} V) and {RESET_V:g} V (gate {RESET_GATE_V:g} V) leave the fitted levels.",
            f"{high.shape[1]} cycles say nothing about life_cycles: it stays as it was.",
        ),
    )


def simulate(
    model: Switching, n_cells: int, n_cycles: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cycle cells of the simulator: log resistance after RESET and after SET, each of shape (cells, cycles)."""
    cells = model.draw_cells(rng, (n_cells,))
    width_s = model.settings.width_ref_s
    now_s = np.full(n_cells, 1e-9)
    after = np.empty((2, n_cells, n_cycles + 1))
    for cycle in range(n_cycles + 1):
        now_s = model.after_reset_s(now_s, RESET_V, RESET_GATE_V, width_s, cells, rng)
        after[0, :, cycle] = now_s
        now_s = model.after_set_s(now_s, SET_V, SET_GATE_V, width_s, cells, rng)
        after[1, :, cycle] = now_s
    high, low = -np.log(after[:, :, 1:])  # the first cycle began with a cell that had never been SET
    return high, low


def compare(
    measured: tuple[NDArray[np.float64], NDArray[np.float64]],
    simulated: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Resistance after RESET and SET, its median in each cell and its spread in each cell, all in decades."""
    samples = {}
    for name, one, other in zip(("RESET", "SET"), measured, simulated, strict=True):
        one, other = one / np.log(10.0), other / np.log(10.0)
        samples[f"log10 resistance after {name} (ohm)"] = (one.ravel(), other.ravel())
        samples[f"median per cell after {name} (log10 ohm)"] = (np.median(one, axis=1), np.median(other, axis=1))
        samples[f"spread per cell after {name} (decades)"] = (_within(one), _within(other))
    return samples


_NAMES = (
    ("high_ohm", "ohm"),
    ("high_cell", ""),
    ("high_cycle", ""),
    ("high_cycle_cell", ""),
    ("low_ohm", "ohm"),
    ("low_cell", ""),
    ("low_cycle", ""),
    ("low_cycle_cell", ""),
    ("first_tenth", ""),
    ("drift_per_decade", ""),
    ("memory", ""),
)


def _levels(log_ohm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median resistance, log spread between cells, that between the cycles of a cell, log spread of that over cells."""
    cell, within = np.median(log_ohm, axis=1), _within(log_ohm)
    return np.array([np.exp(np.median(cell)), cell.std(), np.median(within), np.log(within).std()])


def _within(log_ohm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread of each cell over its cycles, from the middle two thirds: single odd cycles do not count."""
    low, high = np.quantile(log_ohm, [0.159, 0.841], axis=1)
    return (high - low) / 2.0


def _trends(log_ohm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log step from the first tenth to the rest, drift per decade of settled cycles, lag-1 correlation of a cell."""
    tenth = log_ohm.shape[1] // 10
    step = np.median(log_ohm[:, :tenth]) - np.median(log_ohm[:, tenth:])
    settled = log_ohm[:, SETTLED_AFTER:]
    centred = settled - settled.mean(axis=1, keepdims=True)
    decade = np.log10(np.arange(SETTLED_AFTER, log_ohm.shape[1]))
    decade = decade - decade.mean()
    drift = (centred @ decade).mean() / (decade @ decade)
    memory = (centred[:, 1:] * centred[:, :-1]).sum() / (centred**2).sum()
    return np.array([step, drift, memory])


def _settings(parameters: dict[str, Parameter]) -> dict[str, float]:
    """Settings with which the pulses of `simulate` leave the fitted levels and spreads."""
    base = SwitchingSettings()
    value = {name: p.value for name, p in parameters.items()}
    over_v = RESET_V - base.reset_voltage_v
    moved = 1.0 - base.reset_keep
    log_aim = (-np.log(value["high_ohm"]) + base.reset_keep * np.log(value["low_ohm"])) / moved
    settings = {
        "set_series_ohm": 0.0,
        "set_gate_s_per_v": 1.0 / value["low_ohm"] / (SET_GATE_V - base.gate_threshold_v),
        "set_line_s_per_v": 10.0 / value["low_ohm"],  # never the limit in this run
        "set_cell": value["low_cell"],
        "set_cycle": value["low_cycle"],
        "set_cycle_cell": value["low_cycle_cell"],
        "reset_s": float(np.exp(log_aim + over_v / base.reset_slope_v)),
        "reset_floor_s": 1e-9,
        "reset_cell_v": 0.0,
        "reset_cell": value["high_cell"] / moved,
        "reset_cycle": value["high_cycle"],
        "reset_cycle_cell": value["high_cycle_cell"],
        "reset_back": 1.0,
    }
    return {f"switching.{name}": setting for name, setting in settings.items()}
