"""Core of crossbar-hil: backend interface, safety session, configuration, run files, LSM, command line."""

from hil.backend import BackendInfo, Capabilities, CrossbarBackend, Limits, Pulse, PulseReport, RowInput, Telemetry
from hil.errors import HilError
from hil.session import Session, open_session
from hil.spikes import PackedSpikes
from hil.tile import Tile, differential_tile, single_ended_tile

__all__ = [
    "BackendInfo",
    "Capabilities",
    "CrossbarBackend",
    "HilError",
    "Limits",
    "PackedSpikes",
    "Pulse",
    "PulseReport",
    "RowInput",
    "Session",
    "Telemetry",
    "Tile",
    "differential_tile",
    "open_session",
    "single_ended_tile",
]
