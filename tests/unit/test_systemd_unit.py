"""The systemd unit that the package ships: its command line is one of `hil serve`, and it starts and stops it well."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer.main

from firmware_bridge.link.keys import KeyFolder
from firmware_bridge.profile import load_profile
from hil.cli.app import app
from hil.errors import ConfigError, TransportError
from hil.factory import SCHEMES

#: a link thread may take so long to end, and `make_safe` is tried so often
THREAD_END_S, SAFE_ATTEMPTS = 5.0, 3
#: of systemd: so many starts within that time, and the unit is given up
BURST, BURST_S = 5, 10.0
RUN_MAIN = "from hil.cli import main; main()"


def parse(text: str) -> dict[str, dict[str, str]]:
    """Sections of a unit. A key that comes twice would need more than this."""
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            assert key not in section, f"{key} comes twice"
            section[key] = value
    return found


@pytest.fixture(scope="module")
def unit() -> dict[str, dict[str, str]]:
    return parse((files("firmware_bridge.daemon") / "hil-serve.service").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def service(unit: dict[str, dict[str, str]]) -> dict[str, str]:
    return unit["Service"]


@pytest.fixture(scope="module")
def arguments(service: dict[str, str]) -> list[str]:
    """Of `hil serve`, as the unit gives them."""
    program, command, *rest = shlex.split(service["ExecStart"])
    assert (Path(program).name, command) == ("hil", "serve")
    assert Path(program).is_absolute()
    return rest


@pytest.fixture(scope="module")
def options(arguments: list[str]) -> dict[str, Any]:
    """What `hil serve` makes of them; a wrong option, or one without its value, is an error."""
    return parse_serve(arguments)


def parse_serve(arguments: list[str]) -> dict[str, Any]:
    root: Any = typer.main.get_command(app)
    serve: Any = root.get_command(root.make_context("hil", [], resilient_parsing=True), "serve")
    return dict(serve.make_context("serve", list(arguments)).params)


class TestCommand:
    def test_every_option_is_one_of_hil_serve(self, options: dict[str, Any]) -> None:
        assert options["backend"] == "board"

    def test_a_wrong_option_would_be_noticed(self) -> None:
        with pytest.raises(Exception, match="--lisen"):
            parse_serve(["--lisen", "tcp://0.0.0.0:7341"])

    def test_it_listens_on_links_that_exist(self, options: dict[str, Any]) -> None:
        assert {url.partition("://")[0] for url in options["listen"]} <= set(SCHEMES)

    def test_files_are_in_folders_that_systemd_makes(self, service: dict[str, str], options: dict[str, Any]) -> None:
        assert options["state"] == Path("/var/lib") / service["StateDirectory"]
        own = Path("/etc") / service["ConfigurationDirectory"]
        assert options["config"].parent == own
        assert options["keys"].parent == own


class TestBoard:
    def test_it_runs_as_root_for_dev_mem(self, service: dict[str, str]) -> None:
        assert service["User"] == "root"

    def test_pynq_finds_its_device(self, service: dict[str, str]) -> None:
        assert service["Environment"].startswith("XILINX_XRT=/")

    def test_the_heartbeat_in_the_comment_is_that_of_the_default_profile(self) -> None:
        text = (files("firmware_bridge.daemon") / "hil-serve.service").read_text(encoding="utf-8")
        assert f"every {load_profile('paper-guess').limits.watchdog_s:g} s" in text


class TestStop:
    def test_it_is_asked_by_sigterm(self, service: dict[str, str]) -> None:
        assert service["KillSignal"] == "SIGTERM"

    def test_it_has_time_to_make_the_array_safe(self, service: dict[str, str], options: dict[str, Any]) -> None:
        longest_s = THREAD_END_S * len(options["listen"]) + SAFE_ATTEMPTS
        assert float(service["TimeoutStopSec"]) >= 2 * longest_s

    def test_the_command_ends_as_the_unit_expects(
        self, spawn: Callable[..., Any], service: dict[str, str], arguments: list[str], tmp_path: Path
    ) -> None:
        """Its own arguments, but for board, folders and port."""
        (tmp_path / "serve.toml").write_text("[sim]\nrows = 8\ncols = 8\n", encoding="utf-8")
        KeyFolder(tmp_path / "keys").new("lab", tmp_path / "lab.hilkey")
        replaced = {"--backend": "sim", "--listen": "tcp://0.0.0.0:0", "--config": tmp_path / "serve.toml"}
        replaced |= {"--keys": tmp_path / "keys", "--state": tmp_path}
        given = [str(replaced.get(before, text)) for before, text in zip(["", *arguments], arguments, strict=False)]
        daemon = spawn("-c", RUN_MAIN, "serve", *given)
        assert daemon.stdout is not None
        assert "registered key" in daemon.stdout.readline()
        start_s = time.monotonic()
        daemon.send_signal(getattr(signal, service["KillSignal"]))
        daemon.communicate(timeout=float(service["TimeoutStopSec"]))
        assert time.monotonic() - start_s < float(service["TimeoutStopSec"]) / 3
        assert str(daemon.returncode) in service["SuccessExitStatus"].split()


class TestRestart:
    def test_after_a_failure_and_not_after_a_stop(self, service: dict[str, str]) -> None:
        assert service["Restart"] == "on-failure"

    def test_wrong_usage_is_not_repeated_but_a_lost_board_is(self, service: dict[str, str]) -> None:
        never = {int(code) for code in service["RestartPreventExitStatus"].split()}
        assert ConfigError.exit_code in never
        assert TransportError.exit_code not in never

    def test_it_is_never_given_up(self, service: dict[str, str]) -> None:
        assert float(service["RestartSec"]) * (BURST - 1) > BURST_S

    def test_it_starts_with_the_machine(self, unit: dict[str, dict[str, str]]) -> None:
        assert unit["Install"]["WantedBy"] == "multi-user.target"
