"""Motor cortex while a person attempts to write single letters: real recordings, or a model of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import willett
from experiments.datasets.brain_settings import BrainSettings
from experiments.datasets.cache import cached, content_hash
from experiments.datasets.catalogue import DatasetEntry
from experiments.datasets.choice import chosen
from experiments.datasets.cortex import N_BINS, N_CHANNELS
from experiments.datasets.letter_shapes import N_LETTERS
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from hil.errors import ConfigError
from hil.progress import Progress, no_progress
from hil.spikes import pack_bits

#: raise when shapes, model or split change, so that old cache files are not taken for new ones
_VERSION = 1

_SHAPE = f"{N_CHANNELS} channels, {N_BINS} steps of 10 ms, letters a..z = 0..25"
_SPLIT = "24 training trials and 3 test trials of each letter, drawn at random or the last ones"
ENTRIES: tuple[DatasetEntry, ...] = (
    DatasetEntry(
        "letters-pen",
        "brain",
        f"model of motor cortex, tuned to the movement of a pen that writes letters; {_SHAPE}",
        _SPLIT,
        "",
        synthetic=True,
    ),
    DatasetEntry(
        "willett",
        "brain",
        f"recordings from motor cortex while a person attempts to write letters (Willett et al. 2021), counts clamped "
        f"at 1; {_SHAPE}",
        _SPLIT,
        willett.LAYOUT,
        synthetic=False,
    ),
)
#: names that `load_brain` knows
BRAIN_NAMES: tuple[str, ...] = tuple(entry.name for entry in ENTRIES)

_Found = tuple[dict[str, object], Callable[[Progress], NDArray[np.bool_]], str]


def load_brain(settings: BrainSettings, progress: Progress = no_progress) -> SpikeDataset:
    """Load what `settings` ask for; rasters are kept in the user's cache folder.

    Args:
        settings: see `BrainSettings`.
        progress: told while trials are made.

    Returns:
        192 inputs, 201 steps of 10 ms, 26 classes (a..z = 0..25), sorted by letter, within a letter by time.

    Raises:
        ConfigError: the name is unknown; the path is missing, not wanted or does not exist; no trial is left for
            training.
        DataError: the file at the path is of another kind or damaged.
    """
    entry = chosen(ENTRIES, settings.dataset, settings.path)
    key, read, source = (_recorded if entry.layout else _modelled)(settings)
    split: dict[str, object] = {
        "version": _VERSION,
        "seed": settings.seed,
        "test_trials": settings.test_trials,
        "held_out": settings.held_out,
    }
    return cached(entry.name, {**split, **key}, lambda: _split(entry, read(progress), settings, source))


def _modelled(settings: BrainSettings) -> _Found:
    from experiments.datasets.pen_trials import Cortex, write_trials

    key: dict[str, object] = {"case": settings.case, "trials": settings.trials, "cortex": Cortex().key()}

    def make(progress: Progress) -> NDArray[np.bool_]:
        return write_trials(settings.case, settings.trials, seed=settings.seed, progress=progress)

    return key, make, "model of motor cortex tuned to the movement of a pen that writes letters (synthetic activity)"


def _recorded(settings: BrainSettings) -> _Found:
    file = willett.source_file(settings.path or Path())
    source = "recordings of attempted handwriting, T5, two arrays in motor cortex (Willett et al. 2021)"
    return {"source": content_hash([file])}, lambda progress: willett.read_trials(file), source


def _split(entry: DatasetEntry, trials: NDArray[np.bool_], settings: BrainSettings, source: str) -> SpikeDataset:
    n, n_test = trials.shape[1], settings.test_trials
    if n_test >= n:
        raise ConfigError(
            f"test_trials is {n_test}, but there are {n} trials of each letter", fix=f"hold out 1..{n - 1} of them"
        )
    is_test = np.zeros(trials.shape[:2], bool)
    for letter, own in enumerate(is_test):
        order = np.random.default_rng([settings.seed, letter]).permutation(n)
        own[order[:n_test] if settings.held_out == "drawn" else slice(n - n_test, n)] = True
    labels = np.broadcast_to(np.arange(N_LETTERS)[:, None], is_test.shape)
    which = "drawn at random for each letter" if settings.held_out == "drawn" else "the last of each letter"
    return SpikeDataset(
        name=entry.name,
        train=SpikeSet(pack_bits(trials[~is_test]), labels[~is_test]),
        test=SpikeSet(pack_bits(trials[is_test]), labels[is_test]),
        n_inputs=N_CHANNELS,
        n_steps=N_BINS,
        n_classes=N_LETTERS,
        synthetic=entry.synthetic,
        source=source,
        note=f"one person; {n_test} of {n} trials of each letter held out, {which}",
    )
