"""Errors of the channels that drive the rows, and the codes that undo them.

A channel gives `idle + offset + (ideal - idle) * (1 + gain error)`, where ideal is what its code stands for: the offset
is that of the idle level, as a multiplication at zero read voltage sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drivers.dac80508 import CODE_MAX, OutputRange
from firmware_bridge.calibrated import calibrated
from firmware_bridge.electrics import channel_name
from firmware_bridge.profile import BoardProfile
from hil.calibration_file import Calibration
from hil.errors import CalibrationError

#: no trim is larger, as a fraction of full scale: twice the total unadjusted error of the data sheet (SLASEL1D)
TRIM_MAX = 2e-3
#: a gain error known less well than what the data sheet promises is left alone: far from the levels at which it was
#: measured it would do harm
_GAIN_KNOWN_TO = 1e-3

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowTrim:
    """Errors of every row channel, shape (muxes,).

    Attributes:
        range: output law of a channel without errors.
        idle_v: idle level.
        gain_error: relative.
        offset_v: error at the idle level.
    """

    range: OutputRange
    idle_v: float
    gain_error: Matrix
    offset_v: Matrix

    @classmethod
    def of(cls, profile: BoardProfile, calibration: Calibration | None) -> RowTrim:
        """Errors that a calibration has found; none without one.

        Raises:
            CalibrationError: a channel would be moved further than its data sheet can explain.
        """
        nominal = np.zeros(profile.mux.count)
        trim = cls(
            profile.dac.output_range,
            profile.tia.v_common_v,
            calibrated(calibration, "row_gain_error", nominal, known_to=_GAIN_KNOWN_TO),
            calibrated(calibration, "row_offset_v", nominal),
        )
        if calibration is not None:
            trim._check(profile, calibration)
        return trim

    @property
    def is_active(self) -> bool:
        """Whether any channel has an error to undo."""
        return bool(self.gain_error.any() or self.offset_v.any())

    def level_v(self, ideal_v: ArrayLike) -> Matrix:
        """What channels give for what their codes stand for, shape (..., muxes)."""
        return self.idle_v + self.offset_v + (np.asarray(ideal_v) - self.idle_v) * (1.0 + self.gain_error)

    def ideal_v(self, level_v: ArrayLike) -> Matrix:
        """What codes must stand for so that channels give a level, shape (..., muxes)."""
        return self.idle_v + (np.asarray(level_v) - self.idle_v - self.offset_v) / (1.0 + self.gain_error)

    def codes(self, level_v: ArrayLike) -> NDArray[np.int64]:
        """Codes that bring channels nearest to a level; one number, or shape (..., muxes).

        Raises:
            LimitError: a level outside the range of a channel without errors.
        """
        if not self.is_active:
            return np.broadcast_to(
                self.range.code(level_v), np.broadcast_shapes(np.shape(level_v), self.offset_v.shape)
            )
        self.range.code(level_v)
        # At the ends of its range a channel does what it can.
        return self.range.code(np.clip(self.ideal_v(level_v), 0.0, CODE_MAX * self.range.lsb_v))

    def _check(self, profile: BoardProfile, calibration: Calibration) -> None:
        ends_v = np.array([[0.0], [self.range.span_v]])
        moved_v = np.abs(self.level_v(ends_v) - ends_v)
        most_v = TRIM_MAX * self.range.span_v
        # Written so that what is no number fails too.
        wrong = ~(moved_v <= most_v)
        if wrong.any():
            end, mux = np.argwhere(wrong)[0]
            raise CalibrationError(
                f"calibration {calibration.calibration_id}: {channel_name(profile, int(mux))} is said to be "
                f"{1e3 * moved_v[end, mux]:.3g} mV off at {ends_v[end, 0]:g} V; no trim is above {1e3 * most_v:g} mV, "
                "twice what the data sheet allows",
                fix="measure part dac again, and look at that channel if it says the same",
            )
