"""Table of two arrays side by side: can the one stand in for the other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.accounts import TechnologySettings
from experiments.lsm_report.accuracy_tables import WHERE, where
from experiments.lsm_report.groups import Group
from experiments.lsm_report.table import Column, Table, duration, interval, percent, points


def compared_table(groups: Sequence[Group], technology: TechnologySettings) -> Table:
    """One row for each run; empty where no run compares."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        for run in group.runs if group.first.is_comparison else ():
            summary, use = run.summary, run.board_use(technology)
            against = run.backend.get("against", {})
            rows.append({
                **where(group), "against": against.get("kind", against.get("name")), "seed": run.seed, "draw": run.draw,
                "n_samples": summary.get("n_samples"),
                "accuracy": summary.get("honest_accuracy", summary.get("accuracy")),
                "accuracy_against": summary.get("honest_accuracy_against", summary.get("accuracy_against")),
                "difference": summary.get("accuracy_difference"),
                "difference_interval": summary.get("accuracy_difference_interval"),
                "correlations": _correlations(summary),
                "product_time_s": None if use is None else use.time_s,
                "product_conversions": None if use is None else use.conversions, "run": run.run_id,
            })  # fmt: skip
    columns = (
        *WHERE, Column("against", "against"),
        Column("draw", "seed"), Column("n_samples", "samples"), Column("accuracy", "accuracy", percent),
        Column("accuracy_against", "of the other", percent), Column("difference", "difference", points),
        Column("difference_interval", "its 95 % interval", interval),
        Column("correlations", "correlation of counts", _listed),
        Column("product_time_s", "board time per product", duration),
        Column("product_conversions", "conversions per product", "{:,.0f}".format),
    )  # fmt: skip
    return Table("compared", "Two arrays side by side", columns, rows,
                 "The read-out is trained on the other array's counts. Time and conversions are those that the board, "
                 "real or emulated, brings back.")  # fmt: skip


def _correlations(summary: Mapping[str, Any]) -> list[float | None]:
    """Of the counts of the two arrays: one, or one for each modality; None where counts do not vary."""
    parts = summary["agreement"].values() if "agreement" in summary else [summary]
    return [part.get("count_correlation") for part in parts]


def _listed(correlations: Sequence[float | None]) -> str:
    return ", ".join("not defined" if value is None else f"{value:.4f}" for value in correlations)
