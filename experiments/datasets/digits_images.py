"""Handwritten digits that come with scikit-learn, enlarged to look like MNIST: data that needs no download.

The 1797 images of 8 x 8 pixels are the test part of the UCI set 'Optical Recognition of Handwritten Digits' (Alpaydin,
Kaynak 1998). They are easier than MNIST: few writers, and the same writers in training and test.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.mnist_images import IMAGE_PX, LabelledImages
from hil.errors import ConfigError

#: distortion of a view: uniform within these bounds on either side; about what digits of one writer differ by
MAX_SHIFT_PX = 1.0
MAX_TURN_DEG = 8.0
MAX_SCALE = 0.08
#: side of the box that the 8 x 8 pixels are enlarged to, as the glyph box of MNIST
GLYPH_PX = 20.0

_SOURCE_PX = 8
_SOURCE_MAX = 16.0
_TEST_SHARE = 0.2
# the split is part of the data set, not of a run: a run's seed must never move a test image into training
_SPLIT_SEED = 0


def source_hash() -> str:
    """Return the SHA-256 of the original pixels and labels; other scikit-learn releases might change them."""
    pixels, labels = _original()
    return hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()


def make_digits(n_views: int = 8, *, seed: int = 0) -> LabelledImages:
    """Return the enlarged digits.

    The split is stratified, 80 % training and 20 % test, and always the same. Each training image appears `n_views`
    times: once as it is, then slightly shifted, turned and scaled. A test image appears once, as it is, and no view of
    it is in the training set. The views of one image are not neighbours: the set runs through all images once per view.

    Args:
        n_views: views per training image, at least 1.
        seed: of the distortions.

    Returns:
        uint8 images of 28 x 28, centred by mass: 1437 * n_views for training, 360 for test.

    Raises:
        ConfigError: `n_views` is below 1.
    """
    if n_views < 1:
        raise ConfigError(f"n_views is {n_views}, the least is 1", fix="use for example 8 views")
    from sklearn.model_selection import train_test_split

    pixels, labels = _original()
    split = train_test_split(np.arange(len(labels)), test_size=_TEST_SHARE, stratify=labels, random_state=_SPLIT_SEED)
    train, test = (np.sort(part) for part in split)
    rng = np.random.default_rng(seed)
    views: list[NDArray[np.uint8]] = []
    for view in range(n_views):
        distortion = rng.uniform(-1.0, 1.0, size=(len(train), 4)) if view else np.zeros((len(train), 4))
        views.append(_enlarged(pixels[train], distortion))
    return LabelledImages(
        x_train=np.concatenate(views),
        y_train=np.tile(labels[train], n_views),
        x_test=_enlarged(pixels[test], np.zeros((len(test), 4))),
        y_test=labels[test],
    )


def _original() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = cast(Any, load_digits())
    return np.asarray(bunch.images, dtype=np.float64), np.asarray(bunch.target, dtype=np.int64)


def _enlarged(pixels: NDArray[np.float64], distortion: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Enlarge (n, 8, 8) to (n, 28, 28); `distortion` (n, 4): shift x, shift y, turn, scale, each -1..1."""
    from scipy.ndimage import affine_transform, center_of_mass

    out = np.zeros((len(pixels), IMAGE_PX, IMAGE_PX), dtype=np.uint8)
    centre = (IMAGE_PX - 1) / 2
    for number, (image, (shift_x, shift_y, turn, scale)) in enumerate(zip(pixels, distortion, strict=True)):
        # a dark margin, since the cubic spline would otherwise reflect strokes at the edge of the 8 x 8 box
        padded = np.pad(image / _SOURCE_MAX, 4)
        magnification = GLYPH_PX / _SOURCE_PX * (1.0 + MAX_SCALE * scale)
        angle = np.deg2rad(MAX_TURN_DEG * turn)
        turned = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / magnification
        target = centre + MAX_SHIFT_PX * np.array([shift_y, shift_x])
        offset = np.asarray(center_of_mass(padded)) - turned @ target
        enlarged = affine_transform(padded, turned, offset=offset, output_shape=(IMAGE_PX, IMAGE_PX), order=3)
        out[number] = np.round(np.clip(enlarged, 0.0, 1.0) * 255.0)
    return out
