"""Register bus: the only way from the host to the sequencer, whatever carries it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class RegisterBus(Protocol):
    """32-bit registers at byte offsets, a program memory and a result stream.

    Every method raises `TransportError` when the link fails and `ProtocolError` for an offset that is out of range,
    not aligned or not accessible.
    """

    def read(self, offset: int) -> int:
        """Read a register."""
        ...

    def write(self, offset: int, value: int) -> None:
        """Write a register."""
        ...

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        """Write words to consecutive addresses (program memory)."""
        ...

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        """Take `count` words out of the result stream."""
        ...
