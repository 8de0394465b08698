"""Training and running a classifier over time, on packed spikes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from experiments.baselines.networks import NETWORKS
from experiments.baselines.settings import BaselineSettings
from experiments.baselines.spikes import over_steps
from experiments.datasets import SpikeDataset, SpikeSet

#: Samples run at once where nothing is trained.
_N_AT_ONCE = 500


@dataclass(frozen=True)
class Epoch:
    """State after one pass over the training data.

    Attributes:
        number: 1 for the first pass.
        loss, accuracy: means over the pass, while the weights moved.
        network: as it is now; it changes with the next pass.
    """

    number: int
    loss: float
    accuracy: float
    network: torch.nn.Module


@contextmanager
def torch_threads(n: int) -> Generator[None, None, None]:
    """`n` torch threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _squared(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.mse_loss(scores, functional.one_hot(labels, scores.shape[1]).to(scores.dtype))


_LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "squared": _squared,
    "cross-entropy": functional.cross_entropy,
}


def n_epochs_of(table: Any, settings: BaselineSettings, n_samples: int) -> int:
    """Passes over `n_samples` training samples: those of the table, and more where these are few steps."""
    return max(table.epochs, -(-settings.steps_min // -(-n_samples // table.batch)))


def train(
    model: str,
    dataset: SpikeDataset,
    samples: SpikeSet,
    settings: BaselineSettings,
    *,
    seed: int,
    after_epoch: Callable[[Epoch], None],
) -> None:
    """Train a network, and show it after every epoch.

    Args:
        model: one of `SUPERVISED_MODELS`.
        dataset: says the shape; its samples are not looked at.
        samples: to train on.
        settings: network and optimiser.
        seed: of the weights before training and of the order of the samples.
        after_epoch: called with the state.
    """
    table = settings.of(model, dataset)
    n_epochs = n_epochs_of(table, settings, len(samples))
    generator = torch.Generator()
    generator.manual_seed(seed)
    network = NETWORKS[model](dataset.n_inputs, settings.n_neurons, dataset.n_classes, table, generator)
    optimiser = torch.optim.Adam(network.parameters(), lr=table.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_epochs)
    loss_of = _LOSSES[table.loss]
    for number in range(1, n_epochs + 1):
        total, n_right = 0.0, 0
        order = torch.randperm(len(samples), generator=generator).numpy()
        for chosen in np.split(order, range(table.batch, len(order), table.batch)):
            labels = torch.from_numpy(samples.labels[chosen])
            scores, _ = network(over_steps(samples.words[chosen], dataset.n_inputs))
            loss = loss_of(scores, labels)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_max)
            optimiser.step()
            total += float(loss.detach()) * len(chosen)
            n_right += int((scores.argmax(1) == labels).sum())
        schedule.step()
        after_epoch(Epoch(number, total / len(samples), n_right / len(samples), network))


def predict(network: Any, words: NDArray[np.uint64], n_inputs: int) -> tuple[NDArray[np.int64], float]:
    """Class of every sample (samples,), and the mean activity of the recurrent layer per neuron and step."""
    classes: list[NDArray[np.int64]] = []
    activity = 0.0
    with torch.no_grad():
        for start in range(0, len(words), _N_AT_ONCE):
            batch = words[start : start + _N_AT_ONCE]
            scores, mean = network(over_steps(batch, n_inputs))
            classes.append(scores.argmax(1).numpy())
            activity += float(mean) * len(batch) / len(words)
    return np.concatenate(classes), activity
