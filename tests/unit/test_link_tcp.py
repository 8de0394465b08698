"""The TCP link: messages arrive whole and once, only hosts with a key are heard, every refusal is one named error."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.link import tcp
from firmware_bridge.link.channel import MESSAGE_MAX_BYTES, Peer
from firmware_bridge.link.keys import Credential, KeyFolder, fingerprint
from firmware_bridge.link.tcp import TcpChannel, TcpListener, tcp_address
from hil.errors import AccessError, ConfigError, HilError, LimitError, TransportError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CROSSBAR_HIL_KEY", "CROSSBAR_HIL_KEYS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    """The daemon's keys, with one host: alice."""
    folder = KeyFolder(tmp_path / "keys")
    folder.new("alice", tmp_path / "alice.hilkey")
    return folder


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """Closes what a test opens: the host's ends first, as they are opened last."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["without keys", "with keys"])
def listener(request: pytest.FixtureRequest, ends: ExitStack, keys: KeyFolder) -> TcpListener:
    return ends.enter_context(closing(TcpListener("127.0.0.1", 0, keys if request.param == "with keys" else None)))


@pytest.fixture
def guarded(ends: ExitStack, keys: KeyFolder) -> TcpListener:
    return ends.enter_context(closing(TcpListener("127.0.0.1", 0, keys)))


@pytest.fixture
def unguarded(ends: ExitStack) -> TcpListener:
    return ends.enter_context(closing(TcpListener("127.0.0.1", 0)))


@pytest.fixture
def connect(ends: ExitStack, tmp_path: Path) -> Callable[..., TcpChannel]:
    """Opens the host's end of a listener's link, with alice's key where it has keys."""

    def open_channel(listener: TcpListener, key: str | None = "") -> TcpChannel:
        if key == "":
            key = None if "this machine only" in listener.access else "alice"
        query = "" if key is None else f"?key={tmp_path / key}.hilkey"
        return ends.enter_context(closing(TcpChannel(listener.url + query)))

    return open_channel


def hear(listener: TcpListener) -> tuple[Peer, bytes]:
    found = listener.receive(5.0)
    assert found is not None
    return found


def round_trip(channel: TcpChannel, listener: TcpListener, message: bytes = b"hello") -> None:
    """The message arrives, and comes back."""
    channel.send(message)
    peer, heard = hear(listener)
    assert heard == message
    listener.send(peer, heard)
    assert listener.receive(0.0) is None
    assert channel.receive(5.0) == message


@contextmanager
def raw_host(listener: TcpListener, **options: object) -> Iterator[zmq.Socket[bytes]]:
    """A host that does not keep to the rules of `TcpChannel`."""
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    try:
        dealer.linger = 0
        for name, value in options.items():
            setattr(dealer, name, value)
        dealer.connect(listener.url)
        yield dealer
    finally:
        dealer.close()
        context.term()


def n_waiting(host: zmq.Socket[bytes]) -> int:
    """Read all that comes, and count it."""
    n = 0
    while host.poll(200):
        host.recv()
        n += 1
    return n


def greet(channel: TcpChannel) -> None:
    channel.send(b"hello")
    channel.receive(3.0)


def free_port() -> int:
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        return plain.getsockname()[1]


class TestMessages:
    @pytest.mark.parametrize("n_bytes", [1, 20, 70_000, MESSAGE_MAX_BYTES])
    def test_every_length_makes_the_round_trip(
        self, listener: TcpListener, connect: Callable[..., TcpChannel], n_bytes: int
    ) -> None:
        round_trip(connect(listener), listener, os.urandom(20) * (n_bytes // 20) + bytes(n_bytes % 20))

    def test_order_is_kept(self, listener: TcpListener, connect: Callable[..., TcpChannel]) -> None:
        channel = connect(listener)
        for k in range(300):
            channel.send(b"%d" % k)
            listener.send(hear(listener)[0], b"%d" % k)
        assert listener.receive(0.0) is None
        assert [channel.receive(5.0) for _ in range(300)] == [b"%d" % k for k in range(300)]

    def test_each_host_gets_its_own_answer(self, listener: TcpListener, connect: Callable[..., TcpChannel]) -> None:
        channels = [connect(listener) for _ in range(20)]
        for k, channel in enumerate(channels):
            channel.send(b"%d" % k)
        heard = [hear(listener) for _ in channels]
        assert len({peer.route for peer, _ in heard}) == 20
        for peer, message in heard:
            listener.send(peer, b"to " + message)
        assert listener.receive(0.0) is None
        assert [channel.receive(5.0) for channel in channels] == [b"to %d" % k for k in range(20)]

    def test_a_peer_is_called_by_its_key_or_by_its_link(
        self, guarded: TcpListener, unguarded: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        for listener, who in ((guarded, "alice"), (unguarded, "loopback")):
            connect(listener).send(b"x")
            assert hear(listener)[0].who == who

    def test_any_thread_may_send_while_another_receives(
        self, listener: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        channel = connect(listener)
        channel.send(b"hello")
        peer, _ = hear(listener)
        receiving = threading.Thread(target=listener.receive, args=(20.0,))
        receiving.start()
        senders = [
            threading.Thread(target=lambda k=k: [listener.send(peer, b"%d" % k) for _ in range(50)]) for k in range(4)
        ]
        for sender in senders:
            sender.start()
        found = [channel.receive(5.0) for _ in range(200)]
        assert all(found.count(b"%d" % k) == 50 for k in range(4))
        channel.send(b"end")
        for thread in (*senders, receiving):
            thread.join()

    def test_nothing_comes_of_a_wait_but_none_in_time(
        self, listener: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        channel = connect(listener)
        for end in (listener, channel):
            start = time.monotonic()
            assert end.receive(0.05) is None
            assert 0.05 <= time.monotonic() - start < 1.0
            assert end.receive(0.0) is None

    def test_heard_says_when_the_daemon_was_last_heard(
        self, listener: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        channel = connect(listener)
        assert channel.heard_s < time.monotonic() - 1e6
        round_trip(channel, listener)
        before = channel.heard_s
        assert time.monotonic() - 5 < before <= time.monotonic()
        round_trip(channel, listener)
        assert before < channel.heard_s <= time.monotonic()

    def test_a_peer_that_is_gone_is_no_error(self, listener: TcpListener, connect: Callable[..., TcpChannel]) -> None:
        gone, stays = connect(listener), connect(listener)
        gone.send(b"x")
        peer, _ = hear(listener)
        gone.close()
        for message in (b"small", bytes(1_000_000)):
            listener.send(peer, message)
        round_trip(stays, listener)

    def test_last_words_before_closing_arrive(self, unguarded: TcpListener) -> None:
        with raw_host(unguarded) as host:
            host.send(b"x")
            unguarded.send(hear(unguarded)[0], bytes(10_000_000))
            unguarded.close()
            assert n_waiting(host) == 1

    def test_both_ends_close_twice_and_a_closed_listener_sends_nothing(
        self, listener: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        channel = connect(listener)
        channel.send(b"x")
        peer, _ = hear(listener)
        for end in (channel, listener):
            end.close()
            end.close()
        listener.send(peer, b"x")


class TestLimits:
    def test_a_host_does_not_send_more_than_a_link_carries(
        self, listener: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        channel = connect(listener)
        with pytest.raises(LimitError, match="16,777,217 bytes is above the 16,777,216"):
            channel.send(bytes(MESSAGE_MAX_BYTES + 1))
        round_trip(channel, listener)

    def test_a_longer_message_reaches_the_daemon_which_can_name_it(self, unguarded: TcpListener) -> None:
        with raw_host(unguarded) as host:
            host.send(bytes(MESSAGE_MAX_BYTES + 1))
            peer, heard = hear(unguarded)
            assert len(heard) == MESSAGE_MAX_BYTES + 1
            unguarded.send(peer, b"too long")
            unguarded.receive(0.0)
            assert host.recv() == b"too long"

    def test_far_too_long_a_message_ends_its_connection_only(
        self, ends: ExitStack, connect: Callable[..., TcpChannel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tcp, "_HARD_MAX_BYTES", 1000)
        listener = ends.enter_context(closing(TcpListener("127.0.0.1", 0)))
        with raw_host(listener) as host:
            host.send(bytes(1001))
            assert listener.receive(0.1) is None
        round_trip(connect(listener), listener, bytes(1000))

    @pytest.mark.parametrize("parts", [[b"a", b"b"], [b"", b"a"], [b"a"] * 500])
    def test_messages_of_several_parts_are_dropped(
        self, unguarded: TcpListener, connect: Callable[..., TcpChannel], parts: list[bytes]
    ) -> None:
        with raw_host(unguarded) as host:
            host.send_multipart(parts)
            assert unguarded.receive(0.1) is None
            round_trip(connect(unguarded), unguarded)

    def test_what_a_reader_does_not_read_is_dropped_and_others_are_served(
        self, unguarded: TcpListener, connect: Callable[..., TcpChannel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tcp, "_UNSENT_MAX_BYTES", 2_000_000)
        with raw_host(unguarded, rcvhwm=1, rcvbuf=50_000) as slow:
            slow.send(b"x")
            peer, _ = hear(unguarded)
            for _ in range(100):
                unguarded.send(peer, bytes(500_000))
                unguarded.receive(0.0)
            held = sum(unsent.n_bytes for unsent in unguarded._unsent)
            assert 0 < held <= 2_000_000
            round_trip(connect(unguarded), unguarded, bytes(500_000))
            assert 4 <= n_waiting(slow) < 60
            round_trip(connect(unguarded), unguarded, bytes(500_000))

    def test_small_messages_to_a_reader_that_stands_still_are_bounded_too(
        self, ends: ExitStack, connect: Callable[..., TcpChannel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tcp, "_QUEUE_MESSAGES", 20)
        listener = ends.enter_context(closing(TcpListener("127.0.0.1", 0)))
        with raw_host(listener, rcvhwm=1, rcvbuf=50_000) as slow:
            slow.send(b"x")
            peer, _ = hear(listener)
            for _ in range(1000):
                listener.send(peer, bytes(50_000))
                listener.receive(0.0)
            assert 20 <= n_waiting(slow) < 900
        round_trip(connect(listener), listener)

    def test_what_waits_for_a_receiver_is_bounded(self, unguarded: TcpListener) -> None:
        for _ in range(5000):
            unguarded.send(Peer(b"nobody", "loopback"), b"x")
        assert len(unguarded._queued) == 1000


class TestRefusals:
    """Each way of having the wrong key is one named error within two seconds, and the daemon hears nothing."""

    def refused(self, channel: TcpChannel, listener: TcpListener, text: str) -> str:
        start = time.monotonic()
        with pytest.raises(AccessError, match=text) as raised:
            greet(channel)
        assert time.monotonic() - start < 2.0
        assert listener.receive(0.05) is None
        return str(raised.value)

    def test_no_key_where_one_is_wanted(self, guarded: TcpListener, connect: Callable[..., TcpChannel]) -> None:
        text = self.refused(connect(guarded, None), guarded, "wants a key, and this host gave none")
        assert "hil keys new NAME" in text
        assert f"{guarded.url}?key=NAME.hilkey" in text

    @pytest.mark.usefixtures("keys")
    def test_a_key_where_none_is_used(self, unguarded: TcpListener, connect: Callable[..., TcpChannel]) -> None:
        self.refused(connect(unguarded, "alice"), unguarded, r"uses no keys, and this host has one \(alice, ")

    def test_a_key_that_was_never_registered(
        self, guarded: TcpListener, keys: KeyFolder, connect: Callable[..., TcpChannel], tmp_path: Path
    ) -> None:
        public_key, secret_key = (key.decode() for key in zmq.curve_keypair())
        forged = Credential("mallory", public_key, secret_key, keys.daemon_pair().public_key)
        (tmp_path / "mallory.hilkey").write_text(forged.text())
        (tmp_path / "mallory.hilkey").chmod(0o600)
        text = self.refused(connect(guarded, "mallory"), guarded, "does not know this key")
        assert f"(mallory, {fingerprint(public_key)})" in text

    def test_a_key_that_was_revoked(
        self, guarded: TcpListener, keys: KeyFolder, connect: Callable[..., TcpChannel]
    ) -> None:
        round_trip(connect(guarded), guarded)
        keys.revoke("alice")
        self.refused(connect(guarded), guarded, r"does not know this key \(alice, .*hil keys list")

    def test_a_key_of_another_daemon(
        self, guarded: TcpListener, connect: Callable[..., TcpChannel], tmp_path: Path
    ) -> None:
        KeyFolder(tmp_path / "elsewhere").new("bob", tmp_path / "bob.hilkey")
        self.refused(connect(guarded, "bob"), guarded, r"another key of its own than the credential \(bob, ")

    def test_a_registered_public_key_without_its_secret(
        self, guarded: TcpListener, keys: KeyFolder, tmp_path: Path
    ) -> None:
        alice = Credential.read(tmp_path / "alice.hilkey")
        _, other_secret = zmq.curve_keypair()
        with raw_host(
            guarded,
            curve_publickey=alice.public_key.encode(),
            curve_secretkey=other_secret,
            curve_serverkey=alice.daemon_key.encode(),
        ) as host:
            host.send(b"hello")
            assert guarded.receive(0.3) is None

    def test_a_refused_channel_stays_refused(self, guarded: TcpListener, connect: Callable[..., TcpChannel]) -> None:
        channel = connect(guarded, None)
        for _ in range(3):
            self.refused(channel, guarded, "wants a key")

    def test_a_key_is_shut_out_at_once_on_a_connection_that_exists(
        self, guarded: TcpListener, keys: KeyFolder, connect: Callable[..., TcpChannel], tmp_path: Path
    ) -> None:
        keys.new("bob", tmp_path / "bob.hilkey")
        alice, bob = connect(guarded), connect(guarded, "bob")
        for channel in (alice, bob):
            round_trip(channel, guarded)
        keys.revoke("alice")
        alice.send(b"pulse")
        assert guarded.receive(0.2) is None
        with pytest.raises(AccessError, match="revoked"):
            alice.receive(3.0)
        round_trip(bob, guarded)

    def test_nothing_more_is_sent_to_a_key_that_was_revoked(
        self, guarded: TcpListener, keys: KeyFolder, connect: Callable[..., TcpChannel]
    ) -> None:
        channel = connect(guarded)
        channel.send(b"watch")
        peer, _ = hear(guarded)
        keys.revoke("alice")
        guarded.send(peer, b"telemetry")
        guarded.receive(0.0)
        with pytest.raises(AccessError, match="revoked"):
            channel.receive(3.0)

    def test_a_new_key_works_without_a_restart(
        self, guarded: TcpListener, keys: KeyFolder, connect: Callable[..., TcpChannel], tmp_path: Path
    ) -> None:
        keys.new("bob", tmp_path / "bob.hilkey")
        round_trip(connect(guarded, "bob"), guarded)

    def test_what_is_sent_cannot_be_read_on_the_way(
        self, guarded: TcpListener, ends: ExitStack, tmp_path: Path
    ) -> None:
        seen = bytearray()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            channel = ends.enter_context(closing(TcpChannel(f"tcp://127.0.0.1:{port}?key={tmp_path / 'alice.hilkey'}")))
            daemon_port = int(guarded.url.rpartition(":")[2])
            near = server.accept()[0]
            with near, socket.create_connection(("127.0.0.1", daemon_port)) as far:
                relays = [threading.Thread(target=relay, args=(*pair, seen)) for pair in ((near, far), (far, near))]
                for thread in relays:
                    thread.start()
                round_trip(channel, guarded, b"very secret " * 10)
                for plain in (near, far):
                    plain.shutdown(socket.SHUT_RDWR)
                for thread in relays:
                    thread.join()
        assert len(seen) > 400
        assert b"secret" not in seen


def relay(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    while more := source.recv(65536):
        seen += more
        sink.sendall(more)


class TestBrokenLinks:
    @pytest.mark.parametrize("act", [lambda c: c.receive(3.0), lambda c: c.send(b"hello")], ids=["receive", "send"])
    def test_nobody_there_is_said_at_once(self, ends: ExitStack, act: Callable[[TcpChannel], object]) -> None:
        channel = ends.enter_context(closing(TcpChannel(f"tcp://127.0.0.1:{free_port()}")))
        start = time.monotonic()
        with pytest.raises(TransportError, match=r"nobody answers at tcp://127\.0\.0\.1:\d+.*hil serve"):
            act(channel)
        assert time.monotonic() - start < 2.0

    def test_an_unknown_host_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def getaddrinfo(*_: object, **__: object) -> None:
            raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with pytest.raises(TransportError, match="no host 'pinq': Name or service not known"):
            TcpChannel("tcp://pinq:7341")

    @pytest.mark.parametrize("key", ["", "?key={}/alice.hilkey"])
    @pytest.mark.parametrize("words", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4])
    def test_another_program_is_told_from_a_daemon(
        self, ends: ExitStack, keys: KeyFolder, tmp_path: Path, words: bytes, key: str
    ) -> None:
        server = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    plain = server.accept()[0]
                except OSError:
                    return
                with plain:
                    plain.sendall(words)

        serving = threading.Thread(target=serve)
        serving.start()
        channel = ends.enter_context(closing(TcpChannel(f"tcp://127.0.0.1:{port}" + key.format(tmp_path))))
        with pytest.raises(TransportError, match=r"hangs up at once|is no crossbar-hil daemon"):
            channel.receive(3.0)
        channel.close()
        server.shutdown(socket.SHUT_RDWR)
        serving.join()

    def test_a_host_outlives_its_daemon(
        self, listener: TcpListener, keys: KeyFolder, ends: ExitStack, connect: Callable[..., TcpChannel]
    ) -> None:
        channel = connect(listener)
        round_trip(channel, listener)
        listener.close()
        with pytest.raises(TransportError, match=r"the link to .* broke"):
            channel.receive(3.0)
        port = int(listener.url.rpartition(":")[2])
        with_keys = None if "this machine only" in listener.access else keys
        again = ends.enter_context(closing(TcpListener("127.0.0.1", port, with_keys)))
        give_up_s = time.monotonic() + 5
        while True:
            try:
                round_trip(channel, again)
                break
            except TransportError:
                assert time.monotonic() < give_up_s

    def test_nothing_waits_in_a_dead_link_to_be_carried_out_later(
        self,
        unguarded: TcpListener,
        ends: ExitStack,
        connect: Callable[..., TcpChannel],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        channel = connect(unguarded)
        round_trip(channel, unguarded)
        monkeypatch.setattr(tcp, "_SEND_WAIT_S", 0.0)
        unguarded.close()
        with pytest.raises(TransportError, match="broke"):
            channel.receive(3.0)
        for _ in range(10):
            with pytest.raises(TransportError):
                channel.send(b"pulse")
        again = ends.enter_context(closing(TcpListener("127.0.0.1", int(unguarded.url.rpartition(":")[2]))))
        assert again.receive(0.5) is None

    def test_a_daemon_that_listens_but_does_not_answer_is_an_error(
        self, ends: ExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tcp, "_HANDSHAKE_S", 0.1)
        server = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        channel = ends.enter_context(closing(TcpChannel(f"tcp://127.0.0.1:{server.getsockname()[1]}")))
        with pytest.raises(TransportError, match="does not answer"):
            channel.send(b"hello")

    def test_a_daemon_that_takes_nothing_is_an_error(
        self, unguarded: TcpListener, connect: Callable[..., TcpChannel], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tcp, "_SEND_WAIT_S", 0.1)
        channel = connect(unguarded)
        channel.send(b"hello")

        def flood() -> None:
            for _ in range(200):
                channel.send(bytes(1_000_000))

        with pytest.raises(TransportError, match=r"took no message for 0\.1 s"):
            flood()


class TestNoise:
    def test_2000_connections_that_send_random_bytes_do_no_harm(
        self, listener: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        draw = random.Random(0)
        old = connect(listener)
        round_trip(old, listener)
        address = ("127.0.0.1", int(listener.url.rpartition(":")[2]))
        for _ in range(2000):
            with socket.create_connection(address, 5) as plain, suppress(ConnectionError):
                plain.sendall(noise(draw))
        assert listener.receive(0.1) is None
        round_trip(old, listener)
        round_trip(connect(listener), listener)

    def test_the_plain_protocol_is_not_spoken_where_keys_are(self, guarded: TcpListener) -> None:
        with raw_host(guarded) as host:
            host.send(b"hello")
            assert guarded.receive(0.2) is None


def noise(draw: random.Random) -> bytes:
    """Random bytes, alone or after a greeting of ZMTP 3 that is right up to some byte."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01"
    greeting += draw.choice((b"NULL", b"CURVE", b"PLAIN")).ljust(20, b"\0") + bytes(32)
    ready = b"\x04\x19\x05READY\x0bSocket-Type" + draw.randbytes(4)
    begun = (greeting + ready)[: draw.choice((0, 0, 1, 10, 12, 32, 64, 64, 200))]
    return begun + draw.randbytes(draw.randrange(300))


class TestListening:
    @pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.0.2.1", "::"])
    def test_without_keys_other_machines_are_not_served(self, host: str) -> None:
        with pytest.raises(ConfigError, match=r"loopback only.*hil keys new NAME"):
            TcpListener(host, 0)

    def test_a_folder_without_keys_counts_as_none(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="loopback only"):
            TcpListener("0.0.0.0", 0, KeyFolder(tmp_path / "none"))

    def test_with_keys_all_addresses_are_served(
        self, keys: KeyFolder, ends: ExitStack, connect: Callable[..., TcpChannel]
    ) -> None:
        listener = ends.enter_context(closing(TcpListener("*", 0, keys)))
        assert listener.url.startswith("tcp://0.0.0.0:")
        round_trip(connect(listener), listener)

    def test_loopback_has_a_name_too(self, ends: ExitStack, connect: Callable[..., TcpChannel]) -> None:
        listener = ends.enter_context(closing(TcpListener("localhost", 0)))
        round_trip(connect(listener), listener)

    def test_ipv6(self, ends: ExitStack, connect: Callable[..., TcpChannel]) -> None:
        try:
            with socket.socket(socket.AF_INET6) as plain:
                plain.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        listener = ends.enter_context(closing(TcpListener("::1", 0)))
        assert listener.url.startswith("tcp://[::1]:")
        round_trip(connect(listener), listener)

    def test_an_address_in_use_is_named(self, listener: TcpListener) -> None:
        port = int(listener.url.rpartition(":")[2])
        with pytest.raises(ConfigError, match=rf"tcp://127\.0\.0\.1:{port}: Address already in use.*another port"):
            TcpListener("127.0.0.1", port)

    @pytest.mark.parametrize(
        ("host", "port", "text"), [("127.0.0.1", 65536, "port 65536"), ("192.0.2.1", 0, "an address of this machine")]
    )
    def test_an_address_of_nobody_is_named(self, keys: KeyFolder, host: str, port: int, text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            TcpListener(host, port, keys)

    @pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
    def test_open_secrets_are_refused(self, keys: KeyFolder) -> None:
        (keys.path / "daemon.toml").chmod(0o644)
        with pytest.raises(AccessError, match="chmod 600"):
            TcpListener("127.0.0.1", 0, keys)

    def test_it_says_who_can_reach_it(self, guarded: TcpListener, unguarded: TcpListener) -> None:
        assert "this machine only" in unguarded.access
        assert "registered key" in guarded.access


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "found"),
        [
            ("tcp://pynq:7341", ("pynq", 7341, None)),
            ("tcp://127.0.0.1:0", ("127.0.0.1", 0, None)),
            ("tcp://*:1", ("*", 1, None)),
            ("tcp://[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535, None)),
            ("tcp://pynq:7341?key=a.hilkey", ("pynq", 7341, Path("a.hilkey"))),
            ("tcp://pynq:7341?key=/a+b/c%20d", ("pynq", 7341, Path("/a+b/c d"))),
            ("tcp://pynq:7341?key=~/x", ("pynq", 7341, Path.home() / "x")),
            ("tcp://pynq:7341?key=~nobody-of-that-name/x", ("pynq", 7341, Path("~nobody-of-that-name/x"))),
            ("tcp://pynq:7341?key=a?b#c%26%25", ("pynq", 7341, Path("a?b#c&%"))),
        ],
    )
    def test_good_ones(self, url: str, found: tuple[str, int, Path | None]) -> None:
        assert tcp_address(url) == found

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("pynq:7341", "no address"),
            ("tcp://", "no address"),
            ("tcp://:7341", "no address"),
            ("tcp://[]:7341", "no address"),
            ("tcp://::1:7341", "IPv6 addresses in brackets"),
            ("tcp://pynq/x:7341", "no address"),
            ("tcp://me@pynq:7341", "no address"),
            ("tcp://pynq", "names no port"),
            ("tcp://pynq:", "names no port"),
            ("tcp://pynq?key=x", "names no port"),
            ("tcp://pynq:65536", "not a number from 1 to 65535"),
            ("tcp://pynq:+1", "not a number from 1 to 65535"),
            ("tcp://pynq:x", "not a number from 1 to 65535"),
            ("tcp://pynq:1/", "no address"),
            ("tcp://pynq:1?", "write one key=FILE"),
            ("tcp://pynq:1?key=", "write one key=FILE"),
            ("tcp://pynq:1?Key=x", "write one key=FILE"),
            ("tcp://pynq:1?key=x&key=y", "write one key=FILE"),
            ("tcp://pynq:1?key=x&baud=9600", "'baud=9600'"),
        ],
    )
    def test_bad_ones_say_why(self, url: str, text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            tcp_address(url)

    def test_a_host_cannot_connect_to_any_port(self) -> None:
        with pytest.raises(ConfigError, match="0 stands for any"):
            TcpChannel("tcp://127.0.0.1:0")

    @given(st.text(min_size=1).filter(lambda text: "\0" not in text and not text.startswith("~")))
    def test_any_file_name_can_be_written(self, name: str) -> None:
        assert tcp_address(f"tcp://pynq:1?key={quote(name, errors='surrogatepass')}") is not None
        if name.isprintable():
            assert tcp_address(f"tcp://pynq:1?key={quote(name)}")[2] == Path(name)

    @given(st.text())
    def test_no_text_crashes(self, text: str) -> None:
        for url in (text, f"tcp://{text}"):
            with suppress(HilError):
                tcp_address(url)

    def test_the_variable_names_the_key_where_the_url_does_not(
        self, guarded: TcpListener, connect: Callable[..., TcpChannel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CROSSBAR_HIL_KEY", str(tmp_path / "alice.hilkey"))
        round_trip(connect(guarded, None), guarded)
        monkeypatch.setenv("CROSSBAR_HIL_KEY", str(tmp_path / "none.hilkey"))
        round_trip(connect(guarded, "alice"), guarded)
        with pytest.raises(ConfigError, match=r"none\.hilkey cannot be read"):
            connect(guarded, None)

    def test_the_url_that_people_see_does_not_name_the_key(
        self, guarded: TcpListener, connect: Callable[..., TcpChannel]
    ) -> None:
        assert connect(guarded).url == guarded.url


def test_the_board_needs_neither_torch_nor_numba() -> None:
    code = (
        "import sys, firmware_bridge.link.tcp, firmware_bridge.link.keys, hil.cli.keys\n"
        "assert not {'torch', 'numba', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=Path(__file__).parents[2])
