"""Tiles and packed spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from hil.errors import LimitError
from hil.spikes import WORD_BITS, PackedSpikes, n_words
from hil.tile import Tile, differential_tile, single_ended_tile

SHAPES = st.tuples(st.integers(0, 5), st.integers(1, 200))


class TestPackedSpikes:
    @given(hnp.arrays(np.bool_, SHAPES))
    def test_round_trip(self, bits: NDArray[np.bool_]) -> None:
        packed = PackedSpikes.pack(bits)
        assert packed.n_rows == bits.shape[1]
        assert len(packed) == len(bits)
        assert (packed.words.dtype, packed.words.shape) == (np.uint64, (len(bits), n_words(bits.shape[1])))
        unpacked = packed.unpack()
        assert unpacked.dtype == np.uint8
        np.testing.assert_array_equal(unpacked, bits)

    @given(hnp.arrays(np.bool_, SHAPES))
    def test_row_r_is_bit_r_mod_64_of_word_r_div_64(self, bits: NDArray[np.bool_]) -> None:
        words = PackedSpikes.pack(bits).words
        for sample, vector in enumerate(bits):
            expected = [0] * n_words(bits.shape[1])
            for row in np.flatnonzero(vector):
                expected[int(row) // WORD_BITS] |= 1 << int(row) % WORD_BITS
            assert [int(word) for word in words[sample]] == expected

    @given(
        hnp.arrays(
            st.sampled_from([np.int8, np.uint8, np.int64, np.float32]),
            SHAPES,
            elements={"min_value": 0, "max_value": 3},
        )
    )
    def test_anything_but_zero_is_a_spike(self, values: NDArray[Any]) -> None:
        np.testing.assert_array_equal(PackedSpikes.pack(values).unpack(), values != 0)

    def test_words_need_not_be_contiguous(self) -> None:
        bits = np.random.default_rng(0).random((6, 130)) < 0.5
        packed = PackedSpikes.pack(bits)
        np.testing.assert_array_equal(PackedSpikes(packed.words[::2], 130).unpack(), bits[::2])

    @given(st.integers(0, 5000))
    def test_n_words(self, n_rows: int) -> None:
        assert (n_words(n_rows) - 1) * WORD_BITS < n_rows <= n_words(n_rows) * WORD_BITS or n_rows == 0

    @pytest.mark.parametrize("shape", [(), (8,), (2, 3, 4)])
    def test_other_shapes_are_refused(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(LimitError, match=r"spike array has shape .*\(batch, rows\)"):
            PackedSpikes.pack(np.zeros(shape))


class TestTile:
    @given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 9), st.integers(0, 9))
    def test_differential(self, n_rows: int, n_outputs: int, row0: int, col0: int) -> None:
        tile = differential_tile(n_rows, n_outputs, row0=row0, col0=col0)
        assert (tile.n_rows, tile.n_outputs, tile.differential) == (n_rows, n_outputs, True)
        assert tile.minus_cols is not None
        np.testing.assert_array_equal(tile.minus_cols - tile.plus_cols, 1)
        assert sorted(tile.cols) == list(range(col0, col0 + 2 * n_outputs))
        np.testing.assert_array_equal(tile.cols, [*tile.plus_cols, *tile.minus_cols])
        tile.check_fits((row0 + n_rows, col0 + 2 * n_outputs))
        for short in ((row0 + n_rows - 1, col0 + 2 * n_outputs), (row0 + n_rows, col0 + 2 * n_outputs - 1)):
            with pytest.raises(LimitError, match="is outside the array"):
                tile.check_fits(short)

    @given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 9), st.integers(0, 9))
    def test_single_ended(self, n_rows: int, n_outputs: int, row0: int, col0: int) -> None:
        tile = single_ended_tile(n_rows, n_outputs, row0=row0, col0=col0)
        assert (tile.n_rows, tile.n_outputs, tile.differential, tile.minus_cols) == (n_rows, n_outputs, False, None)
        np.testing.assert_array_equal(tile.cols, col0 + np.arange(n_outputs))
        tile.check_fits((row0 + n_rows, col0 + n_outputs))

    @given(st.lists(st.integers(0, 12), min_size=1, max_size=8), st.lists(st.integers(0, 12), min_size=2, max_size=8))
    def test_a_line_may_occur_once(self, rows: list[int], cols: list[int]) -> None:
        half = len(cols) // 2
        plus, minus = np.array(cols[:half]), np.array(cols[half : 2 * half])
        twice = len(set(rows)) < len(rows) or len({*plus, *minus}) < 2 * half
        if twice:
            with pytest.raises(LimitError, match="occurs twice in the tile"):
                Tile(np.array(rows), plus, minus)
        else:
            Tile(np.array(rows), plus, minus).check_fits((13, 13))

    @given(
        hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(-3, 12), unique=True),
        hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(-3, 12), unique=True),
    )
    def test_outside_the_array(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> None:
        tile = Tile(rows, cols)
        if min(*rows, *cols, 0) < 0 or max(rows) > 7 or max(cols) > 9:
            with pytest.raises(
                LimitError, match=r"tile (row|column) -?\d+ is outside the array, which has .*0 to [79]"
            ):
                tile.check_fits((8, 10))
        else:
            tile.check_fits((8, 10))

    @pytest.mark.parametrize(("rows", "cols", "name"), [([], [0], "row"), ([0], [], "column")])
    def test_empty(self, rows: list[int], cols: list[int], name: str) -> None:
        with pytest.raises(LimitError, match=f"the tile has no {name}"):
            Tile(np.array(rows, np.intp), np.array(cols, np.intp)).check_fits((8, 8))

    def test_plus_and_minus_pair_up(self) -> None:
        with pytest.raises(LimitError, match="2 plus columns but 1 minus columns"):
            Tile(np.arange(2), np.array([0, 1]), np.array([2]))

    def test_compared_by_identity(self) -> None:
        first, second = differential_tile(2, 2), differential_tile(2, 2)
        assert first != second
        assert len({first, second, first}) == 2
