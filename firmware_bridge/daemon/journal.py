"""Journal of pulses: which were begun and which ended, on disk before and after each.

A host whose link broke asks for its request by number. The journal answers even when the daemon was killed in between,
so that a pulse is never sent twice in the belief that it was lost.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from pathlib import Path
from typing import NamedTuple

from hil.errors import ConfigError

_KEPT_S = 30 * 86400
_SCHEMA = """
CREATE TABLE IF NOT EXISTS identity (id TEXT);
CREATE TABLE IF NOT EXISTS pulses (
    session BLOB, number INTEGER, time REAL, what TEXT, reply BLOB, PRIMARY KEY (session, number)
) WITHOUT ROWID
"""


class Entry(NamedTuple):
    """A pulse that was begun; `reply` is None until it ended."""

    what: str
    reply: bytes | None


class Journal:
    """Pulses of the last 30 days.

    Args:
        path: of the SQLite file, made with its folder; None keeps it in memory, for tests.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
            # Every commit reaches the disk before the pulse leaves.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            self._db.execute(
                "INSERT INTO identity SELECT ? WHERE NOT EXISTS (SELECT * FROM identity)", (secrets.token_hex(8),)
            )
            #: tells this journal from another
            self.identity: str = self._db.execute("SELECT id FROM identity").fetchone()[0]
            self._db.execute("DELETE FROM pulses WHERE time < ?", (time.time() - _KEPT_S,))
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the journal {path} cannot be used: {error}", fix="name a folder that can be written with --state"
            ) from None

    def begin(self, session: bytes, number: int, what: str) -> None:
        """Note that a pulse is about to be applied."""
        with self._lock:
            self._db.execute("INSERT INTO pulses VALUES (?, ?, ?, ?, NULL)", (session, number, time.time(), what))

    def end(self, session: bytes, number: int, reply: bytes) -> None:
        """Note how it ended."""
        with self._lock:
            self._db.execute("UPDATE pulses SET reply = ? WHERE session = ? AND number = ?", (reply, session, number))

    def find(self, session: bytes, number: int) -> Entry | None:
        """What is known of a pulse; None when it was never begun."""
        with self._lock:
            row = self._db.execute(
                "SELECT what, reply FROM pulses WHERE session = ? AND number = ?", (session, number)
            ).fetchone()
        return None if row is None else Entry(*row)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
