"""`hil lsm nmnist` and `hil lsm ntidigits`: one run of a network or a baseline, or two backends side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.cli.calibration_note import calibration_note
from hil.cli.lsm_output import faults_rows, percent, save_figures, with_interval
from hil.cli.lsm_run import (
    check_same_shape,
    few_threads,
    load_dataset,
    load_vision,
    make_array,
    start_run,
    start_run_on_host,
)
from hil.cli.terminal import print_table, progress_bars
from hil.errors import ConfigError
from hil.progress import Progress

if TYPE_CHECKING:
    from hil.fault_map import FaultMap


@dataclass(frozen=True)
class Task:
    """A supervised experiment.

    Attributes:
        name: of the command.
        load: its data.
        paper: what the paper reports, by model.
    """

    name: str
    load: Callable[[Any, Progress], Any]
    paper: dict[str, str]


def load_audio(settings: Any, progress: Progress) -> Any:
    from experiments.datasets.audio import load_audio as load

    return load(settings.audio, progress)


TASKS = {
    "nmnist": Task(
        "nmnist",
        load_vision,
        {
            "lsm": "89.66 % on the chip, 89.11 % in software (paper protocol)",
            "srnn-ann": "96.96 % (paper protocol)",
            "srnn-snn": "93.93 % (paper protocol)",
            "rnn": "96.23 % (paper protocol)",
        },
    ),
    "ntidigits": Task(
        "ntidigits",
        load_audio,
        {
            "lsm": "70.11 % on the chip, 70.79 % in software (paper protocol, N-TIDIGITS)",
            "srnn-ann": "82.62 % (paper protocol, N-TIDIGITS)",
            "srnn-snn": "63.75 % (paper protocol, N-TIDIGITS)",
            "rnn": "75.54 % (paper protocol, N-TIDIGITS)",
        },
    ),
}


def classify(
    task: Task,
    settings: Any,
    backend_name: str,
    fault_map: FaultMap | None,
    seed: int,
    chip_seed: int,
    out: Path,
) -> dict[str, Any]:
    """Encode, train, score; what came out, as JSON can hold it."""
    from experiments.lsm import supervised
    from hil.session import open_session

    array = make_array(backend_name, settings, chip_seed)
    with progress_bars() as progress:
        dataset = load_dataset(settings, [array], fault_map, seed, progress, task.load)
        with few_threads(settings):
            tables = supervised.tables(settings.lsm.n_neurons)
            run_file = start_run(out, f"lsm-{task.name}", tables, settings, array, array.identity, seed)
            with run_file, open_session(array.backend, array.limits) as session:
                outcome = supervised.run(
                    session, dataset, settings, run_file, seed=seed, fault_map=fault_map, progress=progress
                )
    return {
        "experiment": f"lsm {task.name}",
        "backend": array.shown,
        "calibration": array.backend.info.calibration_id,
        "calibration_text": calibration_note(array.backend.info),
        "seed": seed,
        "chip_seed": chip_seed,
        **supervised.summary(outcome, dataset),
        "run_file": str(run_file.path),
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def train_baseline(task: Task, settings: Any, model: str, seed: int, out: Path) -> dict[str, Any]:
    """Train a baseline on the host; what came out, as JSON can hold it."""
    from experiments.baselines import supervised

    with progress_bars() as progress:
        dataset = task.load(settings, progress)
        run_file = start_run_on_host(out, f"lsm-{task.name}", supervised.tables(), settings, seed)
        with few_threads(settings), run_file:
            outcome = supervised.run(dataset, model, settings, run_file, seed=seed, progress=progress)
    return {
        "experiment": f"lsm {task.name}",
        "backend": "none: trained on the host",
        "seed": seed,
        **supervised.summary(outcome, dataset),
        "run_file": str(run_file.path),
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def compare(
    task: Task,
    settings: Any,
    backend_name: str,
    against_name: str,
    fault_map: FaultMap | None,
    n_samples: int,
    repeats: int,
    seed: int,
    chip_seed: int,
    out: Path,
) -> dict[str, Any]:
    """Two backends on the same test recordings; what came out, as JSON can hold it."""
    from experiments.lsm import side_by_side
    from hil.session import open_session

    if n_samples < 1:
        raise ConfigError(f"--samples {n_samples} is below 1", fix="compare at least one test recording")
    array = make_array(backend_name, settings, chip_seed)
    # Behind a daemon the chip may have been drawn by another seed: the same chip is what can be compared.
    chip_seed = array.identity.get("seed", chip_seed)
    against = make_array(against_name, settings, chip_seed)
    check_same_shape(array, against)
    with progress_bars() as progress:
        dataset = load_dataset(settings, [array, against], fault_map, seed, progress, task.load)
        side_by_side.draw_samples(len(dataset.test), n_samples, seed)
        with few_threads(settings):
            tables = side_by_side.tables(settings.lsm.n_neurons)
            reference_identity = {**against.identity, "calibration": against.backend.info.calibration_id}
            identity = {**array.identity, "against": reference_identity}
            run_file = start_run(out, f"lsm-{task.name}-compare", tables, settings, array, identity, seed)
            # One inside the other, so that each array ends at zero bias whatever happens to the other.
            with (
                run_file,
                open_session(against.backend, against.limits) as reference,
                open_session(array.backend, array.limits) as session,
            ):
                outcome = side_by_side.run(
                    session,
                    reference,
                    dataset,
                    settings,
                    run_file,
                    n_samples=n_samples,
                    seed=seed,
                    repeats=repeats,
                    fault_map=fault_map,
                    progress=progress,
                )
    return {
        "experiment": f"lsm {task.name} compare",
        "backend": array.shown,
        "against": against.shown,
        "calibration": array.backend.info.calibration_id,
        "calibration_text": calibration_note(array.backend.info),
        "calibration_against": against.backend.info.calibration_id,
        "calibration_text_against": calibration_note(against.backend.info),
        "seed": seed,
        "chip_seed": chip_seed,
        **side_by_side.summary(outcome, dataset),
        "run_file": str(run_file.path),
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def show_classified(result: dict[str, Any]) -> None:
    """Print one run of the network or of a baseline."""
    task = TASKS[result["experiment"].split()[1]]
    rows = [
        ("data", f"{result['data_source']}"),
        ("samples", f"{result['n_train']} for training, {result['n_test']} for testing"),
        *_where_rows(result),
        *faults_rows(result),
        ("honest protocol", with_interval(result["honest_accuracy"], result["accuracy_interval"])),
        *_speaker_rows(result.get("leave_one_speaker_out")),
        ("paper protocol", f"{percent(result['paper_accuracy'])}   best epoch chosen on the test data, as published"),
        (f"the paper, {result['model']}", task.paper[result["model"]]),
        ("time", f"{result['wall_s']:.1f} s"),
    ]
    if result["spike_rate_per_step"] is not None:
        rows.insert(-1, ("spikes", f"{percent(result['spike_rate_per_step'])} of all neuron steps"))
    if result["data_note"]:
        rows.insert(2, ("note", result["data_note"]))
    title = "Liquid state machine, supervised" if result["model"] == "lsm" else f"Baseline {result['model']}"
    print_table(title, ("what", "value"), rows)


def _where_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    if "chip_seed" not in result:
        return [("where", result["backend"])]
    return [("backend", f"{result['backend']}, seed {result['chip_seed']}, calibration: {result['calibration_text']}")]


def _speaker_rows(left_out: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Accuracy on speakers that training never heard, where the data say who speaks."""
    if left_out is None:
        return []
    each = ", ".join(f"{entry['speaker']} {100 * entry['accuracy']:.1f} %" for entry in left_out["speakers"])
    return [("... unheard speakers", f"{percent(left_out['mean_accuracy'])}   {each}")]


def _repeats_rows(result: dict[str, Any], correlation: Callable[[float | None], str]) -> list[tuple[str, str]]:
    """What repeats tell: how well each agrees with itself, and what is left of the difference without noise."""
    if "n_repeats" not in result:
        return []
    interval = result["corrected_correlation_interval"]
    corrected = correlation(result["corrected_correlation"])
    if interval is not None:
        corrected += f"   95 % interval {interval[0]:.4f} to {interval[1]:.4f}"
    own = (result["repeat_correlation"], result["repeat_correlation_against"])
    return [
        ("... repeats of itself", " and ".join(correlation(value) for value in own) + "   backend and reference"),
        ("... without noise", corrected),
        (
            "difference, all repeats",
            with_interval(
                result["accuracy_pooled_difference"], result["accuracy_pooled_difference_interval"], sign=True
            ),
        ),
    ]


def show_compared(result: dict[str, Any]) -> None:
    """Print two backends side by side."""

    def correlation(value: float | None) -> str:
        return "not defined: the counts do not vary" if value is None else f"{value:.4f}"

    backend, against = result["backend"], f"reference {result['against']}"
    rows = [
        ("data", f"{result['data_source']}"),
        ("samples", f"{result['n_train']} for training, {result['n_samples']} of {result['n_test']} for comparing"),
        ("backend", f"{backend}, seed {result['chip_seed']}, calibration: {result['calibration_text']}"),
        (
            "against",
            f"{result['against']}, seed {result['chip_seed']}, calibration: {result['calibration_text_against']}",
        ),
        *faults_rows(result),
        (f"accuracy, {backend}", with_interval(result["honest_accuracy"], result["accuracy_interval"])),
        (
            f"accuracy, {against}",
            with_interval(result["honest_accuracy_against"], result["accuracy_interval_against"]),
        ),
        (
            "difference",
            with_interval(result["accuracy_difference"], result["accuracy_difference_interval"], sign=True),
        ),
        ("count correlation", f"{correlation(result['count_correlation'])}   over all neurons and recordings"),
        (
            "... per neuron",
            f"{correlation(result['count_correlation_by_neuron'])}   mean of {result['n_neurons_correlated']} neurons",
        ),
        *_repeats_rows(result, correlation),
        ("mean count", f"{result['count_mean']:.3f}   {result['count_mean_difference']:+.3f} to the reference"),
        *((f"{backend}: {key}", f"{value:g}") for key, value in result["telemetry"].items() if value),
        ("time", f"{result['wall_s']:.1f} s"),
    ]
    if result["data_note"]:
        rows.insert(2, ("note", result["data_note"]))
    print_table("Liquid state machine, two backends side by side", ("what", "value"), rows)
