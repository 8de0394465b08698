"""Networks as numbers: what counters of operations and of energy need to know of one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkShape:
    """One recurrent spiking network with the layer that is trained on its spike counts.

    An experiment on pairs has two, one for each modality.

    Attributes:
        n_inputs: input lines.
        n_neurons: recurrent neurons, all connected to all.
        n_steps: time steps of one sample.
        n_outputs: outputs of the trained layer: classes, or the size of a projection.
    """

    n_inputs: int
    n_neurons: int
    n_steps: int
    n_outputs: int

    @property
    def n_encoder_weights(self) -> int:
        """Input and recurrent weights."""
        return (self.n_inputs + self.n_neurons) * self.n_neurons

    @property
    def n_trained_weights(self) -> int:
        """Weights of the trained layer, without biases."""
        return self.n_neurons * self.n_outputs
