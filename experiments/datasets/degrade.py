"""Poorer input for a data set that is loaded: fewer inputs, flipped bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from hil.errors import ConfigError
from hil.spikes import pack_bits, unpack_bits

#: samples that are unpacked at once: some 50 MB of random numbers
_CHUNK = 1000


def cropped(dataset: SpikeDataset, px: int, *, from_px: int) -> SpikeDataset:
    """Return the data set as a sensor of fewer pixels would have seen it: the centre of each frame.

    Args:
        dataset: its inputs are the pixels of a square, row by row.
        px: side of the centre to keep in pixels.
        from_px: side of the square.

    Raises:
        ConfigError: the inputs are no such square, or it is not larger than what is to be kept.
    """
    if dataset.n_inputs != from_px * from_px or not 1 <= px <= from_px:
        raise ConfigError(
            f"data set {dataset.name} has {dataset.n_inputs} inputs, of which no centre of {px} x {px} pixels can be "
            f"cut: that needs a square of {from_px} x {from_px}",
            fix=f"use 1 to {from_px} pixels, and a data set of frames",
        )
    if px == from_px:
        return dataset
    first = (from_px - px) // 2
    kept = np.arange(dataset.n_inputs).reshape(from_px, from_px)[first : first + px, first : first + px].ravel()

    def centre(samples: SpikeSet) -> SpikeSet:
        parts = [pack_bits(unpack_bits(part, dataset.n_inputs)[..., kept]) for part in _chunks(samples.words)]
        return replace(samples, words=np.concatenate(parts))

    return replace(
        dataset,
        train=centre(dataset.train),
        test=centre(dataset.test),
        n_inputs=len(kept),
        note=_also(dataset.note, f"cut to its centre of {px} x {px} pixels"),
    )


def with_flipped_bits(dataset: SpikeDataset, share: float, *, seed: int) -> SpikeDataset:
    """Return the data set with input bits flipped: spikes that are missing, and spikes that nobody sent.

    Training and test samples alike, since a noisy sensor is noisy from the start. More noise includes less: a bit that
    is flipped at one share is flipped at every larger one.

    Args:
        dataset: any.
        share: probability that a bit (one input in one time step) is flipped, 0 to 1.
        seed: the same seed flips the same bits.
    """
    if share == 0.0:
        return dataset

    def flipped(samples: SpikeSet, stream: int) -> SpikeSet:
        rng = np.random.default_rng([seed, stream])
        words = samples.words.copy()
        for part in _chunks(words):
            part ^= pack_bits(rng.random((*part.shape[:2], dataset.n_inputs), np.float32) < share)
        return replace(samples, words=words)

    return replace(
        dataset,
        train=flipped(dataset.train, 0),
        test=flipped(dataset.test, 1),
        note=_also(dataset.note, f"{100 * share:g} % of the input bits flipped, training and test"),
    )


def _chunks(words: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    """Views of a few samples each: a large data set, unpacked to a byte or a random number per bit, takes gigabytes."""
    for start in range(0, len(words), _CHUNK):
        yield words[start : start + _CHUNK]


def _also(note: str, more: str) -> str:
    return f"{note}; {more}" if note else more
