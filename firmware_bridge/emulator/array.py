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

from firmware_bridge.emulator.pad import PAD_LEAK_OHM, PadPoint, PadSource
from firmware_bridge.instructions import TICK_S
from sim_backend.chip import SimulatedChip
from sim_backend.lines import FloatingRows, reduce_to_ports, single_cell_conductance_s

Matrix = NDArray[np.float64]

#: networks kept: one per set of open word lines (a tile, the columns of a self-test)
_NETWORKS_KEPT = 4


@dataclass(frozen=True)
class ColumnCurrents:
    """What the columns carry once settled; all shape (cols,).

    Attributes:
        current_a: mean current.
        sigma_a: read noise of one conversion.
        conductance_s: conductance from each summing node to the driven rows.
        pad: where a source at a pad has come to rest, against its own reference; None without one.
    """

    current_a: Matrix
    sigma_a: Matrix
    conductance_s: Matrix
    pad: PadPoint | None = None


@dataclass(frozen=True)
class _Network:
    """Open columns as seen from floating rows."""

    cols: NDArray[np.intp]
    array: FloatingRows
    variance_s2: Matrix  # of column currents per squared volt on each row port, shape (rows, open columns)


@dataclass(frozen=True)
class _SeenFromPad:
    """Everything but the source at a pad: linear in the current that it drives into the pad.

    Attributes:
        open_v: voltage of the pad when nothing is driven into it.
        open_per_volt: the same with one volt behind every connected row.
        resistance_ohm: behind `open_v`.
        current_a, per_volt_s: column currents when nothing is driven into the pad, and with one volt behind every row.
        share: column current per ampere into the pad.
        row_v: voltage of every bit line that is held, and what it rises by per ampere; shape (2, rows).
    """

    open_v: float
    open_per_volt: float
    resistance_ohm: float
    current_a: Matrix
    per_volt_s: Matrix
    share: Matrix
    row_v: Matrix


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
            found = self._alone_s(rows, cols, self._r_on_ohm[muxes])
            chip = self.chip
            current_a[cols] = (found + chip.slow_noise_s(rows, cols, found)) * source_v
            column_s[cols] = found
            variance[cols] = (chip.white_noise(rows, cols) * found * source_v) ** 2
        elif len(rows) and len(cols):
            network = self._network(open_cols, cols)
            # Second case: one volt everywhere gives the conductance at each summing node.
            at_v = np.stack([source_v, np.ones(len(rows))], axis=1)
            into = network.array.row_currents_a(rows, self._r_on_ohm[muxes], at_v)
            current_a[cols], column_s[cols] = into.T @ network.array.gain[rows]
            row_v = source_v - self._r_on_ohm[muxes] * into[:, 0]
            variance[cols] = row_v**2 @ network.variance_s2[rows]
        return ColumnCurrents(current_a, np.sqrt(variance), column_s)

    def currents_with(
        self,
        source: PadSource,
        reference_v: float,
        muxes: NDArray[np.intp],
        rows: NDArray[np.intp],
        source_v: Matrix,
        open_cols: NDArray[np.bool_],
    ) -> ColumnCurrents:
        """As `currents`, with a source at the pad of a bit line, in parallel with its mux if that is on.

        Args:
            source: at the pad.
            reference_v: its reference above the virtual ground.
            muxes, rows, source_v, open_cols: as for `currents`.
        """
        cols = np.flatnonzero(open_cols)
        current_a, variance, column_s = (np.zeros(self.shape[1]) for _ in range(3))
        if len(cols) == 0:
            seen = self._seen_without_cells(source.row, muxes, rows, source_v)
        elif len(cols) == 1 and len(rows) == 0:
            seen = self._seen_cell(source.row, cols)
        else:
            seen = self._seen_network(source.row, self._network(open_cols, cols), muxes, rows, source_v)
        point = source.meet(seen.open_v - reference_v, seen.resistance_ohm)
        current_a[cols] = seen.current_a + point.current_a * seen.share
        column_s[cols] = seen.per_volt_s
        variance[cols] = (source.noise_a * seen.share) ** 2
        if source.holds_voltage(point):
            # One volt everywhere moves the current of a source only where it gives way.
            given_s = (1.0 - seen.open_per_volt) / (seen.resistance_ohm + source.lead_ohm)
            column_s[cols] += given_s * seen.share
        if len(cols) > 1 or source.holds_voltage(point):
            # A current that is forced through one cell has no noise of that cell.
            row_v = seen.row_v[0] + point.current_a * seen.row_v[1]
            if len(cols) > 1 or len(rows):
                variance_s2 = self._network(open_cols, cols).variance_s2
            else:
                variance_s2 = (self._conductance_s[:, cols] * self._relative_noise(cols)) ** 2
            variance[cols] += row_v**2 @ variance_s2
        return ColumnCurrents(current_a, np.sqrt(variance), column_s, point)

    def _seen_without_cells(
        self, row: int, muxes: NDArray[np.intp], rows: NDArray[np.intp], source_v: Matrix
    ) -> _SeenFromPad:
        """No word line is on: there is the row's mux, or nothing."""
        nothing = np.zeros(0)
        row_v = np.zeros((2, self.shape[0]))
        here = np.flatnonzero(rows == row)
        if not len(here):
            return _SeenFromPad(0.0, 0.0, PAD_LEAK_OHM, nothing, nothing, nothing, row_v)
        k = int(here[0])
        return _SeenFromPad(float(source_v[k]), 1.0, float(self._r_on_ohm[muxes[k]]), nothing, nothing, nothing, row_v)

    def _seen_cell(self, row: int, cols: NDArray[np.intp]) -> _SeenFromPad:
        """One column is open and no mux is on: one cell in its stretch of both lines; other rows carry nothing."""
        rows = np.array([row])
        found = self._alone_s(rows, cols, np.zeros(1))
        found = found + self.chip.slow_noise_s(rows, cols, found)
        leak = found <= 1.0 / PAD_LEAK_OHM
        resistance_ohm = PAD_LEAK_OHM if leak[0] else 1.0 / float(found[0])
        row_v = np.zeros((2, self.shape[0]))
        row_v[1, row] = resistance_ohm
        zero = np.zeros(1)
        return _SeenFromPad(0.0, 0.0, resistance_ohm, zero, zero, np.where(leak, 0.0, 1.0), row_v)

    def _seen_network(
        self, row: int, network: _Network, muxes: NDArray[np.intp], rows: NDArray[np.intp], source_v: Matrix
    ) -> _SeenFromPad:
        """Any columns and rows."""
        from_rows = network.array.impedance_ohm[row, rows]
        loaded = network.array.impedance_ohm[np.ix_(rows, rows)] + np.diag(self._r_on_ohm[muxes])
        # Currents into the connected rows: by their sources, by one volt everywhere, by one ampere into the pad.
        into = np.linalg.solve(loaded, np.stack([source_v, np.ones(len(rows)), -from_rows], axis=1))
        current_a, per_volt_s, share = into.T @ network.array.gain[rows]
        open_v, open_per_volt, rise_ohm = from_rows @ into
        resistance_ohm = float(network.array.impedance_ohm[row, row] + rise_ohm)
        row_v = np.zeros((2, self.shape[0]))
        row_v[:, row] = open_v, resistance_ohm
        row_v[0, rows] = source_v - self._r_on_ohm[muxes] * into[:, 0]
        row_v[1, rows] = -self._r_on_ohm[muxes] * into[:, 2]
        return _SeenFromPad(
            float(open_v),
            float(open_per_volt),
            resistance_ohm,
            current_a,
            per_volt_s,
            share + network.array.gain[row],
            row_v,
        )

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

    def _alone_s(self, rows: NDArray[np.intp], cols: NDArray[np.intp], source_ohm: Matrix) -> Matrix:
        """Conductance of single cells with their stretches of line, behind `source_ohm` each."""
        return single_cell_conductance_s(
            self._conductance_s[rows, cols],
            rows,
            cols,
            source_ohm=source_ohm,
            row_ohm=self._row_ohm,
            col_ohm=self._col_ohm,
            n_rows=self.shape[0],
        )

    def _relative_noise(self, cols: NDArray[np.intp]) -> Matrix | float:
        """Of the cells from read to read: a number, or of shape (rows, len(cols))."""
        noise = self.chip.read_noise()
        return noise[:, cols] if isinstance(noise, np.ndarray) else noise

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
        array = FloatingRows.of(ports)
        network = _Network(cols, array, (array.per_port_volt_s * self._relative_noise(cols)) ** 2)
        self._networks[key] = network
        if len(self._networks) > _NETWORKS_KEPT:
            self._networks.popitem(last=False)
        return network
