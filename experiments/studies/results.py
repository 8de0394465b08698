"""What a study found: per point, and per value over its seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.lsm.over_seeds import mean_interval
from hil.runfile import open_run

#: numbers of a run's summary that a study keeps of every point
NUMBERS = (
    "honest_accuracy",
    "validation_accuracy",
    "paper_accuracy",
    "spike_rate_per_step",
    "weight_sigma_s",
    "n_train",
    "n_test",
)


@dataclass(frozen=True)
class PointResult:
    """One point, done or not.

    Attributes:
        value: on the axis.
        seed: of the run.
        run_file: complete run file; None where it failed.
        summary: of that run; empty where it failed.
        failure: why there is none; "" otherwise.
        reused: whether the run file was there already.
    """

    value: float
    seed: int
    run_file: Path | None
    summary: dict[str, Any]
    failure: str = ""
    reused: bool = False

    @classmethod
    def read(cls, value: float, seed: int, run_file: Path, *, reused: bool) -> PointResult:
        """From a complete run file.

        Raises:
            DataError: it holds no summary.
        """
        with open_run(run_file) as run:
            return cls(value, seed, run_file, run.results["summary"], reused=reused)

    def described(self) -> dict[str, Any]:
        """As JSON can hold it."""
        found = {name: self.summary.get(name) for name in NUMBERS}
        return {
            "value": self.value,
            "seed": self.seed,
            "run_file": None if self.run_file is None else self.run_file.name,
            "failure": self.failure or None,
            **found,
            "accuracy_interval": self.summary.get("accuracy_interval"),
        }


def over_seeds(results: Sequence[PointResult]) -> list[dict[str, Any]]:
    """Mean accuracy (honest protocol) of every value that has a run, as JSON can hold it.

    The interval is 95 %: over several seeds that of the mean by Student's t, which tells how far chips, noise and
    training differ; of one seed that of Wilson, which tells how many test samples there were.
    """
    found: list[dict[str, Any]] = []
    for value in sorted({result.value for result in results}):
        done = [result for result in results if result.value == value and result.run_file is not None]
        if not done:
            continue
        accuracies = np.array([result.summary["honest_accuracy"] for result in done])
        interval = t_interval(accuracies) if len(done) > 1 else tuple(done[0].summary["accuracy_interval"])
        found.append(
            {
                "value": value,
                "n_seeds": len(done),
                "honest_accuracy": float(accuracies.mean()),
                "interval": list(interval),
                "interval_method": "t over seeds" if len(done) > 1 else "Wilson, test samples",
                "paper_accuracy": float(np.mean([result.summary["paper_accuracy"] for result in done])),
                "spike_rate_per_step": float(np.mean([result.summary["spike_rate_per_step"] for result in done])),
            }
        )
    return found


def t_interval(accuracies: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the mean of two accuracies or more, by Student's t; within 0 and 1."""
    low, high = mean_interval(accuracies.tolist())["interval"]
    return max(low, 0.0), min(high, 1.0)


def as_csv(results: Sequence[PointResult]) -> str:
    """One line per point."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["value", "seed", *NUMBERS, "run_file", "failure"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(result.described() for result in results)
    return text.getvalue()
