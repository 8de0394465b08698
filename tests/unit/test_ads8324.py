"""ADS8324: bit positions of a conversion, code law, limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from drivers.ads8324 import (
    CLOCK_MAX_HZ,
    CLOCK_MIN_HZ,
    CODE_MAX,
    CODE_MIN,
    FRAME_CLOCKS,
    HOLD_CLOCKS,
    Ads8324,
    decode_frames,
    encode_frames,
    is_clipped,
)
from hil.errors import ConfigError, LimitError, ProtocolError

CODES = st.integers(CODE_MIN, CODE_MAX)
CODE_ARRAYS = hnp.arrays(np.int64, hnp.array_shapes(max_dims=3, max_side=5, min_side=0), elements=CODES)


def clock_out(code: int) -> list[int]:
    """What a master reads at rising edges 1 to 24: the conversion told edge by edge, pull-up on DOUT."""
    result = [(code & 0x3FFF) >> bit & 1 for bit in range(13, -1, -1)]
    return [1] * 5 + [0] + result + [0, 0] + [0, result[-1]]


class TestFrames:
    @given(CODES)
    def test_word_is_the_conversion_clock_by_clock(self, code: int) -> None:
        bits = clock_out(code)
        assert len(bits) == FRAME_CLOCKS
        assert encode_frames(code) == int("".join(map(str, bits)), 2)

    @given(CODE_ARRAYS)
    def test_round_trip(self, codes: NDArray[np.int64]) -> None:
        words = encode_frames(codes)
        assert (words.dtype, words.shape) == (np.uint32, codes.shape)
        again, frame_ok = decode_frames(words)
        np.testing.assert_array_equal(again, codes)
        assert frame_ok.dtype == np.bool_
        assert frame_ok.all()

    @pytest.mark.parametrize(("code", "raw"), [(8191, 0x1FFF), (0, 0x0000), (-1, 0x3FFF), (-8192, 0x2000)])
    def test_two_s_complement_stands_in_bits_17_to_4(self, code: int, raw: int) -> None:
        word = encode_frames(code)
        assert type(word) is int
        assert word >> 4 & 0x3FFF == raw
        assert decode_frames(word) == (code, True)

    @given(CODES, st.integers(0, 31), st.integers(0, 3))
    def test_bits_without_meaning_do_not_matter(self, code: int, first: int, last: int) -> None:
        word = encode_frames(code) & 0x07FFFC | first << 19 | last
        assert decode_frames(word) == (code, True)

    @given(CODES, st.sampled_from([18, 3, 2]))
    def test_null_and_dummy_bits_must_be_zero(self, code: int, bit: int) -> None:
        assert decode_frames(encode_frames(code) | 1 << bit) == (code, False)

    def test_a_line_that_nobody_drives_is_noticed(self) -> None:
        assert decode_frames(0xFFFFFF)[1] is False

    def test_one_bad_frame_of_many_is_marked(self) -> None:
        words = encode_frames(np.array([5, -5, 7]))
        words[1] |= 1 << 18
        assert decode_frames(words)[1].tolist() == [True, False, True]

    @pytest.mark.parametrize("codes", [8192, -8193, [0, 9000], 1.0])
    def test_codes_that_do_not_exist_are_refused(self, codes: Any) -> None:
        with pytest.raises(LimitError, match="ADS8324 code"):
            encode_frames(codes)

    @pytest.mark.parametrize("words", [1 << 24, -1, [0, 1 << 24], 0.0])
    def test_words_of_other_than_24_bits_are_refused(self, words: Any) -> None:
        with pytest.raises(ProtocolError, match="24-bit"):
            decode_frames(words)

    def test_both_ends_count_as_clipped(self) -> None:
        assert is_clipped(np.array([-8192, -8191, 0, 8190, 8191])).tolist() == [True, False, False, False, True]
        assert is_clipped(8191) is True
        assert is_clipped(0) is False


class TestCodeLaw:
    def test_lsb_at_0_9_v(self) -> None:
        assert Ads8324(0.9).lsb_v == pytest.approx(109.9e-6, abs=0.05e-6)

    def test_minus_input_at_the_reference_uses_all_codes(self) -> None:
        adc = Ads8324(0.9)
        assert adc.code(0.0) == CODE_MIN
        assert adc.code(0.9) == 0
        assert adc.code(1.8 - adc.lsb_v) == CODE_MAX
        assert adc.range_v == pytest.approx((0.0, 1.8 - adc.lsb_v))

    def test_minus_input_at_ground_uses_half_of_them(self) -> None:
        adc = Ads8324(0.9, minus_input="ground")
        assert adc.code(0.0) == 0
        assert adc.code(0.9 - adc.lsb_v) == CODE_MAX
        assert adc.range_v == pytest.approx((0.0, 0.9 - adc.lsb_v))

    @given(CODES, st.floats(0.5, 1.8))
    def test_code_of_its_voltage_is_the_code(self, code: int, v_reference_v: float) -> None:
        adc = Ads8324(v_reference_v)
        assert adc.code(adc.voltage_v(code)) == code

    @given(st.floats(0.0, 1.7998))
    def test_code_is_the_nearest(self, input_v: float) -> None:
        adc = Ads8324(0.9)
        assert abs(adc.voltage_v(adc.code(input_v)) - input_v) <= adc.lsb_v / 2 * (1 + 1e-6)

    def test_many_at_once(self) -> None:
        adc = Ads8324(0.9)
        codes = adc.code(np.array([[0.0, 0.9], [0.9 + adc.lsb_v, 0.9 - adc.lsb_v]]))
        assert codes.tolist() == [[CODE_MIN, 0], [1, -1]]
        np.testing.assert_allclose(adc.voltage_v(codes)[1], [0.9 + adc.lsb_v, 0.9 - adc.lsb_v])

    def test_a_mean_of_codes_has_a_voltage(self) -> None:
        adc = Ads8324(0.9)
        assert adc.voltage_v(0.5) == pytest.approx(0.9 + adc.lsb_v / 2)

    @pytest.mark.parametrize("input_v", [-0.001, 1.8, float("nan"), np.array([0.9, 2.0])])
    def test_inputs_outside_are_refused(self, input_v: Any) -> None:
        with pytest.raises(LimitError, match="outside"):
            Ads8324(0.9).code(input_v)

    def test_below_ground_there_is_no_code_with_minus_input_at_ground(self) -> None:
        with pytest.raises(LimitError, match="outside"):
            Ads8324(0.9, minus_input="ground").code(-0.01)

    @pytest.mark.parametrize("code", [8192, -8193, float("nan")])
    def test_codes_outside_are_refused(self, code: float) -> None:
        with pytest.raises(LimitError, match="code"):
            Ads8324(0.9).voltage_v(code)


class TestLimits:
    @pytest.mark.parametrize("clock_hz", [CLOCK_MIN_HZ, 100e6 / 84, CLOCK_MAX_HZ])
    def test_good_settings_pass(self, clock_hz: float) -> None:
        Ads8324(0.9).check(1.8, clock_hz)

    @pytest.mark.parametrize(
        ("v_reference_v", "vcc_v", "clock_hz", "text"),
        [
            (0.95, 1.8, 1e6, "half the supply"),
            (0.9, 1.7, 1e6, "half the supply"),
            (0.9, 5.0, 1e6, "supply"),
            (0.9, float("nan"), 1e6, "supply"),
            (0.9, 1.8, 1.25e6, "clock"),
            (0.9, 1.8, 20e3, "clock"),
            (0.9, 1.8, float("nan"), "clock"),
        ],
    )
    def test_bad_settings_are_refused(self, v_reference_v: float, vcc_v: float, clock_hz: float, text: str) -> None:
        with pytest.raises(ConfigError, match=text):
            Ads8324(v_reference_v).check(vcc_v, clock_hz)

    @pytest.mark.parametrize("v_reference_v", [0.49, 0.0, float("nan")])
    def test_a_reference_below_half_a_volt_is_refused(self, v_reference_v: float) -> None:
        with pytest.raises(ConfigError, match="reference"):
            Ads8324(v_reference_v)

    def test_unknown_wiring_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="minus_input"):
            Ads8324(0.9, minus_input="supply")  # type: ignore[arg-type]

    def test_a_sample_at_the_fastest_clock_takes_20_us_and_frees_the_inputs_after_4_2(self) -> None:
        sample_s, hold_s = FRAME_CLOCKS / CLOCK_MAX_HZ, HOLD_CLOCKS / CLOCK_MAX_HZ
        assert sample_s == pytest.approx(20e-6)
        assert hold_s == pytest.approx(4.2e-6, abs=0.05e-6)
