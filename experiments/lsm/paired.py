"""Interval of the difference of two accuracies on the same samples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hil.lsm.accuracy import wilson_interval

#: how the interval is made
INTERVAL_METHOD = "95 %, Newcombe 1998, paired, method 10"


def difference_interval(right: NDArray[np.bool_], right_against: NDArray[np.bool_]) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies on the same samples.

    R. G. Newcombe, Statistics in Medicine 17, 2635-2650 (1998), method 10: the Wilson intervals of both, combined with
    the correlation phi of the pairs. It keeps a width where no sample tells the two apart, which a bootstrap does not.

    Args:
        right, right_against: whether each sample's class was right, shape (samples,), or (repeats, samples). Repeats
            are averaged: they say nothing about other samples, so that the interval stays that of so many samples.
    """
    n = right.shape[-1]
    repeats = right.size // n
    n_right, n_against = right.sum() / repeats, right_against.sum() / repeats
    p, q = n_right / n, n_against / n
    (p_low, p_high), (q_low, q_high) = wilson_interval(n_right, n), wilson_interval(n_against, n)
    both, neither = (right & right_against).sum() / repeats, (~right & ~right_against).sum() / repeats
    covariance = both * neither - (n_right - both) * (n_against - both)
    if covariance > 0:  # continuity correction
        covariance = max(covariance - n / 2, 0.0)
    spread = n_right * (n - n_right) * n_against * (n - n_against)
    phi = covariance / math.sqrt(spread) if spread else 0.0

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    low, high = p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)
    return float(low), float(high)
