"""Fidelity `conversion`: every ADC conversion of every mux phase by itself.

Nothing is folded: each phase's column currents go through TIA and ADC, codes are subtracted from the zero codes and
added up over the phases, as on the board. Slow; the reference for fidelity `statistical`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sim_backend.chip import SimulatedChip
from sim_backend.prepared import PreparedTile


def measure_a(
    chip: SimulatedChip, prepared: PreparedTile, drive: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Column currents as the board would report them.

    Args:
        chip: the chip.
        prepared: the tile.
        drive: how far each row is driven, as a fraction of the read voltage, shape (B, rows).
        rng: noise.

    Returns:
        Amperes, shape (B, cols) in the order of `tile.cols`.
    """
    cols = prepared.cols
    amps_per_code = chip.adcs.lsb_v / chip.settings.tia.r_feedback_ohm
    total = np.zeros((len(drive), len(cols)))
    for p in range(prepared.n_phases):
        rows = prepared.phase == p
        x = drive[:, rows]
        active = x.any(axis=1) if chip.settings.mux.skip_silent else np.ones(len(x), np.bool_)
        if not active.any():
            continue
        x = x[active]
        cell_a = prepared.drive_a[rows]
        current_a = prepared.idle_a[p] + x @ cell_a
        noise = prepared.noise[rows] if isinstance(prepared.noise, np.ndarray) else prepared.noise
        if np.any(noise):
            # The sum of independent Gaussian cells is one Gaussian.
            current_a += np.sqrt(x**2 @ (noise * cell_a) ** 2) * rng.standard_normal(current_a.shape)
        output_v = chip.tias.output_v(current_a, cols, prepared.column_s[p])
        code = chip.adcs.convert(output_v, cols, rng)
        total[active] += (prepared.zero_code[p] - code) * amps_per_code
    return total


def quantised_drive(
    chip: SimulatedChip, prepared: PreparedTile, levels: NDArray[np.float64], v_read_v: float
) -> NDArray[np.float64]:
    """Levels (B, rows) as the DACs can make them, as fractions of what they make of the read voltage."""
    channel = prepared.channel
    full_v = chip.dacs.output_v(v_read_v, channel)
    return chip.dacs.output_v(levels * v_read_v, channel) / np.where(full_v == 0.0, 1.0, full_v)
