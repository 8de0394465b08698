"""Faults of cells and lines: what does not switch, does not conduct, conducts too much or is too noisy.

Each cell is normal, stuck on, stuck off or noisy, independently of the others; each line is normal, open or shorted.
Rates are zero by default: no count of faults of the macro is published. Stuck cells have one fixed conductance; nothing
flows through an open line; a shorted line is described as a bridge at each of its crossings, of which each conducts
`short_s`, enough to drive an amplifier into its rail. A crossing of an open with a shorted line conducts nothing.
A short between two neighbouring lines is not described.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sim_backend.settings import FaultSettings

NORMAL, STUCK_ON, STUCK_OFF, NOISY = range(4)


@dataclass(frozen=True, eq=False)
class CellFaults:
    """Faults of one array.

    Attributes:
        settings: what faulty cells and lines conduct.
        kind: NORMAL, STUCK_ON, STUCK_OFF or NOISY, shape (rows, cols).
        open_rows, shorted_rows: shape (rows,).
        open_cols, shorted_cols: shape (cols,).
    """

    settings: FaultSettings
    kind: NDArray[np.uint8] = field(repr=False)
    open_rows: NDArray[np.bool_] = field(repr=False)
    shorted_rows: NDArray[np.bool_] = field(repr=False)
    open_cols: NDArray[np.bool_] = field(repr=False)
    shorted_cols: NDArray[np.bool_] = field(repr=False)

    @classmethod
    def draw(cls, settings: FaultSettings, shape: tuple[int, int], rng: np.random.Generator) -> CellFaults:
        """Draw the faults of an array; the same draws whatever the rates, so that more faults include the fewer."""
        scale = 1.0 if settings.enabled else 0.0
        rates = np.array([settings.stuck_on, settings.stuck_off, settings.noisy]) * scale
        below = np.cumsum(rates)
        # a cell with a draw below the first rate is stuck on, below the next sum stuck off, below the last noisy
        order = np.array([STUCK_ON, STUCK_OFF, NOISY, NORMAL], np.uint8)
        kind = order[np.searchsorted(below, rng.random(shape), side="right")]
        lines = [rng.random(n) for n in (shape[0], shape[1])]
        open_rows, open_cols = (draw < settings.line_open * scale for draw in lines)
        # taken from the other end, so that a line is not both
        shorted_rows, shorted_cols = (draw >= 1.0 - settings.line_short * scale for draw in lines)
        return cls(settings, kind, open_rows, shorted_rows, open_cols, shorted_cols)

    @cached_property
    def any(self) -> bool:
        """Whether the array has a fault at all."""
        lines = (self.open_rows, self.open_cols, self.shorted_rows, self.shorted_cols)
        return bool(self.kind.any() or any(line.any() for line in lines))

    @cached_property
    def can_switch(self) -> NDArray[np.bool_]:
        """Which cells a pulse reaches and changes, shape (rows, cols)."""
        dead_rows, dead_cols = self.open_rows | self.shorted_rows, self.open_cols | self.shorted_cols
        stuck = (self.kind == STUCK_ON) | (self.kind == STUCK_OFF)
        return ~(stuck | dead_rows[:, None] | dead_cols)

    @cached_property
    def noise_factor(self) -> NDArray[np.float64] | None:
        """What the read noise of each cell is multiplied with; None where every cell has the normal one."""
        noisy = self.kind == NOISY
        return np.where(noisy, self.settings.noisy_factor, 1.0) if noisy.any() else None

    def conductance_s(self, conductance_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the faulty array conducts, from what its cells would conduct without faults, shape (rows, cols)."""
        if not self.any:
            return conductance_s
        stuck_s = np.where(self.kind == STUCK_ON, self.settings.on_s, conductance_s)
        stuck_s = np.where(self.kind == STUCK_OFF, self.settings.off_s, stuck_s)
        shorted_s = np.where(self.shorted_rows[:, None] | self.shorted_cols, self.settings.short_s, stuck_s)
        return np.where(self.open_rows[:, None] | self.open_cols, 0.0, shorted_s)
