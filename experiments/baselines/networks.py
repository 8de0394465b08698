"""The networks of the baselines: encoders over time, and what reads them.

Every network takes spikes (steps, samples, inputs) as float and gives scores (samples, classes) with the mean activity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from experiments.baselines.recurrence import lif, tanh_recurrence


def _drawn(std: float, generator: torch.Generator, *shape: int) -> nn.Parameter:
    return nn.Parameter(std * torch.randn(*shape, generator=generator))


def over_time(inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Inputs (steps, samples, n) times a weight (m, n), as one product: (steps, samples, m)."""
    return (inputs.flatten(0, 1) @ weight.T).unflatten(0, inputs.shape[:2])


class SpikingEncoder(nn.Module):
    """LIF neurons with trained input and recurrent weights.

    Args:
        n_inputs, n_neurons: its shape.
        settings: has `decay`, `v_threshold`, `lens` and `const`.
        generator: of the weights before training.
    """

    def __init__(self, n_inputs: int, n_neurons: int, settings: Any, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = _drawn(settings.const, generator, n_neurons, n_inputs)
        self.recurrent = _drawn(settings.const, generator, n_neurons, n_neurons)
        self.constants = {"decay": settings.decay, "v_threshold": settings.v_threshold, "lens": settings.lens}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Spikes, shape (steps, samples, neurons)."""
        return lif(over_time(inputs, self.weight), self.recurrent, **self.constants)


class SrnnAnn(nn.Module):
    """A linear layer reads the spikes per step of each neuron."""

    def __init__(
        self, n_inputs: int, n_neurons: int, n_classes: int, settings: Any, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.scale = settings.scale
        self.encoder = SpikingEncoder(n_inputs, n_neurons, settings, generator)
        self.head = nn.Parameter(torch.zeros(n_classes, n_neurons))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rates = self.encoder(inputs).mean(0)
        return self.scale * rates @ self.head.T + self.bias, rates.detach().mean()


class SrnnSnn(nn.Module):
    """Output neurons fire, too; the one with most spikes names the class."""

    def __init__(
        self, n_inputs: int, n_neurons: int, n_classes: int, settings: Any, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.scale = settings.scale
        self.encoder = SpikingEncoder(n_inputs, n_neurons, settings, generator)
        self.head = _drawn(settings.const, generator, n_classes, n_neurons)
        self.constants = {"decay": settings.head_decay, "v_threshold": settings.v_threshold, "lens": settings.lens}

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spikes = self.encoder(inputs)
        outputs = lif(over_time(spikes, self.head), None, **self.constants)
        return self.scale * outputs.mean(0), spikes.detach().mean()


class Rnn(nn.Module):
    """A tanh network; a linear layer reads the mean of its states over time."""

    def __init__(
        self, n_inputs: int, n_neurons: int, n_classes: int, settings: Any, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.scale = settings.scale
        self.weight = _drawn(settings.const, generator, n_neurons, n_inputs)
        self.recurrent = _drawn(settings.const, generator, n_neurons, n_neurons)
        self.offset = nn.Parameter(torch.zeros(n_neurons))
        self.head = nn.Parameter(torch.zeros(n_classes, n_neurons))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states = tanh_recurrence(over_time(inputs, self.weight) + self.offset, self.recurrent).mean(0)
        return self.scale * states @ self.head.T + self.bias, states.detach().abs().mean()


NETWORKS: dict[str, Callable[..., nn.Module]] = {"srnn-ann": SrnnAnn, "srnn-snn": SrnnSnn, "rnn": Rnn}
