"""`hil runs`: what was measured so far: find it, look at it, compare it, hand it on."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from hil.array_records import is_array_run
from hil.catalogue import STATES, find_run, is_being_written, open_catalogue
from hil.cli.errors import reports_errors
from hil.cli.extras import require_figures
from hil.cli.options import JsonOption, OutOption
from hil.cli.run_view import compare_lines, list_lines, show_lines
from hil.cli.terminal import print_json, progress_bars
from hil.errors import ConfigError
from hil.run_check import Finding, check_run
from hil.run_compare import DEFAULT_TOLERANCE_S, compare, flat
from hil.run_export import FORMATS, Format, export
from hil.run_tags import Label, change_label, read_labels
from hil.runfile import RunReader, open_run

app = typer.Typer(help="Runs so far: find, show, compare, export, check.", no_args_is_help=True, rich_markup_mode=None)

_RUN_HELP = "Id or a unique part of it, a tag, a path, or last."
RunArgument = Annotated[str, typer.Argument(help=_RUN_HELP, metavar="RUN")]

_RUNS = Path("runs")
_SINCE_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@app.callback()
def runs_commands() -> None:
    """Runs so far: find, show, compare, export, check."""


@app.command("list", epilog="\b\nExamples:\n  hil runs list\n  hil runs list --experiment form --since 7d --json")
@reports_errors
def list_runs(
    status: Annotated[str | None, typer.Option("--status", help=f"One of {', '.join(STATES)}.", metavar="S")] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Part of the experiment's name.", metavar="NAME")
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Runs with this tag.", metavar="TAG")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="Started after: 30m, 12h, 7d, 2w ago, or a date such as 2026-03-14 (UTC).",
                     metavar="WHEN"),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", help="The newest N only; 0: all.", metavar="N", min=0)] = 30,
    out: OutOption = _RUNS,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """List runs, newest first. Times are UTC."""
    if status is not None and status not in STATES:
        raise ConfigError(f"status {status!r} is unknown", fix=f"choose one of {', '.join(STATES)}")
    since_unix_s = None if since is None else parse_since(since, time.time())
    with progress_bars() as progress:
        catalogue = open_catalogue(out, progress)
    found = catalogue.select(status=status, experiment=experiment, tag=tag, since_unix_s=since_unix_s)
    shown = found[:limit] if limit else found
    if as_json:
        runs = [run.as_dict() for run in shown]
        print_json({"folder": str(out), "n_found": len(found), "runs": runs, "notes": list(catalogue.notes)})
        return
    for note in catalogue.notes:
        typer.echo(f"note: {note}", err=True)
    if not found:
        typer.echo(f"none of {len(catalogue.runs)} runs in {out} is meant" if catalogue.runs else f"no run in {out}")
        return
    for line in list_lines(shown):
        typer.echo(line)
    if len(shown) < len(found):
        typer.echo(f"{len(found) - len(shown)} older runs are not shown: --limit 0 shows all")


def parse_since(text: str, now_unix_s: float) -> float:
    """Moment in seconds since 1970: so long before now (`30m`, `12h`, `7d`, `2w`), or a date in ISO format.

    Raises:
        ConfigError: neither.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text)
    if ago:
        return now_unix_s - float(ago[1]) * _SINCE_S[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--since {text} is not a moment", fix="write 30m, 12h, 7d or 2w, or a date such as 2026-03-14T15:00"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


@app.command("show", epilog="\b\nExamples:\n  hil runs show last\n  hil runs show last --json")
@reports_errors
def show(run: RunArgument, out: OutOption = _RUNS, as_json: JsonOption = False) -> None:
    """Show one run: how it ended and how to go on, backend, settings, tables, results."""
    path = _path(run, out)
    with open_run(path) as reader:
        found = _shown(reader, _label(path, reader.run_id))
        if as_json:
            print_json(found)
        else:
            for line in show_lines(reader, found):
                typer.echo(line)


@app.command("plot", epilog="\b\nExamples:\n  hil runs plot last\n  hil runs plot last --json")
@reports_errors
def plot(
    run: RunArgument,
    report: Annotated[bool, typer.Option("--report", help="Write the HTML report of an array run, too.")] = False,
    out: OutOption = _RUNS,
    as_json: JsonOption = False,
) -> None:
    """Write all figures of a run, made from its data, into the folder of its name."""
    path = _path(run, out)
    with open_run(path) as reader:
        files = _figures(reader)
        if report:
            files.append(_report(reader))
    if not files:
        raise ConfigError(f"run {path} has no figure and nothing to draw", fix="hil runs show says what it holds")
    _print_files(files, as_json)


@app.command(
    "compare",
    epilog="\b\nExamples:\n  hil runs compare monday last\n  hil runs compare monday last --tolerance-s 2e-6 --json",
)
@reports_errors
def compare_runs(
    a: Annotated[str, typer.Argument(help="The run to compare with, named as in show.", metavar="A")],
    b: Annotated[str, typer.Argument(help="The run that is compared.", metavar="B")],
    tolerance_s: Annotated[
        float, typer.Option("--tolerance-s", help="A cell changed if it differs by more, in siemens.", metavar="S")
    ] = DEFAULT_TOLERANCE_S,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw the maps side by side into this PNG or SVG.", metavar="FILE")
    ] = None,
    out: OutOption = _RUNS,
    as_json: JsonOption = False,
) -> None:
    """Say how run B differs from run A: settings, backend, software, and each result by name."""
    paths = _path(a, out), _path(b, out)
    with open_run(paths[0]) as reader_a, open_run(paths[1]) as reader_b:
        found = compare(reader_a, reader_b, tolerance_s)
        if figure is not None:
            _draw_comparison(reader_a, reader_b, figure)
    if as_json:
        print_json(found.as_dict())
        return
    for line in compare_lines(found):
        typer.echo(line)
    if figure is not None:
        typer.echo(f"figure: {figure}")


@app.command(
    "export",
    epilog="\b\nExamples:\n  hil runs export last\n  hil runs export last --format netcdf --to shared --force --json",
)
@reports_errors
def export_run(
    run: RunArgument,
    file_format: Annotated[
        str, typer.Option("--format", help="csv, parquet, or netcdf (read by xarray).", metavar="FORMAT")
    ] = "csv",
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for the files; RUN/FORMAT if left out.", metavar="DIR")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    out: OutOption = _RUNS,
    as_json: JsonOption = False,
) -> None:
    """Write a run in a format that other programs read."""
    if file_format not in FORMATS:
        raise ConfigError(f"format {file_format!r} is unknown", fix=f"choose one of {', '.join(get_args(Format))}")
    path = _path(run, out)
    with open_run(path) as reader:
        folder = to or path.with_suffix("") / file_format
        _print_files(export(reader, file_format, folder, force=force), as_json)


@app.command("check", epilog="\b\nExamples:\n  hil runs check last\n  hil runs check --all --json")
@reports_errors
def check(
    run: Annotated[str | None, typer.Argument(help=_RUN_HELP, metavar="[RUN]")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Check every run in the folder.")] = False,
    out: OutOption = _RUNS,
    as_json: JsonOption = False,
) -> None:
    """Read all of a run file and see that its parts agree. Exit code 1 if something is wrong."""
    if everything == (run is not None):
        raise ConfigError("hil runs check takes a run, or --all", fix="name one run, such as last")
    with progress_bars() as progress:
        every = open_catalogue(out, progress).runs if everything else ()
        paths = [_path(run, out)] if run is not None else [found.path for found in every]
        findings: dict[Path, list[Finding]] = {}
        for done, path in enumerate(paths, 1):
            findings[path] = check_run(path)
            progress("checking runs", done, len(paths))
    wrong = [path for path, found in findings.items() if any(finding.level == "wrong" for finding in found)]
    if as_json:
        runs = [
            {"path": str(path), "ok": path not in wrong, "findings": [vars(finding) for finding in found]}
            for path, found in findings.items()
        ]
        print_json({"ok": not wrong, "runs": runs})
    else:
        for path, found in findings.items():
            typer.echo(f"{'WRONG' if path in wrong else 'ok'}  {path}")
            for finding in found:
                typer.echo(f"  {finding.level}: {finding.where}: {finding.what}")
        if everything:
            typer.echo(f"{len(paths)} runs checked, {len(wrong)} with something wrong")
    if wrong:
        raise typer.Exit(1)


@app.command(
    "tag",
    epilog='\b\nExamples:\n  hil runs tag last good chip-7\n  hil runs tag last --note "after the probe was cleaned"',
)
@reports_errors
def tag(
    run: RunArgument,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to add.", metavar="[TAG]...")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="Remove a tag; may be repeated.", metavar="TAG")
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help='Replace the note; "" removes it.', metavar="TEXT")] = None,
    out: OutOption = _RUNS,
    as_json: JsonOption = False,
) -> None:
    """Add or remove tags of a run, or replace its note; without any, say what it has."""
    path = _path(run, out)
    with open_run(path) as reader:
        run_id = reader.run_id
    if tags or remove or note is not None:
        label = change_label(path.parent, run_id, lambda label: label.changed(tags or (), remove or (), note))
    else:
        label = read_labels(path.parent).get(run_id, Label())
    if as_json:
        print_json({"id": run_id, "tags": list(label.tags), "note": label.note})
    else:
        typer.echo(f"{run_id}: {', '.join(label.tags) or 'no tags'}{f'; {label.note}' if label.note else ''}")


def _path(name: str, out: Path) -> Path:
    with progress_bars() as progress:
        return find_run(name, out, progress)


def _label(path: Path, run_id: str) -> Label:
    return read_labels(path.parent).get(run_id, Label())


def _print_files(files: list[Path], as_json: bool) -> None:
    if as_json:
        print_json({"files": [str(file) for file in files]})
        return
    for file in files:
        typer.echo(str(file))


def _shown(reader: RunReader, label: Label) -> dict[str, Any]:
    status = "running" if reader.status == "incomplete" and is_being_written(reader.path) else reader.status
    settings, n_default = _settings(reader.config)
    newest = [float(reader.table(name)["t_unix_s"][-1]) for name in reader.tables if reader.row_count(name)]
    return {
        "id": reader.run_id,
        "path": str(reader.path),
        "experiment": reader.experiment,
        "status": status,
        "cause": reader.cause,
        "resume": _resume(reader, status),
        "started_unix_s": reader.started_unix_s,
        "ended_unix_s": reader.ended_unix_s,
        "duration_s": (reader.ended_unix_s or max(newest, default=reader.started_unix_s)) - reader.started_unix_s,
        "backend": reader.backend,
        "calibration": reader.calibration,
        "seed": reader.seed,
        "software": reader.software,
        "config": reader.config,
        "settings": settings,
        "n_default": n_default,
        "tables": {
            name: {"rows": reader.row_count(name), "description": reader.table_spec(name).description}
            for name in reader.tables
        },
        "figures": list(reader.figures),
        "tags": list(label.tags),
        "note": label.note,
    }


def _resume(reader: RunReader, status: str) -> str:
    """Command that continues the run, "" where there is none."""
    if status in ("complete", "running") or not is_array_run(reader):
        return ""
    return f"hil array {reader.config.get('verb', 'VERB')} --resume {reader.path}"


def _settings(config: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Settings that are not at their defaults, or have none, and how many are; all of them without the simulator."""
    stated = dict(flat(config))
    try:
        from hil.cli.settings import RootSettings
    except ImportError:
        return stated, 0
    defaults = dict(flat(RootSettings().model_dump(mode="json")))
    unlike = {key: value for key, value in stated.items() if key not in defaults or defaults[key] != value}
    return unlike, len(stated) - len(unlike)


def _figures(reader: RunReader) -> list[Path]:
    from experiments.style import save_figures, write_aside

    folder = reader.path.with_suffix("")
    files = [write_aside(folder / f"{name}.png", reader.figure(name)) for name in reader.figures]
    if is_array_run(reader):
        require_figures()
        from experiments.array.figures import figures_of

        files += save_figures(figures_of(reader), folder)
    return files


def _report(reader: RunReader) -> Path:
    if not is_array_run(reader):
        raise ConfigError(f"run {reader.path} of {reader.experiment} has no report", fix="leave --report out")
    require_figures()
    from experiments.array.report import write_report

    return write_report(reader.path)


def _draw_comparison(a: RunReader, b: RunReader, file: Path) -> None:
    require_figures()
    from experiments.run_comparison import draw
    from experiments.style import png, svg, write_aside

    writers = {".png": png, ".svg": svg}
    if file.suffix not in writers:
        raise ConfigError(f"figure {file} is neither PNG nor SVG", fix="use a name that ends in .png or .svg")
    write_aside(file, writers[file.suffix](draw(a, b)))
