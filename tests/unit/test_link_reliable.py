"""Whole messages over a simulated line, in simulated time: whatever the line does, in order and at most once."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.link import channel, reliable
from firmware_bridge.link.channel import MESSAGE_MAX_BYTES
from firmware_bridge.link.frames import PAYLOAD_MAX_BYTES, Decoder, Flag, Frame, Kind, encode
from firmware_bridge.link.reliable import ATTEMPTS_MIN, SILENCE_S, WINDOW, Acceptor, Connection
from hil.errors import LimitError, TransportError

NUMBER = 0xDEADBEEF
BAUD = 921600


def opened_by(number: int, now_s: float = 0.0, baud: int | None = BAUD) -> Connection:
    """A host's end."""
    return Connection(number, name="line", is_listener=False, baud=baud, now_s=now_s)


def acceptor(baud: int | None = BAUD, silence_s: float = 30.0) -> Acceptor:
    """A daemon's end."""
    return Acceptor(name="line", baud=baud, silence_s=silence_s)


class Line:
    """A host and a daemon, a line between them that takes its time, and faults of that line.

    Args:
        delay_s: time beyond that of the bytes, each way.
        lose, flip, double, overtake: probability of a frame to vanish, to have a bit changed, to come twice, to come
            late.
    """

    def __init__(
        self,
        *,
        number: int = NUMBER,
        baud: int = BAUD,
        delay_s: float = 0.001,
        lose: float = 0.0,
        flip: float = 0.0,
        double: float = 0.0,
        overtake: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.now_s = 0.0
        self.host, self.board = opened_by(number, baud=baud), acceptor(baud)
        self.lose, self.flip, self.double, self.overtake = lose, flip, double, overtake
        self.is_cut = False
        #: which frames vanish, over what `lose` says
        self.loses: Callable[[bytes], bool] = lambda _: False
        #: what arrived
        self.at_host: list[bytes] = []
        self.at_board: list[bytes] = []
        self._byte_s, self._delay_s = 10 / baud, delay_s
        self._random = random.Random(seed)
        self._count = itertools.count()
        self._travelling: list[tuple[float, int, str, bytes]] = []
        self._free_s = {"host": 0.0, "board": 0.0}
        self._decoders = {"host": Decoder(), "board": Decoder()}

    def ends(self) -> dict[str, Connection | Acceptor]:
        return {"host": self.host, "board": self.board}

    def run(self, until: Callable[[], bool] = lambda: False, *, limit_s: float = 600.0) -> bool:
        """Let time pass until something holds, nothing is left to happen, or the time is over."""
        limit_s += self.now_s
        while True:
            for name, end in self.ends().items():
                while data := end.transmit(self.now_s):
                    self._put(name, data)
            if until():
                return True
            coming = self._travelling[0][0] if self._travelling else float("inf")
            wake_s = min(coming, *(end.wake_s() for end in self.ends().values()))
            if wake_s > limit_s:
                self.now_s = limit_s
                return until()
            self.now_s = max(self.now_s, wake_s)
            while self._travelling and self._travelling[0][0] <= self.now_s:
                self._deliver(*heapq.heappop(self._travelling)[2:])

    def open(self) -> None:
        assert self.run(lambda: self.host.is_open)

    def to_host(self, message: bytes) -> None:
        assert self.board.connection is not None
        self.board.send(self.board.connection.number, message)

    def _put(self, sender: str, data: bytes) -> None:
        start_s = max(self.now_s, self._free_s[sender])
        self._free_s[sender] = end_s = start_s + len(data) * self._byte_s
        chance = self._random.random
        if self.is_cut or chance() < self.lose or self.loses(data):
            return
        for _ in range(2 if chance() < self.double else 1):
            arrival_s = end_s + self._delay_s + (0.1 * chance() if chance() < self.overtake else 0.0)
            if chance() < self.flip:
                changed = bytearray(data)
                changed[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
                data = bytes(changed)
            heapq.heappush(self._travelling, (arrival_s, next(self._count), sender, data))

    def _deliver(self, sender: str, data: bytes) -> None:
        receiver = "board" if sender == "host" else "host"
        for frame in self._decoders[receiver].feed(data):
            self.ends()[receiver].feed(frame, self.now_s)
        self.at_host.extend(self.host.messages)
        self.at_board.extend(message for _, message in self.board.messages)
        self.host.messages.clear()
        self.board.messages.clear()


def kind_of(wire: bytes) -> Kind:
    return Decoder().feed(wire)[0].kind


FAULTS = st.floats(0, 0.2)
SIZES = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 5000)), max_size=8)


def numbered(sizes: list[int], seed: int) -> list[bytes]:
    rng = random.Random(seed)
    return [index.to_bytes(2, "big") + rng.randbytes(size) for index, size in enumerate(sizes)]


class TestMessages:
    @given(
        number=st.integers(0, 2**32 - 1),
        seed=st.integers(0, 2**32),
        up=SIZES,
        down=SIZES,
        lose=FAULTS,
        flip=FAULTS,
        double=FAULTS,
        overtake=FAULTS,
    )
    @settings(max_examples=60, deadline=None)
    def test_arrive_whole_in_order_and_once_on_a_bad_line(
        self,
        number: int,
        seed: int,
        up: list[int],
        down: list[int],
        lose: float,
        flip: float,
        double: float,
        overtake: float,
    ) -> None:
        line = Line(number=number, lose=lose, flip=flip, double=double, overtake=overtake, seed=seed)
        sent_up, sent_down = numbered(up, 1), numbered(down, 2)
        for message in sent_up:
            line.host.send(message)
        line.run(lambda: line.host.is_open, limit_s=30)
        if line.board.connection is not None:
            for message in sent_down:
                line.to_host(message)
        line.run(limit_s=60)
        assert line.at_board == sent_up[: len(line.at_board)]
        assert line.at_host == sent_down[: len(line.at_host)]
        if line.host.failure is None and line.board.connection is not None:
            assert (line.at_board, line.at_host) == (sent_up, sent_down)

    def test_all_arrive_where_a_tenth_of_the_frames_is_lost(self) -> None:
        line = Line(lose=0.1, seed=1)
        sent = numbered([3000, 0, 1, 50_000, 1024, 1023, 2048], 3)
        line.open()
        for message in sent:
            line.host.send(message)
            line.to_host(message)
        line.run(limit_s=60)
        assert line.at_board == line.at_host == sent

    def test_numbers_wrap_without_harm(self) -> None:
        line = Line(number=0xFFFFFFF0, lose=0.05, seed=2)
        line.host.send(bytes(200 * PAYLOAD_MAX_BYTES))
        line.run(limit_s=60)
        assert line.at_board == [bytes(200 * PAYLOAD_MAX_BYTES)]

    @pytest.fixture
    def limit(self, monkeypatch: pytest.MonkeyPatch) -> int:
        """A limit on messages that takes less time to reach."""
        for module in (channel, reliable):
            monkeypatch.setattr(module, "MESSAGE_MAX_BYTES", 50_000)
        return 50_000

    def test_the_longest_message_passes_and_a_longer_one_is_refused(self, limit: int) -> None:
        line = Line()
        with pytest.raises(LimitError, match="50,001 bytes is above the 50,000"):
            line.host.send(bytes(limit + 1))
        with pytest.raises(LimitError, match="50,001 bytes is above the 50,000"):
            line.board.send(NUMBER, bytes(limit + 1))
        line.host.send(bytes(limit))
        line.run()
        assert line.at_board == [bytes(limit)]

    def test_a_message_that_does_not_end_is_refused_and_the_connection_with_it(self, limit: int) -> None:
        board = acceptor()
        board.feed(Frame(Kind.SYN, 0, NUMBER), 0.0)
        for index in range(limit // PAYLOAD_MAX_BYTES + 1):
            assert board.connection is not None
            piece = Frame(Kind.DATA, 0, NUMBER, (NUMBER + index) & 0xFFFF, payload=bytes(PAYLOAD_MAX_BYTES))
            board.feed(piece, 0.0)
        assert board.connection is None
        assert kind_of(board.transmit(0.0) or b"") == Kind.RESET

    def test_no_more_waits_for_a_dead_line_than_a_limit(self) -> None:
        host = opened_by(NUMBER)
        host.send(bytes(MESSAGE_MAX_BYTES))
        host.send(bytes(MESSAGE_MAX_BYTES))
        with pytest.raises(LimitError, match="already wait"):
            host.send(b"x")


class TestLineUse:
    @pytest.mark.parametrize("delay_s", [0.001, 0.032], ids=["direct", "usb-latency"])
    def test_a_clean_line_is_full_and_nothing_is_sent_twice(self, delay_s: float) -> None:
        line = Line(delay_s=delay_s)
        line.open()
        start_s = line.now_s
        for _ in range(10):
            line.host.send(bytes(50_000))
        line.run(lambda: len(line.at_board) == 10)
        assert 500_000 * 10 / BAUD / (line.now_s - start_s) >= 0.95
        assert line.host.counts.repeated == 0
        assert line.host.counts.bytes / 500_000 <= 1.05

    def test_both_directions_are_full_at_a_time(self) -> None:
        line = Line()
        line.open()
        start_s = line.now_s
        for _ in range(10):
            line.host.send(bytes(50_000))
            line.to_host(bytes(50_000))
        line.run(lambda: len(line.at_board) == len(line.at_host) == 10)
        assert 500_000 * 10 / BAUD / (line.now_s - start_s) >= 0.95

    def test_one_lost_frame_in_a_hundred_costs_little_more_than_its_own_time(self) -> None:
        line = Line(lose=0.01, seed=5)
        line.open()
        start_s = line.now_s
        for _ in range(20):
            line.host.send(bytes(50_000))
        line.run(lambda: len(line.at_board) == 20)
        assert 1_000_000 * 10 / BAUD / (line.now_s - start_s) >= 0.93
        assert line.host.counts.repeated <= 0.03 * line.host.counts.frames

    def test_a_gap_is_filled_without_waiting_for_a_timer(self) -> None:
        times = []
        for lost in (None, 3):
            line = Line()
            line.open()
            index = itertools.count()
            line.loses = lambda _, index=index, lost=lost: next(index) == lost
            start_s = line.now_s
            line.host.send(bytes(20 * PAYLOAD_MAX_BYTES))
            line.run(lambda line=line: bool(line.at_board))
            times.append(line.now_s - start_s)
        # One more frame on the line.
        assert times[1] - times[0] <= 1.1 * 1050 * 10 / BAUD

    def test_a_repeated_frame_that_is_lost_again_is_repeated_again(self) -> None:
        line = Line()
        line.open()
        victims = []

        def loses(data: bytes) -> bool:
            frame = Decoder().feed(data)[0]
            hit = frame.kind == Kind.DATA and frame.sequence == (NUMBER + 2) & 0xFFFF and len(victims) < 3
            victims.extend([frame.stamp] * hit)
            return hit

        line.loses = loses
        line.host.send(bytes(25 * PAYLOAD_MAX_BYTES))
        line.run()
        assert line.at_board == [bytes(25 * PAYLOAD_MAX_BYTES)]
        assert line.host.counts.repeated == len(victims) == 3

    def test_a_lost_last_piece_is_sent_again(self) -> None:
        line = Line()
        line.open()
        first = itertools.count()
        line.loses = lambda data: kind_of(data) == Kind.DATA and next(first) == 0
        line.host.send(b"short")
        line.run(lambda: bool(line.at_board), limit_s=0.5)
        assert line.at_board == [b"short"]

    def test_a_cut_line_gets_one_piece_at_a_time_until_it_is_mended(self) -> None:
        line = Line()
        line.open()
        line.host.send(bytes(100 * PAYLOAD_MAX_BYTES))
        line.run(limit_s=0.2)
        line.is_cut = True
        line.run(limit_s=0.3)
        before = line.host.counts.repeated
        line.run(limit_s=2.0)
        assert 3 <= line.host.counts.repeated - before <= 10
        line.is_cut = False
        line.run(lambda: bool(line.at_board), limit_s=3.0)
        assert line.at_board == [bytes(100 * PAYLOAD_MAX_BYTES)]
        assert line.host.failure is None

    def test_a_peer_that_pauses_is_not_flooded_with_copies(self) -> None:
        """It reads what has piled up, then acknowledges it at once: only what asked after it meanwhile was waste."""
        line = Line()
        line.open()
        line.host.send(bytes(WINDOW * PAYLOAD_MAX_BYTES))
        held: list[Frame] = []
        take, line.board.feed = line.board.feed, lambda frame, now_s: held.append(frame)
        line.run(limit_s=1.0)
        line.board.feed = take
        for frame in held:
            line.board.feed(frame, line.now_s)
        line.run(limit_s=1.0)
        assert line.host.is_idle
        assert line.host.counts.repeated <= 4

    def test_a_slow_line_is_given_the_time_it_takes(self) -> None:
        line = Line(baud=9600)
        line.host.send(bytes(20_000))
        line.run()
        assert line.at_board == [bytes(20_000)]
        assert line.host.counts.repeated == 0

    @pytest.mark.parametrize("phase_s", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    def test_an_answer_behind_the_other_sides_data_is_not_taken_for_lost(self, phase_s: float) -> None:
        line = Line(baud=9600)
        line.open()
        line.to_host(bytes(20_000))
        line.run(limit_s=5.0 + phase_s)
        line.host.send(bytes(PAYLOAD_MAX_BYTES))
        line.run()
        assert line.at_board == [bytes(PAYLOAD_MAX_BYTES)]
        assert line.host.counts.repeated == 0

    def test_a_line_that_was_mended_is_served_as_fast_as_before(self) -> None:
        line = Line()
        line.open()
        line.is_cut = True
        line.host.send(b"x")
        line.run(limit_s=2.0)
        line.is_cut = False
        line.run(lambda: line.host.is_idle)
        line.is_cut = True
        line.host.send(b"y")
        line.run(limit_s=0.2)
        line.is_cut = False
        start_s = line.now_s
        line.run(lambda: line.at_board == [b"x", b"y"])
        assert line.now_s - start_s <= 0.25

    def test_no_more_than_a_window_goes_out_unanswered(self) -> None:
        line = Line()
        line.open()
        line.loses = lambda data: kind_of(data) == Kind.ACK
        line.host.send(bytes(2 * WINDOW * PAYLOAD_MAX_BYTES))
        line.run(limit_s=2.0)
        assert line.host.counts.frames - line.host.counts.repeated == 1 + WINDOW

    def test_no_more_than_two_frames_wait_in_the_port(self) -> None:
        host = opened_by(NUMBER)
        assert host.transmit(0.0)
        host.feed(Frame(Kind.SYN_ACK, Flag.FROM_LISTENER, NUMBER), 0.0)
        host.send(bytes(50_000))
        ahead = sum(len(data) for data in iter(lambda: host.transmit(0.0), None))
        assert ahead * 10 / BAUD <= 0.06
        assert 0.0 < host.wake_s() < 0.06


class TestConnections:
    def test_a_connection_opens_through_lost_frames(self) -> None:
        line = Line()
        seen = itertools.count()
        line.loses = lambda _: next(seen) < 3
        line.host.send(b"hello")
        line.run(limit_s=5)
        assert line.at_board == [b"hello"]

    def test_nobody_there_is_an_error_after_the_stated_time(self) -> None:
        line = Line()
        line.is_cut = True
        assert line.run(lambda: line.host.failure is not None)
        assert SILENCE_S <= line.now_s <= SILENCE_S + 1.0
        with pytest.raises(TransportError, match="no answer for 3"):
            line.host.send(b"x")

    def test_a_link_that_falls_silent_is_an_error_after_the_stated_time(self) -> None:
        line = Line()
        line.open()
        line.run(limit_s=100.0)
        line.is_cut = True
        start_s = line.now_s
        line.host.send(b"x")
        assert line.run(lambda: line.host.failure is not None)
        assert SILENCE_S <= line.now_s - start_s <= SILENCE_S + 1.0

    def test_an_idle_link_is_never_given_up(self) -> None:
        line = Line()
        line.open()
        line.run(limit_s=1000.0)
        assert line.host.failure is None
        assert line.host.counts.frames == 1

    def test_a_program_that_paused_asks_again_before_it_gives_up(self) -> None:
        host = opened_by(NUMBER)
        asked = 0
        now_s = 100.0
        while host.failure is None:
            asked += host.transmit(now_s) is not None
            now_s = max(now_s, host.wake_s()) if host.failure is None else now_s
        assert asked >= ATTEMPTS_MIN

    def test_a_daemon_that_was_restarted_resets_the_link_and_takes_nothing(self) -> None:
        line = Line()
        line.host.send(b"before")
        line.run()
        line.board = acceptor()
        line.host.send(b"after")
        line.run(limit_s=5)
        assert line.at_board == [b"before"]
        assert line.board.connection is None
        with pytest.raises(TransportError, match="link was reset"):
            line.host.send(b"x")

    def test_a_host_that_was_restarted_takes_the_line_over(self) -> None:
        line = Line()
        line.host.send(b"old")
        line.run()
        line.to_host(b"for the old host")
        line.host = opened_by(NUMBER + 1, line.now_s)
        line.host.send(b"new")
        line.run(limit_s=5)
        assert line.at_board == [b"old", b"new"]
        assert line.at_host == []
        assert line.host.failure is None

    def test_a_message_for_an_older_connection_goes_nowhere(self) -> None:
        line = Line()
        line.open()
        line.board.send(NUMBER - 1, b"too late")
        line.run(limit_s=5)
        assert line.at_host == []

    @given(st.integers(0, 2**32 - 1).filter(lambda n: n != NUMBER), st.sampled_from(list(Kind)), st.integers(0, 50))
    def test_frames_from_before_a_restart_change_nothing(self, stale: int, kind: Kind, sequence: int) -> None:
        line = Line()
        line.open()
        if kind != Kind.SYN:
            line.board.feed(Frame(kind, Flag.LAST, stale, sequence, payload=b"stale"), line.now_s)
        line.host.feed(Frame(kind, Flag.LAST | Flag.FROM_LISTENER, stale, sequence, payload=b"stale"), line.now_s)
        line.host.send(b"good")
        line.run(limit_s=5)
        assert line.at_board == [b"good"]
        assert line.at_host == []
        assert line.host.failure is None

    def test_a_repeated_syn_does_not_begin_again(self) -> None:
        line = Line()
        line.host.send(b"one")
        line.run()
        line.board.feed(Frame(Kind.SYN, 0, NUMBER), line.now_s)
        line.host.send(b"two")
        line.run()
        assert line.at_board == [b"one", b"two"]

    def test_a_looped_back_line_is_no_daemon(self) -> None:
        host = opened_by(NUMBER)
        for frame in Decoder().feed(host.transmit(0.0) or b""):
            host.feed(frame, 0.0)
        assert not host.is_open
        assert host.counts.strangers == 1

    def test_a_reset_is_not_answered_by_a_reset(self) -> None:
        board = acceptor()
        board.feed(Frame(Kind.RESET, 0, NUMBER), 0.0)
        assert board.transmit(0.0) is None

    def test_a_host_that_leaves_is_forgotten_after_its_last_message(self) -> None:
        line = Line()
        line.host.send(b"bye")
        line.run()
        for frame in Decoder().feed(line.host.reset_frame()):
            line.board.feed(frame, line.now_s)
        assert line.at_board == [b"bye"]
        assert line.board.connection is None

    def test_a_daemon_forgets_a_host_that_died(self) -> None:
        line = Line()
        line.open()
        line.is_cut = True
        line.to_host(b"anybody?")
        line.run(lambda: line.board.connection is None)
        assert 30.0 <= line.now_s <= 31.0


def random_frame(rng: random.Random, kinds: list[Kind], connection: int, marks: int) -> Frame:
    kind = rng.choice(kinds)
    payload = rng.randbytes(rng.choice([0, 1, 40])) if kind == Kind.DATA else b""
    fields = (rng.getrandbits(16), rng.getrandbits(16), rng.getrandbits(16), rng.getrandbits(32), rng.getrandbits(16))
    return Frame(kind, marks | rng.getrandbits(1), connection, *fields, payload)


class TestFuzz:
    """100,000 frames: random bytes, damaged ones, and right ones of strange connections or with random numbers."""

    def feed(self, line: Line, decoders: dict[str, Decoder], wire: bytes) -> None:
        for name, end in line.ends().items():
            for frame in decoders[name].feed(wire):
                end.feed(frame, line.now_s)
            end.transmit(line.now_s)
        line.now_s += 1e-4

    def test_damaged_and_strange_frames_deliver_nothing_and_change_nothing(self) -> None:
        rng = random.Random(11)
        line = Line(baud=12_000_000)
        line.host.send(b"before")
        line.open()
        line.run()
        wanted = (NUMBER + 1) & 0xFFFF, NUMBER & 0xFFFF
        good = [
            encode(Frame(Kind.DATA, Flag.LAST, NUMBER, wanted[0], 5, NUMBER & 0xFFFF, payload=b"forged")),
            encode(Frame(Kind.DATA, 3, NUMBER, wanted[1], 5, NUMBER + 1 & 0xFFFF, payload=b"forged")),
            encode(Frame(Kind.RESET, 0, NUMBER)),
            encode(Frame(Kind.RESET, Flag.FROM_LISTENER, NUMBER)),
        ]
        strange = [kind for kind in Kind if kind != Kind.SYN]
        decoders = {"host": Decoder(), "board": Decoder()}
        for index in range(75_000):
            match index % 3:
                case 0:
                    wire = rng.randbytes(rng.randrange(60)) + b"\x00"
                case 1:
                    changed = bytearray(rng.choice(good))
                    for _ in range(rng.randint(1, 3)):
                        changed[rng.randrange(1, len(changed) - 1)] = rng.getrandbits(8)
                    wire = b"" if bytes(changed) in good else bytes(changed)
                case _:
                    number = rng.getrandbits(32)
                    wire = encode(random_frame(rng, strange, number, rng.choice([0, 2]))) if number != NUMBER else b""
            self.feed(line, decoders, wire)
            assert not line.host.messages
            assert not line.board.messages
        line.host.send(b"after")
        line.to_host(b"down")
        line.run(limit_s=5)
        assert (line.at_board, line.at_host) == ([b"before", b"after"], [b"down"])

    def test_frames_of_this_connection_with_random_numbers_raise_nothing(self) -> None:
        rng = random.Random(12)
        line = Line(baud=12_000_000)
        line.open()
        decoders = {"host": Decoder(), "board": Decoder()}
        kinds = [kind for kind in Kind if kind != Kind.RESET]
        for index in range(25_000):
            if index % 10 == 0:
                line.host.send(bytes(100))
                line.to_host(bytes(100))
            self.feed(line, decoders, encode(random_frame(rng, kinds, NUMBER, rng.choice([0, 2]))))
            line.host.messages.clear()
            line.board.messages.clear()
        assert line.host.failure is None
