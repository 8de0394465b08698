"""The receiving half of an AXI DMA in direct register mode at its registers (AMD PG021), and the memory behind it."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

CONTROL, STATUS, ADDRESS, LENGTH = 0x30, 0x34, 0x48, 0x58
RUN, RESET = 0x1, 0x4
HALTED, IDLE = 0x1, 0x2
INTERNAL_ERROR = 0x10


class AxiDma:
    """Registers by word, as `pynq.MMIO.array` is indexed.

    Attributes:
        packets: what the fabric has sent; each ends by TLAST.
        memory: what is in memory at an address; a CPU sees it after it has invalidated its cache.
        resets: whether a reset ends.
        error: status bits that the next transfer ends with.
        written: addresses that transfers were begun for.
    """

    def __init__(self, *packets: list[int]) -> None:
        self.packets = deque(packets)
        self.memory: dict[int, NDArray[np.uint32]] = {}
        self.resets = True
        self.error = 0
        self.written: list[int] = []
        self._registers = {CONTROL: 0, STATUS: HALTED, ADDRESS: 0, LENGTH: 0}
        self._waiting = False

    def __getitem__(self, word: int) -> int:
        if 4 * word == STATUS and self._waiting:
            self._receive()
        return self._registers.get(4 * word, 0)

    def __setitem__(self, word: int, value: int) -> None:
        offset, value = 4 * word, int(value)
        self._registers[offset] = value
        if offset == CONTROL and value & RESET:
            if self.resets:
                self._registers |= {CONTROL: 0, STATUS: HALTED}
                self._waiting = False
        elif offset == CONTROL:
            status = self._registers[STATUS]
            self._registers[STATUS] = status & ~HALTED if value & RUN else (status | HALTED) & ~IDLE
        elif offset == LENGTH:
            assert not self._registers[STATUS] & HALTED, "LENGTH does nothing on a halted engine"
            self._registers[STATUS] &= ~IDLE
            self._waiting = True
            self.written.append(self._registers[ADDRESS])

    @property
    def busy(self) -> bool:
        """Whether it may still write into memory."""
        return self._waiting

    def _receive(self) -> None:
        if self.error or (self.packets and 4 * len(self.packets[0]) > self._registers[LENGTH]):
            self._registers[STATUS] = HALTED | (self.error or INTERNAL_ERROR)
            self.error, self._waiting = 0, False
        elif self.packets:
            packet = self.packets.popleft()
            self.memory[self._registers[ADDRESS]][: len(packet)] = packet
            self._registers[LENGTH] = 4 * len(packet)
            self._registers[STATUS] |= IDLE
            self._waiting = False
