"""Random telegraph noise: a few cells jump between two conductances.

A telegraph cell has an amplitude relative to its conductance and two mean dwell times. Its state is a two-state Markov
process, carried over any time step with its exact transition probabilities. The deviation has zero mean: the
conductance that a cell is programmed to is its mean over time.

Source: one trap beside the filament, which fills and empties. The continuous reads of `rram_relaxation.npz` show
amplitudes of 1 % to 4 % (`sim_backend.fits.noise`); the share of such cells in the macro is a guess. Valid for cells
with one dominant trap; a cell with several is not drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import TelegraphSettings


@dataclass(frozen=True, eq=False)
class TelegraphNoise:
    """Telegraph noise of an array of cells, with its state.

    Attributes:
        trap: number of each cell's trap, -1 for a cell without one, shape (rows, cols).
        amplitude: difference of the two conductances of each trap over their mean, shape (traps,).
        high_s, low_s: mean dwell time in the upper and in the lower state, shape (traps,).
        high: which traps are in the upper state, shape (traps,).
        time_s: when each was last looked at, shape (traps,); minus infinity before.
    """

    trap: NDArray[np.int32] = field(repr=False)
    amplitude: NDArray[np.float64]
    high_s: NDArray[np.float64]
    low_s: NDArray[np.float64]
    high: NDArray[np.bool_]
    time_s: NDArray[np.float64]

    @classmethod
    def draw(cls, settings: TelegraphSettings, shape: tuple[int, ...], rng: np.random.Generator) -> TelegraphNoise:
        """Choose the telegraph cells of an array, with their amplitudes and dwell times."""
        share = settings.share if settings.enabled else 0.0
        has_trap = rng.random(shape) < share
        n_traps = int(has_trap.sum())
        trap = np.full(shape, -1, np.int32)
        trap[has_trap] = np.arange(n_traps)
        decades = np.log([settings.dwell_min_s, settings.dwell_max_s])
        high_s, low_s = np.exp(rng.uniform(decades[0], decades[1], (2, n_traps)))
        # the lower state must conduct something: no amplitude above 1
        amplitude = np.minimum(settings.amplitude * np.exp(settings.amplitude_spread * rng.standard_normal(n_traps)), 1)
        return cls(trap, amplitude, high_s, low_s, np.zeros(n_traps, np.bool_), np.full(n_traps, -np.inf))

    @property
    def high_share(self) -> NDArray[np.float64]:
        """Share of time that each trap spends in the upper state."""
        return self.high_s / (self.high_s + self.low_s)

    def sigma_s(self, conductance_s: NDArray[np.float64], index: Any = ...) -> NDArray[np.float64]:
        """Standard deviation of cells over infinite time; `index` chooses those that `conductance_s` is of."""
        trap = self.trap[index]
        sigma_s = np.zeros(trap.shape)
        of = trap[trap >= 0]
        up = self.high_share[of]
        sigma_s[trap >= 0] = self.amplitude[of] * np.sqrt(up * (1.0 - up))
        return sigma_s * conductance_s

    def at(
        self, time_s: float, index: Any, conductance_s: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Deviation in siemens of chosen cells at a time; arguments as of `FlickerNoise.at`."""
        trap = self.trap[index]
        deviation = np.zeros(trap.shape)
        of = trap[trap >= 0]
        if of.size:
            up = self.high_share[of]
            elapsed_s = time_s - self.time_s[of]
            kept = np.exp(-elapsed_s * (1.0 / self.high_s[of] + 1.0 / self.low_s[of]))
            self.high[of] = rng.random(of.size) < up + (self.high[of] - up) * kept
            self.time_s[of] = time_s
            deviation[trap >= 0] = self.amplitude[of] * (self.high[of] - up)
        return deviation * conductance_s
