"""Small run files of an array for tests: written as a run on an array writes them, with values that tests choose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array.record import pack_mask, tables
from hil.runfile import Column, RunFile, TableSpec

SHAPE = (6, 10)
COUNTS = TableSpec("counts", [Column("sample", "i8", "1"), Column("label", "S8", "")], "spike counts")


def create_run(
    folder: Path, experiment: str = "array-form", *, specs: list[TableSpec] | None = None, **changed: Any
) -> RunFile:
    """An open run file; of an array unless `specs` are other tables."""
    given: dict[str, Any] = {
        "config": {"verb": "form", "region": "all", "array": {"v_max_v": 4.0}},
        "backend": {"name": "sim", "seed": 3},
        "calibration": None,
        "seed": 3,
        "software": {"crossbar-hil": "0.1.0", "python": "3.11"},
        "tables": tables(SHAPE) if specs is None else specs,
    }
    return RunFile.create(folder, experiment, **{**given, **changed})


def append_pulse(run: RunFile, op: int, mask: NDArray[np.bool_], *, outcome: str | None = "done") -> None:
    """A pulse on the cells of a mask; without an outcome it is uncertain."""
    operation = {"op": op, "verb": "pulse", "purpose": "form", "kind": "form", "n_cells": int(mask.sum()),
                 "voltage_v": 3.4, "v_gate_v": 1.2, "width_s": 1e-6, "n_average": 0}  # fmt: skip
    run.append("operations", **operation)
    rows, cols = pack_mask(mask)
    run.append("masks", op=op, row=rows, cols=cols)
    if outcome is not None:
        _append_outcome(run, op, outcome)


def append_read(run: RunFile, op: int, conductance_s: NDArray[np.float64]) -> None:
    """A read of the cells that have a value."""
    row, col = np.nonzero(np.isfinite(conductance_s))
    operation = {"op": op, "verb": "read", "purpose": "verify", "kind": "", "n_cells": len(row), "voltage_v": 0.2,
                 "v_gate_v": np.nan, "width_s": np.nan, "n_average": 1}  # fmt: skip
    run.append("operations", **operation)
    _append_outcome(run, op, "done")
    values = conductance_s[row, col].astype(np.float32)
    run.append(
        "readings", op=np.full(len(row), op, np.uint32), row=row.astype(np.uint16), col=col.astype(np.uint16),
        current_a=0.2 * values, conductance_s=values,
    )  # fmt: skip


def _append_outcome(run: RunFile, op: int, status: str) -> None:
    run.append("outcomes", op=op, status=status, voltage_v=3.39, v_gate_v=1.2, width_s=1e-6, t_array_s=1e-3 * op,
               duration_s=1e-4, text="")  # fmt: skip


def conductances(seed: int = 0, shift_s: float = 0.0, *, noise_s: float = 0.0) -> NDArray[np.float64]:
    """Conductance of every cell: the same pattern whatever the seed, which draws the noise only."""
    pattern = np.random.default_rng(99).normal(14e-6, 4e-6, SHAPE)
    return pattern + shift_s + noise_s * np.random.default_rng(seed).standard_normal(SHAPE)


def finish_array_run(run: RunFile, read_s: NDArray[np.float64], **results: Any) -> Path:
    """Pulse and read every cell, and end the run with results that agree with that."""
    everywhere = np.ones(SHAPE, np.bool_)
    append_pulse(run, 0, everywhere)
    append_read(run, 1, read_s)
    standard: Mapping[str, Any] = {
        "summary": {"n_cells": 60, "yield": 1.0, "settings": {"text": "x"}},
        "conductance_s": read_s.astype(np.float32),
        "pulse_count": np.ones(SHAPE, np.uint32),
        "mask_in": everywhere,
        "mask_ok": everywhere,
        "faults": np.zeros(SHAPE, np.uint8),
    }
    run.finish(results={**standard, **results})
    return run.path


def array_run(folder: Path, conductance_s: NDArray[np.float64] | None = None, **changed: Any) -> Path:
    """A complete run that formed and read every cell."""
    results = changed.pop("results", {})
    g = conductances() if conductance_s is None else conductance_s
    return finish_array_run(create_run(folder, **changed), g, **results)


def counts_run(folder: Path, experiment: str = "lsm-nmnist", **results: Any) -> Path:
    """A complete run of another kind, with three rows in table `counts`."""
    run = create_run(folder, experiment, specs=[COUNTS])
    run.append("counts", sample=np.arange(3), label=np.array(["a", "b,c", 'd"é']))
    run.finish(results=results)
    return run.path
