"""Power supplies: Keysight E36312A (E36300 Series Programming Guide).

Only output 1 is used. *RST is not: it would switch the other two outputs, which may feed something else.
"""

from __future__ import annotations

from pymeasure.instruments.keysight import KeysightE36312A

from drivers.instruments.link import Link
from drivers.instruments.scpi import ScpiSource, check_limit
from hil.errors import DeviceError
from hil.instruments import PowerSupply, SourcePoint

VOLTAGE_MAX_V, CURRENT_MAX_A = 6.0, 5.0
#: lowest current limit; unverified (below it the supply sets it to its own lowest)
CURRENT_MIN_A = 2e-3

#: bits of the condition register of an output; none: off, both: failure
_CONSTANT_CURRENT, _CONSTANT_VOLTAGE = 1 << 0, 1 << 1


class PsuE36312A(ScpiSource, PowerSupply):
    title = "POWER SUPPLY"

    def __init__(self, link: Link, identity: str) -> None:
        super().__init__(link, identity, KeysightE36312A)
        self._output = self._driver.ch_1

    def start(self) -> None:
        self._output.output_enabled = False
        self._driver.clear()
        self._output.voltage_setpoint = 0
        self._check_errors()
        self.output_off()

    def set_voltage(self, voltage_v: float, *, current_limit_a: float) -> None:
        check_limit(self._link.who, "voltage", voltage_v, 0, VOLTAGE_MAX_V, "V")
        check_limit(self._link.who, "current limit", current_limit_a, CURRENT_MIN_A, CURRENT_MAX_A, "A")
        self._limited = False
        self._output.current_limit = current_limit_a
        # A level must not go out under another limit than the one that was asked for.
        self._check_errors()
        self._output.voltage_setpoint = voltage_v
        self._check_errors()
        self._limited = True

    def measure(self) -> SourcePoint:
        self._need_output()
        voltage_v = self._ask_number("MEAS:VOLT? (@1)")
        current_a = self._ask_number("MEAS:CURR? (@1)")
        condition = int(self._ask_number("STAT:QUES:INST:ISUM1:COND?"))
        mode = condition & (_CONSTANT_CURRENT | _CONSTANT_VOLTAGE)
        if mode not in (_CONSTANT_CURRENT, _CONSTANT_VOLTAGE):
            raise DeviceError(
                f"{self._link.who} does not regulate its output (condition {condition})",
                fix="look at its front panel: a protection may have tripped; clear it there",
            )
        return SourcePoint(voltage_v, current_a, mode == _CONSTANT_CURRENT)

    def _switch(self, *, on: bool) -> None:
        self._output.output_enabled = on

    def _ask_output(self) -> bool:
        return self._ask_switch("OUTP? (@1)")
