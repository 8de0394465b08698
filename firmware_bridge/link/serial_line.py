"""A serial port as a link: the host's end and the daemon's end of `reliable`, over pyserial.

8 data bits, no parity, one stop bit, no flow control: lost bytes are sent again. An FTDI adapter holds bytes back for
its latency timer, 16 ms unless set otherwise, and 1 ms is advised (board-chips.md section 6; MEM, unverified). The port
is asked for low latency, which Linux's driver ftdi_sio turns into 1 ms; elsewhere set it by hand.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import queue
import secrets
import select
import socket
import time
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from firmware_bridge.link.channel import Peer, check_length
from firmware_bridge.link.frames import Decoder, Frame
from firmware_bridge.link.reliable import SILENCE_S, Acceptor, Connection, Counts
from hil.errors import ConfigError, HilError, LimitError, TransportError

log = logging.getLogger(__name__)

DEFAULT_BAUD = 921600
#: from the slowest that carries a frame in about a second to the fastest USB adapters
BAUD_MIN, BAUD_MAX = 9600, 12_000_000
#: A host hears the line only while it sends or receives, and may think in between.
LISTENER_SILENCE_S = 30.0
#: how long closing waits for what was sent to arrive
LINGER_S = 0.5
#: between attempts to open a port that vanished
REOPEN_S = 1.0

_READ_BYTES = 65536
_FORM = f"write serial:///dev/ttyUSB0?baud={DEFAULT_BAUD}"
_OTHER_USE = "close the other program that uses it (a terminal, another `hil`)"
_BUSY = (TransportError, "is in use by another program", "close that program (a terminal, another `hil`)")
_NO_DEVICE = (TransportError, "has no device behind it", "plug the adapter in")
_FORBIDDEN = (
    ConfigError,
    "may not be opened by this user",
    "join the group that owns the port, often dialout (`sudo usermod -aG dialout $USER`), and log in again",
)
_NO_PORT = (ConfigError, "is no serial port", _FORM)
#: what opening a port can fail with: what is wrong, and what to do about it
_OPEN_ERRORS: dict[int, tuple[type[HilError], str, str]] = {
    errno.ENOENT: (
        TransportError,
        "does not exist",
        "plug the adapter in; `python -m serial.tools.list_ports` lists the ports",
    ),
    errno.ENODEV: _NO_DEVICE,
    errno.ENXIO: _NO_DEVICE,
    errno.EIO: _NO_DEVICE,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EBUSY: _BUSY,
    errno.EAGAIN: _BUSY,
    errno.ENOTTY: _NO_PORT,
    errno.EISDIR: _NO_PORT,
}


def serial_address(url: str) -> tuple[str, int]:
    """Path of the port and baud of a URL such as `serial:///dev/ttyUSB0?baud=921600`.

    Raises:
        ConfigError: it is none, the baud is no whole number in range, or a key is unknown.
    """
    parts = urlsplit(url)
    if parts.scheme != "serial" or parts.netloc or len(parts.path) < 2 or parts.fragment:
        raise ConfigError(f"{url!r} names no serial port", fix=_FORM)
    settings = parse_qsl(parts.query, keep_blank_values=True)
    unknown = [key for key, _ in settings if key != "baud"]
    if unknown or len(settings) > 1:
        wrong = f"an unknown key {unknown[0]!r}" if unknown else "baud more than once"
        raise ConfigError(f"{url!r} has {wrong}; the only key is baud", fix=_FORM)
    text = settings[0][1] if settings else str(DEFAULT_BAUD)
    # isdecimal() alone takes digits of other scripts, int() alone takes "9_600" and " 9600".
    if not (text.isascii() and text.isdecimal() and BAUD_MIN <= int(text[:12]) <= BAUD_MAX):
        raise ConfigError(
            f"baud = {text!r} of {url!r} is no whole number from {BAUD_MIN} to {BAUD_MAX}",
            fix="use the baud that the daemon was started with",
        )
    return parts.path, int(text)


class _Engine(Protocol):
    """What turns frames into messages: `Connection` or `Acceptor`."""

    def feed(self, frame: Frame, now_s: float) -> None: ...

    def transmit(self, now_s: float) -> bytes | None: ...

    def wake_s(self) -> float: ...


class _Port:
    """An open port: carries an engine's frames, and can be woken by another thread.

    Raises:
        ConfigError: pyserial is missing, this is not POSIX, the port is none, or it does not know that baud.
        TransportError: the port cannot be opened now.
    """

    def __init__(self, path: str, baud: int) -> None:
        self._name = path
        self._serial = _open(path, baud)
        # pyserial configures the port; its own read and write wait for one direction at a time.
        self._fd: int = self._serial.fileno()
        os.set_blocking(self._fd, False)
        self._decoder = Decoder()
        self._unsent = b""
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def exchange(self, engine: _Engine) -> None:
        """Take what has come, hand over what is due, and wait for nothing.

        Raises:
            TransportError: the port has vanished.
        """
        try:
            self._receive(engine)
            self._transmit(engine)
        except OSError as error:
            raise TransportError(
                f"serial port {self._name} has vanished ({error.strerror or error})",
                fix="check the USB cable, then run again",
            ) from error

    def wait(self, engine: _Engine, until_s: float) -> None:
        """Return when bytes have come, the engine has something due, `wake` was called, or at that time."""
        # A port that takes no more bytes says itself when it does.
        wake_s = until_s if self._unsent else min(until_s, engine.wake_s())
        writing = [self._fd] if self._unsent else []
        ready, _, _ = select.select([self._fd, self._woken], writing, [], max(0.0, wake_s - time.monotonic()))
        if self._woken in ready:
            self._woken.recv(_READ_BYTES)

    def wake(self) -> None:
        """End `wait`; may be called from any thread, and after `close`."""
        # Full: it is woken already. Closed: nobody waits.
        with contextlib.suppress(OSError):
            self._waker.send(b"w")

    def close(self, farewell: bytes = b"") -> None:
        """Give the port back, after a last frame if the port takes it."""
        with contextlib.suppress(OSError):
            os.write(self._fd, farewell)
        with contextlib.suppress(OSError):
            self._serial.close()
        self._woken.close()
        self._waker.close()

    def _receive(self, engine: _Engine) -> None:
        if not select.select([self._fd], [], [], 0)[0]:
            return
        data = os.read(self._fd, _READ_BYTES)
        if not data:
            # Readable with nothing to read is how a port says that its device is gone.
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        for frame in self._decoder.feed(data):
            engine.feed(frame, time.monotonic())

    def _transmit(self, engine: _Engine) -> None:
        while data := self._unsent or engine.transmit(time.monotonic()):
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                written = 0
            self._unsent = data[written:]
            if self._unsent:
                return


class SerialChannel:
    """The host's end. Opens a new connection; when that has failed, close it and make another.

    The port is served within `send` and `receive` only: what `send` could not hand over at once goes out in `receive`.

    Args:
        url: as `serial_address` reads it.
        silence_s: the link is down when an answer is due and nothing was heard for this long.

    Raises:
        ConfigError: the URL is wrong, pyserial is missing, or the port is none or not this user's.
        TransportError: the port is missing or busy.
    """

    slow = True

    def __init__(self, url: str, *, silence_s: float = SILENCE_S) -> None:
        path, baud = serial_address(url)
        self.url = url
        self._port = _Port(path, baud)
        self._connection = Connection(
            secrets.randbits(32),
            name=path,
            is_listener=False,
            baud=baud,
            now_s=time.monotonic(),
            silence_s=silence_s,
        )
        self.heard_s = self._connection.heard_s
        self._closed = False

    @property
    def counts(self) -> Counts:
        """What went over the line so far."""
        return self._connection.counts

    def send(self, message: bytes) -> None:
        self._check_open()
        self._connection.send(message)
        self._exchange()
        if self._connection.failure:
            raise self._connection.failure

    def receive(self, timeout_s: float) -> bytes | None:
        self._check_open()
        until_s = time.monotonic() + timeout_s
        while True:
            self._exchange()
            if self._connection.messages:
                return self._connection.messages.popleft()
            if self._connection.failure:
                raise self._connection.failure
            if time.monotonic() >= until_s:
                return None
            self._port.wait(self._connection, until_s)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TransportError):
            self._linger(time.monotonic() + LINGER_S)
        self._port.close(self._connection.reset_frame())

    def _linger(self, until_s: float) -> None:
        """A last message, such as one that ends a session, is to arrive."""
        connection = self._connection
        while connection.is_open and not (connection.is_idle or connection.failure) and time.monotonic() < until_s:
            self._exchange()
            self._port.wait(connection, until_s)

    def _exchange(self) -> None:
        self._port.exchange(self._connection)
        self.heard_s = self._connection.heard_s

    def _check_open(self) -> None:
        if self._closed:
            raise TransportError(f"the link {self.url} was closed", fix="open it again")


class SerialListener:
    """The daemon's end: one host at a time, the one that opened last.

    The port is served within `receive` only, which must be called again soon: a host that hears nothing for `SILENCE_S`
    gives the link up. A port that vanishes is opened again when it is back.

    Args:
        url: as `serial_address` reads it.
        silence_s: see `LISTENER_SILENCE_S`.

    Raises:
        As `SerialChannel`.
    """

    slow = True
    access = "whoever is at the other end of the line"

    def __init__(self, url: str, *, silence_s: float = LISTENER_SILENCE_S) -> None:
        self.url = url
        self._path, self._baud = serial_address(url)
        self._acceptor = Acceptor(name=self._path, baud=self._baud, silence_s=silence_s)
        self._outgoing: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._port: _Port | None = _Port(self._path, self._baud)
        self._reopen_at_s = 0.0

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        until_s = time.monotonic() + timeout_s
        while True:
            port = self._port or self._reopen()
            self._queue_outgoing()
            if port is not None:
                self._exchange(port)
            if self._acceptor.messages:
                number, message = self._acceptor.messages.popleft()
                return Peer(number.to_bytes(4, "little"), self._path), message
            if time.monotonic() >= until_s:
                return None
            if self._port is not None:
                self._port.wait(self._acceptor, until_s)
            else:
                time.sleep(max(0.0, min(until_s, self._reopen_at_s) - time.monotonic()))

    def send(self, peer: Peer, message: bytes) -> None:
        check_length(len(message))
        self._outgoing.put((int.from_bytes(peer.route, "little"), message))
        if (port := self._port) is not None:
            port.wake()

    def heard_s(self, peer: Peer) -> float:
        held = self._acceptor.connection
        return held.heard_s if held is not None and held.number == int.from_bytes(peer.route, "little") else -math.inf

    def close(self) -> None:
        self._reopen_at_s = math.inf
        port, self._port = self._port, None
        if port is not None:
            held = self._acceptor.connection
            port.close(held.reset_frame() if held is not None else b"")

    def _queue_outgoing(self) -> None:
        while not self._outgoing.empty():
            number, message = self._outgoing.get()
            try:
                self._acceptor.send(number, message)
            except LimitError as error:
                log.warning("a message for %s was dropped: %s", self._path, error)

    def _exchange(self, port: _Port) -> None:
        try:
            port.exchange(self._acceptor)
        except TransportError as error:
            log.warning("%s", error)
            port.close()
            self._port = None

    def _reopen(self) -> _Port | None:
        now_s = time.monotonic()
        if now_s < self._reopen_at_s:
            return None
        self._reopen_at_s = now_s + REOPEN_S
        try:
            self._port = _Port(self._path, self._baud)
        except HilError as error:
            log.debug("%s", error)
        else:
            log.warning("serial port %s is back", self._path)
        return self._port


def _open(path: str, baud: int) -> Any:
    """A configured pyserial port that no other program may open."""
    if os.name != "posix":
        raise ConfigError("serial links need Linux or macOS", fix="use a tcp:// link")
    import termios

    try:
        import serial
    except ImportError as error:
        raise ConfigError(
            f"the serial link to {path} needs pyserial, which is not installed", fix='pip install "crossbar-hil[lab]"'
        ) from error
    try:
        port = serial.Serial(path, baud, timeout=0, rtscts=False, dsrdtr=False, xonxoff=False, exclusive=True)
    except ValueError as error:
        raise ConfigError(f"{path} cannot run at {baud} baud", fix="choose another baud") from error
    except (OSError, termios.error) as error:
        # The system's number of the error is in pyserial's own, or in the one behind it.
        known = [code for each in (error, error.__context__) if each for code in each.args if code in _OPEN_ERRORS]
        unknown = (TransportError, f"cannot be opened: {error}", "check the adapter")
        kind, what, fix = _OPEN_ERRORS[known[0]] if known else unknown
        raise kind(f"{path} {what}", fix=fix) from error
    with contextlib.suppress(ValueError, NotImplementedError):
        port.set_low_latency_mode(True)
    return port
