"""The real board as a backend, on the ZYNQ that it is wired to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from firmware_bridge.board_backend import FIRMWARE, BoardBackend
from firmware_bridge.mmio_bus import BASE_ADDRESS, DMA_NAME, MmioBus
from firmware_bridge.profile import load_profile
from hil.calibration_file import UNKNOWN_SERIAL, Calibration

#: where Linux shows the serial number of a board, if its device tree has one
SERIAL_NUMBER = Path("/proc/device-tree/serial-number")


def real_board(
    profile_name: str,
    *,
    bitfile: str | Path | None,
    base_address: int = BASE_ADDRESS,
    dma_name: str = DMA_NAME,
    download: bool = True,
    calibration: Calibration | None = None,
    tolerate_faults: bool = False,
    serial: str | None = None,
) -> BoardBackend:
    """A `BoardBackend` on the fabric of this machine; nothing is loaded or touched before it is opened.

    Args:
        profile_name: a shipped profile, or the path of one.
        bitfile, base_address, dma_name, download: see `MmioBus.from_overlay`.
        calibration, tolerate_faults: see `BoardBackend`.
        serial: of the board, in place of what it says itself.

    Raises:
        ConfigError: pynq, board, bitstream or profile is not there.
        CalibrationError: see `BoardBackend`.
    """
    bus = MmioBus.from_overlay(bitfile, base_address=base_address, dma_name=dma_name, download=download)
    profile = load_profile(profile_name)
    path = Path(bitfile or "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = {
        "bitfile": path.name,
        "bitfile_sha256": sha256,
        "firmware": f"{FIRMWARE}+{sha256[:12]}",
        "base_address": f"{base_address:#010x}",
        "board_serial": serial or board_serial() or UNKNOWN_SERIAL,
        "guesses": len(profile.guesses),
    }
    return BoardBackend(
        bus, profile, name="board", identity=identity, calibration=calibration, tolerate_faults=tolerate_faults
    )


def board_serial() -> str | None:
    """Serial number of this machine's board, None when it does not say."""
    try:
        return SERIAL_NUMBER.read_bytes().rstrip(b"\0").decode("ascii", "replace") or None
    except OSError:
        return None
