"""CD4051B: one common line to one of eight, or none (DS SCHS047; VEE and VSS at ground, 25 C).

The common side of each mux is a row-drive channel, its eight sides are rows. Off needs INH; without it one row is
always connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hil.errors import CapabilityError, ConfigError, LimitError

POSITIONS = 8
#: position that stands for none
OFF = -1

#: which position (INH, C, B, A) connects (DS)
TRUTH_TABLE: Mapping[tuple[int, int, int, int], int] = {
    (0, 0, 0, 0): 0,
    (0, 0, 0, 1): 1,
    (0, 0, 1, 0): 2,
    (0, 0, 1, 1): 3,
    (0, 1, 0, 0): 4,
    (0, 1, 0, 1): 5,
    (0, 1, 1, 0): 6,
    (0, 1, 1, 1): 7,
    (1, 0, 0, 0): OFF,
    (1, 0, 0, 1): OFF,
    (1, 0, 1, 0): OFF,
    (1, 0, 1, 1): OFF,
    (1, 1, 0, 0): OFF,
    (1, 1, 0, 1): OFF,
    (1, 1, 1, 0): OFF,
    (1, 1, 1, 1): OFF,
}

#: position by (INH, C, B, A)
_CONNECTS = np.empty((2, 2, 2, 2), dtype=np.int64)
for _inputs, _position in TRUTH_TABLE.items():
    _CONNECTS[_inputs] = _position

#: Whether the old position opens before the new one closes: not guaranteed (inferred, unverified). Where two rows must
#: never be joined, switch off between two positions, or drive the idle level.
BREAK_BEFORE_MAKE = False

_VDD_V = (5.0, 10.0, 15.0)
VDD_MIN_V, VDD_MAX_V = 3.0, 18.0


@dataclass(frozen=True)
class Characteristic:
    """One row of the data sheet: typical and largest value at 5, 10 and 15 V."""

    text: str
    typical: tuple[float, float, float]
    largest: tuple[float, float, float]
    source: str = "DS SCHS047"


R_ON_OHM = Characteristic("resistance of a closed switch", (470.0, 180.0, 125.0), (1050.0, 400.0, 240.0))
ADDRESS_TO_OUTPUT_S = Characteristic("A, B, C to output", (450e-9, 160e-9, 120e-9), (720e-9, 320e-9, 240e-9))
INHIBIT_TO_ON_S = Characteristic("INH low to output", (400e-9, 160e-9, 120e-9), (720e-9, 320e-9, 240e-9))
INHIBIT_TO_OFF_S = Characteristic("INH high to output", (200e-9, 90e-9, 70e-9), (450e-9, 210e-9, 160e-9))
#: least voltage of a high at A, B, C, INH (DS)
_CONTROL_HIGH_MIN_V = (3.5, 7.0, 11.0)


def _at(vdd_v: float, values: tuple[float, ...]) -> float:
    """Linear between 5, 10 and 15 V. Outside, up to 3 and 18 V, the nearest column: below 5 V that is optimistic."""
    if not VDD_MIN_V <= vdd_v <= VDD_MAX_V:
        raise ConfigError(
            f"CD4051B supply of {vdd_v} V is outside {VDD_MIN_V:g} .. {VDD_MAX_V:g} V", fix="correct the supply"
        )
    return float(np.interp(vdd_v, _VDD_V, values))


def r_on_ohm(vdd_v: float) -> tuple[float, float]:
    """Typical and largest resistance of a closed switch."""
    return _at(vdd_v, R_ON_OHM.typical), _at(vdd_v, R_ON_OHM.largest)


def switching_s(vdd_v: float) -> float:
    """Longest time from a change of A, B, C to the output."""
    return _at(vdd_v, ADDRESS_TO_OUTPUT_S.largest)


def inhibit_on_s(vdd_v: float) -> float:
    """Longest time from INH low until the switch is closed."""
    return _at(vdd_v, INHIBIT_TO_ON_S.largest)


def inhibit_off_s(vdd_v: float) -> float:
    """Longest time from INH high until the switch is open."""
    return _at(vdd_v, INHIBIT_TO_OFF_S.largest)


def control_high_min_v(vdd_v: float) -> float:
    """Lowest voltage that counts as high at A, B, C and INH. At 5 V it is 3.5 V, which 3.3 V logic does not reach.

    The fraction of the supply is interpolated and, outside 5 to 15 V, kept (inferred, unverified).
    """
    fractions = tuple(high_v / column_v for high_v, column_v in zip(_CONTROL_HIGH_MIN_V, _VDD_V, strict=True))
    return vdd_v * _at(vdd_v, fractions)


@dataclass(frozen=True)
class MuxBank:
    """Several muxes whose control inputs hang on a shift-register chain.

    Bits, from bit 0 of the chain on:

    - independent selects: A, B, C of mux m at 3 m .. 3 m + 2; with INH wired A, B, C, INH at 4 m .. 4 m + 3
    - common selects: A, B, C of all at 0 .. 2; with INH wired that of mux m at 3 + m

    Attributes:
        count: muxes.
        width: positions used of each.
        selects: whether each has its own A, B, C.
        inhibit: INH of each mux is wired.
    """

    count: int
    width: int = POSITIONS
    selects: Literal["independent", "common"] = "independent"
    inhibit: bool = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"bank of {self.count} muxes", fix="give at least 1")
        if not 1 <= self.width <= POSITIONS:
            raise ConfigError(f"mux width of {self.width}", fix=f"use 1 to {POSITIONS}: the CD4051B has no more")
        if self.selects not in ("independent", "common"):
            raise ConfigError(f"mux selects = {self.selects!r}", fix="use independent or common")

    @property
    def n_bits(self) -> int:
        """Bits of the chain that the bank needs."""
        if self.selects == "common":
            return 3 + self.count * self.inhibit
        return (3 + self.inhibit) * self.count

    def encode(self, positions: Any) -> NDArray[np.uint8]:
        """Control bits for positions.

        Where selects are common, an inhibited mux does not care, and if all are off the position is 0.

        Args:
            positions: position of each mux, -1 for off; shape (..., count).

        Returns:
            Shape (..., n_bits).

        Raises:
            LimitError: wrong shape, or a position outside -1 .. width - 1.
            CapabilityError: off without INH, or different positions with common selects.
        """
        wanted = self._checked(positions)
        off = wanted == OFF
        if self.selects == "common":
            # OFF is below every position, so the largest one is that of the muxes that are on.
            shared = np.maximum(wanted.max(axis=-1, keepdims=True), 0)
            if (~off & (wanted != shared)).any():
                raise CapabilityError(
                    "muxes with common select lines cannot connect different positions",
                    fix="set one position after the other, or use a board with independent selects",
                )
            return np.concatenate(
                [_abc(shared[..., 0]), off.astype(np.uint8)[..., : self.count * self.inhibit]], axis=-1
            )
        controls = _abc(np.maximum(wanted, 0))
        if self.inhibit:
            controls = np.concatenate([controls, off[..., None].astype(np.uint8)], axis=-1)
        return controls.reshape(*wanted.shape[:-1], self.n_bits)

    def decode(self, bits: Any) -> NDArray[np.int64]:
        """What the muxes connect, by the truth table; it may lie beyond `width`.

        Args:
            bits: control bits, shape (..., n_bits).

        Returns:
            Position of each mux, -1 where INH is set; shape (..., count).
        """
        given = np.asarray(bits)
        if given.ndim == 0 or given.shape[-1] != self.n_bits:
            raise LimitError(
                f"control bits of shape {given.shape} do not fit a bank of {self.n_bits}",
                fix=f"give shape (..., {self.n_bits})",
            )
        if given.dtype.kind not in "biu" or ((given != 0) & (given != 1)).any():
            raise LimitError("control bits are other than 0 and 1", fix="give whole numbers 0 and 1")
        given = given.astype(np.intp)
        shape = (*given.shape[:-1], self.count)
        if self.selects == "common":
            a, b, c = (given[..., [k]] for k in range(3))
            inhibit = given[..., 3:] if self.inhibit else np.zeros(shape, dtype=np.intp)
        else:
            controls = given.reshape(*shape, 3 + self.inhibit)
            a, b, c = (controls[..., k] for k in range(3))
            inhibit = controls[..., 3] if self.inhibit else np.zeros(shape, dtype=np.intp)
        return _CONNECTS[inhibit, c, b, a]

    def _checked(self, positions: Any) -> NDArray[np.int64]:
        wanted = np.asarray(positions)
        if wanted.ndim == 0 or wanted.shape[-1] != self.count or wanted.dtype.kind not in "iu":
            raise LimitError(
                f"mux positions are {wanted.dtype}{wanted.shape}",
                fix=f"give whole numbers of shape (..., {self.count})",
            )
        wanted = wanted.astype(np.int64)
        outside = (wanted < OFF) | (wanted >= self.width)
        if outside.any():
            raise LimitError(
                f"mux position {wanted[outside].flat[0]} is outside {OFF} .. {self.width - 1}",
                fix=f"use 0 to {self.width - 1}, or {OFF} for off",
            )
        if not self.inhibit and (wanted == OFF).any():
            raise CapabilityError(
                "a mux without INH cannot be off",
                fix="choose a position for it and drive its channel to the idle level",
            )
        return wanted


def _abc(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A, B, C of positions, along a new last axis."""
    return ((positions[..., None] >> np.arange(3)) & 1).astype(np.uint8)
