"""Fit of SET: conductance after pulses of rising bit-line or word-line voltage.

Layout of a file: see `sim_backend.fits.sweep`, with the bit line as the driven line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from hil.errors import DataError
from sim_backend.fits.fit import Fit, Parameter, between_halves, bootstrap, halves, require_cells, with_settings
from sim_backend.fits.sweep import SweepRows, Sweeps, load_sweep, simulate_sweeps, table_of
from sim_backend.settings import SwitchingSettings
from sim_backend.switching import Switching

#: A SET has begun where conductance is this much above the start of the sweep.
BEGUN = 1.1
#: Sweeps are compared as long as this share of them goes on: those left over later are a selection.
RUNNING = 0.9
_SIMULATED_PER_MEASURED = 20


def load(path: Path) -> SweepRows:
    """Read a file of measured SET sweeps."""
    return load_sweep(path, "v_bl")


def fit(rows: SweepRows, seed: int = 0) -> Fit:
    """Law of the median cell, then the spread between cells and between pulses; compared with the cells kept out."""
    require_cells(rows.cell, 10)
    rng, simulation_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    fitted, kept_out = halves(rows.cell, rng)
    curves = _Curves.of(rows, np.unique(rows.cell[fitted]))
    values, errors = bootstrap(lambda pick: _estimate(curves.pick(pick), rows), len(curves.median_s), rng, repeats=20)
    parameters = {
        name: Parameter(float(value), float(error), unit)
        for (name, unit), value, error in zip(_NAMES[rows.swept], values, errors, strict=True)
    }
    settings = {f"switching.{name}": p.value for name, p in parameters.items()}
    settings["switching.width_ref_s"] = rows.width_s
    model = Switching.from_settings(with_settings(settings).switching)
    measured = table_of(rows, np.unique(rows.cell[kept_out]))
    samples = compare(measured, simulate(rows, model, kept_out, simulation_rng))
    return Fit(
        model="set",
        parameters=parameters,
        goodness={
            "cells_fitted": float(len(curves.median_s)),
            "cells_kept_out": float(len(np.unique(rows.cell[kept_out]))),
            **between_halves(samples, compare(measured, table_of(rows, np.unique(rows.cell[fitted])))),
        },
        samples=samples,
        settings=settings,
        n_rows=len(rows.cell),
        notes=_NOTES[rows.swept],
    )


def simulate(rows: SweepRows, model: Switching, like: NDArray[np.bool_], rng: np.random.Generator) -> Sweeps:
    """Sweeps of simulated cells that start where the measured ones did, and end at the same conductance."""
    start_s = np.tile(rows.initial_s[rows.first[like[rows.first]]], _SIMULATED_PER_MEASURED)
    end_s = np.quantile(rows.final_s[rows.ended_early], 0.01) if rows.ended_early.any() else np.inf
    cells = model.draw_cells(rng, start_s.shape)
    return simulate_sweeps(rows, model.after_set_s, cells, start_s, lambda now_s: now_s >= end_s, rng)


def compare(measured: Sweeps, simulated: Sweeps) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Voltage at which SET begins, and conductance after pulses at three voltages, in both."""
    pair = (measured, simulated)
    begin_v, other_v = (sweeps.crossing_v(sweeps.final_s >= BEGUN * sweeps.final_s[:, :1]) for sweeps in pair)
    samples = {"SET voltage (V)": (begin_v, other_v)}
    for voltage_v in np.linspace(np.median(begin_v), measured.common_v(RUNNING), 3):
        samples[f"conductance after {voltage_v:.2f} V (S)"] = (measured.at_v(voltage_v), simulated.at_v(voltage_v))
    return samples


@dataclass(frozen=True, eq=False)
class _Curves:
    """Sweeps of each cell, in one table per cell.

    Attributes:
        voltage_v: the steps.
        start_s: median conductance at the start.
        median_s: median over the sweeps of a cell, shape (cells, steps); NaN where half of them have ended.
        noise: spread of log conductance around that median while it rises, one per cell.
        common: the steps which nearly all sweeps reach.
    """

    voltage_v: NDArray[np.float64]
    start_s: float
    median_s: NDArray[np.float64]
    noise: NDArray[np.float64]
    common: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: SweepRows, cells: NDArray[np.intp]) -> _Curves:
        start_s = float(np.median(rows.initial_s[rows.first]))
        medians, noises = [], []
        for cell in cells:
            final_s = table_of(rows, np.array([cell])).final_s
            going_on = np.isfinite(final_s).mean(axis=0) > 0.5
            median_s = np.full(final_s.shape[1], np.nan)
            median_s[going_on] = np.nanmedian(final_s[:, going_on], axis=0)
            around = np.log(final_s / median_s)[:, median_s > BEGUN * start_s]
            around = around[np.isfinite(around)]
            noises.append(stats.median_abs_deviation(around, scale="normal") if len(around) else np.nan)
            medians.append(median_s)
        everything = table_of(rows, cells)
        common = everything.voltage_v <= everything.common_v(RUNNING)
        return cls(everything.voltage_v, start_s, np.array(medians), np.array(noises), common)

    def pick(self, cells: NDArray[np.intp]) -> _Curves:
        return replace(self, median_s=self.median_s[cells], noise=self.noise[cells])


def _estimate(curves: _Curves, rows: SweepRows) -> NDArray[np.float64]:
    """Parameters in the order of `_NAMES`: 1 / conductance = series + 1 / (slope (V - threshold)) below a limit."""
    together_s = np.nanmedian(curves.median_s[:, curves.common], axis=0)
    steps_v = curves.voltage_v[curves.common]
    rising = together_s > 1.05 * curves.start_s
    if rising.sum() < 4:
        raise DataError("fewer than 4 steps of these sweeps raise conductance by 5 %", fix="give sweeps that SET cells")
    steps_v, together_s = steps_v[rising], together_s[rising]
    first_v = float(steps_v[0])

    def residuals(p: NDArray[np.float64]) -> NDArray[np.float64]:
        below_v, log_slope, series_share = p
        law_ohm = series_share / together_s.max() + np.exp(-log_slope) / (steps_v - first_v + np.exp(below_v))
        return np.log(law_ohm * together_s)

    start = np.array([np.log(0.3), np.log(5.0 * curves.start_s), 0.75])
    found = optimize.least_squares(residuals, start, bounds=([-5.0, -30.0, 0.0], [1.5, 5.0, 0.95])).x
    threshold_v, slope, series_ohm = first_v - np.exp(found[0]), np.exp(found[1]), found[2] / together_s.max()
    part_s = 1.0 / np.maximum(1.0 / curves.median_s - series_ohm, 1.0)  # what pulses act on, without the series part
    ramp = (curves.median_s > 1.05 * curves.start_s) & curves.common
    over_v = np.where(ramp, curves.voltage_v - threshold_v, np.nan)
    stopped = np.isfinite(part_s[:, -1])
    reached_s = np.where(stopped, np.nanmedian(part_s[:, -10:], axis=1), np.nanmax(part_s, axis=1))
    noise, base = float(np.nanmedian(curves.noise)), SwitchingSettings()
    if rows.swept == "line":
        cell_v = np.nanmedian(over_v - part_s / slope, axis=1)
        log_limit, limit_spread = _limit(np.log(reached_s), stopped)
        gate_s_per_v = np.exp(log_limit) / (rows.held_v - base.gate_threshold_v)
        return np.array([threshold_v, _spread(cell_v), slope, gate_s_per_v, limit_spread, series_ohm, noise])
    ratio = np.nanmedian(np.log(part_s / (slope * over_v)), axis=1)
    limit_s, limit_spread_s = _limit(reached_s, stopped)
    line_s_per_v = limit_s / (rows.held_v - base.set_voltage_v)
    cell_v = limit_spread_s / line_s_per_v
    return np.array([threshold_v, slope, _spread(ratio), line_s_per_v, cell_v, series_ohm, noise])


#: parameters of each kind of sweep, in the order of `_estimate`
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
        ("set_cell_v", "V"),
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
        "set_voltage_v stays as it was.",
        _FEW,
    ),
}


def _limit(reached: NDArray[np.float64], stopped: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and spread of where cells stop rising; cells whose sweeps ended earlier tell only a lower bound."""
    if not stopped.any():
        return float(reached.max()), 0.0
    scale = float(reached[stopped].std()) or 1.0

    def cost(p: NDArray[np.float64]) -> float:
        z = (reached - p[0]) / (scale * np.exp(p[1]))
        return -float(np.sum(np.where(stopped, -0.5 * z * z - p[1], stats.norm.logsf(z))))

    mean, log_spread = optimize.minimize(cost, [reached.max(), 0.0], method="Nelder-Mead").x
    return float(mean), float(scale * np.exp(log_spread))


def _spread(values: NDArray[np.float64]) -> float:
    """Standard deviation that a few odd cells do not move."""
    return float(stats.median_abs_deviation(values, scale="normal", nan_policy="omit"))
