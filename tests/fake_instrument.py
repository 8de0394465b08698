"""An instrument that answers from a table and fails when a test wants it to."""

from __future__ import annotations

from collections.abc import Callable

from drivers.instruments import OpenedInstrument
from drivers.instruments.link import Link

#: answers by question, where the output is off
ANSWERS = {
    "smu": {
        "*IDN?": "KEITHLEY INSTRUMENTS,MODEL 2450,04000001,1.7.12b",
        "*LANG?": "SCPI",
        "SYST:ERR?": '0,"No error;0;0 0"',
        "OUTPUT?": "0",
        ':READ? "defbuffer1", SOUR, READ': "1.0E-05,2.0E-01",
        ":SOUR:CURR:VLIM:TRIP?": "0",
    },
    "psu": {
        "*IDN?": "Keysight Technologies,E36312A,MY00000003,2.1.3-1.0.4-1.12",
        "SYST:ERR?": '+0,"No error"',
        "OUTP? (@1)": "0",
        "MEAS:VOLT? (@1)": "+5.0E+00",
        "MEAS:CURR? (@1)": "+1.0E-02",
        "STAT:QUES:INST:ISUM1:COND?": "2",
    },
}
ON = {"smu": "OUTPUT ON", "psu": "OUTPut 1, (@1)"}
OFF = {"smu": "OUTPUT OFF", "psu": "OUTPut 0, (@1)"}
IS_ON = {"smu": "OUTPUT?", "psu": "OUTP? (@1)"}


class FakeInstrument:
    """Connection to an instrument that answers from a table and fails at a chosen call.

    Attributes:
        sent: commands that reached it.
        is_on: whether its output is on.
    """

    def __init__(self, role: str, fault: Callable[[FakeInstrument, str], None] | None = None, at: int = -1) -> None:
        self.timeout = 5000.0
        self.sent: list[str] = []
        self.is_on = True
        self.closed = False
        self.calls = 0
        self.is_gone = False
        self.garbage: str | None = None
        self.answers = dict(ANSWERS[role])
        self._role = role
        self._fault = fault
        self._at = at
        self._queue: list[str] = []

    def write(self, message: str) -> None:
        self._call("write")
        self.sent.append(message)
        if message in (ON[self._role], OFF[self._role]):
            self.is_on = message == ON[self._role]
        elif message == IS_ON[self._role]:
            self._queue.append("1" if self.is_on else "0")
        elif message in self.answers:
            self._queue.append(self.answers[message])

    def read(self) -> str:
        self._call("read")
        if not self._queue:
            raise TimeoutError("VI_ERROR_TMO: Timeout expired")
        answer = self._queue.pop(0)
        if self.garbage is not None:
            answer, self.garbage = self.garbage, None
        return answer + "\n"

    def close(self) -> None:
        self.closed = True

    def _call(self, kind: str) -> None:
        index, self.calls = self.calls, self.calls + 1
        if index == self._at and self._fault is not None:
            self._fault(self, kind)
        if self.is_gone:
            raise ConnectionResetError(104, "Connection reset by peer")


def opened(role: str, fake: FakeInstrument) -> OpenedInstrument:
    return OpenedInstrument(role, "FAKE::INSTR", lambda resource, who: Link(fake, who))
