"""`SimBackend`: device and circuit physics behind `CrossbarBackend`."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.backend import (
    BackendInfo,
    Capabilities,
    CrossbarBackend,
    Limits,
    Pulse,
    PulseReport,
    RowInput,
    Telemetry,
    check_out,
)
from hil.calibration_file import Calibration
from hil.errors import DeviceError, LimitError
from hil.spikes import PackedSpikes
from hil.tile import Tile
from sim_backend.board import CONVERSION_S, electrics, wiring
from sim_backend.calibrated import measured_chip, measured_identity, measured_settings, measured_wiring
from sim_backend.chip import SimulatedChip
from sim_backend.conversion import measure_a, quantised_drive
from sim_backend.gaussian import new_state
from sim_backend.lines import single_cell_conductance_s
from sim_backend.mux import channel_of_row, connects_by_position, phase_of_row
from sim_backend.prepared import PreparedTile, SolvedLines, measure_zero_code, prepare
from sim_backend.scheduled import ScheduledTile, driven_v, schedule
from sim_backend.scheduled import measure_a as measure_schedule_a
from sim_backend.scheduled_statistical import ScheduledSums, fold_schedule, sum_phases_a
from sim_backend.settings import SimSettings
from sim_backend.statistical import CHUNK, FoldedTile, fold, sum_rows_a

#: What the paper's board could apply at most: the DAC80508 range; widths and counts are ours.
SIM_LIMITS = Limits(
    v_read_max_v=0.5, v_pulse_max_v=5.0, v_gate_max_v=5.0, pulse_width_max_s=10e-3, pulses_per_cell_max=10_000_000
)
#: keeps a ratio finite where no cell conducts, S
_NO_CELL_S = 1e-12


@dataclass
class _ReadyTile:
    """A tile prepared for one read voltage; `tensors` holds its copies on torch devices."""

    prepared: PreparedTile
    folded: FoldedTile
    tensors: dict[Any, Any] = field(default_factory=dict)


@dataclass
class _ReadySchedule:
    """A tile whose phases depend on the input; `sums` of each read voltage, None where there is no shortcut."""

    tile: ScheduledTile
    sums: dict[float, ScheduledSums | None] = field(default_factory=dict)


class SimBackend(CrossbarBackend):
    """A simulated chip on a simulated board.

    Args:
        settings: effects and fidelity; `settings.chip` names the file that keeps the cells between sessions.
        seed: draws the chip and all noise; equal seeds and equal calls give equal results, and on a chip that is kept
            in a file, equal cells.
        calibration: of a board, whose cells and periphery are taken in place of drawn ones.

    Raises:
        CalibrationError: the calibration lacks a part.
        ConfigError: settings contradict the calibration.
    """

    def __init__(
        self, settings: SimSettings | None = None, *, seed: int = 0, calibration: Calibration | None = None
    ) -> None:
        self._settings = settings or SimSettings()
        self._calibration = calibration
        if calibration is not None:
            self._settings = measured_settings(calibration, self._settings)
        self._seed = seed
        self._is_open = False
        self._chip: SimulatedChip | None = None

    @property
    def info(self) -> BackendInfo:
        found = self._calibration
        return BackendInfo(
            name="sim",
            shape=(self._settings.rows, self._settings.cols),
            identity={
                **({"chip": f"simulated, seed {self._seed}"} if found is None else measured_identity(found)),
                "seed": self._seed,
                "chip_file": None if self._settings.chip is None else str(self._settings.chip),
                "fidelity": self._settings.fidelity,
                "effects": self._settings.model_dump(mode="json", exclude={"chip"}),
                "electrics": electrics(self._settings),
            },
            capabilities=Capabilities(
                pulse_kinds=frozenset({"form", "set", "reset"}), analogue_rows=True, tensors=True, bipolar_read=True
            ),
            limits=SIM_LIMITS,
            calibration_id=None if found is None else found.calibration_id,
            wiring=wiring(self._settings) if found is None else measured_wiring(found),
        )

    def open(self) -> None:
        # Drawn once: what was formed stays formed when the backend is opened again.
        self._chip = self._chip or self._new_chip()
        if self._settings.chip is not None:
            self._chip.open_file(self._settings.chip)
        self._chip.restart_noise()
        # Streams of their own for zero codes, single reads and conversions, and for the chunks of a batch. A chip that
        # is kept in a file has other noise in every session.
        key = (1,) if self._chip.session == 0 else (1, self._chip.session)
        zero, read, conversion, chunks = np.random.SeedSequence(self._seed, spawn_key=key).spawn(4)
        self._zero_rng, self._read_rng, self._conversion_rng = map(np.random.default_rng, (zero, read, conversion))
        self._chunk_seeds = chunks
        self._states = np.empty((0, 4, 0), np.uint32)
        self._torch_generator: Any = None
        self._prepared: weakref.WeakKeyDictionary[Tile, dict[float, _ReadyTile]] = weakref.WeakKeyDictionary()
        self._schedules: weakref.WeakKeyDictionary[Tile, _ReadySchedule] = weakref.WeakKeyDictionary()
        self._solved = SolvedLines()
        self._power_up_code = self._measure_power_up(self._chip)
        self._count = {"vmm": 0, "vmm_by_conversion": 0, "cell_reads": 0, "pulses": 0}
        self._is_open = True

    def close(self) -> None:
        self._is_open = False
        if self._chip is not None:
            self._chip.close_file()

    def make_safe(self) -> None:
        """Nothing is ever left under bias here: a simulated line has a voltage only inside a call."""

    def telemetry(self) -> Telemetry:
        return Telemetry({f"{name}_count": float(value) for name, value in self._count.items()})

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        chip = self._open_chip()
        if not connects_by_position(chip.settings.mux):
            return self._vmm_by_schedule(chip, x, tile, v_read_v, out)
        ready = self._ready(chip, tile, v_read_v)
        prepared = ready.prepared
        self._count["vmm"] += len(x)
        chip.advance(len(x) * prepared.n_phases * CONVERSION_S)
        if not isinstance(x, PackedSpikes | np.ndarray):
            return self._vmm_tensor(chip, ready, x)
        if out is not None:
            check_out(out, x, tile)
        else:
            out = np.empty((len(x), tile.n_outputs), np.float32)
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            drive = quantised_drive(chip, prepared, x.astype(np.float64), v_read_v)
            out[:] = self._by_conversion(chip, prepared, drive)
        elif self._settings.fidelity == "conversion":
            bits = x.unpack() if isinstance(x, PackedSpikes) else x.astype(np.bool_)
            out[:] = self._by_conversion(chip, prepared, bits.astype(np.float64))
        else:
            packed = x if isinstance(x, PackedSpikes) else PackedSpikes.pack(x)
            clips = sum_rows_a(ready.folded, packed.words, self._noise_states(len(packed)), out)
            if clips.any():
                again = PackedSpikes(packed.words[clips], packed.n_rows).unpack().astype(np.float64)
                out[clips] = self._by_conversion(chip, prepared, again)
        return out

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        chip = self._open_chip()
        rows, cols = np.nonzero(mask)
        self._count["cell_reads"] += len(rows) * n_average
        channel = channel_of_row(rows, chip.settings.mux.width)
        on = float(chip.settings.lines.enabled)
        cell_s = single_cell_conductance_s(
            chip.conductance_of_s(mask),
            rows,
            cols,
            source_ohm=chip.r_on_ohm[channel],
            row_ohm=on * chip.settings.lines.row_ohm,
            col_ohm=on * chip.settings.lines.col_ohm,
            n_rows=chip.settings.rows,
        )
        rng = self._read_rng
        # What is slow stands still while one cell is read.
        white, slow = (
            chip.white_noise(rows, cols),
            chip.slow_noise_s(rows, cols, cell_s) / np.maximum(cell_s, _NO_CELL_S),
        )
        chip.advance(len(rows) * n_average * CONVERSION_S)
        drive_v = chip.dacs.output_v(v_read_v, channel)
        idle_a = chip.dacs.zero_offset_v(channel) * cell_s
        held_s, held_a = self._held(chip, rows, cols, cell_s)
        idle_a, column_s = idle_a + held_a, cell_s + held_s
        amps_per_code = chip.adcs.lsb_v / chip.settings.tia.r_feedback_ohm
        total = np.zeros(len(rows))
        for _ in range(n_average):
            noisy_s = cell_s * (1.0 + slow + white * rng.standard_normal(len(rows)))
            if self._power_up_code is None:
                zero = chip.adcs.convert(chip.tias.output_v(idle_a, cols, column_s), cols, rng)
            else:
                zero = self._power_up_code[cols]
            code = chip.adcs.convert(chip.tias.output_v(idle_a + drive_v * noisy_s, cols, column_s), cols, rng)
            total += (zero - code) * amps_per_code
        return total / n_average

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        """Apply the pulse to all cells of the mask at a time; wires and muxes take no share of its voltage."""
        chip = self._open_chip()
        chip.pulse(mask, -pulse.voltage_v if pulse.kind == "reset" else pulse.voltage_v, pulse.v_gate_v, pulse.width_s)
        chip.advance(pulse.width_s)
        self._forget_tiles()
        self._count["pulses"] += int(mask.sum())
        return PulseReport(n_cells=int(mask.sum()), requested=pulse, achieved=pulse)

    def wait(self, duration_s: float) -> None:
        """Set the chip's clock forward, at once."""
        self._open_chip().advance(duration_s)
        self._forget_tiles()

    def now_s(self) -> float:
        return self._open_chip().clock_s

    def _new_chip(self) -> SimulatedChip:
        if self._calibration is not None:
            return measured_chip(self._calibration, self._settings, self._seed)
        return SimulatedChip.draw(self._settings, self._seed)

    def _forget_tiles(self) -> None:
        self._prepared.clear()
        self._schedules.clear()
        self._solved.clear()

    def _open_chip(self) -> SimulatedChip:
        if self._chip is None or not self._is_open:
            raise DeviceError("the simulator is not open", fix="use it inside open_session(...)")
        return self._chip

    def _ready(self, chip: SimulatedChip, tile: Tile, v_read_v: float) -> _ReadyTile:
        by_voltage = self._prepared.setdefault(tile, {})
        if v_read_v not in by_voltage:
            prepared = prepare(chip, tile, v_read_v, self._zero_rng, self._power_up_code, self._solved)
            by_voltage[v_read_v] = _ReadyTile(prepared, fold(chip, prepared))
        return by_voltage[v_read_v]

    def _by_conversion(
        self, chip: SimulatedChip, prepared: PreparedTile, drive: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        self._count["vmm_by_conversion"] += len(drive)
        current_a = measure_a(chip, prepared, drive, self._conversion_rng)
        if prepared.differential:
            n = len(prepared.cols) // 2
            return current_a[:, :n] - current_a[:, n:]
        return current_a

    def _measure_power_up(self, chip: SimulatedChip) -> NDArray[np.float64] | None:
        """Code of each column with every word line off, as a board measures it; None: by tile, with its word lines on.

        A simulator of the wiring that it always had measures by tile.
        """
        if not chip.measured and connects_by_position(chip.settings.mux):
            return None
        cols, nothing = np.arange(chip.settings.cols), np.zeros(chip.settings.cols)
        return measure_zero_code(chip, nothing, cols, nothing, self._zero_rng)

    def _held(
        self, chip: SimulatedChip, rows: NDArray[np.intp], cols: NDArray[np.intp], cell_s: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64] | float, NDArray[np.float64] | float]:
        """What else hangs on the column while a cell is read, if zero codes know nothing of it: siemens, amperes.

        Without INH every other mux holds a row at the idle level.
        """
        mux = chip.settings.mux
        if self._power_up_code is None or mux.inhibit:
            return 0.0, 0.0
        array_rows = np.arange(chip.settings.rows)
        channel = channel_of_row(array_rows, mux.width)
        on = float(chip.settings.lines.enabled)
        each_s = single_cell_conductance_s(
            chip.conductance_s,
            array_rows[:, None],
            np.arange(chip.settings.cols),
            source_ohm=chip.r_on_ohm[channel][:, None],
            row_ohm=on * chip.settings.lines.row_ohm,
            col_ohm=on * chip.settings.lines.col_ohm,
            n_rows=chip.settings.rows,
        )
        at = phase_of_row(array_rows, mux.width)
        position = phase_of_row(rows, mux.width) if mux.selects == "common" else np.zeros_like(rows)
        held_s, held_a = np.zeros((2, len(rows)))
        offset_v = chip.dacs.zero_offset_v(channel)
        for p in np.unique(position):
            here = position == p
            held_s[here] = each_s[at == p].sum(axis=0)[cols[here]]
            held_a[here] = (offset_v @ np.where((at == p)[:, None], each_s, 0.0))[cols[here]]
        # The mux of the cell holds no second row.
        own = rows - phase_of_row(rows, mux.width) + position
        taken_s = each_s[own, cols]
        return held_s - taken_s, held_a - offset_v[own] * taken_s

    def _vmm_by_schedule(
        self, chip: SimulatedChip, x: Any, tile: Tile, v_read_v: float, out: NDArray[np.float32] | None
    ) -> Any:
        """For muxes that connect only what a phase drives: which rows share a phase depends on the input."""
        device = None
        if not isinstance(x, PackedSpikes | np.ndarray):
            device, x = x.device, _bits_of_tensor(x)
        if out is not None:
            check_out(out, x, tile)
        else:
            out = np.empty((len(x), tile.n_outputs), np.float32)
        if tile not in self._schedules:
            self._schedules[tile] = _ReadySchedule(schedule(chip, tile, self._power_up_code))
        ready = self._schedules[tile]
        if v_read_v not in ready.sums:
            ready.sums[v_read_v] = fold_schedule(chip, ready.tile, v_read_v)
        sums = ready.sums[v_read_v]
        self._count["vmm"] += len(x)
        if isinstance(x, np.ndarray) and x.dtype.kind == "f":
            levels = x.astype(np.float64)
            out[:] = self._by_phase(chip, ready.tile, levels > 0.0, driven_v(chip, ready.tile, levels * v_read_v))
        elif self._settings.fidelity == "conversion" or sums is None:
            bits = x.unpack() if isinstance(x, PackedSpikes) else x
            out[:] = self._by_phase(chip, ready.tile, bits.astype(np.bool_), driven_v(chip, ready.tile, v_read_v))
        else:
            packed = x if isinstance(x, PackedSpikes) else PackedSpikes.pack(x)
            n_phases, lost = sum_phases_a(sums, packed.words, self._noise_states(len(packed)), out)
            chip.advance(int(n_phases[~lost].sum()) * CONVERSION_S)
            if lost.any():
                again = PackedSpikes(packed.words[lost], packed.n_rows).unpack().astype(np.bool_)
                out[lost] = self._by_phase(chip, ready.tile, again, driven_v(chip, ready.tile, v_read_v))
        if device is None:
            return out
        import torch

        return torch.from_numpy(out).to(device)

    def _by_phase(
        self, chip: SimulatedChip, tile: ScheduledTile, driven: NDArray[np.bool_], source_v: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        self._count["vmm_by_conversion"] += len(driven)
        current_a, n_phases = measure_schedule_a(chip, tile, driven, source_v, self._conversion_rng)
        chip.advance(n_phases * CONVERSION_S)
        n = len(tile.cols) // 2
        return current_a[:, :n] - current_a[:, n:] if tile.differential else current_a

    def _noise_states(self, n_batch: int) -> NDArray[np.uint32]:
        """One noise stream per chunk, each advanced only by its own chunk."""
        missing = -(-n_batch // CHUNK) - len(self._states)
        if missing > 0:
            fresh = [new_state(np.random.default_rng(s)) for s in self._chunk_seeds.spawn(missing)]
            self._states = np.stack([*self._states, *fresh])
        return self._states

    def _vmm_tensor(self, chip: SimulatedChip, ready: _ReadyTile, x: Any) -> Any:
        """The same on torch tensors, dense, on the device of `x`."""
        import torch

        from sim_backend.tensors import TensorTile, sum_rows_tensor_a

        _check_bits(x)
        if self._settings.fidelity == "conversion":
            slow = self._by_conversion(chip, ready.prepared, x.cpu().numpy().astype(np.float64))
            return torch.from_numpy(slow.astype(np.float32)).to(x.device)
        if self._torch_generator is None or self._torch_generator.device != x.device:
            self._torch_generator = torch.Generator(x.device)
            self._torch_generator.manual_seed(int(self._conversion_rng.integers(2**62)))
        if x.device not in ready.tensors:
            ready.tensors[x.device] = TensorTile.on(ready.folded, x.device)
        total, clips = sum_rows_tensor_a(ready.tensors[x.device], x, self._torch_generator)
        if clips.any():
            again = self._by_conversion(chip, ready.prepared, x[clips].cpu().numpy().astype(np.float64))
            total[clips] = torch.from_numpy(again.astype(np.float32)).to(x.device)
        return total


def _check_bits(x: Any) -> None:
    # A look at a tensor on a GPU would wait for it.
    if x.device.type == "cpu" and bool((x * (1 - x)).any()):
        raise LimitError("a tensor of rows holds values other than 0 and 1", fix="give bits, or levels as an array")


def _bits_of_tensor(x: Any) -> NDArray[np.bool_]:
    _check_bits(x)
    return x.cpu().numpy().astype(np.bool_)
