"""Principal components of spike counts: what is left of thousands of neurons when there are hundreds of samples.

A layer on all neurons has far more weights than the pairs can tell, and fits their noise. The directions in which the
training samples vary most carry what they have in common. The layer trained on them folds back into one on all neurons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.lsm.projection import Projection

Matrix = NDArray[np.float32]

#: directions with less of the variance than this are rounding
_VARIANCE_MIN = 1e-6


@dataclass(frozen=True)
class Components:
    """(features - mean) / spread @ axes.

    Attributes:
        mean, spread: of each neuron, shape (neurons,).
        axes: shape (neurons, components), of orthogonal columns.
    """

    mean: Matrix
    spread: Matrix
    axes: Matrix

    @classmethod
    def of(cls, features: Matrix, n: int, seed: int) -> Components:
        """The `n` directions of most variance, or as many as there are, in a random rotation.

        A trainer that standardises its inputs would make all components equally strong, noise first of all; turned,
        each input holds a share of all of them.

        Args:
            features: training samples, shape (samples, neurons).
            n: components.
            seed: of the rotation.
        """
        mean = features.mean(axis=0)
        spread = features.std(axis=0) + np.float32(1e-3)
        z = ((features - mean) / spread).astype(np.float64)
        # By way of the samples, of which there are fewer.
        variance, vectors = np.linalg.eigh(z @ z.T)
        kept = np.flatnonzero(variance > _VARIANCE_MIN * variance[-1])[-n:]
        axes = z.T @ (vectors[:, kept] / np.sqrt(variance[kept]))
        turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(kept), len(kept))))
        return cls(mean, spread, (axes @ turn).astype(np.float32))

    def __call__(self, features: Matrix) -> Matrix:
        """Components (samples, components) of features (samples, neurons)."""
        return np.asarray((features - self.mean) / self.spread @ self.axes, np.float32)

    def folded(self, layer: Projection) -> Projection:
        """A layer on the components as one on all neurons."""
        weight = layer.weight / layer.spread[:, None]
        return Projection(self.axes @ weight, layer.bias - layer.mean @ weight, self.mean, self.spread)
