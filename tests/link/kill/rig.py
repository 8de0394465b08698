"""One forming run on one fresh board: its processes, and ways to end them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from kill import bench_process, board_process, client_process, daemon_process, link_process, progress
from kill.board_process import Record
from kill.progress import Batch, Note

from hil import Pulse

LEASE_S, WATCHDOG_S = 0.5, 0.1

_PROCESSES = (bench_process, board_process, client_process, daemon_process, link_process)
_context = multiprocessing.get_context("forkserver")
#: `multiprocessing` keeps books of its children that two threads must not use at a time
_books = threading.Lock()
_WAIT_S = 20.0
#: a program whose lease ended under it stops once
_STOPS_MAX = 5


def preload() -> None:
    """Start the process that all others are forked from, with everything imported that they need."""
    _context.set_forkserver_preload([module.__name__ for module in _PROCESSES])
    # It does not inherit the path that pytest has set up.
    here = Path(__file__).parents[1]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (here, here.parent, here.parents[1])))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def with_long_pulses(tree: dict[str, Any]) -> dict[str, Any]:
    """A test board whose forming programs last long beside a lease and the watchdog; it is brought up quickly."""
    found = deepcopy(tree)
    found["adc"] |= {"count": 8, "positions": 2}
    found["limits"] |= {"pulse_width_max_s": 0.1, "watchdog_s": WATCHDOG_S}
    return found


class Rig:
    """Processes of one run. Used by one thread.

    Args:
        folder: for sockets, journal, progress and logs; of this run alone.
        tree: board profile.
        batches: the run's requests, in order.
        seed: of the board's hidden chip.
        linked: whether client and daemon are joined by a process of its own.
    """

    def __init__(
        self,
        folder: Path,
        tree: dict[str, Any],
        batches: Sequence[Batch],
        seed: int,
        *,
        linked: bool,
    ) -> None:
        self._folder, self._tree, self._batches, self._seed, self._linked = folder, tree, batches, seed, linked
        self._progress = folder / "progress"
        self._bus = str(folder / "bus")
        self._daemon_port = self._link_port = 0
        self._all: list[BaseProcess] = []
        self.client: BaseProcess | None = None
        #: how clients that were not killed ended
        self.exits: list[int] = []

    def __enter__(self) -> Rig:
        try:
            self._control, theirs = multiprocessing.Pipe()
            with theirs:
                self._start(board_process.serve, self._bus, self._tree, self._seed, self._folder, theirs)
            assert self._control.recv() == "ready"
            self.start_daemon()
            if self._linked:
                self.start_link()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start_daemon(self) -> None:
        self.daemon, self._daemon_port = self._start_at_port(
            lambda ready: self._start(
                daemon_process.serve, self._bus, self._tree, self._daemon_port, self._folder, LEASE_S, ready
            )
        )

    def start_link(self) -> None:
        self.link, self._link_port = self._start_at_port(
            lambda ready: self._start(link_process.forward, self._link_port, self._daemon_port, ready)
        )

    def keep_client(self) -> bool:
        """Start a client unless one lives; False when the run is complete."""
        if self.client is not None:
            with _books:
                code = self.client.exitcode
            if code is None:
                return True
            self._forget(self.client)
            self.client = None
            self.exits.append(code)
            assert code in (0, client_process.LOST, client_process.STOPPED), f"the client ended with code {code}"
            if code == 0:
                return False
            in_a_row = self.exits[-_STOPS_MAX:] == [client_process.STOPPED] * _STOPS_MAX
            assert not in_a_row, f"{_STOPS_MAX} clients were stopped in a row: {self.notes()[-1].error}"
        port = self._link_port if self._linked else self._daemon_port
        url = f"tcp://127.0.0.1:{port}"
        self.client = self._start(client_process.form, url, self._progress, self._batches)
        return True

    def kill(self, process: BaseProcess) -> float:
        """SIGKILL; returns when that was."""
        with _books:
            killed_s = time.monotonic()
            process.kill()
            process.join()
        self._forget(process)
        if process is self.client:
            self.client = None
        return killed_s

    def stall_link(self) -> float:
        """Let nothing through, with no sign of it at either end; returns when that was."""
        stalled_s = time.monotonic()
        assert self.link.pid is not None
        os.kill(self.link.pid, signal.SIGSTOP)
        return stalled_s

    def go_on_with_link(self) -> None:
        assert self.link.pid is not None
        os.kill(self.link.pid, signal.SIGCONT)

    def notes(self) -> list[Note]:
        return progress.read(self._progress)

    def size_of_progress(self) -> int:
        """A cheap way to see that something was noted."""
        return self._progress.stat().st_size if self._progress.exists() else 0

    def wait_for(self, what: Callable[[], bool], pause_s: float = 2e-3) -> None:
        give_up_s = time.monotonic() + _WAIT_S
        while not what():
            assert time.monotonic() < give_up_s, f"nothing happened for {_WAIT_S} s; see {self._folder}"
            time.sleep(pause_s)

    def record(self) -> Record:
        self._control.send("record")
        return self._control.recv()

    def _start_at_port(self, start: Callable[[Any], BaseProcess]) -> tuple[BaseProcess, int]:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        with ours:
            with theirs:
                process = start(theirs)
            assert ours.poll(_WAIT_S), "a process did not start"
            return process, ours.recv()

    def _start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = _context.Process(target=target, args=arguments, daemon=True)
        with _books:
            process.start()
        self._all.append(process)
        return process

    def _forget(self, process: BaseProcess) -> None:
        self._all.remove(process)
        with _books:
            process.join()
            process.close()

    def _end(self) -> None:
        for process in list(self._all):
            with _books:
                process.kill()
            self._forget(process)
        self._control.close()


def batches_of(
    shape: tuple[int, int], n_cells: int, longest: int, widths_s: tuple[float, float], rng: np.random.Generator
) -> list[Batch]:
    """Random cells, each once, in batches of 1 to `longest`, with either pulse."""
    chosen = rng.permutation(shape[0] * shape[1])[:n_cells]
    cells = [(int(k) // shape[1], int(k) % shape[1]) for k in chosen]
    found: list[Batch] = []
    while cells:
        n = int(rng.integers(1, longest + 1))
        found.append(Batch(cells[:n], Pulse("form", 4.0, 1.5, widths_s[rng.integers(2)])))
        cells = cells[n:]
    return found
