"""A model of motor cortex while a person attempts to write: spikes of 192 electrodes tuned to the pen's movement."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_CHANNELS = 192
N_BINS = 201
BIN_S = 0.010
#: bin in which the go cue appears
GO_BIN = 50


@dataclass(frozen=True)
class Cortex:
    """Statistics of the channels, of their tuning and of their noise.

    A channel's rate is its baseline plus its modulation times a sum of terms: velocity along the channel's preferred
    direction and speed (Georgopoulos et al. 1982, doi:10.1523/JNEUROSCI.02-11-01527.1982; Moran, Schwartz 1999,
    doi:10.1152/jn.1999.82.5.2676), weaker ones for position, acceleration and a lifted pen, and a response to the go
    cue that is the same for all letters (Kaufman et al. 2016, doi:10.1523/ENEURO.0085-16.2016). A rate below 0 is 0. A
    bin holds a 1 where a Poisson count of this rate is not zero.

    The form of the terms is from these sources. The numbers are ours, chosen so that a linear classifier errs often but
    learns well from 24 trials that are not aligned; they are fitted to no recording.

    Attributes:
        baseline_hz, baseline_spread: median of the baseline rates, standard deviation of their logarithm.
        modulation_hz, modulation_spread: the same of the modulation, in hertz at the usual speed.
        tuned: fraction of channels that are modulated at all.
        lead_s, lead_spread_s: how long activity precedes the movement, mean and standard deviation over channels.
        speed, position, acceleration, lift, go: standard deviation over channels of the weights of these terms; the
            weight of velocity is 1 for all.
        gain_spread: standard deviation of the logarithm of a gain that all channels share in a trial.
        common, common_s, n_common: strength, time constant and number of the noise sources that channels share.
        drift: standard deviation of the logarithm of a channel's baseline between blocks of trials.
        block_trials: trials of a letter in a block.
    """

    baseline_hz: float = 12.0
    baseline_spread: float = 0.8
    modulation_hz: float = 24.0
    modulation_spread: float = 0.6
    tuned: float = 0.75
    lead_s: float = 0.10
    lead_spread_s: float = 0.03
    speed: float = 0.4
    position: float = 0.3
    acceleration: float = 0.2
    lift: float = 0.4
    go: float = 0.8
    gain_spread: float = 0.15
    common: float = 0.3
    common_s: float = 0.15
    n_common: int = 5
    drift: float = 0.15
    block_trials: int = 3

    def key(self) -> dict[str, Any]:
        """What the spikes depend on, for the name of a cache file."""
        return asdict(self)


# what a movement is measured in, so that every term is about 1 on the mean over a movement
_USUAL_SPEED = 2.4
_USUAL_ACCELERATION = 40.0
_USUAL_REACH = 0.25
# the response to the go cue: rises and falls within about 0.4 s
_GO_PEAK_S, _GO_WIDTH_S = 0.15, 0.10


@dataclass(frozen=True)
class Population:
    """The channels of one synthetic person.

    Attributes:
        baseline_hz: shape (192,).
        weights_hz: shape (9, 192): of the terms of `movement_terms`.
        lead_bins: int, shape (192,).
        common_hz: shape (n_common, 192): weights of the shared noise.
        drift: shape (n_blocks, 192): factor of the baseline in each block of trials.
    """

    baseline_hz: NDArray[np.float64]
    weights_hz: NDArray[np.float64]
    lead_bins: NDArray[np.int64]
    common_hz: NDArray[np.float64]
    drift: NDArray[np.float64]


def population(cortex: Cortex, rng: np.random.Generator, n_trials: int) -> Population:
    """Draw the channels, and how they drift over blocks that hold `n_trials` of each letter."""
    n_blocks = -(-n_trials // cortex.block_trials)
    baseline_hz = cortex.baseline_hz * np.exp(cortex.baseline_spread * rng.standard_normal(N_CHANNELS))
    modulation_hz = cortex.modulation_hz * np.exp(cortex.modulation_spread * rng.standard_normal(N_CHANNELS))
    modulation_hz *= rng.random(N_CHANNELS) < cortex.tuned
    angle = rng.uniform(0.0, 2.0 * np.pi, N_CHANNELS)
    spread = np.array([cortex.speed] + 2 * [cortex.position] + 2 * [cortex.acceleration] + [cortex.lift, cortex.go])
    others = spread[:, None] * rng.standard_normal((len(spread), N_CHANNELS))
    lead_s = cortex.lead_s + cortex.lead_spread_s * rng.standard_normal(N_CHANNELS)
    return Population(
        baseline_hz=baseline_hz,
        weights_hz=modulation_hz * np.concatenate([[np.cos(angle), np.sin(angle)], others]),
        lead_bins=np.round(lead_s / BIN_S).astype(np.int64),
        common_hz=cortex.common * modulation_hz * rng.standard_normal((cortex.n_common, N_CHANNELS)),
        # the same for all letters of a block: else it would tell letters apart that are in training and in test
        drift=np.exp(cortex.drift * rng.standard_normal((n_blocks, N_CHANNELS))),
    )


def movement_terms(points: NDArray[np.float64], lifted: NDArray[np.float64]) -> NDArray[np.float64]:
    """What channels can be tuned to.

    Args:
        points: shape (n, 201, 2): where the pen is in each bin, in the letter's unit square.
        lifted: shape (n, 201): 1 where the pen is in the air.

    Returns:
        float64, shape (n, 201, 9): velocity x, y, speed, position x, y, acceleration x, y, lift, go cue; each
        about 1 in size.
    """
    velocity = np.gradient(points, BIN_S, axis=1)
    acceleration = np.gradient(velocity, BIN_S, axis=1) / _USUAL_ACCELERATION
    speed = np.linalg.norm(velocity, axis=2)
    # a hand at rest, before and after the letter, is at no place of it
    position = np.where(speed[..., None] > 0.0, points - 0.5, 0.0) / _USUAL_REACH
    after_go_s = (np.arange(N_BINS) - GO_BIN) * BIN_S
    go = np.broadcast_to(np.exp(-0.5 * ((after_go_s - _GO_PEAK_S) / _GO_WIDTH_S) ** 2), speed.shape)
    return np.concatenate(
        [
            velocity / _USUAL_SPEED,
            speed[..., None] / _USUAL_SPEED,
            position,
            acceleration,
            lifted[..., None],
            go[..., None],
        ],
        axis=2,
    )


def spikes(
    cortex: Cortex, channels: Population, terms: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw the spikes of trials of one letter, in the order in which they were made.

    Args:
        cortex: strength of the noise.
        channels: who is recorded.
        terms: shape (n, 201, 9), see `movement_terms`.
        rng: of the noise.

    Returns:
        bool, shape (n, 201, 192): whether at least one spike falls into the bin.
    """
    n = len(terms)
    driven = terms @ channels.weights_hz
    when = np.clip(np.arange(N_BINS)[:, None] + channels.lead_bins, 0, N_BINS - 1)
    driven = driven[:, when, np.arange(N_CHANNELS)]
    driven += _slow_noise(cortex, rng, n) @ channels.common_hz
    drift = channels.drift[np.arange(n) // cortex.block_trials]
    gain = np.exp(cortex.gain_spread * rng.standard_normal((n, 1, 1)))
    rate_hz = gain * np.maximum(channels.baseline_hz * drift[:, None] + driven, 0.0)
    # clamped at 1, a Poisson count is a coin with this chance
    return rng.random(rate_hz.shape, np.float32) < -np.expm1(-rate_hz * BIN_S)


def _slow_noise(cortex: Cortex, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Noise of unit variance that forgets with the time constant, shape (n, 201, n_common)."""
    noise = rng.standard_normal((n, N_BINS, cortex.n_common))
    keep = np.exp(-BIN_S / cortex.common_s)
    for step in range(1, N_BINS):
        noise[:, step] = keep * noise[:, step - 1] + np.sqrt(1.0 - keep**2) * noise[:, step]
    return noise
