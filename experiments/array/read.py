"""Read a cell, a row, an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench, steps
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan
from experiments.array.settings import ReadSettings
from hil.backend import BackendInfo


def plan(mask: NDArray[np.bool_], settings: ReadSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `read` would do."""
    del info
    voltages = read_voltages(settings)
    n = int(mask.sum())
    return Plan(
        text=f"read each cell at {settings.v_read_v:g} V, {settings.n_average} conversions averaged",
        n_cells=n,
        v_read_v=voltages,
        reads_per_cell=len(voltages),
        primitives=len(voltages) * n_steps(n, cells_per_step),
    )


def read_voltages(settings: ReadSettings) -> tuple[float, ...]:
    """Voltages of one corrected reading."""
    extra = {"none": (), "zero": (0.0,), "polarity": (-settings.v_read_v,)}[settings.correction]
    return (*extra, settings.v_read_v)


def n_steps(n_cells: int, cells_per_step: int) -> int:
    """Primitives that so many cells take, about."""
    return max(1, -(-n_cells // cells_per_step))


def read(bench: Bench, mask: NDArray[np.bool_], settings: ReadSettings) -> Outcome:
    """Read each cell of the mask once."""
    rest = mask & (bench.history.n_reads == 0)
    total = int(mask.sum())
    for part in steps(rest, bench.cells_per_step):
        bench.progress("read", total - int((mask & (bench.history.n_reads == 0)).sum()), total)
        bench.read(part, "read", settings)
    bench.progress("read", total, total)
    found_s = bench.history.last_conductance_s
    return Outcome(
        mask_ok=mask & ~np.isnan(found_s),
        faults=np.zeros(bench.shape, np.uint8),
        summary={"cells_read": total, **conductance_summary(found_s[mask]), **pair_summary(found_s, mask)},
    )


def conductance_summary(conductance_s: NDArray[Any]) -> dict[str, float]:
    """Mean, spread and range of conductances, NaN left out; empty without any."""
    known = np.asarray(conductance_s, np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return {}
    low, median, high = np.percentile(known, (5, 50, 95))
    return {
        "mean_s": float(known.mean()),
        "sigma_s": float(known.std()),
        "p5_s": float(low),
        "median_s": float(median),
        "p95_s": float(high),
    }


def pair_summary(conductance_s: NDArray[Any], mask: NDArray[np.bool_]) -> dict[str, float]:
    """Spread of G+ - G- over the pairs of neighbouring columns that lie wholly in the mask, as a differential tile
    takes them; empty without a pair."""
    n = conductance_s.shape[1] // 2 * 2
    both = mask[:, 0:n:2] & mask[:, 1:n:2]
    difference_s = (conductance_s[:, 0:n:2].astype(np.float64) - conductance_s[:, 1:n:2])[both]
    difference_s = difference_s[np.isfinite(difference_s)]
    return {"sigma_difference_s": float(difference_s.std())} if difference_s.size > 1 else {}
