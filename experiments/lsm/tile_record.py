"""What a run file says about the tile that a network was put on."""

from __future__ import annotations

from typing import Any

from hil.fault_map import RESULT, FaultMap
from hil.lsm.encoder import LsmEncoder
from hil.placement import tile_faults


def tile_results(encoder: LsmEncoder) -> dict[str, Any]:
    """Arrays for the run file: the lines of the tile, and the fault map by which they were chosen, if there was one."""
    tile = encoder.tile
    lines = {"tile_rows": tile.rows, "tile_plus_cols": tile.plus_cols, "tile_minus_cols": tile.minus_cols}
    return lines if encoder.fault_map is None else {**lines, RESULT: encoder.fault_map.faults}


def fault_summary(encoder: LsmEncoder) -> dict[str, Any] | None:
    """Faults of the tile and of the whole array, in numbers, as JSON can hold them; None without a fault map."""
    if encoder.fault_map is None:
        return None
    in_tile = FaultMap(tile_faults(encoder.tile, encoder.fault_map))
    return {
        "tile_cells": in_tile.faults.size,
        "tile_faulty": in_tile.n_faulty,
        "tile": in_tile.count(),
        "array": encoder.fault_map.count(),
        "rows_out": int(encoder.fault_map.rows_out.sum()),
        "cols_out": int(encoder.fault_map.cols_out.sum()),
    }
