"""From a word and a voice to what the tract does in each millisecond: targets, smoothed as a mouth smooths them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from experiments.datasets.voices.phonemes import SOUNDS, WORDS, Sound
from experiments.datasets.voices.voice import Voice

#: targets change once per frame
FRAME_S = 1e-3
#: the tract at rest; vowels of a slack articulation come near to it
_NEUTRAL_HZ = np.array([500.0, 1500.0, 2500.0])
#: how much the second formant of the most fronted accent is raised, relative
_FRONTING = {"uw": 0.5, "ow": 0.35}


@dataclass(frozen=True)
class Articulation:
    """A word as one take of one voice says it.

    Attributes:
        sounds: with the targets and durations of this take.
        first_frames: where each sound begins.
        formants_hz, bandwidths_hz: float64, shape (n_frames, 3).
        voicing, breath, nasality: float64, shape (n_frames,); see Sound.
        place: float64, shape (n_frames,), how far into the word, 0..1.
    """

    sounds: tuple[Sound, ...]
    first_frames: tuple[int, ...]
    formants_hz: NDArray[np.float64]
    bandwidths_hz: NDArray[np.float64]
    voicing: NDArray[np.float64]
    breath: NDArray[np.float64]
    nasality: NDArray[np.float64]
    place: NDArray[np.float64]


def articulate(label: int, voice: Voice, rng: np.random.Generator) -> Articulation:
    """Return one take of word `label` (index of WORDS); `rng` draws what differs between takes.

    Coarticulation: targets are joined by a Gaussian of 10 to 28 ms, so that short sounds do not reach theirs, and
    nasality and lip position reach into the neighbours.
    """
    names = [name for name in WORDS[label] if name != "t_last" or rng.uniform() < voice.final_release]
    sounds = [_as_said(name, voice, rng) for name in names]
    # the mouth is in position before the word, and stays so after it
    before = Sound(sounds[0].formants_hz, rng.uniform(0.02, 0.06), voicing=0.0)
    after = Sound(_end_hz(sounds[-1]), rng.uniform(0.03, 0.10), voicing=0.0)
    row = [before, *sounds, after]
    lengths = [max(2, round(sound.duration_s / FRAME_S)) for sound in row]
    bounds = np.cumsum([0, *lengths])

    def smoothed(targets: NDArray[np.float64], width_s: float) -> NDArray[np.float64]:
        return gaussian_filter1d(targets, width_s / FRAME_S, axis=0, mode="nearest")

    def held(values: Sequence[float | tuple[float, float, float]], width_s: float) -> NDArray[np.float64]:
        return smoothed(np.repeat(np.array(values, dtype=np.float64), lengths, axis=0), width_s)

    gliding = np.concatenate([_glide_hz(sound, n) for sound, n in zip(row, lengths, strict=True)])
    place = (np.arange(bounds[-1]) - bounds[1]) / (bounds[-2] - bounds[1])
    return Articulation(
        sounds=tuple(sounds),
        first_frames=tuple(int(bound) for bound in bounds[1:-2]),
        formants_hz=np.exp(smoothed(np.log(gliding), rng.uniform(0.010, 0.028))),
        bandwidths_hz=held([sound.bandwidths_hz for sound in row], 0.010),
        voicing=held([sound.voicing for sound in row], 0.008),
        breath=held([sound.breath for sound in row], 0.008),
        nasality=held([sound.nasality for sound in row], 0.025),
        place=np.clip(place, 0.0, 1.0),
    )


def _as_said(name: str, voice: Voice, rng: np.random.Generator) -> Sound:
    """The sound with the voice's habits and this take's accidents."""
    sound = SOUNDS[name]
    # consonants hardly shorten in fast speech
    pace = voice.rate if sound.is_vowel else np.sqrt(voice.rate)
    accident = np.exp(rng.normal(0.0, (0.06, 0.04, 0.025)))
    start, end = (_of_voice(name, hz, voice) * accident for hz in (sound.formants_hz, _end_hz(sound)))
    first, second, third = (width * voice.bandwidth for width in sound.bandwidths_hz)
    hiss = sound.hiss
    if hiss is not None:
        hiss = replace(hiss, level_db=hiss.level_db + voice.hiss_db[name] + rng.normal(0.0, 2.0))
    return replace(
        sound,
        formants_hz=tuple(start),
        to_hz=tuple(end),
        duration_s=sound.duration_s * voice.lengths[name] * float(np.exp(rng.normal(0.0, 0.1)) / pace),
        bandwidths_hz=(first, second, third),
        hiss=hiss,
    )


def _of_voice(name: str, formants_hz: tuple[float, float, float], voice: Voice) -> NDArray[np.float64]:
    target = np.array(formants_hz)
    if name == "er":
        without_r = np.array(SOUNDS["ao"].formants_hz)
        target = without_r * (target / without_r) ** voice.rhoticity
    if SOUNDS[name].is_vowel:
        target = _NEUTRAL_HZ * (target / _NEUTRAL_HZ) ** voice.vowel_space * np.array(voice.shifts[name])
        target[1] *= 1.0 + _FRONTING.get(name, 0.0) * voice.fronting
    return target * voice.tract_scale


def _end_hz(sound: Sound) -> tuple[float, float, float]:
    return sound.to_hz or sound.formants_hz


def _glide_hz(sound: Sound, n_frames: int) -> NDArray[np.float64]:
    """Formants per frame, shape (n_frames, 3): held, moved in a straight line, held."""
    way = np.clip((np.linspace(0.0, 1.0, n_frames) - 0.25) / 0.6, 0.0, 1.0)[:, None]
    return np.array(sound.formants_hz) * (1.0 - way) + np.array(_end_hz(sound)) * way
