"""Fidelity `statistical`: the same currents, in distribution, at the price of two sparse sums.

For ohmic cells the sum over phases is linear in the spikes, so that every static gain folds into one matrix. Read noise
of a sum is one Gaussian whose variance is the sum of the cells' variances. A conversion adds its zero-code error and
the variance of ADC noise and rounding; it is kept as one more row of the matrices, active when its phase is. A
differential pair is subtracted in the matrix. A VMM in which a converter might clip goes through `conversion` instead.

Currents are kept on a grid of binary fractions, coarse enough that float32 sums are exact in any order: without noise
every engine computes the same currents to the last bit, and hence the same spikes. The grid is finer than 1e-4 of the
largest cell up to 512 rows, and coarser in proportion above.

Validity: rounding counts as noise of 1/12 LSB^2, which is right when the converter's own noise is above about 0.4 LSB
(0.8 by default). With a quieter converter use fidelity `conversion`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba as nb
import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros
from numpy.typing import NDArray

from sim_backend.chip import SimulatedChip
from sim_backend.gaussian import LANES, fill_normal
from sim_backend.prepared import PreparedTile

#: Samples that share one noise stream; fixed, so that results do not depend on the number of threads.
CHUNK = 64

_CLIP_SIGMAS = 6.0


@dataclass(frozen=True)
class FoldedTile:
    """Matrices of one tile. Rows: the tile's rows, then one per phase, then one for all phases together.

    Attributes:
        mean_a: what each row adds to each output, float32, shape (rows + phases + 1, outputs).
        variance_a2: what it adds to the variance; None when nothing is random.
        phase: phase of each row, int64.
        n_phases: number of phases.
        all_phases_always: silent phases are converted too.
        clip_count: most active rows of each phase for which no converter can clip, int64, shape (phases,).
    """

    mean_a: NDArray[np.float32]
    variance_a2: NDArray[np.float32] | None
    phase: NDArray[np.int64]
    n_phases: int
    all_phases_always: bool
    clip_count: NDArray[np.int64]


def fold(chip: SimulatedChip, prepared: PreparedTile) -> FoldedTile:
    """Fold DAC, lines, TIA and ADC of a prepared tile into matrices."""
    cols = prepared.cols
    adc, tia = chip.settings.adc, chip.settings.tia
    amps_per_code = chip.adcs.lsb_v / tia.r_feedback_ohm
    gain = (1.0 + chip.tias.gain_error[cols]) * (1.0 + chip.adcs.gain_error[cols])
    cell_a = prepared.drive_a * gain
    idle_v = chip.tias.output_v(prepared.idle_a, cols, prepared.column_s)
    residue_a = (prepared.zero_code - chip.adcs.ideal_code(idle_v, cols)) * amps_per_code
    mean_a = np.vstack([cell_a, residue_a, residue_a.sum(axis=0)])
    conversion_a2 = float(adc.enabled) * (chip.adcs.noise_lsb[cols] ** 2 + 1.0 / 12.0) * amps_per_code**2
    per_phase = np.tile(conversion_a2, (prepared.n_phases, 1))
    variance = np.vstack([(prepared.noise * cell_a) ** 2, per_phase, per_phase.sum(axis=0)])
    if prepared.differential:
        n = len(cols) // 2
        mean_a = mean_a[:, :n] - mean_a[:, n:]
        variance = variance[:, :n] + variance[:, n:]
    return FoldedTile(
        mean_a=_on_grid(mean_a, len(prepared.phase)),
        variance_a2=variance.astype(np.float32) if variance.any() else None,
        phase=prepared.phase.astype(np.int64),
        n_phases=prepared.n_phases,
        all_phases_always=not chip.settings.mux.skip_silent,
        clip_count=_clip_count(chip, prepared),
    )


def _on_grid(mean_a: NDArray[np.float64], n_rows: int) -> NDArray[np.float32]:
    """Round to multiples of a power of two such that sums over all rows need at most 24 bits."""
    largest = float(np.abs(mean_a).max())
    if largest == 0.0:
        return mean_a.astype(np.float32)
    step = 2.0 ** (math.ceil(math.log2(largest)) - (24 - math.ceil(math.log2(2 * n_rows + 1))))
    return (np.rint(mean_a / step) * step).astype(np.float32)


def _clip_count(chip: SimulatedChip, prepared: PreparedTile) -> NDArray[np.int64]:
    """How many rows of each phase may be active before some column could reach the end of its TIA or ADC."""
    adc, tia = chip.settings.adc, chip.settings.tia
    if not adc.enabled and not tia.enabled:
        return np.full(prepared.n_phases, len(prepared.phase))
    cols = prepared.cols
    idle_v = chip.tias.output_v(prepared.idle_a, cols, prepared.column_s)
    lowest_v = np.zeros(len(cols))
    if tia.enabled:
        lowest_v = np.full(len(cols), tia.swing_low_v)
    if adc.enabled:
        margin_lsb = _CLIP_SIGMAS * chip.adcs.noise_lsb[cols] + 1.0
        code_floor = chip.adcs.code_min + margin_lsb
        adc_floor_v = adc.v_reference_v + (code_floor - chip.adcs.offset_lsb[cols]) * chip.adcs.lsb_v / (
            1.0 + chip.adcs.gain_error[cols]
        )
        lowest_v = np.maximum(lowest_v, adc_floor_v)
        # The idle level must not sit at the upper end either; current only moves the output down from there.
        code_ceiling = chip.adcs.code_max - margin_lsb
        if np.any(chip.adcs.ideal_code(idle_v, cols) > code_ceiling):
            return np.full(prepared.n_phases, -1, np.int64)
    room_a = (idle_v - lowest_v) / (tia.r_feedback_ohm * (1.0 + chip.tias.gain_error[cols]))
    result = np.zeros(prepared.n_phases, np.int64)
    for p in range(prepared.n_phases):
        # The k most conductive cells of a column bound the current of any k active rows.
        largest_a = prepared.drive_a * (1.0 + _CLIP_SIGMAS * prepared.noise)
        worst_a = np.cumsum(-np.sort(-largest_a[prepared.phase == p], axis=0), axis=0)
        fits = (worst_a <= room_a[p]).all(axis=1)
        result[p] = len(fits) if fits.all() else int(np.argmin(fits))
    return result


# The two kernels differ only in the noise; kept apart because the branch would cost the noise-free one a third.


@nb.njit(nogil=True, cache=True, inline="always")
def _active_rows(words, phase, n_phases, always, clip_count, rows, count):  # type: ignore[no-untyped-def]
    """List the matrix rows that one sample needs; returns how many, and whether a converter might clip."""
    n_rows = len(phase)
    k = 0
    for p in range(n_phases):
        count[p] = 0
    for w in range(len(words)):
        word = words[w]
        while word != 0:
            row = w * 64 + np.int64(trailing_zeros(word))
            rows[k] = row
            count[phase[row]] += 1
            k += 1
            word &= word - np.uint64(1)
    n_active = 0
    clips = False
    for p in range(n_phases):
        n_active += count[p] > 0
        clips |= count[p] > clip_count[p]
    if always or n_active == n_phases:
        rows[k] = n_rows + n_phases
        k += 1
    else:
        for p in range(n_phases):
            if count[p] > 0:
                rows[k] = n_rows + p
                k += 1
    return k, clips


@nb.njit(fastmath=True, nogil=True, cache=True, inline="always")
def _add_rows(matrix, rows, k, total):  # type: ignore[no-untyped-def]
    """Add `k` rows of a matrix to `total`, eight at a time so that the running sum is loaded an eighth as often."""
    n = len(total)
    i = 0
    while i + 8 <= k:
        a, b, c, d = matrix[rows[i]], matrix[rows[i + 1]], matrix[rows[i + 2]], matrix[rows[i + 3]]
        e, f, g, h = matrix[rows[i + 4]], matrix[rows[i + 5]], matrix[rows[i + 6]], matrix[rows[i + 7]]
        for j in range(n):
            total[j] += ((a[j] + b[j]) + (c[j] + d[j])) + ((e[j] + f[j]) + (g[j] + h[j]))
        i += 8
    while i < k:
        a = matrix[rows[i]]
        for j in range(n):
            total[j] += a[j]
        i += 1


@nb.njit(fastmath=True, nogil=True, parallel=True, cache=True)
def _sum_exact(words, mean, phase, n_phases, always, clip_count, out, clips):  # type: ignore[no-untyped-def]
    n_chunks = (len(words) + CHUNK - 1) // CHUNK
    for chunk in nb.prange(n_chunks):
        rows = np.empty(len(phase) + n_phases + 1, np.int64)
        count = np.empty(n_phases, np.int64)
        for b in range(chunk * CHUNK, min(len(words), (chunk + 1) * CHUNK)):
            k, clips[b] = _active_rows(words[b], phase, n_phases, always, clip_count, rows, count)
            total = out[b]
            for j in range(len(total)):
                total[j] = np.float32(0.0)
            _add_rows(mean, rows, k, total)


@nb.njit(fastmath=True, nogil=True, parallel=True, cache=True)
def _sum_noisy(words, mean, variance, phase, n_phases, always, clip_count, states, out, clips):  # type: ignore[no-untyped-def]
    n_chunks = (len(words) + CHUNK - 1) // CHUNK
    for chunk in nb.prange(n_chunks):
        rows = np.empty(len(phase) + n_phases + 1, np.int64)
        count = np.empty(n_phases, np.int64)
        spread = np.empty(mean.shape[1], np.float32)
        raw = np.empty(LANES, np.uint32)
        mantissa = np.empty(LANES, np.float32)
        bits = mantissa.view(np.int32)
        exponent = np.empty(LANES, np.float32)
        normal = np.empty(LANES, np.float32)
        state = states[chunk]
        for b in range(chunk * CHUNK, min(len(words), (chunk + 1) * CHUNK)):
            k, clips[b] = _active_rows(words[b], phase, n_phases, always, clip_count, rows, count)
            total = out[b]
            n = len(total)
            for j in range(n):
                total[j] = np.float32(0.0)
                spread[j] = np.float32(0.0)
            _add_rows(mean, rows, k, total)
            _add_rows(variance, rows, k, spread)
            for start in range(0, n, LANES):
                fill_normal(state, raw, mantissa, bits, exponent, normal)
                for j in range(min(LANES, n - start)):
                    total[start + j] += normal[j] * np.float32(math.sqrt(spread[start + j]))


def sum_rows_a(
    folded: FoldedTile, words: NDArray[np.uint64], states: NDArray[np.uint32], out: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Write the output currents of a batch of packed spikes to `out`; returns which samples might clip (to be redone).

    Args:
        folded: the tile.
        words: packed spikes, shape (B, words).
        states: noise state of each chunk, shape (>= ceil(B / CHUNK), 4, LANES); advanced.
        out: shape (B, outputs).
    """
    clips = np.zeros(len(words), np.bool_)
    common = (folded.phase, folded.n_phases, folded.all_phases_always, folded.clip_count)
    if folded.variance_a2 is None:
        _sum_exact(words, folded.mean_a, *common, out, clips)
    else:
        _sum_noisy(words, folded.mean_a, folded.variance_a2, *common, states, out, clips)
    return clips
