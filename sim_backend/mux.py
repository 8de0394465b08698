"""Which rows the 8:1 muxes put on the DACs together.

Source: TI CD4051B data sheet for the on-resistance; the board's topology (row = 8 * mux + position, common selects) is
a guess (docs/explanation/open-points.md). A VMM runs through one phase per mux position.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def channel_of_row(rows: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """DAC channel, which is also the mux, of each row."""
    return rows // width


def phase_of_row(rows: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    """Mux position, which is also the phase, of each row."""
    return rows % width
