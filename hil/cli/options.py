"""Options that several commands share."""

from __future__ import annotations

import json
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
CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", help="Calibration file to apply; short for calibration.file.", metavar="FILE"),
]
ChipSeedOption = Annotated[
    int | None,
    typer.Option("--chip-seed", help="Draws the simulated chip. Default: --seed.", parser=parse_seed, metavar="N"),
]
InstrumentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--instrument",
        help="Bench instrument, as in smu=TCPIP::192.168.1.20::5025::SOCKET; roles smu, dmm, psu; may be repeated. "
        "At the emulator: smu=twin.",
        metavar="ROLE=RESOURCE",
    ),
]


def with_calibration(overrides: list[str] | None, calibration: Path | None) -> list[str]:
    """Overrides with the file of `--calibration`, which wins."""
    texts = list(overrides or ())
    if calibration is not None:
        # As a TOML string, whose escapes are those of JSON.
        texts.append(f"calibration.file={json.dumps(str(calibration), ensure_ascii=False)}")
    return texts
