"""Bench instruments wired to an emulated board: what stands between their terminals.

    source-measure unit, high terminal: test pad of one bit line, between its mux and the array
    source-measure unit, low terminal:  the board's `v_common`, where the columns' virtual grounds are
    multimeter, own terminals:          that pad against board ground
    multimeter, scanner channel k:      output of row-drive channel k - 1 against board ground
    power supply:                       nothing, or the supply of the DACs

So the voltage that the source-measure unit reads is the one across cell and wires. The watchdog of the board does not
reach it: it drives the bit line for as long as its own output is on.
"""

from __future__ import annotations

from typing import NamedTuple

from firmware_bridge.emulator.fabric import EmulatedFabric
from firmware_bridge.emulator.pad import PAD_LEAK_OHM, PadPoint, PadSource, voltmeter
from hil.errors import LimitError

#: what a DAC80508 draws; guess, for the power supply's display only
_CHIP_SUPPLY_A = 10e-3
#: current by which the resistance behind a pad is found
_PROBE_A = 1e-6


class SupplyPoint(NamedTuple):
    """What a power supply gives.

    Attributes:
        voltage_v, current_a: at its terminals.
        limited: its current limit holds the voltage down.
    """

    voltage_v: float
    current_a: float
    limited: bool


class Bench:
    """The terminals.

    Args:
        fabric: the board.
        row: bit line whose pad they are at.
        feeds_dacs: whether the power supply feeds the DACs, which are then without supply until it is on.
    """

    def __init__(self, fabric: EmulatedFabric, *, row: int = 0, feeds_dacs: bool = False) -> None:
        profile = fabric.board.profile
        if not 0 <= row < profile.rows:
            raise LimitError(f"no bit line {row}: the board has {profile.rows}", fix=f"use 0 to {profile.rows - 1}")
        self.row = row
        self.feeds_dacs = feeds_dacs
        self.n_channels = profile.mux.count
        self._fabric = fabric
        self._board = fabric.board
        self._supply_ohm = profile.dac.vdd_v / (profile.dac.chips * _CHIP_SUPPLY_A)
        self.supply(0.0, 0.0)

    def disconnect(self) -> None:
        """Take all instruments off; the DACs are back at the board's own supply."""
        self._fabric.connect_source(None)
        if self.feeds_dacs:
            self._fabric.supply_dacs(None)

    def drive(self, source: PadSource | None) -> None:
        """What the source-measure unit does from now on; None: its output is off, and its terminals open."""
        self._fabric.connect_source(source)

    def source_point(self) -> PadPoint | None:
        """Where its output is; None while it is off."""
        with self._fabric.lock:
            return self._board.analogue.pad

    def pad_v(self) -> float:
        """The pad against board ground; one that nothing holds is where its leakage takes it."""
        with self._fabric.lock:
            point = self._board.analogue.pad or self._board.analogue.at_pad(voltmeter(self.row))
        return point.pad_v + self._board.profile.tia.v_common_v

    def pad_ohm(self) -> float | None:
        """Resistance between the pad and what holds it; None for an open pad."""
        with self._fabric.lock:
            at_rest, probed = (
                self._board.analogue.at_pad(PadSource(self.row, "current", level_a, limit=float("inf"), lead_ohm=0.0))
                for level_a in (0.0, _PROBE_A)
            )
        found_ohm = (probed.pad_v - at_rest.pad_v) / _PROBE_A
        return None if found_ohm > 1e-3 * PAD_LEAK_OHM else found_ohm

    def channel_v(self, channel: int) -> float:
        """Output of a row-drive channel against board ground."""
        with self._fabric.lock:
            return float(self._board.dac_levels()["row_v"][channel])  # type: ignore[index]

    def supply(self, voltage_v: float, limit_a: float) -> SupplyPoint:
        """Set the power supply's output; what then comes out of it. Zero for off."""
        if not self.feeds_dacs:
            return SupplyPoint(voltage_v, 0.0, limited=False)
        current_a = voltage_v / self._supply_ohm
        limited = current_a > limit_a
        if limited:
            voltage_v, current_a = limit_a * self._supply_ohm, limit_a
        self._fabric.supply_dacs(voltage_v)
        return SupplyPoint(voltage_v, current_a, limited)
