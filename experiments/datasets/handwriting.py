"""How one example of a letter differs from its shape: the hand that wrote it, and the moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import elastic
from experiments.datasets.strokes import PenPath


@dataclass(frozen=True)
class Hand:
    """How much examples of a letter differ; lengths in heights of the letter's unit square.

    All values are ours, set by eye beside real letters.

    Attributes:
        slant: standard deviation of the slant (shift in x per height).
        turn_rad: standard deviation of the turn of the whole letter.
        stretch: standard deviation of the logarithm of width over height.
        stroke_shift: standard deviation of the shift of each stroke of its own.
        bend: standard deviation of the elastic shift that reaches over half the letter.
        wobble: standard deviation of the elastic shift that reaches over a small part of it.
    """

    slant: float
    turn_rad: float
    stretch: float
    stroke_shift: float
    bend: float
    wobble: float


_BEND_REACH = 0.3
_WOBBLE_REACH = 0.12


def slopes(hand: Hand, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw the slant, turn and stretch of `n` writers as matrices, shape (n, 2, 2)."""
    slant, turn_rad, stretch = rng.standard_normal((3, n)) * np.array([[hand.slant], [hand.turn_rad], [hand.stretch]])
    cos, sin, wide, zero, one = np.cos(turn_rad), np.sin(turn_rad), np.exp(stretch / 2), np.zeros(n), np.ones(n)
    turned = np.array([[cos, -sin], [sin, cos]])
    shaped = np.array([[wide, slant], [zero, one / wide]])
    return np.einsum("ijn,jkn->nik", turned, shaped)


def written(
    path: PenPath, points: NDArray[np.float64], hand: Hand, rng: np.random.Generator, matrices: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Write a letter once per matrix.

    Args:
        path: the letter.
        points: where its points are in this hand, shape (n_points, 2); `path.points` for the plain shape.
        hand: how much the examples differ.
        rng: draws them.
        matrices: slant, turn and stretch of each example, shape (n, 2, 2), see `slopes`.

    Returns:
        float64, shape (n, n_points, 2).
    """
    n = len(matrices)
    centre = np.array([0.5, 0.5])
    out = np.einsum("nij,pj->npi", matrices, points - centre) + centre
    strokes = np.arange(int(path.stroke[-1]) + 1)
    shifts = hand.stroke_shift * rng.standard_normal((n, 2, len(strokes)))
    # in the air, the pen goes from the shift of one stroke to that of the next
    before = np.minimum(path.stroke.astype(int), len(strokes) - 1)
    after = np.minimum(before + 1, len(strokes) - 1)
    part = path.stroke - before
    out += np.moveaxis(shifts[..., before] * (1.0 - part) + shifts[..., after] * part, 1, 2)
    out = elastic.shifted(out, rng, amount=hand.bend, reach=_BEND_REACH)
    return elastic.shifted(out, rng, amount=hand.wobble, reach=_WOBBLE_REACH)
