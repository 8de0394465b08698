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
from hil.errors import DeviceError, LimitError
from hil.spikes import PackedSpikes
from hil.tile import Tile
from sim_backend.chip import SimulatedChip
from sim_backend.conversion import measure_a, quantised_drive
from sim_backend.gaussian import new_state
from sim_backend.lines import single_cell_conductance_s
from sim_backend.mux import channel_of_row
from sim_backend.prepared import PreparedTile, prepare
from sim_backend.settings import SimSettings
from sim_backend.statistical import CHUNK, FoldedTile, fold, sum_rows_a

#: What the paper's board could apply at most: the DAC80508 range; widths and counts are ours.
SIM_LIMITS = Limits(
    v_read_max_v=0.5, v_pulse_max_v=5.0, v_gate_max_v=5.0, pulse_width_max_s=10e-3, pulses_per_cell_max=10_000_000
)
#: time of one conversion on the board, by which the chip's clock moves on; source: TI ADS8324 at 1.2 MHz
CONVERSION_S = 20e-6
#: keeps a ratio finite where no cell conducts, S
_NO_CELL_S = 1e-12


@dataclass
class _ReadyTile:
    """A tile prepared for one read voltage; `tensors` holds its copies on torch devices."""

    prepared: PreparedTile
    folded: FoldedTile
    tensors: dict[Any, Any] = field(default_factory=dict)


class SimBackend(CrossbarBackend):
    """A simulated chip on a simulated board.

    Args:
        settings: effects and fidelity; `settings.chip` names the file that keeps the cells between sessions.
        seed: draws the chip and all noise; equal seeds and equal calls give equal results, and on a chip that is kept
            in a file, equal cells.
    """

    def __init__(self, settings: SimSettings | None = None, *, seed: int = 0) -> None:
        self._settings = settings or SimSettings()
        self._seed = seed
        self._is_open = False
        self._chip: SimulatedChip | None = None

    @property
    def info(self) -> BackendInfo:
        return BackendInfo(
            name="sim",
            shape=(self._settings.rows, self._settings.cols),
            identity={
                "chip": f"simulated, seed {self._seed}",
                "seed": self._seed,
                "chip_file": None if self._settings.chip is None else str(self._settings.chip),
                "fidelity": self._settings.fidelity,
                "effects": self._settings.model_dump(mode="json", exclude={"chip"}),
            },
            capabilities=Capabilities(
                pulse_kinds=frozenset({"form", "set", "reset"}), analogue_rows=True, tensors=True, bipolar_read=True
            ),
            limits=SIM_LIMITS,
        )

    def open(self) -> None:
        # Drawn once: what was formed stays formed when the backend is opened again.
        self._chip = self._chip or SimulatedChip.draw(self._settings, self._seed)
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
        amps_per_code = chip.adcs.lsb_v / chip.settings.tia.r_feedback_ohm
        total = np.zeros(len(rows))
        for _ in range(n_average):
            noisy_s = cell_s * (1.0 + slow + white * rng.standard_normal(len(rows)))
            zero = chip.adcs.convert(chip.tias.output_v(idle_a, cols, cell_s), cols, rng)
            code = chip.adcs.convert(chip.tias.output_v(idle_a + drive_v * noisy_s, cols, cell_s), cols, rng)
            total += (zero - code) * amps_per_code
        return total / n_average

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        """Apply the pulse to all cells of the mask at a time; wires and muxes take no share of its voltage."""
        chip = self._open_chip()
        chip.pulse(mask, -pulse.voltage_v if pulse.kind == "reset" else pulse.voltage_v, pulse.v_gate_v, pulse.width_s)
        chip.advance(pulse.width_s)
        self._prepared.clear()
        self._count["pulses"] += int(mask.sum())
        return PulseReport(n_cells=int(mask.sum()), requested=pulse, achieved=pulse)

    def wait(self, duration_s: float) -> None:
        """Set the chip's clock forward, at once."""
        self._open_chip().advance(duration_s)
        self._prepared.clear()

    def now_s(self) -> float:
        return self._open_chip().clock_s

    def _open_chip(self) -> SimulatedChip:
        if self._chip is None or not self._is_open:
            raise DeviceError("the simulator is not open", fix="use it inside open_session(...)")
        return self._chip

    def _ready(self, chip: SimulatedChip, tile: Tile, v_read_v: float) -> _ReadyTile:
        by_voltage = self._prepared.setdefault(tile, {})
        if v_read_v not in by_voltage:
            prepared = prepare(chip, tile, v_read_v, self._zero_rng)
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

        if x.device.type == "cpu" and bool((x * (1 - x)).any()):
            raise LimitError("a tensor of rows holds values other than 0 and 1", fix="give bits, or levels as an array")
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
