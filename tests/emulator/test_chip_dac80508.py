"""DAC80508 model: frames, registers, update rules, CRC, headroom and faults as in the data sheet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import dac80508 as driver
from firmware_bridge.emulator.chips.dac80508 import REGISTERS, WAKE_UP_S, Dac80508Chip
from hil.errors import ConfigError, DeviceError, ProtocolError

SYNC, CONFIG, GAIN, BRDCAST, STATUS, DAC0 = 0x2, 0x3, 0x4, 0x6, 0x7, 0x8
CRC_EN = 1 << 11
SOFT_RESET, LDAC, NOP = 0x05000A, 0x050010, 0x000000
#: frame -> checksum; the last two come from a bus trace of a sibling chip in TI's forum
CRC_VECTORS = {
    0x030800: 0x15, 0x05000A: 0xF6, 0x050010: 0xB0, 0x080000: 0x51, 0x08FFFF: 0x75, 0x080A3D: 0x60, 0x810000: 0x60,
    0x0400FF: 0x58, 0x02FFFF: 0xF2, 0x060000: 0x7D, 0x860000: 0x76,
}  # fmt: skip


def crc8(word: int) -> int:
    """Polynomial division of 24 bits by x^8 + x^2 + x + 1."""
    word <<= 8
    for bit in range(31, 7, -1):
        if word >> bit & 1:
            word ^= 0x107 << (bit - 8)
    return word


def with_crc(word: int) -> int:
    return word << 8 | crc8(word)


def write(chip: Dac80508Chip, address: int, data: int) -> None:
    chip.frame(address << 16 | data, 24)


def read(chip: Dac80508Chip, address: int) -> int:
    chip.frame(0x800000 | address << 16, 24)
    reply = chip.frame(NOP, 24)
    assert reply >> 16 == 0x80 | address
    return reply & 0xFFFF


def by_clocks(chip: Dac80508Chip, bits: int, n_clocks: int, time_s: float | None) -> int:
    """The same frame on the pins."""
    chip.select(time_s)
    sdo = 0
    for k in reversed(range(n_clocks)):
        sdo = sdo << 1 | chip.clock(bits >> k & 1)
    chip.deselect(time_s)
    return sdo


@pytest.fixture
def chip() -> Dac80508Chip:
    return Dac80508Chip(vdd_v=5.25)


# -- frames ----------------------------------------------------------------------------------------------------------


def test_a_write_to_a_channel_moves_its_output_when_cs_rises(chip: Dac80508Chip) -> None:
    chip.select()
    for k in reversed(range(24)):
        chip.clock(0x0B8000 >> k & 1)
    assert not chip.outputs_v.any()
    chip.deselect()
    np.testing.assert_array_equal(chip.outputs_v, [0, 0, 0, 1.25, 0, 0, 0, 0])


@pytest.mark.parametrize("n_clocks", [0, 1, 8, 16, 23])
def test_too_few_clocks_do_nothing(chip: Dac80508Chip, n_clocks: int) -> None:
    chip.frame(0x08FFFF >> (24 - n_clocks), n_clocks)
    assert read(chip, DAC0) == 0
    assert chip.updates == 0


@pytest.mark.parametrize("extra", [1, 7, 24, 40])
def test_of_too_many_clocks_the_last_24_count(chip: Dac80508Chip, extra: int) -> None:
    chip.frame(0x09FFFF << 24 | 0x081234, 24 + extra)
    assert read(chip, DAC0) == 0x1234
    assert read(chip, DAC0 + 1) == 0


def test_clocks_while_cs_is_high_are_blocked(chip: Dac80508Chip) -> None:
    assert [chip.clock(1) for _ in range(24)] == [1] * 24
    chip.deselect()
    assert read(chip, 0x1) == 0x0816
    assert chip.updates == 0


def test_overlong_frames_pass_on_what_came_in_so_that_chips_can_be_chained(chip: Dac80508Chip) -> None:
    far = Dac80508Chip(vdd_v=5.25)
    to_far = chip.frame(0x081111 << 24 | 0x082222, 48)
    far.frame(to_far, 48)
    assert read(far, DAC0) == 0x1111
    assert read(chip, DAC0) == 0x2222


def test_a_read_is_answered_in_the_next_frame_which_may_be_the_next_read(chip: Dac80508Chip) -> None:
    write(chip, DAC0, 0x1234)
    write(chip, DAC0 + 7, 0xABCD)
    chip.frame(0x880000, 24)
    assert chip.frame(0x8F0000, 24) == 0x881234
    assert chip.frame(NOP, 24) == 0x8FABCD
    assert not chip.frame(NOP, 24) & 0x80FFFF


frames_and_lengths = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 2**60 - 1),
            # Whole frames, with and without CRC, and those that change how frames are read.
            st.integers(0, 2**24 - 1).map(lambda word: word & 0x8FFFFF),
            st.integers(0, 2**24 - 1).map(lambda word: with_crc(word & 0x8FFFFF)),
            st.sampled_from([0x030800, with_crc(0x030000), with_crc(0x033800), 0x030200, 0x031000, SOFT_RESET, LDAC]),
        ),
        st.sampled_from([24, 24, 24, 32, 32, 32, 23, 25, 31, 48, 60, 5]),
        st.one_of(st.none(), st.floats(0, 1e-3)),
        st.sampled_from(["", "", "", "dead", "sdo_floating", "off"]),
    ),
    max_size=12,
)


@settings(max_examples=100)
@given(frames_and_lengths)
def test_a_frame_is_the_same_as_its_clock_edges(
    sequence: list[tuple[int, int, float | None, str]],
) -> None:
    by_frame, on_pins = Dac80508Chip(vdd_v=5.25), Dac80508Chip(vdd_v=5.25)
    for bits, n_clocks, time_s, trouble in sequence:
        for chip in (by_frame, on_pins):
            chip.dead, chip.sdo_floating = trouble == "dead", trouble == "sdo_floating"
            if trouble == "off":
                chip.power_off()
        assert by_frame.frame(bits, n_clocks, time_s) == by_clocks(on_pins, bits, n_clocks, time_s)
        assert by_frame._registers == on_pins._registers
        np.testing.assert_array_equal(by_frame.outputs_v, on_pins.outputs_v)
        if trouble == "off":
            by_frame.power_on(0.0)
            on_pins.power_on(0.0)
    assert (by_frame.updates, by_frame.crc_errors, by_frame.early_frames) == (
        on_pins.updates,
        on_pins.crc_errors,
        on_pins.early_frames,
    )


# -- registers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "identity", "gain", "code"), [("Z", 0x0816, 0x0000, 0x0000), ("M", 0x0896, 0x00FF, 0x8000)]
)
def test_reset_values(variant: str, identity: int, gain: int, code: int) -> None:
    chip = Dac80508Chip(variant=variant, vdd_v=5.25)
    assert [read(chip, address) for address in range(1, 8)] == [identity, 0xFF00, 0, gain, 0, 0, 0]
    assert [read(chip, DAC0 + channel) for channel in range(8)] == [code] * 8
    np.testing.assert_allclose(chip.outputs_v, 2.5 if variant == "M" else 0.0)


def test_other_variants_are_not_modelled() -> None:
    with pytest.raises(ConfigError, match="'C'"):
        Dac80508Chip(variant="C", vdd_v=5.25)


@pytest.mark.parametrize("address", [0x1, STATUS])
def test_read_only_registers_keep_their_value(chip: Dac80508Chip, address: int) -> None:
    before = read(chip, address)
    write(chip, address, before ^ 0xFFFF)
    assert read(chip, address) == before


@pytest.mark.parametrize("address", [0x0, 0x5])
def test_write_only_registers_read_as_zero(chip: Dac80508Chip, address: int) -> None:
    write(chip, address, 0x0010)
    assert read(chip, address) == 0


@given(st.sampled_from([SYNC, BRDCAST, *range(8, 16)]), st.integers(0, 0xFFFF))
def test_registers_read_back_what_was_written(address: int, data: int) -> None:
    chip = Dac80508Chip(vdd_v=5.25)
    write(chip, address, data)
    assert read(chip, address) == data


def test_soft_reset_is_power_on_reset(chip: Dac80508Chip) -> None:
    write(chip, DAC0, 0x4000)
    write(chip, GAIN, 0x01FF)
    write(chip, SYNC, 0x1234)
    chip.frame(SOFT_RESET, 24)
    assert [read(chip, address) for address in (SYNC, GAIN, DAC0)] == [0xFF00, 0, 0]
    assert not chip.outputs_v.any()


@pytest.mark.parametrize("code", [0x0, 0x5, 0xB, 0xF])
def test_other_reset_codes_do_nothing(chip: Dac80508Chip, code: int) -> None:
    write(chip, DAC0, 0x4000)
    write(chip, 0x5, code)
    assert read(chip, DAC0) == 0x4000


# -- update rules ----------------------------------------------------------------------------------------------------


def test_channels_with_sync_wait_for_ldac_and_move_together(chip: Dac80508Chip) -> None:
    write(chip, SYNC, 0xFF03)
    for channel in range(3):
        write(chip, DAC0 + channel, 0x8000)
    np.testing.assert_array_equal(chip.outputs_v[:3], [0, 0, 1.25])
    before = chip.updates
    chip.frame(LDAC, 24)
    np.testing.assert_array_equal(chip.outputs_v[:3], [1.25, 1.25, 1.25])
    assert chip.updates == before + 1


def test_ldac_moves_only_channels_with_sync(chip: Dac80508Chip) -> None:
    write(chip, SYNC, 0xFF03)
    write(chip, DAC0, 0x8000)
    write(chip, DAC0 + 1, 0x8000)
    write(chip, SYNC, 0xFF02)
    chip.frame(LDAC, 24)
    np.testing.assert_array_equal(chip.outputs_v[:2], [0, 1.25])


def test_broadcast_moves_enabled_channels_at_once_whatever_sync_says(chip: Dac80508Chip) -> None:
    write(chip, SYNC, 0x0FFF)
    write(chip, BRDCAST, 0x8000)
    np.testing.assert_array_equal(chip.outputs_v, [1.25] * 4 + [0] * 4)


def test_broadcast_overwrites_the_data_registers(chip: Dac80508Chip) -> None:
    write(chip, SYNC, 0x01FF)
    write(chip, DAC0, 0x1111)
    write(chip, DAC0 + 1, 0x1111)
    write(chip, BRDCAST, 0x8000)
    assert (read(chip, DAC0), read(chip, DAC0 + 1)) == (0x8000, 0x1111)
    chip.frame(LDAC, 24)
    assert chip.outputs_v[0] == 1.25


# -- output law ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "full_scale_v", "lsb_v"),
    [(0x00FF, 5.0, 76.29e-6), (0x01FF, 2.5, 38.15e-6), (0x0100, 1.25, 19.07e-6), (0x0000, 2.5, 38.15e-6)],
)
def test_ranges_of_the_data_sheet(chip: Dac80508Chip, gain: int, full_scale_v: float, lsb_v: float) -> None:
    write(chip, GAIN, gain)
    write(chip, BRDCAST, 0x0001)
    np.testing.assert_allclose(chip.outputs_v, lsb_v, rtol=2e-4)
    write(chip, BRDCAST, 0xFFFF)
    np.testing.assert_allclose(chip.outputs_v, full_scale_v * 65535 / 65536)


def test_gain_is_per_channel(chip: Dac80508Chip) -> None:
    write(chip, GAIN, 0x0002)
    write(chip, BRDCAST, 0x4000)
    np.testing.assert_array_equal(chip.outputs_v[:3], [0.625, 1.25, 0.625])


def test_errors_scale_and_shift_the_output_within_the_rails() -> None:
    chip = Dac80508Chip(vdd_v=5.0, gain_error=np.linspace(0.01, 0.08, 8), offset_v=[-0.01] * 4 + [0.01] * 4)
    assert not chip.outputs_v[:4].any()
    write(chip, GAIN, 0x00FF)
    write(chip, BRDCAST, 0x8000)
    np.testing.assert_allclose(chip.outputs_v[[0, 7]], [2.5 * 1.01 - 0.01, 2.5 * 1.08 + 0.01])
    write(chip, BRDCAST, 0xFFFF)
    assert chip.outputs_v[7] == 5.0


def test_outputs_cannot_be_written_by_a_reader(chip: Dac80508Chip) -> None:
    with pytest.raises(ValueError, match="read-only"):
        chip.outputs_v[0] = 1.0


def test_updates_count_changes_of_outputs_only(chip: Dac80508Chip) -> None:
    write(chip, DAC0, 0x4000)
    assert chip.updates == 1
    write(chip, DAC0, 0x4000)
    write(chip, SYNC, 0xFFFF)
    write(chip, DAC0, 0x5000)
    read(chip, DAC0)
    assert chip.updates == 1


def test_powered_down_channels_are_at_ground_and_keep_their_code() -> None:
    chip = Dac80508Chip(vdd_v=5.25, offset_v=1e-3)
    write(chip, BRDCAST, 0x8000)
    write(chip, CONFIG, 0x0081)
    np.testing.assert_array_equal(chip.outputs_v == 0, [True, *[False] * 6, True])
    write(chip, CONFIG, 0x0000)
    np.testing.assert_allclose(chip.outputs_v, 1.251)


def test_without_internal_reference_only_an_external_one_gives_a_voltage() -> None:
    for external, expected_v in ((False, 0.0), (True, 1.0)):
        chip = Dac80508Chip(vdd_v=5.25, v_reference_v=2.0, external_reference=external)
        write(chip, BRDCAST, 0x8000)
        write(chip, CONFIG, 0x0100)
        np.testing.assert_array_equal(chip.outputs_v, expected_v)


# -- headroom --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vdd_v", "gain", "alarm"),
    [(5.0, 0x0000, 0), (4.99, 0x0000, 1), (3.3, 0x00FF, 1), (3.3, 0x0100, 0), (2.5, 0x0100, 0), (2.49, 0x0100, 1)],
)
def test_too_little_headroom_turns_all_outputs_off(vdd_v: float, gain: int, alarm: int) -> None:
    chip = Dac80508Chip(vdd_v=vdd_v)
    write(chip, GAIN, gain)
    write(chip, BRDCAST, 0x4000)
    assert read(chip, STATUS) == alarm
    assert chip.outputs_v.all() != alarm


def test_outputs_return_with_the_headroom(chip: Dac80508Chip) -> None:
    write(chip, DAC0, 0x8000)
    chip.vdd_v = 4.5
    assert not chip.outputs_v.any()
    assert read(chip, STATUS) == 1
    assert read(chip, DAC0) == 0x8000
    write(chip, GAIN, 0x0101)
    assert chip.outputs_v[0] == 1.25
    write(chip, GAIN, 0x0000)
    chip.vdd_v = 5.25
    assert chip.outputs_v[0] == 1.25
    assert read(chip, STATUS) == 0


# -- CRC -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def crc_chip(chip: Dac80508Chip) -> Dac80508Chip:
    chip.frame(0x030800, 24)
    return chip


@pytest.mark.parametrize(("word", "crc"), list(CRC_VECTORS.items()))
def test_of_all_checksums_only_the_right_one_is_accepted(crc_chip: Dac80508Chip, word: int, crc: int) -> None:
    for wrong in range(1, 256):
        crc_chip.frame(word << 8 | crc ^ wrong, 32)
    assert crc_chip.crc_errors == 255
    crc_chip.frame(word << 8 | crc, 32)
    assert crc_chip.crc_errors == 255


def test_with_crc_frames_have_32_bits(crc_chip: Dac80508Chip) -> None:
    crc_chip.frame(0x08FFFF, 24)
    assert crc_chip.crc_errors == 0
    crc_chip.frame(0xFF << 32 | with_crc(0x081234), 40)
    crc_chip.frame(with_crc(0x880000), 32)
    assert crc_chip.frame(with_crc(NOP), 32) == with_crc(0x881234)


def test_a_bad_crc_drops_the_write_and_shows_in_the_next_reply_only(crc_chip: Dac80508Chip) -> None:
    crc_chip.frame(with_crc(0x810000), 32)
    assert crc_chip.frame(with_crc(0x08FFFF) ^ 1, 32) == with_crc(0x810816)
    assert not crc_chip.outputs_v.any()
    assert crc_chip.crc_errors == 1
    assert crc_chip.frame(with_crc(0x880000), 32) == with_crc(0x400000)
    assert crc_chip.frame(with_crc(NOP), 32) == with_crc(0x880000)


@given(st.integers(0, 0xFFFF), st.integers(0, 31), st.integers(0, 31))
def test_up_to_two_wrong_bits_never_get_through(data: int, first: int, second: int) -> None:
    chip = Dac80508Chip(vdd_v=5.25)
    chip.frame(0x030800, 24)
    chip.frame(with_crc(0x080000 | data) ^ (1 << first | 1 << second), 32)
    assert chip.crc_errors == 1
    assert not chip.outputs_v.any()


def test_crc_can_be_turned_off_and_ends_with_a_reset(crc_chip: Dac80508Chip) -> None:
    crc_chip.frame(with_crc(0x030000), 32)
    assert read(crc_chip, CONFIG) == 0
    crc_chip.frame(0x030800, 24)
    crc_chip.frame(with_crc(SOFT_RESET), 32)
    assert read(crc_chip, 0x1) == 0x0816


# -- pin 15 ----------------------------------------------------------------------------------------------------------


def test_disabled_sdo_reads_as_ones_until_enabled_again(chip: Dac80508Chip) -> None:
    write(chip, CONFIG, 1 << 9)
    chip.frame(0x810000, 24)
    assert chip.frame(NOP, 24) == 0xFFFFFF
    write(chip, CONFIG, 0)
    assert read(chip, 0x1) == 0x0816


def test_alarm_output_is_low_after_a_bad_crc(crc_chip: Dac80508Chip) -> None:
    crc_chip.frame(with_crc(0x031800), 32)
    assert crc_chip.frame(with_crc(NOP), 32) == 0xFFFFFFFF
    crc_chip.frame(with_crc(NOP) ^ 1, 32)
    assert crc_chip.alarm
    assert crc_chip.clock(0) == 0
    assert crc_chip.frame(with_crc(NOP), 32) == 0
    assert not crc_chip.alarm


def test_alarm_output_can_show_the_reference_instead(chip: Dac80508Chip) -> None:
    write(chip, CONFIG, 1 << 12)
    chip.vdd_v = 4.0
    assert not chip.alarm
    write(chip, CONFIG, 1 << 13 | 1 << 12)
    assert chip.alarm


# -- power and faults ------------------------------------------------------------------------------------------------


def test_frames_are_ignored_until_the_chip_is_awake(chip: Dac80508Chip) -> None:
    chip.frame(0x084000, 24, time_s=0.9 * WAKE_UP_S)
    assert (chip.early_frames, chip.updates) == (1, 0)
    chip.frame(0x084000, 24, time_s=WAKE_UP_S)
    chip.frame(SOFT_RESET, 24, time_s=1.0)
    chip.frame(0x084000, 24, time_s=1.0 + 0.9 * WAKE_UP_S)
    assert chip.early_frames == 2
    assert not chip.outputs_v.any()
    chip.frame(0x084000, 24, time_s=1.0 + 1.1 * WAKE_UP_S)
    assert chip.outputs_v[0] == 0.625


def test_without_power_there_is_no_output_and_no_answer(chip: Dac80508Chip) -> None:
    write(chip, BRDCAST, 0x8000)
    chip.power_off()
    assert not chip.outputs_v.any()
    assert chip.frame(0x088000, 24, time_s=0.0) == 0xFFFFFF
    assert chip.early_frames == 0
    chip.power_on(time_s=5.0)
    assert chip.frame(0x810000, 24, time_s=5.0) == 0xFFFFFF
    assert read(chip, DAC0) == 0
    assert not chip.outputs_v.any()


def test_dead_chip_answers_zeros_and_gives_nothing(chip: Dac80508Chip) -> None:
    write(chip, DAC0, 0x8000)
    chip.dead = True
    assert not chip.outputs_v.any()
    assert chip.frame(0x080000, 24) == 0
    assert chip.frame(0x810000, 24) == 0
    chip.dead = False
    assert chip.outputs_v[0] == 1.25


def test_floating_sdo_reads_as_ones_while_the_chip_works(chip: Dac80508Chip) -> None:
    chip.sdo_floating = True
    assert chip.frame(0x088000, 24) == 0xFFFFFF
    assert chip.outputs_v[0] == 1.25


# -- with the driver -------------------------------------------------------------------------------------------------


class Bus:
    """SPI bus with chips on it; the reply is that of the lowest one."""

    def __init__(self, *chips: Dac80508Chip) -> None:
        self.chips = chips

    def transfer(self, chips: int, frame: int, *, n_bits: int, capture: bool, slow: bool) -> int:
        replies = [chip.frame(frame, n_bits) for k, chip in enumerate(self.chips) if chips >> k & 1]
        return replies[0] if capture else 0


def driven(chip: Dac80508Chip, divide: int = 1, gain: int = 2, **more: Any) -> driver.Dac80508:
    return driver.Dac80508(Bus(chip), 0, output_range=driver.OutputRange(2.5, divide, gain), **more)


def test_driver_and_model_have_the_same_registers() -> None:
    assert len(REGISTERS) == len(driver.REGISTERS)
    for address, row in enumerate(driver.REGISTERS):
        model = REGISTERS[address]
        assert row.address == address
        assert (model.reset_z, model.reset_m) == (row.reset_z, row.reset_m)
        assert model.readable == ("R" in row.access)
        # The model has no CLR pin, hence not the two bits that belong to it.
        writable = row.mask & ~0x0600 if row.name == "GAIN" else row.mask
        assert model.write_mask == (writable if "W" in row.access else 0)


@pytest.mark.parametrize("crc", [False, True])
@pytest.mark.parametrize(("divide", "gain"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@given(channel=st.integers(0, 7), code=st.integers(0, 0xFFFF))
@settings(max_examples=20)
def test_driver_sets_what_the_output_law_says(crc: bool, divide: int, gain: int, channel: int, code: int) -> None:
    chip = Dac80508Chip(vdd_v=5.25)
    dac = driven(chip, divide, gain)
    if crc:
        dac.enable_crc()
    dac.configure()
    dac.set_code(channel, code)
    assert not chip.outputs_v.any()
    dac.load()
    assert dac.read(f"DAC{channel}") == code
    assert chip.outputs_v[channel] == pytest.approx(dac.output_range.voltage_v(code), rel=1e-12)
    assert chip.crc_errors == 0


@pytest.mark.parametrize("chip_crc", [False, True])
@pytest.mark.parametrize("believed_crc", [False, True])
def test_driver_resets_a_chip_in_either_mode(chip: Dac80508Chip, chip_crc: bool, believed_crc: bool) -> None:
    write(chip, BRDCAST, 0x8000)
    if chip_crc:
        chip.frame(0x030800, 24)
    dac = driven(chip, crc=believed_crc)
    dac.soft_reset()
    assert not chip.outputs_v.any()
    assert chip.width == 24
    assert dac.identify() == 0x0816


@pytest.mark.parametrize("crc", [False, True])
@pytest.mark.parametrize(("trouble", "text"), [("dead", "zeros"), ("sdo_floating", "ones")])
def test_driver_notices_a_chip_that_does_not_answer(chip: Dac80508Chip, crc: bool, trouble: str, text: str) -> None:
    dac = driven(chip)
    if crc:
        dac.enable_crc()
    setattr(chip, trouble, True)
    with pytest.raises(ProtocolError, match=text):
        dac.identify()


def test_driver_notices_the_wrong_variant() -> None:
    with pytest.raises(DeviceError, match="0x0896"):
        driven(Dac80508Chip(variant="M", vdd_v=5.25)).identify()


@pytest.mark.parametrize("divide", [1, 2])
@pytest.mark.parametrize("vdd_v", [2.7, 3.3, 4.99, 5.0, 5.5])
def test_driver_refuses_the_supplies_at_which_the_reference_gives_up(divide: int, vdd_v: float) -> None:
    chip = Dac80508Chip(vdd_v=vdd_v)
    dac = driven(chip, divide)
    dac.configure()
    if dac.reference_alarm():
        with pytest.raises(ConfigError, match="supply"):
            dac.output_range.check_supply(vdd_v)
    else:
        dac.output_range.check_supply(vdd_v)


def test_driver_can_switch_to_an_external_reference() -> None:
    chip = Dac80508Chip(vdd_v=5.25, external_reference=True)
    dac = driven(chip, reference="external")
    dac.configure()
    dac.broadcast(0x8000)
    np.testing.assert_array_equal(chip.outputs_v, 2.5)
