"""One simulated chip on one simulated board, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_backend.adc import ColumnAdcs
from sim_backend.dac import RowDacs
from sim_backend.forming import FormingStatistics
from sim_backend.mux import channel_of_row
from sim_backend.noise import WhiteReadNoise
from sim_backend.settings import SimSettings
from sim_backend.tia import ColumnTias


@dataclass
class SimulatedChip:
    """Cells and periphery; what a calibration would have to find out.

    Attributes:
        formed: which cells are formed, shape (rows, cols).
        formed_s: conductance that each cell has once formed, drawn in advance so that the order of forming is free.
        breakdown_v: voltage at which each cell forms.
        r_on_ohm: on-resistance of each mux, shape (channels,).
    """

    settings: SimSettings
    formed: NDArray[np.bool_]
    formed_s: NDArray[np.float64]
    breakdown_v: NDArray[np.float64]
    r_on_ohm: NDArray[np.float64]
    dacs: RowDacs
    tias: ColumnTias
    adcs: ColumnAdcs
    noise: WhiteReadNoise

    @classmethod
    def draw(cls, settings: SimSettings, seed: int) -> SimulatedChip:
        """Draw every property from its own stream of one seed, so that switching one effect leaves the others alone."""
        if settings.ideal:
            settings = without_errors(settings)
        shape = (settings.rows, settings.cols)
        # Order matters: a new effect goes to the end, so that old seeds keep their chips.
        forming, breakdown, mux, dac, tia, adc = (
            np.random.default_rng(s) for s in np.random.SeedSequence(seed, spawn_key=(0,)).spawn(6)
        )
        statistics = FormingStatistics.from_settings(settings.forming)
        n_channels = int(channel_of_row(np.array([settings.rows - 1]), settings.mux.width)[0]) + 1
        r_on_ohm = mux.normal(settings.mux.r_on_ohm, settings.mux.r_on_sigma_ohm, n_channels).clip(min=0.0)
        return cls(
            settings=settings,
            formed=np.full(shape, settings.forming.formed),
            formed_s=statistics.draw_formed_s(forming, shape),
            breakdown_v=statistics.draw_breakdown_v(breakdown, shape),
            r_on_ohm=r_on_ohm if settings.mux.enabled else np.zeros(n_channels),
            dacs=RowDacs.draw(settings.dac, n_channels, dac),
            tias=ColumnTias.draw(settings.tia, settings.cols, tia),
            adcs=ColumnAdcs.draw(settings.adc, settings.cols, adc),
            noise=WhiteReadNoise.from_settings(settings.noise),
        )

    @property
    def conductance_s(self) -> NDArray[np.float64]:
        """Conductance of every cell as it is now, without noise."""
        return np.where(self.formed, self.formed_s, self.settings.forming.pristine_s)


def without_errors(settings: SimSettings) -> SimSettings:
    """The same array with every error and noise switched off."""
    off = {"enabled": False}
    parts = ("noise", "lines", "mux", "dac", "tia", "adc")
    return settings.model_copy(update={part: getattr(settings, part).model_copy(update=off) for part in parts})
