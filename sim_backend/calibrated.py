"""A simulated chip that was not drawn but measured: cells and periphery of one board, from its calibration.

What the calibrated board takes off before it reports amperes is left out here: gain and offset errors of DACs and gain
errors of amplifiers and converters. What it does not take off is taken from the file: cells, resistances, the
amplifiers' input offsets, and noise. Each part obeys the switch of its settings, as on a drawn chip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from hil.calibration_file import Calibration
from hil.errors import CalibrationError, ConfigError
from hil.wiring import Wiring
from sim_backend.adc import ColumnAdcs
from sim_backend.cells import CellState
from sim_backend.chip import SimulatedChip
from sim_backend.dac import RowDacs
from sim_backend.mux import channel_of_row
from sim_backend.settings import SimSettings
from sim_backend.tia import ColumnTias

#: parts without which there is no chip to simulate
NEEDED = ("zero", "line", "noise", "array")

#: what must be known of the board's profile
_ELECTRICS = (
    "mux_width",
    "selects",
    "inhibit",
    "r_feedback_ohm",
    "v_common_v",
    "adc_v_reference_v",
    "adc_bits",
    "dac_full_scale_v",
    "dac_bits",
)
#: no quantity comes near this, in its SI unit; far beyond it sums overflow
_LARGEST = 1e6

#: cells that conduct more than this many times what a pristine one does are formed
_FORMED_OVER_PRISTINE = 2.0


def measured_settings(calibration: Calibration, settings: SimSettings) -> SimSettings:
    """The user's settings, with what is known of the board in place of theirs.

    Raises:
        CalibrationError: a part is missing, or a value is none that a board can have.
        ConfigError: the user asked for another size of the array, or for a chip from a file.
    """
    calibration.require(NEEDED)
    shape = dict(zip(("rows", "cols"), calibration.board.shape, strict=True))
    for name, size in shape.items():
        if name in settings.model_fields_set and getattr(settings, name) != size:
            raise ConfigError(
                f"sim.{name} is {getattr(settings, name)}, but the calibration is of a board with {size}",
                fix=f"leave sim.{name} away; the calibration says it",
            )
    if settings.chip is not None:
        raise ConfigError(
            f"sim.chip = {settings.chip} and a calibration are given together, but each says what the cells are",
            fix="leave one of them away",
        )
    board = calibration.electrics
    if missing := [name for name in _ELECTRICS if name not in board]:
        raise CalibrationError(
            f"calibration {calibration.calibration_id} does not say {', '.join(missing)} of its board",
            fix="measure again with hil calibrate all",
        )
    parts: dict[str, dict[str, Any]] = {
        "noise": {
            "relative": min(1.0, _number(calibration, "read_noise", settings.noise.relative)),
            "flicker_share": min(1.0, _number(calibration, "flicker_share", settings.noise.flicker_share)),
        },
        # Telegraph noise of the cells is inside their measured noise.
        "telegraph": {"enabled": False},
        "faults": {"enabled": False},
        "lines": {name: _number(calibration, name, 0.0) for name in ("row_ohm", "col_ohm")},
        "mux": {"width": board["mux_width"], "selects": board["selects"], "inhibit": board["inhibit"]},
        # The board's codes are trimmed channel by channel, so that rounding has no sign in common.
        "dac": {"full_scale_v": board["dac_full_scale_v"], "bits": board["dac_bits"], "enabled": False},
        "tia": {name: board[name] for name in ("r_feedback_ohm", "v_common_v")},
        "adc": {"v_reference_v": board["adc_v_reference_v"], "bits": board["adc_bits"]},
    }
    changed = {name: _with(calibration, getattr(settings, name), values) for name, values in parts.items()}
    return settings.model_copy(update=shape | changed)


def measured_chip(calibration: Calibration, settings: SimSettings, seed: int) -> SimulatedChip:
    """The chip of a calibration.

    Args:
        calibration: with the parts of `NEEDED`.
        settings: of `measured_settings`.
        seed: draws all noise, and what a pulse does to a cell, which no calibration knows.
    """
    drawn = SimulatedChip.draw(settings, seed)
    settings = drawn.settings  # without errors, if they are to be ideal
    wiring = calibration.wiring
    # A value that the procedure would not vouch for is still the best guess of what the cell conducts.
    cells_s = _usable(calibration, "conductance_s", even_unsure=True).clip(min=0.0)
    noise = _usable(calibration, "read_noise_cell", instead=settings.noise.relative).clip(min=0.0)
    no_error, everywhere_ok = np.zeros(settings.cols), np.zeros_like(drawn.faults.kind)
    offset_v = _usable(calibration, "column_offset_v")
    channel = channel_of_row(np.arange(settings.rows), settings.mux.width)
    r_on_ohm = np.zeros_like(drawn.r_on_ohm)
    r_on_ohm[channel] = _usable(calibration, "r_on_ohm").clip(min=0.0)[wiring.row_channel]
    return replace(
        drawn,
        state=CellState.at_rest(cells_s, cells_s > _FORMED_OVER_PRISTINE * settings.forming.pristine_s),
        faults=replace(drawn.faults, kind=everywhere_ok, open_rows=~calibration.row_ok, open_cols=~calibration.col_ok),
        r_on_ohm=r_on_ohm * settings.mux.enabled,
        dacs=RowDacs(settings.dac, np.zeros_like(drawn.r_on_ohm), np.zeros_like(drawn.r_on_ohm)),
        tias=ColumnTias(settings.tia, no_error, offset_v * settings.tia.enabled),
        adcs=ColumnAdcs(
            settings.adc, no_error, no_error, _usable(calibration, "converter_noise_lsb")[wiring.col_converter]
        ),
        noise_factor=noise / settings.noise.relative if settings.noise.relative > 0.0 else None,
        measured=True,
    )


def measured_wiring(calibration: Calibration) -> Wiring:
    """The board's wiring, with the lines that its calibration found dead."""
    return replace(calibration.wiring, row_ok=calibration.row_ok, col_ok=calibration.col_ok)


def measured_identity(calibration: Calibration) -> dict[str, Any]:
    """Identity of a simulator that stands for a board; nobody shall take it for that board."""
    return {
        "chip": f"calibrated simulator of {calibration.board.serial}",
        "board_serial": f"simulated {calibration.board.serial}",
        "calibration": calibration.summary,
    }


def _with(calibration: Calibration, part: BaseModel, values: Mapping[str, Any]) -> BaseModel:
    """A part of the settings with values of a calibration, which obey the same bounds as those of a person."""
    try:
        checked = type(part).model_validate({**part.model_dump(), **values}, strict=True)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise CalibrationError(
            f"calibration {calibration.calibration_id} says of its board what none can have: {wrong}",
            fix="measure again with hil calibrate all",
        ) from None
    return part.model_copy(update={name: getattr(checked, name) for name in values})


def _number(calibration: Calibration, name: str, instead: float) -> float:
    """A quantity that is one number and none below zero; `instead` where it could not be measured."""
    return max(0.0, float(_usable(calibration, name, instead=instead, even_unsure=True)))


def _usable(
    calibration: Calibration, name: str, *, instead: float | None = None, even_unsure: bool = False
) -> NDArray[np.float64]:
    """Values of a quantity; in place of those that are not usable the mean of the usable ones, or `instead`.

    Raises:
        CalibrationError: one is larger than anything on a board.
    """
    value = np.array(calibration.value(name), np.float64)
    found = calibration.quantity(name)
    finite = np.isfinite(value)
    if (np.abs(value[finite]) > _LARGEST).any():
        raise CalibrationError(
            f"calibration {calibration.calibration_id}: {name} goes up to {np.abs(value[finite]).max():.3g}",
            fix="measure that part again",
        )
    sure = finite & found.ok if found is not None else finite
    if instead is None:
        instead = float(value[sure].mean()) if sure.any() else 0.0
    value[~(finite if even_unsure else sure)] = instead
    return value
