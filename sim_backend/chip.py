"""One simulated chip on one simulated board, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sim_backend.adc import ColumnAdcs
from sim_backend.cells import LONG_AGO_S, CellState
from sim_backend.chip_file import ChipFile
from sim_backend.dac import RowDacs
from sim_backend.endurance import Endurance
from sim_backend.faults import CellFaults
from sim_backend.flicker import FlickerNoise
from sim_backend.forming import FormingStatistics
from sim_backend.mux import channel_of_row
from sim_backend.noise import WhiteReadNoise
from sim_backend.relaxation import Relaxation
from sim_backend.settings import SimSettings, TelegraphSettings
from sim_backend.switching import CellSpread, Switching
from sim_backend.telegraph import TelegraphNoise
from sim_backend.tia import ColumnTias

Cells = NDArray[np.float64]

#: bias that moves no cell, such as offsets of rows that take no part in a pulse
_NO_PULSE_V = 0.1


@dataclass(frozen=True)
class CellPhysics:
    """What a cell is made of: drawn once, never changed by a pulse; arrays of shape (rows, cols).

    Attributes:
        formed_s: conductance that each cell has once formed, drawn in advance so that the order of forming is free.
        breakdown_v: voltage at which each cell forms.
        life: switching pulses until it is worn out.
        sticks_on: how it sticks then.
    """

    forming: FormingStatistics
    switching: Switching
    endurance: Endurance
    relaxation: Relaxation
    formed_s: Cells
    breakdown_v: Cells
    spread: CellSpread
    life: Cells
    sticks_on: NDArray[np.bool_]


@dataclass
class SimulatedChip:
    """Cells and periphery; what a calibration would have to find out.

    Attributes:
        state: what pulses and time have made of the cells.
        physics: what the cells are made of.
        r_on_ohm: on-resistance of each mux, shape (channels,).
        noise_factor: read noise of each cell over the normal one, shape (rows, cols); None where all are alike.
        measured: stands for a board that was measured (`calibrated`), rather than drawn.
    """

    settings: SimSettings
    seed: int
    state: CellState
    physics: CellPhysics
    faults: CellFaults
    telegraph: TelegraphNoise
    flicker: FlickerNoise
    r_on_ohm: NDArray[np.float64]
    dacs: RowDacs
    tias: ColumnTias
    adcs: ColumnAdcs
    noise: WhiteReadNoise
    noise_factor: Cells | None = field(default=None, repr=False)
    measured: bool = False
    #: sessions that this chip has had on file; its noise goes on, it does not begin again
    session: int = 0
    _file: ChipFile | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._pulse_rng = self._stream(0)
        self.restart_noise()

    @classmethod
    def draw(cls, settings: SimSettings, seed: int) -> SimulatedChip:
        """Draw every property from its own stream of one seed, so that switching one effect leaves the others alone."""
        if settings.ideal:
            settings = without_errors(settings)
        shape = (settings.rows, settings.cols)
        # Order matters: a new effect goes to the end, so that old seeds keep their chips.
        streams = np.random.SeedSequence(seed, spawn_key=(0,)).spawn(10)
        forming, breakdown, mux, dac, tia, adc, spread, life, faults, telegraph = map(np.random.default_rng, streams)
        statistics = FormingStatistics.from_settings(settings.forming)
        switching = Switching.from_settings(settings.switching)
        endurance = Endurance.from_settings(settings.endurance)
        n_channels = int(channel_of_row(np.array([settings.rows - 1]), settings.mux.width)[0]) + 1
        r_on_ohm = mux.normal(settings.mux.r_on_ohm, settings.mux.r_on_sigma_ohm, n_channels).clip(min=0.0)
        formed = np.full(shape, settings.forming.formed)
        faults_drawn = CellFaults.draw(settings.faults, shape, faults)
        physics = CellPhysics(
            forming=statistics,
            switching=switching,
            endurance=endurance,
            relaxation=Relaxation.from_settings(settings.relaxation),
            formed_s=statistics.draw_formed_s(forming, shape),
            breakdown_v=statistics.draw_breakdown_v(breakdown, shape),
            spread=switching.draw_cells(spread, shape),
            life=endurance.draw_life(life, shape),
            sticks_on=endurance.draw_stuck_on(life, shape),
        )
        return cls(
            settings=settings,
            seed=seed,
            state=CellState.at_rest(np.where(formed, physics.formed_s, statistics.pristine_s), formed),
            physics=physics,
            faults=faults_drawn,
            telegraph=TelegraphNoise.draw(_telegraph(settings), shape, telegraph),
            flicker=FlickerNoise.from_settings(settings.noise, shape),
            r_on_ohm=r_on_ohm if settings.mux.enabled else np.zeros(n_channels),
            dacs=RowDacs.draw(settings.dac, n_channels, dac),
            tias=ColumnTias.draw(settings.tia, settings.cols, tia),
            adcs=ColumnAdcs.draw(settings.adc, settings.cols, adc),
            noise=WhiteReadNoise.from_settings(settings.noise),
            noise_factor=faults_drawn.noise_factor,
        )

    # The file that keeps it

    def open_file(self, path: Path) -> None:
        """Take the cells from a file, which is made of this chip when there is none.

        Raises:
            ConfigError, DataError, DeviceError: see `ChipFile`.
        """
        drawn_from = {
            "seed": self.seed,
            "rows": self.settings.rows,
            "cols": self.settings.cols,
            # How it began matters to a new file only.
            "sim.forming": self.settings.forming.model_dump(mode="json", exclude={"formed"}),
            "sim.faults": self.settings.faults.model_dump(mode="json"),
        }
        self._file = ChipFile(path, drawn_from, self.state)
        self.state, self.session = self._file.state, self._file.session
        self._pulse_rng = self._stream(0)

    def close_file(self) -> None:
        """Give the file free; may be called twice."""
        if self._file is not None:
            self.state = self._file.close()
            self._file = None

    def restart_noise(self) -> None:
        """Draw slow noise anew, as at the beginning of every session."""
        self._slow_rng = self._stream(1)
        for noise in (self.telegraph, self.flicker):
            noise.time_s.fill(-np.inf)

    def _stream(self, number: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(3, self.session, number)))

    # What it conducts

    @property
    def formed(self) -> NDArray[np.bool_]:
        """Which cells are formed, shape (rows, cols)."""
        return self.state.cells["formed"]

    @property
    def clock_s(self) -> float:
        """Seconds since the chip was drawn."""
        return float(self.state.clock_s[0])

    @property
    def conductance_s(self) -> Cells:
        """Conductance of every cell as it is now, without noise."""
        self._settle()
        return self.faults.conductance_s(self.state.cells["conductance_s"].copy())

    def conductance_of_s(self, mask: NDArray[np.bool_]) -> Cells:
        """The same of the cells of a mask, in row-major order; cheap where they are few."""
        if self.faults.any:
            return self.conductance_s[mask]
        index = np.flatnonzero(mask)
        self._settle(index)
        return self.state.cells.reshape(-1)[index]["conductance_s"]

    def read_noise(self) -> Cells | float:
        """Sigma of a cell's conductance per read over the conductance, all kinds of noise taken together.

        A number where all cells are alike, else of shape (rows, cols).
        """
        relative: Cells | float = self.noise.relative
        if self.noise_factor is not None:
            relative = relative * self.noise_factor
        if len(self.telegraph.amplitude):
            relative = np.hypot(relative, self.telegraph.sigma_s(np.ones(self.formed.shape)))
        return relative

    def slow_noise_s(self, rows: NDArray[np.intp], cols: NDArray[np.intp], conductance_s: Cells) -> Cells:
        """Deviation of chosen cells at this moment, of the parts of the noise that last from read to read."""
        telegraph, flicker = (
            noise.at(self.clock_s, (rows, cols), conductance_s, self._slow_rng)
            for noise in (self.telegraph, self.flicker)
        )
        factor = self.noise_factor
        return telegraph + (flicker if factor is None else flicker * factor[rows, cols])

    def white_noise(self, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> Cells:
        """Relative sigma of what is drawn anew at every read of chosen cells."""
        white = np.full(len(rows), np.sqrt(max(0.0, self.noise.relative**2 - self.flicker.relative**2)))
        factor = self.noise_factor
        return white if factor is None else white * factor[rows, cols]

    # What happens to it

    def advance(self, duration_s: float) -> None:
        """Let time pass on its clock; cells take note when they are next looked at."""
        self.state.clock_s[0] += duration_s

    def _settle(self, index: NDArray[np.intp] | None = None) -> None:
        """Relax cells up to now; all of them if none are chosen."""
        cells, now_s = self.state.cells.reshape(-1), self.clock_s
        chosen = cells if index is None else cells[index]
        moving = np.flatnonzero((chosen["programmed_at_s"] != LONG_AGO_S) & (chosen["settled_to_s"] < now_s))
        if not len(moving):
            return
        index, old = moving if index is None else index[moving], chosen[moving]
        old["conductance_s"] = self.physics.relaxation.step_s(
            old["conductance_s"],
            old["programmed_s"],
            old["settled_to_s"] - old["programmed_at_s"],
            now_s - old["programmed_at_s"],
            self.settings.relaxation.temperature_c,
            self._pulse_rng,
        )
        old["settled_to_s"] = now_s
        cells[index] = old

    def pulse(
        self, mask: NDArray[np.bool_], bias_v: NDArray[np.float64] | float, v_gate_v: float, width_s: float
    ) -> None:
        """Apply one pulse to each cell of a mask.

        Args:
            mask: shape (rows, cols).
            bias_v: voltage across cell and transistor, positive in the direction of forming and SET, negative in that
                of RESET; a number, or one per row, shape (rows, 1).
            v_gate_v: word-line voltage.
            width_s: duration.
        """
        bias_v = np.broadcast_to(bias_v, mask.shape)
        index = np.flatnonzero(mask & self.faults.can_switch & (np.abs(bias_v) > _NO_PULSE_V))
        if not len(index):
            return
        self._settle(index)
        cells, physics, rng = self.state.cells.reshape(-1), self.physics, self._pulse_rng
        old = cells[index]
        bias_v = bias_v.reshape(-1)[index]
        forward, formed = bias_v > 0.0, old["formed"].copy()
        new_s = old["conductance_s"].copy()
        breaks = forward & ~formed & physics.forming.forms(bias_v, width_s, physics.breakdown_v.reshape(-1)[index])
        scale = physics.forming.compliance_scale(v_gate_v)
        new_s[breaks] = np.maximum(scale * physics.formed_s.reshape(-1)[index[breaks]], physics.forming.pristine_s)
        for chosen, law in (
            (forward & formed, physics.switching.after_set_s),
            ((bias_v < 0.0) & formed, physics.switching.after_reset_s),
        ):
            if chosen.any():
                # Rows of one pulse differ by DAC offsets only.
                across_v = float(np.abs(bias_v[chosen]).mean())
                spread = physics.spread.at(np.unravel_index(index[chosen], mask.shape))
                new_s[chosen] = law(new_s[chosen], across_v, v_gate_v, width_s, spread, rng)
        moved = new_s != old["conductance_s"]
        old["cycles"] += moved
        window = physics.endurance.window(old["cycles"], physics.life.reshape(-1)[index])
        worn = moved & (window < 1.0)
        if worn.any():
            sticks_on = physics.sticks_on.reshape(-1)[index[worn]]
            new_s[worn] = physics.endurance.worn_s(new_s[worn], window[worn], sticks_on)
        old["formed"] |= breaks
        old["conductance_s"][moved] = old["programmed_s"][moved] = new_s[moved]
        old["programmed_at_s"][moved] = old["settled_to_s"][moved] = self.clock_s
        cells[index] = old


def _telegraph(settings: SimSettings) -> TelegraphSettings:
    """Telegraph noise is read noise: off where that is off."""
    return settings.telegraph if settings.noise.enabled else settings.telegraph.model_copy(update={"enabled": False})


def without_errors(settings: SimSettings) -> SimSettings:
    """The same array with every error and noise switched off."""
    off = {"enabled": False}
    parts = ("noise", "telegraph", "relaxation", "lines", "mux", "dac", "tia", "adc")
    return settings.model_copy(update={part: getattr(settings, part).model_copy(update=off) for part in parts})
