"""Line and mux resistance, folded exactly into an effective conductance matrix.

Cells are ohmic at read voltage, so that the array with its wires is a linear network. Seen from outside it has one port
per bit line (where the mux sits) and one per source line (a virtual ground). `reduce_to_ports` eliminates all inner
nodes once; what the muxes connect to the row ports is a small dense problem afterwards (`effective_conductance_s`).

Geometry: bit line i runs from its mux past columns 0, 1, ...; source line j runs past rows 0, 1, ... to its TIA at the
last row's end. Checked against a full nodal solve (`sim_backend.nodal`) in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.blas import dsymm
from scipy.linalg.lapack import dposv, dpotrf, dpotri
from threadpoolctl import threadpool_limits

Matrix = NDArray[np.float64]

#: keeps the admittance of a row without a conducting cell invertible, S
_LEAK_S = 1e-12


@dataclass(frozen=True)
class ArrayPorts:
    """The array as seen from its lines, all source lines at virtual ground.

    Attributes:
        admittance_s: current into each row port per volt on each row port, shape (rows, rows).
        transfer_s: current out of each column per volt on each row port, shape (rows, cols).
    """

    admittance_s: Matrix
    transfer_s: Matrix


def reduce_to_ports(
    conductance_s: Matrix,
    *,
    row_segment_ohm: Matrix,
    col_segment_ohm: Matrix,
) -> ArrayPorts:
    """Eliminate the inner nodes, column by column from the far end of the bit lines.

    Args:
        conductance_s: cells, shape (rows, cols).
        row_segment_ohm: bit-line wire before each column, seen from the mux, shape (cols,).
        col_segment_ohm: source-line wire after each row, towards the TIA, shape (rows,).
    """
    n_rows, n_cols = conductance_s.shape
    columns = _Columns.of(conductance_s, col_segment_ohm)
    # Column k maps the bit-line voltages at the current column to the current of array column k.
    outputs = np.asfortranarray(columns.output_s)
    # Of everything from the current column on. Only the lower triangle is kept, and in the order of LAPACK, which then
    # works in place.
    admittance = np.zeros((n_rows, n_rows), order="F")
    # Many small factorisations: one thread is fastest, and much faster than two on a busy machine.
    with threadpool_limits(1):
        for col in range(n_cols - 1, -1, -1):
            columns.add_admittance(col, admittance)
            wire_ohm = float(row_segment_ohm[col])
            if wire_ohm > 0.0:
                step = _step_over_wire(admittance, wire_ohm)
                outputs[:, col:] = dsymm(1.0, step, outputs[:, col:], lower=1)
                admittance = _add_to_diagonal(-step / wire_ohm, 1.0 / wire_ohm)
    return ArrayPorts(np.tril(admittance) + np.tril(admittance, -1).T, np.ascontiguousarray(outputs))


@dataclass(frozen=True)
class _Columns:
    """Each column alone, seen from its nodes on the bit lines; all of shape (rows, cols).

    A current into one source-line node raises the nodes on the way to the TIA less and less, and all nodes beyond by
    a share of their neighbour's voltage. Everything in here is positive, so that nothing cancels.

    Attributes:
        cells_s: conductances.
        own_ohm: voltage of each source-line node per ampere into it.
        log_share: logarithm of the voltage at the first node over that of each, for a current into that one.
        output_s: TIA current per volt on each bit line.
    """

    cells_s: Matrix
    own_ohm: Matrix
    log_share: Matrix
    output_s: Matrix

    @classmethod
    def of(cls, cells_s: Matrix, segment_ohm: Matrix) -> _Columns:
        share, own_ohm = np.ones_like(cells_s), np.empty_like(cells_s)
        beyond_s = np.zeros(cells_s.shape[1])
        for i, ohm in enumerate(segment_ohm):
            load_s = beyond_s + cells_s[i]
            share[i] = 1.0 / (1.0 + ohm * load_s)
            beyond_s = load_s * share[i]
        next_ohm = np.zeros(cells_s.shape[1])
        for i in range(len(cells_s) - 1, -1, -1):
            own_ohm[i] = next_ohm = (next_ohm * share[i] + segment_ohm[i]) * share[i]
        log_share = np.zeros_like(cells_s)
        np.cumsum(np.log(share[:-1]), axis=0, out=log_share[1:])
        return cls(cells_s, own_ohm, log_share, cells_s * np.cumprod(share[::-1], axis=0)[::-1])

    def add_admittance(self, col: int, admittance: Matrix) -> None:
        """Add that of one column; what comes into the upper triangle has no meaning."""
        cell_s, log_share = self.cells_s[:, col], self.log_share[:, col]
        mutual = np.subtract.outer(log_share, log_share).T
        np.abs(mutual, out=mutual)
        np.exp(np.negative(mutual, out=mutual), out=mutual)
        mutual *= (cell_s * self.own_ohm[:, col])[:, None]
        mutual *= cell_s
        admittance -= mutual
        _add_to_diagonal(admittance, cell_s)


def _step_over_wire(admittance: Matrix, wire_ohm: float) -> Matrix:
    """Voltages behind a wire segment in every row per voltage in front; lower triangle, `admittance` being behind."""
    step, info = dpotrf(_add_to_diagonal(wire_ohm * admittance, 1.0), lower=1, clean=0, overwrite_a=1)
    if info == 0:
        step, info = dpotri(step, lower=1, overwrite_c=1)
    if info != 0:  # pragma: no cover - a positive definite matrix by construction
        raise ArithmeticError(f"bit-line solve failed ({info})")
    return step


def _add_to_diagonal(matrix: Matrix, value: Matrix | float) -> Matrix:
    matrix[np.diag_indices_from(matrix)] += value
    return matrix


def effective_conductance_s(ports: ArrayPorts, selected: NDArray[np.intp], source_ohm: Matrix) -> Matrix:
    """Current of each column per volt on each selected row's source, the other rows floating.

    Args:
        ports: the array.
        selected: rows that are connected to their source, shape (n,).
        source_ohm: resistance between source and row port (mux on-resistance), shape (n,).

    Returns:
        Shape (n, cols). Selected rows that are not driven are held at the idle level through the same resistance.
    """
    # A row without a conducting cell floats anywhere, and is of no account.
    conducts = np.diag(ports.admittance_s) > _LEAK_S
    floating = np.setdiff1d(np.flatnonzero(conducts), selected)
    admittance = ports.admittance_s[np.ix_(selected, selected)]
    transfer = ports.transfer_s[selected]
    if len(floating):
        # A floating row takes the voltage at which no net current flows into it.
        factor = cho_factor(ports.admittance_s[np.ix_(floating, floating)])
        drift = cho_solve(factor, ports.admittance_s[np.ix_(floating, selected)])
        admittance = admittance - ports.admittance_s[np.ix_(selected, floating)] @ drift
        transfer = transfer - drift.T @ ports.transfer_s[floating]
    loaded = np.eye(len(selected)) + source_ohm[:, None] * admittance
    return np.linalg.solve(loaded.T, transfer)


@dataclass(frozen=True)
class FloatingRows:
    """The array as seen from its bit lines while all of them float; a mux that connects one is solved for afterwards.

    Attributes:
        impedance_ohm: voltage of each row port per ampere into each row port, shape (rows, rows).
        gain: current out of each column per ampere into each row port, shape (rows, cols).
    """

    impedance_ohm: Matrix
    gain: Matrix

    @classmethod
    def of(cls, ports: ArrayPorts) -> FloatingRows:
        """Of an array that has been reduced to its ports."""
        leak_s = _LEAK_S * np.eye(len(ports.admittance_s))
        impedance_ohm = np.linalg.inv(ports.admittance_s + leak_s)
        impedance_ohm = 0.5 * (impedance_ohm + impedance_ohm.T)
        return cls(impedance_ohm, impedance_ohm @ ports.transfer_s)

    @property
    def per_port_volt_s(self) -> Matrix:
        """Current of each column per volt on each row port, that row alone; shape (rows, cols).

        To first order it changes by the same share as the cell's conductance.
        """
        return self.gain / np.diag(self.impedance_ohm)[:, None]

    def row_currents_a(self, rows: NDArray[np.intp], source_ohm: Matrix, source_v: Matrix) -> Matrix:
        """Current into each connected row.

        Args:
            rows: rows that are connected, shape (n,).
            source_ohm: resistance between each source and its row, shape (n,).
            source_v: voltage of each source above virtual ground, shape (n, k) for k cases.
        """
        loaded = self.impedance_ohm[np.ix_(rows, rows)]
        loaded[np.arange(len(rows)), np.arange(len(rows))] += source_ohm
        _, into_a, info = dposv(loaded, source_v)
        if info != 0:  # pragma: no cover - a positive definite matrix by construction
            raise ArithmeticError(f"port solve failed ({info})")
        return into_a


def single_cell_conductance_s(
    conductance_s: Matrix,
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    source_ohm: Matrix,
    row_ohm: float,
    col_ohm: float,
    n_rows: int,
) -> Matrix:
    """What a cell shows when it is read alone: in series with its mux and its stretch of both lines."""
    wire_ohm = source_ohm + row_ohm * (cols + 1) + col_ohm * (n_rows - rows)
    return conductance_s / (1.0 + conductance_s * wire_ohm)
