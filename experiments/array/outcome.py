"""What a procedure hands back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array.history import History


@dataclass(frozen=True, eq=False)
class Outcome:
    """Result of a procedure over a mask of cells. Cells that failed are in the masks, never in an exception.

    Attributes:
        mask_ok: cells that are as they should be, shape of the array.
        faults: `hil.fault_map.Fault` bits of each cell, uint8, shape of the array.
        summary: numbers for the table and the report; names carry their unit. One that is not finite is left out:
            JSON has none, and a run must not fail at its end for want of a number.
        results: arrays by name, stored with the run.
    """

    mask_ok: NDArray[np.bool_]
    faults: NDArray[np.uint8]
    summary: dict[str, Any]
    results: dict[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {k: v for k, v in self.summary.items() if not isinstance(v, float) or math.isfinite(v)}
        object.__setattr__(self, "summary", known)


def stored_results(outcome: Outcome, mask: NDArray[np.bool_], history: History) -> dict[str, Any]:
    """What a run file keeps of any procedure, besides what the procedure adds."""
    return {
        "summary": outcome.summary,
        "conductance_s": history.last_conductance_s,
        "pulse_count": history.pulse_count,
        "mask_in": mask,
        "mask_ok": outcome.mask_ok,
        "faults": outcome.faults,
        **outcome.results,
    }
