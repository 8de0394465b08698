"""Measured files made by the tests: cells drawn from known parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MEAN_V, SIGMA_V = 3.2, 0.12


def write_forming(path: Path, n_cells: int = 400, seed: int = 0) -> Path:
    """A ramp in steps of 0.05 V on cells with normal forming voltage and conductance."""
    rng = np.random.default_rng(seed)
    formed_at_v = np.ceil(rng.normal(MEAN_V, SIGMA_V, n_cells) / 0.05) * 0.05
    resistance_ohm = 1.0 / rng.normal(150e-6, 15e-6, n_cells)
    table = np.stack([np.arange(n_cells), np.full(n_cells, 2.0), formed_at_v, resistance_ohm, np.ones(n_cells)], axis=1)
    np.savetxt(path, table, fmt="%.6g", delimiter="\t")
    return path
