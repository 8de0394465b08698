"""CD4051B: 8:1 analogue multiplexers, set by the outputs of a shift-register chain.

Source: TI SCHS047, truth table. The wiring is the board's: selects per multiplexer or common to all, INH wired or not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError

CHANNELS = 8
SELECT_PINS = 3
#: position of a multiplexer that connects nothing
OFF = -1


def on_channel(a: int, b: int, c: int, inh: int) -> int:
    """Channel that one chip connects to its common pin, by the levels of its control pins."""
    return OFF if inh else a | b << 1 | c << 2


class MuxBankChips:
    """All multiplexers of the row drive.

    Chain bits with independent selects: A, B, C (and INH, if wired) of mux m from bit 3 m (4 m) on.
    With common selects: A, B, C in bits 0..2, then INH of mux m, if wired, in bit 3 + m.

    Attributes:
        stuck: fault: position at which a mux stays whatever its pins say; -1 connects nothing.
    """

    def __init__(self, count: int, width: int, selects: str, inhibit: bool) -> None:
        if not 1 <= width <= CHANNELS:
            raise ConfigError(f"mux width {width} is not within 1 to {CHANNELS}", fix="give the positions in use")
        if selects not in ("independent", "common"):
            raise ConfigError(f"mux selects {selects!r} is no wiring", fix="use 'independent' or 'common'")
        self.count = count
        self.inhibit = inhibit
        self.stuck: dict[int, int] = {}
        self._independent = selects == "independent"
        groups = count if self._independent else 1
        self._bits = SELECT_PINS * groups + count * inhibit
        self._bytes = (self._bits + 7) // 8
        self._mask = (1 << self._bits) - 1
        #: position by INH C B A; unused positions lead nowhere
        codes = [on_channel(code & 1, code >> 1 & 1, code >> 2 & 1, code >> 3) for code in range(16)]
        self._positions = np.array([code if code < width else OFF for code in codes], dtype=np.intp)
        self._weights = np.array([1, 2, 4, 8][: SELECT_PINS + inhibit], dtype=np.uint8)

    def connect(self, outputs: int | None) -> NDArray[np.intp]:
        """Positions of all muxes, shape (count,), -1 for off, given the chain's outputs.

        None means Hi-Z: INH, if wired, is pulled up (all off), else the selects are pulled down (position 0).
        """
        positions = self._released() if outputs is None else self._positions[self._codes(outputs)]
        for mux, position in self.stuck.items():
            positions[mux] = position
        return positions

    def _released(self) -> NDArray[np.intp]:
        return np.full(self.count, OFF if self.inhibit else 0, dtype=np.intp)

    def _codes(self, outputs: int) -> NDArray[np.uint8]:
        """INH C B A of every mux as a number."""
        packed = np.frombuffer((outputs & self._mask).to_bytes(self._bytes, "little"), dtype=np.uint8)
        bits = np.unpackbits(packed, count=self._bits, bitorder="little")
        if self._independent:
            return bits.reshape(self.count, -1) @ self._weights
        select = bits[:SELECT_PINS] @ self._weights[:SELECT_PINS]
        inhibits = bits[SELECT_PINS:] if self.inhibit else np.zeros(self.count, np.uint8)
        return select | inhibits << np.uint8(SELECT_PINS)
