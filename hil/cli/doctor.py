"""`hil doctor`: what works on this machine, what is missing, and the fix."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hil.checks import Finding, examine
from hil.cli.errors import reports_errors
from hil.cli.options import JsonOption
from hil.cli.terminal import print_json, print_table
from hil.errors import HilError
from hil.provenance import installed

#: distributions that bench instruments need
_INSTRUMENT_PACKAGES = ("pyvisa", "pyvisa-py", "pymeasure")


@reports_errors
def doctor(
    backend: Annotated[
        str | None, typer.Option("--backend", help="Check the daemon at this URL, too.", metavar="URL")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what works on this machine and what is missing, with the fix; instruments that VISA finds, too.

    With --backend, also link, versions, clock, disk and self-test of a daemon. The board is powered up for its
    self-test unless another host has it.
    """
    findings = examine() + examine_instruments()
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


def examine_instruments() -> list[Finding]:
    """What is connected by VISA; nothing is switched."""
    absent = [name for name in _INSTRUMENT_PACKAGES if installed(name) is None]
    if absent:
        return [Finding("missing", "instruments", f"no package {', '.join(absent)}", 'pip install "crossbar-hil[lab]"')]
    try:
        from drivers.instruments import discover, role_of

        found = discover()
    except HilError as error:
        return [Finding("missing", "instruments", error.what, error.fix)]
    except Exception as error:
        # A VISA library of another vendor: it must not keep the rest of the report from its reader.
        return [Finding("missing", "instruments", f"{type(error).__name__}: {error}", "reinstall pyvisa and pyvisa-py")]
    if not found:
        detail = "none found; those behind a plain socket (TCPIP::HOST::PORT::SOCKET) cannot be"
        return [Finding("works", "instruments", detail)]
    findings: list[Finding] = []
    for resource, identity in found:
        role = role_of(identity)
        fix = f"use it with --instrument {role}={resource}" if role else ""
        findings.append(Finding("works", f"instrument {resource}", identity or "not asked, or silent", fix))
    return findings
