"""ADS8324 model: conversion sequence on the pins, transfer law, and scans of a bank."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import ads8324 as driver
from firmware_bridge.emulator.chips.ads8324 import AdcBank, Ads8324Chip, frames
from hil.errors import ConfigError

LSB_V = 2 * 0.9 / 16384
ALL_LANES = np.arange(8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def word_of(chip: Ads8324Chip, input_v: float, clocks: int = 24) -> int:
    """Read one conversion in SPI mode 0."""
    chip.select()
    chip.sample(input_v)
    word = 0
    for _ in range(clocks):
        word = word << 1 | chip.clock()
    chip.deselect()
    return word


def code_of(word: int) -> int:
    code = word >> 4 & 0x3FFF
    return code - 0x4000 if code & 0x2000 else code


def chip(**more: Any) -> Ads8324Chip:
    return Ads8324Chip(rng=rng(), **more)


# -- on the pins -----------------------------------------------------------------------------------------------------


def test_sequence_of_levels_in_one_conversion() -> None:
    converter = chip()
    converter.select()
    converter.sample(0.9 + 0x1234 * LSB_V)
    levels = []
    for _ in range(40):
        levels.append(converter.rising())
        converter.falling()
    bits = [0x1234 >> k & 1 for k in reversed(range(14))]
    assert levels[:5] == [None] * 5
    assert levels[5] == 0
    assert levels[6:20] == bits
    assert levels[20:22] == [0, 0]
    assert levels[22:37] == [0, *reversed(bits)]
    assert levels[37:] == [0, 0, 0]


def test_dout_is_released_while_cs_is_high() -> None:
    converter = chip()
    assert [converter.clock() for _ in range(24)] == [1] * 24
    word_of(converter, 0.9)
    assert converter.rising() is None


def test_input_is_held_from_the_fifth_falling_edge_on() -> None:
    converter = chip()
    converter.select()
    converter.sample(1.5)
    for _ in range(4):
        converter.clock()
    converter.rising()
    converter.sample(0.9 + 100 * LSB_V)
    converter.falling()
    converter.sample(0.1)
    word = 0
    for _ in range(19):
        word = word << 1 | converter.clock()
    assert code_of(word) == 100


def test_raising_cs_ends_a_conversion_and_the_next_starts_anew() -> None:
    converter = chip()
    converter.select()
    converter.sample(1.5)
    for _ in range(12):
        converter.clock()
    converter.deselect()
    assert converter.rising() is None
    assert code_of(word_of(converter, 0.9 - 3 * LSB_V)) == -3


@given(st.integers(-8192, 8191))
def test_frames_are_what_a_host_reads_from_the_pins(code: int) -> None:
    word = word_of(chip(), 0.9 + code * LSB_V)
    assert word == frames(np.array([code]))[0]
    assert code_of(word) == code


# -- transfer law ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minus_input", "input_v", "raw"),
    [
        ("reference", 0.9, 0x0000),
        ("reference", 0.9 - LSB_V, 0x3FFF),
        ("reference", 1.8 - LSB_V, 0x1FFF),
        ("reference", 5.0, 0x1FFF),
        ("reference", 0.0, 0x2000),
        ("reference", -0.1, 0x2000),
        ("ground", 0.0, 0x0000),
        ("ground", 0.9, 0x1FFF),
    ],
)
def test_codes_of_the_data_sheet(minus_input: str, input_v: float, raw: int) -> None:
    assert word_of(chip(minus_input=minus_input), input_v) >> 4 & 0x3FFF == raw


def test_reference_sets_the_full_scale() -> None:
    assert code_of(word_of(chip(v_reference_v=0.5), 0.75)) == 4096


def test_errors_act_on_the_code() -> None:
    assert code_of(word_of(chip(gain_error=0.01, offset_lsb=7.0), 0.9 + 1000 * LSB_V)) == 1017


def test_unknown_wiring_is_refused() -> None:
    with pytest.raises(ConfigError, match="'floating'"):
        AdcBank(8, 0.9, "floating")


def test_noise_has_the_stated_spread() -> None:
    bank = AdcBank(8, noise_lsb=np.arange(8) * 10.0)
    codes = bank.convert(np.full((4000, 8), 0.9), ALL_LANES, rng())
    np.testing.assert_allclose(codes.std(axis=0), np.arange(8) * 10.0, rtol=0.06, atol=0.1)
    assert not codes[:, 0].any()


# -- bank ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minus_input", ["reference", "ground"])
def test_a_scan_is_the_same_as_reading_every_chip_clock_by_clock(minus_input: str) -> None:
    draw = rng(5)
    input_v = draw.uniform(-0.2, 2.0, (50, 8))
    gain_error, offset_lsb = draw.normal(0, 1e-2, 8), draw.normal(0, 5, 8)
    noise_lsb = np.linspace(0.1, 2.0, 8)
    bank = AdcBank(8, 0.9, minus_input, gain_error, offset_lsb, noise_lsb)
    noise = rng(6)
    lanes = [
        Ads8324Chip(
            minus_input=minus_input,
            gain_error=gain_error[lane],
            offset_lsb=offset_lsb[lane],
            noise_lsb=noise_lsb[lane],
            rng=noise,
        )
        for lane in range(8)
    ]
    # The chips share one stream of noise, drawn in the order of the scan.
    expected = [[word_of(lane, v) for lane, v in zip(lanes, row, strict=True)] for row in input_v]
    words = bank.scan(input_v, rng(6))
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(words, expected)


def test_some_lanes_convert_with_their_own_errors() -> None:
    bank = AdcBank(8, offset_lsb=np.arange(8.0))
    codes = bank.convert(np.full((3, 2), 0.9), np.array([6, 2]), rng())
    np.testing.assert_array_equal(codes, [[6, 2]] * 3)


def test_input_is_left_unchanged() -> None:
    input_v = np.full((4, 8), 1.0)
    AdcBank(8, noise_lsb=1.0).scan(input_v, rng())
    assert (input_v == 1.0).all()


def test_equal_seeds_give_equal_scans() -> None:
    bank = AdcBank(8, noise_lsb=0.8)
    input_v = np.full((50, 8), 1.2)
    np.testing.assert_array_equal(bank.scan(input_v, rng(1)), bank.scan(input_v, rng(1)))
    assert (bank.scan(input_v, rng(1)) != bank.scan(input_v, rng(2))).any()


@pytest.mark.parametrize(
    ("fault", "value", "word"),
    [
        ("stuck_dout", 0, 0x000000),
        ("stuck_dout", 1, 0xFFFFFF),
        ("stuck_code", -5, 0xF80000 | 0x3FFB << 4 | 1),
        ("clipping", +1, 0xF80000 | 0x1FFF << 4 | 1),
        ("clipping", -1, 0xF80000 | 0x2000 << 4),
    ],
)
def test_a_fault_acts_on_its_lane_only(fault: str, value: int, word: int) -> None:
    bank = AdcBank(8, noise_lsb=0.8)
    input_v = rng(2).uniform(0.0, 1.8, (20, 8))
    healthy = bank.scan(input_v, rng(3))
    getattr(bank, fault)[3] = value
    words = bank.scan(input_v, rng(3))
    assert (words[:, 3] == word).all()
    others = np.delete(ALL_LANES, 3)
    np.testing.assert_array_equal(words[:, others], healthy[:, others])


# -- with the driver -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minus_input", ["reference", "ground"])
def test_driver_reads_the_input_to_half_a_code(minus_input: Literal["reference", "ground"]) -> None:
    law = driver.Ads8324(0.9, minus_input)
    input_v = rng(4).uniform(*law.range_v, (50, 8))
    codes, frame_ok = driver.decode_frames(AdcBank(8, 0.9, minus_input).scan(input_v, rng()))
    assert frame_ok.all()
    np.testing.assert_array_equal(codes, law.code(input_v))
    np.testing.assert_allclose(law.voltage_v(codes), input_v, atol=0.5001 * LSB_V)


def test_driver_and_model_agree_on_every_frame() -> None:
    codes = np.arange(-8192, 8192)
    np.testing.assert_array_equal(frames(codes), driver.encode_frames(codes))


def test_driver_sees_clipping_and_a_line_stuck_high_but_not_one_stuck_low() -> None:
    bank = AdcBank(8)
    bank.clipping = {1: +1, 2: -1}
    bank.stuck_dout = {3: 1, 4: 0}
    codes, frame_ok = driver.decode_frames(bank.scan(np.full((5, 8), 1.0), rng()))
    np.testing.assert_array_equal(driver.is_clipped(codes)[:, :3], [[False, True, True]] * 5)
    np.testing.assert_array_equal(frame_ok, [[True, True, True, False, True, True, True, True]] * 5)
    assert not codes[:, 4].any()
