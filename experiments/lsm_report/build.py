"""A report as data: runs in groups, tables, and what was left out. `html` makes the page of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.accounts import TechnologySettings
from experiments.lsm_report.accuracy_tables import accuracy_tables, where
from experiments.lsm_report.compared_tables import compared_table
from experiments.lsm_report.cost_tables import cost_tables
from experiments.lsm_report.groups import Group, groups_of
from experiments.lsm_report.runs import LeftOut, collect
from experiments.lsm_report.splits import splits_table
from experiments.lsm_report.table import Table
from experiments.lsm_report.unseen import unseen_table


@dataclass(frozen=True)
class LsmReport:
    """What a report says.

    Attributes:
        groups: runs that differ in nothing but their seed.
        left_out: files of the folders that are not in it.
        accuracies, costs: tables with at least one row.
        technology: constants that energies were counted with.
    """

    groups: tuple[Group, ...]
    left_out: tuple[LeftOut, ...]
    accuracies: tuple[Table, ...]
    costs: tuple[Table, ...]
    technology: TechnologySettings

    @property
    def n_runs(self) -> int:
        """Runs in the report."""
        return sum(len(group.runs) for group in self.groups)

    def as_json(self) -> dict[str, Any]:
        """Tables as data."""
        return {
            "groups": [
                {**where(group), "runs": [run.run_id for run in group.runs], "apart": dict(group.apart)}
                for group in self.groups
            ],
            "left_out": [{"path": str(one.path), "reason": one.reason} for one in self.left_out],
            "tables": {table.name: table.as_json() for table in (*self.accuracies, *self.costs)},
            "energy_settings": self.technology.model_dump(mode="json"),
        }


def build(named: Sequence[Path], technology: TechnologySettings | None = None) -> LsmReport:
    """Read the runs and count.

    Args:
        named: run files, and folders of them.
        technology: constants of energy; None: the defaults.

    Raises:
        ConfigError: a named file is of another experiment or did not end well, or there is no run at all.
        DataError: a named file is no run file, or damaged.
    """
    technology = technology or TechnologySettings()
    runs, left_out = collect(named)
    groups = groups_of(runs)
    others = (unseen_table(groups), splits_table(groups), compared_table(groups, technology))
    return LsmReport(
        groups=tuple(groups),
        left_out=tuple(left_out),
        accuracies=(*accuracy_tables(groups), *(table for table in others if table.rows)),
        costs=tuple(cost_tables(groups, technology)),
        technology=technology,
    )
