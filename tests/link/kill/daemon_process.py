"""The daemon of the kill tests: the product's own, on a board that another process emulates."""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import numpy as np
from boards import profile
from kill.processes import die_with_parent, log_to
from numpy.typing import NDArray

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.daemon.journal import Journal
from firmware_bridge.daemon.server import Daemon
from firmware_bridge.link import messages as msg
from firmware_bridge.link.tcp import TcpListener
from hil.errors import TransportError


class BusLine:
    """A `RegisterBus` whose registers are in another process."""

    def __init__(self, address: str) -> None:
        self._line = Client(address, family="AF_UNIX")

    def read(self, offset: int) -> int:
        return self._call("read", offset)

    def write(self, offset: int, value: int) -> None:
        self._call("write", offset, value)

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        self._call("write_block", offset, words)

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        return self._call("read_stream", count)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            self._line.send((name, arguments))
            failed, found = self._line.recv()
        except (OSError, EOFError) as error:
            raise TransportError(f"the board's process is gone: {error!r}", fix="see its log") from None
        if failed:
            raise msg.error_of(found)
        return found


def serve(bus: str, tree: Mapping[str, Any], port: int, folder: Path, lease_s: float, ready: Connection) -> None:
    """Serve the board at `bus` on a port (0: a free one); says where on `ready`."""
    log_to(folder / "daemon.log")
    die_with_parent()
    backend = BoardBackend(BusLine(bus), profile(dict(tree)), name="emulator")
    daemon = Daemon(backend, Journal(folder / "pulses.sqlite"), lease_s=lease_s, folder=folder)
    listener = TcpListener("127.0.0.1", port)
    ready.send(int(listener.url.rpartition(":")[2]))
    daemon.serve([listener])
