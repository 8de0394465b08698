"""Instruments at sockets and pseudo-terminals, served by one thread.

    server = ScpiServer()
    port = server.at_socket(instrument)
    server.start()

Commands and answers are lines. Where a real line or instrument may fail, a `Port` does so on request.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from firmware_bridge.emulator.scpi import ScpiInstrument
from hil.errors import ConfigError

_READ_BYTES = 4096
#: what an answer looks like that was garbled on the way
GARBAGE = b"+1.2#E\x7f?,"
#: time that the thread has to end, or to do what another one asks of it
_JOIN_S = 5.0


@dataclass(eq=False)
class Port:
    """One way to an instrument, and what goes wrong on it. Set a fault at any time; counts run down.

    Attributes:
        instrument: behind it.
        resource: name by which VISA opens it.
        silent: fault: nothing is answered, nothing is done.
        disconnect_after: fault: the connection breaks at the command after so many more.
        garble_after: fault: one answer is garbled, after so many more good ones.
        garbage: what is answered then.
    """

    instrument: ScpiInstrument
    resource: str
    silent: bool = False
    disconnect_after: int | None = None
    garble_after: int | None = None
    garbage: bytes = GARBAGE

    def answer(self, line: str) -> bytes | None:
        """What goes back for a line; None for nothing.

        Raises:
            ConnectionError: the connection breaks.
        """
        if self.silent:
            return None
        if self.disconnect_after is not None:
            if self.disconnect_after == 0:
                self.disconnect_after = None
                raise ConnectionError
            self.disconnect_after -= 1
        answer = self.instrument.handle(line)
        if answer is None:
            return None
        if self.garble_after is not None:
            if self.garble_after == 0:
                self.garble_after = None
                return self.garbage + b"\n"
            self.garble_after -= 1
        return answer.encode() + b"\n"


@dataclass(eq=False)
class _Connection:
    """Somebody at a port."""

    port: Port
    descriptor: int
    close: Callable[[], None]
    pending: bytes = field(default=b"", repr=False)


class ScpiServer:
    """Serves instruments until it is closed; one thread, so that an instrument does one thing at a time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wanted: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._woken, self._waker = os.pipe()
        self._selector.register(self._woken, selectors.EVENT_READ, self._do_wanted)
        self._listeners: dict[Port, socket.socket] = {}
        self._connections: dict[int, _Connection] = {}
        self._running = True
        self._thread = threading.Thread(target=self._run, name="scpi server", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """End everything; safe to call twice."""
        if not self._running:
            return
        self._running = False
        if self._thread.is_alive():
            os.write(self._waker, b"w")
            self._thread.join(_JOIN_S)
        for connection in list(self._connections.values()):
            self._end(connection)
        for listener in self._listeners.values():
            listener.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)

    def at_socket(self, instrument: ScpiInstrument, number: int = 0) -> Port:
        """Put an instrument at a TCP port of this machine; 0 takes a free one.

        Raises:
            ConfigError: the port is taken.
        """
        listener = _listen(number)
        port = Port(instrument, f"TCPIP::127.0.0.1::{listener.getsockname()[1]}::SOCKET")
        self._listeners[port] = listener
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(port))
        return port

    def at_terminal(self, instrument: ScpiInstrument) -> Port:
        """Put an instrument at a serial port, which is a pseudo-terminal. Linux and macOS.

        Raises:
            ConfigError: this system has none.
        """
        try:
            import tty
        except ImportError as error:
            raise ConfigError(
                "an instrument at a serial port needs Linux or macOS, this is neither", fix="use its socket"
            ) from error
        ours, theirs = os.openpty()
        # Theirs stays open: a terminal whose last user left would report a fault.
        tty.setraw(theirs)
        os.set_blocking(ours, False)

        def close() -> None:
            os.close(ours)
            os.close(theirs)

        port = Port(instrument, f"ASRL{os.ttyname(theirs)}::INSTR")
        self._begin(_Connection(port, ours, close))
        return port

    def refuse(self, port: Port) -> None:
        """Fault: break the connections of a socket, and let nobody in any more."""
        self._in_thread(lambda: self._refuse(port))

    def _refuse(self, port: Port) -> None:
        listener = self._listeners.pop(port)
        self._selector.unregister(listener)
        listener.close()
        for connection in [c for c in self._connections.values() if c.port is port]:
            self._end(connection)

    def _in_thread(self, wanted: Callable[[], None]) -> None:
        done = threading.Event()

        def do() -> None:
            wanted()
            done.set()

        self._wanted.put(do)
        os.write(self._waker, b"w")
        done.wait(_JOIN_S)

    def _do_wanted(self) -> None:
        os.read(self._woken, _READ_BYTES)
        while not self._wanted.empty():
            self._wanted.get()()

    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select():
                # An earlier event may have ended this one's connection.
                if self._selector.get_map().get(key.fd) is key:
                    key.data()

    def _accept(self, port: Port) -> None:
        connected, _ = self._listeners[port].accept()
        connected.setblocking(False)
        self._begin(_Connection(port, connected.fileno(), connected.close))

    def _begin(self, connection: _Connection) -> None:
        self._connections[connection.descriptor] = connection
        self._selector.register(connection.descriptor, selectors.EVENT_READ, lambda: self._serve(connection))

    def _end(self, connection: _Connection) -> None:
        del self._connections[connection.descriptor]
        self._selector.unregister(connection.descriptor)
        connection.close()

    def _serve(self, connection: _Connection) -> None:
        try:
            read = os.read(connection.descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            read = b""
        try:
            if not read:
                raise ConnectionError
            *lines, connection.pending = (connection.pending + read).split(b"\n")
            for line in lines:
                answer = connection.port.answer(line.decode("latin-1").strip())
                if answer is not None:
                    os.write(connection.descriptor, answer)
        except OSError:
            self._end(connection)


def _listen(number: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", number))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"an instrument cannot listen at port {number}: {reason}", fix="use another port") from None
    return listener
