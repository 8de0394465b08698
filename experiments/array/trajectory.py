"""What a run has read so far, cell by cell and point by point, taken from its file.

Analyses read it back from there, so that a resumed run and one that went through are the same code and give the same
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench
from hil.array_records import DONE
from hil.runfile import open_run

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Readings with one purpose; point k of a cell is its k-th reading.

    Attributes:
        cells: flat indices of the cells, in row-major order, shape (n_cells,).
        current_a, conductance_s: shape (n_points, n_cells); NaN where a cell has fewer readings.
        t_array_s: when each was taken, by the clock of the array; the same shape.
    """

    cells: NDArray[np.intp]
    current_a: NDArray[np.float32]
    conductance_s: NDArray[np.float32]
    t_array_s: NDArray[np.float64]

    @classmethod
    def of(cls, bench: Bench, purpose: str, mask: Mask) -> Trajectory:
        """The readings of the cells of a mask."""
        rows = _readings(bench, [purpose])
        cells = np.flatnonzero(mask)
        place = np.full(mask.size, -1, np.intp)
        place[cells] = np.arange(len(cells))
        kept = place[rows["cell"]] >= 0
        cell, t_s = place[rows["cell"][kept]], rows["t_array_s"][kept]
        point = _rank(cell, len(cells))
        shape = (int(point.max(initial=-1)) + 1, len(cells))
        current_a, conductance_s = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        t_array_s = np.full(shape, np.nan)
        current_a[point, cell] = rows["current_a"][kept]
        conductance_s[point, cell] = rows["conductance_s"][kept]
        t_array_s[point, cell] = t_s
        return cls(cells, current_a, conductance_s, t_array_s)


def cell_places(cells: NDArray[np.intp], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Row and column of flat indices, shape (n, 2)."""
    return np.stack(np.divmod(cells, shape[1]), axis=1).astype(np.uint16)


def on_map(values: NDArray[Any], cells: NDArray[np.intp], shape: tuple[int, int], empty: Any = np.nan) -> NDArray[Any]:
    """Values of some cells as an array of the shape of the crossbar."""
    found = np.full(shape[0] * shape[1], empty, values.dtype)
    found[cells] = values
    return found.reshape(shape)


def counts(bench: Bench, *purposes: str) -> NDArray[np.int64]:
    """Readings with these purposes that each cell has, shape of the array."""
    n_cells = bench.shape[0] * bench.shape[1]
    return np.bincount(_readings(bench, purposes)["cell"], minlength=n_cells).reshape(bench.shape)


def _readings(bench: Bench, purposes: Any) -> dict[str, NDArray[Any]]:
    """Rows of `readings` with these purposes, with the flat index of the cell and the time; in the order of reading."""
    known = {op.op: op.t_array_s for op in bench.history.operations if op.purpose in purposes and op.status == DONE}
    if not known:
        empty = np.empty(0)
        return {"cell": empty.astype(np.intp), "current_a": empty, "conductance_s": empty, "t_array_s": empty}
    bench.flush()
    with open_run(bench.path) as reader:
        rows = reader.table("readings")
    ops = np.fromiter(known, np.int64, len(known))
    times = np.fromiter(known.values(), np.float64, len(known))
    at = np.minimum(np.searchsorted(ops, rows["op"]), len(ops) - 1)
    kept = ops[at] == rows["op"]
    return {
        "cell": rows["row"][kept].astype(np.intp) * bench.shape[1] + rows["col"][kept],
        "current_a": rows["current_a"][kept],
        "conductance_s": rows["conductance_s"][kept],
        "t_array_s": times[at[kept]],
    }


def _rank(cell: NDArray[np.intp], n_cells: int) -> NDArray[np.intp]:
    """How many earlier entries name the same cell."""
    order = np.argsort(cell, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=n_cells))[:-1]])
    rank = np.empty(len(cell), np.intp)
    rank[order] = np.arange(len(cell)) - first[cell[order]]
    return rank
