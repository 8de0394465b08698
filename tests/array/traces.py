"""Synthetic traces of known noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def flicker(rng: np.random.Generator, n: int, n_cells: int, exponent: float) -> NDArray[np.float64]:
    """Gaussian noise of density proportional to 1 / f^exponent, with a standard deviation of 1."""
    frequency = np.fft.rfftfreq(n)
    frequency[0] = frequency[1]
    draws = rng.standard_normal((2, len(frequency), n_cells))
    x = np.fft.irfft((draws[0] + 1j * draws[1]) * frequency[:, None] ** (-exponent / 2), n, axis=0)
    return (x - x.mean(axis=0)) / x.std(axis=0)


def telegraph(rng: np.random.Generator, n: int, n_cells: int, dwell_low: float, dwell_high: float) -> NDArray[np.bool_]:
    """True in the upper level; mean stays in reads."""
    up = np.empty((n, n_cells), np.bool_)
    now = rng.random(n_cells) < dwell_high / (dwell_low + dwell_high)
    for i in range(n):
        up[i] = now
        draw = rng.random(n_cells)
        now = np.where(now, draw >= 1 / dwell_high, draw < 1 / dwell_low)
    return up
