"""OPA4322 transimpedance amplifiers: feedback tolerance, input offset and output swing.

Source: TI SLOS856B (offset 0.5 mV typical, 2 mV maximum; swing to 10-20 mV from the rail). Output = common level minus
current times feedback. Valid once settled (5 us on the board).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import TiaSettings


@dataclass(frozen=True)
class ColumnTias:
    """Errors of the amplifier of every column, shape (cols,)."""

    settings: TiaSettings
    gain_error: NDArray[np.float64]
    offset_v: NDArray[np.float64]

    @classmethod
    def draw(cls, settings: TiaSettings, n_cols: int, rng: np.random.Generator) -> ColumnTias:
        gain = rng.normal(0.0, settings.gain_sigma, n_cols)
        offset = rng.normal(0.0, settings.offset_sigma_v, n_cols)
        on = float(settings.enabled)
        return cls(settings, on * gain, on * offset)

    def output_v(
        self, current_a: NDArray[np.float64], cols: NDArray[np.intp], column_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Output for currents of shape (..., cols); `column_s` is the conductance at each summing node.

        An input offset appears at the output amplified by 1 + Rf * G, as in any amplifier.
        """
        return self.limited_v(self.unlimited_v(current_a, cols, column_s))

    def unlimited_v(
        self, current_a: NDArray[np.float64], cols: NDArray[np.intp], column_s: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The same of an amplifier without rails."""
        r_ohm = self.settings.r_feedback_ohm
        return (
            self.settings.v_common_v
            - current_a * r_ohm * (1.0 + self.gain_error[cols])
            + self.offset_v[cols] * (1.0 + r_ohm * column_s)
        )

    def limited_v(self, output_v: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the lower rail leaves of an output."""
        return np.maximum(output_v, self.settings.swing_low_v) if self.settings.enabled else output_v
