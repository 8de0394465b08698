"""A run of the lab bench on the board of the kill tests; started again, it goes on with the run that is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from boards import profile
from kill.daemon_process import BusLine
from kill.processes import die_with_parent, log_to

from experiments.array.procedures import procedure
from experiments.array.record import Request
from experiments.array.run import Job, execute, resume, start
from experiments.array.settings import ArraySettings
from firmware_bridge.board_backend import BoardBackend
from hil.errors import DataError
from hil.runfile import open_run

#: rows of the board that the run is about
N_ROWS = 12


def run(bus: str, tree: Mapping[str, Any], folder: Path, verb: str, array: Mapping[str, Any]) -> None:
    """Run a verb on all cells; `array` are settings."""
    log_to(folder / "bench.log")
    die_with_parent()
    backend = BoardBackend(BusLine(bus), profile(dict(tree)), name="emulator")
    info = backend.info
    target_s = np.full(info.shape, np.nan, np.float32)
    if verb == "program":
        target_s[:] = np.linspace(4e-6, 16e-6, info.shape[1])
    mask = np.zeros(info.shape, np.bool_)
    mask[:N_ROWS] = True
    request = Request(mask, target_s)
    settings = ArraySettings.model_validate(dict(array))
    job = Job(procedure(verb), request, settings, info.limits)
    found = run_of(folder, info.shape)
    if found is None:
        run_file, history = start(folder, job, info, info.identity, 0, {}), None
    elif is_complete(found):
        return  # killed after its last act
    else:
        run_file, history = resume(found, job, info, info.identity)
    execute(job, backend, run_file, history)


def is_complete(path: Path) -> bool:
    with open_run(path) as reader:
        return reader.status == "complete"


def run_of(folder: Path, shape: tuple[int, int]) -> Path | None:
    """The run of a folder, if one has begun."""
    for path in folder.glob("*.h5"):
        with open_run(path) as reader:
            try:
                Request.from_run(reader, shape)
            except DataError:
                # Killed before the first operation: a user begins anew.
                path.unlink()
                return None
        return path
    return None
