"""Images of handwritten letters as rate-coded spikes: real ones, or drawn by the strokes of a pen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import letter_images, letter_split
from experiments.datasets.cache import cached, content_hash
from experiments.datasets.catalogue import DatasetEntry
from experiments.datasets.choice import chosen
from experiments.datasets.letter_shapes import N_LETTERS
from experiments.datasets.letters_settings import LettersSettings
from experiments.datasets.rate_coding import N_STEPS, rate_coded
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from hil.progress import Progress, no_progress

N_INPUTS = 784
#: raise when shapes, drawing, split or coding change, so that old cache files are not taken for new ones
_VERSION = 2

_SHAPE = "784 inputs (28 x 28 pixels, rate-coded), 49 steps, letters a..z = 0..25"
ENTRIES: tuple[DatasetEntry, ...] = (
    DatasetEntry(
        "letters-strokes",
        "letters",
        f"letters drawn by a model of a pen and of many writers; {_SHAPE}",
        "240 training and 30 test images of each letter, by writer: no writer is in both",
        "",
        synthetic=True,
    ),
    DatasetEntry(
        "emnist-letters",
        "letters",
        f"real images of handwritten letters, EMNIST or the like; {_SHAPE}",
        "EMNIST's own where its training and test files are there; otherwise 80 % and 20 % of the writers, or of each "
        "letter where they are unknown; at most 240 and 30 images of each letter are used",
        letter_images.LAYOUT,
        synthetic=False,
    ),
)
#: names that `load_letters` knows
LETTERS_NAMES: tuple[str, ...] = tuple(entry.name for entry in ENTRIES)

_Images = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def load_letters(settings: LettersSettings, progress: Progress = no_progress) -> SpikeDataset:
    """Load what `settings` ask for; rasters are kept in the user's cache folder.

    Args:
        settings: see `LettersSettings`.
        progress: told while letters are drawn and coded.

    Returns:
        784 inputs (pixel (row, col) of the upright picture is input row * 28 + col), 49 steps, 26 classes (a..z =
        0..25). Real data may lack some; the note gives the numbers of images of each letter.

    Raises:
        ConfigError: the name is unknown; the path is missing, not wanted or does not exist.
        DataError: the data at the path are of another kind or damaged.
    """
    entry = chosen(ENTRIES, settings.dataset, settings.path)
    find = _emnist if entry.layout else _strokes
    key, read, source = find(settings)
    coding: dict[str, object] = {
        "version": _VERSION,
        "max_spikes": settings.max_spikes,
        "shared_field": settings.shared_field,
        "train_per_class": settings.train_per_class,
        "test_per_class": settings.test_per_class,
        "seed": settings.seed,
    }

    def make() -> SpikeDataset:
        images, note = read(progress)
        return _coded(entry, images, settings, source, note, progress)

    return cached(entry.name, {**coding, **key}, make)


def _strokes(
    settings: LettersSettings,
) -> tuple[dict[str, object], Callable[[Progress], tuple[_Images, str]], str]:
    from experiments.datasets.letter_writers import write_letters

    def write(progress: Progress) -> tuple[_Images, str]:
        n_train, n_test = settings.train_per_class, settings.test_per_class
        every = write_letters(settings.case, n_train + n_test, seed=settings.seed, progress=progress)
        parts = {"train": every[:, :n_train], "test": every[:, n_train:]}
        images = {
            part: (some.reshape(-1, *some.shape[2:]), np.repeat(np.arange(N_LETTERS), some.shape[1]))
            for part, some in parts.items()
        }
        return images, f"{settings.case} letters; {n_train} writers for training, {n_test} others for testing"

    return {"case": settings.case}, write, "letters drawn by a model of a pen and of many writers (synthetic images)"


def _emnist(
    settings: LettersSettings,
) -> tuple[dict[str, object], Callable[[Progress], tuple[_Images, str]], str]:
    place = settings.path or Path()
    files = letter_images.source_files(place)

    def read(progress: Progress) -> tuple[_Images, str]:
        found = letter_split.split_letters(
            letter_images.read_letters(place, settings.transposed),
            test_fraction=settings.test_fraction,
            at_most={"train": settings.train_per_class, "test": settings.test_per_class},
            seed=settings.seed,
        )
        return {part: (found.x[part], found.y[part]) for part in ("train", "test")}, found.text

    key: dict[str, object] = {
        "source": content_hash(files),
        "names": [file.name for file in files],
        "transposed": settings.transposed,
        "test_fraction": settings.test_fraction,
    }
    return key, read, "real images of handwritten letters, rate-coded"


def _coded(
    entry: DatasetEntry, images: _Images, settings: LettersSettings, source: str, note: str, progress: Progress
) -> SpikeDataset:
    sets: list[SpikeSet] = []
    first = 0
    for part in ("train", "test"):
        x, y = images[part]
        words = rate_coded(
            x,
            max_spikes=settings.max_spikes,
            shared_field=settings.shared_field,
            seed=settings.seed,
            first_index=first,
            progress=progress,
        )
        first += len(x)
        sets.append(SpikeSet(words, y))
    return SpikeDataset(entry.name, sets[0], sets[1], N_INPUTS, N_STEPS, N_LETTERS, entry.synthetic, source, note)
