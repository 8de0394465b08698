"""Pictures of written letters: 28 x 28 grey values, framed as EMNIST frames its letters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IMAGE_PX = 28
#: longer side of the box around the pen's line
BOX_PX = 20.0
# the pen's mark is a Gaussian cut off at full black; this is its height before the cut
_PRESSURE = 2.0
_BATCH = 512


def drawn(points: NDArray[np.float64], down: NDArray[np.bool_], pen_px: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw lines with soft edges. Each is scaled, sides in proportion, and centred in its picture.

    Args:
        points: shape (n, n_points, 2): x to the right, y upwards.
        down: shape (n_points - 1,): whether the pen marks from one point to the next.
        pen_px: shape (n,): width of the line at half of full black, in pixels.

    Returns:
        uint8, shape (n, 28, 28): row 0 is the top; 0 = paper, 255 = ink.
    """
    middle = ((points[:, 1:] + points[:, :-1]) / 2)[:, down]
    length = np.linalg.norm(np.diff(points, axis=1), axis=2)[:, down]
    low, high = middle.min(axis=1, keepdims=True), middle.max(axis=1, keepdims=True)
    scale = BOX_PX / (high - low).max(axis=2, keepdims=True)
    at_px = (middle - (low + high) / 2) * scale * np.array([1.0, -1.0]) + (IMAGE_PX - 1) / 2
    length_px = length * scale[..., 0]
    # half of full black lies where _PRESSURE * exp(-d^2 / 2 sigma^2) = 1/2
    sigma_px = pen_px / 2 / np.sqrt(2.0 * np.log(2.0 * _PRESSURE))
    out = np.empty((len(points), IMAGE_PX, IMAGE_PX), np.uint8)
    pixel = np.arange(IMAGE_PX)
    for start in range(0, len(points), _BATCH):
        some = slice(start, start + _BATCH)
        width = sigma_px[some, None, None]
        near_x, near_y = (np.exp(-0.5 * ((at_px[some, :, axis, None] - pixel) / width) ** 2) for axis in (0, 1))
        ink = (near_y * length_px[some, :, None]).swapaxes(1, 2) @ near_x
        ink *= _PRESSURE / (np.sqrt(2.0 * np.pi) * width)
        out[some] = np.round(255.0 * np.minimum(ink, 1.0))
    return out
