"""Programs of the sequencer as text, for people: listings, examples, tests.

One instruction a line, `NAME field=value field=value`; `#` starts a comment. A field left out is 0, unless 0 is below
its least value. Values are whole numbers (decimal, 0x.., 0b..); `ticks` may be a time (`12us`), `source_lines` a name
(`TIA`), `engines` names (`CHAIN|ADC`).

    SETTLE ticks=5us
    CONVERT count=8 repeat=1 lanes=0x1 overwrite=1 emit=1
    WAITFOR engines=ADC
    HALT
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.instructions import BY_NAME, TICK_S, Engine, Field, SourceLines, pack, unpack
from hil.errors import ProtocolError

#: units of time, longest first; a tick is a whole number of the last one
UNIT_S: Mapping[str, Fraction] = {
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|ms|us|ns)", re.ASCII)
# The decimal 1e-8 exactly, not the float next to it.
_TICK_S = Fraction(str(TICK_S))


@dataclass(frozen=True)
class Notation:
    """How the values of a field are written."""

    write: Callable[[int], str]
    #: for what is not a plain number; KeyError or ValueError for what it does not know
    read: Callable[[str], int]
    #: what a value may be, for messages
    form: str


def _write_time(ticks: int) -> str:
    time_s = ticks * _TICK_S
    unit = next(unit for unit in UNIT_S if (time_s / UNIT_S[unit]).denominator == 1)
    return f"{time_s / UNIT_S[unit]}{unit}"


def _read_time(text: str) -> int:
    match = _TIME.fullmatch(text)
    ticks = Fraction(match[1]) * UNIT_S[match[2]] / _TICK_S if match else Fraction(1, 2)
    if ticks.denominator != 1:
        raise ValueError(text)
    return int(ticks)


def _name_of(kind: type[IntEnum]) -> Notation:
    return Notation(lambda value: kind(value).name, lambda text: kind[text], f"one of {', '.join(kind.__members__)}")


def _names_of(kind: type[IntFlag]) -> Notation:
    def write(value: int) -> str:
        return "|".join(name for name, flag in kind.__members__.items() if value & flag)

    def read(text: str) -> int:
        return sum({kind[name] for name in text.split("|")})

    return Notation(write, read, f"names out of {', '.join(kind.__members__)} with | between them")


_DECIMAL = Notation(str, int, "decimal, 0x.. or 0b..")
_MASK = Notation("0x{:X}".format, int, _DECIMAL.form)

#: by name of the field; a field that is not here is written in decimal
NOTATIONS: Mapping[str, Notation] = {
    "ticks": Notation(_write_time, _read_time, f"a whole number of {_TICK_S / UNIT_S['ns']} ns ticks such as 12us"),
    "source_lines": _name_of(SourceLines),
    "engines": _names_of(Engine),
    **dict.fromkeys(("tag", "frame", "chips", "data", "chains", "lanes"), _MASK),
}


def assemble(text: str) -> NDArray[np.uint64]:
    """Words of a program, one per line that has an instruction.

    Raises:
        ProtocolError: naming the line: no such instruction or field, a field missing, given twice or out of range.
    """
    words: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.partition("#")[0].split()
        if not parts:
            continue
        try:
            words.append(_word(parts[0], parts[1:]))
        except ProtocolError as error:
            raise ProtocolError(f"line {number}: {error.what}", fix=error.fix) from None
    return np.array(words, dtype=np.uint64)


def disassemble(words: NDArray[np.uint64]) -> str:
    """Text of a program, one line per word, every field shown; `assemble` gives the words back.

    Raises:
        ProtocolError: naming the word that is no valid instruction.
    """
    lines: list[str] = []
    for number, word in enumerate(words.tolist()):
        try:
            row, values = unpack(word)
        except ProtocolError as error:
            raise ProtocolError(f"word {number} of the program: {error.what}", fix=error.fix) from None
        lines.append(" ".join([row.name, *(f"{name}={_notation(name).write(values[name])}" for name in values)]) + "\n")
    return "".join(lines)


def _notation(field: str) -> Notation:
    return NOTATIONS.get(field, _DECIMAL)


def _word(name: str, assignments: list[str]) -> int:
    row = BY_NAME.get(name)
    fields: Mapping[str, Field] = {field.name: field for field in row.fields} if row else {}
    values = {field.name: 0 for field in fields.values() if field.least == 0}
    given: set[str] = set()
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals:
            raise ProtocolError(f"{assignment!r} is not of the form field=value", fix="write it so, without spaces")
        if field in given:
            raise ProtocolError(f"{name} field {field} is given twice", fix="give it once")
        given.add(field)
        values[field] = _value(name, field, value)
    # Wrong names and ranges are found where every program is packed.
    return pack(name, **values)


def _value(name: str, field: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return _notation(field).read(text)
    except (KeyError, ValueError):
        raise ProtocolError(f"{name} field {field} = {text!r}", fix=f"write {_notation(field).form}") from None
