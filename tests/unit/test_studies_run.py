"""A study: what is there is used, the rest runs, and the files say how far it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.studies.grid import Point, make_grid
from experiments.studies.pool import Failure
from experiments.studies.results import PointResult, over_seeds, t_interval
from experiments.studies.run import StudyOutcome, Task, run_study
from experiments.studies.table import find
from hil.config import Settings, load, setting
from hil.lsm.accuracy import wilson_interval
from hil.runfile import RunFile

STUDY = find("read-noise", "nmnist")


class Noise(Settings):
    relative: float = setting(0.02, "noise", source="test")


class Sim(Settings):
    noise: Noise = Noise()


class Whole(Settings):
    """A configuration with the one setting that the study varies, and another."""

    sim: Sim = Sim()
    note: str = setting("", "whatever", source="test")


def accuracy_of(point: Point) -> float:
    return 0.9 - point.value + 0.01 * point.seed


def write_run(task: Task, *, complete: bool = True) -> Path:
    """A run file as the experiment leaves it."""
    run_file = RunFile.create(
        task.folder,
        f"lsm-{task.experiment}",
        config=task.point.settings.model_dump(mode="json"),
        backend={"name": task.backend},
        calibration=None,
        seed=task.point.seed,
        software={},
        tables=[],
    )
    accuracy = accuracy_of(task.point)
    summary = {
        "dataset": "made-up",
        "data_synthetic": True,
        "n_train": 100,
        "n_test": 50,
        "honest_accuracy": accuracy,
        "accuracy_interval": list(wilson_interval(round(50 * accuracy), 50)),
        "paper_accuracy": accuracy + 0.02,
        "spike_rate_per_step": 0.05,
    }
    run_file.finish("complete" if complete else "aborted", {"summary": summary})
    return run_file.path


class Processes:
    """Stands in for them: does the work here, and knows what was done."""

    def __init__(self) -> None:
        self.ran: list[Task] = []
        self.refused: set[float] = set()
        self.stop_after = 1000
        self.dies_at = 1000

    def __call__(self, tasks: Sequence[Task], work: Callable[[Task], Path], jobs: int, done: Any) -> None:
        assert work is write_run
        for index, task in enumerate(tasks):
            if index == self.stop_after:
                raise KeyboardInterrupt
            self.ran.append(task)
            done(index, Failure("no luck") if task.point.value in self.refused else work(task))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    made = Processes()
    monkeypatch.setattr("experiments.studies.run.work_through", made)
    # drawn in test_study_figures.py
    monkeypatch.setattr("experiments.studies.run.accuracy_png", lambda *_: b"a picture")
    return made


def grid(values: Sequence[float] = (0.0, 0.1), n_seeds: int = 2, *more: str) -> list[Point]:
    return make_grid(STUDY, values, n_seeds, lambda texts: load(Whole, None, [*more, *texts]))


def run(folder: Path, points: list[Point] | None = None, **changed: Any) -> StudyOutcome:
    options: dict[str, Any] = {"experiment": "nmnist", "backend": "sim", "jobs": 2, **changed}
    return run_study(STUDY, grid() if points is None else points, folder, write_run, **options)


def index_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "study.json").read_text())
    assert isinstance(found, dict)
    return found


def test_every_point_has_its_run_file(processes: Processes, tmp_path: Path) -> None:
    outcome = run(tmp_path / "new")
    assert [(r.value, r.seed) for r in outcome.results] == [(0.0, 0), (0.1, 0), (0.0, 1), (0.1, 1)]
    assert len({r.run_file for r in outcome.results}) == len(processes.ran) == 4
    assert [r.summary["honest_accuracy"] for r in outcome.results] == pytest.approx([0.9, 0.8, 0.91, 0.81])
    assert {task.backend for task in processes.ran} == {"sim"}


def test_the_files_hold_the_numbers(processes: Processes, tmp_path: Path) -> None:
    run(tmp_path)
    index = index_of(tmp_path)
    assert (index["study"], index["experiment"], index["protocol"]) == ("read-noise", "lsm nmnist", "honest")
    assert [(m["value"], m["n_seeds"]) for m in index["means"]] == [(0.0, 2), (0.1, 2)]
    assert [m["honest_accuracy"] for m in index["means"]] == pytest.approx([0.905, 0.805])
    assert all((tmp_path / point["run_file"]).exists() for point in index["points"])
    with (tmp_path / "study.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line["honest_accuracy"]) for line in lines] == pytest.approx([0.9, 0.8, 0.91, 0.81])
    assert (tmp_path / "study.png").read_bytes() == b"a picture"


def test_what_is_complete_does_not_run_again(processes: Processes, tmp_path: Path) -> None:
    before = run(tmp_path)
    processes.ran.clear()
    loaded: list[Point] = []
    again = run(tmp_path, before=loaded.append)
    assert processes.ran == loaded == []
    assert [r.run_file for r in again.results] == [r.run_file for r in before.results]
    assert (any(r.reused for r in before.results), all(r.reused for r in again.results)) == (False, True)
    # a finer grid with more seeds runs only what is new
    run(tmp_path, grid((0.0, 0.05, 0.1), 3))
    assert sorted((t.point.value, t.point.seed) for t in processes.ran) == [
        (0.0, 2), (0.05, 0), (0.05, 1), (0.05, 2), (0.1, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["settings", "backend", "experiment"])
def test_a_run_of_something_else_does_not_count(processes: Processes, tmp_path: Path, what: str) -> None:
    run(tmp_path)
    processes.ran.clear()
    if what == "settings":
        run(tmp_path, grid((0.0, 0.1), 2, "note=other"))
    else:
        run(tmp_path, **{what: "other"})
    assert len(processes.ran) == 4


def test_a_run_that_was_cut_off_does_not_count(processes: Processes, tmp_path: Path) -> None:
    points = grid()
    aborted = write_run(Task("nmnist", "sim", points[0], tmp_path), complete=False)
    (tmp_path / "20260101T000000Z-lsm-nmnist-00000000.h5").write_bytes(b"torn")
    outcome = run(tmp_path, points)
    assert len(processes.ran) == 4
    assert aborted not in [r.run_file for r in outcome.results]
    assert aborted.exists()


def test_an_interrupted_study_goes_on_where_it_was(processes: Processes, tmp_path: Path) -> None:
    processes.stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert [point["seed"] for point in index_of(tmp_path)["points"]] == [0, 0, 1]
    processes.stop_after = 1000
    outcome = run(tmp_path)
    assert [(t.point.value, t.point.seed) for t in processes.ran[3:]] == [(0.1, 1)]
    assert len(list(tmp_path.glob("*.h5"))) == len(outcome.results) == 4


def test_a_point_that_fails_is_told_and_runs_again(processes: Processes, tmp_path: Path) -> None:
    processes.refused = {0.1}
    outcome = run(tmp_path)
    assert [(r.value, r.seed, r.failure) for r in outcome.failed] == [(0.1, 0, "no luck"), (0.1, 1, "no luck")]
    assert [point["failure"] for point in index_of(tmp_path)["points"]] == [None, "no luck", None, "no luck"]
    # what there is, is drawn
    assert [m["value"] for m in index_of(tmp_path)["means"]] == [0.0]
    assert (tmp_path / "study.png").exists()
    processes.refused.clear()
    processes.ran.clear()
    assert run(tmp_path).failed == []
    assert {t.point.value for t in processes.ran} == {0.1}


def test_a_study_of_which_nothing_worked_has_no_figure(processes: Processes, tmp_path: Path) -> None:
    run(tmp_path)
    assert (tmp_path / "study.png").exists()
    processes.refused = {0.0, 0.1}
    outcome = run(tmp_path, grid((0.0, 0.1), 2, "note=other"))
    assert len(outcome.failed) == 4
    # nor that of another time
    assert not (tmp_path / "study.png").exists()


def test_data_are_loaded_once_and_progress_is_told(processes: Processes, tmp_path: Path) -> None:
    loaded: list[Point] = []
    told: list[tuple[int, int, str]] = []
    run(tmp_path, before=loaded.append, progress=lambda what, done, total, note="": told.append((done, total, note)))
    assert len(loaded) == 1
    assert [entry[:2] for entry in told] == [(n, 4) for n in range(5)]
    assert told[1][2] == "0 %, seed 0: 90.0 %"


def test_a_study_that_stops_while_data_are_loaded_leaves_no_index_of_other_settings(
    processes: Processes, tmp_path: Path
) -> None:
    def stop(_: Point) -> None:
        raise KeyboardInterrupt

    run(tmp_path)
    assert len(index_of(tmp_path)["points"]) == 4
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, grid((0.0, 0.1), 2, "note=other"), before=stop)
    assert (index_of(tmp_path)["points"], index_of(tmp_path)["means"]) == ([], [])
    # of what is there already, the index says so
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, grid((0.0, 0.1, 0.2)), before=stop)
    assert [point["value"] for point in index_of(tmp_path)["points"]] == [0.0, 0.1, 0.0, 0.1]


def result(value: float, seed: int, accuracy: float) -> PointResult:
    interval = list(wilson_interval(round(200 * accuracy), 200))
    summary = {"honest_accuracy": accuracy, "paper_accuracy": accuracy, "accuracy_interval": interval}
    return PointResult(value, seed, Path("x.h5"), {**summary, "spike_rate_per_step": 0.1})


def test_intervals_over_seeds_are_students() -> None:
    # t = 4.302653 with two degrees of freedom
    low, high = t_interval(np.array([0.8, 0.82, 0.9]))
    half = 4.302653 * np.std([0.8, 0.82, 0.9], ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((0.84 - half, 0.84 + half))
    assert t_interval(np.array([0.99, 0.95]))[1] == 1.0
    assert t_interval(np.array([0.05, 0.01]))[0] == 0.0


def test_one_seed_has_the_interval_of_its_test_samples() -> None:
    means = over_seeds([result(0.1, 0, 0.8), result(0.0, 0, 0.9), result(0.0, 1, 0.92)])
    assert [(m["value"], m["n_seeds"], m["interval_method"]) for m in means] == [
        (0.0, 2, "t over seeds"),
        (0.1, 1, "Wilson, test samples"),
    ]
    assert means[0]["interval"] == pytest.approx(list(t_interval(np.array([0.9, 0.92]))))
    assert means[1]["interval"] == pytest.approx(list(wilson_interval(160, 200)))


def test_a_value_without_a_run_has_no_mean() -> None:
    failed = PointResult(0.2, 0, None, {}, failure="no")
    assert [m["value"] for m in over_seeds([result(0.0, 0, 0.9), failed])] == [0.0]
