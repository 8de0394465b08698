"""The encoder in plain NumPy, one array operation per equation: what the fast engines are checked against.

Also records what they do not: every spike and every membrane potential, for rasters and traces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.lsm.encoder import LsmEncoder
from hil.spikes import unpack_bits


@dataclass(frozen=True)
class Trace:
    """Everything that happened.

    Attributes:
        inputs: input spikes, bool, shape (samples, steps, inputs).
        spikes: neuron spikes, bool, shape (samples, steps, neurons).
        membrane: potential before the reset, float32, shape (samples, steps, neurons), in units of the weights.
    """

    inputs: NDArray[np.bool_]
    spikes: NDArray[np.bool_]
    membrane: NDArray[np.float32]

    @property
    def counts(self) -> NDArray[np.uint16]:
        """Spikes of every neuron over all steps, shape (samples, neurons)."""
        return self.spikes.sum(axis=1, dtype=np.uint16)


def trace(encoder: LsmEncoder, spikes: NDArray[np.uint64]) -> Trace:
    """Run the network over packed input spikes (samples, steps, words), keeping everything."""
    n_samples, n_steps, _ = spikes.shape
    inputs = unpack_bits(spikes, encoder.n_inputs).astype(np.bool_)
    lsm = encoder.settings
    drive, decay, v_threshold = (np.float32(v) for v in (encoder.drive_per_a, lsm.decay, lsm.v_threshold))
    u = np.zeros((n_samples, lsm.n_neurons), np.float32)
    s = np.zeros(u.shape, np.bool_)
    all_s, all_u = (
        np.zeros((n_samples, n_steps, lsm.n_neurons), np.bool_),
        np.zeros((n_samples, n_steps, lsm.n_neurons), np.float32),
    )
    for t in range(n_steps):
        current_a = encoder.backend.vmm(np.hstack([inputs[:, t], s]), encoder.tile, lsm.v_read_v)
        u = decay * u * (~s).astype(np.float32) + drive * current_a
        s = u > v_threshold
        all_u[:, t], all_s[:, t] = u, s
    return Trace(inputs=inputs, spikes=all_s, membrane=all_u)
