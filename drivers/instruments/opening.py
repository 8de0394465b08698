"""Opening an instrument so that its output is off at every exit."""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from drivers.instruments.link import Link
from drivers.instruments.models import model_of
from drivers.instruments.visa import TIMEOUT_S, open_link
from hil.errors import DeviceError
from hil.instruments import Instrument
from hil.session import Terminated, describe, is_known_safe, note_safe

#: opens a link to a resource, for an instrument of that name
Opener = Callable[[str, str], Link]


class OpenedInstrument:
    """Context manager around an instrument: known state on entry, output off on exit.

    SIGTERM ends the block by `Terminated` where the program does not handle it otherwise; Ctrl-C and SIGTERM wait while
    the output is switched off. What passes this by, such as an interruption in the very moment before it, is caught at
    the end of the program.

    Args:
        role: of `hil.instruments.ROLES`.
        resource: its VISA name.
        opener: opens the link.
    """

    def __init__(self, role: str, resource: str, opener: Opener) -> None:
        self._role = role
        self._resource = resource
        self._opener = opener
        self._instrument: Instrument | None = None
        self._ends_by_exception = False

    def __enter__(self) -> Instrument:
        link = self._opener(self._resource, f"the {self._role} at {self._resource}")
        try:
            identity = link.ask("*IDN?")
            model = model_of(self._role, identity, self._resource)
            instrument = model.open(link, identity)
        except BaseException:
            # Nothing was switched yet, by us.
            link.close()
            raise
        self._instrument = instrument
        # Registered after the VISA library's own clean-up, so that it runs before that.
        atexit.register(instrument.close)
        self._watch()
        try:
            instrument.start()
        except BaseException as error:
            self._leave(error)
            raise
        return instrument

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    def _leave(self, first: BaseException | None) -> None:
        try:
            with _signals_wait():
                self._switch_off(first)
        finally:
            self._unwatch()

    def _switch_off(self, first: BaseException | None) -> None:
        instrument = self._instrument
        if instrument is None:
            return
        try:
            instrument.close()
        except DeviceError as error:
            raise _told_with(error, first) from (first or error)
        finally:
            atexit.unregister(instrument.close)

    def _watch(self) -> None:
        # By default SIGTERM ends a program at once, and the output would stay on.
        if _is_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _terminate)
            self._ends_by_exception = True

    def _unwatch(self) -> None:
        if self._ends_by_exception:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._ends_by_exception = False


def open_instrument(
    role: str, resource: str, *, library: str | None = None, timeout_s: float = TIMEOUT_S
) -> OpenedInstrument:
    """Instrument in a known state, whose output is off at every exit of the block.

    Args:
        role: of `hil.instruments.ROLES`.
        resource: VISA name.
        library: of VISA; None for the one of this machine.
        timeout_s: longest wait for the connection and for each answer.

    Raises:
        ConfigError: no VISA name, or an unsupported model, or one of another role; nothing was switched.
        TransportError: it cannot be reached, or is silent.
        DeviceError: it refuses a setting; or, at the exit, THE OUTPUT MAY STILL BE ON.
    """
    return OpenedInstrument(
        role, resource, lambda name, who: open_link(name, who, library=library, timeout_s=timeout_s)
    )


def _told_with(error: DeviceError, first: BaseException | None) -> DeviceError:
    if first is None:
        return error
    told = DeviceError(f"{error.what}; before that: {describe(first)}", fix=error.fix)
    if is_known_safe(first):
        note_safe(told)
    return told


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(128 + number)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect after this, unless it fails: its error is the more important one."""
    # Signal handlers belong to the main thread; others are not interrupted.
    if not _is_main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for number in arrived[:1]:
        signal.raise_signal(number)
