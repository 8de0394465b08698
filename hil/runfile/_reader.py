"""Read a run file: finished, growing, or left behind by a killed process."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from hil.errors import DataError
from hil.runfile._layout import (
    FORMAT_NAME,
    FORMAT_VERSION,
    RUNNING,
    SESSIONS,
    TIME_COLUMN,
    Column,
    Header,
    Status,
    TableSpec,
    char,
    h5,
    read_text,
)

_STATUS_OFFSET = 11  # of the "open for writing" flags in superblock version 3
_FOREIGN_FIX = "name a run file (.h5) written by this program, or take it from a backup"


@contextmanager
def _reading(path: Path) -> Generator[None, None, None]:
    """Turn what HDF5 raises on damaged or foreign content into DataError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"run file {path} is damaged or of another kind: {error}", fix=_FOREIGN_FIX) from error


def open_hdf5(path: Path) -> Any:
    """HDF5 file for reading in the mode its state asks for. Raises DataError when there is none."""
    if not path.is_file():
        raise DataError(f"there is no run file {path}", fix="check the path")
    # Locks are off: a reader must open the file of a live writer. Two writers are kept apart by the writer's flock.
    try:
        return h5.File(path, "r", locking=False)
    except (OSError, RuntimeError) as error:
        plain_error = error
    # A file that is being written, or whose writer was killed, opens in SWMR mode only. One that says it was closed
    # and still does not open is truncated; SWMR mode would read zeros for what is missing.
    try:
        with path.open("rb") as raw:
            flags = raw.read(_STATUS_OFFSET + 1)[_STATUS_OFFSET:]
        if flags not in (b"", b"\0"):
            return h5.File(path, "r", swmr=True, libver="latest", locking=False)
    except (OSError, RuntimeError) as error:
        plain_error = error
    raise DataError(f"{path} is not an HDF5 file or is truncated: {plain_error}", fix=_FOREIGN_FIX)


class RunReader:
    """A run file opened for reading; made by `open_run`. Use as a context manager or call `close`.

    Tables may grow between two calls while the run goes on. Status and results are those of the moment of opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file: Any = open_hdf5(self.path)
        try:
            header, status, cause, ended_unix_s = self._read_header()
        except BaseException:
            self._file.close()
            raise
        self.header = header
        self.status: Status = status  #: `incomplete` when the run is still going on or was killed
        self.cause = cause  #: why it did not end well, "" otherwise
        self.ended_unix_s = ended_unix_s  #: end in seconds since 1970, None when incomplete

    def _read_header(self) -> tuple[Header, Status, str, float | None]:
        with _reading(self.path):
            found = self._file.attrs.get("format")
            if found != FORMAT_NAME:
                raise DataError(f"{self.path} is an HDF5 file but not a run file", fix=_FOREIGN_FIX)
            version = int(self._file.attrs["format_version"])
            if version > FORMAT_VERSION:
                raise DataError(
                    f"{self.path} was written by a newer version of this program: format {version}, "
                    f"this one reads up to {FORMAT_VERSION}",
                    fix="update crossbar-hil",
                )
            run = self._file["run"]
            text = {
                name: read_text(run[name])
                for name in ("id", "experiment", "config", "backend", "calibration", "software", "status", "cause")
            }
            header = Header(
                run_id=text["id"],
                experiment=text["experiment"],
                config=text["config"],
                backend=text["backend"],
                calibration=text["calibration"],
                seed=int(run["seed"][()]),
                software=text["software"],
                started_unix_s=float(run["started_unix_s"][()]),
                tables=tuple(self._read_spec(name) for name in self._file["tables"] if name != SESSIONS),
            )
            status = "incomplete" if text["status"] == RUNNING else text["status"]
            if status not in ("complete", "failed", "aborted", "incomplete"):
                raise ValueError(f"status {status!r}")
            ended = float(run["ended_unix_s"][()])
            # without an end the end's cause may be half written
            ended_unix_s = None if status == "incomplete" or np.isnan(ended) else ended
            return header, status, "" if status == "incomplete" else text["cause"], ended_unix_s

    def _read_spec(self, name: str) -> TableSpec:
        group = self._file["tables"][name]
        columns: list[Column] = []
        for column in json.loads(group.attrs["columns"]):
            dataset = group[column]
            columns.append(Column(column, np.dtype(dataset.dtype.str), dataset.attrs["unit"], dataset.shape[1:]))
        return TableSpec(name, tuple(columns), group.attrs["description"])

    @property
    def run_id(self) -> str:
        """Name of the run: the file's name at creation without `.h5`."""
        return self.header.run_id

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return self.header.experiment

    @property
    def config(self) -> dict[str, Any]:
        """Configuration of the run."""
        return cast("dict[str, Any]", json.loads(self.header.config))

    @property
    def backend(self) -> dict[str, Any]:
        """Identity of the backend."""
        return cast("dict[str, Any]", json.loads(self.header.backend))

    @property
    def software(self) -> dict[str, Any]:
        """Software versions of the first session; table `sessions` has those of each."""
        return cast("dict[str, Any]", json.loads(self.header.software))

    @property
    def calibration(self) -> str | None:
        """Reference of the calibration, None when the run used none."""
        return self.header.calibration or None

    @property
    def seed(self) -> int:
        """Seed of the run's random generator."""
        return self.header.seed

    @property
    def started_unix_s(self) -> float:
        """Start of the run in seconds since 1970."""
        return self.header.started_unix_s

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables, `sessions` first."""
        return (SESSIONS, *(spec.name for spec in self.header.tables))

    def table_spec(self, name: str) -> TableSpec:
        """Columns with dtype, unit and shape. Raises DataError for an unknown table."""
        self._check_table(name)
        with _reading(self.path):
            return self._read_spec(name)

    def row_count(self, name: str) -> int:
        """Number of whole rows. Raises DataError for an unknown table."""
        with _reading(self.path):
            return self._whole_rows(self._refreshed(name))

    def table(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """All whole rows of a table, or rows `start` to `stop`.

        Returns:
            `t_unix_s` and each column, shape (n, *column shape), unit as in `table_spec`; text as str.

        Raises:
            DataError: unknown table, damaged file.
        """
        with _reading(self.path):
            datasets = self._refreshed(name)
            rows = range(self._whole_rows(datasets))[start:stop]
            read: dict[str, npt.NDArray[Any]] = {}
            for column, dataset in datasets.items():
                values: npt.NDArray[Any] = dataset[rows.start : rows.stop]
                read[column] = char.decode(values, "utf-8") if values.dtype.kind == "S" else values
            return read

    def _check_table(self, name: str) -> None:
        if name not in self.tables:
            raise DataError(f"{self.path} has no table {name!r}", fix=f"choose one of {', '.join(self.tables)}")

    def _refreshed(self, name: str) -> dict[str, Any]:
        self._check_table(name)
        group = self._file["tables"][name]
        names = [TIME_COLUMN, *json.loads(group.attrs["columns"])]
        datasets = {column: group[column] for column in names}
        for dataset in datasets.values():  # time first: the writer stores it last
            dataset.id.refresh()
        return datasets

    @staticmethod
    def _whole_rows(datasets: dict[str, Any]) -> int:
        """Rows present in every column and with a time; a writer that dies half-way leaves the time missing."""
        count = min(int(dataset.shape[0]) for dataset in datasets.values())
        step = 4096
        while count > 0:  # from the end: only the last rows can lack the time
            first = max(0, count - step)
            present = np.flatnonzero(~np.isnan(datasets[TIME_COLUMN][first:count]))
            if present.size:
                return first + int(present[-1]) + 1
            count = first
        return 0

    @property
    def results(self) -> dict[str, Any]:
        """Results by name: array, NumPy scalar, str, or dict (stored as JSON)."""
        with _reading(self.path):
            return {name: self._result(dataset) for name, dataset in self._file["results"].items()}

    @staticmethod
    def _result(dataset: Any) -> Any:
        media_type = dataset.attrs.get("media_type", "")
        if media_type:
            text = read_text(dataset)
            return json.loads(text) if media_type == "application/json" else text
        value = dataset[()]
        return char.decode(value, "utf-8") if value.dtype.kind == "S" else value

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures."""
        with _reading(self.path):
            return tuple(self._file["figures"])

    def figure(self, name: str) -> bytes:
        """A figure's file content (PNG). Raises DataError for an unknown figure."""
        if name not in self.figures:
            raise DataError(f"{self.path} has no figure {name!r}", fix=f"choose one of {', '.join(self.figures)}")
        with _reading(self.path):
            return self._file["figures"][name][()].tobytes()

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> RunReader:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_run(path: Path) -> RunReader:
    """Open a run file for reading, also while it is written and after its writer was killed.

    Raises:
        DataError: no such file, not a run file, truncated, or written by a newer version.
    """
    return RunReader(path)
