"""What a user can set about the data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hil.config import Settings, setting


class DataSettings(Settings):
    """Which data set an experiment reads and how it is cut into time steps."""

    dataset: str = setting(
        "digits-saccade",
        "data set: nmnist, mnist-saccade or digits-saccade",
        source="ours: digits-saccade needs no file",
    )
    path: Path | None = setting(None, "file or folder of nmnist or mnist-saccade", source="given by the user")
    bin_rule: Literal["equal", "fixed"] = setting(
        "fixed",
        "'equal': 50 equal bins over each recording; 'fixed': 50 bins of bin_width_s from its start",
        source="not published; chosen on training data, see docs/decisions/0004-bin-rule.md",
    )
    bin_width_s: float = setting(
        4e-3,
        "width of a bin where bin_rule is 'fixed'",
        unit="s",
        source="not published; chosen on training data, see docs/decisions/0004-bin-rule.md",
        gt=0,
        le=0.1,
        allow_inf_nan=False,
    )
    n_train: int | None = setting(None, "training samples, a random subset; all if absent", source="user", ge=1)
    n_test: int | None = setting(None, "test samples, a random subset; all if absent", source="user", ge=1)
    digits_views: int = setting(
        8, "views of each training image in digits-saccade", source="ours: 11,496 samples of 1,437 images", ge=1, le=100
    )
    input_px: int = setting(
        16, "side of the centre of each frame that drives the array, in pixels", source="paper: 16 x 16", ge=1, le=16
    )
    input_noise: float = setting(
        0.0, "share of input bits that are flipped, in training and test", source="none: data as recorded", ge=0, le=0.5
    )
    seed: int = setting(
        0, "seed of the camera's noise, of the views, of subsets and of flipped bits", source="ours", ge=0
    )
