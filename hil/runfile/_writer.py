"""Write a run file: append rows, flush them at an interval, and say last how the run ended."""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hil.errors import ConfigError, RunFileError
from hil.runfile._disk import Disk, NoSpaceError, give_up, reason
from hil.runfile._layout import (
    CAUSE_BYTES,
    LIBVER,
    SESSIONS,
    SESSIONS_SPEC,
    SOFTWARE_BYTES,
    TIME_COLUMN,
    Header,
    TableSpec,
    build,
    checked_results,
    clip_utf8,
    h5,
    to_json,
    to_rows,
    write_result,
)
from hil.runfile._reader import RunReader, open_hdf5, open_run

_log = logging.getLogger(__name__)

DEFAULT_FLUSH_INTERVAL_S = 1.0

_BUFFER_BYTES = 8 * 1024 * 1024  # appended data beyond this is written at once
_SLACK_BYTES = 64 * 1024  # HDF5's own bookkeeping
_COLUMN_SLACK_BYTES = 4 * 1024
_COPY_BYTES = 8 * 1024 * 1024
_FULL_FIX = "free space on that disk, then continue this run with RunFile.resume"

_Block = dict[str, npt.NDArray[Any]]


@dataclass
class _Table:
    """An open table: rows that are safe in the file, and blocks that wait for the next flush."""

    spec: TableSpec
    datasets: dict[str, Any]
    # One tuple, replaced in one step: an interrupt between two steps cannot count a row twice or lose it.
    state: tuple[int, tuple[_Block, ...]] = (0, ())

    @property
    def pending_rows(self) -> int:
        return sum(len(block[TIME_COLUMN]) for block in self.state[1])

    def needed_bytes(self) -> int:
        """Upper limit of what storing the waiting blocks adds to the file."""
        rows, pending = self.state[0], self.pending_rows
        needed = 0
        for column in self.spec.all_columns if pending else ():
            chunks = -(-(rows + pending) // column.chunk_rows) - rows // column.chunk_rows
            needed += chunks * (column.chunk_rows * column.row_bytes + 64) + _COLUMN_SLACK_BYTES
        return needed

    def store(self, names: Sequence[str]) -> None:
        """Write the waiting blocks of these columns; doing it again after an interrupt gives the same."""
        rows, blocks = self.state
        for name in names if blocks else ():
            values = np.concatenate([block[name] for block in blocks])
            dataset = self.datasets[name]
            dataset.resize(rows + len(values), axis=0)
            # h5py knows UTF-8 text by metadata of the dtype, which concatenate drops
            dataset[rows:] = values.astype(dataset.dtype) if values.dtype.kind == "S" else values


class RunFile:
    """One run's file, open for writing; made by `RunFile.create` or `RunFile.resume`.

    As a context manager it ends the run: `complete` after the block, `failed` with the cause after an exception,
    `aborted` after KeyboardInterrupt or SystemExit. `append`, `flush` and `finish` may be called from several threads.
    """

    def __init__(self, path: Path, handle: Any, disk: Disk, tables: dict[str, _Table], flush_interval_s: float) -> None:
        """Not for callers: use `create` or `resume`."""
        self.path = path
        self.flush_interval_s = flush_interval_s
        self._handle = handle
        self._disk = disk
        self._tables = tables
        self._pending_bytes = 0
        self._failure: RunFileError | None = None
        self._closed = False
        self._broken = False  # HDF5 failed to write: its handle must be given up, not closed
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._flush_at_interval, name=f"flush {path.name}", daemon=True)
        self._flusher.start()
        atexit.register(self.close)

    @classmethod
    def create(
        cls,
        folder: Path,
        experiment: str,
        *,
        config: Mapping[str, Any],
        backend: Mapping[str, Any],
        calibration: str | None,
        seed: int,
        software: Mapping[str, Any],
        tables: Sequence[TableSpec],
        flush_interval_s: float = DEFAULT_FLUSH_INTERVAL_S,
    ) -> RunFile:
        """Start a run in a new file `<UTC time>-<experiment>-<short id>.h5`.

        Args:
            folder: created if missing.
            experiment: letters, digits, `.`, `_` and `-`; part of the file name.
            config: the run's whole configuration, as JSON can hold it.
            backend: identity of the backend (kind, board, firmware).
            calibration: reference of the calibration in use, None without one.
            seed: 0 to 2**64 - 1.
            software: names and versions.
            tables: tables that `append` fills; none can be added later.
            flush_interval_s: longest time that an appended row stays in memory only.

        Raises:
            ConfigError: folder not writable, name, seed, interval or JSON not possible.
            RunFileError: tables not possible, disk full.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", experiment):
            raise ConfigError(f"experiment name {experiment!r} cannot be part of a file name", fix="use letters and -")
        if not 0 <= seed < 2**64:
            raise ConfigError(f"seed {seed} is outside 0 to 2**64 - 1", fix="choose one inside")
        names = [SESSIONS, *(spec.name for spec in tables)]
        for name in names:
            if names.count(name) > 1:
                raise RunFileError(f"table {name!r} is reserved or there twice", fix="choose another name")
        _check_interval(flush_interval_s)
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        run_id = f"{stamp}-{experiment}-{uuid.uuid4().hex[:8]}"
        header = Header(
            run_id=run_id,
            experiment=experiment,
            config=to_json("config", config),
            backend=to_json("backend identity", backend),
            calibration=calibration or "",
            seed=seed,
            software=to_json("software versions", software),
            started_unix_s=now,
            tables=tuple(tables),
        )
        path = Path(folder) / f"{run_id}.h5"
        part = _part(path)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.touch(exist_ok=False)
        except OSError as error:
            raise ConfigError(
                f"run folder {folder} cannot be written: {reason(error)}",
                fix="choose another folder, or correct its owner, its permissions or the free space of its disk",
            ) from error
        return cls._start(path, header, software, "new", flush_interval_s, source=None)

    @classmethod
    def resume(
        cls,
        path: Path,
        *,
        software: Mapping[str, Any] | None = None,
        flush_interval_s: float = DEFAULT_FLUSH_INTERVAL_S,
    ) -> RunFile:
        """Continue a run that is incomplete, aborted or failed, in the same file.

        Whole rows are kept, torn rows, results and figures go, and table `sessions` gets a row. The file is rebuilt
        aside and then takes the old one's place, which needs the space of both for a moment.

        Args:
            path: the run file.
            software: versions of this session, None for those of the first.
            flush_interval_s: as in `create`.

        Raises:
            DataError: no such file, not a run file, damaged.
            RunFileError: the run is complete, another process writes it, disk full.
        """
        path = Path(path)
        _check_interval(flush_interval_s)
        with open_run(path) as found:
            if found.status == "complete":
                raise RunFileError(f"run {path} is complete", fix="start a new run")
        try:
            old = Disk(path)
        except OSError as error:
            raise RunFileError(
                f"run file {path} cannot be written: {reason(error)}", fix="correct its owner or permissions"
            ) from error
        try:
            with open_run(path) as source:  # again, now that nobody else can change it
                if source.status == "complete":
                    raise RunFileError(f"run {path} is complete", fix="start a new run")
                return cls._start(
                    path, source.header, software or source.software, source.status, flush_interval_s, source
                )
        finally:
            old.close()

    @classmethod
    def _start(
        cls,
        path: Path,
        header: Header,
        software: Mapping[str, Any],
        previous_status: str,
        flush_interval_s: float,
        source: RunReader | None,
    ) -> RunFile:
        """Build the file aside, switch SWMR on and only then give it its name: no one ever sees half a file."""
        part = _part(path)
        handle: Any = None
        disk: Disk | None = None
        try:
            handle = h5.File(part, "w", libver=LIBVER, locking=False)
            disk = Disk(part)
            texts = len(header.config) + len(header.backend) + len(header.software)
            columns = sum(len(spec.all_columns) for spec in header.tables)
            disk.reserve(_SLACK_BYTES + 4 * texts + _COLUMN_SLACK_BYTES * columns)
            build(handle, header)
            tables: dict[str, _Table] = {}
            for spec in (SESSIONS_SPEC, *header.tables):
                group = handle["tables"][spec.name]
                tables[spec.name] = _Table(spec, {column.name: group[column.name] for column in spec.all_columns})
            if source is not None:
                for table in tables.values():
                    _copy_rows(source, table, handle, disk)
            handle.flush()
            handle.swmr_mode = True
            text = clip_utf8(to_json("software versions", software), SOFTWARE_BYTES)
            row = {"software": text, "previous_status": previous_status}
            tables[SESSIONS].state = (tables[SESSIONS].state[0], (_block(SESSIONS_SPEC, row),))
            _store(handle, disk, list(tables.values()))
            os.replace(part, path)
            _sync_folder(path.parent)
        except BaseException as error:
            if handle is not None:
                give_up(handle)
            if disk is not None:
                disk.close()
            part.unlink(missing_ok=True)
            if isinstance(error, OSError | RuntimeError):
                raise RunFileError(
                    f"run file {path} cannot be written: {reason(error)}", fix="free space on that disk and try again"
                ) from error
            raise
        disk.path = path
        return cls(path, handle, disk, tables, flush_interval_s)

    def append(self, table: str, **columns: Any) -> None:
        """Append one row, or a block of n rows, to a table; the time is added here.

        It is a block when any column comes with a leading axis n; a column that comes with the shape of one row is
        then repeated for all n rows.

        Raises:
            RunFileError: unknown table or column, column missing, wrong dtype or shape, disk full, file closed.
        """
        with self._lock:
            self._check_open()
            found = self._tables.get(table) if table != SESSIONS else None
            if found is None:
                known = ", ".join(name for name in self._tables if name != SESSIONS)
                raise RunFileError(f"{self.path} has no table {table!r} to append to", fix=f"choose one of {known}")
            block = _block(found.spec, columns)
            rows, blocks = found.state
            found.state = (rows, (*blocks, block))
            self._pending_bytes += sum(values.nbytes for values in block.values())
            if self._pending_bytes > _BUFFER_BYTES or len(blocks) > 1000:
                self._write_pending()

    def flush(self, *, durable: bool = False) -> None:
        """Write everything appended so far; afterwards a kill of this process cannot lose it.

        Args:
            durable: wait for the disk itself; afterwards a power cut cannot lose it either.

        Raises:
            RunFileError: disk full, file closed.
        """
        with self._lock:
            self._check_open()
            self._write_pending()
            if durable:
                try:
                    self._disk.sync()
                except OSError as error:
                    raise self._fail(error) from error

    def row_count(self, table: str) -> int:
        """Rows of a table, with those that wait for the next flush."""
        with self._lock:
            if table not in self._tables:
                raise RunFileError(
                    f"{self.path} has no table {table!r}", fix=f"choose one of {', '.join(self._tables)}"
                )
            return self._tables[table].state[0] + self._tables[table].pending_rows

    def finish(
        self,
        status: Literal["complete", "failed", "aborted"] = "complete",
        results: Mapping[str, Any] | None = None,
        *,
        cause: str = "",
    ) -> None:
        """Store the results, then how the run ended, and close.

        Args:
            status: how it ended.
            results: by name: array, number, str, mapping (stored as JSON), or bytes of a PNG (stored as a figure).
            cause: why it did not end well; cut at 1024 bytes.

        Raises:
            RunFileError: a result cannot be stored (the run stays open), disk full (the run stays incomplete on disk).
        """
        checked = checked_results(results or {})
        if status not in ("complete", "failed", "aborted"):
            raise RunFileError(f"status {status!r} is not an end", fix="use complete, failed or aborted")
        try:
            with self._lock:
                self._check_open()
                try:
                    self._write_pending()
                    if checked:
                        self._finish_aside(status, cause, checked)
                    else:
                        self._finish_in_place(status, cause)
                except (OSError, RuntimeError) as error:
                    raise self._fail(error) from error
                except (KeyboardInterrupt, SystemExit):
                    self._close()  # rows that this interrupted flush was to write are still to be kept
                    raise
                finally:
                    self._release()
        finally:
            if self._closed:
                self._await_flusher()

    def _finish_in_place(self, status: str, cause: str) -> None:
        self._broken = True
        _write_end(self._handle, status, cause)
        self._disk.trim(self._handle.id.get_filesize())
        self._handle.close()
        self._broken = False
        self._disk.sync()

    def _finish_aside(self, status: str, cause: str, results: dict[str, tuple[Any, str]]) -> None:
        """Write all into a new file that takes this one's place when whole: objects cannot be added under SWMR, and
        without SWMR a kill could leave the only copy of the data unreadable."""
        size_bytes = self._handle.id.get_filesize()
        self._disk.trim(size_bytes)
        self._handle.close()
        part = _part(self.path)
        source: Any = open_hdf5(self.path)
        handle: Any = None
        disk: Disk | None = None
        try:
            handle = h5.File(part, "w", libver=LIBVER, locking=False)
            disk = Disk(part)
            needed = sum(4 * len(value) if isinstance(value, str) else value.nbytes for value, _ in results.values())
            needed += _SLACK_BYTES + _COLUMN_SLACK_BYTES * len(results)
            disk.reserve(size_bytes + needed)
            handle.attrs.update(source.attrs)
            for name in ("run", "tables", "results", "figures"):
                source.copy(name, handle)
            for name, (value, media_type) in results.items():
                write_result(handle, name, value, media_type)
            handle.flush()
            _write_end(handle, status, cause)
            disk.trim(handle.id.get_filesize())
            handle.close()
            disk.sync()
            os.replace(part, self.path)
            _sync_folder(self.path.parent)
        except BaseException:
            if handle is not None:
                give_up(handle)
            part.unlink(missing_ok=True)
            raise
        finally:
            source.close()
            if disk is not None:
                disk.close()

    def close(self) -> None:
        """Write what was appended and close without an end: the file reads as incomplete and can be resumed.

        Does nothing when the run has ended. Never raises; a failure is logged.
        """
        with self._lock:
            self._close()
        self._await_flusher()

    def _close(self) -> None:
        if self._closed:
            return
        try:
            if self._handle.id.valid:
                self._broken = False
                self._write_pending()
        except RunFileError as error:
            _log.error("closing %s: %s", self.path, error)
        finally:
            self._release()

    def _await_flusher(self) -> None:
        """Call without the lock. A thread that drops the last reference to HDF5 objects while Python shuts down dies
        with the lock of h5py in its hand, and the process hangs."""
        if threading.current_thread() is not self._flusher:
            self._flusher.join()

    def __enter__(self) -> RunFile:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closed:
            return
        if exc is None:
            self.finish("complete")
            return
        status = "aborted" if isinstance(exc, KeyboardInterrupt | SystemExit) else "failed"
        try:
            self.finish(status, cause=f"{type(exc).__name__}: {exc}")
        except Exception as error:  # it must not hide the exception that ended the run
            _log.error("ending %s after %s: %s", self.path, type(exc).__name__, error)

    def _check_open(self) -> None:
        if self._failure is not None:
            raise RunFileError(self._failure.what, fix=self._failure.fix)
        if self._closed:
            raise RunFileError(f"run file {self.path} is closed", fix="append before finish, or use RunFile.resume")

    def _write_pending(self) -> None:
        try:
            _store(self._handle, self._disk, [table for table in self._tables.values() if table.state[1]])
        except NoSpaceError as error:
            raise self._fail(error) from error
        except (OSError, RuntimeError) as error:
            self._broken = True
            raise self._fail(error) from error
        self._pending_bytes = 0

    def _fail(self, error: Exception) -> RunFileError:
        """Note the failure for all later calls, give the file up as it is on disk and return what to raise."""
        if self._failure is None:
            own = [table for table in self._tables.values() if table.spec.name != SESSIONS]
            safe = ", ".join(f"{table.spec.name}: {table.state[0]}" for table in own)
            lost = sum(table.pending_rows for table in own)
            self._failure = RunFileError(
                f"run file {self.path} cannot be written: {reason(error)}; "
                f"{sum(table.state[0] for table in own)} rows are safe ({safe}), {lost} not yet written are lost",
                fix=_FULL_FIX,
            )
        self._release()
        return self._failure

    def _release(self) -> None:
        """Let go of handle, lock and thread, whatever state they are in."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        atexit.unregister(self.close)
        try:
            if self._handle.id.valid and not self._broken:
                self._disk.trim(self._handle.id.get_filesize())
                self._handle.close()
        except (OSError, RuntimeError) as error:
            _log.warning("closing %s: %s", self.path, error)
        give_up(self._handle)  # does nothing when it is closed
        self._disk.close()

    def _flush_at_interval(self) -> None:
        while not self._stop.wait(self.flush_interval_s):
            with self._lock:
                if self._closed:
                    return
                try:
                    self._write_pending()
                except RunFileError as error:  # raised again by the next call of the run itself
                    _log.error("%s", error)


def _check_interval(flush_interval_s: float) -> None:
    if not 0.01 <= flush_interval_s <= 3600:
        raise ConfigError(f"flush interval {flush_interval_s} s is outside 0.01 s to 3600 s", fix="choose one inside")


def _part(path: Path) -> Path:
    """Where a file is built before it takes its name."""
    return path.with_name(path.name + ".part")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable where the system can."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _block(spec: TableSpec, given: Mapping[str, Any]) -> _Block:
    """Check one row or block and give it a time. Raises RunFileError naming what is wrong."""
    for name in given:
        if spec.column(name) is None:
            known = ", ".join(column.name for column in spec.columns)
            raise RunFileError(f"table {spec.name!r} has no column {name!r}", fix=f"choose from {known}")
    missing = [column.name for column in spec.columns if column.name not in given]
    if missing:
        raise RunFileError(f"table {spec.name!r} got no value for {', '.join(missing)}", fix="give every column")
    rows = {column.name: to_rows(spec.name, column, given[column.name]) for column in spec.columns}
    lengths = {name: len(values) for name, (values, is_block) in rows.items() if is_block}
    if len(set(lengths.values())) > 1:
        raise RunFileError(f"block for table {spec.name!r} has different lengths: {lengths}", fix="give equal lengths")
    n = next(iter(lengths.values()), 1)
    block = {TIME_COLUMN: np.full(n, time.time())}
    for name, (values, is_block) in rows.items():
        block[name] = values if is_block else np.repeat(values[np.newaxis], n, axis=0)
    return block


def _store(handle: Any, disk: Disk, tables: Sequence[_Table]) -> None:
    """Write waiting blocks: space first, then all columns, and the time last, which makes a row count as whole."""
    if not tables:
        return
    needed = _SLACK_BYTES + sum(table.needed_bytes() for table in tables)
    disk.reserve(handle.id.get_filesize() + needed)
    for table in tables:
        table.store([column.name for column in table.spec.columns])
    handle.flush()
    for table in tables:
        table.store([TIME_COLUMN])
    handle.flush()
    for table in tables:
        table.state = (table.state[0] + table.pending_rows, ())


def _copy_rows(source: RunReader, table: _Table, handle: Any, disk: Disk) -> None:
    spec = table.spec
    total = source.row_count(spec.name)
    step = max(1, _COPY_BYTES // sum(column.row_bytes for column in spec.all_columns))
    for start in range(0, total, step):
        rows = source.table(spec.name, start, min(start + step, total))
        block = {column.name: to_rows(spec.name, column, rows[column.name])[0] for column in spec.all_columns}
        table.state = (start, (block,))
        _store(handle, disk, [table])


def _write_end(handle: Any, status: str, cause: str) -> None:
    """Write end and cause, and the status last: a kill in between leaves the run incomplete."""
    run = handle["run"]
    run["ended_unix_s"][()] = time.time()
    run["cause"][()] = clip_utf8(cause, CAUSE_BYTES).encode()
    handle.flush()
    run["status"][()] = status.encode()
    handle.flush()
