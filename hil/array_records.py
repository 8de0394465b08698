"""Records of a run on an array, as its run file tells them: what each cell conducted last and which pulses it had.

Experiments write these tables; here they are only read, so that lists, comparisons and checks need no experiment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError
from hil.runfile import RunReader

#: tables that every run on an array has
TABLES = ("operations", "masks", "outcomes", "readings")
DONE = "done"

_BLOCK_ROWS = 65_536
#: no array has more; numbers in a damaged file may
_MOST_CELLS = 1 << 26


def is_array_run(run: RunReader) -> bool:
    """Whether the file has the tables of a run on an array."""
    return set(TABLES) <= set(run.tables)


def array_shape(run: RunReader) -> tuple[int, int]:
    """(rows, cols) of the array; of a run without results, the part of it that the records reach.

    Raises:
        DataError: damaged file.
    """
    results = run.results
    for name in ("conductance_s", "mask_in", "faults"):
        found = results.get(name)
        if isinstance(found, np.ndarray) and found.ndim == 2:
            return found.shape[0], found.shape[1]
    masks, readings = run.table("masks"), run.table("readings")
    bits = np.flatnonzero(unpacked(masks["cols"]).any(axis=0))
    rows, cols = _reach(masks["row"], readings["row"]), _reach(bits, readings["col"])
    if rows * cols > _MOST_CELLS:
        raise DataError(
            f"{run.path} speaks of an array of {rows} x {cols} cells", fix="hil runs check says what is wrong"
        )
    return rows, cols


def _reach(*lines: NDArray[Any]) -> int:
    """Number of lines up to the last one named; 0 without any."""
    return max((int(found.max()) + 1 for found in lines if found.size), default=0)


def unpacked(cols: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Packed columns of `masks` as 0 and 1, one per column of the array (and up to seven more)."""
    return np.unpackbits(cols, axis=1, bitorder="little")


def last_conductance_s(run: RunReader, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Newest reading of each cell, NaN where there is none; a reading that is NaN says nothing."""
    last = np.full(shape, np.nan)
    for rows in blocks(run, "readings"):
        read = ~np.isnan(rows["conductance_s"])
        # Of a cell that is there twice, the last assignment stays.
        last[rows["row"][read], rows["col"][read]] = rows["conductance_s"][read]
    return last


def pulse_count(run: RunReader, shape: tuple[int, int], ops: NDArray[Any]) -> NDArray[np.int64]:
    """Pulses of each cell over the operations `ops`."""
    count = np.zeros(shape, np.int64)
    for rows in blocks(run, "masks"):
        here = np.isin(rows["op"], ops)
        np.add.at(count, rows["row"][here], unpacked(rows["cols"][here])[:, : shape[1]])
    return count


def blocks(run: RunReader, table: str) -> Any:
    """All rows of a table, a block at a time."""
    for start in range(0, run.row_count(table), _BLOCK_ROWS):
        yield run.table(table, start, start + _BLOCK_ROWS)
