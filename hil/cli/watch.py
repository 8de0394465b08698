"""`hil watch`: look on while somebody else uses an array."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Any

import typer

from hil.cli.errors import reports_errors
from hil.errors import ConfigError

#: how often the daemon is asked to go on telling
_RENEW_S = 30.0
#: a writer beats more often than this
_SILENT_S = 2.0


@reports_errors
def watch(
    url: Annotated[str, typer.Argument(help="The daemon, such as tcp://HOST:PORT.", metavar="URL")],
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="How long; until Ctrl-C if left out.", metavar="S")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a second instead of text.")] = False,
) -> None:
    """Print once a second who has the array, what it does, and its telemetry. Changes nothing."""
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"--seconds {seconds:g} is not above 0", fix="give a time such as 10")
    from firmware_bridge.remote_backend import RemoteBackend
    from hil.cli.terminal import print_json

    remote = RemoteBackend(url)
    show = print_json if as_json else _print
    try:
        start = time.monotonic()
        renew_s, shown = start, False
        while seconds is None or time.monotonic() < start + seconds:
            if time.monotonic() >= renew_s:
                renew_s = time.monotonic() + _RENEW_S
                state = remote.watch(2 * _RENEW_S)
                if not shown:
                    show(state)
                shown = True
            if (event := remote.next_event(1.0)) is not None:
                show(event)
    finally:
        remote.close()


def _print(state: Mapping[str, Any]) -> None:
    at = datetime.fromtimestamp(state["time"], tz=timezone.utc).strftime("%H:%M:%S")
    doing = f"{state['doing']} for {state['doing_for_s']:.1f} s" if state["doing"] else "idle"
    counts = [f"{k.removesuffix('_count')} {v:,.0f}" for k, v in state["telemetry"].items() if _told(k, v)]
    who = f"{state['writer']} has it" if state["writer"] else "nobody has it"
    if state["writer_silent_s"] > _SILENT_S:
        who += f", silent for {state['writer_silent_s']:.1f} s"
    typer.echo(
        f"{at}  {who}; {doing}; {state['served']} requests since the daemon started"
        + "".join(f"; {text}" for text in counts)
    )
    if state["alarm"]:
        typer.echo(f"{at}  ALARM: {state['alarm']}")


def _told(name: str, value: float) -> bool:
    """Counters of operations; those of single lanes only when they say something."""
    return name.endswith("_count") and ("_lane_" not in name or value > 0)
