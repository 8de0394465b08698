"""`hil serve`: the daemon beside the array."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hil.backend import CrossbarBackend
from hil.cli.errors import reports_errors
from hil.cli.options import ConfigOption, SetOption, parse_seed
from hil.errors import ConfigError

if TYPE_CHECKING:
    from firmware_bridge.emulator.twin import BenchTwin

DEFAULT_URL = "tcp://127.0.0.1:7341"


@reports_errors
def serve(
    backend: Annotated[
        str,
        typer.Option("--backend", help="What to serve: board, emulator, sim or null.", metavar="NAME"),
    ] = "board",
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            help=f"Where hosts reach it; may be repeated. Default: {DEFAULT_URL}. Port 0 takes a free one.",
            metavar="URL",
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Draws a simulated chip and its noise.", parser=parse_seed, metavar="N")
    ] = 0,
    lease_s: Annotated[
        float, typer.Option("--lease", help="Seconds of silence after which a writer loses the array.", metavar="S")
    ] = 5.0,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="Folder of keys, see `hil keys new --help`.", metavar="DIR")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="Folder of the journal of pulses; else this account's.", metavar="DIR"),
    ] = None,
    twin: Annotated[
        int | None,
        typer.Option(
            "--twin",
            help="Also serve bench instruments at an emulated board: SMU at this TCP port of this machine, "
            "multimeter and power supply at the next two. Port 0 takes free ones.",
            metavar="PORT",
            min=0,
            max=65533,
        ),
    ] = None,
) -> None:
    """Serve a backend to one writer and many readers, until Ctrl-C or SIGTERM.

    A writer that falls silent loses the array after --lease seconds: what runs is aborted and the array made safe.
    Without keys it listens on this machine only.
    """
    from platformdirs import user_state_path

    from firmware_bridge.daemon.journal import Journal
    from firmware_bridge.daemon.listeners import open_listeners
    from firmware_bridge.daemon.server import Daemon, check_lease
    from hil.cli.settings import load_settings
    from hil.factory import BACKENDS, create_backend

    check_lease(lease_s)
    if backend not in BACKENDS:
        raise ConfigError(
            f"backend {backend!r} cannot be served", fix=f"choose one of this machine's: {', '.join(BACKENDS)}"
        )
    _tell_who_comes()
    settings = load_settings(config, overrides)
    made = create_backend(backend, settings, seed=seed)
    limits = settings.limits.over(made.info.limits)
    folder = state or user_state_path("crossbar-hil")
    with ExitStack() as bench:
        resources = {} if twin is None else bench.enter_context(_bench(made, twin)).resources
        journal = Journal(folder / "pulses.sqlite")
        try:
            daemon = Daemon(made, journal, limits=limits, lease_s=lease_s, folder=folder)
            links = open_listeners(listen or [DEFAULT_URL], keys)
        except BaseException:
            journal.close()
            raise

        def ready() -> None:
            for link in links:
                typer.echo(f"serving {made.info.name} at {link.url} ({link.access})")
            for role, resource in resources.items():
                typer.echo(f"serving {role} of the bench twin at {resource}")

        daemon.serve(links, ready)


def _bench(backend: CrossbarBackend, first_port: int) -> BenchTwin:
    """Instruments at the emulated board that is served."""
    try:
        from firmware_bridge.emulator.twin import twin_for
    except ImportError as error:
        raise ConfigError(
            f"--twin needs a package that is not installed: {error.name}", fix='run: pip install "crossbar-hil[sim]"'
        ) from None
    return twin_for(backend, first_port=first_port)


def _tell_who_comes() -> None:
    """A daemon's log says who had the array, without -v, unless it was told to be quiet."""
    if logging.getLogger("firmware_bridge").level == logging.WARNING:
        logging.getLogger("firmware_bridge.daemon").setLevel(logging.INFO)
