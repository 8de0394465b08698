"""Flicker (1/f) noise of the cells: slow fluctuation of the conductance, correlated from read to read.

A sum of Ornstein-Uhlenbeck processes (each a Lorentzian spectrum), one per decade of time constant and all of equal
variance, has a spectrum that falls as 1/f between the lowest and the highest corner frequency, within 10 %. Each
process is carried over any time step exactly, so that the result does not depend on how often a cell is read.

Source: superposition of Lorentzians, McWhorter 1957. That filamentary cells read at 400 Hz show it: `sim_backend.fits.
noise` on the continuous reads of `rram_relaxation.npz`. The deviation is a fraction of the conductance. Valid between
the two corner frequencies; below the lowest the spectrum is flat, so that the variance stays finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import NoiseSettings


@dataclass(frozen=True, eq=False)
class FlickerNoise:
    """Flicker noise of an array of cells, with its state.

    A cell's state is drawn when it is looked at for the first time: a chip of which forty cells are read costs forty.

    Attributes:
        relative: sigma over infinite time of the conductance over the conductance.
        time_constants_s: of the processes, shape (n,).
        state: of each process, in units of its own sigma, shape (*shape, n).
        time_s: when each cell was last looked at, shape `shape`; minus infinity before.
    """

    relative: float
    time_constants_s: NDArray[np.float32]
    state: NDArray[np.float32] = field(repr=False)
    time_s: NDArray[np.float64] = field(repr=False)

    @classmethod
    def from_settings(cls, settings: NoiseSettings, shape: tuple[int, ...]) -> FlickerNoise:
        on = settings.enabled and settings.flicker_share > 0.0
        relative = settings.relative * math.sqrt(settings.flicker_share) if on else 0.0
        time_constants_s = lorentzians_s(settings.flicker_low_hz, settings.flicker_high_hz)
        return cls(
            relative=relative,
            time_constants_s=time_constants_s,
            state=np.zeros((*shape, len(time_constants_s)), np.float32),
            time_s=np.full(shape, -np.inf),
        )

    def sigma_s(self, conductance_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard deviation of single cells over infinite time."""
        return self.relative * conductance_s

    def at(
        self, time_s: float, index: Any, conductance_s: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Deviation in siemens of chosen cells at a time, which must not be before the time that they were at last.

        Args:
            time_s: on the chip's clock.
            index: the cells, as numpy indexes an array of the chip's shape; no cell twice.
            conductance_s: of the chosen cells, without noise.
            rng: draws what happened since.
        """
        if self.relative == 0.0:
            return np.zeros(np.shape(conductance_s))
        elapsed_s = (time_s - self.time_s[index]).astype(np.float32)
        # what is lost of the old state; all of it after an infinite time, so that this draws the first state, too
        lost = np.expm1(-elapsed_s[..., None] / self.time_constants_s)
        old = self.state[index]
        fresh = rng.standard_normal(old.shape, dtype=np.float32)
        state = old + lost * old + np.sqrt(-lost * (2.0 + lost)) * fresh
        self.state[index] = state
        self.time_s[index] = time_s
        deviation = state.sum(axis=-1) / math.sqrt(len(self.time_constants_s))
        return self.relative * np.asarray(conductance_s) * deviation


def lorentzians_s(low_hz: float, high_hz: float) -> NDArray[np.float32]:
    """Time constants, about one per decade, whose corner frequencies span `low_hz` to `high_hz`."""
    n_lorentzians = max(2, round(math.log10(high_hz / low_hz)) + 1)
    return (1.0 / (2.0 * math.pi * np.geomspace(low_hz, high_hz, n_lorentzians))).astype(np.float32)


def psd_per_hz(
    frequency_hz: NDArray[np.float64], interval_s: float, time_constants_s: NDArray[np.floating]
) -> NDArray[np.float64]:
    """One-sided power spectral density, at unit variance, of this noise read at equal intervals."""
    kept = np.exp(-interval_s / np.asarray(time_constants_s, np.float64))
    cosine = np.cos(2.0 * math.pi * np.asarray(frequency_hz) * interval_s)[..., None]
    lorentzians = 2.0 * interval_s * (1.0 - kept**2) / (1.0 - 2.0 * kept * cosine + kept**2)
    return lorentzians.mean(axis=-1)
