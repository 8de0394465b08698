"""Inputs to validate with: random ones, real spike trains, and the corners of what a board can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.constants import converter_range_a
from hil.backend import CrossbarBackend
from hil.calibration_file import Calibration
from hil.errors import ConfigError
from hil.placement import place, usable_lines
from hil.tile import Tile
from hil.wiring import Wiring

Bits = NDArray[np.bool_]

#: share of the tile's rows that count as far from the converters, and as near
_END_OF_ARRAY = 1 / 8


@dataclass(frozen=True)
class InputOptions:
    """What to ask.

    Attributes:
        n_inputs: of each set, at most.
        activities: shares of rows that random inputs drive.
        n_rows, n_outputs: of the tile, at most; that of the paper's network.
        few_outputs: pairs of the tile that loads its rows little.
        other_activity: share of rows driven in the sets of other tiles and of another read voltage; a tile of few
            pairs draws so much that more of them would leave the converters' range.
        other_v_read_v: a read voltage that the calibration is not for.
        fill: share of the converters' range that one row of each mux may fill.
    """

    n_inputs: int = 48
    activities: tuple[float, ...] = (0.02, 0.05, 0.09, 0.2)
    n_rows: int = 456
    n_outputs: int = 200
    few_outputs: int = 8
    other_activity: float = 0.04
    other_v_read_v: float = 0.1
    fill: float = 0.85


@dataclass(frozen=True, eq=False)
class InputSet:
    """Inputs of one kind.

    Attributes:
        name: short.
        what: a sentence's worth.
        tile: where they go.
        bits: shape (n, tile.n_rows).
        v_read_v: read voltage.
    """

    name: str
    what: str
    tile: Tile
    bits: Bits
    v_read_v: float


def network_tile(calibration: Calibration, options: InputOptions) -> Tile:
    """The paper's network on lines that work, or as much of it as fits."""
    fault_map = calibration.fault_map()
    rows, n_pairs = usable_lines(fault_map)
    n_rows, n_outputs = min(options.n_rows, len(rows)), min(options.n_outputs, n_pairs)
    if not (n_rows and n_outputs):
        raise ConfigError(
            f"calibration {calibration.calibration_id} leaves {len(rows)} working rows and {n_pairs} pairs of columns",
            fix="look at the findings of its parts; nothing can be validated on this array",
        )
    return place(n_rows, n_outputs, fault_map)


def input_sets(
    simulator: CrossbarBackend,
    calibration: Calibration,
    tile: Tile,
    v_read_v: float,
    spikes: NDArray[np.bool_] | None,
    options: InputOptions,
    seed: int,
) -> list[InputSet]:
    """All sets.

    Args:
        simulator: open session that has loaded the calibration; says what each row carries, so that sums of rows stay
            within the converters' range.
        calibration: wiring and electrics of the board.
        tile: differential.
        v_read_v: read voltage that the calibration is for.
        spikes: row vectors of the tile from real spike trains, shape (n, tile.n_rows), or None.
        options: what to ask.
        seed: draws.
    """
    if tile.minus_cols is None:
        raise ConfigError("inputs are to be validated on a single-ended tile", fix="give a differential tile")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    n = options.n_inputs
    single = Tile(rows=tile.rows, plus_cols=np.sort(tile.cols))
    few = np.unique(np.linspace(0, tile.n_outputs - 1, min(options.few_outputs, tile.n_outputs)).round().astype(int))
    light = Tile(rows=tile.rows, plus_cols=tile.plus_cols[few], minus_cols=tile.minus_cols[few])
    wiring = calibration.wiring
    alone_a = simulator.vmm(np.eye(tile.n_rows, dtype=np.bool_), single, v_read_v).astype(np.float64)
    by_position = np.argsort(tile.rows)
    n_end = max(1, min(tile.n_rows, round(_END_OF_ARRAY * tile.n_rows)))
    found = [
        InputSet(
            f"random {100 * a:g} %", f"rows drawn with probability {a:g}", tile, _random(rng, n, tile, a), v_read_v
        )
        for a in options.activities
    ]
    if spikes is not None:
        found.append(
            InputSet("spikes", "row vectors of real spike trains", tile, _some(rng, spikes, n, tile), v_read_v)
        )
    other = options.other_activity

    def of_tile(where: Tile) -> Bits:
        return _random(rng, n, where, other)

    corners: tuple[tuple[str, str, Tile, Bits, float], ...] = (
        ("single rows", "one row", tile, _single_rows(rng, n, tile), v_read_v),
        ("one mux", "all rows of one mux, phase by phase", tile, _one_mux(rng, n, tile, wiring), v_read_v),
        (
            "all muxes",
            "one row of as many muxes as the converters can take, all in one phase",
            tile,
            _all_muxes(rng, n, tile, wiring, alone_a, options.fill * converter_range_a(calibration)),
            v_read_v,
        ),
        ("far rows", "half of the rows farthest from the converters", tile,
         _within(rng, n, tile, by_position[:n_end]), v_read_v),
        ("near rows", "half of the rows nearest to the converters", tile,
         _within(rng, n, tile, by_position[-n_end:]), v_read_v),
        ("few columns", f"{light.n_outputs} pairs of columns open", light, of_tile(light), v_read_v),
        ("single-ended", "columns instead of pairs", single, of_tile(single), v_read_v),
        ("other voltage", f"read at {options.other_v_read_v:g} V", tile, of_tile(tile), options.other_v_read_v),
    )  # fmt: skip
    return found + [InputSet(*corner) for corner in corners]


def _random(rng: np.random.Generator, n: int, tile: Tile, activity: float) -> Bits:
    bits = rng.random((n, tile.n_rows)) < activity
    # A vector without a row asks nothing.
    silent = ~bits.any(axis=1)
    bits[silent, rng.integers(tile.n_rows, size=int(silent.sum()))] = True
    return bits


def _some(rng: np.random.Generator, vectors: NDArray[np.bool_], n: int, tile: Tile) -> Bits:
    bits = np.asarray(vectors, np.bool_)
    if bits.ndim != 2 or bits.shape[1] != tile.n_rows or not bits.any():
        raise ConfigError(
            f"spike vectors have shape {bits.shape}, or no spike; the tile has {tile.n_rows} rows",
            fix=f"give shape (n, {tile.n_rows})",
        )
    spoken = np.flatnonzero(bits.any(axis=1))
    return bits[np.sort(rng.permutation(spoken)[:n])]


def _single_rows(rng: np.random.Generator, n: int, tile: Tile) -> Bits:
    chosen = np.sort(rng.permutation(tile.n_rows)[:n])
    return np.eye(tile.n_rows, dtype=np.bool_)[chosen]


def _one_mux(rng: np.random.Generator, n: int, tile: Tile, wiring: Wiring) -> Bits:
    channel = wiring.row_channel[tile.rows]
    chosen = np.sort(rng.permutation(np.unique(channel))[:n])
    return channel == chosen[:, None]


def _all_muxes(
    rng: np.random.Generator, n: int, tile: Tile, wiring: Wiring, alone_a: NDArray[np.float64], most_a: float
) -> Bits:
    """Rows that share a phase, as many as stay below a current in every column."""
    channel, position = wiring.row_channel[tile.rows], wiring.row_position[tile.rows]
    choose: Callable[[], NDArray[np.intp]]
    if wiring.independent_selects:

        def choose() -> NDArray[np.intp]:
            mixed = rng.permutation(tile.n_rows)
            return mixed[np.unique(channel[mixed], return_index=True)[1]]
    else:

        def choose() -> NDArray[np.intp]:
            return np.flatnonzero(position == rng.choice(position))

    bits = np.zeros((n, tile.n_rows), np.bool_)
    for pattern in bits:
        candidates = rng.permutation(choose())
        filled_a = np.cumsum(alone_a[candidates], axis=0).max(axis=1)
        pattern[candidates[: max(1, int(np.searchsorted(filled_a, most_a)))]] = True
    return bits


def _within(rng: np.random.Generator, n: int, tile: Tile, rows: NDArray[np.intp]) -> Bits:
    bits = np.zeros((n, tile.n_rows), np.bool_)
    bits[:, rows] = rng.random((n, len(rows))) < 0.5
    bits[~bits.any(axis=1), rows[0]] = True
    return bits
