"""The daemon: one writer by lease, many readers; whatever a peer sends, the array is safe and the daemon lives."""

from __future__ import annotations

import copy
import random
import sqlite3
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from boards import emulate
from links import FakeBackend, RawHost, Wire, remote, served, wait_until

from firmware_bridge.daemon import server
from firmware_bridge.daemon.journal import Journal
from firmware_bridge.daemon.server import Daemon, check_lease
from firmware_bridge.link import messages as msg
from firmware_bridge.link.channel import MESSAGE_MAX_BYTES, Peer
from firmware_bridge.remote_backend import RemoteBackend
from hil import open_session
from hil.backend import Check, Limits, Pulse, Telemetry
from hil.errors import ConfigError, DeviceError, LeaseError, LimitError
from hil.tile import differential_tile, single_ended_tile

TILE = differential_tile(8, 3)
ROWS = np.ones((2, 8), np.bool_)
MASK = np.eye(8, 6, dtype=np.bool_)
SET = Pulse("set", 2.0, 1.0, 1e-6)


class Deaf:
    """A listener that only keeps the last message to a host."""

    url, access, slow = "deaf", "this test", False

    def __init__(self) -> None:
        self.last = b""
        self.n_sent = 0

    def send(self, peer: Peer, message: bytes) -> None:
        self.last = message
        self.n_sent += 1

    def receive(self, timeout_s: float) -> None:
        time.sleep(timeout_s)

    def heard_s(self, peer: Peer) -> float:
        return float("-inf")

    def close(self) -> None:
        pass


@pytest.fixture
def writer(daemon: Daemon, wire: Wire) -> RawHost:
    host = RawHost(wire, who="writer@lab pid 17")
    host.ok("open")
    return host


class TestHandshake:
    def test_it_says_versions_lease_and_backend(self, daemon: Daemon, wire: Wire, backend: FakeBackend) -> None:
        hello = RawHost(wire).hello
        assert hello["protocol"] == msg.PROTOCOL
        assert hello["lease_s"] == 60.0
        assert msg.info_of(hello["info"]) == backend.info

    def test_another_version_is_refused_with_both_named(self, daemon: Daemon, wire: Wire) -> None:
        host = RawHost(wire)
        message = {**host.message("hello", version="9", who="me"), "v": 99}
        host.send(message)
        error = host.reply(message["id"])["error"]
        assert error["kind"] == "ProtocolError"
        assert "99" in error["what"]
        assert str(msg.PROTOCOL) in error["what"]

    def test_an_unknown_request_is_refused_with_those_that_there_are(self, daemon: Daemon, wire: Wire) -> None:
        error = RawHost(wire).error("explode")
        assert error["kind"] == "ProtocolError"
        assert "'explode'" in error["what"]
        assert "make_safe" in error["fix"]

    def test_an_oversize_message_is_refused_by_name(self, daemon: Daemon, wire: Wire) -> None:
        host = RawHost(wire)
        host.channel.send(bytes(MESSAGE_MAX_BYTES + 1))
        error = host.reply(0)["error"]
        assert error["kind"] == "LimitError"
        assert f"{MESSAGE_MAX_BYTES:,}" in error["what"]

    def test_limits_are_those_of_the_daemon(self, backend: FakeBackend, wire: Wire) -> None:
        tight = Limits(0.1, 1.0, 1.0, 1e-6, 3)
        daemon = Daemon(backend, Journal(None), limits=tight)
        daemon.handle(wire, Peer(b"0", "test"), b"")  # before it serves
        thread = threading.Thread(target=daemon.serve, args=([wire],))
        thread.start()
        try:
            host = RawHost(wire)
            assert msg.info_of(host.hello["info"]).limits == tight
            host.ok("open")
            error = host.error("pulse", **host.pulse(MASK, SET))
            assert (error["kind"], backend.n_calls("pulse")) == ("LimitError", 0)
        finally:
            daemon.stop()
            thread.join()

    def test_limits_above_the_boards_are_refused(self, backend: FakeBackend) -> None:
        with pytest.raises(LimitError, match="v_read_max_v"):
            Daemon(backend, Journal(None), limits=Limits(5.0, 1.0, 1.0, 1e-6, 3))

    @pytest.mark.parametrize("lease_s", [0.0, 0.4, 61.0, float("nan"), -1.0])
    def test_a_lease_that_means_nothing_is_refused(self, lease_s: float) -> None:
        with pytest.raises(ConfigError, match="lease"):
            check_lease(lease_s)


class TestOneWriter:
    def test_a_second_one_is_refused_with_the_first_ones_name(self, writer: RawHost, wire: Wire) -> None:
        error = RawHost(wire).error("open")
        assert error["kind"] == "LeaseError"
        assert "writer@lab pid 17" in error["what"]
        writer.ok("vmm", **writer.vmm(ROWS, TILE))

    def test_a_remote_backend_says_who_and_which_process(self, daemon: Daemon, wire: Wire) -> None:
        first, second = remote(wire), remote(wire)
        with open_session(first), pytest.raises(LeaseError, match=rf"@.* pid {server.platform.os.getpid()}"):
            second.open()
        second.close()

    @pytest.mark.parametrize("do", ["close", "make_safe", "telemetry"])
    def test_only_the_writer_may(self, do: str, writer: RawHost, wire: Wire, backend: FakeBackend) -> None:
        before = list(backend.calls)
        assert RawHost(wire).error(do)["kind"] == "LeaseError"
        assert backend.calls == before

    def test_only_the_writer_drives_the_array(self, writer: RawHost, wire: Wire, backend: FakeBackend) -> None:
        other, before = RawHost(wire), list(backend.calls)
        read = {"mask": msg.array_fields(MASK), "v_read_v": 0.2, "n_average": 1}
        sense = {"cols": [0], "n_average": 1, "row": None, "v_read_v": 0.0, "settle_s": None}
        for do, fields in (
            ("vmm", other.vmm(ROWS, TILE)),
            ("pulse", other.pulse(MASK, SET)),
            ("read", read),
            ("hold_row", {"row": 0, "voltage_v": 1.0}),
            ("sense", sense),
        ):
            assert other.error(do, **fields)["kind"] == "LeaseError"
        assert backend.calls == before

    def test_many_readers_look_on(self, writer: RawHost, wire: Wire, backend: FakeBackend) -> None:
        backend.holds.add("vmm")
        vmm = writer.message("vmm", **writer.vmm(ROWS, TILE))
        writer.send(vmm)
        assert backend.held.wait(5)
        for reader in [RawHost(wire) for _ in range(5)]:
            status = reader.ok("status")
            assert "writer@lab pid 17" in status["writer"]
            assert status["doing"] == "vmm"
            assert status["self_test"] == [{"part": "array", "ok": True, "text": "answers"}]
            assert status["disk_free_bytes"] > 0
            assert reader.ok("watch", for_s=30.0)["doing"] == "vmm"
            assert len(reader.ok("echo", data=b"abc", n_back=1000)["data"]) == 1000
        backend.release()
        assert "ok" in writer.reply(vmm["id"])

    def test_watchers_are_told_until_their_time_is_over(
        self, writer: RawHost, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_TELL_S", 0.05)
        host = RawHost(wire)
        host.ok("watch", for_s=0.3)
        found = host.channel.receive(2.0)
        assert found is not None
        event = msg.unpack(found)
        assert event["event"] == "state"
        assert "writer@lab" in event["writer"]
        time.sleep(0.35)
        while host.channel.receive(0.0) is not None:
            pass
        assert host.channel.receive(0.15) is None

    def test_telemetry_reaches_readers_while_the_writer_is_idle(
        self, monkeypatch: pytest.MonkeyPatch, backend: FakeBackend, wire: Wire
    ) -> None:
        monkeypatch.setattr(server, "_TELL_S", 0.05)
        with served(backend, wire, lease_s=60.0):
            host, reader = RawHost(wire), RawHost(wire)
            host.ok("open")
            host.ok("pulse", **host.pulse(MASK, SET))
            wait_until(lambda: reader.ok("status")["telemetry"].get("pulse_count") == MASK.sum())

    def test_watchers_are_limited(self, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_WATCHERS_MAX", 3)
        deaf = Deaf()
        for k in (0, 1, 2, 0, 3):
            message = {"v": msg.PROTOCOL, "id": 1, "do": "watch", "session": bytes(16), "for_s": 5.0}
            daemon.handle(deaf, Peer(bytes([k]), "test"), msg.pack(message, slow=False))
            assert ("error" in msg.unpack(deaf.last)) == (k == 3)

    def test_two_hundred_quick_sessions_of_competing_hosts(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        inside: list[int] = []
        wrong: list[object] = []

        def compete(who: int) -> None:
            host = remote(wire)
            done = 0
            try:
                while done < 100:
                    try:
                        host.open()
                    except LeaseError:
                        continue
                    inside.append(who)
                    if len(inside) != 1:
                        wrong.append(list(inside))
                    host.pulse(MASK, SET)
                    host.vmm(ROWS, TILE, 0.2)
                    inside.remove(who)
                    host.close()
                    done += 1
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=compete, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert backend.overlaps == 0
        assert backend.n_calls("open") == backend.n_calls("close") == 200
        assert (backend.pulses == 200 * MASK).all()


class TestLease:
    LEASE_S = 0.5

    @pytest.fixture
    def daemon(self, backend: FakeBackend, wire: Wire) -> Iterator[Daemon]:
        with served(backend, wire, lease_s=self.LEASE_S) as found:
            yield found

    def test_a_silent_writer_loses_the_array_in_time(self, daemon: Daemon, wire: Wire, backend: FakeBackend) -> None:
        host = RawHost(wire)
        host.ok("open")
        host.ok("vmm", **host.vmm(ROWS, TILE))
        before = len(backend.calls)
        took_s = wait_until(lambda: backend.n_calls("close") == 1)
        assert 0.9 * self.LEASE_S < took_s < self.LEASE_S + 0.1 + 0.15  # the last is for this test's own machine
        assert backend.calls[before:] == ["abort", "make_safe", "close"]

        after = len(backend.calls)
        for do, fields in (("pulse", host.pulse(MASK, SET)), ("vmm", host.vmm(ROWS, TILE)), ("beat", {"number": 0})):
            error = host.error(do, **fields)
            assert error["kind"] == "LeaseError"
            assert "safe" in error["what"]
        assert len(backend.calls) == after
        assert not backend.pulses.any()

        other = RawHost(wire)
        other.ok("open")
        other.ok("vmm", **other.vmm(ROWS, TILE))
        other.ok("close")

    def test_a_call_under_way_is_aborted_when_its_writer_falls_silent(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        host = RawHost(wire)
        host.ok("open")
        backend.holds.add("pulse")
        before = len(backend.calls)
        host.send(host.message("pulse", **host.pulse(MASK, SET)))
        wait_until(lambda: backend.n_calls("close") == 1)
        assert backend.calls[before:] == ["pulse", "abort", "make_safe", "close"]
        assert not backend.pulses.any()

    def test_the_next_writer_waits_for_a_call_that_cannot_be_aborted(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        host, other = RawHost(wire), RawHost(wire)
        host.ok("open")
        backend.holds.add("vmm")
        backend.reacts = False
        host.send(host.message("vmm", **host.vmm(ROWS, TILE)))
        wait_until(lambda: backend.n_calls("abort") == 1)
        error = other.error("open")
        assert error["kind"] == "LeaseError"
        assert "is being made safe" in error["what"]
        backend.release()
        wait_until(lambda: backend.n_calls("close") == 1)
        other.ok("open")
        assert backend.overlaps == 0

    def test_beats_keep_it_during_a_long_call(self, daemon: Daemon, wire: Wire, backend: FakeBackend) -> None:
        host = RawHost(wire)
        host.ok("open")
        backend.holds.add("vmm")
        vmm = host.message("vmm", **host.vmm(ROWS, TILE))
        host.send(vmm)
        until_s = time.monotonic() + 1.4 * self.LEASE_S
        while time.monotonic() < until_s:
            assert host.ok("beat", number=vmm["id"])["running"]
            time.sleep(0.1)
        backend.release()
        assert "ok" in host.reply(vmm["id"])
        assert not host.ok("beat", number=vmm["id"])["running"]

    def test_only_its_own_requests_keep_it(self, daemon: Daemon, wire: Wire, backend: FakeBackend) -> None:
        host, other = RawHost(wire), RawHost(wire)
        host.ok("open")
        while backend.n_calls("close") == 0:
            other.ok("status")
            other.error("beat", number=1)
            other.error("make_safe")
            time.sleep(0.05)
        assert backend.calls[-3:] == ["abort", "make_safe", "close"]

    def test_it_ends_while_the_writers_open_is_under_way(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        host = RawHost(wire)
        backend.holds.add("open")
        host.send(host.message("open"))
        wait_until(lambda: backend.n_calls("close") == 1)
        assert backend.calls[-3:] == ["abort", "make_safe", "close"]
        backend.release()
        other = RawHost(wire)
        other.ok("open")

    def test_a_remote_backend_keeps_it_while_its_host_computes(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        with open_session(remote(wire)) as session:
            time.sleep(1.4 * self.LEASE_S)
            session.vmm(ROWS, TILE, 0.2)
        assert backend.n_calls("abort") == 0

    def test_a_remote_backend_keeps_it_during_a_long_call(
        self, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        with open_session(remote(wire)) as session:
            backend.holds.add("pulse")
            threading.Timer(1.4 * self.LEASE_S, backend.release).start()
            session.pulse(MASK, SET)
        assert backend.n_calls("abort") == 0
        assert (backend.pulses == MASK).all()


class TestEachRequestOnce:
    def test_a_duplicate_is_answered_and_not_carried_out_again(self, writer: RawHost, backend: FakeBackend) -> None:
        message = writer.message("pulse", **writer.pulse(MASK, SET))
        replies = []
        for _ in range(3):
            writer.send(message)
            replies.append(writer.reply(message["id"]))
        assert replies[0] == replies[1] == replies[2]
        assert (backend.pulses == MASK).all()

    def test_a_duplicate_of_one_under_way_waits_for_its_reply(self, writer: RawHost, backend: FakeBackend) -> None:
        backend.holds.add("pulse")
        message = writer.message("pulse", **writer.pulse(MASK, SET))
        for _ in range(3):
            writer.send(message)
        assert backend.held.wait(5)
        assert writer.ok("lookup", number=message["id"])["state"] == "running"
        backend.release()
        assert "ok" in writer.reply(message["id"])
        assert (backend.pulses == MASK).all()

    def test_an_older_number_is_refused(self, writer: RawHost, backend: FakeBackend) -> None:
        old = writer.message("pulse", **writer.pulse(MASK, SET))
        writer.ok("telemetry")
        writer.send(old)
        error = writer.reply(old["id"])["error"]
        assert error["kind"] == "ProtocolError"
        assert f"request {old['id']} is older" in error["what"]
        assert not backend.pulses.any()

    def test_the_next_request_waits_for_the_last_ones_reply(self, writer: RawHost, backend: FakeBackend) -> None:
        backend.holds.add("vmm")
        vmm = writer.message("vmm", **writer.vmm(ROWS, TILE))
        writer.send(vmm)
        error = writer.error("pulse", **writer.pulse(MASK, SET))
        assert error["kind"] == "ProtocolError"
        assert f"request {vmm['id']} is still under way" in error["what"]
        backend.release()
        assert "ok" in writer.reply(vmm["id"])
        assert not backend.pulses.any()

    def test_the_reply_goes_to_where_the_host_last_asked(
        self, writer: RawHost, wire: Wire, backend: FakeBackend
    ) -> None:
        backend.holds.add("pulse")
        message = writer.message("pulse", **writer.pulse(MASK, SET))
        writer.send(message)
        assert backend.held.wait(5)
        again = RawHost(wire, session=writer.session)
        assert again.ok("lookup", id=1000, number=message["id"])["state"] == "running"
        backend.release()
        assert "ok" in again.reply(message["id"])

    def test_what_became_of_a_request(self, writer: RawHost, wire: Wire) -> None:
        pulse = writer.message("pulse", **writer.pulse(MASK, SET))
        writer.send(pulse)
        reply = writer.reply(pulse["id"])
        found = writer.ok("lookup", number=pulse["id"])
        assert (found["state"], found["mine"], msg.unpack(found["reply"])) == ("done", True, reply)
        assert writer.ok("lookup", number=pulse["id"] + 100)["state"] == "never"
        writer.ok("close")
        # Pulses are remembered when the lease has ended; the rest may be carried out again.
        found = writer.ok("lookup", number=pulse["id"])
        assert (found["state"], found["mine"], msg.unpack(found["reply"])) == ("done", False, reply)
        # Nobody is told of another host's requests.
        assert RawHost(wire).ok("lookup", number=pulse["id"])["state"] == "never"

    def test_an_open_that_comes_late_once_more_applies_nothing(
        self, writer: RawHost, wire: Wire, backend: FakeBackend
    ) -> None:
        """All of an old session, delivered again by a link that held it back."""
        writer.ok("pulse", **writer.pulse(MASK, SET))
        writer.ok("close")
        late = [(peer, data) for peer, data in wire.log if msg.unpack(data)["session"] == writer.session]
        for peer, data in late:
            wire.put(peer, data)
            time.sleep(0.02)
        assert (backend.pulses == MASK).all()


class TestJournalOfPulses:
    def test_a_pulse_is_on_disk_before_it_is_applied(self, backend: FakeBackend, wire: Wire, tmp_path: Path) -> None:
        path = tmp_path / "pulses.sqlite"
        with served(backend, wire, journal=Journal(path), lease_s=60.0):
            host = RawHost(wire)
            host.ok("open")
            backend.holds.add("pulse")
            message = host.message("pulse", **host.pulse(MASK, SET))
            host.send(message)
            assert backend.held.wait(5)
            with sqlite3.connect(path) as db:
                rows = db.execute("SELECT session, number, what, reply FROM pulses").fetchall()
            db.close()
            assert [(row[0], row[1], row[3]) for row in rows] == [(host.session, message["id"], None)]
            assert "6 cells" in rows[0][2]
            backend.release()
            host.reply(message["id"])

    def test_one_that_cannot_be_written_stops_the_pulse(self, backend: FakeBackend, wire: Wire) -> None:
        journal = Journal(None)
        with served(backend, wire, journal=journal, lease_s=60.0):
            host = RawHost(wire)
            host.ok("open")
            journal.close()
            error = host.error("pulse", **host.pulse(MASK, SET))
            assert error["kind"] == "DeviceError"
            assert "journal" in error["what"]
            assert "nothing was applied" in error["what"]
            assert backend.n_calls("pulse") == 0
            host.ok("vmm", **host.vmm(ROWS, TILE))

    def test_one_that_cannot_be_read_is_an_error_of_the_lookup_only(self, backend: FakeBackend, wire: Wire) -> None:
        journal = Journal(None)
        with served(backend, wire, journal=journal, lease_s=60.0):
            host = RawHost(wire)
            host.ok("open")
            journal.close()
            assert host.error("lookup", number=1000)["kind"] == "DeviceError"
            host.ok("vmm", **host.vmm(ROWS, TILE))

    def test_a_pulse_that_failed_is_noted_with_its_error(self, writer: RawHost, backend: FakeBackend) -> None:
        backend.fails["pulse"] = [DeviceError("chip 3 is dead", fix="replace it")]
        message = writer.message("pulse", **writer.pulse(MASK, SET))
        writer.send(message)
        reply = writer.reply(message["id"])
        assert "chip 3" in reply["error"]["what"]
        writer.ok("close")
        assert msg.unpack(writer.ok("lookup", number=message["id"])["reply"]) == reply


class TestErrors:
    @pytest.mark.parametrize("call", ["vmm", "pulse"])
    def test_those_of_the_backend_arrive_and_the_session_goes_on(
        self, call: str, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        backend.fails[call] = [DeviceError("lane 2: all codes are 0", fix="check DOUT")]
        with open_session(remote(wire)) as session:
            calls = {"vmm": lambda: session.vmm(ROWS, TILE, 0.2), "pulse": lambda: session.pulse(MASK, SET)}
            with pytest.raises(DeviceError) as found:
                calls[call]()
            assert str(found.value) == "lane 2: all codes are 0. Fix: check DOUT."
            calls[call]()
        assert backend.n_calls("open") == 1

    @pytest.mark.parametrize("call", ["vmm", "read", "pulse"])
    def test_an_unexpected_one_makes_the_array_safe_and_the_daemon_lives(
        self, call: str, writer: RawHost, backend: FakeBackend
    ) -> None:
        fields = {
            "vmm": writer.vmm(ROWS, TILE),
            "pulse": writer.pulse(MASK, SET),
            "read": {"mask": msg.array_fields(MASK), "v_read_v": 0.2, "n_average": 1},
        }[call]
        backend.fails[call] = [TypeError("a bug")]
        before = len(backend.calls)
        error = writer.error(call, **fields)
        assert error["kind"] == "DeviceError"
        assert "TypeError: a bug" in error["what"]
        assert backend.calls[before:] == [call, "make_safe"]
        writer.ok(call, **fields)

    def test_a_board_that_cannot_be_made_safe_is_told_to_the_host_that_caused_it(
        self, writer: RawHost, wire: Wire, backend: FakeBackend
    ) -> None:
        backend.fails = {"vmm": [TypeError("a bug")], "make_safe": [DeviceError("no answer", fix="look")] * 9}
        error = writer.error("vmm", **writer.vmm(ROWS, TILE))
        assert error["kind"] == "DeviceError"
        assert "no answer" in error["what"] or "UNDER BIAS" in error["what"]
        wait_until(lambda: backend.calls[-1] == "close")
        assert "UNDER BIAS" in RawHost(wire).ok("status")["alarm"]

    def test_a_board_that_cannot_be_made_safe_at_the_end_is_told_to_the_host(
        self, writer: RawHost, wire: Wire, backend: FakeBackend
    ) -> None:
        backend.fails["make_safe"] = [DeviceError("no answer", fix="look")] * 3
        error = writer.error("close")
        assert "UNDER BIAS" in error["what"]
        assert "UNDER BIAS" in RawHost(wire).ok("status")["alarm"]
        other = RawHost(wire)
        other.ok("open")
        assert other.ok("status")["alarm"] is None

    def test_one_whose_text_is_no_unicode_arrives_all_the_same(self, writer: RawHost, backend: FakeBackend) -> None:
        """Names of files and devices may hold bytes that are not UTF-8."""
        backend.fails["vmm"] = [DeviceError("cannot open '/dev/\udcff'", fix="look")]
        error = writer.error("vmm", **writer.vmm(ROWS, TILE))
        assert error["kind"] == "DeviceError"
        assert "cannot open" in error["what"]

    @pytest.mark.parametrize("failure", [DeviceError("chip 1 is dead", fix="replace it"), TypeError("a bug")])
    def test_a_backend_that_does_not_open(
        self, failure: Exception, daemon: Daemon, wire: Wire, backend: FakeBackend
    ) -> None:
        backend.fails["open"] = [failure]
        backend.checks = [Check("chip 1", False, "dead")]
        host = RawHost(wire)
        error = host.error("open")
        assert error["kind"] == "DeviceError"
        assert str(failure.args[0]).split(".")[0] in error["what"]
        assert backend.calls[-3:] == ["open", "make_safe", "close"]
        status = host.ok("status")
        assert status["writer"] is None
        assert status["self_test"] == [{"part": "chip 1", "ok": False, "text": "dead"}]
        assert status["alarm"]
        # The host lost the lease with it, and the next one gets it.
        assert host.error("vmm", **host.vmm(ROWS, TILE))["kind"] == "LeaseError"
        other = RawHost(wire)
        other.ok("open")
        assert other.ok("status")["alarm"] is None

    def test_a_failing_chip_of_an_emulated_board_is_named_at_the_host(self, wire: Wire) -> None:
        board, _, backend = emulate()
        with served(backend, wire, lease_s=60.0):
            board.faults.dead_dacs.add(0)
            board.apply_faults()
            host = remote(wire)
            with pytest.raises(DeviceError, match=r"DAC80508 chip 0 .*dead or unpowered"):
                host.open()
            assert any(check.ok is False and "chip 0" in check.part for check in host.self_test())
            board.faults.dead_dacs.clear()
            board.apply_faults()
            with open_session(host) as session:
                assert session.vmm(np.ones((1, 20), np.bool_), single_ended_tile(20, 4), 0.2).shape == (1, 4)
                assert all(check.ok is not False for check in session.self_test())

    def test_readings_that_fail_or_cannot_be_sent_do_not_end_the_session(
        self, backend: FakeBackend, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "_TELL_S", 0.05)
        readings: list[Callable[[], Telemetry]] = [
            lambda: _raise(DeviceError("no answer", fix="look")),
            lambda: Telemetry({"count": np.int64(3)}),  # type: ignore[dict-item]
            lambda: Telemetry({"ratio": float("nan")}),
        ]
        with served(backend, wire, lease_s=60.0):
            host, reader = RawHost(wire), RawHost(wire)
            host.ok("open")
            reader.ok("watch", for_s=60.0)
            for reading in readings:
                monkeypatch.setattr(backend, "telemetry", reading)
                time.sleep(0.15)
                host.ask("telemetry")
                reader.ask("status")
                host.ok("vmm", **host.vmm(ROWS, TILE))

    def test_the_folder_whose_free_space_is_told_may_be_gone(self, backend: FakeBackend, tmp_path: Path) -> None:
        folder = tmp_path / "gone"
        daemon, deaf = Daemon(backend, Journal(None), folder=folder), Deaf()
        message = {"v": msg.PROTOCOL, "id": 1, "do": "status", "session": bytes(16)}
        daemon.handle(deaf, Peer(b"", "test"), msg.pack(message, slow=False))
        assert deaf.n_sent == 1


def _raise(error: Exception) -> Any:
    raise error


class TestMakeSafeOvertakes:
    @pytest.mark.parametrize("do", ["make_safe", "close"])
    @pytest.mark.parametrize("call", ["vmm", "pulse"])
    def test_what_runs_is_aborted(self, do: str, call: str, writer: RawHost, backend: FakeBackend) -> None:
        backend.holds.add(call)
        before = len(backend.calls)
        fields = {"vmm": writer.vmm(ROWS, TILE), "pulse": writer.pulse(MASK, SET)}[call]
        writer.send(writer.message(call, **fields))
        assert backend.held.wait(5)
        backend.holds.clear()
        writer.ok(do)
        expected = [call, "abort", "make_safe"] + ["close"] * (do == "close")
        assert backend.calls[before : before + len(expected)] == expected
        assert not backend.pulses.any()
        if do == "make_safe":
            writer.ok("vmm", **writer.vmm(ROWS, TILE))
            writer.ok("pulse", **writer.pulse(MASK, SET))
            assert (backend.pulses == MASK).all()

    def test_with_nothing_under_way_nothing_is_aborted(self, writer: RawHost, backend: FakeBackend) -> None:
        writer.ok("make_safe")
        writer.ok("make_safe")
        assert backend.n_calls("abort") == 0
        writer.ok("vmm", **writer.vmm(ROWS, TILE))


class TestStop:
    def test_it_makes_the_array_safe_and_closes_all(self, backend: FakeBackend, wire: Wire, tmp_path: Path) -> None:
        closed: list[str] = []
        journal = Journal(tmp_path / "pulses.sqlite")
        second = Wire()
        for link, name in ((wire, "first"), (second, "second")):
            link.close = lambda name=name: closed.append(name)  # type: ignore[method-assign]
        with served(backend, wire, second, journal=journal, lease_s=60.0) as daemon:
            RawHost(second).ok("status")
            host = RawHost(wire)
            host.ok("open")
            backend.holds.add("vmm")
            host.send(host.message("vmm", **host.vmm(ROWS, TILE)))
            assert backend.held.wait(5)
            before = len(backend.calls)
            daemon.stop()
        assert backend.calls[before:] == ["abort", "make_safe", "close"]
        assert set(closed) == {"first", "second"}
        with pytest.raises(sqlite3.Error):
            journal.find(bytes(16), 1)

    def test_the_array_is_made_safe_before_anybody_is_served(self, backend: FakeBackend, wire: Wire) -> None:
        with served(backend, wire):
            wait_until(lambda: bool(backend.calls))
        assert backend.calls == ["make_safe"]

    def test_an_array_that_cannot_be_made_safe_at_the_start_is_an_alarm(self, backend: FakeBackend, wire: Wire) -> None:
        backend.fails["make_safe"] = [DeviceError("no answer", fix="look")]
        with served(backend, wire):
            assert "no answer" in RawHost(wire).ok("status")["alarm"]

    def test_it_closes_its_listeners_even_if_it_cannot_start(self, backend: FakeBackend, wire: Wire) -> None:
        backend.fails["make_safe"] = [TypeError("a bug")]
        with pytest.raises(TypeError):
            Daemon(backend, Journal(None)).serve([wire])
        assert not wire.up

    def test_a_link_that_fails_ends_the_lease_of_who_used_it_and_not_the_daemon(
        self, backend: FakeBackend, wire: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = Wire()
        with served(backend, wire, other, lease_s=0.5):
            host = RawHost(wire)
            host.ok("open")
            monkeypatch.setattr(wire, "receive", lambda timeout_s: _raise(OSError("the port is gone")))
            wait_until(lambda: backend.n_calls("close") == 1)
            assert backend.calls[-3:] == ["abort", "make_safe", "close"]
            RawHost(other).ok("open")


# Fuzz


def snapshot(daemon: Daemon, backend: FakeBackend, journal: Path) -> tuple[object, ...]:
    """All that a message from somebody else must not change."""
    writer = daemon._writer
    assert writer is not None
    with sqlite3.connect(journal) as db:
        pulses = db.execute("SELECT * FROM pulses").fetchall()
    db.close()
    kept = (writer.session, writer.who, writer.until_s, writer.back, writer.number, writer.reply, dict(writer.tiles))
    return kept, daemon._ended, daemon._jobs.qsize(), list(backend.calls), pulses


def valid(host: RawHost) -> list[dict[str, Any]]:
    return [
        host.message("hello", version="1", who="fuzz"),
        host.message("beat", number=1),
        host.message("status"),
        host.message("echo", data=b"abc", n_back=3),
        host.message("lookup", number=3),
        host.message("watch", for_s=1.0),
        host.message("open"),
        host.message("close"),
        host.message("make_safe"),
        host.message("telemetry"),
        host.message("vmm", **host.vmm(ROWS, TILE)),
        host.message("read", mask=msg.array_fields(MASK), v_read_v=0.2, n_average=1),
        host.message("pulse", **host.pulse(MASK, SET)),
    ]


JUNK: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), "", "open",
    "\x00\n\x1b[2J", b"", bytes(16), bytes(1000), [], [[]], [1, 2], {}, {"t": "b"}, [0] * 300,
    {"t": "b", "s": [2**62, 0, 0], "b": b""}, {"t": "<f4", "s": [0, -1], "b": b""},
    {"t": "<f8", "s": [2**40, 2**40], "b": b""}, {"t": "<f4", "s": [1], "b": b"\x00\x00\xc0\x7f"},
    {"rows": None, "plus": None, "minus": None}, {"kind": "set", "voltage_v": float("nan")}, msgpack.Timestamp(0),
    msgpack.ExtType(42, b"xyz"), "x" * 3000,
]  # fmt: skip


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in a tree of maps and lists."""
    found: list[tuple[Any, Any]] = []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        found.append((tree, key))
        if isinstance(value, dict | list):
            found += places(value)
    return found


def fuzzed(rng: random.Random, requests: list[bytes]) -> Iterator[bytes]:
    """Ever more messages, each a valid one with something wrong."""
    bomb = b"\x01" + zlib.compress(bytes(1 << 20))
    nested = b"\x00" + b"\x91" * 600 + b"\xc0"
    while True:
        whole = rng.choice(requests)
        kind = rng.random()
        if kind < 0.15:
            yield rng.randbytes(rng.randrange(80))
        elif kind < 0.2:
            yield rng.choice((b"\x00", b"\x01")) + rng.randbytes(rng.randrange(80))
        elif kind < 0.4:
            changed = bytearray(whole)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            yield bytes(changed)
        elif kind < 0.45:
            yield whole[: rng.randrange(len(whole))]
        elif kind < 0.5:
            yield b"\x01" + zlib.compress(whole[1:])[: rng.randrange(4, len(whole))]
        elif kind < 0.501:
            yield rng.choice((bomb, nested))
        else:
            tree = msg.unpack(whole)
            for _ in range(rng.randrange(1, 3)):
                container, key = rng.choice(places(tree))
                if isinstance(container, dict) and rng.random() < 0.15:
                    del container[key]
                elif isinstance(container, dict) and rng.random() < 0.1:
                    container[rng.choice(("x", "id", "do", "tile", b"x"))] = copy.deepcopy(rng.choice(JUNK))
                else:
                    container[key] = copy.deepcopy(rng.choice(JUNK))
                if not tree:
                    break
            yield b"\x00" + msgpack.packb(tree)


def _may_be_right(key: Any, value: Any, junk: Any) -> bool:
    """Whether junk might be a value that this field can have."""
    if isinstance(value, float):
        return isinstance(junk, int | float) and 0 <= junk <= 1
    if key == "minus":
        return junk is None
    if key == "b":
        return isinstance(junk, bytes)
    return isinstance(value, int) and isinstance(junk, int) and (key != "n_average" or junk >= 1)


class TestFuzz:
    N = 100_000

    def test_a_hundred_thousand_messages_of_a_stranger_change_nothing(
        self, backend: FakeBackend, wire: Wire, tmp_path: Path
    ) -> None:
        path = tmp_path / "pulses.sqlite"
        with served(backend, wire, journal=Journal(path), lease_s=60.0) as daemon:
            writer = RawHost(wire)
            writer.ok("open")
            writer.ok("pulse", **writer.pulse(MASK, SET))
            before_a = writer.ok("vmm", **writer.vmm(ROWS, TILE))
            stranger = RawHost(wire)
            requests = [msg.pack(request, slow=False) for request in valid(stranger)]
            deaf, peer = Deaf(), Peer(b"stranger", "stranger")
            before = snapshot(daemon, backend, path)
            raised: dict[str, bytes] = {}
            messages = fuzzed(random.Random(4), requests)
            tracemalloc_from = self.N - 2000
            for k in range(self.N):
                if k == tracemalloc_from:
                    tracemalloc.start()
                data = next(messages)
                try:
                    daemon.handle(deaf, peer, data)
                except Exception as error:
                    raised.setdefault(f"{type(error).__name__}: {error}"[:200], data[:200])
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert not raised
            assert deaf.n_sent >= self.N
            assert snapshot(daemon, backend, path) == before
            assert peak < 64 << 20
            assert len(daemon._names) <= server._NAMES_KEPT
            assert len(daemon._watchers) <= server._WATCHERS_MAX
            assert writer.ok("vmm", **writer.vmm(ROWS, None)) == before_a

    @pytest.mark.parametrize(
        "data",
        [
            msgpack.packb({"v": msg.PROTOCOL, "id": 1, "do": "lookup", "session": bytes(16), "number": 2**64 - 1}),
            msgpack.packb({"v": bytes(6 << 20), "id": 1, "do": "status", "session": bytes(16)}),
            msgpack.packb({"v": msg.PROTOCOL, "id": 1, "do": ["x" * 100] * 10_000, "session": bytes(16)}),
            msgpack.packb({"v": msg.PROTOCOL, "id": 2**64 - 1, "do": "status", "session": bytes(16)}),
            msgpack.packb({"v": msg.PROTOCOL, "id": 1, "do": "status", "session": bytes(16), "x" * (1 << 20): 1}),
            msgpack.packb({"v": msg.PROTOCOL, "id": 1, "do": "status", **{str(k): k for k in range(100_000)}}),
        ],
        ids=["number above 63 bits", "long version", "long list", "id of 64 bits", "long key", "many keys"],
    )
    def test_one_bad_message_is_answered_in_a_few_bytes(self, data: bytes, daemon: Daemon, wire: Wire) -> None:
        deaf = Deaf()
        daemon.handle(deaf, Peer(b"", "test"), b"\x00" + data)
        assert deaf.n_sent == 1
        assert len(deaf.last) < 2000
        assert "error" in msg.unpack(deaf.last)

    def test_no_stranger_keeps_the_daemon_from_hearing_its_writer(self, daemon: Daemon) -> None:
        """One message may not take as long as the shortest lease lasts, or it ends a lease that was kept."""
        n = 1 << 22
        body = b"\x81\xa1x\xdd" + n.to_bytes(4, "big") + b"\x90" * n
        data = b"\x01" + zlib.compress(body)
        assert len(data) < 1 << 15
        start_s = time.thread_time()
        daemon.handle(Deaf(), Peer(b"", "test"), data)
        assert time.thread_time() - start_s < 0.25 * server.LEASE_MIN_S

    def test_malformed_requests_of_the_writer_are_refused_and_the_array_is_left_alone(
        self, writer: RawHost, backend: FakeBackend
    ) -> None:
        before = list(backend.calls)
        not_refused: list[str] = []
        for template in valid(writer)[-3:]:
            fields = {k: v for k, v in template.items() if k not in ("v", "id", "do", "session")}
            for k in range(len(places(fields))):
                for junk in JUNK:
                    tree = msgpack.unpackb(msgpack.packb(fields))
                    container, key = places(tree)[k]
                    if _may_be_right(key, container[key], junk):
                        continue
                    container[key] = copy.deepcopy(junk)
                    error = writer.ask(template["do"], **tree).get("error")
                    if error is None or error["kind"] not in ("ProtocolError", "LimitError") or backend.calls != before:
                        not_refused.append(
                            f"{template['do']} {key} {junk!r}: {error} {backend.calls[len(before) :]}"[:300]
                        )
                        before = list(backend.calls)
        assert not not_refused, "\n".join(not_refused[:30])

    @pytest.mark.parametrize(
        ("do", "changes"),
        [
            ("pulse", {"mask": msg.array_fields(np.full((8, 6), np.nan))}),
            ("pulse", {"mask": msg.array_fields(np.full((8, 6), 1e300))}),
            ("pulse", {"mask": msg.array_fields(np.ones((8, 6), np.float32))}),
            ("pulse", {"mask": msg.array_fields(np.ones((8, 7), np.bool_))}),
            ("pulse", {"mask": {"t": "b", "s": [0, -1], "b": b""}}),
            ("read", {"mask": msg.array_fields(np.ones((8, 6), np.float32))}),
            ("read", {"mask": {"t": "b", "s": [2**62, 0, 4], "b": b""}}),
            ("read", {"n_average": 0}),
            ("read", {"v_read_v": 9.0}),
            ("vmm", {"v_read_v": -0.1}),
            ("vmm", {"slot": 64}),
            ("vmm", {"slot": 63, "tile": None}),
            ("vmm", {"tile": msg.tile_fields(single_ended_tile(8, 7))}),
            ("vmm", {"tile": msg.tile_fields(single_ended_tile(7, 3))}),
            ("vmm", {"tile": {"rows": msg.array_fields(np.array([np.nan] + [1.0] * 7)), "plus": msg.array_fields(
                np.array([1], np.uint32)), "minus": None}}),
            ("vmm", {"x": msg.array_fields(np.full((2, 8), np.nan))}),
            ("vmm", {"x": msg.array_fields(np.full((2, 8), 2, np.uint64))}),
            ("vmm", {"x": msg.array_fields(np.ones(8, np.bool_))}),
            ("vmm", {"x": {"t": "b", "s": [0, 2**62, 0], "b": b""}}),
            ("vmm", {"x": {"t": "b", "s": [2**63, 0, 0], "b": b""}}),
            ("vmm", {"x": {"t": "b", "s": [1, 7, 0], "b": b"\xff"}}),
            ("vmm", {"x": {"t": "<f4", "s": [0, -1], "b": b""}}),
        ],
        ids=lambda value: str(value)[:40],
    )  # fmt: skip
    def test_right_fields_with_absurd_values_are_refused_by_name(
        self, do: str, changes: dict[str, Any], writer: RawHost, backend: FakeBackend
    ) -> None:
        fields = {
            "vmm": writer.vmm(ROWS, TILE),
            "read": {"mask": msg.array_fields(MASK), "v_read_v": 0.2, "n_average": 1},
            "pulse": writer.pulse(MASK, SET),
        }[do]
        before = list(backend.calls)
        error = writer.error(do, **{**fields, **changes})
        assert error["kind"] in ("ProtocolError", "LimitError"), error
        assert backend.calls == before


def test_a_remote_backend_is_a_backend_of_the_daemons_limits(daemon: Daemon, wire: Wire) -> None:
    host = RemoteBackend("wire", connect=wire.connect)
    assert host.info.limits.v_read_max_v == 0.5
    host.close()
