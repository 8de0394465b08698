"""Endurance: a cell that is switched often loses its window and sticks.

Source: a guess in the range published for TaOx cells (median life 1e6 to 1e10 pulses). A measured run of 300 cycles
("RADAR" data, 76 cells; one did not switch, the median window was steady from cycle 30 on) is too short to tell.
Valid as a worst case for planning pulses; says nothing about why a cell fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import EnduranceSettings


@dataclass(frozen=True)
class Endurance:
    """Log-normal life; the window closes over the last decade of it.

    Attributes:
        life_cycles: median number of pulses until a cell is worn out; infinite where wear is switched off.
        life_decades: spread of it between cells, in decades.
        stuck_on_share: share of cells that stick at high conductance.
        stuck_on_s, stuck_off_s: where a worn cell sticks.
    """

    life_cycles: float
    life_decades: float
    stuck_on_share: float
    stuck_on_s: float
    stuck_off_s: float

    @classmethod
    def from_settings(cls, settings: EnduranceSettings) -> Endurance:
        return cls(
            life_cycles=settings.life_cycles if settings.enabled else float("inf"),
            life_decades=settings.life_decades,
            stuck_on_share=settings.stuck_on_share,
            stuck_on_s=settings.stuck_on_s,
            stuck_off_s=settings.stuck_off_s,
        )

    def draw_life(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """SET and RESET pulses until each cell is worn out."""
        return self.life_cycles * 10.0 ** (self.life_decades * rng.standard_normal(shape))

    def draw_stuck_on(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which cells will stick at high conductance; the others stick at low."""
        return rng.random(shape) < self.stuck_on_share

    def window(self, cycles: NDArray[np.number], life: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of the switching window is left: 1 up to a tenth of the life, 0 at its end, linear in log cycles."""
        with np.errstate(divide="ignore"):
            return np.clip(-np.log10(cycles / life), 0.0, 1.0)

    def worn_s(
        self, conductance_s: NDArray[np.floating], window: NDArray[np.float64], stuck_on: NDArray[np.bool_]
    ) -> NDArray[np.floating]:
        """What a pulse that would leave `conductance_s` leaves in a worn cell."""
        stuck_s = np.where(stuck_on, self.stuck_on_s, self.stuck_off_s)
        return stuck_s + window * (conductance_s - stuck_s)
