"""SN74HC595: shift registers with a storage stage, chained.

SRCLK shifts, RCLK copies all shifted bits to the outputs at once, so that shifting never disturbs them. After power-up
the content is undefined: hold OE# high, shift zeros, pulse RCLK, then let OE# go low.

Bit b of a chain is output b % 8 (QA = 0 .. QH = 7) of chip b // 8, chip 0 being nearest to the driver. The first bit
sent ends up farthest away, so a chain's content is sent most significant bit first.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError, LimitError

OUTPUTS_PER_CHIP = 8

#: supplies of the timing table
_VCC_V = (2.0, 4.5, 6.0)
#: logic high as a fraction of the supply; unverified
_INPUT_HIGH_OF_VCC = 0.7


@dataclass(frozen=True)
class Timing:
    """One row of the data sheet's timing table: seconds at 2, 4.5 and 6 V, -40 to 85 C, 50 pF."""

    text: str
    at_2_v_s: float
    at_4_5_v_s: float
    at_6_v_s: float
    source: str


_THIRD_PARTY = "4.5 V: third party quoting SCLS041J; 2 V and 6 V unverified"

TIMING: Mapping[str, Timing] = {
    "clock_period": Timing("least period of SRCLK", 1 / 5e6, 1 / 25e6, 1 / 29e6, _THIRD_PARTY),
    "pulse_width": Timing("least high or low time of SRCLK and RCLK", 100e-9, 20e-9, 17e-9, _THIRD_PARTY),
    "data_setup": Timing("SER to SRCLK, least", 125e-9, 25e-9, 21e-9, _THIRD_PARTY),
    "latch_setup": Timing("SRCLK to RCLK, least", 94e-9, 19e-9, 16e-9, _THIRD_PARTY),
    "shift_to_serial_out": Timing("SRCLK to QH', at most", 200e-9, 40e-9, 34e-9, _THIRD_PARTY),
    "latch_to_output": Timing("RCLK to Q, at most", 187e-9, 37e-9, 32e-9, "unverified"),
    "output_enable": Timing("OE# to Q driven, at most", 187e-9, 37e-9, 32e-9, _THIRD_PARTY),
    "output_disable": Timing("OE# to Q Hi-Z, at most", 250e-9, 50e-9, 43e-9, _THIRD_PARTY),
}


def timing_s(name: str, vcc_v: float) -> float:
    """A row of `TIMING` at a supply.

    Between the columns of the table delays are taken as a power of the supply (inferred, unverified). At 3.3 V that is
    1.9 times the 4.5 V value.

    Raises:
        ConfigError: the supply is outside the table's 2 to 6 V.
    """
    if not _VCC_V[0] <= vcc_v <= _VCC_V[-1]:
        raise ConfigError(f"SN74HC595 supply of {vcc_v} V is outside 2 .. 6 V", fix="correct the supply")
    row = TIMING[name]
    times_s = (row.at_2_v_s, row.at_4_5_v_s, row.at_6_v_s)
    return float(np.exp(np.interp(np.log(vcc_v), np.log(_VCC_V), np.log(times_s))))


def clock_max_hz(vcc_v: float, chips: int) -> float:
    """Fastest shift clock: of one chip, or of a cascade where each QH' must arrive before the next SRCLK."""
    period_s = timing_s("clock_period", vcc_v)
    if chips > 1:
        period_s = max(period_s, timing_s("shift_to_serial_out", vcc_v) + timing_s("data_setup", vcc_v))
    return 1 / period_s


def input_high_min_v(vcc_v: float) -> float:
    """Lowest voltage that counts as high. At 5 V it is 3.5 V, which 3.3 V logic does not reach."""
    return _INPUT_HIGH_OF_VCC * vcc_v


@dataclass(frozen=True)
class ShiftChain:
    """Chips in a row, QH' to SER, with common clocks."""

    chips: int

    def __post_init__(self) -> None:
        if self.chips < 1:
            raise ConfigError(f"shift-register chain of {self.chips} chips", fix="give at least 1")

    @property
    def n_bits(self) -> int:
        return OUTPUTS_PER_CHIP * self.chips

    def word(self, bits: Any) -> int:
        """Content as one number whose bit b is output b.

        Args:
            bits: 0 or 1 per output, shape (n_bits,).
        """
        packed = self.words(bits)
        if packed.ndim != 1:
            raise LimitError(
                f"bits of shape {np.shape(bits)} are not one content of the chain", fix=f"give shape ({self.n_bits},)"
            )
        return int.from_bytes(packed.tobytes(), "big")

    def words(self, bits: Any) -> NDArray[np.uint8]:
        """Many contents, packed as they are sent.

        Args:
            bits: 0 or 1 per output, shape (..., n_bits).

        Returns:
            Shape (..., chips): most significant byte first, that is the last chip's first, with QH as its top bit.
        """
        values = np.asarray(bits)
        if values.ndim == 0 or values.shape[-1] != self.n_bits:
            raise LimitError(
                f"bits of shape {values.shape} do not fit a chain of {self.n_bits} outputs",
                fix=f"give shape (..., {self.n_bits})",
            )
        if values.dtype.kind not in "biu" or ((values != 0) & (values != 1)).any():
            raise LimitError("bits of a shift-register chain are other than 0 and 1", fix="give whole numbers 0 and 1")
        return np.packbits(values[..., ::-1].astype(np.uint8), axis=-1)

    def bits(self, word: int) -> NDArray[np.uint8]:
        """The outputs of a content, shape (n_bits,)."""
        data = self._checked(word).to_bytes(self.chips, "little")
        return np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")

    def pieces(self, word: int, width: int) -> list[tuple[int, int]]:
        """Split a content into (data, count) of at most `width` bits each, in the order of sending.

        The data of a piece are right-aligned and sent most significant bit first.
        """
        if width < 1:
            raise LimitError(f"pieces of {width} bits", fix="give at least 1")
        word = self._checked(word)
        pieces: list[tuple[int, int]] = []
        left = self.n_bits
        while left:
            count = min(width, left)
            left -= count
            pieces.append(((word >> left) & ((1 << count) - 1), count))
        return pieces

    def _checked(self, word: int) -> int:
        word = operator.index(word)
        if not 0 <= word < 1 << self.n_bits:
            raise LimitError(f"content {word:#x} does not fit a chain of {self.n_bits} outputs", fix="drop the rest")
        return word
