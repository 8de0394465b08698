"""Tables of an array run, and one row of each as values.

An operation stands in the file before it is applied and its outcome after it, so that whatever kills the process, the
file says which cells may have had a pulse that nobody confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.array_records import unpacked
from hil.errors import DataError
from hil.runfile import Column, RunReader, TableSpec

#: longest text of an error that is kept
TEXT_BYTES = 200

FAILED = "failed"


def tables(shape: tuple[int, int]) -> list[TableSpec]:
    """Tables of the run file of an array of that shape."""
    n_cols = shape[1]
    op = Column("op", "u4", "1")
    amplitudes = [Column("voltage_v", "f8", "V"), Column("v_gate_v", "f8", "V"), Column("width_s", "f8", "s")]
    row, col = Column("row", "u2", "1"), Column("col", "u2", "1")
    operations = [
        op,
        Column("verb", "S8", ""),
        Column("purpose", "S24", ""),
        Column("kind", "S8", ""),
        Column("n_cells", "u4", "1"),
        *amplitudes,
        Column("n_average", "u4", "1"),
    ]
    outcomes = [
        op,
        Column("status", "S8", ""),
        *amplitudes,
        Column("t_array_s", "f8", "s"),
        Column("duration_s", "f8", "s"),
        Column("text", f"S{TEXT_BYTES}", ""),
    ]
    readings = [op, row, col, Column("current_a", "f4", "A"), Column("conductance_s", "f4", "S")]
    cells = Column("cols", "u1", "1", ((n_cols + 7) // 8,))
    request = [row, cells, Column("target_s", "f4", "S", (n_cols,))]
    return [
        TableSpec("operations", operations, "what was asked for, written before it is applied; NaN: does not apply"),
        TableSpec("masks", [op, row, cells], "cells of a pulse, one row per array row, bit k of byte j is column 8j+k"),
        TableSpec("outcomes", outcomes, "how it ended and what was achieved; a pulse without one is uncertain"),
        TableSpec("readings", readings, "cells read; conductance NaN: a reading that only corrects another one"),
        TableSpec("request", request, "cells of the run, packed as in masks, and what each is to become; NaN: nothing"),
    ]


@dataclass(frozen=True)
class Operation:
    """One primitive: a row of `operations`, with the outcome once there is one.

    Attributes:
        op: its number in the run.
        verb: pulse, read or wait.
        purpose: what the procedure wanted with it.
        kind: of a pulse: form, set or reset.
        n_cells: cells of its mask.
        voltage_v, v_gate_v, width_s: as requested; of a wait, `width_s` is its duration; NaN does not apply.
        n_average: conversions per cell, 0 where it does not apply.
        status: "done", "failed", or "" while it is unknown.
        t_array_s: clock of the cells right after it.
        duration_s: how long the call took.
    """

    op: int
    verb: str
    purpose: str
    kind: str = ""
    n_cells: int = 0
    voltage_v: float = float("nan")
    v_gate_v: float = float("nan")
    width_s: float = float("nan")
    n_average: int = 0
    status: str = ""
    t_array_s: float = float("nan")
    duration_s: float = float("nan")

    def columns(self) -> dict[str, Any]:
        """As a row of `operations`."""
        names = ("op", "verb", "purpose", "kind", "n_cells", "voltage_v", "v_gate_v", "width_s", "n_average")
        return {name: getattr(self, name) for name in names}


def pack_mask(mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Array rows that have a cell in the mask, and the packed columns of each."""
    rows = np.flatnonzero(mask.any(axis=1))
    return rows.astype(np.uint16), np.packbits(mask[rows], axis=1, bitorder="little")


def unpack_cells(rows: NDArray[np.uint16], cols: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.intp]:
    """Flat indices of the cells of a packed mask, ascending."""
    k, col = np.nonzero(unpacked(cols)[:, : shape[1]])
    return rows[k].astype(np.intp) * shape[1] + col


@dataclass(frozen=True, eq=False)
class Request:
    """Cells that a run is about; kept with it, so that a resumed run needs no file of the user's.

    Attributes:
        mask: cells, shape of the array.
        target_s: conductance that each is to have, NaN where it does not matter; shape of the array.
    """

    mask: NDArray[np.bool_]
    target_s: NDArray[np.float32]

    def columns(self) -> dict[str, Any]:
        """As rows of `request`: all rows of the array."""
        packed = np.packbits(self.mask, axis=1, bitorder="little")
        return {"row": np.arange(len(packed), dtype=np.uint16), "cols": packed, "target_s": self.target_s}

    @classmethod
    def from_run(cls, reader: RunReader, shape: tuple[int, int]) -> Request:
        """Of a run file.

        Raises:
            DataError: the run was cut off before it began.
        """
        rows = reader.table("request")
        if len(rows["row"]) != shape[0]:
            raise DataError(f"run {reader.path} was cut off before it began", fix="start a new run")
        mask = unpacked(rows["cols"])[:, : shape[1]].astype(np.bool_)
        return cls(mask, rows["target_s"])


@dataclass(frozen=True)
class Recorded:
    """One operation as a run file tells it.

    Attributes:
        operation: with its outcome.
        pulsed: flat indices of the cells of a pulse.
        read: flat indices of the cells read.
        conductance_s: of these.
    """

    operation: Operation
    pulsed: NDArray[np.intp]
    read: NDArray[np.intp]
    conductance_s: NDArray[np.float32]


def recorded(reader: RunReader, shape: tuple[int, int]) -> Iterator[Recorded]:
    """Operations of a run in order.

    A pulse whose mask is not wholly in the file is left out: a pulse waits until its mask is, so it was never applied.
    """
    operations, masks = reader.table("operations"), reader.table("masks")
    outcomes, readings = reader.table("outcomes"), reader.table("readings")
    ended = {int(op): k for k, op in enumerate(outcomes["op"])}
    flat = readings["row"].astype(np.intp) * shape[1] + readings["col"]
    numbers = operations["op"]
    pulsed_rows = _ranges(masks["op"], numbers)
    read_rows = _ranges(readings["op"], numbers)
    for k, op in enumerate(numbers.tolist()):
        columns = {name: values[k].item() for name, values in operations.items() if name != "t_unix_s"}
        operation = Operation(**columns)
        here = slice(*pulsed_rows[k])
        pulsed = unpack_cells(masks["row"][here], masks["cols"][here], shape)
        if operation.verb == "pulse" and len(pulsed) != operation.n_cells:
            continue
        if op in ended:
            at = ended[op]
            operation = replace(
                operation,
                status=str(outcomes["status"][at]),
                t_array_s=float(outcomes["t_array_s"][at]),
                duration_s=float(outcomes["duration_s"][at]),
            )
        here = slice(*read_rows[k])
        yield Recorded(operation, pulsed, flat[here], readings["conductance_s"][here])


def next_op(reader: RunReader) -> int:
    """Number of the next operation: above every one that the file knows in any table; all ascend."""
    newest = [reader.table(name)["op"][-1:].tolist() for name in ("operations", "masks", "outcomes", "readings")]
    return 1 + max((op for found in newest for op in found), default=-1)


def _ranges(column: NDArray[Any], numbers: NDArray[Any]) -> NDArray[np.intp]:
    """First and last row + 1 of each number in an ascending column."""
    return np.stack([np.searchsorted(column, numbers, side="left"), np.searchsorted(column, numbers, side="right")], 1)
