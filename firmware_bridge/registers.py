"""Registers of the sequencer.

Generated from sequencer.rdl by `python -m firmware_bridge.registers_export`: change that file, not this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from firmware_bridge.register_table import MemoryWindow, Register, RegisterField


class Fault(IntEnum):
    """Values of FAULT.code."""

    NONE = 0
    ILLEGAL = 1
    PROGRAM_CRC = 2
    WATCHDOG = 3
    NO_WATCHDOG = 4
    GATE_TOO_LONG = 5
    STATIC_GATE = 6
    STREAM_OVERFLOW = 7
    ABORTED = 8
    SUM_OVERFLOW = 9
    NO_SUCH_UNIT = 10


FAULT_TEXT: Mapping[Fault, str] = {
    Fault.NONE: "No fault.",
    Fault.ILLEGAL: "A word that is no instruction, or the end of memory.",
    Fault.PROGRAM_CRC: "Program memory does not have the CRC of PROGRAM_CRC.",
    Fault.WATCHDOG: "No heartbeat within the watchdog's time.",
    Fault.NO_WATCHDOG: "Bias asked for while the watchdog is not armed.",
    Fault.GATE_TOO_LONG: "GATE above GATE_MAX.",
    Fault.STATIC_GATE: "Word lines static while the source lines are not on the TIAs.",
    Fault.STREAM_OVERFLOW: "The result stream is full.",
    Fault.ABORTED: "CONTROL.ABORT or CONTROL.SAFE during a program.",
    Fault.SUM_OVERFLOW: "More conversions in one sum than it can hold.",
    Fault.NO_SUCH_UNIT: "A chip, chain, lane or position that this board does not have.",
}

ID = Register(
    name="ID",
    offset=0x000,
    title="Identity",
    fields=(RegisterField(name="value", low=0, width=32, text="ASCII HIL1", reset=0x48494C31),),
)
VERSION = Register(
    name="VERSION",
    offset=0x004,
    title="Version",
    fields=(
        RegisterField(name="minor", low=0, width=16, text="Additions."),
        RegisterField(name="major", low=16, width=16, text="Changes that old hosts do not understand.", reset=0x1),
    ),
)
GEOMETRY = Register(
    name="GEOMETRY",
    offset=0x008,
    title="Geometry",
    fields=(
        RegisterField(name="n_dac", low=0, width=8, text="Chip selects of the DAC bus."),
        RegisterField(name="n_adc", low=8, width=8, text="ADC lanes."),
        RegisterField(name="n_chain", low=16, width=4, text="Shift-register chains."),
        RegisterField(name="n_position", low=20, width=12, text="Source-line mux positions."),
    ),
    text="What the fabric was built for; the host compares it with the board profile.",
)
MEMORY = Register(
    name="MEMORY",
    offset=0x00C,
    title="Memory",
    fields=(
        RegisterField(name="program_words", low=0, width=16, text="Program memory in 64-bit words."),
        RegisterField(name="stream_kwords", low=16, width=16, text="Result stream in 1024 words."),
    ),
)
CONTROL = Register(
    name="CONTROL",
    offset=0x010,
    title="Control",
    fields=(
        RegisterField(name="start", low=0, width=1, text="Check PROGRAM_CRC and run from word 0.", access="w"),
        RegisterField(name="abort", low=1, width=1, text="Stop the program and make the array safe.", access="w"),
        RegisterField(name="safe", low=2, width=1, text="Make the array safe; disarms the watchdog.", access="w"),
        RegisterField(
            name="clear",
            low=3,
            width=1,
            text="Forget the fault, empty the result stream, zero the counters of lanes and engines.",
            access="w",
        ),
    ),
    text="Write ones; reads as zero.",
)
STATUS = Register(
    name="STATUS",
    offset=0x014,
    title="Status",
    fields=(
        RegisterField(name="busy", low=0, width=1, text="A program runs."),
        RegisterField(name="halted", low=1, width=1, text="The last program ended with HALT."),
        RegisterField(name="fault", low=2, width=1, text="See FAULT."),
        RegisterField(
            name="safe",
            low=3,
            width=1,
            text="Outputs off, word lines off, source lines grounded, DACs cleared by the fabric.",
            reset=0x1,
        ),
        RegisterField(name="armed", low=4, width=1, text="The watchdog runs."),
        RegisterField(name="outputs", low=5, width=1, text="Chain outputs are on."),
    ),
)
FAULT = Register(
    name="FAULT",
    offset=0x018,
    title="Fault",
    fields=(
        RegisterField(name="code", low=0, width=8, text="First fault since CLEAR."),
        RegisterField(name="pc", low=8, width=24, text="Word of the program at which it happened."),
    ),
)
PC = Register(
    name="PC",
    offset=0x01C,
    title="Program counter",
    fields=(RegisterField(name="value", low=0, width=32, text="Word in execution."),),
)
PROGRAM_LENGTH = Register(
    name="PROGRAM_LENGTH",
    offset=0x020,
    title="Program length",
    fields=(RegisterField(name="value", low=0, width=32, text="64-bit words.", access="rw"),),
)
PROGRAM_CRC = Register(
    name="PROGRAM_CRC",
    offset=0x024,
    title="Program CRC",
    fields=(
        RegisterField(
            name="value",
            low=0,
            width=32,
            text="CRC-32 (IEEE 802.3) over the program's bytes, little-endian words.",
            access="rw",
        ),
    ),
)
HALT_CODE = Register(
    name="HALT_CODE",
    offset=0x028,
    title="Halt code",
    fields=(RegisterField(name="value", low=0, width=16, text="Field of the HALT that ended the program."),),
)
RESULT_COUNT = Register(
    name="RESULT_COUNT",
    offset=0x030,
    title="Result count",
    fields=(RegisterField(name="value", low=0, width=32, text="Words waiting in the result stream."),),
)
RESULT_CRC = Register(
    name="RESULT_CRC",
    offset=0x034,
    title="Result CRC",
    fields=(
        RegisterField(
            name="value",
            low=0,
            width=32,
            text="CRC-32 (IEEE 802.3) over all words put into the stream since START.",
        ),
    ),
)
HEARTBEAT = Register(
    name="HEARTBEAT",
    offset=0x040,
    title="Heartbeat",
    fields=(
        RegisterField(
            name="key",
            low=0,
            width=16,
            text="Write 0x5AFE to reload the watchdog; other values do nothing.",
            access="w",
        ),
    ),
)
WATCHDOG_LEFT = Register(
    name="WATCHDOG_LEFT",
    offset=0x044,
    title="Watchdog left",
    fields=(RegisterField(name="value", low=0, width=32, text="Ticks until the watchdog trips; 0 when not armed."),),
)
WATCHDOG_TRIPS = Register(
    name="WATCHDOG_TRIPS",
    offset=0x048,
    title="Watchdog trips",
    fields=(RegisterField(name="value", low=0, width=16, text="Since power-up."),),
)
SPI_WRITE_HALF = Register(
    name="SPI_WRITE_HALF",
    offset=0x050,
    title="DAC bus, write clock",
    fields=(
        RegisterField(
            name="ticks",
            low=0,
            width=16,
            text="Half period of this clock in ticks.",
            reset=0x2,
            access="rw",
        ),
    ),
)
SPI_READ_HALF = Register(
    name="SPI_READ_HALF",
    offset=0x054,
    title="DAC bus, read clock",
    fields=(
        RegisterField(
            name="ticks",
            low=0,
            width=16,
            text="Half period of this clock in ticks.",
            reset=0x4,
            access="rw",
        ),
    ),
)
SHIFT_HALF = Register(
    name="SHIFT_HALF",
    offset=0x058,
    title="Shift-register clock",
    fields=(
        RegisterField(
            name="ticks",
            low=0,
            width=16,
            text="Half period of this clock in ticks.",
            reset=0x7,
            access="rw",
        ),
    ),
)
ADC_HALF = Register(
    name="ADC_HALF",
    offset=0x05C,
    title="ADC clock",
    fields=(
        RegisterField(
            name="ticks",
            low=0,
            width=16,
            text="Half period of this clock in ticks.",
            reset=0x2A,
            access="rw",
        ),
    ),
)
SELECT_SETTLE = Register(
    name="SELECT_SETTLE",
    offset=0x060,
    title="Select settling",
    fields=(
        RegisterField(
            name="ticks",
            low=0,
            width=16,
            text="Ticks between a step of the source-line mux and the start of a conversion.",
            reset=0x12C,
            access="rw",
        ),
    ),
)
GATE_MAX = Register(
    name="GATE_MAX",
    offset=0x064,
    title="Longest gate pulse",
    fields=(
        RegisterField(
            name="ticks",
            low=0,
            width=32,
            text="Ticks; GATE above it is a fault. 0 forbids programming pulses.",
            access="rw",
        ),
    ),
)
CLIP_LOW = Register(
    name="CLIP_LOW",
    offset=0x068,
    title="Lowest good code",
    fields=(
        RegisterField(
            name="code",
            low=0,
            width=14,
            text="Codes at or below it count as clipped: amplifiers may stop before the ADC. Two's complement.",
            reset=0x2000,
            access="rw",
        ),
    ),
)
TIME_LOW = Register(
    name="TIME_LOW",
    offset=0x070,
    title="Fabric time, low",
    fields=(
        RegisterField(
            name="value",
            low=0,
            width=32,
            text="Ticks since power-up, bits 31..0; reading it freezes TIME_HIGH.",
        ),
    ),
)
TIME_HIGH = Register(
    name="TIME_HIGH",
    offset=0x074,
    title="Fabric time, high",
    fields=(RegisterField(name="value", low=0, width=32, text="Bits 63..32, as of the last read of TIME_LOW."),),
)
TIME_CONVERT = Register(
    name="TIME_CONVERT",
    offset=0x080,
    title="Time converting",
    fields=(RegisterField(name="ticks", low=0, width=32, text="Ticks since CLEAR, saturating."),),
)
TIME_SHIFT = Register(
    name="TIME_SHIFT",
    offset=0x084,
    title="Time shifting",
    fields=(RegisterField(name="ticks", low=0, width=32, text="Ticks since CLEAR, saturating."),),
)
TIME_SPI = Register(
    name="TIME_SPI",
    offset=0x088,
    title="Time on the DAC bus",
    fields=(RegisterField(name="ticks", low=0, width=32, text="Ticks since CLEAR, saturating."),),
)
TIME_GATE = Register(
    name="TIME_GATE",
    offset=0x08C,
    title="Time of gate pulses",
    fields=(RegisterField(name="ticks", low=0, width=32, text="Ticks since CLEAR, saturating."),),
)
TIME_EXPOSED = Register(
    name="TIME_EXPOSED",
    offset=0x090,
    title="Time in a program while no ADC converts",
    fields=(RegisterField(name="ticks", low=0, width=32, text="Ticks since CLEAR, saturating."),),
)
CLIPS = Register(
    name="CLIPS",
    offset=0x100,
    title="Conversions at CLIP_LOW and below, or at the highest code, per lane",
    fields=(RegisterField(name="count", low=0, width=32, text="Since CLEAR, saturating."),),
    count=16,
)
FRAME_ERRORS = Register(
    name="FRAME_ERRORS",
    offset=0x140,
    title="Conversions whose null or dummy bits are wrong, per lane",
    fields=(RegisterField(name="count", low=0, width=32, text="Since CLEAR, saturating."),),
    count=16,
)
PROGRAM = MemoryWindow(
    name="PROGRAM",
    offset=0x10000,
    entries=16384,
    title="Program memory",
    text="64-bit words, low half first.",
)

REGISTERS: tuple[Register, ...] = (
    ID,
    VERSION,
    GEOMETRY,
    MEMORY,
    CONTROL,
    STATUS,
    FAULT,
    PC,
    PROGRAM_LENGTH,
    PROGRAM_CRC,
    HALT_CODE,
    RESULT_COUNT,
    RESULT_CRC,
    HEARTBEAT,
    WATCHDOG_LEFT,
    WATCHDOG_TRIPS,
    SPI_WRITE_HALF,
    SPI_READ_HALF,
    SHIFT_HALF,
    ADC_HALF,
    SELECT_SETTLE,
    GATE_MAX,
    CLIP_LOW,
    TIME_LOW,
    TIME_HIGH,
    TIME_CONVERT,
    TIME_SHIFT,
    TIME_SPI,
    TIME_GATE,
    TIME_EXPOSED,
    CLIPS,
    FRAME_ERRORS,
)

WINDOWS: tuple[MemoryWindow, ...] = (PROGRAM,)
