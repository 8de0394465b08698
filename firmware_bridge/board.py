"""The real board as a backend, on the ZYNQ that it is wired to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.mmio_bus import BASE_ADDRESS, DMA_NAME, MmioBus
from firmware_bridge.profile import load_profile

#: where Linux shows the serial number of a board, if its device tree has one
SERIAL_NUMBER = Path("/proc/device-tree/serial-number")


def real_board(
    profile_name: str,
    *,
    bitfile: str | Path | None,
    base_address: int = BASE_ADDRESS,
    dma_name: str = DMA_NAME,
    download: bool = True,
) -> BoardBackend:
    """A `BoardBackend` on the fabric of this machine; nothing is loaded or touched before it is opened.

    Args:
        profile_name: a shipped profile, or the path of one.
        bitfile, base_address, dma_name, download: see `MmioBus.from_overlay`.

    Raises:
        ConfigError: pynq, board, bitstream or profile is not there.
    """
    bus = MmioBus.from_overlay(bitfile, base_address=base_address, dma_name=dma_name, download=download)
    profile = load_profile(profile_name)
    path = Path(bitfile or "")
    identity = {
        "bitfile": path.name,
        "bitfile_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "base_address": f"{base_address:#010x}",
        "board_serial": board_serial(),
        "guesses": len(profile.guesses),
    }
    return BoardBackend(bus, profile, name="board", identity=identity)


def board_serial() -> str | None:
    """Serial number of this machine's board, None when it does not say."""
    try:
        return SERIAL_NUMBER.read_bytes().rstrip(b"\0").decode("ascii", "replace") or None
    except OSError:
        return None
