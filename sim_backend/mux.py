"""Which rows the 8:1 muxes put on the DACs together.

Source: TI CD4051B data sheet for the on-resistance; the board's topology (row = 8 * mux + position) is a guess, and so
is how the muxes are wired (docs/explanation/open-points.md). With common selects a VMM runs through one phase per mux
position. With independent selects each mux steps through its own active rows, so that the busiest mux sets the number
of phases. Where INH is wired, a mux connects nothing in a phase in which it has no row to drive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import MuxSettings


def channel_of_row(rows: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """DAC channel, which is also the mux, of each row."""
    return rows // width


def phase_of_row(rows: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Mux position of each row, which is also its phase where positions are common to all muxes."""
    return rows % width


def connects_by_position(settings: MuxSettings) -> bool:
    """Whether a phase connects all rows at one position, whatever they carry: then a VMM is linear in its input."""
    return settings.selects == "common" and not settings.inhibit


@dataclass(frozen=True)
class Phase:
    """Rows that are connected together.

    Attributes:
        sample: which of the batch they belong to.
        driven: rows that are driven, as indices into the rows of the tile.
        held: physical rows that are connected at the idle level.
    """

    sample: int
    driven: NDArray[np.intp]
    held: NDArray[np.intp]


def phases_of(driven: NDArray[np.bool_], rows: NDArray[np.intp], settings: MuxSettings, n_rows: int) -> Iterator[Phase]:
    """The phases of a batch, as few as the wiring allows; a silent sample has none.

    Args:
        driven: which rows of the tile each sample drives, shape (B, tile rows).
        rows: the tile's physical rows.
        settings: wiring.
        n_rows: rows of the array.
    """
    mux, position = channel_of_row(rows, settings.width), phase_of_row(rows, settings.width)
    group = mux if settings.selects == "independent" else np.zeros_like(mux)
    n_muxes = int(channel_of_row(np.array([n_rows - 1]), settings.width)[0]) + 1
    for sample, active in enumerate(driven):
        taken = np.zeros((n_muxes, settings.width), np.bool_)
        taken[group[active], position[active]] = True
        turn = np.where(active, (taken.cumsum(axis=1) - 1)[group, position], -1)
        for k in range(int(turn.max(initial=-1)) + 1):
            now = np.flatnonzero(turn == k)
            held = np.zeros(0, np.intp)
            if not settings.inhibit:
                idle = np.setdiff1d(np.arange(n_muxes), mux[now])
                # A mux with nothing to drive is at the position of all others, or at its first where it has its own.
                held = idle * settings.width + (position[now[0]] if settings.selects == "common" else 0)
            yield Phase(sample, now, held[held < n_rows])
