"""What a run file needs of the operating system: lock, reserved space, and giving up a file on a full disk.

HDF5 cannot recover from a failed write: what it could not write stays in its cache, closing fails too, and the
process may crash at its exit. So space is reserved before HDF5 is handed anything, and an HDF5 handle whose write
failed all the same is pointed elsewhere before it is closed.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from hil.errors import RunFileError

if sys.platform != "win32":
    import fcntl

_log = logging.getLogger(__name__)

_STEP_BYTES = 64 * 1024
_unclosable: list[Any] = []  # handles that HDF5 refuses to close; kept so that Python does not try again


class NoSpaceError(OSError):
    """Space could not be reserved; nothing was handed to HDF5, so its file can still be closed."""


class Disk:
    """Second descriptor of a run file: holds the writer's lock (freed by the kernel on a kill) and reserves space."""

    def __init__(self, path: Path) -> None:
        """Lock an existing file. Raises RunFileError when another writer has it, OSError when it cannot be opened."""
        self.path = path
        self._reserved_bytes = 0
        self._fd: int | None = os.open(path, os.O_RDWR)
        if sys.platform != "win32":
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise _busy(path) from None
            except OSError as error:  # some network file systems have no locks
                _log.warning("no lock on %s: %s", path, error)
            if not os.path.samestat(os.fstat(self._fd), path.stat()):  # replaced between opening and locking
                self.close()
                raise _busy(path)

    def reserve(self, size_bytes: int) -> None:
        """Make sure that the file may grow to this size. Raises NoSpaceError (ENOSPC, EDQUOT, EFBIG) if not."""
        if self._fd is None or size_bytes <= self._reserved_bytes or not hasattr(os, "posix_fallocate"):
            return
        target_bytes = -(-size_bytes // _STEP_BYTES) * _STEP_BYTES
        try:
            os.posix_fallocate(self._fd, self._reserved_bytes, target_bytes - self._reserved_bytes)
        except OSError as error:
            raise NoSpaceError(error.errno, error.strerror) from error
        self._reserved_bytes = target_bytes

    def trim(self, size_bytes: int) -> None:
        """Give back what was reserved beyond this size."""
        if self._fd is not None and os.fstat(self._fd).st_size > size_bytes:
            os.ftruncate(self._fd, size_bytes)
        self._reserved_bytes = 0

    def sync(self) -> None:
        """Wait until the file is on the disk itself, not only with the operating system."""
        if self._fd is not None:
            os.fsync(self._fd)

    def close(self) -> None:
        """Free the lock; may be called twice."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def _busy(path: Path) -> RunFileError:
    return RunFileError(f"run file {path} is being written elsewhere", fix="wait for its end, or stop that process")


def _sink(*, in_memory: bool) -> int:
    """A descriptor that takes every write. Outside SWMR mode HDF5 also sets the length, which the null device refuses;
    memory in turn is subject to a limit of the file size, which the null device is not."""
    if in_memory and sys.platform == "linux":
        return os.memfd_create("given up")
    return os.open(os.devnull, os.O_RDWR)


def give_up(handle: Any) -> None:
    """Close an HDF5 file after a failed write, leaving the file on disk as it is; never raises."""
    try:
        if not handle.id.valid:
            return
        sink = _sink(in_memory=not handle.swmr_mode)
        try:
            os.dup2(sink, handle.id.get_vfd_handle(), inheritable=False)
        finally:
            os.close(sink)
        handle.close()
    except Exception as error:
        _unclosable.append(handle)
        _log.warning("HDF5 could not close a file after a failed write: %s", error)


def reason(error: BaseException) -> str:
    """The operating system's words out of an OSError or out of HDF5's long message."""
    if isinstance(error, OSError) and error.strerror and len(error.strerror) < 80:
        return error.strerror
    found = re.search(r"error message = '([^']*)'", str(error))
    return found.group(1) if found else str(error).split("\n")[0]
