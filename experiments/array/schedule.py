"""Schedules that are even on a logarithmic axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_times(first: float, last: float, per_decade: int) -> NDArray[np.float64]:
    """From `first` to `last`, both among them, at about `per_decade` per factor of ten."""
    if last <= first:
        return np.array([last])
    n = max(2, round(np.log10(last / first) * per_decade) + 1)
    return np.geomspace(first, last, n)


def log_counts(last: int, per_decade: int, every_until: int = 1) -> NDArray[np.int64]:
    """Whole numbers from 1 to `last`: each up to `every_until`, then about `per_decade` per factor of ten."""
    dense = np.arange(1, min(every_until, last) + 1)
    if last <= every_until:
        return dense
    sparse = np.round(log_times(every_until, last, per_decade)).astype(np.int64)
    return np.unique(np.concatenate([dense, sparse]))
