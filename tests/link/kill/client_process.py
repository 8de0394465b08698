"""The client of the kill tests: a forming run that can be cut off anywhere and started again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from kill.processes import log_to
from kill.progress import Batch, Cell, Progress

from firmware_bridge.remote_backend import RemoteBackend
from hil import Pulse, open_session
from hil.errors import DeviceError, HilError, LeaseError, TransportError, UncertainError
from hil.session import Session

#: the link or the lease was lost; a program was stopped
LOST, STOPPED = 3, 4
#: a formed cell draws more at READ_V
FORMED_A, READ_V = 1e-6, 0.2
#: errors that say that nothing was applied: such cells are pulsed without a look at them
NOTHING_APPLIED = (LeaseError.__name__, TransportError.__name__)
_TRY_FOR_S, _RETRY_S = 30.0, 0.03


def form(url: str, path: Path, batches: Sequence[Batch]) -> None:
    """Go on with the run that a progress file tells of."""
    log_to(path.with_name("client.log"))
    progress = Progress(path)
    try:
        with ExitStack() as stack:
            session = _open(stack, url, progress)
            for k, batch in enumerate(batches):
                _form_batch(session, progress, k, *batch)
        progress.note("closed")
    except (LeaseError, TransportError, UncertainError):
        sys.exit(LOST)
    except DeviceError as error:
        progress.note("stopped", error=str(error))
        sys.exit(STOPPED)
    finally:
        progress.close()


def _form_batch(session: Session, progress: Progress, k: int, cells: list[Cell], pulse: Pulse) -> None:
    last = progress.last(k)
    if last is None or (last.word == "failed" and last.error in NOTHING_APPLIED):
        # What was left over when it failed, if it was not the first time.
        todo = next((note for note in reversed(progress.notes) if note.batch == k and note.cells), None)
        cells = cells if todo is None else list(todo.cells)
        progress.note("intend", k, cells)
    elif last.word in ("done", "found"):
        return
    else:
        mask = _mask(session, cells)
        unformed = session.read(mask, READ_V, n_average=8) < FORMED_A
        cells = [(int(row), int(col)) for row, col in np.argwhere(mask)[unformed]]
        if not cells:
            progress.note("found", k)
            return
        progress.note("again", k, cells)
    try:
        report = session.pulse(_mask(session, cells), pulse)
    except HilError as error:
        progress.note("failed", k, error=type(error).__name__)
        raise
    assert report.n_cells == len(cells)
    progress.note("done", k)


def _open(stack: ExitStack, url: str, progress: Progress) -> Session:
    """A session, as soon as there is a daemon and no other host has the array."""
    give_up_s = time.monotonic() + _TRY_FOR_S
    while True:
        progress.note("ask")
        try:
            session = stack.enter_context(open_session(RemoteBackend(url)))
        except (LeaseError, TransportError):
            if time.monotonic() > give_up_s:
                raise
            time.sleep(_RETRY_S)
        else:
            progress.note("opened")
            return session


def _mask(session: Session, cells: Sequence[Cell]) -> np.ndarray:
    mask = np.zeros(session.info.shape, np.bool_)
    mask[tuple(np.array(cells).T)] = True
    return mask
