"""`hil serve` as a process: what its hosts are told when it ends, and what is never claimed."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from daemons import serving_process

from firmware_bridge.remote_backend import RemoteBackend
from hil import Pulse, open_session, single_ended_tile
from hil.cli.errors import reports_errors
from hil.errors import LeaseError, UncertainError
from hil.session import Terminated

HIL = [sys.executable, "-c", "from hil.cli import main; main()"]
TILE = single_ended_tile(8, 8)
ALL = np.ones((8, 8), np.bool_)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Any]:
    own = ("--set", "board.profile=tiny-8x8", "--keys", f"{tmp_path}/keys", "--state", f"{tmp_path}/state")
    with serving_process(HIL, "--backend", "emulator", *own) as found:
        yield found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_daemon_that_is_stopped_tells_its_writer(daemon: Any, number: signal.Signals, code: int) -> None:
    process, url = daemon
    host = RemoteBackend(url)
    with pytest.raises(LeaseError, match="was stopped"), open_session(host) as session:  # noqa: PT012 - where it happens
        session.vmm(ALL, TILE, 0.2)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
        assert process.returncode == code
        assert "the array is at zero bias" in said
        start_s = time.monotonic()
        session.vmm(ALL, TILE, 0.2)
    assert time.monotonic() - start_s < 10


def test_a_pulse_under_way_is_uncertain_when_the_daemon_is_stopped(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it lasts: the board may have applied it, or not."""
    monkeypatch.setattr("firmware_bridge.remote_backend._RECOVER_S", 1.0)
    process, url = daemon
    pulse = Pulse("form", 3.0, 1.0, 1e-3)
    with pytest.raises((UncertainError, LeaseError)) as found, open_session(RemoteBackend(url)) as session:  # noqa: PT012
        session.pulse(ALL, pulse)
        process.send_signal(signal.SIGTERM)
        for _ in range(1000):
            session.pulse(ALL, pulse)
    if isinstance(found.value, UncertainError):
        assert "read those cells" in found.value.fix


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (Terminated(143), 143)])
def test_zero_bias_is_not_claimed_by_who_only_looks_on(
    stop: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @reports_errors
    def look() -> None:
        raise stop

    with pytest.raises(typer.Exit) as found:
        look()
    assert found.value.exit_code == code
    said = capsys.readouterr().err
    assert said.startswith("stopped by")
    assert "zero bias" not in said


def test_another_host_is_told_who_has_the_array(daemon: Any, hil: Any) -> None:
    _, url = daemon
    with open_session(RemoteBackend(url)):
        ran = hil("backend", "info", "--backend", url)
    assert ran.code == 1
    assert "has the array" in ran.stderr
    assert "not run" in ran.stdout
    assert hil("backend", "info", "--backend", url, "--set", "limits.v_pulse_max_v=2", "--json").json["limits"][
        "v_pulse_max_v"
    ] == pytest.approx(2)


def test_what_cannot_be_served_is_refused(hil: Any) -> None:
    for name in ("tcp://127.0.0.1:7341", "foo"):
        ran = hil("serve", "--backend", name)
        assert ran.code == 2
        assert f"{name!r} cannot be served" in ran.stderr
