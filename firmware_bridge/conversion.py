"""From sums of codes to currents, with the constants that a calibration will replace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.profile import BoardProfile


@dataclass(frozen=True)
class ColumnConstants:
    """How a code of each column becomes a current.

    Attributes:
        zero_code: code at zero current, measured with idle rows at power-up, shape (cols,).
        amps_per_code: current of one step; nominal until a calibration says otherwise, shape (cols,).
        calibration_id: None for nominal constants.
    """

    zero_code: NDArray[np.float64]
    amps_per_code: NDArray[np.float64]
    calibration_id: str | None = None

    @classmethod
    def nominal(cls, profile: BoardProfile, zero_code: NDArray[np.float64]) -> ColumnConstants:
        """Constants by data sheet and profile; only the zero codes are measured."""
        lsb_v = profile.adc.converter.lsb_v
        return cls(zero_code, np.full(profile.cols, lsb_v / profile.tia.r_feedback_ohm))

    def current_a(
        self, sums: NDArray[np.int64], n_conversions: NDArray[np.int64], cols: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Currents of sums over `n_conversions` (broadcast over columns), shape (..., cols).

        The amplifiers invert: a current into the column lowers the code.
        """
        return (n_conversions * self.zero_code[cols] - sums) * self.amps_per_code[cols]
