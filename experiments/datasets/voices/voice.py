"""Voices: what differs between speakers, drawn at random and the same for every word of a voice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from experiments.datasets.voices.phonemes import SOUNDS
from hil.errors import ConfigError


@dataclass(frozen=True)
class VoiceKind:
    """Ranges of a group of speakers: (lowest, highest) each, drawn uniformly.

    Attributes:
        tract_scale: formants relative to the table's man. Vowel formants of women are about 1.17 times and those of
            children about 1.35 times those of men (J. Hillenbrand et al., J. Acoust. Soc. Am. 97, 3099 (1995),
            doi:10.1121/1.411872; Peterson and Barney 1952).
        pitch_hz: mean of the fundamental frequency.
    """

    tract_scale: tuple[float, float]
    pitch_hz: tuple[float, float]


KINDS: dict[str, VoiceKind] = {
    "man": VoiceKind((0.93, 1.08), (85.0, 160.0)),
    "woman": VoiceKind((1.09, 1.24), (160.0, 255.0)),
    "child": VoiceKind((1.22, 1.40), (210.0, 330.0)),
}
#: kinds of the voices, in turn: of five voices two are men, two women, one a child
_KIND_CYCLE = ("man", "woman", "man", "woman", "child")


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Attributes:
        number: names the voice, and seeds all its utterances.
        kind: key of KINDS.
        tract_scale: formants relative to the table.
        hiss_scale: frequencies of frication relative to the table.
        vowel_space: spread of vowels around the neutral one; below 1 for a slack articulation.
        pitch_hz: mean of the fundamental frequency.
        pitch_spread: standard deviation of how far the pitch falls within a word, in octaves.
        rate: how fast, 1 for the durations of the table.
        open_quotient: part of a glottal period with an open glottis.
        tilt_hz: corner of the voice source's extra low-pass; low for a soft voice.
        breathiness: noise at the glottis while it vibrates.
        jitter, shimmer: standard deviation of the periods and of their amplitudes, relative.
        hiss_db: per sound, strength of frication relative to the table.
        bandwidth: of the formants, relative to the table.
        rhoticity: how much of the r in "four" is spoken, 0..1.
        fronting: how far forward the vowels of "two" and "oh" are, 0..1.
        final_release: how often the t of "eight" is released.
        shifts: per vowel, factors on the three formants: an accent.
        lengths: per sound, a factor on its duration: a habit.
    """

    number: int
    kind: str
    tract_scale: float
    hiss_scale: float
    vowel_space: float
    pitch_hz: float
    pitch_spread: float
    rate: float
    open_quotient: float
    tilt_hz: float
    breathiness: float
    jitter: float
    shimmer: float
    hiss_db: dict[str, float]
    bandwidth: float
    rhoticity: float
    fronting: float
    final_release: float
    shifts: dict[str, tuple[float, ...]]
    lengths: dict[str, float]


def draw_voice(number: int, *, seed: int = 0) -> Voice:
    """Return voice `number` (0 and up) of the population `seed`; equal arguments give equal voices.

    Raises:
        ConfigError: a number is negative.
    """
    if number < 0 or seed < 0:
        raise ConfigError(f"voice {number} of population {seed}: both must be 0 or more", fix="count from 0")
    rng = np.random.default_rng([seed, number])
    kind = _KIND_CYCLE[number % len(_KIND_CYCLE)]
    ranges = KINDS[kind]
    tract_scale = rng.uniform(*ranges.tract_scale)
    common_hiss_db = rng.normal(0.0, 4.0)
    return Voice(
        number=number,
        kind=kind,
        tract_scale=tract_scale,
        hiss_scale=float(np.sqrt(tract_scale) * rng.uniform(0.88, 1.12)),
        vowel_space=rng.uniform(0.85, 1.12),
        pitch_hz=rng.uniform(*ranges.pitch_hz),
        pitch_spread=rng.uniform(0.1, 0.35),
        rate=float(np.exp(rng.normal(0.0, 0.16))),
        open_quotient=rng.uniform(0.45, 0.8),
        tilt_hz=float(np.exp(rng.uniform(np.log(900.0), np.log(4000.0)))),
        breathiness=float(np.exp(rng.uniform(np.log(0.005), np.log(0.08)))),
        jitter=rng.uniform(0.004, 0.02),
        shimmer=rng.uniform(0.02, 0.12),
        hiss_db={name: common_hiss_db + rng.normal(0.0, 4.0) for name in SOUNDS},
        bandwidth=rng.uniform(0.8, 1.6),
        rhoticity=rng.uniform(0.0, 1.0),
        fronting=rng.uniform(0.0, 1.0),
        final_release=rng.uniform(0.3, 1.0),
        shifts={name: _factors(rng, 0.09, 0.06, 0.04) for name in SOUNDS},
        lengths={name: float(np.exp(rng.normal(0.0, 0.15))) for name in SOUNDS},
    )


def _factors(rng: np.random.Generator, *spread: float) -> tuple[float, ...]:
    return tuple(float(factor) for factor in np.exp(rng.normal(0.0, spread)))
