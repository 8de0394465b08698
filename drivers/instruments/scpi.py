"""What all SCPI instruments have in common: errors they queue, numbers they answer, an output that ends up off."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from drivers.instruments.link import Link
from hil.errors import DeviceError, HilError, LimitError, ProtocolError
from hil.instruments import Instrument, Source

log = logging.getLogger(__name__)

#: from here on a number means overflow (9.9E37) or not a number (9.91E37) (SCPI-1999, volume 1, 7.2.1.4 and 7.2.1.5)
OVERFLOW = 9.9e37
#: more errors than any of the instruments queues
_ERRORS_MAX = 64
_OFF_ATTEMPTS = 3
#: longest wait for an answer while an output is switched off
_OFF_PATIENCE_S = 1.0
_SWITCH = {"0": False, "OFF": False, "1": True, "ON": True}


class ScpiInstrument(Instrument):
    """An instrument behind a driver of pymeasure.

    Args:
        link: to it.
        identity: its answer to *IDN?.
        driver: class of pymeasure.
    """

    def __init__(self, link: Link, identity: str, driver: Callable[[Link], Any]) -> None:
        self._link = link
        self._identity = identity
        self._closed = False
        self._driver = driver(link)

    @property
    def identity(self) -> str:
        return self._identity

    @abstractmethod
    def start(self) -> None:
        """Bring it into a known state, output off."""

    def _ask_numbers(self, question: str, count: int) -> list[float]:
        answer = self._link.ask(question)
        try:
            numbers = [float(part) for part in answer.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != count:
            self._refuse_answer(question, answer, "a number" if count == 1 else f"{count} numbers")
        for number in numbers:
            if not math.isfinite(number) or abs(number) >= OVERFLOW:
                raise ProtocolError(
                    f"{self._link.who} answered {answer!r} to {question}: an overflow",
                    fix="check what is connected; its input is beyond the range, or open",
                )
        return numbers

    def _ask_number(self, question: str) -> float:
        return self._ask_numbers(question, 1)[0]

    def _ask_switch(self, question: str) -> bool:
        answer = self._link.ask(question)
        if answer.upper() not in _SWITCH:
            self._refuse_answer(question, answer, "0 or 1")
        return _SWITCH[answer.upper()]

    def _refuse_answer(self, question: str, answer: str, wanted: str) -> None:
        raise ProtocolError(
            f"{self._link.who} answered {answer!r} to {question} instead of {wanted}",
            fix="check its cable and its command set, and that no other program talks to it",
        )

    def _check_errors(self) -> None:
        """Raise `DeviceError` if the instrument has queued errors."""
        errors: list[str] = []
        while len(errors) < _ERRORS_MAX:
            answer = self._link.ask("SYST:ERR?")
            code = answer.partition(",")[0]
            if not code.lstrip("+-").isdecimal():
                self._refuse_answer("SYST:ERR?", answer, "an error code")
            if int(code) == 0:
                break
            errors.append(answer)
        if errors:
            raise DeviceError(
                f"{self._link.who} refused a command: {'; '.join(errors)}",
                fix="look the error up in its manual; its firmware, options or front-panel settings may differ",
            )


class ScpiSource(ScpiInstrument, Source):
    """A source whose output is on only while somebody wants it to be."""

    #: role in capitals, for the error that nobody may overlook
    title: str

    def __init__(self, link: Link, identity: str, driver: Callable[[Link], Any]) -> None:
        super().__init__(link, identity, driver)
        self._limited = False
        self._is_on = False

    @abstractmethod
    def _switch(self, *, on: bool) -> None:
        """Send the command that switches the output."""

    @abstractmethod
    def _ask_output(self) -> bool:
        """Ask whether the output is on."""

    def output_on(self) -> None:
        if not self._limited:
            raise LimitError(
                f"the output of {self._link.who} has no limit yet", fix="choose a level and its limit before output_on"
            )
        # Before it is sent: whatever happens from here on, the output may be on.
        self._is_on = True
        self._switch(on=True)
        self._check_errors()
        if not self._ask_output():
            raise DeviceError(
                f"{self._link.who} does not switch its output on", fix="check its interlock, and its front panel"
            )

    def output_off(self) -> None:
        cause: Exception | None = None
        with self._link.patience(_OFF_PATIENCE_S):
            for attempt in range(1, _OFF_ATTEMPTS + 1):
                try:
                    if self._is_off():
                        self._is_on = False
                        return
                    cause = DeviceError("it says that its output is on", fix="switch it off by hand")
                except HilError as error:
                    cause = error
                log.error("attempt %d of %d to switch %s off failed: %s", attempt, _OFF_ATTEMPTS, self._link.who, cause)
        raise DeviceError(
            f"THE {self.title} MAY STILL BE ON: {self._link.who} did not confirm its output off, "
            f"which was sent {_OFF_ATTEMPTS} times ({cause})",
            fix="switch it off by hand",
        ) from cause

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.output_off()
        finally:
            self._link.close()

    def _is_off(self) -> bool:
        # Sent before anything is asked, which first waits for the answers of earlier questions.
        self._switch(on=False)
        return not self._ask_output()

    def _need_output(self) -> None:
        if not self._is_on:
            raise LimitError(f"{self._link.who} measures with its output on only", fix="switch it on with output_on")


def check_level(who: str, what: str, value: float, limit: float, unit: str) -> None:
    """Raise `LimitError` unless a level lies within an instrument's range, which is symmetrical."""
    # Written so that NaN fails too.
    if not abs(value) <= limit:
        raise LimitError(
            f"{what} {value:g} {unit} of {who} is outside -{limit:g} to {limit:g} {unit}",
            fix=f"use at most {limit:g} {unit}",
        )


def check_limit(who: str, what: str, value: float, low: float, high: float, unit: str) -> None:
    """Raise `LimitError` unless a limit can be set."""
    # Written so that NaN fails too.
    if not low <= value <= high:
        raise LimitError(
            f"{what} {value:g} {unit} of {who} is outside {low:g} to {high:g} {unit}",
            fix=f"use {low:g} to {high:g} {unit}",
        )
