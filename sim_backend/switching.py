"""SET and RESET of formed cells by one pulse, limited by the select transistor.

SET raises a cell to the conductance that the circuit lets through: proportional to the bit-line voltage over a
threshold or to the gate voltage over its threshold (compliance), whichever is less, with a series resistance; a cell
that conducts more already is left alone. RESET pulls the logarithm of conductance most of the way towards an aim that
falls exponentially with the voltage across the cell, once that voltage has passed the onset of the cell; the gate
limits the voltage (source follower).

Source: both laws were found in measured SET and RESET sweeps and cycling of a 1T1R array ("RADAR", IEEE TED 2021, doi
10.1109/TED.2021.3097975; 4 to 200 kohm, 200 ns pulses in 0.05 V steps); `sim_backend.fits` finds their parameters in
such files. No SET or RESET data of the project's macro are published: the defaults are a guess scaled to 2 to 25 uS.
Valid for pulses of 10 ns to 1 ms between 0 and 4 V on formed cells. Not in the model: RESET pulses of low voltage that
SET a cell of high resistance, the slight fall of resistance before RESET sets in, single outliers of a sweep, memory
of a cell from one cycle to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from sim_backend.settings import SwitchingSettings

Siemens = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class CellSpread:
    """What makes one cell differ from the next, drawn once per chip; arrays of one shape.

    Attributes:
        set_v, reset_v: added to the voltage at which SET and RESET begin.
        set_ratio, set_line_ratio: factors on the gate's and on the bit line's limit of SET.
        reset_ratio: factor on the conductance that RESET aims at.
        set_cycle, reset_cycle: factor on the spread between pulses.
    """

    set_v: NDArray[np.float32]
    set_ratio: NDArray[np.float32]
    reset_v: NDArray[np.float32]
    reset_ratio: NDArray[np.float32]
    set_line_ratio: NDArray[np.float32]
    set_cycle: NDArray[np.float32]
    reset_cycle: NDArray[np.float32]

    def at(self, index: Any) -> CellSpread:
        """The same of chosen cells; `index` is whatever picks from an array."""
        return CellSpread(**{part.name: getattr(self, part.name)[index] for part in fields(self)})


@dataclass(frozen=True)
class Switching:
    """SET and RESET pulses on formed cells; parameters are those of `SwitchingSettings`."""

    settings: SwitchingSettings

    @classmethod
    def from_settings(cls, settings: SwitchingSettings) -> Switching:
        return cls(settings)

    def draw_cells(self, rng: np.random.Generator, shape: tuple[int, ...]) -> CellSpread:
        """Spread between cells: normal, but for RESET's onset, which has the measured one-sided (exponential) shape."""
        s = self.settings
        # Order matters: a new property goes to the end, so that old seeds keep their cells.
        normal = [rng.standard_normal(shape, np.float32) for _ in range(3)]
        late = rng.standard_exponential(shape, np.float32) ** np.float32(s.reset_cell_tail)
        onset = late - np.float32(math.gamma(1.0 + s.reset_cell_tail))  # of mean 0
        set_line_ratio, set_cycle, reset_cycle = (
            np.exp(np.float32(log) * rng.standard_normal(shape, np.float32)) if log else np.ones(shape, np.float32)
            for log in (s.set_line_cell, s.set_cycle_cell, s.reset_cycle_cell)
        )
        return CellSpread(
            set_v=np.float32(s.set_cell_v) * normal[0],
            set_ratio=np.exp(np.float32(s.set_cell) * normal[1]),
            reset_v=np.float32(s.reset_cell_v) * onset,
            reset_ratio=np.exp(np.float32(s.reset_cell) * normal[2]),
            set_line_ratio=set_line_ratio,
            set_cycle=set_cycle,
            reset_cycle=reset_cycle,
        )

    def after_set_s(
        self,
        conductance_s: Siemens,
        voltage_v: float,
        v_gate_v: float,
        width_s: float,
        cells: CellSpread,
        rng: np.random.Generator,
    ) -> Siemens:
        """Conductance of cells after one SET pulse of amplitude `voltage_v`; no cell is lowered."""
        s = self.settings
        if not s.enabled:
            return conductance_s
        over_v = np.maximum((np.abs(voltage_v) + self._gain_v(width_s) - s.set_voltage_v) - cells.set_v, 0.0)
        gate_s = max(0.0, v_gate_v - s.gate_threshold_v) * s.set_gate_s_per_v
        line_s = np.float32(s.set_line_s_per_v) * over_v * cells.set_line_ratio
        limit_s = np.minimum(line_s, np.float32(gate_s) * cells.set_ratio)
        aim_s = limit_s / (1.0 + limit_s * np.float32(s.set_series_ohm))
        spread = np.exp(
            np.float32(s.set_cycle) * cells.set_cycle * rng.standard_normal(conductance_s.shape, np.float32)
        )
        return np.maximum(conductance_s, aim_s * spread)

    def after_reset_s(
        self,
        conductance_s: Siemens,
        voltage_v: float,
        v_gate_v: float,
        width_s: float,
        cells: CellSpread,
        rng: np.random.Generator,
    ) -> Siemens:
        """Conductance of cells after one RESET pulse of amplitude `voltage_v`; the sign of it does not matter."""
        s = self.settings
        if not s.enabled:
            return conductance_s
        shape = conductance_s.shape
        across_v = np.minimum(np.abs(voltage_v), max(0.0, v_gate_v - s.reset_gate_drop_v))
        if across_v == 0.0:
            return conductance_s
        over_v = across_v + self._gain_v(width_s) - s.reset_voltage_v - cells.reset_v
        cycle_v = np.float32(s.reset_cycle_v) * cells.reset_cycle * rng.standard_normal(shape, np.float32)
        effect = expit((over_v + cycle_v) / np.float32(s.reset_onset_v))
        aim_s = np.float32(s.reset_s) * cells.reset_ratio * np.exp(-over_v / np.float32(s.reset_slope_v))
        distance = np.log(np.maximum(aim_s, np.float32(s.reset_floor_s)) / np.maximum(conductance_s, 1e-12))
        effect = np.where(distance > 0.0, np.float32(s.reset_back) * effect, effect)
        noise = np.float32(s.reset_cycle) * cells.reset_cycle * rng.standard_normal(shape, np.float32)
        return conductance_s * np.exp(effect * (np.float32(1.0 - s.reset_keep) * distance + noise))

    def _gain_v(self, width_s: float) -> float:
        """Voltage that a pulse of this width is worth more than one of the reference width."""
        return self.settings.width_slope_v * math.log10(width_s / self.settings.width_ref_s)
