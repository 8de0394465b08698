"""A short session on the emulated small board, kept as a recording that the tests replay without an emulator.

Record it anew, after a change of the compiled programs that is meant, from the root of the project by

    PYTHONPATH=. python tests/recorded_session.py

and look at the difference before it is committed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.bus import RegisterBus
from firmware_bridge.recorded_bus import RecordingBus
from hil.backend import Pulse
from hil.session import open_session
from hil.tile import Tile

FIXTURE = Path(__file__).parent / "fixtures" / "small-board.txt"
#: several looks of the host long, so that the recording has busy polls
N_VECTORS = 8
#: (row, col) of the cells that are formed
CELLS = tuple((2 * k, 5 * k % 16) for k in range(12))


def backend_on(bus: RegisterBus) -> BoardBackend:
    """The backend of the recorded board."""
    from boards import profile

    return BoardBackend(bus, profile(), name="recorded")


def play(backend: BoardBackend) -> dict[str, Any]:
    """Power up, read, form, read again, multiply, ask for the counters, and leave the array safe."""
    rows, cols = backend.info.shape
    cells = np.zeros((rows, cols), np.bool_)
    cells[tuple(np.transpose(CELLS))] = True
    spikes = (np.arange(N_VECTORS * rows).reshape(N_VECTORS, rows) * 7 % 5 == 0).astype(np.uint8)
    with open_session(backend) as session:
        return {
            "self_test": session.self_test(),
            "before_a": session.read(cells, 0.2),
            "pulse": session.pulse(cells, Pulse("form", 4.2, 1.2, 1e-3)),
            "after_a": session.read(cells, 0.2, n_average=3),
            "currents_a": session.vmm(spikes, Tile(np.arange(rows), np.arange(cols)), 0.2),
            "telemetry": dict(session.telemetry().values),
        }


def record(path: Path) -> dict[str, Any]:
    """Record the session on the emulator."""
    from boards import emulate

    _, fabric, _ = emulate(forming={"formed": False})
    with RecordingBus(
        fabric, path, note="A short session on the emulated small board of tests/boards.py, pristine."
    ) as bus:
        return play(backend_on(bus))


if __name__ == "__main__":
    record(FIXTURE)
