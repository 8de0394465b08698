"""Likelihood of changes that `sim_backend.relaxation` makes, for cells programmed to about the same conductance.

The change of ln(conductance) is a sum of independent parts whose characteristic functions are known; its density is
their product, transformed back on a grid. The same cells are read several times: the likelihood of each read is taken
by itself (composite likelihood), and the standard errors come from the scatter of the scores of whole cells, which
allows for the dependence between reads of a cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from sim_backend.relaxation import arrhenius

_N_GRID = 2048
#: share of reads that may lie anywhere on the grid: what no part of the model explains
_STRAY = 1e-4
_DERIVATIVE_STEP = 1e-3
#: width of the prior around the values that a search starts from, on the scale of the search (mostly e-foldings): weak
#: against some hundred reads, it keeps parameters in place that the data do not tell apart
_PRIOR_WIDTH = 1.5


class _Scale(NamedTuple):
    """On which scale a parameter is searched for, and how far."""

    free: Callable[[float], float]
    natural: Callable[[float], float]
    low: float
    high: float

    def slope(self, point: float) -> float:
        """Derivative of the natural value by the free one."""
        return abs(self.natural(point + 1e-4) - self.natural(point - 1e-4)) / 2e-4


def _log(low: float, high: float) -> _Scale:
    return _Scale(math.log, math.exp, low, high)


def _same(value: float) -> float:
    return value


_SCALES: Mapping[str, _Scale] = {
    "trend": _Scale(_same, _same, -0.5, 0.5),
    "spread": _log(1e-5, 1.0),
    "jump_rate": _log(1e-4, 3.0),
    "jump_up_share": _Scale(lambda p: math.log(p / (1 - p)), lambda x: 1 / (1 + math.exp(-x)), 0.01, 0.99),
    "jump_up": _log(1e-3, 3.0),
    "jump_down": _log(1e-3, 3.0),
    "read_noise": _log(1e-4, 0.5),
    "start_s": _log(1e-5, 0.1),
    "activation_ev": _Scale(_same, _same, 0.0, 3.0),
    "loss_per_s": _log(1e-9, 1e-2),
    "loss_spread": _log(1e-3, 10.0),
    "loss_activation_ev": _Scale(_same, _same, 0.0, 3.0),
}


class Condition(NamedTuple):
    """What cells went through before a read: a time at one temperature."""

    time_s: float
    temperature_c: float


@dataclass(frozen=True, eq=False)
class LevelRows:
    """Reads of cells of one level.

    Attributes:
        change: of ln(conductance) since programming.
        condition: number of each read's entry in `conditions`.
        cell: number of its cell.
        reference_c, loss_reference_c: temperatures to which decades and loss refer.
    """

    change: NDArray[np.float64]
    condition: NDArray[np.int64]
    cell: NDArray[np.int64]
    conditions: tuple[Condition, ...]
    reference_c: float
    loss_reference_c: float


@dataclass(frozen=True)
class LevelFit:
    """Parameters of one level, with standard errors of those that were free."""

    values: Mapping[str, float]
    errors: Mapping[str, float]
    log_likelihood: float


def fit_level(
    rows: LevelRows, prior: Mapping[str, float], start: Mapping[str, float], free: tuple[str, ...]
) -> LevelFit:
    """Largest composite likelihood over the parameters named in `free`, the others held at `start`.

    Args:
        prior: what the free parameters are thought to be, loosely.
        start: where the search begins; values of the parameters that are not free.
    """
    half_width = float(np.clip(2.5 * np.quantile(np.abs(rows.change), 0.999), 0.2, 8.0))
    step = 2.0 * half_width / _N_GRID
    place = np.clip(np.rint(rows.change / step).astype(int), -_N_GRID // 2, _N_GRID // 2 - 1) % _N_GRID
    counts = np.zeros((len(rows.conditions), _N_GRID))
    np.add.at(counts, (rows.condition, place), 1.0)

    def values_at(point: NDArray[np.float64]) -> dict[str, float]:
        return {**start, **{name: _SCALES[name].natural(x) for name, x in zip(free, point, strict=True)}}

    def log_density(point: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.log(_density(values_at(point), rows, step))

    def cost(point: NDArray[np.float64]) -> float:
        from_prior = 0.5 * np.sum(((point - expected) / _PRIOR_WIDTH) ** 2)
        return float(from_prior - np.sum(counts * log_density(point))) / len(rows.change)

    bounds = [(_SCALES[name].free(_SCALES[name].low), _SCALES[name].free(_SCALES[name].high)) for name in free]
    expected = np.array([_SCALES[name].free(prior[name]) for name in free])
    begin = np.clip([_SCALES[name].free(start[name]) for name in free], *np.array(bounds).T)
    found = optimize.minimize(cost, begin, method="L-BFGS-B", bounds=bounds, options={"maxiter": 150})
    scores = _scores(log_density, found.x)
    by_cell = np.zeros((int(rows.cell.max()) + 1, len(free)))
    np.add.at(by_cell, rows.cell, scores[:, rows.condition, place].T)
    # the bread of the sandwich by the scores of single reads, whose outer product is their information
    information = np.einsum("pcg,qcg,cg->pq", scores, scores, counts)
    bread = np.linalg.inv(information + np.eye(len(free)) / _PRIOR_WIDTH**2)
    covariance = bread @ (by_cell.T @ by_cell + np.eye(len(free)) / _PRIOR_WIDTH**2) @ bread
    values = values_at(found.x)
    errors = {}
    for number, name in enumerate(free):
        errors[name] = _SCALES[name].slope(found.x[number]) * math.sqrt(max(covariance[number, number], 0.0))
    return LevelFit(values, errors, float(np.sum(counts * log_density(found.x))))


def shared(fits: list[LevelFit], name: str) -> tuple[float, float]:
    """Mean over levels of a parameter that should not depend on the level, and its error.

    The error is that of the levels together, or the one that their scatter tells, whichever is larger. Levels whose
    value is at the limit of the search do not count, unless all are.
    """
    scale = _SCALES[name]
    values = np.array([fit.values[name] for fit in fits])
    inside = (values > scale.low * 1.02) & (values < scale.high * 0.98)
    chosen = [fit for fit, counts in zip(fits, inside, strict=True) if counts] or fits
    points = np.array([scale.free(fit.values[name]) for fit in chosen])
    errors = np.array([max(fit.errors[name] / scale.slope(scale.free(fit.values[name])), 0.02) for fit in chosen])
    weights = errors**-2.0
    mean = float(np.average(points, weights=weights))
    variance = 1.0 / weights.sum()
    if len(points) > 1:
        n_effective = weights.sum() ** 2 / np.sum(weights**2)
        scatter = float(np.average((points - mean) ** 2, weights=weights)) / max(n_effective - 1.0, 1.0)
        variance = max(variance, scatter)
    return scale.natural(mean), scale.slope(mean) * math.sqrt(variance)


def _scores(
    log_density: Callable[[NDArray[np.float64]], NDArray[np.float64]], point: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Derivatives of the log density, shape (parameters, conditions, grid)."""
    steps = _DERIVATIVE_STEP * np.eye(len(point))
    return np.array([(log_density(point + s) - log_density(point - s)) / (2.0 * _DERIVATIVE_STEP) for s in steps])


def _density(values: Mapping[str, float], rows: LevelRows, step: float) -> NDArray[np.float64]:
    """Probability density of the change in each condition, on a grid that starts at 0 and wraps around."""
    k = 2.0 * math.pi * np.fft.rfftfreq(_N_GRID, step)
    per_decade = 1j * k * values["trend"] - 0.5 * (values["spread"] * k) ** 2
    up = values["jump_up_share"] / (1.0 - 1j * k * values["jump_up"])
    down = (1.0 - values["jump_up_share"]) / (1.0 + 1j * k * values["jump_down"])
    per_decade += values["jump_rate"] * (up + down - 1.0)
    read = -0.5 * (values["read_noise"] * k) ** 2
    per_loss = np.log1p(1j * k * values["loss_spread"]) / values["loss_spread"]
    density = np.empty((len(rows.conditions), _N_GRID))
    for number, (time_s, temperature_c) in enumerate(rows.conditions):
        begin_s = values["start_s"] / arrhenius(values["activation_ev"], temperature_c, rows.reference_c)
        loss = values["loss_per_s"] * time_s
        loss *= arrhenius(values["loss_activation_ev"], temperature_c, rows.loss_reference_c)
        exponent = per_decade * math.log10(1.0 + time_s / begin_s) + read - per_loss * loss
        density[number] = np.fft.irfft(np.exp(exponent).conj(), _N_GRID)
    density /= step
    return (1.0 - _STRAY) * np.maximum(density, 0.0) + _STRAY / (_N_GRID * step)
