"""State of every cell of a simulated chip: what a pulse, time and wear have made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: one cell; a file keeps it as it stands here
CELL = np.dtype(
    [
        ("conductance_s", "<f8"),  # as it is now, without read noise and faults
        ("programmed_s", "<f8"),  # right after the last pulse
        ("programmed_at_s", "<f8"),  # when that was, on the chip's clock; -inf: long ago, at rest
        ("settled_to_s", "<f8"),  # up to when relaxation has been reckoned
        ("cycles", "<f4"),  # SET and RESET pulses that moved it, in pairs
        ("formed", "?"),
    ],
    align=True,
)
LONG_AGO_S = -np.inf


@dataclass
class CellState:
    """Cells and the chip's clock.

    Attributes:
        cells: one `CELL` each, shape (rows, cols); may lie in a file that is mapped into memory.
        clock_s: seconds since the chip was drawn, shape (1,); in the same file.
    """

    cells: NDArray[np.void]
    clock_s: NDArray[np.float64]

    @classmethod
    def at_rest(cls, conductance_s: NDArray[np.float64], formed: NDArray[np.bool_]) -> CellState:
        """Cells that nothing has touched since long ago."""
        cells = np.zeros(conductance_s.shape, CELL)
        cells["conductance_s"] = cells["programmed_s"] = conductance_s
        cells["programmed_at_s"] = cells["settled_to_s"] = LONG_AGO_S
        cells["formed"] = formed
        return cls(cells, np.zeros(1))
