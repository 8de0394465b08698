"""Instruments that are wired to an emulated board without commands in between."""

from __future__ import annotations

import numpy as np

from firmware_bridge.emulator.bench import Bench
from firmware_bridge.emulator.pad import PadSource
from hil.errors import CapabilityError, LimitError
from hil.instruments import Multimeter, SourceMeasureUnit, SourcePoint


class Meter(Multimeter):
    """A multimeter: on a pad, or with a scanner on every drive channel."""

    identity = "meter of the tests"

    def __init__(self, terminals: Bench, *, scanner: bool = False, noise_v: float = 10e-6) -> None:
        self._terminals, self._scanner, self._noise_v = terminals, scanner, noise_v
        self._rng = np.random.default_rng(3)
        self._channel: int | None = None

    def close(self) -> None:
        pass

    def select(self, channel: int | None) -> None:
        if not self._scanner:
            raise CapabilityError("no scanner", fix="none")
        self._channel = channel

    def measure_voltage_v(self) -> float:
        terminals, channel = self._terminals, self._channel
        level_v = terminals.pad_v() if channel is None else terminals.channel_v(channel - 1)
        return level_v + self._noise_v * float(self._rng.standard_normal())

    def measure_resistance_ohm(self) -> float:
        raise CapabilityError("not needed here", fix="none")


class Unit(SourceMeasureUnit):
    """A source-measure unit between a pad and v_common.

    Attributes:
        fails_at: `source_current` fails when called for so many times.
        log: what was told to it.
    """

    identity = "unit of the tests"

    def __init__(self, terminals: Bench, *, fails_at: int | None = None, lead_ohm: float = 0.5) -> None:
        self._terminals, self._lead_ohm = terminals, lead_ohm
        self._source: PadSource | None = None
        self.fails_at = fails_at
        self.is_on = False
        self.log: list[tuple[float, float]] = []

    def close(self) -> None:
        self.output_off()

    def source_current(self, current_a: float, *, compliance_v: float) -> None:
        self.log.append((current_a, compliance_v))
        if len(self.log) == self.fails_at:
            raise LimitError("the test lets this fail", fix="none")
        self._source = PadSource(self._terminals.row, "current", current_a, compliance_v, lead_ohm=self._lead_ohm)
        if self.is_on:
            self._terminals.drive(self._source)

    def source_voltage(self, voltage_v: float, *, compliance_a: float) -> None:
        raise CapabilityError("not needed here", fix="none")

    def output_on(self) -> None:
        if self._source is None:
            raise LimitError("no limit has been set", fix="set one")
        self._terminals.drive(self._source)
        self.is_on = True

    def output_off(self) -> None:
        self._terminals.drive(None)
        self.is_on = False

    def measure(self) -> SourcePoint:
        point = self._terminals.source_point()
        assert point is not None
        return SourcePoint(point.voltage_v, point.current_a, point.in_compliance)
