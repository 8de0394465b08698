"""From row vectors to mux phases: which rows are connected together, in as few phases as the wiring allows.

With independent selects every mux steps through its own active rows, so that a vector takes as many phases as the
busiest mux has active rows. With common selects it takes one phase per position that has any active row. A silent
vector takes none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.profile import MuxSection

OFF = -1


@dataclass(frozen=True)
class Phases:
    """Phases of a batch, vector by vector.

    Attributes:
        vector: index of the vector that each phase belongs to, shape (P,).
        position: position of every mux, OFF where it connects nothing, shape (P, muxes).
        level: level from 0 (idle) to 1 (read voltage) that each channel needs, NaN where it does not matter,
            shape (P, muxes).
        count: phases of each vector, shape (B,).
    """

    vector: NDArray[np.intp]
    position: NDArray[np.intp]
    level: NDArray[np.float64]
    count: NDArray[np.intp]


def plan(levels: NDArray[np.float64], mux: MuxSection) -> Phases:
    """Plan the phases of a batch of levels, shape (B, muxes, positions)."""
    active = levels > 0.0
    rank = active.cumsum(axis=2) if mux.selects == "independent" else active.any(axis=1, keepdims=True).cumsum(axis=2)
    count = rank[..., -1].max(axis=1)
    vector = np.repeat(np.arange(len(levels)), count)
    # number of each phase within its vector, from 1
    turn = np.arange(len(vector)) - np.repeat(np.cumsum(count) - count, count) + 1
    if mux.selects == "independent":
        mine = active[vector] & (rank[vector] == turn[:, None, None])
        position, driven = mine.argmax(axis=2), mine.any(axis=2)
    else:
        shared = (rank[vector, 0] == turn[:, None]).argmax(axis=1)
        position = np.repeat(shared[:, None], levels.shape[1], axis=1)
        driven = np.take_along_axis(active[vector], position[:, :, None], axis=2)[:, :, 0]
    level = np.take_along_axis(levels[vector], position[:, :, None], axis=2)[:, :, 0]
    if mux.inhibit:
        return Phases(vector, np.where(driven, position, OFF), np.where(driven, level, np.nan), count)
    return Phases(vector, position, np.where(driven, level, 0.0), count)
