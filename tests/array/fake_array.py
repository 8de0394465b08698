"""An array whose every property a test sets: what a procedure finds can be compared with what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.backend import BackendInfo, Capabilities, CrossbarBackend, Limits, Pulse, PulseReport, Telemetry
from hil.errors import DeviceError

LIMITS = Limits(
    v_read_max_v=0.5, v_pulse_max_v=5.0, v_gate_max_v=5.0, pulse_width_max_s=1e-2, pulses_per_cell_max=1_000_000
)


@dataclass
class FakeArray(CrossbarBackend):
    """Cells that SET and RESET at given voltages, with white noise and whatever else a test injects.

    Attributes:
        conductance_s: of each cell, without noise.
        noise: relative sigma of a read.
        set_at_v, reset_at_v: voltage from which a cell switches.
        stuck: cells that never change.
        on_s, off_s: what SET and RESET leave, one number or one per cell.
        wear_after: SET pulses after which a cell sticks where it is.
        open_rows, open_cols, short_rows, short_cols: broken lines.
        noisy: cells with twenty times the noise.
        cubic: cubic part of the current at 0.3 V, relative.
        drift_per_decade: relative change per decade of the clock.
        disturb: relative change of a cell per pulse on another cell of its row.
        read_disturb: relative change of a cell per conversion.
        read_s: how far one read moves the clock.
        fail_at: number of the call to `read`, `pulse` or `wait` that raises instead.
    """

    shape: tuple[int, int] = (8, 8)
    seed: int = 0
    noise: float = 0.01
    cubic: float = 0.0
    drift_per_decade: float = 0.0
    disturb: float = 0.0
    read_disturb: float = 0.0
    read_s: float = 1e-3
    wear_after: Any = np.inf
    bipolar: bool = True
    fail_at: int | None = None
    calls: int = 0
    clock_s: float = 0.0
    is_safe: bool = True
    on_s: float = 14e-6
    off_s: Any = 2e-6
    limits: Limits = LIMITS
    lines: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.conductance_s = self.rng.normal(14e-6, 3e-6, self.shape).clip(4e-6)
        self.set_at_v = np.full(self.shape, 1.2)
        self.reset_at_v = np.full(self.shape, 1.0)
        self.stuck = np.zeros(self.shape, np.bool_)
        self.noisy = np.zeros(self.shape, np.bool_)
        self.n_set = np.zeros(self.shape, np.int64)

    @property
    def info(self) -> BackendInfo:
        kinds = frozenset({"form", "set", "reset"})
        return BackendInfo("fake", self.shape, {}, Capabilities(kinds, bipolar_read=self.bipolar), self.limits)

    def open(self) -> None:
        self.is_safe = True

    def close(self) -> None:
        pass

    def make_safe(self) -> None:
        self.is_safe = True

    def vmm(self, x: Any, tile: Any, v_read_v: float, *, out: Any = None) -> Any:
        raise NotImplementedError

    def telemetry(self) -> Telemetry:
        return Telemetry()

    def wait(self, duration_s: float) -> None:
        self._call()
        self.clock_s += duration_s

    def now_s(self) -> float:
        return self.clock_s

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._call()
        g = self._conducted_s()[mask]
        sigma = np.where(self.noisy, 20, 1)[mask] * self.noise / np.sqrt(n_average)
        noisy = g * (1 + sigma * self.rng.standard_normal(len(g)))
        self.conductance_s[mask] *= 1 + self.read_disturb * n_average
        self.clock_s += self.read_s
        self.is_safe = True
        return noisy * v_read_v * (1 + self.cubic * (v_read_v / 0.3) ** 2)

    def _conducted_s(self) -> NDArray[np.float64]:
        g = self.conductance_s * (1 + self.drift_per_decade * np.log10(max(self.clock_s, 1e-3)))
        for name, value_s in (("short", 1e-3), ("open", 0.0)):
            g[self.lines.get(f"{name}_rows", [])] = value_s
            g[:, self.lines.get(f"{name}_cols", [])] = value_s
        return g

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        self._call()
        at_v, level_s = {"set": (self.set_at_v, self.on_s), "reset": (self.reset_at_v, self.off_s)}[pulse.kind]
        switched = mask & (pulse.voltage_v >= at_v) & ~self.stuck & (self.n_set < self.wear_after)
        self.conductance_s[switched] = np.broadcast_to(level_s, self.shape)[switched]
        self.n_set += mask & (pulse.kind == "set")
        beside = mask.any(axis=1)[:, None] & ~mask
        self.conductance_s[beside] *= 1 + self.disturb
        self.is_safe = True
        return PulseReport(int(mask.sum()), pulse, pulse)

    def _call(self) -> None:
        """Under bias until the call ends; the one that is to fail leaves the array under it."""
        self.is_safe = False
        self.calls += 1
        if self.fail_at == self.calls:
            raise DeviceError(f"call {self.calls} fails", fix="nothing: it is a test")
