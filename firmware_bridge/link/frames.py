"""One frame of the serial link: header, payload and CRC-32, COBS-coded between two zero bytes.

COBS leaves no zero byte inside a frame, so whatever a line did to the bytes before, the next zero is a border again.
A zero goes on either side: noise on an idle line, or a lost border, then costs no frame beside it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from cobs import cobs

#: raised with every change that the other side would misread; frames of another version count as bad
VERSION = 1
PAYLOAD_MAX_BYTES = 1024
#: numbers of 16 bit wrap; a window of 32 frames on a line that keeps order leaves no doubt which lap one belongs to
NUMBER_MASK = 0xFFFF


class Kind(IntEnum):
    """What a frame is for."""

    SYN = 1  # a host opens a connection
    SYN_ACK = 2  # the daemon has it
    DATA = 3  # a piece of a message
    ACK = 4  # nothing but the acknowledgement that every header carries
    RESET = 5  # this connection is not, or no longer, known here


class Flag(IntFlag):
    """Marks of a frame, in any combination."""

    LAST = 1  # the message ends with this piece
    FROM_LISTENER = 2  # the daemon sent it; tells an echo from an answer


#: the header, in this order, little-endian: field of `Frame`, its format, its meaning
HEADER: tuple[tuple[str, str, str], ...] = (
    ("version", "B", "`VERSION`"),
    ("kind", "B", "one of `Kind`"),
    ("flags", "B", "`Flag`s"),
    ("connection", "I", "drawn by the host that opened it"),
    ("sequence", "H", "number of this piece"),
    ("stamp", "H", "number of this transmission: a piece that is sent again gets a new one"),
    ("ack", "H", "the piece that the sender of this frame waits for; it has all before"),
    ("have", "I", "bit i: it has piece `ack` + 1 + i, too"),
    ("seen", "H", "stamp of the newest piece that reached it; what was stamped before and is missing is lost"),
)
_HEADER = struct.Struct("<" + "".join(code for _, code, _ in HEADER))
_CRC = struct.Struct("<I")
_SHORTEST = _HEADER.size + _CRC.size
_LONGEST = _SHORTEST + PAYLOAD_MAX_BYTES
#: longest frame on the wire without its borders: COBS adds one byte, and one more for every 254
_CODED_MAX = _LONGEST + 1 + _LONGEST // 254
#: longest frame on the wire
WIRE_MAX_BYTES = _CODED_MAX + 2
_KINDS = frozenset(Kind)
#: a plain number: what `~` makes of an IntFlag depends on the version of Python
_FLAGS = int(Flag.LAST | Flag.FROM_LISTENER)
_BORDER = b"\x00"


@dataclass(frozen=True)
class Frame:
    """A frame as `HEADER` describes it."""

    kind: Kind
    flags: int
    connection: int
    sequence: int = 0
    stamp: int = 0
    ack: int = 0
    have: int = 0
    seen: int = 0
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """The bytes that go onto the wire, borders included."""
    header = _HEADER.pack(VERSION, *(getattr(frame, name) for name, _, _ in HEADER[1:]))
    body = header + frame.payload
    return _BORDER + cobs.encode(body + _CRC.pack(zlib.crc32(body))) + _BORDER


def decode(coded: bytes) -> Frame | None:
    """The frame between two borders, or None if this is none: damaged, of another version, or against the format."""
    try:
        whole = cobs.decode(coded)
    except cobs.DecodeError:
        return None
    if not _SHORTEST <= len(whole) <= _LONGEST:
        return None
    body, crc = whole[: -_CRC.size], whole[-_CRC.size :]
    if zlib.crc32(body) != _CRC.unpack(crc)[0]:
        return None
    version, kind, flags, *numbers = _HEADER.unpack_from(body)
    payload = body[_HEADER.size :]
    if version != VERSION or kind not in _KINDS or flags & ~_FLAGS:
        return None
    if payload and kind != Kind.DATA:
        return None
    return Frame(Kind(kind), flags, *numbers, payload=payload)


class Decoder:
    """Finds frames in a stream of bytes. Takes anything, and keeps no more of it than one frame can have.

    Attributes:
        bad: pieces between borders that were no frames.
    """

    def __init__(self) -> None:
        self.bad = 0
        self._open = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that end within these bytes."""
        frames: list[Frame] = []
        *ended, rest = data.split(_BORDER)
        for piece in ended:
            self._append(piece)
            if self._open:
                frame = decode(bytes(self._open))
                if frame is None:
                    self.bad += 1
                else:
                    frames.append(frame)
                self._open.clear()
        self._append(rest)
        return frames

    def _append(self, piece: bytes) -> None:
        # One byte more than a frame can have marks what is too long, however much follows.
        self._open += piece[: _CODED_MAX + 1 - len(self._open)]
