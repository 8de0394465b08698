"""A calibration run, from the first row of its file to its end.

The calibration file grows with every part; the run file keeps what was measured for it, as it came from the board.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calibration.procedure import CalibrationBench
from calibration.run import STEPS, Wishes, measure_parts, new_calibration, plan
from experiments import style
from experiments.calibration.figures import figures_of
from experiments.calibration.quantities import summary
from hil.backend import BackendInfo, CrossbarBackend, Limits
from hil.calibration_file import Calibration
from hil.errors import CalibrationError, CapabilityError, ConfigError, DeviceError
from hil.instruments import Instrument, PowerSupply
from hil.progress import Progress, no_progress
from hil.provenance import software_versions
from hil.runfile import RunFile, TableSpec
from hil.session import describe, open_session

log = logging.getLogger(__name__)

EXPERIMENT = "calibrate"
_DAY_S = 86400.0

#: most current of the DACs' supply: nine DAC80508 take some 10 mA each (TI SLASEL1D), and outputs may be loaded
SUPPLY_LIMIT_A = 0.25
_SUPPLY_TOLERANCE = 0.02
#: opens instruments, which end with the stack
Connect = Callable[[ExitStack], Mapping[str, Instrument]]


@dataclass(frozen=True)
class Job:
    """What is to be measured.

    Attributes:
        wanted: names of parts.
        everything: `wanted` is all that can be measured; then parts that are too old are measured again, too.
        again: measure also what is there already.
        file: calibration file; gone on with if there is one.
        v_read_v: read voltage.
        seed: of random patterns.
        limits: of the session.
        wishes: what else a person chose.
        allow: misfits of the file that are accepted.
        max_age_days: age from which a part is too old.
    """

    wanted: tuple[str, ...]
    everything: bool
    again: bool
    file: Path
    v_read_v: float
    seed: int
    limits: Limits
    wishes: Wishes
    allow: Collection[str]
    max_age_days: float

    def known(self, info: BackendInfo) -> Calibration | None:
        """What the file holds; None if there is none.

        Raises:
            CalibrationError: damaged, or of another board, firmware or profile.
        """
        if not self.file.exists():
            return None
        found = Calibration.load(self.file)
        try:
            found.check_fits(info, allow=self.allow, max_age_days=float("inf"))
        except CalibrationError as error:
            raise CalibrationError(
                f"{self.file} cannot be gone on with: {error.what}",
                fix="name another file with --calibration, or move that one away",
            ) from None
        return found

    def to_do(self, known: Calibration | None) -> list[str]:
        """Parts to measure, in order.

        Raises:
            CalibrationError: a part is needed that is missing, or too old.
        """
        parts = {} if known is None else known.parts
        old = {} if "stale" in self.allow else self._too_old(known)
        have = parts.keys() - old.keys() if self.everything else parts.keys()
        names = plan(self.wanted, have, again=self.again)
        for name in names:
            for need in STEPS[name].needs:
                if need in old and need not in names:
                    raise CalibrationError(
                        f"part {name} needs {need}, which was measured {old[need]:.1f} days ago; the limit is "
                        f"{self.max_age_days:g} days",
                        fix="measure anew what is too old: hil calibrate all; or accept it: "
                        "--set 'calibration.allow=[\"stale\"]'",
                    )
        return names

    def _too_old(self, known: Calibration | None) -> dict[str, float]:
        """Age in days of parts that are too old."""
        parts = {} if known is None else known.parts
        ages = {name: (time.time() - part.measured_unix_s) / _DAY_S for name, part in parts.items()}
        return {name: age for name, age in ages.items() if age > self.max_age_days}


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        calibration: as it lies in its file.
        measured: parts of this run.
        figures: PNG by name; empty where nothing can draw.
        note: why there are none.
    """

    calibration: Calibration
    measured: list[str]
    figures: dict[str, bytes]
    note: str | None


def start(
    folder: Path,
    experiment: str,
    backend: CrossbarBackend,
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    seed: int,
    specs: Sequence[TableSpec] = (),
) -> RunFile:
    """A new run file."""
    return RunFile.create(
        folder,
        experiment,
        config=config,
        backend=identity,
        calibration=backend.info.calibration_id,
        seed=seed,
        software=software_versions(),
        tables=specs,
    )


def execute(
    job: Job,
    backend: CrossbarBackend,
    run_file: RunFile,
    connect: Connect,
    progress: Progress = no_progress,
    *,
    supply: Callable[[ExitStack], PowerSupply] | None = None,
) -> Outcome:
    """Measure, and end the run file; made with `calibration.run.tables`.

    Instruments are off and the array is at zero bias when this returns or raises. Parts that were measured before an
    error are in the calibration file. There is no run file if the backend could not be opened.

    Args:
        job: what to measure.
        backend: the board; opened here.
        run_file: completed here.
        connect: opens the instruments that measure.
        progress: told on the way.
        supply: opens a power supply that feeds the DACs: it is on before the board is, and goes off after it.
    """
    with run_file:
        with ExitStack() as stack:
            try:
                _make_folder(job.file.parent)
                if supply is not None:
                    _feed(supply(stack), backend)
                session = stack.enter_context(open_session(backend, job.limits))
            except BaseException:
                _discard(run_file)
                raise
            known = job.known(session.info)
            names = job.to_do(known)
            fresh = new_calibration(session, job.seed)
            # What works, the last power-up knows best.
            known = fresh if known is None else replace(known, wiring=fresh.wiring)
            bench = CalibrationBench(
                session,
                known,
                job.v_read_v,
                instruments=connect(stack) if names else {},
                seed=job.seed,
                record=lambda table, columns: run_file.append(table, **columns),
                progress=progress,
            )
            if names:
                known = measure_parts(bench, names, lambda found: found.save(job.file), job.wishes)
        figures, note = drawn(lambda: figures_of(known))
        run_file.finish("complete", {"summary": {**summary(known), "measured": names}, **figures})
    return Outcome(known, names, figures, note)


def _feed(psu: PowerSupply, backend: CrossbarBackend) -> None:
    """Switch the supply of the DACs on, at the voltage of the board's profile.

    Raises:
        DeviceError: it gives another voltage, or its current limit holds it back.
        CapabilityError: the backend does not say what its DACs need.
    """
    facts = backend.info.identity.get("electrics", {})
    if "dac_vdd_v" not in facts:
        raise CapabilityError(
            f"backend {backend.info.name!r} has no DACs that {psu.identity} could feed", fix="leave the role psu away"
        )
    wanted_v = float(facts["dac_vdd_v"])
    psu.set_voltage(wanted_v, current_limit_a=SUPPLY_LIMIT_A)
    psu.output_on()
    found = psu.measure_in_control()
    if abs(found.voltage_v - wanted_v) > _SUPPLY_TOLERANCE * wanted_v:
        raise DeviceError(
            f"{psu.identity} gives {found.voltage_v:.3f} V to the DACs, and was told {wanted_v:g} V",
            fix="check its wiring and its sense lines",
        )


def drawn(make: Callable[[], Mapping[str, Any]]) -> tuple[dict[str, bytes], str | None]:
    """Figures as PNG, or why there are none; a figure that cannot be made never fails a run that is over."""
    try:
        return {name: style.png(figure) for name, figure in make().items()}, None
    except ImportError as error:
        return {}, f"no figures without the package {error.name!r}"
    except Exception as error:
        log.debug("figures", exc_info=True)
        return {}, f"the run is complete, but its figures are not: {describe(error)}"


def _make_folder(folder: Path) -> None:
    """Before anything is measured, not after the first part."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"folder {folder} of the calibration file cannot be made: {error.strerror}",
            fix="choose another with --calibration FILE",
        ) from None


def _discard(run_file: RunFile) -> None:
    """Take away the file of a run that did not come as far as the array: there is nothing in it."""
    run_file.close()
    run_file.path.unlink(missing_ok=True)
