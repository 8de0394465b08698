"""Fault map: what is wrong with which cell of an array.

Forming, programming and the health check make it; programming, the mapping of a network onto the array and reports use
it. It is a value: nothing changes a map, each step makes a new one. A cell that nobody looked at counts as healthy.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.aside import written_aside
from hil.errors import ConfigError, DataError
from hil.runfile import open_run

FORMAT_NAME = "crossbar-hil fault map"
FORMAT_VERSION = 1
#: result of a run file that holds its fault map
RESULT = "faults"

_HDF5_SIGNATURE, _ZIP_SIGNATURE = b"\x89HDF", b"PK"
_FIX = "name a fault map (.npz) or a run file (.h5) of hil array form, program or health"
# All that reading a damaged archive may raise: from the archive, from its compression, from the header of an array.
_DAMAGED = (
    ValueError, TypeError, KeyError, OSError, EOFError, MemoryError, OverflowError, RuntimeError, SyntaxError,
    tokenize.TokenError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


class Fault(IntFlag):
    """What can be wrong with a cell; several at a time. A line's fault is stated at each of its cells."""

    UNFORMED = 1  #: never formed: conducts next to nothing
    STUCK_ON = 2  #: conducts and does not RESET
    STUCK_OFF = 4  #: was formed, does not conduct and does not SET
    NOISY = 8  #: its current varies more than that of other cells
    ROW_OPEN = 16  #: its row (bit line) is not connected
    COL_OPEN = 32  #: its column (source line) is not connected
    ROW_SHORT = 64  #: its row is shorted
    COL_SHORT = 128  #: its column is shorted


#: faults of a whole row, and of a whole column
ROW_FAULTS = Fault.ROW_OPEN | Fault.ROW_SHORT
COL_FAULTS = Fault.COL_OPEN | Fault.COL_SHORT


@dataclass(frozen=True, eq=False)
class FaultMap:
    """Faults of every cell.

    Attributes:
        faults: bits of `Fault`, 0 = healthy; uint8, shape (rows, cols), read-only.
    """

    faults: NDArray[np.uint8]

    def __post_init__(self) -> None:
        faults = np.array(self.faults)
        if faults.dtype != np.uint8 or faults.ndim != 2 or not faults.size:
            raise DataError(
                f"a fault map is {faults.dtype}{faults.shape}", fix="give uint8 of shape (rows, cols), bits of Fault"
            )
        faults.setflags(write=False)
        object.__setattr__(self, "faults", faults)

    @classmethod
    def healthy_array(cls, shape: tuple[int, int]) -> FaultMap:
        """The map of an array without a fault."""
        return cls(np.zeros(shape, np.uint8))

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols) of the array."""
        rows, cols = self.faults.shape
        return rows, cols

    @property
    def healthy(self) -> NDArray[np.bool_]:
        """Cells without a fault, shape of the array."""
        return np.asarray(self.faults == 0, np.bool_)

    @property
    def n_faulty(self) -> int:
        """Cells with at least one fault."""
        return int(np.count_nonzero(self.faults))

    @property
    def rows_out(self) -> NDArray[np.bool_]:
        """Rows that are open or shorted, at least in part; shape (rows,)."""
        return np.asarray(self.having(ROW_FAULTS).any(axis=1))

    @property
    def cols_out(self) -> NDArray[np.bool_]:
        """Columns that are open or shorted, at least in part; shape (cols,)."""
        return np.asarray(self.having(COL_FAULTS).any(axis=0))

    def having(self, fault: Fault) -> NDArray[np.bool_]:
        """Cells with at least one of the faults, shape of the array."""
        return np.asarray(self.faults & np.uint8(fault), np.bool_)

    def count(self) -> dict[str, int]:
        """Cells with each fault, by its name in lower case; a cell with two faults counts in both."""
        return {_name(fault): int(np.count_nonzero(self.having(fault))) for fault in Fault}

    def lines(self) -> dict[str, list[int]]:
        """Rows and columns with each fault of a line, by its name in lower case."""
        axes = {Fault.ROW_OPEN: 1, Fault.ROW_SHORT: 1, Fault.COL_OPEN: 0, Fault.COL_SHORT: 0}
        return {
            _name(fault): [int(line) for line in np.flatnonzero(self.having(fault).any(axis=axis))]
            for fault, axis in axes.items()
        }

    def faults_text(self, cell: tuple[int, int]) -> str:
        """What is wrong with the cell (row, col), in words."""
        found = int(self.faults[cell])
        return ", ".join(_name(fault).replace("_", " ") for fault in Fault if found & fault) or "healthy"

    def with_faults(self, mask: NDArray[np.bool_], fault: Fault) -> FaultMap:
        """The map with a fault added to the cells of a mask, shape of the array."""
        if mask.dtype != np.bool_ or mask.shape != self.shape:
            raise DataError(
                f"a mask of faulty cells is {mask.dtype}{mask.shape}, the array is {_by(self.shape)}",
                fix="give a bool array of the array's shape",
            )
        return FaultMap(self.faults | (mask * np.uint8(fault)))

    def __or__(self, other: FaultMap) -> FaultMap:
        """The faults of both maps."""
        other.check_shape(self.shape)
        return FaultMap(self.faults | other.faults)

    def since(self, earlier: FaultMap) -> FaultChange:
        """What changed since an earlier map of the same array."""
        earlier.check_shape(self.shape)
        return FaultChange(gained=FaultMap(self.faults & ~earlier.faults), lost=FaultMap(earlier.faults & ~self.faults))

    def check_shape(self, shape: tuple[int, int], name: str = "the fault map") -> None:
        """Raise `ConfigError` unless this is the map of an array of `shape` (rows, cols); `name` says which map."""
        if self.shape != tuple(shape):
            raise ConfigError(
                f"{name} is of an array of {_by(self.shape)} cells, this one has {_by(shape)}",
                fix="give the map of this array",
            )

    @classmethod
    def load(cls, path: Path) -> FaultMap:
        """Read a map from its own file, or from a run file with a result `faults`.

        Raises:
            DataError: no such file, damaged, of another kind, or of a newer version of this program.
        """
        path = Path(path)
        try:
            with path.open("rb") as stream:
                signature = stream.read(len(_HDF5_SIGNATURE))
        except OSError as error:
            raise DataError(f"fault map {path} cannot be read: {error.strerror}", fix="check the path") from None
        if signature == _HDF5_SIGNATURE:
            return _from_run(path)
        if signature.startswith(_ZIP_SIGNATURE):
            return _from_npz(path)
        raise DataError(f"{path} is not a fault map", fix=_FIX)

    def save(self, path: Path) -> None:
        """Write the map to a file of its own, which appears whole or not at all.

        Raises:
            ConfigError: the name does not end in .npz.
            DataError: it cannot be written.
        """
        path = Path(path)
        if path.suffix != ".npz":
            raise ConfigError(f"a fault map cannot be saved as {path}", fix="use a name that ends in .npz")
        try:
            with written_aside(path, durable=True) as aside, aside.open("wb") as stream:
                np.savez_compressed(
                    stream, format=np.array(FORMAT_NAME), format_version=np.array(FORMAT_VERSION), faults=self.faults
                )
        except OSError as error:
            raise DataError(
                f"fault map {path} cannot be written: {error.strerror}", fix="make room, or choose another folder"
            ) from None


@dataclass(frozen=True, eq=False)
class FaultChange:
    """How two maps of an array differ.

    Attributes:
        gained: faults that the later map has and the earlier one had not.
        lost: faults that the earlier map had and the later one has not.
    """

    gained: FaultMap
    lost: FaultMap


def _from_run(path: Path) -> FaultMap:
    with open_run(path) as run:
        results = run.results
        if RESULT not in results:
            raise DataError(f"run file {path} of {run.experiment} ({run.status}) holds no fault map", fix=_FIX)
    return _checked(results[RESULT], path)


def _from_npz(path: Path) -> FaultMap:
    try:
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            found = str(archive["format"]) if "format" in archive else ""
            version = int(archive["format_version"]) if found == FORMAT_NAME else 0
            faults: Any = archive["faults"] if version == FORMAT_VERSION else None
    except _DAMAGED as error:
        raise DataError(f"fault map {path} is damaged: {type(error).__name__}", fix=_FIX) from error
    if found != FORMAT_NAME:
        raise DataError(f"{path} is an archive of arrays but not a fault map", fix=_FIX)
    if version != FORMAT_VERSION:
        raise DataError(
            f"fault map {path} has format {version}, this version of the program reads {FORMAT_VERSION}",
            fix="update crossbar-hil",
        )
    return _checked(faults, path)


def _checked(faults: Any, path: Path) -> FaultMap:
    try:
        return FaultMap(np.asarray(faults))
    except DataError as error:
        raise DataError(f"{path}: {error.what}", fix=_FIX) from None


def _name(fault: Fault) -> str:
    return str(fault.name).lower()


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
