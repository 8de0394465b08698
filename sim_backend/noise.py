"""White read noise: each cell's conductance differs a little at every read.

Source: multiplicative Gaussian of 2 % per read in ESGNN, DEPLM and PRIME, which use the same macro. Valid for formed
cells at read voltage. A cell is read once per VMM, so that its noise is independent between VMMs and between cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import NoiseSettings


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
