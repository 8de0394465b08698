"""Resistances between a cell and its drive or its virtual ground: muxes, bit lines, source lines.

Every cell is measured twice with its row driven alone: once with many columns open, which load the row, and once with
few. Both must come from the same conductance; what it takes to make them so is the on-resistance of the row's mux and
the resistance of the bit line. Then many rows are driven in one phase: what is missing from the sum of their currents
was lost on the source lines.

A comb of columns, evenly spread, is enough; the network with all its back ways is computed exactly at every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calibration.alone import RowsAlone, corrected_a, drive_v, holds_others, measure_rows_alone
from calibration.constants import converter_range_a
from calibration.network import OpenColumns, Resistances, by_ladder_s, missing_s
from calibration.procedure import CalibrationBench
from hil.calibration_file import Part, Quantity
from hil.tile import Tile

Matrix = NDArray[np.float64]
Lines = NDArray[np.intp]

#: share of the converters' range that the sum of many rows may fill
_FILL = 0.6
#: cells below this share of the median conductance are left out of the fits
_CONDUCTS = 0.2


@dataclass(frozen=True)
class LineOptions:
    """What to measure.

    Attributes:
        n_columns: columns of the comb.
        n_blocks: parts of the comb that are measured by themselves.
        n_passes: over the rows, of the comb and of each block.
        n_together: random sets of rows that are driven in one phase.
        n_repeats: of each set.
        n_steps: of the fit.
        start_r_on_ohm, start_row_ohm, start_col_ohm: where the fit starts.
    """

    n_columns: int = 128
    n_blocks: int = 4
    n_passes: int = 12
    n_together: int = 100
    n_repeats: int = 4
    n_steps: int = 4
    start_r_on_ohm: float = 125.0
    start_row_ohm: float = 0.1
    start_col_ohm: float = 0.1


@dataclass(frozen=True)
class LineData:
    """What was measured on the comb.

    Attributes:
        cols: of the comb, shape (n,).
        blocks: slices of it.
        whole: rows alone, whole comb open.
        parts: the same with one block open.
        together: rows of each set.
        together_a: mean currents of each set, shape (sets, n).
        drive_v: of rows at columns, shape (rows, n).
    """

    cols: Lines
    blocks: list[slice]
    whole: RowsAlone
    parts: list[RowsAlone]
    together: list[Lines]
    together_a: Matrix
    drive_v: Matrix


@dataclass(frozen=True)
class LineFit:
    """Resistances, one sigma of each, and the residuals (relative)."""

    resistances: Resistances
    r_on_sigma_ohm: Matrix
    row_sigma_ohm: float
    col_sigma_ohm: float
    conductance_s: Matrix
    residual_alone: float
    residual_together: float
    steps: list[Resistances] = field(default_factory=list)


def measure(bench: CalibrationBench, options: LineOptions | None = None) -> Part:
    """Measure and fit the resistances."""
    options = options or LineOptions()
    data = take(bench, options)
    found = fit(bench, data, options)
    wiring = bench.wiring
    seen = np.isin(np.arange(wiring.n_channels), wiring.row_channel[data.whole.rows])
    resistances = found.resistances
    usual_ohm = float(np.median(resistances.r_on_ohm[seen]))
    return Part(
        name="line",
        quantities={
            "r_on_ohm": Quantity.of(
                np.where(seen, resistances.r_on_ohm, usual_ohm), np.where(seen, found.r_on_sigma_ohm, np.nan), seen
            ),
            "row_ohm": Quantity.of(resistances.row_ohm, found.row_sigma_ohm),
            "col_ohm": Quantity.of(resistances.col_ohm, found.col_sigma_ohm),
        },
        residuals={"alone_relative": found.residual_alone, "together_relative": found.residual_together},
        method="rows alone on few and on many columns; many rows in one phase against their sum",
        options=vars(options),
    )


def take(bench: CalibrationBench, options: LineOptions) -> LineData:
    """Measure on a comb of the working columns."""
    usable = bench.working_cols
    cols = usable[np.unique(np.linspace(0, len(usable) - 1, min(options.n_columns, len(usable))).round().astype(int))]
    rows = bench.working_rows
    whole = measure_rows_alone(bench, cols, bench.v_read_v, options.n_passes, rows=rows, what="comb open")
    edges = np.linspace(0, len(cols), min(options.n_blocks, len(cols)) + 1).round().astype(int)
    blocks = [slice(int(a), int(b)) for a, b in pairwise(edges)]
    parts = [
        measure_rows_alone(bench, cols[b], bench.v_read_v, options.n_passes, rows=rows, what=f"block {k} open")
        for k, b in enumerate(blocks)
    ]
    together = _sets(bench, whole, options)
    tile = Tile(rows=rows, plus_cols=cols)
    x = np.zeros((len(together), len(rows)), np.bool_)
    for pattern, members in zip(x, together, strict=True):
        pattern[np.searchsorted(rows, members)] = True
    together_a = np.mean([_many_a(bench, x, tile, k) for k in range(options.n_repeats)], axis=0)
    return LineData(cols, blocks, whole, parts, together, together_a, drive_v(bench, bench.v_read_v, rows, cols))


def _many_a(bench: CalibrationBench, x: NDArray[np.bool_], tile: Tile, number: int) -> Matrix:
    what, cols = "many rows in one phase", tile.cols
    found = corrected_a(bench, bench.vmm(what, x, tile, bench.v_read_v, number=number), cols)
    if holds_others(bench, bench.v_read_v):
        found -= corrected_a(bench, bench.vmm(f"{what}, idle", x, tile, 0.0, number=number), cols)
    return found


def _sets(bench: CalibrationBench, whole: RowsAlone, options: LineOptions) -> list[Lines]:
    """Random sets of rows that one phase can hold: one per mux, at one position where selects are common."""
    wiring, rows = bench.wiring, whole.rows
    most = max(2, int(_FILL * converter_range_a(bench.known) / max(float(whole.mean_a.max(axis=1).mean()), 1e-12)))
    rng = np.random.default_rng(np.random.SeedSequence(bench.seed, spawn_key=(1,)))
    channels = np.unique(wiring.row_channel[rows])
    found: list[Lines] = []
    for _ in range(options.n_together):
        chosen = rng.permutation(channels)[: min(most, len(channels))]
        if wiring.independent_selects:
            members = [rng.choice(rows[wiring.row_channel[rows] == m]) for m in chosen]
        else:
            here = rows[wiring.row_position[rows] == rng.choice(wiring.row_position[rows])]
            members = [r for r in here if wiring.row_channel[r] in chosen]
        found.append(np.sort(np.array(members, np.intp)))
    return found


def fit(bench: CalibrationBench, data: LineData, options: LineOptions) -> LineFit:
    """Find the resistances with which one set of conductances explains all that was measured."""
    wiring = bench.wiring
    n_rows = bench.session.info.shape[0]
    rows, channel = data.whole.rows, wiring.row_channel[data.whole.rows]
    now = Resistances(np.full(wiring.n_channels, options.start_r_on_ohm), options.start_row_ohm, options.start_col_ohm)
    whole_a, parts_a = data.whole.mean_a, np.concatenate([part.mean_a for part in data.parts], axis=1)
    conductance_s = spread_s(by_ladder_s(whole_a, data.drive_v, rows, data.cols, wiring, now), rows, n_rows)
    good = conductance_s[rows] > _CONDUCTS * np.median(conductance_s[rows])
    sum_whole, along_whole = _loads(whole_a, data.cols)
    loads = [_loads(part.mean_a, data.cols[b]) for part, b in zip(data.parts, data.blocks, strict=True)]
    sum_parts = np.concatenate([np.repeat(s, along.shape[1], axis=1) for s, along in loads], axis=1)
    along_parts = np.concatenate([along for _, along in loads], axis=1)
    steps = [now]
    for step in range(options.n_steps):
        bench.progress("fit resistances", step, options.n_steps)
        whole = OpenColumns(conductance_s, data.cols, wiring, now)
        whole_s = whole.rows_alone_s()[rows]
        parts_s = np.concatenate(
            [OpenColumns(conductance_s[:, b], data.cols[b], wiring, now).rows_alone_s()[rows] for b in data.blocks],
            axis=1,
        )
        # Relative; what an ohm in each place takes away from the one more than from the other.
        wrong = np.where(good, (parts_a / np.maximum(whole_a, 1e-12)) / (parts_s / whole_s) - 1.0, 0.0)
        across_v = whole_a / conductance_s[rows].clip(min=1e-12)
        by_mux = np.where(good, (sum_whole - sum_parts) / across_v, 0.0)
        by_wire = np.where(good, (along_whole - along_parts) / across_v, 0.0)
        d_mux, d_wire, sigma_mux, sigma_wire = _solve(wrong, by_mux, by_wire, channel, wiring.n_channels)
        missing, by_source = _together(data, whole, whole_s, whole_a, rows, n_rows)
        scale = float((by_source**2).sum())
        d_col = float((missing * by_source).sum()) / scale if scale > 0.0 else 0.0
        now = Resistances(
            np.maximum(now.r_on_ohm + d_mux, 0.0), max(now.row_ohm + d_wire, 0.0), max(now.col_ohm + d_col, 0.0)
        )
        steps.append(now)
        model = OpenColumns(conductance_s, data.cols, wiring, now).rows_alone_s()[rows]
        better_s = conductance_s[rows] + missing_s(whole_a, model, data.drive_v, rows, data.cols, wiring, now)
        conductance_s[rows] = np.maximum(better_s, 0.0)
    bench.progress("fit resistances", options.n_steps, options.n_steps)
    left = missing - d_col * by_source
    return LineFit(
        resistances=now,
        r_on_sigma_ohm=sigma_mux,
        row_sigma_ohm=sigma_wire,
        col_sigma_ohm=_sigma_by_column(left, by_source),
        conductance_s=conductance_s,
        residual_alone=float(np.sqrt(np.mean(wrong[good] ** 2))),
        residual_together=float(np.sqrt(np.mean(left**2)) / np.abs(data.together_a).mean()),
        steps=steps,
    )


def _sigma_by_column(left: Matrix, by_source: Matrix) -> float:
    """One sigma of the number that `by_source` was fitted with, from how much single columns differ from it.

    What is wrong with a column is wrong in all sets, so that the number of columns counts and not that of sets.
    """
    weight = (by_source**2).sum(axis=0)
    if not weight.any():
        return float("nan")
    return float(np.sqrt(((by_source * left).sum(axis=0) ** 2).sum()) / weight.sum())


def _loads(current_a: Matrix, cols: Lines) -> tuple[Matrix, Matrix]:
    """Volts that a row loses up to each column, per ohm of its mux and per ohm of bit line and cell."""
    beyond = np.cumsum(current_a[:, ::-1], axis=1)[:, ::-1]
    return beyond[:, :1], np.cumsum(beyond * np.diff(cols, prepend=-1), axis=1)


def _solve(
    wrong: Matrix, by_mux: Matrix, by_wire: Matrix, channel: Lines, n: int
) -> tuple[Matrix, float, Matrix, float]:
    """Least squares for one number per channel and one in common; the channels are eliminated first."""

    def per_channel(values: Matrix) -> Matrix:
        return np.bincount(channel, values.sum(axis=1), n)

    mm, mw, my = per_channel(by_mux**2), per_channel(by_mux * by_wire), per_channel(by_mux * wrong)
    seen = mm > 0
    safe = np.where(seen, mm, 1.0)
    d_wire_s = float((by_wire**2).sum() - (mw**2 / safe)[seen].sum())
    d_wire = float(((by_wire * wrong).sum() - (mw * my / safe)[seen].sum()) / d_wire_s) if d_wire_s > 0 else 0.0
    d_mux = np.where(seen, (my - mw * d_wire) / safe, 0.0)
    used = by_mux != 0
    sigma = float(np.sqrt(np.mean((wrong - d_mux[channel][:, None] * by_mux - d_wire * by_wire)[used] ** 2)))
    sigma_wire = sigma / np.sqrt(d_wire_s) if d_wire_s > 0 else np.nan
    return d_mux, d_wire, np.where(seen, np.hypot(sigma / np.sqrt(safe), mw / safe * sigma_wire), np.nan), sigma_wire


def _together(
    data: LineData, network: OpenColumns, alone_s: Matrix, alone_a: Matrix, rows: Lines, n_rows: int
) -> tuple[Matrix, Matrix]:
    """Current that the model has too much when many rows are driven, and how much an ohm of source line takes away.

    Both of shape (sets, cols).
    """
    missing, by_source = [], []
    for members, measured_a in zip(data.together, data.together_a, strict=True):
        k = np.searchsorted(rows, members)
        # What is known of each cell comes from its row alone; the model says only what changes together.
        model = network.together_s(members) * data.drive_v[k]
        model += alone_a[k] - alone_s[k] * data.drive_v[k]
        missing.append(model.sum(axis=0) - measured_a)
        shared = (n_rows - np.maximum.outer(members, members)).astype(np.float64)
        np.fill_diagonal(shared, 0.0)
        # A volt on the source line takes as much as a volt of drive gives.
        by_source.append((alone_s[k] * (shared @ alone_a[k])).sum(axis=0))
    return np.array(missing), np.array(by_source)


def spread_s(conductance_s: Matrix, rows: Lines, n_rows: int) -> Matrix:
    """Conductances of all rows, from those of some: rows that cannot be driven are taken as average ones."""
    whole = np.tile(conductance_s.mean(axis=0), (n_rows, 1))
    whole[rows] = conductance_s
    return whole
