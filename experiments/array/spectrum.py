"""Noise spectra of read traces: Welch's estimate, and a fit of white noise plus 1/f^a to it.

Reads come at the times at which the array was free, not at those of a sampling clock. Within a stretch of reads whose
intervals lie near their median, a trace is taken as evenly sampled at the mean interval of that stretch; a longer
pause, as after an interruption, ends the stretch, and no segment of the estimate reaches across it. What that costs is
stated as `jitter`: the estimate holds at frequencies well below 1 / (2 pi jitter interval).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError

#: a pause of this many median intervals ends a stretch of even sampling
_PAUSE = 3.0
_SHORTEST_SEGMENT = 8
_BINS_PER_DECADE = 10
_EXPONENTS = np.linspace(0.4, 2.0, 81)
#: independent estimates per segment and frequency: with Hann windows, power correlates by 4 / 9 and 1 / 36 with the
#: next two frequencies and by 1 / 36 with the next segment
_INDEPENDENT = 1 / (1 + 2 * (4 / 9 + 1 / 36)) / (1 + 2 / 36)
#: twice the log likelihood ratio above which 1/f noise is there: chi-squared, 2 degrees of freedom, 1 in 1000
_SIGNIFICANT = 13.8


@dataclass(frozen=True, eq=False)
class Spectrum:
    """One-sided power spectral densities of the traces of several cells.

    Attributes:
        frequency_hz: (n_frequencies,), without 0.
        psd: (n_frequencies, n_cells), in the unit of the trace squared per hertz.
        n_segments: segments averaged.
        interval_s: mean sampling interval.
        jitter: rms deviation of the samples from an even grid, in intervals.
        n_stretches: stretches of even sampling that were used.
    """

    frequency_hz: NDArray[np.float64]
    psd: NDArray[np.float64]
    n_segments: int
    interval_s: float
    jitter: float
    n_stretches: int


@dataclass(frozen=True, eq=False)
class Flicker:
    """White noise plus 1/f^a fitted to each spectrum; arrays over cells.

    Attributes:
        exponent: a; NaN where 1/f noise is not significant.
        exponent_error: its standard error.
        psd_at_1hz: the 1/f^a part at 1 Hz, in the unit of the spectrum; 0 where it is not significant.
        psd_white: the white part.
        corner_hz: where both parts are equal; NaN where there is no such place.
    """

    exponent: NDArray[np.float64]
    exponent_error: NDArray[np.float64]
    psd_at_1hz: NDArray[np.float64]
    psd_white: NDArray[np.float64]
    corner_hz: NDArray[np.float64]


def stretches(time_s: NDArray[np.float64]) -> list[slice]:
    """Where sampling is even: a pause longer than a few median intervals divides."""
    interval_s = np.diff(time_s)
    pauses = np.nonzero(interval_s > _PAUSE * np.median(interval_s))[0] + 1 if len(interval_s) else np.empty(0, int)
    edges = [0, *pauses.tolist(), len(time_s)]
    return [slice(first, last) for first, last in itertools.pairwise(edges)]


def welch(trace: NDArray[np.float64], time_s: NDArray[np.float64], *, n_segments: int = 8) -> Spectrum:
    """Welch's estimate: Hann windows that overlap by half, the mean of each segment taken off.

    Args:
        trace: (n_times, n_cells).
        time_s: when each row of it was taken, rising.
        n_segments: about how many non-overlapping segments the longest stretch is cut into: more give less scatter,
            fewer reach lower frequencies. A stretch shorter than a segment is left out.

    Raises:
        DataError: too few samples, or times that do not rise.
    """
    if len(time_s) < 2 * _SHORTEST_SEGMENT or not (np.diff(time_s) > 0).all():
        raise DataError(
            f"a spectrum needs {2 * _SHORTEST_SEGMENT} reads or more at rising times; {len(time_s)} were given",
            fix="read more often, with a pause between reads if the clock of the array stands still",
        )
    even = stretches(time_s)
    longest = max(part.stop - part.start for part in even)
    n = max(longest // n_segments, min(longest, _SHORTEST_SEGMENT))
    used = [part for part in even if part.stop - part.start >= n]
    steps = sum(part.stop - part.start - 1 for part in used)
    interval_s = sum(float(time_s[part.stop - 1] - time_s[part.start]) for part in used) / max(steps, 1)
    window = np.hanning(n + 1)[:-1]
    total, count = np.zeros((n // 2 + 1, trace.shape[1])), 0
    trace = trace - trace[0]  # a constant trace is then exactly 0, without rounding
    for part in used:
        for start in range(part.start, part.stop - n + 1, max(n // 2, 1)):
            segment = trace[start : start + n]
            total += np.abs(np.fft.rfft((segment - segment.mean(axis=0)) * window[:, None], axis=0)) ** 2
            count += 1
    psd = total * (2 * interval_s / (count * (window**2).sum()))
    if n % 2 == 0:
        psd[-1] /= 2  # the highest frequency has no negative twin
    off_grid = np.concatenate([_off_grid(time_s[part]) for part in used])
    jitter = float(np.sqrt((off_grid**2).mean())) / interval_s
    return Spectrum(np.fft.rfftfreq(n, interval_s)[1:], psd[1:], count, interval_s, jitter, len(used))


def fit_flicker(spectrum: Spectrum) -> Flicker:
    """Fit psd = white + b / f^a to each spectrum by Whittle's likelihood.

    Both parts at once, since a straight line through a spectrum with a white floor gives an exponent that is too low.
    Estimates are first averaged over bins that are even in log f, so that each decade counts alike. The two lowest
    frequencies are left out: there the window and the mean that was taken off bend the spectrum.
    """
    frequency_hz, psd, weight = _log_bins(spectrum.frequency_hz[2:], spectrum.psd[2:])
    weight = weight * max(1.0, spectrum.n_segments * _INDEPENDENT)
    n_cells = psd.shape[1]
    scale = psd.mean(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    relative = np.maximum(psd / scale, 1e-30)
    white_only = np.average(relative, axis=0, weights=weight)
    best = 2 * (weight[:, None] * (np.log(white_only) + relative / white_only)).sum(axis=0)
    cost = np.empty((len(_EXPONENTS), n_cells))
    parts = np.empty((len(_EXPONENTS), 2, n_cells))
    middle_hz = float(np.exp(np.log(frequency_hz).mean()))
    for i, exponent in enumerate(_EXPONENTS):
        parts[i], cost[i] = _two_parts((frequency_hz / middle_hz) ** -exponent, relative, weight)
    chosen, cells = cost.argmin(axis=0), np.arange(n_cells)
    significant = best - cost[chosen, cells] > _SIGNIFICANT
    white, slope = parts[chosen, :, cells].T * scale
    exponent = np.where(significant, _EXPONENTS[chosen], np.nan)
    at_1hz = np.where(significant, slope * middle_hz ** np.nan_to_num(exponent), 0.0)
    white = np.where(significant, white, white_only * scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        corner_hz = np.where(significant & (white > 0), (at_1hz / white) ** (1 / exponent), np.nan)
    return Flicker(exponent, _standard_error(cost, chosen, significant), at_1hz, white, corner_hz)


def _off_grid(time_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each time lies from an even grid between the first and the last."""
    return time_s - np.linspace(time_s[0], time_s[-1], len(time_s))


def _log_bins(
    frequency_hz: NDArray[np.float64], psd: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean frequency, mean density and number of estimates of each bin that is not empty."""
    bin_of = np.floor(np.log10(frequency_hz / frequency_hz[0]) * _BINS_PER_DECADE).astype(int)
    _, bin_of, weight = np.unique(bin_of, return_inverse=True, return_counts=True)
    mean_hz = np.exp(np.bincount(bin_of, np.log(frequency_hz)) / weight)
    mean = np.zeros((len(weight), psd.shape[1]))
    np.add.at(mean, bin_of, psd)
    return mean_hz, mean / weight[:, None], weight.astype(np.float64)


def _two_parts(
    shape: NDArray[np.float64], psd: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Best white and sloping part for one exponent, and twice the negative log likelihood; over cells.

    An estimate scatters in proportion to its mean, so that least squares with weights 1 / mean^2, repeated, converge
    to the maximum of the likelihood.
    """
    model = psd.copy()
    slope = shape[:, None]
    for _ in range(6):
        w = weight[:, None] / model**2
        s0, s1, s2 = w.sum(axis=0), (w * slope).sum(axis=0), (w * slope**2).sum(axis=0)
        t0, t1 = (w * psd).sum(axis=0), (w * slope * psd).sum(axis=0)
        white, b = (s2 * t0 - s1 * t1), (s0 * t1 - s1 * t0)
        determinant = np.maximum(s0 * s2 - s1**2, 1e-300)
        white, b = white / determinant, b / determinant
        # A part below zero is no part: the other one is then fitted alone.
        white, b = np.where(b < 0, t0 / s0, white), np.where(white < 0, t1 / s2, b)
        white, b = np.maximum(white, 0.0), np.maximum(b, 0.0)
        model = np.maximum(white + b * slope, 1e-30)
    return np.stack([white, b]), 2 * (weight[:, None] * (np.log(model) + psd / model)).sum(axis=0)


def _standard_error(
    cost: NDArray[np.float64], chosen: NDArray[np.intp], significant: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """From the curvature of the likelihood at the best exponent."""
    reach, cells = 5, np.arange(cost.shape[1])
    middle = np.clip(chosen, reach, len(cost) - 1 - reach)
    step = reach * (_EXPONENTS[1] - _EXPONENTS[0])
    bend = (cost[middle - reach, cells] - 2 * cost[middle, cells] + cost[middle + reach, cells]) / step**2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(significant & (bend > 0), np.sqrt(2 / bend), np.nan)
