"""A network on an array with faults: where it is put, and what its gain is measured on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hil import open_session
from hil.backend import BackendInfo, Capabilities, CrossbarBackend, Limits, PulseReport, Telemetry
from hil.errors import ConfigError, DeviceError, LimitError
from hil.fault_map import Fault, FaultMap
from hil.lsm.encoder import LsmEncoder, lsm_tile
from hil.lsm.settings import LsmSettings
from hil.placement import tile_faults
from hil.spikes import pack_bits, unpack_bits
from hil.tile import Tile
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

SHAPE = (48, 40)
NETWORK = LsmSettings(n_neurons=12)
N_INPUTS = 20


class GivenConductances(CrossbarBackend):
    """An array whose conductances a test chooses, without noise."""

    def __init__(self, conductance_s: NDArray[np.float64]) -> None:
        self.conductance_s = conductance_s

    @property
    def info(self) -> BackendInfo:
        rows, cols = self.conductance_s.shape
        return BackendInfo("given", (rows, cols), {}, Capabilities(), Limits(0.5, 4.0, 5.0, 1e-3, 10))

    def open(self) -> None:
        pass

    close = make_safe = open

    def vmm(self, x: Any, tile: Tile, v_read_v: float, *, out: Any = None) -> NDArray[np.float32]:
        bits = unpack_bits(x.words, tile.n_rows)
        plus, minus = np.split(self.conductance_s[np.ix_(tile.rows, tile.cols)], 2, axis=1)
        current_a = (v_read_v * (bits @ (plus - minus))).astype(np.float32)
        if out is None:
            return current_a
        out[...] = current_a
        return out

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        raise NotImplementedError

    def pulse(self, mask: NDArray[np.bool_], pulse: Any) -> PulseReport:
        raise NotImplementedError

    def telemetry(self) -> Telemetry:
        return Telemetry()


def conductances(seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(14.25e-6, 4.7e-6, SHAPE).clip(1e-6)


def stuck_on(n: int, seed: int = 1) -> NDArray[np.bool_]:
    mask = np.zeros(SHAPE, np.bool_)
    mask.ravel()[np.random.default_rng(seed).choice(mask.size, n, replace=False)] = True
    return mask


def test_a_map_without_faults_changes_nothing() -> None:
    spikes = pack_bits(np.random.default_rng(0).random((7, 20, N_INPUTS)) < 0.3)
    found = []
    for fault_map in (None, FaultMap.healthy_array(SHAPE)):
        with open_session(SimBackend(SimSettings(rows=SHAPE[0], cols=SHAPE[1]), seed=4)) as session:
            encoder = LsmEncoder(session, NETWORK, N_INPUTS, fault_map)
            found.append((encoder.drive_per_a, encoder.encode(spikes)))
    (drive, counts), (other_drive, other_counts) = found
    assert drive == other_drive
    np.testing.assert_array_equal(counts, other_counts)
    assert counts.any()


def test_the_network_avoids_lines_that_are_out() -> None:
    faults = np.zeros(SHAPE, np.uint8)
    faults[:, [0, 9]], faults[[2, 31]] = Fault.COL_OPEN, Fault.ROW_SHORT
    fault_map = FaultMap(faults)
    tile = lsm_tile(N_INPUTS, 12, fault_map)
    assert (tile.n_rows, tile.n_outputs) == (32, 12)
    assert tile_faults(tile, fault_map).sum() == 0
    assert not set(tile.rows) & {2, 31}
    assert not set(tile.cols) & {0, 9}


def test_each_spike_drives_the_row_and_column_of_its_place() -> None:
    """On scattered lines the network is the one that its conductances form when they are pushed together."""
    faults = np.zeros(SHAPE, np.uint8)
    faults[:, [0, 9, 10]], faults[[2, 3, 31]] = Fault.COL_OPEN, Fault.ROW_OPEN
    fault_map = FaultMap(faults)
    g = conductances()
    tile = lsm_tile(N_INPUTS, 12, fault_map)
    assert tile.minus_cols is not None
    together = g[np.ix_(tile.rows, np.stack([tile.plus_cols, tile.minus_cols], axis=1).ravel())]
    spikes = pack_bits(np.random.default_rng(3).random((9, 25, N_INPUTS)) < 0.3)
    with open_session(GivenConductances(g)) as scattered, open_session(GivenConductances(together)) as compact:
        counts = LsmEncoder(scattered, NETWORK, N_INPUTS, fault_map).encode(spikes)
        expected = LsmEncoder(compact, NETWORK, N_INPUTS).encode(spikes)
    np.testing.assert_array_equal(counts, expected)
    assert counts.any()


def test_cells_stuck_on_do_not_lower_the_gain() -> None:
    g = conductances()
    mask = stuck_on(60)
    fault_map = FaultMap.healthy_array(SHAPE).with_faults(mask, Fault.STUCK_ON)
    with open_session(GivenConductances(np.where(mask, 300e-6, g))) as session:
        unaware = LsmEncoder(session, NETWORK, N_INPUTS)
        aware = LsmEncoder(session, NETWORK, N_INPUTS, fault_map)
    with open_session(GivenConductances(g)) as session:
        without = LsmEncoder(session, NETWORK, N_INPUTS)
    assert tile_faults(aware.tile, fault_map).any(), "the tile has stuck cells, so that this shows something"
    assert aware.drive_per_a == pytest.approx(without.drive_per_a, rel=0.1)
    assert unaware.drive_per_a < 0.3 * without.drive_per_a


def test_a_tile_of_faulty_cells_only_is_refused() -> None:
    everywhere = FaultMap(np.full(SHAPE, Fault.UNFORMED, np.uint8))
    with open_session(GivenConductances(conductances())) as session, pytest.raises(DeviceError, match="faulty cell"):
        LsmEncoder(session, NETWORK, N_INPUTS, everywhere)


def test_a_map_of_another_array_is_refused() -> None:
    with open_session(GivenConductances(conductances())) as session, pytest.raises(ConfigError, match="8 x 8"):
        LsmEncoder(session, NETWORK, N_INPUTS, FaultMap.healthy_array((8, 8)))


def test_a_network_that_does_not_fit_between_the_faults_is_refused() -> None:
    faults = np.zeros(SHAPE, np.uint8)
    faults[:17] = Fault.ROW_OPEN
    with open_session(GivenConductances(conductances())) as session, pytest.raises(LimitError, match="31 of 48 rows"):
        LsmEncoder(session, NETWORK, N_INPUTS, FaultMap(faults))
