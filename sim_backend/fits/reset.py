"""Fit of RESET: conductance after pulses of rising source-line or word-line voltage.

Layout of a file: see `sim_backend.fits.sweep`, with the source line as the driven line.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from hil.errors import DataError
from sim_backend.fits.fit import Fit, Parameter, between_halves, bootstrap, halves, require_cells, with_settings
from sim_backend.fits.sweep import SweepRows, Sweeps, load_sweep, simulate_sweeps, table_of
from sim_backend.settings import SimSettings, SwitchingSettings
from sim_backend.switching import Switching

#: RESET has begun where conductance is this much of that at the start of the sweep ...
BEGUN = 0.5
#: ... and sweeps that do not start in the low-resistance state, within this factor of the median, are left out.
LOW_STATE = 1.8
_SIMULATED_PER_MEASURED = 20
_ROUNDS = 4


def load(path: Path) -> SweepRows:
    """Read a file of measured RESET sweeps."""
    return load_sweep(path, "v_sl")


def fit(rows: SweepRows, seed: int = 0) -> Fit:
    """Onset of each cell, then a regression of the pulses after it; compared with the cells kept out."""
    require_cells(rows.cell, 10)
    rows, n_left_out = _from_low_state(rows)
    rng, matching_rng, simulation_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    fitted, kept_out = halves(rows.cell, rng)
    cells = np.unique(rows.cell[fitted])
    drop_v = _gate_drop_v(rows)
    after = _AfterOnset.of(rows, cells, drop_v if rows.swept == "gate" else 0.0)
    values, errors = bootstrap(after.estimate, len(cells), rng)
    raw = dict(zip(_NAMES, values.tolist(), strict=True))
    raw["reset_floor_s"] = 1e-9
    fixed = {"reset_gate_drop_v": drop_v, "reset_back": 1.0, "width_ref_s": rows.width_s}
    tuned = _match_onset(rows, fitted, {**raw, **fixed}, after, matching_rng)
    errors_of = dict(zip(_NAMES, errors.tolist(), strict=True))
    parameters = {name: Parameter(tuned[name], errors_of[name], unit) for name, unit in _NAMES.items()}
    settings = {f"switching.{name}": value for name, value in tuned.items()}
    measured, other_half = (table_of(rows, np.unique(rows.cell[half])) for half in (kept_out, fitted))
    model = Switching.from_settings(with_settings(settings).switching)
    samples = compare(measured, simulate(rows, model, kept_out, simulation_rng))
    return Fit(
        model="reset",
        parameters=parameters,
        goodness={
            "cells_fitted": float(len(cells)),
            "cells_kept_out": float(len(np.unique(rows.cell[kept_out]))),
            "sweeps_left_out": float(n_left_out),
            **between_halves(samples, compare(measured, other_half)),
        },
        samples=samples,
        settings=settings,
        n_rows=len(rows.cell),
        notes=(
            *_NOTES[rows.swept],
            f"{n_left_out} sweeps that did not start in the low-resistance state are left out: their first pulses SET "
            "the cell, which the model does not have.",
            "Standard errors are those of the measured statistics, before they were matched by simulation.",
            "Distances cannot be smaller than chance between so few cells: see the distance between the two halves.",
        ),
    )


def simulate(rows: SweepRows, model: Switching, like: NDArray[np.bool_], rng: np.random.Generator) -> Sweeps:
    """Sweeps of simulated cells that start where the measured ones did, and end at the same conductance."""
    start_s = np.tile(rows.initial_s[rows.first[like[rows.first]]], _SIMULATED_PER_MEASURED)
    cell = _simulated_cell(rows, like)
    cells = model.draw_cells(rng, (int(cell.max()) + 1,)).at(cell)
    end_s = np.quantile(rows.final_s[rows.ended_early], 0.99) if rows.ended_early.any() else 0.0
    return simulate_sweeps(rows, model.after_reset_s, cells, start_s, lambda now_s: now_s <= end_s, rng)


def _simulated_cell(rows: SweepRows, like: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Number of the simulated cell that each simulated sweep is of: sweeps of one cell share its properties."""
    cell = np.unique(rows.cell[rows.first[like[rows.first]]], return_inverse=True)[1]
    return (cell + (cell.max() + 1) * np.arange(_SIMULATED_PER_MEASURED)[:, np.newaxis]).ravel()


def compare(measured: Sweeps, simulated: Sweeps) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Voltage at which RESET begins, and log conductance after pulses at three voltages, in both."""
    pair = (measured, simulated)
    begin_v, other_v = (sweeps.crossing_v(_begun(sweeps)) for sweeps in pair)
    samples = {"RESET voltage (V)": (begin_v, other_v)}
    step_v = float(np.diff(measured.voltage_v).min())
    for voltage_v in np.median(begin_v) + step_v * np.array([0, 3, 6]):
        at = tuple(np.log10(1.0 / sweeps.at_v(voltage_v)) for sweeps in pair)
        if min(map(len, at)) >= 20:
            samples[f"log10 resistance after {voltage_v:.2f} V (ohm)"] = at
    return samples


#: parameters in the order of `_AfterOnset.estimate`
_NAMES = {
    "reset_voltage_v": "V",
    "reset_cell_v": "V",
    "reset_cycle_v": "V",
    "reset_s": "S",
    "reset_slope_v": "V",
    "reset_cell": "",
    "reset_cycle": "",
    "reset_keep": "",
}

_NOTES = {
    "line": ("reset_gate_drop_v stays as it was: the gate did not limit these sweeps.",),
    "gate": (
        "The source line was held and did not limit: reset_gate_drop_v is set to the least value for which that is so, "
        "and only its sum with reset_voltage_v is determined.",
    ),
}


@dataclass(frozen=True, eq=False)
class _AfterOnset:
    """Pulses of cells that have begun to RESET, ready for regression.

    Attributes:
        onset_v: onset of each sweep (cell voltage), one list per cell.
        pulses: (log conductance before, voltage over the cell's onset, log conductance after), one list per cell.
    """

    onset_v: list[NDArray[np.float64]]
    pulses: list[NDArray[np.float64]]

    @classmethod
    def of(cls, rows: SweepRows, cells: NDArray[np.intp], drop_v: float) -> _AfterOnset:
        onsets, pulses = [], []
        start_s = np.median(rows.initial_s[rows.first])
        for cell in cells:
            sweeps = table_of(rows, np.array([cell]))
            onset_v = sweeps.crossing_v(_begun(sweeps)) - drop_v
            chosen = (rows.cell == cell) & (rows.initial_s < BEGUN * start_s)
            over_v = rows.voltage_v[chosen] - drop_v - (np.median(onset_v) if len(onset_v) else np.nan)
            onsets.append(onset_v)
            pulses.append(np.array([np.log(rows.initial_s[chosen]), over_v, np.log(rows.final_s[chosen])]))
        if sum(map(len, onsets)) < len(cells):
            raise DataError("few of these sweeps RESET a cell to twice its resistance", fix="sweep to a higher voltage")
        return cls(onsets, pulses)

    def onset_statistics(self, pick: NDArray[np.intp]) -> NDArray[np.float64]:
        return _onset_statistics([self.onset_v[cell] for cell in pick])

    def estimate(self, pick: NDArray[np.intp]) -> NDArray[np.float64]:
        """log after = keep * log before + (1 - keep) * (log aim - over_v / slope) + noise, aim different by cell."""
        pulses = [self.pulses[cell] for cell in pick if self.pulses[cell].shape[1] >= 5]
        centred = np.concatenate([part - part.mean(axis=1, keepdims=True) for part in pulses], axis=1)
        (keep, tilt), *_ = np.linalg.lstsq(centred[:2].T, centred[2], rcond=None)
        noise = (centred[2] - keep * centred[0] - tilt * centred[1]).std()
        aim = np.array([(part[2] - keep * part[0] - tilt * part[1]).mean() for part in pulses]) / (1.0 - keep)
        slope_v = (1.0 - keep) / max(-tilt, 1e-3)
        spread = np.array([np.exp(np.median(aim)), slope_v, aim.std(), noise, np.clip(keep, 0.0, 1.0)])
        return np.r_[self.onset_statistics(pick), spread]


def _match_onset(
    rows: SweepRows,
    like: NDArray[np.bool_],
    switching: dict[str, float],
    after: _AfterOnset,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Shift the onset and its spreads until simulated sweeps show the measured onsets.

    A sweep shows an onset only at its next step, and the more steps it has taken, the earlier chance brings it.
    """
    wanted = after.onset_statistics(np.arange(len(after.onset_v)))
    drop_v = switching["reset_gate_drop_v"] if rows.swept == "gate" else 0.0
    names, seed = list(_NAMES)[:3], int(rng.integers(2**32))
    for _ in range(_ROUNDS):
        model = Switching(SwitchingSettings.model_validate(SimSettings().switching.model_dump() | switching))
        sweeps = simulate(rows, model, like, np.random.default_rng(seed))
        cell = _simulated_cell(rows, like)
        begun = _begun(sweeps)
        onset_v = np.where(begun.any(axis=1), sweeps.voltage_v[begun.argmax(axis=1)], np.nan) - drop_v
        by_cell = [onset_v[(cell == c) & np.isfinite(onset_v)] for c in range(cell.max() + 1)]
        shown = _onset_statistics(by_cell)
        switching = {**switching, names[0]: switching[names[0]] + float(wanted[0] - shown[0])}
        for name, want, show in zip(names[1:], wanted[1:], shown[1:], strict=True):
            switching[name] *= float(np.clip(want / max(show, 1e-3), 0.3, 3.0))
    return switching


def _onset_statistics(onset_v: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over cells, spread between cells, spread between the sweeps of a cell; few odd cells do not move them.

    Mean and spread are those of the exponential distribution with the same quartiles.
    """
    seen = [part for part in onset_v if len(part)]
    median_v = np.array([np.median(part) for part in seen])
    within_v = np.concatenate([part - np.median(part) for part in seen])
    low_v, middle_v, high_v = np.quantile(median_v, [0.25, 0.5, 0.75])
    spread_v = (high_v - low_v) / np.log(3.0)
    return np.array([middle_v + (1.0 - np.log(2.0)) * spread_v, spread_v, stats.trim_mean(within_v**2, 0.02) ** 0.5])


def _begun(sweeps: Sweeps) -> NDArray[np.bool_]:
    return sweeps.final_s <= BEGUN * sweeps.final_s[:, :1]


def _from_low_state(rows: SweepRows) -> tuple[SweepRows, int]:
    """Leave out sweeps that start far from the median; returns the rest, and how many there were."""
    start_s = rows.initial_s[rows.first]
    good = start_s > np.median(start_s) / LOW_STATE
    return rows.of_sweeps(good), int((~good).sum())


def _gate_drop_v(rows: SweepRows) -> float:
    """Voltage that the gate keeps from the cell: such that the held line limits nowhere in a sweep of the gate."""
    if rows.swept == "gate":
        return float(rows.voltage_v.max() - rows.held_v)
    return SwitchingSettings().reset_gate_drop_v
