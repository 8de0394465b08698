"""The style of all figures: reproducible bytes, whole files, no matplotlib until a figure is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import style
from hil.errors import RunFileError


def drawn() -> Any:
    made, axes = style.figure(3.0, 2.0)
    axes.plot([0, 1, 2], [1.0, 4.0, 9.0])
    style.title(axes, "squares")
    return made


def test_png_and_svg_are_what_they_say() -> None:
    assert style.png(drawn()).startswith(b"\x89PNG\r\n\x1a\n")
    assert b"<svg" in style.svg(drawn())


def test_equal_figures_are_equal_bytes() -> None:
    assert style.svg(drawn()) == style.svg(drawn())
    assert style.png(drawn()) == style.png(drawn())


def test_an_svg_holds_no_date_and_needs_no_font() -> None:
    text = style.svg(drawn())
    assert b"dc:date" not in text
    assert b"<text" not in text


def test_each_figure_is_saved_in_both_formats(tmp_path: Path) -> None:
    paths = style.save_figures({"a": drawn(), "b": drawn()}, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["a.png", "a.svg", "b.png", "b.svg"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["a.png", "a.svg", "b.png", "b.svg"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = style.write_aside(tmp_path / "page.html", b"old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunFileError, match=r"page.html cannot be written: No space left on device"):
        style.write_aside(kept, b"new")
    assert kept.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_file_where_a_folder_is_needed_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFileError, match="taken"):
        style.write_aside(tmp_path / "taken" / "page.html", b"")


def test_colours_stay_apart() -> None:
    assert len(set(style.COLOURS)) == len(style.COLOURS) == 10


def test_a_board_without_matplotlib_can_import_everything_that_draws() -> None:
    modules = "experiments.style, experiments.array.drawings, experiments.array.figures, experiments.array.report"
    code = f"import sys; sys.modules['matplotlib'] = None; import {modules}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
