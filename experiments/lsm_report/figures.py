"""Figures over many runs: accuracy beside the paper's, and the distribution of what chance decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import style
from experiments.accounts import TASKS
from experiments.lsm_report.accuracy_tables import own_interval
from experiments.lsm_report.groups import Group
from experiments.lsm_report.published import CLASSES, SUPERVISED, ZERO_SHOT, Published
from experiments.lsm_report.unseen import Unseen, unseen_of

CAPTIONS = {
    "accuracy": (
        "Filled: honest protocol, mean over seeds with its 95 % interval; unseen classes of a single seed have none. "
        "Open: paper protocol. Crosses: published, by the paper protocol, on the paper's data."
    ),
    "unseen": (
        "Retrieval among unseen classes, each seed a dot. Grey: where the mean over as many seeds lies in 95 % of "
        "cases if chance decides which unseen class is taken for which. Crosses: published."
    ),
}
_HONEST, _PAPER, _PUBLISHED = style.COLOURS[0], style.COLOURS[3], style.COLOURS[8]
_HEIGHT_IN, _MARGIN_IN, _WIDTH_IN = 0.36, 1.0, 8.0


def draw(groups: Sequence[Group]) -> dict[str, Any]:
    """Figures by name; those with nothing to show are left out."""
    single = [group for group in groups if not group.first.is_comparison]
    found = {}
    if single:
        found["accuracy"] = _accuracy(single)
    zero_shot = [group for group in single if "query" in group.first.summary]
    if zero_shot:
        found["unseen"] = _unseen([unseen_of(group) for group in zero_shot])
    return found


def _accuracy(groups: Sequence[Group]) -> Any:
    lines = [line for group in groups for line in _lines(group)]
    made, axes = style.figure(_WIDTH_IN, _MARGIN_IN + _HEIGHT_IN * len(lines))
    for y, (_, group, honest, paper, published) in enumerate(lines):
        score = group.score(honest[0], honest[1])
        low, high = score.interval or (score.mean, score.mean)
        axes.plot([100 * low, 100 * high], [y, y], color=_HONEST, linewidth=2)
        axes.plot(100 * score.mean, y, "o", color=_HONEST, label="honest protocol" if y == 0 else None)
        axes.plot(
            100 * group.score(paper).mean, y, "o", markerfacecolor="none", color=_PAPER,
            label="paper protocol" if y == 0 else None,
        )  # fmt: skip
        if published is not None:
            axes.plot(100 * published.best_match, y, "x", color=_PUBLISHED)
    axes.set_yticks(range(len(lines)), [line[0] for line in lines], fontsize=8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel("accuracy (%)")
    axes.grid(axis="x", linewidth=0.4)
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return made


def _name(group: Group) -> str:
    apart = f"; {group.apart_text}" if group.apart_text else ""
    return f"{TASKS[group.first.task].title}, {group.first.model}\n{group.data}{apart}"


def _lines(group: Group) -> list[tuple[str, Group, Any, Any, Published | None]]:
    """Label, group, honest value and its own interval, paper value, published figure."""
    run = group.first
    name = _name(group)
    if "query" not in run.summary:
        return [(
            name, group, (lambda summary: summary["honest_accuracy"], run.summary.get("accuracy_interval")),
            lambda summary: summary["paper_accuracy"], SUPERVISED.get((run.task, run.model)),
        )]  # fmt: skip
    published = ZERO_SHOT.get((run.task, run.model), (None, None))
    return [
        (
            f"{name}: {classes}", group,
            (
                lambda summary, c=classes: summary["honest"][c]["accuracy"],
                own_interval(classes, run.summary["honest"][classes]),
            ),
            lambda summary, c=classes: summary["paper"][c]["accuracy"], figure,
        )
        for classes, figure in zip(CLASSES, published, strict=True)
    ]  # fmt: skip


def _unseen(found: Sequence[Unseen]) -> Any:
    made, axes = style.figure(_WIDTH_IN, _MARGIN_IN + 2 * _HEIGHT_IN * len(found))
    rng = np.random.default_rng(0)
    for y, one in enumerate(found):
        low, high = one.chance_interval
        axes.fill_betweenx([y - 0.4, y + 0.4], 100 * low, 100 * high, color=style.MISSING, linewidth=0)
        for values, colour, shift, name in (
            (one.honest, _HONEST, -0.18, "honest protocol"), (one.paper, _PAPER, 0.18, "paper protocol")
        ):  # fmt: skip
            spread = rng.uniform(-0.1, 0.1, len(values)) if len(values) > 1 else 0
            axes.plot(
                100 * np.array(values), y + shift + spread, ".", color=colour, markersize=5,
                label=name if y == 0 else None,
            )  # fmt: skip
            axes.plot([100 * np.mean(values)] * 2, [y + shift - 0.14, y + shift + 0.14], color=colour, linewidth=2)
        axes.plot([100 * one.chance] * 2, [y - 0.4, y + 0.4], color="black", linewidth=0.8, linestyle="--")
        if one.published is not None:
            axes.plot(100 * one.published.best_match, y, "x", color=_PUBLISHED)
    labels = [_name(one.group) for one in found]
    axes.set_yticks(range(len(found)), labels, fontsize=8)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlabel("accuracy among unseen classes (%), dashed: chance")
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return made
