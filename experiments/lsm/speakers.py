"""Leave-one-speaker-out: how well the read-out does on a voice that it has never been trained on.

Each speaker in turn is kept out. The read-out is trained on all recordings of the others by the honest protocol, whose
validation part is of those others, too, and tested once on all recordings of the one kept out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.lsm.protocols import LabelledFeatures, choose_by_validation
from hil.errors import ConfigError
from hil.lsm.accuracy import wilson_interval
from hil.lsm.settings import ReadoutSettings
from hil.progress import Progress, no_progress


@dataclass(frozen=True)
class SpeakerScore:
    """How well one speaker was understood without being known.

    Attributes:
        speaker: name.
        n_right, n_samples: recordings whose class is right, and all of them.
        validation_accuracy: score on the other speakers that penalty and epochs were chosen by.
    """

    speaker: str
    n_right: int
    n_samples: int
    validation_accuracy: float

    @property
    def accuracy(self) -> float:
        """Fraction of recordings whose class is right."""
        return self.n_right / self.n_samples

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `accuracy`; of this speaker's recordings, not of speakers."""
        return wilson_interval(self.n_right, self.n_samples)


@dataclass(frozen=True)
class LeftOut:
    """Scores of all speakers, in the order of their names' table."""

    scores: tuple[SpeakerScore, ...]

    @property
    def mean_accuracy(self) -> float:
        """Mean over speakers, each counted alike."""
        return float(np.mean([score.accuracy for score in self.scores]))

    def described(self) -> dict[str, Any]:
        """What a report says, as JSON can hold it."""
        return {
            "speakers": [
                {
                    "speaker": score.speaker,
                    "accuracy": score.accuracy,
                    "accuracy_interval": list(score.interval),
                    "n_samples": score.n_samples,
                    "validation_accuracy": score.validation_accuracy,
                }
                for score in self.scores
            ],
            "mean_accuracy": self.mean_accuracy,
        }


def leave_one_speaker_out(
    training: LabelledFeatures,
    test: LabelledFeatures,
    speakers_train: NDArray[np.int64],
    speakers_test: NDArray[np.int64],
    names: Sequence[str],
    n_classes: int,
    readout_settings: ReadoutSettings,
    seed: int,
    progress: Progress = no_progress,
) -> LeftOut:
    """Keep out each speaker in turn.

    Training and test samples are put together: here the split is by speaker.

    Args:
        training, test: features (samples, neurons) and labels of both splits.
        speakers_train, speakers_test: int64, shape (samples,), index into `names`.
        names: of the speakers; those without a sample are passed over.
        n_classes: outputs of the read-out.
        readout_settings: of the honest protocol.
        seed: of its validation split and of the read-out.
        progress: told after every speaker.

    Raises:
        ConfigError: there are not two speakers with samples.
    """
    everything = LabelledFeatures(
        np.concatenate([training.features, test.features]), np.concatenate([training.labels, test.labels])
    )
    speakers = np.concatenate([speakers_train, speakers_test])
    present = np.unique(speakers)
    if len(present) < 2:
        raise ConfigError(
            f"leaving one speaker out needs two or more, and there are samples of {len(present)}",
            fix="give data of several speakers, or more samples of them",
        )
    scores: list[SpeakerScore] = []
    for number, speaker in enumerate(present):
        progress("leave one speaker out", number, len(present))
        chosen = choose_by_validation(
            everything[np.flatnonzero(speakers != speaker)], n_classes, readout_settings, seed
        )
        left_out = everything[np.flatnonzero(speakers == speaker)]
        n_right = int((chosen.readout.predict(left_out.features) == left_out.labels).sum())
        scores.append(SpeakerScore(names[speaker], n_right, len(left_out.labels), chosen.validation_accuracy))
    progress("leave one speaker out", len(present), len(present))
    return LeftOut(tuple(scores))
