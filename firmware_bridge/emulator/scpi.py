"""The side of SCPI that an instrument has: headers, parameters, compound messages and the error queue.

Source: SCPI-1999 volume 1 (headers and their short forms, path of a compound message, error numbers) and IEEE 488.2
(common commands, event status register). Left out: arbitrary blocks, units behind numbers, service requests.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: errors kept; the last place says that more were lost
QUEUE_MAX = 32
#: what an overloaded reading and one that does not exist look like (SCPI-1999, 7.2.1.4 and 7.2.1.5)
OVERLOAD, NO_NUMBER = "9.9E37", "9.91E37"
#: texts of the numbers that are used here (SCPI-1999, 21.8)
ERRORS = {
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -113: "Undefined header",
    -200: "Execution error",
    -221: "Settings conflict",
    -222: "Data out of range",
    -224: "Illegal parameter value",
    -350: "Queue overflow",
}
#: hundreds of an error number -> bit of the event status register
_EVENT_BITS = {1: 1 << 5, 2: 1 << 4, 3: 1 << 3, 4: 1 << 2}
_OPERATION_COMPLETE, _POWER_ON = 1 << 0, 1 << 7
_ERROR_AVAILABLE, _EVENT_SUMMARY = 1 << 2, 1 << 5

Set = Callable[[list[str]], None]
Ask = Callable[[list[str]], str]


class ScpiError(Exception):
    """A command that is refused; goes to the error queue.

    Args:
        number: as SCPI numbers it.
        detail: what exactly.
    """

    def __init__(self, number: int, detail: str = "") -> None:
        super().__init__(number, detail)
        self.number = number
        self.text = ERRORS[number] + (f"; {detail}" if detail else "")


@dataclass(frozen=True)
class Command:
    """One row of a command table.

    Attributes:
        header: in the notation of manuals: capitals are the short form, nodes in brackets may be left out.
        set: does it.
        ask: answers the query form.
    """

    header: str
    set: Set | None = None
    ask: Ask | None = None

    def pattern(self) -> re.Pattern[str]:
        """Matches every way to write the header; a suffix 1 may be there or not."""
        parts: list[str] = []
        for optional, plain in re.findall(r"\[:?(\w+):?\]|(\w+)", self.header):
            short = re.match(r"[A-Z0-9]*", optional or plain)
            assert short is not None
            long = (optional or plain).upper()
            node = f"(?::{short[0]}(?:{long[len(short[0]) :]})?1?)"
            parts.append(f"{node}?" if optional else node)
        return re.compile("".join(parts))


class ScpiInstrument:
    """An instrument that understands a table of commands beside the common ones.

    Args:
        identity: answer to *IDN?.

    Attributes:
        refuse_commands: fault: so many of the next commands (not queries) are refused.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.refuse_commands = 0
        self._errors: deque[tuple[int, str]] = deque()
        self._events = _POWER_ON
        self._enabled = {"ESE": 0, "SRE": 0}
        self._table = [(command.pattern(), command) for command in (*self._common(), *self.commands())]

    def commands(self) -> Sequence[Command]:
        """Its own commands."""
        raise NotImplementedError

    def reset(self) -> None:
        """What *RST does."""
        raise NotImplementedError

    def handle(self, message: str) -> str | None:
        """Carry out one message; the answers of its queries, joined, or None."""
        answers: list[str] = []
        path = ""
        for unit in _split(message, ";"):
            header, _, rest = unit.partition(" ")
            parameters = _split(rest, ",") if rest.strip() else []
            asks, header = header.endswith("?"), header.removesuffix("?").upper()
            if not header.startswith("*"):
                header = header if header.startswith(":") else f"{path}:{header}"
                path = header.rpartition(":")[0]
            try:
                answer = self._do(header, parameters, asks=asks)
            except ScpiError as error:
                self._note(error)
                continue
            if answer is not None:
                answers.append(answer)
        return ";".join(answers) if answers else None

    def _do(self, header: str, parameters: list[str], *, asks: bool) -> str | None:
        if header.startswith("*"):
            header = f":COMMON{header[1:]}"
        for pattern, command in self._table:
            if not pattern.fullmatch(header):
                continue
            if asks and command.ask is not None:
                return command.ask(parameters)
            if not asks and command.set is not None:
                if self.refuse_commands:
                    self.refuse_commands -= 1
                    raise ScpiError(-200, header.lstrip(":"))
                command.set(parameters)
                return None
        raise ScpiError(-113, header.lstrip(":"))

    def _note(self, error: ScpiError) -> None:
        self._events |= _EVENT_BITS[-error.number // 100]
        if len(self._errors) == QUEUE_MAX:
            self._errors[-1] = (-350, ERRORS[-350])
        else:
            self._errors.append((error.number, error.text))

    def _common(self) -> list[Command]:
        return [
            Command("COMMONIDN", ask=lambda _: self.identity),
            Command("COMMONRST", set=lambda _: self.reset()),
            Command("COMMONCLS", set=lambda _: self._clear()),
            Command("COMMONESR", ask=lambda _: str(self._read_events())),
            *(self._mask(name) for name in self._enabled),
            Command("COMMONSTB", ask=lambda _: str(self._status())),
            Command("COMMONOPC", set=lambda _: self._complete(), ask=lambda _: "1"),
            Command("COMMONWAI", set=lambda _: None),
            Command("COMMONTST", ask=lambda _: "0"),
            Command("COMMONLANG", set=self._language, ask=lambda _: "SCPI"),
            Command("SYSTem:ERRor[:NEXT]", ask=lambda _: self._next_error()),
        ]

    def _mask(self, name: str) -> Command:
        def enable(parameters: list[str]) -> None:
            self._enabled[name] = int(number(parameters, 0.0, 255.0))

        return Command(f"COMMON{name}", set=enable, ask=lambda _: str(self._enabled[name]))

    def _next_error(self) -> str:
        number, text = self._errors.popleft() if self._errors else (0, "No error")
        return f'{number},"{text}"'

    def _clear(self) -> None:
        self._errors.clear()
        self._events = 0

    def _read_events(self) -> int:
        events, self._events = self._events, 0
        return events

    def _status(self) -> int:
        summary = bool(self._events & self._enabled["ESE"])
        return _ERROR_AVAILABLE * bool(self._errors) | _EVENT_SUMMARY * summary

    def _complete(self) -> None:
        self._events |= _OPERATION_COMPLETE

    def _language(self, parameters: list[str]) -> None:
        word(parameters, "SCPI")


def number(parameters: list[str], low: float, high: float) -> float:
    """The one number that a command takes, within its limits."""
    text = _only(parameters)
    try:
        value = float(text)
    except ValueError:
        raise ScpiError(-104, text) from None
    if not math.isfinite(value) or not low <= value <= high:
        raise ScpiError(-222, text)
    return value


def word(parameters: list[str], *words: str) -> str:
    """The one word that a command takes, of those given in the notation of manuals; its short form."""
    text = _only(parameters).strip("\"'").upper()
    for known in words:
        short = "".join(letter for letter in known if not letter.islower())
        if text in (short, known.upper()):
            return short
    raise ScpiError(-224, text)


def switch(parameters: list[str]) -> bool:
    """ON, OFF, 1 or 0."""
    return word(parameters, "1", "0", "ON", "OFF") in ("1", "ON")


def channels(parameters: list[str], most: int) -> list[int]:
    """A channel list such as (@3) or (@1:4,7), of channels 1 to `most`."""
    found: list[int] = []
    listed = re.fullmatch(r"\(@([\d:,\s]+)\)", _only(parameters))
    if listed is None:
        raise ScpiError(-104, _only(parameters))
    for part in listed[1].split(","):
        first, _, last = part.strip().partition(":")
        if not first or not int(first) <= int(last or first) or not 1 <= int(first) <= int(last or first) <= most:
            raise ScpiError(-222, part)
        found += range(int(first), int(last or first) + 1)
    return found


def _only(parameters: list[str]) -> str:
    if not parameters:
        raise ScpiError(-109)
    if len(parameters) > 1:
        raise ScpiError(-108, parameters[1])
    return parameters[0]


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators that are not in quotes or parentheses, without blanks around them."""
    quoted = r"\"[^\"]*\"|'[^']*'|\([^)]*\)"
    parts = re.findall(rf"(?:{quoted}|[^{separator}])+", text)
    return [part.strip() for part in parts if part.strip()]
