"""The safety session: limits before anything reaches a backend, zero bias at every exit.

    with open_session(backend) as session:
        currents_a = session.vmm(x, tile, v_read_v=0.2)

The session is itself a `CrossbarBackend`, so that an experiment cannot tell it from one. It leaves the array at zero
bias with all rows deselected on return, on an exception, on Ctrl-C and on SIGTERM; a second Ctrl-C does not skip that.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.backend import BackendInfo, CrossbarBackend, Limits, Pulse, PulseReport, RowInput, Telemetry
from hil.errors import CapabilityError, DeviceError, HilError, LimitError
from hil.spikes import PackedSpikes
from hil.tile import Tile

log = logging.getLogger(__name__)

_SAFE_ATTEMPTS = 3


class Terminated(SystemExit):
    """SIGTERM arrived; unwinds the stack as Ctrl-C does, so that the session can make the array safe."""


def tighten(board: Limits, wanted: Limits | None) -> Limits:
    """Return `wanted`, after checking that none of its limits is above the board's.

    Raises:
        LimitError: a wanted limit is above the board's, negative or not a number.
    """
    if wanted is None:
        return board
    for item in dataclasses.fields(Limits):
        value, ceiling = getattr(wanted, item.name), getattr(board, item.name)
        if not (math.isfinite(value) and 0 <= value <= ceiling):
            raise LimitError(
                f"limit {item.name} = {value:g} is outside 0 to {ceiling:g}, which this board allows",
                fix=f"set {item.name} to at most {ceiling:g}",
            )
    return wanted


class Session(CrossbarBackend):
    """A backend behind a limit check. Made by `open_session`."""

    def __init__(self, backend: CrossbarBackend, limits: Limits | None = None) -> None:
        self._backend = backend
        self._limits = tighten(backend.info.limits, limits)
        self._pulses_applied = np.zeros(backend.info.shape, np.int64)

    @property
    def info(self) -> BackendInfo:
        return dataclasses.replace(self._backend.info, limits=self._limits)

    def open(self) -> None:
        self._backend.open()

    def close(self) -> None:
        self._backend.close()

    def make_safe(self) -> None:
        self._backend.make_safe()

    def telemetry(self) -> Telemetry:
        return self._backend.telemetry()

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        tile.check_fits(self._backend.info.shape)
        self._check_voltage("read voltage", v_read_v, self._limits.v_read_max_v)
        self._check_rows(x, tile)
        return self._backend.vmm(x, tile, v_read_v, out=out)

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._check_mask(mask)
        self._check_voltage("read voltage", v_read_v, self._limits.v_read_max_v)
        if n_average < 1:
            raise LimitError(f"n_average = {n_average} is below 1", fix="average at least one conversion")
        return self._backend.read(mask, v_read_v, n_average=n_average)

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        self._check_mask(mask)
        kinds = self._backend.info.capabilities.pulse_kinds
        if pulse.kind not in kinds:
            raise CapabilityError(
                f"backend {self._backend.info.name!r} has no {pulse.kind!r} pulse; it has: {sorted(kinds) or 'none'}",
                fix="choose another pulse or another backend",
            )
        self._check_voltage("pulse voltage", pulse.voltage_v, self._limits.v_pulse_max_v)
        self._check_voltage("gate voltage", pulse.v_gate_v, self._limits.v_gate_max_v)
        if not 0 < pulse.width_s <= self._limits.pulse_width_max_s:
            raise LimitError(
                f"pulse width {pulse.width_s:g} s is outside 0 to {self._limits.pulse_width_max_s:g} s",
                fix=f"use at most {self._limits.pulse_width_max_s:g} s, or several pulses",
            )
        worst = int(self._pulses_applied[mask].max(initial=0))
        if worst >= self._limits.pulses_per_cell_max:
            raise LimitError(
                f"a cell of the mask has had {worst} pulses, the limit of this session",
                fix="take that cell out of the mask, or raise pulses_per_cell_max",
            )
        # Counted before it is applied: a pulse that fails half-way must count as given.
        self._pulses_applied[mask] += 1
        return self._backend.pulse(mask, pulse)

    def _check_rows(self, x: RowInput, tile: Tile) -> None:
        if isinstance(x, PackedSpikes):
            if x.n_rows != tile.n_rows:
                self._refuse_shape((len(x), x.n_rows), tile)
            return
        if len(x.shape) != 2 or x.shape[1] != tile.n_rows:
            self._refuse_shape(tuple(x.shape), tile)
        # A backend that takes tensors takes bits only; levels come as NumPy arrays.
        if getattr(x.dtype, "kind", "") == "f":
            if not self._backend.info.capabilities.analogue_rows:
                raise CapabilityError(
                    f"backend {self._backend.info.name!r} drives rows on or off only, but x holds levels ({x.dtype})",
                    fix="give bits (bool or uint8)",
                )
            if x.size and not (float(x.min()) >= 0.0 and float(x.max()) <= 1.0):
                raise LimitError(
                    f"row levels run from {float(x.min()):g} to {float(x.max()):g}, outside 0 to 1",
                    fix="scale x to 0 .. 1 and use v_read_v for the amplitude",
                )

    @staticmethod
    def _refuse_shape(shape: tuple[int, ...], tile: Tile) -> None:
        raise LimitError(
            f"row input has shape {shape}, the tile has {tile.n_rows} rows", fix=f"give shape (batch, {tile.n_rows})"
        )

    def _check_mask(self, mask: NDArray[np.bool_]) -> None:
        shape = self._backend.info.shape
        if mask.shape != shape or mask.dtype != np.bool_:
            raise LimitError(
                f"cell mask has shape {mask.shape} and type {mask.dtype}", fix=f"give a bool array of shape {shape}"
            )

    @staticmethod
    def _check_voltage(what: str, value_v: float, limit_v: float) -> None:
        # Written so that NaN fails too.
        if not 0.0 <= value_v <= limit_v:
            raise LimitError(f"{what} {value_v:g} V is outside 0 to {limit_v:g} V", fix=f"use at most {limit_v:g} V")


@contextmanager
def open_session(backend: CrossbarBackend, limits: Limits | None = None) -> Generator[Session, None, None]:
    """Open a backend, hand out a checked session, and end at zero bias whatever happens.

    Args:
        backend: what to open; it must not be open yet.
        limits: tighter limits than the board's own.

    Raises:
        LimitError: `limits` are above the board's; nothing was opened.
        DeviceError: the array could not be made safe; says so before anything else.
    """
    session = Session(backend, limits)
    with _signals_unwind() as signals:
        try:
            session.open()
            yield session
        finally:
            # From here a signal is noted and acted on later: it must not cut the way to zero bias short.
            signals.hold()
            try:
                _make_safe(backend)
            finally:
                backend.close()


def _make_safe(backend: CrossbarBackend) -> None:
    """Try `make_safe` a few times: the array matters more than the first error."""
    cause: Exception | None = None
    for attempt in range(1, _SAFE_ATTEMPTS + 1):
        try:
            backend.make_safe()
            return
        except Exception as error:  # noqa: PERF203 - a few attempts, each of which may fail
            log.error("attempt %d of %d to make the array safe failed: %s", attempt, _SAFE_ATTEMPTS, error)
            cause = error
    raise DeviceError(
        f"THE ARRAY MAY STILL BE UNDER BIAS: make_safe failed {_SAFE_ATTEMPTS} times ({cause})",
        fix="switch the board's analogue supply off by hand",
    ) from cause


class _SignalGate:
    """SIGINT and SIGTERM as exceptions until `hold`, noted and postponed after it."""

    def __init__(self) -> None:
        self._holding = False
        self.postponed: int | None = None

    def hold(self) -> None:
        self._holding = True

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._holding:
            log.warning("signal %d waits until the array is safe", number)
            self.postponed = self.postponed or number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Terminated(128 + number)


@contextmanager
def _signals_unwind() -> Generator[_SignalGate, None, None]:
    gate = _SignalGate()
    # Signal handlers belong to the main thread; in another one the owner of the main thread must end the session.
    if threading.current_thread() is not threading.main_thread():
        yield gate
        return
    before: dict[int, Any] = {n: signal.signal(n, gate) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield gate
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if gate.postponed is not None:
        raise KeyboardInterrupt if gate.postponed == signal.SIGINT else Terminated(128 + gate.postponed)


def describe(error: BaseException) -> str:
    """One line for a run file: the kind of the error and its message."""
    return str(error) if isinstance(error, HilError) else f"{type(error).__name__}: {error}"
