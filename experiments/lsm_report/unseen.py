"""Retrieval among unseen classes over seeds, beside what chance would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from experiments.lsm.over_seeds import chance
from experiments.lsm_report.accuracy_tables import WHERE, where
from experiments.lsm_report.groups import Group
from experiments.lsm_report.published import ZERO_SHOT, Published
from experiments.lsm_report.table import Column, Table, interval, percent, scored


@dataclass(frozen=True)
class Unseen:
    """Accuracies of one group among unseen classes.

    Attributes:
        honest, paper: of each seed, by the two protocols.
        chance: 1 / number of classes.
        chance_interval: where the mean over the seeds lies in 95 % of cases if chance names the classes found.
        p_value: two-sided, of a mean at least as far from chance.
        published: by the paper protocol.
    """

    group: Group
    honest: tuple[float, ...]
    paper: tuple[float, ...]
    chance: float
    chance_interval: tuple[float, float]
    p_value: float
    published: Published | None


def unseen_of(group: Group) -> Unseen:
    """Of a group of zero-shot runs."""
    run = group.first
    by_chance = chance([run.summary["honest"]["unseen"]["confusion"] for run in group.runs])
    low, high = by_chance["chance_interval"]
    return Unseen(
        group=group,
        honest=group.score(lambda summary: summary["honest"]["unseen"]["accuracy"]).values,
        paper=group.score(lambda summary: summary["paper"]["unseen"]["accuracy"]).values,
        chance=1 / len(run.summary["unseen_classes"]),
        chance_interval=(low, high),
        p_value=by_chance["p_value"],
        published=ZERO_SHOT.get((run.task, run.model), (None, None))[1],
    )


def unseen_table(groups: Sequence[Group]) -> Table:
    """One row for each group of zero-shot runs."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        if group.first.is_comparison or "query" not in group.first.summary:
            continue
        found = unseen_of(group)
        score = group.score(lambda summary: summary["honest"]["unseen"]["accuracy"])
        reached = None if found.published is None else found.published.best_match
        rows.append({
            **where(group), "honest": score, "least": min(found.honest), "most": max(found.honest),
            "chance": found.chance, "chance_interval": found.chance_interval,
            "p_value": found.p_value,
            "reaching_honest": None if reached is None else _share(found.honest, reached),
            "reaching_paper": None if reached is None else _share(found.paper, reached),
        })  # fmt: skip
    columns = (
        *WHERE, Column("n_seeds", "seeds"), Column("honest", "honest: mean", scored), Column("least", "least", percent),
        Column("most", "most", percent), Column("chance", "chance", percent),
        Column("chance_interval", "95 % by chance", interval), Column("p_value", "p", "{:.3g}".format),
        Column("reaching_honest", "as published: honest"),
        Column("reaching_paper", "... paper protocol"),
    )  # fmt: skip
    return Table(
        "unseen", "Unseen classes over seeds", columns, rows,
        "Test items of one class lie together, so a run gets whole classes right or wrong at once: by chance, a seed "
        "with two unseen classes is as likely to be at 50 % + d as at 50 % - d, whatever the number of test samples. "
        "The interval by chance, and p of the honest mean, are those of naming the classes found in any order, for "
        "each seed. Chance is reckoned for these unseen classes and these recordings, which all seeds share; a lean "
        "that is common to all seeds is not covered. A single seed has no interval of its own. As published: seeds "
        "that reach the published figure.",
    )  # fmt: skip


def _share(values: Sequence[float], least: float) -> str:
    return f"{sum(value >= least for value in values)} of {len(values)}"
