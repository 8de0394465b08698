"""Spoken digits as events of a cochlea, before they are cut into time steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError

#: channels of the cochlea, and inputs of one time step: those of N-TIDIGITS
N_CHANNELS = 64
#: digits 0..9, and "oh", the other word for 0, as class 10
N_CLASSES = 11
OH = 10


@dataclass(frozen=True)
class ChannelEvents:
    """Events of one utterance; two arrays of shape (n_events,), in any order.

    Attributes:
        t_us: int64, time since the start of the utterance in microseconds, not negative.
        channel: int64, 0 .. 63, low frequencies first where the cochlea is ours.

    Raises:
        DataError: the arrays do not fit each other, or a value is out of its range.
    """

    t_us: NDArray[np.int64]
    channel: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.t_us.shape != self.channel.shape or self.t_us.ndim != 1:
            raise DataError(
                f"the event arrays have shapes {self.t_us.shape} and {self.channel.shape}",
                fix="give one time and one channel per event",
            )
        if len(self) and self.t_us.min() < 0:
            raise DataError(f"an event is at {self.t_us.min()} us", fix="count times from the start of the utterance")
        if len(self) and not 0 <= self.channel.min() <= self.channel.max() < N_CHANNELS:
            raise DataError(
                f"channels span {self.channel.min()}..{self.channel.max()}, allowed are 0..{N_CHANNELS - 1}",
                fix=f"use the events of a cochlea with {N_CHANNELS} channels",
            )

    def __len__(self) -> int:
        return len(self.t_us)


@dataclass(frozen=True)
class Utterance:
    """One spoken digit.

    Attributes:
        events: what the cochlea gives.
        label: 0..9, or 10 for "oh".
        speaker: index into `Utterances.speaker_names`.
        is_test: whether it belongs to the test split.
    """

    events: ChannelEvents
    label: int
    speaker: int
    is_test: bool


@dataclass(frozen=True)
class Utterances:
    """All utterances of a data set, in its order.

    Attributes:
        samples: both splits; each keeps this order.
        speaker_names: who speaks.
    """

    samples: Sequence[Utterance]
    speaker_names: tuple[str, ...]
