"""DAC80508: eight 16-bit voltage outputs on SPI (DS SLASEL1D).

A frame is 24 bits: read flag, three zeros, four address bits, sixteen data bits; in CRC mode eight CRC bits follow.
The chip acts when its chip select rises and takes the last bits it saw (DAC80504 sibling), so that several chips can
be given one frame together. SPI mode 1 (E2E 943517). There is no LDAC pin: loading is a bit in TRIGGER.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from hil.errors import CapabilityError, ConfigError, DeviceError, LimitError, ProtocolError

CHANNELS = 8
BITS = 16
CODE_MAX = (1 << BITS) - 1
FRAME_BITS = 24
FRAME_BITS_CRC = 32

Access = Literal["R", "W", "RW"]
Variant = Literal["Z", "M"]


@dataclass(frozen=True)
class RegisterField:
    """Bits `low` .. `low + width - 1` of a register."""

    name: str
    low: int
    width: int
    text: str

    @property
    def mask(self) -> int:
        """The field's bits, in place."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Register:
    """One row of the register map.

    Attributes:
        reset_z: content after power-up or soft reset of the variant that starts at zero.
        reset_m: the same of the variant that starts at mid-scale.
    """

    name: str
    address: int
    access: Access
    reset_z: int
    reset_m: int
    fields: tuple[RegisterField, ...]
    source: str

    @property
    def mask(self) -> int:
        """All bits that belong to a field."""
        return sum(field.mask for field in self.fields)

    def field(self, name: str) -> RegisterField:
        return next(field for field in self.fields if field.name == name)


_DS = "DS SLASEL1D, register maps"

REGISTERS: tuple[Register, ...] = (
    Register("NOP", 0x0, "W", 0x0000, 0x0000, (), _DS),
    Register(
        "DEVICE_ID",
        0x1,
        "R",
        0x0816,
        0x0896,
        (
            RegisterField("DEVICEID", 2, 14, "resolution, channels, variant and part"),
            RegisterField("VERSIONID", 0, 2, "revision of the chip; may change"),
        ),
        _DS,
    ),
    Register(
        "SYNC",
        0x2,
        "RW",
        0xFF00,
        0xFF00,
        (
            RegisterField("BRDCAST_EN", 8, 8, "one bit per channel: 1 follows writes to BRDCAST"),
            RegisterField("SYNC_EN", 0, 8, "one bit per channel: 1 waits for LDAC, 0 updates when CS rises"),
        ),
        _DS,
    ),
    Register(
        "CONFIG",
        0x3,
        "RW",
        0x0000,
        0x0000,
        (
            RegisterField("ALM_SEL", 13, 1, "what ALARM shows: 0 CRC error, 1 reference alarm"),
            RegisterField("ALM_EN", 12, 1, "1: pin 15 is ALARM instead of SDO"),
            RegisterField("CRC_EN", 11, 1, "1: frames carry a CRC"),
            RegisterField("FSDO", 10, 1, "1: SDO changes half a clock earlier"),
            RegisterField("DSDO", 9, 1, "1: SDO stays Hi-Z"),
            RegisterField("REF_PWDWN", 8, 1, "1: internal reference off"),
            RegisterField("DAC_PWDWN", 0, 8, "one bit per channel: 1 powers it down"),
        ),
        _DS,
    ),
    Register(
        "GAIN",
        0x4,
        "RW",
        0x0000,
        0x00FF,
        (
            RegisterField("CLR_4TO7_MSK", 10, 1, "only of the variant with a CLR pin"),
            RegisterField("CLR_0TO3_MSK", 9, 1, "only of the variant with a CLR pin"),
            RegisterField("REFDIV_EN", 8, 1, "1: reference divided by two"),
            RegisterField("BUFF_GAIN", 0, 8, "one bit per channel: 1 doubles the output"),
        ),
        f"{_DS}; reset of the M variant inferred, unverified",
    ),
    Register(
        "TRIGGER",
        0x5,
        "W",
        0x0000,
        0x0000,
        (
            RegisterField("LDAC", 4, 1, "1: channels with SYNC_EN take their stored code"),
            RegisterField("SOFT_RESET", 0, 4, "1010b resets as a power-up does"),
        ),
        f"{_DS}; it prints the reset code as 0x1010, meaning binary (Zephyr agrees)",
    ),
    Register(
        "BRDCAST", 0x6, "RW", 0x0000, 0x0000, (RegisterField("CODE", 0, 16, "code for all channels that follow"),), _DS
    ),
    Register(
        "STATUS", 0x7, "R", 0x0000, 0x0000, (RegisterField("REF_ALM", 0, 1, "1: reference too close to VDD"),), _DS
    ),
    *(
        Register(f"DAC{channel}", 0x8 + channel, "RW", 0x0000, 0x8000, (RegisterField("CODE", 0, 16, "output"),), _DS)
        for channel in range(CHANNELS)
    ),
)

BY_NAME: Mapping[str, Register] = {row.name: row for row in REGISTERS}

#: DEVICE_ID without the revision
DEVICE_ID_MASK = BY_NAME["DEVICE_ID"].field("DEVICEID").mask
#: what DEVICE_ID must read under the mask
DEVICE_ID: Mapping[str, int] = {
    "Z": BY_NAME["DEVICE_ID"].reset_z & DEVICE_ID_MASK,
    "M": BY_NAME["DEVICE_ID"].reset_m & DEVICE_ID_MASK,
}
#: value of TRIGGER.SOFT_RESET that resets
SOFT_RESET = 0b1010
LDAC = BY_NAME["TRIGGER"].field("LDAC").mask
CRC_EN = BY_NAME["CONFIG"].field("CRC_EN").mask
REF_PWDWN = BY_NAME["CONFIG"].field("REF_PWDWN").mask
REFDIV_EN = BY_NAME["GAIN"].field("REFDIV_EN").mask
BUFF_GAIN = BY_NAME["GAIN"].field("BUFF_GAIN").mask
REF_ALM = BY_NAME["STATUS"].field("REF_ALM").mask

#: nothing may be sent for this long after power-up or reset (Zephyr and sibling)
RESET_WAIT_S = 250e-6
#: least time between two updates of the outputs (DS)
UPDATE_SPACING_S = 1e-6
#: 1/4 to 3/4 of full scale within 2 LSB, typical; conditions unverified
SETTLE_S = 5e-6
#: supply (DS)
VDD_MIN_V, VDD_MAX_V = 2.7, 5.5


@dataclass(frozen=True)
class SpiTiming:
    """Limits of the bus for VIO from 2.7 to 5.5 V.

    Attributes:
        high_min_s: SCLK high, and low as well.
        cs_setup_min_s: CS low to the first falling SCLK edge.
        cs_hold_min_s: last falling SCLK edge to CS high.
        cs_high_min_s: CS high between two frames.
    """

    clock_max_hz: float
    high_min_s: float
    data_setup_min_s: float
    data_hold_min_s: float
    cs_setup_min_s: float
    cs_hold_min_s: float
    cs_high_min_s: float
    source: str


SPI_WRITE = SpiTiming(50e6, 9e-9, 5e-9, 10e-9, 13e-9, 10e-9, 15e-9, "DS SLASEL1D, timing requirements")
SPI_READ = SpiTiming(18e6, 25e-9, 5e-9, 10e-9, 20e-9, 10e-9, 15e-9, "DS SLASEL1D, timing requirements, FSDO = 0")


# --- frames ---------------------------------------------------------------------------------------------------------


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte << 1) ^ (0x107 if byte & 0x80 else 0)
    return byte


_CRC = tuple(_crc_of_byte(byte) for byte in range(256))
_CRC_ARRAY = np.array(_CRC, dtype=np.int64)


def crc8(frame24: Any) -> Any:
    """CRC-8-ATM of a 24-bit frame: polynomial 0x07, most significant bit first, start 0, nothing inverted.

    The polynomial is from the data sheet; start and final value reproduce a trace of the sibling DAC81416
    (E2E 1021390).

    Args:
        frame24: int, or int64 array of many frames.
    """
    table = _CRC_ARRAY if isinstance(frame24, np.ndarray) else _CRC
    crc = table[(frame24 >> 16) & 0xFF]
    crc = table[crc ^ ((frame24 >> 8) & 0xFF)]
    return table[crc ^ (frame24 & 0xFF)]


def _whole(name: str, value: Any, most: int) -> Any:
    """`value` as int or int64 array; raise `LimitError` unless it is whole and within 0 .. most."""
    whole = np.asarray(value)
    if whole.dtype.kind not in "iu" or (whole < 0).any() or (whole > most).any():
        raise LimitError(f"{name} = {value!r}", fix=f"give a whole number from 0 to {most}")
    return int(whole) if whole.ndim == 0 else whole.astype(np.int64)


def _with_crc(frame24: Any, crc: bool) -> Any:
    return frame24 << 8 | crc8(frame24) if crc else frame24


def write_frame(address: int, value: Any, *, crc: bool = False) -> Any:
    """Frame that writes a register.

    Args:
        address: 0 to 15.
        value: 16 bits; int, or an array for many frames at once.
        crc: the chip is in CRC mode.

    Returns:
        24 or 32 bits right-aligned; int, or int64 array.
    """
    frame = _whole("DAC80508 address", address, 0xF) << BITS | _whole("DAC80508 register value", value, CODE_MAX)
    return _with_crc(frame, crc)


def read_frame(address: int, *, crc: bool = False) -> int:
    """Frame that asks for a register; the reply comes during the next frame."""
    return _with_crc((0x80 | _whole("DAC80508 address", address, 0xF)) << BITS, crc)


def soft_reset_frame(crc: bool = False) -> int:
    """Frame that resets as a power-up does; wait `RESET_WAIT_S` after it. It also ends CRC mode."""
    return write_frame(BY_NAME["TRIGGER"].address, SOFT_RESET, crc=crc)


def ldac_frame(crc: bool = False) -> int:
    """Frame that moves all stored codes to the outputs."""
    return write_frame(BY_NAME["TRIGGER"].address, LDAC, crc=crc)


def dac_address(channel: int) -> int:
    """Address of a channel's code."""
    return BY_NAME["DAC0"].address + _whole("DAC80508 channel", channel, CHANNELS - 1)


@dataclass(frozen=True)
class Frame:
    """What a frame asks for."""

    read: bool
    address: int
    value: int


def decode_frame(frame: int, *, crc: bool = False) -> Frame:
    """Take a frame apart, as the chip does.

    Raises:
        ProtocolError: too many bits, a wrong CRC, or a reserved bit that is set.
    """
    text = _text(frame, crc)
    frame24 = _checked(frame, text, crc)
    if frame24 & 0x700000:
        raise ProtocolError(f"frame {text} has reserved bits set", fix="clear bits 22 to 20 of the 24")
    return Frame(bool(frame24 >> 23), (frame24 >> 16) & 0xF, frame24 & CODE_MAX)


def decode_reply(reply: int, address: int, *, crc: bool = False) -> int:
    """Value in the reply to a read of `address`.

    The place of the CRC-ERROR bit in replies is inferred, unverified.

    Raises:
        ProtocolError: nobody drives SDO, the chip is dead, a wrong CRC, a dropped frame, or another register's echo.
    """
    text = _text(reply, crc)
    n_bits = FRAME_BITS_CRC if crc else FRAME_BITS
    if reply == (1 << n_bits) - 1:
        raise ProtocolError(
            f"reply {text} is all ones: SDO floats",
            fix="check chip select, the SDO wire, and CONFIG bits ALM_EN and DSDO",
        )
    if reply == 0:
        raise ProtocolError(
            f"reply {text} is all zeros: chip dead or unpowered", fix="check its supplies and that SDO is not shorted"
        )
    reply24 = _checked(reply, text, crc)
    if crc and reply24 & 0x400000:
        raise ProtocolError(
            f"reply {text} has CRC-ERROR set: the chip dropped the frame before", fix="send it again, or slow the clock"
        )
    if reply24 >> BITS != 0x80 | address:
        raise ProtocolError(
            f"reply {text} echoes 0x{reply24 >> BITS:02X} instead of 0x{0x80 | address:02X}",
            fix="slow the read clock, and check the SPI mode and whether the chip is in CRC mode",
        )
    return reply24 & CODE_MAX


def _text(word: int, crc: bool) -> str:
    return f"0x{word:0{8 if crc else 6}X}"


def _checked(word: int, text: str, crc: bool) -> int:
    """The 24 bits of a frame or reply whose length and CRC are right."""
    n_bits = FRAME_BITS_CRC if crc else FRAME_BITS
    if not 0 <= word < 1 << n_bits:
        raise ProtocolError(f"{text} does not fit into {n_bits} bits", fix="check whether the chip is in CRC mode")
    if not crc:
        return word
    expected = crc8(word >> 8)
    if word & 0xFF != expected:
        raise ProtocolError(f"{text} has CRC 0x{word & 0xFF:02X}, expected 0x{expected:02X}", fix="slow the clock")
    return word >> 8


# --- output law -----------------------------------------------------------------------------------------------------

#: a voltage may miss the ends of the range by this much of an LSB: rounding of floating-point numbers
_ROUNDING_LSB = 1e-6


@dataclass(frozen=True)
class DacSetting:
    """A code, the voltage that was asked for and the one that it makes."""

    code: int
    requested_v: float
    achieved_v: float


def gain_register_value(divide: int, gain: int) -> int:
    """Content of GAIN that gives all channels this reference divider and output gain."""
    for name, value in (("divide", divide), ("gain", gain)):
        if value not in (1, 2):
            raise ConfigError(f"DAC80508 {name} = {value!r}", fix="use 1 or 2")
    return (REFDIV_EN if divide == 2 else 0) | (BUFF_GAIN if gain == 2 else 0)


@dataclass(frozen=True)
class OutputRange:
    """Output law (DS): code / 65536 * v_reference / divide * gain.

    Divider 1 with gain 1 gives the same range as divider 2 with gain 2, and the data sheet does not recommend it.
    """

    v_reference_v: float
    divide: int
    gain: int

    def __post_init__(self) -> None:
        gain_register_value(self.divide, self.gain)
        if not 0 < self.v_reference_v <= VDD_MAX_V:
            raise ConfigError(
                f"DAC80508 reference of {self.v_reference_v} V", fix=f"use more than 0 and at most {VDD_MAX_V} V"
            )

    @property
    def span_v(self) -> float:
        """Full scale; the largest output is one LSB below."""
        return self.v_reference_v / self.divide * self.gain

    @property
    def lsb_v(self) -> float:
        return self.span_v / (1 << BITS)

    def code(self, voltage_v: Any) -> Any:
        """Nearest code: int, or int64 array for an array of voltages.

        Raises:
            LimitError: a voltage outside 0 .. span - 1 LSB, or not a number.
        """
        steps = np.asarray(voltage_v, dtype=np.float64) / self.lsb_v
        inside = (steps >= -_ROUNDING_LSB) & (steps <= CODE_MAX + _ROUNDING_LSB)
        if not inside.all():
            wrong_v = float(steps[~inside].flat[0]) * self.lsb_v
            raise LimitError(
                f"DAC80508 output of {wrong_v:g} V is outside 0 .. {CODE_MAX * self.lsb_v:g} V",
                fix="ask for a voltage inside, or choose another gain, divider or reference",
            )
        codes = np.rint(steps).astype(np.int64)
        return int(codes) if codes.ndim == 0 else codes

    def voltage_v(self, code: Any) -> Any:
        """Output of a code: float, or array for an array of codes."""
        return _whole("DAC80508 code", code, CODE_MAX) * self.lsb_v

    def setting(self, voltage_v: float) -> DacSetting:
        """Nearest code together with what it achieves."""
        code = self.code(voltage_v)
        return DacSetting(code, float(voltage_v), self.voltage_v(code))

    def check_supply(self, vdd_v: float) -> None:
        """Raise `ConfigError` unless the supply leaves the reference buffer its headroom.

        With too little of it all outputs drop to 0 V and STATUS.REF_ALM is set while the registers keep their content
        (DS). The limit, twice the divided reference, is that of the sibling DAC80501. The internal reference undivided
        on a 5.0 V rail meets it with no margin: prefer 5.1 V or more.
        """
        if not VDD_MIN_V <= vdd_v <= VDD_MAX_V:
            raise ConfigError(
                f"DAC80508 supply of {vdd_v} V is outside {VDD_MIN_V} .. {VDD_MAX_V} V", fix="correct the supply"
            )
        least_v = 2 * self.v_reference_v / self.divide
        if vdd_v < least_v:
            raise ConfigError(
                f"DAC80508 supply of {vdd_v} V is below {least_v:g} V, which a reference of {self.v_reference_v} V "
                f"divided by {self.divide} needs: all outputs would be 0 V",
                fix="raise the supply, divide the reference by 2, or use a smaller reference",
            )


# --- the chip on a bus ----------------------------------------------------------------------------------------------


class SpiBus(Protocol):
    """One SPI bus with a chip select per chip."""

    def transfer(self, chips: int, frame: int, *, n_bits: int, capture: bool, slow: bool) -> int:
        """Send a frame to all chips of a bit mask together.

        Args:
            chips: chip selects, one bit each.
            frame: bits to send, right-aligned.
            n_bits: 24 or 32.
            capture: return what came back on SDO; 0 otherwise.
            slow: use the clock for reading.
        """
        ...


class Dac80508:
    """One chip.

    The driver never waits: keep `RESET_WAIT_S` after `soft_reset` and `UPDATE_SPACING_S` between updates.

    Args:
        bus: the bus.
        chip: number of its chip select.
        output_range: what `configure` sets.
        crc: the chip is in CRC mode already. `soft_reset` ends that, `enable_crc` starts it.
        variant: Z starts with all outputs at zero, M at mid-scale and with gain 2.
        reference: external switches the internal one off.
    """

    def __init__(
        self,
        bus: SpiBus,
        chip: int,
        *,
        output_range: OutputRange,
        crc: bool = False,
        variant: Variant = "Z",
        reference: Literal["internal", "external"] = "internal",
    ) -> None:
        self.chip = chip
        self.output_range = output_range
        self.variant: Variant = variant
        self.reference = reference
        self._bus = bus
        self._crc = crc

    def __repr__(self) -> str:
        return f"DAC80508 chip {self.chip}"

    @property
    def crc(self) -> bool:
        """The chip is in CRC mode, as far as this driver knows."""
        return self._crc

    def soft_reset(self) -> None:
        """Reset, whatever mode the chip is in; it leaves CRC mode.

        Out of CRC mode it takes the short frame, and of the long one only the end, which is a NOP. In CRC mode it
        ignores the short frame (both from the sibling DAC80504). So it resets exactly once. The mode it should be in
        comes last, because nothing may follow a reset at once.
        """
        for crc in (not self._crc, self._crc):
            self._send(soft_reset_frame(crc), crc=crc)
        self._crc = False

    def enable_crc(self) -> None:
        """Start CRC mode, with the rest of CONFIG at its reset value.

        Always a short frame: a chip that is in CRC mode already ignores it.
        """
        self._send(write_frame(BY_NAME["CONFIG"].address, CRC_EN), crc=False)
        self._crc = True

    def identify(self) -> int:
        """DEVICE_ID, after checking that it is a DAC80508 of the right variant."""
        found = self.read("DEVICE_ID")
        expected = DEVICE_ID[self.variant]
        if found & DEVICE_ID_MASK != expected:
            raise DeviceError(
                f"{self}: DEVICE_ID is 0x{found:04X}, expected 0x{expected:04X} under mask 0x{DEVICE_ID_MASK:04X} "
                f"for variant {self.variant}",
                fix="check the chip on the board against its variant in the board profile",
            )
        return found

    def configure(self, *, sync_channels: int = 0xFF, broadcast_channels: int = 0xFF, check: bool = True) -> None:
        """Set reference, range and update mode. Outputs that are not at zero move when the range changes.

        Args:
            sync_channels: channels that wait for `load`, one bit each.
            broadcast_channels: channels that follow `broadcast`, one bit each.
            check: read everything back.
        """
        sync = _whole(f"{self} sync_channels", sync_channels, 0xFF)
        following = _whole(f"{self} broadcast_channels", broadcast_channels, 0xFF)
        values = {
            "CONFIG": (CRC_EN if self._crc else 0) | (REF_PWDWN if self.reference == "external" else 0),
            "GAIN": gain_register_value(self.output_range.divide, self.output_range.gain),
            "SYNC": following << 8 | sync,
        }
        for name, value in values.items():
            self.write(name, value)
            if check:
                self.verify(name, value)

    def write(self, name: str, value: int) -> None:
        """Write a register.

        Raises:
            CapabilityError: no such register, or it cannot be written.
            LimitError: the value has bits outside the register's fields.
        """
        register = self._register(name, "W")
        value = _whole(f"{self} {name}", value, CODE_MAX)
        if value & ~register.mask:
            raise LimitError(
                f"{self}: {name} = 0x{value:04X} has bits outside its fields", fix=f"keep within 0x{register.mask:04X}"
            )
        self._send(write_frame(register.address, value, crc=self._crc), crc=self._crc)
        if name == "CONFIG":
            self._crc = bool(value & CRC_EN)
        if name == "TRIGGER" and value & register.field("SOFT_RESET").mask == SOFT_RESET:
            self._crc = False

    def read(self, name: str) -> int:
        """Read a register: the request, then a NOP during which the reply comes."""
        register = self._register(name, "R")
        self._send(read_frame(register.address, crc=self._crc), crc=self._crc, slow=True)
        nop = write_frame(BY_NAME["NOP"].address, 0, crc=self._crc)
        reply = self._send(nop, crc=self._crc, capture=True, slow=True)
        try:
            return decode_reply(reply, register.address, crc=self._crc)
        except ProtocolError as error:
            raise ProtocolError(f"{self}: reading {name}: {error.what}", fix=error.fix) from None

    def verify(self, name: str, value: int) -> None:
        """Read a register back and raise `DeviceError` unless it holds `value`."""
        found = self.read(name)
        if found != value:
            raise DeviceError(
                f"{self}: {name} is 0x{found:04X}, expected 0x{value:04X}",
                fix="reset and configure the chip again; if it stays wrong, check supplies and bus",
            )

    def set_code(self, channel: int, code: int) -> None:
        """Store a channel's code; it moves the output at once unless the channel waits for `load`."""
        frame = write_frame(dac_address(channel), code, crc=self._crc)
        self._send(frame, crc=self._crc)

    def load(self) -> None:
        """Move all stored codes to the outputs."""
        self._send(ldac_frame(self._crc), crc=self._crc)

    def broadcast(self, code: int) -> None:
        """Move all channels that follow broadcasts to one code, at once and whatever their SYNC_EN.

        That it also overwrites their stored codes is inferred, unverified.
        """
        self.write("BRDCAST", code)

    def reference_alarm(self) -> bool:
        """Whether the reference has lost its headroom, in which case all outputs are at 0 V."""
        return bool(self.read("STATUS") & REF_ALM)

    def _register(self, name: str, access: Literal["R", "W"]) -> Register:
        register = BY_NAME.get(name)
        if register is None:
            raise CapabilityError(f"{self} has no register {name!r}", fix=f"use one of {', '.join(BY_NAME)}")
        if access not in register.access:
            verb = {"R": "read", "W": "written"}[access]
            raise CapabilityError(f"{self}: {name} cannot be {verb}", fix=f"it is {register.access}")
        return register

    def _send(self, frame: int, *, crc: bool, capture: bool = False, slow: bool = False) -> int:
        n_bits = FRAME_BITS_CRC if crc else FRAME_BITS
        return self._bus.transfer(1 << self.chip, frame, n_bits=n_bits, capture=capture, slow=slow)
