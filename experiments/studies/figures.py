"""The figure of a study: accuracy over its axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments import style
from experiments.studies.results import PointResult, over_seeds
from experiments.studies.table import Study


def accuracy_png(study: Study, results: Sequence[PointResult], title: str) -> bytes:
    """Mean accuracy with its interval, every run as a dot, the paper's operating point as a line; PNG.

    Args:
        study: the axis.
        results: at least one with a run.
        title: what was run.
    """
    figure, axes = style.figure(6.4, 4.4)
    means = over_seeds(results)
    x = np.array([mean["value"] for mean in means]) * study.scale
    y = 100.0 * np.array([mean["honest_accuracy"] for mean in means])
    ends = 100.0 * np.array([mean["interval"] for mean in means])
    several = any(mean["n_seeds"] > 1 for mean in means)
    axes.axvline(
        study.paper * study.scale, color="black", linewidth=0.8, linestyle="--", label="paper's operating point"
    )
    axes.errorbar(
        x, y, yerr=[y - ends[:, 0], ends[:, 1] - y], color=style.COLOURS[0], marker="o", markersize=5, capsize=3,
        linewidth=1.2, label=f"mean, 95 % interval ({'t, over seeds' if several else 'Wilson, test samples'})",
    )  # fmt: skip
    if several:
        runs = [result for result in results if result.run_file is not None]
        axes.plot(
            [run.value * study.scale for run in runs], [100.0 * run.summary["honest_accuracy"] for run in runs],
            linestyle="none", marker="x", markersize=4, color=style.COLOURS[1], label="one seed", zorder=3,
        )  # fmt: skip
    axes.set(xlabel=study.label, ylabel="test accuracy, honest protocol (%)")
    # A flat line is flat: at least ten points of accuracy are shown.
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, max((high - low) / 2, 5.0)
    axes.set_ylim(max(middle - half, 0.0), min(middle + half, 100.0))
    axes.grid(visible=True, linewidth=0.3)
    style.title(axes, title)
    axes.legend(fontsize=8, loc="best")
    return style.png(figure)


def title_of(study: Study, experiment: str, results: Sequence[PointResult]) -> str:
    """What was run, in two lines."""
    done = [result for result in results if result.run_file is not None]
    summary = done[0].summary
    n_seeds = max(mean["n_seeds"] for mean in over_seeds(results))
    synthetic = " (synthetic)" if summary["data_synthetic"] else ""
    failed = f"; {len(results) - len(done)} failed" if len(done) < len(results) else ""
    return (
        f"Study {study.name}: {experiment}, {summary['dataset']}{synthetic}\n"
        f"{summary['n_train']} training and {summary['n_test']} test samples, "
        f"{n_seeds} seed{'' if n_seeds == 1 else 's'}{failed}"
    )
