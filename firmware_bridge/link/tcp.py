"""The TCP link: ZeroMQ messages (DEALER to ROUTER), encrypted and authenticated by CURVE where keys are configured.

What ends a connection is told by ZeroMQ's socket monitor, so that a refused key or a closed port is one named error
after milliseconds and not a time-out.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import math
import os
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote

import zmq
from zmq.utils.monitor import parse_monitor_message

from firmware_bridge.link.channel import MESSAGE_MAX_BYTES, Peer, check_length
from firmware_bridge.link.keys import KEY_VARIABLE, Credential, KeyFolder, fingerprint
from hil.errors import AccessError, ConfigError, HilError, TransportError

log = logging.getLogger(__name__)

#: an empty message from the daemon: the key of this connection was revoked
_REFUSED = b""
#: up to here a message reaches the daemon, which can then say what is wrong with it; above, ZeroMQ hangs up
_HARD_MAX_BYTES = 4 * MESSAGE_MAX_BYTES
#: waiting for one reader; more is dropped
_UNSENT_MAX_BYTES = 4 * MESSAGE_MAX_BYTES
#: messages of this size are counted in bytes; of smaller ones, ZeroMQ holds `_QUEUE_MESSAGES` at most
_LARGE_BYTES = 65536
_QUEUE_MESSAGES = 1000
#: messages on their way in, for each connection: TCP holds the rest back
_IN_MESSAGES = 8

_CONNECT_S = 2.0
_HANDSHAKE_S = 2.5
_SEND_WAIT_S = 3.0
_PROBE_S = 1.0
#: how long a closing daemon tries to get its last words out
_LAST_WORDS_S = 0.2
#: a peer whose machine is gone is noticed after this time
_SILENCE_S = 10.0

_URL = re.compile(r"tcp://(?P<host>\[[^\]]*\]|[^\[\]/?#@:]*)(:(?P<port>[^/?#]*))?(\?(?P<query>.*))?", re.DOTALL)
_WRITE = "write tcp://HOST:PORT or tcp://HOST:PORT?key=FILE, with IPv6 addresses in brackets"
_Z85_KEY_BYTES = 40
_DOMAIN = "crossbar-hil"


def tcp_address(url: str) -> tuple[str, int, Path | None]:
    """Host, port and key file of `tcp://HOST:PORT[?key=FILE]`; in the file's name, %26 stands for & and so on.

    Raises:
        ConfigError: not such a URL.
    """
    match = _URL.fullmatch(url)
    if match is None or not match["host"].strip("[]"):
        raise ConfigError(f"{url!r} is no address of a daemon", fix=_WRITE)
    if not match["port"]:
        raise ConfigError(f"{url!r} names no port", fix=_WRITE)
    if not re.fullmatch("[0-9]{1,5}", match["port"]) or int(match["port"]) > 65535:
        raise ConfigError(
            f"port {match['port'][:20]!r} in {url!r} is not a number from 1 to 65535",
            fix="use the port that `hil serve` prints; 0 stands for a free one where a daemon listens",
        )
    key_file: Path | None = None
    for part in (match["query"] or "").split("&") if match["query"] is not None else ():
        name, _, value = part.partition("=")
        if name != "key" or not value or key_file is not None:
            raise ConfigError(f"{url!r} has {part!r} after its '?'", fix="write one key=FILE there, or nothing")
        key_file = Path(os.path.expanduser(unquote(value)))
    return match["host"].strip("[]"), int(match["port"]), key_file


class TcpChannel:
    """The host's end; see `Channel`.

    A broken connection is one `TransportError`; ZeroMQ connects again by itself meanwhile, and the channel may be used
    on. What was sent and not answered by then may be lost. A message is never sent on a later connection than the one
    that it was handed to.

    Args:
        url: as `tcp_address` takes it; without `?key=`, the file that CROSSBAR_HIL_KEY names is used, if any.

    Raises:
        ConfigError: a bad URL or key file.
        AccessError: others can read the key file.
        TransportError: there is no such host.
    """

    slow = False

    def __init__(self, url: str) -> None:
        host, port, key_file = tcp_address(url)
        if port == 0:
            raise ConfigError(f"{url!r} names no port: 0 stands for any", fix="use the port that `hil serve` prints")
        named = os.environ.get(KEY_VARIABLE)
        if key_file is None and named:
            key_file = Path(os.path.expanduser(named))
        self._credential = None if key_file is None else Credential.read(key_file)
        self.url = _tcp_url(host, port)
        try:
            self._address = (_numeric(host, port), port)
        except OSError as error:
            raise TransportError(
                f"there is no host {host!r}: {error.strerror or error}", fix="check the name, or give the IP address"
            ) from None
        self.heard_s = -math.inf
        self._is_up = False
        #: handshakes in a row that the other side cut off without saying why
        self._cut_off = 0
        self._was_cut_off = False
        #: ZeroMQ will not connect again after this
        self._final: HilError | None = None
        #: the link broke after a message that was handed out first
        self._broken: TransportError | None = None

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._monitor = self._context.socket(zmq.PAIR)
        # Nothing waits for a connection to come: what waited would be carried out late.
        self._socket.immediate = True
        self._socket.linger = 0
        self._socket.connect_timeout = _ms(_CONNECT_S)
        self._socket.reconnect_ivl_max = 1000
        _set_limits(self._socket)
        self._socket.sndhwm = _IN_MESSAGES
        # The thread that reports must never wait for us.
        self._monitor.rcvhwm = 0
        self._monitor.linger = 0
        if self._credential is not None:
            self._socket.curve_publickey = self._credential.public_key.encode()
            self._socket.curve_secretkey = self._credential.secret_key.encode()
            self._socket.curve_serverkey = self._credential.daemon_key.encode()
        self._poller = zmq.Poller()
        self._poller.register(self._monitor, zmq.POLLIN)
        self._socket.monitor("inproc://events", _EVENTS)
        self._monitor.connect("inproc://events")
        self._socket.ipv6 = ":" in self._address[0]
        self._socket.connect(_tcp_url(*self._address))

    def send(self, message: bytes) -> None:
        check_length(len(message))
        give_up_s = time.monotonic() + _SEND_WAIT_S
        while True:
            self._heed_events()
            with suppress(zmq.Again):
                self._socket.send(message, zmq.NOBLOCK)
                return
            if not self._wait(zmq.POLLOUT, give_up_s):
                raise TransportError(
                    f"{self.url} took no message for {_SEND_WAIT_S:g} s",
                    fix="check that the network is up and `hil serve` runs there",
                )

    def receive(self, timeout_s: float) -> bytes | None:
        give_up_s = time.monotonic() + timeout_s
        broken: TransportError | None = None
        while True:
            with suppress(zmq.Again):
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
                self.heard_s = time.monotonic()
                if parts == [_REFUSED]:
                    self._fail_for_good(self._unknown_key())
                if len(parts) == 1:
                    self._broken = broken
                    return parts[0]
                continue
            if broken is not None:
                raise broken
            try:
                self._heed_events()
            except TransportError as error:
                # Last words may have come since the socket was looked at: they are heard first.
                broken = error
                continue
            if not self._wait(zmq.POLLIN, give_up_s):
                return None

    def close(self) -> None:
        if self._context.closed:
            return
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._context.term()

    def _wait(self, for_what: int, until_s: float) -> bool:
        """Wait until the socket is ready for that, or has something to report; False when the time is over."""
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            return False
        self._poller.register(self._socket, for_what)
        self._poller.poll(_ms(left_s))
        return True

    def _heed_events(self) -> None:
        """Raise what the monitor has to report, if that is an error."""
        if self._final is not None:
            raise self._final
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken
        with suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))
                self._heed(event["event"], event["value"])

    def _heed(self, event: int, value: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._is_up, self._cut_off = True, 0
            self.heard_s = time.monotonic()
        elif event == zmq.EVENT_CLOSED:
            raise TransportError(
                f"nobody answers at {self.url}", fix="start `hil serve` there, and check address, port and firewall"
            )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._fail_for_good(self._unknown_key())
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            mismatch = value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
            self._fail_for_good(self._other_security() if mismatch else self._no_daemon())
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._was_cut_off = True
            self._cut_off += 1
            if value == errno.EAGAIN:
                raise TransportError(
                    f"whoever listens at {self.url} does not answer", fix="check the port; restart `hil serve` there"
                )
            # The first may be a link that broke just then; ZeroMQ tries again.
            if self._cut_off == 2:
                self._cut_off = 0
                raise self._why_cut_off()
        elif event == zmq.EVENT_DISCONNECTED:
            was_up, self._is_up = self._is_up, False
            was_cut_off, self._was_cut_off = self._was_cut_off, False
            if was_up:
                raise TransportError(
                    f"the link to {self.url} broke", fix="look at the network, and at `hil serve` there"
                )
            if not was_cut_off:
                self._fail_for_good(self._no_daemon())

    def _fail_for_good(self, error: HilError) -> NoReturn:
        self._final = error
        raise error

    def _unknown_key(self) -> AccessError:
        return AccessError(
            f"the daemon at {self.url} does not know this key{self._which_key()}: revoked, or never registered there",
            fix="on the daemon's machine, as its account: hil keys list, then hil keys new NAME",
        )

    def _other_security(self) -> AccessError:
        """One side uses CURVE and the other does not."""
        if self._credential is None:
            return AccessError(
                f"the daemon at {self.url} wants a key, and this host gave none",
                fix="on the daemon's machine: hil keys new NAME; copy NAME.hilkey here and name it: "
                f"{self.url}?key=NAME.hilkey, or {KEY_VARIABLE}",
            )
        return AccessError(
            f"the daemon at {self.url} uses no keys, and this host has one{self._which_key()}: "
            "it may be another daemon than the one meant",
            fix=f"give it keys (hil keys new NAME, then restart it), or leave out ?key= and {KEY_VARIABLE}",
        )

    def _no_daemon(self) -> TransportError:
        return TransportError(f"what listens at {self.url} is no crossbar-hil daemon", fix="check address and port")

    def _why_cut_off(self) -> HilError:
        """A daemon hangs up without a word on what is encrypted for another; so does a dead link.

        They differ in the greeting, which comes before anything is encrypted.
        """
        theirs = _greeted_mechanism(self._address)
        ours = "NULL" if self._credential is None else "CURVE"
        if {ours, theirs} == {"NULL", "CURVE"}:
            return self._other_security()
        if ours == theirs == "CURVE":
            return AccessError(
                f"the daemon at {self.url} has another key of its own than the credential{self._which_key()} says: "
                "another machine, or its keys were made anew",
                fix="check the address; else make and copy a new credential: hil keys new NAME",
            )
        return TransportError(
            f"whoever listens at {self.url} hangs up at once", fix="check the port; restart `hil serve` there"
        )

    def _which_key(self) -> str:
        key = self._credential
        return "" if key is None else f" ({key.name}, {fingerprint(key.public_key)})"


_EVENTS = (
    zmq.EVENT_CLOSED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


class _Unsent(NamedTuple):
    """A large message that ZeroMQ still holds."""

    routing_id: bytes
    n_bytes: int
    tracker: zmq.MessageTracker


class TcpListener:
    """The daemon's end; see `Listener`.

    With keys, every connection is encrypted and of a registered key; a key that is revoked is shut out from its next
    message on, and nothing more is sent to it. Without, only this machine is served.

    Args:
        host: address or name to listen at; "*" for all of IPv4.
        port: 0 for a free one; `url` says which.
        keys: the daemon's keys; None, or a folder without any, for none.

    Raises:
        ConfigError: no such address, address in use, or one that needs keys.
        AccessError: the daemon's keys are open to others.
    """

    slow = False

    def __init__(self, host: str, port: int, keys: KeyFolder | None = None) -> None:
        self._keys = keys if keys is not None and keys.is_configured else None
        address = _listening_address(host, port)
        if self._keys is None and not ipaddress.ip_address(address).is_loopback:
            raise ConfigError(
                f"without keys a daemon listens on loopback only, and {host!r} is not"
                + ("" if keys is None else f"; no keys in {keys.path}"),
                fix="make a key first: hil keys new NAME; or use 127.0.0.1",
            )
        #: by `send` of any thread, until `receive` hands them to ZeroMQ, whose sockets belong to one thread
        self._queued: list[tuple[Peer, bytes]] = []
        self._lock = threading.Lock()
        self._unsent: list[_Unsent] = []
        self._is_closed = False

        self._context = zmq.Context()
        self._gate: Any = None
        self._socket = self._context.socket(zmq.ROUTER)
        self._bell, self._bell_heard = (self._context.socket(zmq.PAIR) for _ in range(2))
        try:
            if self._keys is not None:
                self._guard(self._keys)
            self._bell_heard.bind("inproc://bell")
            self._bell.connect("inproc://bell")
            # With a domain, libzmq refuses ZMTP 1 and 2, to which any bytes are a message.
            self._socket.zap_domain = _DOMAIN.encode()
            self._socket.router_mandatory = True
            self._socket.sndhwm = _QUEUE_MESSAGES
            _set_limits(self._socket)
            self._bind(address, port)
        except BaseException:
            self.close()
            raise
        self.access = (
            f"this machine only: no keys in {'any folder' if keys is None else keys.path} (hil keys new NAME)"
            if self._keys is None
            else f"hosts with a registered key ({self._keys.path})"
        )
        bound = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.url = _tcp_url("0.0.0.0" if host == "*" else host, int(bound.rpartition(":")[2]))
        self._poller = zmq.Poller()
        for readable in (self._socket, self._bell_heard):
            self._poller.register(readable, zmq.POLLIN)

    def receive(self, timeout_s: float) -> tuple[Peer, bytes] | None:
        give_up_s = time.monotonic() + timeout_s
        while True:
            self._deliver_queued()
            try:
                found = self._admit(self._socket.recv_multipart(zmq.NOBLOCK, copy=False))
            except zmq.Again:
                left_s = give_up_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._poller.poll(_ms(left_s))
                continue
            if found is not None:
                return found
            if time.monotonic() > give_up_s:
                return None

    def send(self, peer: Peer, message: bytes) -> None:
        with self._lock:
            if self._is_closed or len(self._queued) >= _QUEUE_MESSAGES:
                return
            self._queued.append((peer, message))
            if len(self._queued) == 1:
                self._bell.send(b"")

    def heard_s(self, peer: Peer) -> float:
        """Not known: ZeroMQ shows whole messages only."""
        return -math.inf

    def close(self) -> None:
        if self._context.closed:
            return
        self._deliver_queued()
        with self._lock:
            self._is_closed = True
            self._bell.close(linger=0)
        self._bell_heard.close(linger=0)
        self._socket.close(linger=_ms(_LAST_WORDS_S))
        if self._gate is not None:
            self._gate.stop()
        self._context.term()

    def _guard(self, keys: KeyFolder) -> None:
        """Have ZeroMQ ask for every connection whether its key is registered (ZAP, ZeroMQ RFC 27)."""
        from zmq.auth.thread import ThreadAuthenticator

        pair = keys.daemon_pair()
        self._socket.zap_enforce_domain = True
        self._socket.curve_server = True
        self._socket.curve_secretkey = pair.secret_key.encode()
        self._gate = ThreadAuthenticator(self._context)
        self._gate.start()
        self._gate.configure_curve_callback(_DOMAIN, _Gate(keys))

    def _bind(self, address: str, port: int) -> None:
        self._socket.ipv6 = ":" in address
        try:
            self._socket.bind(_tcp_url(address, port))
        except zmq.ZMQError as error:
            code = error.errno or 0
            fixes = {
                errno.EADDRINUSE: "end the program that uses it (another `hil serve`?), or choose another port",
                errno.EACCES: "choose a port above 1023",
            }
            raise ConfigError(
                f"cannot listen at {_tcp_url(address, port)}: {os.strerror(code)}",
                fix=fixes.get(code, "choose an address of this machine"),
            ) from None

    def _admit(self, frames: list[zmq.Frame]) -> tuple[Peer, bytes] | None:
        """A message and its sender, or None for one that nobody may see."""
        if len(frames) != 2:
            return None
        routing_id, message = frames
        if self._keys is None:
            return Peer(routing_id.bytes, "loopback"), message.bytes
        try:
            key = str(message.get("User-Id"))
        except zmq.ZMQError:
            return None
        route = key.encode() + routing_id.bytes
        name = self._keys.authorised().get(key)
        if name is None:
            log.warning("a message of the revoked key %s was refused", fingerprint(key))
            self._deliver(route, _REFUSED)
            return None
        return Peer(route, name), message.bytes

    def _deliver_queued(self) -> None:
        with suppress(zmq.Again):
            while True:
                self._bell_heard.recv(zmq.NOBLOCK)
        with self._lock:
            queued, self._queued = self._queued, []
        for peer, message in queued:
            self._deliver(peer.route, message)

    def _deliver(self, route: bytes, message: bytes) -> None:
        routing_id = route
        if self._keys is not None:
            key, routing_id = route[:_Z85_KEY_BYTES].decode(), route[_Z85_KEY_BYTES:]
            if key not in self._keys.authorised():
                message = _REFUSED
        try:
            if len(message) < _LARGE_BYTES:
                self._socket.send_multipart((routing_id, message), zmq.NOBLOCK)
            elif self._has_room(routing_id, len(message)):
                self._socket.send(routing_id, zmq.NOBLOCK | zmq.SNDMORE)
                tracker = self._socket.send(message, zmq.NOBLOCK, copy=False, track=True)
                self._unsent.append(_Unsent(routing_id, len(message), tracker))
        except zmq.ZMQError as error:
            # Gone, or it reads too slowly: the link promises nobody that a message arrives.
            log.debug("a message of %d bytes was dropped: %s", len(message), error.strerror)

    def _has_room(self, routing_id: bytes, n_bytes: int) -> bool:
        """Whether a reader may have that much more waiting; what it does not read would fill the memory."""
        self._unsent = [unsent for unsent in self._unsent if not unsent.tracker.done]
        n_waiting = sum(unsent.n_bytes for unsent in self._unsent if unsent.routing_id == routing_id)
        return n_waiting + n_bytes <= _UNSENT_MAX_BYTES


class _Gate:
    """Asked by ZeroMQ's authenticator at each handshake."""

    def __init__(self, keys: KeyFolder) -> None:
        self._keys = keys

    def callback(self, domain: str, key: bytes) -> bool:
        del domain
        known = key.decode() in self._keys.authorised()
        if not known:
            log.warning("a host with the unknown key %s was refused", fingerprint(key.decode()))
        return known


def _set_limits(link: zmq.Socket[bytes]) -> None:
    """What both ends have alike."""
    link.maxmsgsize = _HARD_MAX_BYTES
    link.rcvhwm = _IN_MESSAGES
    link.handshake_ivl = _ms(_HANDSHAKE_S)
    link.heartbeat_ivl = _ms(_SILENCE_S / 4)
    link.heartbeat_timeout = _ms(_SILENCE_S)


def _listening_address(host: str, port: int) -> str:
    if not 0 <= port <= 65535:
        raise ConfigError(f"port {port} is outside 0 to 65535", fix="choose a port from 1024 on, or 0 for a free one")
    if host == "*":
        return "0.0.0.0"
    try:
        return _numeric(host, port)
    except OSError as error:
        raise ConfigError(
            f"there is no address {host!r} to listen at: {error.strerror or error}",
            fix="choose an address of this machine, such as 127.0.0.1",
        ) from None


def _numeric(host: str, port: int) -> str:
    """The address of a host, IPv4 if it has one.

    Raises:
        OSError: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(str(error)) from None
    return str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0])


def _greeted_mechanism(address: tuple[str, int]) -> str:
    """How a ZeroMQ socket that listens there wants to be spoken to, "NULL" or "CURVE"; "" for one that does not say.

    The greeting of ZMTP 3.1 (ZeroMQ RFC 37) is 10 bytes of signature, 2 of version, 20 of mechanism and 32 more. Ours
    ends after the version, since libzmq would hang up before its own is out if it dislikes our mechanism.
    """
    ours = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01"
    theirs = b""
    with suppress(OSError), socket.create_connection(address, _PROBE_S) as plain:
        plain.sendall(ours)
        while len(theirs) < 32 and (more := plain.recv(32 - len(theirs))):
            theirs += more
    is_greeting = len(theirs) == 32 and theirs.startswith(b"\xff")
    return theirs[12:].rstrip(b"\0").decode("ascii", "replace") if is_greeting else ""


def _tcp_url(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _ms(time_s: float) -> int:
    """ZeroMQ's unit; rounded up, so that a short wait is no busy one."""
    return math.ceil(1e3 * time_s)
