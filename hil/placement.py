"""Placement of a tile on the lines of an array that have the fewest faults.

A network's weights are the cells it is put on. An open or shorted line takes all its cells with it, and a shorted one
draws current from the others, so those lines are never used. Of what is left, lines with few faults come first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hil.errors import LimitError
from hil.fault_map import FaultMap
from hil.tile import Tile

Lines = NDArray[np.intp]

#: more than all cells of any array, and far from overflow when added up
_NEVER = 1 << 40


def place(n_rows: int, n_outputs: int, fault_map: FaultMap) -> Tile:
    """Differential tile with few faulty cells: its rows and its pairs of columns, both in ascending order.

    The columns of a pair are adjacent, or have only columns between them that are out.

    To choose rows and columns together for the fewest faults is hard (a densest-subgraph problem). Rows for given
    columns, and columns for given rows, are chosen exactly, in turn until nothing gets better, from several starts. Of
    equally good lines the first is taken: without faults this is `differential_tile(n_rows, n_outputs)`.

    Args:
        n_rows: inputs.
        n_outputs: outputs; each is the difference of two neighbouring columns (why: `hil.tile.differential_tile`).
        fault_map: of the array.

    Raises:
        LimitError: too few lines are neither open nor shorted.
    """
    usable_rows, n_pairs = usable_lines(fault_map)
    if n_rows > len(usable_rows) or n_outputs > n_pairs:
        raise LimitError(
            f"a tile of {n_rows} rows and {n_outputs} pairs of columns does not fit: {len(usable_rows)} of "
            f"{fault_map.shape[0]} rows and {n_pairs} pairs of columns are neither open nor shorted",
            fix="use a smaller network or another array",
        )
    cols = np.flatnonzero(~fault_map.cols_out)
    faulty = ~fault_map.healthy[:, cols]
    by_row = faulty.sum(axis=1)
    starts = (usable_rows, _fewest(by_row, usable_rows, n_rows), usable_rows[:n_rows])
    found = [_improved(faulty, usable_rows, start, n_rows, n_outputs) for start in starts]
    _, rows, plus = min(found, key=lambda choice: choice[0])  # the first of equals
    return Tile(rows=rows, plus_cols=cols[plus], minus_cols=cols[plus + 1])


def usable_lines(fault_map: FaultMap) -> tuple[Lines, int]:
    """Rows that are neither open nor shorted, and how many disjoint pairs of such columns there are."""
    return np.flatnonzero(~fault_map.rows_out), int((~fault_map.cols_out).sum()) // 2


def tile_faults(tile: Tile, fault_map: FaultMap) -> NDArray[np.uint8]:
    """Faults of the cells of a tile, shape (tile.n_rows, len(tile.cols)), columns in the order of `tile.cols`."""
    return fault_map.faults[np.ix_(tile.rows, tile.cols)]


def _improved(
    faulty: NDArray[np.bool_], usable: Lines, rows: Lines, n_rows: int, n_outputs: int
) -> tuple[int, Lines, Lines]:
    """Faulty cells, rows and plus columns of the best tile that choosing columns and rows in turn leads to.

    Columns are those of `faulty`, all of them usable.
    """
    best: tuple[int, Lines, Lines] | None = None
    while True:
        plus = _fewest_pairs(faulty[rows].sum(axis=0), n_outputs)
        by_row = faulty[:, plus].sum(axis=1) + faulty[:, plus + 1].sum(axis=1)
        rows = _fewest(by_row, usable, n_rows)
        n_faulty = int(by_row[rows].sum())
        if best is not None and n_faulty >= best[0]:
            return best
        best = n_faulty, rows, plus


def _fewest(cost: NDArray[np.int_], among: Lines, n: int) -> Lines:
    """The n lines of lowest cost among some, ascending."""
    return np.sort(among[np.argsort(cost[among], kind="stable")[:n]])


def _fewest_pairs(cost: NDArray[np.int_], n: int) -> Lines:
    """First columns of the n disjoint pairs of adjacent columns of lowest cost, ascending. Exact: dynamic programming.

    least[j, k] is the cost of the best k pairs among columns j, j + 1, ...
    """
    n_cols = len(cost)
    pair = cost[:-1] + cost[1:]
    least = np.full((n_cols + 1, n + 1), _NEVER, np.int64)
    least[:, 0] = 0
    for j in range(n_cols - 2, -1, -1):
        least[j, 1:] = np.minimum(least[j + 1, 1:], pair[j] + least[j + 2, :-1])
    chosen: list[int] = []
    j = 0
    while len(chosen) < n:
        left = n - len(chosen)
        if pair[j] + least[j + 2, left - 1] <= least[j + 1, left]:
            chosen.append(j)
            j += 2
        else:
            j += 1
    return np.array(chosen, np.intp)
