"""The array with its wires and muxes, as the procedures understand what they measure.

The same port reduction as the simulator's (`sim_backend.lines`): what a fit finds with it is what the simulator needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hil.wiring import Wiring
from sim_backend.lines import ArrayPorts, FloatingRows, effective_conductance_s, reduce_to_ports

Matrix = NDArray[np.float64]
Lines = NDArray[np.intp]

#: share of the drive that is left at a cell at least; keeps a wrong start of a fit finite
_LEAST_SHARE = 0.02


@dataclass(frozen=True)
class Resistances:
    """Everything between a cell and its drive or its virtual ground.

    Attributes:
        r_on_ohm: of the mux of each channel, shape (channels,).
        row_ohm: bit line, per cell.
        col_ohm: source line, per cell.
    """

    r_on_ohm: Matrix
    row_ohm: float
    col_ohm: float


class OpenColumns:
    """All rows, and the columns whose word lines are on.

    Args:
        conductance_s: cells at the open columns, shape (rows, n).
        cols: open columns in ascending order, shape (n,).
        wiring: of the board.
        resistances: of the same.
    """

    def __init__(self, conductance_s: Matrix, cols: Lines, wiring: Wiring, resistances: Resistances) -> None:
        self._wiring = wiring
        self._r_on_ohm = resistances.r_on_ohm[wiring.row_channel]
        self._ports: ArrayPorts = reduce_to_ports(
            conductance_s,
            row_segment_ohm=resistances.row_ohm * np.diff(cols, prepend=-1),
            col_segment_ohm=np.full(len(conductance_s), resistances.col_ohm),
        )

    def rows_alone_s(self) -> Matrix:
        """Current of each column per volt on the channel of each row, that row driven alone; shape (rows, n)."""
        if self._wiring.inhibit:
            array = self._floating
            return array.gain / (np.diag(array.impedance_ohm) + self._r_on_ohm)[:, None]
        alone = np.empty_like(self._ports.transfer_s)
        for position in np.unique(self._wiring.row_position):
            # Where INH is not wired, the other rows at the position are held at the idle level.
            together = np.flatnonzero(self._wiring.row_position == position)
            alone[together] = effective_conductance_s(self._ports, together, self._r_on_ohm[together])
        return alone

    def together_s(self, rows: Lines) -> Matrix:
        """The same of rows that are driven in one phase, shape (len(rows), n)."""
        if not self._wiring.inhibit:
            return self.rows_alone_s()[rows]
        array, n = self._floating, len(rows)
        # One volt on each row by itself, all of them connected.
        return array.row_currents_a(rows, self._r_on_ohm[rows], np.eye(n)).T @ array.gain[rows]

    @cached_property
    def _floating(self) -> FloatingRows:
        return FloatingRows.of(self._ports)


def by_ladder_s(
    current_a: Matrix, drive_v: Matrix, rows: Lines, cols: Lines, wiring: Wiring, resistances: Resistances
) -> Matrix:
    """Conductances from the currents of rows that were driven alone, by Kirchhoff's laws along each bit line.

    Leaves out what flows back through other, floating rows: a few per cent, where source lines have resistance.

    Args:
        current_a: shape (n, m).
        drive_v: voltage of each row's channel above the virtual ground of each column, shape (n, m).
        rows: that were driven, shape (n,).
        cols: open columns in ascending order, shape (m,).
        wiring, resistances: of the board.
    """
    beyond_a = np.cumsum(current_a[:, ::-1], axis=1)[:, ::-1]
    drop_v = resistances.row_ohm * np.cumsum(beyond_a * np.diff(cols, prepend=-1), axis=1)
    drop_v += resistances.r_on_ohm[wiring.row_channel[rows]][:, None] * beyond_a[:, :1]
    to_converter_ohm = resistances.col_ohm * (len(wiring.row_channel) - rows)[:, None]
    across_v = drive_v - drop_v - to_converter_ohm * current_a
    return np.maximum(current_a, 0.0) / np.maximum(across_v, _LEAST_SHARE * drive_v)


def missing_s(
    measured_a: Matrix,
    model_s: Matrix,
    drive_v: Matrix,
    rows: Lines,
    cols: Lines,
    wiring: Wiring,
    resistances: Resistances,
) -> Matrix:
    """What must be added to conductances whose network gives `model_s`, to come closer to what was measured.

    Both currents are taken back to conductances along the bit lines; what that leaves out nearly cancels in the
    difference: a step leaves about a sixth of the error. All matrices have the shape (rows, cols).
    """
    from_measured_s, from_model_s = (
        by_ladder_s(current_a, drive_v, rows, cols, wiring, resistances)
        for current_a in (measured_a, model_s * drive_v)
    )
    return from_measured_s - from_model_s


def secant_s(now: Matrix, before: Matrix, step_now: Matrix, step_before: Matrix) -> Matrix:
    """Where the secant through two points of each row's fixed-point iteration leads; all of shape (rows, cols)."""
    change = step_now - step_before
    scale = (change**2).sum(axis=1)
    share = np.where(scale > 0.0, (change * step_now).sum(axis=1) / np.where(scale > 0.0, scale, 1.0), 0.0)
    return now + step_now - share[:, None] * (now - before + change)
