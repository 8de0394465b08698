"""`BoardBackend`: the primitives of `CrossbarBackend` as sequencer programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from firmware_bridge import registers as reg
from firmware_bridge.bench_programs import Steps, hold, positions, release
from firmware_bridge.bring_up import Finding, check_adcs, check_muxes, measure_idle, start_dacs, start_lines
from firmware_bridge.bus import RegisterBus
from firmware_bridge.conversion import ColumnConstants
from firmware_bridge.electrics import electrics, wiring
from firmware_bridge.instructions import SUM_CONVERSIONS_MAX, TICK_S, Engine, SourceLines, unpack_sums
from firmware_bridge.phases import OFF, Phases, plan
from firmware_bridge.profile import BoardProfile
from firmware_bridge.programs import ROW_LATCH, WORD_LINE_LATCH, Blocks, Words
from firmware_bridge.row_trim import RowTrim
from firmware_bridge.sequencer import NotRun, ProgramFault, Sequencer, ticks_of
from hil.backend import (
    BackendInfo,
    Capabilities,
    Check,
    CrossbarBackend,
    Limits,
    Pulse,
    PulseKind,
    PulseReport,
    RowInput,
    Telemetry,
    check_out,
)
from hil.bench_access import BenchAccess
from hil.calibration_file import Calibration
from hil.errors import READ_FIRST, CapabilityError, DeviceError, HilError, LimitError, TransportError, UncertainError
from hil.session import check_voltage
from hil.spikes import PackedSpikes
from hil.tile import Tile

log = logging.getLogger(__name__)

#: read voltage of the power-up self-test
SELF_TEST_V = 0.2
#: what the fabric of this host's register map calls itself
FIRMWARE = "{major}.{minor}".format(**reg.VERSION.unpack(reg.VERSION.reset))
#: room left in a program for its prologue and epilogue, words, beside the codes of the row channels
_FRAME_WORDS = 250
#: longest time between a step of a row and its conversion
_STEP_SETTLE_MAX_S = 0.1
#: longest program of steps, well below the time that the host waits for one
_STEPS_MAX_S = 20.0
#: so many sums of exactly 0 on one lane are no chance
_STUCK_SUMS = 4

Result = TypeVar("Result")


class BoardBackend(CrossbarBackend, BenchAccess):
    """A board behind a register bus.

    Args:
        bus: way to the sequencer.
        profile: what the board is made of.
        name: kind of backend, as shown to people.
        identity: what tells this board and chip from another.
        calibration: of this board: row channels are trimmed and currents scaled by it, where its values may be used.
            That it fits is up to the caller (`Calibration.check_fits`). What it says of TIA offsets is not applied: a
            board reports the currents that flow.
        tolerate_faults: go on without converters, channels and muxes that fail and serve some lines only. Lines that
            the calibration knows as dead are always tolerated.

    Raises:
        CalibrationError: a value of the calibration that no board of this profile can have.
    """

    def __init__(
        self,
        bus: RegisterBus,
        profile: BoardProfile,
        *,
        name: str = "board",
        identity: Mapping[str, Any] | None = None,
        calibration: Calibration | None = None,
        tolerate_faults: bool = False,
    ) -> None:
        self._profile = profile
        self._calibration = calibration
        self._tolerate_faults = tolerate_faults
        self._name = name
        self._identity = dict(identity or {})
        wired: dict[PulseKind, str | None] = {
            "form": profile.programming.form,
            "set": profile.programming.set,
            "reset": profile.programming.reset,
        }
        self._raised = {kind: line for kind, line in wired.items() if line is not None}
        limits = profile.limits
        self._limits = Limits(
            v_read_max_v=limits.v_read_max_v,
            v_pulse_max_v=limits.v_pulse_max_v,
            v_gate_max_v=limits.v_gate_max_v,
            pulse_width_max_s=limits.pulse_width_max_s,
            pulses_per_cell_max=limits.pulses_per_cell_max,
        )
        self._trim = RowTrim.of(profile, calibration)
        # Refuses a calibration that is not of such a board, before anything is opened.
        ColumnConstants.of(profile, np.zeros(profile.cols), calibration)
        self._blocks = Blocks(profile, self._trim)
        #: words that shift one setting of all muxes, and words around what a program is for
        self._n_row_words = self._blocks.shift_rows(self._blocks.idle_position()).shape[1]
        self._frame_words = _FRAME_WORDS + 2 * profile.mux.count * self._trim.is_active
        self._sequencer = Sequencer(bus, profile, self._limits, self._trim)
        self._is_open = self._is_up = False
        #: a row is held at a level for an instrument
        self._holds = False
        #: what the last power-up found, and what of it needed rows to be driven
        self._checks: list[Check] = []
        self._row_findings: list[Finding] = []
        #: failed parts that the board is used without
        self._left_out: list[Finding] = []

    @property
    def info(self) -> BackendInfo:
        profile, calibration = self._profile, self._calibration
        return BackendInfo(
            name=self._name,
            shape=(profile.rows, profile.cols),
            identity={
                "profile": profile.name,
                "profile_hash": profile.fingerprint,
                "firmware": FIRMWARE,
                **self._identity,
                "electrics": electrics(profile),
                "calibration": None if calibration is None else calibration.summary,
            },
            capabilities=Capabilities(
                pulse_kinds=frozenset(self._raised), analogue_rows=True, bipolar_read=True, bench=True
            ),
            limits=self._limits,
            calibration_id=None if calibration is None else calibration.calibration_id,
            wiring=wiring(profile, ~self._lost("rows"), ~self._lost("cols")),
        )

    @property
    def profile(self) -> BoardProfile:
        """The board profile."""
        return self._profile

    def open(self) -> None:
        """Power-up sequence and self-test.

        Raises:
            DeviceError: chips that failed, all of them named; the array is safe.
        """
        self._sequencer.aborted.clear()
        self._sequencer.connect()
        self._count = {"vmm": 0, "cell_reads": 0, "pulses": 0, "clipped_sums": 0}
        self._told_of_clips = False
        self._is_open = True
        self._row_findings, self._left_out = [], []
        self._bring_up(check_rows=True)
        self._sequencer.clear_counters()

    def close(self) -> None:
        self._is_open = self._is_up = False

    def make_safe(self) -> None:
        self._is_up = self._holds = False
        self._sequencer.make_safe()
        self._sequencer.aborted.clear()

    def abort(self) -> None:
        self._sequencer.aborted.set()

    def wait(self, duration_s: float) -> None:
        if self._holds:
            self._ready()
        # In pieces, since some systems refuse to wait for days.
        until_s = time.monotonic() + duration_s
        while (left_s := until_s - time.monotonic()) > 0:
            if self._sequencer.aborted.wait(min(left_s, 60.0)):
                raise DeviceError("a wait was aborted", fix="call make_safe, then go on")

    def self_test(self) -> list[Check]:
        return list(self._checks)

    def telemetry(self) -> Telemetry:
        """Counts, and where the board's time went."""
        sequencer = self._sequencer
        spent = sequencer.board_time()
        values = {f"{name}_count": float(value) for name, value in self._count.items()}
        values["board_time_s"] = spent.total_s
        values |= {f"board_{name}": value for name, value in asdict(spent).items()}
        for name, register in (("clips", reg.CLIPS), ("frame_errors", reg.FRAME_ERRORS)):
            values |= {f"{name}_lane_{k}_count": float(n) for k, n in enumerate(sequencer.lane_counts(register))}
        values["watchdog_trips_count"] = float(sequencer.watchdog_trips())
        return Telemetry(values)

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        self._ready()
        check_voltage("read voltage", v_read_v, self._limits.v_read_max_v)
        tile.check_fits((self._profile.rows, self._profile.cols))
        self._refuse_lost(tile.rows, tile.cols)
        if out is None:
            out = np.empty((len(x), tile.n_outputs), np.float32)
        check_out(out, x, tile)
        bits = x.unpack() if isinstance(x, PackedSpikes) else np.asarray(x)
        if not ((bits >= 0) & (bits <= 1)).all():
            raise LimitError("row input holds levels outside 0 to 1", fix="give bits, or levels as fractions")
        mux = self._profile.mux
        levels = np.zeros((len(bits), mux.count * mux.width))
        levels[:, tile.rows] = bits
        phases = plan(levels.reshape(len(bits), mux.count, mux.width), mux)
        self._count["vmm"] += len(bits)
        self._guard(lambda: self._vmm(phases, tile, v_read_v, out))
        return out

    def _vmm(self, phases: Phases, tile: Tile, v_read_v: float, out: NDArray[np.float32]) -> None:
        profile, blocks = self._profile, self._blocks
        position, lane = profile.column_position(tile.cols), profile.column_lane(tile.cols)
        needed = np.unique(position)
        scans = _runs(needed)
        lanes = np.unique(lane)
        lane_mask = int(sum(1 << k for k in lanes.tolist()))
        slot = np.searchsorted(needed, position) * len(lanes) + np.searchsorted(lanes, lane)
        open_cols = np.zeros(profile.cols, np.bool_)
        open_cols[tile.cols] = True
        currents = np.zeros((len(out), len(tile.cols)))
        for first, last in self._batches(phases, len(scans), len(needed) * len(lanes)):
            chosen = (phases.vector >= first) & (phases.vector < last)
            vector = phases.vector[chosen]
            changes = vector[1:] != vector[:-1]
            initial, stores = self._row_levels(phases.level[chosen], v_read_v)
            words = np.concatenate(
                [
                    blocks.open_reads(open_cols, (initial,)),
                    blocks.phases(
                        phases.position[chosen],
                        scans,
                        repeat=1,
                        lanes=lane_mask,
                        overwrite=np.concatenate([[True], changes]),
                        emit=np.concatenate([changes, [True]]),
                        stores=stores,
                    ),
                    blocks.close_reads(),
                ]
            )
            spoken = np.flatnonzero(phases.count[first:last]) + first
            found = self._run(words, len(spoken) * len(needed) * len(lanes))
            sums = self._sums(found.reshape(len(spoken), -1)[:, slot], tile.cols)
            currents[spoken] = self._constants.current_a(sums, phases.count[spoken][:, None], tile.cols)
        half = len(tile.cols) // 2
        out[:] = currents[:, :half] - currents[:, half:] if tile.differential else currents

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._ready()
        check_voltage("read voltage", abs(v_read_v), self._limits.v_read_max_v)
        if mask.shape != (self._profile.rows, self._profile.cols):
            raise LimitError(
                f"mask has shape {mask.shape}", fix=f"give {self._profile.rows} x {self._profile.cols}, as the array"
            )
        if n_average < 1:
            raise LimitError(f"n_average = {n_average} is below 1", fix="average at least one conversion")
        rows, cols = np.nonzero(mask)
        self._refuse_lost(rows, cols)
        self._count["cell_reads"] += len(rows) * n_average
        return self._guard(lambda: self._read(rows, cols, v_read_v, n_average))

    def _read(
        self,
        rows: NDArray[np.intp],
        cols: NDArray[np.intp],
        v_read_v: float,
        n_average: int,
        settle_s: float | None = None,
    ) -> NDArray[np.float64]:
        """Column by column, since a word line takes longest to select; one row after the other within.

        Row -1 stands for none.
        """
        order = np.lexsort((rows, cols))
        total = np.zeros(len(rows))
        for size in _pieces(n_average, SUM_CONVERSIONS_MAX - 1):
            for here in self._read_batches(cols[order]):
                chosen = order[here]
                words = self._read_program(rows[chosen], cols[chosen], v_read_v, size, settle_s)
                found = self._run(words, len(chosen))
                sums = self._sums(found, cols[chosen])
                total[chosen] += self._constants.current_a(sums, np.array(size), cols[chosen])
        return total / n_average

    def _read_batches(self, cols: NDArray[np.intp]) -> Iterator[slice]:
        """Cells that fit into one program each."""
        blocks, n_shift = self._blocks, self._n_row_words
        per_cell = n_shift + 12
        per_col = len(blocks.shift_word_lines(np.zeros(self._profile.cols, np.bool_))) + 2
        new_col = np.concatenate([[True], cols[1:] != cols[:-1]])
        return _fill(per_cell + per_col * new_col, self._sequencer.program_words - self._frame_words)

    def _read_program(
        self,
        rows: NDArray[np.intp],
        cols: NDArray[np.intp],
        v_read_v: float,
        repeat: int,
        settle_s: float | None,
    ) -> Words:
        profile, blocks = self._profile, self._blocks
        position = positions(blocks, rows)
        level = np.where(profile.mux.inhibit, np.nan, np.zeros(position.shape))
        driven = np.flatnonzero(rows >= 0)
        level[driven, profile.row_mux(rows[driven])] = 1.0
        initial, stores = self._row_levels(level, v_read_v)
        closed = np.zeros(profile.cols, np.bool_)
        words = [blocks.open_reads(closed, (initial,))]
        for col in np.unique(cols):
            here = np.flatnonzero(cols == col)
            only = closed.copy()
            only[col] = True
            words += [
                blocks.shift_word_lines(only),
                blocks.wait_for(Engine.CHAIN | Engine.INPUTS_FREE),
                blocks.word("LATCH", chains=WORD_LINE_LATCH),
                blocks.phases(
                    position[here],
                    [(int(profile.column_position(col)), 1)],
                    repeat=repeat,
                    lanes=1 << int(profile.column_lane(col)),
                    overwrite=np.ones(len(here), np.bool_),
                    emit=np.ones(len(here), np.bool_),
                    stores=None if stores is None else [stores[k] for k in here],
                    settle_s=settle_s,
                ),
            ]
        return np.concatenate([*words, blocks.close_reads()])

    def sense(
        self,
        cols: NDArray[np.intp],
        *,
        n_average: int = 1,
        row: int | None = None,
        v_read_v: float = 0.0,
        settle_s: float | None = None,
    ) -> NDArray[np.float64]:
        """Convert columns one after the other, each with no word line but its own on.

        With a settling time of one's own, the row steps anew before each of the conversions that are averaged; without
        a row, the settling time counts from the moment that the word line is on.

        Raises:
            LimitError: no such line, or a voltage or time out of its range.
            CapabilityError: no row was named, and this board cannot switch all rows off.
            DeviceError: a line of a part that failed at power-up.
        """
        self._ready()
        profile = self._profile
        check_voltage("read voltage", abs(v_read_v), self._limits.v_read_max_v)
        cols = np.asarray(cols, np.intp)
        profile.column_lane(cols)
        if n_average < 1:
            raise LimitError(f"n_average = {n_average} is below 1", fix="average at least one conversion")
        if settle_s is not None and not 0.0 <= settle_s <= _STEP_SETTLE_MAX_S:
            raise LimitError(
                f"settling time {settle_s:g} s is outside 0 to {_STEP_SETTLE_MAX_S:g} s",
                fix=f"use at most {_STEP_SETTLE_MAX_S:g} s",
            )
        if row is None and not profile.mux.inhibit:
            raise CapabilityError(
                f"board {profile.name} cannot switch its rows off: INH of the muxes is not wired",
                fix="name the row that is driven, or use a board with mux.inhibit",
            )
        if row is not None:
            profile.row_mux(row)
        self._refuse_lost(np.array([] if row is None else [row], np.intp), cols)
        self._count["cell_reads"] += len(cols) * n_average
        if row is None or settle_s is None:
            rows = np.full(len(cols), -1 if row is None else row)
            return self._guard(lambda: self._read(rows, cols, v_read_v, n_average, settle_s))
        steps = Steps(self._blocks, row, v_read_v, settle_s)
        return self._guard(lambda: self._step(cols, steps, n_average))

    def _step(self, cols: NDArray[np.intp], steps: Steps, n_average: int) -> NDArray[np.float64]:
        """Columns that see a row step, as many of the steps in one program as fit."""
        room = self._sequencer.program_words - self._frame_words
        per_col = len(self._blocks.shift_word_lines(np.zeros(self._profile.cols, np.bool_))) + 3
        # Words and time in one: a step costs the larger share of what a program may have of either.
        per_step = max(steps.n_words / (room - per_col), steps.duration_s / _STEPS_MAX_S)
        sizes = _pieces(n_average, int(1.0 / per_step))
        place, size = np.repeat(np.arange(len(cols)), len(sizes)), np.tile(sizes, len(cols))
        total = np.zeros(len(cols))
        for here in _fill(per_col / room + per_step * size, 1.0):
            columns = [steps.column(int(cols[k]), int(n)) for k, n in zip(place[here], size[here], strict=True)]
            found = self._run(np.concatenate([steps.open(), *columns, steps.close()]), len(columns))
            seen = cols[place[here]]
            np.add.at(total, place[here], self._constants.current_a(self._sums(found, seen), size[here], seen))
        return total / n_average

    def hold_row(self, row: int, voltage_v: float) -> None:
        """Put a bit line at a level through its mux, so that an instrument can measure it.

        A row whose channel or mux failed at power-up can be held too: that is how to find out which of them it is.
        """
        self._ready()
        self._profile.row_mux(row)
        check_voltage("held level", voltage_v, self._profile.tia.v_common_v + self._limits.v_read_max_v)
        self._guard(lambda: self._run(hold(self._blocks, row, voltage_v), 0))
        self._holds = True

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        """Apply a pulse to each cell of the mask once.

        Rows that want the same columns are pulsed together, as many as the muxes can connect at a time.

        Raises:
            ProgramFault: stopped by the fabric; the message says how many cells had their pulse for sure.
        """
        self._ready()
        line = self._raised.get(pulse.kind)
        if line is None:
            raise CapabilityError(
                f"board {self._profile.name} has no {pulse.kind!r} pulse; it has: {sorted(self._raised) or 'none'}",
                fix="choose another pulse, or another board profile",
            )
        least_s = self._profile.limits.pulse_width_min_s
        if not pulse.width_s >= least_s:
            raise LimitError(
                f"pulse width {pulse.width_s:g} s is below {least_s:g} s", fix=f"use at least {least_s:g} s"
            )
        self._refuse_lost(*np.nonzero(mask))
        level = self._blocks.range.setting(pulse.voltage_v)
        gate = self._blocks.range.setting(pulse.v_gate_v)
        width_ticks = round(pulse.width_s / TICK_S)
        groups = list(self._pulse_groups(mask))
        self._guard(lambda: self._pulse(groups, line, level.code, gate.code, width_ticks))
        self._count["pulses"] += int(mask.sum())
        achieved = Pulse(pulse.kind, level.achieved_v, gate.achieved_v, width_ticks * TICK_S)
        return PulseReport(n_cells=int(mask.sum()), requested=pulse, achieved=achieved)

    def _pulse_groups(self, mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
        """(mux positions, word lines) of each gate pulse; every cell of the mask is in exactly one."""
        profile = self._profile
        patterns, group = np.unique(mask, axis=0, return_inverse=True)
        for k, word_lines in enumerate(patterns):
            if not word_lines.any():
                continue
            wanted = np.zeros(profile.mux.count * profile.mux.width)
            wanted[np.flatnonzero(group.ravel() == k)] = 1.0
            phases = plan(wanted.reshape(1, profile.mux.count, -1), profile.mux)
            for position, level in zip(phases.position, phases.level, strict=True):
                yield np.where(level == 1.0, position, OFF), word_lines

    def _pulse(
        self,
        groups: list[tuple[NDArray[np.intp], NDArray[np.bool_]]],
        line: str,
        level_code: int,
        gate_code: int,
        width_ticks: int,
    ) -> None:
        blocks = self._blocks
        # The line that is raised, and the level of rows that take part and of those that must see no bias.
        raised = line == "source_line"
        source = SourceLines.BIAS if raised else SourceLines.GROUND
        level_v = blocks.range.voltage_v(level_code)
        taking, apart = (blocks.trim.codes(v) for v in ((0.0, level_v) if raised else (level_v, 0.0)))
        cells = [int((position != OFF).sum()) * int(word_lines.sum()) for position, word_lines in groups]
        per_group = self._n_row_words + 30 + 2 * self._profile.mux.count
        for here in _fill(np.full(len(groups), per_group), self._sequencer.program_words - 2 * self._frame_words):
            numbers = range(len(groups))[here]
            words = [
                blocks.arm(),
                blocks.drive(SourceLines.TIA, gate=False),
                blocks.rows_at(apart),
                blocks.store(blocks.gate_chip, blocks.gate_channel, gate_code),
                blocks.store(blocks.bias_chip, blocks.bias_channel, level_code if raised else 0),
                blocks.wait_for(Engine.SPI),
                blocks.wait(self._profile.dac.settle_s),
                blocks.drive(source, gate=False),
            ]
            for k in numbers:
                words.append(self._one_pulse(*groups[k], taking, apart, width_ticks))
                words.append(blocks.word("MARK", tag=k))
            words.append(self._end_pulses())
            try:
                self._run(np.concatenate(words), len(numbers))
            except ProgramFault as error:
                sure = here.start + len(error.marks)
                raise ProgramFault(
                    error.fault,
                    f"{error.what}; {sum(cells[:sure])} of {sum(cells)} cells had their pulse, "
                    f"{cells[sure] if sure < len(cells) else 0} may have had it in part, the others had none",
                    error.marks,
                ) from error
            except NotRun as error:
                done = sum(cells[: here.start])
                kind = UncertainError if done else TransportError
                raise kind(
                    f"{error.what}; {done} of {sum(cells)} cells had their pulse, the others had none", fix=error.fix
                ) from error
            except (TransportError, DeviceError) as error:
                kind = UncertainError if isinstance(error, TransportError) else DeviceError
                raise kind(
                    f"{error.what}; {sum(cells[: here.start])} of {sum(cells)} cells had their pulse for sure, "
                    f"{sum(cells[here])} may have had it, the others had none",
                    fix=READ_FIRST,
                ) from error

    def _one_pulse(
        self,
        position: NDArray[np.intp],
        word_lines: NDArray[np.bool_],
        taking: NDArray[np.int64],
        apart: NDArray[np.int64],
        width_ticks: int,
    ) -> Words:
        """Select, settle, pulse, deselect; rows that take no part are off, or at the level of the source lines."""
        blocks, mux = self._blocks, self._profile.mux
        on = np.flatnonzero(position != OFF)
        if not mux.inhibit:
            held = int(position[on[0]]) if mux.selects == "common" else 0
            position = np.where(position == OFF, held, position)
        ends = blocks.word("LATCH", chains=ROW_LATCH | WORD_LINE_LATCH)
        return np.concatenate(
            [
                blocks.shift_rows(position[None])[0],
                blocks.shift_word_lines(word_lines),
                blocks.store_rows(on, taking[on]),
                blocks.wait_for(Engine.CHAIN | Engine.SPI),
                ends,
                blocks.load(),
                blocks.wait_for(Engine.SPI),
                blocks.word("SETTLE", ticks=ticks_of(self._profile.dac.settle_s + mux.settle_s)),
                blocks.word("GATE", ticks=width_ticks),
                blocks.rows_at(apart),
                blocks.wait_for(Engine.SPI),
            ]
        )

    def _end_pulses(self) -> Words:
        """Word lines and rows off, bias at zero, then back to idle for reading."""
        blocks, limits = self._blocks, self._profile.limits
        closed = np.zeros(self._profile.cols, np.bool_)
        return np.concatenate(
            [
                blocks.shift_rows(blocks.idle_position())[0],
                blocks.shift_word_lines(closed),
                blocks.wait_for(Engine.CHAIN),
                blocks.word("LATCH", chains=ROW_LATCH | WORD_LINE_LATCH),
                blocks.drive(SourceLines.GROUND, gate=False),
                blocks.store(blocks.bias_chip, blocks.bias_channel, 0),
                blocks.store(blocks.gate_chip, blocks.gate_channel, blocks.range.code(limits.v_gate_read_v)),
                blocks.rows_at(blocks.idle_codes),
                blocks.wait_for(Engine.SPI),
                blocks.wait(self._profile.dac.settle_s),
                blocks.drive(SourceLines.TIA, gate=False),
            ]
        )

    # Levels, batches, sums

    def _row_levels(self, level: NDArray[np.float64], v_read_v: float) -> tuple[Words, list[Words] | None]:
        """DAC frames that set the start level of all rows, and those of each phase (None: nothing changes).

        Only channels whose code changes are written (delta writes).
        """
        blocks = self._blocks
        matters = ~np.isnan(level)
        if (level[matters] == 1.0).all():
            return blocks.rows_at(blocks.trim.codes(self._profile.tia.v_common_v + v_read_v)), None
        codes = blocks.trim.codes(self._profile.tia.v_common_v + np.where(matters, level, 0.0) * v_read_v)
        held = blocks.idle_codes.copy()
        stores: list[Words] = []
        for wanted, counts in zip(codes, matters, strict=True):
            changed = np.flatnonzero(counts & (wanted != held))
            stores.append(blocks.store_rows(changed, wanted[changed]))
            held[changed] = wanted[changed]
        return blocks.rows_at(blocks.idle_codes), stores

    def _batches(self, phases: Phases, n_scans: int, n_results: int) -> Iterator[tuple[int, int]]:
        """Ranges of vectors that fit into program memory and result stream together."""
        static = bool((phases.level[~np.isnan(phases.level)] == 1.0).all())
        frames = 0 if static else self._profile.mux.count + 4
        words = phases.count * (self._n_row_words + 5 + n_scans + frames)
        results = np.full(len(words), n_results)
        room = self._sequencer.program_words - self._frame_words
        # Both limits in one: a vector costs the larger share of either. The DACs' health comes in the stream too.
        stream = self._sequencer.stream_words - self._profile.dac.chips
        cost = np.maximum(words / room, results / stream)
        for here in _fill(cost, 1.0):
            if phases.count[here].any():
                yield here.start, here.stop

    def _run(self, words: Words, n_results: int) -> NDArray[np.uint32]:
        """Run a program, with a look at every DAC at its end."""
        n_chips = self._profile.dac.chips
        whole = np.concatenate([words, self._blocks.health(), self._blocks.halt()])
        found = self._sequencer.run(whole, n_results + n_chips)
        self._blocks.check_health(found[n_results:])
        return found[:n_results]

    def _sums(self, words: NDArray[np.uint32], cols: NDArray[np.intp]) -> NDArray[np.int64]:
        """Sums of a result; wrong frames are an error, clipped conversions are counted and logged."""
        sums, clipped, broken = unpack_sums(words)
        lane = np.broadcast_to(self._profile.column_lane(cols), sums.shape)
        # Codes of exactly 0 only, which is far from idle: the line is stuck, though its frames look good.
        stuck = [k for k in np.unique(lane) if (lane == k).sum() >= _STUCK_SUMS and not sums[lane == k].any()]
        for bad, text in (
            (np.unique(lane[broken]), "frames have wrong null or dummy bits"),
            (stuck, "all codes are 0"),
        ):
            if len(bad):
                raise DeviceError(
                    f"ADS8324 lane {', '.join(map(str, bad))}: {text}",
                    fix="check DOUT, DCLOCK and CS of that converter; nothing of this result was used",
                )
        if n := int(clipped.sum()):
            self._count["clipped_sums"] += n
            lanes = np.unique(lane[clipped]).tolist()
            log.log(
                logging.DEBUG if self._told_of_clips else logging.WARNING,
                "%d of %d sums hold conversions at the end of the range of amplifier or ADC, on lanes %s, and are too "
                "small. Drive fewer rows at a time or less voltage; telemetry counts them as clipped_sums",
                n, clipped.size, lanes,
            )  # fmt: skip
            self._told_of_clips = True
        return sums

    # State

    def _bring_up(self, *, check_rows: bool) -> None:
        sequencer, blocks = self._sequencer, self._blocks
        self._holds = False
        self._checks, self._left_out = [], []
        try:
            self._accept([Finding(check) for check in start_dacs(sequencer, blocks)])
            start_lines(sequencer, blocks)
            idle = measure_idle(sequencer, blocks)
            self._accept(check_adcs(blocks, idle))
            if check_rows:
                v_read_v = min(SELF_TEST_V, self._limits.v_read_max_v)
                self._row_findings = check_muxes(sequencer, blocks, v_read_v, idle, ~self._lost("cols"))
            self._accept(self._row_findings)
        except HilError:
            sequencer.make_safe()
            raise
        self._constants = ColumnConstants.of(self._profile, idle.zero_code, self._calibration)
        self._is_up = True

    def _accept(self, findings: list[Finding]) -> None:
        """Take note of what power-up found; raise unless the board can be used without the parts that failed."""
        failed: list[str] = []
        for finding in findings:
            check = finding.check
            if check.ok is False:
                if self._tolerates(finding):
                    self._left_out.append(finding)
                    check = replace(check, text=f"{check.text}; tolerated: {finding.lines} left out")
                else:
                    failed.append(f"{check.part}: {check.text}")
            self._checks.append(check)
        if failed:
            raise DeviceError(
                f"{len(failed)} part{'s' * (len(failed) > 1)} of the board failed: {'; '.join(failed)}",
                fix="see docs/how-to/find-a-board-fault.md; the array is at zero bias",
            )
        for kind in ("rows", "cols"):
            if self._lost(kind).all():
                raise DeviceError(
                    f"no {'row' if kind == 'rows' else 'column'} of the board works: "
                    + "; ".join(f"{finding.check.part}: {finding.check.text}" for finding in self._left_out),
                    fix="see docs/how-to/find-a-board-fault.md; the array is at zero bias",
                )

    def _tolerates(self, finding: Finding) -> bool:
        if not finding.can_be_left_out or self._tolerate_faults:
            return finding.can_be_left_out
        known = self._calibration
        return known is not None and not (known.row_ok[finding.rows].any() or known.col_ok[finding.cols].any())

    def _lost(self, kind: Literal["rows", "cols"]) -> NDArray[np.bool_]:
        """Lines that the board is used without, shape (rows,) or (cols,)."""
        lost = np.zeros(getattr(self._profile, kind), np.bool_)
        for finding in self._left_out:
            lost[getattr(finding, kind)] = True
        return lost

    def _refuse_lost(self, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> None:
        """Raise `DeviceError` if any of these lines belongs to a part that failed at power-up."""
        for finding in self._left_out:
            hit = replace(
                finding,
                rows=np.intersect1d(finding.rows, rows),
                cols=np.intersect1d(finding.cols, cols),
            )
            if hit.can_be_left_out:
                raise DeviceError(
                    f"{finding.check.part} failed at power-up ({finding.check.text}), and {hit.lines} need it",
                    fix="leave these lines out, by a smaller --region or a fault map (--faults), or repair that part",
                )

    def _ready(self) -> None:
        """Make sure that the board is up, since `make_safe` or an error ends that, and that no row is held."""
        if not self._is_open:
            raise DeviceError("the board is not open", fix="use it inside open_session(...)")
        if not self._is_up:
            self._sequencer.connect()
            self._bring_up(check_rows=False)
        if self._holds:
            self._guard(lambda: self._run(release(self._blocks), 0))
            self._holds = False

    def _guard(self, operation: Callable[[], Result]) -> Result:
        """Run programs; whatever interrupts them, the array is made safe before anyone hears of it."""
        try:
            return operation()
        except LimitError:
            raise  # refused before anything was sent
        except BaseException:
            self._is_up = self._holds = False
            self._sequencer.make_safe_quietly()
            raise


def _runs(positions: NDArray[np.intp]) -> list[tuple[int, int]]:
    """(first, count) of consecutive numbers."""
    starts = np.flatnonzero(np.diff(positions, prepend=positions[0] - 2) != 1)
    counts = np.diff(starts, append=len(positions))
    return [(int(positions[k]), int(n)) for k, n in zip(starts, counts, strict=True)]


def _fill(cost: NDArray[Any], room: float) -> Iterator[slice]:
    """Slices of consecutive items whose cost fits into `room`; an item alone is always one."""
    first, used = 0, 0.0
    for k, item in enumerate(cost.tolist()):
        if k > first and used + item > room:
            yield slice(first, k)
            first, used = k, 0.0
        used += item
    if len(cost):
        yield slice(first, len(cost))


def _pieces(total: int, most: int) -> list[int]:
    """A total as parts of at most `most`."""
    return [most] * (total // most) + [total % most] * (total % most > 0)
