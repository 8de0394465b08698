"""Tables of training operations and of energy: reported beside counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.accounts import TASKS, NetworkShape, TechnologySettings, energy_of, operations_of
from experiments.lsm_report.accuracy_tables import WHERE, where
from experiments.lsm_report.groups import Group
from experiments.lsm_report.table import Column, Table, duration, energy, percent, ratio

#: models whose encoder is the random array
_RANDOM = ("lsm", "lsm-proto")


def cost_tables(groups: Sequence[Group], technology: TechnologySettings) -> list[Table]:
    """All of them; those without a row are left out."""
    on_array = [group for group in groups if group.first.model in _RANDOM and group.first.networks]
    found = [
        _operations_reported(),
        _operations_of(on_array),
        _energy_reported(technology),
        _energy_of(on_array, technology),
    ]
    return [table for table in found if table.rows]


def shape(networks: Sequence[NetworkShape]) -> str:
    """Networks in a few characters."""
    return " and ".join(f"{one.n_inputs}-{one.n_neurons}-{one.n_outputs}, {one.n_steps} steps" for one in networks)


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(map(percent, rates))


def _relative(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _operations_reported() -> Table:
    rows: list[dict[str, Any]] = []
    for task in TASKS.values():
        for reported in task.operations:
            counted = operations_of(task.networks, epochs=task.epochs, spiking_readout=reported.spiking_readout)
            ours = counted["paper"]
            rows.append({
                "task": task.title, "networks": shape(task.networks), "against": reported.against,
                "srnn": ours["srnn"], "lsm": ours["lsm"], "ratio": ours["ratio"], "reported": reported.ratio,
                "deviation": ours["ratio"] / reported.ratio - 1, "full": counted["full"]["ratio"],
            })  # fmt: skip
    columns = (
        Column("task", "task"), Column("networks", "networks"), Column("against", "against"),
        Column("srnn", "its operations", "{:,}".format), Column("lsm", "the LSM's", "{:,}".format),
        Column("ratio", "ratio", ratio), Column("reported", "reported", "{:,.2f}".format),
        Column("deviation", "deviation", _relative), Column("full", "full count: ratio", ratio),
    )  # fmt: skip
    return Table(
        "operations", "Training operations per sample, the paper's networks", columns, rows,
        "Counted as the paper seems to: 2 operations per weight and step of a trained encoder, forward only, and 6 per "
        "weight of the trained layer. The full count adds the way back through time, neurons and biases. Which of "
        "152.83 and 393.07 is of which task is not clear from the sources; the order of the tasks is taken, which the "
        "count supports.",
    )  # fmt: skip


def _operations_of(groups: Sequence[Group]) -> Table:
    rows: list[dict[str, Any]] = []
    for group in groups:
        run = group.first
        counted = operations_of(run.networks, epochs=TASKS[run.task].epochs)
        rows.append({**where(group), "networks": shape(run.networks),
                     "ratio": counted["paper"]["ratio"], "full": counted["full"]["ratio"]})  # fmt: skip
    columns = (
        *WHERE,
        Column("networks", "networks"), Column("ratio", "ratio, counted as the paper does", ratio),
        Column("full", "full count: ratio", ratio),
    )  # fmt: skip
    return Table("operations_of_runs", "Training operations per sample, the networks of these runs", columns, rows,
                 "Against the same network with a trained encoder and a linear read-out.")  # fmt: skip


_PRODUCTS = Column("ratio_paper_products", "ratio, products alone", ratio)
_ENERGY = (
    Column("digital_j", "digital", energy),
    Column("hybrid_paper_j", "hybrid, paper's rule", energy),
    Column("ratio_paper", "ratio", ratio),
)
_OURS = (
    Column("hybrid_j", "hybrid, by components", energy),
    Column("ratio_hybrid", "ratio", ratio),
    Column("board_j", "board as it is", energy),
    Column("board_time_s", "its time", duration),
)


def _energy_reported(technology: TechnologySettings) -> Table:
    rows: list[dict[str, Any]] = []
    for task in TASKS.values():
        reported = task.energy
        rows.append({
            "task": task.title, **energy_of(task.networks, technology),
            "reported_digital_j": reported.digital_j, "reported_hybrid_j": reported.hybrid_j,
            "reported_ratio": reported.ratio, "note": task.energy_note,
        })  # fmt: skip
    columns = (
        Column("task", "task"), Column("reported_digital_j", "reported digital", energy),
        Column("reported_hybrid_j", "reported hybrid", energy), Column("reported_ratio", "reported ratio", ratio),
        *_ENERGY, _PRODUCTS, *_OURS,
    )  # fmt: skip
    notes = " ".join(f"{row['task']}: {row['note']}" for row in rows if row["note"])
    return Table("energy", "Energy of inference per sample, the paper's networks", columns, rows,
                 "Ratios are of the digital energy. Neither projection is of a chip that exists; the constants and "
                 "their sources are below. Board: the bound of its schedule. " + notes)  # fmt: skip


def _board_time_from(found: Mapping[str, Any], kind: str) -> str | None:
    if found["board_j"] is None:
        return None
    return f"counted by the {kind}" if found["board_measured"] else "bound of the schedule"


def _energy_of(groups: Sequence[Group], technology: TechnologySettings) -> Table:
    rows: list[dict[str, Any]] = []
    for group in groups:
        run = group.first
        rates = run.activities(technology)
        found = energy_of(run.networks, technology, rates, run.board_use(technology))
        rows.append({
            **where(group), **found,
            "board": _board_time_from(found, run.backend_kind),
            "spike_rates": [rate.spike_rate for rate in rates] or None,
        })  # fmt: skip
    columns = (
        *WHERE,
        Column("spike_rates", "spikes / neuron step", _rates), *_ENERGY, *_OURS, Column("board", "board time is"),
    )  # fmt: skip
    return Table("energy_of_runs", "Energy of inference per sample, the networks of these runs", columns, rows,
                 "With the spikes of the run of the first seed, where it says them, and the time and conversions of a "
                 "board where one answered: a real or an emulated one.")  # fmt: skip
