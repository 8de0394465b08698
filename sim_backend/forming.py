"""Forming: what a cell conducts before and after its breakdown.

Source: the random array of Lin et al. 2025 (spread of G+ - G-) and its sister paper ESGNN (mean conductance of formed
cells, breakdown voltage; same 40 nm macro). Odd cells (early, leaky, weak) are none there; they were found in measured
forming of a 1T1R array ("RADAR", doi 10.1109/TED.2021.3097975), on which `sim_backend.fits.forming` fits this model.
How forming depends on pulse width and gate voltage is a guess: the paper's supplement, which tunes conductance by the
forming conditions, was not to be had. Valid for forming with gate-limited current, widths of 100 ns to 10 ms; SET and
RESET of formed cells are in `switching`.
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
        early_share, early_scale_v: share of cells that break down early; exponential distance below the mean.
        leaky_share: share of cells that form at any voltage.
        weak_share: share of formed cells that conduct less: density rising from pristine to the mean.
        width_ref_s, width_slope_v: a pulse ten times longer than width_ref_s forms at a voltage lower by width_slope_v.
        gate_ref_v, gate_threshold_v: conductance after forming is proportional to the gate voltage over threshold.
    """

    mean_s: float
    sigma_s: float
    pristine_s: float
    breakdown_mean_v: float
    breakdown_sigma_v: float
    early_share: float
    early_scale_v: float
    leaky_share: float
    weak_share: float
    width_ref_s: float
    width_slope_v: float
    gate_ref_v: float
    gate_threshold_v: float

    @classmethod
    def from_settings(cls, settings: FormingSettings) -> FormingStatistics:
        sigma_difference_s = SIGMA_DIFFERENCE_S.get(settings.preset, settings.sigma_difference_s)
        return cls(
            mean_s=settings.mean_s,
            sigma_s=sigma_difference_s / math.sqrt(2.0),
            pristine_s=settings.pristine_s,
            breakdown_mean_v=settings.breakdown_mean_v,
            breakdown_sigma_v=settings.breakdown_sigma_v,
            early_share=settings.early_share,
            early_scale_v=settings.early_scale_v,
            leaky_share=settings.leaky_share,
            weak_share=settings.weak_share,
            width_ref_s=settings.width_ref_s,
            width_slope_v=settings.width_slope_v,
            gate_ref_v=settings.gate_ref_v,
            gate_threshold_v=settings.gate_threshold_v,
        )

    def draw_formed_s(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Conductance of formed cells: normal, cut at the pristine conductance, with spread `sigma_s` after the cut."""
        sigma_s = self._parent_sigma_s()
        floor = ndtr((self.pristine_s - self.mean_s) / sigma_s)
        quantile = floor + (1.0 - floor) * rng.random(shape)
        formed_s = self.mean_s + sigma_s * ndtri(quantile)
        if self.weak_share > 0.0:
            weak = rng.random(shape) < self.weak_share
            rise = np.sqrt(rng.random(int(weak.sum())))  # density proportional to the height above pristine
            formed_s[weak] = self.pristine_s + (self.mean_s - self.pristine_s) * rise
        return formed_s

    def draw_breakdown_v(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Voltage at which each cell forms with pulses of `width_ref_s`."""
        breakdown_v = rng.normal(self.breakdown_mean_v, self.breakdown_sigma_v, shape)
        # Nothing more is drawn where no cell is odd: chips of such settings do not depend on these lines.
        if self.early_share + self.leaky_share > 0.0:
            lot = rng.random(shape)
            early = lot < self.early_share
            below_v = rng.exponential(self.early_scale_v, int(early.sum()))
            breakdown_v[early] = np.maximum(self.breakdown_mean_v - below_v, 0.0)
            breakdown_v[lot >= 1.0 - self.leaky_share] = 0.0
        return breakdown_v

    def forms(
        self, voltage_v: float | NDArray[np.float64], width_s: float, breakdown_v: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which cells one pulse forms, given the voltage at which each does at `width_ref_s` (voltage-time dilemma)."""
        return breakdown_v <= voltage_v + self.width_slope_v * math.log10(width_s / self.width_ref_s)

    def compliance_scale(self, v_gate_v: float) -> float:
        """Conductance right after forming over that at `gate_ref_v`: proportional to gate voltage over threshold."""
        return max(0.0, (v_gate_v - self.gate_threshold_v) / (self.gate_ref_v - self.gate_threshold_v))

    def _parent_sigma_s(self) -> float:
        """Spread before the cut such that `sigma_s` remains after it (the cut takes off about 0.6 %)."""
        parent = self.sigma_s
        for _ in range(20):
            cut = (self.pristine_s - self.mean_s) / parent
            inverse_mills = math.exp(-0.5 * cut * cut) / math.sqrt(2 * math.pi) / (1.0 - ndtr(cut))
            parent = self.sigma_s / math.sqrt(1.0 + cut * inverse_mills - inverse_mills**2)
        return float(parent)
