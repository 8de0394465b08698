"""Rows of a register map: a register, its fields, a memory window; with codec and checks.

`firmware_bridge/registers.py` is made of these rows. A register gives its fields by name (`STATUS["busy"].of(word)`),
builds a word from named values (`CONTROL.pack(start=1)`) and takes one apart (`STATUS.unpack(word)`).
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import SupportsIndex

from hil.errors import ProtocolError

#: every register is one 32-bit word
WORD_BITS = 32
WORD_BYTES = 4


@dataclass(frozen=True)
class RegisterField:
    """Bits `low` .. `low + width - 1` of a register; `access` is r, w or rw, as the host sees it."""

    name: str
    low: int
    width: int
    text: str
    reset: int = 0
    access: str = "r"

    @property
    def most(self) -> int:
        """Greatest value."""
        return (1 << self.width) - 1

    def of(self, word: SupportsIndex) -> int:
        """Value of this field in a word of the register."""
        return (index(word) >> self.low) & self.most

    def encode(self, value: SupportsIndex) -> int:
        """Word of the register with this field at `value` and all other bits zero.

        Raises:
            ProtocolError: not a whole number, or out of range.
        """
        return _checked(f"field {self.name}", value, self.most) << self.low


@dataclass(frozen=True)
class Register:
    """One register, or `count` equal ones at consecutive words."""

    name: str
    offset: int
    title: str
    fields: tuple[RegisterField, ...]
    text: str = ""
    count: int = 1

    @property
    def access(self) -> str:
        """What the host may do: r, w or rw; r if any field can be read, w if any can be written."""
        return "".join(letter for letter in "rw" if any(letter in field.access for field in self.fields))

    @property
    def reset(self) -> int:
        """Word after power-up."""
        return self.pack(**{field.name: field.reset for field in self.fields})

    @property
    def offsets(self) -> range:
        """Byte offset of each element."""
        return range(self.offset, self.offset + WORD_BYTES * self.count, WORD_BYTES)

    def at(self, element: SupportsIndex) -> int:
        """Byte offset of one element of a register array.

        Raises:
            ProtocolError: no such element.
        """
        return self.offsets[_checked(f"element of register {self.name}", element, self.count - 1)]

    def __getitem__(self, field: str) -> RegisterField:
        """The field of that name.

        Raises:
            ProtocolError: no such field.
        """
        for row in self.fields:
            if row.name == field:
                return row
        raise ProtocolError(
            f"register {self.name} has no field {field!r}",
            fix=f"use one of {', '.join(row.name for row in self.fields)}",
        )

    def pack(self, /, **values: SupportsIndex) -> int:
        """Word with the given fields; fields not named are 0, whatever their reset value.

        Raises:
            ProtocolError: no such field, not a whole number, or out of range.
        """
        word = 0
        for name, value in values.items():
            field = self[name]
            try:
                word |= field.encode(value)
            except ProtocolError as error:
                raise ProtocolError(f"register {self.name}: {error.what}", fix=error.fix) from None
        return word

    def unpack(self, word: SupportsIndex) -> dict[str, int]:
        """Value of each field; bits outside the fields are ignored, since a newer fabric may use them.

        Raises:
            ProtocolError: not a 32-bit word.
        """
        checked = _checked(f"word of register {self.name}", word, (1 << WORD_BITS) - 1)
        return {field.name: field.of(checked) for field in self.fields}


@dataclass(frozen=True)
class MemoryWindow:
    """A memory of 32-bit words behind consecutive addresses."""

    name: str
    offset: int
    entries: int
    title: str
    text: str = ""
    access: str = "rw"

    @property
    def offsets(self) -> range:
        """Byte offset of each word."""
        return range(self.offset, self.offset + WORD_BYTES * self.entries, WORD_BYTES)

    def at(self, entry: SupportsIndex) -> int:
        """Byte offset of one word.

        Raises:
            ProtocolError: no such word.
        """
        return self.offsets[_checked(f"word of memory {self.name}", entry, self.entries - 1)]


def _checked(what: str, value: SupportsIndex, most: int) -> int:
    try:
        number = index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= most:
        raise ProtocolError(f"{what} = {value!r}", fix=f"give a whole number from 0 to {most}")
    return number
