"""Make the file of the synthetic voices: `python -m experiments.datasets.voices.make_events`.

It needs nothing but the project. Equal programs make equal files, apart from a few events that the rounding of another
processor or another release of NumPy or SciPy may move.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.cochlea import Cochlea
from experiments.datasets.utterances import Utterance, Utterances
from experiments.datasets.voices import FILE
from experiments.datasets.voices.event_file import VoiceFile, write_voice_file
from experiments.datasets.voices.phonemes import SOUNDS, WORD_NAMES, WORDS
from experiments.datasets.voices.speech import RATE_HZ, speak
from experiments.datasets.voices.voice import KINDS, Voice, draw_voice
from hil.errors import ConfigError

#: the population of the shipped file
SEED = 0
N_VOICES = 72
N_TAKES = 2
#: every fourth voice is for testing; since kinds of voices repeat after five, all kinds are in both splits
TEST_EVERY = 4


def is_test_voice(number: int) -> bool:
    """Whether all utterances of that voice are for testing."""
    return number % TEST_EVERY == TEST_EVERY - 1


def voice_name(voice: Voice) -> str:
    """Name of a voice in reports: kind and number."""
    return f"{voice.kind}-{voice.number:02d}"


def order(n_voices: int = N_VOICES) -> list[tuple[int, int, int]]:
    """(take, label, voice number) of each utterance of the file; so neighbours differ in voice."""
    takes, labels, voices = range(N_TAKES), range(len(WORDS)), range(n_voices)
    return [(take, label, number) for take in takes for label in labels for number in voices]


def utterance(voice: Voice, label: int, samples: NDArray[np.float64], cochlea: Cochlea) -> Utterance:
    """What the cochlea hears of a wave that `speak` made."""
    return Utterance(cochlea.hear(samples, RATE_HZ), label, voice.number, is_test_voice(voice.number))


def recipe(cochlea: Cochlea) -> dict[str, object]:
    """What the events depend on besides the program, as JSON can hold it."""
    tables = repr((sorted(SOUNDS.items()), WORDS, sorted(KINDS.items())))
    return {
        "seed": SEED,
        "tables_sha256": hashlib.sha256(tables.encode()).hexdigest(),
        "cochlea": cochlea.key(),
    }


def make(n_voices: int, wav_folder: Path | None = None) -> VoiceFile:
    """Speak and hear everything that the first `n_voices` voices say; keep the waves in `wav_folder`, if any."""
    cochlea = Cochlea()
    voices = [draw_voice(number, seed=SEED) for number in range(n_voices)]
    samples: list[Utterance] = []
    for take, label, number in order(n_voices):
        spoken = speak(label, voices[number], take, seed=SEED)
        samples.append(utterance(voices[number], label, spoken, cochlea))
        if wav_folder is not None:
            name = f"{WORD_NAMES[label]}_{voice_name(voices[number])}_{take}.wav"
            _write_wav(wav_folder / name, spoken)
    return VoiceFile(Utterances(samples, tuple(map(voice_name, voices))), recipe(cochlea))


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the file, and waves to listen to where a folder is given."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.datasets.voices.make_events",
        description="Let synthetic voices speak the digits, and write what the cochlea hears. Takes about a minute.",
    )
    parser.add_argument("--out", type=Path, default=FILE, metavar="FILE", help=f"default: {FILE}")
    parser.add_argument("--wav", type=Path, metavar="FOLDER", help="also write WORD_VOICE_TAKE.wav files there")
    parser.add_argument("--voices", type=int, default=N_VOICES, metavar="N", help="only the first N voices")
    options = parser.parse_args(arguments)
    if not 1 <= options.voices <= N_VOICES:
        raise ConfigError(f"--voices is {options.voices}, allowed are 1..{N_VOICES}", fix="leave it out for all")
    if options.wav is not None:
        options.wav.mkdir(parents=True, exist_ok=True)
    content = make(options.voices, options.wav)
    write_voice_file(options.out, content)
    n_bytes = options.out.stat().st_size
    sys.stdout.write(f"{options.out}: {len(content.utterances.samples)} utterances, {n_bytes} bytes\n")


def _write_wav(path: Path, samples: NDArray[np.float64]) -> None:
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(RATE_HZ)
        stream.writeframes(np.round(samples * 32767.0).astype("<i2").tobytes())


if __name__ == "__main__":
    main()
