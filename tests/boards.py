"""Small boards for the tests, in the two wirings that differ most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.emulator import EmulatedBoard, EmulatedFabric
from firmware_bridge.profile import BoardProfile, profile_from
from sim_backend.settings import SimSettings

#: three muxes of eight with INH and selects of their own, so that no DAC is written between phases
INDEPENDENT: dict[str, Any] = {
    "name": "independent-24x16",
    "rows": 24,
    "cols": 16,
    "dac": {
        "chips": 2,
        "vdd_v": 5.25,
        "write_clock_hz": 25e6,
        "read_clock_hz": 12.5e6,
        "row_chips": [0],
        "gate_channel": [1, 0],
        "source_line_channel": [1, 1],
    },
    "mux": {"count": 3, "width": 8, "selects": "independent", "inhibit": True, "vdd_v": 15.0, "settle_s": 0.24e-6},
    "chains": {"rows": {"chips": 2}, "word_lines": {"chips": 2}, "vcc_v": 4.5, "clock_hz": 10e6},
    "adc": {"count": 2, "positions": 8, "columns": "interleaved", "clock_hz": 1.2e6, "select_settle_s": 3e-6},
    "tia": {"r_feedback_ohm": 20e3, "v_common_v": 1.6, "settle_s": 5e-6},
    "programming": {"form": "source_line", "set": "source_line", "reset": "row"},
    "limits": {
        "v_read_max_v": 0.5,
        "v_pulse_max_v": 4.9,
        "v_gate_max_v": 4.9,
        "v_gate_read_v": 3.3,
        "pulse_width_max_s": 1e-3,
        "pulses_per_cell_max": 1000,
    },
}


def wide() -> dict[str, Any]:
    """Rows for the 64 channels of a cochlea and a few neurons."""
    tree = deepcopy(INDEPENDENT)
    tree |= {"name": "wide-72x16", "rows": 72}
    tree["dac"] |= {"chips": 3, "row_chips": [0, 1], "gate_channel": [2, 0], "source_line_channel": [2, 1]}
    tree["mux"]["count"] = 9
    tree["chains"]["rows"]["chips"] = 5
    return tree


def common() -> dict[str, Any]:
    """Six muxes of four with common selects and no INH, no CRC, columns in blocks: every phase writes DACs."""
    tree = deepcopy(INDEPENDENT)
    tree["name"] = "common-24x16"
    tree["dac"]["crc"] = False
    tree["mux"] |= {"count": 6, "width": 4, "selects": "common", "inhibit": False}
    tree["adc"]["columns"] = "blocks"
    tree["programming"]["form"] = "row"
    return tree


def as_toml(tree: dict[str, Any]) -> str:
    """A board profile as the text of its file."""

    def lines(part: dict[str, Any], name: str) -> Iterator[str]:
        yield from (f"{key} = {json.dumps(value)}" for key, value in part.items() if not isinstance(value, dict))
        for key, value in part.items():
            if isinstance(value, dict):
                yield f"[{name}{key}]"
                yield from lines(value, f"{name}{key}.")

    return "\n".join(lines(tree, "")) + "\n"


def profile(tree: dict[str, Any] | None = None) -> BoardProfile:
    return profile_from(tree or INDEPENDENT, "test")


def emulate(
    tree: dict[str, Any] | None = None, seed: int = 17, **effects: Any
) -> tuple[EmulatedBoard, EmulatedFabric, BoardBackend]:
    """A board, its fabric and a backend on it; `effects` are settings of the hidden chip."""
    found = profile(tree)
    mux = {"width": found.mux.width, **effects.pop("mux", {})}
    settings = SimSettings.model_validate({"rows": found.rows, "cols": found.cols, "mux": mux, **effects})
    board = EmulatedBoard(found, settings, seed)
    fabric = EmulatedFabric(board)
    return board, fabric, BoardBackend(fabric, found, name="emulator")
