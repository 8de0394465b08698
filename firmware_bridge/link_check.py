"""What `hil doctor --backend URL` finds: the link, the daemon at its other end, and the board behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

from firmware_bridge.link.messages import noise_bytes
from firmware_bridge.remote_backend import RemoteBackend
from hil.checks import DISK_MIN_BYTES, Finding
from hil.errors import HilError
from hil.provenance import DISTRIBUTION, own_version
from hil.session import open_session

_PINGS = 50
#: bytes sent and fetched, over a network and over a slow line
_BULK_BYTES = {False: 4 * 2**20, True: 16 * 2**10}
#: clocks further apart than this make time stamps useless
_CLOCK_MAX_S = 5.0


def examine_link(url: str) -> list[Finding]:
    """Check a link and what is behind it.

    Takes the array for a moment if nobody has it, to power the board up and test its parts. What fails is a finding, a
    wrong URL too.
    """
    remote = RemoteBackend(url)
    try:
        return list(_findings(remote))
    finally:
        remote.close()


def _findings(remote: RemoteBackend) -> Iterator[Finding]:
    start = time.perf_counter()
    try:
        info = remote.info
    except HilError as error:
        yield Finding("broken", "link", error.what, error.fix)
        return
    yield Finding("works", "link", f"{remote.url}, connected in {1e3 * (time.perf_counter() - start):.0f} ms")
    try:
        yield _latency(remote)
        yield _throughput(remote)
        asked = time.time()
        status = remote.status()
        back = time.time()
    except HilError as error:
        yield Finding("broken", "link", error.what, error.fix)
        return
    own = own_version()
    same = status["version"] == own
    yield Finding(
        "works" if same else "broken",
        "versions",
        f"{DISTRIBUTION} {status['version']} there, {own} here; Python {status['python']} on {status['machine']}",
        "" if same else "install the same crossbar-hil on both sides",
    )
    offset_s, doubt_s = status["time"] - (asked + back) / 2, (back - asked) / 2
    near = abs(offset_s) <= _CLOCK_MAX_S + doubt_s
    yield Finding(
        "works" if near else "broken",
        "clock",
        f"{offset_s:+.3f} s against this host, known to {doubt_s:.3f} s",
        "" if near else "set the daemon's clock (timedatectl), or its journal cannot be read beside run files",
    )
    free = status["disk_free_bytes"]
    yield Finding(
        "works" if free > DISK_MIN_BYTES else "broken",
        "daemon's disk",
        f"{free / 1e9:.1f} GB free",
        "" if free > DISK_MIN_BYTES else "free some space there: pulses are refused when their journal is full",
    )
    yield Finding("works", "backend", f"{info.name}, {info.shape[0]} x {info.shape[1]}, up {status['up_s']:.0f} s")
    yield _board(remote, status["writer"])
    if alarm := status["alarm"]:
        yield Finding("broken", "daemon", f"its last trouble: {alarm}", "see its log")


def _latency(remote: RemoteBackend) -> Finding:
    times = []
    for _ in range(_PINGS):
        start = time.perf_counter()
        remote.echo(b"", 0)
        times.append(time.perf_counter() - start)
    return Finding("works", "latency", f"{1e3 * median(times):.2f} ms, at worst {1e3 * max(times):.2f} ms of {_PINGS}")


def _throughput(remote: RemoteBackend) -> Finding:
    n = _BULK_BYTES[remote.slow]
    start = time.perf_counter()
    remote.echo(noise_bytes(n), 0)
    half = time.perf_counter()
    remote.echo(b"", n)
    up_s, down_s = half - start, time.perf_counter() - half
    return Finding("works", "throughput", f"{n / up_s / 1e6:.3g} MB/s to the daemon, {n / down_s / 1e6:.3g} MB/s back")


def _board(remote: RemoteBackend, writer: str | None) -> Finding:
    """Self-test of the parts: a new one where the array is free, else what the daemon found last."""
    failed = ""
    when = "tested now"
    if writer is not None:
        when = f"as found when {writer} took it"
    else:
        try:
            with open_session(remote):
                pass
        except HilError as error:
            failed = error.what
    checks = remote.self_test()
    bad = [check.part for check in checks if check.ok is False]
    if failed or bad:
        return Finding("broken", "board", failed or f"failed: {', '.join(bad)}", "see `hil backend info`")
    n_ok = sum(check.ok is True for check in checks)
    return Finding("works", "board", f"{n_ok} parts are well, {when}" if checks else f"has no parts to test, {when}")
