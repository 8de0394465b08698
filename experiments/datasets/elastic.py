"""Elastic distortion of points: a smooth random shift of the plane (Simard, Steinkraus, Platt 2003)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# the plane reaches beyond the unit square, since letters lean out of it
_LOW, _HIGH = -0.5, 1.5


def shifted(
    points: NDArray[np.float64], rng: np.random.Generator, *, amount: float, reach: float
) -> NDArray[np.float64]:
    """Shift each path by a random field of its own, made of white noise on a grid under a Gaussian.

    Source: Simard, Steinkraus, Platt, 'Best practices for convolutional neural networks', ICDAR 2003
    (doi:10.1109/ICDAR.2003.1227801). There the field moves pixels; here it moves the points of a line before it is
    drawn, which blurs nothing.

    Args:
        points: shape (n, n_points, 2), about in the unit square.
        rng: noise of the fields.
        amount: standard deviation of the shift in either direction, in sides of the unit square.
        reach: standard deviation of the Gaussian and distance of the grid's nodes, in the same unit.

    Returns:
        float64, shape (n, n_points, 2).
    """
    nodes = np.arange(_LOW, _HIGH + reach, reach)
    noise = rng.standard_normal((len(points), 2, len(nodes), len(nodes)))
    near_x, near_y = (np.exp(-0.5 * ((points[..., axis, None] - nodes) / reach) ** 2) for axis in (0, 1))
    field = np.stack([((near_x @ noise[:, axis]) * near_y).sum(axis=2) for axis in (0, 1)], axis=2)
    # the same strength everywhere, between the nodes as on them
    strength = np.sqrt((near_x**2).sum(axis=2) * (near_y**2).sum(axis=2))
    return points + amount * field / strength[..., None]
