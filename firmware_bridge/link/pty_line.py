"""A serial line without hardware: two pseudo-terminals and a thread that carries bytes between them, for tests.

    with PtyLine(baud=921600) as line:
        listener = SerialListener(f"serial://{line.board_path}")
        channel = SerialChannel(f"serial://{line.host_path}")

It keeps to the time that a line of that rate takes, and damages bytes on request. Unlike a line with a receiver that is
too slow it loses none by itself: it holds them until the other end reads.
"""

from __future__ import annotations

import os
import select
import threading
import time
from dataclasses import dataclass

import numpy as np

from firmware_bridge.link.reliable import BITS_PER_BYTE
from hil.errors import ConfigError

#: bytes travel in bunches of this long, which is also the delay that a bunch adds
_BUNCH_S = 0.002
#: how far behind its schedule a busy line may catch up after the thread was late
_LATE_MAX_S = 0.2
_READ_BYTES = 4096


@dataclass
class _Way:
    """One direction of the line.

    Attributes:
        source, sink: descriptors of the terminals.
        random: faults.
        bunch: bytes on the line, which faults may have left empty; None while the line is free.
        due_s: when the line will have carried them.
        carried: bytes that have gone in, for good or ill.
    """

    source: int
    sink: int
    random: np.random.Generator
    bunch: bytes | None = None
    due_s: float = 0.0
    carried: int = 0


class PtyLine:
    """Two serial ports joined by a line. Linux and macOS.

    Args:
        baud: rate, 10 bits to a byte; None for as fast as it goes.
        lose, flip: probability of each byte to be lost, or to have one bit changed; may be set at any time.
        seed: of these faults.

    Attributes:
        host_path, board_path: the two ports.

    Raises:
        ConfigError: this system has no pseudo-terminals.
    """

    def __init__(self, baud: int | None = None, *, lose: float = 0.0, flip: float = 0.0, seed: int = 0) -> None:
        try:
            import tty
        except ImportError as error:
            raise ConfigError(
                "a line of pseudo-terminals needs Linux or macOS, this is neither", fix="use two real ports"
            ) from error
        self.lose, self.flip = lose, flip
        self._byte_s = BITS_PER_BYTE / baud if baud else 0.0
        self._bunch_bytes = max(1, round(_BUNCH_S / self._byte_s)) if baud else _READ_BYTES
        self._cut = threading.Event()
        (host, host_port), (board, board_port) = os.openpty(), os.openpty()
        # The ports' own descriptors stay open: a terminal whose last user left would report a fault.
        self._descriptors = (host, host_port, board, board_port)
        for port in (host_port, board_port):
            tty.setraw(port)
        for descriptor in self._descriptors:
            os.set_blocking(descriptor, False)
        self.host_path, self.board_path = os.ttyname(host_port), os.ttyname(board_port)
        up, down = (np.random.default_rng([seed, way]) for way in range(2))
        self._to_board, self._to_host = _Way(host, board, up), _Way(board, host, down)
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._run, name="pty line", daemon=True)
        self._thread.start()

    def __enter__(self) -> PtyLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def to_board_bytes(self) -> int:
        """Bytes that the host has put onto the line."""
        return self._to_board.carried

    @property
    def to_host_bytes(self) -> int:
        """Bytes that the board has put onto the line."""
        return self._to_host.carried

    def cut(self) -> None:
        """From now on nothing arrives at either end."""
        self._cut.set()

    def mend(self) -> None:
        """End `cut`."""
        self._cut.clear()

    def close(self) -> None:
        """Remove both ports; safe to call twice."""
        if not self._thread.is_alive():
            return
        os.write(self._stopper, b"s")
        self._thread.join()
        for descriptor in (*self._descriptors, self._stop, self._stopper):
            os.close(descriptor)

    def _run(self) -> None:
        ways = (self._to_board, self._to_host)
        while True:
            now_s = time.monotonic()
            reading, writing, wake_s = [self._stop], [], now_s + 3600.0
            for way in ways:
                self._move(way, now_s)
                if way.bunch is None:
                    reading.append(way.source)
                elif way.due_s <= now_s:
                    writing.append(way.sink)
                else:
                    wake_s = min(wake_s, way.due_s)
            ready, _, _ = select.select(reading, writing, [], max(0.0, wake_s - time.monotonic()))
            if self._stop in ready:
                return

    def _move(self, way: _Way, now_s: float) -> None:
        """Bring a bunch that is due to its end; if the line is then free, take the next."""
        was_busy = way.bunch is not None
        if way.bunch is not None:
            if way.due_s > now_s:
                return
            way.bunch = way.bunch[_write(way.sink, way.bunch) :]
            if way.bunch:
                way.due_s = now_s  # nobody reads: the line stands still
                return
            way.bunch = None
        data = _read(way.source, self._bunch_bytes)
        if data:
            # A line that never paused is on schedule however late this thread woke.
            start_s = max(way.due_s, now_s - _LATE_MAX_S) if was_busy else now_s
            way.due_s = start_s + len(data) * self._byte_s
            way.carried += len(data)
            way.bunch = self._damaged(way, data)

    def _damaged(self, way: _Way, data: bytes) -> bytes:
        if self._cut.is_set():
            return b""
        if not (self.lose or self.flip):
            return data
        content = np.frombuffer(data, np.uint8)
        # One row for each byte: the faults are the same however the bytes are bunched.
        lose, flip, bit = way.random.random((content.size, 3)).T
        flipped = content ^ np.left_shift(1, (8 * bit).astype(np.uint8))
        return np.where(flip < self.flip, flipped, content)[lose >= self.lose].tobytes()


def _read(descriptor: int, count: int) -> bytes:
    try:
        return os.read(descriptor, count)
    except BlockingIOError:
        return b""


def _write(descriptor: int, data: bytes) -> int:
    try:
        return os.write(descriptor, data)
    except BlockingIOError:
        return 0
