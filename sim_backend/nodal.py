"""Full nodal analysis of array and wires: the reference that `sim_backend.lines` is checked against.

Slow and literal on purpose: one unknown per wire node, one sparse solve.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

Matrix = NDArray[np.float64]


def solve_column_currents_a(
    conductance_s: Matrix,
    voltage_v: Matrix,
    source_ohm: Matrix,
    row_segment_ohm: Matrix,
    col_segment_ohm: Matrix,
) -> Matrix:
    """Currents into the virtual grounds of all columns.

    Args:
        conductance_s: cells, shape (rows, cols).
        voltage_v: source of each row, shape (rows,); NaN leaves the row floating.
        source_ohm: resistance from source to the row port, shape (rows,), above zero.
        row_segment_ohm: bit-line wire before each column, shape (cols,), above zero.
        col_segment_ohm: source-line wire after each row, shape (rows,), above zero.

    Returns:
        Shape (cols,).
    """
    n_rows, n_cols = conductance_s.shape
    n_nodes = n_rows + 2 * n_rows * n_cols  # row ports, bit-line nodes, source-line nodes
    port = np.arange(n_rows)
    bit = n_rows + np.arange(n_rows * n_cols).reshape(n_rows, n_cols)
    source = bit + n_rows * n_cols
    at: list[tuple[NDArray[np.intp], NDArray[np.intp], Matrix]] = []

    def connect(a: NDArray[np.intp], b: NDArray[np.intp], g: Matrix) -> None:
        a, b, g = (np.broadcast_to(v, np.broadcast(a, b, g).shape).ravel() for v in (a, b, g))
        at.extend([(a, a, g), (b, b, g), (a, b, -g), (b, a, -g)])

    connect(bit, source, conductance_s)
    connect(port, bit[:, 0], np.full(n_rows, 1.0 / row_segment_ohm[0]))
    connect(bit[:, :-1], bit[:, 1:], np.broadcast_to(1.0 / row_segment_ohm[1:], (n_rows, n_cols - 1)))
    connect(source[:-1], source[1:], np.broadcast_to(1.0 / col_segment_ohm[:-1, None], (n_rows - 1, n_cols)))
    end_s = np.full(n_cols, 1.0 / col_segment_ohm[-1])
    at.append((source[-1], source[-1], end_s))
    driven = ~np.isnan(voltage_v)
    at.append((port[driven], port[driven], 1.0 / source_ohm[driven]))

    i, j, g = (np.concatenate([entry[k] for entry in at]) for k in range(3))
    matrix = coo_matrix((g, (i, j)), shape=(n_nodes, n_nodes)).tocsc()
    inject = np.zeros(n_nodes)
    inject[port[driven]] = voltage_v[driven] / source_ohm[driven]
    return splu(matrix).solve(inject)[source[-1]] * end_s
