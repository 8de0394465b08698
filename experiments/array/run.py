"""A run of one procedure, from the first row of its file to its end; and going on with one that was cut off."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.array.bench import Bench
from experiments.array.history import History
from experiments.array.outcome import Outcome, stored_results
from experiments.array.plan import Plan
from experiments.array.procedures import Procedure
from experiments.array.read import read_voltages
from experiments.array.record import Request, tables
from experiments.array.settings import ArraySettings
from hil.array_records import DONE
from hil.backend import BackendInfo, CrossbarBackend, Limits
from hil.errors import ConfigError, RunFileError
from hil.progress import Progress, no_progress
from hil.provenance import software_versions
from hil.runfile import RunFile, RunReader, open_run
from hil.session import open_session


@dataclass(frozen=True)
class Job:
    """A procedure, the cells, and what it may do.

    Attributes:
        procedure: which one.
        request: cells and targets.
        array: settings of all procedures.
        limits: of the session.
    """

    procedure: Procedure
    request: Request
    array: ArraySettings
    limits: Limits

    def plan(self, info: BackendInfo) -> Plan:
        """What it would do; raises what can be known to be wrong before anything is applied."""
        limited = replace(info, limits=self.limits)
        planned = self.procedure.planned(self.request, self.array, limited)
        usual_v = read_voltages(self.array.read)
        # Whatever else a procedure reads at, it also reads as all do.
        replace(planned, v_read_v=(*usual_v, *planned.v_read_v)).check(limited)
        return planned if planned.v_read_v else replace(planned, v_read_v=usual_v)

    def config(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Configuration of its run file; `extra` is what the caller needs to make the same backend again."""
        sections = self.array.model_dump(mode="json")
        used = ("cells_per_step", "read", self.procedure.verb)
        return {
            "verb": self.procedure.verb,
            "array": {name: sections[name] for name in used},
            "limits": vars(self.limits),
            **extra,
        }


def start(
    folder: Path, job: Job, info: BackendInfo, identity: dict[str, Any], seed: int, extra: dict[str, Any]
) -> RunFile:
    """A new run file, with the request on the disk."""
    run_file = RunFile.create(
        folder,
        f"array-{job.procedure.verb}",
        config=job.config(extra),
        backend=identity,
        calibration=info.calibration_id,
        seed=seed,
        software=software_versions(),
        tables=tables(info.shape),
    )
    try:
        run_file.append("request", **job.request.columns())
        run_file.flush(durable=True)
    except BaseException:
        _discard(run_file)
        raise
    return run_file


def _discard(run_file: RunFile) -> None:
    """Take away the file of a run that did not come as far as the array: there is nothing in it."""
    run_file.close()
    run_file.path.unlink(missing_ok=True)


def resume(path: Path, job: Job, info: BackendInfo, identity: dict[str, Any]) -> tuple[RunFile, History]:
    """Go on with a run that was cut off.

    Raises:
        ConfigError: other limits or another array than the run began with; nothing was changed.
        RunFileError: the run is complete, or goes on in another process.
    """
    with open_run(path) as reader:
        check_same(reader, job, info, identity)
    run_file = RunFile.resume(path, software=software_versions())
    try:
        with open_run(path) as reader:
            history = History.from_run(reader, info.shape)
    except BaseException:
        run_file.close()
        raise
    return run_file, history


def check_resumable(reader: RunReader, verb: str) -> None:
    """Refuse by name a run that is over, or of another procedure.

    Raises:
        ConfigError: of another procedure.
        RunFileError: it is complete.
    """
    found = reader.config.get("verb")
    if found != verb or "request" not in reader.tables:
        fix = f"use: hil array {found} --resume {reader.path}" if found else "name a run of hil array"
        raise ConfigError(f"{reader.path} is a run of {reader.experiment}, not of array-{verb}", fix=fix)
    if reader.status == "complete":
        raise RunFileError(f"run {reader.path} is complete", fix="start a new run")


def check_same(reader: RunReader, job: Job, info: BackendInfo, identity: dict[str, Any]) -> None:
    """Raise `ConfigError` where a run would go on under other conditions than it began with."""
    now = {"calibration": info.calibration_id, **_flat("limits", vars(job.limits)), **_flat("backend", identity)}
    then = {
        "calibration": reader.calibration,
        **_flat("limits", reader.config["limits"]),
        **_flat("backend", reader.backend),
    }
    for key in sorted(now.keys() | then.keys()):
        if now.get(key) != then.get(key):
            what = "another array" if key.startswith("backend") else "other conditions"
            raise ConfigError(
                f"{reader.path} began with {key} = {then.get(key)!r} and would go on with {now.get(key)!r}: {what}",
                fix="restore it, or start a new run",
            )


def _flat(prefix: str, tree: dict[str, Any]) -> dict[str, Any]:
    """Leaves of a tree by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        found = _flat(f"{prefix}.{key}", value) if isinstance(value, dict) else {f"{prefix}.{key}": value}
        leaves.update(found)
    return leaves


def execute(
    job: Job,
    backend: CrossbarBackend,
    run_file: RunFile,
    history: History | None = None,
    progress: Progress = no_progress,
) -> tuple[Outcome, dict[str, float]]:
    """Run the procedure, or what remains of it, and end its file; returns the outcome and the session's telemetry.

    The array is at zero bias when this returns or raises, and the file says how the run ended. There is no file if it
    was a new one and the backend could not be opened.

    Raises:
        ConfigError: the clock of the cells is behind the newest record of the run: they are not those of the run.
    """
    with run_file:
        with ExitStack() as stack:
            try:
                session = stack.enter_context(open_session(backend, job.limits))
            except BaseException:
                if history is None:
                    _discard(run_file)
                raise
            if history is not None:
                _check_clock(history, session.now_s())
            bench = Bench(
                session,
                run_file,
                read=job.array.read,
                history=history,
                cells_per_step=job.array.cells_per_step,
                progress=progress,
            )
            bench.read_uncertain()
            outcome = job.procedure.execute(bench, job.request, job.array)
            telemetry = session.telemetry().values
        run_file.finish("complete", stored_results(outcome, job.request.mask, bench.history))
    return outcome, telemetry


def _check_clock(history: History, now_s: float) -> None:
    """Raise `ConfigError` where time ran backwards: a chip that was drawn anew knows nothing of what the run did."""
    newest_s = max((op.t_array_s for op in history.operations if op.status == DONE), default=now_s)
    if now_s < newest_s:
        raise ConfigError(
            f"the clock of the array says {now_s:.9g} s, the newest record of this run {newest_s:.9g} s: "
            "these are other cells, or their clock was set back",
            fix="bring back the file of the simulated chip, or set the clock of the board; else start a new run",
        )
