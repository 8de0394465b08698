"""The trained read-out: one linear layer on the spike counts."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.lsm.settings import ReadoutSettings

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Readout:
    """A linear layer on counts per step.

    Attributes:
        weight: shape (classes, neurons).
        bias: shape (classes,).
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def predict(self, features: Features) -> Labels:
        """Most likely class of each sample; features of shape (samples, neurons)."""
        return (features @ self.weight.T + self.bias).argmax(axis=1)

    def accuracy(self, features: Features, labels: Labels) -> float:
        """Fraction of samples whose class is right."""
        return float(np.mean(self.predict(features) == labels))


def features_of(counts: NDArray[np.uint16], n_steps: int) -> Features:
    """Spikes per step."""
    return np.asarray(counts / n_steps, np.float32)


@contextmanager
def one_torch_thread() -> Generator[None, None, None]:
    """One thread for small products: two are no faster, and many times slower when the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_torch_thread()
def train(
    features: Features,
    labels: Labels,
    n_classes: int,
    settings: ReadoutSettings,
    *,
    weight_decay: float,
    seed: int,
    after_epoch: Callable[[int, Readout], None],
) -> None:
    """Train with cross-entropy and Adam, and show the read-out after every epoch.

    Features are standardised with the statistics of the training data, folded back into the layer that `after_epoch`
    gets. The step falls to zero along a cosine.

    Args:
        features: shape (samples, neurons).
        labels: shape (samples,), 0 .. n_classes - 1.
        n_classes: outputs.
        settings: optimiser.
        weight_decay: L2 penalty on the standardised weights.
        seed: order of the samples and start of the weights.
        after_epoch: called with (epoch, read-out).
    """
    import torch

    mean = features.mean(axis=0)
    spread = features.std(axis=0) + np.float32(1e-3)
    x = torch.from_numpy((features - mean) / spread)
    y = torch.from_numpy(labels)
    generator = torch.Generator()
    generator.manual_seed(seed)
    weight = torch.zeros(n_classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=settings.learning_rate)
    n_batches = -(-len(x) // settings.batch)
    epochs = max(settings.epochs, -(-settings.steps_min // n_batches))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for epoch in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(settings.batch):
            loss = torch.nn.functional.cross_entropy(x[chosen] @ weight.T + bias, y[chosen])
            loss = loss + weight_decay * (weight**2).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
        w = weight.detach().numpy() / spread
        after_epoch(epoch, Readout(w, bias.detach().numpy() - w @ mean))
