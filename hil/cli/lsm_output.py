"""What the LSM commands say and keep: numbers with their intervals, figures beside the run file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from hil.cli.terminal import print_json
from hil.errors import RunFileError


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def with_interval(value: float, interval: list[float], *, sign: bool = False) -> str:
    low, high = (f"{100 * bound:{'+' if sign else ''}.2f} %" for bound in interval)
    return f"{100 * value:{'+' if sign else ''}.2f} %   95 % interval {low} to {high}"


def faults_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What to say about faults: nothing without a fault map."""
    faults = result.get("faults")
    if faults is None:
        return []
    kinds = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in faults["tile"].items() if n)
    text = f"{faults['tile_faulty']} of {faults['tile_cells']}{f'   ({kinds})' if kinds else ''}"
    avoided = f"{faults['rows_out']} rows and {faults['cols_out']} columns that are open or shorted"
    return [("faults known from", result["faults_from"]), ("faulty cells in the tile", text), ("avoided", avoided)]


def save_figures(figures: dict[str, bytes], folder: Path) -> list[str]:
    """PNG files beside the run file, which holds them too."""
    paths = {folder / f"{name}.png": png for name, png in figures.items()}
    try:
        folder.mkdir(exist_ok=True)
        for path, png in paths.items():
            path.write_bytes(png)
    except OSError as error:
        for path in paths:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise RunFileError(
            f"figures cannot be written to {folder}: {error.strerror}",
            fix="make room; the run file is complete and holds the figures too",
        ) from None
    return [str(path) for path in paths]


def print_result(result: dict[str, Any], show: Callable[[dict[str, Any]], None], *, as_json: bool) -> None:
    """One run: as JSON, or as `show` tells it, with where its file and figures are."""
    if as_json:
        print_json(result)
        return
    show(result)
    # Outside the table, which would break a path that is longer than the terminal is wide.
    typer.echo(f"run file: {result['run_file']}")
    for path in result["figures"]:
        typer.echo(f"figure:   {path}")
