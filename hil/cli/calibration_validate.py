"""`hil calibrate validate` and `hil calibrate check`: is a calibration true, and does it still hold?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.calibration_file import Calibration
from hil.cli.calibration_board import (
    Board,
    BoardOption,
    FileOption,
    echo_paths,
    in_another_session,
    known_calibration,
    make_board,
    uncalibrated_settings,
    write_report_beside,
)
from hil.cli.errors import reports_errors
from hil.cli.options import ChipSeedOption, ConfigOption, JsonOption, OutOption, SeedOption, SetOption
from hil.cli.terminal import print_json, print_table, progress_bars
from hil.progress import Progress

#: test recordings whose row vectors are asked as they are
_RECORDINGS = 4
#: how often each recording is encoded, so that noise is known
_REPEATS = 4
SamplesOption = Annotated[
    int, typer.Option("--samples", help="Test recordings whose spike counts are compared.", metavar="N", min=1)
]
LsmOption = Annotated[bool, typer.Option("--lsm/--no-lsm", help="Compare spike counts of the network, too.")]

VALIDATE_EXAMPLES = (
    "\b\nExamples:\n  hil calibrate all --chip-seed 7\n  hil calibrate validate --chip-seed 7 --samples 8\n"
    "  hil calibrate validate --chip-seed 7 --no-lsm --json"
)


@reports_errors
def validate(
    backend: BoardOption = "emulator",
    chip_seed: ChipSeedOption = None,
    seed: SeedOption = 0,
    calibration: FileOption = None,
    samples: SamplesOption = 16,
    lsm: LsmOption = True,
    config: ConfigOption = None,
    overrides: SetOption = None,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Compare the board with its calibrated simulator on inputs that no fit has seen, and keep the outcome in the file.

    Currents first: random inputs, spike trains, and the corners of what a board can be asked. Then spike counts of the
    network on --samples test recordings, unless --no-lsm is given. A simulator with nominal constants and cells of its
    own is asked the same, for comparison. The exit code is 1 if a criterion is not met.
    """
    from experiments.calibration.verdicts import HEADER as VERDICT_HEADER
    from experiments.calibration.verdicts import SETS_HEADER, rows_of, set_rows
    from hil.cli.settings import load_settings

    started = time.perf_counter()
    settings = load_settings(config, overrides or [])
    compared = _compared(backend, settings, seed if chip_seed is None else chip_seed, calibration, out)
    with progress_bars() as progress:
        result = _validate(compared, settings, seed, samples if lsm else None, out, progress)
    result["wall_s"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
    else:
        print_table(
            f"hil calibrate validate: board {result['board']['serial']}, calibration {result['calibration_id']}",
            VERDICT_HEADER,
            rows_of(result["verdicts"]),
        )
        typer.echo()
        print_table("Errors over the board's repeat-read noise", SETS_HEADER, set_rows(result["sets"]))
        typer.echo("uncalibrated: a simulator with nominal constants and cells drawn by another seed")
        echo_paths(result)
    if not result["holds"]:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Compared:
    """A board with its calibration, and the simulators beside it; nothing is open yet."""

    board: Board
    simulator: Any
    uncalibrated: Any
    calibration: Calibration
    file: Path
    chip_seed: int


def _compared(backend: str, settings: Any, chip_seed: int, asked: Path | None, out: Path) -> _Compared:
    from hil.factory import create_backend

    file, known = known_calibration(backend, settings, chip_seed, asked, out)
    applied = settings.model_copy(update={"calibration": settings.calibration.model_copy(update={"file": file})})
    board = make_board(backend, in_another_session(applied), chip_seed)
    n_rows, n_cols = known.board.shape
    sim = settings.sim
    nominal = sim.model_copy(
        update={
            "rows": n_rows,
            "cols": n_cols,
            "chip": None,
            "mux": sim.mux.model_copy(update={"width": known.electrics["mux_width"]}),
        }
    )
    plain = uncalibrated_settings(settings).model_copy(update={"sim": nominal})
    # Other seeds: noise must be independent, and the simulator that knows nothing must not know the cells either.
    return _Compared(
        board=board,
        simulator=create_backend("sim", applied, seed=(chip_seed + 1) % 2**64),
        uncalibrated=create_backend("sim", plain, seed=(chip_seed + 2) % 2**64),
        calibration=known,
        file=file,
        chip_seed=chip_seed,
    )


def _validate(
    compared: _Compared, settings: Any, seed: int, n_samples: int | None, out: Path, progress: Progress
) -> dict[str, Any]:
    from experiments.calibration import validation
    from experiments.calibration.run import start
    from hil.session import open_session

    board, known = compared.board, compared.calibration
    config = {
        "file": str(compared.file),
        "n_samples": n_samples,
        "backend": {"name": board.name, "chip_seed": compared.chip_seed},
        **settings.model_dump(mode="json"),
    }
    run_file = start(out, validation.EXPERIMENT, board.backend, config, board.identity, seed)
    with run_file:
        with (
            open_session(compared.uncalibrated) as uncalibrated,
            open_session(compared.simulator) as simulator,
            open_session(board.backend, board.limits) as session,
        ):
            sides = validation.Sides(session, simulator, uncalibrated)
            network = None if n_samples is None else _Network.of(compared, settings, seed, progress)
            found = validation.currents(
                sides,
                known,
                settings.lsm.v_read_v,
                network=None if network is None else network.vectors(simulator),
                seed=seed,
                progress=progress,
            )
            lsm = None
            if network is not None and n_samples is not None:
                lsm = network.compare(sides, n_samples, out, seed, progress)
        outcome = validation.stored(found, lsm)
        known = validation.file_with(known, outcome, compared.file)
        figures, note = validation.figures(found)
        run_file.finish("complete", {"summary": outcome, **figures})
    report, failed = write_report_beside(run_file.path)
    return {
        "experiment": "calibrate validate",
        "backend": board.name,
        "chip_seed": compared.chip_seed,
        "seed": seed,
        **outcome,
        "calibration_file": str(compared.file),
        "run_file": str(run_file.path),
        "report": report,
        "note": note or failed,
    }


@dataclass(frozen=True)
class _Network:
    """The network that spike counts are compared with, its data, and the arrays that it is on."""

    settings: Any
    dataset: Any
    fault_map: Any
    array: Any

    @classmethod
    def of(cls, compared: _Compared, settings: Any, seed: int, progress: Progress) -> _Network:
        from hil.cli.lsm_run import Array, load_dataset

        fault_map = compared.calibration.fault_map()
        board = compared.board
        array = Array(board.name, board.backend, board.limits)
        return cls(settings, load_dataset(settings, [array], fault_map, seed, progress), fault_map, array)

    def vectors(self, simulator: Any) -> tuple[Any, Any]:
        """An encoder on the simulator, and some spikes for it."""
        from hil.lsm.encoder import LsmEncoder

        encoder = LsmEncoder(simulator, self.settings.lsm, self.dataset.n_inputs, self.fault_map)
        return encoder, self.dataset.test.words[:_RECORDINGS]

    def compare(self, sides: Any, n_samples: int, out: Path, seed: int, progress: Progress) -> dict[str, Any]:
        """Spike counts by board and simulator, in a run file of their own."""
        from experiments.lsm import side_by_side
        from hil.cli.lsm_run import few_threads, start_run

        settings = self.settings
        with few_threads(settings):
            tables = side_by_side.tables(settings.lsm.n_neurons)
            identity = {**self.array.identity, "against": dict(sides.simulator.info.identity)}
            run_file = start_run(out, "lsm-nmnist-compare", tables, settings, self.array, identity, seed)
            with run_file:
                outcome = side_by_side.run(
                    sides.board,
                    sides.simulator,
                    self.dataset,
                    settings,
                    run_file,
                    n_samples=min(n_samples, len(self.dataset.test)),
                    seed=seed,
                    repeats=_REPEATS,
                    fault_map=self.fault_map,
                    progress=progress,
                )
        return {**side_by_side.summary(outcome, self.dataset), "run_file": str(run_file.path)}


CHECK_EXAMPLES = (
    "\b\nExamples:\n  hil calibrate all --chip-seed 7\n  hil calibrate check --chip-seed 7\n"
    "  hil calibrate check --chip-seed 7 --json"
)


@reports_errors
def check(
    backend: BoardOption = "emulator",
    chip_seed: ChipSeedOption = None,
    seed: SeedOption = 0,
    calibration: FileOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Measure a few points again, in seconds, and say whether the calibration still holds.

    The exit code is 1 if it does not. A calibration that is too old may be checked, too.
    """
    from experiments.calibration.verdicts import WATCHED_HEADER, drifted, watched_rows
    from hil.cli.settings import load_settings

    settings = load_settings(config, overrides or [])
    with progress_bars() as progress:
        result = _check(backend, settings, seed, seed if chip_seed is None else chip_seed, calibration, out, progress)
    if as_json:
        print_json(result)
    else:
        print_table(
            f"hil calibrate check: board {result['board']}, calibration {result['calibration_id']}",
            WATCHED_HEADER,
            watched_rows(result["watched"]),
        )
        typer.echo(f"drifted: more than {result['options']['z_limit']:g} sigmas of chance and allowed drift together")
        for text in drifted(result["watched"]):
            typer.echo(f"  {text}")
        typer.echo(result["text"])
        echo_paths(result)
    if not result["holds"]:
        raise typer.Exit(1)


def _check(
    backend: str, settings: Any, seed: int, chip_seed: int, asked: Path | None, out: Path, progress: Progress
) -> dict[str, Any]:
    from calibration.check import check as measure_again
    from experiments.calibration.run import start
    from experiments.calibration.verdicts import check_text
    from hil.session import open_session

    file, known = known_calibration(backend, settings, chip_seed, asked, out)
    # How old it is does not matter to who asks whether it still holds, and what died since shall be named.
    applied = settings.calibration.model_copy(
        update={"file": file, "allow": tuple({*settings.calibration.allow, "stale"})}
    )
    tolerant = settings.board.model_copy(update={"tolerate_faults": True})
    looked_at = settings.model_copy(update={"calibration": applied, "board": tolerant})
    board = make_board(backend, in_another_session(looked_at), chip_seed)
    config = {
        "file": str(file),
        "backend": {"name": backend, "chip_seed": chip_seed},
        **settings.model_dump(mode="json"),
    }
    run_file = start(out, "calibrate-check", board.backend, config, board.identity, seed)
    with run_file:
        with open_session(board.backend, board.limits) as session:
            found = measure_again(session, known, v_read_v=settings.lsm.v_read_v, seed=seed, progress=progress)
        outcome = {**found.as_mapping(), "text": check_text(found)}
        run_file.finish("complete", {"summary": outcome})
    report, note = write_report_beside(run_file.path)
    return {
        "experiment": "calibrate check",
        "backend": backend,
        "board": known.board.serial,
        "chip_seed": chip_seed,
        **outcome,
        "calibration_file": str(file),
        "run_file": str(run_file.path),
        "report": report,
        "note": note,
    }
