"""Small simulated arrays, and run files for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.array.record import tables
from hil.backend import CrossbarBackend
from hil.runfile import RunFile
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
