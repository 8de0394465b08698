"""Whole messages, in order and each at most once, over frames that a line may lose, damage or repeat.

Neither port nor clock is in here: frames and the time go in, frames and messages come out.

A message is cut into pieces of one frame each. Up to `WINDOW` pieces are under way; the other side says in every header
which of them it has (selective repeat). A serial line keeps order, so a piece that was stamped before the newest one
that arrived, and has not arrived itself, is lost: it is sent again at once. A timer is left for the last pieces before
a pause, whose loss no later piece shows, and for a line that is cut.

A connection has a number, drawn at random by the host that opens it. Whoever does not know the number of a frame says
RESET, so that a host whose daemon was restarted finds out, and nothing from before a restart is taken for new.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass

from firmware_bridge.link.channel import MESSAGE_MAX_BYTES, check_length
from firmware_bridge.link.frames import NUMBER_MASK, PAYLOAD_MAX_BYTES, WIRE_MAX_BYTES, Flag, Frame, Kind, encode
from hil.errors import LimitError, TransportError

log = logging.getLogger(__name__)

#: pieces under way; `have` names one bit for each but the first
WINDOW = 32
#: a connection is given up when it waits for an answer and has heard nothing for this long...
SILENCE_S = 3.0
#: ...and has asked so often; on a slow line, or after a pause of this program, that takes longer than `SILENCE_S`
ATTEMPTS_MIN = 5
#: start, data and stop bit
BITS_PER_BYTE = 10
#: time for which bytes are handed to the port ahead of the line, beyond one frame: covers a late wake-up of this
#: program. No more than that, for an acknowledgement or a repeated piece waits behind them.
_LEAD_S = 0.02
#: two latency timers of a USB adapter (16 ms each, unverified) and two late wake-ups
_TURNAROUND_S = 0.05
#: the timer doubles up to this, so that a mended line is noticed soon
_TIMER_MAX_S = 0.5
#: messages that wait for a line which does not keep up; what comes on top is refused
_QUEUE_MAX_BYTES = 2 * MESSAGE_MAX_BYTES


@dataclass
class Counts:
    """What a connection did.

    Attributes:
        frames, bytes: sent, of every kind, borders included.
        repeated: pieces that were sent again.
        duplicates: pieces that came again.
        strangers: frames of another connection, and echoes of the own.
    """

    frames: int = 0
    bytes: int = 0
    repeated: int = 0
    duplicates: int = 0
    strangers: int = 0


@dataclass
class _Piece:
    """A piece of a message that is under way."""

    sequence: int
    flags: int
    payload: bytes
    stamp: int = 0
    arrived: bool = False


_NO_PIECE = _Piece(sequence=0, flags=0, payload=b"")


class Connection:
    """One connection, seen from either end.

    Args:
        number: 32 bit, drawn by the host.
        name: the link, for messages of errors.
        is_listener: whether this is the daemon's end, which begins with the host's SYN.
        baud: rate of the line; None for one that takes no time.
        now_s: the time.
        silence_s: see `SILENCE_S`.

    Attributes:
        messages: what has come; take from the left.
        failure: why it ended; nothing goes out or comes in any more.
        heard_s: when the other side was last heard; at first the time of opening.
    """

    def __init__(
        self,
        number: int,
        *,
        name: str,
        is_listener: bool,
        baud: int | None,
        now_s: float,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.number = number
        self.messages: deque[bytes] = deque()
        self.failure: TransportError | None = None
        self.heard_s = now_s
        self.counts = Counts()
        self._name = name
        self._own_mark = Flag.FROM_LISTENER if is_listener else 0
        self._open = is_listener
        self._silence_s = silence_s
        self._byte_s = BITS_PER_BYTE / baud if baud else 0.0
        frame_s = WIRE_MAX_BYTES * self._byte_s
        self._lead_s = _LEAD_S + frame_s
        # The piece, a frame that the other side has begun, what lies ahead in its port, and one that has the answer.
        self._timer_s = _TURNAROUND_S + self._lead_s + 3 * frame_s
        # Going out. Numbers begin anywhere, so that their wrap is nothing rare.
        self._queue: deque[bytes] = deque()
        self._queued_bytes = self._cut_bytes = 0
        self._flight: deque[_Piece] = deque()
        self._lost: deque[_Piece] = deque()
        self._next_sequence = self._next_stamp = number & NUMBER_MASK
        self._free_s = now_s
        self._waiting_since_s = now_s
        self._due_s = now_s
        self._attempts = 0
        # Coming in.
        self._wanted = number & NUMBER_MASK
        self._early: dict[int, Frame] = {}
        self._partial = bytearray()
        self._seen = (self._wanted - 1) & NUMBER_MASK
        self._owes_ack = self._owes_syn_ack = False

    @property
    def is_open(self) -> bool:
        """Whether the other side has answered."""
        return self._open

    @property
    def is_idle(self) -> bool:
        """Whether everything that was sent has arrived."""
        return not self._queue and not self._flight

    def send(self, message: bytes) -> None:
        """Queue a message.

        Raises:
            LimitError: it is too long, or too much waits already; nothing was queued.
            TransportError: the connection has ended.
        """
        if self.failure:
            raise self.failure
        check_length(len(message))
        if self._queued_bytes + len(message) > _QUEUE_MAX_BYTES:
            raise LimitError(
                f"{self._queued_bytes} bytes already wait for {self._name}, the limit is {_QUEUE_MAX_BYTES}",
                fix="send less, or use a faster link",
            )
        self._queue.append(message)
        self._queued_bytes += len(message)

    def feed(self, frame: Frame, now_s: float) -> None:
        """Take a frame that has come."""
        echo = frame.flags & Flag.FROM_LISTENER == self._own_mark
        if self.failure or echo or frame.connection != self.number:
            self.counts.strangers += 1
            return
        self.heard_s = now_s
        self._attempts = 0
        self._open = True
        if frame.kind == Kind.RESET:
            self._fail(
                f"{self._name}: the link was reset",
                "open it again; the daemon was restarted, or another host has opened the line",
            )
        elif frame.kind == Kind.SYN:
            self._owes_syn_ack = True
        else:
            self._acknowledge(frame, now_s)
            if frame.kind == Kind.DATA:
                self._take(frame)

    def transmit(self, now_s: float) -> bytes | None:
        """The next frame for the wire, or None when nothing is due or the line is still busy."""
        if self.failure or now_s < self._free_s - self._lead_s:
            return None
        frame = self._next_frame(now_s)
        if frame is None:
            return None
        data = encode(frame)
        self._free_s = max(now_s, self._free_s) + len(data) * self._byte_s
        self.counts.frames += 1
        self.counts.bytes += len(data)
        return data

    def wake_s(self) -> float:
        """The earliest time at which `transmit` may have something, if nothing comes before."""
        if self.failure:
            return math.inf
        line_s = self._free_s - self._lead_s
        if self._open and (self._owes_syn_ack or self._owes_ack or self._lost or self._may_cut()):
            return line_s
        return max(line_s, self._due_s) if self._waits() else math.inf

    def reset_frame(self) -> bytes:
        """What tells the other side that this connection is over."""
        return _reset_frame(self.number, self._own_mark)

    def _next_frame(self, now_s: float) -> Frame | None:
        if self._waits() and now_s >= self._due_s:
            self._ask_again(now_s)
            if self.failure:
                return None
            if not self._open:
                return self._frame(Kind.SYN)
        if not self._open:
            return None
        if self._owes_syn_ack:
            self._owes_syn_ack = False
            return self._frame(Kind.SYN_ACK)
        piece = self._next_lost() or self._cut(now_s)
        if piece is not None:
            piece.stamp = self._next_stamp
            self._next_stamp = (piece.stamp + 1) & NUMBER_MASK
            return self._frame(Kind.DATA, piece)
        return self._frame(Kind.ACK) if self._owes_ack else None

    def _frame(self, kind: Kind, piece: _Piece | None = None) -> Frame:
        self._owes_ack = False
        have = sum(1 << ((sequence - self._wanted) & NUMBER_MASK) - 1 for sequence in self._early)
        sent = piece or _NO_PIECE
        flags = self._own_mark | sent.flags
        state = (self._wanted, have, self._seen)
        return Frame(kind, flags, self.number, sent.sequence, sent.stamp, *state, sent.payload)

    # Going out

    def _waits(self) -> bool:
        return not self._open or bool(self._flight)

    def _may_cut(self) -> bool:
        return bool(self._queue) and len(self._flight) < WINDOW

    def _set_timer(self, now_s: float, wait_s: float) -> None:
        # Counted from when the last byte handed to the port has left it.
        self._due_s = max(now_s, self._free_s) + wait_s

    def _ask_again(self, now_s: float) -> None:
        """The timer ran out: the oldest piece alone goes again, for its answer tells which others are lost."""
        quiet_s = now_s - max(self.heard_s, self._waiting_since_s)
        if quiet_s >= self._silence_s and self._attempts >= ATTEMPTS_MIN:
            self._fail(
                f"{self._name}: no answer for {quiet_s:.1f} s",
                "check cable and board, and that `hil serve` runs at the other end with the same baud and version",
            )
            return
        longest_s = max(self._timer_s, _TIMER_MAX_S)
        self._set_timer(now_s, min(self._timer_s * 2**self._attempts, longest_s))
        self._attempts += 1
        if self._open:
            self._lost = deque([self._flight[0]])

    def _next_lost(self) -> _Piece | None:
        if not self._lost:
            return None
        self.counts.repeated += 1
        return self._lost.popleft()

    def _cut(self, now_s: float) -> _Piece | None:
        if not self._may_cut():
            return None
        message = self._queue[0]
        payload = message[self._cut_bytes : self._cut_bytes + PAYLOAD_MAX_BYTES]
        self._cut_bytes += len(payload)
        is_last = self._cut_bytes == len(message)
        if is_last:
            self._queue.popleft()
            self._queued_bytes -= len(message)
            self._cut_bytes = 0
        if not self._flight:
            self._waiting_since_s = now_s
            self._set_timer(now_s, self._timer_s)
        piece = _Piece(self._next_sequence, Flag.LAST if is_last else 0, payload)
        self._next_sequence = (self._next_sequence + 1) & NUMBER_MASK
        self._flight.append(piece)
        return piece

    def _acknowledge(self, frame: Frame, now_s: float) -> None:
        oldest = self._flight[0].sequence if self._flight else self._next_sequence
        n_done = (frame.ack - oldest) & NUMBER_MASK
        if n_done > len(self._flight):
            return  # older than what is known already
        for _ in range(n_done):
            self._flight.popleft()
        progress = n_done > 0
        for bit, piece in enumerate(list(self._flight)[1:]):
            if frame.have >> bit & 1 and not piece.arrived:
                piece.arrived = progress = True
        self._lost = deque(p for p in self._flight if not p.arrived and _is_before(p.stamp, frame.seen))
        if progress or self._lost:
            self._set_timer(now_s, self._timer_s)

    # Coming in

    def _take(self, frame: Frame) -> None:
        self._owes_ack = True
        self._seen = frame.stamp
        ahead = (frame.sequence - self._wanted) & NUMBER_MASK
        if ahead >= WINDOW or frame.sequence in self._early:
            self.counts.duplicates += 1
            return
        self._early[frame.sequence] = frame
        while (ready := self._early.pop(self._wanted, None)) is not None:
            self._wanted = (self._wanted + 1) & NUMBER_MASK
            self._partial += ready.payload
            if len(self._partial) > MESSAGE_MAX_BYTES:
                self._fail(
                    f"{self._name}: the other side sends a message above the limit of {MESSAGE_MAX_BYTES} bytes",
                    "install the same crossbar-hil on both sides",
                )
                return
            if ready.flags & Flag.LAST:
                self.messages.append(bytes(self._partial))
                self._partial = bytearray()

    def _fail(self, what: str, fix: str) -> None:
        self.failure = TransportError(what, fix=fix)
        for held in (self._queue, self._flight, self._lost, self._early):
            held.clear()
        self._queued_bytes = 0
        self._partial = bytearray()


class Acceptor:
    """The daemon's end of a line: the connection of the host that opened last, and RESET for all others.

    Args:
        name: the link, for messages of errors.
        baud: rate of the line; None for one that takes no time.
        silence_s: after which an unanswered connection is forgotten. A host hears the line only while it uses it, so
            that this must be longer than a host may think.

    Attributes:
        connection: the present one.
        messages: number of the connection and message; take from the left.
    """

    def __init__(self, *, name: str, baud: int | None, silence_s: float) -> None:
        self.connection: Connection | None = None
        self.messages: deque[tuple[int, bytes]] = deque()
        self._name = name
        self._baud = baud
        self._silence_s = silence_s
        self._reset: bytes | None = None

    def send(self, number: int, message: bytes) -> None:
        """Queue a message for a connection; if it is gone, so is the message.

        Raises:
            LimitError: the message is too long, or too much waits already; nothing was queued.
        """
        check_length(len(message))
        if self.connection is not None and self.connection.number == number:
            self.connection.send(message)

    def feed(self, frame: Frame, now_s: float) -> None:
        """Take a frame that has come."""
        if frame.flags & Flag.FROM_LISTENER:
            return  # an echo
        held = self.connection
        is_known = held is not None and held.number == frame.connection
        if not is_known and frame.kind == Kind.SYN:
            held = self.connection = Connection(
                frame.connection,
                name=self._name,
                is_listener=True,
                baud=self._baud,
                now_s=now_s,
                silence_s=self._silence_s,
            )
        elif not is_known or held is None:
            if frame.kind != Kind.RESET:
                self._reset = _reset_frame(frame.connection, Flag.FROM_LISTENER)
            return
        held.feed(frame, now_s)
        self.messages.extend((held.number, message) for message in held.messages)
        held.messages.clear()
        if held.failure:
            self._forget(held, tell=frame.kind != Kind.RESET)

    def transmit(self, now_s: float) -> bytes | None:
        """The next frame for the wire, or None when nothing is due or the line is still busy."""
        if self._reset is not None:
            # Few and short: the line's time needs no account of them.
            data, self._reset = self._reset, None
            return data
        held = self.connection
        data = held.transmit(now_s) if held is not None else None
        if held is not None and held.failure:
            self._forget(held, tell=True)
        return data

    def wake_s(self) -> float:
        """The earliest time at which `transmit` may have something, if nothing comes before."""
        if self._reset is not None:
            return -math.inf
        return self.connection.wake_s() if self.connection is not None else math.inf

    def _forget(self, held: Connection, *, tell: bool) -> None:
        log.info("connection %08x ended: %s", held.number, held.failure)
        self.connection = None
        if tell:
            self._reset = held.reset_frame()


def _reset_frame(number: int, mark: int) -> bytes:
    return encode(Frame(Kind.RESET, mark, number))


def _is_before(stamp: int, other: int) -> bool:
    """Whether a number comes before another on the circle of 16 bit."""
    return 0 < (other - stamp) & NUMBER_MASK <= NUMBER_MASK // 2
