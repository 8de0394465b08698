"""Which real images of letters are for training and which for testing."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.letter_images import LetterPack
from experiments.datasets.letter_shapes import N_LETTERS
from hil.errors import DataError


@dataclass(frozen=True)
class SplitLetters:
    """Images of both parts, sorted by letter, within a letter in random order.

    Attributes:
        x: for "train" and "test": uint8, shape (n, 28, 28).
        y: the same: int64, shape (n,), 0 = A .. 25 = Z.
        text: how the images were split, letter by letter counts included, in a sentence or two.
    """

    x: dict[str, NDArray[np.uint8]]
    y: dict[str, NDArray[np.int64]]
    text: str


def split_letters(
    packs: Sequence[LetterPack], *, test_fraction: float, at_most: dict[str, int], seed: int
) -> SplitLetters:
    """Split as EMNIST does where both of its parts are there; all else by writer, or within each letter.

    Args:
        packs: the images.
        test_fraction: part of the writers, or of the images of a letter, that is held out of files without parts; at
            least one.
        at_most: images of one letter for "train" and for "test"; which are kept is drawn at random.
        seed: of all draws.

    Raises:
        DataError: no letter has an image in both parts.
    """
    official = {"train", "test"} <= {pack.part for pack in packs}
    x: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    y: dict[str, list[NDArray[np.int64]]] = {"train": [], "test": []}
    how: list[str] = []
    for number, pack in enumerate(packs):
        rng = np.random.default_rng([seed, number])
        if official and pack.part:
            is_test, rule = np.full(len(pack.y), pack.part == "test"), "EMNIST's own split"
        elif pack.writer is not None:
            is_test, rule = _by_writer(pack.writer, test_fraction, rng), "by writer"
        else:
            is_test, rule = _by_letter(pack.y, test_fraction, rng), "at random within each letter"
        how.append(f"{pack.file} {rule}")
        for part, chosen in (("train", ~is_test), ("test", is_test)):
            x[part].append(pack.x[chosen])
            y[part].append(pack.y[chosen])
    joined_x, joined_y = {}, {}
    for stream, part in enumerate(("train", "test")):
        labels = np.concatenate(y[part])
        kept = _kept(labels, at_most[part], np.random.default_rng([seed, len(packs), stream]))
        joined_x[part], joined_y[part] = np.concatenate(x[part])[kept], labels[kept]
    counts = [np.bincount(joined_y[part], minlength=N_LETTERS) for part in ("train", "test")]
    if not (np.minimum(*counts) > 0).any():
        raise DataError(
            f"{', '.join(pack.file for pack in packs)}: no letter has an image for training and one for testing",
            fix="give more images, or a larger test_fraction",
        )
    return SplitLetters(joined_x, joined_y, f"split: {'; '.join(how)}. Training + test images: {_table(*counts)}")


def _by_writer(writer: NDArray[np.int64], fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    names = rng.permutation(np.unique(writer))
    return np.isin(writer, names[: _held_out(len(names), fraction)])


def _by_letter(y: NDArray[np.int64], fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    is_test = np.zeros(len(y), bool)
    for letter in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == letter))
        is_test[own[: _held_out(len(own), fraction)]] = True
    return is_test


def _held_out(n: int, fraction: float) -> int:
    return min(max(round(n * fraction), 1), n - 1)


def _kept(y: NDArray[np.int64], at_most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    own = [rng.permutation(np.flatnonzero(y == letter))[:at_most] for letter in range(N_LETTERS)]
    return np.concatenate(own)


def _table(train: NDArray[np.int64], test: NDArray[np.int64]) -> str:
    """Letters with equal numbers together, as in 'A..L 240 + 30, N 44 + 11, none of Z'."""
    groups: list[tuple[int, int, str]] = []
    for letter, numbers in enumerate(zip(train.tolist(), test.tolist(), strict=True)):
        if groups and groups[-1][:2] == numbers:
            groups[-1] = (*numbers, groups[-1][2] + string.ascii_uppercase[letter])
        else:
            groups.append((*numbers, string.ascii_uppercase[letter]))
    return ", ".join(
        f"{names[0]}{f'..{names[-1]}' if len(names) > 1 else ''} {f'{n} + {m}' if n + m else 'none'}"
        for n, m, names in groups
    )
