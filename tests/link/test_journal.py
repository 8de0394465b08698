"""The journal of pulses: on disk before a pulse leaves, and there for whoever asks later."""

from __future__ import annotations

import gc
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from firmware_bridge.daemon import journal as journal_module
from firmware_bridge.daemon.journal import Entry, Journal
from hil.errors import ConfigError

A, B = bytes(16), b"b" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pulses.sqlite"


def test_a_pulse_is_unknown_then_begun_then_ended(path: Path) -> None:
    journal = Journal(path)
    assert journal.find(A, 1) is None
    journal.begin(A, 1, "3 cells")
    assert journal.find(A, 1) == Entry("3 cells", None)
    journal.end(A, 1, b"reply")
    assert journal.find(A, 1) == Entry("3 cells", b"reply")
    journal.close()


def test_pulses_are_told_apart_by_host_and_number() -> None:
    journal = Journal(None)
    journal.begin(A, 1, "first")
    journal.begin(A, 2, "second")
    journal.begin(B, 1, "other")
    journal.end(A, 2, b"done")
    assert journal.find(A, 1) == Entry("first", None)
    assert journal.find(A, 2) == Entry("second", b"done")
    assert journal.find(B, 1) == Entry("other", None)
    assert journal.find(B, 2) is None
    journal.close()


def test_the_same_pulse_cannot_begin_twice() -> None:
    """The last barrier against a pulse that is applied twice."""
    journal = Journal(None)
    journal.begin(A, 1, "first")
    with pytest.raises(sqlite3.Error):
        journal.begin(A, 1, "again")
    journal.end(A, 1, b"done")
    with pytest.raises(sqlite3.Error):
        journal.begin(A, 1, "again")
    assert journal.find(A, 1) == Entry("first", b"done")
    journal.close()


def test_it_is_there_for_the_next_daemon_though_the_last_one_was_killed(path: Path) -> None:
    killed = Journal(path)
    killed.begin(A, 1, "in the middle")
    killed.begin(A, 2, "ended")
    killed.end(A, 2, b"reply")
    # No close: what is told after `begin` and `end` is what another process finds.
    after = Journal(path)
    assert after.find(A, 1) == Entry("in the middle", None)
    assert after.find(A, 2) == Entry("ended", b"reply")
    with pytest.raises(sqlite3.Error):
        after.begin(A, 1, "again")
    after.close()
    killed.close()


def test_every_commit_reaches_the_disk(path: Path) -> None:
    journal = Journal(path)
    assert journal._db.execute("PRAGMA synchronous").fetchone()[0] >= 2
    journal.close()


def test_numbers_up_to_those_of_requests() -> None:
    journal = Journal(None)
    journal.begin(A, 2**63 - 1, "last")
    assert journal.find(A, 2**63 - 1) == Entry("last", None)
    journal.close()


def test_old_pulses_are_forgotten_with_the_next_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Journal(path)
    with monkeypatch.context() as patch:
        patch.setattr(journal_module.time, "time", lambda: 1e9)
        first.begin(A, 1, "old")
    first.begin(A, 2, "new")
    first.close()
    second = Journal(path)
    assert second.find(A, 1) is None
    assert second.find(A, 2) == Entry("new", None)
    second.close()


def test_its_folder_is_made(path: Path) -> None:
    assert not path.parent.exists()
    Journal(path).close()
    assert path.is_file()


def _folder(path: Path) -> None:
    path.mkdir(parents=True)


def _file_in_the_way(path: Path) -> None:
    path.parent.write_text("a file")


def _another_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, and longer than its header" * 100)


def _another_table(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE pulses (something TEXT)")
    db.close()


@pytest.mark.parametrize("spoil", [_folder, _file_in_the_way, _another_file, _another_table])
def test_a_file_that_cannot_be_used_is_named_and_given_back(spoil: object, path: Path) -> None:
    spoil(path)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"journal .*--state") as found:
        Journal(path)
    assert str(path) in found.value.what
    del found
    gc.collect(0)  # a connection that was left open would warn here, from Python 3.13


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(ConfigError, match="journal"):
            Journal(path)
    finally:
        path.parent.chmod(stat.S_IRWXU)


def test_it_is_used_by_several_threads(path: Path) -> None:
    """The main thread writes, link threads look things up."""
    journal = Journal(path)
    wrong: list[object] = []

    def look() -> None:
        for _ in range(100):
            for number in range(20):
                entry = journal.find(A, number)
                if entry is not None and entry.what != str(number):
                    wrong.append(entry)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(20):
        journal.begin(A, number, str(number))
        journal.end(A, number, b"done")
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(journal.find(A, number) == Entry(str(number), b"done") for number in range(20))
    journal.close()
