"""From sums of codes to currents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.calibrated import calibrated
from firmware_bridge.profile import BoardProfile
from hil.calibration_file import Calibration
from hil.errors import CalibrationError

#: a step that differs by more than this factor from that of the profile belongs to another board, or another profile
_FACTOR_MAX = 2.0


@dataclass(frozen=True)
class ColumnConstants:
    """How a code of each column becomes a current.

    Attributes:
        zero_code: code at zero current, measured with idle rows at power-up, shape (cols,).
        amps_per_code: current of one step; nominal where no calibration knows better, shape (cols,).
    """

    zero_code: NDArray[np.float64]
    amps_per_code: NDArray[np.float64]

    @classmethod
    def of(
        cls, profile: BoardProfile, zero_code: NDArray[np.float64], calibration: Calibration | None
    ) -> ColumnConstants:
        """Constants by data sheet and profile, or by a calibration where it has them; zero codes are measured.

        Raises:
            CalibrationError: a step that no amplifier and converter of this board can have.
        """
        nominal = np.full(profile.cols, profile.adc.converter.lsb_v / profile.tia.r_feedback_ohm)
        found = calibrated(calibration, "amps_per_code", nominal)
        far = ~((found >= nominal / _FACTOR_MAX) & (found <= nominal * _FACTOR_MAX))
        if calibration is not None and far.any():
            col = int(far.argmax())
            ratio = float(found[col]) / float(nominal[col])
            raise CalibrationError(
                f"calibration {calibration.calibration_id}: a step of column {col} is said to be {found[col]:.4g} A, "
                f"{ratio:.3g} times what the board profile says; {_FACTOR_MAX:g} times is the limit",
                fix="correct tia.r_feedback_ohm in the board profile, then measure part tia again",
            )
        return cls(zero_code, found)

    def current_a(
        self, sums: NDArray[np.int64], n_conversions: NDArray[np.int64], cols: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Currents of sums over `n_conversions` (broadcast over columns), shape (..., cols).

        The amplifiers invert: a current into the column lowers the code.
        """
        return (n_conversions * self.zero_code[cols] - sums) * self.amps_per_code[cols]
