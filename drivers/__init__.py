"""Chip drivers, one module per chip: DAC80508, SN74HC595, CD4051B, the OPA4322 as TIA, ADS8324.

Encoding and decoding are pure functions between SI units and the bits on the wires; only `Dac80508` talks over a bus,
and that bus is anything that can transfer one frame. Limits and register maps are tables with their source:

- DS: data sheet of that very part (DAC80508 SLASEL1D, ADS8324 SBAS172A, CD4051B SCHS047, OPA4322-Q1 SLOS856B)
- sibling: data sheet of the named sibling part, assumed to carry over
- E2E: answer in the TI support forum, by thread number; Zephyr: its driver `dac_dacx0508.c`
- third party: a note that quotes the data sheet
- unverified: from memory or inferred; check on hardware
"""

from drivers.ads8324 import Ads8324
from drivers.cd4051b import MuxBank
from drivers.dac80508 import Dac80508, DacSetting, OutputRange, SpiBus
from drivers.sn74hc595 import ShiftChain
from drivers.tia import Tia

__all__ = ["Ads8324", "Dac80508", "DacSetting", "MuxBank", "OutputRange", "ShiftChain", "SpiBus", "Tia"]
