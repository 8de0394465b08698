"""Host side of the sequencer: checks a program, sends it, keeps the watchdog fed and brings the results."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from firmware_bridge import registers as reg
from firmware_bridge.bus import RegisterBus
from firmware_bridge.electrics import half_period_ticks
from firmware_bridge.instructions import HEARTBEAT_KEY, TICK_S, pack
from firmware_bridge.profile import BoardProfile
from firmware_bridge.program_check import BoardState, check_program
from firmware_bridge.register_table import Register
from firmware_bridge.registers import FAULT_TEXT, Fault
from firmware_bridge.row_trim import RowTrim
from hil.backend import Limits
from hil.errors import DeviceError, HilError, ProtocolError, TransportError

log = logging.getLogger(__name__)

#: longest time that the host waits for a program beyond what the watchdog allows
_PATIENCE_S = 60.0
#: an output this near to its lowest is no measurement any more
_SWING_MARGIN_V = 5e-3


@dataclass(frozen=True)
class BoardTime:
    """Where the board's time went since the counters were cleared.

    Attributes:
        convert_s, shift_s, spi_s, gate_s: time each engine ran; engines overlap.
        exposed_s: time within programs in which no ADC converted.
    """

    convert_s: float
    shift_s: float
    spi_s: float
    gate_s: float
    exposed_s: float

    @property
    def total_s(self) -> float:
        """Time within programs."""
        return self.convert_s + self.exposed_s


class ProgramFault(DeviceError):
    """A program ended by a fault of the fabric; the array is safe.

    Attributes:
        fault: which one.
        marks: tags that the program had put into the result stream before.
    """

    def __init__(self, fault: Fault, what: str, marks: list[int]) -> None:
        super().__init__(what, fix="see docs/how-to/find-a-board-fault.md; the array is at zero bias")
        self.fault = fault
        self.marks = marks


class NotRun(TransportError):
    """A program did not arrive as it was sent, so that the fabric refused it: none of it was run."""


class Sequencer:
    """Runs programs on a fabric.

    Args:
        bus: way to the registers.
        profile: the board that should be there.
        limits: ceilings of the second check, below the session's.
        trim: errors of the row channels, so that the check sees true voltages; None takes them as without.
    """

    def __init__(self, bus: RegisterBus, profile: BoardProfile, limits: Limits, trim: RowTrim | None = None) -> None:
        self._bus = bus
        self._profile = profile
        self._limits = limits
        self._trim = trim
        #: longest program and longest result; known once connected
        self.program_words = self.stream_words = 0
        #: set by another thread: no program goes on, and none is started
        self.aborted = threading.Event()
        #: what the host knows of the board
        self.state = BoardState.unknown(profile)

    def connect(self) -> None:
        """Check who answers, make the array safe and set clocks and limits.

        Raises:
            TransportError: nobody answers.
            ProtocolError: something else than this sequencer answers, of another version or geometry.
        """
        found = self._bus.read(reg.ID.offset)
        if found != reg.ID.reset:
            raise ProtocolError(
                f"register ID reads {found:#010x}, a sequencer has {reg.ID.reset:#010x}",
                fix="load the sequencer's bitstream, and check the base address",
            )
        version = reg.VERSION.unpack(self._bus.read(reg.VERSION.offset))
        wanted = reg.VERSION.unpack(reg.VERSION.reset)
        if version["major"] != wanted["major"]:
            raise ProtocolError(
                f"the fabric speaks version {version['major']}.{version['minor']}, this host {wanted['major']}.x",
                fix="install matching versions of host and bitstream",
            )
        geometry = reg.GEOMETRY.unpack(self._bus.read(reg.GEOMETRY.offset))
        profile = self._profile
        expected = {
            "n_dac": profile.dac.chips,
            "n_adc": profile.adc.count,
            "n_chain": 2,
            "n_position": profile.adc.positions,
        }
        for name, value in expected.items():
            if geometry[name] != value:
                raise ProtocolError(
                    f"the fabric was built for {name} = {geometry[name]}, board profile {profile.name} says {value}",
                    fix="choose the profile of this board, or its bitstream",
                )
        self.make_safe()
        self._bus.write(reg.CONTROL.offset, reg.CONTROL.pack(clear=1))
        memory = reg.MEMORY.unpack(self._bus.read(reg.MEMORY.offset))
        self.program_words, self.stream_words = memory["program_words"], 1024 * memory["stream_kwords"]
        for register, ticks in self._settings().items():
            self._bus.write(register.offset, ticks)
            back = self._bus.read(register.offset)
            if back != ticks:
                raise TransportError(
                    f"register {register.name} was written {ticks} and reads {back}", fix="check the link to the board"
                )

    def make_safe(self) -> None:
        """Let the fabric make the array safe at once; the DACs are in their reset state afterwards.

        Raises:
            TransportError: the board does not answer.
            DeviceError: the fabric does not report a safe array.
        """
        self.state = BoardState.unknown(self._profile)
        self._bus.write(reg.CONTROL.offset, reg.CONTROL.pack(safe=1))
        if not reg.STATUS.unpack(self._bus.read(reg.STATUS.offset))["safe"]:
            raise DeviceError(
                "the fabric does not report a safe array after CONTROL.SAFE", fix="switch the board's supply off"
            )
        self.state.reset_by_fabric()

    def make_safe_quietly(self) -> None:
        """The same on the way out of an error, which is the one to report."""
        try:
            self.make_safe()
        except HilError as error:
            log.error("making the array safe failed too: %s", error)

    def run(self, words: NDArray[np.uint64], n_results: int) -> NDArray[np.uint32]:
        """Check a program, run it to its end and return its results.

        Raises:
            LimitError, ProtocolError: the program may not run; nothing was sent.
            ProgramFault: the fabric stopped it; the array is safe.
            TransportError: the link failed; the fabric's watchdog makes the array safe.
        """
        if self.aborted.is_set():
            raise DeviceError("the board was aborted; nothing was applied", fix="call make_safe, then go on")
        after = check_program(words, self._profile, self._limits, self.state, self._trim)
        bus = self._bus
        code = np.ascontiguousarray(words, np.uint64).view(np.uint32)
        bus.write_block(reg.PROGRAM.offset, code)
        bus.write(reg.PROGRAM_LENGTH.offset, len(words))
        bus.write(reg.PROGRAM_CRC.offset, zlib.crc32(code.tobytes()))
        # From here on the board may be anywhere in between.
        self.state = BoardState.unknown(self._profile)
        bus.write(reg.CONTROL.offset, reg.CONTROL.pack(start=1))
        give_up = time.monotonic() + _PATIENCE_S + self._profile.limits.watchdog_s
        while (status := reg.STATUS.unpack(bus.read(reg.STATUS.offset)))["busy"]:
            if self.aborted.is_set():
                bus.write(reg.CONTROL.offset, reg.CONTROL.pack(abort=1))
            else:
                bus.write(reg.HEARTBEAT.offset, HEARTBEAT_KEY)
            if time.monotonic() > give_up:
                self.make_safe()
                raise TransportError(f"a program did not end within {_PATIENCE_S:g} s", fix="check the board's clock")
        if status["fault"] or not status["halted"]:
            self._raise_fault()
        count = bus.read(reg.RESULT_COUNT.offset)
        results = bus.read_stream(count)
        if zlib.crc32(results.tobytes()) != bus.read(reg.RESULT_CRC.offset):
            raise TransportError(
                f"{count} result words came with a wrong CRC: the link to the board changes bits",
                fix="check cable and clock of the link; nothing of this result was used",
            )
        if count != n_results:
            raise ProtocolError(f"a program gave {count} result words instead of {n_results}", fix="report this")
        self.state = after
        return results

    def board_time(self) -> BoardTime:
        """Time since `clear_counters`, by engine."""
        names = [field.name for field in fields(BoardTime)]
        return BoardTime(*(self._bus.read(getattr(reg, f"TIME_{name[:-2].upper()}").offset) * TICK_S for name in names))

    def lane_counts(self, register: Register) -> list[int]:
        """CLIPS or FRAME_ERRORS of every ADC."""
        return [self._bus.read(register.at(lane)) for lane in range(self._profile.adc.count)]

    def watchdog_trips(self) -> int:
        """Since the board's power-up."""
        return self._bus.read(reg.WATCHDOG_TRIPS.offset)

    def clear_counters(self) -> None:
        """Zero the counters of lanes and engines."""
        self._bus.write(reg.CONTROL.offset, reg.CONTROL.pack(clear=1))

    def _settings(self) -> dict[Register, int]:
        profile = self._profile

        longest_s = min(self._limits.pulse_width_max_s, profile.limits.pulse_width_max_s)
        return {
            reg.SPI_WRITE_HALF: half_period_ticks(profile.dac.write_clock_hz),
            reg.SPI_READ_HALF: half_period_ticks(profile.dac.read_clock_hz),
            reg.SHIFT_HALF: half_period_ticks(profile.chains.clock_hz),
            reg.ADC_HALF: half_period_ticks(profile.adc.clock_hz),
            reg.SELECT_SETTLE: ticks_of(profile.adc.select_settle_s),
            reg.GATE_MAX: int(longest_s / TICK_S + 1e-6),
            reg.CLIP_LOW: _lowest_good_code(profile) & 0x3FFF,
        }

    def _raise_fault(self) -> None:
        found = reg.FAULT.unpack(self._bus.read(reg.FAULT.offset))
        fault = Fault(found["code"])
        results = self._bus.read_stream(self._bus.read(reg.RESULT_COUNT.offset))
        self.make_safe()
        self._bus.write(reg.CONTROL.offset, reg.CONTROL.pack(clear=1))
        what = f"the fabric stopped the program at word {found['pc']}: {fault.name}, {FAULT_TEXT[fault]}"
        if fault is Fault.PROGRAM_CRC:
            raise NotRun(
                f"{what} The link to the board changes bits, and nothing was run",
                fix="check cable and clock of the link",
            )
        raise ProgramFault(fault, what.rstrip("."), results.tolist())


def _lowest_good_code(profile: BoardProfile) -> int:
    """Where the amplifiers stop, with a margin for their spread; the law from codes to currents ends there."""
    converter = profile.adc.converter
    return int(converter.code(max(profile.tia.amplifier.swing_low_v + _SWING_MARGIN_V, converter.range_v[0])))


class SequencerSpi:
    """The DAC bus, one frame per program, for bring-up and read-back; a `drivers.dac80508.SpiBus`."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer

    def transfer(self, chips: int, frame: int, *, n_bits: int, capture: bool, slow: bool) -> int:
        word = pack("SPI", frame=frame, chips=chips, long=int(n_bits == 32), capture=int(capture), slow=int(slow))
        found = self._sequencer.run(program([word]), int(capture))
        return int(found[0]) if capture else 0


def program(words: Sequence[int]) -> NDArray[np.uint64]:
    """Words with HALT at their end."""
    return np.array([*words, pack("HALT", code=0)], np.uint64)


def ticks_of(time_s: float) -> int:
    """Ticks that last at least this long."""
    return max(1, int(np.ceil(time_s / TICK_S - 1e-6)))
