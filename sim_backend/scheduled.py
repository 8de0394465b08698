"""A tile whose muxes connect in each phase only what that phase drives: independent selects, or INH wired, or both.

Which rows are connected together then depends on the input, so that no matrix can be folded in advance. What can be
done in advance is to see the array from its bit lines while all of them float (`FloatingRows`). Rows that are connected
are a small dense problem on top, exact for every phase.

As on a board, zero codes are measured with every word line off: what DAC offsets and the amplifiers' input offsets
drive through the connected rows is part of the current. All rows of the array take part, not only those of the tile:
the ones that float connect the columns to each other.

`measure_a` is fidelity `conversion` of such a tile, and takes levels; `scheduled_statistical` is the other one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.tile import Tile
from sim_backend.chip import SimulatedChip
from sim_backend.lines import FloatingRows, reduce_to_ports
from sim_backend.mux import channel_of_row, phases_of

Matrix = NDArray[np.float64]

#: phases that are converted in one go
_PHASES_AT_ONCE = 256


@dataclass(frozen=True)
class ScheduledTile:
    """What does not change between VMMs, of one set of columns.

    Attributes:
        rows: physical rows of the tile.
        cols: physical columns, plus columns first.
        differential: whether the second half of the columns is subtracted from the first.
        array: all rows of the array on these columns.
        source_ohm: on-resistance in front of each row of the array, shape (array rows,).
        offset_v: idle voltage of each row of the array when it is connected, shape (array rows,).
        variance_s2: of the current of each column per squared volt on each row port, from read to read, shape
            (array rows, cols).
        zero_code: code of each column with every word line off, shape (cols,).
    """

    rows: NDArray[np.intp]
    cols: NDArray[np.intp]
    differential: bool
    array: FloatingRows
    source_ohm: Matrix
    offset_v: Matrix
    variance_s2: Matrix
    zero_code: Matrix


def schedule(chip: SimulatedChip, tile: Tile, power_up_code: Matrix) -> ScheduledTile:
    """Make a tile ready; `power_up_code` (array cols,) is the code of every column with every word line off."""
    n_rows, lines = chip.settings.rows, chip.settings.lines
    on = float(lines.enabled)
    order = np.argsort(tile.cols)
    cells_s = chip.conductance_s[:, tile.cols]
    ports = reduce_to_ports(
        cells_s[:, order],
        row_segment_ohm=on * lines.row_ohm * np.diff(tile.cols[order], prepend=-1),
        col_segment_ohm=np.full(n_rows, on * lines.col_ohm),
    )
    array = FloatingRows.of(ports)
    array = FloatingRows(array.impedance_ohm, array.gain[:, np.argsort(order)])
    per_volt_s = array.per_port_volt_s
    channel = channel_of_row(np.arange(n_rows), chip.settings.mux.width)
    noise = chip.read_noise()
    return ScheduledTile(
        rows=tile.rows,
        cols=tile.cols,
        differential=tile.differential,
        array=array,
        source_ohm=chip.r_on_ohm[channel],
        offset_v=chip.dacs.zero_offset_v(channel),
        variance_s2=(per_volt_s * (noise[:, tile.cols] if isinstance(noise, np.ndarray) else noise)) ** 2,
        zero_code=power_up_code[tile.cols],
    )


def driven_v(chip: SimulatedChip, tile: ScheduledTile, wanted_v: Matrix | float) -> Matrix:
    """What the DACs make of voltages for the rows of the tile, above virtual ground; shape (..., tile rows)."""
    channel = channel_of_row(tile.rows, chip.settings.mux.width)
    return chip.dacs.output_v(wanted_v, channel) + tile.offset_v[tile.rows]


def measure_a(
    chip: SimulatedChip, tile: ScheduledTile, driven: NDArray[np.bool_], source_v: Matrix, rng: np.random.Generator
) -> tuple[Matrix, int]:
    """Column currents as the board would report them, every conversion of every phase by itself.

    Args:
        chip: the chip.
        tile: the tile.
        driven: which rows of the tile each sample drives, shape (B, tile rows).
        source_v: what the DAC of each gives (`driven_v`), same shape, or shape (tile rows,).
        rng: noise.

    Returns:
        Amperes, shape (B, cols) in the order of `tile.cols`, and the number of phases.
    """
    cols = tile.cols
    amps_per_code = chip.adcs.lsb_v / chip.settings.tia.r_feedback_ohm
    source_v = np.broadcast_to(source_v, driven.shape)
    total = np.zeros((len(driven), len(cols)))
    phases = list(phases_of(driven, tile.rows, chip.settings.mux, chip.settings.rows))
    for first in range(0, len(phases), _PHASES_AT_ONCE):
        some = phases[first : first + _PHASES_AT_ONCE]
        current_a, variance, column_s = (np.zeros((len(some), len(cols))) for _ in range(3))
        for k, phase in enumerate(some):
            rows = np.concatenate([tile.rows[phase.driven], phase.held])
            at_v = np.concatenate([source_v[phase.sample, phase.driven], tile.offset_v[phase.held]])
            # Second case: one volt on every row gives the conductance at each summing node.
            into = tile.array.row_currents_a(rows, tile.source_ohm[rows], np.stack([at_v, np.ones(len(rows))], axis=1))
            current_a[k], column_s[k] = into.T @ tile.array.gain[rows]
            row_v = at_v - tile.source_ohm[rows] * into[:, 0]
            variance[k] = row_v**2 @ tile.variance_s2[rows]
        if variance.any():
            current_a += np.sqrt(variance) * rng.standard_normal(current_a.shape)
        code = chip.adcs.convert(chip.tias.output_v(current_a, cols, column_s), cols, rng)
        np.add.at(total, [phase.sample for phase in some], (tile.zero_code - code) * amps_per_code)
    return total, len(phases)
