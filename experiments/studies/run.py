"""Run a study: what is there already is used, the rest runs in parallel, and an index says how far it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import style
from experiments.studies.figures import accuracy_png, title_of
from experiments.studies.grid import Point, key_of, runs_in
from experiments.studies.pool import Failure, work_through
from experiments.studies.results import PointResult, as_csv, over_seeds
from experiments.studies.table import Study
from hil.errors import DataError
from hil.progress import Progress, no_progress

INDEX, TABLE, FIGURE = "study.json", "study.csv", "study.png"


@dataclass(frozen=True)
class Task:
    """What a process is told: one point.

    Attributes:
        experiment: name in the table of experiments.
        backend: its name.
        point: value, seed and configuration.
        folder: of the run file.
    """

    experiment: str
    backend: str
    point: Point
    folder: Path


@dataclass(frozen=True)
class StudyOutcome:
    """What a study found.

    Attributes:
        study: the axis.
        experiment, backend: what was run on what.
        folder: of all its files.
        results: of every point, in the order of the grid.
    """

    study: Study
    experiment: str
    backend: str
    folder: Path
    results: list[PointResult]

    @property
    def failed(self) -> list[PointResult]:
        """Points without a run file."""
        return [result for result in self.results if result.run_file is None]

    def _of_data(self, name: str) -> Any:
        """What the runs say of their data; None before there is one."""
        return next((result.summary[name] for result in self.results if name in result.summary), None)

    def described(self) -> dict[str, Any]:
        """As JSON can hold it."""
        study = self.study
        return {
            "study": study.name,
            "experiment": f"lsm {self.experiment}",
            "backend": self.backend,
            "axis": study.axis,
            "axis_unit": study.unit,
            "axis_scale": study.scale,
            "settings": dict(study.keys),
            "paper_value": study.paper,
            "fair": study.fair,
            "protocol": "honest",
            **{name: self._of_data(name) for name in ("dataset", "data_source", "data_synthetic", "data_note")},
            "means": over_seeds(self.results),
            "points": [result.described() for result in self.results],
        }


def run_study(
    study: Study,
    points: Sequence[Point],
    folder: Path,
    work: Callable[[Task], Path],
    *,
    experiment: str,
    backend: str,
    jobs: int,
    before: Callable[[Point], object] | None = None,
    progress: Progress = no_progress,
) -> StudyOutcome:
    """Run every point of which the folder has no complete run file, then write table and figure.

    The index is written at the start and after every point: it always says what is done. Runs that were cut off stay
    as they are, and their points run again.

    Args:
        study: the axis.
        points: the grid.
        folder: of all files of the study; made if missing.
        work: runs one point in a process of its own, and names its run file; a function of a module.
        experiment, backend: what runs on what.
        jobs: processes at once.
        before: called once with the first point that is to run; brings the data where all processes find them.
        progress: told on the way.

    Raises:
        RunFileError: the folder cannot be written.
    """
    there = runs_in(folder)
    results: dict[int, PointResult] = {}
    for number, point in enumerate(points):
        path = there.get(key_of(point, f"lsm-{experiment}", backend))
        if path is not None:
            results[number] = PointResult.read(point.value, point.seed, path, reused=True)
    missing = [number for number in range(len(points)) if number not in results]

    def so_far() -> StudyOutcome:
        return StudyOutcome(study, experiment, backend, folder, [results[number] for number in sorted(results)])

    def keep(index: int, answer: Any) -> None:
        number = missing[index]
        results[number] = _result(points[number], answer)
        _write_index(so_far())
        progress(study.name, len(results), len(points), _note(study, results[number]))

    progress(study.name, len(results), len(points))
    if missing:
        # What is there may be of other settings.
        for name in (TABLE, FIGURE):
            (folder / name).unlink(missing_ok=True)
        _write_index(so_far())
        if before is not None:
            before(points[missing[0]])
        tasks = [Task(experiment, backend, points[number], folder) for number in missing]
        work_through(tasks, work, jobs, keep)
    outcome = so_far()
    _write_index(outcome)
    style.write_aside(folder / TABLE, as_csv(outcome.results).encode())
    if len(outcome.failed) < len(outcome.results):
        title = title_of(study, experiment, outcome.results)
        style.write_aside(folder / FIGURE, accuracy_png(study, outcome.results, title))
    return outcome


def _result(point: Point, answer: Any) -> PointResult:
    if isinstance(answer, Failure):
        return PointResult(point.value, point.seed, None, {}, failure=answer.reason)
    try:
        return PointResult.read(point.value, point.seed, answer, reused=False)
    except DataError as error:
        return PointResult(point.value, point.seed, None, {}, failure=str(error))


def _note(study: Study, result: PointResult) -> str:
    where = f"{study.shown(result.value)}, seed {result.seed}"
    return f"{where}: failed" if result.failure else f"{where}: {100 * result.summary['honest_accuracy']:.1f} %"


def _write_index(outcome: StudyOutcome) -> None:
    text = json.dumps(outcome.described(), indent=1)
    style.write_aside(outcome.folder / INDEX, text.encode())
