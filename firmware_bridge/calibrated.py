"""Values of a calibration in place of nominal ones, where it says that they may be used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hil.calibration_file import Calibration
from hil.errors import CalibrationError


def calibrated(
    calibration: Calibration | None, name: str, nominal: NDArray[np.float64], *, known_to: float = np.inf
) -> NDArray[np.float64]:
    """A quantity, with nominal values where there is none.

    Args:
        calibration: None has nothing.
        name: of the quantity.
        nominal: what holds otherwise; has the quantity's shape.
        known_to: values whose uncertainty is larger are not used.

    Raises:
        CalibrationError: the quantity has another shape, or holds a value that is no number where it may be used.
    """
    found = None if calibration is None else calibration.quantity(name)
    if calibration is None or found is None:
        return nominal.copy()
    if found.value.shape != nominal.shape:
        raise CalibrationError(
            f"calibration {calibration.calibration_id} is of board {calibration.board.serial} with board profile "
            f"{calibration.board.profile}: its {name} has shape {found.value.shape}, this board needs {nominal.shape}",
            fix="use the calibration of this board, or its board.profile",
        )
    # An uncertainty that nobody stated is no reason to leave a value.
    used = found.ok & ~(found.uncertainty > known_to)
    if not np.isfinite(found.value[used]).all():
        raise CalibrationError(
            f"calibration {calibration.calibration_id}: {name} holds values that are no numbers and are marked as ok",
            fix="measure that part again",
        )
    return np.where(used, found.value, nominal)
