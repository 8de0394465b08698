"""`RemoteBackend`: a backend that a daemon serves, over TCP or a serial line.

Requests are numbered. When the link breaks with one under way, the host connects again and asks what became of that
number, and sends it again only if the daemon never saw it. A pulse is never repeated on a guess.
"""

from __future__ import annotations

import contextlib
import getpass
import itertools
import logging
import os
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.link import messages as msg
from firmware_bridge.link.channel import Channel
from firmware_bridge.link.url import open_channel
from hil.backend import BackendInfo, Check, CrossbarBackend, Pulse, PulseReport, RowInput, Telemetry, check_out
from hil.bench_access import BenchAccess
from hil.errors import (
    READ_FIRST,
    AccessError,
    DeviceError,
    HilError,
    LeaseError,
    LimitError,
    ProtocolError,
    TransportError,
    UncertainError,
    UnconfirmedError,
)
from hil.provenance import own_version
from hil.spikes import PackedSpikes
from hil.tile import Tile

log = logging.getLogger(__name__)

PartT = TypeVar("PartT")

#: how long the daemon may take to answer the first message
_HELLO_S = 3.0
#: how long the host tries to get a broken link back: in a run, and on the way out
_RECOVER_S, _LEAVE_S = 20.0, 2.0
#: pause between two tries
_RETRY_S = 0.2
_LOOK = "look at the link"
#: payload of one request and of one reply, over a network and over a slow line
_CHUNK_BYTES = {False: 4 * 2**20, True: 64 * 2**10}


class RemoteBackend(CrossbarBackend, BenchAccess):
    """A backend behind a link.

    Args:
        url: `tcp://HOST:PORT[?key=FILE]` or `serial:///dev/PORT[?baud=N]`.
        connect: makes the link; another one in tests.

    Nothing is sent before `info` or `open` is used.
    """

    def __init__(self, url: str, *, connect: Callable[[str], Channel] = open_channel) -> None:
        self._url = url
        self._connect_link = connect
        self._session = secrets.token_bytes(msg.SESSION_BYTES)
        self._numbers = itertools.count(1)
        self._channel: Channel | None = None
        self._info: BackendInfo | None = None
        self._lease_s = 0.0
        self._is_open = False
        #: which journal the daemon keeps; another one knows nothing of this host's pulses
        self._journal: str | None = None
        self._same_journal = True
        #: whether the daemon may have given this host the array
        self._may_hold = False
        #: whether the daemon has said that it ends
        self._stopped = False
        # One request at a time; the heart beats in between, from a thread of its own.
        self._lock = threading.RLock()
        self._heart: threading.Thread | None = None
        self._stop = threading.Event()
        self._beat_s = self._linked_s = 0.0
        self._slots: weakref.WeakKeyDictionary[Tile, int] = weakref.WeakKeyDictionary()
        self._next_slot = 0

    def __del__(self) -> None:
        self._hang_up()

    @property
    def url(self) -> str:
        """Where the daemon is."""
        return self._url

    @property
    def slow(self) -> bool:
        """Whether the link is a slow one; known once it is connected."""
        return self._channel is not None and self._channel.slow

    @property
    def info(self) -> BackendInfo:
        with self._lock:
            if self._info is None:
                self._connect()
            assert self._info is not None
            return self._info

    def open(self) -> None:
        """Take the array, which only one host can have, and have it brought up.

        Raises:
            LeaseError: another host has it; the message says which.
            TransportError: no daemon answers.
            AccessError: it does not know this host's key.
            ProtocolError: it is of another version.
        """
        with self._lock:
            self._is_open = self._may_hold = False
            self._stop_heart()
            self._slots.clear()
            self._next_slot = 0
            self._same_journal = True
            self._linked()  # nobody there is an error at once; a link that breaks later is waited for
            self._may_hold = True
            try:
                reply = self._request("open")
            except TransportError:
                raise
            except HilError:
                self._may_hold = False
                raise
            self._info = msg.info_of(reply.get("info"))  # type: ignore[arg-type]
            self._is_open = True
            self._stop = threading.Event()
            self._heart = threading.Thread(target=self._beat_on, args=(self._stop,), daemon=True, name="heartbeat")
            self._heart.start()

    def close(self) -> None:
        was_open, self._is_open, self._may_hold = self._may_hold, False, False
        self._stop_heart()
        with self._lock:
            try:
                if was_open:
                    self._request("close", recover_s=_LEAVE_S)
            except LeaseError:
                log.info("the lease of %s had ended already", self._url)
            except (TransportError, ProtocolError, AccessError) as error:
                log.info("not closed at the daemon: %s", error.what)
            finally:
                self._hang_up()

    def _stop_heart(self) -> None:
        self._stop.set()
        heart, self._heart = self._heart, None
        if heart is not None:
            heart.join()

    def make_safe(self) -> None:
        """Have the daemon make the array safe; where this host's lease has ended, it has done so already.

        Raises:
            UnconfirmedError: the link is down. The daemon makes the array safe once it has not heard this host for the
                time of its lease; without a daemon the fabric's watchdog does.
        """
        with self._lock:
            try:
                if self._is_open:
                    self._request("make_safe", recover_s=_LEAVE_S)
            except LeaseError:
                log.info("the lease of %s has ended, and the daemon has made the array safe", self._url)
            except (TransportError, AccessError, ProtocolError) as error:
                raise UnconfirmedError(
                    f"nobody has confirmed that the array is safe ({error.what}); the daemon makes it safe "
                    f"{self._lease_s:g} s after it last heard this host, without a daemon the fabric's watchdog does",
                    fix="look at the daemon (hil watch); if it cannot be reached, switch the analogue supply off",
                ) from None

    def self_test(self) -> list[Check]:
        return msg.checks_of(_part(self.status(), "self_test", list))

    def telemetry(self) -> Telemetry:
        self._check_open()
        return Telemetry(dict(_part(self._request("telemetry"), "values", dict)))

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        self._check_open()
        tile.check_fits(self.info.shape)
        if out is None:
            out = np.empty((len(x), tile.n_outputs), np.float32)
        check_out(out, x, tile)
        with self._lock:
            slot, fresh = self._slot(tile)
            for here in self._pieces(x, tile):
                rows = PackedSpikes(x.words[here], x.n_rows) if isinstance(x, PackedSpikes) else x[here]
                reply = self._request(
                    "vmm",
                    slot=slot,
                    tile=msg.tile_fields(tile) if fresh else None,
                    v_read_v=float(v_read_v),
                    x=msg.rows_fields(rows),
                )
                fresh = False
                self._slots[tile] = slot
                out[here] = _currents(reply, (here.stop - here.start, tile.n_outputs))
        return out

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._check_open()
        reply = self._request("read", mask=msg.array_fields(mask), v_read_v=float(v_read_v), n_average=int(n_average))
        return _currents(reply, (int(mask.sum()),))

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        """Apply a pulse to each cell of the mask once.

        Raises:
            UncertainError: the link broke, and nobody knows whether the pulse was applied.
            TransportError, LeaseError: the link broke, or the array was lost, before it was applied.
            DeviceError: stopped on the way; the message says which cells had it. So does one that came because this
                host was not heard any more.
        """
        self._check_open()
        return msg.report_of(self._request("pulse", mask=msg.array_fields(mask), pulse=msg.pulse_fields(pulse)))

    def wait(self, duration_s: float) -> None:
        self._check_open()
        self._request("wait", duration_s=float(duration_s))

    def now_s(self) -> float:
        """The clock of the daemon's backend; before `open`, this host's."""
        return _part(self._request("now"), "now_s", float) if self._is_open else super().now_s()

    def hold_row(self, row: int, voltage_v: float) -> None:
        self._check_open()
        self._request("hold_row", row=int(row), voltage_v=float(voltage_v))

    def sense(
        self,
        cols: NDArray[np.intp],
        *,
        n_average: int = 1,
        row: int | None = None,
        v_read_v: float = 0.0,
        settle_s: float | None = None,
    ) -> NDArray[np.float64]:
        self._check_open()
        reply = self._request(
            "sense",
            cols=cols.tolist(),
            n_average=int(n_average),
            row=None if row is None else int(row),
            v_read_v=float(v_read_v),
            settle_s=None if settle_s is None else float(settle_s),
        )
        return _currents(reply, (len(cols),))

    # What a host may ask without having the array

    def status(self) -> dict[str, Any]:
        """The daemon's own state: versions, who has the array, its self-test, free disk."""
        return self._ask("status")

    def echo(self, data: bytes, n_back: int) -> int:
        """Send bytes and get `n_back` others, at most half of `MESSAGE_MAX_BYTES`; for measurements of the link."""
        return len(self._ask("echo", data=data, n_back=n_back)["data"])

    def watch(self, for_s: float = 60.0) -> dict[str, Any]:
        """Ask to be told once a second what goes on; fetch it with `next_event`."""
        return self._ask("watch", for_s=for_s)

    def next_event(self, timeout_s: float) -> dict[str, Any] | None:
        """The next thing that the daemon tells, or None."""
        with self._lock:
            found = self._linked().receive(timeout_s)
        event = None if found is None else msg.unpack(found)
        return event if event is not None and "event" in event else None

    # Requests

    def _check_open(self) -> None:
        if not self._is_open:
            raise DeviceError(f"the backend at {self._url} is not open", fix="use it inside open_session(...)")

    def _slot(self, tile: Tile) -> tuple[int, bool]:
        """Where the daemon keeps a tile, and whether it must be told."""
        if tile in self._slots:
            return self._slots[tile], False
        slot, self._next_slot = self._next_slot, (self._next_slot + 1) % msg.TILE_SLOTS
        for other in [t for t, k in self._slots.items() if k == slot]:
            del self._slots[other]
        return slot, True

    def _pieces(self, x: RowInput, tile: Tile) -> list[slice]:
        """Parts of a batch whose request and reply both fit into a message; at least one, to have limits checked."""
        if isinstance(x, PackedSpikes) or np.asarray(x).dtype.kind != "f":
            in_bytes = -(-tile.n_rows // 8)
        else:
            in_bytes = tile.n_rows * np.asarray(x).dtype.itemsize
        n = max(1, _CHUNK_BYTES[self.slow] // max(in_bytes, 4 * tile.n_outputs, 1))
        return [slice(k, min(k + n, len(x))) for k in range(0, max(len(x), 1), n)]

    def _ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """A request that changes nothing, so that it may be repeated."""
        with self._lock:
            try:
                reply = self._exchange(self._message(do, fields))
            except TransportError:
                self._hang_up()
                reply = self._exchange(self._message(do, fields))
            return _outcome(reply)

    def _request(self, do: str, *, recover_s: float | None = None, **fields: Any) -> dict[str, Any]:
        """A request to whoever has the array; it is carried out at most once."""
        with self._lock:
            message = self._message(do, fields)
            send = True
            give_up_s = None
            patience_s = _RECOVER_S if recover_s is None else recover_s
            while True:
                try:
                    reply = self._exchange(message, send=send)
                    break
                except TransportError as error:
                    self._hear_last_words()
                    if self._stopped and do != "pulse":
                        raise LeaseError(
                            f"the daemon at {self._url} was stopped, and has made the array safe",
                            fix="start it again; a run that was cut off can be resumed",
                        ) from None
                    log.warning("%s; asking what became of request %d (%s)", error.what, message["id"], do)
                    give_up_s = give_up_s or time.monotonic() + patience_s
                    found = self._recover(message, error, give_up_s)
                    if found["state"] == "running":
                        give_up_s = None  # it goes on, however often the link breaks
                    elif found["state"] == "never" and time.monotonic() > give_up_s:
                        raise TransportError(
                            f"request {message['id']} ({do}) does not get through to {self._url} ({error.what}); "
                            "it was not carried out",
                            fix=_LOOK,
                        ) from error
                if found["state"] == "done":
                    reply = msg.unpack(found["reply"])
                    break
                send = found["state"] == "never"
            return _outcome(reply)

    def _recover(self, message: Mapping[str, Any], broken: TransportError, give_up_s: float) -> dict[str, Any]:
        """Connect again and ask what became of a request: "done", "running", or "never" and to be sent again."""
        is_pulse = message["do"] == "pulse"
        while True:
            self._hang_up()
            try:
                found = _outcome(self._exchange(self._message("lookup", {"number": message["id"]})))
                break
            except TransportError as error:
                if time.monotonic() > give_up_s:
                    kind = UncertainError if is_pulse else TransportError
                    raise kind(
                        f"{broken.what}, and it did not come back"
                        + ("; the pulse under way may have been applied" if is_pulse else ""),
                        fix=READ_FIRST if is_pulse else _LOOK,
                    ) from error
                time.sleep(_RETRY_S)
            except HilError as error:
                if not is_pulse:
                    raise
                raise UncertainError(
                    f"what became of the pulse under way cannot be asked: {error.what}",
                    fix=READ_FIRST,
                ) from error
        if is_pulse and found["state"] == "never" and not self._same_journal:
            raise UncertainError(
                f"the daemon at {self._url} keeps another journal than before: it cannot say whether the pulse under "
                "way was applied",
                fix=f"{READ_FIRST}; keep --state the same",
            )
        if found["state"] == "begun":
            raise UncertainError(
                f"the daemon at {self._url} stopped in the middle of a pulse ({found['what']}): cells may have had it",
                fix=READ_FIRST,
            )
        # Nobody has the array until `open` is done, so that one may always be sent again.
        if found["state"] == "never" and not found["mine"] and message["do"] != "open":
            raise LeaseError(
                f"the link to {self._url} broke and this host lost the array; request {message['id']} "
                f"({message['do']}) was not carried out",
                fix="open the backend again; a run that was cut off can be resumed",
            )
        return found

    def _message(self, do: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"v": msg.PROTOCOL, "id": next(self._numbers), "do": do, "session": self._session, **fields}

    def _exchange(self, message: Mapping[str, Any], *, send: bool = True) -> dict[str, Any]:
        """Send a message and wait for its reply, which may be an error; the heart beats meanwhile.

        Raises:
            TransportError: the link is broken, and nobody knows what became of the message.
        """
        channel = self._linked()
        if send:
            channel.send(msg.pack(message, slow=channel.slow))
        heard_s = time.monotonic()
        beat, missed = 0, 0
        while True:
            found = channel.receive(self._lease_s / 4)
            now = time.monotonic()
            if found is not None:
                heard_s = now
                try:
                    reply = msg.unpack(found)
                except (ProtocolError, LimitError) as error:
                    raise TransportError(f"{self._url} brought nonsense: {error.what}", fix=_LOOK) from error
                if reply.get("id") == message["id"]:
                    return reply
                self._stopped = self._stopped or reply.get("event") == "stopped"
                # A link keeps messages in order: what the daemon has answered before a beat should have come before.
                # Twice, since a reply may be overtaken while it is handed from thread to thread.
                if reply.get("id") == beat and not reply.get("ok", {}).get("running"):
                    missed += 1
                if missed > 1:
                    raise TransportError(f"{self._url} answers, but the reply to a request is lost", fix=_LOOK)
            elif now - max(heard_s, channel.heard_s) > self._lease_s:
                raise TransportError(f"{self._url} was silent for {self._lease_s:g} s", fix=_LOOK)
            beat = self._beat(channel, message["id"]) or beat

    def _beat(self, channel: Channel, number: int) -> int:
        """Tell the daemon that this host lives, if that is due. Its answer shows that the daemon does.

        Args:
            channel: the link.
            number: the request whose reply is waited for, or 0.

        Returns:
            The number of the message, or 0 when none was due.
        """
        now = time.monotonic()
        if now < self._beat_s + self._lease_s / 4:
            return 0
        self._beat_s = now
        message = self._message("beat", {"number": number})
        channel.send(msg.pack(message, slow=False))
        return int(message["id"])

    def _beat_on(self, stop: threading.Event) -> None:
        """Between requests, while the host computes."""
        while not stop.wait(self._lease_s / 8):
            if not self._lock.acquire(blocking=False):
                continue  # a request is under way and beats itself
            try:
                if not stop.is_set():
                    channel = self._linked()
                    self._hear_out(channel)
                    quiet_s = time.monotonic() - max(channel.heard_s, self._linked_s)
                    if quiet_s > self._lease_s / 2:
                        raise TransportError(f"{self._url} was silent for {quiet_s:.1f} s", fix=_LOOK)
                    self._beat(channel, 0)
            except HilError as error:
                log.debug("heartbeat: %s", error)
                self._hang_up()
            finally:
                self._lock.release()

    # The link

    def _linked(self) -> Channel:
        if self._channel is None:
            self._connect()
        assert self._channel is not None
        return self._channel

    def _connect(self) -> None:
        """Open the link and see who answers.

        Raises:
            TransportError, AccessError, ProtocolError: as `open`.
        """
        channel = self._connect_link(self._url)
        try:
            hello = {"version": own_version(), "who": _who()}
            message = self._message("hello", hello)
            channel.send(msg.pack(message, slow=channel.slow))
            give_up_s = time.monotonic() + _HELLO_S
            while True:
                found = channel.receive(_HELLO_S / 10)
                reply = {} if found is None else msg.unpack(found)
                if reply.get("id") == message["id"]:
                    break
                if time.monotonic() > give_up_s:
                    raise TransportError(
                        f"nobody answers at {self._url} within {_HELLO_S:g} s",
                        fix="start `hil serve` there, and check address, port and baud rate",
                    )
            answer = _outcome(reply)
            self._info = self._info or msg.info_of(answer.get("info"))  # type: ignore[arg-type]
            lease_s = _part(answer, "lease_s", float)
            if not 0 < lease_s < 1e4:
                raise ProtocolError(
                    f"{self._url} gives leases of {lease_s} s", fix="install the same version on both sides"
                )
            self._lease_s = lease_s
            journal = _part(answer, "journal", str)
        except BaseException:
            channel.close()
            raise
        self._same_journal = self._same_journal and self._journal in (None, journal)
        self._journal = journal
        self._channel = channel
        self._stopped = False
        self._linked_s = time.monotonic()
        self._beat_s = 0.0  # to be heard at once
        if answer.get("version") != hello["version"]:
            log.warning("%s runs version %s, this host %s", self._url, answer.get("version"), hello["version"])

    def _hear_out(self, channel: Channel) -> None:
        """Take what has come unasked; that the daemon ends is all that matters here."""
        while (found := channel.receive(0.0)) is not None:
            self._stopped = self._stopped or msg.unpack(found).get("event") == "stopped"

    def _hear_last_words(self) -> None:
        """What a daemon has said before the link broke may still be unread."""
        if self._channel is not None:
            with contextlib.suppress(HilError):
                self._hear_out(self._channel)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


def _outcome(reply: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in reply:
        raise msg.error_of(reply["error"])
    if not isinstance(reply.get("ok"), dict):
        raise ProtocolError("a reply holds neither a result nor an error", fix="install the same version on both sides")
    return dict(reply["ok"])


def _part(reply: Mapping[str, Any], name: str, kind: type[PartT]) -> PartT:
    found = reply.get(name)
    if not isinstance(found, kind):
        raise ProtocolError(f"a reply holds no {name!r}", fix="install the same version on both sides")
    return found


def _currents(reply: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[Any]:
    found = msg.array_of(_part(reply, "a", dict))
    if found.shape != shape:
        raise ProtocolError(
            f"the daemon sent currents of shape {found.shape} instead of {shape}",
            fix="install the same crossbar-hil on both sides",
        )
    return found


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "?"
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"
