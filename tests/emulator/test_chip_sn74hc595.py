"""SN74HC595 model: pins, cascades, and the chain as one word."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.sn74hc595 import ShiftChain
from firmware_bridge.emulator.chips.sn74hc595 import Chip74HC595, ShiftRegisterChain


class Cascade:
    """Chips wired QH' to SER, all other pins common."""

    def __init__(self, shifted: int, stored: int, chips: int) -> None:
        self.chips = [Chip74HC595(shifted >> 8 * k & 0xFF, stored >> 8 * k & 0xFF) for k in range(chips)]
        self.oe_n = 1

    def drive(self, ser: int = 0, srclk: int = 0, rclk: int = 0, srclr_n: int = 1) -> None:
        # All chips see the edge before any QH' has moved.
        serial = [ser, *(chip.qh_serial for chip in self.chips[:-1])]
        for chip, bit in zip(self.chips, serial, strict=True):
            chip.set_pins(ser=bit, srclk=srclk, rclk=rclk, oe_n=self.oe_n, srclr_n=srclr_n)

    def shift(self, data: int, count: int) -> None:
        for k in reversed(range(count)):
            self.drive(ser=data >> k & 1, srclk=1)
            self.drive()

    def latch(self) -> None:
        self.drive(rclk=1)
        self.drive()

    def clear(self) -> None:
        self.drive(srclr_n=0)
        self.drive()

    def set_outputs_enabled(self, on: bool) -> None:
        self.oe_n = int(not on)
        self.drive()

    @property
    def outputs(self) -> int | None:
        words = [chip.outputs for chip in self.chips]
        return None if None in words else sum((word or 0) << 8 * k for k, word in enumerate(words))


def chain(chips: int = 2, seed: int = 0) -> ShiftRegisterChain:
    return ShiftRegisterChain(chips, np.random.default_rng(seed))


def test_a_rising_edge_of_the_shift_clock_moves_ser_to_qa() -> None:
    chip = Chip74HC595()
    chip.set_pins(ser=1, srclk=1)
    assert chip.shifted == 0b1
    chip.set_pins(ser=0, srclk=1)
    chip.set_pins(ser=0, srclk=0)
    assert chip.shifted == 0b1
    chip.set_pins(ser=0, srclk=1)
    assert chip.shifted == 0b10


def test_outputs_change_with_the_storage_clock_only() -> None:
    chip = Chip74HC595(shifted=0xA5, stored=0x00)
    chip.set_pins(oe_n=0)
    chip.set_pins(oe_n=0, srclk=1)
    assert chip.outputs == 0x00
    chip.set_pins(oe_n=0, rclk=1)
    assert chip.outputs == 0x4A


def test_storage_lags_by_one_clock_when_both_clocks_are_tied() -> None:
    chip = Chip74HC595()
    bits = [1, 0, 1, 1, 0, 0, 1, 0]
    for k, bit in enumerate(bits):
        before = chip.shifted
        chip.set_pins(ser=bit, srclk=1, rclk=1)
        assert chip.stored == before
        chip.set_pins(ser=bit)
        assert chip.shifted & 1 == bits[k]


def test_clear_empties_the_shift_register_and_leaves_the_outputs() -> None:
    chip = Chip74HC595(shifted=0xFF, stored=0x5A)
    chip.set_pins(oe_n=0, srclr_n=0)
    assert (chip.shifted, chip.outputs) == (0, 0x5A)
    chip.set_pins(ser=1, srclk=1, oe_n=0, srclr_n=0)
    assert chip.shifted == 0


def test_output_enable_touches_neither_registers_nor_the_serial_output() -> None:
    chip = Chip74HC595(shifted=0x80, stored=0x12)
    assert chip.outputs is None
    assert chip.qh_serial == 1
    chip.set_pins(rclk=1, oe_n=1)
    chip.set_pins(oe_n=0)
    assert chip.outputs == 0x80


steps = st.lists(
    st.one_of(
        st.tuples(st.just("shift"), st.integers(0, 2**48 - 1), st.integers(1, 48)),
        st.tuples(st.just("latch")),
        st.tuples(st.just("clear")),
        st.tuples(st.just("enable"), st.booleans()),
    ),
    max_size=8,
)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), steps)
def test_chain_is_the_same_as_a_cascade_of_chips(chips: int, seed: int, sequence: list[tuple[Any, ...]]) -> None:
    word = chain(chips, seed)
    cascade = Cascade(word.shifted, word.stored, chips)
    for name, *arguments in sequence:
        if name == "enable":
            word.outputs_enabled = arguments[0]
            cascade.set_outputs_enabled(arguments[0])
        else:
            getattr(word, name)(*arguments)
            getattr(cascade, name)(*arguments)
        assert word.outputs == cascade.outputs
        assert word.shifted == sum(chip.shifted << 8 * k for k, chip in enumerate(cascade.chips))


def test_first_bit_ends_at_the_far_end() -> None:
    registers = chain(4)
    registers.outputs_enabled = True
    registers.shift(1 << 31, 32)
    registers.latch()
    assert registers.outputs == 1 << 31
    registers.shift(0b10, 2)
    registers.latch()
    assert registers.outputs == 0b10


def test_power_up_leaves_garbage_behind_disabled_outputs() -> None:
    registers = chain(8, seed=3)
    assert registers.outputs is None
    garbage = registers.stored, registers.shifted
    assert garbage[0] != garbage[1]
    registers.power_on(np.random.default_rng(4))
    assert registers.stored not in garbage
    assert registers.shifted not in garbage


def test_equal_seeds_give_equal_garbage() -> None:
    assert (chain(8, 3).stored, chain(8, 3).shifted) == (chain(8, 3).stored, chain(8, 3).shifted)


@pytest.mark.parametrize("action", ["latch", "clear"])
def test_without_power_nothing_drives_and_clocks_do_nothing(action: str) -> None:
    registers = chain()
    registers.outputs_enabled = True
    before = registers.shifted, registers.stored
    registers.power_off()
    registers.shift(0xFF, 8)
    getattr(registers, action)()
    assert registers.outputs is None
    assert (registers.shifted, registers.stored) == before


@given(st.integers(1, 8), st.integers(1, 48), st.integers(0, 2**32 - 1))
def test_what_the_driver_sends_in_pieces_appears_at_the_outputs(chips: int, width: int, seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2, 8 * chips)
    codec = ShiftChain(chips)
    registers = chain(chips)
    registers.outputs_enabled = True
    for data, count in codec.pieces(codec.word(bits), width):
        registers.shift(data, count)
    registers.latch()
    assert registers.outputs is not None
    np.testing.assert_array_equal(codec.bits(registers.outputs), bits)
