"""The reference page of all settings, made from the settings themselves.

python -m hil.cli.settings_page   # writes docs/reference/settings.md
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from hil.cli.settings import RootSettings
from hil.config import Row, rows

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"

_INTRODUCTION = """\
# Settings

Every setting with its default, unit and source. This page is a copy; the program itself prints the current ones:

```
hil config show
```

Set them with `--set KEY=VALUE` or in a TOML file ([how](../how-to/change-settings.md)). "paper" is Lin et al., Nature
Computational Science 5, 37-47 (2025) and its released code. ESGNN, DEPLM and PRIME are sister papers on the same
40 nm macro. "RADAR data" are measured 1T1R cells of another array (IEEE TED 2021, doi 10.1109/TED.2021.3097975). "TI"
is a data sheet. "guess" means that no published value was found.
"""
#: section -> its title, and what must be said before its table
_SECTIONS = {
    "data": ("Data of vision", "See [get data sets](../how-to/get-data-sets.md)."),
    "audio": ("Data of audio", "See [cochlea](../explanation/cochlea.md)."),
    "letters": ("Data of letters", "See [letters and brain](../explanation/letters-and-brain.md)."),
    "brain": ("Data of the brain", "See [letters and brain](../explanation/letters-and-brain.md)."),
    "lsm": (
        "Network",
        "For all experiments; `decay`, `v_threshold` and `const_per_us` are for N-MNIST, the others have their own.",
    ),
    "readout": ("Read-out", "Of the supervised experiments."),
    "ntidigits": ("Spoken digits", ""),
    "atv": ("Audio to vision", "See [zero-shot](../explanation/zero-shot.md)."),
    "btv": (
        "Brain to vision",
        "See [zero-shot](../explanation/zero-shot.md) and [tiling](../explanation/tiling.md).",
    ),
    "projection": ("Projections", "Of the experiment `atv`."),
    "baseline": ("Baselines", "See [train a baseline](../how-to/train-a-baseline.md)."),
    "energy": ("Energy", "Constants that `hil report` counts with: [costs](../explanation/costs.md)."),
    "array": (
        "Procedures on arrays",
        "`hil array VERB` reads `array.VERB`, `array.read` and `array.cells_per_step`: see\n"
        "[form and program an array](../how-to/form-and-program-an-array.md) and\n"
        "[characterise an array](../how-to/characterise-an-array.md).",
    ),
    "limits": (
        "Limits of the session",
        "What is not set stays at the board's own limit; a wider one is refused ([safety](../explanation/safety.md)).",
    ),
    "board": (
        "Board, real or emulated",
        "Shipped profiles: `paper-guess` and `tiny-8x8`. What is in one: [board profile](board-profile.md).\n"
        "All other keys are for `--backend board` on its own ZYNQ ([serve a board](../how-to/serve-a-board.md));\n"
        "1136656384 is 0x43C00000, and may be written so.",
    ),
    "emulator": (
        "Emulated board alone",
        "Dead parts and the pad of the [bench twin](../how-to/use-the-bench-twin.md).",
    ),
    "sim": (
        "Simulator",
        "See [simulator](../explanation/simulator.md). Each `enabled` switches one effect. They also draw the hidden\n"
        "chip of `--backend emulator`, with size, mux width, amplifier and converter levels\n"
        "[from the profile](../explanation/board.md#what-the-emulator-models).",
    ),
    "calibration": (
        "Calibration",
        "Which file is applied, and which misfits are accepted by name: see\n"
        "[calibrate a board](../how-to/calibrate-a-board.md). `--calibration FILE` sets `calibration.file`.",
    ),
}


def page() -> str:
    """The whole page."""
    found = rows(RootSettings())
    sections = [_section(name, list(group)) for name, group in groupby(found, lambda row: row.key.partition(".")[0])]
    return "\n".join([_INTRODUCTION, *sections])


def _section(name: str, found: list[Row]) -> str:
    title, note = _SECTIONS[name]
    lines = [f"## `{name}`: {title}", "", *([note, ""] if note else [])]
    lines += ["| key | default | unit | what | source |", "|---|---|---|---|---|"]
    lines += [f"| `{row.key}` | {_shown(row.value)} | {row.unit} | {row.text} | {row.source} |" for row in found]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    return str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
