"""Spoken digits by many synthetic voices: a data set that comes with the project.

A formant synthesiser speaks the words "zero" to "nine" and "oh", 72 voices with 2 takes of each, and the cochlea of
experiments/datasets/cochlea.py hears them. Voices are split: none is in both training and test. The events come as a
file; `python -m experiments.datasets.voices.make_events` makes it anew. Nothing in it was recorded from people. See
docs/explanation/synthetic-voices.md.
"""

from __future__ import annotations

from pathlib import Path

from experiments.datasets.utterances import Utterances
from experiments.datasets.voices.event_file import read_voice_file

#: the file that comes with the package
FILE = Path(__file__).with_name("voices.npz")

__all__ = ["FILE", "load_voices"]


def load_voices(path: Path = FILE) -> Utterances:
    """Return all utterances: 54 voices for training and 18 for testing, 22 utterances each.

    Raises:
        DataError: the file is missing or damaged; the message names it.
    """
    return read_voice_file(path).utterances
