"""Offsets: of every drive channel at its idle level, and of the virtual ground of every column.

With all inputs at their idle level, what still flows through a cell is driven by the difference of two offsets. Rows
alone tell the channels apart; all rows together, where a hundred times the current flows, tell the columns' offsets.
Only differences of the two can be seen without an instrument: the median column counts as zero.

Lines that carry nothing, or far too much, are found here, before anything else is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.alone import (
    RowsAlone,
    corrected_a,
    holds_others,
    measure_rows_alone,
)
from calibration.constants import nominal_amps_per_code
from calibration.procedure import CalibrationBench
from hil.calibration_file import Part, Quantity
from hil.errors import CalibrationError
from hil.tile import Tile

Matrix = NDArray[np.float64]
Lines = NDArray[np.intp]

#: a line that carries less than this share of the median line is open, one that carries more than `_SHORTED` shorted
_OPEN, _SHORTED = 0.02, 20.0
#: median current of a cell below which an array counts as unformed, converter steps
_LEAST_CODES = 5.0
_SWEEPS = 30
#: what rows in one phase take from each other on the source lines, which the sum of rows alone leaves out
_COUPLING = 0.03


@dataclass(frozen=True)
class ZeroOptions:
    """How often to measure.

    Attributes:
        n_passes: over the rows at read voltage, and as many at idle level.
        n_together: multiplications with all rows at idle level.
    """

    n_passes: int = 4
    n_together: int = 32


def measure(bench: CalibrationBench, options: ZeroOptions | None = None) -> Part:
    """Measure offsets and dead lines.

    Raises:
        CalibrationError: the array conducts nothing.
    """
    options = options or ZeroOptions()
    cols = bench.cols
    driven = measure_rows_alone(bench, cols, bench.v_read_v, options.n_passes, what="rows alone")
    row_works, col_works, findings = working_lines(bench, driven)
    keep_rows, keep_cols = row_works[driven.rows], col_works[driven.cols]
    rows, cols = driven.rows[keep_rows], driven.cols[keep_cols]
    idle = measure_rows_alone(bench, cols, 0.0, options.n_passes, rows=rows, what="rows alone at idle level")
    tile = Tile(rows=rows, plus_cols=cols)
    every = np.ones((options.n_together, len(rows)), np.bool_)
    together = corrected_a(bench, bench.vmm("all rows at idle level", every, tile, 0.0), cols)
    driven_a = driven.mean_a[np.ix_(keep_rows, keep_cols)]
    alone_s = (driven_a if holds_others(bench, bench.v_read_v) else driven_a - idle.mean_a) / bench.v_read_v
    channel = bench.wiring.row_channel[rows]
    connected = groups(bench, rows)
    found_v, col_v = split_offsets(alone_s, idle.mean_a, together.mean(axis=0), channel, connected)
    # It knows nothing of channels after the last one that works.
    row_v = np.full(bench.wiring.n_channels, np.nan)
    row_v[: len(found_v)] = found_v
    explained_a = (row_v[channel][:, None] - col_v) * alone_s
    left_a = np.concatenate([idle.mean_a[g] - explained_a[g].sum(axis=0) for g in connected])
    noise_a = np.sqrt(np.nanmedian(idle.variance_a2))
    per_channel = np.array([(alone_s[channel == m] ** 2).sum() for m in range(bench.wiring.n_channels)])
    row_ok = per_channel > 0
    shape = bench.session.info.shape
    column = np.zeros(shape[1])
    column[cols] = col_v
    sigma = np.full(shape[1], np.nan)
    sigma[cols] = np.hypot(
        together.std(axis=0, ddof=1) / np.sqrt(options.n_together) / alone_s.sum(axis=0), _COUPLING * np.abs(col_v)
    )
    return Part(
        name="zero",
        quantities={
            "row_offset_v": Quantity.of(
                np.where(row_ok, row_v, 0.0),
                noise_a / np.sqrt(options.n_passes * np.where(row_ok, per_channel, np.nan)),
                row_ok,
            ),
            "column_offset_v": Quantity.of(column, sigma, col_works),
            "row_works": Quantity.of(row_works),
            "col_works": Quantity.of(col_works),
        },
        residuals={"idle_current_a": float(np.sqrt(np.mean(left_a**2)))},
        method="VMMs at idle level, rows alone and all together; offsets against the median column",
        options=vars(options),
        findings=findings,
    )


def working_lines(
    bench: CalibrationBench, driven: RowsAlone
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[str, ...]]:
    """Which lines carry current, shapes (rows,) and (cols,), and what to say of the others.

    Raises:
        CalibrationError: none does.
    """
    cell_a = driven.mean_a
    least_a = _LEAST_CODES * nominal_amps_per_code(bench.known)
    live = cell_a > least_a
    # A line may be dead altogether, but not half of the array.
    by_row = np.median(cell_a[:, live.any(axis=0)], axis=1) if live.any() else np.zeros(len(driven.rows))
    by_col = np.median(cell_a[live.any(axis=1)], axis=0) if live.any() else np.zeros(len(driven.cols))
    usual_a = float(np.median(by_col))
    if not usual_a > least_a:
        raise CalibrationError(
            f"half of the cells carry less than {least_a:.2g} A at {bench.v_read_v:g} V: the array is not formed",
            fix="form it first: hil array form; or raise lsm.v_read_v",
        )
    shape = bench.session.info.shape
    row_works, col_works = np.zeros(shape[0], np.bool_), np.zeros(shape[1], np.bool_)
    row_works[driven.rows] = (by_row > _OPEN * usual_a) & (by_row < _SHORTED * usual_a)
    col_works[driven.cols] = (by_col > _OPEN * usual_a) & (by_col < _SHORTED * usual_a)
    return row_works, col_works, tuple(_findings(bench, row_works, col_works))


def groups(bench: CalibrationBench, rows: Lines) -> list[Lines]:
    """Which of `rows` (by their index) are connected together when one of them is driven alone."""
    if bench.wiring.inhibit:
        return [np.array([k]) for k in range(len(rows))]
    position = bench.wiring.row_position[rows]
    return [np.flatnonzero(position == p) for p in np.unique(position)]


def split_offsets(
    alone_s: Matrix, idle_a: Matrix, together_a: Matrix, channel: Lines, connected: list[Lines]
) -> tuple[Matrix, Matrix]:
    """Offsets of channels and of columns, from the currents that they drive.

    Args:
        alone_s: current of each column per volt on each row, shape (rows, cols).
        idle_a: current with a row at idle level, shape (rows, cols).
        together_a: sum of all phases with all rows at idle level, shape (cols,).
        channel: of each row.
        connected: rows that share a phase.

    Returns:
        Shapes (channels,), up to the last one that has a row, and (cols,); the median of the latter is 0. A channel
        without rows is NaN.
    """
    n = int(channel.max()) + 1
    normal = np.zeros((n, n))
    for group in connected:
        normal[np.ix_(channel[group], channel[group])] += alone_s[group] @ alone_s[group].T
    present = np.bincount(channel, minlength=n) > 0
    col_v = np.zeros(alone_s.shape[1])
    row_v = np.zeros(n)
    sum_s = alone_s.sum(axis=0)
    for _ in range(_SWEEPS):
        right = np.zeros(n)
        for group in connected:
            # All members see the same current, measured once for each.
            right[channel[group]] += alone_s[group] @ (idle_a[group].mean(axis=0) + col_v * alone_s[group].sum(axis=0))
        row_v[present] = np.linalg.solve(normal[np.ix_(present, present)], right[present])
        col_v = ((row_v[channel][:, None] * alone_s).sum(axis=0) - together_a) / sum_s
        row_v -= np.median(col_v)
        col_v -= np.median(col_v)
    return np.where(present, row_v, np.nan), col_v


def _findings(bench: CalibrationBench, row_works: NDArray[np.bool_], col_works: NDArray[np.bool_]) -> list[str]:
    """Dead parts by name, then dead lines of parts that work."""
    wiring = bench.wiring
    found: list[str] = []
    row_left, col_left = ~row_works, ~col_works
    for m, name in enumerate(wiring.channel_names):
        own = wiring.row_channel == m
        if own.any() and not row_works[own].any():
            found.append(f"{name} drives nothing: rows {_ranges(own)} are left out")
            row_left &= ~own
    for k, name in enumerate(wiring.converter_names):
        own = wiring.col_converter == k
        if own.sum() > 1 and not col_works[own].any():
            found.append(f"{name} does not work: its {own.sum()} columns {_ranges(own)} are left out")
            col_left &= ~own
    for what, dead in (("row", row_left), ("column", col_left)):
        if dead.any():
            several, are = ("s carry", "are") if dead.sum() > 1 else (" carries", "is")
            found.append(f"{dead.sum()} {what}{several} no current, or too much, and {are} left out: {_ranges(dead)}")
    return found


def _ranges(mask: NDArray[np.bool_]) -> str:
    """Numbers of a mask, as "0-7, 9"; every k-th as "2, 10, ... 506"."""
    numbers = np.flatnonzero(mask)
    steps = np.unique(np.diff(numbers))
    if len(numbers) > 3 and len(steps) == 1 and steps[0] > 1:
        return f"{numbers[0]}, {numbers[1]}, ... {numbers[-1]}"
    starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
    ends = np.append(starts[1:], len(numbers)) - 1
    return ", ".join(
        str(numbers[a]) if a == b else f"{numbers[a]}-{numbers[b]}" for a, b in zip(starts, ends, strict=True)
    )
