"""A simulated chip in a file, so that what one command formed, the next one reads.

The cells are mapped into memory: a pulse is in the file as soon as it is applied, and a killed process takes none back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hil.aside import written_aside
from hil.errors import ConfigError, DataError, DeviceError
from sim_backend.cells import CELL, CellState

if sys.platform != "win32":
    import fcntl

FORMAT, VERSION = "crossbar-hil simulated chip", 1
#: what it was drawn from, as JSON; then counters; then the cells
_HEADER_BYTES, _COUNTERS_BYTES = 4096, 4096
_COUNTERS = np.dtype([("clock_s", "<f8"), ("sessions", "<u8")])


class ChipFile:
    """The file of one chip, opened by one process.

    Args:
        path: created when there is none.
        drawn_from: what makes this chip: seed, size, settings of its cells.
        new: cells of a fresh chip.

    Raises:
        ConfigError: the file holds another chip, or cannot be made.
        DataError: it is damaged or of another kind.
        DeviceError: another process uses it.
    """

    def __init__(self, path: Path, drawn_from: Mapping[str, Any], new: CellState) -> None:
        self.path = path
        try:
            if not path.exists():
                _create(path, drawn_from, new)
            self._lock = path.open("r+b")
        except OSError as error:
            raise ConfigError(
                f"file {path} of the simulated chip cannot be used: {error.strerror}",
                fix="name another with sim.chip, or correct owner, permissions or free space",
            ) from error
        try:
            self._lock_it()
            _check(path, self._lock.read(_HEADER_BYTES), drawn_from, new.cells.shape)
            self._counters = np.memmap(path, _COUNTERS, "r+", offset=_HEADER_BYTES, shape=(1,))
            cells = np.memmap(path, CELL, "r+", offset=_HEADER_BYTES + _COUNTERS_BYTES, shape=new.cells.shape)
        except BaseException:
            self._lock.close()
            raise
        self._counters["sessions"] += 1
        #: sessions that this chip has had, with this one
        self.session = int(self._counters["sessions"][0])
        self.state = CellState(cells, self._counters["clock_s"])

    def close(self) -> CellState:
        """Give the file free; returns its cells as they are now."""
        own = CellState(np.array(self.state.cells), np.array(self.state.clock_s))
        self.state.cells.flush()  # type: ignore[attr-defined]
        self._counters.flush()
        del self.state, self._counters
        self._lock.close()
        return own

    def _lock_it(self) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeviceError(
                f"the simulated chip {self.path} is in use by another process",
                fix="wait for its end, or name another file with sim.chip",
            ) from None


def _create(path: Path, drawn_from: Mapping[str, Any], new: CellState) -> None:
    """Write the whole file aside and then give it its name: nobody ever sees half a chip."""
    header = json.dumps({"format": FORMAT, "version": VERSION, **drawn_from}).encode()
    counters = np.zeros(1, _COUNTERS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path, durable=True) as part, part.open("wb") as file:
        file.write(header.ljust(_HEADER_BYTES, b"\0"))
        file.write(counters.tobytes().ljust(_COUNTERS_BYTES, b"\0"))
        file.write(np.ascontiguousarray(new.cells).tobytes())


def _check(path: Path, raw: bytes, drawn_from: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """Refuse a file that is not this chip."""
    fix = "name another file with sim.chip, or move this one away to begin with a new chip"
    try:
        found = json.loads(raw.rstrip(b"\0"))
        if found.pop("format") != FORMAT:
            raise ValueError
        version = found.pop("version")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is not the file of a simulated chip", fix=fix) from None
    if version != VERSION:
        raise DataError(f"{path} is of version {version}, this program reads {VERSION}", fix="update crossbar-hil")
    for key, value in json.loads(json.dumps(drawn_from)).items():
        if found.get(key) != value:
            raise ConfigError(
                f"{path} holds a simulated chip with {key} = {_first_difference(found.get(key), value)}", fix=fix
            )
    expected = _HEADER_BYTES + _COUNTERS_BYTES + CELL.itemsize * int(np.prod(shape))
    if (size := path.stat().st_size) != expected:
        raise DataError(f"{path} is {size} bytes long instead of {expected}: it is damaged", fix=fix)


def _first_difference(found: Any, wanted: Any) -> str:
    """What differs, in few words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name, value in wanted.items():
            if found.get(name) != value:
                return f"{name} {found.get(name)!r} instead of {value!r}"
    return f"{found!r} instead of {wanted!r}"
