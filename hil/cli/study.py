"""`hil study`: one experiment over a grid of one setting, with several seeds, in parallel processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import BackendOption, ConfigOption, JsonOption, OutOption, SetOption
from hil.cli.terminal import print_json, print_table, progress_bars
from hil.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from experiments.studies.run import StudyOutcome, Task
    from experiments.studies.table import Study
    from hil.progress import Progress

EXAMPLES = """\b
Examples:
  hil study
  hil study read-noise --values 0,0.1 --seeds 1
  hil study --json
"""

#: backends of which several may run at once, and those that have a simulated chip
_IN_PARALLEL, _WITH_CHIP = ("sim",), ("sim", "emulator")


@dataclass(frozen=True)
class Experiment:
    """What a study repeats.

    Attributes:
        section: of the settings, for its data.
        defaults: settings of a study where the user gives none, so that it takes minutes.
        network: the whole configuration with the neurons of this experiment.
    """

    section: str
    defaults: dict[str, int]
    network: Callable[[Any], Any]


def _neurons_of_ntidigits(settings: Any) -> Any:
    from hil.cli.lsm_run import own_neurons

    return settings.model_copy(update={"lsm": own_neurons(settings, "ntidigits.neurons", settings.ntidigits.neurons)})


EXPERIMENTS = {
    "nmnist": Experiment("data", {"n_train": 3000}, lambda settings: settings),
    "ntidigits": Experiment("audio", {}, _neurons_of_ntidigits),
}


@reports_errors
def study(
    name: Annotated[str | None, typer.Argument(help="Which study; none: list them.", metavar="[NAME]")] = None,
    experiment: Annotated[
        str, typer.Option("--experiment", help="What is repeated: nmnist or ntidigits.", metavar="NAME")
    ] = "nmnist",
    values: Annotated[
        str | None, typer.Option("--values", help="Grid in units of the setting, as in 0,0.05,0.1.", metavar="V,V,...")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of each value: seeds 0 to N - 1.", metavar="N")] = 3,
    jobs: Annotated[
        int | None, typer.Option("--jobs", help="Processes at once. Default: as many as cores.", metavar="N")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Data set of the experiment.", metavar="NAME")
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="File or folder of the data set.", metavar="PATH")] = None,
    backend: BackendOption = "sim",
    config: ConfigOption = None,
    overrides: SetOption = None,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Accuracy against one setting: read noise, input noise, hidden size, input size, conductance spread, stuck cells.

    Each value runs with each seed, in parallel processes of one thread; a seed is a chip of its own, the same for all
    values. Everything is in OUT/study-NAME: a run file per point, study.json, study.csv and the figure study.png.

    A study that was stopped goes on where it was: a point whose complete run file is there, with the same settings and
    seed, does not run again. Points that fail are told with their reason, and the others go on.

    Without data.n_train, hil study trains nmnist on 3000 samples; accuracy is that of the honest protocol.
    """
    require_sim()
    from experiments.studies.grid import make_grid, parse_values
    from experiments.studies.run import run_study
    from experiments.studies.table import STUDIES, check_switches, find
    from hil.cli.settings import load_settings

    if name is None:
        _print_list(STUDIES, as_json=as_json)
        return
    chosen = find(name, experiment)
    made = EXPERIMENTS[experiment]
    n_jobs = _jobs(chosen, backend, jobs)
    texts = _with_data(made.section, dataset, data, list(overrides or ()))
    settings = load_settings(config, texts)
    check_switches(chosen, settings, texts)
    for key, value in made.defaults.items():
        if getattr(getattr(settings, made.section), key) is None:
            texts.append(f"{made.section}.{key}={value}")
    points = make_grid(
        chosen,
        chosen.values if values is None else parse_values(values),
        seeds,
        lambda varied: made.network(load_settings(config, [*texts, *varied])),
    )
    with progress_bars() as progress:
        outcome = run_study(
            chosen,
            points,
            out / f"study-{name}",
            run_point,
            experiment=experiment,
            backend=backend,
            jobs=n_jobs,
            before=lambda point: _load(experiment, point.settings, progress),
            progress=progress,
        )
    if as_json:
        print_json({**outcome.described(), "folder": str(outcome.folder)})
    else:
        _print_outcome(outcome)
    for result in outcome.failed:
        typer.echo(f"failed: {chosen.shown(result.value)}, seed {result.seed}: {result.failure}", err=True)
    if outcome.failed:
        raise typer.Exit(1)


def run_point(task: Task) -> Path:
    """Run one point in a process of its own; its run file."""
    from experiments.lsm import supervised
    from hil.cli.lsm_run import few_threads, load_dataset, make_array, start_run
    from hil.cli.lsm_supervised import TASKS
    from hil.progress import no_progress
    from hil.session import open_session

    settings, seed = task.point.settings, task.point.seed
    array = make_array(task.backend, settings, seed)
    dataset = load_dataset(settings, [array], None, seed, no_progress, TASKS[task.experiment].load)
    with few_threads(settings):
        tables = supervised.tables(settings.lsm.n_neurons)
        run_file = start_run(task.folder, f"lsm-{task.experiment}", tables, settings, array, array.identity, seed)
        with run_file, open_session(array.backend, array.limits) as session:
            supervised.run(session, dataset, settings, run_file, seed=seed)
    return run_file.path


def _load(experiment: str, settings: Any, progress: Progress) -> None:
    """Once, here, so that the processes find generated data in the cache instead of all making them."""
    from hil.cli.lsm_supervised import TASKS

    TASKS[experiment].load(settings, progress)


def _with_data(section: str, dataset: str | None, data: Path | None, texts: list[str]) -> list[str]:
    given = {"dataset": dataset, "path": None if data is None else str(data)}
    # As TOML strings, whose escapes are those of JSON.
    quoted = {key: json.dumps(text, ensure_ascii=False) for key, text in given.items() if text is not None}
    return [*texts, *(f"{section}.{key}={text}" for key, text in quoted.items())]


def _jobs(chosen: Study, backend: str, jobs: int | None) -> int:
    if chosen.of_chip and backend not in _WITH_CHIP:
        raise CapabilityError(
            f"study {chosen.name} varies a simulated chip, and backend {backend!r} has none",
            fix=f"use --backend {' or '.join(_WITH_CHIP)}, or another study",
        )
    if jobs is None:
        return _cores() if backend in _IN_PARALLEL else 1
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs} is below 1", fix="use one process at least")
    if jobs > 1 and backend not in _IN_PARALLEL:
        raise ConfigError(
            f"--jobs {jobs}, but backend {backend!r} serves one process at a time", fix="use --jobs 1, or --backend sim"
        )
    return jobs


def _cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _print_list(studies: tuple[Study, ...], *, as_json: bool) -> None:
    if as_json:
        listed = [
            {"study": one.name, "axis": one.axis, "settings": dict(one.keys), "values": one.values,
             "paper_value": one.paper, "experiments": one.experiments, "fair": one.fair}
            for one in studies
        ]  # fmt: skip
        print_json({"studies": listed})
        return
    rows = [
        (one.name, one.label, ", ".join(f"{value * one.scale:g}" for value in one.values), ", ".join(one.experiments))
        for one in studies
    ]
    print_table("Studies: hil study NAME", ("name", "axis", "values", "experiments"), rows)


def _print_outcome(outcome: StudyOutcome) -> None:
    chosen, found = outcome.study, outcome.described()
    rows = [
        (
            chosen.shown(mean["value"]) + ("  (paper)" if mean["value"] == chosen.paper else ""),
            f"{100 * mean['honest_accuracy']:.2f} %",
            f"{100 * mean['interval'][0]:.2f} % to {100 * mean['interval'][1]:.2f} %",
            f"{100 * mean['paper_accuracy']:.2f} %",
            str(mean["n_seeds"]),
        )
        for mean in found["means"]
    ]
    header = (chosen.axis, "honest accuracy", f"95 % interval ({_method(found)})", "paper protocol", "seeds")
    print_table(f"Study {chosen.name}, {found['experiment']} on {outcome.backend}", header, rows)
    if found["data_source"]:
        typer.echo(f"data: {found['data_source']}" + (f" ({found['data_note']})" if found["data_note"] else ""))
    typer.echo(f"held equal: {chosen.fair}")
    n_reused = sum(result.reused for result in outcome.results)
    if n_reused:
        typer.echo(f"{n_reused} of {len(outcome.results)} points were there already")
    typer.echo(f"folder: {outcome.folder}")


def _method(found: dict[str, Any]) -> str:
    return " or ".join(dict.fromkeys(mean["interval_method"] for mean in found["means"]))
