"""ADS8324: 14-bit converters, one at the level of clock edges and a bank that converts whole scans.

Source: TI SBAS172A, conversion sequence; two's complement and clamping from a TI forum answer. Not verified on a chip:
what DOUT repeats after the second dummy bit, least significant bit first. Non-linearity is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hil.errors import ConfigError

BITS = 14
CODE_MIN = -(1 << BITS - 1)
CODE_MAX = (1 << BITS - 1) - 1
CODE_MASK = (1 << BITS) - 1
#: clocks of one read in SPI mode 0
FRAME_CLOCKS = 24

#: clocks before the falling edge that ends the sample window; DOUT is Hi-Z until then
_HOLD_CLOCK = 5
#: rising edge at which the sign bit is read, and that of D0 in the repeat
_SIGN_CLOCK = 7
_REPEAT_CLOCK = 24
#: Hi-Z with a pull-up in the first five bits
_FRAME_LEAD = ((1 << _HOLD_CLOCK) - 1) << (FRAME_CLOCKS - _HOLD_CLOCK)
_ALL_ONES = (1 << FRAME_CLOCKS) - 1


def lsb_per_volt(v_reference_v: float) -> float:
    """Code steps per volt; the full scale is twice the reference."""
    return 2**BITS / (2.0 * v_reference_v)


def v_minus_v(v_reference_v: float, minus_input: str) -> float:
    """Voltage of -IN by its wiring."""
    levels_v = {"reference": v_reference_v, "ground": 0.0}
    if minus_input not in levels_v:
        raise ConfigError(f"ADC minus input {minus_input!r} is no wiring", fix="use 'reference' or 'ground'")
    return levels_v[minus_input]


def frames(codes: NDArray[np.integer]) -> NDArray[np.uint32]:
    """24-bit words that a host reads in SPI mode 0, for signed codes of any shape."""
    raw = (codes & CODE_MASK).astype(np.uint32)
    # D13..D0 in bits 17..4 between zeros, then the first bit of the repeat.
    return raw << np.uint32(4) | raw & np.uint32(1) | np.uint32(_FRAME_LEAD)


class Ads8324Chip:
    """One converter at the level of its pins, in SPI mode 0 (DCLOCK low when CS falls)."""

    def __init__(
        self,
        *,
        v_reference_v: float = 0.9,
        minus_input: str = "reference",
        gain_error: float = 0.0,
        offset_lsb: float = 0.0,
        noise_lsb: float = 0.0,
        rng: np.random.Generator,
    ) -> None:
        self._minus_v = v_minus_v(v_reference_v, minus_input)
        self._scale = lsb_per_volt(v_reference_v) * (1.0 + gain_error)
        self._offset_lsb = offset_lsb
        self._noise_lsb = noise_lsb
        self._rng = rng
        self._selected = False
        self._falls = 0
        self._input_v = 0.0
        self._code = 0

    def sample(self, input_v: float) -> None:
        """The voltage at +IN from now on; a conversion takes that at the fifth falling edge."""
        self._input_v = input_v

    def select(self) -> None:
        """CS falls."""
        self._selected = True
        self._falls = 0

    def deselect(self) -> None:
        """CS rises."""
        self._selected = False

    def rising(self) -> int | None:
        """DCLOCK rises: the level of DOUT that a host captures there; None is Hi-Z."""
        clock = self._falls + 1
        if not self._selected or clock <= _HOLD_CLOCK:
            return None
        if _SIGN_CLOCK <= clock < _SIGN_CLOCK + BITS:
            return self._code >> (_SIGN_CLOCK + BITS - 1 - clock) & 1
        if _REPEAT_CLOCK <= clock < _REPEAT_CLOCK + BITS:
            return self._code >> (clock - _REPEAT_CLOCK) & 1
        return 0

    def falling(self) -> None:
        """DCLOCK falls; the fifth time the input is held and converted."""
        if not self._selected:
            return
        self._falls += 1
        if self._falls == _HOLD_CLOCK:
            lsb = (self._input_v - self._minus_v) * self._scale + self._offset_lsb
            lsb += self._noise_lsb * self._rng.standard_normal()
            self._code = min(max(round(lsb), CODE_MIN), CODE_MAX) & CODE_MASK

    def clock(self) -> int:
        """One DCLOCK cycle; the bit a host captures, 1 (pull-up) when DOUT is Hi-Z."""
        level = self.rising()
        self.falling()
        return 1 if level is None else level


class AdcBank:
    """Converters with common CS and DCLOCK, one DOUT lane each.

    Attributes:
        clipping: fault: the input of a lane lies beyond the upper (+1) or lower (-1) end of its range.
        stuck_code: fault: a lane converts everything to this code.
        stuck_dout: fault: the DOUT trace of a lane is at 0 or 1 all the time.
    """

    def __init__(
        self,
        count: int,
        v_reference_v: float = 0.9,
        minus_input: str = "reference",
        gain_error: ArrayLike = 0.0,
        offset_lsb: ArrayLike = 0.0,
        noise_lsb: ArrayLike = 0.0,
    ) -> None:
        self.count = count
        self.clipping: dict[int, int] = {}
        self.stuck_code: dict[int, int] = {}
        self.stuck_dout: dict[int, int] = {}
        self._minus_v = v_minus_v(v_reference_v, minus_input)
        self._scale = lsb_per_volt(v_reference_v) * (1.0 + np.broadcast_to(np.asarray(gain_error, float), count))
        self._offset_lsb = np.broadcast_to(np.asarray(offset_lsb, float), count).copy()
        self._noise_lsb = np.broadcast_to(np.asarray(noise_lsb, float), count).copy()
        self._lanes = np.arange(count)

    def convert(
        self, input_v: NDArray[np.float64], lanes: NDArray[np.intp], rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """Signed codes of inputs of shape (..., len(lanes))."""
        lsb = input_v - self._minus_v
        lsb *= self._scale[lanes]
        lsb += self._offset_lsb[lanes]
        noise = rng.standard_normal(lsb.shape)
        noise *= self._noise_lsb[lanes]
        lsb += noise
        np.rint(lsb, out=lsb)
        np.maximum(lsb, CODE_MIN, out=lsb)
        np.minimum(lsb, CODE_MAX, out=lsb)
        codes = lsb.astype(np.int32)
        for lane, sign in self.clipping.items():
            codes[..., lanes == lane] = CODE_MAX if sign > 0 else CODE_MIN
        for lane, code in self.stuck_code.items():
            codes[..., lanes == lane] = code
        return codes

    def scan(self, input_v: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint32]:
        """24-bit words of a scan, shape (positions, lanes), as the host reads them."""
        words = frames(self.convert(input_v, self._lanes, rng))
        for lane, level in self.stuck_dout.items():
            words[:, lane] = _ALL_ONES if level else 0
        return words
