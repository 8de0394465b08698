"""What every data set becomes: packed binary spike rasters with labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError, DataError
from hil.spikes import n_words


@dataclass(frozen=True)
class SpikeSet:
    """Samples of one split.

    Attributes:
        words: uint64, shape (n_samples, n_steps, n_words); input i is bit i % 64 of word i // 64.
        labels: int64, shape (n_samples,), 0 .. n_classes - 1.
        speakers: int64, shape (n_samples,), who spoke, index into `SpikeDataset.speaker_names`; None where nobody did.

    Raises:
        DataError: the arrays do not have these types and shapes.
    """

    words: NDArray[np.uint64]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        words, labels = self.words, self.labels
        if words.dtype != np.uint64 or words.ndim != 3 or labels.dtype != np.int64 or labels.shape != words.shape[:1]:
            raise DataError(
                f"a spike set has words {words.dtype}{words.shape} and labels {labels.dtype}{labels.shape}, not "
                "uint64 (n, n_steps, n_words) and int64 (n,)",
                fix="make the arrays with pack_bits and one label per sample",
            )
        if self.speakers is not None and (self.speakers.dtype != np.int64 or self.speakers.shape != labels.shape):
            raise DataError(
                f"a spike set of {len(labels)} samples has speakers {self.speakers.dtype}{self.speakers.shape}, not "
                f"int64 ({len(labels)},)",
                fix="give one speaker per sample",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def taken(self, index: NDArray[np.intp]) -> SpikeSet:
        """Return the samples at `index` (int array), in that order, as a copy."""
        speakers = None if self.speakers is None else self.speakers[index]
        return SpikeSet(self.words[index], self.labels[index], speakers)


@dataclass(frozen=True)
class SpikeDataset:
    """A data set ready for an experiment.

    Attributes:
        name: name in the table of `load_dataset`.
        train: samples to train on.
        test: samples never seen in training.
        n_inputs: inputs of one time step (256 for the 16 x 16 crop).
        n_steps: time steps of one sample.
        n_classes: number of labels.
        synthetic: True where the events come from a model and not from a recording.
        source: one sentence about where the data are from; every report repeats it.
        note: what else a reader of a result must know, such as that the set is small; may be empty.
        speaker_names: of those who spoke, at the index that `SpikeSet.speakers` gives; empty where nobody did.

    Raises:
        DataError: a split is empty, or its shape, labels or speakers do not fit the numbers above.
    """

    name: str
    train: SpikeSet
    test: SpikeSet
    n_inputs: int
    n_steps: int
    n_classes: int
    synthetic: bool
    source: str
    note: str = ""
    speaker_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expected = (self.n_steps, n_words(self.n_inputs))
        for split, samples in (("train", self.train), ("test", self.test)):
            if not len(samples):
                raise DataError(f"data set {self.name}: the {split} split is empty", fix="give data for both splits")
            if samples.words.shape[1:] != expected:
                raise DataError(
                    f"data set {self.name}: the {split} rasters have shape {samples.words.shape[1:]}, not {expected}",
                    fix="make the rasters with the same bins and inputs as the data set states",
                )
            low, high = int(samples.labels.min()), int(samples.labels.max())
            if low < 0 or high >= self.n_classes:
                raise DataError(
                    f"data set {self.name}: {split} labels span {low}..{high}, allowed are 0..{self.n_classes - 1}",
                    fix="correct the labels or the number of classes",
                )
            self._check_speakers(split, samples)

    def _check_speakers(self, split: str, samples: SpikeSet) -> None:
        speakers, n_names = samples.speakers, len(self.speaker_names)
        if (speakers is None) != (n_names == 0):
            raise DataError(
                f"data set {self.name}: {n_names} speakers are named, but the {split} split does "
                f"{'not ' if speakers is None else ''}say who spoke",
                fix="give speaker_names together with the speakers of both splits",
            )
        if speakers is not None and not 0 <= speakers.min() <= speakers.max() < n_names:
            raise DataError(
                f"data set {self.name}: {split} speakers span {speakers.min()}..{speakers.max()}, "
                f"allowed are 0..{n_names - 1}",
                fix="correct the speakers or name them all",
            )

    def described(self) -> dict[str, Any]:
        """What a report says about the data, as JSON can hold it."""
        return {
            "dataset": self.name,
            "data_source": self.source,
            "data_synthetic": self.synthetic,
            "data_note": self.note,
            "n_train": len(self.train),
            "n_test": len(self.test),
        }

    def limited(self, n_train: int | None = None, n_test: int | None = None, *, seed: int = 0) -> SpikeDataset:
        """Return a random subset.

        Args:
            n_train: training samples to keep, drawn without replacement and without regard to class; None keeps all,
                in their order.
            n_test: test samples to keep, in the same way.
            seed: the same seed and numbers give the same subset; a smaller number gives a part of a larger one.

        Raises:
            ConfigError: a number is below 1 or above what the set holds.
        """
        splits: dict[str, SpikeSet] = {}
        for stream, (split, samples, wanted) in enumerate(
            (("train", self.train, n_train), ("test", self.test, n_test))
        ):
            if wanted is None:
                continue
            if not 1 <= wanted <= len(samples):
                raise ConfigError(
                    f"n_{split} is {wanted}, but data set {self.name} holds 1..{len(samples)} {split} samples",
                    fix=f"choose n_{split} between 1 and {len(samples)}, or leave it out to use all",
                )
            # one stream per split, so that the test subset does not change with n_train
            order = np.random.default_rng([seed, stream]).permutation(len(samples))
            splits[split] = samples.taken(order[:wanted])
        return replace(self, **splits) if splits else self  # pyright: ignore[reportArgumentType]
