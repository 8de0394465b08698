"""`hil calibrate`: measure what a board and its chip are like, and see whether it is true.

One driver serves every part: it looks at what is there, opens the board and the instruments, measures, and says what
was found and where it is.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.calibration_file import PARTS, BoardIdentity, Calibration
from hil.cli import calibration_validate
from hil.cli.calibration_board import (
    Board,
    BoardOption,
    FileOption,
    echo_paths,
    make_board,
    uncalibrated_settings,
    write_report_beside,
)
from hil.cli.calibration_note import NOT_VALIDATED
from hil.cli.errors import reports_errors
from hil.cli.options import (
    ChipSeedOption,
    ConfigOption,
    InstrumentOption,
    JsonOption,
    OutOption,
    SeedOption,
    SetOption,
)
from hil.cli.terminal import print_json, print_table, progress_bars
from hil.errors import ConfigError
from hil.instruments import Instrument, instrument_specs

app = typer.Typer(
    help="Calibrate a board: the simulator then answers as its chip does.", no_args_is_help=True, rich_markup_mode=None
)

#: findings that are printed after measuring
_FINDINGS_MAX = 20
#: what an instrument of the bench twin is called
TWIN = "twin"
#: role of the power supply, which feeds the DACs while the others measure
SUPPLY = "psu"

PadRowOption = Annotated[
    int | None,
    typer.Option("--pad-row", help="Bit line whose test pad the instruments are on.", metavar="N", min=0),
]
AgainOption = Annotated[bool, typer.Option("--again", help="Measure again what is in the file.")]
RegionOption = Annotated[
    str | None, typer.Option("--region", help="Cells that may be worn: ROWS,COLS as in 0:8,0:8.", metavar="REGION")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before cells are changed.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be measured; then end.")]


@dataclass(frozen=True)
class Verb:
    """One command that measures.

    Attributes:
        name: of the command.
        help: what it does; the first line stands in lists.
        examples: commands that work, one after the other.
    """

    name: str
    help: str
    examples: tuple[str, ...]


VERBS: tuple[Verb, ...] = (
    Verb(
        "all",
        """Measure all parts but gate, in their order; go on where it was interrupted.

        Parts that are in the calibration file are left alone, unless they are too old (calibration.max_age_days) or
        --again is given.""",
        ("hil calibrate all --chip-seed 7", "hil calibrate all --chip-seed 7 --dry-run --json"),
    ),
    Verb(
        "zero",
        """Measure offsets of drive channels and columns, and find dead lines.""",
        ("hil calibrate zero",),
    ),
    Verb(
        "dac",
        """Measure what each drive channel gives: by multimeter, or by the board's own converters. Needs zero.""",
        ("hil calibrate zero", "hil calibrate dac --instrument dmm=twin"),
    ),
    Verb(
        "tia",
        """Measure the current per converter step of each column, by source-measure unit. Needs zero.

        Without the instrument the constants of the data sheets are noted, with their uncertainty.""",
        ("hil calibrate zero", "hil calibrate tia --instrument smu=twin --pad-row 2"),
    ),
    Verb(
        "line",
        """Measure resistances of muxes and wires, and settling. Needs zero, dac, tia.""",
        ("hil calibrate zero", "hil calibrate dac", "hil calibrate tia", "hil calibrate line"),
    ),
    Verb(
        "noise",
        """Measure read noise: white, 1/f and telegraph. Needs zero.""",
        ("hil calibrate zero", "hil calibrate noise --json"),
    ),
    Verb(
        "array",
        """Measure the conductance of every cell, and the statistics of forming. Needs all parts before it.""",
        ("hil calibrate all --chip-seed 7", "hil calibrate array --chip-seed 7 --again"),
    ),
    Verb(
        "gate",
        """Measure the conductance that a SET leaves at each gate voltage. Wears the cells of --region and drops
        part array, which then has to be measured again. Needs zero.""",
        ("hil calibrate all --chip-seed 7", "hil calibrate gate --chip-seed 7 --region 0:4,0:4 --yes"),
    ),
)


@app.callback()
def calibrate_commands() -> None:
    """Calibrate a board: the simulator then answers as its chip does."""


@dataclass(frozen=True)
class _Asked:
    """What the command line said; None where it said nothing."""

    verb: str
    backend: str
    chip_seed: int | None
    seed: int
    file: Path | None
    instruments: dict[str, str]
    pad_row: int | None
    again: bool
    region: str | None
    config: Path | None
    overrides: list[str]
    out: Path


def _add(verb: Verb) -> None:
    """Make the command of a verb; only `gate` takes cells."""

    def command(
        backend: BoardOption = "emulator",
        chip_seed: ChipSeedOption = None,
        seed: SeedOption = 0,
        calibration: FileOption = None,
        instrument: InstrumentOption = None,
        pad_row: PadRowOption = None,
        again: AgainOption = False,
        region: RegionOption = None,
        yes: YesOption = False,
        dry_run: DryRunOption = False,
        config: ConfigOption = None,
        overrides: SetOption = None,
        out: OutOption = Path("runs"),
        as_json: JsonOption = False,
    ) -> None:
        specs = instrument_specs(instrument or ())
        asked = _Asked(
            verb.name,
            backend,
            chip_seed,
            seed,
            calibration,
            specs,
            pad_row,
            again,
            region,
            config,
            overrides or [],
            out,
        )
        _measure(asked, yes=yes, dry_run=dry_run, as_json=as_json)

    command.__doc__ = verb.help
    if verb.name != "gate":
        _drop_options(command, "region", "yes")
    lines = "\n".join(f"  {example}" for example in verb.examples)
    app.command(verb.name, epilog=f"\b\nExamples:\n{lines}")(reports_errors(command))


def _drop_options(command: Callable[..., None], *names: str) -> None:
    """Let a command have no such options: it then gets the defaults."""
    found = inspect.signature(command, eval_str=True)
    kept = [parameter for parameter in found.parameters.values() if parameter.name not in names]
    command.__signature__ = found.replace(parameters=kept)  # type: ignore[attr-defined]


for _verb in VERBS:
    _add(_verb)


# Measuring


def _measure(asked: _Asked, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Any part: look, ask, measure, report."""
    from calibration.run import ALL, Wishes
    from experiments.array.region import region_mask
    from experiments.calibration.run import Job
    from hil.cli.settings import load_settings

    settings = load_settings(asked.config, asked.overrides)
    pad_row, settings = _pad(asked, settings)
    chip_seed = asked.seed if asked.chip_seed is None else asked.chip_seed
    board = make_board(asked.backend, uncalibrated_settings(settings, tolerate_faults=True), chip_seed)
    info = board.backend.info
    if asked.verb == "gate" and asked.region is None:
        raise ConfigError("hil calibrate gate wears cells, and none were chosen", fix="choose some: --region ROWS,COLS")
    mask = None if asked.region is None else region_mask(asked.region, info.shape)
    job = Job(
        wanted=ALL if asked.verb == "all" else (asked.verb,),
        everything=asked.verb == "all",
        again=asked.again,
        file=board.file(asked.file or settings.calibration.file, asked.out),
        v_read_v=settings.lsm.v_read_v,
        seed=asked.seed,
        limits=board.limits,
        wishes=Wishes(pad_row=pad_row, gate_cells=mask),
        allow=settings.calibration.allow,
        max_age_days=settings.calibration.max_age_days,
    )
    known = job.known(info)
    names = job.to_do(known)
    if dry_run:
        _show_plan(asked, board, job, known, names, as_json)
        return
    if not names:
        assert known is not None
        _show_nothing_to_do(asked, job.file, known, as_json)
        return
    if "gate" in names and not yes:
        _ask(board, int(mask.sum()) if mask is not None else 0)
    started = time.perf_counter()
    result = _run(asked, board, job, chip_seed)
    result["wall_s"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
    else:
        _show(f"hil calibrate {asked.verb}", result)


def _pad(asked: _Asked, settings: Any) -> tuple[int | None, Any]:
    """Bit line that the instruments are on; an emulated one is put where it was asked for.

    Raises:
        ConfigError: a source-measure unit is on a bit line that nobody named.
    """
    if TWIN in asked.instruments.values():
        row = settings.emulator.smu_row if asked.pad_row is None else asked.pad_row
        return row, settings.model_copy(update={"emulator": settings.emulator.model_copy(update={"smu_row": row})})
    if "smu" in asked.instruments and asked.pad_row is None:
        raise ConfigError(
            f"nobody said which bit line the source-measure unit {asked.instruments['smu']} is on",
            fix="add --pad-row N, the row whose test pad its high terminal is on",
        )
    return asked.pad_row, settings


def _ask(board: Board, n_cells: int) -> None:
    """Let a person confirm what cannot be taken back.

    Raises:
        ConfigError: there is nobody to ask, or the answer is no.
    """
    what = f"{n_cells} cells of {board.name} ({BoardIdentity.of(board.backend.info).serial})"
    if not sys.stdin.isatty():
        raise ConfigError(
            f"hil calibrate gate would wear {what}, and nobody is there to ask",
            fix="add --yes, or look with --dry-run",
        )
    typer.echo(f"RESET and SET pulses at rising gate voltages on {what}", err=True)
    if not typer.confirm("This cannot be taken back. Go on?", err=True):
        raise ConfigError("stopped before anything was applied", fix="answer y, or add --yes")


def _run(asked: _Asked, board: Board, job: Any, chip_seed: int) -> dict[str, Any]:
    from calibration.run import tables
    from experiments.calibration.quantities import summary
    from experiments.calibration.run import EXPERIMENT, execute, start

    settings, info = board.settings, board.backend.info
    config = {
        "verb": asked.verb,
        "file": str(job.file),
        "v_read_v": job.v_read_v,
        "instruments": asked.instruments,
        "pad_row": job.wishes.pad_row,
        "again": asked.again,
        "region": asked.region,
        "backend": {"name": asked.backend, "chip_seed": chip_seed},
        **{name: settings.model_dump(mode="json")[name] for name in ("board", "emulator", "sim", "calibration")},
    }
    run_file = start(asked.out, EXPERIMENT, board.backend, config, board.identity, asked.seed, tables(info.shape))
    try:
        with progress_bars() as progress:
            instruments = _Instruments(asked.instruments, board.backend)
            outcome = execute(job, board.backend, run_file, instruments.connect, progress, supply=instruments.supply)
    except BaseException:
        if run_file.path.exists():  # it is gone where nothing was done
            typer.echo(f"run file:         {run_file.path}", err=True)
        if job.file.exists():
            same = "hil calibrate all" if asked.again else "the same command"
            typer.echo(f"calibration file: {job.file}: {same} measures what is missing in it", err=True)
        raise
    report, note = write_report_beside(run_file.path)
    return {
        "experiment": f"calibrate {asked.verb}",
        "backend": asked.backend,
        "chip_seed": chip_seed,
        "seed": asked.seed,
        "measured": outcome.measured,
        **summary(outcome.calibration),
        "calibration_file": str(job.file),
        "run_file": str(run_file.path),
        "report": report,
        "note": outcome.note or note,
    }


class _Instruments:
    """Instruments of `--instrument`, opened when they are needed; they are off when the stack ends."""

    def __init__(self, specs: Mapping[str, str], backend: Any) -> None:
        self._resources = dict(specs)
        self._backend = backend
        self._twin: Any = None

    def connect(self, stack: ExitStack) -> dict[str, Instrument]:
        """Those that measure, by role."""
        return {role: self._open(stack, role) for role in self._resources if role != SUPPLY}

    @property
    def supply(self) -> Callable[[ExitStack], Any] | None:
        """Opens what feeds the DACs; None where the board has its own supply."""
        return (lambda stack: self._open(stack, SUPPLY)) if SUPPLY in self._resources else None

    def _open(self, stack: ExitStack, role: str) -> Any:
        resource = self._resources[role]
        try:
            from drivers.instruments import open_instrument

            if resource == TWIN:
                from firmware_bridge.emulator.twin import twin_for

                self._twin = self._twin or stack.enter_context(twin_for(self._backend))
                resource = self._twin.resources[role]
        except ImportError as error:
            raise ConfigError(
                f"instruments need a package that is not installed: {error.name}",
                fix='run: pip install "crossbar-hil[lab]"',
            ) from None
        return stack.enter_context(open_instrument(role, resource))


# Showing


def _show(title: str, result: Mapping[str, Any], n_findings: int = _FINDINGS_MAX) -> None:
    from experiments.calibration.quantities import HEADER, Line

    board = result["board"]
    rows = [
        Line(part, name, **numbers).texts()
        for part, content in result["parts"].items()
        for name, numbers in content["quantities"].items()
    ]
    print_table(f"{title}: board {board['serial']}, firmware {board['firmware']}", HEADER, rows)
    n_rows, n_cols = board["shape"]
    typer.echo()
    typer.echo(f"{result['rows_ok']} of {n_rows} rows and {result['cols_ok']} of {n_cols} columns work")
    findings = result["findings"]
    for text in findings[:n_findings]:
        typer.echo(f"  {text}")
    if more := len(findings[n_findings:]):
        typer.echo(f"  ... and {more} more findings: hil calibrate show {result['calibration_file']}")
    found = result["validation"]
    note = NOT_VALIDATED if found is None else found.get("text", "validated")
    typer.echo(f"calibration {result['calibration_id']}, {note}")
    echo_paths(result)


def _show_plan(
    asked: _Asked, board: Board, job: Any, known: Calibration | None, names: list[str], as_json: bool
) -> None:
    have = [] if known is None else list(known.parts)
    found = {
        "dry_run": True,
        "verb": asked.verb,
        "board": BoardIdentity.of(board.backend.info).serial,
        "calibration_file": str(job.file),
        "have": have,
        "to_measure": names,
        "v_read_v": job.v_read_v,
        "instruments": asked.instruments,
        "pad_row": job.wishes.pad_row,
        "n_cells_worn": 0 if "gate" not in names or job.wishes.gate_cells is None else int(job.wishes.gate_cells.sum()),
    }
    if as_json:
        print_json(found)
        return
    rows = [
        ("board", f"{found['board']} ({asked.backend})"),
        ("calibration file", f"{job.file}{'' if known is not None else ', new'}"),
        ("there already", ", ".join(have) or "nothing"),
        ("would be measured", ", ".join(names) or "nothing; --again measures it again"),
        ("read voltage", f"{job.v_read_v:g} V"),
        ("instruments", ", ".join(f"{role}: {name}" for role, name in asked.instruments.items()) or "none"),
        *([("bit line of their pad", str(job.wishes.pad_row))] if job.wishes.pad_row is not None else []),
        *([("cells that would be worn", f"{found['n_cells_worn']}")] if found["n_cells_worn"] else []),
    ]
    print_table(f"hil calibrate {asked.verb}: dry run, nothing was opened", ("what", "value"), rows)


def _show_nothing_to_do(asked: _Asked, file: Path, known: Calibration, as_json: bool) -> None:
    from experiments.calibration.quantities import summary

    result = {
        "experiment": f"calibrate {asked.verb}",
        "measured": [],
        **summary(known),
        "calibration_file": str(file),
        "run_file": None,
        "report": None,
        "note": "nothing was measured: all of it is there already; --again measures it again",
    }
    if as_json:
        print_json(result)
        return
    _show(f"hil calibrate {asked.verb}", result)


app.command("validate", epilog=calibration_validate.VALIDATE_EXAMPLES)(calibration_validate.validate)
app.command("check", epilog=calibration_validate.CHECK_EXAMPLES)(calibration_validate.check)


@app.command(
    "show",
    epilog="\b\nExamples:\n  hil calibrate show runs/calibrations/emulated-7.h5\n"
    "  hil calibrate show runs/calibrations/emulated-7.h5 --json",
)
@reports_errors
def show(
    file: Annotated[Path, typer.Argument(help="Calibration file.", metavar="FILE")], as_json: JsonOption = False
) -> None:
    """Show a calibration file: of which board, how old, what was measured how well, and whether it was validated."""
    from experiments.calibration.quantities import summary

    known = Calibration.load(file)
    now = time.time()
    ages = {name: (now - part.measured_unix_s) / 86400 for name, part in known.parts.items()}
    result = {
        **summary(known),
        "age_days": ages,
        "missing": [name for name in PARTS if name not in known.parts],
        "calibration_file": str(file),
    }
    if as_json:
        print_json(result)
        return
    _show("Calibration", result, len(result["findings"]))
    for name, part in known.parts.items():
        typer.echo(f"{name:<6} {ages[name]:6.2f} days old; {part.method}")
    if result["missing"]:
        typer.echo(f"not measured: {', '.join(result['missing'])}")


@app.command("report", epilog="\b\nExamples:\n  hil calibrate all --out runs\n  hil calibrate report last\n")
@reports_errors
def report(
    run: Annotated[str, typer.Argument(help="Run of hil calibrate, named as in hil runs show.", metavar="RUN")],
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Write the HTML report of a calibration run again, out of its run file."""
    from experiments.calibration.report import write_report
    from hil.catalogue import find_run

    path = write_report(find_run(run, out))
    if as_json:
        print_json({"report": str(path)})
    else:
        typer.echo(f"report: {path}")
