"""Report of a calibration run: one HTML file that needs nothing else, made from the run file alone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from experiments import page, style
from experiments.calibration.figures import CAPTIONS
from experiments.calibration.quantities import HEADER, Line, residual
from experiments.calibration.verdicts import HEADER as VERDICT_HEADER
from experiments.calibration.verdicts import SETS_HEADER, WATCHED_HEADER, drifted, rows_of, set_rows, watched_rows
from hil.errors import ConfigError
from hil.runfile import RunReader, open_run

REPORT_NAME = "report.html"
TITLES: Mapping[str, str] = {
    "calibrate": "Calibration",
    "calibrate-validate": "Validation of a calibration",
    "calibrate-check": "Check of a calibration",
}


def write_report(run_path: Path) -> Path:
    """Write the report of a run to `report.html` in the folder beside the run file that has its name.

    Raises:
        ConfigError: no run of `hil calibrate`.
        DataError: no run file, or damaged.
        RunFileError: the folder cannot be written.
    """
    run_path = Path(run_path)
    with open_run(run_path) as reader:
        content = report_html(reader)
    return style.write_aside(run_path.with_suffix("") / REPORT_NAME, content.encode())


def report_html(reader: RunReader) -> str:
    """The report of a run as HTML; also of one that failed, was aborted or has not ended."""
    if reader.experiment not in TITLES:
        raise ConfigError(
            f"{reader.path} is a run of {reader.experiment}, not of hil calibrate",
            fix="name a run of hil calibrate; hil runs list says which there are",
        )
    found: Mapping[str, Any] = reader.results.get("summary", {})
    figures = [_figure(reader, name) for name in CAPTIONS if name in reader.figures]
    return page.page(
        TITLES[reader.experiment],
        reader.run_id,
        [
            page.verdict(reader, _in_words(reader, found), is_good=found.get("holds", True)),
            page.section("Verdict", page.table(rows_of(found.get("verdicts", [])), VERDICT_HEADER)),
            page.section("What was looked at", page.table(watched_rows(found.get("watched", [])), WATCHED_HEADER)),
            page.section("Drifted", page.listing(drifted(found.get("watched", [])))),
            page.section("By kind of input", page.table(set_rows(found.get("sets", [])), SETS_HEADER)),
            page.section("Findings", page.listing(found.get("findings", []))),
            page.section("What was measured", page.table(_quantities(found), HEADER)),
            page.section("How", _methods(found)),
            page.section("Figures", "\n".join(figures)),
            page.section("Configuration", page.unfolded(reader.config)),
            page.section("Backend", page.unfolded(reader.backend)),
            page.section("Provenance", page.provenance(reader)),
        ],
    )


def _in_words(reader: RunReader, found: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    if "verdicts" in found:
        lines.append("All criteria are met." if found["holds"] else "NOT ALL CRITERIA ARE MET.")
    if "text" in found:
        lines.append(str(found["text"]))
    if "calibration_id" in found:
        lines.append(f"Calibration {found['calibration_id']}")
    if "board" in found:
        board = found["board"]
        lines.append(f"of board {board['serial']}, firmware {board['firmware']}, profile {board['profile']}")
    if reader.status != "complete":
        lines.append("Parts that were measured before are in the calibration file; the same command goes on.")
    return [escape(line) for line in lines]


def _figure(reader: RunReader, name: str) -> str:
    return page.figure(name, page.data_uri("image/png", reader.figure(name)), CAPTIONS.get(name, ""))


def _quantities(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        Line(part, name, **numbers).texts()
        for part, content in found.get("parts", {}).items()
        for name, numbers in content["quantities"].items()
    ]


def _methods(found: Mapping[str, Any]) -> str:
    rows = [
        (
            part,
            content["method"],
            ", ".join(f"{role}: {name}" for role, name in content["instruments"].items()) or "none",
            ", ".join(residual(name, value) for name, value in content["residuals"].items() if value is not None),
            page.utc(content["measured_unix_s"]),
        )
        for part, content in found.get("parts", {}).items()
    ]
    return page.table(rows, ("part", "method", "instruments", "residuals", "measured"))
