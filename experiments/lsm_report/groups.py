"""Runs of one experiment that differ in nothing but their seed, and the mean over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.accounts import TASKS
from experiments.lsm.over_seeds import mean_interval
from experiments.lsm_report.runs import LsmRun

#: settings that a table names, at most
_MOST_NAMED = 5


@dataclass(frozen=True)
class Score:
    """A number of several runs.

    Attributes:
        values: of each run.
        mean: over the runs.
        interval: 95 %: of the mean, by Student's t; of a single run, the run's own. None where a run has none.
        interval_of: what the interval covers: the seeds, or the test samples; None without one.
    """

    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    interval_of: str | None

    @classmethod
    def of(cls, values: Sequence[float], own_interval: Sequence[float] | None) -> Score:
        """Of fractions; `own_interval` is that of the first run."""
        if len(values) == 1:
            own = None if own_interval is None else (own_interval[0], own_interval[1])
            return cls(tuple(values), values[0], own, None if own is None else "test samples")
        found = mean_interval(values)
        low, high = found["interval"]
        return cls(tuple(values), found["mean"], (max(0.0, low), min(1.0, high)), "seeds")

    @property
    def n(self) -> int:
        """Runs."""
        return len(self.values)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        interval = None if self.interval is None else list(self.interval)
        return {
            "mean": self.mean, "interval": interval, "interval_of": self.interval_of, "n_seeds": self.n,
            "values": list(self.values),
        }  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, in the order of their seeds.

    Attributes:
        apart: what tells this group from others that would be called the same, by name.
    """

    number: int
    runs: tuple[LsmRun, ...]
    apart: Mapping[str, Any]

    @property
    def first(self) -> LsmRun:
        """The run that stands for what all have in common."""
        return self.runs[0]

    @property
    def title(self) -> str:
        """For people."""
        run = self.first
        kind = ", two arrays side by side" if run.is_comparison else ""
        apart = f", {self.apart_text}" if self.apart_text else ""
        return f"{TASKS[run.task].title}{kind}: {run.model}, {self.data}, {self.array}{apart}"

    @property
    def apart_text(self) -> str | None:
        """What tells it apart, in short: `lsm.n_neurons=50`; None where nothing has to."""
        named = [f"{name}={_shown(value)}" for name, value in list(self.apart.items())[:_MOST_NAMED]]
        if len(self.apart) > _MOST_NAMED:
            named.append(f"and {len(self.apart) - _MOST_NAMED} more: group {self.number} under Configuration")
        return ", ".join(named) or None

    @property
    def array(self) -> str:
        """Kind of what answered."""
        kind = self.first.backend_kind
        return "none, on the host" if kind == "none" else kind

    @property
    def data(self) -> str:
        """Data set, marked where it is synthetic."""
        return f"{self.first.dataset} (synthetic)" if self.first.is_synthetic else self.first.dataset

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs; one that was run on several chips is there several times."""
        return tuple(run.seed for run in self.runs)

    @property
    def draws(self) -> tuple[str, ...]:
        """Seeds of the runs, each with that of its chip where it is another."""
        return tuple(run.draw for run in self.runs)

    def score(self, value_of: Callable[[Mapping[str, Any]], float], own: Sequence[float] | None = None) -> Score:
        """Of what `value_of` takes from the summaries; `own` is the interval of the first run."""
        return Score.of([float(value_of(run.summary)) for run in self.runs], own)


def groups_of(runs: Sequence[LsmRun]) -> list[Group]:
    """Sort runs into groups: in the paper's order of tasks, the LSM before its baselines."""
    found: dict[tuple[Any, ...], list[LsmRun]] = {}
    order = list(TASKS)
    for run in runs:
        found.setdefault((order.index(run.task), *run.likeness), []).append(run)
    firsts = [found[key][0] for key in sorted(found)]
    return [
        Group(number, tuple(sorted(found[key], key=_order)), _apart(found[key][0], firsts))
        for number, key in enumerate(sorted(found), start=1)
    ]


def _order(run: LsmRun) -> tuple[int, int, float]:
    return run.seed, -1 if run.chip_seed is None else run.chip_seed, run.started_unix_s


def _apart(run: LsmRun, firsts: Sequence[LsmRun]) -> dict[str, Any]:
    """Of one run of a group, what differs among one of each group that looks the same in a table."""
    alike = [other for other in firsts if _looks(other) == _looks(run)]
    found = _differing(run, alike, _asked)
    # An identity repeats settings in its own words: it is named only where they do not tell all groups apart.
    if len({_text(_differing(other, alike, _asked)) for other in alike}) < len(alike):
        found |= _differing(run, alike, _answered)
    return found


def _looks(run: LsmRun) -> tuple[Any, ...]:
    return run.experiment, run.model, run.dataset, run.is_synthetic, run.backend_kind


def _asked(run: LsmRun) -> dict[str, Any]:
    return {**run.settings, "faults": run.faults, "calibration": run.calibration}


def _answered(run: LsmRun) -> dict[str, Any]:
    return {**{f"backend.{name}": value for name, value in run.array_identity.items()}, **dict(run.sizes)}


def _differing(run: LsmRun, alike: Sequence[LsmRun], facts_of: Callable[[LsmRun], Mapping[str, Any]]) -> dict[str, Any]:
    facts = [facts_of(other) for other in alike]
    own = facts_of(run)
    names = sorted({name for one in facts for name in one})
    return {name: own.get(name) for name in names if len({_shown(one.get(name)) for one in facts}) > 1}


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
