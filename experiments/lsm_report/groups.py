"""Runs of one experiment that differ in nothing but their seed, and the mean over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.accounts import TASKS
from experiments.lsm.over_seeds import mean_interval
from experiments.lsm_report.runs import LsmRun

#: sections of the settings that a task uses and others do not; a run file holds them all
_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "lsm-nmnist": ("data", "readout"),
    "lsm-ntidigits": ("audio", "readout", "ntidigits"),
    "lsm-atv": ("data", "audio", "atv", "projection"),
    "lsm-btv": ("brain", "letters", "btv", "projection"),
}
#: sections that no LSM run uses
_FOREIGN = ("array", "energy", "study")


@dataclass(frozen=True)
class Score:
    """A number of several runs.

    Attributes:
        values: of each run.
        mean: over the runs.
        interval: 95 %: of the mean, by Student's t; of a single run, the run's own. None where a run has none.
        interval_of: what the interval covers: the seeds, or the test samples.
    """

    values: tuple[float, ...]
    mean: float
    interval: tuple[float, float] | None
    interval_of: str

    @classmethod
    def of(cls, values: Sequence[float], own_interval: Sequence[float] | None) -> Score:
        """Of fractions; `own_interval` is that of the first run."""
        if len(values) == 1:
            own = None if own_interval is None else (own_interval[0], own_interval[1])
            return cls(tuple(values), values[0], own, "test samples")
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
    """Runs of one experiment, model, data set, amount of data and kind of array, in the order of their seeds."""

    number: int
    runs: tuple[LsmRun, ...]

    @property
    def first(self) -> LsmRun:
        """The run that stands for what all have in common."""
        return self.runs[0]

    @property
    def title(self) -> str:
        """For people."""
        run = self.first
        kind = ", two arrays side by side" if run.is_comparison else ""
        return f"{TASKS[run.task].title}{kind}: {run.model}, {self.data}, {self.array}"

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
        """Of the runs."""
        return tuple(run.seed for run in self.runs)

    @cached_property
    def differing(self) -> dict[str, list[Any]]:
        """Settings of this task in which the runs differ, with the value of each run; None where it has none."""
        flat = [_flat(run.config) for run in self.runs]
        unused = {section for sections in _SECTIONS.values() for section in sections} | set(_FOREIGN)
        unused -= set(_SECTIONS[self.first.task])
        names = sorted({name for one in flat for name in one if name.split(".")[0] not in unused})
        found = {name: [one.get(name) for one in flat] for name in names}
        return {name: values for name, values in found.items() if len({json.dumps(value) for value in values}) > 1}

    def score(self, value_of: Callable[[Mapping[str, Any]], float], own: Sequence[float] | None = None) -> Score:
        """Of what `value_of` takes from the summaries; `own` is the interval of the first run."""
        return Score.of([float(value_of(run.summary)) for run in self.runs], own)


def groups_of(runs: Sequence[LsmRun]) -> list[Group]:
    """Sort runs into groups: in the paper's order of tasks, the LSM before its baselines."""
    found: dict[tuple[Any, ...], list[LsmRun]] = {}
    order = list(TASKS)
    for run in runs:
        key = (order.index(run.task), run.is_comparison, run.dataset, run.sizes, run.model != "lsm", run.model,
               run.backend_kind)  # fmt: skip
        found.setdefault(key, []).append(run)
    return [
        Group(number, tuple(sorted(found[key], key=lambda run: (run.seed, run.started_unix_s))))
        for number, key in enumerate(sorted(found), start=1)
    ]


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
