"""The command tree. Commands are loaded only when they are used, so that `hil --help` is quick anywhere."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from hil import logs
from hil.cli import array, backend, bench, calibrate, config, data, doctor, keys, lsm, report, runs, serve, study, watch
from hil.cli.errors import reports_errors
from hil.provenance import DISTRIBUTION, installed
from hil.session import Terminated

app = typer.Typer(
    name="hil",
    help="Drive an RRAM crossbar macro, or its simulator, and run liquid state machines on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(lsm.app, name="lsm")
app.add_typer(data.app, name="data")
app.add_typer(array.app, name="array")
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(runs.app, name="runs")
app.add_typer(backend.app, name="backend")
app.add_typer(bench.app, name="bench")
app.add_typer(config.app, name="config")
app.add_typer(keys.app, name="keys")
app.command("study", epilog=study.EXAMPLES)(study.study)
app.command("report", epilog=report.EPILOG)(report.report)
app.command("serve", epilog="\b\nExamples:\n  hil serve --backend emulator\n  hil serve --listen tcp://0.0.0.0:7341")(
    serve.serve
)
app.command("watch", epilog="\b\nExample:\n  hil watch tcp://127.0.0.1:7341 --seconds 3")(watch.watch)
app.command("doctor", epilog="\b\nExamples:\n  hil doctor --json\n  hil doctor --backend tcp://127.0.0.1:7341")(
    doctor.doctor
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {installed(DISTRIBUTION) or 'not installed'}")
        raise typer.Exit


@app.callback()
@reports_errors
def common(
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="More messages; -vv for all.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")] = False,
    log_file: Annotated[Path | None, typer.Option("--log-file", help="Write messages to FILE.", metavar="FILE")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the command."""
    del version  # handled by its callback
    logs.configure(-1 if quiet else verbose, log_file)


def main() -> None:
    """Entry point of `hil`."""
    # Outside a session, too: SIGTERM unwinds, so that half-written files go.
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(128 + number)
