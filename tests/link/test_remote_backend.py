"""The remote backend: the same calls as a local one, and whatever breaks, each pulse is applied once or told of."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import emulate
from links import FakeBackend, Fate, RawHost, Way, Wire, remote, served, wait_until

from firmware_bridge import remote_backend
from firmware_bridge.daemon import server
from firmware_bridge.daemon.journal import Journal
from firmware_bridge.daemon.server import Daemon
from firmware_bridge.link import messages as msg
from firmware_bridge.link.channel import MESSAGE_MAX_BYTES
from firmware_bridge.link.pty_line import PtyLine
from firmware_bridge.link.serial_line import DEFAULT_BAUD, SerialListener
from firmware_bridge.remote_backend import RemoteBackend
from hil import open_session
from hil.backend import CrossbarBackend, Pulse
from hil.errors import (
    CapabilityError,
    DeviceError,
    HilError,
    LeaseError,
    LimitError,
    ProtocolError,
    TransportError,
    UncertainError,
    UnconfirmedError,
)
from hil.session import Session, is_known_safe
from hil.spikes import PackedSpikes
from hil.tile import Tile, differential_tile, single_ended_tile
from hil.wiring import Wiring

TILE = differential_tile(8, 3)
ROWS = np.random.default_rng(3).random((5, 8)) < 0.5
MASK = np.eye(8, 6, dtype=np.bool_)
SET = Pulse("set", 2.0, 1.0, 1e-6)
LONG_LEASE_S = 60.0


def pulse_while(session: Session, meanwhile: Callable[[], None]) -> None:
    """Pulse once while something else happens on a thread."""
    thread = threading.Thread(target=meanwhile)
    thread.start()
    try:
        assert session.pulse(MASK, SET).n_cells == MASK.sum()
    finally:
        thread.join()


@pytest.fixture
def host(daemon: Daemon, wire: Wire) -> Iterator[RemoteBackend]:
    """An open one."""
    found = remote(wire)
    found.open()
    yield found
    found.close()


def patience(monkeypatch: pytest.MonkeyPatch, recover_s: float) -> None:
    """How long a host tries to get a link back."""
    monkeypatch.setattr(remote_backend, "_RECOVER_S", recover_s)
    monkeypatch.setitem(RemoteBackend._request.__kwdefaults__, "recover_s", recover_s)


@pytest.fixture
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_backend, "_RETRY_S", 0.01)


quick_retries = pytest.mark.usefixtures("_quick_retries")


def is_a(message: bytes, *kinds: str) -> bool:
    return msg.unpack(message).get("do") in kinds


class TestSameAsLocal:
    @pytest.mark.parametrize("slow", [False, True])
    @pytest.mark.parametrize("tile", [TILE, single_ended_tile(8, 4, col0=1)], ids=["differential", "single-ended"])
    @pytest.mark.parametrize(
        "x",
        [ROWS, ROWS.astype(np.uint8), PackedSpikes.pack(ROWS), ROWS * 0.5, (ROWS * 0.25).astype(np.float32),
         np.zeros((0, 8), np.bool_), ROWS[::2], np.asfortranarray(ROWS * 0.5)],
        ids=["bool", "uint8", "packed", "levels", "float32", "none", "strided", "fortran"],
    )  # fmt: skip
    def test_vmm(self, x: Any, tile: Tile, slow: bool) -> None:
        local, wire = FakeBackend(), Wire(slow=slow)
        local.open()
        with served(FakeBackend(), wire, lease_s=LONG_LEASE_S), open_session(remote(wire)) as session:
            out = np.full((len(x), tile.n_outputs), np.nan, np.float32)
            assert session.vmm(x, tile, 0.2, out=out) is out
            np.testing.assert_array_equal(out, local.vmm(x, tile, 0.2))

    def test_levels_of_a_type_that_no_link_has(self, host: RemoteBackend) -> None:
        """A local backend takes them."""
        x = (ROWS * 0.5).astype(np.float16)
        np.testing.assert_array_equal(host.vmm(x, TILE, 0.2), host.vmm(x.astype(np.float32), TILE, 0.2))

    def test_read_and_pulse(self, backend: FakeBackend, host: RemoteBackend) -> None:
        local = FakeBackend()
        local.open()
        found = host.read(MASK, 0.2, n_average=3)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, local.read(MASK, 0.2))
        assert host.pulse(MASK, SET) == local.pulse(MASK, SET)
        np.testing.assert_array_equal(backend.pulses, local.pulses)
        assert host.telemetry().values["pulse_count"] == MASK.sum()

    @pytest.mark.parametrize("slow", [False, True])
    def test_a_batch_that_does_not_fit_into_a_message_goes_in_pieces(
        self, slow: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(remote_backend, "_CHUNK_BYTES", {False: 100, True: 100})
        local, far, wire = FakeBackend(), FakeBackend(), Wire(slow=slow)
        local.open()
        x = np.random.default_rng(1).random((50, 8)) < 0.5
        with served(far, wire, lease_s=LONG_LEASE_S), open_session(remote(wire)) as session:
            for rows in (x, PackedSpikes.pack(x), x * 0.5):
                np.testing.assert_array_equal(session.vmm(rows, TILE, 0.2), local.vmm(rows, TILE, 0.2))
        assert far.n_calls("vmm") > 6
        assert all(len(message) < 1000 for _, message in wire.log)

    def test_a_tile_is_sent_once(self, wire: Wire, host: RemoteBackend) -> None:
        for _ in range(3):
            host.vmm(ROWS, TILE, 0.2)
        sent = [msg.unpack(data)["tile"] for _, data in wire.log if is_a(data, "vmm")]
        assert [tile is not None for tile in sent] == [True, False, False]

    def test_more_tiles_than_the_daemon_keeps(self, backend: FakeBackend, host: RemoteBackend) -> None:
        rng = np.random.default_rng(8)
        local = FakeBackend()
        local.open()
        tiles = [Tile(rng.permutation(8)[:4], rng.permutation(6)[:2]) for _ in range(msg.TILE_SLOTS + 9)]
        for tile in [*tiles, *tiles[::-1], *rng.permutation(np.array(tiles, object)).tolist()]:
            np.testing.assert_array_equal(host.vmm(ROWS[:, :4], tile, 0.2), local.vmm(ROWS[:, :4], tile, 0.2))

    def test_tiles_that_come_and_go(self, host: RemoteBackend) -> None:
        """A new tile at the address of an old one is not taken for it."""
        local = FakeBackend()
        local.open()
        for k in range(200):
            tile = single_ended_tile(8, 1, col0=k % 6)
            np.testing.assert_array_equal(host.vmm(ROWS, tile, 0.2), local.vmm(ROWS, tile, 0.2))

    def test_a_tile_that_was_refused_is_sent_again(self, backend: FakeBackend, host: RemoteBackend) -> None:
        backend.fails["vmm"] = [DeviceError("lane 2 is dead", fix="look")]
        with pytest.raises(DeviceError):
            host.vmm(ROWS, TILE, 0.2)
        host.vmm(ROWS, TILE, 0.2)
        host.vmm(ROWS, TILE, 0.2)

    def test_tiles_are_sent_again_in_the_next_session(self, daemon: Daemon, wire: Wire) -> None:
        host = remote(wire)
        for _ in range(2):
            with open_session(host) as session:
                assert np.isfinite(session.vmm(ROWS, TILE, 0.2)).all()

    def test_currents_that_are_no_numbers_arrive(
        self, host: RemoteBackend, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is not a number is a result, not a malformed message."""
        monkeypatch.setattr(backend, "read", lambda *args, **kwargs: np.array([np.nan, np.inf] * 3))
        np.testing.assert_array_equal(host.read(MASK, 0.2), np.array([np.nan, np.inf] * 3))


class TestBenchAccess:
    COLS = np.array([5, 0, 3])

    def test_same_as_local(self, backend: FakeBackend, host: RemoteBackend) -> None:
        local = FakeBackend()
        local.open()
        for near in (local, host):
            near.hold_row(7, 1.6)
            near.sense(self.COLS)
            found = near.sense(self.COLS, n_average=4, row=2, v_read_v=-0.1, settle_s=3e-6)
        assert backend.asked == local.asked
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, local.sense(self.COLS, row=2, v_read_v=-0.1))

    def test_through_a_session_with_numbers_of_numpy(self, daemon: Daemon, wire: Wire, backend: FakeBackend) -> None:
        with open_session(remote(wire)) as session:
            session.hold_row(np.arange(8)[3], np.float64(1.0))
            session.sense(self.COLS.astype(np.uint8), row=np.arange(8)[2], v_read_v=np.float32(0.25))
        assert backend.asked == [(3, 1.0), ([5, 0, 3], 1, 2, 0.25, None)]

    def test_the_daemons_board_decides_whether_it_can(
        self, daemon: Daemon, host: RemoteBackend, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        can = dataclasses.replace(backend.info.capabilities, bench=False)
        plain = dataclasses.replace(backend.info, capabilities=can)
        monkeypatch.setattr(FakeBackend, "info", property(lambda self: plain))
        with pytest.raises(CapabilityError, match="no access to its lines"):
            host.hold_row(0, 1.0)

    def test_a_backend_without_a_wiring_has_none_behind_a_link(self, daemon: Daemon, wire: Wire) -> None:
        assert remote(wire).info.wiring is None

    def test_what_the_power_up_found_dead_arrives_with_open(self, backend: FakeBackend, wire: Wire) -> None:
        def wired(ok: bool) -> Wiring:
            lines = [np.zeros(n, np.intp) for n in (8, 8, 6)]
            return Wiring(*lines, True, True, ("a",), ("b",), np.full(8, ok), np.full(6, ok))

        backend.wiring = wired(True)
        with served(backend, wire, lease_s=LONG_LEASE_S):
            host = remote(wire)
            before = host.info.wiring
            backend.wiring = wired(False)
            with open_session(host) as session:
                after = session.info.wiring
        assert before is not None
        assert before.row_ok.all()
        assert after is not None
        assert not after.row_ok.any()
        assert not after.col_ok.any()

    @quick_retries
    @pytest.mark.parametrize("fate", ["cut", "arrives, cut"])
    @pytest.mark.parametrize("way", ["request", "reply"])
    def test_it_is_done_once_when_the_link_breaks(
        self, fate: Fate, way: Way, wire: Wire, host: RemoteBackend, backend: FakeBackend
    ) -> None:
        broken: list[Way] = []

        def breaks(now: Way, message: bytes) -> Fate:
            found = msg.unpack(message)
            if not broken and now == way and (now == "reply" or found.get("do") == "sense"):
                broken.append(now)
                return fate
            return "arrives"

        wire.fate = breaks
        found = host.sense(self.COLS, row=1, v_read_v=0.2)
        assert broken
        assert backend.n_calls("sense") == 1
        assert found.shape == (3,)

    def test_a_host_that_is_silent_ends_it(self, backend: FakeBackend, wire: Wire) -> None:
        backend.holds.add("sense")
        with served(backend, wire, lease_s=0.5):
            raw = RawHost(wire)
            raw.ok("open")
            raw.send(raw.message("sense", cols=[0], n_average=1, row=None, v_read_v=0.0, settle_s=None))
            assert backend.held.wait(5)
            wait_until(lambda: backend.calls[-2:] == ["make_safe", "close"])
        assert "abort" in backend.calls


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "kind"),
        [
            (lambda host: host.vmm(ROWS, TILE, 9.0), LimitError),
            (lambda host: host.vmm(ROWS, single_ended_tile(8, 7), 0.2), LimitError),
            (lambda host: host.vmm(ROWS[:, :7], TILE, 0.2), LimitError),
            (lambda host: host.vmm(ROWS * 2.0, TILE, 0.2), LimitError),
            (lambda host: host.vmm(ROWS * np.nan, TILE, 0.2), LimitError),
            (lambda host: host.read(MASK[:-1], 0.2), LimitError),
            (lambda host: host.read(MASK, 0.2, n_average=0), LimitError),
            (lambda host: host.hold_row(8, 1.0), LimitError),
            (lambda host: host.hold_row(0, 4.5), LimitError),
            (lambda host: host.sense(np.array([-1])), LimitError),
            (lambda host: host.sense(np.array([0]), row=-1), LimitError),
            (lambda host: host.sense(np.array([0]), row=0, v_read_v=9.0), LimitError),
            (lambda host: host.sense(np.array([0]), settle_s=1.0), LimitError),
            (lambda host: host.pulse(MASK, Pulse("set", 9.0, 1.0, 1e-6)), LimitError),
            (lambda host: host.pulse(MASK, Pulse("reset", 1.0, 1.0, 1e-6)), CapabilityError),
        ],
        ids=[
            "read voltage",
            "tile",
            "rows",
            "levels",
            "nan",
            "mask",
            "average",
            "held row",
            "held level",
            "column",
            "driven row",
            "sense voltage",
            "settling",
            "pulse voltage",
            "pulse kind",
        ],
    )
    def test_of_the_daemons_own_session(
        self, call: Callable[[CrossbarBackend], object], kind: type[HilError], backend: FakeBackend, host: RemoteBackend
    ) -> None:
        """Asked directly, as if the host's session had let it pass; the text is that of a local session."""
        with pytest.raises(kind) as far:
            call(host)
        with open_session(FakeBackend()) as session, pytest.raises(kind) as near:
            call(session)
        assert str(far.value) == str(near.value)
        assert backend.n_calls("vmm", "read", "pulse", "hold_row", "sense") == 0

    @pytest.mark.parametrize("kind", [DeviceError, TransportError, UncertainError, ProtocolError, LimitError])
    def test_of_the_backend(self, kind: type[HilError], backend: FakeBackend, host: RemoteBackend) -> None:
        for call in (lambda: host.vmm(ROWS, TILE, 0.2), lambda: host.pulse(MASK, SET), lambda: host.read(MASK, 0.2)):
            name = "vmm" if not backend.n_calls("vmm") else "pulse" if not backend.n_calls("pulse") else "read"
            backend.fails[name] = [kind("3 of 5 cells had it, µ", fix="read them")]
            with pytest.raises(HilError) as found:
                call()
            assert type(found.value) is kind
            assert str(found.value) == "3 of 5 cells had it, µ. Fix: read them."

    def test_a_closed_one_says_so(self, daemon: Daemon, wire: Wire) -> None:
        host = remote(wire)
        for call in (lambda: host.vmm(ROWS, TILE, 0.2), lambda: host.pulse(MASK, SET), lambda: host.telemetry()):
            with pytest.raises(DeviceError, match="not open"):
                call()
        host.close()

    def test_a_request_that_is_too_long_is_refused_here(self, wire: Wire, host: RemoteBackend) -> None:
        with pytest.raises(LimitError, match=f"{MESSAGE_MAX_BYTES:,}"):
            host.echo(bytes(MESSAGE_MAX_BYTES), 0)
        host.vmm(ROWS, TILE, 0.2)

    def test_a_reply_that_is_too_long_is_an_error_of_that_request(
        self, host: RemoteBackend, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(backend, "read", lambda *args, **kwargs: np.zeros(MESSAGE_MAX_BYTES // 8))
            with pytest.raises(LimitError, match=f"{MESSAGE_MAX_BYTES:,}"):
                host.read(MASK, 0.2)
        host.read(MASK, 0.2)


class Scripted:
    """A channel to a daemon whose answers are made up; the default is a good daemon's."""

    url, slow, heard_s = "script", False, 0.0

    def __init__(self, **answers: Any) -> None:
        info = msg.info_fields(FakeBackend().info)
        hello = {"protocol": msg.PROTOCOL, "version": "0", "lease_s": 0.5, "info": info}
        self.answers: dict[str, Any] = {"hello": hello, "open": {"info": info}, "beat": {"running": False}, **answers}
        self.replies: list[bytes] = []

    def send(self, message: bytes) -> None:
        request = msg.unpack(message)
        answer = self.answers.get(request["do"], {})
        if isinstance(answer, bytes):
            self.replies.append(answer)
        elif isinstance(answer, dict) and "error" in answer:
            self.replies.append(msg.pack({"id": request["id"], **answer}, slow=False))
        elif answer is not None:
            self.replies.append(msg.pack({"id": request["id"], "ok": answer}, slow=False))

    def receive(self, timeout_s: float) -> bytes | None:
        self.heard_s = time.monotonic()
        if self.replies:
            return self.replies.pop(0)
        time.sleep(min(timeout_s, 0.02))
        return None

    def close(self) -> None:
        pass

    def host(self) -> RemoteBackend:
        return RemoteBackend("script", connect=lambda url: self)


class TestADaemonThatAnswersNonsense:
    def test_one_of_another_version_is_refused_with_both_named(self) -> None:
        """A daemon of the next version reads the number of a request and refuses the rest."""
        what = "the host speaks link protocol 2, this daemon 3"
        script = Scripted(hello={"error": {"kind": "ProtocolError", "what": what, "fix": "install the same"}})
        with pytest.raises(ProtocolError, match=what):
            script.host().open()

    @pytest.mark.parametrize(
        "hello",
        [
            {},
            {"info": 1, "lease_s": 1.0, "version": "0"},
            {"info": msg.info_fields(FakeBackend().info)},
            {"info": msg.info_fields(FakeBackend().info), "lease_s": "long", "version": "0"},
            {"info": msg.info_fields(FakeBackend().info), "lease_s": float("nan"), "version": "0"},
            {"info": msg.info_fields(FakeBackend().info), "lease_s": -1.0, "version": "0"},
            {"error": None},
            {"error": "no"},
        ],
        ids=[
            "empty",
            "no info",
            "no lease",
            "lease in words",
            "lease nan",
            "lease below 0",
            "no error",
            "error in words",
        ],
    )
    def test_at_the_handshake(self, hello: dict[str, Any]) -> None:
        host = Scripted(hello=hello).host()
        try:
            with pytest.raises(HilError):
                host.open()
        finally:
            host.close()

    @pytest.mark.parametrize(
        "data",
        [b"junk", b"\x00\x93\x01\x02\x03", bytes(MESSAGE_MAX_BYTES + 1)],
        ids=["junk", "list", "oversize"],
    )
    def test_bytes_that_are_no_message_at_the_handshake(self, data: bytes) -> None:
        with pytest.raises((ProtocolError, LimitError)):
            Scripted(hello=data).host().open()

    @pytest.mark.parametrize(
        ("do", "answer"),
        [
            ("open", {}),
            ("vmm", {}),
            ("vmm", {"a": None}),
            ("vmm", {"a": msg.array_fields(np.zeros((1, 1)))}),
            ("vmm", {"a": {"t": "<f4", "s": [0, -1], "b": b""}}),
            ("read", {}),
            ("read", {"a": msg.array_fields(np.zeros(7))}),
            ("pulse", {}),
            ("pulse", {"n_cells": 1, "requested": {}, "achieved": None}),
            ("telemetry", {}),
            ("telemetry", {"values": 5}),
            ("status", {}),
            ("status", {"self_test": [{"part": 1}]}),
        ],
        ids=str,
    )
    def test_in_a_result(self, do: str, answer: dict[str, Any]) -> None:
        host = Scripted(**{do: answer}).host()
        calls: dict[str, Callable[[], object]] = {
            "open": lambda: None,
            "vmm": lambda: host.vmm(ROWS, TILE, 0.2),
            "read": lambda: host.read(MASK, 0.2),
            "pulse": lambda: host.pulse(MASK, SET),
            "telemetry": host.telemetry,
            "status": host.self_test,
        }

        def run() -> None:
            host.open()
            calls[do]()

        try:
            with pytest.raises(ProtocolError):
                run()
        finally:
            host.close()


def script(session: CrossbarBackend) -> list[np.ndarray]:
    """A run with each kind of request."""
    found: list[np.ndarray] = []
    for k in range(2):
        mask = np.roll(MASK, k, axis=0)
        session.pulse(mask, SET)
        found += [session.read(mask, 0.2), session.vmm(ROWS, TILE, 0.2)]
        session.make_safe()
        session.pulse(MASK, SET)
    found.append(np.array(session.telemetry().values["pulse_count"]))
    return found


def undisturbed() -> tuple[FakeBackend, list[np.ndarray]]:
    backend = FakeBackend()
    with open_session(backend) as session:
        return backend, script(session)


@quick_retries
class TestExactlyOnce:
    """The link breaks; the host connects again and goes on as if it had not."""

    def run(self, fate: Callable[[Way, bytes], Fate], lease_s: float = LONG_LEASE_S) -> int:
        """Do the script with that fate of messages and compare it with an undisturbed run; number of messages."""
        wanted, results = undisturbed()
        backend, wire, n = FakeBackend(), Wire(), 0

        def counted(way: Way, message: bytes) -> Fate:
            nonlocal n
            n += 1
            return fate(way, message)

        with served(backend, wire, lease_s=lease_s):
            host = remote(wire)
            _ = host.info
            wire.fate = counted
            with open_session(host) as session:
                for found, result in zip(script(session), results, strict=True):
                    np.testing.assert_array_equal(found, result)
            wire.fate = lambda way, message: "arrives"
        np.testing.assert_array_equal(backend.pulses, wanted.pulses)
        assert backend.overlaps == 0
        assert [c for c in backend.calls if c != "make_safe"] == [c for c in wanted.calls if c != "make_safe"]
        return n

    def test_nothing_is_lost(self) -> None:
        assert self.run(lambda way, message: "arrives") > 20

    @pytest.mark.parametrize("fate", ["cut", "arrives, cut"])
    def test_the_link_breaks_at_any_one_message(self, fate: Fate) -> None:
        n = self.run(lambda way, message: "arrives")
        for at in range(n):
            count = iter(range(10**6))
            self.run(lambda way, message, at=at, count=count: fate if next(count) == at else "arrives")

    @pytest.mark.parametrize("seed", range(6))
    def test_it_breaks_again_and_again(self, seed: int) -> None:
        rng = random.Random(seed)
        fates: list[Fate] = ["cut", "arrives, cut"]
        self.run(lambda way, message: rng.choice(fates) if rng.random() < 0.25 else "arrives")

    @pytest.mark.parametrize(
        ("way", "do"),
        [("request", "open"), ("reply", "open"), ("request", "pulse"), ("reply", "pulse"), ("reply", "vmm"),
         ("request", "lookup"), ("reply", "lookup"), ("request", "close")],
    )  # fmt: skip
    def test_a_message_is_lost_and_nobody_notices(self, way: Way, do: str) -> None:
        numbers: set[int] = set()
        lost: Counter[str] = Counter()

        def fate(this_way: Way, message: bytes) -> Fate:
            found = msg.unpack(message)
            if this_way == "request" and found["do"] == do:
                numbers.add(found["id"])
            if do == "lookup" and this_way == "reply" and way == "reply" and not lost["pulse"]:
                # something must break for a lookup to be made
                if "ok" in found and "n_cells" in found["ok"]:
                    lost["pulse"] += 1
                    return "cut"
            elif (do, way, found.get("do")) == ("lookup", "request", "pulse") and not lost["pulse"]:
                lost["pulse"] += 1
                return "cut"
            if this_way == way and found["id"] in numbers and not lost["it"]:
                lost["it"] += 1
                return "lost"
            return "arrives"

        self.run(fate, lease_s=0.6)
        assert lost["it"] == 1

    def test_the_link_is_down_for_a_while(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend, wire = FakeBackend(), Wire()
        with served(backend, wire, lease_s=LONG_LEASE_S), open_session(remote(wire)) as session:
            backend.holds.add("pulse")

            def break_link() -> None:
                assert backend.held.wait(5)
                wire.refuses = True
                wire.cut()
                time.sleep(0.1)
                backend.release()  # ends while nobody hears it
                time.sleep(0.1)
                wire.refuses = False

            thread = threading.Thread(target=break_link)
            thread.start()
            assert session.pulse(MASK, SET).n_cells == MASK.sum()
            thread.join()
        assert (backend.pulses == MASK).all()

    def test_a_long_call_outlives_several_breaks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The time for getting the link back counts from each break, not from the first one."""
        patience(monkeypatch, 0.4)
        backend, wire = FakeBackend(), Wire()
        with served(backend, wire, lease_s=LONG_LEASE_S), open_session(remote(wire)) as session:
            backend.holds.add("pulse")

            def break_link() -> None:
                assert backend.held.wait(5)
                for _ in range(2):
                    wire.refuses = True
                    wire.cut()
                    time.sleep(0.1)
                    wire.refuses = False
                    time.sleep(0.5)
                backend.release()

            pulse_while(session, break_link)
        assert (backend.pulses == MASK).all()

    def test_garbage_on_the_link_during_a_pulse(self) -> None:
        """Bytes that nobody can read say nothing about the pulse."""
        backend, wire = FakeBackend(), Wire()
        with served(backend, wire, lease_s=LONG_LEASE_S), open_session(remote(wire)) as session:
            backend.holds.add("pulse")

            def disturb() -> None:
                assert backend.held.wait(5)
                for out in list(wire._out.values()):
                    out.put(b"garbage")
                backend.release()

            pulse_while(session, disturb)
        assert (backend.pulses == MASK).all()

    def test_the_link_breaks_while_the_host_computes(self) -> None:
        backend, wire = FakeBackend(), Wire()
        with served(backend, wire, lease_s=0.6), open_session(remote(wire)) as session:
            session.pulse(MASK, SET)
            wire.cut()
            time.sleep(0.9)
            session.pulse(MASK, SET)
        assert backend.n_calls("open") == 1
        assert (backend.pulses == 2 * MASK).all()

    def test_a_link_that_goes_dead_while_the_host_computes_is_opened_again_before_the_lease_ends(self) -> None:
        """It takes what it is given and brings nothing back: only the missing answers to the heart's beats tell."""
        backend, wire = FakeBackend(), Wire()
        dead: list[bytes] = []

        def fate(way: Way, message: bytes) -> Fate:
            return "lost" if wire.log and wire.log[-1][0].route in dead else "arrives"

        with served(backend, wire, lease_s=0.6), open_session(remote(wire)) as session:
            session.pulse(MASK, SET)
            dead.append(wire.log[-1][0].route)
            wire.fate = fate
            time.sleep(1.2)
            session.pulse(MASK, SET)
        assert backend.n_calls("open") == 1
        assert (backend.pulses == 2 * MASK).all()


@quick_retries
class TestTheLinkDoesNotComeBack:
    RECOVER_S = 0.3

    @pytest.fixture(autouse=True)
    def _patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        patience(monkeypatch, self.RECOVER_S)
        monkeypatch.setattr(remote_backend, "_LEAVE_S", 0.05)
        monkeypatch.setattr(remote_backend, "_HELLO_S", 0.2)

    def lose(self, wire: Wire, *kinds: str) -> None:
        """All is lost from the next such request on, and the hosts notice."""

        def fate(way: Way, message: bytes) -> Fate:
            if way == "request" and is_a(message, *kinds):
                wire.refuses = True
                return "arrives, cut"
            return "arrives"

        wire.fate = fate

    @pytest.mark.parametrize(
        ("do", "kind"), [("pulse", UncertainError), ("vmm", TransportError), ("read", TransportError)]
    )
    def test_it_is_said_after_the_stated_time(
        self, do: str, kind: type[HilError], daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        host = remote(wire)
        host.open()
        calls: dict[str, Callable[[], object]] = {
            "pulse": lambda: host.pulse(MASK, SET),
            "vmm": lambda: host.vmm(ROWS, TILE, 0.2),
            "read": lambda: host.read(MASK, 0.2),
        }
        self.lose(wire, do)
        start_s = time.monotonic()
        with pytest.raises(kind) as found:
            calls[do]()
        assert self.RECOVER_S <= time.monotonic() - start_s < self.RECOVER_S + 0.4
        assert type(found.value) is kind
        assert ("pulse under way may have been applied" in str(found.value)) == (do == "pulse")
        start_s = time.monotonic()
        with pytest.raises(UnconfirmedError, match="makes it safe 60 s after"):
            host.make_safe()
        host.close()
        assert time.monotonic() - start_s < 1.0

    def test_a_request_that_never_arrives_is_given_up(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Short messages get through and long ones do not: asking again must have an end, too."""
        with served(FakeBackend(), other := Wire(), lease_s=0.5):
            host = remote(other)
            host.open()
            end_s = time.monotonic() + 4.0
            other.fate = lambda way, message: (
                "lost" if way == "request" and is_a(message, "vmm") and time.monotonic() < end_s else "arrives"
            )
            try:
                with pytest.raises(TransportError):
                    host.vmm(ROWS, TILE, 0.2)
                assert time.monotonic() < end_s - 1.0
            finally:
                host.close()

    @pytest.mark.parametrize(("do", "kind"), [("pulse", UncertainError), ("vmm", TransportError)])
    def test_a_session_ends_with_what_broke_it(
        self, do: str, kind: type[HilError], daemon: Daemon, wire: Wire, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not with a second error that hides whether a pulse is uncertain."""
        host = remote(wire)

        def run() -> None:
            with open_session(host) as session:
                self.lose(wire, do)
                if do == "pulse":
                    session.pulse(MASK, SET)
                session.vmm(ROWS, TILE, 0.2)

        with pytest.raises(kind) as found:
            run()
        assert "the daemon makes it safe 60 s after" in caplog.text
        assert not is_known_safe(found.value)

    def test_a_session_that_cannot_hear_that_the_array_is_safe_says_so(self, daemon: Daemon, wire: Wire) -> None:
        host = remote(wire)

        def run() -> None:
            with open_session(host):
                self.lose(wire, "make_safe")

        with pytest.raises(UnconfirmedError, match=r"nobody has confirmed.*the daemon makes it safe 60 s"):
            run()

    def test_ctrl_c_without_a_link_stays_ctrl_c(self, daemon: Daemon, wire: Wire) -> None:
        """And claims nothing that nobody has confirmed."""
        host = remote(wire)

        def run() -> None:
            with open_session(host):
                self.lose(wire, "make_safe")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt) as found:
            run()
        assert not is_known_safe(found.value)

    def test_nobody_there_is_an_error_at_once(self) -> None:
        wire = Wire()
        wire.refuses = True
        start_s = time.monotonic()
        with pytest.raises(TransportError, match="nobody listens"):
            remote(wire).open()
        assert time.monotonic() - start_s < 0.3

    def test_nobody_who_answers_is_an_error_soon(self) -> None:
        start_s = time.monotonic()
        with pytest.raises(TransportError, match=r"nobody answers at wire within 0.2 s"):
            remote(Wire()).open()
        assert time.monotonic() - start_s < 0.6


class TestTheDaemonIsReplaced:
    """It was killed in the middle of a pulse; another one runs on the same journal."""

    @pytest.fixture(autouse=True)
    def _patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote_backend, "_RETRY_S", 0.01)
        patience(monkeypatch, 3.0)

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "pulses.sqlite"

    def replace(
        self,
        path: Path,
        at: str,
        host_does: Callable[[RemoteBackend], object],
        *,
        protocol: int = msg.PROTOCOL,
        other_journal: Path | None = None,
    ) -> tuple[FakeBackend, FakeBackend]:
        """A daemon that goes away when a pulse is `at` that point, and its successor; both backends."""
        first, second = FakeBackend(), FakeBackend()
        wires = [Wire()]
        with ExitStack() as stack:
            stack.enter_context(served(first, wires[0], journal=Journal(path), lease_s=LONG_LEASE_S))
            host = RemoteBackend("wire", connect=lambda url: wires[-1].connect())
            host.open()

            def successor() -> None:
                wires[0].up = False
                wires.append(Wire())
                journal = Journal(other_journal or path)
                stack.enter_context(served(second, wires[-1], journal=journal, lease_s=LONG_LEASE_S))
                if protocol != msg.PROTOCOL:
                    _speak(wires[-1], protocol)
                wires[0].cut()

            def fate(way: Way, message: bytes) -> Fate:
                found = msg.unpack(message)
                if at == "never begun" and way == "request" and found["do"] in ("pulse", "vmm"):
                    successor()
                    return "lost"
                if at == "ended" and way == "reply" and "n_cells" in found.get("ok", {}):
                    successor()
                    return "lost"
                return "arrives"

            def kill_when_held() -> None:
                assert first.held.wait(5)
                successor()

            thread = threading.Thread(target=kill_when_held)
            if at == "begun":
                first.holds.add("pulse")
                thread.start()
            wires[0].fate = fate
            try:
                host_does(host)
            finally:
                if at == "begun":
                    thread.join()
                host.close()
                first.release()
        return first, second

    def test_begun(self, path: Path) -> None:
        def pulse(host: RemoteBackend) -> None:
            with pytest.raises(UncertainError, match=r"stopped in the middle of a pulse \(6 cells.*cells may have had"):
                host.pulse(MASK, SET)
            with pytest.raises(LeaseError):
                host.pulse(MASK, SET)

        _, second = self.replace(path, "begun", pulse)
        assert second.n_calls("pulse") == 0

    def test_ended(self, path: Path) -> None:
        def pulse(host: RemoteBackend) -> None:
            assert host.pulse(MASK, SET).n_cells == MASK.sum()
            with pytest.raises(LeaseError, match="daemon was started again"):
                host.vmm(ROWS, TILE, 0.2)

        first, second = self.replace(path, "ended", pulse)
        assert (first.pulses == MASK).all()
        assert second.n_calls("pulse") == 0

    def test_with_another_journal_a_pulse_stays_uncertain(self, path: Path, tmp_path: Path) -> None:
        """That it was never begun is what an empty journal says of every pulse."""

        def pulse(host: RemoteBackend) -> None:
            with pytest.raises(UncertainError, match=r"another journal.*--state"):
                host.pulse(MASK, SET)

        first, _ = self.replace(path, "ended", pulse, other_journal=tmp_path / "other.sqlite")
        assert (first.pulses == MASK).all()

    @pytest.mark.parametrize("do", ["pulse", "vmm"])
    def test_never_begun(self, path: Path, do: str) -> None:
        def call(host: RemoteBackend) -> None:
            with pytest.raises(LeaseError, match=rf"\({do}\) was not carried out"):
                host.pulse(MASK, SET) if do == "pulse" else host.vmm(ROWS, TILE, 0.2)

        first, second = self.replace(path, "never begun", call)
        assert not first.pulses.any()
        assert second.n_calls("pulse", "vmm") == 0

    def test_it_can_be_opened_again_and_goes_on(self, path: Path) -> None:
        def call(host: RemoteBackend) -> None:
            with pytest.raises(LeaseError):
                host.pulse(MASK, SET)
            host.open()
            host.vmm(ROWS, TILE, 0.2)
            host.pulse(MASK, SET)

        first, second = self.replace(path, "never begun", call)
        assert not first.pulses.any()
        assert (second.pulses == MASK).all()

    def test_the_successor_speaks_another_version(self, path: Path) -> None:
        """What became of the pulse cannot be asked, so that it stays open."""

        def pulse(host: RemoteBackend) -> None:
            with pytest.raises(UncertainError):
                host.pulse(MASK, SET)

        self.replace(path, "begun", pulse, protocol=99)


def _speak(wire: Wire, protocol: int) -> None:
    """Have a daemon refuse this version, as one of another version does."""
    receive = wire.receive

    def changed(timeout_s: float) -> Any:
        found = receive(timeout_s)
        if found is None:
            return None
        request = msg.unpack(found[1])
        what = f"the host speaks link protocol {request['v']}, this daemon {protocol}"
        error = {"kind": "ProtocolError", "what": what, "fix": "install the same"}
        wire.send(found[0], msg.pack({"id": request["id"], "error": error}, slow=False))
        return None

    wire.receive = changed  # type: ignore[method-assign]


class TestLease:
    def test_a_host_that_lost_it_is_told_and_nothing_is_applied(
        self, backend: FakeBackend, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(remote_backend, "_HELLO_S", 0.2)
        with served(backend, wire, lease_s=0.5):
            host = remote(wire)
            with open_session(host) as session:
                wire.up = False
                wait_until(lambda: backend.n_calls("close") == 1)
                wire.up = True
                other = RawHost(wire)
                other.ok("open")
                for call in (lambda: session.pulse(MASK, SET), lambda: session.vmm(ROWS, TILE, 0.2)):
                    with pytest.raises(LeaseError):
                        call()
                    other.ok("beat", number=0)
                assert not backend.pulses.any()
                assert "raw" in host.status()["writer"]
            # Leaving is no error: the daemon has made the array safe, and the other's lease is untouched.
            other.ok("beat", number=0)

    def test_a_message_that_takes_longer_than_the_lease_is_heard_as_it_comes(self, backend: FakeBackend) -> None:
        """On a slow line one request may be under way for seconds, with no room for a beat."""
        rows = np.random.default_rng(0).random((768, 8))
        with PtyLine(DEFAULT_BAUD) as line:
            listener = SerialListener(f"serial://{line.board_path}")
            with served(backend, listener, lease_s=0.5):
                host = RemoteBackend(f"serial://{line.host_path}")
                host.open()
                try:
                    assert host.vmm(rows, TILE, 0.2).shape == (768, 3)
                finally:
                    host.close()
        assert backend.n_calls("abort") == 0

    def test_open_again_leaves_one_heart(
        self, backend: FakeBackend, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`open` is what the error of a lost lease says."""
        monkeypatch.setattr(remote_backend, "_HELLO_S", 0.2)
        others = set(threading.enumerate())

        def hearts() -> int:
            return sum(thread.name == "heartbeat" for thread in set(threading.enumerate()) - others)

        with served(backend, wire, lease_s=0.5):
            host = remote(wire)
            host.open()
            wire.up = False
            wait_until(lambda: backend.n_calls("close") == 1)
            wire.up = True
            host.open()
            host.vmm(ROWS, TILE, 0.2)
            assert hearts() == 1
            host.close()
            assert hearts() == 0

    def test_an_open_that_was_refused_can_be_tried_again(self, daemon: Daemon, wire: Wire) -> None:
        first, second = remote(wire), remote(wire)
        with open_session(first), pytest.raises(LeaseError, match=f"pid {os.getpid()}"), open_session(second):
            pass
        with open_session(second) as session:
            session.vmm(ROWS, TILE, 0.2)

    def test_an_open_that_was_interrupted_gives_the_array_back(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C while the board is brought up: the next host need not wait for the end of a lease."""
        host = remote(wire)
        exchange = host._exchange

        def interrupted(message: Any, **kwargs: Any) -> Any:
            reply = exchange(message, **kwargs)
            if message["do"] == "open":
                raise KeyboardInterrupt
            return reply

        monkeypatch.setattr(host, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt), open_session(host):
            pass
        other = remote(wire)
        with open_session(other):
            pass

    def test_status_needs_no_lease(self, host: RemoteBackend, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_TELL_S", 0.05)
        reader = remote(wire)
        assert f"pid {os.getpid()}" in reader.status()["writer"]
        assert [check.part for check in reader.self_test()] == ["array"]
        assert reader.echo(b"abc", 5000) == 5000
        reader.watch(5.0)
        wait_until(lambda: (reader.next_event(0.1) or {}).get("event") == "state")
        reader.close()


class TestInterrupted:
    def test_ctrl_c_during_a_call_aborts_it_and_the_session_goes_on(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with open_session(remote(wire)) as session:
            backend.holds.add("pulse")
            receive = type(wire.connect()).receive

            def interrupted(channel: Any, timeout_s: float) -> bytes | None:
                if threading.current_thread() is threading.main_thread() and backend.held.wait(0.1):
                    raise KeyboardInterrupt
                return receive(channel, timeout_s)

            with monkeypatch.context() as patch:
                patch.setattr("links.WireChannel.receive", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    session.pulse(MASK, SET)
            backend.holds.clear()
            session.make_safe()
            assert backend.calls[-3:] == ["pulse", "abort", "make_safe"]
            assert not backend.pulses.any()
            session.vmm(ROWS, TILE, 0.2)
            session.pulse(MASK, SET)
        assert (backend.pulses == MASK).all()

    def test_on_an_emulated_board_the_array_is_safe_and_reads_again(
        self, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        board, fabric, backend = emulate(forming={"formed": False})
        read = fabric.read
        under_way, slow_down = threading.Event(), threading.Event()

        def slow_read(offset: int) -> int:
            if slow_down.is_set():
                if board.formed.any():
                    under_way.set()
                time.sleep(0.03)
            return read(offset)

        monkeypatch.setattr(fabric, "read", slow_read)
        mask = np.random.default_rng(2).random((24, 16)) < 0.5
        with served(backend, wire, lease_s=LONG_LEASE_S), open_session(remote(wire)) as session:
            slow_down.set()
            receive = type(wire.connect()).receive

            def interrupted(channel: Any, timeout_s: float) -> bytes | None:
                if threading.current_thread() is threading.main_thread() and under_way.wait(0.1):
                    raise KeyboardInterrupt
                return receive(channel, timeout_s)

            with monkeypatch.context() as patch:
                patch.setattr("links.WireChannel.receive", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    session.pulse(mask, Pulse("form", 4.0, 1.5, 1e-3))
            session.make_safe()
            slow_down.clear()
            assert not board.formed[mask].all()
            assert not board.analogue.bias_v().any()
            found = session.vmm(np.ones((2, 20), np.bool_), single_ended_tile(20, 4), 0.2)
            assert np.isfinite(found).all()
