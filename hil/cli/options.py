"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def parse_seed(text: str) -> int:
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed < 2**64:
        raise typer.BadParameter(f"{text} is not a whole number from 0 to 2**64 - 1; choose one, such as 3")
    return seed


BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="What answers: sim, emulator, board, null, or the URL of a daemon.",
        metavar="NAME",
    ),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.", metavar="FILE")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override one setting; may be repeated.", metavar="KEY=VALUE")
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", help="Draws the simulated chip, its noise and the training.", parser=parse_seed, metavar="N"
    ),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for run files and figures.", metavar="DIR")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
