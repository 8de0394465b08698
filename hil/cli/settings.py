"""The whole configuration as the command line sees it: one section per part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.accounts.technology import TechnologySettings
from experiments.array.settings import ArraySettings
from experiments.baselines.settings import BaselineSettings
from experiments.datasets.audio_settings import AudioSettings, NtidigitsSettings
from experiments.datasets.brain_settings import BrainSettings
from experiments.datasets.letters_settings import LettersSettings
from experiments.lsm.btv_settings import BtvSettings
from experiments.lsm.supervised import SupervisedSettings
from experiments.lsm.zero_shot_settings import AtvSettings, ProjectionSettings
from firmware_bridge.emulator_settings import EmulatorSettings
from hil.backend import Limits
from hil.calibration_settings import CalibrationSettings
from hil.config import Settings, load, setting
from sim_backend.settings import SimSettings


class LimitSettings(Settings):
    """Limits of this session; what is not set stays at the board's own."""

    v_read_max_v: float | None = setting(None, "largest read voltage", unit="V", source="board")
    v_pulse_max_v: float | None = setting(None, "largest programming voltage", unit="V", source="board")
    v_gate_max_v: float | None = setting(None, "largest word-line voltage", unit="V", source="board")
    pulse_width_max_s: float | None = setting(None, "longest pulse", unit="s", source="board")
    pulses_per_cell_max: int | None = setting(None, "most pulses on one cell", source="board")

    def over(self, board: Limits) -> Limits:
        """The board's limits with those set here in place of its own; not yet checked against them."""
        wanted = {name: value for name, value in self.model_dump().items() if value is not None}
        return Limits(**{**vars(board), **wanted})


class BoardSettings(Settings):
    """The board, real or emulated; all but `profile` and `tolerate_faults` is for a real one, on its own ZYNQ."""

    profile: str = setting("paper-guess", "board profile: a shipped name, or the path of a TOML file", source="ours")
    serial: str | None = setting(
        None, "serial number of a board that does not tell its own; binds calibrations to it", source="board"
    )
    bitfile: Path | None = setting(None, "bitstream of the fabric, with its .hwh beside it", source="board")
    base_address: int = setting(0x43C00000, "address of the sequencer's registers", source="Vivado's first slave", ge=0)
    dma: str = setting("axi_dma_0", "DMA that brings the results, as the overlay names it", source="Vivado's default")
    download: bool = setting(True, "load the bitstream, instead of using the one that is loaded", source="ours")
    tolerate_faults: bool = setting(
        False, "go on with the rest of the array when a converter, DAC channel or mux is dead", source="ours"
    )


class RootSettings(SupervisedSettings):
    """Sections: `data`, `audio`, `letters`, `brain` of the data sets; `lsm` and `readout` of all LSM experiments;
    `ntidigits`, `atv`, `btv` of one of them; `projection` of the zero-shot ones; `baseline` of the models they are
    compared with; `energy` of the accounts; `array` of the array procedures; `limits` of the session; `board` of a real
    or emulated board; `emulator` of an emulated one alone; `sim` of the simulator and of an emulated board's hidden
    chip; `calibration` of what is applied to any of them."""

    audio: AudioSettings = AudioSettings()
    letters: LettersSettings = LettersSettings()
    brain: BrainSettings = BrainSettings()
    ntidigits: NtidigitsSettings = NtidigitsSettings()
    atv: AtvSettings = AtvSettings()
    btv: BtvSettings = BtvSettings()
    projection: ProjectionSettings = ProjectionSettings()
    baseline: BaselineSettings = BaselineSettings()
    energy: TechnologySettings = TechnologySettings()
    array: ArraySettings = ArraySettings()
    limits: LimitSettings = LimitSettings()
    board: BoardSettings = BoardSettings()
    emulator: EmulatorSettings = EmulatorSettings()
    sim: SimSettings = SimSettings()
    calibration: CalibrationSettings = CalibrationSettings()


def load_settings(file: Path | None, overrides: Sequence[str] | None) -> RootSettings:
    """Read the configuration; see `hil.config.load`."""
    return load(RootSettings, file, overrides or ())
