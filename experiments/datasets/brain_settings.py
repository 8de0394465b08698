"""What a user can set about the recordings from motor cortex."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hil.config import Settings, setting


class BrainSettings(Settings):
    """Which recordings of attempted handwriting an experiment reads, and which trials it tests on."""

    dataset: str = setting("letters-pen", "data set: letters-pen or willett", source="ours: letters-pen needs no file")
    path: Path | None = setting(None, "singleLetters.mat, or the folder that holds it", source="given by the user")
    case: Literal["small", "capital"] = setting(
        "small", "letters that the pen of letters-pen writes", source="Willett et al. 2021: small print letters"
    )
    trials: int = setting(27, "trials of each letter in letters-pen", source="Willett et al. 2021: 9 blocks x 3", ge=2)
    test_trials: int = setting(3, "trials of each letter held out for testing", source="paper", ge=1)
    held_out: Literal["drawn", "last"] = setting(
        "drawn", "which trials are held out: drawn at random for each letter, or the last ones", source="not published"
    )
    seed: int = setting(0, "seed of the synthetic cortex and of the draw", source="ours", ge=0)
