"""Effective conductance of this project against badcrossbar (MIT, Joksas and Mehonic 2020), an independent solver.

    pip install "crossbar-hil[sim,bench]"      (badcrossbar needs the cairo library: apt-get install libcairo2-dev)
    python benchmarks/lines_against_badcrossbar.py

badcrossbar knows neither muxes nor floating rows: all rows are driven here, through wire alone.
"""

from __future__ import annotations

import logging
import time

import numpy as np
from badcrossbar import compute

from sim_backend.lines import effective_conductance_s, reduce_to_ports


def main() -> None:
    """Print the largest relative difference of column currents, and both times."""
    logging.disable(logging.INFO)  # badcrossbar reports each step
    print("rows cols  wire/ohm  largest difference  this project/s  badcrossbar/s  ratio")
    rng = np.random.default_rng(0)
    for n_rows, n_cols, wire_ohm in ((16, 16, 1.0), (32, 24, 10.0), (64, 64, 1.0), (128, 128, 0.5)):
        cells_s = rng.uniform(1e-6, 30e-6, (n_rows, n_cols))
        voltage_v = 0.2 * (rng.random((n_rows, 20)) < 0.3)
        start = time.perf_counter()
        ports = reduce_to_ports(
            cells_s, row_segment_ohm=np.full(n_cols, wire_ohm), col_segment_ohm=np.full(n_rows, wire_ohm)
        )
        ours_a = voltage_v.T @ effective_conductance_s(ports, np.arange(n_rows), np.zeros(n_rows))
        ours_s = time.perf_counter() - start
        start = time.perf_counter()
        solution = compute(voltage_v, 1.0 / cells_s, wire_ohm, node_voltages=False, all_currents=False)
        theirs_s = time.perf_counter() - start
        theirs_a = np.asarray(solution.currents.output)
        driven = voltage_v.any(axis=0)
        difference = np.abs(ours_a[driven] / theirs_a[driven] - 1).max()
        print(
            f"{n_rows:4} {n_cols:4}  {wire_ohm:8g}  {difference:18.1e}  {ours_s:14.3f}  {theirs_s:13.3f}"
            f"  {theirs_s / ours_s:5.1f}"
        )


if __name__ == "__main__":
    main()
