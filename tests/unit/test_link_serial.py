"""The serial link over a pair of pseudo-terminals: both ends, faults of the line, restarts, and errors of ports."""

from __future__ import annotations

import errno
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import serial

from firmware_bridge.link import serial_line
from firmware_bridge.link.channel import MESSAGE_MAX_BYTES, Peer
from firmware_bridge.link.frames import WIRE_MAX_BYTES
from firmware_bridge.link.pty_line import PtyLine
from firmware_bridge.link.serial_line import DEFAULT_BAUD, SerialChannel, SerialListener, serial_address
from hil.errors import ConfigError, HilError, LimitError, TransportError

#: a pseudo-terminal takes any rate; with this one the ends need not wait for their line
FAST = 12_000_000


class EchoDaemon:
    """Sends everything back, until closed."""

    def __init__(self, path: str, baud: int = FAST) -> None:
        self.listener = SerialListener(f"serial://{path}?baud={baud}")
        self.got: list[bytes] = []
        self.peers: list[Peer] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            received = self.listener.receive(0.01)
            if received is not None:
                self.peers.append(received[0])
                self.got.append(received[1])
                self.listener.send(*received)

    def stop(self) -> None:
        """As a killed process: it says nothing more."""
        self._stop.set()
        self._thread.join()

    def close(self) -> None:
        self.stop()
        self.listener.close()


@pytest.fixture
def line() -> Iterator[PtyLine]:
    with PtyLine(seed=1) as line:
        yield line


@pytest.fixture
def daemon(line: PtyLine) -> Iterator[EchoDaemon]:
    daemon = EchoDaemon(line.board_path)
    yield daemon
    daemon.close()


@pytest.fixture
def connect(line: PtyLine, daemon: EchoDaemon) -> Iterator[Callable[[], SerialChannel]]:
    made: list[SerialChannel] = []

    def connect() -> SerialChannel:
        made.append(SerialChannel(f"serial://{line.host_path}?baud={FAST}"))
        return made[-1]

    yield connect
    for channel in made:
        channel.close()


def wait_until(holds: Callable[[], bool]) -> None:
    """What another thread is about to do."""
    give_up_s = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < give_up_s, "it never came true"
        time.sleep(0.002)


def echo(channel: SerialChannel, message: bytes) -> bytes | None:
    channel.send(message)
    return channel.receive(10)


class TestLink:
    @pytest.mark.parametrize("size", [0, 1, 1024, 1025, 100_000])
    def test_messages_come_back_as_they_were(self, connect: Callable[[], SerialChannel], size: int) -> None:
        message = bytes(index * 7 % 256 for index in range(size))
        assert echo(connect(), message) == message

    def test_messages_keep_their_order(self, connect: Callable[[], SerialChannel]) -> None:
        channel = connect()
        messages = [str(index).encode() for index in range(50)]
        for message in messages:
            channel.send(message)
        assert [channel.receive(10) for _ in messages] == messages

    def test_silence_is_none_and_no_error(self, connect: Callable[[], SerialChannel]) -> None:
        channel = connect()
        assert channel.receive(0.0) is None
        assert channel.receive(0.02) is None

    def test_what_is_heard_has_a_time(self, connect: Callable[[], SerialChannel]) -> None:
        channel = connect()
        before_s = time.monotonic()
        assert echo(channel, b"x") == b"x"
        assert before_s <= channel.heard_s <= time.monotonic()

    def test_the_peer_is_named_after_the_port(
        self, line: PtyLine, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        echo(connect(), b"x")
        assert daemon.peers[0].who == line.board_path
        assert daemon.listener.slow

    def test_another_thread_of_the_daemon_can_send_while_it_waits(self, line: PtyLine) -> None:
        with (
            closing(SerialListener(f"serial://{line.board_path}?baud={FAST}")) as listener,
            closing(SerialChannel(f"serial://{line.host_path}?baud={FAST}")) as channel,
        ):
            received: list[tuple[Peer, bytes] | None] = []
            waiting = threading.Thread(
                target=lambda: received.extend(listener.receive(60) for _ in range(2)), daemon=True
            )
            waiting.start()
            channel.send(b"who am I")
            while not received:
                channel.receive(0.01)
            assert received[0] is not None
            # It waits for the second message now, which does not come before the answer.
            listener.send(received[0][0], b"an event")
            assert channel.receive(30) == b"an event"
            channel.send(b"stop waiting")
            while waiting.is_alive():
                channel.receive(0.01)

    def test_too_long_a_message_is_refused_at_either_end(
        self, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        channel = connect()
        with pytest.raises(LimitError, match="above the"):
            channel.send(bytes(MESSAGE_MAX_BYTES + 1))
        with pytest.raises(LimitError, match="above the"):
            daemon.listener.send(Peer(bytes(4), "nobody"), bytes(MESSAGE_MAX_BYTES + 1))
        assert echo(channel, b"still there") == b"still there"

    def test_a_peer_that_is_gone_is_no_error(self, line: PtyLine) -> None:
        listener = SerialListener(f"serial://{line.board_path}?baud={FAST}")
        listener.send(Peer(bytes(4), "nobody"), b"x")
        assert listener.receive(0.01) is None
        listener.close()
        listener.send(Peer(bytes(4), "nobody"), b"x")

    def test_the_last_message_before_closing_arrives(
        self, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        channel = connect()
        echo(channel, b"x")
        channel.send(b"goodbye" + bytes(20_000))
        channel.close()
        wait_until(lambda: len(daemon.got) > 1)
        assert daemon.got[1:] == [b"goodbye" + bytes(20_000)]

    def test_both_ends_close_twice_and_a_closed_channel_says_so(
        self, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        channel = connect()
        channel.close()
        channel.close()
        with pytest.raises(TransportError, match="was closed"):
            channel.send(b"x")
        with pytest.raises(TransportError, match="was closed"):
            channel.receive(0)
        daemon.close()
        daemon.listener.close()

    def test_little_goes_over_the_line_beyond_the_messages(self) -> None:
        with (
            PtyLine(baud=DEFAULT_BAUD) as line,
            closing(EchoDaemon(line.board_path, DEFAULT_BAUD)),
            closing(SerialChannel(f"serial://{line.host_path}")) as channel,
        ):
            for _ in range(2):
                channel.send(bytes(50_000))
            assert [channel.receive(10) for _ in range(2)] == [bytes(50_000)] * 2
            # On a busy machine the host may be late by a whole timer and ask again.
            # Acknowledging what comes back takes another 3 %.
            once = line.to_board_bytes - channel.counts.repeated * WIRE_MAX_BYTES
            assert once / 100_000 <= 1.05 + 0.03

    def test_a_line_slower_than_the_ends_believe_is_waited_for(self) -> None:
        with (
            PtyLine(baud=460800) as line,
            closing(EchoDaemon(line.board_path)),
            closing(SerialChannel(f"serial://{line.host_path}?baud={FAST}")) as channel,
        ):
            assert echo(channel, bytes(30_000)) == bytes(30_000)


class TestFaults:
    def unheard(self, line: PtyLine, close: Callable[[], None], carried: Callable[[], int]) -> None:
        """Close an end as if it was killed: the line swallows its farewell."""
        line.cut()
        before = carried()
        close()
        wait_until(lambda: carried() > before)
        line.mend()

    def test_messages_pass_a_line_that_loses_and_changes_bytes(
        self, line: PtyLine, connect: Callable[[], SerialChannel]
    ) -> None:
        channel = connect()
        line.lose = line.flip = 2e-5
        messages = [bytes([index]) * 20_000 for index in range(10)]
        for message in messages:
            channel.send(message)
        assert [channel.receive(20) for _ in messages] == messages
        assert channel.counts.repeated > 0

    def test_a_cut_that_is_mended_soon_goes_unnoticed(
        self, line: PtyLine, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        channel = connect()
        echo(channel, b"before")
        line.cut()
        channel.send(b"meanwhile")
        assert channel.receive(0.3) is None
        line.mend()
        assert channel.receive(10) == b"meanwhile"
        assert daemon.got == [b"before", b"meanwhile"]

    def test_a_cut_that_lasts_is_an_error(self, line: PtyLine, daemon: EchoDaemon) -> None:
        with closing(SerialChannel(f"serial://{line.host_path}?baud={FAST}", silence_s=0.5)) as channel:
            echo(channel, b"before")
            line.cut()
            channel.send(b"lost")
            with pytest.raises(TransportError, match=r"no answer for .*`hil serve`"):
                channel.receive(20)

    def test_nobody_at_the_other_end_is_an_error(self, line: PtyLine) -> None:
        with closing(SerialChannel(f"serial://{line.host_path}?baud={FAST}", silence_s=0.2)) as channel:
            channel.send(b"anybody?")
            with pytest.raises(TransportError, match=f"{line.host_path}: no answer"):
                channel.receive(20)

    def test_a_daemon_that_was_restarted_takes_nothing_of_the_old_link(
        self, line: PtyLine, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        channel = connect()
        echo(channel, b"before")
        self.unheard(line, daemon.close, lambda: line.to_host_bytes)
        with closing(EchoDaemon(line.board_path)) as second:
            channel.send(b"pulse")
            with pytest.raises(TransportError, match="link was reset"):
                channel.receive(20)
            channel.close()
            assert echo(connect(), b"again") == b"again"
            assert second.got == [b"again"]

    def test_a_daemon_that_stops_in_order_says_so_at_once(
        self, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        channel = connect()
        echo(channel, b"before")
        daemon.close()
        with pytest.raises(TransportError, match="link was reset"):
            channel.receive(20)

    def test_a_host_that_was_killed_leaves_the_line_to_the_next(
        self, line: PtyLine, daemon: EchoDaemon, connect: Callable[[], SerialChannel]
    ) -> None:
        first = connect()
        echo(first, b"one")
        self.unheard(line, first.close, lambda: line.to_board_bytes)
        assert echo(connect(), b"two") == b"two"
        assert daemon.got == [b"one", b"two"]
        assert daemon.peers[0].route != daemon.peers[1].route


class TestPorts:
    def test_a_second_program_is_refused(self, line: PtyLine, connect: Callable[[], SerialChannel]) -> None:
        connect()
        with pytest.raises(TransportError, match=f"{line.host_path} is in use by another program"):
            connect()

    def test_a_closed_port_is_free_again(self, connect: Callable[[], SerialChannel]) -> None:
        connect().close()
        assert echo(connect(), b"x") == b"x"

    @pytest.mark.parametrize(
        ("path", "kind", "says"),
        [
            ("/dev/no-such-port", TransportError, "does not exist.*list_ports"),
            ("/dev/null", ConfigError, "/dev/null is no serial port"),
            ("/dev", ConfigError, "/dev is no serial port"),
        ],
    )
    @pytest.mark.parametrize("end", [SerialChannel, SerialListener])
    def test_a_port_that_is_none_is_refused(
        self, end: Callable[[str], object], path: str, kind: type[HilError], says: str
    ) -> None:
        with pytest.raises(kind, match=says):
            end(f"serial://{path}")

    @pytest.mark.parametrize(
        ("raised", "kind", "says"),
        [
            (serial.SerialException(errno.EACCES, "denied"), ConfigError, "dialout"),
            (serial.SerialException("strange"), TransportError, "cannot be opened: strange"),
            (ValueError("rate"), ConfigError, "cannot run at 9601 baud"),
        ],
    )
    def test_what_else_opening_may_raise_becomes_one_clear_error(
        self, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: type[HilError], says: str
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise raised

        monkeypatch.setattr(serial, "Serial", fail)
        with pytest.raises(kind, match=says):
            SerialChannel("serial:///dev/ttyUSB0?baud=9601")

    def test_without_pyserial_the_fix_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "serial", None)
        with pytest.raises(ConfigError, match=r'pip install "crossbar-hil\[lab\]"'):
            SerialChannel("serial:///dev/ttyUSB0")

    def test_an_adapter_that_is_unplugged_is_an_error_of_the_host(self) -> None:
        line = PtyLine()
        with closing(SerialChannel(f"serial://{line.host_path}")) as channel:
            line.close()
            with pytest.raises(TransportError, match="has vanished"):
                channel.receive(10)

    def test_the_daemon_opens_a_port_again_that_vanished(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(serial_line, "REOPEN_S", 0.01)
        port = tmp_path / "ttyUSB0"
        first = PtyLine()
        port.symlink_to(first.board_path)
        with caplog.at_level(logging.WARNING), closing(EchoDaemon(str(port))):
            port.unlink()
            first.close()
            wait_until(lambda: bool(caplog.records))
            with PtyLine() as second:
                port.symlink_to(second.board_path)
                with closing(SerialChannel(f"serial://{second.host_path}?baud={FAST}")) as channel:
                    assert echo(channel, b"back") == b"back"
                said = [record.getMessage() for record in caplog.records]
        assert [text.partition(" (")[0] for text in said] == [
            f"serial port {port} has vanished",
            f"serial port {port} is back",
        ]


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "path", "baud"),
        [
            ("serial:///dev/ttyUSB0", "/dev/ttyUSB0", 921600),
            ("serial:///dev/ttyUSB0?baud=115200", "/dev/ttyUSB0", 115200),
            (
                "serial:///dev/serial/by-id/usb-FTDI_x-if00-port0?baud=3000000",
                "/dev/serial/by-id/usb-FTDI_x-if00-port0",
                3000000,
            ),
        ],
    )
    def test_path_and_baud(self, url: str, path: str, baud: int) -> None:
        assert serial_address(url) == (path, baud)

    @pytest.mark.parametrize(
        "baud", ["fast", "", "-9600", "9600.0", "9_600", "0", "9599", "12000001", "9" * 5000, "٩٦٠٠"]
    )
    def test_a_wrong_baud_is_named_with_its_range(self, baud: str) -> None:
        with pytest.raises(ConfigError, match="no whole number from 9600 to 12000000"):
            serial_address(f"serial:///dev/ttyUSB0?baud={baud}")

    @pytest.mark.parametrize("query", ["speed=9600", "baud=9600&parity=E", "Baud=9600"])
    def test_an_unknown_key_is_named(self, query: str) -> None:
        with pytest.raises(ConfigError, match=r"unknown key '(speed|parity|Baud)'"):
            serial_address(f"serial:///dev/ttyUSB0?{query}")

    def test_a_baud_given_twice_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="baud more than once"):
            serial_address("serial:///dev/ttyUSB0?baud=9600&baud=115200")

    @pytest.mark.parametrize(
        "url",
        ["serial://dev/ttyUSB0", "serial://", "serial:///", "tcp:///dev/ttyUSB0", "/dev/ttyUSB0", "serial:///dev/x#y"],
    )
    def test_what_names_no_port_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigError, match="names no serial port"):
            serial_address(url)


class TestPtyLine:
    def test_a_line_is_never_faster_than_its_rate(self) -> None:
        with PtyLine(baud=115200) as line:
            with serial.Serial(line.host_path, timeout=10) as host, serial.Serial(line.board_path, timeout=10) as board:
                start_s = time.monotonic()
                host.write(bytes(3000))
                assert board.read(3000) == bytes(3000)
            assert time.monotonic() - start_s >= 0.99 * 3000 * 10 / 115200

    def test_both_ways_at_a_time(self, line: PtyLine) -> None:
        with serial.Serial(line.host_path, timeout=10) as host, serial.Serial(line.board_path, timeout=10) as board:
            host.write(b"up")
            board.write(b"down")
            assert (host.read(4), board.read(2)) == (b"down", b"up")
        assert (line.to_board_bytes, line.to_host_bytes) == (2, 4)

    def test_bytes_that_nobody_reads_wait(self, line: PtyLine) -> None:
        content = bytes(range(256)) * 400
        with serial.Serial(line.host_path, timeout=10) as host, serial.Serial(line.board_path, timeout=10) as board:
            writing = threading.Thread(target=host.write, args=(content,), daemon=True)
            writing.start()
            time.sleep(0.05)  # for the line to fill up
            assert board.read(len(content)) == content
            writing.join()

    def test_faults_are_as_frequent_as_asked_and_the_same_for_a_seed(self) -> None:
        results = []
        for _ in range(2):
            with (
                PtyLine(lose=0.1, flip=0.2, seed=7) as line,
                serial.Serial(line.host_path) as host,
                serial.Serial(line.board_path, timeout=0.2) as board,
            ):
                host.write(bytes(4000))
                results.append(board.read(4000))
        got = results[0]
        assert len(got) == pytest.approx(3600, abs=100)
        assert sum(byte != 0 for byte in got) == pytest.approx(720, abs=120)
        assert all(byte.bit_count() <= 1 for byte in got)
        assert results[1] == got

    def test_a_cut_line_carries_nothing(self, line: PtyLine) -> None:
        with serial.Serial(line.host_path) as host, serial.Serial(line.board_path, timeout=0.1) as board:
            line.cut()
            host.write(b"lost")
            wait_until(lambda: line.to_board_bytes == 4)
            assert board.read(4) == b""
            line.mend()
            board.timeout = 10
            host.write(b"here")
            assert board.read(4) == b"here"

    def test_closes_twice(self) -> None:
        line = PtyLine()
        line.close()
        line.close()
