"""What the board's record and the run's notes say together."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from kill.board_process import Record, State
from kill.client_process import NOTHING_APPLIED
from kill.progress import Batch, Cell, Note


class Kill(NamedTuple):
    """When something was killed, and when it came back; infinite for a client, which asks for the array anew."""

    at_s: float
    back_s: float


def check_pulses(record: Record, notes: Sequence[Note], batches: Sequence[Batch]) -> None:
    """Every cell had its one pulse, and what the client was told is true."""
    wanted = [cell for batch in batches for cell in batch.cells]
    had = Counter(cell for _, cells in record.pulses for cell in cells)
    wrong = {cell: (had[cell], _story(cell, record, notes, batches)) for cell in {*wanted, *had} if had[cell] != 1}
    assert not wrong, f"cells with another number of pulses than one: {wrong}"
    assert set(had) == set(wanted)
    mask = np.zeros(record.formed.shape, np.bool_)
    mask[tuple(np.array(wanted).T)] = True
    np.testing.assert_array_equal(record.formed, mask)
    for k, batch in enumerate(batches):
        ends = [note for note in notes if note.batch == k and note.word in ("done", "found")]
        assert len(ends) == 1, f"batch {k} ended {len(ends)} times"
        assert all(t <= ends[0].time_s for t, cells in record.pulses for cell in cells if cell in batch.cells)
    for begun, failed in pairwise(notes):
        if failed.word == "failed" and failed.error in NOTHING_APPLIED:
            applied = [
                (t, cell)
                for t, cells in record.pulses
                for cell in cells
                if cell in begun.cells and begun.time_s <= t <= failed.time_s
            ]
            assert not applied, f"{failed.error} said that nothing was applied: {applied}"


def _story(cell: Cell, record: Record, notes: Sequence[Note], batches: Sequence[Batch]) -> list[tuple]:
    """All that happened to a cell, in order."""
    k = next((k for k, batch in enumerate(batches) if cell in batch.cells), None)
    told = [(note.time_s, note.word, note.error) for note in notes if note.batch == k]
    return sorted([*told, *((t, "PULSE", "") for t, cells in record.pulses if cell in cells)])


def check_safe_at_every_start(record: Record) -> None:
    """Nobody gets an array that another has left under bias."""
    for time_s in record.connects:
        assert state_at(record, time_s) is State.SAFE


def state_at(record: Record, time_s: float) -> State:
    """The array's state at a time."""
    return record.states[bisect_right(record.states, time_s, key=lambda change: change[0]) - 1][1]


def next_writer_s(record: Record, notes: Sequence[Note], kill: Kill) -> float:
    """When somebody began with the array after a kill; infinite if nobody did."""
    from_s = kill.back_s
    if math.isinf(from_s):
        from_s = next((note.time_s for note in notes if note.word == "ask" and note.time_s > kill.at_s), math.inf)
    return next((time_s for time_s in record.connects if time_s > from_s), math.inf)


def left(record: Record, states: set[State], from_s: float, until_s: float) -> float:
    """When the array was last in one of these states, between two times; `from_s` if it was not."""
    last_s = from_s
    ends = [time_s for time_s, _ in record.states[1:]] + [math.inf]
    for (begin_s, state), end_s in zip(record.states, ends, strict=True):
        if state in states and begin_s < until_s and end_s > from_s:
            last_s = max(last_s, min(end_s, until_s))
    return last_s


def where(record: Record, notes: Sequence[Note], time_s: float) -> str:
    """What was under way at a time, in words."""
    before = [note for note in notes if note.time_s <= time_s]
    word = before[-1].word if before else "start"
    if word in ("intend", "again"):
        return "gate pulse" if state_at(record, time_s) is State.BIAS else "pulse request, gate off"
    return {"ask": "open", "start": "start", "closed": "close"}.get(word, "between pulses")
