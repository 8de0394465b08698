"""What a calibration procedure is handed, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.bench_access import BenchAccess
from hil.calibration_file import Calibration
from hil.instruments import Instrument
from hil.progress import Progress, no_progress
from hil.session import Session
from hil.tile import Tile
from hil.wiring import Wiring

#: longest name of a measurement in a run file
WHAT_BYTES = 48
#: stores raw measurements: name of a table, and its columns
Record = Callable[[str, Mapping[str, NDArray[Any]]], None]


def _forget(table: str, columns: Mapping[str, NDArray[Any]]) -> None:
    del table, columns


@dataclass
class CalibrationBench:
    """A board on the bench, with nothing applied to what it reports.

    Attributes:
        session: open session; currents are by nominal constants.
        known: parts measured so far, by which procedures correct what they measure.
        v_read_v: read voltage that the calibration is for.
        instruments: by role: "smu", "dmm", "psu".
        seed: of random patterns.
        record: stores raw measurements as they come.
        progress: told on the way.
    """

    session: Session
    known: Calibration
    v_read_v: float
    instruments: Mapping[str, Instrument] = field(default_factory=dict[str, Instrument])
    seed: int = 0
    record: Record = _forget
    progress: Progress = no_progress

    @property
    def wiring(self) -> Wiring:
        """Of the board, with what the last power-up found dead."""
        return self.known.wiring

    @property
    def access(self) -> BenchAccess | None:
        """What goes beyond VMM and read; None on backends without it."""
        return self.session if self.session.info.capabilities.bench else None  # type: ignore[return-value]

    def vmm(
        self, what: str, x: NDArray[np.bool_], tile: Tile, v_read_v: float, *, number: int = 0
    ) -> NDArray[np.float64]:
        """Multiply, and store what came out as it came.

        Args:
            what: name of the measurement in the run file.
            x: bits, shape (B, tile.n_rows).
            tile: single-ended.
            v_read_v: as for the session.
            number: of the pass.

        Returns:
            Currents by nominal constants, shape (B, tile.n_outputs).
        """
        current_a = self.session.vmm(x, tile, v_read_v)
        shape, n = self.session.info.shape, len(x)
        driven = np.zeros((n, shape[0]), np.bool_)
        driven[:, tile.rows] = x
        whole = np.full((n, shape[1]), np.nan, np.float32)
        whole[:, tile.cols] = current_a
        self.record(
            "vmm",
            {
                "what": np.full(n, what.encode()[:WHAT_BYTES], f"S{WHAT_BYTES}"),
                "number": np.full(n, number, np.uint32),
                "driven": np.packbits(driven, axis=1),
                "v_read_v": np.full(n, v_read_v),
                "current_a": whole,
            },
        )
        return current_a.astype(np.float64)

    @property
    def rows(self) -> NDArray[np.intp]:
        """Rows that can be driven."""
        return np.flatnonzero(self.wiring.row_ok)

    @property
    def cols(self) -> NDArray[np.intp]:
        """Columns that can be read."""
        return np.flatnonzero(self.wiring.col_ok)

    @property
    def working_rows(self) -> NDArray[np.intp]:
        """Rows that can be driven and carry current, as far as is known."""
        return np.flatnonzero(self.known.row_ok)

    @property
    def working_cols(self) -> NDArray[np.intp]:
        """Columns that can be read and carry current, as far as is known."""
        return np.flatnonzero(self.known.col_ok)
