"""What a forming run has done, one line for each step, on disk before the next step is taken."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from hil import Pulse

Cell = tuple[int, int]


class Batch(NamedTuple):
    """One request of a run: cells, and the pulse that each of them gets."""

    cells: list[Cell]
    pulse: Pulse


class Note(NamedTuple):
    """One step.

    Attributes:
        time_s: by `time.monotonic`, which all processes of a machine share.
        word: ask, opened, intend, again, found, failed, done, closed, stopped.
        batch: number of the batch of cells, -1 where it is about none.
        cells: those about to be pulsed (intend, again).
        error: class of what went wrong (failed), or its message (stopped).
    """

    time_s: float
    word: str
    batch: int = -1
    cells: tuple[Cell, ...] = ()
    error: str = ""


class Progress:
    """Appends to the file of a run, and knows what it says."""

    def __init__(self, path: Path) -> None:
        self.notes = read(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # A kill may have torn the last line: what was not noted in full was not acted on.
        os.ftruncate(self._file, len(_whole_lines(path)))

    def note(self, word: str, batch: int = -1, cells: list[Cell] | None = None, error: str = "") -> None:
        found = Note(time.monotonic(), word, batch, tuple(cells or ()), error)
        os.write(self._file, (json.dumps(found) + "\n").encode())
        os.fsync(self._file)
        self.notes.append(found)

    def last(self, batch: int) -> Note | None:
        """The newest note on a batch."""
        return next((note for note in reversed(self.notes) if note.batch == batch), None)

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[Note]:
    """All notes of a run that are complete; none when it has not begun."""
    found: list[Note] = []
    for line in _whole_lines(path).splitlines():
        time_s, word, batch, cells, error = json.loads(line)
        found.append(Note(time_s, word, batch, tuple((row, col) for row, col in cells), error))
    return found


def _whole_lines(path: Path) -> bytes:
    text = path.read_bytes() if path.exists() else b""
    return text[: text.rfind(b"\n") + 1]
