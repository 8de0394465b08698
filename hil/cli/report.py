"""`hil report`: one page over many runs, beside the paper's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import ConfigOption, JsonOption, SetOption
from hil.cli.terminal import print_json, print_table

EPILOG = """\b
Examples:
  hil lsm nmnist
  hil report runs
  hil report runs --out nmnist.html --set energy.adc_bits=6
  hil report runs --json
"""

#: tables that a terminal has room for; the page has all
_SHOWN = ("supervised_honest", "supervised_paper", "zero_shot_honest", "zero_shot_paper")


@reports_errors
def report(
    runs: Annotated[
        list[str],
        typer.Argument(help="Run files, folders of them, or runs named as in hil runs show.", metavar="RUN..."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The page.", metavar="FILE")] = Path("report.html"),
    folder: Annotated[
        Path, typer.Option("--runs", help="Where runs that are named without a path are looked for.", metavar="DIR")
    ] = Path("runs"),
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put runs of hil lsm beside the paper: accuracies, training operations, energy, on one HTML page.

    Runs that differ in nothing but their seed are averaged. The honest and the paper protocol have tables of their own.
    Of a folder, what is no complete run of hil lsm is left out and listed; a run that is named must be one.

    Energies are counted with the constants of section `energy` of the settings.
    """
    require_sim()
    from experiments import lsm_report
    from hil.catalogue import find_run
    from hil.cli.settings import load_settings

    technology = load_settings(config, overrides).energy
    paths = [Path(name) if Path(name).is_dir() else find_run(name, folder) for name in runs]
    made = lsm_report.build(paths, technology)
    page = lsm_report.write_report(made, out)
    if as_json:
        print_json({"report": str(page), **made.as_json()})
        return
    for table in made.accuracies:
        if table.name in _SHOWN:
            print_table(table.title, table.heads, table.texts())
            typer.echo("")
    for one in made.left_out:
        typer.echo(f"left out: {one.path.name}: {one.reason}")
    typer.echo(f"report: {page}")
