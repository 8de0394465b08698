"""Runs of the characterisation procedures, as the command line starts and resumes them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array.outcome import Outcome
from experiments.array.procedures import Procedure, no_target
from experiments.array.run import Job, execute, resume, start
from experiments.array.settings import ArraySettings
from hil.backend import CrossbarBackend


def _job(backend: CrossbarBackend, verb: str, mask: NDArray[np.bool_], settings: Any, array: dict[str, Any]) -> Job:
    module = importlib.import_module(f"experiments.array.{verb}")
    procedure = Procedure(verb, getattr(module, verb), module.plan)
    job = Job(procedure, no_target(mask), ArraySettings(**{verb: settings}, **array), backend.info.limits)
    job.plan(backend.info)
    return job


def run_verb(
    folder: Path, backend: CrossbarBackend, verb: str, mask: NDArray[np.bool_], settings: Any, **array: Any
) -> Outcome:
    """One run from start to end; `array` are other settings of that section."""
    job = _job(backend, verb, mask, settings, array)
    return execute(job, backend, start(folder, job, backend.info, {}, 0, {}))[0]


def resume_verb(path: Path, backend: CrossbarBackend, verb: str, mask: NDArray[np.bool_], settings: Any) -> Outcome:
    """Continue a run that did not end well."""
    job = _job(backend, verb, mask, settings, {})
    run_file, history = resume(path, job, backend.info, {})
    return execute(job, backend, run_file, history)[0]
