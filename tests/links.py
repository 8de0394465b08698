"""A link within this process, and daemons on threads, for tests of what is above the links."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from firmware_bridge.daemon.journal import Journal
from firmware_bridge.daemon.server import Daemon
from firmware_bridge.link.channel import Peer
from firmware_bridge.remote_backend import RemoteBackend
from hil.backend import CrossbarBackend
from hil.errors import TransportError


class Wire:
    """A `Listener`, and the `Channel`s to it; messages can be lost on demand.

    Attributes:
        up: whether anything gets through.
        lose_replies: so many messages to hosts are lost, then none.
        lose_requests: the same of messages to the daemon; the link is silent then.
    """

    url, access, slow = "wire", "this process", False

    def __init__(self, *, slow: bool = False) -> None:
        self.slow = slow
        self.up = True
        self.lose_replies = self.lose_requests = 0
        self.log: list[bytes] = []
        self._in: queue.SimpleQueue[tuple[Peer, bytes] | None] = queue.SimpleQueue()
        self._out: dict[bytes, queue.SimpleQueue[bytes]] = {}

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        try:
            return self._in.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def send(self, peer: Peer, message: bytes) -> None:
        if self.lose_replies:
            self.lose_replies -= 1
        elif self.up and peer.route in self._out:
            self._out[peer.route].put(message)

    def close(self) -> None:
        self.up = False

    def connect(self, url: str = "wire") -> WireChannel:
        route = str(len(self._out)).encode()
        self._out[route] = queue.SimpleQueue()
        return WireChannel(self, Peer(route, "test"))

    def put(self, peer: Peer, message: bytes) -> None:
        self.log.append(message)
        if self.lose_requests:
            self.lose_requests -= 1
        elif self.up:
            self._in.put((peer, message))

    def get(self, peer: Peer, timeout_s: float) -> bytes | None:
        try:
            return self._out[peer.route].get(timeout=timeout_s) if timeout_s else self._out[peer.route].get_nowait()
        except queue.Empty:
            return None


class WireChannel:
    """The host's end of a `Wire`."""

    def __init__(self, wire: Wire, peer: Peer) -> None:
        self._wire, self._peer = wire, peer
        self.url, self.slow = wire.url, wire.slow
        self.heard_s = 0.0
        self._open = True

    def send(self, message: bytes) -> None:
        if not self._open:
            raise TransportError("the channel is closed", fix="open it")
        self._wire.put(self._peer, message)

    def receive(self, timeout_s: float) -> bytes | None:
        found = self._wire.get(self._peer, timeout_s)
        if found is not None:
            self.heard_s = time.monotonic()
        return found

    def close(self) -> None:
        self._open = False


@contextmanager
def served(
    backend: CrossbarBackend, *listeners: object, journal: Journal | None = None, lease_s: float = 2.0
) -> Iterator[Daemon]:
    """A daemon whose main thread is a thread of this process; ends as by a signal."""
    daemon = Daemon(backend, journal or Journal(None), lease_s=lease_s)
    problems: list[BaseException] = []

    def main() -> None:
        try:
            daemon.serve(listeners)  # type: ignore[arg-type]
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=main)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert not problems, problems


def remote(wire: Wire) -> RemoteBackend:
    return RemoteBackend("wire", connect=wire.connect)
