"""Multimeters: Keithley DMM6500 and DAQ6510 with their scanners, Keysight 34410A and its relatives."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from pymeasure.instruments.agilent import Agilent34410A
from pymeasure.instruments.keithley import KeithleyDAQ6510, KeithleyDMM6500

from drivers.instruments.keithley import check_command_set
from drivers.instruments.link import Link
from drivers.instruments.scpi import ScpiInstrument
from hil.errors import CapabilityError, DeviceError, HilError
from hil.instruments import Multimeter

log = logging.getLogger(__name__)

_VOLTAGE, _RESISTANCE = "VOLT:DC", "FRES"
#: channels of one module of the DAQ6510 that measure voltage: 7702 and 7708 (manual DAQ6510-901-01)
_MODULE_CHANNELS = 40


class _ScanningDmm(ScpiInstrument, Multimeter):
    """Touch-screen multimeter of Keithley; its scanner is on the rear terminals, and knows which channels it has."""

    def __init__(self, link: Link, identity: str, driver: Callable[[Link], Any]) -> None:
        check_command_set(link)
        super().__init__(link, identity, driver)
        #: that a measurement takes now; None where it is not known
        self._function: str | None = None
        self._channel: int | None = None

    def start(self) -> None:
        # Cleared first: a refused reset must be seen.
        self._driver.clear()
        self._driver.write("*RST")
        self._check_errors()

    def measure_voltage_v(self) -> float:
        return self._measure(_VOLTAGE)

    def measure_resistance_ohm(self) -> float:
        return self._measure(_RESISTANCE)

    def select(self, channel: int | None) -> None:
        if channel is None:
            self._driver.write(":ROUT:OPEN:ALL")
            # Its own function may differ from that of the channel.
            self._channel = self._function = None
            self._check_errors()
            return
        terminals = self._link.ask("ROUT:TERM?").upper()
        if terminals not in ("REAR", "FRON", "FRONT"):
            self._refuse_answer("ROUT:TERM?", terminals, "FRON or REAR")
        if terminals != "REAR":
            raise CapabilityError(
                f"{self._link.who} measures at its front terminals; its scanner is at the rear ones",
                fix="press the TERMINALS switch at its front panel",
            )
        try:
            self._close_channel(channel, self._function or _VOLTAGE)
        except DeviceError as error:
            raise CapabilityError(
                f"{self._link.who} has no scanner channel {channel}: {error.what}",
                fix="use a channel that it has, a larger scanner, or move the probe by hand",
            ) from error

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._channel is not None:
                self._driver.write(":ROUT:OPEN:ALL")
        except HilError as error:
            # It drives nothing; the error that ended the measurement is the one to see.
            log.warning("the scanner's channels stay closed: %s", error)
        finally:
            self._link.close()

    @staticmethod
    def _number(channel: int) -> int:
        """What the instrument calls a channel; ours count from one."""
        return channel

    def _measure(self, function: str) -> float:
        if function != self._function:
            if self._channel is None:
                self._driver.write(f':SENS:FUNC "{function}"')
            else:
                self._close_channel(self._channel, function)
            self._function = function
        return self._ask_number(":READ?")

    def _close_channel(self, channel: int, function: str) -> None:
        number = self._number(channel)
        # Known again when it is done: a refused channel leaves neither.
        self._channel = self._function = None
        self._driver.write(":ROUT:OPEN:ALL")
        # The function belongs to the channel: it is set before the channel is closed.
        self._driver.write(f':SENS:FUNC "{function}", (@{number})')
        self._driver.write(f":ROUT:CLOS (@{number})")
        self._check_errors()
        self._channel, self._function = channel, function


class Dmm6500(_ScanningDmm):
    """Keithley DMM6500; its card 2000-SCAN has channels 1 to 10 (manual DMM6500-901-01).

    Four-wire resistance takes channels 1 to 5, and with each the channel five higher.
    """

    def __init__(self, link: Link, identity: str) -> None:
        super().__init__(link, identity, KeithleyDMM6500)


class Daq6510(_ScanningDmm):
    """Keithley DAQ6510 with multiplexer modules 7702 or 7708, 40 channels each (manual DAQ6510-901-01).

    Channel 1 is 101 of slot 1, and channel 41 is 201 of slot 2. Four-wire resistance takes the first 20 of a module,
    and with each the channel twenty higher.
    """

    def __init__(self, link: Link, identity: str) -> None:
        super().__init__(link, identity, KeithleyDAQ6510)

    @staticmethod
    def _number(channel: int) -> int:
        slot, place = divmod(channel - 1, _MODULE_CHANNELS)
        return 100 * (slot + 1) + place + 1


class Dmm34410(ScpiInstrument, Multimeter):
    """Agilent 34410A, 34411A and Keysight 34460A, 34461A, 34465A, 34470A, which share these commands.

    Manuals: Agilent 34410A/11A Programmer's Reference; Keysight Truevolt Operating and Service Guide 34460-90901.
    """

    def __init__(self, link: Link, identity: str) -> None:
        super().__init__(link, identity, _agilent_34410a)

    def start(self) -> None:
        # Cleared first: a refused reset must be seen.
        self._driver.clear()
        self._driver.write("*RST")
        self._check_errors()

    def measure_voltage_v(self) -> float:
        return self._ask_number("MEAS:VOLT:DC? DEF,DEF")

    def measure_resistance_ohm(self) -> float:
        return self._ask_number("MEAS:FRES? DEF,DEF")

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._link.close()


def _agilent_34410a(link: Link) -> Any:
    with warnings.catch_warnings():
        # pymeasure warns that it does not know whether this model speaks SCPI; it does.
        warnings.simplefilter("ignore", FutureWarning)
        return Agilent34410A(link)
