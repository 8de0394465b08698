"""What an emulated board has that a real one may have too: dead parts, and instruments at its pads.

Not in `firmware_bridge.emulator`, which needs the extra `sim`: every command knows these settings.
"""

from __future__ import annotations

from hil.config import Settings, setting

OURS = "ours"


class EmulatorSettings(Settings):
    """Dead parts and bench of an emulated board."""

    dead_dac_channels: tuple[tuple[int, int], ...] = setting(
        (), "DAC outputs that give 0 V whatever they are told, as [chip, channel]", source=OURS
    )
    clipping_adcs: tuple[int, ...] = setting(
        (), "converters (lanes) whose input is beyond the upper end of its range", source=OURS
    )
    dead_columns: float = setting(
        0.0, "share of the columns that are open, drawn from the seed", source=OURS, ge=0, le=1
    )
    dead_rows: float = setting(0.0, "share of the rows that are open, drawn from the seed", source=OURS, ge=0, le=1)
    smu_row: int = setting(0, "bit line that the instruments of the bench twin are at", source=OURS, ge=0)
    psu_feeds_dacs: bool = setting(
        False, "the bench twin's power supply feeds the DACs (false: the board has its own supply)", source=OURS
    )
    noise_session: int = setting(
        0, "which session of the chip this is: each draws its own noise, the chip stays the same", source="ours", ge=0
    )
