"""SN74HC595: 8-bit shift register with a storage register behind it, alone and in chains.

Source: TI SCLS041. Not verified on a chip: that shifting and latching go on while OE# is high, and that SRCLR# leaves
the storage register alone.
"""

from __future__ import annotations

import numpy as np

BITS_PER_CHIP = 8


class Chip74HC595:
    """One chip at the level of its pins; bit 0 of a register is QA.

    Attributes:
        shifted: shift register.
        stored: storage register.
    """

    def __init__(self, shifted: int = 0, stored: int = 0) -> None:
        self.shifted = shifted
        self.stored = stored
        self._srclk = 0
        self._rclk = 0
        self._oe_n = 1

    @property
    def qh_serial(self) -> int:
        """Pin QH', driven whatever OE# is."""
        return self.shifted >> (BITS_PER_CHIP - 1)

    @property
    def outputs(self) -> int | None:
        """Pins QH..QA; None while OE# makes them Hi-Z."""
        return None if self._oe_n else self.stored

    def set_pins(self, *, ser: int = 0, srclk: int = 0, rclk: int = 0, oe_n: int = 1, srclr_n: int = 1) -> None:
        """Apply levels to the input pins; clocks act on their rising edges."""
        shift_edge = srclk and not self._srclk
        store_edge = rclk and not self._rclk
        self._srclk, self._rclk, self._oe_n = srclk, rclk, oe_n
        if not srclr_n:
            self.shifted = 0
        # Before the shift: with tied clocks the storage register lags by one clock.
        if store_edge:
            self.stored = self.shifted
        if shift_edge and srclr_n:
            self.shifted = (self.shifted << 1 | (ser & 1)) & 0xFF


class ShiftRegisterChain:
    """A chain of chips with common SRCLK, RCLK, OE# and SRCLR#.

    Bit b of a word is output 8 * chip + pin (QA is pin 0); chip 0 is the one whose SER pin is driven.

    Attributes:
        shifted: shift registers of all chips.
        stored: storage registers of all chips.
        outputs_enabled: OE# is low. A pin of the board: power does not change it.
    """

    def __init__(self, chips: int, rng: np.random.Generator) -> None:
        self.chips = chips
        self.outputs_enabled = False
        self._mask = (1 << BITS_PER_CHIP * chips) - 1
        self.power_on(rng)

    def power_on(self, rng: np.random.Generator) -> None:
        """Supply comes up: both registers hold anything."""
        self._powered = True
        self.shifted = int.from_bytes(rng.bytes(self.chips), "little")
        self.stored = int.from_bytes(rng.bytes(self.chips), "little")

    def power_off(self) -> None:
        """Supply goes away: no output drives, clocks do nothing."""
        self._powered = False

    @property
    def outputs(self) -> int | None:
        """Output pins; None while they are Hi-Z."""
        return self.stored if self.outputs_enabled and self._powered else None

    def shift(self, data: int, count: int) -> None:
        """`count` SRCLK cycles with the low bits of `data`, most significant first."""
        if self._powered:
            self.shifted = (self.shifted << count | data & ((1 << count) - 1)) & self._mask

    def latch(self) -> None:
        """RCLK pulse."""
        if self._powered:
            self.stored = self.shifted

    def clear(self) -> None:
        """SRCLR# pulse: the shift registers only."""
        if self._powered:
            self.shifted = 0
