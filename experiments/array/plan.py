"""What a procedure would apply: printed by a dry run, and held against the limits before anything is applied."""

from __future__ import annotations

from dataclasses import dataclass

from hil.backend import BackendInfo, PulseKind
from hil.errors import CapabilityError, LimitError
from hil.session import check_voltage


@dataclass(frozen=True)
class PlannedPulses:
    """Pulses of one kind, at their largest.

    Attributes:
        kind: form, set or reset.
        voltage_v, v_gate_v, width_s: the largest that may be applied.
        per_cell: pulses on one cell at most.
    """

    kind: PulseKind
    voltage_v: float
    v_gate_v: float
    width_s: float
    per_cell: int


@dataclass(frozen=True)
class Plan:
    """What a procedure would do with a number of cells.

    Attributes:
        text: one line for people.
        n_cells: cells of the mask.
        pulses: by kind; none for a procedure that only reads.
        pulses_needed: pulses of all kinds that each cell must get; 0 where a cell that reaches its ceiling is a result.
        v_read_v: read voltages, of both signs if so corrected.
        reads_per_cell: at most.
        primitives: calls of the backend, estimated.
        wait_s: time during which the cells are left alone.
    """

    text: str
    n_cells: int
    pulses: tuple[PlannedPulses, ...] = ()
    pulses_needed: int = 0
    v_read_v: tuple[float, ...] = ()
    reads_per_cell: int = 0
    primitives: int = 0
    wait_s: float = 0.0

    def check(self, info: BackendInfo) -> None:
        """Refuse by name what the backend cannot or may not do, before anything is applied.

        Raises:
            CapabilityError: no such pulse, or no negative read voltage.
            LimitError: over a limit of the session.
        """
        limits, able = info.limits, info.capabilities
        for pulse in self.pulses:
            if pulse.kind not in able.pulse_kinds:
                raise CapabilityError(
                    f"backend {info.name!r} has no {pulse.kind!r} pulse; it has: {sorted(able.pulse_kinds) or 'none'}",
                    fix="choose another procedure or another backend",
                )
            check_voltage(f"{pulse.kind} voltage", pulse.voltage_v, limits.v_pulse_max_v)
            check_voltage(f"gate voltage of {pulse.kind}", pulse.v_gate_v, limits.v_gate_max_v)
            if not 0 < pulse.width_s <= limits.pulse_width_max_s:
                raise LimitError(
                    f"{pulse.kind} pulse of {pulse.width_s:g} s is outside 0 to {limits.pulse_width_max_s:g} s",
                    fix=f"use at most {limits.pulse_width_max_s:g} s",
                )
        if self.pulses_needed > limits.pulses_per_cell_max:
            raise LimitError(
                f"{self.pulses_needed} pulses on each cell are more than the limit of {limits.pulses_per_cell_max}",
                fix="ask for fewer, or raise limits.pulses_per_cell_max if the board allows more",
            )
        for voltage_v in self.v_read_v:
            if voltage_v < 0 and not able.bipolar_read:
                raise CapabilityError(
                    f"backend {info.name!r} reads with one polarity only",
                    fix="use --set array.read.correction=zero or none",
                )
            check_voltage("read voltage", abs(voltage_v), limits.v_read_max_v)
