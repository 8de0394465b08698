"""Relaxation after programming, and loss of conductance to heat.

The logarithm of a cell's conductance wanders in logarithmic time: a steady trend, a Gaussian walk, and jumps up and
down of exponentially distributed size, which come at a constant rate per decade of time. Heat speeds this up by an
Arrhenius factor, and takes conductance away: a loss that only grows, with independent increments of gamma
distribution, at a rate with an activation energy of its own. How strong each part is depends on the conductance that
the cell was programmed to, by tables of which the nearest level counts.

Every part has independent increments, so that it makes no difference into how many steps a time is divided, as long as
the temperature is the same. Ages reckoned at one temperature count differently at another: see `age_at_s`.

Source: the shape follows the reads of `rram_relaxation.npz` (public repository akashlevy/RRAM-Relaxation-Master-Model;
0.01 s to 1000 s at room temperature, bakes of 1.2 to 2 hours at 100 to 260 degC), which `sim_backend.fits.relaxation`
and `sim_backend.fits.retention` fit it to. The default is a guess for a quieter macro. Valid for those times and
temperatures; that one cell's jump tends to be undone later is not described.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sim_backend.settings import RelaxationSettings

BOLTZMANN_EV_PER_K = 8.617333e-5
_ZERO_CELSIUS_K = 273.15
#: a loss below this, of the logarithm, is not drawn
_LOSS_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Relaxation:
    """Relaxation and loss of cells of one technology."""

    settings: RelaxationSettings

    @classmethod
    def from_settings(cls, settings: RelaxationSettings) -> Relaxation:
        return cls(settings)

    def step_s(
        self,
        conductance_s: NDArray[np.float64],
        programmed_s: NDArray[np.float64],
        age_from_s: ArrayLike,
        age_to_s: ArrayLike,
        temperature_c: float,
        rng: np.random.Generator,
    ) -> NDArray[np.float64]:
        """Conductance of cells that grew older.

        Args:
            conductance_s: at the earlier age.
            programmed_s: right after programming: what the strength of the changes depends on.
            age_from_s, age_to_s: since programming, per cell or one for all; 0 is allowed, and infinity for a cell
                that has come to rest.
            temperature_c: over the step; ages are reckoned at this temperature.
            rng: draws what happened.
        """
        if not self.settings.enabled:
            return np.array(conductance_s, np.float64)
        start, end = (
            np.broadcast_to(np.asarray(age, np.float64), np.shape(conductance_s)) for age in (age_from_s, age_to_s)
        )
        moves = np.isfinite(start) & (end > start)
        start, end = np.where(moves, start, 0.0), np.where(moves, end, 0.0)
        change = self._wander(programmed_s, self.decades(start, end, temperature_c), rng)
        change -= self._loss(programmed_s, end - start, temperature_c, rng)
        return conductance_s * np.exp(change)

    def decades(self, age_from_s: ArrayLike, age_to_s: ArrayLike, temperature_c: float) -> NDArray[np.float64]:
        """Decades of logarithmic time between two ages."""
        begin_s = self.settings.start_s / self._speed(temperature_c)
        return np.log10((begin_s + np.asarray(age_to_s)) / (begin_s + np.asarray(age_from_s)))

    def age_at_s(self, age_s: ArrayLike, from_c: float, to_c: float) -> NDArray[np.float64]:
        """Age at another temperature that means the same decades: what to call a cell's age after a change."""
        return np.asarray(age_s) * (self._speed(from_c) / self._speed(to_c))

    def _speed(self, temperature_c: float) -> float:
        return arrhenius(self.settings.activation_ev, temperature_c, self.settings.reference_c)

    def _table(self, values: tuple[float, ...], programmed_s: NDArray[np.float64]) -> NDArray[np.float64] | float:
        if len(set(values)) == 1:
            return values[0]
        # not interpolated: a few long jumps and many short ones do not mix to some medium ones
        levels_s = np.array(self.settings.levels) * self.settings.full_scale_s
        level = np.searchsorted(0.5 * (levels_s[1:] + levels_s[:-1]), programmed_s)
        return np.array(values)[level]

    def _wander(
        self, programmed_s: NDArray[np.float64], decades: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Change of the logarithm by trend, walk and jumps."""
        settings = self.settings
        spread = self._table(settings.spread, programmed_s)
        change = self._table(settings.trend, programmed_s) * decades
        change = change + spread * np.sqrt(decades) * rng.standard_normal(decades.shape)
        if max(settings.jump_rate) == 0.0:
            return change
        n_jumps = rng.poisson(self._table(settings.jump_rate, programmed_s) * decades)
        n_up = rng.binomial(n_jumps, self._table(settings.jump_up_share, programmed_s))
        # n exponentials add up to a gamma variate of shape n
        change += self._table(settings.jump_up, programmed_s) * rng.standard_gamma(n_up)
        change -= self._table(settings.jump_down, programmed_s) * rng.standard_gamma(n_jumps - n_up)
        return change

    def _loss(
        self,
        programmed_s: NDArray[np.float64],
        elapsed_s: NDArray[np.float64],
        temperature_c: float,
        rng: np.random.Generator,
    ) -> NDArray[np.float64] | float:
        """Loss of the logarithm to heat."""
        settings = self.settings
        speed = arrhenius(settings.loss_activation_ev, temperature_c, settings.loss_reference_c)
        if max(settings.loss_per_s) * speed * np.max(elapsed_s, initial=0.0) < _LOSS_NEGLIGIBLE:
            return 0.0
        mean = self._table(settings.loss_per_s, programmed_s) * speed * elapsed_s
        return settings.loss_spread * rng.standard_gamma(mean / settings.loss_spread)


def arrhenius(activation_ev: float, temperature_c: float, reference_c: float) -> float:
    """How much faster a thermally activated process is than at the reference temperature."""
    inverse_k = 1.0 / (reference_c + _ZERO_CELSIUS_K) - 1.0 / (temperature_c + _ZERO_CELSIUS_K)
    return float(np.exp(activation_ev / BOLTZMANN_EV_PER_K * inverse_k))
