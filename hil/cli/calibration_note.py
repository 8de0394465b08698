"""What a command says of the calibration that its backend has applied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hil.backend import BackendInfo

if TYPE_CHECKING:
    from hil.fault_map import FaultMap

NOT_VALIDATED = "not validated"


def calibration_note(info: BackendInfo) -> str:
    """One line for people: which calibration, of which board, and how true it was found to be."""
    if info.calibration_id is None:
        return "none (nominal constants)"
    known: Any = info.identity.get("calibration")
    found: Any = known.get("validation") if isinstance(known, Mapping) else None
    whose = str(info.identity.get("board_serial", info.name))
    simulated = whose.removeprefix("simulated ")
    who = f"board {whose}" if simulated == whose else f"calibrated simulator of {simulated}"
    return f"{info.calibration_id}, {who}, {found or NOT_VALIDATED}"


def placement_map(settings: Any) -> FaultMap | None:
    """Fault map of the calibration of these settings, if it knows lines that are dead."""
    from hil.calibration_file import Calibration

    if settings.calibration.file is None:
        return None
    known = Calibration.load(settings.calibration.file)
    return None if known.row_ok.all() and known.col_ok.all() else known.fault_map()
