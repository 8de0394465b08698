"""The lab bench: a session whose every primitive is recorded, with what is known of the cells."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from experiments.array.history import History
from experiments.array.record import FAILED, TEXT_BYTES, Operation, pack_mask
from experiments.array.settings import ReadSettings
from hil.array_records import DONE
from hil.backend import BackendInfo, CrossbarBackend, Pulse, PulseReport
from hil.errors import READ_FIRST, LimitError, RunFileError, UncertainError
from hil.progress import Progress, no_progress
from hil.runfile import RunFile
from hil.session import describe

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_CELLS_PER_STEP = 16384
_NO_CELLS = np.empty(0, np.intp)


def steps(mask: NDArray[np.bool_], cells_per_step: int) -> Iterator[NDArray[np.bool_]]:
    """The mask in groups of whole array rows, each of at most `cells_per_step` cells (or of one row)."""
    per_row = mask.sum(axis=1)
    first, cells = 0, 0
    for row, n in enumerate(per_row.tolist()):
        if cells and cells + n > cells_per_step:
            yield _rows_of(mask, first, row)
            first, cells = row, 0
        cells += n
    if cells:
        yield _rows_of(mask, first, len(per_row))


def _rows_of(mask: NDArray[np.bool_], first: int, last: int) -> NDArray[np.bool_]:
    part = np.zeros_like(mask)
    part[first:last] = mask[first:last]
    return part


class Bench:
    """An open session, the run file that keeps what it does, and the history of its cells.

    Args:
        session: an open session; the bench never opens or closes it.
        run_file: with the tables of `experiments.array.record.tables`.
        read: how cells are read where a call does not say.
        history: of the earlier sessions of this run; None starts one.
        cells_per_step: cells of one primitive at most.
        progress: told by the procedures.
    """

    def __init__(
        self,
        session: CrossbarBackend,
        run_file: RunFile,
        *,
        read: ReadSettings | None = None,
        history: History | None = None,
        cells_per_step: int = DEFAULT_CELLS_PER_STEP,
        progress: Progress = no_progress,
    ) -> None:
        self._session = session
        self._file = run_file
        self.info: BackendInfo = session.info
        self.shape = self.info.shape
        self.read_settings = read or ReadSettings()
        self.history = history or History(self.shape)
        self.cells_per_step = cells_per_step
        self.progress = progress

    @property
    def path(self) -> Path:
        """The run file; `flush` first to find there what was recorded so far."""
        return self._file.path

    def pulses_left(self, pulses_per_cell_max: int) -> NDArray[np.int64]:
        """Pulses that each cell may still get: ceiling of a procedure and of the session, over all sessions."""
        ceiling = min(pulses_per_cell_max, self.info.limits.pulses_per_cell_max)
        return np.maximum(ceiling - self.history.pulse_count.astype(np.int64), 0)

    def pulse(self, mask: NDArray[np.bool_], pulse: Pulse, purpose: str) -> PulseReport:
        """Apply one pulse to each cell; what is applied is on the disk before.

        Raises:
            UncertainError: cells of an unconfirmed pulse were not read since; nothing was applied.
            LimitError: a cell had its pulses in earlier sessions of the run, or the session's limits; nothing applied.
        """
        if n := int(self.history.uncertain[mask].sum()):
            raise UncertainError(f"{n} cells of the mask had a pulse that nobody confirmed", fix=READ_FIRST)
        limit = self.info.limits.pulses_per_cell_max
        if (worst := int(self.history.pulse_count[mask].max(initial=0))) >= limit:
            raise LimitError(
                f"a cell of the mask has had {worst} pulses in this run, the limit is {limit}",
                fix="take that cell out of the mask, or raise limits.pulses_per_cell_max",
            )
        report = PulseReport(0, pulse, pulse)
        for part in steps(mask, self.cells_per_step):
            done = self._pulse(part, pulse, purpose)
            report = replace(done, n_cells=report.n_cells + done.n_cells)
        return report

    def _pulse(self, mask: NDArray[np.bool_], pulse: Pulse, purpose: str) -> PulseReport:
        cells = np.flatnonzero(mask)
        operation = Operation(
            op=self.history.next_op,
            verb="pulse",
            purpose=purpose,
            kind=pulse.kind,
            n_cells=len(cells),
            voltage_v=pulse.voltage_v,
            v_gate_v=pulse.v_gate_v,
            width_s=pulse.width_s,
        )
        rows, cols = pack_mask(mask)
        self._file.append("operations", **operation.columns())
        self._file.append("masks", op=operation.op, row=rows, cols=cols)
        self._file.flush(durable=True)
        self.history.begin(operation, cells)

        report = self._timed(operation, cells, lambda: self._session.pulse(mask, pulse), lambda found: found.achieved)
        self._file.flush()
        return report

    def read(self, mask: NDArray[np.bool_], purpose: str, settings: ReadSettings | None = None) -> NDArray[np.float64]:
        """Conductance of each cell of a mask, shape of the array; NaN outside the mask."""
        found = np.full(self.shape, np.nan)
        for part in steps(mask, self.cells_per_step):
            found[part] = self.read_cells(part, purpose, settings)
        return found

    def read_cells(
        self, mask: NDArray[np.bool_], purpose: str, settings: ReadSettings | None = None
    ) -> NDArray[np.float64]:
        """Conductance of the cells of a mask in row-major order, in one step; for few cells read many times."""
        how = settings or self.read_settings
        v_read_v, n_average = how.v_read_v, how.n_average
        if how.correction == "none":
            return self.current_a(mask, purpose, v_read_v, n_average, lambda on_a: on_a) / v_read_v
        if how.correction == "zero":
            offset_a = self.current_a(mask, "zero", 0.0, n_average)
            return self.current_a(mask, purpose, v_read_v, n_average, lambda on_a: on_a - offset_a) / v_read_v
        minus_a = self.current_a(mask, "polarity", -v_read_v, n_average)
        return self.current_a(mask, purpose, v_read_v, n_average, lambda plus_a: 0.5 * (plus_a - minus_a)) / v_read_v

    def current_a(
        self,
        mask: NDArray[np.bool_],
        purpose: str,
        v_read_v: float,
        n_average: int,
        correct: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    ) -> NDArray[np.float64]:
        """Currents of the cells of a mask in row-major order, by one primitive, at a voltage of either sign.

        Args:
            mask: cells; those of one step at most, see `steps`.
            purpose: what the procedure wants with it.
            v_read_v: read voltage.
            n_average: conversions averaged per cell.
            correct: what makes the current that counts of the one that was read, such as taking an offset off. Without
                it the conductance of the cells stays what it was: the reading is one of many, or corrects another.
        """
        cells = np.flatnonzero(mask)
        operation = Operation(
            op=self.history.next_op,
            verb="read",
            purpose=purpose,
            n_cells=len(cells),
            voltage_v=v_read_v,
            n_average=n_average,
        )
        current_a = self._record(operation, lambda: self._session.read(mask, v_read_v, n_average=n_average))
        stored_s = np.full(len(cells), np.nan, np.float32)
        if correct is not None:
            current_a = correct(current_a)
            stored_s[:] = current_a / v_read_v
        row, col = np.divmod(cells, self.shape[1])
        self._file.append(
            "readings",
            op=np.full(len(cells), operation.op, np.uint32),
            row=row.astype(np.uint16),
            col=col.astype(np.uint16),
            current_a=current_a.astype(np.float32),
            conductance_s=stored_s,
        )
        self.history.took(cells, stored_s)
        return current_a

    def read_uncertain(self) -> int:
        """Read every cell of an unconfirmed pulse, before anything else; returns how many there were."""
        mask = self.history.uncertain
        if mask.any():
            log.warning("%d cells had a pulse that nobody confirmed: they are read first", mask.sum())
            self.read(mask, "uncertain")
        return int(mask.sum())

    def read_unknown(self, mask: NDArray[np.bool_], settings: ReadSettings | None = None) -> None:
        """Read the cells of a mask whose state is not known: never read yet, or not since their newest pulse."""
        unknown = mask & ~self.history.read_since_pulse
        if unknown.any():
            self.read(unknown, "before", settings)

    def wait(self, duration_s: float, purpose: str) -> None:
        """Let time pass for the cells, at zero bias."""
        operation = Operation(self.history.next_op, "wait", purpose, width_s=duration_s)
        self._record(operation, lambda: self._session.wait(duration_s))

    def now_s(self) -> float:
        """The clock of the cells."""
        return self._session.now_s()

    def flush(self) -> None:
        """What was recorded so far survives a kill of this process."""
        self._file.flush()

    def _record(self, operation: Operation, apply: Callable[[], T]) -> T:
        """Apply and record a primitive that leaves the cells as they are."""
        self._file.append("operations", **operation.columns())
        self.history.begin(operation, _NO_CELLS)
        return self._timed(operation, _NO_CELLS, apply)

    def _timed(
        self,
        operation: Operation,
        pulsed: NDArray[np.intp],
        apply: Callable[[], T],
        achieved: Callable[[T], Pulse] | None = None,
    ) -> T:
        """Apply a primitive and record its outcome, whatever that is."""
        started = time.perf_counter()
        try:
            found = apply()
            t_array_s = self._session.now_s()
        except BaseException as error:
            self._end_failed(operation, pulsed, time.perf_counter() - started, error)
            raise
        duration_s = time.perf_counter() - started
        ended = replace(operation, status=DONE, t_array_s=t_array_s, duration_s=duration_s)
        self._end(ended, pulsed, achieved(found) if achieved else operation)
        return found

    def _end(self, ended: Operation, pulsed: NDArray[np.intp], achieved: Pulse | Operation, text: str = "") -> None:
        self._file.append(
            "outcomes",
            op=ended.op,
            status=ended.status,
            voltage_v=achieved.voltage_v,
            v_gate_v=achieved.v_gate_v,
            width_s=achieved.width_s,
            t_array_s=ended.t_array_s,
            duration_s=ended.duration_s,
            text=text,
        )
        self.history.end(ended, pulsed)

    def _end_failed(
        self, operation: Operation, pulsed: NDArray[np.intp], duration_s: float, error: BaseException
    ) -> None:
        text = describe(error).encode(errors="replace")[:TEXT_BYTES].decode(errors="ignore")
        nothing = Operation(operation.op, operation.verb, operation.purpose)
        try:
            self._end(replace(operation, status=FAILED, duration_s=duration_s), pulsed, nothing, text)
        except RunFileError as second:  # it must not hide the error that ended the operation
            log.error("%s", second)
