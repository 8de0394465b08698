"""Read noise: each cell's conductance differs a little at every read.

Source: multiplicative Gaussian of 2 % per read in ESGNN, DEPLM and PRIME, which use the same macro. Valid for formed
cells at read voltage.

The 2 % are the whole noise of a normal cell. A share of its variance is flicker noise (`flicker`), which two reads
close in time have in common; the rest is white. A few cells have telegraph noise on top (`telegraph`), and noisy ones
(`faults`) a multiple of the normal noise. A VMM takes all of it as white: its cells are read once, and what the noise
of a cell has in common with the next VMM is neglected there. Single reads follow the processes in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_backend.flicker import FlickerNoise
from sim_backend.settings import NoiseSettings, TelegraphSettings
from sim_backend.telegraph import TelegraphNoise


@dataclass(frozen=True)
class WhiteReadNoise:
    """Multiplicative Gaussian noise.

    Attributes:
        relative: sigma of the conductance over the conductance.
    """

    relative: float

    @classmethod
    def from_settings(cls, settings: NoiseSettings) -> WhiteReadNoise:
        return cls(settings.relative if settings.enabled else 0.0)

    def variance(self, current_a: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variance in A^2 of the current of single cells; it adds up over cells."""
        return (self.relative * current_a) ** 2


@dataclass(frozen=True, eq=False)
class ReadNoise:
    """The noise of an array of cells: white, flicker and telegraph part together.

    Attributes:
        relative: sigma of white and flicker part of a normal cell together, over its conductance.
        white: sigma of the white part alone, over the conductance.
        factor: of white and flicker part, per cell, shape (rows, cols); None where every cell is normal.
    """

    relative: float
    white: float
    flicker: FlickerNoise
    telegraph: TelegraphNoise
    factor: NDArray[np.float64] | None = None

    @classmethod
    def draw(
        cls,
        noise: NoiseSettings,
        telegraph: TelegraphSettings,
        shape: tuple[int, ...],
        rng: np.random.Generator,
        factor: NDArray[np.float64] | None = None,
    ) -> ReadNoise:
        """Noise of an array; without `noise.enabled` there is none of any kind."""
        relative = WhiteReadNoise.from_settings(noise).relative
        if not noise.enabled:
            telegraph = telegraph.model_copy(update={"enabled": False})
        return cls(
            relative=relative,
            white=relative * math.sqrt(1.0 - noise.flicker_share),
            flicker=FlickerNoise.from_settings(noise, shape),
            telegraph=TelegraphNoise.draw(telegraph, shape, rng),
            factor=factor,
        )

    def sigma_s(self, conductance_s: NDArray[np.float64], index: Any = ...) -> NDArray[np.float64]:
        """Standard deviation of cells with everything in it; `index` chooses those that `conductance_s` is of."""
        normal_s = self.relative * conductance_s * self._factor(index)
        return np.hypot(normal_s, self.telegraph.sigma_s(conductance_s, index))

    def at(
        self,
        time_s: float,
        index: Any,
        conductance_s: NDArray[np.float64],
        rng: np.random.Generator,
        n_average: int = 1,
    ) -> NDArray[np.float64]:
        """Deviation in siemens of chosen cells in one read; arguments as of `FlickerNoise.at`.

        Args:
            n_average: conversions averaged in the read, which reduces its white part.
        """
        white = self.white / math.sqrt(n_average) * conductance_s * rng.standard_normal(np.shape(conductance_s))
        normal_s = (white + self.flicker.at(time_s, index, conductance_s, rng)) * self._factor(index)
        return normal_s + self.telegraph.at(time_s, index, conductance_s, rng)

    def _factor(self, index: Any) -> NDArray[np.float64] | float:
        return 1.0 if self.factor is None else self.factor[index]
