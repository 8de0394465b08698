"""Trials of a synthetic person who attempts to write letters on a go cue, as spikes of the person's motor cortex."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import cortex, handwriting
from experiments.datasets.cortex import Cortex
from experiments.datasets.handwriting import Hand
from experiments.datasets.letter_shapes import N_LETTERS
from experiments.datasets.strokes import PenPath, letter_paths
from hil.progress import Progress, no_progress

#: the person's own form of the letters, and how much it differs from trial to trial; ours
PERSON = Hand(slant=0.12, turn_rad=0.06, stretch=0.12, stroke_shift=0.02, bend=0.03, wobble=0.012)
TRIAL = Hand(slant=0.03, turn_rad=0.03, stretch=0.05, stroke_shift=0.015, bend=0.02, wobble=0.008)
# ours: reaction to the go cue (mean, standard deviation, least)
_REACTION_S, _REACTION_SPREAD_S, _REACTION_LEAST_S = 0.25, 0.06, 0.10
# ours: standard deviation of the logarithm of a trial's speed, and of the warps of time within it
_TEMPO_SPREAD, _WARP_SPREAD, _WARP_LIMIT = 0.15, 0.15, 0.45
# streams of random numbers
_CHANNELS, _PERSONAL, _TRIALS = range(3)


def write_trials(case: str, n_trials: int, *, seed: int, progress: Progress = no_progress) -> NDArray[np.bool_]:
    """Let one person write each letter several times.

    Args:
        case: "small" or "capital" letters.
        n_trials: trials of each letter.
        seed: of the person and of the trials.
        progress: told after each letter.

    Returns:
        bool, shape (26, n_trials, 201, 192): whether a spike falls into the bin, trials in the order they were made.
    """
    model = Cortex()
    channels = cortex.population(model, np.random.default_rng([seed, _CHANNELS]), n_trials)
    personal = np.random.default_rng([seed, _PERSONAL])
    slope = handwriting.slopes(PERSON, personal, 1)
    out = np.empty((N_LETTERS, n_trials, cortex.N_BINS, cortex.N_CHANNELS), bool)
    for letter, path in enumerate(letter_paths(case)):
        own = handwriting.written(path, path.points, PERSON, personal, slope)[0]
        rng = np.random.default_rng([seed, _TRIALS, letter])
        terms = cortex.movement_terms(*pen_movements(path, own, rng, n_trials))
        out[letter] = cortex.spikes(model, channels, terms, rng)
        progress("synthetic cortex", letter + 1, N_LETTERS)
    return out


def pen_movements(
    path: PenPath, own: NDArray[np.float64], rng: np.random.Generator, n_trials: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move the pen through one letter, after the go cue, in another form and at another speed in each trial.

    Speed differs between trials and within one, since writing of a letter takes varying times (Willett et al. 2021,
    doi:10.1038/s41586-021-03506-2, who align trials by time warping); by how much is ours.

    Args:
        path: the letter.
        own: its points in the person's hand, shape (n_points, 2).
        rng: of form and timing.
        n_trials: how many.

    Returns:
        Where the pen is in each bin, float64, shape (n_trials, 201, 2), and whether it is in the air (1 or 0), float64,
        shape (n_trials, 201). The pen rests before and after the letter.
    """
    points = handwriting.written(path, own, TRIAL, rng, handwriting.slopes(TRIAL, rng, n_trials))
    start_s = np.maximum(_REACTION_S + _REACTION_SPREAD_S * rng.standard_normal(n_trials), _REACTION_LEAST_S)
    tempo = np.exp(_TEMPO_SPREAD * rng.standard_normal(n_trials))
    warps = np.clip(_WARP_SPREAD * rng.standard_normal((n_trials, 2)), -_WARP_LIMIT, _WARP_LIMIT)
    after_go_s = (np.arange(cortex.N_BINS) - cortex.GO_BIN) * cortex.BIN_S
    in_air = np.concatenate([~path.down, [False]]).astype(np.float64)
    whole_s = path.time_s[-1]
    u = path.time_s / whole_s
    waves = np.stack([np.sin(k * np.pi * u) / (k * np.pi) for k in (1, 2)])
    at = np.empty((n_trials, cortex.N_BINS, 2))
    lifted = np.empty((n_trials, cortex.N_BINS))
    for trial in range(n_trials):
        # the slope is at least 1 - 2 * 0.45, so that time never runs backwards
        time_s = start_s[trial] + whole_s * tempo[trial] * (u + warps[trial] @ waves)
        for axis in (0, 1):
            at[trial, :, axis] = np.interp(after_go_s, time_s, points[trial, :, axis])
        passed = np.searchsorted(time_s, after_go_s, side="right") - 1
        lifted[trial] = in_air[np.clip(passed, 0, None)]
    return at, lifted
