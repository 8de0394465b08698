"""Work in several processes: one that fails or dies takes nothing else with it, and all end at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.studies.pool import Failure, work_through
from hil.errors import ConfigError
from hil.session import Terminated

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


def do(task: Any) -> Any:
    """What the processes do: a task is what to do, and with what."""
    what, value = task
    if what == "square":
        return value**2
    if what == "who":
        time.sleep(0.05)
        return os.getpid(), os.environ["NUMBA_NUM_THREADS"], os.environ["OMP_NUM_THREADS"]
    if what == "refuse":
        raise ConfigError("no such thing", fix="leave it")
    if what == "break":
        return 1 / value
    if what == "die":
        os.kill(os.getpid(), value)
    return sleep(value, {"nap": 0.3, "sleep": 60.0}[what])


def sleep(folder: str, duration_s: float) -> None:
    """Say that it works, then how it was ended."""
    mine = Path(folder) / str(os.getpid())
    try:
        mine.with_suffix(".started").touch()
        time.sleep(duration_s)
    except Terminated:
        mine.with_suffix(".terminated").touch()
        raise


def collect(tasks: list[Any], jobs: int) -> dict[int, Any]:
    found: dict[int, Any] = {}
    work_through(tasks, do, jobs, found.__setitem__)
    return found


def wait_for(folder: Path, suffix: str, n: int) -> None:
    end = time.monotonic() + 30
    while len(list(folder.glob(f"*{suffix}"))) < n:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_each_task_has_its_result_whatever_happens_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS")
    tasks = [
        ("square", 3), ("refuse", 0), ("who", 0), ("break", 0), ("die", signal.SIGKILL), ("square", 4), ("who", 0),
        ("die", signal.SIGTERM), ("square", 5),
    ]  # fmt: skip
    found = collect(tasks, 2)
    assert sorted(found) == list(range(len(tasks)))
    assert [found[index] for index in (0, 5, 8)] == [9, 16, 25]
    assert found[1] == Failure("no such thing. Fix: leave it.")
    assert found[3] == Failure("ZeroDivisionError: division by zero")
    assert found[4] == Failure("its process was ended by SIGKILL")
    assert found[7] == Failure("its process ended with exit code 143")
    assert found[2][1:] == found[6][1:] == ("1", "1")
    assert os.getpid() not in (found[2][0], found[6][0])
    # only there: this process has what it had
    assert (os.environ["NUMBA_NUM_THREADS"], "OMP_NUM_THREADS" in os.environ) == ("2", False)


def test_nothing_to_do() -> None:
    assert collect([], 2) == {}


def test_a_process_does_many_tasks_and_an_error_of_the_caller_ends_it(tmp_path: Path) -> None:
    found: list[Any] = []

    def fail_at_last(index: int, answer: Any) -> None:
        found.append(answer)
        if index == 2:
            wait_for(tmp_path, ".started", 1)
            raise OSError("the disk is full")

    # the sleeper keeps one process busy, so that the other has all the rest
    tasks = [("sleep", str(tmp_path)), ("who", 0), ("who", 0), ("square", 1)]
    with pytest.raises(OSError, match="the disk is full"):
        work_through(tasks, do, 2, fail_at_last)
    assert len(found) == 2
    assert found[0] == found[1]
    assert len(list(tmp_path.glob("*.terminated"))) == 1


@pytest.mark.parametrize(("to_all", "jobs"), [(True, 2), (False, 1)], ids=["from the terminal", "to the parent alone"])
def test_ctrl_c_ends_all_at_once(spawn: Any, tmp_path: Path, to_all: bool, jobs: int) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_studies_pool as here\n"
        "try:\n"
        f"    here.work_through([('sleep', {str(tmp_path)!r})] * 3, here.do, {jobs}, print)\n"
        "except KeyboardInterrupt:\n"
        "    sys.exit(130)\n"
    )
    process = spawn("-c", code, before=os.setpgrp)
    wait_for(tmp_path, ".started", jobs)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    assert process.communicate(timeout=15) == ("", "")
    assert process.returncode == 130
    # tasks under way were told; the last never began
    assert len(list(tmp_path.glob("*.terminated"))) == len(list(tmp_path.glob("*.started"))) == jobs


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_when_this_one_is_killed(spawn: Any, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_studies_pool as here\n"
        f"here.work_through([('nap', {str(tmp_path)!r})] * 9, here.do, 1, lambda *_: None)\n"
    )
    process = spawn("-c", code)
    wait_for(tmp_path, ".started", 1)
    process.kill()
    process.wait(10)
    # The task under way ends in peace; nobody is there to give another.
    worker = Path("/proc") / next(tmp_path.glob("*.started")).stem
    end = time.monotonic() + 10
    while worker.exists() and worker.joinpath("stat").read_text().split()[2] != "Z":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert not list(tmp_path.glob("*.terminated"))
