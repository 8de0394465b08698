"""Operations of one pass of training over one sample, by two conventions that are kept apart.

The paper's convention, as far as its figures tell: a multiplication and an addition are two operations. A network whose
encoder is trained pays 2 operations per encoder weight and step; a network whose encoder is random pays nothing for it,
since the array does it. The layer behind it costs 6 operations per weight: 2 forward, 4 backward. Neurons, biases and
the way back through time are not counted.

The full convention is ours: what a trained encoder costs on the way back through time is counted, so are neurons and
biases, and the random encoder is charged for the neurons that the host computes.

docs/explanation/costs.md has the formulas, and what they leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from experiments.accounts.networks import NetworkShape

#: a multiplication and an addition
OPS_PER_WEIGHT = 2
#: of the trained layer: forward; its weights' gradient and its inputs' gradient
PAPER_OPS_PER_TRAINED_WEIGHT = 2 + 4
#: leak, gate of the reset, current added, compared with the threshold, spike counted
OPS_PER_NEURON_STEP = 5
#: of the way back: is the surrogate's window open, times the gradient of the spike, gate of the reset, leak, sum
OPS_PER_NEURON_STEP_BACK = 5


def encoder_ops(network: NetworkShape) -> int:
    """Products of one forward pass of the encoder, over all steps: 2 per weight and step."""
    return OPS_PER_WEIGHT * network.n_steps * network.n_encoder_weights


def spiking_readout_ops(network: NetworkShape) -> int:
    """What a read-out of spiking neurons adds: its products at every step, instead of once on the counts."""
    return OPS_PER_WEIGHT * network.n_steps * network.n_trained_weights


def paper_lsm_ops(network: NetworkShape) -> int:
    """Training of a network with a random encoder: its trained layer alone."""
    return PAPER_OPS_PER_TRAINED_WEIGHT * network.n_trained_weights


def paper_srnn_ops(network: NetworkShape, *, spiking_readout: bool = False) -> int:
    """Training of the same network with a trained encoder."""
    extra = spiking_readout_ops(network) if spiking_readout else 0
    return encoder_ops(network) + extra + paper_lsm_ops(network)


def full_lsm_ops(network: NetworkShape, *, epochs: int) -> float:
    """Training of a network with a random encoder, everything counted that the host computes, per sample and epoch.

    The encoder runs once, not in every epoch: its neurons are shared among the epochs. Its products are the array's.
    Nothing needs the gradient of its counts.
    """
    neurons = OPS_PER_NEURON_STEP * network.n_steps * network.n_neurons
    weights = (OPS_PER_WEIGHT + OPS_PER_WEIGHT) * network.n_trained_weights
    biases = 2 * network.n_outputs
    return neurons / epochs + weights + biases


def full_srnn_ops(network: NetworkShape, *, spiking_readout: bool = False) -> int:
    """Training of a network with a trained encoder by backpropagation through time, everything counted.

    On the way back, every weight's gradient costs as much as its product, and so does the way through the recurrent
    weights to the step before; the inputs need no gradient.
    """
    steps, neurons = network.n_steps, network.n_neurons
    forward = encoder_ops(network) + OPS_PER_NEURON_STEP * steps * neurons
    back = encoder_ops(network) + steps * (OPS_PER_WEIGHT * neurons**2 + OPS_PER_NEURON_STEP_BACK * neurons)
    readout_passes = steps if spiking_readout else 1
    layer = 3 * OPS_PER_WEIGHT * network.n_trained_weights + 2 * network.n_outputs
    spiking = (OPS_PER_NEURON_STEP + OPS_PER_NEURON_STEP_BACK) * steps * network.n_outputs if spiking_readout else 0
    return forward + back + readout_passes * layer + spiking


def operations_of(
    networks: Sequence[NetworkShape], *, epochs: int = 100, spiking_readout: bool = False
) -> dict[str, Any]:
    """Both counts of an experiment, for the `operations` of a run's summary.

    Args:
        networks: one, or one for each modality of a pair.
        epochs: passes over the training data; matters to the full count only.
        spiking_readout: whether the trained network that is compared with has a read-out of spiking neurons.

    Returns:
        `networks` (their shapes), `epochs`, `spiking_readout`, and for each convention (`paper`, `full`) operations per
        training sample and epoch: `srnn` (encoder trained), `lsm` (encoder random), `ratio`.
    """
    paper_srnn = sum(paper_srnn_ops(one, spiking_readout=spiking_readout) for one in networks)
    paper_lsm = sum(paper_lsm_ops(one) for one in networks)
    full_srnn = sum(full_srnn_ops(one, spiking_readout=spiking_readout) for one in networks)
    full_lsm = sum(full_lsm_ops(one, epochs=epochs) for one in networks)
    return {
        "networks": [asdict(one) for one in networks],
        "epochs": epochs,
        "spiking_readout": spiking_readout,
        "paper": {"srnn": paper_srnn, "lsm": paper_lsm, "ratio": paper_srnn / paper_lsm},
        "full": {"srnn": full_srnn, "lsm": full_lsm, "ratio": full_srnn / full_lsm},
    }
