"""A bench on a small simulated array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from small_arrays import new_run, pristine_sim

from experiments.array.bench import Bench
from hil.backend import CrossbarBackend
from hil.session import open_session


@pytest.fixture(scope="session", autouse=True)
def _quick_run_files() -> Iterator[None]:
    """Hundreds of runs: no power cut is meant here, and asking for the versions of packages takes longer than a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: None)
        patch.setattr("experiments.array.run.software_versions", dict)
        yield


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """Makes benches: `make_bench(backend, **options of Bench)`; their run files and sessions end with the test.

    Their rows reach the file at its end only: nobody is killed here, and most of the time would go into flushing.
    """
    with ExitStack() as stack:

        def make(backend: CrossbarBackend | None = None, **options: Any) -> Bench:
            backend = backend or pristine_sim()
            run_file = stack.enter_context(new_run(tmp_path, backend))
            run_file.flush = lambda *, durable=False: None  # type: ignore[method-assign]
            session = stack.enter_context(open_session(backend))
            return Bench(session, run_file, **options)

        yield make
