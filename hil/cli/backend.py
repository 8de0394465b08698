"""`hil backend`: who answers, and whether it is well."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from hil.backend import Check
from hil.cli.calibration_note import calibration_note
from hil.cli.errors import reports_errors
from hil.cli.options import (
    BackendOption,
    CalibrationOption,
    ChipSeedOption,
    ConfigOption,
    JsonOption,
    SeedOption,
    SetOption,
    with_calibration,
)
from hil.cli.terminal import print_json, print_table
from hil.errors import HilError, LeaseError
from hil.session import open_session, tighten

app = typer.Typer(help="Backends: what answers a VMM.", no_args_is_help=True, rich_markup_mode=None)

VERDICTS: Mapping[bool | None, str] = {True: "ok", False: "FAILED", None: "not tested"}
#: keys of the identity that describe the board profile
_PROFILE_KEYS = {"profile": "name", "profile_hash": "hash", "guesses": "guesses"}
#: keys of the identity that have a row of their own
_SHOWN_APART = {*_PROFILE_KEYS, "calibration"}
_UNITS = {"v": "V", "s": "s"}


@app.callback()
def backend_commands() -> None:
    """Backends: what answers a VMM."""


@app.command(
    "info",
    epilog="\b\nExamples:\n  hil backend info --backend emulator\n  hil backend info --seed 3 --no-self-test --json",
)
@reports_errors
def info(
    backend: BackendOption = "sim",
    calibration: CalibrationOption = None,
    chip_seed: ChipSeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    self_test: Annotated[
        bool, typer.Option("--self-test/--no-self-test", help="Open the backend and test its parts.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Print identity, shape, capabilities and limits of a backend, and what its self-test finds.

    A part that fails is listed, and the exit code is then 1.
    """
    from hil.cli.settings import load_settings
    from hil.factory import create_backend

    settings = load_settings(config, with_calibration(overrides, calibration))
    made = create_backend(backend, settings, seed=seed if chip_seed is None else chip_seed)
    found = made.info
    limits = tighten(found.limits, settings.limits.over(found.limits))
    error: HilError | None = None
    if self_test:
        try:
            with open_session(made, limits):
                pass
        except HilError as stopped:
            error = stopped
    # Where another host has the array, the last test was of its session.
    checks = made.self_test() if self_test and not isinstance(error, LeaseError) else None
    identity = {k: v for k, v in found.identity.items() if not isinstance(v, dict)}
    result: dict[str, Any] = {
        "name": found.name,
        "shape": list(found.shape),
        "calibration_id": found.calibration_id,
        "calibration_text": calibration_note(found),
        "identity": identity,
        "profile": {name: identity.get(key) for key, name in _PROFILE_KEYS.items()} if "profile" in identity else None,
        "limits": asdict(limits),
        "pulse_kinds": sorted(found.capabilities.pulse_kinds),
        "analogue_rows": found.capabilities.analogue_rows,
        "tensors": found.capabilities.tensors,
        "self_test": None if checks is None else [asdict(check) for check in checks],
        "error": None if error is None else str(error),
    }
    if as_json:
        print_json(result)
    else:
        _print(result, checks)
    if error is not None:
        raise error


def _print(result: Mapping[str, Any], checks: Sequence[Check] | None) -> None:
    profile = result["profile"]
    board = [] if profile is None else [("board profile", f"{profile['name']}, hash {profile['hash']}")]
    if profile is not None and profile["guesses"]:
        board.append(("", f"{profile['guesses']} of its entries are guesses"))
    rows = [
        ("shape", f"{result['shape'][0]} rows x {result['shape'][1]} columns"),
        ("calibration", result["calibration_text"]),
        *board,
        *((f"identity: {k}", str(v)) for k, v in result["identity"].items() if k not in _SHOWN_APART),
        *((f"limit: {k}", _with_unit(k, v)) for k, v in result["limits"].items()),
        ("pulses", ", ".join(result["pulse_kinds"]) or "none"),
        ("analogue rows", "yes" if result["analogue_rows"] else "no"),
        ("tensors", "yes" if result["tensors"] else "no"),
        ("self-test", _summary(checks, failed=result["error"] is not None)),
    ]
    print_table(f"Backend {result['name']}", ("what", "value"), rows)
    if checks:
        typer.echo()
        lines = [(check.part, VERDICTS[check.ok], check.text) for check in grouped(checks)]
        print_table("Self-test", ("part", "verdict", "found"), lines)


def _with_unit(name: str, value: float) -> str:
    shown = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{shown} {_UNITS.get(name.rsplit('_', 1)[-1], '')}".rstrip()


def _summary(checks: Sequence[Check] | None, *, failed: bool) -> str:
    if not checks:
        return "not run" if checks is None else "broke off" if failed else "has no parts to test"
    counts = {text: sum(check.ok is ok for check in checks) for ok, text in VERDICTS.items()}
    return ", ".join(f"{n} {text}" for text, n in counts.items() if n)


def grouped(checks: Sequence[Check]) -> list[Check]:
    """The checks, with parts that differ by their number only and were found alike in one line.

    "mux 0", "mux 1" and "mux 3" become "mux 0-1, 3", at the place of the first.
    """
    numbers: dict[tuple[str, str, bool | None, str], list[int]] = {}
    for check in checks:
        before, number, after = _split(check.part)
        numbers.setdefault((before, after, check.ok, check.text), []).extend(number)
    return [Check(f"{before}{_ranges(found)}{after}", ok, text) for (before, after, ok, text), found in numbers.items()]


def _split(part: str) -> tuple[str, list[int], str]:
    """What stands before the number of a part, the number, and what stands after it."""
    match = re.fullmatch(r"(.* )(\d+)\b(.*)", part)
    return (match[1], [int(match[2])], match[3]) if match else (part, [], "")


def _ranges(numbers: Sequence[int]) -> str:
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][-1] + 1:
            ranges[-1] = [ranges[-1][0], number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, ends)) for ends in ranges)
