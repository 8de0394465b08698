"""SIGKILL of client, daemon and link at random moments of a forming run.

Whatever dies, the array is safe within the stated time, no pulse is applied twice, and the run resumes. The board is a
process of its own that outlives all kills, in real time; what its cells saw is its own record, not the daemon's.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common
from kill import verdict
from kill.board_process import Record, State
from kill.progress import Note
from kill.rig import LEASE_S, WATCHDOG_S, Rig, batches_of, preload, with_long_pulses
from kill.verdict import Kill

log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.timeout(240),
    # One after the other: each has a board in real time.
    pytest.mark.xdist_group("kill"),
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals"),
]

#: of each kind
KILLS = 50
#: what the link threads' tick, making safe, and a busy machine may add
SLACK_S = 0.5
#: the watchdog is the fabric's own: only the last heartbeat can be late
WATCHDOG_SLACK_S = 0.25

#: a link that is gone for longer costs the lease for sure
_LEASE_ENDS_S = LEASE_S + 0.1
#: cells that one run forms
_CELLS = 80
#: pulses so short that a kill falls between the host's own steps
_SHORT_S = 1e-3
#: they run side by side and share the kills
BOARDS = (INDEPENDENT, common())


@pytest.fixture(autouse=True, scope="module")
def _forkserver() -> Iterator[None]:
    preload()
    yield
    forkserver._forkserver._stop()


@dataclass
class Tally:
    """What was measured on one board."""

    where: Counter[str] = field(default_factory=Counter)
    to_no_bias_s: list[float] = field(default_factory=list, repr=False)
    to_safe_s: list[float] = field(default_factory=list, repr=False)
    exits: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    watchdog_trips: int = 0
    again: int = 0
    runs: int = 0


@dataclass(frozen=True)
class Kind:
    """What is killed, and what is promised then.

    Attributes:
        kill: does it once.
        longest: cells of one request, at most.
        width_s: of their pulses, unless those are short; a long request outlasts a lease or the watchdog.
        no_bias_s: no cell is under bias later than this.
        safe_s: all outputs are off by then; None where only a new daemon can do that.
        linked: whether the link is a process of its own.
    """

    kill: Callable[[Rig, np.random.Generator], Kill]
    longest: int
    width_s: float
    no_bias_s: float
    safe_s: float | None
    linked: bool = False


def kill_client(rig: Rig, rng: np.random.Generator) -> Kill:
    assert rig.client is not None
    return Kill(rig.kill(rig.client), math.inf)


def kill_daemon(rig: Rig, rng: np.random.Generator) -> Kill:
    killed_s = rig.kill(rig.daemon)
    # Often longer than the watchdog waits, so that nobody but the fabric can have made the array safe.
    time.sleep(rng.uniform(0.0, 0.3))
    back_s = time.monotonic()
    rig.start_daemon()
    return Kill(killed_s, back_s)


def kill_link(rig: Rig, rng: np.random.Generator) -> Kill:
    """Cut it, or stall it: bytes under way are lost, or arrive late."""
    gone_s = rng.uniform(0.02, 0.4) if rng.random() < 0.5 else rng.uniform(LEASE_S, 2.6 * LEASE_S)
    if rng.random() < 0.5:
        killed_s = rig.stall_link()
        time.sleep(gone_s)
        back_s = time.monotonic()
        rig.go_on_with_link()
        return Kill(killed_s, back_s)
    killed_s = rig.kill(rig.link)
    time.sleep(gone_s)
    back_s = time.monotonic()
    rig.start_link()
    return Kill(killed_s, back_s)


KINDS = {
    "client": Kind(kill_client, 24, 80e-3, LEASE_S + SLACK_S, LEASE_S + SLACK_S),
    "daemon": Kind(kill_daemon, 12, 25e-3, WATCHDOG_S + WATCHDOG_SLACK_S, None),
    "link": Kind(kill_link, 24, 80e-3, LEASE_S + SLACK_S, LEASE_S + SLACK_S, linked=True),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_forming_under_fire(kind: Kind, tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    try:
        with ThreadPoolExecutor(len(BOARDS)) as threads:
            tallies = list(threads.map(lambda k: _one_board(kind, tmp_path / str(k), [seed, k]), range(len(BOARDS))))
    except Exception as error:
        raise AssertionError(f"with seed {seed}: {error}") from error
    for tally in tallies:
        log.info("%s", tally)
        longest_s = [max(times, default=0.0) for times in (tally.to_no_bias_s, tally.to_safe_s)]
        log.info("longest to no bias %.3f s, to safe %.3f s", *longest_s)
    where = sum((tally.where for tally in tallies), Counter())
    assert where["gate pulse"] + where["pulse request, gate off"] > KILLS // 4, f"the kills missed the pulses: {where}"


def _one_board(kind: Kind, folder: Path, seed: list[int]) -> Tally:
    rng = np.random.default_rng(seed)
    tally = Tally()
    while (n_left := KILLS // len(BOARDS) - tally.where.total()) > 0:
        place = folder / str(tally.runs)
        place.mkdir(parents=True)
        _one_run(kind, place, with_long_pulses(BOARDS[seed[-1]]), n_left, rng, tally)
    return tally


def _one_run(
    kind: Kind, folder: Path, tree: dict[str, Any], n_kills: int, rng: np.random.Generator, tally: Tally
) -> None:
    """Form a fresh board to the end, with at most so many kills on the way."""
    batches = batches_of((tree["rows"], tree["cols"]), _CELLS, kind.longest, (_SHORT_S, kind.width_s), rng)
    kills: list[Kill] = []
    with Rig(folder, tree, batches, int(rng.integers(1000)), linked=kind.linked) as rig:
        while _until_a_random_moment(rig, rng):
            if len(kills) < n_kills:
                kills.append(kind.kill(rig, rng))
        notes, record = rig.notes(), rig.record()
    verdict.check_pulses(record, notes, batches)
    verdict.check_safe_at_every_start(record)
    for kill in kills:
        _check_times(kind, kill, record, notes, tally)
    tally.runs += 1
    tally.exits.update(rig.exits)
    tally.errors.update(note.error for note in notes if note.word == "failed")
    tally.again += sum(note.word == "again" for note in notes)
    tally.watchdog_trips += record.watchdog_trips


def _check_times(kind: Kind, kill: Kill, record: Record, notes: list[Note], tally: Tally) -> None:
    tally.where[verdict.where(record, notes, kill.at_s)] += 1
    if kind.linked and kill.back_s - kill.at_s <= _LEASE_ENDS_S:
        return  # the writer may have kept the array
    writer_s = verdict.next_writer_s(record, notes, kill)
    took_s = verdict.left(record, {State.BIAS}, kill.at_s, writer_s) - kill.at_s
    assert took_s <= kind.no_bias_s, f"bias {took_s:.3f} s after {kill}"
    tally.to_no_bias_s.append(took_s)
    if kind.safe_s is not None:
        took_s = verdict.left(record, {State.BIAS, State.IDLE}, kill.at_s, writer_s) - kill.at_s
        assert took_s <= kind.safe_s, f"safe {took_s:.3f} s after {kill}"
        tally.to_safe_s.append(took_s)


def _until_a_random_moment(rig: Rig, rng: np.random.Generator) -> bool:
    """Mostly soon after a pulse was asked for; False when the run is complete."""
    due_s = time.monotonic() + rng.uniform(0.0, 0.4) if rng.random() < 0.25 else None
    size, begun = rig.size_of_progress(), len(rig.notes())
    while rig.keep_client():
        if due_s is None and rig.size_of_progress() > size:
            size = rig.size_of_progress()
            if any(note.word in ("intend", "again") for note in rig.notes()[begun:]):
                due_s = time.monotonic() + rng.uniform(0.0, rng.choice([0.01, 0.2]))
        if due_s is not None and time.monotonic() >= due_s:
            return True
        time.sleep(3e-3)
    return False
