"""A link within this process, hosts and backends that can be steered, and daemons on threads."""

from __future__ import annotations

import itertools
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.daemon.journal import Journal
from firmware_bridge.daemon.server import Daemon
from firmware_bridge.link import messages as msg
from firmware_bridge.link.channel import Peer
from firmware_bridge.remote_backend import RemoteBackend
from hil.backend import (
    BackendInfo,
    Capabilities,
    Check,
    CrossbarBackend,
    Limits,
    Pulse,
    PulseReport,
    RowInput,
    Telemetry,
    check_out,
)
from hil.bench_access import BenchAccess
from hil.errors import DeviceError, TransportError
from hil.spikes import PackedSpikes
from hil.tile import Tile
from hil.wiring import Wiring

Way: TypeAlias = Literal["request", "reply"]
#: "lost" is noticed by nobody; "cut" loses the message and breaks all channels, which the hosts notice; "arrives, cut"
#: breaks them after it
Fate: TypeAlias = Literal["arrives", "lost", "cut", "arrives, cut"]


class Wire:
    """A `Listener`, and the `Channel`s to it; what becomes of a message can be chosen.

    Attributes:
        up: whether anything gets through; the hosts do not notice.
        refuses: whether new channels fail at once.
        lose_replies: so many messages to hosts are lost, then none.
        lose_requests: the same of messages to the daemon; the link is silent then.
        fate: asked about every message that is not lost by one of these.
        log: all messages to the daemon, and who sent them.
    """

    url, access, slow = "wire", "this process", False

    def __init__(self, *, slow: bool = False) -> None:
        self.slow = slow
        self.up = True
        self.refuses = False
        self.lose_replies = self.lose_requests = 0
        self.fate: Callable[[Way, bytes], Fate] = lambda way, message: "arrives"
        self.log: list[tuple[Peer, bytes]] = []
        self._in: queue.SimpleQueue[tuple[Peer, bytes]] = queue.SimpleQueue()
        self._out: dict[bytes, queue.SimpleQueue[bytes | None]] = {}
        self._broken: set[bytes] = set()

    # The daemon's end

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        try:
            return self._in.get(timeout=min(timeout_s, 0.01))  # a daemon that stops waits for this
        except queue.Empty:
            return None

    def send(self, peer: Peer, message: bytes) -> None:
        if self.lose_replies:
            self.lose_replies -= 1
        elif self.up and peer.route in self._out:
            self._carry("reply", message, lambda: self._out[peer.route].put(message))

    def heard_s(self, peer: Peer) -> float:
        return -math.inf

    def close(self) -> None:
        self.up = False

    # The hosts' ends

    def connect(self, url: str = "wire") -> WireChannel:
        if self.refuses:
            raise TransportError("nobody listens at the wire", fix="wait")
        route = str(len(self._out)).encode()
        self._out[route] = queue.SimpleQueue()
        return WireChannel(self, Peer(route, "test"))

    def put(self, peer: Peer, message: bytes) -> None:
        self._check_whole(peer)
        self.log.append((peer, message))
        if self.lose_requests:
            self.lose_requests -= 1
        elif self.up:
            self._carry("request", message, lambda: self._in.put((peer, message)))

    def get(self, peer: Peer, timeout_s: float) -> bytes | None:
        self._check_whole(peer)
        try:
            found = self._out[peer.route].get(timeout=timeout_s) if timeout_s else self._out[peer.route].get_nowait()
        except queue.Empty:
            return None
        self._check_whole(peer)
        return found

    # Faults

    def cut(self) -> None:
        """Break all channels: what is on its way to a host is lost, and the hosts notice."""
        self._broken.update(self._out)
        for out in list(self._out.values()):
            out.put(None)

    def _carry(self, way: Way, message: bytes, deliver: Callable[[], None]) -> None:
        fate = self.fate(way, message)
        if fate.startswith("arrives"):
            deliver()
        if fate.endswith("cut"):
            self.cut()

    def _check_whole(self, peer: Peer) -> None:
        if peer.route in self._broken:
            raise TransportError("the wire was cut", fix="connect again")


class WireChannel:
    """The host's end of a `Wire`."""

    def __init__(self, wire: Wire, peer: Peer) -> None:
        self._wire, self.peer = wire, peer
        self.url, self.slow = wire.url, wire.slow
        self.heard_s = 0.0
        self._open = True

    def send(self, message: bytes) -> None:
        if not self._open:
            raise TransportError("the channel is closed", fix="open it")
        self._wire.put(self.peer, message)

    def receive(self, timeout_s: float) -> bytes | None:
        found = self._wire.get(self.peer, timeout_s)
        if found is not None:
            self.heard_s = time.monotonic()
        return found

    def close(self) -> None:
        self._open = False


class RawHost:
    """A host that sends what it is told, and beats only when told to."""

    def __init__(self, wire: Wire, *, who: str = "raw", session: bytes | None = None) -> None:
        self.session = session or secrets.token_bytes(msg.SESSION_BYTES)
        self.channel = wire.connect()
        self._numbers = itertools.count(1)
        self.hello = self.ok("hello", version="0", who=who)

    def message(self, do: str, **fields: Any) -> dict[str, Any]:
        """A request, with a number of its own unless one is given."""
        number = fields.pop("id") if "id" in fields else next(self._numbers)
        return {"v": msg.PROTOCOL, "id": number, "do": do, "session": self.session, **fields}

    def send(self, message: Mapping[str, Any]) -> None:
        self.channel.send(msg.pack(message, slow=False))

    def reply(self, number: int, timeout_s: float = 5.0) -> dict[str, Any]:
        """The next reply of this number; others are dropped."""
        give_up_s = time.monotonic() + timeout_s
        while time.monotonic() < give_up_s:
            found = self.channel.receive(0.05)
            if found is not None and (reply := msg.unpack(found)).get("id") == number:
                return reply
        raise AssertionError(f"no reply to request {number} within {timeout_s:g} s")

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        message = self.message(do, **fields)
        self.send(message)
        return self.reply(message["id"])

    def ok(self, do: str, **fields: Any) -> dict[str, Any]:
        reply = self.ask(do, **fields)
        assert "error" not in reply, reply["error"]
        return reply["ok"]

    def error(self, do: str, **fields: Any) -> dict[str, str]:
        reply = self.ask(do, **fields)
        assert "error" in reply, reply
        return reply["error"]

    def vmm(self, x: NDArray[Any], tile: Tile | None, *, slot: int = 0) -> dict[str, Any]:
        """Fields of a VMM."""
        fields = None if tile is None else msg.tile_fields(tile)
        return {"slot": slot, "tile": fields, "v_read_v": 0.2, "x": msg.rows_fields(x)}

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> dict[str, Any]:
        """Fields of a pulse."""
        return {"mask": msg.array_fields(mask), "pulse": msg.pulse_fields(pulse)}


class FakeBackend(CrossbarBackend, BenchAccess):
    """An array of exact conductances that counts the pulses of every cell, and can be made to wait or fail.

    Attributes:
        calls: names of all calls but `telemetry`, which the daemon makes by itself.
        pulses: pulses that each cell had.
        overlaps: calls that began while another was under way.
        fails: errors that the next call of a name raises.
        holds: names of calls that wait until `release` or `abort`.
        held: set while one waits.
        reacts: whether `abort` ends a call that waits.
        wiring: part of its description.
        asked: arguments of `hold_row` and `sense`.
    """

    SHAPE = (8, 6)

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.pulses = np.zeros(self.SHAPE, np.int64)
        self.overlaps = 0
        self.fails: dict[str, list[BaseException]] = {}
        self.holds: set[str] = set()
        self.held = threading.Event()
        self.reacts = True
        self.wiring: Wiring | None = None
        self.asked: list[tuple[Any, ...]] = []
        self.checks: list[Check] = [Check("array", True, "answers")]
        self.is_open = False
        self._go = threading.Event()
        self._aborted = False
        self._busy = threading.Lock()
        rng = np.random.default_rng(5)
        self._g_s = rng.uniform(1e-6, 1e-4, self.SHAPE)

    @property
    def info(self) -> BackendInfo:
        return BackendInfo(
            name="fake",
            shape=self.SHAPE,
            identity={"chip": "none"},
            capabilities=Capabilities(pulse_kinds=frozenset({"form", "set"}), analogue_rows=True, bench=True),
            limits=Limits(
                v_read_max_v=0.5, v_pulse_max_v=4.0, v_gate_max_v=3.0, pulse_width_max_s=1e-3, pulses_per_cell_max=100
            ),
            calibration_id="a calibration",
            wiring=self.wiring,
        )

    def n_calls(self, *names: str) -> int:
        return sum(name in names for name in self.calls)

    def release(self) -> None:
        """Let the call that waits go on, and hold no other."""
        self.holds.clear()
        self._go.set()

    def open(self) -> None:
        with self._call("open"):
            self._aborted = False
            self.is_open = True

    def close(self) -> None:
        with self._call("close"):
            self.is_open = False

    def make_safe(self) -> None:
        with self._call("make_safe"):
            self._aborted = False

    def abort(self) -> None:
        self.calls.append("abort")
        self._aborted = True
        if self.reacts:
            self._go.set()

    def self_test(self) -> list[Check]:
        return self.checks

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        with self._call("vmm"):
            if out is None:
                out = np.empty((len(x), tile.n_outputs), np.float32)
            check_out(out, x, tile)
            rows = x.unpack() if isinstance(x, PackedSpikes) else x
            currents = v_read_v * (rows.astype(float) @ self._g_s[np.ix_(tile.rows, tile.cols)])
            n = tile.n_outputs
            out[:] = currents[:, :n] - currents[:, n:] if tile.differential else currents
            return out

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        with self._call("read"):
            return v_read_v * self._g_s[mask]

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        with self._call("pulse"):
            self.pulses += mask
            return PulseReport(int(mask.sum()), pulse, pulse)

    def hold_row(self, row: int, voltage_v: float) -> None:
        with self._call("hold_row"):
            self.asked.append((row, voltage_v))

    def sense(
        self,
        cols: NDArray[np.intp],
        *,
        n_average: int = 1,
        row: int | None = None,
        v_read_v: float = 0.0,
        settle_s: float | None = None,
    ) -> NDArray[np.float64]:
        with self._call("sense"):
            self.asked.append((cols.tolist(), n_average, row, v_read_v, settle_s))
            return v_read_v * self._g_s[0 if row is None else row, cols]

    def telemetry(self) -> Telemetry:
        return Telemetry({"pulse_count": float(self.pulses.sum()), "vmm_count": float(self.n_calls("vmm"))})

    @contextmanager
    def _call(self, name: str) -> Iterator[None]:
        alone = self._busy.acquire(blocking=False)
        self.overlaps += not alone
        try:
            self.calls.append(name)
            if name in ("vmm", "read", "pulse", "hold_row", "sense"):
                if not self.is_open:
                    raise DeviceError("the array is not open", fix="open it")
                self._wait(name)
                if self._aborted:
                    raise DeviceError("the array was aborted", fix="call make_safe")
            elif name == "open":
                self._wait(name)
            if self.fails.get(name):
                raise self.fails[name].pop(0)
            yield
        finally:
            if alone:
                self._busy.release()

    def _wait(self, name: str) -> None:
        if name in self.holds:
            self._go.clear()
            self.held.set()
            assert self._go.wait(20), f"{name} was neither released nor aborted"
            self.held.clear()


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


def wait_until(holds: Callable[[], bool], timeout_s: float = 5.0) -> float:
    """Wait until something holds; the time that it took."""
    start_s = time.monotonic()
    while not holds():
        assert time.monotonic() < start_s + timeout_s, "it never came to hold"
        time.sleep(0.002)
    return time.monotonic() - start_s
