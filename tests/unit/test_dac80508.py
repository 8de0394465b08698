"""DAC80508: register map, frames, output law, and the driver on a recorded bus."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.dac80508 import (
    BY_NAME,
    CODE_MAX,
    DEVICE_ID,
    REGISTERS,
    RESET_WAIT_S,
    SETTLE_S,
    SPI_READ,
    SPI_WRITE,
    UPDATE_SPACING_S,
    Dac80508,
    DacSetting,
    Frame,
    OutputRange,
    crc8,
    dac_address,
    decode_frame,
    decode_reply,
    gain_register_value,
    ldac_frame,
    read_frame,
    soft_reset_frame,
    write_frame,
)
from hil.errors import CapabilityError, ConfigError, DeviceError, LimitError, ProtocolError

CRC_VECTORS = [
    # traces of the support forum
    (0x060000, 0x7D),
    (0x860000, 0x76),
    # calculated
    (0x030800, 0x15),
    (0x05000A, 0xF6),
    (0x050010, 0xB0),
    (0x080000, 0x51),
    (0x08FFFF, 0x75),
    (0x080A3D, 0x60),
    (0x810000, 0x60),
    (0x0400FF, 0x58),
    (0x02FFFF, 0xF2),
]

ADDRESSES = st.integers(0, 15)
VALUES = st.integers(0, 0xFFFF)
FIVE_VOLT = OutputRange(2.5, 1, 2)


class TestRegisterMap:
    def test_every_address_has_one_register(self) -> None:
        assert [row.address for row in REGISTERS] == list(range(16))
        assert len(BY_NAME) == 16

    def test_fields_do_not_overlap_and_fit_into_16_bits(self) -> None:
        for row in REGISTERS:
            bits = [bit for part in row.fields for bit in range(part.low, part.low + part.width)]
            assert len(bits) == len(set(bits)), row.name
            assert all(bit < 16 for bit in bits), row.name
            assert row.mask == sum(1 << bit for bit in bits)
            assert row.source

    @pytest.mark.parametrize(
        ("name", "access", "reset_z", "reset_m"),
        [
            ("DEVICE_ID", "R", 0x0816, 0x0896),
            ("SYNC", "RW", 0xFF00, 0xFF00),
            ("CONFIG", "RW", 0x0000, 0x0000),
            ("GAIN", "RW", 0x0000, 0x00FF),
            ("TRIGGER", "W", 0x0000, 0x0000),
            ("STATUS", "R", 0x0000, 0x0000),
            ("DAC7", "RW", 0x0000, 0x8000),
        ],
    )
    def test_access_and_reset_values(self, name: str, access: str, reset_z: int, reset_m: int) -> None:
        row = BY_NAME[name]
        assert (row.access, row.reset_z, row.reset_m) == (access, reset_z, reset_m)

    @pytest.mark.parametrize(
        ("register", "name", "low"),
        [
            ("CONFIG", "ALM_SEL", 13),
            ("CONFIG", "ALM_EN", 12),
            ("CONFIG", "CRC_EN", 11),
            ("CONFIG", "FSDO", 10),
            ("CONFIG", "DSDO", 9),
            ("CONFIG", "REF_PWDWN", 8),
            ("GAIN", "REFDIV_EN", 8),
            ("TRIGGER", "LDAC", 4),
            ("STATUS", "REF_ALM", 0),
            ("SYNC", "BRDCAST_EN", 8),
        ],
    )
    def test_places_of_fields(self, register: str, name: str, low: int) -> None:
        assert BY_NAME[register].field(name).low == low

    def test_device_id_says_16_bit_8_channels_and_variant(self) -> None:
        for variant, is_m in (("Z", 0), ("M", 1)):
            assert DEVICE_ID[variant] == 0b000 << 12 | 0b1000 << 8 | is_m << 7 | 0b00101 << 2


class TestCrc:
    @pytest.mark.parametrize(("frame", "crc"), CRC_VECTORS)
    def test_vectors(self, frame: int, crc: int) -> None:
        assert crc8(frame) == crc

    @given(st.integers(0, 0xFFFFFF))
    def test_remainder_over_all_32_bits_is_zero(self, frame: int) -> None:
        word = frame << 8 | crc8(frame)
        for bit in range(31, 7, -1):
            if word >> bit & 1:
                word ^= 0x107 << (bit - 8)
        assert word == 0

    @given(st.lists(st.integers(0, 0xFFFFFF), max_size=20))
    def test_many_at_once_equal_one_by_one(self, frames: list[int]) -> None:
        assert crc8(np.array(frames, dtype=np.int64)).tolist() == [crc8(frame) for frame in frames]

    @given(st.integers(0, 0xFFFFFF), st.integers(0, 31))
    def test_every_single_bit_error_is_refused(self, frame: int, bit: int) -> None:
        with pytest.raises(ProtocolError):
            decode_frame((frame & 0x8FFFFF) << 8 ^ crc8(frame & 0x8FFFFF) ^ 1 << bit, crc=True)


class TestFrames:
    def test_frames_of_the_data_sheet(self) -> None:
        assert soft_reset_frame(False) == 0x05000A
        assert soft_reset_frame(True) == 0x05000AF6
        assert ldac_frame(False) == 0x050010
        assert ldac_frame(True) == 0x050010B0
        assert write_frame(BY_NAME["GAIN"].address, 0x00FF) == 0x0400FF
        assert write_frame(BY_NAME["CONFIG"].address, 0x0800) == 0x030800
        assert write_frame(dac_address(0), 2621, crc=True) == 0x080A3D60
        assert read_frame(1) == 0x810000
        assert read_frame(1, crc=True) == 0x81000060
        assert [dac_address(channel) for channel in range(8)] == list(range(8, 16))

    @given(ADDRESSES, VALUES, st.booleans())
    def test_write_round_trip(self, address: int, value: int, crc: bool) -> None:
        assert decode_frame(write_frame(address, value, crc=crc), crc=crc) == Frame(False, address, value)

    @given(ADDRESSES, st.booleans())
    def test_read_round_trip(self, address: int, crc: bool) -> None:
        assert decode_frame(read_frame(address, crc=crc), crc=crc) == Frame(True, address, 0)

    @given(ADDRESSES, st.lists(VALUES, max_size=10), st.booleans())
    def test_many_writes_at_once(self, address: int, values: list[int], crc: bool) -> None:
        frames = write_frame(address, np.array(values, dtype=np.int64), crc=crc)
        assert frames.tolist() == [write_frame(address, value, crc=crc) for value in values]

    @pytest.mark.parametrize("bit", [20, 21, 22])
    def test_reserved_bits_are_refused(self, bit: int) -> None:
        frame = 0x080000 | 1 << bit
        with pytest.raises(ProtocolError, match="reserved"):
            decode_frame(frame)
        with pytest.raises(ProtocolError, match="reserved"):
            decode_frame(frame << 8 | crc8(frame), crc=True)

    @pytest.mark.parametrize(("frame", "crc"), [(1 << 24, False), (-1, False), (1 << 32, True)])
    def test_frames_of_the_wrong_length_are_refused(self, frame: int, crc: bool) -> None:
        with pytest.raises(ProtocolError, match="does not fit"):
            decode_frame(frame, crc=crc)

    @pytest.mark.parametrize(("address", "value"), [(16, 0), (-1, 0), (8, 0x10000), (8, -1), (8, 1.0), (8, True)])
    def test_values_that_do_not_fit_are_refused(self, address: int, value: Any) -> None:
        with pytest.raises(LimitError):
            write_frame(address, value)

    @pytest.mark.parametrize("channel", [-1, 8])
    def test_no_other_channels(self, channel: int) -> None:
        with pytest.raises(LimitError, match="channel"):
            dac_address(channel)


def reply_frame(address: int, value: int, crc: bool, error: bool = False) -> int:
    frame = 1 << 23 | error << 22 | address << 16 | value
    return frame << 8 | crc8(frame) if crc else frame


class TestReply:
    @given(ADDRESSES, st.integers(0, 0xFFFF), st.booleans())
    def test_value_comes_out(self, address: int, value: int, crc: bool) -> None:
        assert decode_reply(reply_frame(address, value, crc), address, crc=crc) == value

    @pytest.mark.parametrize(("crc", "ones"), [(False, 0xFFFFFF), (True, 0xFFFFFFFF)])
    def test_all_ones_means_nobody_drives(self, crc: bool, ones: int) -> None:
        with pytest.raises(ProtocolError, match="SDO floats"):
            decode_reply(ones, 1, crc=crc)

    @pytest.mark.parametrize("crc", [False, True])
    def test_all_zeros_means_no_chip(self, crc: bool) -> None:
        with pytest.raises(ProtocolError, match="chip dead or unpowered"):
            decode_reply(0, 1, crc=crc)

    @pytest.mark.parametrize("crc", [False, True])
    def test_another_registers_echo_is_refused(self, crc: bool) -> None:
        with pytest.raises(ProtocolError, match="echoes 0x82 instead of 0x81"):
            decode_reply(reply_frame(2, 0x0816, crc), 1, crc=crc)

    def test_a_write_echo_is_refused(self) -> None:
        with pytest.raises(ProtocolError, match="echoes 0x01"):
            decode_reply(0x010816, 1)

    def test_a_dropped_frame_is_reported(self) -> None:
        with pytest.raises(ProtocolError, match="CRC-ERROR"):
            decode_reply(reply_frame(1, 0x0816, True, error=True), 1, crc=True)

    @given(ADDRESSES, VALUES, st.integers(1, 255))
    def test_a_wrong_crc_is_refused(self, address: int, value: int, flip: int) -> None:
        with pytest.raises(ProtocolError):
            decode_reply(reply_frame(address, value, True) ^ flip, address, crc=True)


class TestOutputRange:
    @pytest.mark.parametrize(
        ("divide", "gain", "span_v", "lsb_uv", "code"),
        [(1, 2, 5.0, 76.29, 2621), (2, 2, 2.5, 38.15, 5243), (2, 1, 1.25, 19.07, 10486), (1, 1, 2.5, 38.15, 5243)],
    )
    def test_table_of_the_output_law(self, divide: int, gain: int, span_v: float, lsb_uv: float, code: int) -> None:
        output = OutputRange(2.5, divide, gain)
        assert output.span_v == span_v
        assert output.lsb_v * 1e6 == pytest.approx(lsb_uv, abs=0.005)
        assert output.code(0.2) == code

    @given(VALUES, st.floats(0.5, 5.5), st.sampled_from([1, 2]), st.sampled_from([1, 2]))
    def test_code_of_its_voltage_is_the_code(self, code: int, v_reference_v: float, divide: int, gain: int) -> None:
        output = OutputRange(v_reference_v, divide, gain)
        assert output.code(output.voltage_v(code)) == code

    @given(st.floats(0, 4.9999))
    def test_code_is_the_nearest(self, voltage_v: float) -> None:
        setting = FIVE_VOLT.setting(voltage_v)
        assert setting.requested_v == voltage_v
        assert setting.achieved_v == FIVE_VOLT.voltage_v(setting.code)
        assert abs(setting.achieved_v - voltage_v) <= FIVE_VOLT.lsb_v / 2 * (1 + 1e-9)

    def test_setting_says_what_was_asked_and_what_comes(self) -> None:
        assert FIVE_VOLT.setting(0.2) == DacSetting(2621, 0.2, 2621 / 65536 * 5)

    @pytest.mark.parametrize("voltage_v", [-1e-4, 5.0, 4.99997, float("nan"), float("inf"), float("-inf")])
    def test_voltages_outside_are_refused(self, voltage_v: float) -> None:
        with pytest.raises(LimitError, match="outside"):
            FIVE_VOLT.code(voltage_v)

    def test_one_wrong_voltage_of_many_is_named(self) -> None:
        with pytest.raises(LimitError, match=r"5\.5 V"):
            FIVE_VOLT.code(np.array([0.1, 5.5, 0.2]))

    def test_many_voltages_at_once(self) -> None:
        codes = FIVE_VOLT.code(np.array([[0.0, 0.2], [2.5, 5.0 - FIVE_VOLT.lsb_v]]))
        assert codes.tolist() == [[0, 2621], [0x8000, CODE_MAX]]
        assert FIVE_VOLT.voltage_v(codes).tolist() == [
            [0.0, 2621 * FIVE_VOLT.lsb_v],
            [2.5, CODE_MAX * FIVE_VOLT.lsb_v],
        ]

    def test_rounding_of_floating_point_is_no_violation(self) -> None:
        assert FIVE_VOLT.code(-1e-16) == 0
        assert type(FIVE_VOLT.code(0.2)) is int

    @pytest.mark.parametrize("code", [-1, 0x10000, 1.5])
    def test_codes_outside_are_refused(self, code: Any) -> None:
        with pytest.raises(LimitError, match="code"):
            FIVE_VOLT.voltage_v(code)

    @pytest.mark.parametrize(
        ("v_reference_v", "divide", "gain"),
        [(2.5, 3, 1), (2.5, 1, 0), (0.0, 1, 1), (float("nan"), 1, 1), (6.0, 1, 1)],
    )
    def test_impossible_ranges_are_refused(self, v_reference_v: float, divide: int, gain: int) -> None:
        with pytest.raises(ConfigError):
            OutputRange(v_reference_v, divide, gain)

    @pytest.mark.parametrize(("divide", "gain", "value"), [(1, 1, 0), (1, 2, 0xFF), (2, 1, 0x100), (2, 2, 0x1FF)])
    def test_gain_register(self, divide: int, gain: int, value: int) -> None:
        assert gain_register_value(divide, gain) == value

    @pytest.mark.parametrize(
        ("divide", "vdd_v", "good"),
        [(1, 5.0, True), (1, 4.99, False), (1, 3.3, False), (2, 3.3, True), (2, 2.7, True), (2, 2.6, False),
         (1, 5.6, False), (1, float("nan"), False)],
    )  # fmt: skip
    def test_headroom_of_the_internal_reference(self, divide: int, vdd_v: float, good: bool) -> None:
        output = OutputRange(2.5, divide, 2)
        if good:
            output.check_supply(vdd_v)
        else:
            with pytest.raises(ConfigError, match="supply"):
                output.check_supply(vdd_v)

    def test_headroom_of_an_external_reference_divided(self) -> None:
        OutputRange(3.3, 2, 1).check_supply(3.3)
        with pytest.raises(ConfigError, match="0 V"):
            OutputRange(3.4, 2, 1).check_supply(3.3)


@dataclass
class FakeChips:
    """Chips on a bus: keep registers, answer reads, and forget the frames that a real chip would."""

    registers: dict[int, list[int]]
    crc: dict[int, bool] = field(default_factory=dict)
    frames: list[tuple[int, int, int, bool, bool]] = field(default_factory=list)
    asked: dict[int, int] = field(default_factory=dict)
    sdo: int | None = None
    stuck_at_zero: int = 0

    def transfer(self, chips: int, frame: int, *, n_bits: int, capture: bool, slow: bool) -> int:
        self.frames.append((chips, frame, n_bits, capture, slow))
        reply = 0
        for chip in self.registers:
            if chips >> chip & 1:
                reply = self._take(chip, frame, n_bits)
        return reply if capture and self.sdo is None else (self.sdo or 0)

    def _take(self, chip: int, frame: int, n_bits: int) -> int:
        crc = self.crc.get(chip, False)
        reply = 0
        if chip in self.asked:
            address = self.asked.pop(chip)
            reply = reply_frame(address, self.registers[chip][address], crc)
        if crc and n_bits < 32:
            return reply
        frame &= 0xFFFFFFFF if crc else 0xFFFFFF
        request = decode_frame(frame, crc=crc)
        if request.read:
            self.asked[chip] = request.address
        elif request.address == BY_NAME["TRIGGER"].address:
            if request.value & 0xF == 0xA:
                self.registers[chip][:] = [row.reset_z for row in REGISTERS]
                self.crc[chip] = False
        elif request.address != 0:
            self.registers[chip][request.address] = request.value & ~self.stuck_at_zero
            if request.address == BY_NAME["CONFIG"].address:
                self.crc[chip] = bool(request.value & 0x0800)
        return reply


def one_chip(chip: int = 3, **options: Any) -> tuple[Dac80508, FakeChips]:
    bus = FakeChips({chip: [row.reset_z for row in REGISTERS]}, crc={chip: options.get("crc", False)})
    return Dac80508(bus, chip, output_range=options.pop("output_range", FIVE_VOLT), **options), bus


class TestDriver:
    def test_bring_up_frame_by_frame(self) -> None:
        dac, bus = one_chip()
        dac.soft_reset()
        dac.enable_crc()
        assert dac.identify() == 0x0816
        dac.configure(check=False)
        assert [frame[:3] for frame in bus.frames] == [
            (0b1000, 0x05000AF6, 32),
            (0b1000, 0x05000A, 24),
            (0b1000, 0x030800, 24),
            (0b1000, 0x81000060, 32),
            (0b1000, 0x00000000, 32),
            (0b1000, 0x03080015, 32),
            (0b1000, 0x0400FF58, 32),
            (0b1000, 0x02FFFFF2, 32),
        ]

    @pytest.mark.parametrize("believed", [False, True])
    @pytest.mark.parametrize("actual", [False, True])
    def test_soft_reset_works_whatever_mode_the_chip_is_in(self, believed: bool, actual: bool) -> None:
        dac, bus = one_chip(crc=believed)
        bus.crc[3] = actual
        bus.registers[3][BY_NAME["DAC0"].address] = 1234
        dac.soft_reset()
        assert (dac.crc, bus.crc[3]) == (False, False)
        assert bus.registers[3] == [row.reset_z for row in REGISTERS]
        assert bus.frames[-1][2] == (32 if believed else 24)

    def test_enabling_crc_twice_writes_nothing_else(self) -> None:
        dac, bus = one_chip()
        dac.enable_crc()
        dac.enable_crc()
        assert bus.crc[3]
        assert dac.read("CONFIG") == 0x0800
        assert dac.read("DAC0") == 0

    def test_a_read_is_a_request_and_a_captured_nop_on_the_slow_clock(self) -> None:
        dac, bus = one_chip()
        assert dac.read("SYNC") == 0xFF00
        assert bus.frames == [(0b1000, 0x820000, 24, False, True), (0b1000, 0x000000, 24, True, True)]

    @given(st.sampled_from([row for row in REGISTERS if row.access == "RW"]), st.data(), st.booleans())
    def test_every_register_reads_back_what_was_written(self, row: Any, data: st.DataObject, crc: bool) -> None:
        value = data.draw(VALUES) & row.mask
        dac, _ = one_chip()
        if crc:
            dac.enable_crc()
        dac.write(row.name, value)
        assert dac.read(row.name) == value
        dac.verify(row.name, value)

    @pytest.mark.parametrize("crc", [False, True])
    def test_configure_sets_range_update_mode_and_reference(self, crc: bool) -> None:
        dac, bus = one_chip(output_range=OutputRange(2.0, 2, 2), reference="external", crc=crc)
        dac.configure(sync_channels=0x0F, broadcast_channels=0x03)
        found = {row.name: bus.registers[3][row.address] for row in REGISTERS}
        assert found["GAIN"] == 0x01FF
        assert found["SYNC"] == 0x030F
        assert found["CONFIG"] == (0x0900 if crc else 0x0100)
        assert dac.crc == crc

    def test_configure_notices_a_register_that_does_not_take_its_value(self) -> None:
        dac, bus = one_chip()
        bus.stuck_at_zero = 0x0001
        with pytest.raises(DeviceError, match="DAC80508 chip 3: GAIN is 0x00FE, expected 0x00FF"):
            dac.configure()

    def test_codes_load_and_broadcast(self) -> None:
        dac, bus = one_chip()
        dac.set_code(5, 0x1234)
        dac.load()
        dac.broadcast(2621)
        assert bus.frames == [
            (0b1000, 0x0D1234, 24, False, False),
            (0b1000, 0x050010, 24, False, False),
            (0b1000, 0x060A3D, 24, False, False),
        ]

    def test_resetting_through_the_register_ends_crc_mode(self) -> None:
        dac, bus = one_chip()
        dac.enable_crc()
        dac.write("TRIGGER", 0xA)
        assert not dac.crc
        assert not bus.crc[3]
        assert dac.read("SYNC") == 0xFF00

    def test_identify_accepts_any_revision(self) -> None:
        dac, bus = one_chip()
        bus.registers[3][1] = 0x0815
        assert dac.identify() == 0x0815

    @pytest.mark.parametrize(("variant", "found"), [("Z", 0x0896), ("M", 0x0816), ("Z", 0x1816), ("Z", 0x0812)])
    def test_identify_refuses_another_chip(self, variant: Any, found: int) -> None:
        dac, bus = one_chip(variant=variant)
        bus.registers[3][1] = found
        with pytest.raises(DeviceError, match=f"DAC80508 chip 3: DEVICE_ID is 0x{found:04X}"):
            dac.identify()

    def test_identify_accepts_the_mid_scale_variant(self) -> None:
        dac, bus = one_chip(variant="M")
        bus.registers[3][1] = 0x0896
        assert dac.identify() == 0x0896

    def test_reference_alarm(self) -> None:
        dac, bus = one_chip()
        assert not dac.reference_alarm()
        bus.registers[3][BY_NAME["STATUS"].address] = 1
        assert dac.reference_alarm()

    @pytest.mark.parametrize(
        ("sdo", "text"), [(0xFFFFFF, "SDO floats"), (0, "chip dead"), (0x820000, "echoes 0x82 instead of 0x81")]
    )
    def test_wrong_replies_name_chip_and_register(self, sdo: int, text: str) -> None:
        dac, bus = one_chip()
        bus.sdo = sdo
        with pytest.raises(ProtocolError, match=f"DAC80508 chip 3: reading DEVICE_ID: .*{text}"):
            dac.identify()

    def test_what_cannot_be_done_is_refused_before_anything_is_sent(self) -> None:
        dac, bus = one_chip()
        with pytest.raises(CapabilityError, match="STATUS cannot be written"):
            dac.write("STATUS", 0)
        with pytest.raises(CapabilityError, match="TRIGGER cannot be read"):
            dac.read("TRIGGER")
        with pytest.raises(CapabilityError, match="no register 'DAC8'"):
            dac.read("DAC8")
        with pytest.raises(LimitError, match="outside its fields"):
            dac.write("CONFIG", 0x4000)
        with pytest.raises(LimitError):
            dac.set_code(8, 0)
        with pytest.raises(LimitError):
            dac.set_code(0, 0x10000)
        with pytest.raises(LimitError, match="sync_channels"):
            dac.configure(sync_channels=0x100)
        assert bus.frames == []

    def test_a_chip_leaves_its_neighbours_alone(self) -> None:
        bus = FakeChips({chip: [row.reset_z for row in REGISTERS] for chip in range(3)})
        Dac80508(bus, 1, output_range=FIVE_VOLT).set_code(0, 77)
        assert [bus.registers[chip][8] for chip in range(3)] == [0, 77, 0]


def test_timing_of_the_data_sheet() -> None:
    assert (SPI_WRITE.clock_max_hz, SPI_READ.clock_max_hz) == (50e6, 18e6)
    assert (RESET_WAIT_S, UPDATE_SPACING_S, SETTLE_S) == (250e-6, 1e-6, 5e-6)
    for row in (SPI_WRITE, SPI_READ):
        assert 2 * row.high_min_s <= 1 / row.clock_max_hz
