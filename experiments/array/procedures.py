"""Which procedures there are: one table that the command line, the driver and the tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array import disturb, endurance, form, health, iv, noise, program, read, retention, switch
from experiments.array.bench import Bench
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan
from experiments.array.record import Request
from experiments.array.settings import ArraySettings
from hil.backend import BackendInfo
from hil.config import Settings
from hil.errors import ConfigError


@dataclass(frozen=True)
class Procedure:
    """One procedure.

    Attributes:
        verb: its name, and that of its section below `array`.
        run: does it: `run(bench, mask, settings)`, with `target_s` after them if it has a target.
        plan: what it would do: `plan(mask, settings, info, cells_per_step)`, with `target_s` likewise.
        has_target: whether it needs a target conductance per cell.
    """

    verb: str
    run: Callable[..., Outcome]
    plan: Callable[..., Plan]
    has_target: bool = False

    def settings(self, array: ArraySettings) -> Settings:
        """Its section."""
        return getattr(array, self.verb)

    def planned(self, request: Request, array: ArraySettings, info: BackendInfo) -> Plan:
        """What it would do; raises what can be known to be wrong before anything is applied."""
        arguments = (request.mask, self.settings(array), info, array.cells_per_step)
        return self.plan(*arguments, request.target_s) if self.has_target else self.plan(*arguments)

    def execute(self, bench: Bench, request: Request, array: ArraySettings) -> Outcome:
        """Do it, or what remains of it."""
        arguments: tuple[Any, ...] = (bench, request.mask, self.settings(array))
        return self.run(*arguments, request.target_s) if self.has_target else self.run(*arguments)


PROCEDURES: dict[str, Procedure] = {
    procedure.verb: procedure
    for procedure in (
        Procedure("read", read.read, read.plan),
        Procedure("form", form.form, form.plan),
        Procedure("set", switch.set_cells, switch.plan_set),
        Procedure("reset", switch.reset_cells, switch.plan_reset),
        Procedure("program", program.program, program.plan, has_target=True),
        Procedure("iv", iv.iv, iv.plan),
        Procedure("noise", noise.noise, noise.plan),
        Procedure("retention", retention.retention, retention.plan),
        Procedure("endurance", endurance.endurance, endurance.plan),
        Procedure("disturb", disturb.disturb, disturb.plan),
        Procedure("health", health.health, health.plan),
    )
}


def procedure(verb: str) -> Procedure:
    """The procedure of that name."""
    try:
        return PROCEDURES[verb]
    except KeyError:
        raise ConfigError(f"there is no procedure {verb!r}", fix=f"choose one of {', '.join(PROCEDURES)}") from None


def no_target(mask: NDArray[np.bool_]) -> Request:
    """A request that says where, not what."""
    return Request(mask, np.full(mask.shape, np.nan, np.float32))
