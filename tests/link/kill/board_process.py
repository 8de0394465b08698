"""The board of the kill tests: never killed, in real time, and witness of what its cells see.

Emulated time follows the wall clock, so that the fabric's watchdog trips when nobody feeds it. All times of the record
are those of the emulated board, on the scale of `time.monotonic`: how late this process was scheduled does not matter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
from boards import profile
from kill.processes import die_with_parent, log_to
from kill.progress import Cell
from numpy.typing import NDArray

from firmware_bridge import registers as reg
from firmware_bridge.emulator import EmulatedBoard, EmulatedFabric
from firmware_bridge.emulator import fabric as fabric_module
from firmware_bridge.instructions import TICK_S, SourceLines
from firmware_bridge.link import messages as msg
from hil.errors import HilError
from sim_backend.settings import SimSettings

#: bias that every pulse exceeds and nothing else reaches
_PULSE_V = 0.6
_TICK_PAUSE_S = 1e-3


class State(Enum):
    """Of the array: SAFE is what the fabric makes it, with all outputs off."""

    SAFE = "safe"
    IDLE = "idle"
    BIAS = "bias"


@dataclass
class Record:
    """What the board saw.

    Attributes:
        states: changes of the array's state, with their times.
        pulses: gate pulses, with the cells that had one.
        connects: when somebody began to bring the board up.
        watchdog_trips: since power-up.
        formed: cells that are formed.
    """

    states: list[tuple[float, State]] = field(default_factory=list)
    pulses: list[tuple[float, tuple[Cell, ...]]] = field(default_factory=list)
    connects: list[float] = field(default_factory=list)
    watchdog_trips: int = 0
    formed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))


class WatchedBoard(EmulatedBoard):
    """Notes changes of bias, and gate pulses, in `record`."""

    def __init__(self, tree: Mapping[str, Any], seed: int, *, formed: bool) -> None:
        found = profile(dict(tree))
        # Every pulse forms, and formed cells are told from others by one read: a second pulse has no excuse.
        forming = {"formed": formed, "breakdown_sigma_v": 0.0, "preset": "custom", "sigma_difference_s": 2e-6}
        settings = {"rows": found.rows, "cols": found.cols, "mux": {"width": found.mux.width}, "forming": forming}
        super().__init__(found, SimSettings.model_validate(settings), seed)
        self.record = Record()
        self.fabric: EmulatedFabric | None = None
        self.started_s = time.monotonic()
        self._gate_was_on = False

    def note_bias(self) -> None:
        super().note_bias()
        if self.fabric is None:
            return
        now_s = self.started_s + self.fabric.now * TICK_S
        inputs, record = self.analogue.inputs, self.record
        if self.analogue.peak_bias_v() > 0.0:
            state = State.BIAS
        else:
            quiet = not inputs.gate_on and inputs.source_lines is SourceLines.GROUND
            state = State.SAFE if quiet and self.is_safe else State.IDLE
        if not record.states or record.states[-1][1] is not state:
            record.states.append((now_s, state))
        if inputs.gate_on and not self._gate_was_on and inputs.source_lines is not SourceLines.TIA:
            cells = np.argwhere(np.abs(self.analogue.bias_v()) > _PULSE_V).tolist()
            record.pulses.append((now_s, tuple((row, col) for row, col in cells)))
        self._gate_was_on = inputs.gate_on


class RealTime:
    """The fabric behind a lock, never behind the wall clock when it is used."""

    def __init__(self, board: WatchedBoard) -> None:
        self._board = board
        self._fabric = EmulatedFabric(board)
        self._lock = threading.Lock()
        board.fabric = self._fabric
        board.note_bias()

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """One call of the register bus."""
        with self._lock:
            self._catch_up()
            if (name, *arguments) == ("read", reg.ID.offset):
                self._board.record.connects.append(time.monotonic())
            return getattr(self._fabric, name)(*arguments)

    def run(self) -> None:
        """Let time pass while nobody calls."""
        while True:
            time.sleep(_TICK_PAUSE_S)
            with self._lock:
                self._catch_up()

    def record(self) -> Record:
        with self._lock:
            self._catch_up()
            record = self._board.record
            record.watchdog_trips = self._fabric.read(reg.WATCHDOG_TRIPS.offset)
            record.formed = self._board.formed.copy()
            return record

    def _catch_up(self) -> None:
        behind_s = time.monotonic() - self._board.started_s - self._fabric.now * TICK_S
        if behind_s > 0:
            self._fabric.idle(behind_s)


def serve(
    bus: str, tree: Mapping[str, Any], seed: int, folder: Path, control: Connection, formed: bool = False
) -> None:
    """Serve register calls at `bus`, and the record on `control`, until that is closed."""
    log_to(folder / "board.log")
    die_with_parent()
    # A look at STATUS takes no time here, as on a board: the wall clock makes it pass.
    fabric_module.POLL_S = 0.0
    real_time = RealTime(WatchedBoard(tree, seed, formed=formed))
    threading.Thread(target=real_time.run, daemon=True).start()
    with Listener(bus, family="AF_UNIX") as listener:
        threading.Thread(target=_accept, args=(listener, real_time), daemon=True).start()
        control.send("ready")
        while control.recv() == "record":
            control.send(real_time.record())


def _accept(listener: Listener, real_time: RealTime) -> None:
    while True:
        threading.Thread(target=_answer, args=(listener.accept(), real_time), daemon=True).start()


def _answer(line: Connection, real_time: RealTime) -> None:
    with line:
        try:
            while True:
                name, arguments = line.recv()
                try:
                    reply = (False, real_time.call(name, arguments))
                except HilError as error:
                    reply = (True, msg.error_fields(error))
                line.send(reply)
        except (EOFError, OSError):
            return  # the daemon was killed
