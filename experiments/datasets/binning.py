"""From camera events to the packed raster that drives the 256 inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError, DataError
from hil.spikes import pack_bits

#: side of the sensor of N-MNIST in pixels (Orchard et al. 2015)
SENSOR_PX = 34
#: first row and column of the centre crop; 9..24 leaves 9 pixels on either side
CROP_FIRST_PX = 9
#: side of the centre crop in pixels
CROP_PX = 16
#: inputs of one time step
N_INPUTS = CROP_PX * CROP_PX


@dataclass(frozen=True)
class Events:
    """Events of one recording; four arrays of shape (n_events,).

    Attributes:
        x: column on the sensor, 0 .. 33.
        y: row on the sensor, 0 .. 33.
        on: the polarity bit of the N-MNIST file, True for 1.
        t_us: time since the start of the recording in microseconds.
    """

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    on: NDArray[np.bool_]
    t_us: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = [len(self.x), len(self.y), len(self.on), len(self.t_us)]
        if len(set(lengths)) > 1:
            raise DataError(f"the event arrays have lengths {lengths}", fix="give x, y, on and t_us of equal length")

    def __len__(self) -> int:
        return len(self.t_us)


@dataclass(frozen=True)
class BinRule:
    """How event times become time steps.

    Attributes:
        kind: `equal` cuts the whole recording into `n_steps` equal bins, floor(t * n_steps / end); `fixed` counts bins
            of `bin_width_s` from the start and drops the events after the last bin.
        bin_width_s: width of a bin in seconds, rounded to whole microseconds; used by `fixed` only.
        n_steps: number of bins.

    Raises:
        ConfigError: a value is out of its range.
    """

    kind: Literal["equal", "fixed"] = "equal"
    bin_width_s: float = 6e-3
    n_steps: int = 50

    def __post_init__(self) -> None:
        if self.kind not in ("equal", "fixed"):
            raise ConfigError(f"the bin rule is '{self.kind}'", fix="use 'equal' or 'fixed'")
        if not math.isfinite(self.bin_width_s) or self.bin_width_s < 1e-6:
            raise ConfigError(
                f"bin_width_s is {self.bin_width_s} s, the least is 1e-06 s",
                fix="give the width in seconds, for example 6e-3",
            )
        if self.n_steps < 1:
            raise ConfigError(f"n_steps is {self.n_steps}, the least is 1", fix="use for example 50 time steps")

    def key(self) -> dict[str, object]:
        """Return what the result depends on, for the name of a cache file."""
        # the width does not matter to equal bins, so it must not make a second cache file
        width_us = self.width_us if self.kind == "fixed" else None
        return {"kind": self.kind, "width_us": width_us, "n_steps": self.n_steps}

    @property
    def width_us(self) -> int:
        """Width of a `fixed` bin in whole microseconds, the resolution of the recordings."""
        return round(self.bin_width_s * 1e6)

    def bins(self, t_us: NDArray[np.integer[Any]], end_us: int) -> NDArray[np.int64]:
        """Return the bin of each time.

        Args:
            t_us: times in microseconds, shape (n,), 0 <= t < end_us.
            end_us: end of the recording in microseconds (exclusive); used by `equal` only.

        Returns:
            int64, shape (n,): 0 .. n_steps - 1, or -1 where the time is after the last bin.
        """
        t = np.asarray(t_us, dtype=np.int64)
        step = t * self.n_steps // end_us if self.kind == "equal" else t // self.width_us
        return np.where(step < self.n_steps, step, -1)


DEFAULT_BIN_RULE = BinRule()


def bin_events(events: Events, rule: BinRule = DEFAULT_BIN_RULE, *, end_us: int | None = None) -> NDArray[np.uint64]:
    """Turn a recording into the packed raster of the centre crop.

    Only events with polarity bit 1 inside rows and columns 9..24 count; input index = (y - 9) * 16 + (x - 9). Several
    events of one input in one bin make one spike.

    Args:
        events: the recording.
        rule: the bins.
        end_us: end of the recording in microseconds (exclusive). Default: one microsecond after the last event of
            either polarity anywhere on the sensor, since an N-MNIST file does not state its length.

    Returns:
        uint64, shape (n_steps, 4): input i is bit i % 64 of word i // 64.

    Raises:
        DataError: a time is negative or not before `end_us`.
    """
    raster = np.zeros((rule.n_steps, N_INPUTS), dtype=bool)
    if len(events):
        first_us, last_us = int(events.t_us.min()), int(events.t_us.max())
        end = last_us + 1 if end_us is None else end_us
        if first_us < 0 or last_us >= end:
            raise DataError(
                f"event times span {first_us}..{last_us} us, allowed are 0..{end - 1} us",
                fix="count times from the start of the recording",
            )
        row, col = events.y - CROP_FIRST_PX, events.x - CROP_FIRST_PX
        kept = events.on & (row >= 0) & (row < CROP_PX) & (col >= 0) & (col < CROP_PX)
        step = rule.bins(events.t_us[kept], end)
        index = (row * CROP_PX + col)[kept]
        raster[step[step >= 0], index[step >= 0]] = True
    return pack_bits(raster)
