"""The two protocols for a classifier that is trained over time.

honest protocol: the network is trained on a part of the training data and the rest chooses the epoch; it is then
trained anew on all training data by the same schedule, and what it is after the same share of it is looked at on the
test data once.

paper protocol: the best epoch of that second training on the test data, as published.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.baselines.settings import BaselineSettings
from experiments.baselines.training import Epoch, n_epochs_of, predict, train
from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm.protocols import split_validation
from hil.lsm.accuracy import wilson_interval
from hil.progress import Progress, no_progress

#: Models whose activity is spikes.
_SPIKING = ("srnn-ann", "srnn-snn")
#: Called with (training, state after an epoch, scores by name).
Note = Callable[[str, Epoch, dict[str, float]], None]


@dataclass(frozen=True)
class Scored:
    """Outcome of one protocol.

    Attributes:
        accuracy: fraction of test samples whose class is right.
        interval: 95 % Wilson interval of it; says nothing about the selection of the paper protocol.
        predicted: class of every test sample, shape (n_test,).
        epochs: passes over the training data, as chosen.
    """

    accuracy: float
    interval: tuple[float, float]
    predicted: NDArray[np.int64]
    epochs: int

    @classmethod
    def of(cls, predicted: NDArray[np.int64], truth: NDArray[np.int64], epochs: int) -> Scored:
        """Score predictions."""
        n_right = int((predicted == truth).sum())
        return cls(n_right / len(truth), wilson_interval(n_right, len(truth)), predicted, epochs)


@dataclass(frozen=True)
class BothScored:
    """What both protocols found.

    Attributes:
        honest, paper: scores.
        validation_accuracy: score that the honest epoch was chosen by.
        curves: accuracy after each epoch by name: `train` (mean over the epoch), `validation`, `test`.
        spike_rate: spikes per neuron and step over the test data, None where neurons do not fire; honest network.
        weights: of the honest network, by name.
        epoch_s: time of one pass over all training data, with the look at the test data.
    """

    honest: Scored
    paper: Scored
    validation_accuracy: float
    curves: dict[str, NDArray[np.float64]]
    spike_rate: float | None
    weights: dict[str, NDArray[np.float32]]
    epoch_s: float


@dataclass(frozen=True)
class _Judged:
    """A network after an epoch: what it says of the samples that judge it."""

    predicted: NDArray[np.int64]
    accuracy: float
    train_accuracy: float
    activity: float
    weights: dict[str, NDArray[np.float32]]


def both_protocols(
    dataset: SpikeDataset,
    model: str,
    settings: BaselineSettings,
    *,
    seed: int,
    note: Note,
    progress: Progress = no_progress,
) -> BothScored:
    """Train twice, and score.

    Args:
        dataset: packed spikes.
        model: one of `SUPERVISED_MODELS`.
        settings: of all baselines.
        seed: of the validation split, the weights before training and the order of the samples.
        note: keeps the course of the trainings.
        progress: told on the way.

    Raises:
        ConfigError: too few samples to hold any out.
    """

    def trained(training: str, samples: SpikeSet, judge: SpikeSet, score: str) -> list[_Judged]:
        seen: list[_Judged] = []
        n_epochs = n_epochs_of(settings.of(model, dataset), settings, len(samples))

        def after_epoch(epoch: Epoch) -> None:
            predicted, activity = predict(epoch.network, judge.words, dataset.n_inputs)
            accuracy = float(np.mean(predicted == judge.labels))
            weights = {name: value.numpy().copy() for name, value in epoch.network.state_dict().items()}
            seen.append(_Judged(predicted, accuracy, epoch.accuracy, activity, weights))
            note(training, epoch, {score: accuracy})
            progress(f"train {model}, {training}", epoch.number, n_epochs)

        progress(f"train {model}, {training}", 0, n_epochs)
        train(model, dataset, samples, settings, seed=seed, after_epoch=after_epoch)
        return seen

    fit, held_out = split_validation(dataset.train.labels, settings.validation_fraction, seed)
    validated = trained("validation", dataset.train.taken(fit), dataset.train.taken(held_out), "validation_accuracy")
    started = time.perf_counter()
    final = trained("all", dataset.train, dataset.test, "test_accuracy")
    epoch_s = (time.perf_counter() - started) / len(final)
    validation = np.array([judged.accuracy for judged in validated])
    test = np.array([judged.accuracy for judged in final])
    chosen = int(np.flatnonzero(validation == validation.max())[-1])  # of equal ones the longest training
    # The training on all data may have fewer epochs; what was chosen is the share of the schedule.
    honest = max(1, round((chosen + 1) / len(validation) * len(test))) - 1
    best = int(test.argmax())
    return BothScored(
        honest=Scored.of(final[honest].predicted, dataset.test.labels, honest + 1),
        paper=Scored.of(final[best].predicted, dataset.test.labels, best + 1),
        validation_accuracy=float(validation[chosen]),
        curves={
            "train": np.array([judged.train_accuracy for judged in final]),
            "validation": validation,
            "test": test,
        },
        spike_rate=final[honest].activity if model in _SPIKING else None,
        weights=final[honest].weights,
        epoch_s=epoch_s,
    )
