"""DAC80508 row drivers: static gain and offset error of each channel, and quantisation.

Source: TI SLASEL1D (total unadjusted error 0.1 % of full scale at most). Noise and settling are left out: the board
waits until both are below one step. Valid for outputs within the range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import DacSettings


@dataclass(frozen=True)
class RowDacs:
    """Errors of every channel of one simulated board, shape (channels,)."""

    settings: DacSettings
    gain_error: NDArray[np.float64]
    offset_v: NDArray[np.float64]

    @classmethod
    def draw(cls, settings: DacSettings, n_channels: int, rng: np.random.Generator) -> RowDacs:
        gain = rng.normal(0.0, settings.gain_sigma, n_channels)
        offset = rng.normal(0.0, settings.offset_sigma_v, n_channels)
        on = float(settings.enabled)
        return cls(settings, on * gain, on * offset)

    def output_v(self, wanted_v: NDArray[np.float64] | float, channel: NDArray[np.intp]) -> NDArray[np.float64]:
        """Voltage that each of `channel` really gives, against the idle level, when told `wanted_v` (..., channels).

        The offset is the same at the idle level; `zero_offset_v` returns it.
        """
        step_v = self.settings.full_scale_v / 2**self.settings.bits
        code_v = np.asarray(wanted_v, np.float64)
        if self.settings.enabled:
            most = 2**self.settings.bits - 1
            code_v = np.clip(np.rint(code_v / step_v), -most, most) * step_v
        return code_v * (1.0 + self.gain_error[channel])

    def zero_offset_v(self, channel: NDArray[np.intp]) -> NDArray[np.float64]:
        """Voltage of an idle channel against the virtual ground of the columns."""
        return self.offset_v[channel]
