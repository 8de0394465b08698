"""Whether a calibration agrees with itself: as many rows, columns, channels and converters everywhere."""

from __future__ import annotations

from collections.abc import Mapping

from hil.calibration_file import COL_WORKS, ROW_WORKS, Calibration
from hil.errors import CalibrationError

#: what a quantity has one value for, in the order of its axes; any other quantity may have any shape
_AXES: Mapping[str, tuple[str, ...]] = {
    ROW_WORKS: ("rows",),
    COL_WORKS: ("cols",),
    "column_offset_v": ("cols",),
    "row_offset_v": ("channels",),
    "converter_noise_lsb": ("converters",),
    "row_gain_error": ("channels",),
    "row_nonlinearity_v": ("channels",),
    "amps_per_code": ("cols",),
    "r_on_ohm": ("channels",),
    "row_ohm": (),
    "col_ohm": (),
    "settle_s": (),
    "read_noise": (),
    "flicker_share": (),
    "telegraph_share": (),
    "conductance_s": ("rows", "cols"),
    "read_noise_cell": ("rows", "cols"),
    "faults": ("rows", "cols"),
}
_WIRING_AXES: Mapping[str, str] = {
    "row_channel": "rows",
    "row_position": "rows",
    "row_ok": "rows",
    "col_converter": "cols",
    "col_ok": "cols",
}


def check_shapes(calibration: Calibration) -> None:
    """Raise `CalibrationError` unless all parts are of an array of the same size, wired in one way."""
    wiring = calibration.wiring
    sizes = dict(zip(("rows", "cols"), calibration.board.shape, strict=True))
    sizes |= {"channels": wiring.n_channels, "converters": wiring.n_converters}
    if not all(size > 0 for size in sizes.values()):
        raise _disagrees(f"it is of {', '.join(f'{size} {name}' for name, size in sizes.items())}")
    for name, axis in _WIRING_AXES.items():
        _check(f"wiring {name}", getattr(wiring, name).shape, (sizes[axis],))
    for name, what in (("row_channel", "channels"), ("col_converter", "converters")):
        numbers = getattr(wiring, name)
        if not (numbers.min() >= 0 and numbers.max() < sizes[what]):
            raise _disagrees(f"wiring {name} names one that is not among its {sizes[what]} {what}")
    for part in calibration.parts.values():
        for name, quantity in part.quantities.items():
            if name in _AXES:
                wanted = tuple(sizes[axis] for axis in _AXES[name])
                _check(f"{name} of part {part.name}", quantity.value.shape, wanted)


def _disagrees(what: str) -> CalibrationError:
    return CalibrationError(f"the calibration contradicts itself: {what}", fix="measure again with hil calibrate all")


def _check(what: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if shape != wanted:
        raise _disagrees(f"{what} has shape {shape}, its array needs {wanted}")
