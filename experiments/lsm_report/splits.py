"""Table of other choices of unseen classes than the published one, where runs made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.lsm.over_seeds import chance
from experiments.lsm_report.accuracy_tables import WHERE, where
from experiments.lsm_report.groups import Group
from experiments.lsm_report.table import Column, Row, Table, interval, percent, scored


def splits_table(groups: Sequence[Group]) -> Table:
    """One row for each split of a group of runs, and one for all but the published one together."""
    rows: list[Row] = []
    for group in groups:
        splits = group.first.summary.get("splits") or []
        for number, split in enumerate(splits):
            name = "published" if number == 0 else "window"
            unseen = ", ".join(map(str, split["unseen_classes"]))
            rows.append({**where(group), "split": name, "classes": unseen, **_judged(group, [number])})
        if len(splits) > 2:
            others = list(range(1, len(splits)))
            rows.append({**where(group), "split": "all windows", **_judged(group, others)})
    columns = (
        *WHERE, Column("split", "split"), Column("classes", "unseen classes"), Column("n_seeds", "seeds"),
        Column("honest", "unseen, honest", scored), Column("chance", "chance", percent),
        Column("chance_interval", "95 % by chance", interval), Column("p_value", "p", "{:.3g}".format),
        Column("paper", "unseen, paper protocol", scored),
    )  # fmt: skip
    return Table(
        "splits", "Which classes are unseen", columns, rows,
        "The published split is the best of all windows that were tried on the test data; every window here is shown. "
        "Class 0 is the letter a. Chance as in the table above; a single seed has no interval of its own.",
    )  # fmt: skip


def _judged(group: Group, numbers: Sequence[int]) -> dict[str, Any]:
    """Mean over some splits, of each seed, and where chance would put it."""

    def mean_of(summary: Mapping[str, Any], protocol: str) -> float:
        found = [summary["splits"][number][protocol]["unseen"]["accuracy"] for number in numbers]
        return sum(found) / len(found)

    first = [group.first.summary["splits"][number] for number in numbers]
    by_chance = chance(
        [run.summary["splits"][number]["honest"]["unseen"]["confusion"] for run in group.runs for number in numbers]
    )
    return {
        "honest": group.score(lambda summary: mean_of(summary, "honest")),
        "paper": group.score(lambda summary: mean_of(summary, "paper")),
        "chance": first[0]["chance"]["unseen"],
        "chance_interval": by_chance["chance_interval"],
        "p_value": by_chance["p_value"],
    }
