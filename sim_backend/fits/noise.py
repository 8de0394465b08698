"""Fit of `sim_backend.noise` to cells that were read continuously: white, flicker and telegraph part of each.

File: `.npz` with `A_ts_g`, conductance in S, shape (cells, samples), read at 400 Hz (public repository
akashlevy/RRAM-Relaxation-Master-Model).

The first half of a record is left out, in which the cells still relax after programming. The rest is cut into windows
of 10 s, of which every other one is fitted and those between are compared. A window is first split into two states, if
it has two; what remains is white and flicker noise, told apart by its spectrum (Whittle likelihood).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, signal

from hil.errors import DataError
from sim_backend.fits.fit import Fit, Parameter
from sim_backend.fits.npz import read_any
from sim_backend.flicker import FlickerNoise, lorentzians_s, psd_per_hz
from sim_backend.settings import NoiseSettings
from sim_backend.telegraph import TelegraphNoise

SAMPLE_RATE_HZ = 400.0
#: samples after which increments are compared
LAGS = (1, 10, 100, 1000)
_WINDOW = 4000
#: two states closer than this many of their own sigmas are one (Ashman's D is 2 for a distribution with two maxima)
#: pure flicker noise, split at its best, reaches 2.1
_SEPARATION_MIN = 2.6
_VISITS_MIN = 4
#: a cell has telegraph noise if this share of its windows has two states
_TELEGRAPH_SHARE = 0.5
_TRAINING_ROUNDS = 12


@dataclass(frozen=True, eq=False)
class Rows:
    """Continuous reads.

    Attributes:
        conductance_s: shape (cells, samples).
        sample_rate_hz: reads per second.
    """

    conductance_s: NDArray[np.float64]
    sample_rate_hz: float = SAMPLE_RATE_HZ


@dataclass(frozen=True)
class TwoStates:
    """A telegraph cell, in siemens and seconds, with standard errors."""

    low_s: float
    high_s: float
    dwell_low_s: float
    dwell_high_s: float
    amplitude_error_s: float
    n_visits: int


@dataclass(frozen=True)
class CellNoise:
    """Noise of one cell.

    Attributes:
        mean_s: mean conductance.
        white_s, flicker_s: sigma of each part, with its standard error.
        states: None without telegraph noise.
        telegraph_share: share of windows with two states.
        slope: exponent b of a spectrum 1/f^b fitted between a thousandth and a fortieth of the sample rate.
    """

    mean_s: float
    white_s: tuple[float, float]
    flicker_s: tuple[float, float]
    states: TwoStates | None
    telegraph_share: float
    slope: float


def load(path: str | Path) -> Rows:
    """Traces of the file.

    Raises:
        DataError: the file is no `.npz` with `A_ts_g`, or that is no (cells, samples) of positive conductances.
    """
    conductance_s = read_any(path, ("A_ts_g",))["A_ts_g"]
    if conductance_s.ndim != 2 or conductance_s.shape[1] < 4 * _WINDOW:
        raise DataError(
            f"{path}: array 'A_ts_g' has shape {conductance_s.shape}, not (cells, samples) with at least "
            f"{4 * _WINDOW} samples",
            fix="give longer traces, one row per cell",
        )
    if conductance_s.mean(axis=1).min() <= 0.0:
        raise DataError(f"{path}: a trace of 'A_ts_g' has a mean that is not above 0 S", fix="give conductances in S")
    still = np.flatnonzero(np.ptp(conductance_s[:, -2 * _WINDOW :], axis=1) == 0.0)
    if still.size:
        raise DataError(f"{path}: trace {still[0]} of 'A_ts_g' never changes", fix="leave dead cells out")
    return Rows(conductance_s)


def fit(rows: Rows, seed: int = 0) -> Fit:
    """Noise of each cell from every other window of the second half of its trace; compared with those between."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(33,)))
    n_cells, n_samples = rows.conductance_s.shape
    n_windows = n_samples // 2 // _WINDOW
    windows_s = rows.conductance_s[:, n_samples - n_windows * _WINDOW :].reshape(n_cells, n_windows, _WINDOW)
    fitted_s, kept_s = windows_s[:, ::2], windows_s[:, 1::2]
    low_hz, high_hz = rows.sample_rate_hz / _WINDOW, rows.sample_rate_hz / 2.0
    cells = [noise_of_cell(traces_s, rows.sample_rate_hz, low_hz, high_hz) for traces_s in fitted_s]
    simulated_s = [_simulate(cell, kept_s.shape[1], rows.sample_rate_hz, low_hz, high_hz, rng) for cell in cells]
    samples, goodness = {}, {}
    for number, (cell, measured_s, modelled_s) in enumerate(zip(cells, kept_s, simulated_s, strict=True)):
        for lag in LAGS:
            samples[f"change over {lag / rows.sample_rate_hz:g} s, cell {number} [uS]"] = (
                1e6 * (measured_s[:, lag:] - measured_s[:, :-lag]).ravel(),
                1e6 * (modelled_s[:, lag:] - modelled_s[:, :-lag]).ravel(),
            )
        samples[f"deviation from the mean, cell {number} [uS]"] = (
            1e6 * (measured_s - measured_s.mean(axis=1, keepdims=True)).ravel(),
            1e6 * (modelled_s - modelled_s.mean(axis=1, keepdims=True)).ravel(),
        )
        goodness[f"spectral slope, cell {number}"] = cell.slope
        goodness[f"share of windows with two states, cell {number}"] = cell.telegraph_share
        goodness[f"spectrum, simulated over measured, rms of decades, cell {number}"] = _spectrum_distance(
            measured_s, modelled_s, rows.sample_rate_hz
        )
    return Fit(
        model="noise",
        parameters=_parameters(cells),
        goodness=goodness,
        samples=samples,
        settings={"noise.flicker_low_hz": low_hz, "noise.flicker_high_hz": high_hz, **_settings(cells)},
        n_rows=int(windows_s.size),
        notes=(
            "the first half of each record is left out: cells still relax there, in single large jumps",
            "few cells: settings are the mean over cells, on a logarithmic scale, and say little about the spread",
            "in siemens, the noise is about the same at all conductances: relative to the conductance it falls as that "
            "rises, while the simulator's is one ratio for all cells",
            "a cell with more than two states is described by two, and its spectrum falls faster than 1/f",
            "what is slower than a window (10 s) is left out; the flicker noise is cut off there",
            "traps come and go: a cell counts as a telegraph cell if half of its windows show two states",
        ),
    )


def noise_of_cell(traces_s: NDArray[np.float64], sample_rate_hz: float, low_hz: float, high_hz: float) -> CellNoise:
    """Noise of a cell from traces of it, shape (windows, samples); flicker noise reaches from `low_hz` to `high_hz`."""
    found = [two_states(trace_s, sample_rate_hz) for trace_s in traces_s]
    visible = [states for states, _ in found if states is not None]
    telegraph_share = len(visible) / len(found)
    states, rest_s = None, traces_s
    if telegraph_share >= _TELEGRAPH_SHARE:
        states = _joined(visible)
        rest_s = np.array([trace_s - path_s for trace_s, (_, path_s) in zip(traces_s, found, strict=True)])
    frequency_hz, powers = signal.periodogram(rest_s, sample_rate_hz, window="hann", detrend="constant")
    frequency_hz, power = frequency_hz[1:-1], powers[:, 1:-1].mean(axis=0)
    shape = psd_per_hz(frequency_hz, 1.0 / sample_rate_hz, lorentzians_s(low_hz, high_hz))
    parts = np.stack([np.full_like(shape, 2.0 / sample_rate_hz), shape])

    def cost(logarithms: NDArray[np.float64]) -> float:
        model = np.exp(logarithms) @ parts
        return float(np.mean(power / model + np.log(model)))

    total = float(rest_s.var(axis=1).mean())
    start = np.log([0.5 * total, 0.5 * total])
    found = optimize.minimize(cost, start, method="L-BFGS-B", bounds=[(x - 15.0, x + 3.0) for x in start])
    variances = np.exp(found.x)
    weighted = parts / (variances @ parts)
    # of neighbouring frequencies of a Hann-windowed record, about every second is independent
    information = 0.5 * len(traces_s) * weighted @ weighted.T
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    white, flicker = (_sigma(float(variance), float(error)) for variance, error in zip(variances, errors, strict=True))
    band = (frequency_hz > sample_rate_hz / 4000.0) & (frequency_hz < sample_rate_hz / 40.0)
    slope = -np.polyfit(np.log(frequency_hz[band]), np.log(power[band]), 1)[0]
    return CellNoise(float(traces_s.mean()), white, flicker, states, telegraph_share, float(slope))


def _sigma(variance: float, error: float) -> tuple[float, float]:
    """Standard deviation and its error; for a variance that the data do not tell from zero, the error is a limit."""
    sigma = math.sqrt(variance)
    return sigma, error / (2.0 * sigma) if variance > error else math.sqrt(error)


def two_states(trace_s: NDArray[np.float64], sample_rate_hz: float) -> tuple[TwoStates | None, NDArray[np.float64]]:
    """The two conductances between which a cell jumps, and which it has at each sample; its mean if it has not two.

    Viterbi training of a hidden Markov chain with two Gaussian states.
    """
    n_samples = len(trace_s)
    mean_s = np.full(n_samples, trace_s.mean())
    middle_s = 0.5 * (np.quantile(trace_s, 0.02) + np.quantile(trace_s, 0.98))
    path = (trace_s > middle_s).astype(np.int8)
    for _ in range(_TRAINING_ROUNDS):
        if min(path.sum(), n_samples - path.sum()) < _VISITS_MIN:
            return None, mean_s
        before, path = path, _most_likely_path(trace_s, path)
        if np.array_equal(before, path):
            break
    n_high = int(path.sum())
    # runs of equal states
    starts = np.flatnonzero(np.diff(path)) + 1
    n_visits = len(starts) // 2
    if n_visits < _VISITS_MIN or n_high in (0, n_samples):
        return None, mean_s
    low_s, high_s = trace_s[path == 0], trace_s[path == 1]
    sigma_s = math.sqrt(0.5 * (low_s.var() + high_s.var()))
    if high_s.mean() - low_s.mean() < _SEPARATION_MIN * sigma_s:
        return None, mean_s
    states = TwoStates(
        low_s=float(low_s.mean()),
        high_s=float(high_s.mean()),
        dwell_low_s=(n_samples - n_high) / sample_rate_hz / n_visits,
        dwell_high_s=n_high / sample_rate_hz / n_visits,
        amplitude_error_s=sigma_s * math.sqrt(2.0 / n_visits),
        n_visits=n_visits,
    )
    return states, np.where(path == 1, states.high_s, states.low_s)


def _joined(windows: list[TwoStates]) -> TwoStates:
    """One pair of states for several windows of a cell: medians, and dwell times by the visits of all."""
    visits = np.array([states.n_visits for states in windows])
    amplitudes_s = np.array([states.high_s - states.low_s for states in windows])
    amplitude_s, middle_s = np.median(amplitudes_s), np.median([states.high_s + states.low_s for states in windows]) / 2
    errors_s = np.array([states.amplitude_error_s for states in windows])
    return TwoStates(
        low_s=float(middle_s - amplitude_s / 2),
        high_s=float(middle_s + amplitude_s / 2),
        dwell_low_s=float(np.average([states.dwell_low_s for states in windows], weights=visits)),
        dwell_high_s=float(np.average([states.dwell_high_s for states in windows], weights=visits)),
        amplitude_error_s=float(np.hypot(np.median(errors_s), amplitudes_s.std()) / math.sqrt(len(windows))),
        n_visits=int(visits.sum()),
    )


def _most_likely_path(trace_s: NDArray[np.float64], path: NDArray[np.int8]) -> NDArray[np.int8]:
    """Most likely states of a two-state chain whose parameters are taken from an earlier path (Viterbi)."""
    floor_s = 1e-6 * (np.ptp(trace_s) + 1e-30)
    log_density = [
        -0.5 * ((trace_s - part.mean()) / (part.std() + floor_s)) ** 2 - math.log(part.std() + floor_s)
        for part in (trace_s[path == 0], trace_s[path == 1])
    ]
    jump, stay = [], []
    for state in (0, 1):
        leaves = np.count_nonzero((path[:-1] == state) & (path[1:] != state)) + 0.5
        share = leaves / (np.count_nonzero(path[:-1] == state) + 1.0)
        jump.append(math.log(share))
        stay.append(math.log1p(-share))
    low, high = float(log_density[0][0]), float(log_density[1][0])
    from_high = np.zeros((len(trace_s), 2), np.bool_)
    for number, (at_low, at_high) in enumerate(
        zip(log_density[0][1:].tolist(), log_density[1][1:].tolist(), strict=True), 1
    ):
        low_low, high_low = low + stay[0], high + jump[1]
        low_high, high_high = low + jump[0], high + stay[1]
        from_high[number] = high_low > low_low, high_high > low_high
        low, high = max(low_low, high_low) + at_low, max(low_high, high_high) + at_high
    state = int(high > low)
    best = np.empty(len(trace_s), np.int8)
    for number in range(len(trace_s) - 1, -1, -1):
        best[number] = state
        state = int(from_high[number, state])
    return best


def _simulate(
    cell: CellNoise, n_windows: int, sample_rate_hz: float, low_hz: float, high_hz: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Traces of cells like this one from the simulator's noise processes, shape (windows, samples)."""
    # all of the variance is flicker noise and its sigma the conductance, so that it can be given in siemens
    settings = NoiseSettings(relative=1.0, flicker_share=1.0, flicker_low_hz=low_hz, flicker_high_hz=high_hz)
    flicker = FlickerNoise.from_settings(settings, (n_windows,))
    flicker_s, mean_s = np.full(n_windows, cell.flicker_s[0]), np.full(n_windows, cell.mean_s)
    times_s = np.arange(_WINDOW) / sample_rate_hz
    traces_s = np.array([flicker.at(time_s, ..., flicker_s, rng) for time_s in times_s])
    if cell.states is not None:
        telegraph = TelegraphNoise(
            trap=np.arange(n_windows, dtype=np.int32),
            amplitude=np.full(n_windows, (cell.states.high_s - cell.states.low_s) / cell.mean_s),
            high_s=np.full(n_windows, cell.states.dwell_high_s),
            low_s=np.full(n_windows, cell.states.dwell_low_s),
            high=np.zeros(n_windows, np.bool_),
            time_s=np.full(n_windows, -np.inf),
        )
        traces_s += np.array([telegraph.at(time_s, ..., mean_s, rng) for time_s in times_s])
    traces_s += cell.white_s[0] * rng.standard_normal(traces_s.shape)
    return cell.mean_s + traces_s.T


def _parameters(cells: list[CellNoise]) -> dict[str, Parameter]:
    found = {}
    for number, cell in enumerate(cells):
        found[f"mean, cell {number}"] = Parameter(cell.mean_s, math.nan, "S")
        found[f"white sigma, cell {number}"] = Parameter(*cell.white_s, "S")
        found[f"flicker sigma, cell {number}"] = Parameter(*cell.flicker_s, "S")
        if cell.states is None:
            continue
        states, relative = cell.states, 1.0 / math.sqrt(cell.states.n_visits)
        amplitude = Parameter(states.high_s - states.low_s, states.amplitude_error_s, "S")
        found[f"telegraph amplitude, cell {number}"] = amplitude
        for name, dwell_s in (("low", states.dwell_low_s), ("high", states.dwell_high_s)):
            found[f"mean time in {name} state, cell {number}"] = Parameter(dwell_s, dwell_s * relative, "s")
    for name, values in _across(cells).items():
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
        found[f"{name}, mean of logarithm over cells"] = Parameter(float(values.mean()), error, "")
    return found


def _across(cells: list[CellNoise]) -> dict[str, NDArray[np.float64]]:
    """Logarithms of relative quantities of all cells."""
    totals = np.array([math.hypot(cell.white_s[0], cell.flicker_s[0]) / cell.mean_s for cell in cells])
    jumps = [(cell.states.high_s - cell.states.low_s) / cell.mean_s for cell in cells if cell.states is not None]
    return {"relative sigma": np.log(totals), **({"relative amplitude": np.log(jumps)} if jumps else {})}


def _settings(cells: list[CellNoise]) -> dict[str, float]:
    """Settings of the simulator for cells such as these."""
    across = _across(cells)
    flicker = [cell.flicker_s[0] ** 2 / (cell.flicker_s[0] ** 2 + cell.white_s[0] ** 2) for cell in cells]
    found = {
        "noise.relative": float(np.exp(across["relative sigma"].mean())),
        "noise.flicker_share": float(np.mean(flicker)),
        "telegraph.share": float(np.mean([cell.telegraph_share for cell in cells])),
    }
    if "relative amplitude" in across:
        dwells_s = [
            dwell_s
            for cell in cells
            if cell.states is not None
            for dwell_s in (cell.states.dwell_low_s, cell.states.dwell_high_s)
        ]
        found |= {
            "telegraph.amplitude": float(np.exp(across["relative amplitude"].mean())),
            "telegraph.dwell_min_s": min(dwells_s),
            "telegraph.dwell_max_s": max(dwells_s),
        }
        if len(across["relative amplitude"]) > 1:
            found["telegraph.amplitude_spread"] = float(across["relative amplitude"].std(ddof=1))
    return found


def _spectrum_distance(
    measured_s: NDArray[np.float64], simulated_s: NDArray[np.float64], sample_rate_hz: float
) -> float:
    """Root mean square of log10 of the ratio of two spectra, averaged over logarithmic bins."""
    powers = []
    for traces_s in (measured_s, simulated_s):
        frequency_hz, power = signal.periodogram(traces_s, sample_rate_hz, window="hann", detrend="constant")
        frequency_hz, power = frequency_hz[1:], power[:, 1:]
        bins = np.digitize(np.log10(frequency_hz), np.arange(-3.0, 6.0, 0.25))
        # the lowest bins hold too few frequencies for an average
        enough = [number for number in np.unique(bins) if np.count_nonzero(bins == number) >= 4]
        powers.append(np.array([power[:, bins == number].mean() for number in enough]))
    return float(np.sqrt(np.mean(np.log10(powers[1] / powers[0]) ** 2)))
