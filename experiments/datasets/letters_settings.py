"""What a user can set about the letters."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hil.config import Settings, setting


class LettersSettings(Settings):
    """Which images of letters an experiment reads, and how they become spikes."""

    dataset: str = setting(
        "letters-strokes", "data set: letters-strokes or emnist-letters", source="ours: letters-strokes needs no file"
    )
    path: Path | None = setting(None, "file or folder of emnist-letters", source="given by the user")
    case: Literal["small", "capital", "mixed"] = setting(
        "small",
        "letters of letters-strokes; mixed: half of either",
        source="ours: the pen of the brain data writes small letters",
    )
    transposed: Literal["auto", "true", "false"] = setting(
        "auto",
        "whether images of emnist-letters are stored with x and y exchanged; auto: yes for idx files and for .npz "
        "packs without writers",
        source="EMNIST's storage (Cohen et al. 2017)",
    )
    train_per_class: int = setting(240, "training images of each letter, at most", source="paper: 24 trials x 10", ge=1)
    test_per_class: int = setting(30, "test images of each letter, at most", source="paper: 3 trials x 10", ge=1)
    test_fraction: float = setting(
        0.2,
        "part of the writers, or of each letter, that is held out of emnist-letters without training and test files",
        source="ours",
        gt=0,
        lt=1,
    )
    max_spikes: float = setting(20.0, "spikes of a white pixel in 50 steps", source="paper", gt=0, le=50)
    shared_field: bool = setting(
        True, "whether all images meet the same random numbers in rate coding", source="paper: yes"
    )
    seed: int = setting(0, "seed of the writers, the split and the spikes", source="ours", ge=0)
