"""Drift watch: a few points measured again, and whether the calibration still says what they are.

The board has the calibration applied. Some rows of every channel are driven alone, once with all columns open and once
with few: with many columns open most of a row's voltage may be lost in its mux, with few almost none is. What both lose
alike comes from the cells, what only the first loses from the resistance in front of the row. All rows, some at a time,
show the gains of the columns, and all rows at a read voltage of zero their offsets.

Each deviation is held against what chance explains and against the drift that is allowed, both together as one sigma.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration import drift
from calibration.drift import Deviation, Driven, Known
from calibration.validate import check_applied
from hil.backend import CrossbarBackend
from hil.calibration_file import PARTS, Calibration
from hil.errors import ConfigError
from hil.progress import Progress, no_progress
from hil.tile import Tile
from hil.wiring import Wiring

Matrix = NDArray[np.float64]
Lines = NDArray[np.intp]

#: parts without which there is nothing to check
NEEDED = ("zero", "line", "noise", "array")
#: names that a result spells out
_NAMED = 8


@dataclass(frozen=True)
class CheckOptions:
    """How much is measured, and how much drift is allowed (one sigma, added to what chance explains).

    Attributes:
        n_rows: rows driven alone with all columns open, spread over the channels.
        n_rows_few: the same with few columns open, which takes little time.
        n_together: rows driven at a time where all rows take part.
        n_passes: over all of these.
        n_few: columns that are open in the second set.
        n_idle: multiplications at a read voltage of zero.
        z_limit: deviation, in sigmas, from which something has drifted; several hundred are looked at.
        offset_v: allowed drift of a column's offset.
        gain: of a column's gain, relative.
        channel: of what a drive channel gives its rows, relative.
        conductance: of all cells in common, relative.
        r_on_ohm: of the resistance in front of all rows in common.
        noise: of read noise and converter noise, relative.
    """

    n_rows: int = 64
    n_rows_few: int = 256
    n_together: int = 8
    n_passes: int = 4
    n_few: int = 16
    n_idle: int = 16
    z_limit: float = 5.0
    offset_v: float = 0.05e-3
    gain: float = 0.05e-2
    channel: float = 0.05e-2
    conductance: float = 0.12e-2
    r_on_ohm: float = 1.0
    noise: float = 0.08

    def __post_init__(self) -> None:
        at_least = (("n_rows", 1), ("n_rows_few", 1), ("n_together", 1), ("n_passes", 2), ("n_few", 1), ("n_idle", 2))
        for name, least in at_least:
            if getattr(self, name) < least:
                raise ConfigError(f"{name} = {getattr(self, name)} is below {least}", fix=f"use {least} or more")


@dataclass(frozen=True)
class Watched:
    """Verdict on one quantity.

    Attributes:
        name: of the quantity.
        unit: of `worst`.
        holds: whether the calibration still says what it is.
        worst: deviation, measured minus calibrated, that is largest in sigmas.
        at: name of that line; empty where the quantity is one for all.
        z: that deviation in sigmas of chance and allowed drift together; None where there are no sigmas.
        n: how many were compared.
        n_outside: how many have drifted.
        outside: names of the first of them.
        redo: parts to measure again; empty where it holds.
    """

    name: str
    unit: str
    holds: bool
    worst: float
    at: str
    z: float | None
    n: int
    n_outside: int
    outside: tuple[str, ...]
    redo: tuple[str, ...]


@dataclass(frozen=True)
class CheckResult:
    """Outcome.

    Attributes:
        holds: whether everything does.
        watched: verdict on each quantity.
        redo: parts to measure again, in their order.
        calibration_id: what was checked.
        options, seed: how.
        board_time_s, wall_s: how long it took the board (None: it does not say), and altogether.
        measured_unix_s: when.
    """

    holds: bool
    watched: tuple[Watched, ...]
    redo: tuple[str, ...]
    calibration_id: str
    options: dict[str, Any]
    seed: int
    board_time_s: float | None
    wall_s: float
    measured_unix_s: float

    def as_mapping(self) -> dict[str, Any]:
        """As texts, numbers, lists and mappings."""
        return dataclasses.asdict(self)


def check(
    board: CrossbarBackend,
    calibration: Calibration,
    *,
    v_read_v: float,
    options: CheckOptions | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
    now_unix_s: Callable[[], float] = time.time,
) -> CheckResult:
    """Measure a few points again.

    Args:
        board: open session, with the calibration applied.
        calibration: with the parts of `NEEDED`.
        v_read_v: read voltage that it is for.
        options: how.
        seed: chooses the rows.
        progress: told on the way.
        now_unix_s: clock.

    Raises:
        CalibrationError: the calibration lacks a part, or none of its lines is left.
        ConfigError: another calibration is applied, or none.
    """
    options = options or CheckOptions()
    calibration.require(NEEDED)
    check_applied("board", board.info, calibration)
    started, board_time_s = time.perf_counter(), _board_time_s(board)
    known = Known.of(calibration, board.info.wiring or calibration.wiring, v_read_v)
    few = known.cols[np.unique(np.linspace(0, len(known.cols) - 1, min(options.n_few, len(known.cols))).astype(int))]
    alone, alone_few = (_some_rows(known, n, seed) for n in (options.n_rows, options.n_rows_few))
    together = _all_rows(known, options.n_together, seed)
    wanted = ((alone, known.cols), (together, known.cols), (alone_few, few))
    progress("check", 0, len(wanted) + 1)
    idle_a = _ask(board, known.rows, [known.rows] * options.n_idle, known.cols, 0.0)
    passes: list[Matrix] = []
    for number, (sets, cols) in enumerate(wanted):
        progress("check", number + 1, len(wanted) + 1)
        found = [_ask(board, known.rows, sets, cols, v_read_v) for _ in range(options.n_passes)]
        passes.append(np.array(found))
    spent_s = _board_time_s(board)
    all_open = Driven.of(known, alone, known.cols, passes[0])
    silent = _silent_rows(known, all_open)
    speaking = [np.setdiff1d(rows, silent) for rows in together]
    at_a_time = Driven.of(known, speaking, known.cols, passes[1], all_open.per_volt_s)
    few_open = Driven.of(known, alone_few, few, passes[2])
    watched = _verdicts(known, all_open, at_a_time, few_open, idle_a, options)
    progress("check", len(wanted) + 1, len(wanted) + 1)
    redo = {part for found in watched for part in found.redo}
    return CheckResult(
        holds=all(found.holds for found in watched),
        watched=tuple(watched),
        redo=tuple(part for part in PARTS if part in redo),
        calibration_id=calibration.calibration_id,
        options=dataclasses.asdict(options),
        seed=seed,
        board_time_s=None if board_time_s is None or spent_s is None else spent_s - board_time_s,
        wall_s=time.perf_counter() - started,
        measured_unix_s=now_unix_s(),
    )


def _ask(board: CrossbarBackend, rows: Lines, sets: Sequence[Lines], cols: Lines, v_read_v: float) -> Matrix:
    """Currents of sets of rows, shape (sets, cols)."""
    bits = np.array([np.isin(rows, members) for members in sets])
    return board.vmm(bits, Tile(rows=rows, plus_cols=cols), v_read_v).astype(np.float64)


def _board_time_s(board: CrossbarBackend) -> float | None:
    return board.telemetry().values.get("board_time_s")


def _some_rows(known: Known, n: int, seed: int) -> list[Lines]:
    """Rows by themselves, as many of each channel, n in all or a few more, drawn at random."""
    mixed = np.random.default_rng(seed).permutation(known.rows)
    channel = known.wiring.row_channel[mixed]
    each = -(-n // len(np.unique(channel)))
    chosen = np.sort(np.concatenate([mixed[channel == m][:each] for m in np.unique(channel)]))
    return [np.array([row]) for row in chosen]


def _all_rows(known: Known, n: int, seed: int) -> list[Lines]:
    """All rows in sets of n, or as many as there are at one mux position: one phase is enough for a set."""
    mixed = np.random.default_rng(seed).permutation(known.rows)
    position = known.wiring.row_position[mixed]
    return [
        np.sort(part)
        for p in np.unique(position)
        for part in np.array_split(mixed[position == p], -(-int((position == p).sum()) // n))
    ]


def _verdicts(
    known: Known, all_open: Driven, together: Driven, few_open: Driven, idle_a: Matrix, options: CheckOptions
) -> list[Watched]:
    parts, wiring = known.calibration.parts, known.wiring
    column_names = [_column_name(wiring, c) for c in known.cols]
    rows = drift.rows_alone(all_open, few_open)
    of_level = "dac" if "dac" in parts else "zero"
    blamed = tuple(of_level if is_level else "line" for is_level in rows.is_level)
    # name, unit, deviation, allowed drift, names of the lines, parts to blame: one, or one for each line
    table: tuple[tuple[str, str, Deviation, float, Sequence[str], str | tuple[str, ...]], ...] = (
        ("column offset", "V", drift.column_offsets(known, all_open, idle_a), options.offset_v, column_names, "zero"),
        (
            "column gain", "1", drift.column_gains(together), options.gain, column_names,
            "tia" if "tia" in parts else "array",
        ),
        ("drive channel", "1", rows.channels, options.channel, wiring.channel_names, blamed),
        ("resistance in front of rows", "ohm", rows.front, options.r_on_ohm, (), "line"),
        ("conductance of all cells", "1", rows.cells, options.conductance, (), "array"),
        ("read noise", "1", drift.read_noise(all_open), options.noise, (), "noise"),
        (
            "converter noise", "1", drift.converter_noise(known, all_open, idle_a), options.noise,
            wiring.converter_names, "noise",
        ),
    )  # fmt: skip
    return [_dead_lines(known, all_open, together), *(_verdict(*row, options.z_limit) for row in table)]


def _verdict(
    name: str,
    unit: str,
    deviation: Deviation,
    allowed: float,
    names: Sequence[str],
    blame: str | tuple[str, ...],
    z_limit: float,
) -> Watched:
    compared = np.isfinite(deviation.sigma)
    z = np.where(compared, deviation.value / np.hypot(np.where(compared, deviation.sigma, 0.0), allowed), 0.0)
    worst = int(np.abs(z).argmax())
    outside = np.flatnonzero(np.abs(z) > z_limit)
    return Watched(
        name=name,
        unit=unit,
        holds=not len(outside),
        worst=float(deviation.value[worst]),
        at=names[worst] if names else "",
        z=float(z[worst]) if compared.any() else None,
        n=int(compared.sum()),
        n_outside=len(outside),
        outside=tuple(names[k] for k in outside[:_NAMED]) if names else (),
        redo=tuple(sorted({blame if isinstance(blame, str) else blame[k] for k in outside})),
    )


def _silent_rows(known: Known, all_open: Driven) -> Lines:
    """Rows that carry next to nothing; all of a channel if all do that were driven."""
    looked_at = np.concatenate(all_open.sets)
    silent = looked_at[all_open.silent_sets]
    of_channel = known.wiring.row_channel
    speaks = np.isin(of_channel, of_channel[np.setdiff1d(looked_at, silent)])
    of_silent_channel = np.isin(of_channel, of_channel[silent]) & ~speaks
    return np.union1d(silent, known.rows[of_silent_channel[known.rows]])


def _dead_lines(known: Known, all_open: Driven, together: Driven) -> Watched:
    """Rows and columns that carried current and do not any more."""
    calibration, wiring = known.calibration, known.wiring
    names = _row_names(wiring, np.flatnonzero(calibration.row_ok & ~wiring.row_ok), np.flatnonzero(calibration.row_ok))
    names += [_column_name(wiring, c) for c in np.flatnonzero(calibration.col_ok & ~wiring.col_ok)]
    names += _row_names(wiring, _silent_rows(known, all_open), known.rows)
    for k in drift.incomplete_sets(together):
        names.append(f"one of the rows {', '.join(map(str, together.sets[k]))}")
    names += [_column_name(wiring, c) for c in all_open.silent_cols]
    return Watched(
        name="lines that carry current",
        unit="1",
        holds=not names,
        worst=-float(len(names)),
        at=names[0] if names else "",
        z=None,
        n=len(known.rows) + len(known.cols),
        n_outside=len(names),
        outside=tuple(names[:_NAMED]),
        redo=("zero",) if names else (),
    )


def _row_names(wiring: Wiring, dead: Lines, among: Lines) -> list[str]:
    """Rows by number, or the name of their channel where all of its rows are dead."""
    names: list[str] = []
    for m in np.unique(wiring.row_channel[dead]):
        own = dead[wiring.row_channel[dead] == m]
        all_of_it = len(own) == (wiring.row_channel[among] == m).sum()
        names += [wiring.channel_names[m]] if all_of_it else [f"row {r}" for r in own]
    return names


def _column_name(wiring: Wiring, col: int) -> str:
    return f"column {col} ({wiring.converter_names[wiring.col_converter[col]]})"
