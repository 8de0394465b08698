"""Rows driven alone: the measurement that most procedures are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.constants import nominal_amps_per_code
from calibration.procedure import CalibrationBench
from hil.tile import Tile

Matrix = NDArray[np.float64]
Lines = NDArray[np.intp]


@dataclass(frozen=True)
class RowsAlone:
    """Currents of rows that were driven one at a time, over several passes.

    Attributes:
        rows, cols: lines that took part.
        n_passes: how often each was measured.
        mean_a: corrected by what is known of the converters, shape (len(rows), len(cols)).
        variance_a2: of a single measurement, same shape; NaN after one pass.
        n_conversions: that each measurement is made of.
    """

    rows: Lines
    cols: Lines
    n_passes: int
    mean_a: Matrix
    variance_a2: Matrix
    n_conversions: int = 1


def measure_rows_alone(
    bench: CalibrationBench, cols: Lines, v_read_v: float, n_passes: int, *, rows: Lines | None = None, what: str
) -> RowsAlone:
    """Drive one row after the other with the word lines of `cols` on; every pass goes over all rows.

    Passes rather than repeats, so that slow noise of a cell is averaged too. Where other rows are held at the idle
    level meanwhile, what they carry is measured too and taken off.
    """
    rows = bench.rows if rows is None else rows
    tile = Tile(rows=rows, plus_cols=cols)
    one_by_one = np.eye(len(rows), dtype=np.bool_)
    total = np.zeros((len(rows), len(cols)))
    squares = np.zeros_like(total)
    first: Matrix | None = None
    for k in range(n_passes):
        bench.progress(what, k, n_passes)
        found = corrected_a(bench, bench.vmm(what, one_by_one, tile, v_read_v, number=k), cols)
        if holds_others(bench, v_read_v):
            found -= corrected_a(bench, bench.vmm(f"{what}, idle", one_by_one, tile, 0.0, number=k), cols)
        first = found if first is None else first
        # Against the first pass, so that the variance of large currents does not drown in rounding.
        total += found - first
        squares += (found - first) ** 2
    bench.progress(what, n_passes, n_passes)
    assert first is not None
    mean = total / n_passes
    variance = (squares - n_passes * mean**2) / (n_passes - 1) if n_passes > 1 else np.full_like(mean, np.nan)
    n_conversions = 2 if holds_others(bench, v_read_v) else 1
    return RowsAlone(rows, cols, n_passes, first + mean, np.maximum(variance, 0.0), n_conversions)


def holds_others(bench: CalibrationBench, v_read_v: float) -> bool:
    """Whether currents are differences to those at idle level, since rows that are not driven carry some too."""
    return not bench.wiring.inhibit and v_read_v != 0.0


def corrected_a(bench: CalibrationBench, current_a: Matrix, cols: Lines) -> Matrix:
    """Currents by nominal constants, as the converters' measured gains make them; shape (..., len(cols))."""
    gain = bench.known.quantity("amps_per_code")
    if gain is None:
        return current_a
    nominal = nominal_amps_per_code(bench.known)
    return current_a * np.where(gain.ok[cols], gain.value[cols] / nominal, 1.0)


def drive_v(bench: CalibrationBench, v_read_v: float, rows: Lines, cols: Lines) -> Matrix:
    """Voltage that drives the currents of each row at each column, as known so far, shape (rows, cols).

    Of the row's channel above the virtual ground of the column; where idle currents are taken off, above idle level.
    """
    channel = bench.wiring.row_channel[rows]

    def of_channel(name: str) -> Matrix:
        found = bench.known.quantity(name)
        return np.zeros(len(rows)) if found is None else np.where(found.ok, found.value, 0.0)[channel]

    above_idle_v = (v_read_v * (1.0 + of_channel("row_gain_error")))[:, None]
    if holds_others(bench, v_read_v):
        return np.broadcast_to(above_idle_v, (len(rows), len(cols)))
    offset = bench.known.quantity("column_offset_v")
    column_v = np.zeros(len(cols)) if offset is None else np.where(offset.ok, offset.value, 0.0)[cols]
    return above_idle_v + of_channel("row_offset_v")[:, None] - column_v
