"""Networks of the zero-shot baselines: one tower for each modality, from a sample to a vector of length one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from experiments.baselines.networks import SpikingEncoder
from experiments.baselines.spikes import over_steps
from experiments.lsm.retrieval import Embedded

#: Samples embedded at once where nothing is trained.
_N_AT_ONCE = 500
#: Added to the spread of features, so that a silent neuron does no harm.
_SPREAD_MIN = 1e-3


class Samples:
    """Samples of one modality.

    Args:
        values: packed spikes (samples, steps, words), or spikes per step (samples, neurons).
        labels: class of each, shape (samples,).
        n_inputs: inputs that the words hold; None where `values` are spikes per step.
    """

    def __init__(self, values: NDArray[Any], labels: NDArray[np.int64], n_inputs: int | None = None) -> None:
        self.values = values
        self.labels = labels
        self.n_inputs = n_inputs

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.intp]) -> Samples:
        return Samples(self.values[chosen], self.labels[chosen], self.n_inputs)

    def of(self, classes: list[int]) -> Samples:
        """The samples of these classes, in their order."""
        return self[np.flatnonzero(np.isin(self.labels, classes))]


class Tower(nn.Module):
    """gelu of a linear layer on the standardised features, divided by its length.

    Features are spikes per step: of a trained encoder where the samples are spikes, else the samples themselves. They
    are standardised with the statistics of the training samples before training, as for the random network.

    Args:
        samples: to train on; their features are measured once.
        encoder: None where the samples are features.
        outputs: length of the vector.
        generator: of the layer before training.
    """

    def __init__(
        self, samples: Samples, encoder: SpikingEncoder | None, outputs: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.encoder = encoder
        with torch.no_grad():
            features = torch.cat([self.features(part) for part in _parts(samples)])
        self.mean = features.mean(0)
        self.spread = features.std(0, correction=0) + _SPREAD_MIN
        bound = 1 / math.sqrt(features.shape[1])
        self.weight = nn.Parameter((2 * torch.rand(outputs, features.shape[1], generator=generator) - 1) * bound)
        self.bias = nn.Parameter((2 * torch.rand(outputs, generator=generator) - 1) * bound)

    def features(self, samples: Samples) -> torch.Tensor:
        """Spikes per step, shape (samples, neurons)."""
        if self.encoder is None or samples.n_inputs is None:
            return torch.from_numpy(samples.values)
        return self.encoder(over_steps(samples.values, samples.n_inputs)).mean(0)

    def forward(self, samples: Samples) -> torch.Tensor:
        """Vectors of length one, shape (samples, outputs)."""
        standard = (self.features(samples) - self.mean) / self.spread
        return functional.normalize(functional.gelu(standard @ self.weight.T + self.bias), dim=1)

    def embed(self, samples: Samples) -> Embedded:
        """Vectors and labels, without gradient."""
        with torch.no_grad():
            return Embedded(torch.cat([self(part) for part in _parts(samples)]).numpy(), samples.labels)

    def rates(self, samples: Samples) -> Embedded:
        """Spikes per step and labels, without gradient."""
        with torch.no_grad():
            return Embedded(torch.cat([self.features(part) for part in _parts(samples)]).numpy(), samples.labels)


def _parts(samples: Samples) -> list[Samples]:
    return [
        samples[np.arange(len(samples))[start : start + _N_AT_ONCE]] for start in range(0, len(samples), _N_AT_ONCE)
    ]
