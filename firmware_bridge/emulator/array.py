"""The macro behind the emulated board: cells, wires and muxes as one linear network per set of open word lines.

All columns sit at a virtual ground and the rows that no mux connects float. The wires are folded into row ports
(`sim_backend.lines`), and the ports are inverted once: then only the connected rows remain to be solved for, which is
exact and takes some ten microseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from firmware_bridge.instructions import TICK_S
from sim_backend.chip import SimulatedChip
from sim_backend.lines import reduce_to_ports, single_cell_conductance_s

Matrix = NDArray[np.float64]

#: networks kept: one per set of open word lines (a tile, the columns of a self-test)
_NETWORKS_KEPT = 4
#: keeps the admittance invertible where a row has no conducting cell, S
_LEAK_S = 1e-12


@dataclass(frozen=True)
class ColumnCurrents:
    """What the columns carry once settled; all shape (cols,).

    Attributes:
        current_a: mean current.
        sigma_a: read noise of one conversion.
        conductance_s: conductance from each summing node to the driven rows.
    """

    current_a: Matrix
    sigma_a: Matrix
    conductance_s: Matrix


@dataclass(frozen=True)
class _Network:
    """Open columns as seen from floating rows."""

    cols: NDArray[np.intp]
    impedance_ohm: Matrix  # row port voltage per ampere into each row port
    gain: Matrix  # column current per ampere into each row port, shape (rows, open columns)
    variance_s2: Matrix  # of the cells' conductance from read to read, shape (rows, open columns)


class EmulatedArray:
    """Cells of a hidden chip.

    Args:
        chip: cells and their statistics.
        r_on_ohm: on-resistance of every mux, shape (muxes,).
    """

    def __init__(self, chip: SimulatedChip, r_on_ohm: Matrix) -> None:
        self.chip = chip
        self._r_on_ohm = r_on_ohm
        lines = chip.settings.lines
        self._row_ohm = lines.row_ohm if lines.enabled else 0.0
        self._col_ohm = lines.col_ohm if lines.enabled else 0.0
        self._conductance_s = chip.conductance_s
        self._ticks = 0
        self._networks: OrderedDict[bytes, _Network] = OrderedDict()

    @property
    def shape(self) -> tuple[int, int]:
        return self._conductance_s.shape  # type: ignore[return-value]

    def currents(
        self, muxes: NDArray[np.intp], rows: NDArray[np.intp], source_v: Matrix, open_cols: NDArray[np.bool_]
    ) -> ColumnCurrents:
        """Column currents with these rows connected.

        Args:
            muxes: mux of each connected row, shape (n,).
            rows: connected rows, shape (n,).
            source_v: DAC voltage behind each of them, above the virtual ground, shape (n,).
            open_cols: columns whose word line is on, shape (cols,).
        """
        current_a, variance, column_s = (np.zeros(self.shape[1]) for _ in range(3))
        cols = np.flatnonzero(open_cols)
        if len(rows) and len(cols) == 1 and len(rows) == 1:
            found = single_cell_conductance_s(
                self._conductance_s[rows, cols],
                rows,
                cols,
                source_ohm=self._r_on_ohm[muxes],
                row_ohm=self._row_ohm,
                col_ohm=self._col_ohm,
                n_rows=self.shape[0],
            )
            chip = self.chip
            current_a[cols] = (found + chip.slow_noise_s(rows, cols, found)) * source_v
            column_s[cols] = found
            variance[cols] = (chip.white_noise(rows, cols) * found * source_v) ** 2
        elif len(rows) and len(cols):
            network = self._network(open_cols, cols)
            gain = network.gain[rows]
            loaded = network.impedance_ohm[np.ix_(rows, rows)]
            loaded[np.arange(len(rows)), np.arange(len(rows))] += self._r_on_ohm[muxes]
            # Second right-hand side: one volt everywhere gives the conductance at each summing node.
            _, into, failed = dposv(loaded, np.stack([source_v, np.ones(len(rows))], axis=1))
            if failed:  # pragma: no cover - a positive definite matrix by construction
                raise ArithmeticError(f"port solve failed ({failed})")
            current_a[cols], column_s[cols] = into.T @ gain
            row_v = source_v - self._r_on_ohm[muxes] * into[:, 0]
            variance[cols] = row_v**2 @ network.variance_s2[rows]
        return ColumnCurrents(current_a, np.sqrt(variance), column_s)

    def pulse(
        self, bias_v: Matrix, rows: NDArray[np.intp], open_cols: NDArray[np.bool_], v_gate_v: float, width_s: float
    ) -> None:
        """Apply a pulse of `bias_v` (n,), positive in the direction of forming, to `rows` (n,) on the open columns."""
        mask = np.zeros(self.shape, np.bool_)
        mask[rows] = open_cols
        of_row_v = np.zeros((self.shape[0], 1))
        of_row_v[rows, 0] = bias_v
        self.chip.pulse(mask, of_row_v, v_gate_v, width_s)
        self.refresh()

    def go_on(self, ticks: int) -> None:
        """Let the chip's clock follow the fabric's."""
        self.chip.advance(max(0, ticks - self._ticks) * TICK_S)
        self._ticks = ticks

    def refresh(self) -> None:
        """Look at the cells again, which a pulse, time or another session may have changed."""
        self._conductance_s = self.chip.conductance_s
        self._networks.clear()

    def _network(self, open_cols: NDArray[np.bool_], cols: NDArray[np.intp]) -> _Network:
        key = open_cols.tobytes()
        if key in self._networks:
            self._networks.move_to_end(key)
            return self._networks[key]
        cells_s = self._conductance_s[:, cols]
        ports = reduce_to_ports(
            cells_s,
            row_segment_ohm=self._row_ohm * np.diff(cols, prepend=-1),
            col_segment_ohm=np.full(self.shape[0], self._col_ohm),
        )
        impedance_ohm = np.linalg.inv(ports.admittance_s + _LEAK_S * np.eye(self.shape[0]))
        impedance_ohm = 0.5 * (impedance_ohm + impedance_ohm.T)
        noise = self.chip.read_noise()
        sigma_s = cells_s * (noise[:, cols] if isinstance(noise, np.ndarray) else noise)
        network = _Network(cols, impedance_ohm, impedance_ohm @ ports.transfer_s, sigma_s**2)
        self._networks[key] = network
        if len(self._networks) > _NETWORKS_KEPT:
            self._networks.popitem(last=False)
        return network
