"""An emulated board: bit-true chip models and array physics behind the register bus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.emulator.board import EmulatedBoard
from firmware_bridge.emulator.fabric import EmulatedFabric
from firmware_bridge.emulator_settings import EmulatorSettings
from firmware_bridge.profile import BoardProfile, load_profile
from hil.calibration_file import Calibration
from sim_backend.settings import SimSettings

__all__ = ["BoardBackend", "EmulatedBoard", "EmulatedFabric", "emulated_backend"]


class EmulatedBackend(BoardBackend):
    """Draws its noise anew in every session, as the simulator does: a session can be repeated, a daemon's too."""

    def __init__(
        self,
        fabric: EmulatedFabric,
        profile: BoardProfile,
        identity: Mapping[str, Any],
        chip_file: Path | None,
        *,
        calibration: Calibration | None = None,
        tolerate_faults: bool = False,
    ) -> None:
        super().__init__(
            fabric,
            profile,
            name="emulator",
            identity=identity,
            calibration=calibration,
            tolerate_faults=tolerate_faults,
        )
        self._fabric = fabric
        self._chip_file = chip_file

    @property
    def fabric(self) -> EmulatedFabric:
        """The board itself, behind its registers."""
        return self._fabric

    def open(self) -> None:
        board = self._fabric.board
        with self._fabric.lock:
            if self._chip_file is not None:
                board.array.chip.open_file(self._chip_file)
                board.array.refresh()
            board.restart_noise()
        super().open()

    def close(self) -> None:
        super().close()
        with self._fabric.lock:
            self._fabric.board.array.chip.close_file()

    def wait(self, duration_s: float) -> None:
        """Set the board's clock forward, at once."""
        super().wait(0.0)
        fabric = self._fabric
        with fabric.lock:
            fabric.idle(duration_s)
            fabric.board.array.go_on(fabric.now)
            fabric.board.array.refresh()

    def now_s(self) -> float:
        return self._fabric.board.array.chip.clock_s


def emulated_backend(
    profile_name: str,
    settings: SimSettings,
    seed: int,
    *,
    emulator: EmulatorSettings | None = None,
    calibration: Calibration | None = None,
    tolerate_faults: bool = False,
) -> EmulatedBackend:
    """A `BoardBackend` on an emulated board.

    Args:
        profile_name: a shipped profile, or the path of one.
        settings: of the hidden chip; its size and the width of its muxes follow the profile.
        seed: draws the hidden chip, the power-up garbage and all noise; the simulator with the same seed has the same
            cells, muxes and amplifiers.
        emulator: parts of the board that are dead, and where its bench instruments are.
        calibration, tolerate_faults: see `BoardBackend`.
    """
    emulator = emulator or EmulatorSettings()
    profile = load_profile(profile_name)
    size = {"rows": profile.rows, "cols": profile.cols}
    mux = settings.mux.model_copy(update={"width": profile.mux.width})
    hidden = settings.model_copy(update={**size, "mux": mux})
    identity = {
        "chip": f"simulated, seed {seed}",
        "seed": seed,
        "board_serial": f"emulated-{seed}",
        "chip_file": None if settings.chip is None else str(settings.chip),
        "guesses": len(profile.guesses),
        "effects": hidden.model_dump(mode="json", exclude={"chip"}),
        "emulator": emulator.model_dump(mode="json"),
    }
    board = EmulatedBoard(profile, hidden, seed, emulator)
    # A chip that is kept in a file counts its sessions itself.
    board.array.chip.session = emulator.noise_session
    fabric = EmulatedFabric(board)
    return EmulatedBackend(
        fabric, profile, identity, settings.chip, calibration=calibration, tolerate_faults=tolerate_faults
    )
