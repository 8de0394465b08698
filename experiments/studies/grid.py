"""The grid of a study: one point per value and seed, with its whole configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.studies.table import Study
from hil.errors import ConfigError, DataError
from hil.runfile import RunReader, open_run


@dataclass(frozen=True)
class Point:
    """One run of the experiment.

    Attributes:
        value: on the axis.
        seed: draws chip, noise and training.
        settings: the whole configuration (a pydantic model).
    """

    value: float
    seed: int
    settings: Any


def parse_values(text: str) -> tuple[float, ...]:
    """Values of a grid, as in "0,0.05,0.1".

    Raises:
        ConfigError: one is no number, or there twice.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--values {text!r}: {error}", fix="write numbers with commas between them, as in 0,0.05,0.1"
        ) from None
    if len(set(values)) < len(values):
        raise ConfigError(f"--values {text!r} names a value twice", fix="name each once; --seeds repeats them all")
    return tuple(sorted(values))


def make_grid(
    study: Study, values: Sequence[float], n_seeds: int, configured: Callable[[list[str]], Any]
) -> list[Point]:
    """Every value with every seed, seed by seed: a study that is cut short then has all values with fewer seeds.

    Args:
        study: the axis.
        values: its grid.
        n_seeds: seeds 0 to n_seeds - 1.
        configured: makes the whole configuration from overrides.

    Raises:
        ConfigError: no seed, or a value that a setting does not take.
    """
    if n_seeds < 1:
        raise ConfigError(f"--seeds {n_seeds} is below 1", fix="run one seed at least; three tell how far they differ")
    by_value = [(value, configured(study.overrides(value))) for value in values]
    return [Point(value, seed, settings) for seed in range(n_seeds) for value, settings in by_value]


#: what makes two runs the same: experiment, backend, seed, configuration
Key = tuple[str, str, int, str]


def key_of(point: Point, experiment: str, backend: str) -> Key:
    """Of a point, as `runs_in` finds it."""
    return (experiment, backend, point.seed, _canonical(point.settings.model_dump(mode="json")))


def runs_in(folder: Path) -> dict[Key, Path]:
    """Run files of a folder that are complete; of equal ones the newest."""
    keys = {path: _key_of_complete(path) for path in sorted(folder.glob("*.h5"))}
    return {key: path for path, key in keys.items() if key is not None}


def _key_of_complete(path: Path) -> Key | None:
    try:
        with open_run(path) as run:
            return _key_of_run(run) if run.status == "complete" else None
    except DataError:
        return None  # cut off while it was made


def _key_of_run(run: RunReader) -> Key:
    return (run.experiment, str(run.backend.get("name")), run.seed, _canonical(run.config))


def _canonical(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)
