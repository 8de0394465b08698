"""What is known of each cell: followed as a run goes, or rebuilt from its file with the same result."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from experiments.array.record import Operation, next_op, recorded
from hil.array_records import DONE
from hil.backend import PulseKind
from hil.runfile import RunReader

KINDS: tuple[str, ...] = get_args(PulseKind)


class History:
    """Per cell, shape (rows, cols), over all sessions of one run.

    Attributes:
        operations: every primitive, in order.
        first_conductance_s, last_conductance_s: oldest and newest reading, NaN where there is none.
        before_pulse_s: newest reading before the newest pulse.
        n_reads: readings.
        read_since_pulse: whether there is a reading newer than the newest pulse, or no pulse but a reading.
        pulse_count: pulses that a cell had or may have had; what ceilings count.
        done_count: pulses that it had for sure, by kind.
        confirmed: whether the newest pulse is known to have been applied.
        last_kind: index into `KINDS` of the newest pulse, -1 where there is none.
        last_voltage_v, last_gate_v: requested amplitudes of the newest pulse of each kind, NaN where there is none.
        after_s, after_previous_s: first reading after the newest pulse of each kind, and after the one before it; a
            pulse whose cell was not read before the next one is passed over; NaN where there is none.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.operations: list[Operation] = []
        self.next_op = 0
        self.first_conductance_s = np.full(shape, np.nan, np.float32)
        self.last_conductance_s = np.full(shape, np.nan, np.float32)
        self.before_pulse_s = np.full(shape, np.nan, np.float32)
        self.n_reads = np.zeros(shape, np.uint32)
        self.read_since_pulse = np.zeros(shape, np.bool_)
        self.pulse_count = np.zeros(shape, np.uint32)
        self.done_count: dict[str, NDArray[np.uint32]] = {kind: np.zeros(shape, np.uint32) for kind in KINDS}
        self.confirmed = np.zeros(shape, np.bool_)
        self.last_kind = np.full(shape, -1, np.int8)
        self.last_voltage_v: dict[str, NDArray[np.float64]] = {kind: np.full(shape, np.nan) for kind in KINDS}
        self.after_s: dict[str, NDArray[np.float32]] = {kind: np.full(shape, np.nan, np.float32) for kind in KINDS}
        self.after_previous_s: dict[str, NDArray[np.float32]] = {
            kind: np.full(shape, np.nan, np.float32) for kind in KINDS
        }
        self.last_gate_v: dict[str, NDArray[np.float64]] = {kind: np.full(shape, np.nan) for kind in KINDS}

    @classmethod
    def from_run(cls, reader: RunReader, shape: tuple[int, int]) -> History:
        """Rebuild it from a run file, also from one whose writer was killed.

        Raises:
            DataError: the file has no records of an array, or is damaged.
        """
        history = cls(shape)
        for found in recorded(reader, shape):
            history.begin(found.operation, found.pulsed)
            history.took(found.read, found.conductance_s)
            if found.operation.status:
                history.end(found.operation, found.pulsed)
        history.next_op = next_op(reader)
        return history

    @property
    def uncertain(self) -> NDArray[np.bool_]:
        """Cells of a pulse that nobody confirmed and that were not read since."""
        return (self.pulse_count > 0) & ~self.confirmed & ~self.read_since_pulse

    def begin(self, operation: Operation, pulsed: NDArray[np.intp]) -> None:
        """An operation is about to be applied; `pulsed` are the flat indices of the cells of a pulse."""
        self.operations.append(operation)
        self.next_op = operation.op + 1
        if operation.verb != "pulse":
            return
        _flat(self.before_pulse_s)[pulsed] = _flat(self.last_conductance_s)[pulsed]
        _flat(self.pulse_count)[pulsed] += 1
        _flat(self.read_since_pulse)[pulsed] = False
        _flat(self.confirmed)[pulsed] = False
        kind = operation.kind
        _flat(self.last_kind)[pulsed] = KINDS.index(kind)
        _flat(self.last_voltage_v[kind])[pulsed] = operation.voltage_v
        _flat(self.last_gate_v[kind])[pulsed] = operation.v_gate_v

    def end(self, operation: Operation, pulsed: NDArray[np.intp]) -> None:
        """The newest operation ended; a pulse that failed leaves its cells uncertain."""
        self.operations[-1] = operation
        if operation.verb == "pulse" and operation.status == DONE:
            _flat(self.confirmed)[pulsed] = True
            _flat(self.done_count[operation.kind])[pulsed] += 1

    def took(self, read: NDArray[np.intp], conductance_s: NDArray[np.float32]) -> None:
        """Cells were read; a NaN corrects another reading and says nothing of its own."""
        valid = ~np.isnan(conductance_s)
        cells = read[valid]
        for k, kind in enumerate(KINDS):
            due = (_flat(self.last_kind)[cells] == k) & ~_flat(self.read_since_pulse)[cells]
            _flat(self.after_previous_s[kind])[cells[due]] = _flat(self.after_s[kind])[cells[due]]
            _flat(self.after_s[kind])[cells[due]] = conductance_s[valid][due]
        first = _flat(self.first_conductance_s)
        first[cells] = np.where(np.isnan(first[cells]), conductance_s[valid], first[cells])
        _flat(self.last_conductance_s)[cells] = conductance_s[valid]
        _flat(self.n_reads)[cells] += 1
        _flat(self.read_since_pulse)[cells] = True


def _flat(values: NDArray) -> NDArray:
    """A view: all arrays here are contiguous."""
    return values.reshape(-1)
