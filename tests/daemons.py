"""Daemons that tests share: an emulated board on threads of this process, over each kind of link; and `hil serve`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from boards import INDEPENDENT, as_toml, emulate
from links import served

from firmware_bridge.link.pty_line import PtyLine
from firmware_bridge.link.serial_line import SerialListener
from firmware_bridge.link.tcp import TcpListener

ROOT = Path(__file__).parents[1]
#: names the Python of an environment with the extra `board` only
BOARD_PYTHON = "CROSSBAR_HIL_BOARD_PYTHON"
#: modules that a board's environment does not have
HEAVY = ("numba", "torch", "matplotlib", "sklearn")
#: runs `hil` as if they were not installed
_LIGHT = f"import sys; sys.modules.update(dict.fromkeys({HEAVY}));from hil.cli import main; main()"

_running = ExitStack()
_urls: dict[str, str] = {}


def _tcp() -> str:
    listener = TcpListener("127.0.0.1", 0)
    _running.enter_context(served(emulate(INDEPENDENT)[2], listener))
    return listener.url


def _serial() -> str:
    line = _running.enter_context(PtyLine())
    _running.enter_context(served(emulate(INDEPENDENT)[2], SerialListener(f"serial://{line.board_path}")))
    return f"serial://{line.host_path}"


def _light() -> str:
    """The daemon as in a board's environment: in one, if the variable names its Python."""
    python = os.environ.get(BOARD_PYTHON)
    command = [python, "-c", "from hil.cli import main; main()"] if python else [sys.executable, "-c", _LIGHT]
    folder = Path(_running.enter_context(tempfile.TemporaryDirectory()))
    file = folder / "board.toml"
    file.write_text(as_toml(INDEPENDENT))
    settings = ("--set", f"board.profile={file}", "--keys", f"{folder}/keys", "--state", f"{folder}")
    return _running.enter_context(serving(command, "--backend", "emulator", *settings))


_KINDS: dict[str, Callable[[], str]] = {"tcp": _tcp, "serial": _serial, "light": _light}


def shared_daemon(kind: str) -> str:
    """URL of the daemon of that kind, started with its first use."""
    if kind not in _urls:
        _urls[kind] = _KINDS[kind]()
    return _urls[kind]


def end_shared_daemons() -> None:
    """At the end of all tests."""
    _urls.clear()
    _running.close()


@contextmanager
def serving(command: Sequence[str], *arguments: str) -> Iterator[str]:
    """`hil serve` as a process of its own, on a free port; gives its URL."""
    with serving_process(command, *arguments) as (_, url):
        yield url


@contextmanager
def serving_process(command: Sequence[str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The same; gives the process, too."""
    process = subprocess.Popen(
        [*command, "serve", "--listen", "tcp://127.0.0.1:0", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if " at " not in line:
            raise AssertionError(f"no daemon: {line}{process.communicate(timeout=30)[1]}")
        yield process, line.split(" at ", 1)[1].split(" ", 1)[0].strip()
    finally:
        process.terminate()
        process.communicate(timeout=30)
