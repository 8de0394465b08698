"""Search and fit algorithms that know nothing of a board: a threshold, a straight line, a settling.

Each says whether it found an answer at all: a function that is flat has no threshold, and a line no slope.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

#: standard errors by which two levels must differ to count as different
_TOLD_APART = 4.0
#: twice the log likelihood ratio of chance for two parameters, once in a thousand: chi-squared
_SIGNIFICANT = 13.8
#: scatter of a normal distribution over its median absolute deviation
_MAD = 1.4826
#: a fit that must leave out more than this share of its points explains nothing
_OUTLIERS_MAX = 1 / 3
_TAU_STEPS = 120
#: times that a line and its outliers are found from each other
_ROUNDS = 3
_POINTS_MIN = 8


@dataclass(frozen=True)
class Threshold:
    """Where a function crosses a target.

    Attributes:
        value: setting at which it does; NaN where none was found.
        uncertainty: one sigma.
        rising: whether the function rises there.
        n_measured: measurements that it took.
        reason: why there is no answer; empty where there is one.
    """

    value: float
    uncertainty: float
    rising: bool
    n_measured: int
    reason: str = ""

    @property
    def found(self) -> bool:
        return not self.reason


def bisect(
    configure: Callable[[float], None],
    measure: Callable[[], float],
    target: float,
    low: float,
    high: float,
    *,
    resolution: float,
    repeats: int = 8,
) -> Threshold:
    """Find the setting at which a monotone, noisy function, rising or falling, crosses a target.

    The bracket is halved until it is as narrow as `resolution`, or until noise no longer lets its ends be told from the
    target; a straight line between the ends then gives the answer.

    Args:
        configure: applies a setting.
        measure: measures once at the setting applied.
        target: level to be crossed.
        low, high: settings between which the crossing is looked for.
        resolution: width of the bracket that is enough.
        repeats: measurements per setting, from whose scatter the noise is known.
    """
    n_measured = 0

    def at(setting: float) -> tuple[float, float]:
        """Mean and its standard error."""
        nonlocal n_measured
        configure(setting)
        values = np.array([measure() for _ in range(repeats)])
        n_measured += repeats
        return float(values.mean()), float(values.std(ddof=1) / math.sqrt(repeats))

    (below, below_error), (above, above_error) = at(low), at(high)
    rising = above > below

    def none(reason: str) -> Threshold:
        return Threshold(math.nan, math.nan, rising, n_measured, reason)

    span = abs(above - below)
    if span == 0.0 or span < _TOLD_APART * math.hypot(below_error, above_error):
        return none(f"flat from {low:g} to {high:g}: {below:g} and {above:g} differ by noise only")
    if not min(below, above) <= target <= max(below, above):
        return none(f"{target:g} is not crossed from {low:g} to {high:g}: {below:g} to {above:g}")
    noise = max(below_error, above_error)
    while high - low > resolution:
        middle = 0.5 * (low + high)
        level, error = at(middle)
        noise = max(noise, error)
        if abs(level - target) < _TOLD_APART * error:
            break
        if (level < target) == rising:
            low, below = middle, level
        else:
            high, above = middle, level
    else:
        slope = (above - below) / (high - low)
        share = min(max((target - below) / (above - below), 0.0), 1.0)
        return Threshold(low + share * (high - low), _crossing_error(high - low, noise, slope), rising, n_measured)
    # The middle is the crossing within noise: a line through points across the bracket averages more of it.
    settings = np.linspace(low, high, 9)
    levels, errors = np.array([at(float(setting)) for setting in settings]).T
    line = fit_line(settings, levels, sigma=np.maximum(errors, errors.mean()))
    if not line.significant:
        return Threshold(middle, 0.5 * (high - low), rising, n_measured)
    value = min(max((target - line.offset) / line.slope, low), high)
    error = math.sqrt(line.offset_error**2 + (value * line.slope_error) ** 2 + 2.0 * value * line.covariance) / abs(
        line.slope
    )
    # Within the bracket the function need not be straight.
    bend = line.rms / abs(line.slope)
    return Threshold(value, math.hypot(error, bend / 3.0), rising, n_measured)


def _crossing_error(width: float, noise: float, slope: float) -> float:
    return math.hypot(width / math.sqrt(12.0), noise / abs(slope))


@dataclass(frozen=True, eq=False)
class Line:
    """A straight line through points.

    Attributes:
        slope, offset: of it.
        slope_error, offset_error: one sigma.
        covariance: of slope and offset.
        rms: of what is left, without outliers, in the unit of y.
        inlier: points that it was fitted to, shape of x.
    """

    slope: float
    offset: float
    slope_error: float
    offset_error: float
    covariance: float
    rms: float
    inlier: NDArray[np.bool_]

    @property
    def ok(self) -> bool:
        """Whether the line describes most points."""
        return math.isfinite(self.slope) and bool((~self.inlier).mean() <= _OUTLIERS_MAX)

    @property
    def significant(self) -> bool:
        """Whether it is told from a flat line."""
        return self.ok and abs(self.slope) > _TOLD_APART * self.slope_error

    def at(self, x: Values | float) -> Values:
        """Its value."""
        return np.asarray(self.offset + self.slope * np.asarray(x))


_NO_LINE = (math.nan,) * 6


def fit_line(x: Values, y: Values, *, sigma: Values | float | None = None, outlier: float = 8.0) -> Line:
    """Fit a straight line, leaving outliers out.

    A line through the median of all slopes between pairs of points (Theil and Sen), which a few wild points do not
    move, tells the outliers; the others are fitted by least squares.

    Args:
        x, y: the points, shape (n,); points that are not finite count as outliers.
        sigma: noise of y, a number or one per point; None: known from the scatter about the line.
        outlier: distance from the line, in standard deviations, beyond which a point is left out. The scatter of fewer
            than eight points does not tell outliers: without `sigma` all of them are then kept.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    usable = np.isfinite(x) & np.isfinite(y)
    noise = None if sigma is None else np.broadcast_to(np.asarray(sigma, np.float64), x.shape)
    if usable.sum() < 2 or np.ptp(x[usable]) == 0.0:
        return Line(*_NO_LINE, np.zeros(x.shape, np.bool_))
    first, second = np.triu_indices(len(x), 1)
    pairs = usable[first] & usable[second] & (x[first] != x[second])
    first, second = first[pairs], second[pairs]
    rest = y - x * float(np.median((y[second] - y[first]) / (x[second] - x[first])))
    rest = rest - np.median(rest[usable])
    # rounding alone makes no outlier
    floor = 1e-12 * float(np.abs(y[usable]).max()) if noise is None else noise
    scale = _MAD * float(np.median(np.abs(rest[usable]))) * math.sqrt(len(x) / max(len(x) - 2, 1))
    inlier = usable
    if noise is None and usable.sum() < _POINTS_MIN:
        return _least_squares(x[usable], y[usable], None, usable)
    for _ in range(_ROUNDS):
        inlier = usable & (np.abs(rest) <= outlier * np.maximum(scale, floor))
        if inlier.sum() < 2 or np.ptp(x[inlier]) == 0.0:
            return Line(*_NO_LINE, inlier)
        line = _least_squares(x[inlier], y[inlier], None if noise is None else noise[inlier], inlier)
        # The scatter of few points is often too small by chance; then the line itself brings points back.
        rest, scale = y - line.at(x), max(scale, line.rms)
    return line


def _least_squares(x: Values, y: Values, noise: Values | None, inlier: NDArray[np.bool_]) -> Line:
    weight = np.ones(x.shape) if noise is None else 1.0 / noise**2
    middle = float(np.average(x, weights=weight))
    spread = float((weight * (x - middle) ** 2).sum())
    slope = float((weight * (x - middle) * y).sum() / spread)
    level = float(np.average(y, weights=weight))
    left = y - level - slope * (x - middle)
    rms = math.sqrt(float((left**2).sum()) / max(len(x) - 2, 1))
    # two points lie on every line, and tell nothing of its noise
    variance = 1.0 if noise is not None else rms**2 if len(x) > 2 else math.nan
    slope_variance = variance / spread
    return Line(
        slope=slope,
        offset=level - slope * middle,
        slope_error=math.sqrt(slope_variance),
        offset_error=math.sqrt(variance / float(weight.sum()) + middle**2 * slope_variance),
        covariance=-middle * slope_variance,
        rms=rms,
        inlier=inlier,
    )


@dataclass(frozen=True)
class Settling:
    """An exponential approach to a final level: final + amplitude * exp(-t / tau).

    Attributes:
        final, amplitude: in the unit of y; `amplitude` is the curve's distance at time zero, negative when it rises.
        tau_s: time constant.
        final_error, amplitude_error, tau_error_s: one sigma.
        found: whether the exponential is told from a constant.
    """

    final: float
    amplitude: float
    tau_s: float
    final_error: float
    amplitude_error: float
    tau_error_s: float
    found: bool

    def time_to_s(self, rest: float) -> float:
        """When the distance from the final level has fallen to `rest`, in the unit of y; 0 if it never is larger."""
        if not self.found:
            return math.nan
        return self.tau_s * math.log(max(abs(self.amplitude) / rest, 1.0))

    def time_error_s(self, rest: float) -> float:
        """One sigma of `time_to_s`."""
        if not self.found:
            return math.nan
        taus = math.log(max(abs(self.amplitude) / rest, 1.0))
        return math.hypot(taus * self.tau_error_s, self.tau_s * self.amplitude_error / abs(self.amplitude))


def fit_settling(time_s: Values, y: Values, *, sigma: Values | float) -> Settling:
    """Fit an exponential settling to points of known noise.

    For each time constant of a fine grid final level and amplitude follow by linear least squares; the best one is
    refined by a parabola through chi-squared.

    Args:
        time_s, y: the points, shape (n,), four or more.
        sigma: noise of y, a number or one per point.
    """
    time_s, y = np.asarray(time_s, np.float64), np.asarray(y, np.float64)
    weight = 1.0 / np.broadcast_to(np.asarray(sigma, np.float64), y.shape) ** 2
    level = float(np.average(y, weights=weight))
    constant = float((weight * (y - level) ** 2).sum())
    level_error = 1.0 / math.sqrt(float(weight.sum()))
    flat = Settling(level, 0.0, math.nan, level_error, math.nan, math.nan, found=False)
    spacing_s = float(np.diff(np.unique(time_s)).min(initial=np.inf))
    if len(y) < 4 or not math.isfinite(spacing_s):
        return flat
    taus_s = np.geomspace(0.3 * spacing_s, 3.0 * float(np.ptp(time_s)), _TAU_STEPS)
    cost = np.array([_exponential(time_s, y, weight, tau)[0] for tau in taus_s])
    best = int(cost.argmin())
    if constant - cost[best] < _SIGNIFICANT or best in (0, _TAU_STEPS - 1):
        return flat
    step = math.log(taus_s[1] / taus_s[0])
    left, right = cost[best - 1] - cost[best], cost[best + 1] - cost[best]
    tau_s = float(taus_s[best]) * math.exp(0.5 * step * (left - right) / (left + right))
    # Chi-squared rises by 1 at one sigma.
    tau_error_s = tau_s * step * math.sqrt(2.0 / (left + right))
    _, final, amplitude, covariance = _exponential(time_s, y, weight, tau_s)
    # The amplitude goes with the time constant, which makes it less certain than at a fixed one.
    nudged = _exponential(time_s, y, weight, tau_s * math.exp(1e-3))
    with_tau = (np.array(nudged[1:3]) - np.array([final, amplitude])) / (1e-3 * tau_s) * tau_error_s
    errors = np.hypot(np.sqrt(np.diag(covariance)), with_tau)
    return Settling(final, amplitude, tau_s, float(errors[0]), float(errors[1]), tau_error_s, found=True)


def _exponential(time_s: Values, y: Values, weight: Values, tau_s: float) -> tuple[float, float, float, Values]:
    """Chi-squared, final level, amplitude and their covariance at one time constant."""
    design = np.stack([np.ones(len(y)), np.exp(-time_s / tau_s)], axis=1)
    normal = design.T @ (weight[:, None] * design)
    if np.linalg.cond(normal) > 1e12:
        return math.inf, math.nan, math.nan, np.full((2, 2), math.nan)
    covariance = np.linalg.inv(normal)
    final, amplitude = covariance @ (design.T @ (weight * y))
    left = y - design @ np.array([final, amplitude])
    return float((weight * left**2).sum()), float(final), float(amplitude), covariance
