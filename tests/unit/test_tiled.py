"""The tiled array: the product of all its blocks, and every macro safe whatever happens to one of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
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
)
from hil.errors import CapabilityError, ConfigError, DeviceError, LimitError, TransportError, UnconfirmedError
from hil.lsm.encoder import LsmEncoder, lsm_tile, shared_tile
from hil.lsm.reference import trace
from hil.lsm.settings import LsmSettings
from hil.session import open_session
from hil.spikes import PackedSpikes, pack_bits
from hil.tile import Tile, differential_tile, single_ended_tile
from hil.tiled import NEIGHBOURS, TiledBackend, arrange
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

LIMITS = Limits(v_read_max_v=0.5, v_pulse_max_v=5.0, v_gate_max_v=4.0, pulse_width_max_s=1e-3, pulses_per_cell_max=5)
PULSE = Pulse("set", voltage_v=1.0, v_gate_v=1.5, width_s=1e-6)
ABLE = Capabilities(frozenset({"form", "set"}), analogue_rows=True, bipolar_read=True)


class Macro(CrossbarBackend):
    """Exact products with a matrix; a pulse adds a siemens. Raises at the calls that `fails` names or numbers."""

    def __init__(
        self, cells_s: NDArray[np.float64], fails: dict[Any, BaseException] | None = None, **about: Any
    ) -> None:
        self.cells_s = cells_s.copy()
        self.fails = fails or {}
        self.calls: list[str] = []
        self.tiles: list[Tile] = []
        self.clock: Callable[[], float] = lambda: self.waited_s
        self.waited_s = 0.0
        self._info = replace(BackendInfo("mock", self.cells_s.shape, {"chip": 1}, ABLE, LIMITS), **about)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        for key in (name, len(self.calls) - 1):
            if key in self.fails:
                raise self.fails[key]

    @property
    def info(self) -> BackendInfo:
        return self._info

    def open(self) -> None:
        self._call("open")

    def close(self) -> None:
        self._call("close")

    def make_safe(self) -> None:
        self._call("make_safe")

    def abort(self) -> None:
        self._call("abort")

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        self._call("vmm")
        self.tiles.append(tile)
        levels = x.unpack() if isinstance(x, PackedSpikes) else np.asarray(x, np.float64)
        chosen = self.cells_s[tile.rows]
        weights = chosen[:, tile.plus_cols] - (0.0 if tile.minus_cols is None else chosen[:, tile.minus_cols])
        return np.asarray(v_read_v * levels @ weights, np.float32)

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._call("read")
        return v_read_v * self.cells_s[mask] * n_average

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        self._call("pulse")
        self.cells_s[mask] += 1.0
        return PulseReport(int(mask.sum()), pulse, replace(pulse, voltage_v=0.9))

    def telemetry(self) -> Telemetry:
        return Telemetry({"vmm_count": 2.0, "board_time_s": 0.5})

    def wait(self, duration_s: float) -> None:
        self.waited_s += duration_s

    def now_s(self) -> float:
        return self.clock()

    def self_test(self) -> list[Check]:
        return [Check("mux 3", ok=False, text="dead")]


def macros(n: int, shape: tuple[int, int] = (5, 4), **about: Any) -> list[Macro]:
    rng = np.random.default_rng(0)
    return [Macro(rng.integers(1, 100, shape).astype(np.float64), **about) for _ in range(n)]


def opened(some: list[Macro], *grid: int, seed: int = 0) -> TiledBackend:
    tiled = TiledBackend(some, *grid, seed=seed)
    tiled.open()
    return tiled


def cells_of(some: list[Macro], grid: tuple[int, int], seed: int) -> NDArray[np.float64]:
    """The virtual array, cell by cell."""
    blocks = arrange(len(some), grid, some[0].info.shape, seed)
    return np.block([[some[b.macro].cells_s[np.ix_(b.rows, b.cols)] for b in row] for row in blocks])


# The product


@st.composite
def arrays(draw: st.DrawFn) -> tuple[list[Macro], tuple[int, int], int]:
    grid = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = draw(st.sampled_from([(3, 4), (5, 6), (70, 4), (64, 2), (130, 2)]))
    return macros(draw(st.integers(1, grid[0] * grid[1])), shape), grid, draw(st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(arrays(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_product_is_that_of_the_whole_array(
    array: tuple[list[Macro], tuple[int, int], int], differential: bool, ordered: bool, seed: int
) -> None:
    """For all formats of rows, and for lines in any order."""
    some, grid, arrangement = array
    rng = np.random.default_rng(seed)
    tiled = opened(some, *grid, seed=arrangement)
    cells_s = cells_of(some, grid, arrangement)
    n_rows, n_cols = tiled.info.shape
    assert cells_s.shape == (n_rows, n_cols)
    rows = rng.permutation(n_rows)[: rng.integers(1, n_rows + 1)]
    pairs = rng.permutation(n_cols // 2)[: rng.integers(1, n_cols // 2 + 1)]
    if ordered:
        rows, pairs = np.arange(rows.min(), n_rows), np.sort(pairs)
    tile = Tile(rows, 2 * pairs, 2 * pairs + 1 if differential else None)
    weights = cells_s[np.ix_(rows, tile.plus_cols)]
    if tile.minus_cols is not None:
        weights = weights - cells_s[np.ix_(rows, tile.minus_cols)]
    bits = rng.random((3, len(rows))) < 0.5
    for x in (bits, bits.astype(np.uint8), PackedSpikes.pack(bits)):
        np.testing.assert_array_equal(tiled.vmm(x, tile, 0.5), 0.5 * bits @ weights)
    levels = rng.integers(0, 5, bits.shape) / 4
    out = np.full((3, tile.n_outputs), np.nan, np.float32)
    assert tiled.vmm(levels, tile, 0.5, out=out) is out
    np.testing.assert_array_equal(out, 0.5 * levels @ weights)


@settings(max_examples=20, deadline=None)
@given(arrays(), st.integers(0, 2**32 - 1))
def test_single_reads_are_of_the_cells_of_the_product_in_row_major_order(
    array: tuple[list[Macro], tuple[int, int], int], seed: int
) -> None:
    some, grid, arrangement = array
    tiled = opened(some, *grid, seed=arrangement)
    mask = np.random.default_rng(seed).random(tiled.info.shape) < 0.3
    found_a = tiled.read(mask, 0.5, n_average=3)
    np.testing.assert_array_equal(found_a, 1.5 * cells_of(some, grid, arrangement)[mask])


def test_a_network_over_several_simulated_macros_spikes_as_its_equations_say() -> None:
    """Block by block on packed words, against one NumPy operation per equation."""
    sims = [SimBackend(SimSettings(rows=16, cols=16, ideal=True), seed=k) for k in range(3)]
    lsm = LsmSettings(n_neurons=20, const_per_us=0.4, batch=7)
    spikes = pack_bits(np.random.default_rng(0).random((10, 12, 70)) < 0.2)
    with open_session(TiledBackend(sims, 6, 3)) as session:
        tile = lsm_tile(70, 20)
        whole = LsmEncoder(session, lsm, 70, tile=tile)
        counts = whole.encode(spikes)
        np.testing.assert_array_equal(counts, trace(whole, spikes).counts)
        assert 0.05 < counts.mean() / 12 < 0.9
        fewer = LsmEncoder(session, lsm, 33, tile=shared_tile(tile, 70, 33))
        some = pack_bits(np.random.default_rng(1).random((4, 12, 33)) < 0.4)
        np.testing.assert_array_equal(fewer.encode(some), trace(fewer, some).counts)


def test_one_macro_is_the_macro() -> None:
    sim, same = (SimBackend(SimSettings(rows=16, cols=16), seed=4) for _ in range(2))
    x = np.random.default_rng(0).random((9, 12)) < 0.5
    found: list[NDArray[np.float32]] = []
    for backend in (TiledBackend([sim], 1, 1, seed=9), same):
        with open_session(backend) as session:
            found.append(session.vmm(x, differential_tile(12, 6), 0.2))
    np.testing.assert_array_equal(*found)


def test_a_silent_block_is_converted_too() -> None:
    some = macros(2)
    opened(some, 2, 1).vmm(np.zeros((1, 10), np.bool_), single_ended_tile(10, 4), 0.2)
    assert [macro.calls.count("vmm") for macro in some] == [1, 1]


def test_macros_get_the_same_tiles_every_time_and_no_longer_than_the_tile_lives() -> None:
    some = macros(2)
    tiled, tile = opened(some, 2, 2), differential_tile(8, 4)
    for _ in range(2):
        tiled.vmm(np.ones((1, 8), np.bool_), tile, 0.2)
    first, second, *again = some[0].tiles
    assert first is not second
    assert again == [first, second]
    kept = weakref.ref(first)
    del first, second, again, tile
    some[0].tiles.clear()
    assert kept() is None


# The arrangement


def test_the_first_use_of_a_macro_takes_its_lines_as_they_are() -> None:
    for block in arrange(4, (2, 2), (6, 8), seed=3)[0]:
        np.testing.assert_array_equal(block.rows, np.arange(6))
        np.testing.assert_array_equal(block.cols, np.arange(8))
    assert [[b.macro for b in row] for row in arrange(3, (2, 2), (6, 8), seed=3)] == [[0, 1], [2, 0]]


@pytest.mark.parametrize("n_cols", [2, 16, 21, 50])
def test_further_uses_shuffle_rows_and_pair_columns_that_are_near(n_cols: int) -> None:
    blocks = [b for row in arrange(2, (3, 4), (40, n_cols), seed=1) for b in row][2:]
    for block in blocks:
        np.testing.assert_array_equal(np.sort(block.rows), np.arange(40))
        np.testing.assert_array_equal(np.sort(block.cols), np.arange(n_cols))
        n_pairs = n_cols // 2
        plus, minus = block.cols[: 2 * n_pairs].reshape(n_pairs, 2).T
        # An odd number of columns moves pairs of the last few across the end of a neighbourhood at most.
        assert np.all(np.abs(plus - minus) < NEIGHBOURS)
        if n_cols == 50:
            assert np.abs(block.cols - np.arange(n_cols)).max() > NEIGHBOURS, "pairs go anywhere"
    assert len({block.rows.tobytes() for block in blocks}) == len(blocks)


def test_blocks_on_one_macro_have_unrelated_weights() -> None:
    """Nor have the rows of two blocks, which a shuffle of the rows alone would leave alike."""
    cells = np.random.default_rng(0).normal(14.0, 4.7, (64, 64))
    cells_s = cells_of([Macro(cells)], (2, 2), seed=0)
    weights = cells_s[:, ::2] - cells_s[:, 1::2]
    blocks = [weights[i : i + 64, j : j + 32] for i in (0, 64) for j in (0, 32)]
    same_cell = np.corrcoef([block.ravel() for block in blocks])
    assert np.abs(same_cell - np.eye(4)).max() < 0.1
    between_rows = np.corrcoef(np.hstack(blocks[:2]), np.hstack(blocks[2:]))
    assert np.abs(between_rows - np.eye(128)).max() < 0.75
    between_outputs = np.corrcoef(np.vstack(blocks[::2]).T, np.vstack(blocks[1::2]).T)
    assert np.abs(between_outputs - np.eye(64)).max() < 0.5


def test_the_seed_decides_the_arrangement() -> None:
    some = macros(1, (20, 20))
    one, same, other = (cells_of(some, (2, 1), seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


# What it says of itself


def test_it_can_do_what_all_macros_can_within_all_their_limits() -> None:
    less = macros(
        1, capabilities=Capabilities(frozenset({"set"}), tensors=True), limits=replace(LIMITS, v_read_max_v=0.3)
    )
    more = macros(
        1, capabilities=replace(ABLE, tensors=True, bench=True), limits=replace(LIMITS, pulses_per_cell_max=2)
    )
    info = TiledBackend([*less, *more], 2, 1).info
    assert (info.name, info.shape, info.wiring) == ("tiled", (10, 4), None)
    assert info.capabilities == Capabilities(frozenset({"set"}))
    assert info.limits == replace(LIMITS, v_read_max_v=0.3, pulses_per_cell_max=2)


def test_it_names_its_macros_and_their_calibrations() -> None:
    one, other = (macros(1, identity={"kind of chip": "x", "seed": k}, calibration_id=f"c{k}")[0] for k in (1, 2))
    info = TiledBackend([one, other], 2, 1, seed=7).info
    assert info.identity["arrangement_seed"] == 7
    assert info.identity["all_macros"] == {"kind of chip": "x"}
    assert info.identity["macros"] == [{"seed": 1}, {"seed": 2}]
    assert info.calibration_id == "c1, c2"
    assert TiledBackend([one, *macros(1)], 2, 1).info.calibration_id is None


@pytest.mark.parametrize(
    ("some", "grid", "text"),
    [
        ([], (1, 1), "0 macros"),
        (macros(3), (1, 2), "3 macros for a grid of 1 x 2"),
        (2 * macros(1), (1, 2), "2 macros"),
        ([*macros(1, (5, 4)), *macros(1, (4, 5))], (1, 2), "different shapes: 4 x 5, 5 x 4"),
    ],
)
def test_macros_that_do_not_go_together_are_refused(some: list[Macro], grid: tuple[int, int], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        TiledBackend(some, *grid)


def test_what_does_not_fit_is_refused() -> None:
    tiled = opened(macros(4, (5, 3)), 2, 2)
    with pytest.raises(LimitError, match="columns 2 and 3 of output 1 lie in different blocks of 3 columns"):
        tiled.vmm(np.ones((1, 2), np.bool_), differential_tile(2, 3), 0.2)
    with pytest.raises(LimitError, match="row 10 is outside the array"):
        tiled.vmm(np.ones((1, 11), np.bool_), single_ended_tile(11, 3), 0.2)
    with pytest.raises(LimitError, match="out is"):
        tiled.vmm(np.ones((1, 2), np.bool_), single_ended_tile(2, 2), 0.2, out=np.empty((1, 2)))  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="not Tensor"):
        tiled.vmm(torch.ones(1, 2), single_ended_tile(2, 2), 0.2)  # type: ignore[arg-type]


def test_telemetry_is_the_sum_and_products_are_counted_once() -> None:
    tiled = opened(macros(4), 2, 2)
    tiled.vmm(np.ones((3, 10), np.bool_), differential_tile(10, 4), 0.2)
    assert tiled.telemetry().values == {"vmm_count": 3.0, "macro_vmm_count": 8.0, "board_time_s": 2.0}
    tiled.open()
    assert tiled.telemetry().values["vmm_count"] == 0.0, "since it was opened"


def test_a_self_test_says_which_macro_it_is_about() -> None:
    assert [check.part for check in TiledBackend(macros(2), 2, 1).self_test()] == ["macro 0: mux 3", "macro 1: mux 3"]


# Pulses and time


def test_pulses_reach_their_cells_where_every_block_has_a_macro() -> None:
    some = macros(4)
    tiled = opened(some, 2, 2)
    before = cells_of(some, (2, 2), 0)
    mask = np.random.default_rng(0).random(before.shape) < 0.2
    mask[:5, :4] = False
    report = tiled.pulse(mask, PULSE)
    np.testing.assert_array_equal(cells_of(some, (2, 2), 0) - before, mask)
    assert (report.n_cells, report.requested, report.achieved.voltage_v) == (mask.sum(), PULSE, 0.9)
    assert some[0].calls == ["open"], "no cell of its block was in the mask"
    assert tiled.pulse(np.zeros_like(mask), PULSE).n_cells == 0


def test_cells_that_stand_for_several_take_no_pulse() -> None:
    some = macros(3)
    tiled = TiledBackend(some, 2, 2)
    assert not tiled.info.capabilities.pulse_kinds
    with open_session(tiled) as session:
        for target in (session, tiled):
            with pytest.raises(CapabilityError):
                target.pulse(np.ones(tiled.info.shape, np.bool_), PULSE)
    assert not any("pulse" in macro.calls for macro in some)


def test_a_wait_lets_time_pass_on_every_macro() -> None:
    chips = macros(3)
    tiled = opened(chips, 3, 1)
    chips[1].waited_s = 40.0
    assert tiled.now_s() == 40.0, "the furthest of them"
    tiled.wait(2.0)
    assert [macro.waited_s for macro in chips] == [2.0, 42.0, 2.0]
    assert tiled.now_s() == 42.0


def test_boards_wait_together() -> None:
    """They share the clock on the wall: what the first has waited for, the others need not."""
    boards = macros(3)
    for board in boards:
        board.clock = lambda: sum(one.waited_s for one in boards)
    opened(boards, 3, 1).wait(2.0)
    assert [board.waited_s for board in boards] == [2.0, 0.0, 0.0]


# Safety

BROKEN = TransportError("link broke", fix="plug it in")


def use(session: CrossbarBackend) -> None:
    session.vmm(np.ones((2, 10), np.bool_), differential_tile(10, 4), 0.2)
    everywhere = np.ones((10, 8), np.bool_)
    session.read(everywhere, 0.2)
    session.pulse(everywhere, PULSE)


@pytest.mark.parametrize("failing", range(4))
@pytest.mark.parametrize(
    ("error", "calls"),
    # In the way out a session holds signals back: Ctrl-C cannot be raised there.
    [(BROKEN, range(6)), (RuntimeError("bug"), range(6)), (KeyboardInterrupt(), range(4))],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_at_any_call_of_any_macro_leaves_every_macro_safe(
    failing: int, error: BaseException, calls: range
) -> None:
    """Calls are open, vmm, read, pulse, make_safe and close."""
    for call in calls:
        some = macros(4)
        some[failing].fails = {call: error}
        try:
            with open_session(TiledBackend(some, 2, 2)) as session:
                use(session)
        except type(error):
            pass
        assert len(some[failing].calls) > call, "the failure was reached"
        for macro in some:
            assert macro.calls[-2:] == ["make_safe", "close"]
            assert "pulse" not in macro.calls[macro.calls.index("make_safe") :]


@pytest.mark.parametrize("call", ["make_safe", "close", "abort"])
@pytest.mark.parametrize("error", [BROKEN, KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_one_that_fails_does_not_keep_the_others_from_it(call: str, error: BaseException) -> None:
    some = macros(3)
    some[0].fails = {call: error}
    with pytest.raises(type(error)):
        getattr(opened(some, 3, 1), call)()
    assert [call in macro.calls for macro in some] == [True] * 3


def test_every_macro_that_does_not_open_is_named(caplog: pytest.LogCaptureFixture) -> None:
    some = macros(3)
    some[0].fails = some[2].fails = {"open": BROKEN}
    tiled = TiledBackend(some, 3, 1)
    with pytest.raises(TransportError, match="link broke"):
        tiled.open()
    assert [record.getMessage() for record in caplog.records] == [
        f"open of macro {k} of 3 failed: link broke" for k in (0, 2)
    ]
    with pytest.raises(DeviceError, match="not open"):
        tiled.read(np.ones((15, 4), np.bool_), 0.2)


def test_an_array_that_may_be_under_bias_outranks_one_whose_safeguards_act() -> None:
    some = macros(3)
    some[0].fails = {"make_safe": UnconfirmedError("link down", fix="look")}
    some[1].fails = {"make_safe": BROKEN}
    with pytest.raises(TransportError):
        opened(some, 3, 1).make_safe()
    some[1].fails = {}
    with pytest.raises(UnconfirmedError):
        opened(some, 3, 1).make_safe()


@pytest.mark.parametrize("call", ["vmm", "read", "pulse", "wait"])
def test_nothing_is_done_on_an_array_that_is_not_open(call: str) -> None:
    some = macros(1)
    tiled = TiledBackend(some, 1, 1)
    arguments: dict[str, tuple[Any, ...]] = {
        "vmm": (np.ones((1, 4), np.bool_), single_ended_tile(4, 2), 0.2),
        "read": (np.zeros((5, 4), np.bool_), 0.2),
        "pulse": (np.zeros((5, 4), np.bool_), PULSE),
        "wait": (1.0,),
    }
    with pytest.raises(DeviceError, match="not open"):
        getattr(tiled, call)(*arguments[call])
    assert some[0].calls == []
