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
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hil.backend import BackendInfo, Check, CrossbarBackend, Limits, Pulse, PulseReport, RowInput, Telemetry, check_out
from hil.bench_access import BenchAccess
from hil.errors import CapabilityError, DeviceError, HilError, LimitError, UnconfirmedError
from hil.spikes import WORD_BITS, PackedSpikes, n_words
from hil.tile import Tile

log = logging.getLogger(__name__)

_SAFE_ATTEMPTS = 3
#: longest single wait: a month; a slip of units asks for more
_WAIT_MAX_S = 31 * 86400.0
#: longest time between a step of a row and a conversion: a hundred times what any amplifier needs
_SETTLE_MAX_S = 0.1


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


def check_voltage(what: str, value_v: float, limit_v: float) -> None:
    """Raise `LimitError` unless a voltage lies within 0 to its limit."""
    # Written so that NaN fails too.
    if not 0.0 <= value_v <= limit_v:
        raise LimitError(f"{what} {value_v:g} V is outside 0 to {limit_v:g} V", fix=f"use at most {limit_v:g} V")


def _check_average(n_average: int) -> None:
    if not isinstance(n_average, int) or n_average < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise LimitError(f"n_average = {n_average!r} is not a whole number from 1", fix="average at least one")


class Session(CrossbarBackend, BenchAccess):
    """A backend behind a limit check. Made by `open_session`."""

    def __init__(self, backend: CrossbarBackend, limits: Limits | None = None) -> None:
        self._backend = backend
        #: who answers; kept, since every call is checked against it and a backend may take long to say it
        self._about = backend.info
        self._limits = tighten(self._about.limits, limits)
        self._pulses_applied = np.zeros(self._about.shape, np.int64)

    @property
    def info(self) -> BackendInfo:
        return dataclasses.replace(self._backend.info, limits=self._limits)

    def open(self) -> None:
        self._backend.open()
        self._about = self._backend.info

    def close(self) -> None:
        self._backend.close()

    def make_safe(self) -> None:
        self._backend.make_safe()

    def abort(self) -> None:
        self._backend.abort()

    def telemetry(self) -> Telemetry:
        return self._backend.telemetry()

    def self_test(self) -> list[Check]:
        return self._backend.self_test()

    def vmm(
        self, x: RowInput, tile: Tile, v_read_v: float, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        tile.check_fits(self._about.shape)
        check_voltage("read voltage", v_read_v, self._limits.v_read_max_v)
        self._check_rows(x, tile)
        if out is not None:
            check_out(out, x, tile)
        return self._backend.vmm(x, tile, v_read_v, out=out)

    def read(self, mask: NDArray[np.bool_], v_read_v: float, *, n_average: int = 1) -> NDArray[np.float64]:
        self._check_mask(mask)
        bipolar = self._about.capabilities.bipolar_read
        check_voltage("read voltage", abs(v_read_v) if bipolar else v_read_v, self._limits.v_read_max_v)
        _check_average(n_average)
        return self._backend.read(mask, v_read_v, n_average=n_average)

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse) -> PulseReport:
        self._check_mask(mask)
        kinds = self._about.capabilities.pulse_kinds
        if pulse.kind not in kinds:
            raise CapabilityError(
                f"backend {self._about.name!r} has no {pulse.kind!r} pulse; it has: {sorted(kinds) or 'none'}",
                fix="choose another pulse or another backend",
            )
        check_voltage("pulse voltage", pulse.voltage_v, self._limits.v_pulse_max_v)
        check_voltage("gate voltage", pulse.v_gate_v, self._limits.v_gate_max_v)
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

    def wait(self, duration_s: float) -> None:
        # Written so that NaN fails too.
        if not 0.0 <= duration_s <= _WAIT_MAX_S:
            raise LimitError(f"wait of {duration_s:g} s is outside 0 to {_WAIT_MAX_S:g} s", fix="wait in several steps")
        self._backend.wait(duration_s)

    def now_s(self) -> float:
        return self._backend.now_s()

    def hold_row(self, row: int, voltage_v: float) -> None:
        bench = self._bench()
        self._check_lines("row", np.asarray(row))
        # Against ground, and no cell sees it: the board's own ceiling, not the session's; the board knows a lower one.
        check_voltage("held level", voltage_v, self._about.limits.v_pulse_max_v)
        bench.hold_row(row, voltage_v)

    def sense(
        self,
        cols: NDArray[np.intp],
        *,
        n_average: int = 1,
        row: int | None = None,
        v_read_v: float = 0.0,
        settle_s: float | None = None,
    ) -> NDArray[np.float64]:
        bench = self._bench()
        if cols.ndim != 1:
            raise LimitError(f"columns to sense have shape {cols.shape}", fix="give them in one dimension")
        self._check_lines("column", cols)
        if row is not None:
            self._check_lines("row", np.asarray(row))
        check_voltage("read voltage", abs(v_read_v), self._limits.v_read_max_v)
        _check_average(n_average)
        if settle_s is not None and not 0.0 <= settle_s <= _SETTLE_MAX_S:
            raise LimitError(
                f"settling time {settle_s:g} s is outside 0 to {_SETTLE_MAX_S:g} s",
                fix=f"use up to {_SETTLE_MAX_S:g} s",
            )
        return bench.sense(cols, n_average=n_average, row=row, v_read_v=v_read_v, settle_s=settle_s)

    def _bench(self) -> BenchAccess:
        info = self._backend.info
        if not info.capabilities.bench or not isinstance(self._backend, BenchAccess):
            raise CapabilityError(
                f"backend {info.name!r} gives bench instruments no access to its lines",
                fix="use a board, real or emulated",
            )
        return self._backend

    def _check_lines(self, kind: Literal["row", "column"], lines: NDArray[Any]) -> None:
        n_lines = self._about.shape[("row", "column").index(kind)]
        if lines.dtype.kind not in "ui":
            raise LimitError(f"a {kind} is named by {lines.dtype}", fix="give integers")
        if lines.size and not (lines.min() >= 0 and lines.max() < n_lines):
            worst = lines.min() if lines.min() < 0 else lines.max()
            raise LimitError(f"{kind} {worst} is outside 0 to {n_lines - 1}", fix=f"use a {kind} of the array")

    def _check_rows(self, x: RowInput, tile: Tile) -> None:
        if isinstance(x, PackedSpikes):
            self._check_packed(x, tile)
            return
        if len(x.shape) != 2 or x.shape[1] != tile.n_rows:
            self._refuse_shape(tuple(x.shape), tile)
        capabilities, name = self._about.capabilities, self._about.name
        if not isinstance(x, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance]
            # A tensor: bits only. Looking at its values would make a GPU wait.
            if not capabilities.tensors:
                raise CapabilityError(
                    f"backend {name!r} takes NumPy arrays and packed spikes, not {type(x).__name__}",
                    fix="convert x to a NumPy array",
                )
            return
        if x.dtype.kind == "f" and not capabilities.analogue_rows:
            raise CapabilityError(
                f"backend {name!r} drives rows on or off only, but x holds levels ({x.dtype})",
                fix="give bits (bool or uint8)",
            )
        if x.dtype.kind not in "buif":
            raise LimitError(f"row input has type {x.dtype}", fix="give bits (bool or uint8), or levels (float)")
        # Written so that NaN fails too.
        if x.dtype.kind != "b" and x.size and not (x.min() >= 0 and x.max() <= 1):
            raise LimitError(
                f"row levels run from {x.min():g} to {x.max():g}, outside 0 to 1",
                fix="scale x to 0 .. 1 and use v_read_v for the amplitude",
            )

    def _check_packed(self, x: PackedSpikes, tile: Tile) -> None:
        # A bit beyond the tile would drive a row that the tile does not have.
        if x.n_rows != tile.n_rows or x.words.ndim != 2:
            self._refuse_shape((len(x), x.n_rows), tile)
        if x.words.dtype != np.uint64 or x.words.shape[1] != n_words(x.n_rows):
            raise LimitError(
                f"packed row input has words {x.words.dtype}{x.words.shape}",
                fix=f"give uint64 of shape (batch, {n_words(x.n_rows)}), as PackedSpikes.pack does",
            )
        spare = n_words(x.n_rows) * WORD_BITS - x.n_rows
        if spare and (x.words[:, -1] >> np.uint64(WORD_BITS - spare)).any():
            raise LimitError(f"packed row input has a bit set at or above its {x.n_rows} rows", fix="clear these bits")

    @staticmethod
    def _refuse_shape(shape: tuple[int, ...], tile: Tile) -> None:
        raise LimitError(
            f"row input has shape {shape}, the tile has {tile.n_rows} rows", fix=f"give shape (batch, {tile.n_rows})"
        )

    def _check_mask(self, mask: NDArray[np.bool_]) -> None:
        shape = self._about.shape
        if mask.shape != shape or mask.dtype != np.bool_:
            raise LimitError(
                f"cell mask has shape {mask.shape} and type {mask.dtype}", fix=f"give a bool array of shape {shape}"
            )


def open_session(backend: CrossbarBackend, limits: Limits | None = None) -> AbstractContextManager[Session]:
    """Open a backend, hand out a checked session, and end at zero bias whatever happens.

    Args:
        backend: what to open; it must not be open yet.
        limits: tighter limits than the board's own.

    Raises:
        LimitError: `limits` are above the board's; nothing was opened.
        DeviceError: the array could not be made safe; says so before anything else.
        UnconfirmedError: the link to the array broke at the very end; after another error it is a warning only.
    """
    return _Guard(backend, Session(backend, limits))


class _Guard:
    """Context manager around a session: SIGINT and SIGTERM end its block by an exception, and nothing but them.

    A signal that arrives in the code of this class is noted and acted on when the array is safe. Which code that is
    the handler reads off the stack: a flag would leave a gap between an exception and the line that sets it, where a
    second Ctrl-C skips the way to zero bias.
    """

    def __init__(self, backend: CrossbarBackend, session: Session) -> None:
        self._backend = backend
        self._session = session
        self._before: dict[int, Any] = {}
        self._postponed: int | None = None

    def __enter__(self) -> Session:
        self._watch()
        try:
            self._open()
        except BaseException as error:
            self._leave(error)
            raise
        if self._postponed is not None:
            self._leave(None)
        return self._session

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    def _open(self) -> None:
        # A frame of its own: here a signal may interrupt, since connecting may hang.
        self._session.open()

    def _leave(self, error: BaseException | None) -> None:
        """Zero bias, close, give the signals back; `error` is what ended the block."""
        try:
            try:
                is_safe = _make_safe(self._backend, error)
            except (DeviceError, UnconfirmedError):
                _close_quietly(self._backend)
                raise
            self._backend.close()
        finally:
            self._unwatch()
        if is_safe and error is not None:
            note_safe(error)
        # One signal is enough to stop: if `error` is due to one already, that goes on.
        if self._postponed is not None and (error is None or isinstance(error, Exception)):
            stop = _interruption(self._postponed)
            if is_safe:
                note_safe(stop)
            raise stop from error

    def _watch(self) -> None:
        # Signal handlers belong to the main thread; in another one the owner of the main thread must end the session.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def _unwatch(self) -> None:
        # SIGINT last: from then on it may cut this short, and nothing must be left to do.
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        interrupted = frame
        while interrupted is not None:
            if interrupted.f_code in _GUARD_CODE and interrupted.f_locals["self"] is self:
                break
            interrupted = interrupted.f_back
        if interrupted is None or interrupted.f_code is _Guard._open.__code__:
            raise _interruption(number)
        self._postponed = self._postponed or number
        log.warning("signal %d waits until the array is safe", number)


_GUARD_CODE = frozenset(f.__code__ for f in (_Guard.__enter__, _Guard.__exit__, _Guard._open))  # pyright: ignore[reportPrivateUsage]


def _interruption(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(128 + number)


def _close_quietly(backend: CrossbarBackend) -> None:
    """Close a backend whose array may be under bias: that is the error to report, not this one's."""
    try:
        backend.close()
    except Exception as error:
        log.error("closing the backend failed too: %s", error)


def note_safe(error: BaseException) -> None:
    """Note that the array was made safe on the way out of this error."""
    error.__dict__["array_is_safe"] = True


def is_known_safe(error: BaseException) -> bool:
    """Whether the array was made safe on the way out of this error."""
    return bool(getattr(error, "array_is_safe", False))


def _make_safe(backend: CrossbarBackend, first: BaseException | None) -> bool:
    """Try `make_safe` a few times: the array matters more than `first`, the error that ended the session.

    Returns:
        Whether the array is known to be safe; not so when `first` has told already that its link is down.
    """
    cause: Exception | None = None
    for attempt in range(1, _SAFE_ATTEMPTS + 1):
        try:
            backend.make_safe()
            return True
        except UnconfirmedError as error:  # noqa: PERF203 - a few attempts, each of which may fail
            if first is None:
                raise
            log.warning("%s", error.what)
            return False
        except Exception as error:
            log.error("attempt %d of %d to make the array safe failed: %s", attempt, _SAFE_ATTEMPTS, error)
            cause = error
    before = f"; before that: {describe(first)}" if first is not None else ""
    raise DeviceError(
        f"THE ARRAY MAY STILL BE UNDER BIAS: make_safe failed {_SAFE_ATTEMPTS} times ({cause}){before}",
        fix="switch the board's analogue supply off by hand",
    ) from cause


def describe(error: BaseException) -> str:
    """One line for a run file: the kind of the error and its message."""
    return str(error) if isinstance(error, HilError) else f"{type(error).__name__}: {error}"
