"""The daemon: link threads answer readers and keep the lease, the main thread drives the backend.

A writer's lease lives as long as the writer is heard. When it ends, for whatever reason, what runs is aborted, the
array made safe and the backend closed. Signals end the main thread's work, through the same session.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import platform
import queue
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.daemon.journal import Journal
from firmware_bridge.link import messages as msg
from firmware_bridge.link.channel import Listener, Peer
from hil.backend import CrossbarBackend, Limits
from hil.errors import READ_FIRST, ConfigError, DeviceError, HilError, LeaseError, ProtocolError, UncertainError
from hil.provenance import own_version
from hil.session import Session, describe, note_safe, open_session, tighten
from hil.tile import Tile

log = logging.getLogger(__name__)

LEASE_S, LEASE_MIN_S, LEASE_MAX_S = 5.0, 0.5, 60.0
#: how often a link thread looks at the lease, and how often watchers are told
_TICK_S, _TELL_S = 0.05, 1.0
#: how long a writer has to hear that the daemon ends
_LAST_WORDS_S = 0.5
#: hosts that may look on at a time, and names of hosts remembered
_WATCHERS_MAX, _NAMES_KEPT = 100, 1000

#: requests that need the lease and are done by the main thread
_WRITER = (
    msg.Close, msg.MakeSafe, msg.ReadTelemetry, msg.Wait, msg.Now, msg.Vmm, msg.Read, msg.ApplyPulse, msg.HoldRow,
    msg.Sense,
)  # fmt: skip


def check_lease(lease_s: float) -> None:
    """Raise `ConfigError` unless a lease is long enough to be kept and short enough to mean something."""
    if not LEASE_MIN_S <= lease_s <= LEASE_MAX_S:
        raise ConfigError(
            f"a lease of {lease_s:g} s is outside {LEASE_MIN_S:g} to {LEASE_MAX_S:g} s",
            fix=f"{LEASE_S:g} s suits most; a shorter one makes the array safe sooner",
        )


@dataclass
class _Writer:
    """Who has the array.

    Attributes:
        number: its newest request that the main thread got.
        reply: of that request; None while it is under way.
        back: link and peer that the reply goes to.
    """

    session: bytes
    who: str
    until_s: float
    back: tuple[Listener, Peer]
    number: int
    reply: bytes | None = None
    tiles: dict[int, Tile] = field(default_factory=lambda: {})


class Daemon:
    """Serves one backend.

    Args:
        backend: not open.
        journal: where pulses are noted.
        limits: tighter limits than the board's own.
        lease_s: a writer that is silent for longer loses the array.
        folder: whose free disk space is told.
    """

    def __init__(
        self,
        backend: CrossbarBackend,
        journal: Journal,
        *,
        limits: Limits | None = None,
        lease_s: float = LEASE_S,
        folder: Path | None = None,
    ) -> None:
        self._backend = backend
        self._limits = tighten(backend.info.limits, limits)
        self._journal = journal
        self._lease_s = lease_s
        self._folder = folder or Path.cwd()
        self._started_s = time.time()
        self._lock = threading.RLock()
        self._jobs: queue.SimpleQueue[msg.Request | None] = queue.SimpleQueue()
        self._writer: _Writer | None = None
        #: why the writer's lease ended, while the array is being made safe
        self._ended: str | None = None
        self._stopping = False
        self._watchers: dict[tuple[int, bytes], tuple[Listener, Peer, float]] = {}
        self._names: dict[bytes, str] = {}
        self._told_s = self._refreshed_s = 0.0
        self._doing: tuple[str, float] | None = None
        self._served = 0
        self._values: dict[str, float] = {}
        self._checks: list[dict[str, Any]] = []
        self._alarm: str | None = None
        self._info = msg.info_fields(dataclasses.replace(backend.info, limits=self._limits))
        self._answers: Mapping[type[msg.Request], Callable[[Any, Listener, Peer], dict[str, Any]]] = {
            msg.Hello: self._hello,
            msg.Beat: self._beat,
            msg.Status: self._status,
            msg.Echo: lambda request, link, peer: {"data": msg.noise_bytes(request.n_back)},
            msg.Lookup: self._lookup,
            msg.Watch: self._watch,
        }
        self._work: Mapping[type[msg.Request], Callable[[Session, Any], dict[str, Any]]] = {
            msg.MakeSafe: lambda session, request: session.make_safe() or {},
            msg.ReadTelemetry: self._read_telemetry,
            msg.Wait: lambda session, request: session.wait(request.duration_s) or {},
            msg.Now: lambda session, request: {"now_s": float(session.now_s())},
            msg.Vmm: self._vmm,
            msg.Read: self._read,
            msg.ApplyPulse: self._pulse,
            msg.HoldRow: lambda session, request: session.hold_row(request.row, request.voltage_v) or {},
            msg.Sense: self._sense,
        }

    # Main thread

    def stop(self) -> None:
        """End `serve`, from another thread: the writer loses the array, which is made safe."""
        self._stopping = True
        with self._lock:
            if self._writer is not None and self._ended is None:
                self._end("the daemon was stopped")
        self._jobs.put(None)

    def serve(self, listeners: Sequence[Listener], ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, a signal or an error ends it; the array is safe then. Closes the listeners.

        Args:
            listeners: links.
            ready: called once hosts are heard.

        Raises:
            ConfigError: the board cannot be used as it is configured.
        """
        stop = threading.Event()
        threads = [threading.Thread(target=self._listen, args=(link, stop), daemon=True) for link in listeners]
        try:
            self._make_safe_at_start()
            for thread in threads:
                thread.start()
            ready()
            while not self._stopping:
                request = self._next_job(_TELL_S)
                # Anything else is left over from a lease that has ended.
                if isinstance(request, msg.Open):
                    self._serve_writer(request)
        except BaseException as error:
            with contextlib.suppress(HilError):
                self._backend.make_safe()
                note_safe(error)
            self._say_stopped()
            raise
        finally:
            stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(timeout=5.0)
            for link in listeners:
                link.close()
            self._journal.close()

    def _say_stopped(self) -> None:
        with self._lock:
            if self._writer is None:
                return
            link, peer = self._writer.back
            link.send(peer, msg.pack({"event": "stopped"}, slow=link.slow))
        # A connection that is closed with something unread takes what was sent last with it.
        time.sleep(_LAST_WORDS_S)

    def _make_safe_at_start(self) -> None:
        """Whoever drove the array before may have been killed."""
        try:
            self._backend.make_safe()
        except ConfigError:
            raise  # it would never work
        except HilError as error:
            self._alarm = str(error)
            log.error("the array could not be made safe at the start: %s", error)

    def _next_job(self, timeout_s: float) -> msg.Request | None:
        try:
            return self._jobs.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _serve_writer(self, first: msg.Request) -> None:
        """From the writer's `open` to the end of its lease."""
        closing: msg.Request | None = None
        failed: Exception | None = None
        self._doing = ("open", time.monotonic())
        try:
            with open_session(self._backend, self._limits) as session:
                self._checks = msg.checks_fields(self._backend.self_test())
                self._alarm = None
                self._refresh(session)
                self._reply(first, {"info": msg.info_fields(session.info)})
                closing = self._session(session)
        except Exception as error:
            failed, self._alarm = error, str(error)
            self._checks = msg.checks_fields(self._backend.self_test())
            log.error("%s", error, exc_info=not isinstance(error, HilError))
        with self._lock:
            writer, self._doing = self._writer, None
            last = closing or (first if writer is not None and writer.reply is None else None)
            if last is not None:
                self._reply(last, {} if failed is None else failed)
            log.info("writer %s: %s", writer.who if writer else "?", self._ended or "closed")
            self._writer = self._ended = None

    def _session(self, session: Session) -> msg.Request | None:
        """Do what the writer asks until its lease ends; the request to close, if that ended it."""
        while self._ended is None:
            request = self._next_job(_TELL_S)
            if isinstance(request, msg.Close):
                return request
            if request is None:
                if self._ended is None:
                    self._refresh(session)
                continue
            self._do(session, request)
        return None

    def _do(self, session: Session, request: msg.Request) -> None:
        self._doing = (request.do, time.monotonic())
        try:
            self._reply(request, self._work[type(request)](session, request))
        except (KeyboardInterrupt, SystemExit):
            # The reply goes out while the listeners close.
            if isinstance(request, msg.ApplyPulse):
                what = "the daemon was stopped in the middle of a pulse: cells may have had it"
                self._reply(request, UncertainError(what, fix=READ_FIRST))
            else:
                self._reply(request, LeaseError("the daemon was stopped", fix="start it again"))
            raise
        except Exception as error:
            if not isinstance(error, HilError):
                log.exception("request %r failed", request.do)
                try:
                    session.make_safe()
                except Exception as unsafe:
                    self._reply(request, _not_safe(error, unsafe))
                    raise
            self._reply(request, error)
        finally:
            self._doing = None
            self._served += 1
        if time.monotonic() > self._refreshed_s + _TELL_S:
            self._refresh(session)

    def _refresh(self, session: Session) -> None:
        """Readings for those who only look; a failure is not theirs to handle."""
        self._refreshed_s = time.monotonic()
        try:
            self._values = _readings(session)
        except HilError as error:
            log.warning("telemetry: %s", error)

    def _reply(self, request: msg.Request, outcome: Mapping[str, Any] | BaseException) -> None:
        """Keep the reply for a host that asks again, and send it."""
        failed = isinstance(outcome, BaseException)
        body = {"id": request.id, **({"error": msg.error_fields(outcome)} if failed else {"ok": outcome})}  # type: ignore[arg-type]
        with self._lock:
            writer = self._writer
            if writer is None or writer.session != request.session:
                return
            link, peer = writer.back
            try:
                data = msg.pack(body, slow=link.slow)
            except HilError as error:
                data = msg.pack({"id": request.id, "error": msg.error_fields(error)}, slow=False)
            if isinstance(request, msg.ApplyPulse):
                try:
                    self._journal.end(request.session, request.id, data)
                except sqlite3.Error as error:
                    log.error("the end of pulse request %d could not be noted: %s", request.id, error)
            if writer.number == request.id:
                writer.reply = data
            link.send(peer, data)

    # What the main thread does for the writer

    def _vmm(self, session: Session, request: msg.Vmm) -> dict[str, Any]:
        writer = self._writer
        assert writer is not None
        if request.tile is not None:
            writer.tiles[request.slot] = msg.tile_of(request.tile)
        tile = writer.tiles.get(request.slot)
        if tile is None:
            raise ProtocolError(f"no tile in slot {request.slot}", fix="send the tile with its first VMM")
        currents_a = session.vmm(msg.rows_of(request.x), tile, request.v_read_v)
        return {"a": msg.array_fields(currents_a)}

    def _read(self, session: Session, request: msg.Read) -> dict[str, Any]:
        currents_a = session.read(msg.array_of(request.mask), request.v_read_v, n_average=request.n_average)
        return {"a": msg.array_fields(currents_a)}

    def _sense(self, session: Session, request: msg.Sense) -> dict[str, Any]:
        currents_a = session.sense(
            np.array(request.cols, np.intp),
            n_average=request.n_average,
            row=request.row,
            v_read_v=request.v_read_v,
            settle_s=request.settle_s,
        )
        return {"a": msg.array_fields(currents_a)}

    def _pulse(self, session: Session, request: msg.ApplyPulse) -> dict[str, Any]:
        mask, pulse = msg.array_of(request.mask), msg.pulse_of(request.pulse)
        if mask.dtype != np.bool_:
            raise ProtocolError(f"a cell mask came as {mask.dtype}", fix="send bits")
        try:
            self._journal.begin(request.session, request.id, f"{int(mask.sum())} cells, {pulse}")
        except sqlite3.Error as error:
            raise DeviceError(
                f"the journal of pulses cannot be written ({error}); nothing was applied",
                fix="make room on the daemon's disk",
            ) from None
        return msg.report_fields(session.pulse(mask, pulse))

    def _read_telemetry(self, session: Session, request: msg.Request) -> dict[str, Any]:
        del request
        self._values = _readings(session)
        return {"values": self._values}

    # Link threads

    def _listen(self, link: Listener, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                found = link.receive(_TICK_S)
                if found is not None:
                    self.handle(link, *found)
                self.tick()
        except Exception:
            # Whoever uses this link is not heard any more, which ends its lease.
            log.exception("link %s failed", link.url)
            while not stop.wait(_TICK_S):
                self.tick()
        finally:
            link.close()

    def handle(self, link: Listener, peer: Peer, data: bytes) -> None:
        """Answer a message, or hand it to the main thread. Nothing that a peer sends raises."""
        number = 0
        try:
            found = msg.unpack(data)
            number = found.get("id") if isinstance(found.get("id"), int) else 0
            request = msg.read_request(found)
            if isinstance(request, msg.Open):
                self._take(request, link, peer)
            elif isinstance(request, _WRITER):
                self._accept(request, link, peer)
            else:
                answer = self._answers[type(request)](request, link, peer)
                link.send(peer, msg.pack({"id": request.id, "ok": answer}, slow=link.slow))
        except Exception as error:
            if not isinstance(error, HilError):
                log.exception("a message of %s could not be answered", peer.who)
            link.send(peer, msg.pack({"id": number, "error": msg.error_fields(error)}, slow=link.slow))

    def tick(self) -> None:
        """End a lease whose writer is silent; tell watchers what goes on."""
        now = time.monotonic()
        with self._lock:
            writer = self._writer
            if writer is not None and self._ended is None and now > self._until_s(writer):
                self._end(f"not heard for {self._lease_s:g} s")
            if now < self._told_s + _TELL_S:
                return
            self._told_s = now
            self._watchers = {key: who for key, who in self._watchers.items() if who[2] > now}
            watchers = list(self._watchers.values())
            event = {"event": "state", **self._state()} if watchers else {}
        for link, peer, _ in watchers:
            link.send(peer, msg.pack(event, slow=link.slow))

    def _until_s(self, writer: _Writer) -> float:
        """When the lease ends; a message that is still on its way is a sign of life, too."""
        link, peer = writer.back
        return max(writer.until_s, link.heard_s(peer) + self._lease_s)

    def _silent_s(self, writer: _Writer) -> float:
        return max(0.0, time.monotonic() - self._until_s(writer) + self._lease_s)

    def _end(self, why: str) -> None:
        self._ended = why
        log.warning("the lease of %s ended: %s", self._writer.who if self._writer else "?", why)
        self._backend.abort()
        self._jobs.put(None)

    def _take(self, request: msg.Open, link: Listener, peer: Peer) -> None:
        """Give the array to a writer, if nobody has it."""
        with self._lock:
            writer = self._writer
            if writer is not None and writer.session == request.session and writer.number == request.id:
                self._again(writer, link, peer)
                return
            if writer is not None:
                left_s = max(0.0, self._until_s(writer) - time.monotonic())
                raise LeaseError(
                    f"{writer.who} has the array"
                    + (f"; it loses it in {left_s:.1f} s unless it is heard" if self._ended is None else
                       ", which is being made safe"),
                    fix="wait until it has ended, then try again",
                )  # fmt: skip
            until_s = time.monotonic() + self._lease_s
            who = self._names.get(request.session, peer.who)
            self._writer = _Writer(request.session, who, until_s, (link, peer), request.id)
            log.info("writer %s", who)
            self._jobs.put(request)

    def _accept(self, request: msg.Request, link: Listener, peer: Peer) -> None:
        """Hand a writer's request to the main thread, once."""
        with self._lock:
            writer = self._own(request, link, peer)
            if request.id == writer.number:
                self._again(writer, link, peer)
                return
            if request.id < writer.number:
                raise ProtocolError(
                    f"request {request.id} is older than request {writer.number}, which was taken",
                    fix="ask for it with lookup",
                )
            if writer.reply is None:
                # A host that was interrupted wants the array safe, not the result.
                if not isinstance(request, msg.MakeSafe | msg.Close):
                    raise ProtocolError(
                        f"request {writer.number} is still under way", fix="wait for its reply before the next"
                    )
                self._backend.abort()
            writer.number, writer.reply = request.id, None
            self._jobs.put(request)

    def _own(self, request: msg.Request, link: Listener, peer: Peer) -> _Writer:
        """The writer, if that is who asks; whoever asks with the lease is heard, and answered where it asks."""
        writer = self._writer
        if writer is None or writer.session != request.session or self._ended is not None:
            holder = "nobody has" if writer is None else f"{writer.who} has"
            raise LeaseError(
                f"this host does not have the array any more ({holder} it): it was not heard for {self._lease_s:g} s, "
                "or the daemon was started again. The array was made safe",
                fix="open the backend again; a run that was cut off can be resumed",
            )
        writer.until_s = time.monotonic() + self._lease_s
        writer.back = (link, peer)
        return writer

    @staticmethod
    def _again(writer: _Writer, link: Listener, peer: Peer) -> None:
        """The host asks once more for what it has asked: its reply, now or when there is one."""
        writer.back = (link, peer)
        if writer.reply is not None:
            link.send(peer, writer.reply)

    # What any host may ask

    def _hello(self, request: msg.Hello, link: Listener, peer: Peer) -> dict[str, Any]:
        del link
        # It is shown on other hosts' terminals.
        name = "".join(c for c in request.who if c.isprintable())
        who = f"{name} ({peer.who})"
        with self._lock:
            self._names.pop(request.session, None)
            self._names[request.session] = who
            if len(self._names) > _NAMES_KEPT:
                del self._names[next(iter(self._names))]
        return {
            "protocol": msg.PROTOCOL,
            "version": own_version(),
            "lease_s": self._lease_s,
            "journal": self._journal.identity,
            "info": self._info,
        }

    def _beat(self, request: msg.Beat, link: Listener, peer: Peer) -> dict[str, Any]:
        with self._lock:
            writer = self._own(request, link, peer)
            return {"running": writer.number == request.number and writer.reply is None}

    def _lookup(self, request: msg.Lookup, link: Listener, peer: Peer) -> dict[str, Any]:
        """What became of a request: never seen, under way, done (with its reply), or begun and never ended."""
        with self._lock:
            writer = self._writer
            mine = writer is not None and writer.session == request.session
            if mine and writer is not None and request.number == writer.number:
                if self._ended is None:
                    self._own(request, link, peer)
                writer.back = (link, peer)
                state = "running" if writer.reply is None else "done"
                return {"state": state, "reply": writer.reply, "mine": self._ended is None, "what": ""}
            try:
                entry = self._journal.find(request.session, request.number)
            except sqlite3.Error as error:
                raise DeviceError(
                    f"the journal of pulses cannot be read ({error})", fix="look at the daemon's disk"
                ) from None
            state = "never" if entry is None else "begun" if entry.reply is None else "done"
            return {
                "state": state,
                "reply": entry.reply if entry else None,
                "mine": mine and self._ended is None,
                "what": entry.what if entry else "",
            }

    def _watch(self, request: msg.Watch, link: Listener, peer: Peer) -> dict[str, Any]:
        with self._lock:
            key = (id(link), peer.route)
            if key not in self._watchers and len(self._watchers) >= _WATCHERS_MAX:
                raise LeaseError(f"{_WATCHERS_MAX} hosts watch already", fix="try again in a minute")
            self._told_s = time.monotonic()
            self._watchers[key] = (link, peer, self._told_s + request.for_s)
            return {"event": "state", **self._state()}

    def _status(self, request: msg.Status, link: Listener, peer: Peer) -> dict[str, Any]:
        del request, link, peer
        with self._lock:
            return {
                **self._state(),
                "version": own_version(),
                "python": platform.python_version(),
                "machine": f"{platform.node()}, {platform.machine()}",
                "up_s": time.time() - self._started_s,
                "disk_free_bytes": shutil.disk_usage(self._folder).free,
                "self_test": self._checks,
            }

    def _state(self) -> dict[str, Any]:
        doing, writer = self._doing, self._writer
        return {
            "time": time.time(),
            "writer": None if writer is None else writer.who,
            "writer_silent_s": 0.0 if writer is None else self._silent_s(writer),
            "doing": None if doing is None else doing[0],
            "doing_for_s": 0.0 if doing is None else time.monotonic() - doing[1],
            "served": self._served,
            "alarm": self._alarm,
            "telemetry": self._values,
        }


def _readings(session: Session) -> dict[str, float]:
    """Telemetry in numbers that can be sent."""
    return {name: float(value) for name, value in session.telemetry().values.items()}


def _not_safe(error: Exception, unsafe: Exception) -> DeviceError:
    return DeviceError(
        f"the daemon failed ({describe(error)}), and THE ARRAY MAY STILL BE UNDER BIAS ({describe(unsafe)})",
        fix="switch the board's analogue supply off by hand",
    )
