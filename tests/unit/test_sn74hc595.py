"""SN74HC595: bit order against shifting one bit at a time, and the timing table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from drivers.sn74hc595 import TIMING, ShiftChain, clock_max_hz, input_high_min_v, timing_s
from hil.errors import ConfigError, LimitError

CONTENTS = st.integers(1, 6).flatmap(lambda chips: hnp.arrays(np.uint8, 8 * chips, elements=st.integers(0, 1)))


def shift_in(chips: int, pieces: list[tuple[int, int]]) -> list[list[int]]:
    """What chips hold, QA first, after a driver sent pieces most significant bit first."""
    stages = [[0] * 8 for _ in range(chips)]
    for data, count in pieces:
        for place in range(count - 1, -1, -1):
            carry = data >> place & 1
            for chip in stages:
                chip.insert(0, carry)
                carry = chip.pop()
    return stages


class TestChain:
    @given(CONTENTS, st.integers(1, 48))
    def test_sending_the_pieces_puts_every_bit_on_its_output(self, bits: NDArray[np.uint8], width: int) -> None:
        chain = ShiftChain(len(bits) // 8)
        stages = shift_in(chain.chips, chain.pieces(chain.word(bits), width))
        assert stages == bits.reshape(-1, 8).tolist()

    def test_first_bit_sent_is_qh_of_the_last_chip(self) -> None:
        assert shift_in(2, ShiftChain(2).pieces(0x8000, 48)) == [[0] * 8, [0] * 7 + [1]]
        assert shift_in(2, ShiftChain(2).pieces(0x0001, 48)) == [[1] + [0] * 7, [0] * 8]

    @given(CONTENTS)
    def test_round_trip(self, bits: NDArray[np.uint8]) -> None:
        chain = ShiftChain(len(bits) // 8)
        word = chain.word(bits)
        assert word == sum(int(bit) << place for place, bit in enumerate(bits))
        again = chain.bits(word)
        assert again.dtype == np.uint8
        np.testing.assert_array_equal(again, bits)

    @given(hnp.arrays(np.bool_, (2, 3, 24)))
    def test_many_contents_are_packed_in_the_order_of_sending(self, bits: NDArray[np.bool_]) -> None:
        chain = ShiftChain(3)
        packed = chain.words(bits)
        assert (packed.dtype, packed.shape) == (np.uint8, (2, 3, 3))
        for index in np.ndindex(2, 3):
            assert int.from_bytes(packed[index].tobytes(), "big") == chain.word(bits[index])

    @pytest.mark.parametrize(
        ("chips", "width", "counts"), [(32, 48, [48] * 5 + [16]), (24, 48, [48] * 4), (1, 48, [8]), (1, 3, [3, 3, 2])]
    )
    def test_pieces_are_as_few_as_possible(self, chips: int, width: int, counts: list[int]) -> None:
        chain = ShiftChain(chips)
        assert [count for _, count in chain.pieces(0, width)] == counts

    @pytest.mark.parametrize("word", [-1, 1 << 16])
    def test_contents_that_do_not_fit_are_refused(self, word: int) -> None:
        chain = ShiftChain(2)
        with pytest.raises(LimitError, match="16 outputs"):
            chain.bits(word)
        with pytest.raises(LimitError, match="16 outputs"):
            chain.pieces(word, 48)

    @pytest.mark.parametrize(
        "bits",
        [np.zeros(15, dtype=int), np.zeros((2, 16), dtype=int), 0, np.full(16, 2), np.full(16, -1), np.zeros(16)],
    )
    def test_other_than_one_bit_per_output_is_refused(self, bits: Any) -> None:
        with pytest.raises(LimitError):
            ShiftChain(2).word(bits)

    def test_empty_chains_and_pieces_are_refused(self) -> None:
        with pytest.raises(ConfigError):
            ShiftChain(0)
        with pytest.raises(LimitError):
            ShiftChain(1).pieces(0, 0)


class TestTiming:
    @pytest.mark.parametrize(
        ("name", "times_ns"),
        [
            ("clock_period", (200, 40, 34.5)),
            ("pulse_width", (100, 20, 17)),
            ("data_setup", (125, 25, 21)),
            ("latch_setup", (94, 19, 16)),
            ("shift_to_serial_out", (200, 40, 34)),
            ("latch_to_output", (187, 37, 32)),
            ("output_enable", (187, 37, 32)),
            ("output_disable", (250, 50, 43)),
        ],
    )
    def test_columns_of_the_table(self, name: str, times_ns: tuple[float, ...]) -> None:
        for vcc_v, time_ns in zip((2.0, 4.5, 6.0), times_ns, strict=True):
            assert timing_s(name, vcc_v) == pytest.approx(time_ns * 1e-9, rel=1e-3)
        assert TIMING[name].source

    def test_cascade_is_slower_than_one_chip(self) -> None:
        assert clock_max_hz(4.5, 1) == pytest.approx(25e6)
        assert clock_max_hz(4.5, 2) == pytest.approx(1 / 65e-9)
        assert clock_max_hz(4.5, 32) == clock_max_hz(4.5, 2)

    def test_cascade_at_3_3_v_is_8_to_10_mhz(self) -> None:
        assert 8e6 <= clock_max_hz(3.3, 32) <= 10e6

    @pytest.mark.parametrize(("bits", "time_us"), [(8, 0.5), (192, 12.5), (256, 16.6)])
    def test_shift_times_at_4_5_v(self, bits: int, time_us: float) -> None:
        assert bits / clock_max_hz(4.5, 2) * 1e6 == pytest.approx(time_us, abs=0.05)

    @given(st.floats(2, 6), st.floats(2, 6), st.sampled_from(sorted(TIMING)))
    def test_more_supply_is_never_slower(self, one_v: float, other_v: float, name: str) -> None:
        low_v, high_v = sorted((one_v, other_v))
        assert timing_s(name, high_v) <= timing_s(name, low_v) * (1 + 1e-12)

    @pytest.mark.parametrize("vcc_v", [1.9, 6.1, float("nan")])
    def test_other_supplies_are_refused(self, vcc_v: float) -> None:
        with pytest.raises(ConfigError, match=r"2 \.\. 6 V"):
            clock_max_hz(vcc_v, 2)

    def test_3_3_v_logic_drives_a_4_5_v_chip_but_not_a_5_v_one(self) -> None:
        assert input_high_min_v(4.5) < 3.3 < input_high_min_v(5.0) == 3.5
