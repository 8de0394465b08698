"""A backend without an array: answers at once, for measuring and trying a link."""

from __future__ import annotations

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
from hil.errors import CapabilityError, DeviceError
from hil.tile import Tile

#: as the paper's array, and limits that let reads through
_SHAPE = (512, 512)
_LIMITS = Limits(v_read_max_v=0.5, v_pulse_max_v=0.0, v_gate_max_v=0.0, pulse_width_max_s=0.0, pulses_per_cell_max=0)


class NullBackend(CrossbarBackend):
    """Currents are noise drawn once, which packs no smaller than a board's. There are no pulses."""

    def __init__(self, seed: int) -> None:
        self._noise_a = (1e-6 * np.random.default_rng(seed).standard_normal(1 << 16)).astype(np.float32)
        self._is_open = False
        self._n_vmm = 0

    @property
    def info(self) -> BackendInfo:
        return BackendInfo("null", _SHAPE, {"chip": "none"}, Capabilities(analogue_rows=True), _LIMITS)

    def open(self) -> None:
        self._is_open, self._n_vmm = True, 0

    def close(self) -> None:
        self._is_open = False

    def make_safe(self) -> None:
        """There is nothing under bias."""

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        del v_read_v
        self._check_open()
        if out is None:
            out = np.empty((len(x), tile.n_outputs), np.float32)
        check_out(out, x, tile)
        out.ravel()[:] = np.resize(self._noise_a, out.size)
        self._n_vmm += len(x)
        return out

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        del v_read_v, n_average
        self._check_open()
        return np.resize(self._noise_a, int(mask.sum())).astype(np.float64)

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        raise CapabilityError(f"the null backend has no {pulse.kind!r} pulse", fix="use another backend")

    def telemetry(self) -> Telemetry:
        return Telemetry({"vmm_count": float(self._n_vmm)})

    def _check_open(self) -> None:
        if not self._is_open:
            raise DeviceError("the null backend is not open", fix="use it inside open_session(...)")
