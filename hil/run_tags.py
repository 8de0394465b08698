"""Tags and notes that people give to runs: one text file per folder of runs.

They are the only thing a catalogue knows that no run file says, so they do not live in the catalogue, which may be
deleted at any time, and not in the run files, which are measurements. `tags.json` is plain JSON, keyed by run id: it
can be read, merged and put under version control, and a run file that is renamed keeps its tags.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hil.aside import written_aside
from hil.errors import ConfigError, DataError, RunFileError

if sys.platform != "win32":
    import fcntl

FILE_NAME = "tags.json"
FORMAT_NAME = "crossbar-hil tags"
FORMAT_VERSION = 1

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,49}")
_NOTE_MAX = 1000


@dataclass(frozen=True)
class Label:
    """What people say of one run: tags, sorted, and a note."""

    tags: tuple[str, ...] = ()
    note: str = ""

    def changed(self, add: Sequence[str] = (), remove: Sequence[str] = (), note: str | None = None) -> Label:
        """With tags added and removed, and the note replaced unless it is None.

        Raises:
            ConfigError: a tag or note that cannot be stored, or a tag to remove that is not there.
        """
        for tag in add:
            if not _TAG.fullmatch(tag):
                raise ConfigError(
                    f"tag {tag!r} is not allowed",
                    fix="use up to 50 letters, digits and . _ : + -, letter or digit first",
                )
        for tag in remove:
            if tag not in self.tags:
                raise ConfigError(f"the run has no tag {tag!r}", fix=f"it has: {', '.join(self.tags) or 'none'}")
        text = self.note if note is None else " ".join(note.split())
        if len(text) > _NOTE_MAX:
            raise ConfigError(f"note of {len(text)} characters exceeds {_NOTE_MAX}", fix="shorten it")
        return Label(tuple(sorted((set(self.tags) | set(add)) - set(remove))), text)


def read_labels(folder: Path) -> dict[str, Label]:
    """Labels by run id; empty when nobody gave any.

    Raises:
        DataError: the file is there and cannot be read.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError) as error:
        raise _damaged(path, str(error)) from error
    try:
        content = cast("dict[str, Any]", json.loads(text))
        if content["format"] != FORMAT_NAME or int(content["format_version"]) > FORMAT_VERSION:
            raise ValueError(f"format {content['format']!r}, version {content['format_version']}")
        return {str(run_id): _label(entry) for run_id, entry in content["runs"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def change_label(folder: Path, run_id: str, change: Callable[[Label], Label]) -> Label:
    """Replace the label of one run by `change(label)`; two processes that do so at once lose nothing.

    Raises:
        ConfigError: out of `change`.
        DataError: the file is damaged; it stays as it is.
        RunFileError: the folder cannot be written.
    """
    path = folder / FILE_NAME
    with _alone(folder):
        labels = read_labels(folder)
        label = change(labels.get(run_id, Label()))
        labels[run_id] = label
        content = {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            "runs": {name: _plain(labels[name]) for name in sorted(labels) if labels[name] != Label()},
        }
        try:
            with written_aside(path) as part:
                part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunFileError(
                f"tags cannot be written to {path}: {error.strerror}", fix="make room, or correct the permissions"
            ) from error
    return label


def _plain(label: Label) -> dict[str, Any]:
    return {"tags": list(label.tags), "note": label.note}


def _label(entry: Mapping[str, Any]) -> Label:
    tags, note = entry["tags"], entry["note"]
    if not isinstance(tags, list) or not isinstance(note, str):
        raise TypeError("tags are a list, a note is text")
    return Label(tuple(sorted(str(tag) for tag in cast("list[object]", tags))), note)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged or of another kind: {reason}", fix="correct it, or move it away")


@contextmanager
def _alone(folder: Path) -> Generator[None, None, None]:
    """Only one process at a time changes tags; the folder itself is locked, so that no lock file stays behind."""
    if sys.platform == "win32":
        yield
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
