"""Supervised classification by a trained recurrent network, scored as the random network is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.baselines.figures import learning_png
from experiments.baselines.settings import SUPERVISED_MODELS, BaselineSettings
from experiments.baselines.supervised_protocols import BothScored, both_protocols
from experiments.baselines.training import Epoch, torch_threads
from experiments.datasets import SpikeDataset
from experiments.lsm.figures import confusion_png
from hil.errors import ConfigError
from hil.lsm.accuracy import confusion
from hil.progress import Progress, no_progress
from hil.runfile import Column, RunFile, TableSpec

__all__ = ["SUPERVISED_MODELS", "Outcome", "run", "summary", "tables"]

_SCORES = ("validation_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Outcome:
    """What a run found: the model, its scores, and the figures (PNG by name) that the run file holds."""

    model: str
    scored: BothScored
    figures: dict[str, bytes]


def tables() -> list[TableSpec]:
    """Tables of the run file: the course of both trainings, as it is measured."""
    columns = [
        Column("training", "S10", ""),
        Column("epoch", np.int64, "1"),
        Column("loss", np.float64, "1"),
        Column("train_accuracy", np.float64, "1"),
        *(Column(score, np.float64, "1") for score in _SCORES),
    ]
    text = (
        "after each epoch; training 'validation' leaves out the validation part, 'all' uses all training data; loss "
        "and train_accuracy are means over the epoch; NaN where a score is not taken"
    )
    return [TableSpec("history", columns, text)]


def run(
    dataset: SpikeDataset,
    model: str,
    settings: Any,
    run_file: RunFile,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> Outcome:
    """Train, score by both protocols, draw the figures, and complete the run file.

    Args:
        dataset: packed spikes; its raster is used as it is.
        model: one of `SUPERVISED_MODELS`.
        settings: has a section `baseline`.
        run_file: made with `tables`; completed here.
        seed: of the validation split, the weights before training and the order of the samples.
        progress: told on the way.

    Raises:
        ConfigError: unknown model; too few samples to hold any out.
    """
    if model not in SUPERVISED_MODELS:
        raise ConfigError(f"unknown baseline {model!r}", fix=f"choose one of {', '.join(SUPERVISED_MODELS)}")
    baseline: BaselineSettings = settings.baseline

    def note(training: str, epoch: Epoch, scores: dict[str, float]) -> None:
        taken = {name: scores.get(name, np.nan) for name in _SCORES}
        run_file.append(
            "history",
            training=training,
            epoch=epoch.number,
            loss=epoch.loss,
            train_accuracy=epoch.accuracy,
            **taken,
        )

    with torch_threads(baseline.threads):
        scored = both_protocols(dataset, model, baseline, seed=seed, note=note, progress=progress)
    table = confusion(dataset.test.labels, scored.honest.predicted, dataset.n_classes)
    percent, n_test = 100 * scored.honest.accuracy, len(dataset.test)
    title = f"{model} on {dataset.name}, honest protocol: {percent:.2f} % of {n_test} test samples"
    pictures = {
        "confusion": confusion_png(table, title),
        "learning": learning_png(scored.curves, scored.honest.epochs, f"{model} on {dataset.name}"),
    }
    outcome = Outcome(model, scored, pictures)
    results = {
        "confusion_matrix": table,
        "predicted": scored.honest.predicted,
        **{f"weights_{name.replace('.', '_')}": value for name, value in scored.weights.items()},
        "summary": summary(outcome, dataset),
    }
    run_file.finish("complete", {**results, **pictures})
    return outcome


def summary(outcome: Outcome, dataset: SpikeDataset) -> dict[str, Any]:
    """What a report says about a run, as JSON can hold it."""
    scored = outcome.scored
    return {
        "model": outcome.model,
        **dataset.described(),
        "honest_accuracy": scored.honest.accuracy,
        "accuracy_interval": list(scored.honest.interval),
        "validation_accuracy": scored.validation_accuracy,
        "honest_epochs": scored.honest.epochs,
        "paper_accuracy": scored.paper.accuracy,
        "paper_accuracy_interval": list(scored.paper.interval),
        "paper_epochs": scored.paper.epochs,
        "spike_rate_per_step": scored.spike_rate,
        "n_weights": sum(value.size for value in scored.weights.values()),
        "epoch_s": scored.epoch_s,
    }
