"""ADS8324 converters: static gain and offset error, noise, quantisation and clipping.

Source: TI SBAS172A (14 bit, about 5 LSB peak-to-peak noise at 0.9 V reference, codes clamp at the ends). Non-linearity
is left out: the data sheet's figure was not available. -IN is tied to the reference, so that the input runs over twice
the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import AdcSettings


@dataclass(frozen=True)
class ColumnAdcs:
    """Errors of the converter of every column, and sigma of its conversions; shape (cols,)."""

    settings: AdcSettings
    gain_error: NDArray[np.float64]
    offset_lsb: NDArray[np.float64]
    noise_lsb: NDArray[np.float64]

    @classmethod
    def draw(cls, settings: AdcSettings, n_cols: int, rng: np.random.Generator) -> ColumnAdcs:
        gain = rng.normal(0.0, settings.gain_sigma, n_cols)
        offset = rng.normal(0.0, settings.offset_sigma_lsb, n_cols)
        on = float(settings.enabled)
        return cls(settings, on * gain, on * offset, np.full(n_cols, settings.noise_lsb))

    @property
    def lsb_v(self) -> float:
        """Volts per code step."""
        return 2.0 * self.settings.v_reference_v / 2**self.settings.bits

    @property
    def code_min(self) -> int:
        return -(2 ** (self.settings.bits - 1))

    @property
    def code_max(self) -> int:
        return 2 ** (self.settings.bits - 1) - 1

    def ideal_code(self, input_v: NDArray[np.float64], cols: NDArray[np.intp]) -> NDArray[np.float64]:
        """Code before noise, rounding and clipping, for inputs of shape (..., cols)."""
        above_reference_v = input_v - self.settings.v_reference_v
        return above_reference_v / self.lsb_v * (1.0 + self.gain_error[cols]) + self.offset_lsb[cols]

    def convert(
        self, input_v: NDArray[np.float64], cols: NDArray[np.intp], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Codes of single conversions, as floats; the exact code when the converter errors are switched off."""
        code = self.ideal_code(input_v, cols)
        if not self.settings.enabled:
            return code
        code = code + self.noise_lsb[cols] * rng.standard_normal(code.shape)
        return np.clip(np.rint(code), self.code_min, self.code_max)
