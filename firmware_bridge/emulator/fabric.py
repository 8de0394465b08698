"""The emulated sequencer: register block, program memory, engines and watchdog, in emulated time.

Time passes when the host looks at STATUS while a program runs (`POLL_S` at a time) and by `idle`. Every tick of a board
is accounted for: which engine ran, and for how long no ADC converted.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge import registers as reg
from firmware_bridge.emulator.analogue import NEVER
from firmware_bridge.emulator.board import EmulatedBoard
from firmware_bridge.emulator.pad import PadSource
from firmware_bridge.instructions import (
    HEARTBEAT_KEY,
    INSTRUCTIONS,
    OPCODE_LOW,
    PROGRAM_WORDS_MAX,
    ROW_CHAIN,
    SUM_CLIPPED_BIT,
    SUM_CONVERSIONS_MAX,
    SUM_FRAME_ERROR_BIT,
    SUM_WIDTH,
    TICK_S,
    WORD_LINE_CHAIN,
    Engine,
    SourceLines,
)
from firmware_bridge.register_table import Register
from firmware_bridge.registers import Fault
from hil.errors import ProtocolError, TransportError

#: emulated time that passes between two looks of the host
POLL_S = 5e-3
#: what the result stream can hold
STREAM_WORDS = 64 * 1024
#: fetch and decode of one word, ticks
ISSUE_TICKS = 2
#: RCLK or SRCLR# pulse with its set-up time, ticks
LATCH_TICKS = 6
#: chip select before and after a DAC frame, ticks
FRAME_TICKS = 8
#: half periods of DCLOCK: hold edge (falling edge 5), whole cycle with CS high for two clocks
HOLD_HALVES, CYCLE_HALVES = 10, 48
#: bits of the 24 that are never clocked, because CS rises after 22 clocks; read as pulled up
UNREAD_BITS = 0b11
#: frames that bring a DAC80508 to its reset state in either frame length
RESET_FRAMES = ((0x05000AF6, 32), (0x05000A, 24))
_REGISTER_AT = {offset: register for register in reg.REGISTERS for offset in register.offsets}


class _Stop(Exception):
    """The program cannot go on; carries the fault."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


@dataclass
class _Scan:
    """A scan in progress; `done` conversions have been sampled."""

    first: int
    repeat: int
    n: int
    lanes: int
    emit: bool
    start_ticks: int
    half_ticks: int
    done: int = 0

    def hold_ticks(self, k: int) -> int:
        return self.start_ticks + (k * CYCLE_HALVES + HOLD_HALVES) * self.half_ticks

    @property
    def end_ticks(self) -> int:
        return self.start_ticks + self.n * CYCLE_HALVES * self.half_ticks


class EmulatedFabric:
    """A `RegisterBus` whose other side is emulated.

    Args:
        board: what the pins are wired to.

    Attributes:
        lock: held while the host is at a register and while time passes; whoever else looks at the board takes it.
    """

    def __init__(self, board: EmulatedBoard) -> None:
        self.board = board
        self.lock = threading.RLock()
        handlers = {
            "HALT": self._halt,
            "WATCHDOG": self._watchdog,
            "WAIT": self._wait,
            "WAITFOR": self._waitfor,
            "SETTLE": self._settle,
            "MARK": self._mark,
            "SPI": self._spi,
            "SHIFT": self._shift,
            "LATCH": self._latch,
            "CLEAR": self._clear_chain,
            "DRIVE": self._drive_pins,
            "GATE": self._gate,
            "SELECT": self._select,
            "CONVERT": self._convert,
        }
        self._handlers: dict[int, Callable[[int], None]] = {row.opcode: handlers[row.name] for row in INSTRUCTIONS}
        self._watchdog_trips = 0
        self.now = 0
        self._reset()

    # Register bus

    def read(self, offset: int) -> int:
        with self.lock:
            register = self._register(offset, "r")
            self._apply_faults()
            if register is reg.STATUS and self._busy:
                self._run(self.now + round(POLL_S / TICK_S))
                self._check_power()
            return self._values(register, offset)

    def write(self, offset: int, value: int) -> None:
        with self.lock:
            register = self._register(offset, "w")
            if not 0 <= value < 1 << 32:
                raise ProtocolError(f"register value {value} is not a 32-bit number", fix="give 0 to 0xFFFFFFFF")
            self._apply_faults()
            if register is reg.CONTROL:
                self._control(reg.CONTROL.unpack(value))
            elif register is reg.HEARTBEAT:
                if value == HEARTBEAT_KEY and self._watchdog_ticks:
                    self._deadline = self.now + self._watchdog_ticks
            else:
                self._settings[offset] = value

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        self._check_power()
        first = (offset - reg.PROGRAM.offset) // 4
        if offset % 4 or first < 0 or first + len(words) > len(self._memory):
            raise ProtocolError(
                f"block of {len(words)} words at 0x{offset:X} is not within the program memory",
                fix=f"write at most {PROGRAM_WORDS_MAX} instructions from 0x{reg.PROGRAM.offset:X}",
            )
        self._memory[first : first + len(words)] = words
        flip, self.board.faults.link.flip_program_bit = self.board.faults.link.flip_program_bit, None
        if flip is not None:
            self._memory[first + flip[0]] ^= np.uint32(1 << flip[1])

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        self._check_power()
        if not 0 <= count <= self._stream_words:
            raise ProtocolError(f"{count} words asked of a stream that holds {self._stream_words}", fix="ask for less")
        words = np.concatenate([np.zeros(0, np.uint32), *self._stream])
        self._stream, self._stream_words = [words[count:]], len(words) - count
        words = words[:count].copy()
        flip, self.board.faults.link.flip_result_bit = self.board.faults.link.flip_result_bit, None
        if flip is not None and len(words):
            words[flip[0]] ^= np.uint32(1 << flip[1])
        return words

    # What a test does to the board

    def idle(self, time_s: float) -> None:
        """Let emulated time pass while the host does nothing: at least that long, in whole ticks."""
        with self.lock:
            until = self.now + math.ceil(time_s / TICK_S)
            self._run(until)
            if self.now < until:
                try:
                    self._advance(until)
                except _Stop as stop:
                    self._fail(stop.fault)
                    self.now = until

    # What instruments do to the board

    def connect_source(self, source: PadSource | None) -> None:
        """Put an instrument at a bit line's pad, or take it off; from now on, as after a settling of its own."""
        with self.lock:
            self._catch_up()
            self.board.analogue.change(self.now, dead_s=0.0, settle_s=0.0, source=source)
            self.board.note_bias()

    def supply_dacs(self, vdd_v: float | None) -> None:
        """Feed the DACs from outside; None: from the board's own supply."""
        with self.lock:
            self.board.faults.dac_vdd_v = vdd_v
            self._apply_faults()

    def restore_power(self) -> None:
        """The supply comes back after `EmulatedBoard.power_down`; the fabric starts anew."""
        self.board.power_up(self.now * TICK_S)
        self._reset()

    # Registers

    def _reset(self) -> None:
        self._settings = {register.offset: register.reset for register in reg.REGISTERS if register.access == "rw"}
        self._memory = np.zeros(2 * PROGRAM_WORDS_MAX, np.uint32)
        self._program: list[int] = []
        self._pc = 0
        self._busy = self._halted = self._safe = False
        self._halt_code = 0
        self._frozen_high = 0
        self._source_lines, self._gate_on = SourceLines.GROUND, False
        self._stop_engines()
        self._clear()
        self._make_safe()

    def _clear(self) -> None:
        self._fault, self._fault_pc = Fault.NONE, 0
        self._stream: list[NDArray[np.uint32]] = []
        self._stream_words = 0
        self._stream_crc = 0
        lanes = self.board.profile.adc.count
        self._clips, self._frame_errors = np.zeros(lanes, np.int64), np.zeros(lanes, np.int64)
        self._spent = dict.fromkeys(("CONVERT", "SHIFT", "SPI", "GATE", "EXPOSED"), 0)

    def _register(self, offset: int, access: str) -> Register:
        self._check_power()
        register = _REGISTER_AT.get(offset)
        if register is None:
            raise ProtocolError(
                f"no register at offset {offset:#X}",
                fix="see docs/reference/sequencer-registers.md for those there are",
            )
        if access not in register.access:
            words = {"r": "read", "w": "written"}
            raise ProtocolError(
                f"register {register.name} at offset {offset:#X} cannot be {words[access]}",
                fix=f"its access is {register.access}",
            )
        return register

    def _check_power(self) -> None:
        if not self.board.powered:
            raise TransportError("the board does not answer", fix="check its supply, then open it again")

    def _values(self, register: Register, offset: int) -> int:
        profile, name = self.board.profile, register.name
        if register.access == "rw":
            return self._settings[offset]
        if name in ("CLIPS", "FRAME_ERRORS"):
            counts = self._clips if name == "CLIPS" else self._frame_errors
            lane = (offset - register.offset) // 4
            return min(int(counts[lane]), 0xFFFFFFFF) if lane < len(counts) else 0
        if name.startswith("TIME_") and name[5:] in self._spent:
            return min(self._spent[name[5:]], 0xFFFFFFFF)
        if register is reg.TIME_LOW:
            self._frozen_high = self.now >> 32
        simple = {
            "ID": lambda: register.reset,
            "VERSION": lambda: register.reset,
            "GEOMETRY": lambda: reg.GEOMETRY.pack(
                n_dac=profile.dac.chips,
                n_adc=profile.adc.count,
                n_chain=len(self.board.chains),
                n_position=profile.adc.positions,
            ),
            "MEMORY": lambda: reg.MEMORY.pack(program_words=PROGRAM_WORDS_MAX, stream_kwords=STREAM_WORDS // 1024),
            "STATUS": lambda: reg.STATUS.pack(
                busy=self._busy,
                halted=self._halted,
                fault=self._fault is not Fault.NONE,
                safe=self._safe,
                armed=bool(self._watchdog_ticks),
                outputs=self.board.chains[ROW_CHAIN].outputs_enabled,
            ),
            "FAULT": lambda: reg.FAULT.pack(code=int(self._fault), pc=self._fault_pc),
            "PC": lambda: self._pc,
            "HALT_CODE": lambda: self._halt_code,
            "RESULT_COUNT": lambda: self._stream_words,
            "RESULT_CRC": lambda: self._stream_crc,
            "WATCHDOG_LEFT": lambda: max(0, self._deadline - self.now) & 0xFFFFFFFF if self._watchdog_ticks else 0,
            "WATCHDOG_TRIPS": lambda: self._watchdog_trips,
            "TIME_LOW": lambda: self.now & 0xFFFFFFFF,
            "TIME_HIGH": lambda: self._frozen_high,
        }
        return simple[name]()

    def _control(self, wanted: dict[str, int]) -> None:
        if wanted["safe"] or wanted["abort"]:
            if self._busy:
                self._fail(Fault.ABORTED)
            self._make_safe()
        if wanted["clear"]:
            self._clear()
        if wanted["start"] and not self._busy and self._fault is Fault.NONE:
            self._start()

    def _apply_faults(self) -> None:
        """Hand the faults to the chips, which may move levels at once."""
        if self.board.apply_faults():
            self._levels_changed()

    def _start(self) -> None:
        n = self._settings[reg.PROGRAM_LENGTH.offset]
        code = self._memory[: 2 * n]
        self._pc, self._halted, self._stream_crc = 0, False, 0
        if not 0 < n <= PROGRAM_WORDS_MAX or zlib.crc32(code.tobytes()) != self._settings[reg.PROGRAM_CRC.offset]:
            self._fail(Fault.PROGRAM_CRC)
            return
        self._program = code.view(np.uint64).tolist()
        self._busy = True
        self._idle_since = self.now

    # Execution

    def _run(self, until: int) -> None:
        """Execute until the program ends or the time has come."""
        link, handlers, program = self.board.faults.link, self._handlers, self._program
        try:
            while self._busy and self.now < until:
                if self._stalled_until > self.now:
                    self._advance(min(self._stalled_until, until))
                    continue
                if link.power_fails_at is not None:
                    if link.power_fails_at == 0:
                        link.power_fails_at = None
                        self._busy = False
                        self.board.power_down()
                        return
                    link.power_fails_at -= 1
                word = program[self._pc] if self._pc < len(program) else 0
                handler = handlers.get(word >> OPCODE_LOW)
                if handler is None:
                    raise _Stop(Fault.ILLEGAL)
                self._advance(self.now + ISSUE_TICKS)
                handler(word)
        except _Stop as stop:
            self._fail(stop.fault)

    def _advance(self, ticks: int) -> None:
        """Let time pass; what ends in between, ends."""
        if self._watchdog_ticks and self._deadline <= ticks:
            self.now = self._deadline
            self._watchdog_trips += 1
            raise _Stop(Fault.WATCHDOG)
        if self._spi_pending is not None and self._spi_free <= ticks:
            self.now = self._spi_free
            self._finish_frame()
        self.now = ticks

    def _fail(self, fault: Fault) -> None:
        self._busy = False
        if self._fault is Fault.NONE:
            self._fault, self._fault_pc = fault, self._pc
        self._make_safe()

    def _make_safe(self) -> None:
        """What the fabric does by itself: word lines off, source lines to ground, chains off, DACs reset."""
        self._stop_engines()
        self._drive(outputs=False, source_lines=SourceLines.GROUND, gate_on=False)
        for frame, n_bits in RESET_FRAMES:
            for dac in self.board.dacs:
                dac.frame(frame, n_bits, time_s=self.now * TICK_S)
        self._levels_changed()
        self._safe = True

    def _stop_engines(self) -> None:
        self._watchdog_ticks, self._deadline = 0, NEVER
        self._stalled_until = self._settled_at = self._selected_at = 0
        self._chain_free = self._spi_free = 0
        self._spi_pending: tuple[int, int, int, bool] | None = None
        self._scan: _Scan | None = None
        self._adc_free = self._inputs_free = 0
        self._idle_since = self.now
        self._gate_until = 0
        positions, lanes = self.board.profile.adc.positions, self.board.profile.adc.count
        self._sums = np.zeros((positions, lanes), np.int64)
        self._clipped, self._broken = np.zeros((2, positions, lanes), np.bool_)
        self._conversions = np.zeros(positions, np.int64)

    def _stall(self, until: int) -> bool:
        """Whether the instruction must be issued again later."""
        if self.now < until:
            self._stalled_until = until
            return True
        return False

    def _push(self, words: NDArray[np.uint32]) -> None:
        if self._stream_words + len(words) > STREAM_WORDS:
            raise _Stop(Fault.STREAM_OVERFLOW)
        self._stream.append(words)
        self._stream_words += len(words)
        self._stream_crc = zlib.crc32(words.tobytes(), self._stream_crc)

    def _drive(self, *, outputs: bool, source_lines: SourceLines, gate_on: bool) -> None:
        self._catch_up()
        board = self.board
        for chain in board.chains:
            chain.outputs_enabled = outputs
        self._source_lines = source_lines
        board.analogue.change(
            self.now,
            dead_s=0.0,
            settle_s=board.profile.mux.settle_s,
            source_lines=source_lines,
            gate_on=gate_on,
            position=board.mux_positions(),
            word_lines=board.word_lines(),
        )
        board.note_bias()

    def _levels_changed(self) -> None:
        self._catch_up()
        self.board.analogue.change(
            self.now, dead_s=0.0, settle_s=self.board.profile.dac.settle_s, **self.board.dac_levels()
        )
        self.board.note_bias()

    # Instructions: one method each, named after it

    def _halt(self, word: int) -> None:
        if self._stall(max(self._chain_free, self._spi_free, self._adc_free)):
            return
        self._catch_up()
        self._spent["EXPOSED"] += self.now - self._idle_since
        if not self.board.analogue.inputs.gate_on:
            self._watchdog_ticks = 0
        self._halt_code = word & 0xFFFF
        self._busy, self._halted = False, True

    def _watchdog(self, word: int) -> None:
        self._watchdog_ticks = word & 0xFFFFFFFF
        self._deadline = self.now + self._watchdog_ticks
        self._pc += 1

    def _wait(self, word: int) -> None:
        self._stalled_until = self.now + (word & 0xFFFFFFFF)
        self._pc += 1

    def _waitfor(self, word: int) -> None:
        until = 0
        if word & Engine.CHAIN:
            until = max(until, self._chain_free)
        if word & Engine.SPI:
            until = max(until, self._spi_free)
        if word & Engine.INPUTS_FREE:
            until = max(until, self._inputs_free)
        if word & Engine.ADC:
            until = max(until, self._adc_free)
        if word & Engine.SETTLED:
            until = max(until, self._settled_at)
        self._stalled_until = until
        self._pc += 1

    def _settle(self, word: int) -> None:
        self._settled_at = self.now + (word & 0xFFFFFFFF)
        self._pc += 1

    def _mark(self, word: int) -> None:
        if self._stall(self._adc_free):
            return
        self._catch_up()
        self._push(np.array([word & 0xFFFFFFFF], np.uint32))
        self._pc += 1

    def _spi(self, word: int) -> None:
        capture = bool(word >> 49 & 1)
        if self._stall(max(self._spi_free, self._adc_free if capture else 0)):
            return
        chips = word >> 32 & 0xFFFF
        if chips >> self.board.profile.dac.chips:
            raise _Stop(Fault.NO_SUCH_UNIT)
        n_bits = 32 if word >> 48 & 1 else 24
        clock = reg.SPI_READ_HALF if word >> 50 & 1 else reg.SPI_WRITE_HALF
        ticks = 2 * n_bits * self._settings[clock.offset] + FRAME_TICKS
        self._spi_free = self.now + ticks
        self._spi_pending = (chips, word & 0xFFFFFFFF, n_bits, capture)
        self._spent["SPI"] += ticks
        self._pc += 1

    def _finish_frame(self) -> None:
        assert self._spi_pending is not None
        chips, frame, n_bits, capture = self._spi_pending
        self._spi_pending = None
        before = sum(dac.updates for dac in self.board.dacs)
        reply = self.board.transfer(chips, frame, n_bits, self.now * TICK_S)
        if sum(dac.updates for dac in self.board.dacs) != before:
            self._levels_changed()
        if capture:
            self._catch_up()
            self._push(np.array([reply], np.uint32))

    def _shift(self, word: int) -> None:
        if self._stall(self._chain_free):
            return
        chain, count = word >> 54 & 3, word >> 48 & 63
        if chain >= len(self.board.chains):
            raise _Stop(Fault.NO_SUCH_UNIT)
        self.board.chains[chain].shift(word & 0xFFFFFFFFFFFF, count)
        ticks = 2 * count * self._settings[reg.SHIFT_HALF.offset]
        self._chain_free = self.now + ticks
        self._spent["SHIFT"] += ticks
        self._pc += 1

    def _latch(self, word: int) -> None:
        if self._stall(self._chain_free):
            return
        self._catch_up()
        board = self.board
        for k in self._chains_of(word):
            board.chains[k].latch()
        self._chain_free = self.now + LATCH_TICKS
        board.analogue.change(
            self.now,
            dead_s=board.profile.mux.settle_s / 2,
            settle_s=board.profile.mux.settle_s,
            position=board.mux_positions(),
            word_lines=board.word_lines() if word >> WORD_LINE_CHAIN & 1 else board.analogue.inputs.word_lines,
        )
        board.note_bias()
        self._pc += 1

    def _clear_chain(self, word: int) -> None:
        if self._stall(self._chain_free):
            return
        for k in self._chains_of(word):
            self.board.chains[k].clear()
        self._chain_free = self.now + LATCH_TICKS
        self._pc += 1

    def _chains_of(self, word: int) -> list[int]:
        chains = word & 0xF
        if chains >> len(self.board.chains):
            raise _Stop(Fault.NO_SUCH_UNIT)
        return [k for k in range(len(self.board.chains)) if chains >> k & 1]

    def _drive_pins(self, word: int) -> None:
        outputs, gate_on = bool(word & 1), bool(word >> 3 & 1)
        source_lines = SourceLines(word >> 1 & 3)
        if (outputs or gate_on) and not self._watchdog_ticks:
            raise _Stop(Fault.NO_WATCHDOG)
        if gate_on and source_lines is not SourceLines.TIA:
            raise _Stop(Fault.STATIC_GATE)
        self._safe = False
        self._drive(outputs=outputs, source_lines=source_lines, gate_on=gate_on)
        self._pc += 1

    def _gate(self, word: int) -> None:
        if not self._gate_until:
            if self._stall(max(self._settled_at, self._spi_free, self._adc_free)):
                return
            ticks = word & 0xFFFFFFFF
            if not self._watchdog_ticks:
                raise _Stop(Fault.NO_WATCHDOG)
            if ticks > self._settings[reg.GATE_MAX.offset]:
                raise _Stop(Fault.GATE_TOO_LONG)
            self._gate_until = self.now + ticks
            self._spent["GATE"] += ticks
            self._set_gate(on=True)
            self.board.analogue.pulse(ticks * TICK_S)
        if self._stall(self._gate_until):
            return
        self._gate_until = 0
        self._set_gate(on=False)
        self._pc += 1

    def _set_gate(self, *, on: bool) -> None:
        self.board.analogue.change(self.now, dead_s=0.0, settle_s=0.0, gate_on=on)
        self.board.note_bias()

    def _select(self, word: int) -> None:
        if self._stall(self._inputs_free):
            return
        self._step(word & 0x3FF)
        self._pc += 1

    def _step(self, position: int) -> None:
        if position >= self.board.profile.adc.positions:
            raise _Stop(Fault.NO_SUCH_UNIT)
        self._catch_up()
        if position != self.board.analogue.position:
            self.board.analogue.select(self.now, position)
            self._selected_at = self.now + self._settings[reg.SELECT_SETTLE.offset]

    def _convert(self, word: int) -> None:
        first, count, repeat = word & 0x3FF, word >> 10 & 0x3FF, word >> 20 & 0xFFFF
        if self._stall(max(self._adc_free, self._settled_at)):
            return
        if first + count > self.board.profile.adc.positions:
            raise _Stop(Fault.NO_SUCH_UNIT)
        self._step(first)
        if self._stall(self._selected_at):
            return
        here = slice(first, first + count)
        if word >> 52 & 1:
            self._sums[here], self._clipped[here], self._broken[here], self._conversions[here] = 0, False, False, 0
        self._conversions[here] += repeat
        if self._conversions[first] > SUM_CONVERSIONS_MAX:
            raise _Stop(Fault.SUM_OVERFLOW)
        half = self._settings[reg.ADC_HALF.offset]
        scan = _Scan(first, repeat, count * repeat, word >> 36 & 0xFFFF, bool(word >> 53 & 1), self.now, half)
        self._scan, self._adc_free = scan, scan.end_ticks
        self._inputs_free = scan.hold_ticks(scan.n - 1)
        self._spent["EXPOSED"] += self.now - self._idle_since
        self._spent["CONVERT"] += scan.end_ticks - self.now
        self._idle_since = scan.end_ticks
        self._pc += 1

    def _catch_up(self) -> None:
        """Sample every conversion whose hold edge has passed, with the inputs as they were until now."""
        scan = self._scan
        if scan is None:
            return
        period = CYCLE_HALVES * scan.half_ticks
        passed = min(scan.n, (self.now - scan.hold_ticks(0)) // period + 1)
        if passed > scan.done:
            k = np.arange(scan.done, passed)
            position = scan.first + k // scan.repeat
            holds = scan.hold_ticks(0) + k * period
            board = self.board
            frames = board.adcs.scan(board.analogue.sample(position, holds, board.noise), board.noise)
            self._add_up(position, frames | UNREAD_BITS, scan.repeat)
            scan.done = passed
        if scan.done == scan.n:
            self._scan = None
            last = scan.first + (scan.n - 1) // scan.repeat
            if scan.n > scan.repeat:
                self.board.analogue.select(scan.hold_ticks(scan.n - 1 - scan.repeat), last)
            if scan.emit:
                self._emit(slice(scan.first, last + 1), scan.lanes)

    def _add_up(self, position: NDArray[np.intp], frames: NDArray[np.uint32], repeat: int) -> None:
        """The receivers: bits 17..4 are the code; null bit 18 and dummy bits 3, 2 must be zero."""
        codes = (frames >> 4 & 0x3FFF).astype(np.int64)
        codes -= (codes & 0x2000) << 1
        broken = (frames & 0b1000000000000001100) != 0
        low = self._settings[reg.CLIP_LOW.offset]
        clipped = (codes <= low - ((low & 0x2000) << 1)) | (codes == 0x1FFF)
        if repeat == 1:
            here = slice(int(position[0]), int(position[-1]) + 1)
            self._sums[here] += codes
            self._clipped[here] |= clipped
            self._broken[here] |= broken
        else:
            np.add.at(self._sums, position, codes)
            np.logical_or.at(self._clipped, position, clipped)
            np.logical_or.at(self._broken, position, broken)
        self._clips += clipped.sum(axis=0)
        self._frame_errors += broken.sum(axis=0)

    def _emit(self, here: slice, lanes: int) -> None:
        chosen = [k for k in range(self._sums.shape[1]) if lanes >> k & 1]
        words = (self._sums[here][:, chosen] & ((1 << SUM_WIDTH) - 1)).astype(np.uint32)
        words |= self._clipped[here][:, chosen].astype(np.uint32) << np.uint32(SUM_CLIPPED_BIT)
        words |= self._broken[here][:, chosen].astype(np.uint32) << np.uint32(SUM_FRAME_ERROR_BIT)
        self._push(words.ravel())
