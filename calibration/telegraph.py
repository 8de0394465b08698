"""Random telegraph noise in read traces: two levels between which a cell jumps at random.

What tells two levels from one is the distribution of the reads, and 1/f noise alone often looks as if it had two: it
lingers. A trace is therefore compared with surrogates of itself that have its spectrum and one Gaussian level (phases
drawn at random). Averages over neighbouring reads are looked at, too, since levels closer than the scatter of one read
show up there as long as the cell stays in them for longer. A cell counts as telegraph noise if all of this holds:

- two levels explain its reads better than one, by more than they do for all but a share `significance` of surrogates;
- the levels lie further apart than twice the scatter around them (Ashman's D), and than two steps of a converter;
- the cell changes level often enough that a single drift or jump is not taken for it;
- neither level is a rare exception.

Not found: levels within the scatter that change about as fast as reads come, and more than two levels as such.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_N_BINS = 64
_N_ITERATIONS = 15
#: where the levels of a search start: share of the lower one
_STARTS = (0.5, 0.1, 0.9)
_SEPARATION_MIN = 2.0
_CHANGES_MIN = 6
_OCCUPANCY_MIN = 0.02
#: fewest averages of neighbouring reads in which levels can be told
_POINTS_MIN = 48
#: drawn in turns: a few tell most traces with other noise
_N_SURROGATES = (20, 180)


@dataclass(frozen=True, eq=False)
class Telegraph:
    """What was found; arrays over cells, NaN where no telegraph noise was found.

    Attributes:
        found: cells with telegraph noise.
        p_value: share of surrogates in which two levels look as likely; 1 where there is no candidate at all.
        low, high: the levels, in the unit of the trace.
        amplitude: their distance.
        occupancy_high: share of the reads in the upper level.
        dwell_low_s, dwell_high_s: mean stay in a level.
        n_changes: changes of level.
    """

    found: NDArray[np.bool_]
    p_value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    occupancy_high: NDArray[np.float64]
    dwell_low_s: NDArray[np.float64]
    dwell_high_s: NDArray[np.float64]
    n_changes: NDArray[np.int64]


def detect(
    trace: NDArray[np.float64], interval_s: float, rng: np.random.Generator, *, significance: float = 0.005
) -> Telegraph:
    """Look for two-level telegraph noise in each column of a trace.

    Args:
        trace: (n_times, n_cells), evenly sampled.
        interval_s: sampling interval, from which dwell times follow.
        rng: draws the surrogates.
        significance: share of surrogates that may look as two-level as the trace.
    """
    n_cells = trace.shape[1]
    cells = [_look(trace[:, i], rng, significance) for i in range(n_cells)]
    p_value = np.array([p for p, _ in cells], np.float64)
    fits = [two for _, two in cells]

    def column(get: str) -> NDArray[np.float64]:
        return np.array([np.nan if two is None else getattr(two, get) for two in fits], np.float64)

    low, high = column("low"), column("high")
    return Telegraph(
        found=np.array([two is not None for two in fits], np.bool_),
        p_value=p_value,
        low=low,
        high=high,
        amplitude=high - low,
        occupancy_high=column("occupancy_high"),
        dwell_low_s=column("dwell_low") * interval_s,
        dwell_high_s=column("dwell_high") * interval_s,
        n_changes=np.array([0 if two is None else two.n_changes for two in fits], np.int64),
    )


@dataclass(frozen=True)
class _Levels:
    """Two levels of one trace; dwell times in reads."""

    low: float
    high: float
    occupancy_high: float
    dwell_low: float
    dwell_high: float
    n_changes: int


def _look(x: NDArray[np.float64], rng: np.random.Generator, significance: float) -> tuple[float, _Levels | None]:
    """P-value and levels of one trace; no levels unless all conditions hold."""
    if len(x) < _POINTS_MIN or np.ptp(x) == 0:
        return 1.0, None
    step = _converter_step(x)
    candidate: _Levels | None = None
    for width in _widths(len(x)):
        fit = _mixture(_averaged(x[None], width))
        if fit.separation[0] > _SEPARATION_MIN:
            levels = _follow(x, fit, width)
            if _plausible(levels, step) and (candidate is None or levels.n_changes > candidate.n_changes):
                candidate = levels
    if candidate is None:
        return 1.0, None
    p_value = _p_value(x, rng, significance)
    return p_value, candidate if p_value <= significance else None


def _p_value(x: NDArray[np.float64], rng: np.random.Generator, significance: float) -> float:
    """Share of surrogates in which two levels look as likely as in the trace; the search ends once it is too large."""
    gain, as_good, drawn = _gain(x[None])[0], 0, 0
    for n in _N_SURROGATES:
        as_good += int((_gain(_surrogates(x, n, rng)) >= gain).sum())
        drawn += n
        if as_good > significance * sum(_N_SURROGATES):
            break
    return (1 + as_good) / (1 + drawn)


def _widths(n: int) -> list[int]:
    """Reads per average that are looked at: 1, 4, 16, ... while enough averages remain."""
    widths = [1]
    while n // (widths[-1] * 4) >= _POINTS_MIN:
        widths.append(widths[-1] * 4)
    return widths


def _averaged(x: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Means of `width` neighbouring reads; (n_traces, n) to (n_traces, n // width)."""
    n = x.shape[1] // width
    return x[:, : n * width].reshape(len(x), n, width).mean(axis=2)


def _converter_step(x: NDArray[np.float64]) -> float:
    """Smallest difference of two reads if their values repeat, as codes of a converter do; 0 otherwise."""
    values = np.unique(x)
    return float(np.diff(values).min()) if len(values) < len(x) / 4 else 0.0


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Two Gaussians of equal width fitted to each of several samples; arrays over samples."""

    gain: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    share_high: NDArray[np.float64]
    sigma: NDArray[np.float64]

    @property
    def separation(self) -> NDArray[np.float64]:
        return (self.high - self.low) / self.sigma


def _gain(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much better two levels explain each trace than one: log likelihood per average, the best of all widths."""
    return np.max([_mixture(_averaged(x, width)).gain for width in _widths(x.shape[1])], axis=0)


def _mixture(x: NDArray[np.float64]) -> _Mixture:
    """Fit by expectation maximisation over a histogram, from several starts."""
    bottom, top = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    span = np.where(top > bottom, top - bottom, 1.0)
    bin_of = np.minimum(((x - bottom) / span * _N_BINS).astype(np.int64), _N_BINS - 1)
    flat = bin_of + _N_BINS * np.arange(len(x))[:, None]
    share = np.bincount(flat.ravel(), minlength=_N_BINS * len(x)).reshape(len(x), _N_BINS) / x.shape[1]
    at = (np.arange(_N_BINS) + 0.5) / _N_BINS
    mean = share @ at
    variance = np.maximum(share @ at**2 - mean**2, 1 / (12 * _N_BINS**2))
    one = -0.5 * np.log(variance) - 0.5
    fits = [_from_start(share, at, mean, variance, start) for start in _STARTS]
    likelihood = np.stack([fit[0] for fit in fits])
    best, i = likelihood.argmax(axis=0), np.arange(len(x))
    low, high, share_high, sigma = (np.stack([fit[k] for fit in fits])[best, i] for k in range(1, 5))
    bottom, span = bottom[:, 0], span[:, 0]
    return _Mixture(likelihood[best, i] - one, bottom + low * span, bottom + high * span, share_high, sigma * span)


def _from_start(
    share: NDArray[np.float64],
    at: NDArray[np.float64],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    share_low: float,
) -> tuple[NDArray[np.float64], ...]:
    """Log likelihood per sample (without its constant), lower and upper level, share of the upper one, sigma."""
    # Levels that explain 3 / 4 of the variance: mean and variance of the two are those of the sample.
    apart = np.sqrt(0.75 * variance / (share_low * (1 - share_low)))
    low, high = mean - (1 - share_low) * apart, mean + share_low * apart
    high_share, sigma2 = np.full(len(share), 1 - share_low), 0.25 * variance
    floor = 1 / (12 * len(at) ** 2)  # scatter within one bin of the histogram
    for _ in range(_N_ITERATIONS):
        # The odds of the upper level are an exponential of a straight line, as both have one width.
        slope = ((high - low) / sigma2)[:, None]
        odds = np.log(high_share / (1 - high_share))[:, None] + slope * (at - ((low + high) / 2)[:, None])
        up = share / (1 + np.exp(np.clip(-odds, -700, 700)))
        weight = np.clip(up.sum(axis=1), 1e-9, 1 - 1e-9)
        sum_up, sum_all = up @ at, share @ at
        high, low, high_share = sum_up / weight, (sum_all - sum_up) / (1 - weight), weight
        sigma2 = np.maximum(variance + mean**2 - weight * high**2 - (1 - weight) * low**2, floor)
    distance_low, distance_high = ((at - level[:, None]) ** 2 / (2 * sigma2[:, None]) for level in (low, high))
    density = (1 - high_share)[:, None] * np.exp(-distance_low) + high_share[:, None] * np.exp(-distance_high)
    likelihood = (share * np.log(np.maximum(density, 1e-300))).sum(axis=1) - 0.5 * np.log(sigma2)
    return likelihood, low, high, high_share, np.sqrt(sigma2)


def _surrogates(x: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Traces with the spectrum of `x` and one Gaussian level.

    Phases are drawn at random. A taper at both ends would change the distribution; the jump between the last and the
    first read is left in instead, which gives surrogates a little more slow noise than the trace has.
    """
    amplitude = np.abs(np.fft.rfft(x))
    phase = rng.uniform(0, 2 * np.pi, (n, len(amplitude)))
    phase[:, 0] = 0.0
    return np.fft.irfft(amplitude * np.exp(1j * phase), len(x), axis=1)


def _follow(x: NDArray[np.float64], fit: _Mixture, width: int) -> _Levels:
    """The most likely level at each read, and levels and dwell times from that, until they agree (Viterbi training)."""
    low, high = float(fit.low[0]), float(fit.high[0])
    # Averages scatter less than single reads.
    sigma = max(float(fit.sigma[0]), float(np.diff(x).std() / np.sqrt(2)) if width > 1 else 0.0)
    leave_low = leave_high = min(0.5, 1 / (4.0 * width))
    for _ in range(4):
        path = _most_likely(x, low, high, sigma, leave_low, leave_high)
        n_high, changes = int(path.sum()), np.diff(path.astype(np.int8))
        n_up, n_down = int((changes > 0).sum()), int((changes < 0).sum())
        if not 0 < n_high < len(x):
            break
        low, high = float(x[~path].mean()), float(x[path].mean())
        sigma = float(np.sqrt(((x - np.where(path, high, low)) ** 2).mean())) or sigma
        leave_low = min(0.5, (n_up + 1) / (len(x) - n_high + 2))
        leave_high = min(0.5, (n_down + 1) / (n_high + 2))
    runs_high, runs_low = n_up + int(path[0]), n_down + int(not path[0])
    return _Levels(
        low=low,
        high=high,
        occupancy_high=n_high / len(x),
        dwell_low=(len(x) - n_high) / max(runs_low, 1),
        dwell_high=n_high / max(runs_high, 1),
        n_changes=n_up + n_down,
    )


def _most_likely(
    x: NDArray[np.float64], low: float, high: float, sigma: float, leave_low: float, leave_high: float
) -> NDArray[np.bool_]:
    """Viterbi's path through two levels: True in the upper one.

    Only the difference of the two scores matters. It moves by the evidence of each read and is bounded by the cost of
    a change: at the upper bound the best way into the upper level is to stay there, and so on.
    """
    evidence = ((x - low) ** 2 - (x - high) ** 2) / (2 * sigma**2)
    stay_low, stay_high = np.log(1 - leave_low), np.log(1 - leave_high)
    go_up, go_down = np.log(leave_low), np.log(leave_high)
    from_high_to_high = np.empty(len(x), np.bool_)
    from_high_to_low = np.empty(len(x), np.bool_)
    lead = 0.0
    for i, gain in enumerate(evidence.tolist()):
        high_stays, low_from_high = lead + stay_high > go_up, lead + go_down > stay_low
        from_high_to_high[i], from_high_to_low[i] = high_stays, low_from_high
        lead = gain + (lead + stay_high if high_stays else go_up) - (lead + go_down if low_from_high else stay_low)
    path = np.empty(len(x), np.bool_)
    state = lead > 0
    to_high, to_low = from_high_to_high.tolist(), from_high_to_low.tolist()
    for i in range(len(x) - 1, -1, -1):
        path[i] = state
        state = to_high[i] if state else to_low[i]
    return path


def _plausible(levels: _Levels, step: float) -> bool:
    share = min(levels.occupancy_high, 1 - levels.occupancy_high)
    far_enough = levels.high - levels.low > 2 * step
    return levels.n_changes >= _CHANGES_MIN and share >= _OCCUPANCY_MIN and far_enough
