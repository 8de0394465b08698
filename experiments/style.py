"""The one style of all figures: sizes, colours that the colour-blind can tell, PNG and SVG bytes, files.

Matplotlib is imported where it is used: a board's environment has none.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hil.aside import written_aside
from hil.errors import RunFileError

#: Okabe and Ito's palette without black, then greys: ten classes that stay apart for the colour-blind.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7",
    "#56B4E9", "#F0E442", "#7F7F7F", "#000000", "#8C564B",
)  # fmt: skip

#: Colour map of measured quantities: its lightness rises evenly, so that it reads in grey, too.
MAP = "cividis"
#: Cells without a value.
MISSING = "#D9D9D9"
#: Cells that failed; no shade of `MAP` is near it.
FAILED = "#D55E00"

_DPI = 130
_TITLE_PT = 10
# Text as outlines looks the same on every machine; the salt makes equal figures equal files.
_SVG_RC = {"svg.fonttype": "path", "svg.hashsalt": "crossbar-hil"}


def figure(width_in: float, height_in: float, *, rows: int = 1, cols: int = 1, sharex: bool = False) -> tuple[Any, Any]:
    """A figure and its axes, one or an array of them. No window system and no global state: pyplot is not involved."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(made)
    return made, made.subplots(rows, cols, sharex=sharex)


def title(axes: Any, text: str) -> None:
    """Title of one panel."""
    axes.set_title(text, fontsize=_TITLE_PT)


def heading(made: Any, text: str) -> None:
    """Title over all panels of a figure."""
    made.suptitle(text, fontsize=_TITLE_PT)


def png(made: Any, *, dpi: int = _DPI) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def svg(made: Any) -> bytes:
    """A figure as SVG without a date, so that equal figures are equal bytes."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(_SVG_RC):
        made.savefig(buffer, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def save_figures(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write each figure as NAME.png and NAME.svg; every file is there as a whole or not at all.

    Raises:
        RunFileError: the folder cannot be written.
    """
    written: list[Path] = []
    for name, made in figures.items():
        for suffix, render in ((".png", png), (".svg", svg)):
            written.append(write_aside(folder / f"{name}{suffix}", render(made)))
    return written


def write_aside(path: Path, content: bytes) -> Path:
    """Write a file under another name and rename it: whoever opens `path` finds a whole file.

    Raises:
        RunFileError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise RunFileError(
            f"{path} cannot be written: {error.strerror}",
            fix="make room or choose another folder; the run file holds the data",
        ) from error
    return path
