"""What all tests share: few threads, a data cache of their own, the programs they start.

Two BLAS or OpenMP threads wait for each other whenever something else uses the machine, which makes small problems
take fifty times longer. The variables are set before any library reads them, and every subprocess inherits them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"
# One thread is used; two are there for the tests that compare one with two.
os.environ["NUMBA_NUM_THREADS"] = str(min(2, os.cpu_count() or 1))

import numba  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).parents[1]
numba.set_num_threads(1)
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", default=None, help="run the conformance suite on this backend, too")
    parser.addoption("--set", action="append", default=[], help="a setting for it, as KEY=VALUE")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """A test that changes the number of threads does not change it for the next."""
    yield
    numba.set_num_threads(1)
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generated data sets go to a folder of this session, never to the user's cache."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers: what one has generated, the other need not
    folder = folder / "data-cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSBAR_HIL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _no_daemon_stays() -> Iterator[None]:
    """Daemons that tests share end with the tests."""
    yield
    daemons = sys.modules.get("daemons")
    if daemons is not None:
        daemons.end_shared_daemons()


class Spawn:
    """Starts `python ARGUMENTS` at the root of the project, with one thread and pipes for its output."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: object, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        """Start it; `before` runs in the child before Python does."""

        def prepare() -> None:
            # A shell that starts the tests in the background has Ctrl-C ignored, which children inherit.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if before is not None:
                before()

        process = subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=prepare if os.name == "posix" else None,
        )
        self.started.append(process)
        return process


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts programs, and ends those that a test left behind."""
    spawner = Spawn()
    yield spawner
    for process in spawner.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
