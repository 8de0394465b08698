"""What a data set is, for `hil data list` and for error messages: every family of loaders keeps a table of these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetEntry:
    """One data set that a loader knows.

    Attributes:
        name: as a command takes it.
        family: what it stands for: "vision", "audio", "letters" or "brain".
        content: what is in it, with shapes and units, in a sentence.
        split: what is for training and what for testing.
        layout: what the path must hold; "" where the data come with the project.
        synthetic: whether a model made it.
    """

    name: str
    family: str
    content: str
    split: str
    layout: str
    synthetic: bool
