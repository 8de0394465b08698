"""Fidelity `statistical` of a tile whose phases depend on the input (`scheduled`), sample by sample.

A phase is solved by a few sweeps of Gauss-Seidel: rows that are driven together share only the source lines, so that
they load each other by less than a thousandth each. Its column currents are a weighted sum over the driven rows. The
input offset of an amplifier acts on the current of each row as a part of that row's voltage; that it acts on the small
change by the other rows in the same way is exact where all rows have the same voltage, and else right to some 1e-6.

Read noise of all phases is one Gaussian per output, as in `statistical`. A phase in which some converter might clip is
converted column by column, with noise and limits, in its place. Sums depend on the input of their own sample only, and
not on the number of threads; unlike in `statistical` they are rounded as float32 sums are.

Validity: rounding counts as noise, as in `statistical`. Muxes without INH hold idle rows; those take `measure_a`.
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
from sim_backend.mux import channel_of_row, phase_of_row
from sim_backend.scheduled import ScheduledTile, driven_v
from sim_backend.statistical import CHUNK

Matrix = NDArray[np.float64]
Single = NDArray[np.float32]

_CLIP_SIGMAS = 6.0
#: change of a row's current in the last sweep, over the current; the next one would change it by far less
_CONVERGED = 1e-6
_SWEEPS_MAX = 500
#: voltages of rows that differ by more, over their mean, are left to `measure_a`
_ALIKE = 0.1


@dataclass(frozen=True)
class Ends:
    """Converters in terms of the current that they report; all of shape (cols,).

    Attributes:
        residue_a: error of the zero code, which each conversion adds.
        sigma_a: noise and rounding of one conversion.
        amplifier_a: where the amplifier stops.
        high_a, low_a: where the converter ends.
    """

    residue_a: Matrix
    sigma_a: Matrix
    amplifier_a: Matrix
    high_a: Matrix
    low_a: Matrix


@dataclass(frozen=True)
class ScheduledSums:
    """Matrices of one tile at one read voltage; rows and columns are those of the tile.

    A row's current is reckoned in a unit of its own, in which rows driven together act on each other alike.

    Attributes:
        group, position: rows of one group are driven one after the other, by position; int64, shape (rows,).
        coupling: what a unit of one row's current takes off another's, symmetric, float32, shape (rows, rows).
        alone: current of each row when driven alone, shape (rows,).
        drive_v: voltage of each driven row, shape (rows,).
        drop_v: what its mux takes of it per unit of its current, shape (rows,).
        mean_a: column current per unit of each row's current, shape (rows, cols).
        variance_s2: variance of the column current per squared volt on each row's port, shape (rows, cols).
        variance_out_s2: the same of the outputs, shape (rows, outputs).
        ends: converters.
        check_a: column current of a phase above which its conversion might clip, shape (cols,).
        noisy: whether anything is random.
        differential: whether the second half of the columns is subtracted from the first.
    """

    group: NDArray[np.int64]
    position: NDArray[np.int64]
    coupling: Single
    alone: Matrix
    drive_v: Matrix
    drop_v: Matrix
    mean_a: Single
    variance_s2: Single
    variance_out_s2: Single
    ends: Ends
    check_a: Single
    noisy: bool
    differential: bool


def fold_schedule(chip: SimulatedChip, tile: ScheduledTile, v_read_v: float) -> ScheduledSums | None:
    """Matrices for one read voltage; None where the shortcut is not valid and `measure_a` must be used."""
    settings, rows, cols = chip.settings, tile.rows, tile.cols
    drive_v = driven_v(chip, tile, v_read_v)
    mean_v = float(drive_v.mean())
    if not settings.mux.inhibit or np.ptp(drive_v) > _ALIKE * abs(mean_v):
        return None
    # Rows at 0 V carry what the amplifiers' offsets drive.
    relative = drive_v / mean_v if mean_v else np.ones(len(rows))
    impedance_ohm = tile.array.impedance_ohm[np.ix_(rows, rows)]
    own_ohm = np.diag(impedance_ohm) + tile.source_ohm[rows]
    # In this unit the coupling is symmetric.
    unit_s = 1.0 / np.sqrt(own_ohm)
    coupling = unit_s[:, None] * impedance_ohm * unit_s
    alone = relative * unit_s
    to_tia, to_code = 1.0 + chip.tias.gain_error[cols], 1.0 + chip.adcs.gain_error[cols]
    per_volt = unit_s[:, None] * tile.array.gain[rows] * to_code
    mean_a = per_volt * (mean_v * to_tia - chip.tias.offset_v[cols] / relative[:, None])
    variance_s2 = tile.variance_s2[rows] * (to_tia * to_code) ** 2
    n = len(cols) // 2
    ends = _converter(chip, tile)
    # A phase holds one row of each mux at most, which bounds its noise and how far down its current can go.
    mux = channel_of_row(rows, settings.mux.width)
    noise_a2, lowest_a = np.zeros((2, int(mux.max()) + 1, len(cols)))
    np.maximum.at(noise_a2, mux, variance_s2 * (drive_v**2)[:, None])
    np.minimum.at(lowest_a, mux, mean_a * alone[:, None])
    margin_a = _CLIP_SIGMAS * np.sqrt(noise_a2.sum(axis=0) + ends.sigma_a**2)
    check_a = np.minimum(ends.amplifier_a, ends.high_a) - margin_a
    check_a[lowest_a.sum(axis=0) + ends.residue_a - margin_a < ends.low_a] = -np.inf
    return ScheduledSums(
        group=np.where(settings.mux.selects == "independent", mux, 0).astype(np.int64),
        position=phase_of_row(rows, settings.mux.width).astype(np.int64),
        coupling=coupling.astype(np.float32),
        alone=alone,
        drive_v=drive_v,
        drop_v=mean_v * tile.source_ohm[rows] * unit_s,
        mean_a=mean_a.astype(np.float32),
        variance_s2=variance_s2.astype(np.float32),
        variance_out_s2=(variance_s2[:, :n] + variance_s2[:, n:] if tile.differential else variance_s2).astype(
            np.float32
        ),
        ends=ends,
        check_a=(check_a - ends.residue_a).astype(np.float32),
        noisy=bool(variance_s2.any() or ends.sigma_a.any()),
        differential=tile.differential,
    )


def _converter(chip: SimulatedChip, tile: ScheduledTile) -> Ends:
    """What TIA and ADC of every column do to a current, in amperes as they are reported."""
    settings, cols, adcs = chip.settings, tile.cols, chip.adcs
    nothing = np.zeros(len(cols))
    amps_per_code = adcs.lsb_v / settings.tia.r_feedback_ohm
    idle_v = chip.tias.output_v(nothing, cols, nothing)
    stops_code = adcs.ideal_code(np.full(len(cols), settings.tia.swing_low_v), cols)
    on = settings.adc.enabled
    return Ends(
        residue_a=(tile.zero_code - adcs.ideal_code(idle_v, cols)) * amps_per_code,
        sigma_a=on * np.sqrt(adcs.noise_lsb[cols] ** 2 + 1.0 / 12.0) * amps_per_code,
        amplifier_a=(tile.zero_code - stops_code) * amps_per_code if settings.tia.enabled else nothing + np.inf,
        high_a=(tile.zero_code - adcs.code_min) * amps_per_code if on else nothing + np.inf,
        low_a=(tile.zero_code - adcs.code_max) * amps_per_code if on else nothing - np.inf,
    )


# Steps of the kernel


@nb.njit(nogil=True, cache=True)
def _below(mask, position):  # type: ignore[no-untyped-def]
    """How many of the positions below this one are taken."""
    rest = mask & ((np.uint64(1) << np.uint64(position)) - np.uint64(1))
    n = 0
    while rest != 0:
        rest &= rest - np.uint64(1)
        n += 1
    return n


@nb.njit(nogil=True, cache=True)
def _list_phases(words, group, position, taken, rows, turn, start):  # type: ignore[no-untyped-def]
    """Put the driven rows into `rows` phase by phase, phase k from `start[k]` on; returns the number of phases."""
    taken[:] = np.uint64(0)
    start[:] = 0
    for w in range(len(words)):
        word = words[w]
        while word != 0:
            row = w * 64 + np.int64(trailing_zeros(word))
            taken[group[row]] |= np.uint64(1) << np.uint64(position[row])
            word &= word - np.uint64(1)
    n_phases = 0
    for w in range(len(words)):
        word = words[w]
        while word != 0:
            row = w * 64 + np.int64(trailing_zeros(word))
            k = _below(taken[group[row]], position[row])
            turn[row] = k
            start[k + 2] += 1
            n_phases = max(n_phases, k + 1)
            word &= word - np.uint64(1)
    for k in range(n_phases):
        start[k + 2] += start[k + 1]
    for w in range(len(words)):
        word = words[w]
        while word != 0:
            row = w * 64 + np.int64(trailing_zeros(word))
            k = turn[row]
            rows[start[k + 1]] = row
            start[k + 1] += 1
            word &= word - np.uint64(1)
    return n_phases


@nb.njit(fastmath=True, nogil=True, cache=True)
def _solve(rows, coupling, alone, a, x):  # type: ignore[no-untyped-def]
    """Current of each of `rows`, in its unit, in `x`; returns whether it was found."""
    n = len(rows)
    for i in range(n):
        line = coupling[rows[i]]
        x[i] = alone[rows[i]]
        a[i, i] = 0.0
        for j in range(i):
            a[i, j] = line[rows[j]]
            a[j, i] = a[i, j]
    if n == 1:
        return True
    for _ in range(_SWEEPS_MAX):
        worst = 0.0
        for i in range(n):
            load = 0.0
            for j in range(n):
                load += a[i, j] * x[j]
            new = alone[rows[i]] - load
            worst = max(worst, abs(new - x[i]) / alone[rows[i]])
            x[i] = new
        if worst < _CONVERGED:
            return True
    return False


@nb.njit(fastmath=True, nogil=True, cache=True)
def _add_weighted(matrix, rows, weight, total):  # type: ignore[no-untyped-def]
    """Add weighted rows of a matrix to `total`, eight at a time as in `statistical`."""
    n, k = len(total), len(rows)
    i = 0
    while i + 8 <= k:
        a, b, c, d = matrix[rows[i]], matrix[rows[i + 1]], matrix[rows[i + 2]], matrix[rows[i + 3]]
        e, f, g, h = matrix[rows[i + 4]], matrix[rows[i + 5]], matrix[rows[i + 6]], matrix[rows[i + 7]]
        p, q, r, s = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        t, u, v, w = weight[i + 4], weight[i + 5], weight[i + 6], weight[i + 7]
        for j in range(n):
            total[j] += ((p * a[j] + q * b[j]) + (r * c[j] + s * d[j])) + (
                (t * e[j] + u * f[j]) + (v * g[j] + w * h[j])
            )
        i += 8
    while i < k:
        a, p = matrix[rows[i]], weight[i]
        for j in range(n):
            total[j] += p * a[j]
        i += 1


@nb.njit(fastmath=True, nogil=True, parallel=True, cache=True)
def _sum_phases(  # type: ignore[no-untyped-def]
    words, group, position, coupling, alone, drive_v, drop_v, mean, variance, variance_out, residue, sigma, amplifier,
    high, low, check, noisy, differential, states, out, n_phases, lost
):  # fmt: skip
    n_chunks = (len(words) + CHUNK - 1) // CHUNK
    n_rows, n_cols = mean.shape
    n_out = out.shape[1]
    n_groups, n_turns = np.max(group) + 1, np.max(position) + 1
    n_most = min(n_rows, n_rows if n_groups == 1 else n_groups)
    for chunk in nb.prange(n_chunks):
        taken = np.empty(n_groups, np.uint64)
        rows = np.empty(n_rows, np.int64)
        turn = np.empty(n_rows, np.int64)
        start = np.empty(n_turns + 2, np.int64)
        a = np.empty((n_most, n_most))
        x = np.empty(n_most)
        weight = np.empty(n_most, np.float32)
        phase = np.empty(n_cols, np.float32)
        total = np.empty(n_cols, np.float32)
        spread_of_col = np.empty(n_cols, np.float32)
        spread = np.empty(n_out, np.float32)
        raw = np.empty(LANES, np.uint32)
        mantissa = np.empty(LANES, np.float32)
        bits = mantissa.view(np.int32)
        exponent = np.empty(LANES, np.float32)
        normal, second = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
        state = states[chunk]
        for b in range(chunk * CHUNK, min(len(words), (chunk + 1) * CHUNK)):
            k = _list_phases(words[b], group, position, taken, rows, turn, start)
            n_phases[b] = k
            total[:] = np.float32(0.0)
            spread[:] = np.float32(0.0)
            n_plain = 0
            for p in range(k):
                here = rows[start[p] : start[p + 1]]
                lost[b] |= not _solve(here, coupling, alone, a, x)
                for i in range(len(here)):
                    weight[i] = np.float32(x[i])
                phase[:] = np.float32(0.0)
                _add_weighted(mean, here, weight, phase)
                clips = False
                for j in range(n_cols):
                    clips |= phase[j] > check[j]
                for i in range(len(here)):
                    port_v = drive_v[here[i]] - drop_v[here[i]] * x[i]
                    weight[i] = np.float32(port_v * port_v)
                if not clips:
                    n_plain += 1
                    for j in range(n_cols):
                        total[j] += phase[j]
                    _add_weighted(variance_out, here, weight, spread)
                    continue
                spread_of_col[:] = np.float32(0.0)
                _add_weighted(variance, here, weight, spread_of_col)
                for first in range(0, n_cols, LANES):
                    if noisy:
                        fill_normal(state, raw, mantissa, bits, exponent, normal)
                        fill_normal(state, raw, mantissa, bits, exponent, second)
                    for j in range(first, min(n_cols, first + LANES)):
                        current = phase[j] + residue[j]
                        if noisy:
                            current += math.sqrt(spread_of_col[j]) * normal[j - first]
                        current = min(current, amplifier[j])
                        if noisy:
                            current += sigma[j] * second[j - first]
                        total[j] += min(max(current, low[j]), high[j])
            times = np.float32(n_plain)
            result = out[b]
            for j in range(n_cols):
                total[j] += times * residue[j]
            if differential:
                for j in range(n_out):
                    result[j] = total[j] - total[n_out + j]
                    spread[j] += times * (sigma[j] * sigma[j] + sigma[n_out + j] * sigma[n_out + j])
            else:
                for j in range(n_out):
                    result[j] = total[j]
                    spread[j] += times * sigma[j] * sigma[j]
            if noisy:
                for first in range(0, n_out, LANES):
                    fill_normal(state, raw, mantissa, bits, exponent, normal)
                    for j in range(min(LANES, n_out - first)):
                        result[first + j] += normal[j] * np.float32(math.sqrt(spread[first + j]))


def sum_phases_a(
    sums: ScheduledSums, words: NDArray[np.uint64], states: NDArray[np.uint32], out: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Write the output currents of a batch of packed spikes to `out`.

    Args:
        sums: the tile.
        words: packed spikes, shape (B, words).
        states: noise state of each chunk, shape (>= ceil(B / CHUNK), 4, LANES); advanced.
        out: shape (B, outputs).

    Returns:
        Number of phases of each sample, and which samples were not solved in time (to be redone).
    """
    n_phases, lost = np.zeros(len(words), np.int64), np.zeros(len(words), np.bool_)
    ends = sums.ends
    limits = (single.astype(np.float32) for single in (ends.residue_a, ends.sigma_a, ends.amplifier_a))
    _sum_phases(
        words, sums.group, sums.position, sums.coupling, sums.alone, sums.drive_v, sums.drop_v, sums.mean_a,
        sums.variance_s2, sums.variance_out_s2, *limits, ends.high_a.astype(np.float32), ends.low_a.astype(np.float32),
        sums.check_a, sums.noisy, sums.differential, states, out, n_phases, lost,
    )  # fmt: skip
    return n_phases, lost
