"""`hil config`: every setting with value, unit and source."""

from __future__ import annotations

import typer

from hil.cli.errors import reports_errors
from hil.cli.options import ConfigOption, JsonOption, SetOption
from hil.cli.terminal import print_json, print_table

app = typer.Typer(help="Settings.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def config_commands() -> None:
    """Settings."""


@app.command("show", epilog="\b\nExample:\n  hil config show --set lsm.decay=0.95")
@reports_errors
def show(config: ConfigOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Print every setting with its value, unit, meaning and source."""
    from hil.cli.settings import load_settings
    from hil.config import rows

    found = list(rows(load_settings(config, overrides)))
    if as_json:
        print_json({row.key: {"value": _plain(row.value), "unit": row.unit, "source": row.source} for row in found})
        return
    table = [(row.key, f"{row.value} {row.unit}".strip(), row.text, row.source) for row in found]
    print_table("Settings", ("key", "value", "what", "source"), table)


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | float | str | list | None) else str(value)
