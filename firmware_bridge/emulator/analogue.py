"""Analogue side of the emulated board: what stands at the ADC inputs at a given moment.

Inputs change at once when a chip's output does; the TIA outputs follow after the dead time of a mux (break before make)
and then exponentially. The state before a change is taken as settled. Sampling takes the value at the hold edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.emulator.array import ColumnCurrents, EmulatedArray
from firmware_bridge.emulator.pad import PadPoint, PadSource
from firmware_bridge.instructions import TICK_S, SourceLines
from firmware_bridge.profile import BoardProfile
from sim_backend.tia import ColumnTias

Matrix = NDArray[np.float64]

#: later than any moment; time of a change that the fabric's clock does not see, such as a failed supply
NEVER = 1 << 62
#: time constants within which data sheets state "settled" (to a fraction of a 14-bit step)
SETTLED_TAUS = 10.4
#: after so many time constants the rest is below every step
_FORGOTTEN_TAUS = 25.0
#: word-line voltage above which the select transistors of the 40 nm macro conduct fully; guess
GATE_ON_V = 1.0
#: word-line voltage below which a select transistor lets nothing through for sure
GATE_OFF_V = 0.1


@dataclass(frozen=True)
class Inputs:
    """Everything that the chips put on the array.

    Attributes:
        position: mux positions, -1 for off, shape (muxes,).
        row_v: DAC output of every mux, shape (muxes,).
        source_lines: what the source lines are connected to.
        source_line_v: output of the source-line bias channel.
        word_lines: selected word lines, shape (cols,).
        gate_v: output of the word-line channel.
        gate_on: word lines connected to it.
        source: instrument at a bit line's pad, against the virtual ground's level; None without one.
    """

    position: NDArray[np.intp]
    row_v: Matrix
    source_lines: SourceLines
    source_line_v: float
    word_lines: NDArray[np.bool_]
    gate_v: float
    gate_on: bool
    source: PadSource | None = None


class AnalogueSide:
    """Array, TIAs and the source-line muxes.

    Args:
        profile: wiring and settling times.
        array: cells.
        tias: one amplifier per column.
        inputs: state at power-up.
    """

    def __init__(self, profile: BoardProfile, array: EmulatedArray, tias: ColumnTias, inputs: Inputs) -> None:
        self.profile = profile
        self.array = array
        self.tias = tias
        self._now = _Settled(self, inputs)
        self._before = self._now
        self._changed_ticks = -(1 << 62)
        self._dead_ticks = 0.0
        self._tau_ticks = 1.0
        self.position, self._position_before = 0, 0
        self._stepped_ticks = -(1 << 62)
        self._select_tau_ticks = profile.adc.select_settle_s / SETTLED_TAUS / TICK_S
        mux = np.arange(profile.mux.count)
        self._first_row = mux * profile.mux.width
        lane = np.arange(profile.adc.count)
        #: column of each (position, lane); -1 where the board has none
        self.columns = np.stack([profile.column_of(p, lane) for p in range(profile.adc.positions)])

    @property
    def inputs(self) -> Inputs:
        return self._now.inputs

    def change(self, ticks: int, *, dead_s: float, settle_s: float, **changed: object) -> None:
        """Put new inputs on at a time; `settle_s` is how long the path needs, after `dead_s` of nothing."""
        if ticks < NEVER:
            self.array.go_on(ticks)
        self._before = self._now
        self._now = _Settled(self, replace(self._now.inputs, **changed))  # type: ignore[arg-type]
        self._changed_ticks = ticks
        self._dead_ticks = dead_s / TICK_S
        self._tau_ticks = (settle_s + self.profile.tia.settle_s) / SETTLED_TAUS / TICK_S

    def select(self, ticks: int, position: int) -> None:
        """Step the source-line muxes."""
        self._position_before, self.position, self._stepped_ticks = self.position, position, ticks

    def sample(self, positions: NDArray[np.intp], hold_ticks: NDArray[np.int64], rng: np.random.Generator) -> Matrix:
        """Voltages at the ADC inputs at the hold edges, shape (n, lanes); columns that do not exist are at common.

        All of one call lie between two changes of the inputs.
        """
        cols = self.columns[positions]
        output_v = self._output_v(hold_ticks, cols, rng)
        # Only the first conversion can come too early after a step: the others have had a whole period.
        taus = (hold_ticks[0] - self._stepped_ticks) / self._select_tau_ticks
        if taus < _FORGOTTEN_TAUS:
            old = self._output_v(hold_ticks[:1], self.columns[[self._position_before]], rng)
            output_v[0] += (old[0] - output_v[0]) * math.exp(-taus)
        return np.where(cols < 0, self.profile.tia.v_common_v, output_v)

    def _output_v(self, ticks: NDArray[np.int64], cols: NDArray[np.intp], rng: np.random.Generator) -> Matrix:
        since = ticks - self._changed_ticks
        now = self._now
        output_v = now.output_v[cols]
        if since[0] < self._dead_ticks + _FORGOTTEN_TAUS * self._tau_ticks:
            decay = np.exp(-np.maximum(since - self._dead_ticks, 0.0) / self._tau_ticks)[:, None]
            output_v = output_v + (self._before.output_v[cols] - output_v) * decay
            dead = since < self._dead_ticks
            if dead.any():
                output_v[dead] = self._broken.output_v[cols[dead]]
        if now.noisy:
            output_v = output_v + now.sigma_v[cols] * rng.standard_normal(output_v.shape)
        # The rail comes last: an amplifier that has reached it shows no noise of its input.
        return self.tias.limited_v(output_v)

    @property
    def pad(self) -> PadPoint | None:
        """Where the instrument at a pad is once all has settled; None without one."""
        inputs = self._now.inputs
        return None if inputs.source is None else self.at_pad(inputs.source)

    @property
    def _broken(self) -> _Settled:
        """Between break and make: muxes that change are off."""
        inputs = self._now.inputs
        position = np.where(inputs.position == self._before.inputs.position, inputs.position, -1)
        return _Settled(self, replace(inputs, position=position))

    def connected(self, inputs: Inputs) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(muxes, rows) that are connected to their DAC channel."""
        rows = self._first_row + inputs.position
        muxes = np.flatnonzero((inputs.position >= 0) & (rows < self.profile.rows))
        return muxes, rows[muxes]

    def open_columns(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Columns whose cells conduct."""
        return inputs.word_lines & (inputs.gate_on and inputs.gate_v >= GATE_ON_V)

    def exposed_columns(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Columns whose cells see the bias of their row, if only through a transistor that conducts a little."""
        return inputs.word_lines & (inputs.gate_on and inputs.gate_v >= GATE_OFF_V)

    def source_level_v(self, inputs: Inputs) -> float:
        """Potential of the source lines; floating lines follow what little drives them and count as ground."""
        return {
            SourceLines.TIA: self.profile.tia.v_common_v,
            SourceLines.BIAS: inputs.source_line_v,
        }.get(inputs.source_lines, 0.0)

    def driven_rows(self, inputs: Inputs) -> tuple[NDArray[np.intp], Matrix]:
        """(rows, voltages against board ground) of all rows that a DAC or an instrument drives."""
        muxes, rows = self.connected(inputs)
        row_v = inputs.row_v[muxes]
        if inputs.source is None:
            return rows, row_v
        others = rows != inputs.source.row
        pad_v = self.at_pad(inputs.source, inputs).pad_v + self.profile.tia.v_common_v
        return np.append(rows[others], inputs.source.row), np.append(row_v[others], pad_v)

    def at_pad(self, source: PadSource, inputs: Inputs | None = None) -> PadPoint:
        """Where a source at a pad comes to rest, against the level of the virtual grounds.

        Source lines that float, or rows behind them, hold nothing.
        """
        inputs = inputs or self._now.inputs
        level_v = self.source_level_v(inputs)
        muxes, rows = self.connected(inputs)
        open_cols = self.open_columns(inputs) & (inputs.source_lines is not SourceLines.FLOAT)
        reference_v = self.profile.tia.v_common_v - level_v
        found = self.array.currents_with(source, reference_v, muxes, rows, inputs.row_v[muxes] - level_v, open_cols)
        assert found.pad is not None
        return found.pad

    def bias_v(self) -> Matrix:
        """Voltage across each cell whose transistor may conduct, row minus source line, else 0; shape (rows, cols)."""
        inputs = self._now.inputs
        rows, row_v = self.driven_rows(inputs)
        bias_v = np.zeros(self.array.shape)
        if inputs.source_lines is not SourceLines.FLOAT:
            bias_v[rows] = (row_v - self.source_level_v(inputs))[:, None] * self.exposed_columns(inputs)
        return bias_v

    def peak_bias_v(self) -> float:
        """Largest absolute value of `bias_v`, quickly."""
        inputs = self._now.inputs
        if not self.exposed_columns(inputs).any():
            return 0.0
        _, row_v = self.driven_rows(inputs)
        return float(np.abs(row_v - self.source_level_v(inputs)).max(initial=0.0))

    def pulse(self, width_s: float) -> None:
        """What a gate pulse does to the cells, with the inputs as they are and the word lines on."""
        inputs = replace(self._now.inputs, gate_on=True)
        rows, row_v = self.driven_rows(inputs)
        bias_v = row_v - self.source_level_v(inputs)
        if self.profile.programming.form == "source_line":
            bias_v = -bias_v
        if inputs.source_lines in (SourceLines.BIAS, SourceLines.GROUND):
            self.array.pulse(bias_v, rows, self.exposed_columns(inputs), inputs.gate_v, width_s)


class _Settled:
    """TIA outputs for one set of inputs, as if there were no rails, computed when first asked for."""

    def __init__(self, side: AnalogueSide, inputs: Inputs) -> None:
        self._side = side
        self.inputs = inputs

    @cached_property
    def _currents(self) -> ColumnCurrents:
        side, inputs = self._side, self.inputs
        muxes, rows = side.connected(inputs)
        at_tias = inputs.source_lines is SourceLines.TIA
        if not at_tias:
            muxes, rows = muxes[:0], rows[:0]
        source_v = inputs.row_v[muxes] - side.profile.tia.v_common_v
        open_cols = side.open_columns(inputs)
        if inputs.source is not None and at_tias:
            return side.array.currents_with(inputs.source, 0.0, muxes, rows, source_v, open_cols)
        return side.array.currents(muxes, rows, source_v, open_cols)

    @cached_property
    def output_v(self) -> Matrix:
        found = self._currents
        return self._side.tias.unlimited_v(found.current_a, np.arange(len(found.current_a)), found.conductance_s)

    @cached_property
    def sigma_v(self) -> Matrix:
        tias = self._side.tias
        return self._currents.sigma_a * tias.settings.r_feedback_ohm * (1.0 + tias.gain_error)

    @cached_property
    def noisy(self) -> bool:
        return bool(self._currents.sigma_a.any())
