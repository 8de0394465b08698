"""Zero-shot retrieval by trained baselines, judged as the random network with its projections is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.baselines.pair_training import TrainPairs, contrastive_loss, half_prototypes
from experiments.baselines.settings import BaselineSettings
from experiments.baselines.towers import Samples
from experiments.baselines.training import torch_threads
from experiments.baselines.zero_shot_protocols import Recipe, Side, both_protocols
from experiments.baselines.zero_shot_settings import MODELS
from experiments.datasets import SpikeDataset
from experiments.lsm.pairs import first_of_classes, training_samples
from experiments.lsm.zero_shot import Modality, ZeroShotOutcome, summary
from experiments.lsm.zero_shot_record import record
from experiments.lsm.zero_shot_settings import ZeroShotSettings
from hil.errors import ConfigError
from hil.progress import Progress, no_progress
from hil.runfile import Column, RunFile, TableSpec

__all__ = ["MODELS", "Outcome", "run", "run_lsm_proto", "tables", "train_and_judge"]

#: experiment -> names of query and gallery, and the name of a class
_EXPERIMENTS: dict[str, tuple[tuple[str, str], Callable[[int], str]]] = {
    "atv": (("audio", "image"), str),
    "btv": (("brain", "image"), lambda label: chr(ord("a") + label)),
}
_SCORES = ("validation_accuracy", "test_seen_accuracy", "test_unseen_accuracy")


@dataclass(frozen=True)
class Outcome:
    """What a run found: `zero_shot`, and the summary and figures (PNG by name) that the run file holds."""

    zero_shot: ZeroShotOutcome
    summary: dict[str, Any]
    figures: dict[str, bytes]


def tables() -> list[TableSpec]:
    """Tables of the run file: the course of the trainings, as it is measured."""
    columns = [
        Column("training", "S10", ""),
        Column("epoch", np.int64, "1"),
        Column("loss", np.float64, "1"),
        *(Column(score, np.float64, "1") for score in _SCORES),
    ]
    text = (
        "after each epoch; training 'validation' leaves out the validation part, 'all' uses all pairs, 'leaking' also "
        "test samples, as the paper's prototypes do; NaN where a score is not taken"
    )
    return [TableSpec("history", columns, text)]


def run(
    query: SpikeDataset,
    gallery: SpikeDataset,
    model: str,
    experiment: str,
    settings: Any,
    run_file: RunFile,
    *,
    seed: int,
    progress: Progress = no_progress,
) -> Outcome:
    """Train both encoders and their projections, judge them by both protocols, and complete the run file.

    Args:
        query: packed spikes of the modality that asks (audio, brain).
        gallery: packed spikes of the one that is searched (images).
        model: one of `MODELS`.
        experiment: 'atv' or 'btv'.
        settings: has sections `baseline` and that of the experiment, whose classes and shots are used.
        run_file: made with `tables`; completed here.
        seed: of the validation split, the training, the shots and t-SNE.
        progress: told on the way.

    Raises:
        ConfigError: unknown model; too few samples to hold any out.
        DataError: a data set has no sample of a class.
    """

    def note(training: str, epoch: int, loss: float, **scores: float) -> None:
        taken = {name: scores.get(name, np.nan) for name in _SCORES}
        run_file.append("history", training=training, epoch=epoch, loss=loss, **taken)

    baseline: BaselineSettings = settings.baseline
    zero_shot: ZeroShotSettings = getattr(settings, experiment)
    outcome = train_and_judge(
        query, gallery, model, experiment, zero_shot, baseline, seed=seed, note=note, progress=progress
    )
    names, class_name = _EXPERIMENTS[experiment]
    classes = {label: class_name(label) for label in (*zero_shot.seen, *zero_shot.unseen)}
    arrays, pictures = record(outcome, seed, classes, names, progress)
    n_neurons = outcome.before[0].vectors.shape[1]
    sides = [
        {"name": name, **one.described(), "n_inputs": one.n_inputs, "n_steps": one.n_steps, "n_neurons": n_neurons}
        for name, one in zip(names, (query, gallery), strict=True)
    ]
    described = {
        **summary(outcome, model=model, query=sides[0], gallery=sides[1]),
        "spike_rate": {name: float(before.vectors.mean()) for name, before in zip(names, outcome.before, strict=True)},
    }
    run_file.finish("complete", {**arrays, "summary": described, **pictures})
    return Outcome(outcome, described, pictures)


def train_and_judge(
    query: SpikeDataset,
    gallery: SpikeDataset,
    model: str,
    experiment: str,
    zero_shot: ZeroShotSettings,
    baseline: BaselineSettings,
    *,
    seed: int,
    note: Callable[..., None],
    progress: Progress = no_progress,
) -> ZeroShotOutcome:
    """Both protocols with trained encoders; arguments as of `run`, and `note` as of `both_protocols`."""
    if model not in MODELS:
        raise ConfigError(f"unknown trained baseline {model!r}", fix=f"choose one of {', '.join(MODELS)}")
    table = baseline.zero_shot_table(model, experiment)
    paired = training_samples(query.train.labels, gallery.train.labels, zero_shot.seen, table.pairs_per_query)
    classes = [*zero_shot.seen, *zero_shot.unseen]
    sides: list[Side] = []
    for one, index in zip((query, gallery), paired, strict=True):
        train, test = (Samples(split.words, split.labels, one.n_inputs) for split in (one.train, one.test))
        pool = first_of_classes(train.labels, zero_shot.unseen, zero_shot.n_shot_pool)
        tested = first_of_classes(test.labels, classes, zero_shot.n_test_per_class)
        sides.append(Side(train[index], train[pool], test[tested]))
    recipe = _recipe(model, table, (table.query, table.gallery), baseline, progress)
    with torch_threads(baseline.threads):
        return both_protocols(*sides, _gated(zero_shot, table), recipe, seed, note)


def run_lsm_proto(
    query: Modality,
    gallery: Modality,
    zero_shot: ZeroShotSettings,
    baseline: BaselineSettings,
    seed: int,
    progress: Progress = no_progress,
    *,
    experiment: str = "atv",
) -> ZeroShotOutcome:
    """Prototypical network on spikes per step of the random network, in the place of `experiments.lsm.zero_shot`.

    Args:
        query, gallery: spikes per step of both modalities.
        zero_shot: classes and shots.
        baseline: its table `lsm_proto` of the experiment.
        seed: of the validation split, the training and the shots.
        progress: told on the way.
        experiment: 'atv' or 'btv'.

    Raises:
        ConfigError: too few samples to hold any out.
    """
    table = baseline.zero_shot_table("lsm-proto", experiment)
    sides: list[Side] = []
    for one in (query, gallery):
        train, test = (Samples(part.features, part.labels) for part in (one.train, one.test))
        sides.append(Side(train.of(zero_shot.seen), train.of(zero_shot.unseen), test))
    recipe = _recipe("lsm-proto", table, None, baseline, progress)
    with torch_threads(1):
        return both_protocols(*sides, _gated(zero_shot, table), recipe, seed, _keep_nothing)


def _keep_nothing(training: str, epoch: int, loss: float, **scores: float) -> None:
    """The course of a training is in the run file of those that take long."""


def _recipe(
    model: str, table: Any, encoders: tuple[Any, Any] | None, baseline: BaselineSettings, progress: Progress
) -> Recipe:
    by_prototypes = model.endswith("proto")
    temperature = 1.0 if by_prototypes else table.temperature
    return Recipe(
        train=TrainPairs(model, table, encoders, baseline.gradient_max, progress),
        epochs=table.epochs,
        temperature=temperature,
        validation_fraction=baseline.pairs_validation_fraction,
        loss=half_prototypes if by_prototypes else contrastive_loss(table.loss, temperature, table.length),
        leaks=by_prototypes,
    )


def _gated(zero_shot: ZeroShotSettings, table: Any) -> ZeroShotSettings:
    """With the gates and the published figure of the model."""
    own = ("gate_seen", "gate_unseen", "published_unseen")
    return zero_shot.model_copy(update={name: getattr(table, name) for name in own})
