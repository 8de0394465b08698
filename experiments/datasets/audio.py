"""Spoken digits by name: as events of a 64-channel cochlea, cut into the time steps of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.datasets import cache, ntidigits, spoken_digits, voices
from experiments.datasets.audio_binning import AudioBinRule, bin_channels
from experiments.datasets.audio_settings import AudioSettings
from experiments.datasets.catalogue import DatasetEntry
from experiments.datasets.choice import chosen
from experiments.datasets.cochlea import Cochlea
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from experiments.datasets.utterances import N_CHANNELS, N_CLASSES, Utterances
from hil.progress import Progress, no_progress

#: raise when the code of a reader, of the cochlea, of the bins or of the note changes what the same files give, so that
#: old cache files are not taken for new ones
_VERSION = 1


@dataclass(frozen=True)
class _Found:
    """Utterances that are at hand.

    Attributes:
        key: what they depend on.
        read: reads or makes them.
        source: one sentence about where they are from.
        who: what a speaker is called.
    """

    key: dict[str, object]
    read: Callable[[Progress], Utterances]
    source: str
    who: str = "speaker"


def _voices() -> _Found:
    return _Found(
        {"source": cache.content_hash([voices.FILE])},
        lambda progress: voices.load_voices(),
        "spoken digits from a speech synthesiser through a simulated cochlea (synthetic speech)",
        "voice",
    )


def _spoken_digits(path: Path) -> _Found:
    files, cochlea = spoken_digits.source_files(path), Cochlea()
    # labels are read from the names, so they are part of the content
    names = [file.name for file in files]
    return _Found(
        {"source": cache.content_hash(files), "names": names, "cochlea": cochlea.key()},
        lambda progress: spoken_digits.read_spoken_digits(path, cochlea, progress=progress),
        spoken_digits.SOURCE,
    )


def _ntidigits(path: Path) -> _Found:
    source = ntidigits.source_file(path)
    return _Found(
        {"source": cache.content_hash([source])},
        lambda progress: ntidigits.read_ntidigits(source, progress=progress),
        ntidigits.SOURCE,
    )


_FROM_PATH: dict[str, Callable[[Path], _Found]] = {"spoken-digits": _spoken_digits, "ntidigits": _ntidigits}

_SHAPE = f"(129 steps, {N_CHANNELS} channels), classes 0..9 and 10 = 'oh'"
ENTRIES: tuple[DatasetEntry, ...] = (
    DatasetEntry(
        "digits-voices",
        "audio",
        f"spoken digits from a speech synthesiser with many voices, through a simulated cochlea: {_SHAPE}",
        "by voice: no voice is in both",
        "",
        synthetic=True,
    ),
    DatasetEntry(
        "spoken-digits",
        "audio",
        f"recordings of spoken digits, through a simulated cochlea: {_SHAPE}; FSDD has no 'oh'",
        "takes 0..4 of every speaker and digit are for testing, the others for training: the same speakers in both",
        spoken_digits.LAYOUT,
        synthetic=False,
    ),
    DatasetEntry(
        "ntidigits",
        "audio",
        f"spoken digits recorded with a silicon cochlea, utterances of one digit: {_SHAPE}",
        "as published: train_labels and test_labels, no speaker in both",
        ntidigits.LAYOUT,
        synthetic=False,
    ),
)
#: names that `load_audio` knows
AUDIO_NAMES: tuple[str, ...] = tuple(entry.name for entry in ENTRIES)


def load_audio(settings: AudioSettings, progress: Progress = no_progress) -> SpikeDataset:
    """Load what `settings` ask for, cut to `n_train` and `n_test`; rasters are kept in the user's cache folder.

    Args:
        settings: see `AudioSettings`.
        progress: told while recordings are read and heard.

    Raises:
        ConfigError: the name is unknown, the path is missing, not wanted or does not exist, a number is out of range.
        DataError: the data at the path are of another kind or damaged.
    """
    entry = chosen(ENTRIES, settings.dataset, settings.path)
    found = _voices() if settings.path is None else _FROM_PATH[entry.name](settings.path)
    rule = AudioBinRule(settings.bin_rule, settings.time_step_s, settings.n_steps)
    key: dict[str, object] = {"version": _VERSION, **found.key, "rule": rule.key()}
    dataset = cache.cached(entry.name, key, lambda: _binned(entry, found, rule, progress))
    return dataset.limited(settings.n_train, settings.n_test, seed=settings.seed)


def _binned(entry: DatasetEntry, found: _Found, rule: AudioBinRule, progress: Progress) -> SpikeDataset:
    utterances = found.read(progress)
    sets: list[SpikeSet] = []
    for is_test in (False, True):
        samples = [sample for sample in utterances.samples if sample.is_test == is_test]
        sets.append(
            SpikeSet(
                np.stack([bin_channels(sample.events, rule) for sample in samples]),
                np.array([sample.label for sample in samples], dtype=np.int64),
                np.array([sample.speaker for sample in samples], dtype=np.int64),
            )
        )
    return SpikeDataset(
        name=entry.name,
        train=sets[0],
        test=sets[1],
        n_inputs=N_CHANNELS,
        n_steps=rule.n_steps,
        n_classes=N_CLASSES,
        synthetic=entry.synthetic,
        source=found.source,
        note=_shared(utterances, found.who),
        speaker_names=utterances.speaker_names,
    )


def _shared(utterances: Utterances, who: str) -> str:
    """Who speaks in both splits: as the data say it, not as it was published."""
    train, test = (
        {sample.speaker for sample in utterances.samples if sample.is_test == is_test} for is_test in (False, True)
    )
    if train == test:
        return f"the same {who}s are in training and test"
    both = sorted(utterances.speaker_names[number] for number in train & test)
    if not both:
        return f"no {who} is in both training and test"
    return f"{len(both)} of {len(train | test)} {who}s are in both training and test, such as {both[0]}"
