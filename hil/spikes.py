"""Binary spike vectors packed into 64-bit words.

A batch of B spike vectors over R rows is an array of shape (B, ceil(R / 64)) of uint64: row r is bit `r % 64` of word
`r // 64`. Eight times less to move than one byte per row, and a kernel visits only the bits that are set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import LimitError

WORD_BITS = 64


def n_words(n_rows: int) -> int:
    """Number of 64-bit words that hold `n_rows` bits."""
    return -(-n_rows // WORD_BITS)


def pack_bits(bits: NDArray[Any]) -> NDArray[np.uint64]:
    """Pack an array of shape (..., R), whose non-zero entries are spikes, into words of shape (..., ceil(R / 64))."""
    n_rows = bits.shape[-1]
    octets = np.zeros((*bits.shape[:-1], n_words(n_rows) * 8), np.uint8)
    octets[..., : -(-n_rows // 8)] = np.packbits(bits != 0, axis=-1, bitorder="little")
    # The words are little-endian on every machine, as the bit order on a link must be.
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack_bits(words: NDArray[np.uint64], n_rows: int) -> NDArray[np.uint8]:
    """Undo `pack_bits`: 0/1 as uint8, shape (..., n_rows)."""
    octets = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=n_rows, bitorder="little")


@dataclass(frozen=True, eq=False)
class PackedSpikes:
    """A batch of binary row vectors.

    Attributes:
        words: uint64, shape (B, ceil(n_rows / 64)); bits at and above `n_rows` are zero.
        n_rows: number of rows that the bits stand for.
    """

    words: NDArray[np.uint64]
    n_rows: int

    @classmethod
    def pack(cls, bits: NDArray[Any]) -> PackedSpikes:
        """Pack an array of shape (B, R) whose non-zero entries are spikes."""
        if bits.ndim != 2:
            raise LimitError(f"spike array has shape {bits.shape}", fix="give shape (batch, rows)")
        return cls(pack_bits(bits), bits.shape[1])

    def unpack(self) -> NDArray[np.uint8]:
        """Return 0/1 as uint8, shape (B, n_rows)."""
        return unpack_bits(self.words, self.n_rows)

    def __len__(self) -> int:
        return len(self.words)
