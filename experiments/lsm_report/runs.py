"""Runs for a report: found in files and folders, read once, and left out by name where they are of no use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.accounts import TASKS, Activity, BoardUse, NetworkShape, TechnologySettings
from experiments.lsm_report.likeness import array_identity, chip_seed, flat, is_drawn, used_settings
from hil.catalogue import backend_kind
from hil.errors import ConfigError, DataError
from hil.runfile import RunReader, open_run

#: a comparison of two backends is stored under the experiment's name with this at its end
_COMPARED = "-compare"


@dataclass(frozen=True)
class LsmRun:
    """What a report needs of one run.

    Attributes:
        path: the run file, which holds the figures, too.
        experiment: as stored, `lsm-nmnist` or `lsm-nmnist-compare`.
        summary: as the experiment stored it.
        networks: their shapes; none where the run does not tell.
        input_rate: input spikes per line and step of the traced samples, None without.
    """

    path: Path
    run_id: str
    experiment: str
    seed: int
    started_unix_s: float
    config: Mapping[str, Any]
    backend: Mapping[str, Any]
    software: Mapping[str, Any]
    calibration: str | None
    summary: Mapping[str, Any]
    figures: tuple[str, ...]
    networks: tuple[NetworkShape, ...]
    input_rate: float | None

    @property
    def task(self) -> str:
        """Name of the experiment, without what says that it is a comparison."""
        return _task(self.experiment)

    @property
    def is_comparison(self) -> bool:
        """Whether two backends are side by side."""
        return self.experiment.endswith(_COMPARED)

    @property
    def model(self) -> str:
        """What was trained: `lsm`, or a baseline."""
        return str(self.summary.get("model", "lsm"))

    @property
    def dataset(self) -> str:
        """Data set, or both of a pair."""
        return " + ".join(part["dataset"] for part in self.data_parts)

    @property
    def data_parts(self) -> list[Mapping[str, Any]]:
        """What is said about the data: once, or for query and gallery."""
        if "query" in self.summary:
            return [self.summary["query"], self.summary["gallery"]]
        return [self.summary]

    @property
    def is_synthetic(self) -> bool:
        """Whether any of the data come from a model and not from a recording."""
        return any(part.get("data_synthetic", True) for part in self.data_parts)

    @property
    def backend_kind(self) -> str:
        """What answered, as a word."""
        return backend_kind(dict(self.backend))

    @property
    def sizes(self) -> tuple[Any, ...]:
        """How much data: runs on other numbers of samples are other results."""
        names = ("n_train", "n_test", "n_samples", "n_train_pairs", "n_test_seen", "n_test_unseen",
                 "n_repeats")  # fmt: skip
        return tuple((name, self.summary[name]) for name in names if name in self.summary)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that the result depends on, by their full names; without seeds."""
        return {name: value for name, value in self._used.items() if not is_drawn(name, value)}

    @cached_property
    def array_identity(self) -> dict[str, Any]:
        """What answered and how it is corrected, by full names; without the seed of a simulated chip."""
        found = {name: value for name, value in self._identity.items() if not is_drawn(name, value)}
        return {**found, "calibration": self.calibration}

    @property
    def faults(self) -> str:
        """Those that the network avoided, in numbers."""
        faults = self.summary.get("faults")
        if faults is None:
            return "none"
        return ", ".join(f"{name} {number}" for name, number in flat(faults) if number) or "none in the map"

    @property
    def likeness(self) -> tuple[Any, ...]:
        """Equal for runs that differ in nothing but what was drawn; it can be sorted."""
        return (self.experiment, self.dataset, self.is_synthetic, self.sizes, self.model != "lsm", self.model,
                self.backend_kind, self.faults, _text(self.settings), _text(self.array_identity))  # fmt: skip

    @cached_property
    def seeds(self) -> dict[str, Any]:
        """All that was drawn, by full names: the run's seed, those of its settings, and the chip's."""
        drawn = {**self._used, **{f"backend.{name}": value for name, value in self._identity.items()}}
        return {"seed": self.seed, **{name: value for name, value in drawn.items() if is_drawn(name, value)}}

    @property
    def chip_seed(self) -> int | None:
        """Seed that drew the simulated chip; None where there is none."""
        return chip_seed(self.backend)

    @property
    def draw(self) -> str:
        """The seed, and that of the chip where it is another."""
        chip = self.chip_seed
        return str(self.seed) if chip in (None, self.seed) else f"{self.seed}, chip {chip}"

    @cached_property
    def _used(self) -> dict[str, Any]:
        return used_settings(
            self.config, task=self.task, model=self.model, array=self.backend_kind, is_comparison=self.is_comparison
        )

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return array_identity(self.backend)

    def activities(self, technology: TechnologySettings) -> list[Activity]:
        """Of each network; a rate that the run does not hold is the technology's guess."""
        rates = self.summary.get("spike_rate_per_step", self.summary.get("spike_rate"))
        inputs = technology.input_rate if self.input_rate is None else self.input_rate
        by_network = list(rates.values()) if isinstance(rates, Mapping) else [rates] * len(self.networks)
        if len(by_network) != len(self.networks) or None in by_network:
            return []
        return [Activity(inputs, float(rate), self.input_rate is not None) for rate in by_network]

    def board_use(self, technology: TechnologySettings) -> BoardUse | None:
        """What one product took on the board; None where none answered, or nothing was counted."""
        return BoardUse.counted(self.summary.get("telemetry") or {}, technology)


@dataclass(frozen=True)
class LeftOut:
    """A file of a folder that is not in the report."""

    path: Path
    reason: str


def collect(named: Sequence[Path]) -> tuple[list[LsmRun], list[LeftOut]]:
    """Read all runs. Of a folder, what is of no use is left out and listed; a file that is named must be of use.

    Args:
        named: run files, and folders of them.

    Raises:
        ConfigError: a named file is of another experiment or did not end well, or there is no run at all.
        DataError: a named file is no run file, or damaged.
    """
    runs: dict[Path, LsmRun] = {}
    left_out: dict[Path, LeftOut] = {}
    for path, is_named in _files(named):
        found = _read(path, is_named)
        if isinstance(found, LsmRun):
            runs[path.resolve()] = found
        else:
            left_out[path.resolve()] = found
    newest: dict[tuple[Any, ...], LsmRun] = {}
    for path, run in sorted(runs.items(), key=lambda item: (item[1].started_unix_s, item[1].run_id), reverse=True):
        key = (*run.likeness, _text(run.seeds))
        if key in newest:
            left_out[path] = LeftOut(run.path, f"same settings and seed as {newest[key].run_id}, which is newer")
        else:
            newest[key] = run
    if not newest:
        reasons = "; ".join(f"{one.path.name}: {one.reason}" for one in left_out.values())
        raise ConfigError(
            f"no run for a report in {', '.join(map(str, named))}" + (f" ({reasons})" if reasons else ""),
            fix="run an experiment first, such as hil lsm nmnist",
        )
    ordered = sorted(newest.values(), key=lambda run: (run.started_unix_s, run.run_id))
    return ordered, sorted(left_out.values(), key=lambda one: one.path)


def _files(named: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    for path in named:
        if not path.is_dir():
            yield path, True
            continue
        for inside in sorted(path.glob("*.h5")):
            yield inside, False


def _read(path: Path, is_named: bool) -> LsmRun | LeftOut:
    try:
        with open_run(path) as reader:
            reason = _unfit(reader)
            if not reason:
                return _run_of(reader)
    except DataError as error:
        if is_named:
            raise
        return LeftOut(path, error.what)
    if is_named:
        raise ConfigError(f"{path} {reason}", fix="leave it out, or name the folder: what is of no use is then listed")
    return LeftOut(path, reason)


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def _task(experiment: str) -> str:
    return experiment.removesuffix(_COMPARED)


def _unfit(reader: RunReader) -> str:
    if _task(reader.experiment) not in TASKS:
        return f"is a run of {reader.experiment}, which has no place in this report"
    if reader.status != "complete":
        return f"is {reader.status}: {reader.cause or 'its process was killed, or still runs'}"
    if not isinstance(reader.results.get("summary"), dict):
        return "holds no summary"
    return ""


def _run_of(reader: RunReader) -> LsmRun:
    results = reader.results
    summary = results["summary"]
    inputs = results.get("trace_inputs")
    return LsmRun(
        path=reader.path,
        run_id=reader.run_id,
        experiment=reader.experiment,
        seed=reader.seed,
        started_unix_s=reader.started_unix_s,
        config=reader.config,
        backend=reader.backend,
        software=reader.software,
        calibration=reader.calibration,
        summary=summary,
        figures=reader.figures,
        networks=_networks(_task(reader.experiment), reader.config, summary, results),
        input_rate=None if inputs is None else float(inputs.mean()),
    )


def _networks(
    task: str, config: Mapping[str, Any], summary: Mapping[str, Any], results: Mapping[str, Any]
) -> tuple[NetworkShape, ...]:
    """From the run's own account, or from what it says about its modalities or its tile."""
    if summary.get("operations"):
        return tuple(NetworkShape(**shape) for shape in summary["operations"]["networks"])
    sides = [summary[side] for side in ("query", "gallery") if side in summary]
    paper = TASKS[task].networks[0]
    if sides and all("n_steps" in side for side in sides):
        outputs = summary.get("projection_outputs", paper.n_outputs)
        return tuple(NetworkShape(side["n_inputs"], side["n_neurons"], side["n_steps"], outputs) for side in sides)
    if sides or "tile_rows" not in results:
        return ()
    neurons = config["lsm"]["n_neurons"]
    inputs, table = results.get("trace_inputs"), results.get("confusion_matrix")
    return (
        NetworkShape(
            n_inputs=len(results["tile_rows"]) - neurons,
            n_neurons=neurons,
            n_steps=paper.n_steps if inputs is None else inputs.shape[1],
            n_outputs=paper.n_outputs if table is None else len(table),
        ),
    )
