"""Forming: what a cell conducts before and after its breakdown.

Source: the random array of Lin et al. 2025 (spread of G+ - G-) and its sister paper ESGNN (mean conductance of formed
cells, breakdown voltage; same 40 nm macro). Valid for uniform forming with gate-limited current; says nothing about
SET and RESET of formed cells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from sim_backend.settings import FormingSettings

#: Spread of G+ - G- in siemens. Source: paper's code, differential maps of the two blocks (6.61329 and 6.67268 uS).
SIGMA_DIFFERENCE_S = {"paper-input": 6.61e-6, "paper-recurrent": 6.67e-6}


@dataclass(frozen=True)
class FormingStatistics:
    """Distribution of formed conductance and of forming voltage.

    Attributes:
        mean_s: mean of the parent normal distribution of a formed cell.
        sigma_s: spread of a formed cell; two independent cells differ with sqrt(2) times it.
        pristine_s: conductance before forming.
        breakdown_mean_v, breakdown_sigma_v: normal distribution of the voltage at which a cell forms.
    """

    mean_s: float
    sigma_s: float
    pristine_s: float
    breakdown_mean_v: float
    breakdown_sigma_v: float

    @classmethod
    def from_settings(cls, settings: FormingSettings) -> FormingStatistics:
        sigma_difference_s = SIGMA_DIFFERENCE_S.get(settings.preset, settings.sigma_difference_s)
        return cls(
            mean_s=settings.mean_s,
            sigma_s=sigma_difference_s / math.sqrt(2.0),
            pristine_s=settings.pristine_s,
            breakdown_mean_v=settings.breakdown_mean_v,
            breakdown_sigma_v=settings.breakdown_sigma_v,
        )

    def draw_formed_s(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Conductance of formed cells: normal, cut at the pristine conductance, with spread `sigma_s` after the cut."""
        sigma_s = self._parent_sigma_s()
        floor = ndtr((self.pristine_s - self.mean_s) / sigma_s)
        quantile = floor + (1.0 - floor) * rng.random(shape)
        return self.mean_s + sigma_s * ndtri(quantile)

    def draw_breakdown_v(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Voltage at which each cell forms."""
        return rng.normal(self.breakdown_mean_v, self.breakdown_sigma_v, shape)

    def _parent_sigma_s(self) -> float:
        """Spread before the cut such that `sigma_s` remains after it (the cut takes off about 0.6 %)."""
        parent = self.sigma_s
        for _ in range(20):
            cut = (self.pristine_s - self.mean_s) / parent
            inverse_mills = math.exp(-0.5 * cut * cut) / math.sqrt(2 * math.pi) / (1.0 - ndtr(cut))
            parent = self.sigma_s / math.sqrt(1.0 + cut * inverse_mills - inverse_mills**2)
        return float(parent)
