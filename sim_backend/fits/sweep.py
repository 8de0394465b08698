"""Rows of SET and RESET sweeps: pulses on one cell while one line voltage rises step by step, again and again.

Layout of a file: one pulse per line, tab-separated, plain or gzip'd: address, pulse width in ns, voltage of the driven
line in V (bit line of SET, source line of RESET), word-line voltage in V, resistance before and after in ohm. One of
the two voltages rises in the inner loop; a sweep ends where it falls back or the address changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from hil.errors import DataError
from sim_backend.fits.fit import bootstrap, read_table, refuse
from sim_backend.switching import CellSpread, Siemens

Line = Literal["line", "gate"]

#: one pulse: conductance, line voltage, gate voltage, width, cells, generator -> conductance
PulseLaw = Callable[[Siemens, float, float, float, CellSpread, np.random.Generator], Siemens]
_ROUNDS_MAX = 20
#: how far matching goes from its start: in V of the first parameter, in the logarithm of the others (a factor of 7)
_FARTHEST = 2.0


@dataclass(frozen=True, eq=False)
class SweepRows:
    """Pulses of sweeps, in the order measured.

    Attributes:
        swept: which voltage rises in the inner loop: that of the driven line or of the gate.
        cell: number of the cell from 0; one entry per pulse, like the arrays below.
        sweep: number of the sweep from 0.
        voltage_v: the swept voltage.
        initial_s, final_s: conductance before and after the pulse.
        held_v: the voltage that stays the same.
        width_s: pulse width, the same for all.
    """

    swept: Line
    cell: NDArray[np.intp]
    sweep: NDArray[np.intp]
    voltage_v: NDArray[np.float64]
    initial_s: NDArray[np.float64]
    final_s: NDArray[np.float64]
    held_v: float
    width_s: float

    @property
    def first(self) -> NDArray[np.intp]:
        """Index of the first pulse of each sweep."""
        return np.flatnonzero(np.diff(self.sweep, prepend=-1))

    @property
    def ended_early(self) -> NDArray[np.bool_]:
        """Which pulses ended a sweep before its last voltage: the cell was where the measurement wanted it."""
        last = np.diff(self.sweep, append=self.sweep[-1] + 1) > 0
        return last & (self.voltage_v < self.voltage_v.max())

    @property
    def steps_v(self) -> NDArray[np.float64]:
        """Values that the swept voltage takes, ascending."""
        return np.unique(np.round(self.voltage_v, 6))

    def of_sweeps(self, good: NDArray[np.bool_]) -> SweepRows:
        """The pulses of some sweeps; `good` has one entry per sweep."""
        chosen = good[self.sweep]
        return replace(
            self,
            cell=self.cell[chosen],
            sweep=np.unique(self.sweep[chosen], return_inverse=True)[1],
            voltage_v=self.voltage_v[chosen],
            initial_s=self.initial_s[chosen],
            final_s=self.final_s[chosen],
        )

    def lines_v(self, voltage_v: float) -> tuple[float, float]:
        """(driven line, gate) at a value of the swept voltage."""
        return (voltage_v, self.held_v) if self.swept == "line" else (self.held_v, voltage_v)


def load_sweep(path: Path, line: str) -> SweepRows:
    """Read a file of sweeps.

    Args:
        line: name of the driven line's column, such as "v_bl".

    Raises:
        DataError: the file is not of that layout, or not exactly one of the voltages is swept.
    """
    table = read_table(path, ("addr", "pulse_width", line, "v_wl", "r_initial", "r_final"))
    for column in ("r_initial", "r_final"):
        refuse(path, column, "a resistance above 0 ohm", table[column] <= 0, table)
    for column in (line, "v_wl"):
        refuse(path, column, "a voltage of 0 to 10 V", (table[column] < 0) | (table[column] > 10), table)
    refuse(path, "pulse_width", "a width above 0 ns", table["pulse_width"] <= 0, table)
    moving = [name for name in (line, "v_wl") if np.ptp(table[name]) > 0]
    if len(moving) != 1 or np.ptp(table["pulse_width"]) > 0:
        raise DataError(
            f"{path} sweeps {len(moving)} of {line}, v_wl at {len(np.unique(table['pulse_width']))} pulse "
            "widths instead of one voltage at one width",
            fix="give a file of sweeps at one pulse width in which one voltage rises",
        )
    swept = moving[0]
    held = "v_wl" if swept == line else line
    new = (np.diff(table["addr"], prepend=np.nan) != 0) | (np.diff(table[swept], prepend=np.inf) <= 0)
    return SweepRows(
        swept="gate" if swept == "v_wl" else "line",
        cell=np.unique(table["addr"], return_inverse=True)[1],
        sweep=np.cumsum(new) - 1,
        voltage_v=table[swept],
        initial_s=1.0 / table["r_initial"],
        final_s=1.0 / table["r_final"],
        held_v=float(table[held][0]),
        width_s=float(table["pulse_width"][0]) * 1e-9,
    )


@dataclass(frozen=True, eq=False)
class Sweeps:
    """Conductance after each pulse, shape (sweeps, steps); NaN after the pulse that ended the sweep."""

    voltage_v: NDArray[np.float64]
    final_s: NDArray[np.float64]

    def crossing_v(self, crossed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Voltage of the first pulse after which `crossed` holds, for the sweeps in which it does."""
        hit = crossed.any(axis=1)
        return self.voltage_v[crossed[hit].argmax(axis=1)]

    def until(self, ended: NDArray[np.bool_]) -> Sweeps:
        """The same sweeps, each only as far as the first pulse after which `ended` holds."""
        over = np.logical_or.accumulate(ended, axis=1)[:, :-1]
        return replace(self, final_s=np.where(np.pad(over, ((0, 0), (1, 0))), np.nan, self.final_s))

    def common_v(self, share: float) -> float:
        """Highest voltage to which at least this share of the sweeps comes."""
        return float(self.voltage_v[np.isfinite(self.final_s).mean(axis=0) >= share][-1])

    def at_v(self, voltage_v: float) -> NDArray[np.float64]:
        """Conductance after the pulse nearest a voltage, of the sweeps that came so far."""
        column = self.final_s[:, np.abs(self.voltage_v - voltage_v).argmin()]
        return column[np.isfinite(column)]


def table_of(rows: SweepRows, cells: NDArray[np.intp]) -> Sweeps:
    """Measured sweeps of some cells as a table."""
    steps = rows.steps_v
    chosen = np.isin(rows.cell, cells)
    sweep = np.unique(rows.sweep[chosen], return_inverse=True)[1]
    final_s = np.full((sweep.max() + 1, len(steps)), np.nan)
    final_s[sweep, np.searchsorted(steps, np.round(rows.voltage_v[chosen], 6))] = rows.final_s[chosen]
    return Sweeps(steps, final_s)


def simulate_sweeps(
    rows: SweepRows, law: PulseLaw, cells: CellSpread, start_s: NDArray[np.float64], rng: np.random.Generator
) -> Sweeps:
    """Run the measurement's sweep on simulated cells: all steps in turn."""
    steps = rows.steps_v
    final_s, now_s = np.empty((len(start_s), len(steps))), start_s.astype(np.float64)
    for column, voltage_v in enumerate(steps):
        now_s = law(now_s, *rows.lines_v(float(voltage_v)), rows.width_s, cells, rng)
        final_s[:, column] = now_s
    return Sweeps(steps, final_s)


def shares_below(final_s: NDArray[np.float64], levels_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of sweeps at or below each level after each step, shape (levels, steps), as are the levels."""
    return np.array([(final_s <= level_s).mean(axis=0) for level_s in levels_s])


def match(
    simulated: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    measured: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    n_cells: int,
    start: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Parameters with which simulated sweeps show the same statistics as the measured ones, and their standard errors.

    Args:
        simulated: takes parameters, returns statistics of simulated sweeps; draws the same numbers each time.
        measured: takes indices of cells (some may occur twice), returns the same statistics of their sweeps.
        n_cells: how many cells there are.
        start: parameters to start from; the first is a voltage and may have either sign, the others are positive.
    """
    wanted, step = measured(np.arange(n_cells)), 0.01

    def parameters(free: NDArray[np.float64]) -> NDArray[np.float64]:
        free = np.clip(free, -_FARTHEST, _FARTHEST)
        return np.append(start[0] + free[0], start[1:] * np.exp(free[1:]))

    def residuals(free: NDArray[np.float64]) -> NDArray[np.float64]:
        return simulated(parameters(free)) - wanted

    def jacobian(free: NDArray[np.float64]) -> NDArray[np.float64]:
        """Differences over 1 % (10 mV): statistics of a sample are not smooth."""
        here = residuals(free)
        return np.column_stack([(residuals(free + step * axis) - here) / step for axis in np.eye(len(free))])

    found = optimize.least_squares(residuals, np.zeros(len(start)), jacobian, max_nfev=_ROUNDS_MAX)
    inverse = np.linalg.pinv(found.jac)
    return bootstrap(lambda pick: parameters(found.x + inverse @ (measured(pick) - wanted)), n_cells, rng)
