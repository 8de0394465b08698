"""Spike counts of samples that two backends encoded several times over.

Where a backend is noisy, its counts do not even agree with its own of the time before, and no other backend can agree
with them better than it does itself. What two backends have in common is therefore held against what each has in
common with itself: the correction for attenuation of C. Spearman, American Journal of Psychology 15, 72-101 (1904).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.lsm.paired import difference_interval

Matrix = NDArray[np.float64]
Interval = tuple[float, float]

#: corrected correlation from which one backend can stand in for the other
CORRECTED_CORRELATION_MIN = 0.995
_N_BOOTSTRAP = 2000
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class CountAgreement:
    """Correlations over all pairs of counts, samples by neurons; None where counts do not vary.

    Attributes:
        repeat_correlation: of the backend with itself, mean over the pairs of repeats.
        repeat_correlation_against: of the reference with itself.
        cross_correlation: of the backend with the reference, mean over all pairs of repeats.
        mean_count_correlation: of counts averaged over the repeats.
        corrected_correlation: the cross-correlation over the root of the product of the first two: what the
            correlation would be without noise. Chance may take it above 1.
        corrected_correlation_interval: 95 %, by bootstrap over the samples.
    """

    repeat_correlation: float | None
    repeat_correlation_against: float | None
    cross_correlation: float | None
    mean_count_correlation: float | None
    corrected_correlation: float | None
    corrected_correlation_interval: Interval | None

    @classmethod
    def of(cls, counts: NDArray[Any], against: NDArray[Any], seed: int) -> CountAgreement:
        """Compare counts of a backend with those of a reference, each of shape (repeats, samples, neurons).

        Args:
            counts, against: with two repeats or more.
            seed: of the bootstrap.
        """
        n_repeats, n_samples, _ = counts.shape
        drawn = np.random.default_rng(seed).integers(n_samples, size=(_N_BOOTSTRAP, n_samples))
        resampled = np.apply_along_axis(np.bincount, 1, drawn, minlength=n_samples)
        weights = np.concatenate([np.ones((1, n_samples)), resampled])
        covariance = _covariances(np.concatenate([counts, against]).astype(np.float64), weights)
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = covariance / np.sqrt(variance[:, :, None] * variance[:, None, :])
            own, other = (_between_repeats(correlation[:, s, s]) for s in (slice(n_repeats), slice(n_repeats, None)))
            cross = correlation[:, :n_repeats, n_repeats:].mean(axis=(1, 2))
            corrected = cross / np.sqrt(own * other)
            blocks = [
                covariance[0, one, two].mean()
                for one in (slice(n_repeats), slice(n_repeats, None))
                for two in (slice(n_repeats), slice(n_repeats, None))
            ]
            of_means = blocks[1] / np.sqrt(blocks[0] * blocks[3])
        defined = corrected[1:][np.isfinite(corrected[1:])]
        interval = np.percentile(defined, _PERCENTILES) if len(defined) else None
        return cls(
            repeat_correlation=_number(own[0]),
            repeat_correlation_against=_number(other[0]),
            cross_correlation=_number(cross[0]),
            mean_count_correlation=_number(of_means),
            corrected_correlation=_number(corrected[0]),
            corrected_correlation_interval=None if interval is None else (float(interval[0]), float(interval[1])),
        )

    @property
    def agrees(self) -> bool:
        """Whether the counts agree as well as their noise lets them."""
        return self.corrected_correlation is not None and self.corrected_correlation >= CORRECTED_CORRELATION_MIN


@dataclass(frozen=True)
class RepeatedAccuracy:
    """Whether the read-out was right, over all repeats.

    Attributes:
        right, right_against: of backend and reference, shape (repeats, samples).
    """

    right: NDArray[np.bool_]
    right_against: NDArray[np.bool_]

    def described(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "accuracy_by_repeat": self.right.mean(axis=1).tolist(),
            "accuracy_by_repeat_against": self.right_against.mean(axis=1).tolist(),
            "accuracy_pooled": float(self.right.mean()),
            "accuracy_pooled_against": float(self.right_against.mean()),
            "accuracy_pooled_difference": float(self.right.mean() - self.right_against.mean()),
            "accuracy_pooled_difference_interval": list(difference_interval(self.right, self.right_against)),
            "accuracy_difference_interval_by_repeat": [
                list(difference_interval(one, other)) for one, other in zip(self.right, self.right_against, strict=True)
            ],
        }


def _covariances(series: Matrix, weights: Matrix) -> Matrix:
    """Covariance of every series with every other, for every weighting of the samples.

    Args:
        series: shape (n, samples, neurons).
        weights: shape (m, samples).

    Returns:
        Shape (m, n, n).
    """
    n_neurons = series.shape[2]
    sums = series.sum(axis=2).T
    products = np.einsum("asn,bsn->sab", series, series)
    total = weights.sum(axis=1)[:, None] * n_neurons
    mean = weights @ sums / total
    return np.tensordot(weights, products, axes=1) / total[:, :, None] - mean[:, :, None] * mean[:, None, :]


def _between_repeats(correlation: Matrix) -> Matrix:
    """Mean of what is off the diagonal, shape (m, n, n) to (m,)."""
    return correlation[:, ~np.eye(correlation.shape[1], dtype=np.bool_)].mean(axis=1)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
