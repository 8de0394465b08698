"""A bench on a small simulated array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from experiments.array.bench import Bench
from experiments.array.record import tables
from hil.backend import CrossbarBackend
from hil.runfile import RunFile
from hil.session import open_session
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings


def pristine_sim(rows: int = 16, cols: int = 16, *, seed: int = 1, **settings: Any) -> SimBackend:
    """A simulated array of unformed cells."""
    return SimBackend(SimSettings(rows=rows, cols=cols, forming={"formed": False}, **settings), seed=seed)


def new_run(folder: Path, backend: CrossbarBackend) -> RunFile:
    """A run file with the tables of an array."""
    return RunFile.create(
        folder,
        "array-test",
        config={},
        backend={},
        calibration=None,
        seed=0,
        software={},
        tables=tables(backend.info.shape),
    )


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes benches: `make_bench(backend, **options of Bench)`; their run files and sessions end with the test."""
    with ExitStack() as stack:

        def make(backend: CrossbarBackend | None = None, **options: Any) -> Bench:
            backend = backend or pristine_sim()
            run_file = stack.enter_context(new_run(tmp_path, backend))
            session = stack.enter_context(open_session(backend))
            return Bench(session, run_file, **options)

        yield make
