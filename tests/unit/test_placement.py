"""Placement: a tile on the lines with few faults, and never on a line that is out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import LimitError
from hil.fault_map import COL_FAULTS, ROW_FAULTS, Fault, FaultMap
from hil.placement import place, tile_faults, usable_lines
from hil.tile import differential_tile


def random_map(rng: np.random.Generator, shape: tuple[int, int], density: float, lines_out: float) -> FaultMap:
    """Faulty cells of every kind, and lines that are open or shorted in part."""
    cell_faults = np.array([Fault.UNFORMED, Fault.STUCK_ON, Fault.STUCK_OFF, Fault.NOISY], np.uint8)
    faults = np.where(rng.random(shape) < density, rng.choice(cell_faults, shape), np.uint8(0)).astype(np.uint8)
    for row in np.flatnonzero(rng.random(shape[0]) < lines_out):
        faults[row, rng.integers(shape[1]) :] |= np.uint8(rng.choice([Fault.ROW_OPEN, Fault.ROW_SHORT]))
    for col in np.flatnonzero(rng.random(shape[1]) < lines_out):
        faults[rng.integers(shape[0]) :, col] |= np.uint8(rng.choice([Fault.COL_OPEN, Fault.COL_SHORT]))
    return FaultMap(faults)


def pair_sets(n_cols: int, n: int, start: int = 0) -> Iterator[list[int]]:
    """Every choice of n disjoint pairs of neighbours among columns, by their first columns."""
    if n == 0:
        yield []
        return
    for col in range(start, n_cols - 1):
        for rest in pair_sets(n_cols, n - 1, col + 2):
            yield [col, *rest]


def fewest_by_trying_all(fault_map: FaultMap, n_rows: int, n_outputs: int) -> int | None:
    """Faulty cells of the best tile there is; None where no tile fits. The best rows for given columns are obvious."""
    faulty = ~fault_map.healthy[~fault_map.rows_out][:, ~fault_map.cols_out]
    if len(faulty) < n_rows:
        return None
    found = [
        int(np.sort(faulty[:, [*plus, *(col + 1 for col in plus)]].sum(axis=1))[:n_rows].sum())
        for plus in pair_sets(faulty.shape[1], n_outputs)
    ]
    return min(found, default=None)


SMALL = st.tuples(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 8), st.integers(2, 9)),
    st.floats(0, 0.6),
    st.sampled_from([0.0, 0.2]),
).map(lambda drawn: random_map(np.random.default_rng(drawn[0]), *drawn[1:]))


@settings(max_examples=50, deadline=None)
@given(SMALL, st.integers(1, 8), st.integers(1, 4))
def test_a_tile_is_on_good_lines_once_each_or_there_is_none(fault_map: FaultMap, n_rows: int, n_outputs: int) -> None:
    fewest = fewest_by_trying_all(fault_map, n_rows, n_outputs)
    if fewest is None:
        with pytest.raises(LimitError, match="does not fit"):
            place(n_rows, n_outputs, fault_map)
        return
    tile = place(n_rows, n_outputs, fault_map)
    assert (tile.n_rows, tile.n_outputs) == (n_rows, n_outputs)
    tile.check_fits(fault_map.shape)
    for lines in (tile.rows, tile.plus_cols):
        assert (np.diff(lines) > 0).all()
    assert tile.minus_cols is not None
    usable = np.flatnonzero(~fault_map.cols_out)
    np.testing.assert_array_equal(np.searchsorted(usable, tile.minus_cols), np.searchsorted(usable, tile.plus_cols) + 1)
    found = tile_faults(tile, fault_map)
    assert not (found & np.uint8(ROW_FAULTS | COL_FAULTS)).any()
    assert not fault_map.rows_out[tile.rows].any()
    assert not fault_map.cols_out[tile.cols].any()
    again = place(n_rows, n_outputs, fault_map)
    np.testing.assert_array_equal(again.rows, tile.rows)
    np.testing.assert_array_equal(again.cols, tile.cols)
    # Choosing columns for all usable rows, then rows, keeps at most the share n_rows / usable of those columns' faults.
    rows, _ = usable_lines(fault_map)
    of_all_rows = fewest_by_trying_all(fault_map, len(rows), n_outputs)
    assert of_all_rows is not None
    assert fewest <= np.count_nonzero(found) <= of_all_rows * n_rows // len(rows)
    # Nothing is gained by changing only the rows, or only the columns.
    faulty = ~fault_map.healthy
    assert np.count_nonzero(found) == np.sort(faulty[np.ix_(rows, tile.cols)].sum(axis=1))[:n_rows].sum()
    chosen_rows = FaultMap(fault_map.faults[tile.rows])
    other_cols = FaultMap(np.where(fault_map.cols_out, np.uint8(Fault.COL_OPEN), chosen_rows.faults))
    assert np.count_nonzero(found) == fewest_by_trying_all(other_cols, n_rows, n_outputs)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5])
def test_nearly_always_the_best_tile_there_is(density: float) -> None:
    excess = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = int(rng.integers(4, 9)), int(rng.integers(4, 10))
        fault_map = random_map(rng, shape, density, 0.0)
        n_rows, n_outputs = int(rng.integers(1, shape[0] + 1)), int(rng.integers(1, shape[1] // 2 + 1))
        fewest = fewest_by_trying_all(fault_map, n_rows, n_outputs)
        assert fewest is not None
        excess.append(np.count_nonzero(tile_faults(place(n_rows, n_outputs, fault_map), fault_map)) - fewest)
    assert max(excess) <= 2
    assert np.mean(np.array(excess) == 0) >= 0.9


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_without_faults_it_is_the_tile_of_always(n_rows: int, n_outputs: int, spare_rows: int, spare_cols: int) -> None:
    tile = place(n_rows, n_outputs, FaultMap.healthy_array((n_rows + spare_rows, 2 * n_outputs + spare_cols)))
    usual = differential_tile(n_rows, n_outputs)
    np.testing.assert_array_equal(tile.rows, usual.rows)
    np.testing.assert_array_equal(tile.cols, usual.cols)


def test_faults_beside_the_usual_tile_move_nothing() -> None:
    faults = np.zeros((12, 12), np.uint8)
    faults[10:], faults[:, 9:] = Fault.STUCK_ON, Fault.NOISY
    tile = place(10, 4, FaultMap(faults))
    np.testing.assert_array_equal(tile.rows, np.arange(10))
    np.testing.assert_array_equal(tile.cols, differential_tile(10, 4).cols)


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_is_avoided(fault: Fault) -> None:
    faults = np.zeros((5, 7), np.uint8)
    faults[1, 2] = fault
    tile = place(4, 3, FaultMap(faults))
    assert tile_faults(tile, FaultMap(faults)).sum() == 0
    kept_rows, kept_pairs = tile.rows.tolist() == [0, 2, 3, 4], tile.plus_cols.tolist() == [0, 3, 5]
    assert kept_rows or kept_pairs


@pytest.mark.parametrize("fault", [Fault.ROW_OPEN, Fault.ROW_SHORT, Fault.COL_OPEN, Fault.COL_SHORT])
def test_a_line_that_is_out_in_part_is_worse_than_any_number_of_other_faults(fault: Fault) -> None:
    faults = np.full((4, 4), Fault.NOISY, np.uint8)
    faults[0], faults[:, 0] = 0, 0
    faults[0, 0] = fault
    tile = place(3, 1, FaultMap(faults))
    if fault & ROW_FAULTS:
        assert tile.rows.tolist() == [1, 2, 3]
    else:
        assert tile.cols.tolist() == [1, 2]


def test_a_choice_is_improved_until_neither_rows_nor_columns_can_be() -> None:
    """At a size where one turn of each is rarely enough."""
    for seed in range(10):
        fault_map = random_map(np.random.default_rng(seed), (40, 40), 0.3, 0.0)
        faulty = ~fault_map.healthy
        tile = place(20, 10, fault_map)
        of_rows, of_cols = faulty[:, tile.cols].sum(axis=1), FaultMap(fault_map.faults[tile.rows])
        n_faulty = np.count_nonzero(tile_faults(tile, fault_map))
        assert n_faulty == np.sort(of_rows)[:20].sum()
        assert n_faulty == np.count_nonzero(tile_faults(place(20, 10, of_cols), of_cols))


def test_rows_with_the_fewest_faults_in_the_columns_used() -> None:
    faults = np.zeros((5, 6), np.uint8)
    faults[1, 0], faults[3, :], faults[0, 5] = Fault.NOISY, Fault.STUCK_OFF, Fault.STUCK_ON
    tile = place(4, 2, FaultMap(faults))
    # Row 3 has most faults. Pairs from column 1 on leave out both other faults.
    assert tile.rows.tolist() == [0, 1, 2, 4]
    assert (tile.plus_cols.tolist(), np.count_nonzero(tile_faults(tile, FaultMap(faults)))) == ([1, 3], 0)


def test_of_equally_good_rows_the_first_are_taken() -> None:
    faults = np.zeros((90, 2), np.uint8)
    good = np.arange(90) % 3 == 1
    faults[~good, 0] = Fault.NOISY
    rows = place(50, 1, FaultMap(faults)).rows
    assert rows.tolist() == sorted([*np.flatnonzero(good), *np.flatnonzero(~good)[:20]])


def test_what_does_not_fit_is_refused_with_what_is_left() -> None:
    faults = np.zeros((8, 8), np.uint8)
    faults[2] = Fault.ROW_OPEN
    faults[:, [1, 4]] = Fault.COL_SHORT
    fault_map = FaultMap(faults)
    rows, n_pairs = usable_lines(fault_map)
    assert (rows.tolist(), n_pairs) == ([0, 1, 3, 4, 5, 6, 7], 3)
    tile = place(7, 3, fault_map)
    # Pairs reach over columns that are out.
    assert list(zip(tile.plus_cols.tolist(), tile.cols[3:].tolist(), strict=True)) == [(0, 2), (3, 5), (6, 7)]
    for n_rows, n_outputs in ((8, 2), (7, 4)):
        with pytest.raises(LimitError, match="7 of 8 rows and 3 pairs of columns"):
            place(n_rows, n_outputs, fault_map)


def test_faults_of_a_tile_are_in_its_own_order() -> None:
    faults = np.zeros((4, 6), np.uint8)
    faults[2, 3], faults[3, 0] = Fault.NOISY, Fault.STUCK_ON
    found = tile_faults(differential_tile(2, 2, row0=2, col0=2), FaultMap(faults))
    assert found.tolist() == [[0, 0, Fault.NOISY, 0], [0, 0, 0, 0]]


@pytest.mark.large
def test_at_the_paper_s_size() -> None:
    rng = np.random.default_rng(0)
    fault_map = random_map(rng, (512, 512), 0.02, 0.03)
    tile = place(456, 200, fault_map)
    n_faulty, n_usual = (np.count_nonzero(tile_faults(t, fault_map)) for t in (tile, differential_tile(456, 200)))
    assert n_faulty < 0.9 * 0.02 * tile.cols.size * tile.n_rows < n_usual
