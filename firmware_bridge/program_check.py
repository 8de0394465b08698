"""The second safety check, below the session's: a program is walked through before any of it is sent.

The session checks what an experiment asks for; this module checks what the board is about to do. It follows a program
word by word with what the host knows of the board (`BoardState`): contents of the chains, registers of the DACs, pins.
Whenever word lines are on, every connected row, the source lines and the word lines must be at known levels within
the limits. docs/explanation/board-safety.md says why.

One LSB of the DAC is granted on every voltage, since a limit need not be a whole number of codes. Where a calibration
knows the errors of the row channels (`RowTrim`), limits hold for the voltages that the rows get, and not for those that
their codes stand for; how far the two may lie apart is bounded there. Assumed of the board,
unverified: the chains' outputs have resistors that, while they are off, inhibit the muxes (position 0 where INH is not
wired) and switch the word lines off; a BRDCAST write overwrites the stored codes; a powered-down output is at 0 V.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from drivers import dac80508
from drivers.cd4051b import OFF, MuxBank
from drivers.dac80508 import Frame, decode_frame, gain_register_value
from firmware_bridge.assembler import disassemble
from firmware_bridge.instructions import (
    INSTRUCTIONS,
    OPCODE_LOW,
    PROGRAM_WORDS_MAX,
    ROW_CHAIN,
    SUM_CONVERSIONS_MAX,
    TICK_S,
    WORD_LINE_CHAIN,
    Engine,
    Instruction,
    SourceLines,
    unpack,
)
from firmware_bridge.profile import BoardProfile
from firmware_bridge.row_trim import RowTrim
from hil.backend import Limits
from hil.errors import LimitError, ProtocolError

_HALT = next(row.opcode for row in INSTRUCTIONS if row.name == "HALT")
_WAITS_FOR_SPI = int(Engine.SPI)

_SYNC, _CONFIG, _GAIN, _TRIGGER, _BRDCAST, _DAC0 = (
    dac80508.BY_NAME[name].address for name in ("SYNC", "CONFIG", "GAIN", "TRIGGER", "BRDCAST", "DAC0")
)
#: bits that may be written, by address; None where nothing may
_WRITABLE = tuple(row.mask if "W" in row.access else None for row in dac80508.REGISTERS)
_DAC_PWDWN = dac80508.BY_NAME["CONFIG"].field("DAC_PWDWN").mask
_SOFT_RESET_MASK = dac80508.BY_NAME["TRIGGER"].field("SOFT_RESET").mask

Codes = list["int | None"]


def _unknown_codes() -> Codes:
    return [None] * dac80508.CHANNELS


@dataclass
class DacState:
    """What the host knows of one DAC80508; None is unknown.

    Attributes:
        chip: which one.
        variant: decides the reset state.
        outputs: code that each output shows.
        stored: code in each data register, which LDAC moves to the output.
        sync_en, broadcast_en: halves of SYNC, one bit per channel.
        gain, config: registers.
        crc: frames have 32 bits.
        reset_unless_crc: has had the short reset frame, which a chip in CRC mode ignores.
    """

    chip: int
    variant: Literal["Z", "M"]
    outputs: Codes = field(default_factory=_unknown_codes)
    stored: Codes = field(default_factory=_unknown_codes)
    sync_en: int | None = None
    broadcast_en: int | None = None
    gain: int | None = None
    config: int | None = None
    crc: bool | None = None
    reset_unless_crc: bool = False

    def copy(self) -> DacState:
        return replace(self, outputs=self.outputs.copy(), stored=self.stored.copy())

    def reset(self) -> None:
        """Power-up or soft reset."""
        value = {row.name: row.reset_z if self.variant == "Z" else row.reset_m for row in dac80508.REGISTERS}
        self.outputs = [value[f"DAC{channel}"] for channel in range(dac80508.CHANNELS)]
        self.stored = self.outputs.copy()
        self.broadcast_en, self.sync_en = divmod(value["SYNC"], 1 << dac80508.CHANNELS)
        self.gain, self.config = value["GAIN"], value["CONFIG"]
        self.crc, self.reset_unless_crc = False, False

    def levels(self, gain: int, reference_off: int) -> Codes:
        """Codes of the voltages at the outputs; unknown where GAIN or the reference are not as the profile says."""
        if self.gain != gain or self.config is None or self.config & dac80508.REF_PWDWN != reference_off:
            return _unknown_codes()
        off = self.config & _DAC_PWDWN
        return [0 if off >> k & 1 else code for k, code in enumerate(self.outputs)] if off else self.outputs

    def take(self, frame: Frame, long: bool) -> bool:
        """Act on a frame (DS SLASEL1D, update rules); returns whether an output may have moved."""
        if not frame.read and frame.address == _TRIGGER and frame.value & _SOFT_RESET_MASK == dac80508.SOFT_RESET:
            return self._take_reset(long)
        if self.crc is None:
            raise ProtocolError(
                f"whether DAC chip {self.chip} is in CRC mode is unknown",
                fix="send it the soft reset as a 24-bit and as a 32-bit frame first",
            )
        if self.crc != long:
            raise ProtocolError(
                f"frame of {32 if long else 24} bits to DAC chip {self.chip}, which takes {32 if self.crc else 24}",
                fix="set CONFIG.CRC_EN first, or send the other length",
            )
        return not frame.read and self._write(frame.address, frame.value)

    def _take_reset(self, long: bool) -> bool:
        # A chip in CRC mode ignores the short frame. One that is not takes the end of the long one, which is a NOP.
        # So either may be sent at any time, and both of them reset a chip whatever its mode (sibling DAC80504).
        if self.crc == long or (long and self.reset_unless_crc):
            self.reset()
            return True
        if self.crc is None:
            if long:
                self.crc = False
            else:
                self.reset_unless_crc = True
        return True

    def _write(self, address: int, value: int) -> bool:
        writable = _WRITABLE[address]
        if writable is None or value & ~writable:
            name = dac80508.REGISTERS[address].name
            raise ProtocolError(
                f"DAC chip {self.chip}: {name} = 0x{value:04X} sets bits that cannot be written",
                fix="write another register" if writable is None else f"keep within 0x{writable:04X}",
            )
        if address >= _DAC0:
            return self._store(address - _DAC0, value)
        act = self._ACTS.get(address)
        return act is not None and act(self, value)

    def _store(self, channel: int, code: int) -> bool:
        self.stored[channel] = code
        if self.sync_en is not None and self.sync_en >> channel & 1:
            return False
        self.outputs[channel] = None if self.sync_en is None else code
        return True

    def _set_sync(self, value: int) -> bool:
        self.broadcast_en, self.sync_en = divmod(value, 1 << dac80508.CHANNELS)
        # Whether the output of a channel that stops waiting follows its stored code at once is not said.
        return self._move(~self.sync_en, lambda _: None)

    def _set_config(self, value: int) -> bool:
        self.config, self.crc = value, bool(value & dac80508.CRC_EN)
        return True

    def _set_gain(self, value: int) -> bool:
        self.gain = value
        return True

    def _trigger(self, value: int) -> bool:
        if value & _SOFT_RESET_MASK:
            raise ProtocolError(
                f"DAC chip {self.chip}: TRIGGER.SOFT_RESET = {value & _SOFT_RESET_MASK:#06b} does nothing",
                fix=f"write {dac80508.SOFT_RESET:#06b} to reset, 0 otherwise",
            )
        if self.sync_en is None:
            return self._move(~0, lambda _: None)
        return bool(value) and self._move(self.sync_en, self.stored.__getitem__)

    def _broadcast(self, value: int) -> bool:
        following = self.broadcast_en
        for channel in range(dac80508.CHANNELS):
            if following is None or following >> channel & 1:
                self.outputs[channel] = self.stored[channel] = None if following is None else value
        return True

    def _move(self, channels: int, target: Callable[[int], int | None]) -> bool:
        """Bring those of `channels` whose output differs from the stored code to `target` of their number."""
        moved = [k for k in range(dac80508.CHANNELS) if channels >> k & 1 and self.outputs[k] != self.stored[k]]
        for channel in moved:
            self.outputs[channel] = target(channel)
        return bool(moved)

    _ACTS = {  # noqa: RUF012 - a table of methods, not a field
        _SYNC: _set_sync,
        _CONFIG: _set_config,
        _GAIN: _set_gain,
        _TRIGGER: _trigger,
        _BRDCAST: _broadcast,
    }


@dataclass
class BoardState:
    """What the host knows of the board between two programs; None is unknown.

    Attributes:
        shifted, latched: content of the shift and of the storage stages, by chain.
        dacs: the DAC chips.
        outputs, source_lines, gate: pins, as DRIVE sets them.
        armed: the watchdog runs; HALT disarms it unless word lines are on.
    """

    shifted: list[int | None]
    latched: list[int | None]
    dacs: list[DacState]
    outputs: bool = False
    source_lines: SourceLines = SourceLines.GROUND
    gate: bool = False
    armed: bool = False

    @classmethod
    def unknown(cls, profile: BoardProfile) -> BoardState:
        """After power-up: the pins are safe, the chains hold garbage, and the DACs may not have been reset."""
        return cls([None, None], [None, None], [DacState(k, profile.dac.variant) for k in range(profile.dac.chips)])

    def copy(self) -> BoardState:
        return replace(
            self, shifted=self.shifted.copy(), latched=self.latched.copy(), dacs=[dac.copy() for dac in self.dacs]
        )

    def reset_by_fabric(self) -> None:
        """The fabric has made the array safe: pins as after power-up, DACs reset, chains as they were."""
        self.outputs, self.source_lines, self.gate, self.armed = False, SourceLines.GROUND, False, False
        for dac in self.dacs:
            dac.reset()


def check_program(
    words: NDArray[np.uint64], profile: BoardProfile, limits: Limits, state: BoardState, trim: RowTrim | None = None
) -> BoardState:
    """Follow a program through and return what the host knows of the board after it; `state` is left as it is.

    Args:
        words: the program.
        profile: the board that it is for. Its own limits hold too.
        limits: ceilings of the session.
        state: what is known before.
        trim: errors of the row channels; None takes them as without.

    Raises:
        LimitError: a cell or a word line would get more than its limit, or a level that is not known; a pulse or the
            watchdog's time is out of range.
        ProtocolError: the program is malformed, or asks for what this board does not have or must not do.
    """
    if words.ndim != 1 or words.dtype != np.uint64 or not 0 < len(words) <= PROGRAM_WORDS_MAX:
        raise ProtocolError(
            f"program of {words.dtype}{words.shape}, at most {PROGRAM_WORDS_MAX} words fit",
            fix=f"give 1 to {PROGRAM_WORDS_MAX} words of uint64",
        )
    walk = _Walk(profile, limits, state.copy(), trim or RowTrim.of(profile, None))
    calls, index = _calls(words, walk), 0
    try:
        for index, call in enumerate(calls):  # noqa: B007 - the error names it
            if call is not None:
                call[0](*call[1])
    except (LimitError, ProtocolError) as error:
        text = disassemble(words[index : index + 1]).strip()
        raise type(error)(f"word {index}, {text}: {error.what}", fix=error.fix) from None
    return walk.state


def _calls(words: NDArray[np.uint64], walk: _Walk) -> list[tuple[Callable[..., None], list[int]] | None]:
    """The method of `walk` and its arguments for each word, None where nothing depends on the word.

    Decodes all words of a kind at once, by the rules of `unpack`.
    """
    opcodes = words >> np.uint64(OPCODE_LOW)
    calls: list[tuple[Callable[..., None], list[int]] | None] = [None] * len(words)
    wrong = np.ones(len(words), np.bool_)
    for opcode in set(opcodes.tolist()) & _LAYOUTS.keys():
        layout = _LAYOUTS[opcode]
        places = (opcodes == opcode).nonzero()[0]
        mine = words[places, None]
        values = mine >> layout.low & layout.mask
        wrong[places] = ((mine & layout.unused != 0) | (values < layout.least) | (values > layout.most)).any(axis=1)
        method = walk.methods.get(layout.name)
        if method is not None:
            for place, arguments in zip(places.tolist(), values.tolist(), strict=True):
                calls[place] = (method, arguments)
    if wrong.any():
        index = int(wrong.argmax())
        try:
            unpack(int(words[index]))
        except ProtocolError as error:
            raise ProtocolError(f"word {index}: {error.what}", fix=error.fix) from None
    halts = (opcodes == _HALT).nonzero()[0]
    if not len(halts):
        raise ProtocolError(f"program of {len(words)} words has no HALT", fix="end it with HALT")
    if halts[0] != len(words) - 1:
        raise ProtocolError(f"word {halts[0]}, HALT, is followed by words", fix="put HALT at the end only")
    return calls


class _Layout:
    """Where the fields of an instruction are, as arrays."""

    def __init__(self, row: Instruction) -> None:
        self.name = row.name
        self.low, self.mask, self.least, self.most = np.array(
            [(item.low, item.mask, item.least, item.most) for item in row.fields], np.uint64
        ).T
        used = 0xFF << OPCODE_LOW | sum(item.mask << item.low for item in row.fields)
        self.unused = np.uint64(~used & (1 << 64) - 1)


_LAYOUTS = {row.opcode: _Layout(row) for row in INSTRUCTIONS}


@lru_cache(maxsize=1 << 16)
def _decoded(frame: int, crc: bool) -> Frame:
    return decode_frame(frame, crc=crc)


@lru_cache(maxsize=1 << 10)
def _ones(mask: int) -> tuple[int, ...]:
    """Numbers of the bits that are set."""
    return tuple(k for k in range(mask.bit_length()) if mask >> k & 1)


@dataclass(frozen=True)
class _Wiring:
    """Which DAC channels reach the array, one flag each; the flag of a mux is the bit of its INH in the row chain.

    Attributes:
        rows: (flag, chip, channel) of each mux.
        switched: flags of muxes that INH can switch off.
        always: flags of muxes that connect a row at any time.
        gate: flag of the word lines, above all others.
    """

    rows: tuple[tuple[int, int, int], ...]
    switched: int
    always: int
    gate: int


@lru_cache(maxsize=8)
def _wiring(row_chips: tuple[int, ...], bank: MuxBank) -> _Wiring:
    places = list(range(bank.count))
    if bank.inhibit:
        # With one mux off and the others at position 0, the only bit that is set is that INH.
        one_off = np.where(np.eye(bank.count, dtype=np.bool_), OFF, 0)
        places = bank.encode(one_off).argmax(axis=-1).tolist()
    channels = [(row_chips[m // dac80508.CHANNELS], m % dac80508.CHANNELS) for m in range(bank.count)]
    rows = tuple((1 << place, chip, channel) for place, (chip, channel) in zip(places, channels, strict=True))
    flags = sum(flag for flag, _, _ in rows)
    switched, always = (flags, 0) if bank.inhibit else (0, flags)
    return _Wiring(rows, switched, always, gate=1 << flags.bit_length())


class _Walk:
    """One program being followed. Each of `methods` is an instruction; its arguments are the fields, in order."""

    def __init__(self, profile: BoardProfile, limits: Limits, state: BoardState, trim: RowTrim) -> None:
        board, dac = profile.limits, profile.dac
        self.profile = profile
        self.state = state
        self._trim = trim
        self.methods: dict[str, Callable[..., None]] = {
            "HALT": self._halt,
            "WATCHDOG": self._watchdog,
            "WAITFOR": self._wait_for,
            "SPI": self._spi,
            "SHIFT": self._shift,
            "LATCH": self._latch,
            "CLEAR": self._clear,
            "DRIVE": self._drive,
            "GATE": self._gate,
            "SELECT": self._select,
            "CONVERT": self._convert,
        }
        self._wiring = _wiring(dac.row_chips, profile.mux.bank)
        self._lsb_v = dac.output_range.lsb_v
        self._gain = gain_register_value(dac.divide, dac.gain)
        self._reference_off = dac80508.REF_PWDWN if dac.reference == "external" else 0
        self._chain_bits = (8 * profile.chains.rows.chips, 8 * profile.chains.word_lines.chips)
        self._n_dacs, self._n_positions = dac.chips, profile.adc.positions

        self._v_read_max_v = min(limits.v_read_max_v, board.v_read_max_v)
        self._v_pulse_max_v = min(limits.v_pulse_max_v, board.v_pulse_max_v)
        self._v_gate_max_v = min(limits.v_gate_max_v, board.v_gate_max_v)
        self._pulse_width_max_s = min(limits.pulse_width_max_s, board.pulse_width_max_s)
        self._common_v = profile.tia.v_common_v
        self._gate_code_max = math.floor(self._v_gate_max_v / self._lsb_v) + 1

        self._armed_here = False
        #: bits that have entered a chain of unknown content: (content, count)
        self._entered = [(0, 0)] * len(self._chain_bits)
        #: conversions in the sum of each source-line mux position, None: not started by this program
        self._conversions: list[int | None] = [None] * self._n_positions
        #: the last frame moves outputs and may still be on the bus
        self._in_flight = False
        #: channels that read limits would refuse at the levels before that frame
        self._wrong_before = 0
        self._wrong_at: dict[tuple[float, float], int] = {}
        self._lines_changed()

    # Timing and conversions

    def _halt(self, code: int) -> None:
        self.state.armed &= self.state.gate

    def _watchdog(self, ticks: int) -> None:
        longest_s = self.profile.limits.watchdog_s
        if ticks > _whole_ticks(longest_s):
            raise LimitError(
                f"watchdog of {ticks * TICK_S:g} s is above {longest_s:g} s", fix=f"give at most {longest_s:g} s"
            )
        self._armed_here = self.state.armed = True

    def _wait_for(self, engines: int) -> None:
        if engines & _WAITS_FOR_SPI:
            self._in_flight, self._wrong_before = False, 0

    def _select(self, position: int) -> None:
        self._check_exists("source-line mux position", position, self._n_positions)

    def _convert(self, first: int, count: int, repeat: int, lanes: int, overwrite: int, emit: int) -> None:
        self._check_exists("source-line mux position", first + count - 1, self._n_positions)
        self._check_exists("ADC lane", lanes.bit_length() - 1, self.profile.adc.count)
        here = slice(first, first + count)
        sums = [repeat] * count if overwrite else [self._added(n, repeat) for n in self._conversions[here]]
        if max(sums) > SUM_CONVERSIONS_MAX:
            raise ProtocolError(
                f"sum of {max(sums)} conversions; it holds {SUM_CONVERSIONS_MAX}",
                fix="emit the sum and start a new one with overwrite=1",
            )
        self._conversions[here] = sums

    @staticmethod
    def _added(conversions: int | None, repeat: int) -> int:
        if conversions is None:
            raise ProtocolError(
                "adds to a sum that this program has not started, so that its size is unknown",
                fix="start the sum with overwrite=1",
            )
        return conversions + repeat

    @staticmethod
    def _check_exists(what: str, number: int, count: int) -> None:
        if number >= count:
            raise ProtocolError(f"{what} {number} does not exist: this board has {count}", fix="check the profile")

    # Chains

    def _shift(self, data: int, count: int, chain: int) -> None:
        self._check_exists("chain", chain, len(self._chain_bits))
        if data >> count:
            raise ProtocolError(f"data 0x{data:X} has bits above its {count}", fix="clear the bits above count")
        shifted, n_bits = self.state.shifted, self._chain_bits[chain]
        content = shifted[chain]
        if content is not None:
            shifted[chain] = (content << count | data) & (1 << n_bits) - 1
            return
        content, entered = self._entered[chain]
        self._entered[chain] = content << count | data, entered + count
        if entered + count >= n_bits:
            shifted[chain] = (content << count | data) & (1 << n_bits) - 1

    def _latch(self, chains: int) -> None:
        state = self.state
        for chain in self._chains_of(chains):
            state.latched[chain] = state.shifted[chain]
        if state.outputs:
            self._check_latched()
        self._lines_changed()
        self._check_reads()

    def _clear(self, chains: int) -> None:
        for chain in self._chains_of(chains):
            self.state.shifted[chain] = 0

    def _chains_of(self, chains: int) -> tuple[int, ...]:
        self._check_exists("chain", chains.bit_length() - 1, len(self._chain_bits))
        return _ones(chains)

    def _check_latched(self) -> None:
        if None in self.state.latched:
            raise ProtocolError(
                f"outputs are on while what chain {self.state.latched.index(None)} holds is unknown, "
                "as it is after power-up",
                fix="CLEAR and LATCH all chains before DRIVE outputs=1",
            )

    # DAC bus

    def _spi(self, frame: int, chips: int, long: int, capture: int, slow: int) -> None:
        self._check_exists("DAC chip", chips.bit_length() - 1, self._n_dacs)
        decoded = _decoded(frame, bool(long))
        if decoded.address == _GAIN and not decoded.read and decoded.value != self._gain:
            raise ProtocolError(
                f"GAIN = 0x{decoded.value:04X}, the board profile needs 0x{self._gain:04X}: limits would not hold",
                fix="set dac.divide and dac.gain of the profile instead",
            )
        before = self._wrong(self._common_v, self._v_read_max_v)
        moved = False
        for chip in _ones(chips):
            moved |= self.state.dacs[chip].take(decoded, bool(long))
        # A frame waits for the one before, whose outputs have moved by now.
        self._in_flight, self._wrong_before = moved, before if moved else 0
        if moved:
            self._wrong_at.clear()
            self._check_reads()

    # Pins

    def _drive(self, outputs: int, source_lines: int, gate: int) -> None:
        if outputs or gate:
            self._check_armed()
        if gate and source_lines != SourceLines.TIA:
            raise ProtocolError(
                f"static word lines while the source lines are at {SourceLines(source_lines).name}",
                fix="give gate=1 with source_lines=TIA only; program cells with GATE",
            )
        state = self.state
        state.outputs, state.source_lines, state.gate = bool(outputs), SourceLines(source_lines), bool(gate)
        if outputs:
            self._check_latched()
        self._lines_changed()
        self._check_reads()

    def _gate(self, ticks: int) -> None:
        self._check_armed()
        state, shortest_s, longest_s = self.state, self.profile.limits.pulse_width_min_s, self._pulse_width_max_s
        if not -_whole_ticks(-shortest_s) <= ticks <= _whole_ticks(longest_s):
            raise LimitError(
                f"pulse width {ticks * TICK_S:g} s is outside {shortest_s:g} to {longest_s:g} s",
                fix="use a width within, or several pulses",
            )
        if state.gate:
            raise ProtocolError("pulse on word lines that are on already", fix="DRIVE gate=0 before it")
        if self._in_flight:
            raise ProtocolError("pulse while a frame may still move DAC outputs", fix="WAITFOR engines=2 before it")
        if not (state.outputs and state.latched[WORD_LINE_CHAIN]):
            return
        source_v = self._source_level_v()
        self._check(source_v, self._v_pulse_max_v)

    def _check_armed(self) -> None:
        if not self._armed_here:
            raise ProtocolError(
                "bias without a watchdog: if the host fails, nobody takes it away",
                fix="put WATCHDOG before it in the same program",
            )

    # Levels

    def _all_levels(self) -> list[Codes]:
        return [dac.levels(self._gain, self._reference_off) for dac in self.state.dacs]

    def _wrong(self, centre_v: float, limit_v: float) -> int:
        """Flags of the rows not known to be within a limit of a voltage, and of the word lines if above their limit."""
        wrong = self._wrong_at.get((centre_v, limit_v))
        if wrong is not None:
            return wrong
        levels = self._all_levels()
        wrong = 0
        windows = _windows(self._trim, centre_v, limit_v)
        for (flag, chip, channel), (low, high) in zip(self._wiring.rows, windows, strict=True):
            code = levels[chip][channel]
            if code is None or not low <= code <= high:
                wrong |= flag
        chip, channel = self.profile.dac.gate_channel
        code = levels[chip][channel]
        if code is None or code > self._gate_code_max:
            wrong |= self._wiring.gate
        self._wrong_at[centre_v, limit_v] = wrong
        return wrong

    def _row_level_v(self, mux: int, code: int) -> float:
        """What the channel of a mux gives."""
        return float(self._trim.level_v(code * self._lsb_v)[mux])

    def _source_level_v(self) -> float:
        """Potential of the source lines. A floating one is nowhere below the lowest row that is connected."""
        match self.state.source_lines:
            case SourceLines.GROUND:
                return 0.0
            case SourceLines.TIA:
                return self.profile.tia.v_common_v
            case SourceLines.BIAS:
                chip, channel = self.profile.dac.source_line_channel
                code = self._all_levels()[chip][channel]
                if code is None:
                    raise _unknown_level("source lines", chip, channel)
                return code * self._lsb_v
            case SourceLines.FLOAT:
                levels = self._all_levels()
                codes = [
                    (mux, levels[chip][channel])
                    for mux, (flag, chip, channel) in enumerate(self._wiring.rows)
                    if flag & self._reach
                ]
                return min((self._row_level_v(mux, code) for mux, code in codes if code is not None), default=0.0)

    def _lines_changed(self) -> None:
        """Work out anew which channels reach cells, and whether static word lines are on."""
        state, wiring = self.state, self._wiring
        rows = state.latched[ROW_CHAIN] or 0
        self._reach = wiring.always | wiring.gate | (wiring.switched & ~rows)
        self._reading = bool(state.outputs and state.gate and state.latched[WORD_LINE_CHAIN])

    def _check_reads(self) -> None:
        if self._reading:
            self._check(self._common_v, self._v_read_max_v)
            if self._wrong_before & self._reach:
                raise ProtocolError(
                    "word lines are on while a frame may still move DAC outputs from levels outside the limits",
                    fix="WAITFOR engines=2 before it",
                )

    def _check(self, source_v: float, limit_v: float) -> None:
        """Raise `LimitError` if any channel that reaches cells is not within a limit of the source lines."""
        wrong = self._wrong(source_v, limit_v) & self._reach
        if not wrong:
            return
        mux = None
        if wrong & self._wiring.gate:
            (chip, channel), name = self.profile.dac.gate_channel, "word lines"
            source_v, limit_v, against = 0.0, self._v_gate_max_v, "ground"
        else:
            mux = next(m for m, (flag, _, _) in enumerate(self._wiring.rows) if flag & wrong)
            _, chip, channel = self._wiring.rows[mux]
            name = f"row {self._row_at(mux)}"
            against = f"the source lines ({self.state.source_lines.name}, {source_v:.4g} V)"
        code = self._all_levels()[chip][channel]
        if code is None:
            raise _unknown_level(name, chip, channel)
        level_v = code * self._lsb_v if mux is None else self._row_level_v(mux, code)
        raise LimitError(
            f"{name} (DAC chip {chip} channel {channel}, {level_v:.4g} V) is at {level_v - source_v:+.4g} V against "
            f"{against} while word lines are on, limit {limit_v:g} V",
            fix="bring the level within, or disconnect it before word lines are on",
        )

    def _row_at(self, mux: int) -> int:
        bank = self.profile.mux.bank
        bits = self.profile.chains.rows.shift_chain.bits(self.state.latched[ROW_CHAIN] or 0)
        return bank.width * mux + int(bank.decode(bits[: bank.n_bits])[mux])


@lru_cache(maxsize=64)
def _windows(trim: RowTrim, centre_v: float, limit_v: float) -> tuple[tuple[int, int], ...]:
    """Lowest and highest code of each row channel within a limit of a voltage, with one LSB granted at either end."""
    low, high = (trim.ideal_v(edge_v) / trim.range.lsb_v for edge_v in (centre_v - limit_v, centre_v + limit_v))
    return tuple(zip((np.ceil(low).astype(int) - 1).tolist(), (np.floor(high).astype(int) + 1).tolist(), strict=True))


def _unknown_level(name: str, chip: int, channel: int) -> LimitError:
    return LimitError(
        f"{name}: what DAC chip {chip} channel {channel} gives is unknown",
        fix="reset and configure the chip, then write the channel, before word lines are on",
    )


def _whole_ticks(time_s: float) -> int:
    """Ticks that fit into a time."""
    return math.floor(time_s / TICK_S + 1e-6)
