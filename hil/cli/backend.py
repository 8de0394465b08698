"""`hil backend`: who answers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import BackendOption, ConfigOption, JsonOption, SeedOption, SetOption
from hil.cli.terminal import print_json, print_table

app = typer.Typer(help="Backends: what answers a VMM.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def backend_commands() -> None:
    """Backends: what answers a VMM."""


@app.command("info", epilog="\b\nExample:\n  hil backend info --backend sim --seed 3")
@reports_errors
def info(
    backend: BackendOption = "sim",
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Print identity, shape, capabilities and limits of a backend."""
    require_sim()
    from hil.cli.settings import load_settings
    from hil.factory import create_backend

    found = create_backend(backend, load_settings(config, overrides), seed=seed).info
    identity = {k: v for k, v in found.identity.items() if not isinstance(v, dict)}
    result: dict[str, Any] = {
        "name": found.name,
        "shape": list(found.shape),
        "calibration_id": found.calibration_id,
        "identity": identity,
        "limits": asdict(found.limits),
        "pulse_kinds": sorted(found.capabilities.pulse_kinds),
        "analogue_rows": found.capabilities.analogue_rows,
        "tensors": found.capabilities.tensors,
    }
    if as_json:
        print_json(result)
        return
    rows = [
        ("shape", f"{found.shape[0]} rows x {found.shape[1]} columns"),
        ("calibration", found.calibration_id or "none"),
        *((f"identity: {k}", str(v)) for k, v in identity.items()),
        *((f"limit: {k}", f"{v:g}") for k, v in result["limits"].items()),
        ("pulses", ", ".join(result["pulse_kinds"]) or "none"),
        ("analogue rows", "yes" if result["analogue_rows"] else "no"),
        ("tensors", "yes" if result["tensors"] else "no"),
    ]
    print_table(f"Backend {found.name}", ("what", "value"), rows)
