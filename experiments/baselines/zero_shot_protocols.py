"""The two protocols for baselines that train two towers.

honest protocol: the epoch is chosen by retrieval on a validation part of the training samples of the seen classes; the
towers are then trained anew on all of these, up to that epoch, and the test data are looked at once.

paper protocol: train on all pairs of the seen classes and report, of the epochs whose test accuracies pass two gates,
the one that is best on the test data of the seen classes. The paper's prototypical networks also train on test samples
of the seen classes, with their labels; that leak is repeated here, in this protocol only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from experiments.baselines.pair_training import PairLoss, Towers, TrainPairs, leaking_prototypes
from experiments.baselines.towers import Samples
from experiments.lsm.few_shot import few_shot
from experiments.lsm.protocols import split_validation
from experiments.lsm.retrieval import Embedded, retrieve
from experiments.lsm.zero_shot import Chosen, Judged, PaperChoice, ZeroShotOutcome, judge
from experiments.lsm.zero_shot_settings import ZeroShotSettings

#: Called after each epoch with the name of the training, epoch, loss, and scores by name.
Note = Callable[..., None]


@dataclass(frozen=True)
class Side:
    """Samples of one modality.

    Attributes:
        train: training samples of seen classes.
        pool: training samples of unseen classes, to draw shots from.
        test: test samples of both.
    """

    train: Samples
    pool: Samples
    test: Samples


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        train: on pairs of samples.
        epochs: passes over the pairs.
        temperature: of the loss, for the record; 1 where it has none.
        validation_fraction: part of the training samples held out.
        loss: of a batch of pairs.
        leaks: whether the paper trained on test samples.
    """

    train: TrainPairs
    epochs: int
    temperature: float
    validation_fraction: float
    loss: PairLoss
    leaks: bool


def both_protocols(
    query: Side, gallery: Side, settings: ZeroShotSettings, recipe: Recipe, seed: int, note: Note
) -> ZeroShotOutcome:
    """Train as often as the protocols need, and judge.

    Args:
        query, gallery: samples of the modality that asks, and of the one that is searched.
        settings: classes, gates and shots.
        recipe: of the model.
        seed: of the validation split, the training and the shots.
        note: keeps the course of the trainings.
    """
    chosen = choose_by_validation(query.train, gallery.train, recipe, seed, note)
    honest: list[_Honest] = []
    by_epoch: list[Judged] = []

    def keep_chosen(training: str, epoch: int, loss: float, towers: Towers) -> None:
        if epoch == chosen.epochs:
            honest.append(_Honest.by(towers, query, gallery))

    def judge_epoch(training: str, epoch: int, loss: float, towers: Towers) -> None:
        judged = judge(towers.query.embed(query.test), towers.gallery.embed(gallery.test), settings)
        by_epoch.append(judged)
        note(
            training, epoch, loss, test_seen_accuracy=judged.seen.accuracy, test_unseen_accuracy=judged.unseen.accuracy
        )

    def keep_and_judge(training: str, epoch: int, loss: float, towers: Towers) -> None:
        keep_chosen(training, epoch, loss, towers)
        judge_epoch(training, epoch, loss, towers)

    samples = query.train, gallery.train
    if recipe.leaks:
        recipe.train(*samples, recipe.loss, "all", chosen.epochs, seed, keep_chosen)
        asked = query.test.of(settings.seen), gallery.test.of(settings.seen)
        leaking = leaking_prototypes(*asked, np.random.default_rng(seed))
        recipe.train(*samples, leaking, "leaking", recipe.epochs, seed, judge_epoch)
    else:
        recipe.train(*samples, recipe.loss, "all", recipe.epochs, seed, keep_and_judge)
    curves = {
        "seen": np.array([one.seen.accuracy for one in by_epoch]),
        "unseen": np.array([one.unseen.accuracy for one in by_epoch]),
        "seen_reverse": np.array([one.seen.reverse_accuracy for one in by_epoch]),
        "unseen_reverse": np.array([one.unseen.reverse_accuracy for one in by_epoch]),
    }
    choice = PaperChoice.of(curves["seen"], curves["unseen"], settings)
    found, unseen = honest[0], settings.unseen
    return ZeroShotOutcome(
        settings=settings,
        n_train_pairs=found.n_pairs,
        chosen=chosen,
        honest=judge(*found.after, settings),
        paper=by_epoch[choice.epoch - 1],
        choice=choice,
        curves=curves,
        shots=few_shot(*found.after, *found.pools, unseen, settings.shots, settings.n_shot_draws, seed),
        before=found.before,
        after=found.after,
        projections=None,
    )


def choose_by_validation(query: Samples, gallery: Samples, recipe: Recipe, seed: int, note: Note) -> Chosen:
    """The epoch, by retrieval both ways among held-out training samples of the seen classes.

    Both modalities are split before they are paired, so that no sample is on both sides.

    Raises:
        ConfigError: too few samples to hold any out.
    """
    parts = [split_validation(side.labels, recipe.validation_fraction, seed) for side in (query, gallery)]
    fit = [side[part] for side, (part, _) in zip((query, gallery), parts, strict=True)]
    held_out = [side[part] for side, (_, part) in zip((query, gallery), parts, strict=True)]
    classes = np.unique(query.labels).tolist()
    scores: list[float] = []

    def score(training: str, epoch: int, loss: float, towers: Towers) -> None:
        found = retrieve(towers.query.embed(held_out[0]), towers.gallery.embed(held_out[1]), classes)
        scores.append((found.accuracy + found.reverse_accuracy) / 2)
        note(training, epoch, loss, validation_accuracy=scores[-1])

    recipe.train(*fit, recipe.loss, "validation", recipe.epochs, seed, score)
    best = int(np.flatnonzero(np.array(scores) == max(scores))[-1])  # of equal ones the longest training
    return Chosen(best + 1, 0.0, recipe.temperature, scores[best])


@dataclass(frozen=True)
class _Honest:
    """Of the honest towers: spikes per step and vectors of test samples, vectors of samples to draw shots from."""

    before: tuple[Embedded, Embedded]
    after: tuple[Embedded, Embedded]
    pools: tuple[Embedded, Embedded]
    n_pairs: int

    @classmethod
    def by(cls, towers: Towers, query: Side, gallery: Side) -> _Honest:
        return cls(
            before=(towers.query.rates(query.test), towers.gallery.rates(gallery.test)),
            after=(towers.query.embed(query.test), towers.gallery.embed(gallery.test)),
            pools=(towers.query.embed(query.pool), towers.gallery.embed(gallery.pool)),
            n_pairs=towers.n_pairs,
        )
