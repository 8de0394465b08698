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
from scipy.linalg.lapack import dpotrf, dpotri, dptsv
from threadpoolctl import threadpool_limits

Matrix = NDArray[np.float64]


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
    # outputs[k] is the row vector that maps the bit-line voltages at the current column to the current of column k.
    outputs = np.zeros((n_cols, n_rows))
    right = np.zeros((n_rows, n_rows))  # admittance of everything beyond the current column
    # Many small factorisations: one thread is fastest, and much faster than two on a busy machine.
    with threadpool_limits(1):
        for col in range(n_cols - 1, -1, -1):
            own, outputs[col] = _column(conductance_s[:, col], col_segment_ohm)
            here = own + right
            step, right = _through_wire(here, float(row_segment_ohm[col]))
            if step is not None:
                outputs[col:] = outputs[col:] @ step
    return ArrayPorts(admittance_s=right, transfer_s=outputs.T.copy())


def _column(cell_s: Matrix, segment_ohm: Matrix) -> tuple[Matrix, Matrix]:
    """One column alone: admittance between its bit-line nodes (rows, rows), and its TIA current per volt on each."""
    scale_ohm = float(segment_ohm.mean())
    if scale_ohm == 0.0:
        return np.diag(cell_s), cell_s
    # Source-line nodes obey (wire + scale * diag(g)) s = scale * g * v, all terms free of units and of order one.
    wire = scale_ohm / segment_ohm
    diagonal = wire + scale_ohm * cell_s
    diagonal[1:] += wire[:-1]
    solved, info = np.diag(cell_s) / diagonal, 0
    if len(cell_s) > 1:
        *_, solved, info = dptsv(diagonal, -wire[:-1], np.diag(cell_s))
    if info != 0:  # pragma: no cover - a positive definite matrix by construction
        raise ArithmeticError(f"source-line solve failed ({info})")
    node = scale_ohm * solved  # source-line voltage per volt on each bit line, shape (rows, rows)
    own = np.diag(cell_s) - cell_s[:, None] * node
    return 0.5 * (own + own.T), solved[-1] * wire[-1]


def _through_wire(admittance: Matrix, wire_ohm: float) -> tuple[Matrix | None, Matrix]:
    """Voltage transfer across a wire segment in every row, and the admittance seen in front of it."""
    if wire_ohm == 0.0:
        return None, admittance
    step, info = dpotrf(np.eye(len(admittance)) + wire_ohm * admittance, lower=1)
    if info == 0:
        step, info = dpotri(step, lower=1)
    if info != 0:  # pragma: no cover - a positive definite matrix by construction
        raise ArithmeticError(f"bit-line solve failed ({info})")
    step = np.tril(step) + np.tril(step, -1).T
    return step, (np.eye(len(admittance)) - step) / wire_ohm


def effective_conductance_s(ports: ArrayPorts, selected: NDArray[np.intp], source_ohm: Matrix) -> Matrix:
    """Current of each column per volt on each selected row's source, the other rows floating.

    Args:
        ports: the array.
        selected: rows that are connected to their source, shape (n,).
        source_ohm: resistance between source and row port (mux on-resistance), shape (n,).

    Returns:
        Shape (n, cols). Selected rows that are not driven are held at the idle level through the same resistance.
    """
    floating = np.setdiff1d(np.arange(len(ports.admittance_s)), selected)
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
