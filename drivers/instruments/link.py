"""Conversation with one instrument: a command out, an answer in, and a named error for whatever goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from pymeasure.adapters import Adapter

from hil.errors import ProtocolError, TransportError

log = logging.getLogger(__name__)


class Connection(Protocol):
    """What is needed of a VISA resource.

    Attributes:
        timeout: longest wait for an answer, in milliseconds.
    """

    timeout: float

    def write(self, message: str) -> object: ...

    def read(self) -> str: ...

    def close(self) -> None: ...


class Link(Adapter):
    """Adapter of pymeasure over a VISA resource, which says whom an error is about.

    It counts the questions whose answer nobody has read: after an interruption the next answer would belong to them.

    Args:
        connection: opened VISA resource.
        who: the instrument as people know it, for errors.
    """

    def __init__(self, connection: Connection, who: str) -> None:
        super().__init__()
        self.connection = connection
        self.who = who
        self._unread = 0

    def ask(self, question: str) -> str:
        """Write a question and read its answer, without the white space around it."""
        self.drop_answers()
        self.write(question)
        return self.read()

    def drop_answers(self) -> None:
        """Read what earlier questions were answered, so that the next answer belongs to the next question."""
        try:
            while self._unread:
                # One that is no text is an answer, too.
                with suppress(ProtocolError):
                    self.read()
        except TransportError:
            # There is none, and there will be none.
            self._unread = 0

    @contextmanager
    def patience(self, wait_s: float) -> Iterator[None]:
        """Wait at most that long for each answer."""
        before_ms = self.connection.timeout
        self.connection.timeout = wait_s * 1e3
        try:
            yield
        finally:
            self.connection.timeout = before_ms

    def close(self) -> None:
        try:
            super().close()
        except Exception as error:
            log.warning("%s: closing the connection failed: %s", self.who, error)

    def _write(self, command: str, **kwargs: object) -> None:
        # Counted first: an interruption between the two would leave an answer that nobody expects.
        self._unread += "?" in command
        with self._named(f"{command!r} cannot be sent to"):
            self.connection.write(command)

    def _read(self, **kwargs: object) -> str:
        with self._named("no answer from"):
            answer = self.connection.read()
        self._unread = max(0, self._unread - 1)
        return answer.strip()

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except UnicodeError as error:
            self._unread = max(0, self._unread - 1)
            raise ProtocolError(
                f"{self.who} answered bytes that are no text: {error}",
                fix="check its cable, baud rate and address",
            ) from error
        except Exception as error:
            # Every VISA library and each of its interfaces has exceptions of its own.
            raise TransportError(
                f"{what} {self.who}: {error or type(error).__name__}",
                fix="check that it is switched on and connected, and its address; hil doctor lists what answers",
            ) from error
