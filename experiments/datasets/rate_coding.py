"""Images as spikes: the brighter a pixel, the more often its input spikes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hil.progress import Progress, no_progress
from hil.spikes import n_words, pack_bits

#: steps that a full rate of `max_spikes` is spread over, and how many of them are used (paper: N_ts and N_ts - 1)
RATE_STEPS = 50
N_STEPS = 49
_BATCH = 256


def spike_probability(images: NDArray[np.uint8], max_spikes: float) -> NDArray[np.float32]:
    """Chance of a spike per step: (x / 255 - 0.5) / 0.5 * max_spikes / 50, and none for pixels below half white."""
    value = (images.astype(np.float32) / 255.0 - 0.5) / 0.5
    return np.clip(value * np.float32(max_spikes / RATE_STEPS), 0.0, 1.0)


def rate_coded(
    images: NDArray[np.uint8],
    *,
    max_spikes: float,
    shared_field: bool,
    seed: int,
    first_index: int = 0,
    progress: Progress = no_progress,
) -> NDArray[np.uint64]:
    """Turn images into packed rasters of 49 steps.

    Args:
        images: uint8, shape (n, height, width).
        max_spikes: spikes of a white pixel in 50 steps.
        shared_field: whether every image meets the same random numbers, as in the paper, so that equal images give
            equal rasters; otherwise each draws its own.
        seed: of the random numbers.
        first_index: number of the first image; images draw by their number.
        progress: told after each batch.

    Returns:
        uint64, shape (n, 49, words): pixel (row, col) is input row * width + col.
    """
    n, n_inputs = len(images), images[0].size
    chance = spike_probability(images, max_spikes).reshape(n, 1, n_inputs)
    words = np.empty((n, N_STEPS, n_words(n_inputs)), np.uint64)
    shared = _field(seed, [0], n_inputs) if shared_field else None
    for start in range(0, n, _BATCH):
        some = slice(start, min(start + _BATCH, n))
        field = (
            shared
            if shared is not None
            else _field(seed, range(first_index + start, first_index + some.stop), n_inputs)
        )
        words[some] = pack_bits(field < chance[some])
        progress("rate coding", some.stop, n)
    return words


def _field(seed: int, indices: range | list[int], n_inputs: int) -> NDArray[np.float32]:
    # a stream per image, so that an image's spikes do not depend on which others are loaded
    return np.stack([np.random.default_rng([seed, i]).random((N_STEPS, n_inputs), dtype=np.float32) for i in indices])
