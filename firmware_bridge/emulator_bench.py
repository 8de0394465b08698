"""How fast the emulated board is on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.bus import RegisterBus
from firmware_bridge.emulator import EmulatedBoard, EmulatedFabric
from firmware_bridge.profile import BoardProfile
from firmware_bridge.schedule_bench import paper_tile
from hil.session import Session, open_session
from hil.tile import Tile
from sim_backend.settings import SimSettings

#: fraction of active rows: that of the bins of N-MNIST, taken for the recurrent rows too
ACTIVITY = 0.089
_V_READ_V = 0.2

Result = TypeVar("Result")


@dataclass(frozen=True)
class EmulatorSpeed:
    """Wall time of an emulated board; rates are medians over rounds.

    Attributes:
        vmm_per_s: VMMs per second of wall time, `ACTIVITY` of the rows active.
        vmm_per_s_dense: the same with all rows active.
        emulated_over_wall: seconds of the board per second of wall time, sparse inputs.
        emulated_over_wall_dense: the same, dense inputs.
        host_fraction: share of the host (compiling and checking programs, decoding) in the wall time, sparse inputs;
            the rest is the emulation.
        open_s: wall time of power-up and self-test.
        prepare_s: wall time of the first VMM on the tile, in which the array's network is solved.
        threads: threads that the linear algebra may use.
    """

    vmm_per_s: float
    vmm_per_s_dense: float
    emulated_over_wall: float
    emulated_over_wall_dense: float
    host_fraction: float
    open_s: float
    prepare_s: float
    threads: int


class _TimedBus:
    """A register bus that adds up the time spent behind it."""

    def __init__(self, bus: RegisterBus) -> None:
        self._bus = bus
        self.spent_s = 0.0

    def read(self, offset: int) -> int:
        return self._timed(lambda: self._bus.read(offset))

    def write(self, offset: int, value: int) -> None:
        self._timed(lambda: self._bus.write(offset, value))

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        self._timed(lambda: self._bus.write_block(offset, words))

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        return self._timed(lambda: self._bus.read_stream(count))

    def _timed(self, call: Callable[[], Result]) -> Result:
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.spent_s += time.perf_counter() - start


@dataclass(frozen=True)
class _Rate:
    vmm_per_s: float
    emulated_over_wall: float
    host_fraction: float


def measure_emulator(profile: BoardProfile, *, batch: int = 32, rounds: int = 5, seed: int = 0) -> EmulatorSpeed:
    """Time an emulated board with all effects on.

    Args:
        profile: which board.
        batch: VMMs per call.
        rounds: calls that count, for each kind of input.
        seed: hidden chip and inputs.
    """
    settings = SimSettings.model_validate(
        {"rows": profile.rows, "cols": profile.cols, "mux": {"width": profile.mux.width}}
    )
    bus = _TimedBus(EmulatedFabric(EmulatedBoard(profile, settings, seed)))
    tile = paper_tile(profile)
    rng = np.random.default_rng(seed)
    sparse = rng.random((rounds, batch, tile.n_rows)) < ACTIVITY
    start = time.perf_counter()
    with open_session(BoardBackend(bus, profile, name="emulator")) as session:
        opened = time.perf_counter()
        session.vmm(sparse[0, :1], tile, _V_READ_V)
        prepared = time.perf_counter()
        thin = _rate(session, bus, tile, sparse)
        dense = _rate(session, bus, tile, np.ones_like(sparse))
    return EmulatorSpeed(
        vmm_per_s=thin.vmm_per_s,
        vmm_per_s_dense=dense.vmm_per_s,
        emulated_over_wall=thin.emulated_over_wall,
        emulated_over_wall_dense=dense.emulated_over_wall,
        host_fraction=thin.host_fraction,
        open_s=opened - start,
        prepare_s=prepared - opened,
        threads=max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1),
    )


def _rate(session: Session, bus: _TimedBus, tile: Tile, bits: NDArray[np.bool_]) -> _Rate:
    """Medians over rounds of bits, shape (rounds, batch, n_rows)."""
    found: list[tuple[float, float, float]] = []
    for batch in bits:
        board_s, behind_s = session.telemetry().values["board_time_s"], bus.spent_s
        start = time.perf_counter()
        session.vmm(batch, tile, _V_READ_V)
        wall_s = time.perf_counter() - start
        behind_s = bus.spent_s - behind_s
        board_s = session.telemetry().values["board_time_s"] - board_s
        found.append((len(batch) / wall_s, board_s / wall_s, 1.0 - behind_s / wall_s))
    return _Rate(*(float(value) for value in np.median(found, axis=0)))
