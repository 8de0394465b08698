"""A run that is stopped, killed, or out of disk space leaves a readable run file that says so."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.errors import DataError
from hil.runfile import open_run

if sys.platform != "win32":
    import resource

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")

PROGRAM = "from hil.cli import main; main()"
#: many small, slow batches, so that there is a middle to stop in
SLOW = ("lsm.batch=4", "sim.fidelity=conversion", "lsm.n_neurons=100", "data.n_train=1400")


def start(spawn: Any, small: list[str], out: Path, **options: Any) -> Any:
    slow = [part for text in SLOW for part in ("--set", text)]
    return spawn("-c", PROGRAM, "lsm", "nmnist", *small, *slow, "--out", out, **options)


def rows_in(out: Path) -> int:
    path = next(out.glob("*.h5"), None)
    if path is None:
        return 0
    with suppress(DataError), open_run(path) as reader:  # it may be between two states
        return reader.row_count("counts_train")
    return 0


def wait_for_rows(process: Any, out: Path) -> int:
    end = time.monotonic() + 60
    while not (rows := rows_in(out)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    return rows


def check_rows(reader: Any) -> int:
    table = reader.table("counts_train")
    n = len(table["sample"])
    np.testing.assert_array_equal(table["sample"], np.arange(n))
    assert table["counts"].shape == (n, 100)
    assert n == 0 or table["counts"].any(axis=1).mean() > 0.9
    return n


_is_warm: list[bool] = []


@pytest.fixture
def _warm_cache(hil: Any, small: list[str]) -> None:
    """The data set is generated already, and kernels and fonts are on disk: what follows writes the run file only."""
    if not _is_warm:
        assert hil("lsm", "nmnist", *small, "--json").code == 0
        _is_warm.append(True)


@pytest.mark.usefixtures("_warm_cache")
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "stopped by Ctrl-C; the array is at zero bias"),
        (signal.SIGTERM, 143, "stopped by SIGTERM; the array is at zero bias"),
    ],
)
def test_stopped(spawn: Any, small: list[str], tmp_path: Path, number: int, code: int, words: str) -> None:
    out = tmp_path / "out"
    process = start(spawn, small, out)
    rows = wait_for_rows(process, out)
    process.send_signal(number)
    output, noise = process.communicate(timeout=30)
    assert process.returncode == code
    assert (output, noise) == ("", f"{words}\n")
    (path,) = out.iterdir()
    with open_run(path) as reader:
        assert reader.status == "aborted"
        assert reader.cause.startswith({signal.SIGINT: "KeyboardInterrupt", signal.SIGTERM: "Terminated"}[number])
        assert reader.ended_unix_s is not None
        assert rows <= check_rows(reader) < 1400


@pytest.mark.usefixtures("_warm_cache")
def test_killed(spawn: Any, small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(spawn, small, out)
    rows = wait_for_rows(process, out)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    (path,) = out.iterdir()
    with open_run(path) as reader:
        assert (reader.status, reader.ended_unix_s) == ("incomplete", None)
        assert rows <= check_rows(reader) < 1400
        assert reader.config["lsm"]["n_neurons"] == 100


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE of Linux")
@pytest.mark.usefixtures("_warm_cache")
@pytest.mark.parametrize(
    ("limit_bytes", "changed"),
    [(300_000, SLOW), (600_000, ("lsm.n_neurons=100", "data.n_train=1000"))],
    ids=["while encoding", "with the results"],
)
def test_disk_full(spawn: Any, small: list[str], tmp_path: Path, limit_bytes: int, changed: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    process = spawn(
        "-c", PROGRAM, "lsm", "nmnist", *small, *(part for text in changed for part in ("--set", text)), "--out", out,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
    )  # fmt: skip
    output, noise = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, ""), noise
    (path,) = out.iterdir()
    last = noise.splitlines()[-1]
    assert last.startswith(f"error: run file {path} cannot be written: File too large")
    assert "Fix: free space on that disk" in last
    assert "Traceback" not in noise
    with open_run(path) as reader:
        assert reader.status == "incomplete"
        n = check_rows(reader)
    assert f"counts_train: {n}," in last
    assert n == 1000 if changed is not SLOW else 0 < n < 1400


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE of Linux")
@pytest.mark.usefixtures("_warm_cache")
def test_disk_full_from_the_start(spawn: Any, small: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = spawn(
        "-c", PROGRAM, "lsm", "nmnist", *small, "--out", out,
        before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    output, noise = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert noise.startswith("error: run file ")
    assert noise.count("\n") == 1
    assert list(out.iterdir()) == []
