"""Wiring: which channel drives each row and which converter reads each column, as far as a host must know.

A backend that has muxes tells it, so that calibration can tell a channel's error from a cell's, and name a dead part as
a person would look for it on the board.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Wiring:
    """Which part serves which line.

    Attributes:
        row_channel: drive channel of each row, numbered from 0; its mux has the same number; shape (rows,).
        row_position: mux position of each row, shape (rows,).
        col_converter: converter (ADC lane) of each column, numbered from 0, shape (cols,).
        independent_selects: whether each mux is at a position of its own; else all are at the same one.
        inhibit: whether rows that are not driven are cut off; else the rows at the selected position are at idle level.
        channel_names: what a person calls each channel, by its number.
        converter_names: the same for converters.
        row_ok: rows whose channel and mux work, as far as the last power-up found; shape (rows,).
        col_ok: columns whose converter works, shape (cols,).
    """

    row_channel: NDArray[np.intp]
    row_position: NDArray[np.intp]
    col_converter: NDArray[np.intp]
    independent_selects: bool
    inhibit: bool
    channel_names: tuple[str, ...]
    converter_names: tuple[str, ...]
    row_ok: NDArray[np.bool_] = field(repr=False)
    col_ok: NDArray[np.bool_] = field(repr=False)

    @property
    def n_channels(self) -> int:
        """Drive channels."""
        return len(self.channel_names)

    @property
    def n_converters(self) -> int:
        """Converters."""
        return len(self.converter_names)
