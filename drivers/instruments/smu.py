"""Source-measure units: Keithley 2400 and 2450.

The terminals are disconnected while the output is off: at zero volts, the state after *RST, they would load a line of
the array. Ranges are automatic and wires two, which *RST sets.
"""

from __future__ import annotations

from abc import abstractmethod

from pymeasure.instruments.keithley import Keithley2400, Keithley2450

from drivers.instruments.keithley import check_command_set
from drivers.instruments.link import Link
from drivers.instruments.scpi import ScpiSource, check_level, check_limit
from hil.instruments import SourceMeasureUnit, SourcePoint

#: highest level and limit of both (manuals)
VOLTAGE_MAX_V, CURRENT_MAX_A = 210.0, 1.05
#: lowest limits of the 2450, above those of the 2400 (manual 2450-901-01, :SOURce[1]:<function>:<x>LIMit)
COMPLIANCE_MIN_V, COMPLIANCE_MIN_A = 0.02, 1e-9


class _Smu(ScpiSource, SourceMeasureUnit):
    title = "SMU"
    #: what is sourced, "current" or "voltage"; None before the first choice
    _sourced: str | None = None

    def source_current(self, current_a: float, *, compliance_v: float) -> None:
        check_level(self._link.who, "current", current_a, CURRENT_MAX_A, "A")
        check_limit(self._link.who, "compliance", compliance_v, COMPLIANCE_MIN_V, VOLTAGE_MAX_V, "V")
        self._source("current", current_a, compliance_v)

    def source_voltage(self, voltage_v: float, *, compliance_a: float) -> None:
        check_level(self._link.who, "voltage", voltage_v, VOLTAGE_MAX_V, "V")
        check_limit(self._link.who, "compliance", compliance_a, COMPLIANCE_MIN_A, CURRENT_MAX_A, "A")
        self._source("voltage", voltage_v, compliance_a)

    @abstractmethod
    def _choose(self, sourced: str) -> None:
        """Send what to source."""

    def _source(self, sourced: str, level: float, compliance: float) -> None:
        self._limited = False
        if sourced != self._sourced:
            if self._is_on:
                self.output_off()
            self._sourced = None
            self._choose(sourced)
        other = "voltage" if sourced == "current" else "current"
        setattr(self._driver, f"compliance_{other}", compliance)
        # A level must not go out under another limit than the one that was asked for.
        self._check_errors()
        setattr(self._driver, f"source_{sourced}", level)
        self._check_errors()
        self._sourced, self._limited = sourced, True


class Smu2450(_Smu):
    """Keithley 2450 in its own SCPI command set (manual 2450-901-01).

    pymeasure's class covers settings; what it reads belongs to the command set SCPI 2400, so readings are asked here.
    """

    def __init__(self, link: Link, identity: str) -> None:
        check_command_set(link)
        super().__init__(link, identity, Keithley2450)

    def start(self) -> None:
        self._driver.disable_source()
        # Cleared first: a refused reset must be seen.
        self._driver.clear()
        self._driver.write("*RST")
        self._driver.current_output_off_state = "HIMP"
        self._driver.voltage_output_off_state = "HIMP"
        self._check_errors()
        self.output_off()

    def measure(self) -> SourcePoint:
        self._need_output()
        source, reading = self._ask_numbers(':READ? "defbuffer1", SOUR, READ', 2)
        if self._sourced == "current":
            return SourcePoint(reading, source, self._ask_switch(":SOUR:CURR:VLIM:TRIP?"))
        return SourcePoint(source, reading, self._ask_switch(":SOUR:VOLT:ILIM:TRIP?"))

    def _choose(self, sourced: str) -> None:
        self._driver.source_mode = sourced
        self._driver.write(':SENS:FUNC "VOLT"' if sourced == "current" else ':SENS:FUNC "CURR"')

    def _switch(self, *, on: bool) -> None:
        if on:
            self._driver.enable_source()
        else:
            self._driver.disable_source()

    def _ask_output(self) -> bool:
        return self._ask_switch("OUTPUT?")


class Smu2400(_Smu):
    """Keithley 2400 (manual 2400S-900-01)."""

    #: bits of the status word that hold the output back: compliance, overvoltage protection, range compliance
    _HELD_BACK = 1 << 3 | 1 << 4 | 1 << 16

    def __init__(self, link: Link, identity: str) -> None:
        super().__init__(link, identity, Keithley2400)

    def start(self) -> None:
        self._driver.disable_source()
        # Cleared first: a refused reset must be seen.
        self._driver.clear()
        self._driver.write("*RST")
        self._driver.output_off_state = "disconnected"
        # Both at once, and not the resistance, which is no number at zero current.
        self._driver.write(":SENSE:FUNCTION 'VOLTAGE', 'CURRENT'")
        self._driver.write(":FORMAT:ELEMENTS VOLTAGE, CURRENT, STATUS")
        self._check_errors()
        self.output_off()

    def measure(self) -> SourcePoint:
        self._need_output()
        voltage_v, current_a, status = self._ask_numbers(":READ?", 3)
        return SourcePoint(voltage_v, current_a, bool(int(status) & self._HELD_BACK))

    def _choose(self, sourced: str) -> None:
        self._driver.source_mode = sourced

    def _switch(self, *, on: bool) -> None:
        self._driver.source_enabled = on

    def _ask_output(self) -> bool:
        return self._ask_switch("OUTPUT?")
