"""What calibration needs of a board beyond `CrossbarBackend`: a level that stands still, and one column by itself.

Only backends whose capabilities say `bench` have it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray


class BenchAccess(ABC):
    """A board that bench instruments are connected to."""

    @abstractmethod
    def hold_row(self, row: int, voltage_v: float) -> None:
        """Put a bit line at a level through its mux, so that an instrument can measure it.

        All word lines are off: no cell sees the level. It lasts until the next call that does something to the array,
        `make_safe` included; `info` and `telemetry` leave it.

        Args:
            row: bit line.
            voltage_v: level against the board's ground.

        Raises:
            LimitError: no such row, or a level that reads never reach.
        """

    @abstractmethod
    def sense(
        self,
        cols: NDArray[np.intp],
        *,
        n_average: int = 1,
        row: int | None = None,
        v_read_v: float = 0.0,
        settle_s: float | None = None,
    ) -> NDArray[np.float64]:
        """Convert columns one after the other, each with no word line but its own on.

        Args:
            cols: columns, shape (n,).
            n_average: conversions averaged for each.
            row: bit line that is driven meanwhile; None: no bit line is connected to the board, so that what flows is
                what an instrument drives.
            v_read_v: level of that row above idle.
            settle_s: time between the step of the row to its level and the first conversion; None: the board's own
                settling time.

        Returns:
            Currents in amperes, shape (n,).

        Raises:
            LimitError: no such line, or a voltage above the limit.
        """
