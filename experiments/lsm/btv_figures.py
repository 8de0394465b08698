"""Figure of brain to vision: unseen letters, split by split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import style
from experiments.style import COLOURS


def splits_png(splits: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> bytes:
    """Accuracy of the unseen classes of every split by both protocols, against chance.

    Args:
        splits: summaries, see `experiments.lsm.zero_shot.summary`.
        names: of the classes.
    """
    figure, axes = style.figure(1.6 + 0.75 * len(splits), 4.0)
    at = np.arange(len(splits))
    honest = np.array([one["honest"]["unseen"]["accuracy"] for one in splits])
    low, high = np.array([one["honest"]["unseen"]["interval"] for one in splits]).T
    paper = [one["paper"]["unseen"]["accuracy"] for one in splits]
    error = 100 * np.clip([honest - low, high - honest], 0, None)
    axes.bar(at, 100 * honest, 0.6, yerr=error, capsize=3, color=COLOURS[0], label="honest protocol")
    axes.plot(at, 100 * np.array(paper), "D", color=COLOURS[3], label="paper protocol (selects on the test)")
    axes.axhline(100 * splits[0]["chance"]["unseen"], color=COLOURS[7], linestyle="--", label="chance")
    axes.set_xticks(at, ["".join(names[k] for k in one["unseen_classes"]) for one in splits])
    axes.set(xlabel="unseen letters (first: the published split)", ylabel="right, %", ylim=(0, 100))
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    style.title(axes, "Retrieval among unseen letters, 95 % intervals of the queries")
    return style.png(figure)
