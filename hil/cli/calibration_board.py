"""What the commands of `hil calibrate` share: the board, its calibration file, and what is said at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.calibration_file import BoardIdentity, Calibration
from hil.errors import CalibrationError

BoardOption = Annotated[
    str,
    typer.Option("--backend", help="What is measured: emulator (default), board, or a daemon's URL.", metavar="NAME"),
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration", help="Calibration file; gone on with if it is there. Default: DIR/calibrations/BOARD.h5.",
        metavar="FILE",
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Board:
    """A backend that is not open yet, and what its session may do."""

    name: str
    backend: Any
    settings: Any
    limits: Any

    @property
    def identity(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.backend.info.name, **self.backend.info.identity}

    def file(self, asked: Path | None, out: Path) -> Path:
        """Calibration file of this board, unless another was named."""
        return asked or out / "calibrations" / f"{BoardIdentity.of(self.backend.info).serial}.h5"


def make_board(name: str, settings: Any, seed: int) -> Board:
    from hil.factory import create_backend
    from hil.session import tighten

    backend = create_backend(name, settings, seed=seed)
    return Board(name, backend, settings, tighten(backend.info.limits, settings.limits.over(backend.info.limits)))


def uncalibrated_settings(settings: Any, **board: Any) -> Any:
    """Settings with nothing applied to what the board reports."""
    return settings.model_copy(
        update={
            "calibration": settings.calibration.model_copy(update={"file": None}),
            "board": settings.board.model_copy(update=board),
        }
    )


def in_another_session(settings: Any) -> Any:
    """Settings by which an emulated board does not repeat the noise that it was calibrated with; others draw anew."""
    emulator = settings.emulator
    return settings.model_copy(
        update={"emulator": emulator.model_copy(update={"noise_session": emulator.noise_session + 1})}
    )


def known_calibration(
    backend: str, settings: Any, chip_seed: int, asked: Path | None, out: Path
) -> tuple[Path, Calibration]:
    """Calibration of a board and its file.

    Raises:
        CalibrationError: there is none, or it is damaged.
    """
    wanted = asked or settings.calibration.file
    file = make_board(backend, uncalibrated_settings(settings), chip_seed).file(wanted, out)
    if not file.exists():
        chip = f" --chip-seed {chip_seed}" if backend == "emulator" else ""
        raise CalibrationError(
            f"there is no calibration {file}",
            fix=f"make one: hil calibrate all{chip} --backend {backend}, or name one: --calibration FILE",
        )
    return file, Calibration.load(file)


def write_report_beside(path: Path) -> tuple[str | None, str | None]:
    """Report beside the run file, or why there is none; it never fails a run that is over."""
    from hil.session import describe

    try:
        from experiments.calibration.report import write_report

        return str(write_report(path)), None
    except Exception as error:
        return None, f"the run is complete, but its report is not: {describe(error)}"


def echo_paths(result: Mapping[str, Any]) -> None:
    """Below a table, which would break a path that is longer than the terminal is wide."""
    for key, what in (
        ("calibration_file", "calibration file"),
        ("run_file", "run file"),
        ("report", "report"),
        ("note", "note"),
    ):
        if result.get(key):
            typer.echo(f"{what + ':':<17} {result[key]}")
