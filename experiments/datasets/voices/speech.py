"""Speaking: from a word, a voice and a take to a wave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.voices.articulation import FRAME_S, Articulation, articulate
from experiments.datasets.voices.glottis import glottal_flow
from experiments.datasets.voices.phonemes import WORDS, Hiss
from experiments.datasets.voices.surroundings import loudest, recorded, shaped_noise, trimmed
from experiments.datasets.voices.tract import through_tract
from experiments.datasets.voices.voice import Voice
from hil.errors import ConfigError

#: samples per second of every wave
RATE_HZ = 16000

_PER_FRAME = round(RATE_HZ * FRAME_S)
#: rms of full aspiration, relative to the peak of the glottal pulses
_BREATH_LEVEL = 0.15
#: noise of frication rises and falls over a quarter of its length, at most this
_MAX_FADE_S = 0.02


def speak(label: int, voice: Voice, take: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Return one utterance as recorded and cut out; equal arguments give equal waves.

    Args:
        label: 0..10, index of WORDS.
        voice: who speaks.
        take: which time, 0 and up. Takes differ in pace, pitch, loudness, articulation, room and noise.
        seed: of the whole data set.

    Returns:
        float64, shape (n,), within -1..1, RATE_HZ samples per second.

    Raises:
        ConfigError: a number is out of its range.
    """
    if not 0 <= label < len(WORDS) or take < 0 or seed < 0:
        raise ConfigError(
            f"label {label}, take {take}, seed {seed}: labels are 0..{len(WORDS) - 1}, takes and seeds 0 and up",
            fix="choose numbers within these limits",
        )
    # label + 1: NumPy takes [a, b] and [a, b, 0, 0] for the same seed, and [a, b] seeds the voice
    rng = np.random.default_rng([seed, voice.number, label + 1, take])
    wave = trimmed(recorded(_said(articulate(label, voice, rng), voice, rng), RATE_HZ, rng), RATE_HZ, rng)
    peak = 10.0 ** (rng.uniform(-12.0, -1.0) / 20.0)
    return wave * (peak / float(np.abs(wave).max()))


def _said(word: Articulation, voice: Voice, rng: np.random.Generator) -> NDArray[np.float64]:
    """The word as it leaves the lips; the rms of its loudest voiced 20 ms is 1."""
    voiced = _voiced(word, voice, rng)
    wave = voiced / loudest(voiced, RATE_HZ)
    for sound, first in zip(word.sounds, word.first_frames, strict=True):
        if sound.hiss is not None:
            n_frames = max(2, round(sound.duration_s / FRAME_S))
            _add_hiss(wave, sound.hiss, first * _PER_FRAME, n_frames * _PER_FRAME, voice, rng)
    return wave


def _voiced(word: Articulation, voice: Voice, rng: np.random.Generator) -> NDArray[np.float64]:
    """What pulses and breath at the glottis become in the tract. Loudness and pitch change within the word."""
    frames = np.arange(len(word.place))
    samples = np.arange(len(frames) * _PER_FRAME) / _PER_FRAME
    fall_octaves = rng.normal(0.2, voice.pitch_spread)
    pitch_hz = voice.pitch_hz * np.exp2(rng.normal(0.0, 0.08) + fall_octaves * (0.5 - word.place))
    fade = 10.0 ** (-rng.uniform(3.0, 14.0) * word.place**2 / 20.0)
    flow, is_open = glottal_flow(
        np.interp(samples, frames, pitch_hz),
        RATE_HZ,
        open_quotient=voice.open_quotient,
        tilt_hz=voice.tilt_hz,
        jitter=voice.jitter,
        shimmer=voice.shimmer,
        rng=rng,
    )
    noise = rng.standard_normal(len(flow))
    # the open glottis lets more air through
    flow += voice.breathiness * (0.3 + 0.7 * is_open) * noise
    source = np.interp(samples, frames, word.voicing * fade) * flow
    source += np.interp(samples, frames, word.breath) * _BREATH_LEVEL * noise
    return through_tract(
        source, word.formants_hz, word.bandwidths_hz, word.nasality, scale=voice.tract_scale, rate_hz=RATE_HZ
    )


def _add_hiss(
    wave: NDArray[np.float64], hiss: Hiss, first: int, n: int, voice: Voice, rng: np.random.Generator
) -> None:
    """Add the noise of one sound, which lasts from sample `first` for `n` samples between half heights."""
    fade = max(_PER_FRAME, min(n // 4, round(_MAX_FADE_S * RATE_HZ)))
    ramps = np.interp(np.arange(n + fade), [0, fade, n, n + fade], [0.0, 1.0, 1.0, 0.0])
    spectrum = tuple((frequency * voice.hiss_scale, level_db) for frequency, level_db in hiss.spectrum)
    noise = shaped_noise(n + fade, spectrum, RATE_HZ, rng)
    # the silence around a word is longer than a fade, so the noise lies within the wave
    start = first - fade // 2
    wave[start : start + n + fade] += 10.0 ** (hiss.level_db / 20.0) * np.sin(0.5 * np.pi * ramps) ** 2 * noise
