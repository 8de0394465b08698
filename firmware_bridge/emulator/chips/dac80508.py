"""DAC80508: eight 16-bit DACs behind one SPI port.

Source: TI SLASEL1D; rules for too few and too many clocks, and the headroom limits, from the data sheets of the
siblings DAC80504 and DAC80501. Not verified on a chip: BRDCAST overwriting the data registers, what SDO shows in the
frame after a write (here: the echoed command byte and zero data), the fields of a 32-bit reply, and that a dropped
read has no data either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hil.errors import ConfigError

CHANNELS = 8
#: nothing gets through for this long after power-on or soft reset (sibling data sheet)
WAKE_UP_S = 250e-6


@dataclass(frozen=True)
class Register:
    """One row of the register table (SLASEL1D, register map)."""

    name: str
    readable: bool
    write_mask: int
    reset_z: int = 0
    reset_m: int = 0


#: by address
REGISTERS: tuple[Register, ...] = (
    Register("NOP", False, 0x0000),
    Register("DEVICE ID", True, 0x0000, 0x0816, 0x0896),
    Register("SYNC", True, 0xFFFF, 0xFF00, 0xFF00),
    Register("CONFIG", True, 0x3FFF),
    # Bits 9 and 10 belong to the variant with a CLR pin.
    Register("GAIN", True, 0x01FF, 0x0000, 0x00FF),
    Register("TRIGGER", False, 0x001F),
    Register("BRDCAST", True, 0xFFFF),
    Register("STATUS", True, 0x0000),
    *(Register(f"DAC{channel}", True, 0xFFFF, 0x0000, 0x8000) for channel in range(CHANNELS)),
)
_SYNC, _CONFIG, _GAIN, _TRIGGER, _BRDCAST, _STATUS, _DAC0 = 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8

_CONFIG_ALM_SEL = 1 << 13
_CONFIG_ALM_EN = 1 << 12
_CONFIG_CRC_EN = 1 << 11
_CONFIG_DSDO = 1 << 9
_CONFIG_REF_PWDWN = 1 << 8
_GAIN_REFDIV_EN = 1 << 8
_TRIGGER_LDAC = 1 << 4
_TRIGGER_RESET = 0b1010


def _crc8_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte << 1) ^ (0x107 if byte & 0x80 else 0)
    return byte


_CRC8 = tuple(_crc8_of_byte(byte) for byte in range(256))


def _crc8(word: int) -> int:
    """CRC-8-ATM (x^8 + x^2 + x + 1, starts at zero) over 24 bits, most significant first."""
    return _CRC8[_CRC8[_CRC8[word >> 16] ^ (word >> 8 & 0xFF)] ^ (word & 0xFF)]


class Dac80508Chip:
    """One chip, powered on at time zero.

    The port is one shift register: CS low loads the answer, each clock moves it out at SDO and SDI in behind it, CS
    high acts on what is then inside. So an overlong frame counts with its last bits, and chips can be daisy-chained.

    Times are optional: a call without one skips the wake-up rule.

    Attributes:
        sdo_floating: fault: the SDO trace is open, so that it reads as ones; the chip works.
        crc_errors: frames dropped for a wrong CRC.
        early_frames: frames that came before the chip was awake, and did nothing.
        updates: how often any output has changed.
    """

    def __init__(
        self,
        *,
        variant: str = "Z",
        vdd_v: float,
        v_reference_v: float = 2.5,
        external_reference: bool = False,
        gain_error: ArrayLike = 0.0,
        offset_v: ArrayLike = 0.0,
    ) -> None:
        if variant not in ("Z", "M"):
            raise ConfigError(f"DAC80508 variant {variant!r} is not modelled", fix="use 'Z' or 'M'")
        self._resets = tuple(row.reset_m if variant == "M" else row.reset_z for row in REGISTERS)
        self._vdd_v = vdd_v
        self._v_reference_v = v_reference_v
        self._external_reference = external_reference
        # Plain numbers: a loop over eight of them is quicker than NumPy.
        self._gain: list[float] = (1.0 + np.broadcast_to(np.asarray(gain_error, float), CHANNELS)).tolist()
        self._offset_v: list[float] = np.broadcast_to(np.asarray(offset_v, float), CHANNELS).tolist()
        self._dead = False
        self._dead_channels: frozenset[int] = frozenset()
        self._powered = False
        self.sdo_floating = False
        self.crc_errors = 0
        self.early_frames = 0
        self.updates = 0
        self._levels_v = [0.0] * CHANNELS
        self._outputs_v: NDArray[np.float64] | None = None
        self._selected = False
        self._early = False
        self._clocks = 0
        self._shifted = 0
        self.power_on()

    # -- supply and faults ---------------------------------------------------------------------------------------

    @property
    def vdd_v(self) -> float:
        """Supply; lowering it may shut the reference buffer off."""
        return self._vdd_v

    @vdd_v.setter
    def vdd_v(self, value: float) -> None:
        self._vdd_v = value
        self._settle()

    @property
    def dead(self) -> bool:
        """Fault: SDO is stuck at 0, frames do nothing, outputs are at 0 V."""
        return self._dead

    @dead.setter
    def dead(self, value: bool) -> None:
        self._dead = value
        self._settle()

    @property
    def dead_channels(self) -> frozenset[int]:
        """Fault: outputs that are at 0 V; the registers behind them work."""
        return self._dead_channels

    @dead_channels.setter
    def dead_channels(self, value: frozenset[int]) -> None:
        self._dead_channels = value
        self._settle()

    def power_on(self, time_s: float = 0.0) -> None:
        """Supply comes up: power-on reset."""
        self._powered = True
        self._reset(time_s)

    def power_off(self) -> None:
        """Supply goes away: outputs at 0 V, SDO pulled up by the board."""
        self._powered = False
        self._selected = False
        self._settle()

    def _reset(self, time_s: float | None) -> None:
        self._registers = list(self._resets)
        self._active = self._registers[_DAC0:]
        self._echo = 0
        self._answer = 0
        self._crc_error = 0
        self._ready_s = -np.inf if time_s is None else time_s + WAKE_UP_S
        self._settle()

    # -- SPI port ------------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """Bits of a frame: 24, or 32 while CRC-EN is set."""
        return 32 if self._registers[_CONFIG] & _CONFIG_CRC_EN else 24

    @property
    def alarm(self) -> bool:
        """Pin 15 is the ALARM output and pulls low, whatever CS is."""
        config = self._registers[_CONFIG]
        if self._dead or not self._powered or not config & _CONFIG_ALM_EN:
            return False
        return self._reference_alarm if config & _CONFIG_ALM_SEL else bool(self._crc_error)

    def select(self, time_s: float | None = None) -> None:
        """CS falls."""
        self._selected = self._powered
        self._early = time_s is not None and time_s < self._ready_s
        self._clocks = 0
        self._shifted = self._reply()

    def clock(self, sdi: int) -> int:
        """One SCLK cycle in SPI mode 1; the SDO level at the falling edge, 1 (pull-up) when nothing drives it."""
        sdo = self._fixed_sdo()
        if not self._selected:
            return 1 if sdo is None else sdo
        joined = self._shifted << 1 | (sdi & 1)
        self._shifted = joined & ((1 << self.width) - 1)
        self._clocks += 1
        return joined >> self.width if sdo is None else sdo

    def deselect(self, time_s: float | None = None) -> None:
        """CS rises: the chip acts on what was shifted in, if that is at least a whole frame."""
        selected, self._selected = self._selected, False
        early, self._early = self._early, False
        if not selected or self._dead or self._clocks < self.width:
            return
        if early:
            self.early_frames += 1
            return
        self._act(time_s)

    def frame(self, bits: int, n_clocks: int, time_s: float | None = None) -> int:
        """CS low, `n_clocks` clocks with `bits` (most significant first), CS high; the SDO levels, first bit on top."""
        ones = (1 << n_clocks) - 1
        self.select(time_s)
        sdo = self._fixed_sdo()
        if self._selected:
            joined = self._shifted << n_clocks | (bits & ones)
            self._shifted = joined & ((1 << self.width) - 1)
            self._clocks = n_clocks
            if sdo is None:
                sdo_bits = joined >> self.width
                self.deselect(time_s)
                return sdo_bits
        self.deselect(time_s)
        return 0 if sdo == 0 else ones

    def _fixed_sdo(self) -> int | None:
        """Level of the SDO trace while the shift register does not drive it."""
        if self._dead:
            return 0
        if not self._powered or self.sdo_floating:
            return 1
        config = self._registers[_CONFIG]
        if config & _CONFIG_ALM_EN:
            return 0 if self.alarm else 1
        return 1 if self._early or config & _CONFIG_DSDO else None

    def _reply(self) -> int:
        word = self._echo << 16 | self._answer
        if self.width == 24:
            return word
        word |= self._crc_error << 22
        return word << 8 | _crc8(word)

    def _act(self, time_s: float | None) -> None:
        word = self._shifted
        self._crc_error = 0
        if self.width == 32:
            word, crc = word >> 8, word & 0xFF
            if _crc8(word) != crc:
                self.crc_errors += 1
                self._crc_error = 1
                self._echo = self._answer = 0
                return
        address = word >> 16 & 0xF
        self._echo = word >> 16 & 0x8F
        if word >> 23:
            self._answer = self._read(address)
        else:
            self._answer = 0
            self._write(address, word & REGISTERS[address].write_mask, time_s)

    # -- registers -----------------------------------------------------------------------------------------------

    def _read(self, address: int) -> int:
        if address == _STATUS:
            return int(self._reference_alarm)
        return self._registers[address] if REGISTERS[address].readable else 0

    def _write(self, address: int, data: int, time_s: float | None) -> None:
        if address >= _DAC0:
            self._registers[address] = data
            channel = address - _DAC0
            if not self._registers[_SYNC] >> channel & 1:
                self._active[channel] = data
                self._settle()
        elif address == _TRIGGER:
            self._trigger(data, time_s)
        elif REGISTERS[address].write_mask:
            self._registers[address] = data
            if address == _BRDCAST:
                self._broadcast(data)
            self._settle()

    def _trigger(self, data: int, time_s: float | None) -> None:
        if data & 0xF == _TRIGGER_RESET:
            self._reset(time_s)
        elif data & _TRIGGER_LDAC:
            waiting = self._registers[_SYNC] & 0xFF
            for channel in range(CHANNELS):
                if waiting >> channel & 1:
                    self._active[channel] = self._registers[_DAC0 + channel]
            self._settle()

    def _broadcast(self, data: int) -> None:
        enabled = self._registers[_SYNC] >> 8
        for channel in range(CHANNELS):
            if enabled >> channel & 1:
                self._registers[_DAC0 + channel] = self._active[channel] = data

    # -- analogue side -------------------------------------------------------------------------------------------

    @property
    def outputs_v(self) -> NDArray[np.float64]:
        """Settled output voltages, shape (8,), read-only."""
        if self._outputs_v is None:
            self._outputs_v = np.array(self._levels_v)
            self._outputs_v.flags.writeable = False
        return self._outputs_v

    @property
    def _divider(self) -> int:
        return 2 if self._registers[_GAIN] & _GAIN_REFDIV_EN else 1

    @property
    def _at_reference_v(self) -> float:
        """Voltage of the REF pin."""
        off = self._registers[_CONFIG] & _CONFIG_REF_PWDWN and not self._external_reference
        return 0.0 if off else self._v_reference_v

    @property
    def _reference_alarm(self) -> bool:
        """Too little headroom: the reference buffer is off."""
        return 2.0 * self._at_reference_v > self._divider * self._vdd_v

    def _settle(self) -> None:
        """Bring the outputs up to date."""
        levels_v = [0.0] * CHANNELS
        if self._powered and not self._dead and not self._reference_alarm:
            lsb_v = self._at_reference_v / self._divider / 65536
            gain = self._registers[_GAIN]
            off = self._registers[_CONFIG]
            for channel, code in enumerate(self._active):
                if off >> channel & 1 or channel in self._dead_channels:
                    continue
                ideal_v = code * lsb_v * (1 + (gain >> channel & 1))
                level_v = ideal_v * self._gain[channel] + self._offset_v[channel]
                levels_v[channel] = min(max(level_v, 0.0), self._vdd_v)
        if levels_v != self._levels_v:
            self._levels_v = levels_v
            self._outputs_v = None
            self.updates += 1
