"""Work through a list in several processes, each with one thread, that outlive a task that fails and end at once.

`concurrent.futures` gives up all tasks when one process is killed, and ends on Ctrl-C only after the tasks that are
under way; here neither is so.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from hil.errors import HilError
from hil.session import Terminated

#: read by the libraries when they are loaded
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")
#: time for a process to bring its array to zero bias and close its run file
_END_S = 20.0


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    reason: str


@dataclass
class _Worker:
    process: Any
    connection: Connection


def work_through(
    tasks: Sequence[Any], work: Callable[[Any], Any], jobs: int, done: Callable[[int, Any | Failure], None]
) -> None:
    """Call `work(task)` for every task.

    An exception of `work`, or the death of its process, is the failure of that task and of no other. Ctrl-C, SIGTERM
    or an exception of `done` ends all processes: by SIGTERM, which `work` sees as `hil.session.Terminated`.

    Args:
        tasks: picklable.
        work: a function of a module, imported anew in every process.
        jobs: processes, at least 1.
        done: called here, in the order of completion, with the index of a task and its result or `Failure`.
    """
    waiting = deque(enumerate(tasks))
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, int]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                worker = idle.pop() if idle else _start(work)
                index, task = waiting.popleft()
                busy[worker.connection] = (worker, index)
                # A process that is dead already is noticed below.
                with suppress(OSError):
                    worker.connection.send(task)
            for ready in wait(list(busy)):
                worker, index = busy.pop(ready)  # pyright: ignore[reportArgumentType]
                try:
                    answer = worker.connection.recv()
                except (EOFError, OSError):
                    worker.connection.close()
                    done(index, Failure(_how_it_ended(worker.process)))
                    continue
                idle.append(worker)
                done(index, answer)
    finally:
        _end(idle, [worker for worker, _ in busy.values()])


def _start(work: Callable[[Any], Any]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    with _one_thread_each(), _without_interrupts():
        process.start()
    # Ours was the last copy: when the process dies, reading ends.
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes share the cores already; set before they load a library that looks at it."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that starts here never sees Ctrl-C, which a terminal sends to all: it is told to end by this one."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    # Started with the first process otherwise, and it unblocks SIGINT when it is.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Life of a process: tasks come in, results go out, until the other side is gone."""
    signal.signal(signal.SIGTERM, _terminate)
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            task = connection.recv()
            try:
                answer = work(task)
            except HilError as error:
                answer = Failure(str(error))
            except Exception as error:
                answer = Failure(f"{type(error).__name__}: {error}")
            connection.send(answer)
    # From here on nothing needs to be unwound.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(128 + number)


def _how_it_ended(process: Any) -> str:
    process.join(_END_S)
    code = process.exitcode
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _end(idle: list[_Worker], busy: list[_Worker]) -> None:
    """All at once, and each as softly as it lets itself be ended."""
    for worker in busy:
        worker.process.terminate()
    for worker in [*busy, *idle]:
        worker.connection.close()
    for worker in [*busy, *idle]:
        worker.process.join(_END_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
