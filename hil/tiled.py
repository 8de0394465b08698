"""`TiledBackend`: several macros behind one array that is larger than any of them.

The virtual array is a grid of blocks, each of the size of a macro. A product with a tile of it is the sum over the
blocks of a column of the grid, side by side for all its columns; the host adds up. Where there are fewer macros than
blocks they are used several times (time multiplexing): every further use has its rows and the pairing of its columns
shuffled, so that two blocks do not hold the same weights.

What is random stays within the macros: the virtual array has the noise, offsets and faults of each of its blocks.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hil.backend import (
    BackendInfo,
    Capabilities,
    Check,
    CrossbarBackend,
    Limits,
    Pulse,
    PulseReport,
    RowInput,
    Telemetry,
    check_out,
)
from hil.errors import CapabilityError, ConfigError, DeviceError, HilError, LimitError, UnconfirmedError
from hil.spikes import WORD_BITS, PackedSpikes, n_words
from hil.tile import Tile

log = logging.getLogger(__name__)

Lines = NDArray[np.intp]

#: Columns among which those of a pair are drawn anew. Far columns see another read voltage (drop along the row), which
#: a pair of them would take for a weight.
NEIGHBOURS = 8


@dataclass(frozen=True, eq=False)
class Block:
    """One block of the virtual array, and the lines of its macro that stand for its own.

    Attributes:
        macro: number of the macro.
        rows: physical row of each row of the block, shape (macro rows,).
        cols: physical column of each column, shape (macro columns,).
    """

    macro: int
    rows: Lines
    cols: Lines


@dataclass(frozen=True, eq=False)
class _Part:
    """What one block adds to a tile: which of its outputs, and the tile on the macro that gives them."""

    macro: CrossbarBackend
    tile: Tile
    outputs: slice | Lines


@dataclass(frozen=True, eq=False)
class _RowBlock:
    """Inputs of a tile that lie in one row of the grid, and the blocks that they drive."""

    inputs: slice | Lines
    parts: list[_Part]


def arrange(n_macros: int, grid: tuple[int, int], shape: tuple[int, int], seed: int) -> list[list[Block]]:
    """Blocks of a grid, by row and column of the grid.

    Block (i, j) is on macro (i * grid columns + j) modulo `n_macros`. The first use of a macro takes its lines as they
    are.

    Args:
        n_macros: how many there are.
        grid: rows and columns of the grid.
        shape: (rows, cols) of a macro.
        seed: of the shuffles of further uses.
    """
    n_rows, n_cols = shape
    blocks: list[list[Block]] = []
    for i in range(grid[0]):
        numbers = range(i * grid[1], (i + 1) * grid[1])
        blocks.append([])
        for use, macro in (divmod(number, n_macros) for number in numbers):
            rows, cols = np.arange(n_rows), np.arange(n_cols)
            if use > 0:
                rng = np.random.default_rng([seed, macro, use])
                rows, cols = rng.permutation(rows), _paired_anew(cols, rng)
            blocks[i].append(Block(macro, rows, cols))
    return blocks


class TiledBackend(CrossbarBackend):
    """A virtual array of `block_rows` x `block_cols` macros.

    A call goes to one block after another, as it would to one macro: a block none of whose rows is driven is converted
    too, since its converters add their share of noise and offset. The two columns of a pair must lie in one block.

    Pulses need a macro for every block: a cell that stands for several cannot be programmed for one of them. The
    telemetry is the sum over the macros; their VMMs are `macro_vmm_count`, and `vmm_count` is that of the whole array.

    Args:
        macros: backends of one shape, none of them open; this one opens and closes them.
        block_rows, block_cols: the grid.
        seed: of the shuffles of macros that are used more than once.

    Raises:
        ConfigError: no macros, more than blocks, one given twice, or of different shapes.
    """

    def __init__(self, macros: Sequence[CrossbarBackend], block_rows: int, block_cols: int, *, seed: int = 0) -> None:
        n_blocks = block_rows * block_cols
        if not 1 <= len(macros) <= n_blocks or len({id(macro) for macro in macros}) < len(macros):
            raise ConfigError(
                f"{len(macros)} macros for a grid of {block_rows} x {block_cols} blocks",
                fix=f"give 1 to {n_blocks} macros, each once",
            )
        shapes = {macro.info.shape for macro in macros}
        if len(shapes) > 1:
            raise ConfigError(
                f"macros of different shapes: {', '.join(f'{r} x {c}' for r, c in sorted(shapes))}",
                fix="tile macros of one shape",
            )
        self._macros = tuple(macros)
        self._grid = (block_rows, block_cols)
        self._macro_shape = shapes.pop()
        self._seed = seed
        self._blocks = arrange(len(macros), self._grid, self._macro_shape, seed)
        #: The macros' tiles live as long as the tile that they are parts of: backends keep what they prepared for one.
        self._split: WeakKeyDictionary[Tile, list[_RowBlock]] = WeakKeyDictionary()
        self._n_vmm = 0
        self._is_open = False

    @property
    def info(self) -> BackendInfo:
        found = [macro.info for macro in self._macros]
        able = [about.capabilities for about in found]
        kinds = frozenset[Any].intersection(*(each.pulse_kinds for each in able))
        return BackendInfo(
            name="tiled",
            shape=(self._grid[0] * self._macro_shape[0], self._grid[1] * self._macro_shape[1]),
            identity={
                "kind": found[0].name,
                "grid": list(self._grid),
                "macro_shape": list(self._macro_shape),
                "arrangement_seed": self._seed,
                **_in_common([about.identity for about in found]),
            },
            capabilities=Capabilities(
                pulse_kinds=frozenset() if self._shares_cells else kinds,
                analogue_rows=all(each.analogue_rows for each in able),
                bipolar_read=all(each.bipolar_read for each in able),
            ),
            limits=tightest([about.limits for about in found]),
            calibration_id=_joined([about.calibration_id for about in found]),
        )

    def open(self) -> None:
        """Open all macros, also after one of them failed, so that the log names every one that does."""
        # A person who interrupts a connection that hangs wants no other one.
        self._for_all("open", Exception)
        self._n_vmm = 0
        self._is_open = True

    def close(self) -> None:
        self._is_open = False
        self._for_all("close", BaseException)

    def make_safe(self) -> None:
        self._for_all("make_safe", BaseException)

    def abort(self) -> None:
        self._for_all("abort", BaseException)

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        self._check_open()
        if not isinstance(x, PackedSpikes | np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise CapabilityError(
                f"a tiled array takes NumPy arrays and packed spikes, not {type(x).__name__}",
                fix="convert x to a NumPy array",
            )
        if out is None:
            out = np.empty((len(x), tile.n_outputs), np.float32)
        check_out(out, x, tile)
        self._n_vmm += len(x)
        for number, row_block in enumerate(self._row_blocks(tile)):
            driven = _taken(x, row_block.inputs)
            for part in row_block.parts:
                current_a = part.macro.vmm(driven, part.tile, v_read_v)
                if number == 0:
                    out[:, part.outputs] = current_a
                else:
                    out[:, part.outputs] += current_a
        return out

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._check_open()
        current_a = np.zeros(mask.shape)
        for block, cells, on_macro in self._blocks_of(mask):
            found_a = np.zeros(self._macro_shape)
            found_a[on_macro] = self._macros[block.macro].read(on_macro, v_read_v, n_average=n_average)
            current_a[cells] = found_a[np.ix_(block.rows, block.cols)]
        return current_a[mask]

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        self._check_open()
        if self._shares_cells:
            raise CapabilityError(
                f"{self._grid[0] * self._grid[1]} blocks share {len(self._macros)} macros: a pulse on a cell of one "
                "would change others",
                fix="form and program the macros one by one, or give one for every block",
            )
        reports = [self._macros[block.macro].pulse(on_macro, pulse) for block, _, on_macro in self._blocks_of(mask)]
        achieved = reports[0].achieved if reports else pulse
        return PulseReport(sum(report.n_cells for report in reports), pulse, achieved)

    def telemetry(self) -> Telemetry:
        total: dict[str, float] = {}
        for macro in self._macros:
            for key, value in macro.telemetry().values.items():
                total[key] = total.get(key, 0.0) + value
        n_macro_vmm = total.pop("vmm_count", 0.0)
        return Telemetry({"vmm_count": float(self._n_vmm), "macro_vmm_count": n_macro_vmm, **total})

    def wait(self, duration_s: float) -> None:
        """Let time pass for the cells of all macros; boards wait together, each simulated chip for itself."""
        self._check_open()
        begun_s = [macro.now_s() for macro in self._macros]
        for macro, start_s in zip(self._macros, begun_s, strict=True):
            left_s = duration_s - (macro.now_s() - start_s)
            if left_s > 0.0:
                macro.wait(left_s)

    def now_s(self) -> float:
        """The clock of the macro that is furthest: simulated chips live while they are used."""
        return max(macro.now_s() for macro in self._macros)

    def self_test(self) -> list[Check]:
        return [
            replace(check, part=f"macro {number}: {check.part}")
            for number, macro in enumerate(self._macros)
            for check in macro.self_test()
        ]

    @property
    def _shares_cells(self) -> bool:
        return len(self._macros) < self._grid[0] * self._grid[1]

    def _check_open(self) -> None:
        if not self._is_open:
            raise DeviceError("the tiled array is not open", fix="use it inside open_session(...)")

    def _for_all(self, call: str, survived: type[BaseException]) -> None:
        """Make a call on every macro, whatever happens on one of them; then raise the error that matters most.

        An `UnconfirmedError` matters least: it says that safeguards act, and nobody tries again after it.
        """
        act: Callable[[CrossbarBackend], object] = operator.methodcaller(call)
        errors: list[BaseException] = []
        for number, macro in enumerate(self._macros):
            try:
                act(macro)
            except survived as error:  # noqa: PERF203 - each of them may fail
                text = error.what if isinstance(error, HilError) else repr(error)
                log.error("%s of macro %d of %d failed: %s", call, number, len(self._macros), text)
                errors.append(error)
        if errors:
            raise min(errors, key=lambda error: isinstance(error, UnconfirmedError))

    def _row_blocks(self, tile: Tile) -> list[_RowBlock]:
        if tile not in self._split:
            tile.check_fits(self.info.shape)
            self._split[tile] = self._split_up(tile)
        return self._split[tile]

    def _split_up(self, tile: Tile) -> list[_RowBlock]:
        n_rows, n_cols = self._macro_shape
        block_row, row = np.divmod(tile.rows, n_rows)
        block_col, plus = np.divmod(tile.plus_cols, n_cols)
        minus = None
        if tile.minus_cols is not None:
            minus_block, minus = np.divmod(tile.minus_cols, n_cols)
            if (apart := np.flatnonzero(minus_block != block_col)).size:
                k = int(apart[0])
                raise LimitError(
                    f"columns {tile.plus_cols[k]} and {tile.minus_cols[k]} of output {k} lie in different blocks of "
                    f"{n_cols} columns",
                    fix="pair columns of one block",
                )
        found: list[_RowBlock] = []
        for i in np.unique(block_row):
            inputs = np.flatnonzero(block_row == i)
            parts: list[_Part] = []
            for j in np.unique(block_col):
                block, outputs = self._blocks[i][j], np.flatnonzero(block_col == j)
                on_macro = Tile(
                    block.rows[row[inputs]],
                    block.cols[plus[outputs]],
                    None if minus is None else block.cols[minus[outputs]],
                )
                parts.append(_Part(self._macros[block.macro], on_macro, _run_of(outputs)))
            found.append(_RowBlock(_run_of(inputs), parts))
        return found

    def _blocks_of(self, mask: NDArray[np.bool_]) -> Iterator[tuple[Block, tuple[slice, slice], NDArray[np.bool_]]]:
        """Blocks that have cells of a mask, where they lie in the virtual array, and the mask on the macro."""
        n_rows, n_cols = self._macro_shape
        for i, row_of_blocks in enumerate(self._blocks):
            for j, block in enumerate(row_of_blocks):
                cells = np.s_[i * n_rows : (i + 1) * n_rows, j * n_cols : (j + 1) * n_cols]
                if mask[cells].any():
                    on_macro = np.zeros(self._macro_shape, np.bool_)
                    on_macro[np.ix_(block.rows, block.cols)] = mask[cells]
                    yield block, cells, on_macro


def tightest(limits: Sequence[Limits]) -> Limits:
    """The lowest of each limit."""
    return Limits(**{item.name: min(getattr(each, item.name) for each in limits) for item in fields(Limits)})


def _paired_anew(cols: Lines, rng: np.random.Generator) -> Lines:
    """Columns in another order, such that an even one and its successor come from within `NEIGHBOURS` columns."""
    near = np.concatenate([rng.permutation(cols[k : k + NEIGHBOURS]) for k in range(0, len(cols), NEIGHBOURS)])
    n_pairs = len(cols) // 2
    pairs = near[: 2 * n_pairs].reshape(n_pairs, 2)
    return np.concatenate([rng.permutation(pairs).ravel(), near[2 * n_pairs :]])


def _taken(x: PackedSpikes | NDArray[Any], inputs: slice | Lines) -> PackedSpikes | NDArray[Any]:
    """Some rows of a batch of row vectors."""
    if isinstance(x, np.ndarray):
        return x[:, inputs]
    if isinstance(inputs, slice):
        return PackedSpikes(_bits_between(x.words, inputs.start, inputs.stop), inputs.stop - inputs.start)
    return PackedSpikes.pack(x.unpack()[:, inputs])


def _bits_between(words: NDArray[np.uint64], start: int, stop: int) -> NDArray[np.uint64]:
    """Bits `start` to `stop` - 1 of packed words, moved down to bit 0; those above are zero."""
    first, shift = divmod(start, WORD_BITS)
    n = n_words(stop - start)
    taken = words[:, first : first + n] >> np.uint64(shift)
    if shift:
        above = words[:, first + 1 : first + 1 + n]
        taken[:, : above.shape[1]] |= above << np.uint64(WORD_BITS - shift)
    spare = n * WORD_BITS - (stop - start)
    taken[:, -1] &= np.uint64(2**WORD_BITS - 1) >> np.uint64(spare)
    return taken


def _run_of(index: Lines) -> slice | Lines:
    """Ascending numbers as a slice, where none is left out."""
    start, n = int(index[0]), len(index)
    return slice(start, start + n) if index[-1] - start == n - 1 else index


def _in_common(identities: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What all macros say of themselves, once; and what they do not agree on, by macro."""
    first = identities[0]
    same = {key: first[key] for key in first if all(key in each and each[key] == first[key] for each in identities)}
    return {
        "all_macros": same,
        "macros": [{key: value for key, value in each.items() if key not in same} for each in identities],
    }


def _joined(calibrations: Sequence[str | None]) -> str | None:
    """Identity of the calibrations in use; None where a macro has none."""
    names = [name for name in calibrations if name is not None]
    return ", ".join(dict.fromkeys(names)) if len(names) == len(calibrations) else None
