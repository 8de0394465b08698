"""Fit of forming: the voltage at which cells form, and what they conduct afterwards.

Layout of a file: one formed cell per line, tab-separated, plain or gzip'd: address, word-line voltage in V, bit-line
voltage at which the cell formed in V, resistance afterwards in ohm, 1 where forming succeeded. The bit line was raised
from 1.0 V in steps of 0.05 V; forming succeeded where the resistance fell below 50 kohm (no file has more).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from sim_backend.fits.fit import (
    Fit,
    Parameter,
    bootstrap,
    halves,
    most_likely,
    read_table,
    refuse,
    require_cells,
    with_settings,
)
from sim_backend.forming import FormingStatistics

RAMP_START_V = 1.0
RAMP_STEP_V = 0.05
#: A cell that conducts less is not yet formed, and is ramped on.
FORMED_ABOVE_S = 1.0 / 50e3
#: With fewer cells than this all are fitted and all are compared: half of them would tell little.
FEW_CELLS = 400

_COLUMNS = ("addr", "v_wl", "v_bl", "r_final", "success")
_BIN_S = 1e-6


@dataclass(frozen=True, eq=False)
class FormingRows:
    """Cells that formed: address, gate voltage, bit-line voltage of the ramp step, conductance afterwards."""

    cell: NDArray[np.float64]
    v_gate_v: NDArray[np.float64]
    formed_at_v: NDArray[np.float64]
    conductance_s: NDArray[np.float64]


def load(path: Path) -> FormingRows:
    """Read a file of measured forming; cells that did not form are left out."""
    table = read_table(path, _COLUMNS)
    refuse(path, "success", "0 or 1", ~np.isin(table["success"], (0.0, 1.0)), table)
    refuse(path, "r_final", "a resistance above 0 ohm", table["r_final"] <= 0, table)
    refuse(path, "v_bl", "a forming voltage of 0.1 to 10 V", (table["v_bl"] < 0.1) | (table["v_bl"] > 10), table)
    ok = table["success"] == 1.0
    return FormingRows(table["addr"][ok], table["v_wl"][ok], table["v_bl"][ok], 1.0 / table["r_final"][ok])


def fit(rows: FormingRows, seed: int = 0) -> Fit:
    """Maximum likelihood on one half of the cells, compared with the other half (few cells: all with all)."""
    rng, simulation_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    require_cells(rows.cell, 20)
    fitted, kept_out = halves(rows.cell, rng)
    if len(rows.cell) < FEW_CELLS:
        fitted = kept_out = np.ones(len(rows.cell), np.bool_)
    start_v = min(RAMP_START_V, float(rows.formed_at_v.min()))
    voltage_v, cells_s = rows.formed_at_v[fitted], rows.conductance_s[fitted]
    values, errors = bootstrap(
        lambda pick: np.r_[_fit_voltage(voltage_v[pick], start_v), _fit_conductance(cells_s[pick])],
        int(fitted.sum()),
        rng,
    )
    names = {
        "breakdown_mean_v": "V",
        "breakdown_sigma_v": "V",
        "early_share": "",
        "leaky_share": "",
        "early_scale_v": "V",
        "mean_s": "S",
        "sigma_s": "S",
        "weak_share": "",
    }
    parameters = {
        name: Parameter(float(value), float(error), unit)
        for (name, unit), value, error in zip(names.items(), values, errors, strict=True)
    }
    settings = {f"forming.{name}": p.value for name, p in parameters.items() if name != "sigma_s"}
    settings["forming.preset"] = "custom"
    settings["forming.sigma_difference_s"] = float(np.sqrt(2.0) * parameters["sigma_s"].value)
    settings["forming.gate_ref_v"] = float(np.median(rows.v_gate_v))
    model = FormingStatistics.from_settings(with_settings(settings).forming)
    simulated_v, simulated_s = simulate(model, 20_000, start_v, simulation_rng)
    off_gate = int((rows.v_gate_v != np.median(rows.v_gate_v)).sum())
    return Fit(
        model="forming",
        parameters=parameters,
        goodness={"cells_fitted": float(fitted.sum()), "cells_compared": float(kept_out.sum())},
        samples={
            "forming voltage (V)": (rows.formed_at_v[kept_out], simulated_v),
            "conductance after forming (S)": (rows.conductance_s[kept_out], simulated_s),
        },
        settings=settings,
        n_rows=len(rows.cell),
        notes=(
            f"{off_gate} of {len(rows.cell)} cells formed at another gate voltage than the median: too few to fit "
            "how conductance depends on it; gate_threshold_v stays as it was.",
            "The pulse width is not in the file: width_ref_s and width_slope_v stay as they were.",
            f"{int(kept_out.sum())} cells are compared, {int((fitted & kept_out).sum())} of them also fitted.",
            "Measured cells that form early conduct less afterwards; in the model the two are independent.",
        ),
    )


def simulate(
    model: FormingStatistics, n_cells: int, start_v: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ramp cells of the simulator as the measurement did: (ramp step in V at which each formed, its conductance)."""
    breakdown_v = model.draw_breakdown_v(rng, (n_cells,))
    formed_s = model.draw_formed_s(rng, (n_cells,))
    formed_at_v = np.full(n_cells, np.nan)
    waiting = np.ones(n_cells, np.bool_)
    for step in range(200):
        voltage_v = round(start_v + step * RAMP_STEP_V, 6)
        new = waiting & model.forms(voltage_v, model.width_ref_s, breakdown_v)
        formed_at_v[new] = voltage_v
        waiting &= ~new
        if not waiting.any():
            break
    seen = ~waiting & (formed_s >= FORMED_ABOVE_S)
    return formed_at_v[seen], formed_s[seen]


def _fit_voltage(formed_at_v: NDArray[np.float64], start_v: float) -> NDArray[np.float64]:
    """Mean, sigma, early share, leaky share, early scale, by the likelihood of the counts of each ramp step."""
    step, count = np.unique(np.round((formed_at_v - start_v) / RAMP_STEP_V), return_counts=True)
    upper_v = start_v + RAMP_STEP_V * step
    lower_v = np.where(step > 0, upper_v - RAMP_STEP_V, -np.inf)

    def distribution(voltage_v: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
        mean_v, sigma_v, early, leaky, scale_v = p
        exponential = np.exp(np.minimum((voltage_v - mean_v) / scale_v, 0.0))
        return (
            (1 - early - leaky) * ndtr((voltage_v - mean_v) / sigma_v) + early * exponential + leaky * (voltage_v > 0)
        )

    def probability(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return distribution(upper_v, p) - distribution(lower_v, p)

    start = np.array([np.median(formed_at_v), 0.15, 0.05, 0.01, 0.5])
    return most_likely(probability, count, start, share=np.array([False, False, True, True, False]))


def _fit_conductance(conductance_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean and sigma of normal cells, share of weak cells, by the likelihood of counts; cut at FORMED_ABOVE_S."""
    edge_s = np.arange(FORMED_ABOVE_S, max(conductance_s.max(), 2 * FORMED_ABOVE_S) + 2 * _BIN_S, _BIN_S)
    count, _ = np.histogram(conductance_s, edge_s)

    def probability(p: NDArray[np.float64]) -> NDArray[np.float64]:
        mean_s, sigma_s, weak = p
        distribution = (1 - weak) * ndtr((edge_s - mean_s) / sigma_s) + weak * np.clip(edge_s / mean_s, 0.0, 1.0) ** 2
        return np.diff(distribution) / (1.0 - distribution[0])

    start = np.array([np.median(conductance_s), 0.2 * np.median(conductance_s), 0.2])
    return most_likely(probability, count, start, share=np.array([False, False, True]))
