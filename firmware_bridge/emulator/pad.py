"""A source at the test pad of a bit line, as the wires see it: a level, a limit, and what comes of both.

The pad sits between mux and bit line. Seen from there everything else is one voltage behind one resistance (Thevenin),
so that current source, voltage source and either one at its limit are a line of algebra each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

#: leakage of an open pad; keeps what it sees finite
PAD_LEAK_OHM = 1e12


class PadPoint(NamedTuple):
    """Where source and pad meet.

    Attributes:
        voltage_v: at the source's terminals, against its reference.
        current_a: into the pad.
        pad_v: at the pad, against the source's reference: less than `voltage_v` by the leads.
        in_compliance: the limit holds the source back.
    """

    voltage_v: float
    current_a: float
    pad_v: float
    in_compliance: bool


@dataclass(frozen=True)
class PadSource:
    """A source between its reference and a bit line's pad; an instrument whose output is off is no source.

    Attributes:
        row: bit line.
        kind: what it holds.
        level: A of a current source, V of a voltage source against its reference.
        limit: largest voltage (V) of a current source, largest current (A) of a voltage source; without sign.
        lead_ohm: leads and contact in series.
        noise_a: sigma of its current from one conversion to the next.
    """

    row: int
    kind: Literal["current", "voltage"]
    level: float
    limit: float
    lead_ohm: float = 0.5
    noise_a: float = 0.0

    def meet(self, open_v: float, resistance_ohm: float) -> PadPoint:
        """Operating point on a pad that is at `open_v` with nothing there, and that this resistance stands behind."""
        loop_ohm = resistance_ohm + self.lead_ohm
        if self.kind == "current":
            current_a, voltage_v = self.level, open_v + self.level * loop_ohm
            held = abs(voltage_v) > self.limit
            if held:
                voltage_v = self.limit if voltage_v > 0 else -self.limit
                current_a = (voltage_v - open_v) / loop_ohm
        else:
            voltage_v, current_a = self.level, (self.level - open_v) / loop_ohm
            held = abs(current_a) > self.limit
            if held:
                current_a = self.limit if current_a > 0 else -self.limit
                voltage_v = open_v + current_a * loop_ohm
        return PadPoint(voltage_v, current_a, open_v + current_a * resistance_ohm, held)

    def holds_voltage(self, point: PadPoint) -> bool:
        """Whether it gives way in current at that point, so that the wires see a voltage behind `lead_ohm`."""
        return (self.kind == "voltage") != point.in_compliance


def voltmeter(row: int) -> PadSource:
    """A meter at the pad: it draws no current."""
    return PadSource(row, "current", 0.0, limit=math.inf, lead_ohm=0.0)
