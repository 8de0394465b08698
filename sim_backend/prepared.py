"""A tile made ready for one read voltage: everything that does not change between VMMs, computed once.

This is for muxes that connect all rows of a position in its phase (`connects_by_position`); the others are in
`scheduled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.tile import Tile
from sim_backend.chip import SimulatedChip
from sim_backend.lines import effective_conductance_s, reduce_to_ports
from sim_backend.mux import channel_of_row, phase_of_row

Matrix = NDArray[np.float64]

#: sets of lines that are kept solved, 2 MiB each for a whole array of 512 x 512
_N_SOLVED = 4


class SolvedLines:
    """Effective conductances of the lines that tiles connected last, while the cells stay as they are.

    They do not depend on the order in which a tile names its lines, and to find them takes seconds. A tiled network
    puts many tiles on the same lines in different order.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[bytes, bytes], Matrix] = {}

    def get(self, rows: NDArray[np.intp], cols: NDArray[np.intp], solve: Callable[[], Matrix]) -> Matrix:
        """What `solve` returns for these rows and columns, both ascending; called where it is not known."""
        key = rows.tobytes(), cols.tobytes()
        if key not in self._found:
            if len(self._found) == _N_SOLVED:
                del self._found[next(iter(self._found))]
            self._found[key] = solve()
        return self._found[key]

    def clear(self) -> None:
        """Forget all: the cells have changed."""
        self._found.clear()


@dataclass(frozen=True)
class PreparedTile:
    """Linear picture of one tile at one read voltage.

    Attributes:
        cols: physical columns, plus columns first, shape (cols,).
        differential: whether the second half of the columns is subtracted from the first.
        phase: mux phase of each row, numbered from 0 without gaps, shape (rows,).
        channel: DAC channel of each row, shape (rows,).
        effective_s: column current per volt on a row's DAC, lines and muxes folded in, shape (rows, cols).
        drive_a: column current that an active row adds, shape (rows, cols).
        idle_a: column current in each phase with all its rows idle (DAC offsets), shape (phases, cols).
        column_s: conductance at each summing node in each phase, shape (phases, cols).
        noise: sigma of a cell per read over its mean, a number or shape (rows, cols).
        zero_code: code of each column that stands for no current in each phase, shape (phases, cols).
    """

    cols: NDArray[np.intp]
    differential: bool
    phase: NDArray[np.intp]
    channel: NDArray[np.intp]
    effective_s: Matrix
    drive_a: Matrix
    idle_a: Matrix
    column_s: Matrix
    noise: Matrix | float
    zero_code: Matrix

    @property
    def n_phases(self) -> int:
        return len(self.idle_a)


def prepare(
    chip: SimulatedChip,
    tile: Tile,
    v_read_v: float,
    rng: np.random.Generator,
    power_up_code: Matrix | None,
    solved: SolvedLines,
) -> PreparedTile:
    """Fold lines, muxes and DACs of a tile, and measure its zero codes; of a measured chip, those of `power_up_code`.

    Args:
        chip: the chip.
        tile: the tile.
        v_read_v: read voltage.
        rng: noise of the zero codes.
        power_up_code: code of every column of the array with no word line on, shape (cols,); None of a drawn chip.
        solved: of this chip; added to.
    """
    # The muxes of a board know nothing of tiles: rows beside it are connected, too.
    rows = np.arange(chip.settings.rows) if chip.measured else tile.rows
    own = tile.rows if chip.measured else np.arange(len(rows))
    channel = channel_of_row(rows, chip.settings.mux.width)
    _, phase = np.unique(phase_of_row(rows, chip.settings.mux.width), return_inverse=True)
    effective_s = _effective_s(chip, rows, tile.cols, channel, phase, solved)
    offset_a = chip.dacs.zero_offset_v(channel)[:, None] * effective_s
    in_phase = [phase == p for p in range(int(phase.max()) + 1)]
    idle_a = np.stack([offset_a[chosen].sum(axis=0) for chosen in in_phase])
    if power_up_code is not None:
        column_s = np.stack([effective_s[chosen].sum(axis=0) for chosen in in_phase])
        zero_code = np.tile(power_up_code[tile.cols], (len(in_phase), 1))
    else:
        column_s = np.tile(effective_s.sum(axis=0), (len(in_phase), 1))
        zero_code = measure_zero_code(chip, idle_a, tile.cols, column_s, rng)
    channel, phase, effective_s = channel[own], phase[own], effective_s[own]
    noise = chip.read_noise()
    return PreparedTile(
        # Not the tile itself, which must be free to go while this is kept for it.
        cols=tile.cols,
        differential=tile.differential,
        phase=phase,
        channel=channel,
        effective_s=effective_s,
        drive_a=chip.dacs.output_v(v_read_v, channel)[:, None] * effective_s,
        idle_a=idle_a,
        column_s=column_s,
        noise=noise[np.ix_(tile.rows, tile.cols)] if isinstance(noise, np.ndarray) else noise,
        zero_code=zero_code,
    )


def _effective_s(
    chip: SimulatedChip,
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    channel: NDArray[np.intp],
    phase: NDArray[np.intp],
    solved: SolvedLines,
) -> Matrix:
    """Current of each column per volt on the DAC of each row, in the phase in which that row is selected."""
    row_order, order = np.argsort(rows), np.argsort(cols)
    ascending = rows[row_order], cols[order]
    effective_s = np.empty((len(rows), len(cols)))
    effective_s[np.ix_(row_order, order)] = solved.get(
        *ascending, lambda: _sorted_effective_s(chip, *ascending, channel[row_order], phase[row_order])
    )
    return effective_s


def _sorted_effective_s(
    chip: SimulatedChip,
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    channel: NDArray[np.intp],
    phase: NDArray[np.intp],
) -> Matrix:
    """The same of ascending rows and columns."""
    # Only the tile's columns conduct: the select transistors of all others are closed.
    cells_s = chip.conductance_s[np.ix_(rows, cols)]
    lines = chip.settings.lines
    if not lines.enabled and not chip.settings.mux.enabled:
        return cells_s
    on = float(lines.enabled)
    row_wire_ohm = on * lines.row_ohm * np.diff(cols, prepend=-1)
    to_tia = np.diff(rows, append=chip.settings.rows)
    col_wire_ohm = on * lines.col_ohm * to_tia
    r_on_ohm = chip.r_on_ohm[channel]
    effective_s = np.empty_like(cells_s)
    isolated = chip.settings.mux.idle_rows == "isolated"
    whole = None if isolated else reduce_to_ports(cells_s, row_segment_ohm=row_wire_ohm, col_segment_ohm=col_wire_ohm)
    for p in range(int(phase.max()) + 1):
        chosen = np.flatnonzero(phase == p)
        if whole is None:
            # Rows outside the phase do not conduct: only their wire remains, in series.
            wire_ohm = on * lines.col_ohm * np.diff(rows[chosen], append=chip.settings.rows)
            alone = reduce_to_ports(cells_s[chosen], row_segment_ohm=row_wire_ohm, col_segment_ohm=wire_ohm)
            effective_s[chosen] = effective_conductance_s(alone, np.arange(len(chosen)), r_on_ohm[chosen])
        else:
            effective_s[chosen] = effective_conductance_s(whole, chosen, r_on_ohm[chosen])
    return effective_s


def measure_zero_code(
    chip: SimulatedChip, idle_a: Matrix, cols: NDArray[np.intp], column_s: Matrix, rng: np.random.Generator
) -> Matrix:
    """Average many conversions of the same currents, as at the start of a session on the board."""
    output_v = chip.tias.output_v(idle_a, cols, column_s)
    n = chip.settings.adc.zero_average if chip.settings.adc.enabled else 1
    return np.mean([chip.adcs.convert(output_v, cols, rng) for _ in range(n)], axis=0)
