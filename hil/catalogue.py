"""Catalogue of the runs in a folder: what there is, in which state, and which one is meant.

The index `catalogue.sqlite` beside the run files holds nothing that they do not say: a file whose size or time of
change is not the one in the index is read again, and one that is gone drops out. So it may be deleted at any time,
and where it cannot be written the list is made all the same, only slower. Tags live in `hil.run_tags`.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hil.array_records import unpacked
from hil.errors import ConfigError, DataError
from hil.progress import Progress, no_progress
from hil.run_tags import Label, read_labels
from hil.runfile import RunReader, open_run

if sys.platform != "win32":
    import fcntl

FILE_NAME = "catalogue.sqlite"
LAST = "last"

#: of a run: how it ended, or `running` while it is written, or `unreadable` when its file is damaged or foreign
State = Literal["complete", "failed", "aborted", "incomplete", "running", "unreadable"]
STATES: tuple[State, ...] = ("complete", "failed", "aborted", "incomplete", "running", "unreadable")

_VERSION = 1
_LOCK_WAIT_S = 1.0
_CANDIDATES_SHOWN = 8


@dataclass(frozen=True)
class Entry:
    """One row of the index: a run file as it was when it was read last."""

    file: str
    mtime_ns: int
    size_bytes: int
    run_id: str
    status: str = "unreadable"  #: or the one in the file
    cause: str = ""
    experiment: str = ""
    backend: str = ""
    started_unix_s: float | None = None
    last_unix_s: float | None = None  #: end, or the newest row of a run without one
    n_cells: int | None = None
    n_points: int | None = None

    @property
    def order(self) -> float:
        """What a list is sorted by: the start, or the file's age where it cannot be read."""
        return self.mtime_ns * 1e-9 if self.started_unix_s is None else self.started_unix_s


@dataclass(frozen=True)
class Run:
    """One run of a catalogue."""

    path: Path
    entry: Entry
    state: State
    label: Label

    @property
    def run_id(self) -> str:
        return self.entry.run_id

    @property
    def short_id(self) -> str:
        """The random end of a run's id; the whole name of a file that is called otherwise."""
        end = self.run_id.rsplit("-", 1)[-1]
        return end if len(end) == 8 and all(c in "0123456789abcdef" for c in end) else self.run_id

    @property
    def duration_s(self) -> float | None:
        """From start to end, or to the newest row; it includes the pauses of a resumed run."""
        entry = self.entry
        if entry.started_unix_s is None or entry.last_unix_s is None:
            return None
        return max(0.0, entry.last_unix_s - entry.started_unix_s)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        entry = self.entry
        return {
            "id": self.run_id,
            "path": str(self.path),
            "experiment": entry.experiment,
            "backend": entry.backend,
            "status": self.state,
            "cause": entry.cause,
            "started_unix_s": entry.started_unix_s,
            "duration_s": self.duration_s,
            "n_cells": entry.n_cells,
            "n_points": entry.n_points,
            "size_bytes": entry.size_bytes,
            "tags": list(self.label.tags),
            "note": self.label.note,
        }


@dataclass(frozen=True)
class Catalogue:
    """All runs of a folder, newest first, and what stood in the way of reading or keeping them."""

    folder: Path
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = ()

    def select(
        self,
        *,
        status: str | None = None,
        experiment: str | None = None,
        tag: str | None = None,
        since_unix_s: float | None = None,
    ) -> list[Run]:
        """Runs that meet all conditions; `experiment` is a part of the name."""
        return [
            run
            for run in self.runs
            if status in (None, run.state)
            and (experiment is None or experiment in run.entry.experiment)
            and (tag is None or tag in run.label.tags)
            and (since_unix_s is None or run.entry.order >= since_unix_s)
        ]

    def find(self, name: str) -> Run:
        """The run with this id, the only one whose id or file name has this part or that has this tag, or `last`.

        Raises:
            ConfigError: there is none, or several: they are named.
        """
        if name == LAST:
            readable = [run for run in self.runs if run.state != "unreadable"]
            if not readable:
                raise ConfigError(f"there is no run in {self.folder}", fix="name another folder with --out")
            return readable[0]
        exact = [run for run in self.runs if name in (run.run_id, run.entry.file)]
        named = exact or [run for run in self.runs if name and (name in run.run_id or name in run.entry.file)]
        found = named or self.select(tag=name)
        if len(found) == 1:
            return found[0]
        if not found:
            raise ConfigError(
                f"no run in {self.folder} has {name!r} in its id or as a tag",
                fix="hil runs list shows what there is; --out names another folder",
            )
        same_id = len({run.run_id for run in found}) == 1
        shown = [run.entry.file if same_id else run.run_id for run in found[:_CANDIDATES_SHOWN]]
        more = len(found) - len(shown)
        raise ConfigError(
            f"{name!r} means {len(found)} runs: {', '.join(shown)}{f' and {more} more' if more else ''}",
            fix="give its path" if same_id else "give more of the id, or the path",
        )


def open_catalogue(folder: Path, progress: Progress = no_progress) -> Catalogue:
    """Read the index of a folder, bring it up to date and save it.

    Raises:
        ConfigError: there is no such folder.
    """
    try:
        found = {item.name: item.stat() for item in os.scandir(folder) if item.name.endswith(".h5") and item.is_file()}
    except OSError as error:
        raise ConfigError(
            f"run folder {folder} cannot be read: {error.strerror}", fix="name the folder of the run files with --out"
        ) from None
    notes: list[str] = []
    index = folder / FILE_NAME
    known = _load(index, notes)
    changed = [
        name
        for name, stat in found.items()
        if name not in known or (known[name].mtime_ns, known[name].size_bytes) != (stat.st_mtime_ns, stat.st_size)
    ]
    fresh: dict[str, Entry] = {}
    for done, name in enumerate(changed, 1):
        stat = found[name]
        fresh[name] = examine(folder / name, stat.st_mtime_ns, stat.st_size)
        progress("reading run files", done, len(changed))
    gone = known.keys() - found.keys()
    if fresh or gone:
        _save(index, fresh.values(), gone, notes)
    try:
        labels = read_labels(folder)
    except DataError as error:
        labels = {}
        notes.append(f"tags are not shown: {error}")
    entries = {name: entry for name, entry in {**known, **fresh}.items() if name in found}
    newest_first = sorted(entries.values(), key=lambda entry: (entry.order, entry.file), reverse=True)
    runs = [
        Run(folder / entry.file, entry, _state(folder / entry.file, entry.status), labels.get(entry.run_id, Label()))
        for entry in newest_first
    ]
    return Catalogue(folder, tuple(runs), tuple(notes))


def find_run(name: str, folder: Path, progress: Progress = no_progress) -> Path:
    """Path of the run that is meant: a path as it is, anything else by the catalogue of `folder`.

    Raises:
        ConfigError: no such run, or several.
    """
    if name.endswith(".h5") or os.sep in name:
        path = Path(name)
        if path.is_file():
            return path
        if path.name != name:
            raise ConfigError(f"there is no run file {path}", fix="check the path; hil runs list shows what there is")
    return open_catalogue(folder, progress).find(name).path


def examine(path: Path, mtime_ns: int, size_bytes: int) -> Entry:
    """Read what a list says of one file; a file that cannot be read is an entry, too."""
    unread = Entry(path.name, mtime_ns, size_bytes, run_id=path.stem)
    try:
        with open_run(path) as run:
            counts = {name: run.row_count(name) for name in run.tables if name != "sessions"}
            return replace(
                unread,
                run_id=run.run_id,
                status=run.status,
                cause=run.cause,
                experiment=run.experiment,
                backend=backend_kind(run.backend),
                started_unix_s=run.started_unix_s,
                last_unix_s=run.ended_unix_s or _newest_row(run),
                n_cells=_cells(run, counts),
                n_points=counts.get("readings", sum(counts.values())),
            )
    except DataError as error:
        return replace(unread, cause=error.what)
    except (ValueError, TypeError, AttributeError, KeyError, OSError) as error:  # a header of the wrong kind
        return replace(unread, cause=f"{type(error).__name__}: {error}")


def backend_kind(identity: dict[str, Any]) -> str:
    """What answered, as a word: behind a URL, too."""
    return str(identity.get("kind") or identity.get("name") or "")


def is_being_written(path: Path) -> bool:
    """Whether a process has the file open for writing; the kernel frees a writer's lock when it is killed."""
    if sys.platform == "win32":
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # gone meanwhile, or a file system without locks
        return False
    return False


def _state(path: Path, status: str) -> State:
    if status == "incomplete" and is_being_written(path):
        return "running"
    return next(state for state in STATES if state == status)


def _newest_row(run: RunReader) -> float | None:
    times: list[float] = []
    for name in run.tables:
        count = run.row_count(name)
        if count:
            times.append(float(run.table(name, count - 1, count)["t_unix_s"][0]))
    return max(times, default=None)


def _cells(run: RunReader, counts: dict[str, int]) -> int | None:
    """Cells that a run on an array was about; where nothing says it, the most that one operation addressed."""
    mask_in = run.results.get("mask_in")
    if isinstance(mask_in, np.ndarray):
        return int(np.count_nonzero(mask_in))
    if counts.get("request"):
        return int(unpacked(run.table("request")["cols"]).sum())
    if counts.get("operations") and run.table_spec("operations").column("n_cells") is not None:
        return int(run.table("operations")["n_cells"].max())
    return None


_COLUMNS = tuple(column.name for column in fields(Entry))
_SQL_TYPES = {"int": "INTEGER", "float | None": "REAL", "int | None": "INTEGER", "str": "TEXT"}
_CREATE = "CREATE TABLE runs ({}, PRIMARY KEY (file))".format(
    ", ".join(f"{column.name} {_SQL_TYPES[str(column.type)]}" for column in fields(Entry))
)


def _load(index: Path, notes: list[str]) -> dict[str, Entry]:
    """What the index says; nothing when there is none or it is of no use, which costs time only."""
    if not index.is_file():
        return {}
    try:
        with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True, timeout=_LOCK_WAIT_S)) as db:
            if db.execute("PRAGMA user_version").fetchone() != (_VERSION,):
                return {}
            rows = db.execute(f"SELECT {', '.join(_COLUMNS)} FROM runs").fetchall()
            return {row[0]: Entry(*row) for row in rows}
    except sqlite3.Error as error:
        notes.append(f"the catalogue {index} cannot be read ({error}): all run files were read instead")
        return {}


def _save(index: Path, fresh: Iterable[Entry], gone: Iterable[str], notes: list[str]) -> None:
    """Bring the index up to date. One that is no database is replaced, since all it can hold is in the run files."""
    rows = [astuple(entry) for entry in fresh]
    try:
        try:
            _write(index, rows, gone)
        except sqlite3.OperationalError:  # locked, read-only, disk full: not damaged
            raise
        except sqlite3.DatabaseError:
            index.unlink()
            _write(index, rows, gone)
    except (sqlite3.Error, OSError) as error:
        notes.append(f"the catalogue {index} cannot be written ({error}): the list is right, the next one takes longer")


def _write(index: Path, rows: Sequence[tuple[Any, ...]], gone: Iterable[str]) -> None:
    with closing(sqlite3.connect(index, timeout=_LOCK_WAIT_S)) as db, db:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            db.execute("DROP TABLE IF EXISTS runs")
            db.execute(_CREATE)
            db.execute(f"PRAGMA user_version = {_VERSION}")
        db.executemany("DELETE FROM runs WHERE file = ?", [(name,) for name in gone])
        db.executemany(f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(_COLUMNS))})", rows)
