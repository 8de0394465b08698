"""From the events of a cochlea to the packed raster that drives the 64 inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.utterances import N_CHANNELS, ChannelEvents
from hil.errors import ConfigError
from hil.spikes import pack_bits

#: time steps of one utterance in the paper
N_STEPS = 129


@dataclass(frozen=True)
class AudioBinRule:
    """How event times become time steps.

    Attributes:
        kind: `paper` makes a raster of D bins of `time_step_s`, cuts it into chunks of ceil(D / n_steps) bins and pads
            the end with silence; so a step lasts a whole number of bins, and short utterances end early. `equal` cuts
            the utterance into `n_steps` equal steps. Both end at the last event.
        time_step_s: width of a bin of `paper`, rounded to whole microseconds; unused by `equal`.
        n_steps: number of time steps.

    Raises:
        ConfigError: a value is out of its range.
    """

    kind: Literal["paper", "equal"] = "paper"
    time_step_s: float = 1e-3
    n_steps: int = N_STEPS

    def __post_init__(self) -> None:
        if self.kind not in ("paper", "equal"):
            raise ConfigError(f"the bin rule is '{self.kind}'", fix="use 'paper' or 'equal'")
        if not math.isfinite(self.time_step_s) or self.time_step_s < 1e-6:
            raise ConfigError(
                f"time_step_s is {self.time_step_s} s, the least is 1e-06 s",
                fix="give the width in seconds, for example 1e-3",
            )
        if self.n_steps < 1:
            raise ConfigError(f"n_steps is {self.n_steps}, the least is 1", fix=f"use for example {N_STEPS} time steps")

    def key(self) -> dict[str, object]:
        """Return what the result depends on, for the name of a cache file."""
        step_us = self._step_us if self.kind == "paper" else None
        return {"kind": self.kind, "step_us": step_us, "n_steps": self.n_steps}

    @property
    def _step_us(self) -> int:
        return round(self.time_step_s * 1e6)

    def steps(self, t_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the time step of each event, 0 .. n_steps - 1; times in microseconds, shape (n,), n > 0."""
        if self.kind == "equal":
            return t_us * self.n_steps // (t_us.max() + 1)
        bins = t_us // self._step_us
        n_bins = int(bins.max()) + 1
        return bins // -(-n_bins // self.n_steps)


def bin_channels(events: ChannelEvents, rule: AudioBinRule) -> NDArray[np.uint64]:
    """Turn an utterance into its packed raster; several events of one channel in one step make one spike.

    Returns:
        uint64, shape (n_steps, 1): channel i is bit i.
    """
    raster = np.zeros((rule.n_steps, N_CHANNELS), dtype=bool)
    if len(events):
        raster[rule.steps(events.t_us), events.channel] = True
    return pack_bits(raster)
