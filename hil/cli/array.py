"""`hil array`: form, read, program and characterise whole arrays, on any backend.

One driver serves every verb: it looks at what would be done, asks, does it, and says where the data are.
"""

from __future__ import annotations

import inspect
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.cli import fit
from hil.cli.errors import reports_errors
from hil.cli.options import (
    CalibrationOption,
    ConfigOption,
    JsonOption,
    OutOption,
    SetOption,
    parse_seed,
    with_calibration,
)
from hil.cli.terminal import print_json, print_table, progress_bars
from hil.config import Settings, rows
from hil.errors import ConfigError
from hil.session import describe

log = logging.getLogger(__name__)

app = typer.Typer(help="Form, read, program and characterise arrays.", no_args_is_help=True, rich_markup_mode=None)

RegionOption = Annotated[
    str | None,
    typer.Option("--region", help="Cells: all, or ROWS,COLS as in 3,7 or 0:64,0:512. Default: all.", metavar="REGION"),
]
MaskOption = Annotated[
    Path | None,
    typer.Option("--mask", help="Only these: bool array (.npy), or the healthy cells of a fault map.", metavar="FILE"),
]
TargetOption = Annotated[
    Path | None,
    typer.Option(
        "--target", help="Conductances in siemens (.npy), shape of the array or of the region; NaN: leave alone.",
        metavar="FILE",
    ),
]  # fmt: skip
ResumeOption = Annotated[
    Path | None, typer.Option("--resume", help="Go on with this run that was cut off.", metavar="RUN.h5")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be applied, and the limits; then end.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before cells are changed.")]
ArrayBackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend", help="What answers: sim (default), emulator, board, null, or a daemon's URL.", metavar="NAME"
    ),
]
ArraySeedOption = Annotated[
    int | None, typer.Option("--seed", help="Draws the simulated chip. Default: 0.", parser=parse_seed, metavar="N")
]

#: sections of the configuration that a run on an array depends on
_SECTIONS = ("array", "board", "sim", "emulator", "calibration")


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        name: of the command, and of its section below `array`.
        help: what it does; the first line stands in lists.
        examples: commands that work.
    """

    name: str
    help: str
    examples: tuple[str, ...]


VERBS: tuple[Verb, ...] = (
    Verb(
        "read",
        """Read each cell once: a cell, rows, the whole array.

        Settings: array.read.* (voltage, averaging, correction of offsets and polarity).""",
        ("hil array read --region 0:8,0:8", "hil array read --region 3,7 --set array.read.correction=zero --json"),
    ),
    Verb(
        "form",
        """Form cells; those that are formed already are left alone.

        Settings: array.form.*; array.form.mode is uniform (one voltage, random weights), ramp (rising until formed) or
        sparsity (until a fraction is formed). Cells that do not form are in the mask and fault map of the run.""",
        (
            "hil array form --region 0:8,0:8 --yes",
            "hil array form --region 0:8,0:8 --set array.form.mode=ramp --dry-run",
        ),
    ),
    Verb(
        "set",
        """Apply SET pulses, and read each cell after every one.

        Settings: array.set.* (pulses, voltage, gate, width).""",
        ("hil array set --region 0:4,0:4 --set array.set.n_pulses=3 --yes",),
    ),
    Verb(
        "reset",
        """Apply RESET pulses, and read each cell after every one.

        Settings: array.reset.* (pulses, voltage, gate, width).""",
        ("hil array reset --region 0:4,0:4 --yes --json",),
    ),
    Verb(
        "program",
        """Bring each cell to its target conductance by write-verify.

        Settings: array.program.* (tolerance, budget of pulses per cell, law of the steps). Cells that do not get there
        are in the mask of the run; unformed cells are left alone.""",
        ("hil array program --target gradient.npy --region 0:8,0:8 --yes",),
    ),
    Verb(
        "iv",
        """Sweep the voltage of each cell: reads, or pulses with compliance.

        Settings: array.iv.*.""",
        ("hil array iv --region 0:2,0:4 --yes",),
    ),
    Verb(
        "noise",
        """Read chosen cells many times: noise power spectrum and telegraph noise.

        Settings: array.noise.*.""",
        ("hil array noise --region 0:4,0:4 --set array.noise.n_reads=300",),
    ),
    Verb(
        "retention",
        """Read cells at logarithmically spaced times.

        Settings: array.retention.*.""",
        ("hil array retention --region 0:4,0:4",),
    ),
    Verb(
        "endurance",
        """Cycle cells between SET and RESET, and follow their window.

        Settings: array.endurance.*.""",
        ("hil array endurance --region 0:2,0:2 --set array.endurance.n_cycles=10 --yes",),
    ),
    Verb(
        "disturb",
        """Find out what reads and half-selected pulses do to neighbours.

        Settings: array.disturb.*.""",
        ("hil array disturb --region 0:4,0:4 --dry-run",),
    ),
    Verb(
        "health",
        """Find unformed, stuck and noisy cells, and open and shorted lines: the fault map.

        Settings: array.health.*.""",
        ("hil array health --region 0:8,0:8",),
    ),
)


@app.callback()
def array_commands() -> None:
    """Form, read, program and characterise arrays."""


def _add(verb: Verb) -> None:
    """Make the command of a verb; only `program` takes a target."""

    def command(
        target: TargetOption = None,
        region: RegionOption = None,
        mask: MaskOption = None,
        resume: ResumeOption = None,
        dry_run: DryRunOption = False,
        yes: YesOption = False,
        backend: ArrayBackendOption = None,
        calibration: CalibrationOption = None,
        config: ConfigOption = None,
        overrides: SetOption = None,
        seed: ArraySeedOption = None,
        out: OutOption = Path("runs"),
        as_json: JsonOption = False,
    ) -> None:
        texts = with_calibration(overrides, calibration)
        asked = _Asked(verb.name, region, mask, target, resume, backend, config, texts, seed, out)
        _drive(asked, dry_run=dry_run, yes=yes, as_json=as_json)

    command.__doc__ = verb.help
    if verb.name != "program":
        _drop_option(command, "target")
    lines = "\n".join(f"  {example}" for example in verb.examples)
    app.command(verb.name, epilog=f"\b\nExamples:\n{lines}")(reports_errors(command))


def _drop_option(command: Callable[..., None], name: str) -> None:
    """Let a command have no such option: it then gets the default."""
    found = inspect.signature(command, eval_str=True)
    kept = [parameter for parameter in found.parameters.values() if parameter.name != name]
    command.__signature__ = found.replace(parameters=kept)  # type: ignore[attr-defined]


for _verb in VERBS:
    _add(_verb)
app.command("fit", epilog=fit.EXAMPLES)(fit.fit)


@dataclass(frozen=True)
class _Asked:
    """What the command line said; None where it said nothing."""

    verb: str
    region: str | None
    mask: Path | None
    target: Path | None
    resume: Path | None
    backend: str | None
    config: Path | None
    overrides: list[str]
    seed: int | None
    out: Path


@dataclass(frozen=True)
class _Prepared:
    """A job and the backend that is to do it; nothing is open yet."""

    job: Any
    backend: Any
    identity: dict[str, Any]
    name: str
    seed: int
    extra: dict[str, Any]

    @property
    def info(self) -> Any:
        return self.backend.info


def _drive(asked: _Asked, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Any verb: prepare, ask, run, report."""
    prepared = _prepare_resumed(asked, asked.resume) if asked.resume else _prepare_new(asked)
    plan = prepared.job.plan(prepared.info)
    if dry_run:
        _show_plan(asked.verb, prepared, plan, as_json)
        return
    if plan.pulses and not yes:
        _ask(asked.verb, prepared, plan)
    started = time.perf_counter()
    result = _run(asked, prepared)
    result["wall_s"] = round(time.perf_counter() - started, 2)
    _show_result(asked.verb, result, as_json)


def _prepare_new(asked: _Asked) -> _Prepared:
    """Make the job from options, and refuse what can be known to be wrong."""
    from experiments.array.procedures import no_target, procedure
    from experiments.array.record import Request
    from experiments.array.region import file_mask, region_mask, target_map
    from hil.cli.settings import load_settings

    settings = load_settings(asked.config, asked.overrides)
    name, seed = asked.backend or "sim", asked.seed or 0
    settings = _keep_cells(settings, name, seed, asked.out)
    backend = _create(name, settings, seed)
    shape = backend.info.shape
    mask = region_mask(asked.region or "all", shape)
    if asked.mask is not None:
        mask &= file_mask(asked.mask, shape)
    if not mask.any():
        raise ConfigError(f"--region {asked.region or 'all'} and --mask have no cell in common", fix="choose others")
    wanted = procedure(asked.verb)
    if wanted.has_target and asked.target is None:
        raise ConfigError(f"hil array {asked.verb} needs --target FILE", fix="save conductances with numpy.save")
    request = no_target(mask) if asked.target is None else Request(mask, target_map(asked.target, mask))
    extra = {
        "backend": {"name": name, "seed": seed},
        "region": asked.region or "all",
        "mask": None if asked.mask is None else str(asked.mask),
        "target": None if asked.target is None else str(asked.target),
        **{section: settings.model_dump(mode="json")[section] for section in _SECTIONS if section != "array"},
    }
    return _prepared(wanted, request, settings, backend, name, seed, extra)


def _prepare_resumed(asked: _Asked, path: Path) -> _Prepared:
    """Make the job from the run file; options may only repeat what it says."""
    from experiments.array.procedures import procedure
    from experiments.array.record import Request
    from experiments.array.run import check_resumable
    from hil.cli.settings import load_settings
    from hil.runfile import open_run

    with open_run(path) as reader:
        check_resumable(reader, asked.verb)
        config = reader.config
        given = load_settings(asked.config, asked.overrides)
        settings = _settings_of(reader)
        then: dict[str, Any] = {
            "--backend": config["backend"]["name"],
            "--seed": config["backend"]["seed"],
            "--region": config["region"],
            "--mask": config["mask"],
            "--target": config["target"],
            **{row.key: row.value for row in rows(settings)},
        }
        now: dict[str, Any] = {
            "--backend": asked.backend,
            "--seed": asked.seed,
            "--region": asked.region,
            "--mask": None if asked.mask is None else str(asked.mask),
            "--target": None if asked.target is None else str(asked.target),
            **dict(_given(given)),
        }
        for key, value in now.items():
            if isinstance(value, Path) and key in ("sim.chip", "calibration.file"):
                value = value.resolve()
            if value is not None and value != then[key]:
                raise ConfigError(
                    f"{path} began with {key} = {then[key]}, not {value}", fix="leave it out, or start a new run"
                )
        name, seed = config["backend"]["name"], config["backend"]["seed"]
        backend = _create(name, settings, seed)
        request = Request.from_run(reader, backend.info.shape)
    return _prepared(procedure(asked.verb), request, settings, backend, name, seed, {})


def _settings_of(reader: Any) -> Any:
    """Settings that a run began with.

    Raises:
        ConfigError: it was not begun by `hil array`, or by a version with other settings.
    """
    from hil.cli.settings import RootSettings

    config = reader.config
    try:
        return RootSettings.model_validate({name: config[name] for name in (*_SECTIONS, "limits") if name in config})
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{reader.path} cannot go on: its settings are not those of this version of the program",
            fix=f"use the version that began it, crossbar-hil {reader.software.get('crossbar-hil', 'unknown')}",
        ) from error


def _given(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings that the user stated, by dotted key."""
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _given(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _keep_cells(settings: Any, name: str, seed: int, out: Path) -> Any:
    """A simulated chip starts unformed and is kept in a file, unless the user said otherwise; a board knows neither.

    A chip that was calibrated is what the calibration says: neither unformed nor that of another file.
    """
    if settings.calibration.file is not None:
        # A resumed run may have another working folder.
        file = settings.calibration.file.resolve()
        return settings.model_copy(update={"calibration": settings.calibration.model_copy(update={"file": file})})
    sim = settings.sim
    changed: dict[str, Any] = {}
    if "chip" not in sim.model_fields_set:
        n_rows, n_cols = _chip_shape(settings, name)
        changed["chip"] = out.resolve() / "chips" / f"seed-{seed}-{n_rows}x{n_cols}.chip"
    elif sim.chip is not None:
        changed["chip"] = sim.chip.resolve()  # a resumed run may have another working folder
    if "formed" not in sim.forming.model_fields_set:
        changed["forming"] = sim.forming.model_copy(update={"formed": False})
    return settings.model_copy(update={"sim": sim.model_copy(update=changed)})


def _chip_shape(settings: Any, name: str) -> tuple[int, int]:
    if name != "emulator":
        return settings.sim.rows, settings.sim.cols
    from firmware_bridge.profile import load_profile

    profile = load_profile(settings.board.profile)
    return profile.rows, profile.cols


def _create(name: str, settings: Any, seed: int) -> Any:
    from hil.factory import create_backend

    return create_backend(name, settings, seed=seed)


def _prepared(
    procedure: Any, request: Any, settings: Any, backend: Any, name: str, seed: int, extra: dict[str, Any]
) -> _Prepared:
    from experiments.array.run import Job
    from hil.session import tighten

    info = backend.info
    limits = tighten(info.limits, settings.limits.over(info.limits))
    identity = {"name": name, "kind": info.name, **info.identity}
    return _Prepared(Job(procedure, request, settings.array, limits), backend, identity, name, seed, extra)


def _ask(verb: str, prepared: _Prepared, plan: Any) -> None:
    """Let a person confirm what cannot be taken back.

    Raises:
        ConfigError: there is nobody to ask, or the answer is no.
    """
    cells = f"{plan.n_cells} cells of {prepared.name} ({prepared.identity.get('chip') or prepared.info.name})"
    if not _is_somebody_there():
        raise ConfigError(
            f"hil array {verb} would change {cells}, and nobody is there to ask",
            fix="add --yes, or look with --dry-run",
        )
    typer.echo(f"{plan.text}: {cells}", err=True)
    for pulse in plan.pulses:
        typer.echo(f"  {_pulse_text(pulse)}", err=True)
    if not typer.confirm("This cannot be taken back. Go on?", err=True):
        raise ConfigError("stopped before anything was applied", fix="answer y, or add --yes")


def _is_somebody_there() -> bool:
    return sys.stdin.isatty()


def _run(asked: _Asked, prepared: _Prepared) -> dict[str, Any]:
    from experiments.array.run import execute, resume, start

    job, info = prepared.job, prepared.info
    history = None
    if asked.resume is not None:
        run_file, history = resume(asked.resume, job, info, prepared.identity)
    else:
        run_file = start(asked.out, job, info, prepared.identity, prepared.seed, prepared.extra)
    try:
        with progress_bars() as progress:
            outcome, telemetry = execute(job, prepared.backend, run_file, history, progress)
    except BaseException:
        if run_file.path.exists():  # it is gone where nothing was done
            path = shlex.quote(str(run_file.path))
            typer.echo(f"run file: {run_file.path}\nto go on:  hil array {asked.verb} --resume {path}", err=True)
        raise
    figures, report, note = _pictures(run_file.path)
    return {
        "experiment": f"array {asked.verb}",
        "backend": prepared.name,
        "seed": prepared.seed,
        "calibration": info.calibration_id,
        "chip_file": prepared.identity.get("chip_file"),
        "resumed": history is not None,
        **outcome.summary,
        **({"board_time_s": telemetry["board_time_s"]} if "board_time_s" in telemetry else {}),
        "run_file": str(run_file.path),
        "figures": figures,
        "report": report,
        "note": note,
    }


def _pictures(path: Path) -> tuple[list[str], str | None, str | None]:
    """Figures and report beside the run file; what they need, or why there are none, never fails a run that is over."""
    try:
        from experiments.array.figures import figures_of
        from experiments.array.report import write_report
        from experiments.style import save_figures
        from hil.runfile import open_run

        with open_run(path) as reader:
            figures = save_figures(figures_of(reader), path.with_suffix(""))
        return [str(file) for file in figures], str(write_report(path, figures)), None
    except ImportError as error:
        return [], None, f"no figures without the package {error.name!r}; hil runs plot makes them on another machine"
    except Exception as error:
        log.debug("figures of %s", path, exc_info=True)
        return [], None, f"the run is complete, but its figures are not: {describe(error)}"


def _pulse_text(pulse: Any) -> str:
    return (
        f"{pulse.kind}: at most {pulse.per_cell} per cell, {pulse.voltage_v:g} V, gate {pulse.v_gate_v:g} V, "
        f"{pulse.width_s:g} s"
    )


def _show_plan(verb: str, prepared: _Prepared, plan: Any, as_json: bool) -> None:
    limits = asdict(prepared.job.limits)
    if as_json:
        shown = {key: value for key, value in asdict(plan).items() if key != "pulses"}
        pulses = [asdict(pulse) for pulse in plan.pulses]
        identity = {key: value for key, value in prepared.identity.items() if not isinstance(value, dict)}
        print_json({"dry_run": True, "verb": verb, **shown, "pulses": pulses, "limits": limits, "backend": identity})
        return
    table = [
        ("what", plan.text),
        ("cells", f"{plan.n_cells}"),
        *(("pulses", _pulse_text(pulse)) for pulse in plan.pulses),
        ("reads", f"at most {plan.reads_per_cell} per cell"),
        *([("read voltage", ", ".join(f"{v:g} V" for v in plan.v_read_v))] if plan.v_read_v else []),
        *([("waits", f"{plan.wait_s:g} s")] if plan.wait_s else []),
        ("primitives", f"about {plan.primitives}"),
        *((f"limit {key}", f"{value:g}") for key, value in limits.items()),
        ("backend", f"{prepared.name}, {prepared.identity.get('chip') or prepared.info.name}"),
        ("chip file", str(prepared.identity.get("chip_file") or "none")),
    ]
    print_table(f"hil array {verb}: dry run, nothing was applied", ("what", "value"), table)


def _show_result(verb: str, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
        return
    from experiments.array.units import label_of, shown

    paths = ("run_file", "figures", "report", "note", "chip_file", "experiment")
    table = [
        (label_of(key), shown(key, value)) for key, value in result.items() if key not in paths and value is not None
    ]
    print_table(f"hil array {verb}", ("what", "value"), table)
    # Outside the table, which would break a path that is longer than the terminal is wide.
    for key, what in (("run_file", "run file"), ("report", "report"), ("chip_file", "chip file"), ("note", "note")):
        if result[key]:
            typer.echo(f"{what + ':':<10} {result[key]}")
    for path in result["figures"]:
        if path.endswith(".png"):
            typer.echo(f"{'figure:':<10} {path}")
