"""Fit of SET: conductance after pulses of rising bit-line or word-line voltage.

A law for the median cell is the start; then all parameters but the spread between pulses are matched: simulated sweeps
have to be distributed as the measured ones, step by step.

Layout of a file: see `sim_backend.fits.sweep`, with the bit line as the driven line.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from hil.errors import DataError
from sim_backend.fits.fit import Fit, Parameter, between_halves, bootstrap, halves, require_cells, with_settings
from sim_backend.fits.sweep import SweepRows, Sweeps, load_sweep, match, shares_below, simulate_sweeps, table_of
from sim_backend.settings import SwitchingSettings
from sim_backend.switching import Switching

#: A SET has begun where conductance is this much above the start of the sweep.
BEGUN = 1.1
#: Steps are fitted where the median is this much above the start: below, cells only wander.
RISING = 1.05
#: Sweeps are compared as long as this share of them goes on: those left over later are a selection.
RUNNING = 0.9
#: Sweeps are matched in the share of them below these quantiles of the measured ones, at each step.
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MATCHED_PER_MEASURED = 4
_SIMULATED_PER_MEASURED = 20


def load(path: Path) -> SweepRows:
    """Read a file of measured SET sweeps."""
    return load_sweep(path, "v_bl")


def fit(rows: SweepRows, seed: int = 0) -> Fit:
    """Parameters whose simulated sweeps are distributed as the measured; compared with the cells kept out."""
    require_cells(rows.cell, 10)
    seeds = np.random.SeedSequence(seed).spawn(3)
    rng, simulation_rng, matching_rng = (np.random.default_rng(s) for s in seeds)
    fitted, kept_out = halves(rows.cell, rng)
    values, errors = _estimate(rows, fitted, rng, int(matching_rng.integers(2**32)))
    parameters = {
        name: Parameter(float(value), float(error), unit)
        for (name, unit), value, error in zip(_NAMES[rows.swept], values, errors, strict=True)
    }
    measured = table_of(rows, np.unique(rows.cell[kept_out]))
    samples = compare(measured, simulate(rows, _model(rows, values), kept_out, simulation_rng))
    return Fit(
        model="set",
        parameters=parameters,
        goodness={
            "cells_fitted": float(len(np.unique(rows.cell[fitted]))),
            "cells_kept_out": float(len(np.unique(rows.cell[kept_out]))),
            **between_halves(samples, compare(measured, table_of(rows, np.unique(rows.cell[fitted])))),
        },
        samples=samples,
        settings=_settings(rows, values),
        n_rows=len(rows.cell),
        notes=_NOTES[rows.swept],
    )


def simulate(rows: SweepRows, model: Switching, like: NDArray[np.bool_], rng: np.random.Generator) -> Sweeps:
    """Sweeps of simulated cells that start where the measured ones did, and end at the same conductance."""
    start_s = np.tile(rows.initial_s[rows.first[like[rows.first]]], _SIMULATED_PER_MEASURED)
    end_s = np.quantile(rows.final_s[rows.ended_early], 0.01) if rows.ended_early.any() else np.inf
    cells = model.draw_cells(rng, start_s.shape)
    sweeps = simulate_sweeps(rows, model.after_set_s, cells, start_s, rng)
    return sweeps.until(sweeps.final_s >= end_s)


def compare(measured: Sweeps, simulated: Sweeps) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Voltage at which SET begins, and conductance after pulses at three voltages, in both."""
    pair = (measured, simulated)
    begin_v, other_v = (sweeps.crossing_v(sweeps.final_s >= BEGUN * sweeps.final_s[:, :1]) for sweeps in pair)
    samples = {"SET voltage (V)": (begin_v, other_v)}
    for voltage_v in np.linspace(np.median(begin_v), measured.common_v(RUNNING), 3):
        samples[f"conductance after {voltage_v:.2f} V (S)"] = (measured.at_v(voltage_v), simulated.at_v(voltage_v))
    return samples


def _estimate(
    rows: SweepRows, like: NDArray[np.bool_], rng: np.random.Generator, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters in the order of `_NAMES`, and their standard errors.

    The spread between pulses is measured; the others are matched: shares of all sweeps do not tell it from theirs.

    Args:
        seed: of the simulated pulses.
    """
    first = rows.first[like[rows.first]]
    cells, cell_of_sweep = np.unique(rows.cell[first], return_inverse=True)
    sweeps = table_of(rows, cells)
    common = sweeps.voltage_v <= sweeps.common_v(RUNNING)
    median_s, low_s = np.nanmedian(sweeps.final_s[:, common], axis=0), float(np.median(rows.initial_s[first]))
    steps = np.flatnonzero(median_s > RISING * low_s)
    if len(steps) < 4:
        raise DataError("fewer than 4 steps of these sweeps raise conductance by 5 %", fix="give sweeps that SET cells")
    start = _law(sweeps.voltage_v[steps], median_s[steps], rows)
    # at the last voltage to which a sweep came are only those that a limit has stopped
    steps = np.append(steps, np.flatnonzero(np.isfinite(sweeps.final_s).any(axis=0))[-1])
    levels_s = np.nanquantile(sweeps.final_s[:, steps], _SHARES, axis=0)
    # a sweep has ended above all others
    final_s = np.where(np.isfinite(sweeps.final_s), sweeps.final_s, np.inf)[:, steps]
    start_s = np.tile(rows.initial_s[first], _MATCHED_PER_MEASURED)
    noises = np.array([_noise(sweeps.final_s[cell_of_sweep == n], low_s) for n in range(len(cells))])
    noise, noise_error = bootstrap(lambda pick: np.nanmedian(noises[pick]), len(cells), rng)

    def measured(pick: NDArray[np.intp]) -> NDArray[np.float64]:
        chosen = np.concatenate([np.flatnonzero(cell_of_sweep == cell) for cell in pick])
        return shares_below(final_s[chosen], levels_s).ravel()

    def simulated(values: NDArray[np.float64]) -> NDArray[np.float64]:
        model, pulses = _model(rows, np.append(values, noise)), np.random.default_rng(seed)
        cells = model.draw_cells(pulses, start_s.shape)
        shown = simulate_sweeps(rows, model.after_set_s, cells, start_s, pulses)
        return shares_below(shown.final_s[:, steps], levels_s).ravel()

    values, errors = match(simulated, measured, len(cells), start, rng)
    return np.append(values, noise), np.append(errors, noise_error)


def _noise(final_s: NDArray[np.float64], start_s: float) -> float:
    """Spread of log conductance of a cell's sweeps around their median, while that rises."""
    final_s = final_s[:, np.isfinite(final_s).mean(axis=0) > 0.5]
    median_s = np.nanmedian(final_s, axis=0)
    around = np.log(final_s / median_s)[:, median_s > BEGUN * start_s]
    around = around[np.isfinite(around)]
    return float(stats.median_abs_deviation(around, scale="normal")) if len(around) else np.nan


def _law(steps_v: NDArray[np.float64], median_s: NDArray[np.float64], rows: SweepRows) -> NDArray[np.float64]:
    """Where to start: 1 / conductance = series + 1 / (slope (V - threshold)), with rough limit and spreads."""
    first_v = float(steps_v[0])

    def residuals(p: NDArray[np.float64]) -> NDArray[np.float64]:
        below_v, log_slope, series_share = p
        law_ohm = series_share / median_s.max() + np.exp(-log_slope) / (steps_v - first_v + np.exp(below_v))
        return np.log(law_ohm * median_s)

    start = np.array([np.log(0.3), np.log(5.0 * median_s[0]), 0.75])
    found = optimize.least_squares(residuals, start, bounds=([-5.0, -30.0, 0.0], [1.5, 5.0, 0.95])).x
    threshold_v, slope, series_ohm = first_v - np.exp(found[0]), np.exp(found[1]), found[2] / median_s.max()
    base, limit_s = SwitchingSettings(), 1.5 * slope * (steps_v[-1] - threshold_v)
    if rows.swept == "line":
        gate_s_per_v = limit_s / (rows.held_v - base.gate_threshold_v)
        return np.array([threshold_v, 0.1, slope, gate_s_per_v, 0.3, series_ohm])
    return np.array([threshold_v, slope, 0.1, limit_s / (rows.held_v - base.set_voltage_v), 0.3, series_ohm])


def _settings(rows: SweepRows, values: NDArray[np.float64]) -> dict[str, float]:
    found = {f"switching.{name}": float(value) for (name, _), value in zip(_NAMES[rows.swept], values, strict=True)}
    return {**found, "switching.width_ref_s": rows.width_s}


def _model(rows: SweepRows, values: NDArray[np.float64]) -> Switching:
    return Switching.from_settings(with_settings(_settings(rows, values)).switching)


#: parameters of each kind of sweep; the first is a threshold, the last the spread between pulses
_NAMES = {
    "line": (
        ("set_voltage_v", "V"),
        ("set_cell_v", "V"),
        ("set_line_s_per_v", "S/V"),
        ("set_gate_s_per_v", "S/V"),
        ("set_cell", ""),
        ("set_series_ohm", "ohm"),
        ("set_cycle", ""),
    ),
    "gate": (
        ("gate_threshold_v", "V"),
        ("set_gate_s_per_v", "S/V"),
        ("set_cell", ""),
        ("set_line_s_per_v", "S/V"),
        ("set_line_cell", ""),
        ("set_series_ohm", "ohm"),
        ("set_cycle", ""),
    ),
}

_FEW = "Distances cannot be smaller than chance between so few cells: see the distance between the two measured halves."
_NOTES = {
    "line": (
        "The gate was held: only the product of set_gate_s_per_v and gate voltage over gate_threshold_v is determined; "
        "gate_threshold_v stays as it was.",
        _FEW,
    ),
    "gate": (
        "The bit line was held: only the product of set_line_s_per_v and its voltage over set_voltage_v is determined; "
        "set_voltage_v and set_cell_v stay as they were.",
        _FEW,
    ),
}
