"""Two ways to score a read-out, always kept apart.

honest protocol: L2 penalty and number of epochs are chosen on a validation part of the training data; the read-out is
then trained on all training data, and the test data are looked at once.

paper protocol: train on all training data and report the best epoch on the test data, as the paper and its code do.
That is selection on the test data; it is here to be compared with the paper, not to be believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError
from hil.lsm.accuracy import wilson_interval
from hil.lsm.readout import Features, Labels, Readout, train
from hil.lsm.settings import ReadoutSettings
from hil.progress import Progress, no_progress


@dataclass(frozen=True)
class Scored:
    """Outcome of one protocol.

    Attributes:
        accuracy: fraction of test samples whose class is right.
        interval: 95 % Wilson interval of it; says nothing about the selection of the paper protocol.
        predicted: class of every test sample, shape (n_test,).
        weight_decay, epochs: what was chosen.
        validation_accuracy: score it was chosen by; NaN for the paper protocol.
    """

    accuracy: float
    interval: tuple[float, float]
    predicted: Labels
    weight_decay: float
    epochs: int
    validation_accuracy: float


@dataclass(frozen=True)
class Chosen:
    """A read-out trained on all training data, with what validation chose.

    Attributes:
        readout: the layer.
        weight_decay, epochs: what was chosen.
        validation_accuracy: score it was chosen by.
    """

    readout: Readout
    weight_decay: float
    epochs: int
    validation_accuracy: float


@dataclass(frozen=True)
class LabelledFeatures:
    """Features (samples, neurons) and labels (samples,)."""

    features: Features
    labels: Labels

    def __getitem__(self, chosen: NDArray[np.intp]) -> LabelledFeatures:
        return LabelledFeatures(self.features[chosen], self.labels[chosen])


def split_validation(labels: Labels, fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the part to fit and of the validation part, with the same share of every class.

    Raises:
        ConfigError: too few samples to hold any out.
    """
    rng = np.random.default_rng(seed)
    validation: list[NDArray[np.intp]] = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        # At least one to fit and one to judge by, where a class has two.
        n_held_out = min(len(members) - 1, max(1, round(fraction * len(members))))
        validation.append(members[:n_held_out])
    held_out = np.sort(np.concatenate(validation))
    if len(held_out) == 0:
        raise ConfigError(
            f"of {len(labels)} training samples no class has two, so none can be held out for validation",
            fix="give more training samples (data.n_train)",
        )
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def honest(
    training: LabelledFeatures,
    test: LabelledFeatures,
    n_classes: int,
    settings: ReadoutSettings,
    seed: int,
    progress: Progress = no_progress,
) -> Scored:
    """Score by the honest protocol."""
    chosen = choose_by_validation(training, n_classes, settings, seed, progress)
    return _scored(chosen.readout, test, chosen.weight_decay, chosen.epochs, chosen.validation_accuracy)


def choose_by_validation(
    training: LabelledFeatures,
    n_classes: int,
    settings: ReadoutSettings,
    seed: int,
    progress: Progress = no_progress,
) -> Chosen:
    """Train by the honest protocol, which needs no test data.

    Raises:
        ConfigError: too few samples to hold any out.
    """
    fit, held_out = split_validation(training.labels, settings.validation_fraction, seed)
    best = (-1.0, settings.weight_decays[0], 0)
    total = len(settings.weight_decays) + 1
    for number, weight_decay in enumerate(settings.weight_decays):
        progress("read-out, honest protocol", number, total)
        history = _history(training[fit], training[held_out], n_classes, settings, weight_decay, seed)
        scores = np.array([score for score, _ in history])
        epoch = int(np.flatnonzero(scores == scores.max())[-1])  # of equal ones the longest training
        best = max(best, (history[epoch][0], weight_decay, epoch), key=lambda entry: entry[0])
    validation_accuracy, weight_decay, epoch = best
    progress("read-out, honest protocol", total - 1, total)
    # All training data from here on; the number of epochs stays the chosen share of the schedule.
    final = _readouts(training, n_classes, settings, weight_decay, seed)
    share = (epoch + 1) / len(history)
    last = max(1, round(share * len(final)))
    progress("read-out, honest protocol", total, total)
    return Chosen(final[last - 1], weight_decay, last, validation_accuracy)


def paper(
    training: LabelledFeatures,
    test: LabelledFeatures,
    n_classes: int,
    settings: ReadoutSettings,
    seed: int,
    progress: Progress = no_progress,
) -> Scored:
    """Score by the paper protocol: the best epoch on the test data, at the weakest penalty of the list."""
    progress("read-out, paper protocol", 0, 1)
    weight_decay = min(settings.weight_decays)
    history = _history(training, test, n_classes, settings, weight_decay, seed)
    epoch = int(np.argmax([score for score, _ in history]))
    progress("read-out, paper protocol", 1, 1)
    return _scored(history[epoch][1], test, weight_decay, epoch + 1, float("nan"))


def _readouts(
    training: LabelledFeatures, n_classes: int, settings: ReadoutSettings, weight_decay: float, seed: int
) -> list[Readout]:
    """The read-out after every epoch."""
    seen: list[Readout] = []
    train(
        training.features,
        training.labels,
        n_classes,
        settings,
        weight_decay=weight_decay,
        seed=seed,
        after_epoch=lambda _, readout: seen.append(readout),
    )
    return seen


def _history(
    training: LabelledFeatures,
    judge: LabelledFeatures,
    n_classes: int,
    settings: ReadoutSettings,
    weight_decay: float,
    seed: int,
) -> list[tuple[float, Readout]]:
    """Accuracy on `judge` and the read-out, after every epoch."""
    readouts = _readouts(training, n_classes, settings, weight_decay, seed)
    return [(readout.accuracy(judge.features, judge.labels), readout) for readout in readouts]


def _scored(
    readout: Readout, test: LabelledFeatures, weight_decay: float, epochs: int, validation_accuracy: float
) -> Scored:
    predicted = readout.predict(test.features)
    n_right = int((predicted == test.labels).sum())
    return Scored(
        accuracy=n_right / len(test.labels),
        interval=wilson_interval(n_right, len(test.labels)),
        predicted=predicted,
        weight_decay=weight_decay,
        epochs=epochs,
        validation_accuracy=validation_accuracy,
    )
