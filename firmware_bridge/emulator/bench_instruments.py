"""Instruments of the bench twin: the commands that `drivers.instruments` sends, in front of an emulated board.

Source: reference manuals of Keithley 2450 (2450-901-01) and DMM6500 (DMM6500-901-01), Keysight E36312A (E36311-90002).
They know what the drivers send and refuse the rest with -113. Not checked against an instrument.

Each has errors of its own, far below what it is to measure, and noise; both are drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from firmware_bridge.emulator.bench import Bench, SupplyPoint
from firmware_bridge.emulator.pad import PadSource
from firmware_bridge.emulator.scpi import (
    NO_NUMBER,
    OVERLOAD,
    Command,
    ScpiError,
    ScpiInstrument,
    channels,
    number,
    switch,
    word,
)

#: sigma of the gain errors that instruments are drawn with
GAIN_SIGMA = 10e-6


@dataclass
class Accuracy:
    """Errors of one range of one instrument.

    Attributes:
        rng: noise.
        gain: relative error.
        offset: in the unit of the range.
        noise: sigma, in the unit of the range.
        relative_noise: sigma that grows with the value.
    """

    rng: np.random.Generator = field(repr=False)
    gain: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    relative_noise: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator, offset_sigma: float, noise: float) -> Accuracy:
        """An instrument as it comes."""
        gain, offset = rng.normal(0.0, GAIN_SIGMA), rng.normal(0.0, offset_sigma)
        return cls(rng, gain, offset, noise, relative_noise=0.2 * GAIN_SIGMA)

    def lasting(self, value: float) -> float:
        """Value with the errors that stay."""
        return value * (1.0 + self.gain) + self.offset

    def read(self, value: float) -> float:
        """Value as it is read, noise included."""
        sigma = float(np.hypot(self.noise, self.relative_noise * value))
        return self.lasting(value) + sigma * float(self.rng.standard_normal())


class SmuTwin(ScpiInstrument):
    """Keithley 2450 at a bit line's pad."""

    def __init__(self, bench: Bench, rng: np.random.Generator) -> None:
        super().__init__("KEITHLEY INSTRUMENTS,MODEL 2450,04000001,1.7.12b")
        self._trips_at: float | None = None
        self._bench = bench
        self._sources = {"CURR": Accuracy.draw(rng, 10e-12, 10e-12), "VOLT": Accuracy.draw(rng, 5e-6, 1e-6)}
        self._meters = {"CURR": Accuracy.draw(rng, 10e-12, 10e-12), "VOLT": Accuracy.draw(rng, 5e-6, 1e-6)}
        self._off()

    @property
    def trips_at(self) -> float | None:
        """Fault: a limit (V of a current source, A of a voltage source) that holds whatever is set; None without."""
        return self._trips_at

    @trips_at.setter
    def trips_at(self, value: float | None) -> None:
        self._trips_at = value
        self._apply()

    def _off(self) -> None:
        self.output = False
        self._function, self._sense = "VOLT", "CURR"
        self._level = {"CURR": 0.0, "VOLT": 0.0}
        self._limit = {"CURR": 21.0, "VOLT": 1.05e-4}
        self._off_state = {"CURR": "NORM", "VOLT": "NORM"}

    def reset(self) -> None:
        self._off()
        self._apply()

    def commands(self) -> Sequence[Command]:
        return [
            Command("OUTPut[:STATe]", set=self._set_output, ask=lambda _: str(int(self.output))),
            Command("SOURce:FUNCtion[:MODE]", set=self._set_function, ask=lambda _: self._function),
            Command("SENSe:FUNCtion[:ON]", set=self._set_sense, ask=lambda _: f'"{self._sense}:DC"'),
            *self._of_function("CURRent", "VLIMit", level_max=1.05, limit_min=0.02, limit_max=210.0),
            *self._of_function("VOLTage", "ILIMit", level_max=210.0, limit_min=1e-9, limit_max=1.05),
            Command("READ", ask=self._read),
        ]

    def _of_function(
        self, name: str, limit: str, *, level_max: float, limit_min: float, limit_max: float
    ) -> list[Command]:
        key = name[:4]

        def set_level(parameters: list[str]) -> None:
            self._level[key] = number(parameters, -level_max, level_max)
            self._apply()

        def set_limit(parameters: list[str]) -> None:
            self._limit[key] = number(parameters, limit_min, limit_max)
            self._apply()

        def set_off_state(parameters: list[str]) -> None:
            self._off_state[key] = word(parameters, "NORMal", "HIMPedance", "ZERO", "GUARd")

        return [
            Command(f"SOURce:{name}[:LEVel]", set=set_level, ask=lambda _: f"{self._level[key]:E}"),
            Command(f"SOURce:{name}:{limit}[:LEVel]", set=set_limit, ask=lambda _: f"{self._limit[key]:E}"),
            Command(f"SOURce:{name}:{limit}[:LEVel]:TRIPped", ask=lambda _: self._tripped(key)),
            Command(f"OUTPut:{name}:SMODe", set=set_off_state, ask=lambda _: self._off_state[key]),
        ]

    def _set_output(self, parameters: list[str]) -> None:
        self.output = switch(parameters)
        self._apply()

    def _set_function(self, parameters: list[str]) -> None:
        function = word(parameters, "VOLTage", "CURRent")
        # Another function switches the output off.
        self.output = self.output and function == self._function
        self._function = function
        self._apply()

    def _set_sense(self, parameters: list[str]) -> None:
        self._sense = word([text.replace(":DC", "") for text in parameters], "VOLTage", "CURRent")

    def _apply(self) -> None:
        """Bring the terminals in line with the settings; an output that is off leaves them open."""
        if not self.output:
            self._bench.drive(None)
            return
        source, limit = self._sources[self._function], self._limit[self._function]
        level = source.lasting(self._level[self._function])
        is_current = self._function == "CURR"
        self._bench.drive(
            PadSource(
                self._bench.row,
                "current" if is_current else "voltage",
                level,
                limit=limit if self._trips_at is None else min(limit, self._trips_at),
                noise_a=float(np.hypot(source.noise, source.relative_noise * level)) if is_current else 0.0,
            )
        )

    def _tripped(self, key: str) -> str:
        point = self._bench.source_point()
        return str(int(point is not None and self._function == key and point.in_compliance))

    def _read(self, parameters: list[str]) -> str:
        wanted = [text.upper() for text in parameters[1:]] or ["READ"]
        point = self._bench.source_point()
        if point is None:
            raise ScpiError(-221, "the output is off")
        reading = {"CURR": point.current_a, "VOLT": point.voltage_v}
        columns = {"SOUR": self._function, "SOURCE": self._function, "READ": self._sense, "READING": self._sense}
        if unknown := [text for text in wanted if text not in columns]:
            raise ScpiError(-224, unknown[0])
        return ",".join(f"{self._meters[columns[text]].read(reading[columns[text]]):.9E}" for text in wanted)


class DmmTwin(ScpiInstrument):
    """Keithley DMM6500 with a scanner: terminals at the pad, channel k at row-drive channel k - 1."""

    def __init__(self, bench: Bench, rng: np.random.Generator) -> None:
        super().__init__("KEITHLEY INSTRUMENTS,MODEL DMM6500,04000002,1.7.12b")
        self._bench = bench
        self._voltage = Accuracy.draw(rng, 1e-6, 0.5e-6)
        self._resistance = Accuracy.draw(rng, 1e-3, 1e-3)
        self.reset()

    def reset(self) -> None:
        self._function = "VOLT"
        self._of_channel: dict[int, str] = {}
        self._closed: list[int] = []

    def commands(self) -> Sequence[Command]:
        return [
            Command("ROUTe:TERMinals", ask=lambda _: "REAR"),
            Command("ROUTe:OPEN:ALL", set=lambda _: self._closed.clear()),
            Command("ROUTe:CLOSe", set=self._close, ask=lambda _: f"(@{','.join(map(str, self._closed))})"),
            Command("SENSe:FUNCtion[:ON]", set=self._set_function, ask=lambda _: f'"{self._function}"'),
            Command("READ", ask=lambda _: self._read()),
        ]

    def _close(self, parameters: list[str]) -> None:
        wanted = channels(parameters, self._bench.n_channels)
        if len(wanted) > 1:
            raise ScpiError(-221, "one channel at a time")
        self._closed = wanted

    def _set_function(self, parameters: list[str]) -> None:
        function = word([text.replace(":DC", "") for text in parameters[:1]], "VOLTage", "FRESistance", "RESistance")
        if len(parameters) == 1:
            self._function = function
            return
        for channel in channels(parameters[1:], self._bench.n_channels):
            self._of_channel[channel] = function

    def _read(self) -> str:
        if not self._closed:
            if self._function == "VOLT":
                return f"{self._voltage.read(self._bench.pad_v()):.9E}"
            resistance_ohm = self._bench.pad_ohm()
            return OVERLOAD if resistance_ohm is None else f"{self._resistance.read(resistance_ohm):.9E}"
        channel = self._closed[0]
        if self._of_channel.get(channel, "VOLT") == "VOLT":
            return f"{self._voltage.read(self._bench.channel_v(channel - 1)):.9E}"
        # An output that is driven is no resistor.
        return NO_NUMBER


class PsuTwin(ScpiInstrument):
    """Keysight E36312A, output 1."""

    _VOLTAGE_MAX_V, _CURRENT_MAX_A = 6.18, 5.15

    def __init__(self, bench: Bench, rng: np.random.Generator) -> None:
        super().__init__("Keysight Technologies,E36312A,MY00000003,2.1.3-1.0.4-1.12")
        self._bench = bench
        self._source = Accuracy.draw(rng, 0.2e-3, 0.0)
        self._volts, self._amperes = Accuracy.draw(rng, 0.2e-3, 50e-6), Accuracy.draw(rng, 10e-6, 5e-6)
        self._off()

    def _off(self) -> None:
        self.output = False
        self._voltage_v, self._limit_a = 0.0, self._CURRENT_MAX_A

    def reset(self) -> None:
        self._off()
        self._point()

    def commands(self) -> Sequence[Command]:
        def output(parameters: list[str]) -> None:
            self.output = switch(_of_output_1(parameters))
            self._point()

        def voltage(parameters: list[str]) -> None:
            self._voltage_v = number(_of_output_1(parameters), 0.0, self._VOLTAGE_MAX_V)
            self._point()

        def current(parameters: list[str]) -> None:
            self._limit_a = number(_of_output_1(parameters), 0.0, self._CURRENT_MAX_A)
            self._point()

        return [
            Command("OUTPut[:STATe]", set=output, ask=lambda _: str(int(self.output))),
            Command("[SOURce:]VOLTage[:LEVel]", set=voltage, ask=lambda _: f"{self._voltage_v:E}"),
            Command("[SOURce:]CURRent[:LEVel]", set=current, ask=lambda _: f"{self._limit_a:E}"),
            Command("MEASure[:SCALar]:VOLTage[:DC]", ask=lambda _: f"{self._volts.read(self._point().voltage_v):E}"),
            Command("MEASure[:SCALar]:CURRent[:DC]", ask=lambda _: f"{self._amperes.read(self._point().current_a):E}"),
            Command("STATus:QUEStionable:INSTrument:ISUMmary:CONDition", ask=lambda _: self._mode()),
        ]

    def _point(self) -> SupplyPoint:
        voltage_v = max(0.0, self._source.lasting(self._voltage_v)) if self.output else 0.0
        return self._bench.supply(voltage_v, self._limit_a)

    def _mode(self) -> str:
        """2 constant voltage, 1 constant current, 0 off."""
        if not self.output:
            return "0"
        return "1" if self._point().limited else "2"


def _of_output_1(parameters: list[str]) -> list[str]:
    """Parameters without the channel list, which may be left out and names output 1."""
    if parameters and parameters[-1].startswith("("):
        channels(parameters[-1:], 1)
        return parameters[:-1]
    return parameters
