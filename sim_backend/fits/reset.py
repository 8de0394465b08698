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
from sim_backend.fits.sweep import SweepRows, Sweeps, load_sweep, match, shares_below, simulate_sweeps, table_of
from sim_backend.settings import SwitchingSettings
from sim_backend.switching import Switching

#: RESET has begun where conductance is this much of that at the start of the sweep ...
BEGUN = 0.5
#: ... and sweeps that do not start in the low-resistance state, within this factor of the median, are left out.
LOW_STATE = 1.8
#: Sweeps are matched in the share of them below these quantiles of the measured ones, at each step ...
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: ... and in how far their onsets spread in a cell, which counts as much as this many shares.
_ONSET_WEIGHT = 3.0
#: Cells RESET more sharply than these steps resolve: the onset's width is held at this share of a step.
_ONSET_STEPS = 0.2
#: How onsets spread in a cell is told by this many of them or more; steps hide a smaller spread than this.
_SEVERAL, _STEP_HIDES_V = 5, 0.02
_MATCHED_PER_MEASURED = 8
_SIMULATED_PER_MEASURED = 20


def load(path: Path) -> SweepRows:
    """Read a file of measured RESET sweeps."""
    return load_sweep(path, "v_sl")


def fit(rows: SweepRows, seed: int = 0) -> Fit:
    """A regression of pulses after the onset, then a match by simulation; compared with the cells kept out."""
    require_cells(rows.cell, 10)
    rows, n_left_out = _from_low_state(rows)
    rng, matching_rng, simulation_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    fitted, kept_out = halves(rows.cell, rng)
    cells = np.unique(rows.cell[fitted])
    drop_v = _gate_drop_v(rows)
    values, errors = _estimate(rows, fitted, drop_v, rng, int(matching_rng.integers(2**32)))
    tuned, errors_of = (dict(zip(_NAMES, numbers.tolist(), strict=True)) for numbers in (values, errors))
    settings = _settings(rows, values, drop_v)
    parameters = {name: Parameter(tuned[name], errors_of[name], unit) for name, unit in _NAMES.items()}
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
            "Cells RESET more sharply than the steps resolve: reset_onset_v is held at a fifth of a step.",
            f"{n_left_out} sweeps that did not start in the low-resistance state are left out: their first pulses SET "
            "the cell, which the model does not have.",
            "Distances cannot be smaller than chance between so few cells: see the distance between the two halves.",
        ),
    )


def simulate(
    rows: SweepRows,
    model: Switching,
    like: NDArray[np.bool_],
    rng: np.random.Generator,
    per_measured: int = _SIMULATED_PER_MEASURED,
) -> Sweeps:
    """Sweeps of simulated cells that start where the measured ones did, and end at the same conductance."""
    start_s = np.tile(rows.initial_s[rows.first[like[rows.first]]], per_measured)
    cell = _simulated_cell(rows, like, per_measured)
    cells = model.draw_cells(rng, (int(cell.max()) + 1,)).at(cell)
    sweeps = simulate_sweeps(rows, model.after_reset_s, cells, start_s, rng)
    end_s = np.quantile(rows.final_s[rows.ended_early], 0.99) if rows.ended_early.any() else 0.0
    return sweeps.until(sweeps.final_s <= end_s)


def _simulated_cell(rows: SweepRows, like: NDArray[np.bool_], per_measured: int) -> NDArray[np.intp]:
    """Number of the simulated cell that each simulated sweep is of: sweeps of one cell share its properties."""
    cell = np.unique(rows.cell[rows.first[like[rows.first]]], return_inverse=True)[1]
    return (cell + (cell.max() + 1) * np.arange(per_measured)[:, np.newaxis]).ravel()


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


#: parameters; the first `_N_MATCHED` are matched, the others measured
_NAMES = {
    "reset_voltage_v": "V",
    "reset_cell_v": "V",
    "reset_cycle_v": "V",
    "reset_cell_tail": "",
    "reset_s": "S",
    "reset_cell": "",
    "reset_slope_v": "V",
    "reset_cycle": "",
    "reset_keep": "",
    "reset_cycle_cell": "",
}
_N_MATCHED = 5

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

    def estimate(self, pick: NDArray[np.intp]) -> NDArray[np.float64]:
        """log after = keep * log before + (1 - keep) * (log aim - over_v / slope) + noise, aim different by cell."""
        pulses = [self.pulses[cell] for cell in pick if self.pulses[cell].shape[1] >= 5]
        centred = np.concatenate([part - part.mean(axis=1, keepdims=True) for part in pulses], axis=1)
        (keep, tilt), *_ = np.linalg.lstsq(centred[:2].T, centred[2], rcond=None)
        noise = np.median([(part[2] - keep * part[0] - tilt * part[1]).std(ddof=1) for part in pulses])
        aim = np.array([(part[2] - keep * part[0] - tilt * part[1]).mean() for part in pulses]) / (1.0 - keep)
        slope_v = (1.0 - keep) / max(-tilt, 1e-3)
        onset_v = [self.onset_v[cell] for cell in pick]
        several = [part for part in onset_v if len(part) >= _SEVERAL]
        within_v = np.array([np.maximum(part.std(), _STEP_HIDES_V) for part in several])
        chance = np.mean([0.5 / (len(part) - 1) for part in several]) if several else 0.0  # of a normal sample
        differ = np.sqrt(max(0.0, np.log(within_v).var() - chance)) if several else 0.0
        spread = np.array([np.exp(np.median(aim)), aim.std(), slope_v, noise, np.clip(keep, 0.0, 1.0), differ])
        return np.r_[_onset_statistics(onset_v), 1.0, spread]


def _estimate(
    rows: SweepRows, like: NDArray[np.bool_], drop_v: float, rng: np.random.Generator, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters in the order of `_NAMES`, and their standard errors.

    What one pulse does to a cell that has begun to RESET is measured; the rest is matched, from measured values on: a
    sweep shows an onset only at its next step, and the more steps it has taken, the earlier chance brings it.

    Args:
        seed: of the simulated pulses.
    """
    first = rows.first[like[rows.first]]
    cells, cell_of_sweep = np.unique(rows.cell[first], return_inverse=True)
    sweeps = table_of(rows, cells)
    after = _AfterOnset.of(rows, cells, drop_v if rows.swept == "gate" else 0.0)
    start, start_error = bootstrap(after.estimate, len(cells), rng)
    start[1:3] = np.maximum(start[1:3], _STEP_HIDES_V)  # matching multiplies: it would not leave zero
    steps = np.flatnonzero(_begun(sweeps).mean(axis=0) > 0.02)
    levels_s = np.nanquantile(sweeps.final_s[:, steps], _SHARES, axis=0)
    cell_of_simulated = _simulated_cell(rows, like, _MATCHED_PER_MEASURED)

    def statistics(shown: Sweeps, cell_of_sweep: NDArray[np.intp]) -> NDArray[np.float64]:
        final_s = np.where(np.isfinite(shown.final_s), shown.final_s, 0.0)[:, steps]  # it ended below all others
        within_v = max(_within_v(_onsets(shown, cell_of_sweep)), _STEP_HIDES_V)
        return np.append(shares_below(final_s, levels_s), _ONSET_WEIGHT * np.log(within_v))

    def measured(pick: NDArray[np.intp]) -> NDArray[np.float64]:
        chosen = [np.flatnonzero(cell_of_sweep == cell) for cell in pick]
        again = np.repeat(np.arange(len(pick)), [len(part) for part in chosen])
        return statistics(Sweeps(sweeps.voltage_v, sweeps.final_s[np.concatenate(chosen)]), again)

    def simulated(values: NDArray[np.float64]) -> NDArray[np.float64]:
        settings = _settings(rows, np.append(values, start[_N_MATCHED:]), drop_v)
        model = Switching.from_settings(with_settings(settings).switching)
        return statistics(
            simulate(rows, model, like, np.random.default_rng(seed), _MATCHED_PER_MEASURED), cell_of_simulated
        )

    values, errors = match(simulated, measured, len(cells), start[:_N_MATCHED], rng)
    return np.append(values, start[_N_MATCHED:]), np.append(errors, start_error[_N_MATCHED:])


def _settings(rows: SweepRows, values: NDArray[np.float64], drop_v: float) -> dict[str, float]:
    fixed = {
        "reset_onset_v": _ONSET_STEPS * float(np.diff(rows.steps_v).min()),
        "reset_floor_s": 1e-9,
        "reset_gate_drop_v": drop_v,
        "reset_back": 1.0,
        "width_ref_s": rows.width_s,
    }
    found = dict(zip(_NAMES, values.tolist(), strict=True))
    return {f"switching.{name}": value for name, value in (found | fixed).items()}


def _onsets(sweeps: Sweeps, cell_of_sweep: NDArray[np.intp]) -> list[NDArray[np.float64]]:
    """Onsets of the sweeps of each cell, in which there is one."""
    begun = _begun(sweeps)
    onset_v = np.where(begun.any(axis=1), sweeps.voltage_v[begun.argmax(axis=1)], np.nan)
    return [onset_v[(cell_of_sweep == cell) & np.isfinite(onset_v)] for cell in range(int(cell_of_sweep.max()) + 1)]


def _onset_statistics(onset_v: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over cells, spread between cells, spread between the sweeps of a cell; few odd cells do not move them.

    Mean and spread are those of the exponential distribution with the same quartiles.
    """
    seen = [part for part in onset_v if len(part)]
    median_v = np.array([np.median(part) for part in seen])
    low_v, middle_v, high_v = np.quantile(median_v, [0.25, 0.5, 0.75])
    spread_v = (high_v - low_v) / np.log(3.0)
    return np.array([middle_v + (1.0 - np.log(2.0)) * spread_v, spread_v, _within_v(onset_v)])


def _within_v(onset_v: list[NDArray[np.float64]]) -> float:
    """Spread between the sweeps of a cell."""
    deviations_v = np.concatenate([part - np.median(part) for part in onset_v if len(part)] or [np.zeros(1)])
    return float(stats.trim_mean(deviations_v**2, 0.02) ** 0.5)


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
