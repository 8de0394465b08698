"""Row vectors of real spike trains: what a network puts on its rows, step by step.

Inputs are recorded or generated spikes, the rest are the network's own. Validation asks a board and its simulator for
the products with them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hil.lsm.encoder import LsmEncoder
from hil.lsm.reference import trace


def row_vectors(encoder: LsmEncoder, spikes: NDArray[np.uint64], n_vectors: int, seed: int) -> NDArray[np.bool_]:
    """Some of the row vectors of an encoder, with at least one spike each.

    Args:
        encoder: the network; vectors are of its tile.
        spikes: packed input spikes, shape (samples, steps, words); a few samples are enough.
        n_vectors: how many to draw; fewer come back where there are fewer.
        seed: draws them.

    Returns:
        Shape (n, encoder.tile.n_rows), in the order of samples and steps.
    """
    found = trace(encoder, spikes)
    own = np.zeros_like(found.spikes)
    # A spike of a neuron is on its row one step later.
    own[:, 1:] = found.spikes[:, :-1]
    vectors = np.concatenate([found.inputs, own], axis=2).reshape(-1, encoder.tile.n_rows)
    spoken = np.flatnonzero(vectors.any(axis=1))
    drawn = np.random.default_rng(seed).permutation(spoken)[:n_vectors]
    return vectors[np.sort(drawn)]
