"""Accuracy with its uncertainty."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_Z95 = 1.959964


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """95 % interval of a fraction, after Wilson (1927); good for small n too."""
    if n == 0:
        return 0.0, 1.0
    p = n_right / n
    centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Counts, shape (classes, classes): row = true class, column = predicted class."""
    table = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(table, (truth, predicted), 1)
    return table
