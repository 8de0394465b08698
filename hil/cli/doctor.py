"""`hil doctor`: what works on this machine, what is missing, and the fix."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hil.checks import examine
from hil.cli.errors import reports_errors
from hil.cli.options import JsonOption
from hil.cli.terminal import print_json, print_table


@reports_errors
def doctor(
    backend: Annotated[
        str | None, typer.Option("--backend", help="Check the daemon at this URL, too.", metavar="URL")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what works on this machine and what is missing, with the fix.

    With --backend, also link, versions, clock, disk and self-test of a daemon. The board is powered up for its
    self-test unless another host has it.
    """
    findings = examine()
    if backend is not None:
        from firmware_bridge.link_check import examine_link

        findings += examine_link(backend)
    if as_json:
        result: dict[str, Any] = {"ok": all(f.state != "broken" for f in findings)}
        result["findings"] = [f._asdict() for f in findings]
        print_json(result)
    else:
        rows = [(f.state, f.what, f.detail, f.fix) for f in findings]
        print_table("What works here", ("state", "what", "detail", "fix"), rows)
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(1)
