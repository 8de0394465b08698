"""All procedures in their order: what each needs, what is left to do, and the tables that keep what they measure."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration import array, dac, gate, line, noise, settling, tia, zero
from calibration.procedure import WHAT_BYTES, CalibrationBench
from hil.backend import BackendInfo
from hil.calibration_file import UNKNOWN_SERIAL, BoardIdentity, Calibration, Part
from hil.errors import CalibrationError, ConfigError
from hil.provenance import software_versions
from hil.runfile import Column, TableSpec
from hil.session import Session


@dataclass(frozen=True)
class Wishes:
    """What a person may choose.

    Attributes:
        pad_row: bit line whose test pad instruments are on.
        gate_cells: cells that part `gate` may wear, shape of the array.
    """

    pad_row: int | None = None
    gate_cells: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Step:
    """One part.

    Attributes:
        needs: parts that correct what this one measures.
        measure: the procedure.
        changes: parts that it makes untrue, since it changes cells.
    """

    needs: tuple[str, ...]
    measure: Callable[[CalibrationBench, Wishes], Part]
    changes: tuple[str, ...] = ()


def _line(bench: CalibrationBench, wishes: Wishes) -> Part:
    del wishes
    part = line.measure(bench)
    if bench.access is None or not bench.wiring.inhibit:
        return part
    settled, findings = settling.measure_settling(bench)
    return replace(part, quantities={**part.quantities, **settled}, findings=(*part.findings, *findings))


def _gate(bench: CalibrationBench, wishes: Wishes) -> Part:
    if wishes.gate_cells is None:
        raise ConfigError("part gate wears cells, and none were chosen", fix="choose some: --region ROWS,COLS")
    return gate.measure(bench, gate.GateOptions(mask=wishes.gate_cells))


#: in the order in which they are measured
STEPS: Mapping[str, Step] = {
    "zero": Step((), lambda bench, wishes: zero.measure(bench)),
    "dac": Step(("zero",), lambda bench, wishes: dac.measure(bench, dac.DacOptions(pad_row=wishes.pad_row))),
    "tia": Step(("zero",), lambda bench, wishes: tia.measure(bench, tia.TiaOptions(smu_row=wishes.pad_row))),
    "line": Step(("zero", "dac", "tia"), _line),
    "noise": Step(("zero",), lambda bench, wishes: noise.measure(bench)),
    "array": Step(("zero", "dac", "tia", "line", "noise"), lambda bench, wishes: array.measure(bench)),
    "gate": Step(("zero",), _gate, changes=("array",)),
}
#: what `hil calibrate all` measures; `gate` wears cells and is asked for by its name
ALL = ("zero", "dac", "tia", "line", "noise", "array")


def new_calibration(session: Session, seed: int) -> Calibration:
    """A calibration without parts, for the board of an open session.

    Raises:
        CalibrationError: the backend does not say how it is wired, or which board it is; or it has a calibration
            applied, so that what that one takes off would be missed.
    """
    info: BackendInfo = session.info
    if info.calibration_id is not None:
        raise CalibrationError(
            f"backend {info.name!r} has calibration {info.calibration_id} applied: its errors cannot be seen",
            fix="measure without: a daemon must be started without calibration.file",
        )
    electrics = info.identity.get("electrics")
    if info.wiring is None or not isinstance(electrics, Mapping):
        raise CalibrationError(
            f"backend {info.name!r} does not say how its array is wired, so that it cannot be calibrated",
            fix="calibrate a board or the emulator",
        )
    board = BoardIdentity.of(info)
    if board.serial == UNKNOWN_SERIAL:
        raise CalibrationError(
            "the board does not tell its serial number, so that a calibration could not be bound to it",
            fix="name the board: --set board.serial=NAME, here and wherever the calibration is used",
        )
    return Calibration(
        board=board,
        wiring=info.wiring,
        electrics=dict(electrics),
        seed=seed,
        created_unix_s=time.time(),
        software=software_versions(),
    )


def plan(wanted: Sequence[str], have: Collection[str], *, again: bool) -> list[str]:
    """Parts to measure, in order.

    Args:
        wanted: names of parts.
        have: parts that the calibration has.
        again: measure those of them that are wanted once more; else they are skipped.

    Raises:
        CalibrationError: a part is needed that is neither there nor wanted.
    """
    chosen = [name for name in STEPS if name in wanted and (again or name not in have)]
    for name in chosen:
        missing = [need for need in STEPS[name].needs if need not in have and need not in chosen]
        if missing:
            raise CalibrationError(
                f"part {name} needs what {_listed(missing)} would measure, which is not there yet",
                fix=f"run first: {'; '.join(f'hil calibrate {need}' for need in missing)}, or hil calibrate all",
            )
    return chosen


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def measure_parts(
    bench: CalibrationBench, names: Sequence[str], save: Callable[[Calibration], None], wishes: Wishes | None = None
) -> Calibration:
    """Measure parts one after the other; each is saved before the next begins.

    A part that is measured again makes what was measured with the old one stale, and one that changes cells what was
    known of them: those parts are dropped.

    Args:
        bench: its `known` grows with every part.
        names: as from `plan`.
        save: keeps a calibration.
        wishes: choices.
    """
    for name in names:
        step = STEPS[name]
        if untrue := [other for other in step.changes if other in bench.known.parts]:
            # Before the first pulse: what is cut short has changed cells, too.
            bench.known = _without(bench.known, untrue)
            save(bench.known)
        part = replace(step.measure(bench, wishes or Wishes()), measured_unix_s=time.time())
        stale = [other for other in bench.known.parts if name in _all_needs(other)]
        bench.known = _without(bench.known, stale).with_part(part)
        save(bench.known)
    return bench.known


def _without(known: Calibration, names: Collection[str]) -> Calibration:
    """The calibration without some parts, and hence not validated."""
    return replace(known, parts={n: part for n, part in known.parts.items() if n not in names}, validation=None)


def _all_needs(name: str) -> set[str]:
    """Parts that a part rests on, directly or through others."""
    direct = STEPS[name].needs
    return set(direct).union(*(_all_needs(need) for need in direct))


def tables(shape: tuple[int, int]) -> list[TableSpec]:
    """Tables of the run file, to which procedures record what they measure, as it came from the board."""
    rows, cols = shape
    return [
        TableSpec(
            "vmm",
            [
                Column("what", f"S{WHAT_BYTES}", ""),
                Column("number", np.uint32, "1"),
                Column("driven", np.uint8, "1", (-(-rows // 8),)),
                Column("v_read_v", np.float64, "V"),
                Column("current_a", np.float32, "A", (cols,)),
            ],
            "multiplications by nominal constants; driven: bits of the rows, first row first; NaN: word line off",
        ),
        *(table for procedure in (dac, tia, settling, noise, gate) for table in procedure.TABLES),
    ]
