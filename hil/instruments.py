"""Bench instruments as calibration sees them; the drivers are in `drivers.instruments`.

Every source is at zero with its output off when it is handed out, and has its output off after `close`.
Signs are those of the instruments: a current is positive where it flows out of the high terminal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from hil.errors import CapabilityError, ConfigError, DeviceError


class SourcePoint(NamedTuple):
    """What a source reads of itself.

    Attributes:
        voltage_v: at its terminals.
        current_a: out of its high terminal.
        in_compliance: whether its limit held it back, so that it did not give what it was set to.
    """

    voltage_v: float
    current_a: float
    in_compliance: bool


class Instrument(ABC):
    """Anything on the bench.

    All methods raise `TransportError` where the instrument is silent or gone, `ProtocolError` where it answers what is
    no answer (an overflow, too), and `DeviceError` where it refuses a command.
    """

    @property
    @abstractmethod
    def identity(self) -> str:
        """Answer to *IDN?."""

    @abstractmethod
    def close(self) -> None:
        """Output off, connection closed; may be called twice."""


class Source(Instrument):
    """Drives something, within a limit."""

    @abstractmethod
    def output_on(self) -> None:
        """Switch the output on.

        Raises:
            LimitError: no limit has been set since the instrument was opened.
        """

    @abstractmethod
    def output_off(self) -> None:
        """Switch the output off, and make sure that it is.

        Raises:
            DeviceError: it may still be on.
        """

    @abstractmethod
    def measure(self) -> SourcePoint:
        """Measure voltage and current at the terminals, with the output on."""

    def measure_in_control(self) -> SourcePoint:
        """Measure like `measure`.

        Raises:
            DeviceError: its limit holds it back: what it drives is open, shorted, or not what it should be.
        """
        point = self.measure()
        if point.in_compliance:
            raise DeviceError(
                f"{self.identity} is held back by its limit at {point.voltage_v:.4g} V and {point.current_a:.4g} A",
                fix="look for an open or shorted connection, or raise the limit if what it drives can stand that",
            )
        return point


class SourceMeasureUnit(Source):
    """Sources a current or a voltage and measures both."""

    @abstractmethod
    def source_current(self, current_a: float, *, compliance_v: float) -> None:
        """Choose what to source; the limit is set first.

        The output stays as it is, but goes off where a voltage was sourced before.

        Raises:
            LimitError: beyond what the instrument has; nothing was sent.
        """

    @abstractmethod
    def source_voltage(self, voltage_v: float, *, compliance_a: float) -> None:
        """Choose what to source; the limit is set first.

        The output stays as it is, but goes off where a current was sourced before.

        Raises:
            LimitError: beyond what the instrument has; nothing was sent.
        """


class PowerSupply(Source):
    """Supplies a voltage up to a current limit, at which `in_compliance` is true."""

    @abstractmethod
    def set_voltage(self, voltage_v: float, *, current_limit_a: float) -> None:
        """Choose what to supply; the limit is set first. The output stays as it is.

        Raises:
            LimitError: beyond what the instrument has; nothing was sent.
        """


class Multimeter(Instrument):
    """Measures."""

    @abstractmethod
    def measure_voltage_v(self) -> float:
        """DC voltage."""

    @abstractmethod
    def measure_resistance_ohm(self) -> float:
        """Resistance, by four wires where the instrument has them."""

    def select(self, channel: int | None) -> None:
        """Close a channel of its scanner card, for all that is measured from now on; None opens all.

        Raises:
            CapabilityError: it has no such channel.
        """
        if channel is not None:
            raise CapabilityError(
                f"{self.identity} has no scanner channel {channel}", fix="move the probe by hand, or use a scanner"
            )


#: what an instrument may be used for
ROLES: dict[str, type[Instrument]] = {"smu": SourceMeasureUnit, "dmm": Multimeter, "psu": PowerSupply}


def instrument_specs(arguments: Iterable[str]) -> dict[str, str]:
    """Resources by role, from arguments such as `smu=TCPIP::192.168.1.20::5025::SOCKET`.

    Raises:
        ConfigError: an argument is not ROLE=RESOURCE, or names an unknown role, or a role or a resource twice.
    """
    specs: dict[str, str] = {}
    for argument in arguments:
        role, equals, resource = (part.strip() for part in argument.partition("="))
        if not equals or not resource:
            raise ConfigError(
                f"instrument {argument!r} is not ROLE=RESOURCE",
                fix="give for example dmm=USB0::0x05E6::0x6500::1::INSTR",
            )
        if role not in ROLES:
            raise ConfigError(f"instrument {argument!r}: {role!r} is no role", fix=f"use one of {', '.join(ROLES)}")
        if role in specs:
            raise ConfigError(
                f"instrument {role} is given twice: {specs[role]} and {resource}", fix=f"give one {role} only"
            )
        specs[role] = resource
    return specs
