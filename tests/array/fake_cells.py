"""Cells that form, SET and RESET by simple laws, and a backend that fails where a test wants it to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.backend import BackendInfo, Capabilities, CrossbarBackend, Limits, Pulse, PulseReport, Telemetry

LIMITS = Limits(v_read_max_v=0.5, v_pulse_max_v=5.0, v_gate_max_v=5.0, pulse_width_max_s=1e-2, pulses_per_cell_max=1000)
PRISTINE_S = 0.1e-6


@dataclass
class FakeCells(CrossbarBackend):
    """SET raises a cell to what its gate allows, RESET lowers it to what its voltage leaves; both differ by cell.

    Attributes:
        formed: whether the cells are formed at the start.
        spread: relative spread of SET and RESET between cells.
        cycle: relative spread between pulses.
        noise: relative sigma of a read.
        offset_a: current that flows at any read voltage.
        fail: called with the number of each call before (`None`) and after the cells changed; raises to fail.
    """

    shape: tuple[int, int] = (8, 8)
    formed: bool = True
    spread: float = 0.1
    cycle: float = 0.03
    noise: float = 0.005
    offset_a: float = 0.0
    bipolar: bool = True
    limits: Limits = LIMITS
    identity: str = "fake 1"
    calibration: str | None = None
    seed: int = 0
    fail: Callable[[int, bool], None] = lambda call, applied: None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.is_formed = np.full(self.shape, self.formed)
        self.true_s = np.where(self.is_formed, self.rng.normal(14e-6, 3e-6, self.shape).clip(5e-6), PRISTINE_S)
        self.forms_at_v = self.rng.normal(3.43, 0.11, self.shape)
        self.set_ratio = np.exp(self.rng.normal(0, self.spread, self.shape))
        self.reset_v = self.rng.normal(0, self.spread, self.shape)
        self.stuck = np.zeros(self.shape, np.bool_)
        self.bias_v = 0.0
        self.calls = 0
        self.waited_s = 0.0
        self.pulsed = {kind: np.zeros(self.shape, np.int64) for kind in ("form", "set", "reset")}
        self.formed_again = np.zeros(self.shape, np.bool_)

    @property
    def info(self) -> BackendInfo:
        capabilities = Capabilities(frozenset({"form", "set", "reset"}), bipolar_read=self.bipolar)
        return BackendInfo(
            "fake", self.shape, {"chip": self.identity}, capabilities, self.limits, calibration_id=self.calibration
        )

    def open(self) -> None:
        self.bias_v = 0.0

    def close(self) -> None:
        pass

    def make_safe(self) -> None:
        self.bias_v = 0.0

    def telemetry(self) -> Telemetry:
        return Telemetry({"calls": float(self.calls)})

    def now_s(self) -> float:
        return float(self.calls + self.waited_s)

    def wait(self, duration_s: float) -> None:
        self._begin(0.0)
        self.waited_s += duration_s
        self._end()

    def vmm(self, x: Any, tile: Any, v_read_v: float, *, out: Any = None) -> NDArray[np.float32]:
        return np.zeros((len(x), tile.n_outputs), np.float32)

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._begin(v_read_v)
        g = self.true_s[mask]
        noise = 1 + self.noise / np.sqrt(n_average) * self.rng.standard_normal(len(g))
        self._end()
        return g * noise * v_read_v + self.offset_a

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        self._begin(pulse.voltage_v)
        self.pulsed[pulse.kind] += mask
        cycle = np.exp(self.cycle * self.rng.standard_normal(self.shape))
        able = mask & ~self.stuck
        if pulse.kind == "form":
            self.formed_again |= mask & self.is_formed
            new = able & ~self.is_formed & (pulse.voltage_v >= self.forms_at_v)
            self.true_s[new] = self.rng.normal(14e-6, 3e-6, int(new.sum())).clip(5e-6)
            self.is_formed |= new
        elif pulse.kind == "set":
            level_s = 18e-6 * max(0.0, pulse.v_gate_v - 0.4) * self.set_ratio * cycle
            self.true_s = np.where(able & self.is_formed, np.maximum(self.true_s, level_s), self.true_s)
        else:
            level_s = 25e-6 * np.exp(-(pulse.voltage_v - 1.0 + self.reset_v) / 0.4) * cycle
            self.true_s = np.where(able & self.is_formed, np.minimum(self.true_s, level_s), self.true_s)
        self._end()
        return PulseReport(int(mask.sum()), pulse, pulse)

    def _begin(self, bias_v: float) -> None:
        self.calls += 1
        self.bias_v = bias_v
        self.fail(self.calls, False)

    def _end(self) -> None:
        self.fail(self.calls, True)
        self.bias_v = 0.0


def fail_at(number: int, error: BaseException, *, applied: bool) -> Callable[[int, bool], None]:
    """Raise `error` in call `number`, before or after the cells changed."""

    def fail(call: int, done: bool) -> None:
        if call == number and done == applied:
            raise error

    return fail
