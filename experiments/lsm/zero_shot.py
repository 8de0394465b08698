"""Zero-shot retrieval between two modalities: projections trained on pairs of seen classes, judged on all classes.

honest protocol: number of epochs, penalty and temperature are chosen by retrieval on a validation part of the training
samples of the seen classes; the projections are then trained on all of these, and the test data are looked at once.
Unseen classes take part in nothing before.

paper protocol: train on all pairs of the seen classes and report, of the epochs whose test accuracies pass two gates,
the one that is best on the test data of the seen classes, as the paper's code does. The gate on the unseen classes
picks the epochs at which chance is kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.lsm.few_shot import Shots, few_shot
from experiments.lsm.pairs import Pairs, pair_by_index
from experiments.lsm.projection import Projections, train
from experiments.lsm.protocols import LabelledFeatures, split_validation
from experiments.lsm.retrieval import Embedded, Retrieval, retrieve
from experiments.lsm.zero_shot_settings import ProjectionSettings, ZeroShotSettings
from hil.progress import Progress, no_progress

Curve = NDArray[np.float64]
AfterEpoch = Callable[[int, Projections], None]


@dataclass(frozen=True)
class Modality:
    """Features of one modality.

    Attributes:
        train: training samples; of seen classes to be paired, of unseen ones to draw shots from.
        test: test samples of both.
    """

    train: LabelledFeatures
    test: LabelledFeatures


@dataclass(frozen=True)
class Judged:
    """Test retrieval among the seen and among the unseen classes."""

    seen: Retrieval
    unseen: Retrieval

    def described(self, settings: ZeroShotSettings) -> dict[str, Any]:
        """As JSON can hold it; with the confusion of unseen classes, which chance over seeds is reckoned from."""
        confusion = self.unseen.confusion(settings.unseen).tolist()
        return {"seen": self.seen.described(), "unseen": {**self.unseen.described(), "confusion": confusion}}


@dataclass(frozen=True)
class Chosen:
    """What validation chose.

    Attributes:
        epochs: passes over the pairs.
        penalty, temperature: of the training.
        validation_accuracy: score it was chosen by: mean of both directions.
    """

    epochs: int
    penalty: float
    temperature: float
    validation_accuracy: float


@dataclass(frozen=True)
class PaperChoice:
    """What the paper protocol picks from test accuracies by epoch.

    Attributes:
        epoch: epochs done at the pick: the best of the seen classes, among those that pass the gates if any does.
        n_passing: epochs that pass both gates.
        n_reaching: epochs whose unseen accuracy is at least the published one.
    """

    epoch: int
    n_passing: int
    n_reaching: int

    @classmethod
    def of(cls, seen: Curve, unseen: Curve, settings: ZeroShotSettings) -> PaperChoice:
        """Pick from the test accuracies after each epoch, shape (epochs,)."""
        passing = (seen >= settings.gate_seen) & (unseen >= settings.gate_unseen)
        candidates = passing if passing.any() else np.ones_like(passing)
        best = int(np.where(candidates, seen, -1.0).argmax())
        return cls(best + 1, int(passing.sum()), int((unseen >= settings.published_unseen).sum()))


@dataclass(frozen=True)
class ZeroShotOutcome:
    """What both protocols found.

    Attributes:
        settings: classes and gates.
        n_train_pairs: pairs of the seen classes.
        chosen: by validation.
        honest, paper: test retrieval.
        choice: of the paper protocol.
        curves: test accuracies after each epoch of the paper protocol, by name, shape (epochs,): `seen`, `unseen`,
            `seen_reverse`, `unseen_reverse`.
        shots: by number of labelled pairs, with the projections of the honest protocol.
        before: test features of query and gallery.
        after: their embeddings by the honest protocol.
        projections: of the honest protocol; None where a model has other ones.
    """

    settings: ZeroShotSettings
    n_train_pairs: int
    chosen: Chosen
    honest: Judged
    paper: Judged
    choice: PaperChoice
    curves: dict[str, Curve]
    shots: dict[int, Shots]
    before: tuple[Embedded, Embedded]
    after: tuple[Embedded, Embedded]
    projections: Projections | None


def zero_shot(
    query: Modality,
    gallery: Modality,
    settings: ZeroShotSettings,
    projection: ProjectionSettings,
    seed: int,
    progress: Progress = no_progress,
) -> ZeroShotOutcome:
    """Train and judge by both protocols.

    Args:
        query: the modality that asks (audio, brain).
        gallery: the one that is searched (images).
        settings: classes, gates and shots.
        projection: layers and their training.
        seed: of the validation split, the training and the shots.
        progress: told on the way.
    """
    chosen, projections = honest_projections(query.train, gallery.train, settings, projection, seed, progress)
    before = Embedded(query.test.features, query.test.labels), Embedded(gallery.test.features, gallery.test.labels)
    after = embed(projections, query.test, gallery.test)
    unseen = settings.unseen
    pools = embed(projections, _of(query.train, unseen), _of(gallery.train, unseen))
    shots = few_shot(*after, *pools, unseen, settings.shots, settings.n_shot_draws, seed)
    pairs = pair_by_index(query.train.labels, gallery.train.labels, settings.seen, projection.pairs_per_query)
    picked, choice, curves = _paper(query, gallery, pairs, settings, projection, seed, progress)
    return ZeroShotOutcome(
        settings=settings,
        n_train_pairs=len(pairs),
        chosen=chosen,
        honest=judge(*after, settings),
        paper=picked,
        choice=choice,
        curves=curves,
        shots=shots,
        before=before,
        after=after,
        projections=projections,
    )


def judge(query: Embedded, gallery: Embedded, settings: ZeroShotSettings) -> Judged:
    """Retrieval among the seen and among the unseen classes."""
    return Judged(retrieve(query, gallery, settings.seen), retrieve(query, gallery, settings.unseen))


def embed(projections: Projections, query: LabelledFeatures, gallery: LabelledFeatures) -> tuple[Embedded, Embedded]:
    """Embeddings of samples of both modalities."""
    return (
        Embedded(projections.query(query.features), query.labels),
        Embedded(projections.gallery(gallery.features), gallery.labels),
    )


def honest_projections(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    settings: ZeroShotSettings,
    projection: ProjectionSettings,
    seed: int,
    progress: Progress = no_progress,
) -> tuple[Chosen, Projections]:
    """Projections by the honest protocol, which needs training samples only."""
    asking, answering = _of(query, settings.seen), _of(gallery, settings.seen)
    chosen = choose_by_validation(asking, answering, projection, seed, progress)
    kept: list[Projections] = []
    _train_on_pairs(
        asking, answering, projection, chosen, seed,
        lambda epoch, projections: kept.append(projections) if epoch == chosen.epochs else None,
    )  # fmt: skip
    progress("projections, honest protocol", 1, 1)
    return chosen, kept[0]


def choose_by_validation(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    projection: ProjectionSettings,
    seed: int,
    progress: Progress = no_progress,
) -> Chosen:
    """Epochs, penalty and temperature by retrieval among held-out training samples of seen classes.

    Both modalities are split before they are paired, so that no sample is on both sides.
    """
    parts = [split_validation(side.labels, projection.validation_fraction, seed) for side in (query, gallery)]
    fit = [side[part] for side, (part, _) in zip((query, gallery), parts, strict=True)]
    held_out = [side[part] for side, (_, part) in zip((query, gallery), parts, strict=True)]
    classes = np.unique(query.labels).tolist()
    candidates = list(product(projection.penalties, projection.temperatures))
    found: list[Chosen] = []
    for number, (penalty, temperature) in enumerate(candidates):
        progress("projections, honest protocol", number, len(candidates) + 1)
        scores: list[float] = []

        def score(_: int, projections: Projections, scores: list[float] = scores) -> None:
            result = retrieve(*embed(projections, *held_out), classes)
            scores.append((result.accuracy + result.reverse_accuracy) / 2)

        _train_on_pairs(fit[0], fit[1], projection, Chosen(projection.epochs, penalty, temperature, 0.0), seed, score)
        smooth = _smoothed(np.array(scores))
        best = int(smooth.argmax())
        found.append(Chosen(best + 1, penalty, temperature, float(smooth[best])))
    return max(found, key=lambda one: one.validation_accuracy)


def _paper(
    query: Modality,
    gallery: Modality,
    pairs: Pairs,
    settings: ZeroShotSettings,
    projection: ProjectionSettings,
    seed: int,
    progress: Progress,
) -> tuple[Judged, PaperChoice, dict[str, Curve]]:
    """The pick, how it was made, and test accuracies by epoch; with the first temperature and the weakest penalty."""
    progress("projections, paper protocol", 0, 1)
    by_epoch: list[Judged] = []
    train(
        query.train.features[pairs.query], gallery.train.features[pairs.gallery], pairs.labels, projection,
        penalty=min(projection.penalties), temperature=projection.temperatures[0], seed=seed,
        after_epoch=lambda _, made: by_epoch.append(judge(*embed(made, query.test, gallery.test), settings)),
    )  # fmt: skip
    progress("projections, paper protocol", 1, 1)
    curves = {
        "seen": np.array([one.seen.accuracy for one in by_epoch]),
        "unseen": np.array([one.unseen.accuracy for one in by_epoch]),
        "seen_reverse": np.array([one.seen.reverse_accuracy for one in by_epoch]),
        "unseen_reverse": np.array([one.unseen.reverse_accuracy for one in by_epoch]),
    }
    choice = PaperChoice.of(curves["seen"], curves["unseen"], settings)
    return by_epoch[choice.epoch - 1], choice, curves


def _train_on_pairs(
    query: LabelledFeatures,
    gallery: LabelledFeatures,
    projection: ProjectionSettings,
    chosen: Chosen,
    seed: int,
    after_epoch: AfterEpoch,
) -> None:
    """Pair samples of the same classes, and train as `chosen` says."""
    classes = np.unique(query.labels).tolist()
    pairs = pair_by_index(query.labels, gallery.labels, classes, projection.pairs_per_query)
    train(
        query.features[pairs.query], gallery.features[pairs.gallery], pairs.labels, projection,
        penalty=chosen.penalty, temperature=chosen.temperature, seed=seed, after_epoch=after_epoch,
        epochs=chosen.epochs,
    )  # fmt: skip


def _of(samples: LabelledFeatures, classes: list[int]) -> LabelledFeatures:
    return samples[np.flatnonzero(np.isin(samples.labels, classes))]


def _smoothed(scores: Curve) -> Curve:
    """Mean with up to two epochs before and after: single epochs are noisy."""
    kernel = np.ones(min(5, len(scores)))
    return np.convolve(scores, kernel, "same") / np.convolve(np.ones(len(scores)), kernel, "same")


def summary(outcome: ZeroShotOutcome, *, model: str, query: dict[str, Any], gallery: dict[str, Any]) -> dict[str, Any]:
    """What a report says about a run, as JSON can hold it.

    Args:
        outcome: from `zero_shot`.
        model: name of the model.
        query, gallery: what the modalities are, as `SpikeDataset.described` says.
    """
    settings, chosen, choice = outcome.settings, outcome.chosen, outcome.choice
    return {
        "model": model,
        "query": query,
        "gallery": gallery,
        "seen_classes": settings.seen,
        "unseen_classes": settings.unseen,
        "n_train_pairs": outcome.n_train_pairs,
        "n_test_seen": len(outcome.honest.seen.query_labels),
        "n_test_unseen": len(outcome.honest.unseen.query_labels),
        "projection_outputs": outcome.after[0].vectors.shape[1],
        "honest": {
            **outcome.honest.described(settings),
            "epochs": chosen.epochs,
            "penalty": chosen.penalty,
            "temperature": chosen.temperature,
            "validation_accuracy": chosen.validation_accuracy,
        },
        "paper": paper_described(outcome.paper, choice, len(outcome.curves["seen"]), settings),
        "shots": {str(k): found.described() for k, found in outcome.shots.items()},
        "chance": {"seen": 1 / len(settings.seen), "unseen": 1 / len(settings.unseen)},
    }


def paper_described(judged: Judged, choice: PaperChoice, n_epochs: int, settings: ZeroShotSettings) -> dict[str, Any]:
    """The paper protocol in a summary."""
    return {
        **judged.described(settings),
        "epoch": choice.epoch,
        "n_epochs": n_epochs,
        "gates_passed": choice.n_passing > 0,
        "n_epochs_passing": choice.n_passing,
        "n_epochs_reaching": choice.n_reaching,
        "reached": judged.unseen.accuracy >= settings.published_unseen,
    }
