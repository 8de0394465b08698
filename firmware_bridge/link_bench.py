"""Speed of the links: an emulated board through TCP against the same board in this process, and a backend that answers
at once through TCP and through a serial line. Each daemon is a process of its own, as in the lab."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import numpy as np

from firmware_bridge.link.channel import Channel
from firmware_bridge.link.pty_line import PtyLine
from firmware_bridge.link.reliable import BITS_PER_BYTE
from firmware_bridge.link.url import open_channel
from firmware_bridge.remote_backend import RemoteBackend
from hil.backend import CrossbarBackend
from hil.errors import TransportError
from hil.session import open_session
from hil.spikes import PackedSpikes
from hil.tile import Tile

BATCH = 64
#: of the rows, as in N-MNIST
ACTIVITY = 0.089
V_READ_V = 0.2
BAUD = 921600
_ROUNDS, _START_S = 24, 60.0
_NULL_REQUESTS, _NULL_BIG_BATCH, _NULL_BIG_REQUESTS, _SERIAL_BATCHES = 2000, 4096, 10, 6


@dataclass(frozen=True)
class LinkSpeed:
    """What was measured; rates of the null backend are those of the link alone.

    Attributes:
        tcp_over_local: VMM rate of the emulated board through TCP over that in this process, batches of 64; median of
            the rounds.
        local_vmm_per_s, tcp_vmm_per_s: the two rates.
        null_requests_per_s: VMMs of one vector, one request each, one after the other.
        null_mb_per_s: spikes sent and currents received, batches of 4096.
        serial_over_line_rate: bytes of the replies, as packed, over what the line carries in that time.
        serial_useful_over_line_rate: the same of the currents as float32.
        baud: of that line, 10 bits to a byte.
    """

    tcp_over_local: float
    local_vmm_per_s: float
    tcp_vmm_per_s: float
    null_requests_per_s: float
    null_mb_per_s: float
    serial_over_line_rate: float
    serial_useful_over_line_rate: float
    baud: int


def measure_link(local: CrossbarBackend, settings: list[str], tile: Tile, null_tile: Tile, *, seed: int) -> LinkSpeed:
    """Measure all of it.

    Args:
        local: the emulated board in this process.
        settings: the same board's, as KEY=VALUE for the daemon.
        tile: of the emulated board.
        null_tile: of the null backend.
        seed: draws chip and spikes.
    """
    local_s, tcp_s, ratio = _emulator_times(local, settings, tile, seed)
    with _daemon("null", "tcp://127.0.0.1:0", [], seed) as url:
        requests_per_s, mb_per_s = _null_rates(url, null_tile, seed)
    serial, useful = _serial_rates(null_tile, seed)
    return LinkSpeed(
        tcp_over_local=ratio,
        local_vmm_per_s=BATCH / local_s,
        tcp_vmm_per_s=BATCH / tcp_s,
        null_requests_per_s=requests_per_s,
        null_mb_per_s=mb_per_s,
        serial_over_line_rate=serial,
        serial_useful_over_line_rate=useful,
        baud=BAUD,
    )


def _emulator_times(local: CrossbarBackend, settings: list[str], tile: Tile, seed: int) -> tuple[float, float, float]:
    """Median time of a batch here and through TCP, and the median of their ratios, taken in turns.

    Each round has its own ratio, since a machine's speed drifts, and every other round begins with the other.
    """
    x = _spikes(BATCH, tile, seed)
    with (
        _daemon("emulator", "tcp://127.0.0.1:0", settings, seed) as url,
        open_session(local) as here,
        open_session(RemoteBackend(url)) as there,
    ):
        times: dict[CrossbarBackend, list[float]] = {here: [], there: []}
        order = [here, there]
        for _ in range(1 + _ROUNDS):
            order.reverse()
            for session in order:
                start = time.perf_counter()
                session.vmm(x, tile, V_READ_V)
                times[session].append(time.perf_counter() - start)
        # The first VMM on a tile prepares it.
        here_s, there_s = times[here][1:], times[there][1:]
        ratio = median(a / b for a, b in zip(here_s, there_s, strict=True))
        return median(here_s), median(there_s), ratio


def _null_rates(url: str, tile: Tile, seed: int) -> tuple[float, float]:
    one, many = _spikes(1, tile, seed), _spikes(_NULL_BIG_BATCH, tile, seed)
    with open_session(RemoteBackend(url)) as session:
        session.vmm(one, tile, V_READ_V)
        start = time.perf_counter()
        for _ in range(_NULL_REQUESTS):
            session.vmm(one, tile, V_READ_V)
        per_request_s = (time.perf_counter() - start) / _NULL_REQUESTS
        session.vmm(many, tile, V_READ_V)
        start = time.perf_counter()
        for _ in range(_NULL_BIG_REQUESTS):
            session.vmm(many, tile, V_READ_V)
        taken_s = time.perf_counter() - start
    per_vector = -(-tile.n_rows // 8) + 4 * tile.n_outputs
    return 1 / per_request_s, _NULL_BIG_REQUESTS * _NULL_BIG_BATCH * per_vector / taken_s / 1e6


class _Counted:
    """A channel that counts the bytes it brings."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.url, self.slow = channel.url, channel.slow
        self.n_received = 0

    @property
    def heard_s(self) -> float:
        return self._channel.heard_s

    def send(self, message: bytes) -> None:
        self._channel.send(message)

    def receive(self, timeout_s: float) -> bytes | None:
        found = self._channel.receive(timeout_s)
        self.n_received += len(found or b"")
        return found

    def close(self) -> None:
        self._channel.close()


def _serial_rates(tile: Tile, seed: int) -> tuple[float, float]:
    x = _spikes(BATCH, tile, seed)
    links: list[_Counted] = []

    def connect(url: str) -> Channel:
        links.append(_Counted(open_channel(url)))
        return links[-1]

    with (
        PtyLine(baud=BAUD) as line,
        _daemon("null", f"serial://{line.board_path}?baud={BAUD}", [], seed),
        open_session(RemoteBackend(f"serial://{line.host_path}?baud={BAUD}", connect=connect)) as session,
    ):
        session.vmm(x, tile, V_READ_V)
        before = sum(link.n_received for link in links)
        start = time.perf_counter()
        for _ in range(_SERIAL_BATCHES):
            session.vmm(x, tile, V_READ_V)
        line_bytes = (time.perf_counter() - start) * BAUD / BITS_PER_BYTE
        carried = sum(link.n_received for link in links) - before
    return carried / line_bytes, _SERIAL_BATCHES * BATCH * tile.n_outputs * 4 / line_bytes


def _spikes(n: int, tile: Tile, seed: int) -> PackedSpikes:
    return PackedSpikes.pack(np.random.default_rng(seed).random((n, tile.n_rows)) < ACTIVITY)


@contextmanager
def _daemon(backend: str, url: str, settings: list[str], seed: int) -> Iterator[str]:
    """`hil serve` as a process; gives the URL that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["serve", "--backend", backend, "--listen", url, "--seed", str(seed), "--state", folder]
        # A folder without keys: this machine only, whatever keys its user has.
        arguments += ["--keys", f"{folder}/keys", *(word for text in settings for word in ("--set", text))]
        process = subprocess.Popen(
            [sys.executable, "-c", "from hil.cli import main; main()", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            if " at " not in first:
                _, problem = process.communicate(timeout=_START_S)
                raise TransportError(f"the daemon did not start: {problem.strip()[-500:]}", fix="run hil doctor")
            yield first.split(" at ", 1)[1].split(" ", 1)[0].strip()
        finally:
            process.terminate()
            process.communicate(timeout=_START_S)
