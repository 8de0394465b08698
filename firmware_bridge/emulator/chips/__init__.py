"""Bit-true models of the board's chips, written from the data sheets and not from the drivers.

Each module holds a model at the level of single clock edges, which is the reference, and a fast one at the level of
whole frames or words, which the emulator runs.
"""

from firmware_bridge.emulator.chips.ads8324 import AdcBank, Ads8324Chip
from firmware_bridge.emulator.chips.cd4051b import MuxBankChips
from firmware_bridge.emulator.chips.dac80508 import Dac80508Chip
from firmware_bridge.emulator.chips.sn74hc595 import Chip74HC595, ShiftRegisterChain

__all__ = ["AdcBank", "Ads8324Chip", "Chip74HC595", "Dac80508Chip", "MuxBankChips", "ShiftRegisterChain"]
