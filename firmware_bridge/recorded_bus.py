"""Sessions on a register bus as text: `RecordingBus` writes one down, `ReplayBus` plays it back without a board.

A recording has one line per call, and `#` starts a comment:

    crossbar-hil bus recording 1
    # a short program
    write 0x0010 0x00000004  # CONTROL
    read 0x0014 -> 0x00000008  # STATUS
    block 0x10000 2 crc 0xb8a39e22
      0000012c 01000000
    poll 0x0014 -> 0x00000011 then 0x0040 0x00005afe  # STATUS, HEARTBEAT; 37 times
    stream 1 -> crc 0x9d5eec06
      0003ffff
    read 0x0014 ! ["TransportError", "the board does not answer", "check its supply"]
    end

Words of blocks and streams are hexadecimal, eight a line, with the CRC-32 (IEEE 802.3) of their bytes in little-endian
order. Where the real bus raised an error, `!` is followed by its class, what and fix; the replay raises it again.

How often the host looks at STATUS while a program runs depends on the clocks of host and board, which a replay does
not have. Rounds of "STATUS says busy, HEARTBEAT is written" that are alike are therefore one `poll` line, which is
played as one round: the host must send its heartbeat, and its next look finds the program further on.

A file that does not end with `end` was cut by a crash and is refused.
"""

from __future__ import annotations

import json
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import index
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from firmware_bridge import registers as reg
from firmware_bridge.assembler import disassemble
from firmware_bridge.bus import RegisterBus
from hil import errors
from hil.errors import ConfigError, DataError, HilError, ProtocolError, RunFileError

log = logging.getLogger(__name__)

TITLE = "crossbar-hil bus recording"
FORMAT = 1
WORDS_PER_LINE = 8
END = "end"
#: how the numbers of a call are written
_OFFSET, _VALUE, _COUNT = "#06x", "#010x", "d"
_FORMS = {"read": (_OFFSET,), "write": (_OFFSET, _VALUE), "block": (_OFFSET, _COUNT), "stream": (_COUNT,)}
_REGISTER_NAMES = {f"{offset:{_OFFSET}}": register.name for register in reg.REGISTERS for offset in register.offsets}

Result = TypeVar("Result")


class RecordingBus:
    """A `RegisterBus` that hands every call on to another one and writes it down.

    The recording is `PATH.part` until `close`, or the end of a `with` block, makes it `PATH`. If it cannot be written
    the calls go on, since the one that makes the array safe must get through, and `close` raises.

    Args:
        bus: the bus that is recorded.
        path: of the recording; one that is there is replaced when this one is complete.
        note: what is recorded, for people.

    Raises:
        ConfigError: there can be no file of that name.
    """

    def __init__(self, bus: RegisterBus, path: str | Path, *, note: str = "") -> None:
        self._bus = bus
        self._path = Path(path)
        self._part = self._path.with_name(self._path.name + ".part")
        self._failure: OSError | None = None
        #: a look at STATUS that found it busy, and may be the first half of a round
        self._look: str | None = None
        #: rounds that were alike
        self._round = ""
        self._n_rounds = 0
        try:
            # Line by line, so that a crash loses nothing that was complete.
            self._file = open(self._part, "w", encoding="utf-8", newline="\n", buffering=1)  # noqa: SIM115
        except OSError as error:
            raise ConfigError(
                f"recording {self._part} cannot be written: {error.strerror}", fix="choose another path"
            ) from None
        self._write(f"{TITLE} {FORMAT}", *(f"# {line}" for line in note.splitlines()))

    def __enter__(self) -> RecordingBus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except RunFileError as failure:
            if error is None:
                raise
            log.error("%s", failure)  # the error that ended the session is the one to report

    # Register bus

    def read(self, offset: int) -> int:
        asked = _asked("read", offset)
        value = self._call(asked, lambda: self._bus.read(offset))
        line = f"{asked} -> {value:{_VALUE}}"
        if offset == reg.STATUS.offset and reg.STATUS["busy"].of(value):
            if self._look is not None:
                self._flush()
            self._look = line
        else:
            self._put(line + _comment(offset))
        return value

    def write(self, offset: int, value: int) -> None:
        asked = _asked("write", offset, value)
        self._call(asked, lambda: self._bus.write(offset, value))
        if self._look is not None and offset == reg.HEARTBEAT.offset:
            self._count_round(f"poll {self._look.removeprefix('read ')} then {asked.removeprefix('write ')}")
        else:
            self._put(asked + _comment(offset))

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        asked = _asked("block", offset, len(words))
        self._call(asked, lambda: self._bus.write_block(offset, words))
        self._put(f"{asked} {_crc(words)}", *_hex_lines(words))

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        asked = _asked("stream", count)
        words = self._call(asked, lambda: self._bus.read_stream(count))
        self._put(f"{asked} -> {_crc(words)}", *_hex_lines(words))
        return words

    # File

    def close(self) -> None:
        """Complete the recording; later calls are handed on and not written down. Safe to call twice.

        Raises:
            RunFileError: it could not be written; what there is of it is in `PATH.part`.
        """
        if self._file.closed:
            return
        self._flush()
        self._write(END)
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
            if self._failure is None:
                os.replace(self._part, self._path)
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is not None:
            raise RunFileError(
                f"recording {self._path} could not be written: {self._failure.strerror}",
                fix="make room on the disk and record the session again",
            )

    def _call(self, asked: str, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except HilError as error:
            self._put(f"{asked} ! {json.dumps([_public_class(error), error.what, error.fix])}")
            raise

    def _put(self, line: str, *more: str) -> None:
        """Write a call, after those that were held back."""
        self._flush()
        self._write(line, *more)

    def _count_round(self, text: str) -> None:
        self._look = None
        if text != self._round:
            self._end_rounds()
            self._round = text
        self._n_rounds += 1

    def _end_rounds(self) -> None:
        n, self._n_rounds = self._n_rounds, 0
        if n:
            self._write(f"{self._round}  # STATUS, HEARTBEAT; {n} times")

    def _flush(self) -> None:
        """Write the rounds so far, then a look at STATUS that is not half of one."""
        self._end_rounds()
        look, self._look = self._look, None
        if look is not None:
            self._write(look + _comment(reg.STATUS.offset))

    def _write(self, *lines: str) -> None:
        if self._failure is not None or self._file.closed:
            return
        try:
            self._file.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            self._failure = error
            log.error("recording %s ends here: %s", self._path, error)


@dataclass(frozen=True)
class _Call:
    """One call of a recording, as `RecordingBus` wrote it down.

    Attributes:
        line: number of its line in the file.
        asked: what the host asked for, "write 0x0010 0x00000004".
        answer: the value that a read gave.
        words: of a block or stream.
        error: what the bus raised instead.
    """

    line: int
    asked: str
    answer: int = 0
    words: NDArray[np.uint32] | None = None
    error: HilError | None = None


class ReplayBus:
    """A `RegisterBus` that gives the answers of a recording, and wants its calls in its order.

    The first call that differs raises `ProtocolError`, and so does every call after it.

    Args:
        path: of the recording.

    Raises:
        DataError: it is missing, cut, damaged, or of another format.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._calls = _read_recording(self._path)
        self._n_played = 0
        self._difference: str | None = None

    # Register bus

    def read(self, offset: int) -> int:
        return self._play(_asked("read", offset)).answer

    def write(self, offset: int, value: int) -> None:
        self._play(_asked("write", offset, value))

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        self._play(_asked("block", offset, len(words)), np.asarray(words, np.uint32))

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        words = self._play(_asked("stream", count)).words
        return np.zeros(0, np.uint32) if words is None else words.copy()

    # Order

    def check_finished(self) -> None:
        """Raise `ProtocolError` unless every call of the recording was made."""
        self._raise_difference()
        if self._n_played < len(self._calls):
            self._differ(self._calls[self._n_played], "the host made no further call")

    def _play(self, asked: str, block: NDArray[np.uint32] | None = None) -> _Call:
        self._raise_difference()
        if self._n_played == len(self._calls):
            self._difference = f"{self._path.name}: the recording is over, and the host asked for {_named(asked)}"
            self._raise_difference()
        call = self._calls[self._n_played]
        if block is not None and call.words is not None and _at_same_offset(call.asked, asked):
            # A call that the bus refused is on record without its words.
            if not np.array_equal(call.words, block):
                self._differ(call, f"the host asked for {_named(asked)}: {_first_difference(call.words, block)}")
        elif call.asked != asked:
            self._differ(call, f"the host asked for {_named(asked)}")
        self._n_played += 1
        if call.error is not None:
            raise type(call.error)(call.error.what, fix=call.error.fix)
        return call

    def _differ(self, call: _Call, came: str) -> None:
        self._difference = f"{self._path.name}, line {call.line}: expected {_named(call.asked)}, but {came}"
        self._raise_difference()

    def _raise_difference(self) -> None:
        if self._difference is not None:
            raise ProtocolError(self._difference, fix="find out which of both is right; record again if the host is")


# Reading and writing lines

_HEX = "0x[0-9a-f]+"
_READ = re.compile(rf"(read {_HEX}) -> ({_HEX})")
_WRITE = re.compile(rf"(write {_HEX} {_HEX})")
_BLOCK = re.compile(rf"(block {_HEX} (\d+)) crc ({_HEX})")
_STREAM = re.compile(rf"(stream (\d+)) -> crc ({_HEX})")
_POLL = re.compile(rf"poll ({_HEX}) -> ({_HEX}) then ({_HEX} {_HEX})")
_ERROR = re.compile(r"(.+?) ! (\[.*\])")


def _read_recording(path: Path) -> list[_Call]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"recording {path} cannot be read: {error}", fix="give the path of a recording") from None
    title, _, version = lines[0].rpartition(" ") if lines else ("", "", "")
    if title != TITLE:
        raise DataError(f"{path} is no recording: its first line is not {TITLE!r}", fix="give the path of a recording")
    if version != str(FORMAT):
        raise DataError(
            f"recording {path} has format {version}, this software reads {FORMAT}", fix="record the session again"
        )
    if lines[-1] != END:
        raise DataError(
            f"recording {path} was cut: its last line is not {END!r}",
            fix=f"record the session again; or, to play it up to the cut, delete what is incomplete and add {END!r}",
        )
    calls: list[_Call] = []
    rest = iter(enumerate(lines[1:-1], start=2))
    for number, text in rest:
        if text and not text.startswith("#"):
            try:
                calls += _parse(number, text, rest)
            except (ValueError, StopIteration) as error:
                raise DataError(
                    f"recording {path}, line {number}: {str(error) or 'words are missing'}",
                    fix="record the session again",
                ) from None
    return calls


def _parse(number: int, text: str, rest: Iterator[tuple[int, str]]) -> list[_Call]:
    """Calls of a line and of the lines of words that belong to it."""
    if match := _ERROR.fullmatch(text):
        return [_Call(number, match[1], error=_error_from(match[2]))]
    text = text.partition("  #")[0]
    if match := _READ.fullmatch(text):
        return [_Call(number, match[1], answer=int(match[2], 16))]
    if match := _WRITE.fullmatch(text):
        return [_Call(number, match[1])]
    if match := _BLOCK.fullmatch(text) or _STREAM.fullmatch(text):
        return [_Call(number, match[1], words=_words_from(rest, int(match[2]), int(match[3], 16)))]
    if match := _POLL.fullmatch(text):
        return [_Call(number, f"read {match[1]}", answer=int(match[2], 16)), _Call(number, f"write {match[3]}")]
    raise ValueError(f"{text!r} is no call")


def _words_from(rest: Iterator[tuple[int, str]], count: int, crc: int) -> NDArray[np.uint32]:
    found: list[int] = []
    while len(found) < count:
        found += [int(word, 16) for word in next(rest)[1].split()]
    words = np.array(found, np.uint32)
    if len(words) != count or zlib.crc32(words.astype("<u4").tobytes()) != crc:
        raise ValueError("these words do not have the CRC of this line")
    return words


def _error_from(text: str) -> HilError:
    name, what, fix = json.loads(text)
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, HilError)):
        raise ValueError(f"{name!r} is no error of this software")
    if not (isinstance(what, str) and isinstance(fix, str)):
        raise ValueError("an error says what and fix")
    return kind(what, fix=fix)


def _public_class(error: HilError) -> str:
    """Name of the class in `hil.errors` that an error is of, or is derived from."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)


def _hex_lines(words: NDArray[np.uint32]) -> list[str]:
    texts = [f"{word:08x}" for word in np.asarray(words).tolist()]
    return ["  " + " ".join(texts[k : k + WORDS_PER_LINE]) for k in range(0, len(texts), WORDS_PER_LINE)]


def _crc(words: NDArray[np.uint32]) -> str:
    return f"crc {zlib.crc32(np.asarray(words).astype('<u4').tobytes()):#010x}"


def _number(value: object, form: str) -> str:
    # What is no number is refused by the bus, and stands in the recording as it came.
    try:
        return f"{index(value):{form}}"  # type: ignore[arg-type]
    except TypeError:
        return repr(value)


def _asked(verb: str, *numbers: object) -> str:
    """What the host asks for, as in a recording: all that a replay compares, but for the words of a block."""
    return " ".join([verb, *(_number(number, form) for number, form in zip(numbers, _FORMS[verb], strict=True))])


def _comment(offset: int) -> str:
    name = _REGISTER_NAMES.get(f"{offset:#06x}")
    return f"  # {name}" if name else ""


# Messages of a replay


def _named(asked: str) -> str:
    """The same with the name of its register."""
    verb, first, *others = asked.split()
    name = _REGISTER_NAMES.get(first) if verb in ("read", "write") else None
    return " ".join([verb, f"{first} ({name})" if name else first, *others])


def _at_same_offset(one: str, other: str) -> bool:
    return one.split()[:2] == other.split()[:2]


def _first_difference(expected: NDArray[np.uint32], came: NDArray[np.uint32]) -> str:
    """Where two programs part, instruction by instruction."""
    both = [_listing(expected), _listing(came)]
    n = min(map(len, both))
    k = next((k for k in range(n) if both[0][k] != both[1][k]), n)
    wanted, found = (lines[k] if k < len(lines) else "no more" for lines in both)
    return f"instruction {k} is {found!r} instead of {wanted!r}"


def _listing(words: NDArray[np.uint32]) -> list[str]:
    try:
        return disassemble(np.ascontiguousarray(words).view(np.uint64)).splitlines()
    except (ProtocolError, ValueError):
        return [f"word {word:#010x}" for word in words.tolist()]
