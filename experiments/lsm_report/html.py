"""The page of a report: one HTML file that needs nothing else, made from the run files alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path

from experiments import page, style
from experiments.lsm_report import figures
from experiments.lsm_report.build import LsmReport
from experiments.lsm_report.groups import Group
from experiments.lsm_report.runs import LsmRun
from experiments.lsm_report.table import Table
from hil.config import rows as setting_rows
from hil.runfile import open_run

_NO_FIGURES = '<p class="note">Drawn figures need matplotlib: pip install "crossbar-hil[sim]"; then report again.</p>'


def write_report(report: LsmReport, path: Path) -> Path:
    """Write the page.

    Raises:
        RunFileError: it cannot be written.
        DataError: a run file has gone or changed meanwhile.
    """
    return style.write_aside(path, report_html(report).encode())


def report_html(report: LsmReport) -> str:
    """The page as HTML."""
    n = report.n_runs
    return page.page(
        "Experiments beside the paper",
        f"{n} run{'' if n == 1 else 's'}, {len(report.groups)} group{'' if len(report.groups) == 1 else 's'}",
        [
            _in_short(report),
            page.section("Accuracy", _drawn(report) + "\n".join(map(_table, report.accuracies))),
            page.section("Training operations and energy", "\n".join(map(_table, report.costs))),
            page.section("Data", _data(report.groups)),
            page.section("Figures of the runs", "\n".join(_figures(group) for group in report.groups)),
            page.section("Configuration", "\n".join(_configuration(group) for group in report.groups)),
            page.section("Constants of energy", _constants(report)),
            page.section("Provenance", "\n".join(_provenance(group) for group in report.groups)),
            page.section("Left out", page.table([(one.path.name, one.reason) for one in report.left_out])),
        ],
    )


def _in_short(report: LsmReport) -> str:
    """What a reader must know before any number."""
    lines = [
        "Two protocols are kept apart: <strong>honest</strong> chooses on training data, <strong>paper</strong> on "
        "test data, as published."
    ]
    synthetic = sorted({group.first.dataset for group in report.groups if group.first.is_synthetic})
    if synthetic:
        names = escape(", ".join(synthetic))
        lines.append(
            f"<strong>Synthetic data</strong> (events from a model, not from a recording): {names}. "
            "Such results do not compare with published figures of recordings."
        )
    few = [group.title for group in report.groups if len(group.runs) < 3 and not group.first.is_comparison]
    if few:
        lines.append(f"Fewer than 3 seeds: {escape('; '.join(few))}.")
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="verdict complete">{paragraphs}</div>'


def _table(table: Table) -> str:
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    content = f"{_numbers(page.table(table.texts(), table.heads))}\n{note}"
    if table.folded:
        return f"<details><summary>{escape(table.title)}</summary>{content}</details>"
    return f"<h3>{escape(table.title)}</h3>\n{content}"


def _numbers(table: str) -> str:
    """A table of short entries, which are not broken within a word."""
    return f'<div class="numbers">{table}</div>'


def _drawn(report: LsmReport) -> str:
    if find_spec("matplotlib") is None:
        return _NO_FIGURES
    return "\n".join(
        page.figure(name, page.data_uri("image/svg+xml", style.svg(made)), figures.CAPTIONS[name])
        for name, made in figures.draw(report.groups).items()
    )


def _data(groups: Sequence[Group]) -> str:
    rows = {
        (
            part["dataset"],
            "synthetic" if part.get("data_synthetic", True) else "recorded",
            f"{part['n_train']:,} / {part['n_test']:,}",
            part["data_source"],
            part.get("data_note", ""),
        ): None
        for group in groups
        for part in group.first.data_parts
    }
    return _numbers(page.table(rows, ("data set", "kind", "train / test", "from", "note")))


def _figures(group: Group) -> str:
    """Of the first seed; those of the others are in their run files."""
    run = group.first
    if not run.figures:
        return ""
    with open_run(run.path) as reader:
        blocks = [
            page.figure(
                f"group{group.number}_{name}", page.data_uri("image/png", reader.figure(name)), name.replace("_", " ")
            )
            for name in run.figures
        ]
    summary = f"{escape(group.title)}: seed {run.draw}"
    return f"<details><summary>{summary}</summary>{''.join(blocks)}</details>"


def _configuration(group: Group) -> str:
    apart = page.table([(name, _value(value)) for name, value in group.apart.items()], ("differs", "here"))
    return (
        f"<details><summary>{escape(f'Group {group.number}: {group.title}')}</summary>{apart}"
        f"{page.unfolded(group.first.config)}<h3>Backend</h3>{page.unfolded(group.first.backend)}</details>"
    )


def _constants(report: LsmReport) -> str:
    rows = [
        (row.key, f"{row.value:g} {row.unit}".strip(), row.text, row.source) for row in setting_rows(report.technology)
    ]
    return page.table(rows, ("energy.", "value", "what", "source"))


def _provenance(group: Group) -> str:
    rows = [
        (run.run_id, run.draw, page.utc(run.started_unix_s), run.calibration or "none", _chip(run), _software(run))
        for run in group.runs
    ]
    heads = ("run", "seed", "started", "calibration", "array", "software")
    return f"<details><summary>{escape(group.title)}</summary>{page.table(rows, heads)}</details>"


def _chip(run: LsmRun) -> str:
    """Who answered, as far as a table can say it; the whole identity is under Configuration."""
    single = {key: value for key, value in run.backend.items() if not isinstance(value, dict | list)}
    return ", ".join(f"{key} {value}" for key, value in single.items())


def _software(run: LsmRun) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.software.items())


def _value(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
