"""The figure of a study shows what its numbers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import style
from experiments.studies.figures import accuracy_png, title_of
from experiments.studies.results import PointResult, over_seeds
from experiments.studies.table import find

STUDY = find("conductance-spread", "nmnist")


def result(value: float, seed: int, accuracy: float, *, failed: bool = False) -> PointResult:
    summary = {
        "dataset": "made-up", "data_synthetic": True, "n_train": 100, "n_test": 50, "honest_accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.05, accuracy + 0.04], "paper_accuracy": 0.99, "spike_rate_per_step": 0.1,
    }  # fmt: skip
    return PointResult(value, seed, None, {}, "no") if failed else PointResult(value, seed, Path("x"), summary)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Axes of each figure, which are drawn all the same."""
    made: list[Any] = []
    whole = style.figure

    def keep(*sizes: Any, **options: Any) -> Any:
        figure, axes = whole(*sizes, **options)
        made.append(axes)
        return figure, axes

    monkeypatch.setattr(style, "figure", keep)
    return made


def test_several_seeds(drawn: list[Any]) -> None:
    results = [result(v, s, 0.8 + 5e3 * v + 0.01 * s) for v in (1e-6, 2e-6) for s in range(3)]
    results.append(result(4e-6, 0, 0.0, failed=True))
    assert accuracy_png(STUDY, results, "a title").startswith(b"\x89PNG")
    (axes,) = drawn
    assert (axes.get_xlabel(), axes.get_title()) == ("spread of G+ - G- (µS)", "a title")
    (bars,) = axes.containers
    np.testing.assert_allclose(bars.lines[0].get_xydata(), [[1, 81.5], [2, 82.0]])
    # ends of the bars are those of the table
    low, high = bars.lines[1]
    ends = np.array([mean["interval"] for mean in over_seeds(results)])
    np.testing.assert_allclose(low.get_ydata().astype(float), 100 * ends[:, 0])
    np.testing.assert_allclose(high.get_ydata().astype(float), 100 * ends[:, 1])
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert len(lines["one seed"].get_xdata()) == 6
    np.testing.assert_allclose(lines["paper's operating point"].get_xdata(), 6.61)
    assert "95 % interval (t, over seeds)" in bars.get_label()


def test_one_seed_and_a_flat_line(drawn: list[Any]) -> None:
    accuracy_png(STUDY, [result(v, 0, 0.995) for v in (1e-6, 2e-6)], "")
    (axes,) = drawn
    assert "Wilson, test samples" in axes.containers[0].get_label()
    low, high = axes.get_ylim()
    assert high - low >= 5.0
    assert high <= 100.0


def test_the_title_says_what_was_run() -> None:
    results = [result(1e-6, 0, 0.0, failed=True), result(2e-6, 0, 0.9), result(2e-6, 1, 0.9)]
    text = title_of(STUDY, "nmnist", results)
    assert text.splitlines() == [
        "Study conductance-spread: nmnist, made-up (synthetic)",
        "100 training and 50 test samples, 2 seeds; 1 failed",
    ]
    assert title_of(STUDY, "nmnist", results[1:2]).endswith(", 1 seed")
