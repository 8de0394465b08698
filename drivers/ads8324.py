"""ADS8324: 14-bit ADC with differential bipolar input and serial output (DS SBAS172A).

A conversion is one read of 24 clocks in SPI mode 0. The input is sampled from the fall of CS to the fifth falling
clock edge, held from then on, and disconnected until the next fall of CS: the analogue side may move meanwhile.
The result belongs to the conversion in progress. Power-down between conversions is automatic.

Bits of the 24-bit word, first to last: five of no meaning (DOUT is Hi-Z, a pull-up makes ones), a null bit 0,
D13 .. D0 in two's complement, two zeros, and the start of an LSB-first repeat, which is 0 and then D0. The alignment
of the last two is inferred, unverified, and not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hil.errors import ConfigError, LimitError, ProtocolError

BITS = 14
#: lowest and highest code (forum E2E 892699 for the upper end, table of the sibling ADS8321)
CODE_MIN = -(1 << (BITS - 1))
CODE_MAX = (1 << (BITS - 1)) - 1

#: clocks of one sample (DS)
FRAME_CLOCKS = 24
#: the falling edge that ends sampling (DS: 4.5 to 5 clocks)
HOLD_CLOCKS = 5
#: least clocks from one fall of CS to the next (calculated; the rated 50 kSPS stay 24 clocks)
CYCLE_CLOCKS_MIN = 22
#: clock, from 1 to 50 kSPS (DS)
CLOCK_MIN_HZ, CLOCK_MAX_HZ = 24e3, 1.2e6
#: least high and low time of the clock (DS)
CLOCK_HALF_MIN_S = 200e-9
#: CS fall to the first rising clock edge, least (DS); the clock must be low when CS falls
CS_SETUP_MIN_S = 50e-9
#: falling clock edge to a valid output bit, at most (DS)
DATA_VALID_MAX_S = 250e-9
#: lowest reference; the highest is half the supply (DS)
V_REFERENCE_MIN_V = 0.5
#: highest supply; unverified (1.8 V is nominal)
VCC_MAX_V = 3.6
#: standard deviation of one conversion at a reference of 0.9 V (calculated from 5 LSB peak to peak, DS)
NOISE_LSB = 0.8

_CODE_LOW = 4
_CODE_MASK = (1 << BITS) - 1
_HIGH_Z = 0b11111 << 19
#: null bit and dummy bits
_ZEROS = 1 << 18 | 0b11 << 2
#: a voltage may miss the ends of the range by this much of an LSB: rounding of floating-point numbers
_ROUNDING_LSB = 1e-6


def encode_frames(codes: Any) -> Any:
    """Words as a master reads them, with a pull-up on DOUT.

    Returns:
        uint32 array of the shape of `codes`, or int for one code.

    Raises:
        LimitError: a code that is not whole or outside `CODE_MIN` .. `CODE_MAX`.
    """
    whole = np.asarray(codes)
    if whole.dtype.kind not in "iu":
        raise LimitError(f"ADS8324 codes of type {whole.dtype}", fix="give whole numbers")
    _check_codes(whole)
    raw = whole.astype(np.int64) & _CODE_MASK
    words = (_HIGH_Z | raw << _CODE_LOW | raw & 1).astype(np.uint32)
    return int(words) if words.ndim == 0 else words


def decode_frames(words: Any) -> tuple[Any, Any]:
    """Codes of words, and whether the bits that must be zero are.

    A line stuck at one is seen by its null bit; one stuck at zero cannot be told from a code of 0.

    Args:
        words: 24-bit word or array of them.

    Returns:
        codes: int64 array, or int.
        frame_ok: bool array, or bool; where it is false the code means nothing.

    Raises:
        ProtocolError: not whole numbers of 24 bits.
    """
    whole = np.asarray(words)
    if whole.dtype.kind not in "iu" or (whole < 0).any() or (whole >> FRAME_CLOCKS).any():
        raise ProtocolError(
            f"ADS8324 words of type {whole.dtype} are not 24-bit words", fix="give what 24 clocks of DOUT delivered"
        )
    whole = whole.astype(np.int64)
    raw = (whole >> _CODE_LOW) & _CODE_MASK
    codes = raw - ((raw >> (BITS - 1)) << BITS)
    frame_ok = (whole & _ZEROS) == 0
    return (int(codes), bool(frame_ok)) if whole.ndim == 0 else (codes, frame_ok)


def is_clipped(codes: Any) -> Any:
    """Whether codes are at either end, where an input beyond the range ends up too (lower end unverified)."""
    whole = np.asarray(codes)
    clipped = (whole == CODE_MIN) | (whole == CODE_MAX)
    return bool(clipped) if clipped.ndim == 0 else clipped


@dataclass(frozen=True)
class Ads8324:
    """Input law: code = (input - minus) / LSB, with an LSB of 2 * v_reference / 16384.

    Attributes:
        v_reference_v: reference.
        minus_input: what -IN is tied to. At the reference all codes are used (E2E 892699); at ground only 0 and above.
    """

    v_reference_v: float
    minus_input: Literal["reference", "ground"] = "reference"

    def __post_init__(self) -> None:
        if self.minus_input not in ("reference", "ground"):
            raise ConfigError(f"ADS8324 minus_input = {self.minus_input!r}", fix="use reference or ground")
        if not self.v_reference_v >= V_REFERENCE_MIN_V:
            raise ConfigError(f"ADS8324 reference of {self.v_reference_v} V", fix=f"use at least {V_REFERENCE_MIN_V} V")

    @property
    def lsb_v(self) -> float:
        return 2 * self.v_reference_v / (1 << BITS)

    @property
    def code_range(self) -> tuple[int, int]:
        """Lowest and highest code of an input that is not below ground."""
        return (CODE_MIN, CODE_MAX) if self.minus_input == "reference" else (0, CODE_MAX)

    @property
    def range_v(self) -> tuple[float, float]:
        """Lowest and highest input that has a code."""
        low, high = self.code_range
        return self._voltage_v(low), self._voltage_v(high)

    def code(self, input_v: Any) -> Any:
        """Nearest code of a voltage at +IN: int, or int64 array.

        Raises:
            LimitError: a voltage outside `range_v`, or not a number.
        """
        low, high = self.code_range
        steps = (np.asarray(input_v, dtype=np.float64) - self._minus_v) / self.lsb_v
        inside = (steps >= low - _ROUNDING_LSB) & (steps <= high + _ROUNDING_LSB)
        if not inside.all():
            wrong_v = float(np.asarray(input_v, dtype=np.float64)[~inside].flat[0])
            raise LimitError(
                f"ADS8324 input of {wrong_v:g} V is outside {self.range_v[0]:g} .. {self.range_v[1]:g} V",
                fix="lower the current or the TIA's feedback resistor",
            )
        codes = np.rint(steps).astype(np.int64)
        return int(codes) if codes.ndim == 0 else codes

    def voltage_v(self, code: Any) -> Any:
        """Voltage at +IN of a code, or of a mean of codes: float, or array."""
        codes = np.asarray(code, dtype=np.float64)
        _check_codes(codes)
        voltages_v = self._voltage_v(codes)
        return float(voltages_v) if codes.ndim == 0 else voltages_v

    def check(self, vcc_v: float, clock_hz: float) -> None:
        """Raise `ConfigError` unless supply, reference and clock are within the limits."""
        if not 0 < vcc_v <= VCC_MAX_V:
            raise ConfigError(f"ADS8324 supply of {vcc_v} V", fix=f"use at most {VCC_MAX_V} V; 1.8 V is nominal")
        if not V_REFERENCE_MIN_V <= self.v_reference_v <= vcc_v / 2:
            raise ConfigError(
                f"ADS8324 reference of {self.v_reference_v} V is outside {V_REFERENCE_MIN_V} .. {vcc_v / 2:g} V, "
                "half the supply",
                fix="correct reference or supply",
            )
        if not CLOCK_MIN_HZ <= clock_hz <= CLOCK_MAX_HZ:
            raise ConfigError(
                f"ADS8324 clock of {clock_hz:g} Hz is outside {CLOCK_MIN_HZ:g} .. {CLOCK_MAX_HZ:g} Hz",
                fix="choose another divider of the fabric clock",
            )

    @property
    def _minus_v(self) -> float:
        return self.v_reference_v if self.minus_input == "reference" else 0.0

    def _voltage_v(self, code: Any) -> Any:
        return self._minus_v + code * self.lsb_v


def _check_codes(codes: Any) -> None:
    inside = (codes >= CODE_MIN) & (codes <= CODE_MAX)
    if not inside.all():
        raise LimitError(
            f"ADS8324 code {codes[~inside].flat[0]} is outside {CODE_MIN} .. {CODE_MAX}",
            fix="the converter has 14 bits, two's complement",
        )
