"""How good the schedule is: board time of VMMs over what their ADC conversions alone take, and what sparse inputs save.

Board time comes from the sequencer's counters. It depends on profile, tile and inputs, and on nothing that the cells
conduct; on an emulated board it is the same in every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.ads8324 import FRAME_CLOCKS
from firmware_bridge.profile import BoardProfile
from hil.session import Session
from hil.tile import Tile, differential_tile

#: shape of the paper's network: 256 inputs and 200 recurrent rows, 200 differential outputs
PAPER_SHAPE = (456, 200)
#: fractions of active rows that the speed-up is measured at
ACTIVITIES = (0.02, 0.05, 0.1, 0.2)
#: low, so that the sum of many conducting cells stays within the range of the TIA
_V_READ_V = 0.01


@dataclass(frozen=True)
class SparseTime:
    """Inputs of one activity.

    Attributes:
        phases: fewest phases per VMM that the wiring allows, mean over the inputs drawn.
        expected_phases: the same as an expectation.
        measured: board time of a dense VMM over that of such a VMM.
        expected: phases of a dense VMM over `expected_phases`.
        over_bound: board time over the time of the conversions in `phases`.
    """

    phases: float
    expected_phases: float
    measured: float
    expected: float
    over_bound: float


@dataclass(frozen=True)
class ScheduleTimes:
    """Board time of a tile, per VMM.

    Attributes:
        conversions_per_phase: conversions of each ADC in one phase.
        phases: phases of a dense VMM.
        bound_s: phases x conversions_per_phase x cycle of the ADC at the profile's clock.
        dense_s: dense inputs in a batch.
        dense_over_bound: dense_s / bound_s.
        single_s: one dense VMM alone.
        single_dense_over_bound: single_s / bound_s.
        fill_s: what a program takes beside its VMMs: getting ready before, switching off after.
        speedup: by activity, such as "0.02".
    """

    conversions_per_phase: int
    phases: int
    bound_s: float
    dense_s: float
    dense_over_bound: float
    single_s: float
    single_dense_over_bound: float
    fill_s: float
    speedup: dict[str, SparseTime]


def paper_tile(profile: BoardProfile) -> Tile:
    """The paper's tile, or as much of it as the array of this board holds."""
    n_rows, n_outputs = PAPER_SHAPE
    return differential_tile(min(n_rows, profile.rows), min(n_outputs, profile.cols // 2))


def measure_schedule(
    session: Session, profile: BoardProfile, tile: Tile, *, batch: int = 32, n_vectors: int = 1000, seed: int = 0
) -> ScheduleTimes:
    """Multiply dense and sparse inputs, and compare board times.

    Args:
        session: an open board.
        profile: that board's.
        tile: what to multiply with.
        batch: dense VMMs per call, at least 2.
        n_vectors: VMMs of each activity.
        seed: draws which rows are active; rows are independent of each other.
    """

    def board_time_s(bits: NDArray[np.bool_]) -> float:
        before_s = session.telemetry().values["board_time_s"]
        session.vmm(bits, tile, _V_READ_V)
        return session.telemetry().values["board_time_s"] - before_s

    rng = np.random.default_rng(seed)
    dense = np.ones((batch, tile.n_rows), np.bool_)
    conversions = math.ceil(len(tile.cols) / profile.adc.count)
    cycle_s = FRAME_CLOCKS / profile.adc.clock_hz
    phases = int(fewest_phases(profile, tile.rows, dense[:1])[0])
    bound_s = phases * conversions * cycle_s
    batch_s, pair_s, single_s = (board_time_s(dense[:n]) for n in (batch, 2, 1))
    dense_s = batch_s / batch
    speedup: dict[str, SparseTime] = {}
    for activity in ACTIVITIES:
        bits = rng.random((n_vectors, tile.n_rows)) < activity
        taken_s = board_time_s(bits) / n_vectors
        fewest = float(fewest_phases(profile, tile.rows, bits).mean())
        expected = expected_phases(profile, tile.rows, activity)
        speedup[f"{activity:g}"] = SparseTime(
            phases=fewest,
            expected_phases=expected,
            measured=dense_s / taken_s,
            expected=phases / expected,
            over_bound=taken_s / (fewest * conversions * cycle_s),
        )
    return ScheduleTimes(
        conversions_per_phase=conversions,
        phases=phases,
        bound_s=bound_s,
        dense_s=dense_s,
        dense_over_bound=dense_s / bound_s,
        single_s=single_s,
        single_dense_over_bound=single_s / bound_s,
        fill_s=2.0 * single_s - pair_s,
        speedup=speedup,
    )


def fewest_phases(profile: BoardProfile, rows: NDArray[np.intp], bits: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Phases that each vector of `bits`, shape (B, n_rows), needs at least, shape (B,).

    With independent selects the busiest mux counts, with common selects the positions that have any active row.
    """
    if profile.mux.selects == "common":
        position = profile.row_position(rows)
        return np.stack([bits[:, position == p].any(axis=1) for p in np.unique(position)]).sum(axis=0)
    mux = profile.row_mux(rows)
    return np.stack([bits[:, mux == m].sum(axis=1) for m in np.unique(mux)]).max(axis=0)


def expected_phases(profile: BoardProfile, rows: NDArray[np.intp], activity: float) -> float:
    """Expectation of `fewest_phases` for rows that are active independently of each other."""
    if profile.mux.selects == "common":
        n_at = np.bincount(profile.row_position(rows))
        return float((1.0 - (1.0 - activity) ** n_at).sum())
    n_of = np.bincount(profile.row_mux(rows))
    # E[max] is the sum over k of P(max > k).
    return sum(1.0 - math.prod(_binomial_at_most(k, int(n), activity) for n in n_of) for k in range(int(n_of.max())))


def _binomial_at_most(k: int, n: int, p: float) -> float:
    """Probability of at most k successes in n trials."""
    return sum(math.comb(n, i) * p**i * (1.0 - p) ** (n - i) for i in range(min(k, n) + 1))
