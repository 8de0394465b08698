"""Settings of section `calibration`: which file is applied, and what it may lack."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hil.config import Settings, setting


class CalibrationSettings(Settings):
    """Which calibration a backend applies."""

    file: Path | None = setting(None, "calibration file to apply; none: nominal constants", source="ours")
    allow: tuple[Literal["other-board", "other-firmware", "other-profile", "stale"], ...] = setting(
        (),
        "misfits of the calibration that are accepted: other-board, other-firmware, other-profile, stale",
        source="ours: none is accepted silently",
    )
    max_age_days: float = setting(
        30.0, "age in days from which a calibration is stale", source="guess: no drift of a board is published", gt=0
    )
