"""The schedule on an emulated board with INH: what costs board time, and what must not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_bridge.emulator import emulated_backend
from firmware_bridge.profile import BoardProfile, load_profile
from firmware_bridge.schedule_bench import expected_phases, fewest_phases, measure_schedule
from hil import Session, Tile, differential_tile, open_session, single_ended_tile
from sim_backend.settings import SimSettings

#: one conversion: 24 clocks at 1.2 MHz by data sheet; the fabric's next slower clock has a half period of 42 ticks
CYCLE_S = 20e-6
FABRIC_CYCLE_S = 48 * 42 * 10e-9
MUXES, WIDTH, ADCS = 8, 8, 4
V_READ_V = 0.01

PROFILE = """
name = "small-inh"
rows = 64
cols = 32
[dac]
chips = 2
vdd_v = 5.25
write_clock_hz = 25e6
read_clock_hz = 12.5e6
row_chips = [0]
gate_channel = [1, 0]
source_line_channel = [1, 1]
[mux]
count = 8
width = 8
selects = "{selects}"
inhibit = {inhibit}
vdd_v = 15.0
settle_s = 0.24e-6
[chains]
rows = {{ chips = 4 }}
word_lines = {{ chips = 4 }}
vcc_v = 4.5
clock_hz = 10e6
[adc]
count = 4
positions = 8
columns = "interleaved"
clock_hz = 1.2e6
select_settle_s = 3e-6
[tia]
r_feedback_ohm = 20e3
v_common_v = 1.6
settle_s = 5e-6
[programming]
form = "source_line"
[limits]
v_read_max_v = 0.5
v_pulse_max_v = 4.9
v_gate_max_v = 4.9
v_gate_read_v = 3.3
pulse_width_max_s = 1e-3
pulses_per_cell_max = 1000
watchdog_s = 0.2
"""


@dataclass(frozen=True)
class Spent:
    """Board time of some VMMs, and how much of it each engine ran."""

    total_s: float
    convert_s: float
    spi_s: float
    shift_s: float

    @property
    def conversions(self) -> float:
        """Conversions of each ADC."""
        return self.convert_s / FABRIC_CYCLE_S


@dataclass(frozen=True)
class Board:
    session: Session
    profile: BoardProfile

    def spend(self, bits: NDArray[np.generic], tile: Tile) -> Spent:
        before = self.session.telemetry().values
        self.session.vmm(bits, tile, V_READ_V)
        after = self.session.telemetry().values
        keys = ("board_time_s", "board_convert_s", "board_spi_s", "board_shift_s")
        return Spent(*(after[key] - before.get(key, 0.0) for key in keys))


def board(folder: Path, *, selects: str = "independent", inhibit: bool = True) -> Iterator[Board]:
    file = folder / "small.toml"
    file.write_text(PROFILE.format(selects=selects, inhibit=str(inhibit).lower()))
    backend = emulated_backend(str(file), SimSettings(ideal=True), 0)
    with open_session(backend) as session:
        yield Board(session, load_profile(file))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Independent selects and INH: channels stay at the read voltage."""
    yield from board(tmp_path_factory.mktemp("inh"))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Independent selects without INH: idle channels are held at the idle level, so that DACs must be written."""
    yield from board(tmp_path_factory.mktemp("held"), inhibit=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """Common selects without INH."""
    yield from board(tmp_path_factory.mktemp("shared"), selects="common", inhibit=False)


WHOLE = differential_tile(64, 16)
K = 32 // ADCS


def one_vector(*rows: int) -> NDArray[np.bool_]:
    bits = np.zeros((1, 64), np.bool_)
    bits[0, list(rows)] = True
    return bits


class TestBound:
    @pytest.mark.parametrize("wiring", ["small", "held", "shared"])
    def test_dense_batch_is_near_the_time_of_its_conversions(self, request: pytest.FixtureRequest, wiring: str) -> None:
        found: Board = request.getfixturevalue(wiring)
        spent = found.spend(np.ones((32, 64), np.bool_), WHOLE)
        assert 1.0 <= spent.total_s / (32 * WIDTH * K * CYCLE_S) <= 1.10

    @pytest.mark.parametrize("wiring", ["small", "held", "shared"])
    def test_sparse_batch_is_near_the_time_of_its_conversions(
        self, request: pytest.FixtureRequest, wiring: str
    ) -> None:
        found: Board = request.getfixturevalue(wiring)
        bits = np.random.default_rng(1).random((64, 64)) < 0.1
        phases = fewest_phases(found.profile, WHOLE.rows, bits).sum()
        assert 1.0 <= found.spend(bits, WHOLE).total_s / (phases * K * CYCLE_S) <= 1.10

    def test_no_gap_between_conversions_of_a_batch(self, small: Board) -> None:
        """Shifting and settling hide inside the last conversion of each phase."""
        one, many = (small.spend(np.ones((n, 64), np.bool_), WHOLE) for n in (1, 33))
        added_s = (many.total_s - one.total_s) - (many.convert_s - one.convert_s)
        assert added_s < 32 * WIDTH * 0.03 * FABRIC_CYCLE_S


class TestPhases:
    def test_as_many_as_the_busiest_mux_has_active_rows(self, small: Board) -> None:
        # mux 0 has three, mux 1 two, mux 7 one; at positions that differ
        spent = small.spend(one_vector(0, 3, 7, 8, 14, 57), WHOLE)
        assert spent.conversions == pytest.approx(3 * K)

    def test_random_batch(self, small: Board) -> None:
        bits = np.random.default_rng(2).random((50, 64)) < 0.15
        busiest = bits.reshape(50, MUXES, WIDTH).sum(axis=2).max(axis=1)
        assert small.spend(bits, WHOLE).conversions == pytest.approx(busiest.sum() * K)

    def test_common_selects_take_one_for_each_position_with_an_active_row(self, shared: Board) -> None:
        # positions 0, 3 and 7; mux 0 has two of them
        assert shared.spend(one_vector(0, 3, 8, 39, 59), WHOLE).conversions == pytest.approx(3 * K)

    @pytest.mark.parametrize("wiring", ["small", "held", "shared"])
    def test_a_silent_vector_costs_no_conversion(self, request: pytest.FixtureRequest, wiring: str) -> None:
        found: Board = request.getfixturevalue(wiring)
        silent = np.zeros((5, 64), np.bool_)
        assert found.spend(silent, WHOLE).total_s == 0.0
        loud = one_vector(0, 1)
        alone, among = found.spend(loud, WHOLE), found.spend(np.concatenate([silent, loud, silent]), WHOLE)
        assert among.conversions == pytest.approx(alone.conversions)
        assert among.total_s == pytest.approx(alone.total_s)


class TestColumns:
    def test_unneeded_columns_are_not_converted(self, small: Board) -> None:
        """Columns 8..15 are two positions of four ADCs."""
        tile = Tile(rows=np.arange(64), plus_cols=np.arange(8, 16))
        assert small.spend(np.ones((1, 64), np.bool_), tile).conversions == pytest.approx(WIDTH * 2)

    def test_nor_those_in_between(self, small: Board) -> None:
        """Columns 0 and 31 are at the first and the last position."""
        tile = Tile(rows=np.arange(64), plus_cols=np.array([0, 31]))
        assert small.spend(np.ones((1, 64), np.bool_), tile).conversions == pytest.approx(WIDTH * 2)

    def test_unused_rows_take_no_phase(self, small: Board) -> None:
        tile = Tile(rows=np.arange(0, 64, 4), plus_cols=np.arange(32))
        assert small.spend(np.ones((1, 16), np.bool_), tile).conversions == pytest.approx(2 * K)


class TestDacWrites:
    def test_with_inh_the_dacs_are_set_once_for_a_batch(self, small: Board) -> None:
        bits = np.random.default_rng(3).random((20, 64)) < 0.3
        assert small.spend(bits, WHOLE).spi_s == pytest.approx(small.spend(bits[:1], WHOLE).spi_s)

    def test_without_inh_only_channels_that_change_are_written(self, held: Board) -> None:
        """The same rows again need no frame; others of the same muxes only a shift."""
        tile = single_ended_tile(64, 4)
        once = held.spend(one_vector(0, 8, 16), tile).spi_s
        again = held.spend(np.repeat(one_vector(0, 8, 16), 10, axis=0), tile).spi_s
        moved = held.spend(np.concatenate([one_vector(0, 8, 16), one_vector(1, 9, 17)]), tile).spi_s
        other = held.spend(np.concatenate([one_vector(0, 8, 16), one_vector(0, 8, 24)]), tile).spi_s
        assert again == pytest.approx(once)
        assert moved == pytest.approx(once)
        # Mux 2 goes down, mux 3 up, one LDAC: three frames of the same length.
        frame_s = (held.spend(one_vector(0, 8, 16, 24), tile).spi_s) - once
        assert frame_s > 0
        assert other - once == pytest.approx(3 * frame_s)


class TestMeasure:
    def test_small_board(self, small: Board) -> None:
        times = measure_schedule(small.session, small.profile, WHOLE, n_vectors=100)
        assert (times.phases, times.conversions_per_phase) == (WIDTH, K)
        assert times.bound_s == pytest.approx(WIDTH * K * CYCLE_S)
        assert 1.0 <= times.dense_over_bound <= 1.10
        assert times.single_dense_over_bound > times.dense_over_bound
        assert 0 < times.fill_s < 100e-6
        assert times.single_s == pytest.approx(times.dense_s + times.fill_s, rel=0.01)
        assert list(times.speedup) == ["0.02", "0.05", "0.1", "0.2"]
        for at in times.speedup.values():
            assert 1.0 <= at.over_bound <= 1.15
            assert at.phases == pytest.approx(at.expected_phases, rel=0.25)
            assert at.measured == pytest.approx(WIDTH / at.phases, rel=0.1)

    def test_it_repeats(self, small: Board) -> None:
        first, second = (measure_schedule(small.session, small.profile, WHOLE, n_vectors=20) for _ in range(2))
        assert first.dense_s == pytest.approx(second.dense_s, rel=1e-9)
        assert [at.phases for at in first.speedup.values()] == [at.phases for at in second.speedup.values()]


class TestExpectation:
    @pytest.mark.parametrize(
        ("activity", "phases", "speedup"),
        [(0.02, 1.47, 5.4), (0.05, 2.27, 3.5), (0.1, 3.17, 2.5), (0.2, 4.49, 1.8), (0.5, 7.07, 1.1)],
    )
    def test_the_paper_s_tile(self, activity: float, phases: float, speedup: float) -> None:
        """57 channels of 8 rows."""
        found = expected_phases(load_profile("paper-guess"), np.arange(456), activity)
        assert found == pytest.approx(phases, abs=0.006)
        assert 8 / found == pytest.approx(speedup, abs=0.05)

    def test_common_selects(self, shared: Board) -> None:
        found = expected_phases(shared.profile, np.arange(64), 0.1)
        assert found == pytest.approx(8 * (1 - 0.9**8))

    @pytest.mark.parametrize("wiring", ["small", "shared"])
    def test_it_is_the_mean_of_the_fewest(self, request: pytest.FixtureRequest, wiring: str) -> None:
        profile = request.getfixturevalue(wiring).profile
        rows = np.arange(5, 47)  # muxes that have fewer rows in it than others
        bits = np.random.default_rng(4).random((20_000, len(rows))) < 0.1
        drawn = fewest_phases(profile, rows, bits)
        error = drawn.std() / math.sqrt(len(drawn))
        assert drawn.mean() == pytest.approx(expected_phases(profile, rows, 0.1), abs=5 * error)
