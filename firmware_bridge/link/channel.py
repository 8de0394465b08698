"""What every link offers: whole messages, in order, each at most once. Nothing says that a message arrives at all.

The daemon and the remote backend are written against these two and never see a socket or a port.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hil.errors import LimitError

#: longest message; a peer that sends a longer one is refused
MESSAGE_MAX_BYTES = 16 * 2**20


def check_length(n_bytes: int) -> None:
    """Raise `LimitError` for a message that no link carries."""
    if n_bytes > MESSAGE_MAX_BYTES:
        raise LimitError(
            f"a message of {n_bytes:,} bytes is above the {MESSAGE_MAX_BYTES:,} that a link carries",
            fix="send smaller batches",
        )


class Channel(Protocol):
    """The host's end of a link. Used by one thread at a time."""

    #: as shown to people, "tcp://127.0.0.1:7341"
    url: str
    #: whether the link is slow enough that packing messages smaller pays
    slow: bool
    #: when anything was last heard from the other side, by `time.monotonic`
    heard_s: float

    def send(self, message: bytes) -> None:
        """Hand a message to the link; it may still be lost.

        Raises:
            LimitError: longer than `MESSAGE_MAX_BYTES`; nothing was sent.
            TransportError: the link is down.
            AccessError: the other side refuses this host's key.
        """
        ...

    def receive(self, timeout_s: float) -> bytes | None:
        """The next message, or None when none has come in that time. Raises as `send`."""
        ...

    def close(self) -> None:
        """Give the socket or port back; safe to call twice."""
        ...


@dataclass(frozen=True)
class Peer:
    """A host at the other end.

    Attributes:
        route: finds the way back to it.
        who: for people: its key's name where keys are used, else the link.
    """

    route: bytes
    who: str


class Listener(Protocol):
    """The daemon's end of a link: any number of peers. `receive` is called by one thread."""

    #: where hosts reach it
    url: str
    #: for people: who can reach it
    access: str
    #: whether the link is slow enough that packing messages smaller pays
    slow: bool

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        """The next message and its sender, or None when none has come in that time. Bad frames are dropped."""
        ...

    def send(self, peer: Peer, message: bytes) -> None:
        """Queue a message; may be called from any thread. A peer that is gone is no error."""
        ...

    def heard_s(self, peer: Peer) -> float:
        """When anything came from that peer, by `time.monotonic`, be it part of a message; -inf where unknown."""
        ...

    def close(self) -> None:
        """Give the socket or port back; safe to call twice, by the thread that receives."""
        ...
