"""Encoder: steps a batch of samples in lockstep over `backend.vmm` and counts the spikes of every neuron.

The batch matters: simulators vectorise over it, and a board amortises its link over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.backend import CrossbarBackend
from hil.errors import CapabilityError, DataError, DeviceError, LimitError
from hil.fault_map import FaultMap
from hil.lsm.settings import LsmSettings
from hil.placement import place, tile_faults
from hil.progress import Progress, no_progress
from hil.spikes import WORD_BITS, PackedSpikes, n_words, unpack_bits
from hil.tile import Tile, differential_tile

#: One-hot VMMs averaged when the spread of the weights is measured.
_GAIN_AVERAGE = 4
#: A tile is taken for formed when its weights spread above noise, and above this part of the nominal spread. Noise
#: alone gives a ratio of one, to a few per cent; a formed array at 20 % read noise gives three.
_SPREAD_OVER_NOISE, _SPREAD_MIN = 1.2, 0.05


def lsm_tile(n_inputs: int, n_neurons: int, fault_map: FaultMap | None = None) -> Tile:
    """Tile of a network: input rows first, then one recurrent row per neuron; a column pair per neuron.

    With a fault map it lies on the lines with the fewest faults, otherwise on the first ones.

    Raises:
        LimitError: there are not enough lines without an open or a short.
    """
    n_rows = n_inputs + n_neurons
    return differential_tile(n_rows, n_neurons) if fault_map is None else place(n_rows, n_neurons, fault_map)


def shared_tile(tile: Tile, n_tile_inputs: int, n_inputs: int) -> Tile:
    """Tile of a network with fewer inputs on the cells of another: its first inputs, and all its recurrent rows.

    The paper's encoders of two modalities share the array in this way.

    Args:
        tile: of the network with more inputs, from `lsm_tile`.
        n_tile_inputs: its inputs.
        n_inputs: inputs of the network that shares it.

    Raises:
        LimitError: there are fewer inputs to share.
    """
    if not 1 <= n_inputs <= n_tile_inputs:
        raise LimitError(
            f"a network of {n_inputs} inputs cannot share the rows of one of {n_tile_inputs}",
            fix=f"use 1 to {n_tile_inputs} inputs",
        )
    rows = np.concatenate([tile.rows[:n_inputs], tile.rows[n_tile_inputs:]])
    return Tile(rows=rows, plus_cols=tile.plus_cols, minus_cols=tile.minus_cols)


class LsmEncoder:
    """A network on a tile of a backend.

    Args:
        backend: an open session.
        settings: the network.
        n_inputs: input rows.
        fault_map: of the array; the tile then lies where the faults are fewest, and weights of faulty cells do not
            count when the gain is measured: one cell that is stuck on would lower the drive of all neurons.
        tile: where the network lies; None: where `lsm_tile` puts it.

    Raises:
        LimitError: the network does not fit the array.
        ConfigError: the fault map is of an array of another shape.
    """

    def __init__(
        self,
        backend: CrossbarBackend,
        settings: LsmSettings,
        n_inputs: int,
        fault_map: FaultMap | None = None,
        *,
        tile: Tile | None = None,
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.n_inputs = n_inputs
        self.fault_map = fault_map
        if fault_map is not None:
            fault_map.check_shape(backend.info.shape)
        self.tile = tile or lsm_tile(n_inputs, settings.n_neurons, fault_map)
        self.tile.check_fits(backend.info.shape)
        self.drive_per_a = self._drive_per_a()

    def encode(
        self,
        spikes: NDArray[np.uint64],
        progress: Progress = no_progress,
        *,
        what: str = "encode",
        keep: Callable[[int, NDArray[np.uint16]], None] | None = None,
    ) -> NDArray[np.uint16]:
        """Spike counts of every sample.

        Args:
            spikes: packed input spikes, shape (samples, steps, words), input i is bit i % 64 of word i // 64.
            progress: told after every batch.
            what: name of this pass for `progress`.
            keep: called after every batch with the index of its first sample and its counts (samples, neurons).

        Returns:
            Shape (samples, neurons).

        Raises:
            DataError: the spikes do not fit the network's inputs.
        """
        self._check(spikes)
        counts = np.zeros((len(spikes), self.settings.n_neurons), np.uint16)
        run = self._run_torch if self.settings.engine == "torch" else self._run_numba
        progress(what, 0, len(spikes))
        for start in range(0, len(spikes), self.settings.batch):
            stop = min(start + self.settings.batch, len(spikes))
            run(spikes[start:stop], counts[start:stop])
            if keep is not None:
                keep(start, counts[start:stop])
            progress(what, stop, len(spikes))
        return counts

    def _check(self, spikes: NDArray[np.uint64]) -> None:
        words = n_words(self.n_inputs)
        spare = words * WORD_BITS - self.n_inputs
        fits = spikes.dtype == np.uint64 and spikes.ndim == 3 and spikes.shape[1] > 0 and spikes.shape[2] == words
        # A bit above the inputs would drive a recurrent row.
        if not fits or (spare and (spikes[..., -1] >> np.uint64(WORD_BITS - spare)).any()):
            raise DataError(
                f"input spikes are {spikes.dtype}{spikes.shape}, or have bits above input {self.n_inputs - 1}",
                fix=f"give uint64 of shape (samples, steps, {words}), packed by hil.spikes.pack_bits",
            )

    def _run_numba(self, spikes: NDArray[np.uint64], counts: NDArray[np.uint16]) -> None:
        from hil.lsm.lif import lif_step

        n_batch, n_steps, n_input_words = spikes.shape
        n_neurons = self.settings.n_neurons
        by_step = np.ascontiguousarray(spikes.transpose(1, 0, 2))
        rows = np.zeros((n_batch, n_words(self.tile.n_rows)), np.uint64)
        rows[:, :n_input_words] = by_step[0]
        nothing = np.zeros((n_batch, n_input_words), np.uint64)
        carry = np.zeros((n_batch, n_neurons), np.float32)
        current_a = np.empty((n_batch, n_neurons), np.float32)
        constants = (
            np.float32(self.drive_per_a),
            np.float32(self.settings.decay),
            np.float32(self.settings.v_threshold),
        )
        packed = PackedSpikes(rows, self.tile.n_rows)
        for step in range(n_steps):
            self.backend.vmm(packed, self.tile, self.settings.v_read_v, out=current_a)
            following = by_step[step + 1] if step + 1 < n_steps else nothing
            lif_step(current_a, *constants, carry, counts, following, self.n_inputs, rows)

    def _run_torch(self, spikes: NDArray[np.uint64], counts: NDArray[np.uint16]) -> None:
        import torch

        n_batch, n_steps, _ = spikes.shape
        device = torch_device(self.settings.device)
        if not self.backend.info.capabilities.tensors:
            raise CapabilityError(
                f"engine 'torch' needs a backend that takes tensors; {self.backend.info.name!r} does not",
                fix="use --set lsm.engine=numba",
            )
        inputs = torch.from_numpy(unpack_bits(spikes, self.n_inputs)).to(device, torch.float32)
        drive = torch.tensor(self.drive_per_a, dtype=torch.float32, device=device)
        u = torch.zeros(n_batch, self.settings.n_neurons, device=device)
        spike, total = torch.zeros_like(u), torch.zeros_like(u)
        for step in range(n_steps):
            x: Any = torch.cat([inputs[:, step], spike], dim=1)
            current_a: Any = self.backend.vmm(x, self.tile, self.settings.v_read_v)
            u = self.settings.decay * u * (1.0 - spike) + drive * current_a
            spike = (u > self.settings.v_threshold).to(torch.float32)
            total += spike
        counts[:] = total.cpu().numpy()

    def _drive_per_a(self) -> float:
        """Weight units per ampere of output current."""
        nominal = self.settings.const_per_us / 1e-6 / self.settings.v_read_v
        if self.settings.gain == "nominal":
            return nominal
        return nominal * self.settings.sigma_nominal_s / self.measure_sigma_s()

    def measure_sigma_s(self) -> float:
        """Spread of the weights as the whole tile shows them: one VMM per row, over the read voltage.

        Weights of which a cell is known to be faulty are left out.
        """
        one_hot = PackedSpikes.pack(np.eye(self.tile.n_rows, dtype=np.bool_))
        vmm = self.backend.vmm
        runs = np.array([vmm(one_hot, self.tile, self.settings.v_read_v) for _ in range(_GAIN_AVERAGE)], np.float64)
        if self.fault_map is not None:
            runs = runs[:, self._healthy_weights(self.fault_map)]
        spread_s = float(runs.mean(axis=0).std() / self.settings.v_read_v)
        noise_s = float(np.sqrt(runs.var(axis=0, ddof=1).mean() / _GAIN_AVERAGE) / self.settings.v_read_v)
        if not spread_s > max(_SPREAD_OVER_NOISE * noise_s, _SPREAD_MIN * self.settings.sigma_nominal_s):
            raise DeviceError(
                f"the weights of the tile spread by {spread_s:.2g} S (noise {noise_s:.2g} S), "
                f"a formed array by about {self.settings.sigma_nominal_s:.2g} S",
                fix="form the array first, or check the board",
            )
        return float(np.sqrt(spread_s**2 - noise_s**2))

    def _healthy_weights(self, fault_map: FaultMap) -> NDArray[np.bool_]:
        """Weights (rows, outputs) whose two cells are both healthy."""
        plus, minus = np.split(tile_faults(self.tile, fault_map) == 0, 2, axis=1)
        healthy = plus & minus
        if not healthy.any():
            raise DeviceError(
                "every weight of the tile has a faulty cell",
                fix="use a smaller network, or form the array and make a new fault map",
            )
        return healthy


def torch_device(name: str) -> Any:
    """The torch device of that name, if it is there."""
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CapabilityError(
            f"torch device {name!r} cannot be used: {reason}", fix="use --set lsm.device=cpu"
        ) from None
    return device
