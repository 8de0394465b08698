"""Projections of two modalities into one space: one layer with GELU each, trained on pairs.

The gradients are written out, since a step on eight pairs is far smaller than what torch does around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from experiments.lsm.zero_shot_settings import ProjectionSettings

Matrix = NDArray[np.float32]

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8
#: The learned scale of cosines stays below this, as in CLIP.
_SCALE_MAX = 100.0


@dataclass(frozen=True)
class Projection:
    """gelu((x - mean) / spread @ weight + bias), divided by its length.

    Attributes:
        weight: shape (inputs, outputs).
        bias: shape (outputs,).
        mean, spread: of the training features, shape (inputs,).
    """

    weight: Matrix
    bias: Matrix
    mean: Matrix
    spread: Matrix

    def __call__(self, features: Matrix) -> Matrix:
        """Embeddings (samples, outputs) of features (samples, inputs)."""
        from scipy.special import ndtr

        z = ((features - self.mean) / self.spread) @ self.weight + self.bias
        g = z * ndtr(z)
        length = np.sqrt((g**2).sum(axis=1, keepdims=True) + 1e-12)
        return np.asarray(g / length, np.float32)


@dataclass(frozen=True)
class Projections:
    """The layer of each modality."""

    query: Projection
    gallery: Projection


def train(
    query: Matrix,
    gallery: Matrix,
    labels: NDArray[np.int64],
    settings: ProjectionSettings,
    *,
    penalty: float,
    temperature: float,
    seed: int,
    after_epoch: Callable[[int, Projections], None],
    epochs: int | None = None,
) -> None:
    """Train on pairs with Adam, and show the projections after every epoch.

    Args:
        query, gallery: features of the pairs, shape (pairs, inputs); the inputs may differ.
        labels: class of each pair; only the loss 'labels' uses them.
        settings: layer, loss and optimiser.
        penalty: decoupled weight decay, per unit of the learning rate.
        temperature: cosines are divided by it; where the learned scale of the loss 'labels' starts.
        seed: start of the weights and order of the pairs.
        after_epoch: called with (epochs done, projections).
        epochs: passes, None for those of the settings.
    """
    rng = np.random.default_rng(seed)
    sides = [_Side.started(x, settings.outputs, rng) for x in (query, gallery)]
    scale = np.array([-math.log(temperature), 0.0, 0.0])
    step = 0
    for epoch in range(settings.epochs if epochs is None else epochs):
        order = rng.permutation(len(labels))
        step = _epoch(
            sides[0].x, sides[0].state, sides[1].x, sides[1].state, labels, order, settings.batch, scale,
            settings.loss == "soft", settings.target_gradient, temperature, settings.learning_rate, penalty, step,
        )  # fmt: skip
        after_epoch(epoch + 1, Projections(sides[0].projection(), sides[1].projection()))


@dataclass(frozen=True)
class _Side:
    """Standardised features, and the state of the layer: weights and Adam's two moments, (3, inputs + 1, outputs).

    The features end in a one, so that the last row of the weights is the biases.
    """

    x: Matrix
    mean: Matrix
    spread: Matrix
    state: Matrix

    @classmethod
    def started(cls, features: Matrix, outputs: int, rng: np.random.Generator) -> _Side:
        mean = features.mean(axis=0)
        spread = features.std(axis=0) + np.float32(1e-3)
        x = np.ones((len(features), features.shape[1] + 1), np.float32)
        x[:, :-1] = (features - mean) / spread
        state = np.zeros((3, x.shape[1], outputs), np.float32)
        bound = 1 / math.sqrt(features.shape[1])
        state[0] = rng.uniform(-bound, bound, state.shape[1:])
        return cls(x, mean, spread, state)

    def projection(self) -> Projection:
        weights = self.state[0].copy()
        return Projection(weights[:-1], weights[-1], self.mean, self.spread)


@nb.njit(cache=True, nogil=True)
def _epoch(xq, sq, xg, sg, labels, order, batch, scale, soft, moving, temperature, rate, penalty, step):  # type: ignore[no-untyped-def]
    """One pass over the pairs in `order`; updates sq, sg and scale in place; returns the number of steps so far."""
    n = len(order)
    for start in range(0, n, batch):
        chosen = order[start : min(start + batch, n)]
        bq, bg = xq[chosen], xg[chosen]
        eq, gq, lq = _embed(bq, sq[0])
        eg, gg, lg = _embed(bg, sg[0])
        inverse = 1.0 / temperature if soft else math.exp(scale[0])
        _, dq, dg, d_scale = _loss(eq, eg, labels[chosen], soft, moving, inverse)
        step += 1
        correct1, correct2 = 1.0 - _BETA1**step, 1.0 - _BETA2**step
        _adam(sq, _weight_gradient(bq, eq, gq, lq, dq), rate, penalty, correct1, correct2)
        _adam(sg, _weight_gradient(bg, eg, gg, lg, dg), rate, penalty, correct1, correct2)
        if not soft:
            scale[1] = _BETA1 * scale[1] + (1.0 - _BETA1) * d_scale
            scale[2] = _BETA2 * scale[2] + (1.0 - _BETA2) * d_scale**2
            scale[0] -= rate * (scale[1] / correct1) / (math.sqrt(scale[2] / correct2) + _EPS)
            scale[0] = min(scale[0], math.log(_SCALE_MAX))
    return step


@nb.njit(cache=True, nogil=True)
def _embed(x, weight):  # type: ignore[no-untyped-def]
    """Embeddings (n, outputs), derivative of the GELU (n, outputs), lengths (n,)."""
    z = np.dot(x, weight)
    slope = np.empty_like(z)
    length = np.empty(len(z), z.dtype)
    for i in range(z.shape[0]):
        total = 0.0
        for j in range(z.shape[1]):
            v = z[i, j]
            below = 0.5 * (1.0 + math.erf(v * 0.7071067811865476))
            slope[i, j] = below + v * 0.3989422804014327 * math.exp(-0.5 * v * v)
            z[i, j] = v * below
            total += z[i, j] * z[i, j]
        length[i] = math.sqrt(total + 1e-12)
        for j in range(z.shape[1]):
            z[i, j] /= length[i]
    return z, slope, length


@nb.njit(cache=True, nogil=True)
def _weight_gradient(x, e, slope, length, de):  # type: ignore[no-untyped-def]
    """Gradient of the weights (inputs + 1, outputs) from that of the embeddings, which is overwritten."""
    for i in range(e.shape[0]):
        along = 0.0
        for j in range(e.shape[1]):
            along += e[i, j] * de[i, j]
        for j in range(e.shape[1]):
            de[i, j] = (de[i, j] - along * e[i, j]) / length[i] * slope[i, j]
    return np.dot(x.T, de)


@nb.njit(cache=True, nogil=True)
def _loss(eq, eg, labels, soft, moving, inverse):  # type: ignore[no-untyped-def]
    """Loss, its gradients with respect to both embeddings, and that with respect to the log of the scale `inverse`.

    `moving`: soft targets, too, depend on the embeddings; otherwise they are constants.
    """
    n = len(eq)
    cosine = np.dot(eq, eg.T)
    target = np.zeros((n, n), np.float32)
    if soft:
        own = np.dot(eq, eq.T) + np.dot(eg, eg.T)
        for i in range(n):
            top = own[i].max()
            for j in range(n):
                target[i, j] = math.exp((own[i, j] - top) * 0.5 / inverse)
            target[i] /= target[i].sum()
    else:
        for i in range(n):
            same = labels == labels[i]
            target[i, same] = 1.0 / same.sum()
    log_row, log_col = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    for i in range(n):
        row, col = cosine[i] * inverse, cosine[:, i] * inverse
        log_row[i] = row - row.max() - math.log(np.exp(row - row.max()).sum())
        log_col[:, i] = col - col.max() - math.log(np.exp(col - col.max()).sum())
    loss, d_scale = 0.0, 0.0
    d_logit, d_own = np.empty((n, n), np.float32), np.zeros((n, n), np.float32)
    half = 0.5 / n
    share = target.sum(axis=0)
    for i in range(n):
        pull = 0.0
        for j in range(n):
            both = log_row[i, j] + log_col[i, j]
            loss -= half * target[i, j] * both
            pull -= half * target[i, j] * both
            d = half * (math.exp(log_row[i, j]) + share[j] * math.exp(log_col[i, j]) - 2.0 * target[i, j])
            d_logit[i, j] = d * inverse
            d_scale += d * cosine[i, j] * inverse
        if soft and moving:
            for j in range(n):
                both = log_row[i, j] + log_col[i, j]
                d_own[i, j] = target[i, j] * (-half * both - pull) * 0.5 / inverse
    d_query, d_gallery = np.dot(d_logit, eg), np.dot(d_logit.T, eq)
    if soft and moving:
        around = d_own + d_own.T
        d_query += np.dot(around, eq)
        d_gallery += np.dot(around, eg)
    return loss, d_query, d_gallery, d_scale


@nb.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _adam(state, gradient, rate, penalty, correct1, correct2):  # type: ignore[no-untyped-def]
    """One step on weights (state[0]) with their moments; the last row, the biases, is not decayed."""
    weight, first, second = state[0], state[1], state[2]
    b1, b2, eps = np.float32(_BETA1), np.float32(_BETA2), np.float32(_EPS)
    c1, c2 = np.float32(1.0 - _BETA1), np.float32(1.0 - _BETA2)
    root, along = np.float32(1.0 / math.sqrt(correct2)), np.float32(rate / correct1)
    rows, cols = weight.shape
    for i in range(rows):
        keep = np.float32(1.0 - rate * penalty) if i < rows - 1 else np.float32(1.0)
        for j in range(cols):
            g = gradient[i, j]
            m = b1 * first[i, j] + c1 * g
            v = b2 * second[i, j] + c2 * g * g
            first[i, j], second[i, j] = m, v
            weight[i, j] = keep * weight[i, j] - along * m / (np.sqrt(v) * root + eps)
