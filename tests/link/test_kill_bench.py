"""SIGKILL at random moments of forming and programming an array.

Each time the array is safe within the watchdog's time, the run file knows every pulse that the cells saw, and no pulse
is given twice without knowing; in the end the run is complete. The board is a process of its own, in real time.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT
from kill import bench_process, board_process, verdict
from kill.bench_process import N_ROWS, run_of
from kill.board_process import Record, State
from kill.rig import WATCHDOG_S, preload

from experiments.array.history import History
from experiments.array.record import recorded
from hil.runfile import open_run

log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.timeout(240),
    # One after the other: each has a board in real time.
    pytest.mark.xdist_group("kill"),
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals"),
]

#: of each verb
KILLS = 50
#: only the last heartbeat can be late
WATCHDOG_SLACK_S = 0.25
_WAIT_S = 60.0
SHAPE = (INDEPENDENT["rows"], INDEPENDENT["cols"])

#: small steps, so that a run has many
READ = {"n_average": 1, "correction": "none"}
FORM = {"cells_per_step": 16, "read": READ, "form": {"mode": "uniform", "width_s": 20e-3, "formed_above_s": 1e-6}}
PROGRAM = {
    "cells_per_step": 64,
    "read": READ,
    "program": {"pulses_per_cell_max": 30, "settle_s": 0.0, "final_passes": 2, "final_reads": 1},
}


@pytest.fixture(autouse=True, scope="module")
def _forkserver() -> Iterator[None]:
    preload()
    yield
    forkserver._forkserver._stop()


class Board:
    """A fresh board in a process of its own, and the processes of the run on it."""

    def __init__(self, folder: Path, verb: str, array: dict[str, Any], seed: int, *, formed: bool) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self.folder, self._verb, self._array = folder, verb, array
        self._tree = {
            **INDEPENDENT,
            "limits": {**INDEPENDENT["limits"], "watchdog_s": WATCHDOG_S, "pulse_width_max_s": 0.02},
        }
        self._bus = str(folder / "bus")
        self._control, theirs = multiprocessing.Pipe()
        with theirs:
            self._board = self._start(board_process.serve, self._bus, self._tree, seed, folder, theirs, formed)
        assert self._control.recv() == "ready"

    def start_run(self) -> BaseProcess:
        return self._start(bench_process.run, self._bus, self._tree, self.folder, self._verb, self._array)

    def record(self) -> Record:
        self._control.send("record")
        return self._control.recv()

    def end(self) -> None:
        self._control.close()
        self._board.kill()
        self._board.join()

    def _start(self, target: Any, *arguments: Any) -> BaseProcess:
        process = self._context.Process(target=target, args=arguments, daemon=True)
        process.start()
        return process


def pulses_in_file(path: Path) -> tuple[Counter[int], Counter[int]]:
    """Pulses of each cell (flat index): those that it may have had, and those that it had for sure."""
    may, sure = Counter[int](), Counter[int]()
    with open_run(path) as reader:
        for found in recorded(reader, SHAPE):
            if found.operation.verb == "pulse":
                may.update(found.pulsed.tolist())
                if found.operation.status == "done":
                    sure.update(found.pulsed.tolist())
        history = History.from_run(reader, SHAPE)
    assert history.pulse_count.sum() == may.total()
    return may, sure


def check_file_against_board(folder: Path, record: Record) -> None:
    """The file knows every pulse that the board gave, and knows of none for sure that it did not give."""
    saw = Counter(row * SHAPE[1] + col for _, cells in record.pulses for row, col in cells)
    path = run_of(folder, SHAPE)
    may, sure = (Counter[int](), Counter[int]()) if path is None else pulses_in_file(path)
    lost = {cell: (n, may[cell]) for cell, n in saw.items() if n > may[cell]}
    assert not lost, f"cells that had more pulses than the file knows: {lost}"
    invented = {cell: (n, saw[cell]) for cell, n in sure.items() if n > saw[cell]}
    assert not invented, f"cells that had fewer pulses than the file is sure of: {invented}"


def kill_and_go_on(folder: Path, verb: str, array: dict[str, Any], n_kills: int, seed: int) -> Counter[str]:
    """Runs on fresh boards until so many kills have been made; each is resumed to its end."""
    rng = np.random.default_rng(seed)
    tally = Counter[str]()
    while tally["kills"] < n_kills:
        here = folder / f"board-{tally['runs']}"
        here.mkdir(parents=True)
        board = Board(here, verb, array, int(rng.integers(1000)), formed=verb == "program")
        try:
            killed: list[float] = []
            while True:
                process = board.start_run()
                enough = tally["kills"] >= n_kills
                process.join(_WAIT_S if enough else rng.uniform(0.05, 0.7))
                if process.exitcode is not None:
                    assert process.exitcode == 0, (here / "bench.log").read_text()[-3000:]
                    break
                assert not enough, f"the run did not end within {_WAIT_S} s"
                killed.append(time.monotonic())
                process.kill()
                process.join()
                tally["kills"] += 1
                time.sleep(WATCHDOG_S + 0.05)
                record = board.record()
                tally[verdict.state_at(record, killed[-1]).value] += 1
                check_file_against_board(here, record)
            record = board.record()
        finally:
            board.end()
        tally["runs"] += 1
        check_end(here, verb, record, killed)
    return tally


def check_end(folder: Path, verb: str, record: Record, killed: list[float]) -> None:
    """The run is complete, no cell was formed twice, and nothing stayed under bias."""
    path = run_of(folder, SHAPE)
    assert path is not None
    check_file_against_board(folder, record)
    # Between two programs nothing is under bias, though nobody has switched the outputs off.
    assert all(verdict.state_at(record, time_s) is not State.BIAS for time_s in record.connects)
    for killed_s in killed:
        next_s = next((t for t in record.connects if t > killed_s), np.inf)
        under_bias_s = verdict.left(record, {State.BIAS}, killed_s, next_s) - killed_s
        assert under_bias_s <= WATCHDOG_S + WATCHDOG_SLACK_S
    with open_run(path) as reader:
        assert reader.status == "complete"
        assert reader.results["mask_ok"][:N_ROWS].mean() > 0.95
    if verb == "form":
        had = Counter(cell for _, cells in record.pulses for cell in cells)
        assert record.formed[:N_ROWS].all()
        assert not record.formed[N_ROWS:].any()
        assert set(had.values()) == {1}


@pytest.mark.parametrize(("verb", "array"), [("form", FORM), ("program", PROGRAM)])
def test_a_killed_run_loses_nothing_repeats_nothing_and_goes_on(
    verb: str, array: dict[str, Any], tmp_path: Path
) -> None:
    seed = int(os.environ.get("KILL_SEED", secrets.randbits(30)))
    log.info("KILL_SEED=%d", seed)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(kill_and_go_on, tmp_path / str(k), verb, array, KILLS // 2, seed + k) for k in range(2)]
        tallies = [run.result() for run in runs]
    total = sum(tallies, Counter[str]())
    log.info("%s: %s", verb, dict(total))
    assert total["kills"] >= KILLS
    # At random moments: some fell into a pulse, some between two.
    assert total[State.BIAS.value]
    assert total[State.IDLE.value] + total[State.SAFE.value]
