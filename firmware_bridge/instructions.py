"""Instruction set of the sequencer, as a table from which codec, emulator, validator and reference page derive.

A program is a list of 64-bit words: opcode in bits 63..56, fields below. Every field has a fixed place, so that a
small state machine decodes a word in one clock. Instructions are issued in order; those that start an engine (SPI,
chain, ADC) return at once and the engine runs on, so that shifting and DAC frames hide inside conversions. An
instruction whose engine is still busy waits for it. Word 0 is no instruction: running into empty memory is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import ProtocolError

#: one tick of the fabric clock
TICK_S = 10e-9
OPCODE_LOW = 56
#: words of the program memory
PROGRAM_WORDS_MAX = 8192
#: chains that SHIFT, LATCH and CLEAR name: mux settings, word lines
ROW_CHAIN, WORD_LINE_CHAIN = 0, 1
#: what HEARTBEAT wants to be written
HEARTBEAT_KEY = 0x5AFE


class SourceLines(IntEnum):
    """What all source lines are connected to; 0 is the state of the pins at power-up."""

    GROUND = 0
    TIA = 1
    BIAS = 2
    FLOAT = 3


class Engine(IntFlag):
    """What WAITFOR can wait for."""

    CHAIN = 1
    SPI = 2
    INPUTS_FREE = 4
    ADC = 8
    SETTLED = 16


@dataclass(frozen=True)
class Field:
    """Bits `low` .. `low + width - 1` of a word; values from `least` to `limit`, or to what fits."""

    name: str
    low: int
    width: int
    text: str
    least: int = 0
    limit: int | None = None

    @property
    def mask(self) -> int:
        """The field's bits, shifted down."""
        return (1 << self.width) - 1

    @property
    def most(self) -> int:
        """Greatest value."""
        return self.mask if self.limit is None else self.limit


@dataclass(frozen=True)
class Instruction:
    """One row of the table."""

    name: str
    opcode: int
    fields: tuple[Field, ...]
    text: str


_TICKS = Field("ticks", 0, 32, "ticks of 10 ns", least=1)

INSTRUCTIONS: tuple[Instruction, ...] = (
    Instruction(
        "HALT",
        0x01,
        (Field("code", 0, 16, "shown in register HALT_CODE"),),
        "End of the program, once all engines are idle. Disarms the watchdog if the word lines are off: then no cell "
        "sees a bias.",
    ),
    Instruction(
        "WATCHDOG",
        0x02,
        (_TICKS,),
        "Arm the watchdog: unless a heartbeat comes within this time, the fabric makes the array safe. "
        "DRIVE outputs=1 and GATE are faults while it is not armed.",
    ),
    Instruction("WAIT", 0x03, (_TICKS,), "Do nothing for a time."),
    Instruction(
        "WAITFOR",
        0x04,
        (Field("engines", 0, 5, "1 chain idle, 2 SPI idle, 4 ADC inputs free, 8 ADC idle, 16 settled", least=1),),
        "Wait until all named conditions hold. Inputs are free from the hold edge of the last started scan's last "
        "conversion on.",
    ),
    Instruction(
        "SETTLE", 0x05, (_TICKS,), "Start the settling timer; CONVERT and GATE do not begin before it has run out."
    ),
    Instruction("MARK", 0x06, (Field("tag", 0, 32, "any value"),), "Put a tag into the result stream."),
    Instruction(
        "SPI",
        0x10,
        (
            Field("frame", 0, 32, "bits to send, right-aligned, most significant first"),
            Field("chips", 32, 16, "chip selects to pull low together, one bit each", least=1),
            Field("long", 48, 1, "0: 24 bits, 1: 32 bits"),
            Field("capture", 49, 1, "put the reply of the lowest selected chip into the result stream"),
            Field("slow", 50, 1, "0: write clock, 1: read clock"),
        ),
        "Send one frame on the DAC bus.",
    ),
    Instruction(
        "SHIFT",
        0x20,
        (
            Field("data", 0, 48, "bits to shift, right-aligned, most significant first"),
            Field("count", 48, 6, "how many", least=1, limit=48),
            Field("chain", 54, 2, "which shift-register chain"),
        ),
        "Shift bits into a chain of 74HC595; outputs do not change.",
    ),
    Instruction(
        "LATCH", 0x21, (Field("chains", 0, 4, "chains, one bit each", least=1),), "Copy shifted bits to the outputs."
    ),
    Instruction(
        "CLEAR", 0x22, (Field("chains", 0, 4, "chains, one bit each", least=1),), "Clear the shift stages (SRCLR#)."
    ),
    Instruction(
        "DRIVE",
        0x30,
        (
            Field("outputs", 0, 1, "1: outputs of all chains on (OE# low)"),
            Field("source_lines", 1, 2, "0 ground, 1 TIA, 2 bias DAC, 3 floating"),
            Field("gate", 3, 1, "1: selected word lines at the gate DAC's voltage (TIA mode only)"),
        ),
        "Set the static pins.",
    ),
    Instruction(
        "GATE",
        0x31,
        (_TICKS,),
        "One programming pulse: word lines on for this time. A fault above register GATE_MAX.",
    ),
    Instruction("SELECT", 0x40, (Field("position", 0, 10, "source-line mux position"),), "Step the source-line mux."),
    Instruction(
        "CONVERT",
        0x41,
        (
            Field("first", 0, 10, "first source-line mux position"),
            Field("count", 10, 10, "positions", least=1),
            Field("repeat", 20, 16, "conversions of each position, added up", least=1),
            Field("lanes", 36, 16, "ADCs whose sums are emitted, one bit each"),
            Field("overwrite", 52, 1, "1: start new sums, 0: add to the sums of before"),
            Field("emit", 53, 1, "1: put the sums into the result stream, position by position, lane by lane"),
        ),
        "Scan: convert position after position on all ADCs at once. The mux steps at each hold edge.",
    ),
)

BY_NAME: Mapping[str, Instruction] = {row.name: row for row in INSTRUCTIONS}
BY_OPCODE: Mapping[int, Instruction] = {row.opcode: row for row in INSTRUCTIONS}

# A sum in the result stream: two flags above a signed sum.
SUM_CLIPPED_BIT = 31
SUM_FRAME_ERROR_BIT = 30
SUM_WIDTH = 30
#: conversions that a sum can hold without overflow
SUM_CONVERSIONS_MAX = 1 << (SUM_WIDTH - 14)


def pack(name: str, **fields: Any) -> Any:
    """Encode one instruction, or many at once when a field is an array.

    Returns:
        int, or uint64 array of the broadcast shape of the fields.

    Raises:
        ProtocolError: no such instruction or field, a field missing or out of range.
    """
    row = BY_NAME.get(name)
    if row is None:
        raise ProtocolError(f"no instruction {name!r}", fix=f"use one of {', '.join(BY_NAME)}")
    names = [field.name for field in row.fields]
    if set(fields) != set(names):
        raise ProtocolError(f"{name} got fields {sorted(fields)}", fix=f"give exactly {', '.join(names)}")
    word: Any = np.uint64(row.opcode << OPCODE_LOW)
    for field in row.fields:
        value = np.asarray(fields[field.name])
        wrong = (value < field.least) | (value > field.most) if value.dtype.kind in "biu" else np.array(True)
        if wrong.any():
            shown = value[wrong].tolist()[0] if wrong.shape == value.shape and wrong.size else fields[field.name]
            raise ProtocolError(
                f"{name} field {field.name} = {shown!r}", fix=f"give a whole number from {field.least} to {field.most}"
            )
        word = word | (value.astype(np.uint64) << np.uint64(field.low))
    return int(word) if word.ndim == 0 else word


def unpack(word: int) -> tuple[Instruction, dict[str, int]]:
    """Decode one word.

    Raises:
        ProtocolError: unknown opcode, bits set outside the fields, or a field below its least value.
    """
    word = int(word)
    row = BY_OPCODE.get(word >> OPCODE_LOW)
    if row is None:
        raise ProtocolError(f"word 0x{word:016X} has no known opcode", fix="assemble the program again")
    values = {field.name: (word >> field.low) & field.mask for field in row.fields}
    used = sum(field.mask << field.low for field in row.fields)
    if word & ~(row.opcode << OPCODE_LOW) & ~used:
        raise ProtocolError(f"{row.name} word 0x{word:016X} has bits outside its fields", fix="clear them")
    for field in row.fields:
        if not field.least <= values[field.name] <= field.most:
            raise ProtocolError(
                f"{row.name} field {field.name} = {values[field.name]}", fix=f"give {field.least} to {field.most}"
            )
    return row, values


def unpack_sums(words: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Signed sums, clip flags and frame-error flags of words of the result stream."""
    sums = (words & np.uint32((1 << SUM_WIDTH) - 1)).astype(np.int64)
    sums -= (sums >> (SUM_WIDTH - 1)) << SUM_WIDTH
    return sums, (words >> SUM_CLIPPED_BIT).astype(np.bool_), ((words >> SUM_FRAME_ERROR_BIT) & 1).astype(np.bool_)
