"""Tables of accuracy: ours beside the paper's. The honest and the paper protocol never share a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from experiments.accounts import TASKS
from experiments.lsm_report.groups import Group, Score
from experiments.lsm_report.published import CLASSES, PAPER_DATA, SUPERVISED, ZERO_SHOT, Published
from experiments.lsm_report.table import Column, Row, Table, interval, percent, points, scored

Protocol = Literal["honest", "paper"]

WHERE = (
    Column("task_model", "task, model"),
    Column("data_array", "data, array"),
    Column("settings", "what differs"),
)
#: of a single seed, what is said about unseen classes
_NO_INTERVAL = (
    " Unseen classes of a single seed have no interval: queries of one class go right or wrong together, so that one "
    "over the queries would mislead."
)
_BESIDE = (
    Column("n_seeds", "seeds"),
    Column("accuracy", "accuracy", scored),
    Column("published", "published", lambda value: Published(**value).text),
    Column("difference", "difference", points),
)
_TITLES: Mapping[Protocol, str] = {
    "honest": "honest protocol",
    "paper": "paper protocol (selected on the test data)",
}
_NOTES: Mapping[Protocol, str] = {
    "honest": (
        "Everything is chosen on training data; the test data are looked at once. In brackets the 95 % interval: of "
        "the mean over seeds by Student's t, of a single seed by Wilson over its test samples. Published figures, in "
        "per cent, are by the paper protocol; a difference, in points, is given where the data are the paper's."
    ),
    "paper": (
        "The best epoch on the test data, as published. Intervals as above; they say nothing about what the selection "
        "adds."
    ),
}
#: keys of a supervised summary: accuracy and interval
_KEYS: Mapping[Protocol, tuple[str, str]] = {
    "honest": ("honest_accuracy", "accuracy_interval"),
    "paper": ("paper_accuracy", "paper_accuracy_interval"),
}


def accuracy_tables(groups: Sequence[Group]) -> list[Table]:
    """All of them; those without a row are left out."""
    single = [group for group in groups if not group.first.is_comparison]
    supervised = [group for group in single if "honest_accuracy" in group.first.summary]
    zero_shot = [group for group in single if "query" in group.first.summary]
    found = [
        _supervised(supervised, "honest"),
        _speakers(supervised),
        _supervised(supervised, "paper"),
        _zero_shot(zero_shot, "honest"),
        _shots(zero_shot),
        _zero_shot(zero_shot, "paper"),
        _by_seed(supervised, zero_shot),
    ]
    return [table for table in found if table.rows]


def where(group: Group) -> dict[str, Any]:
    """The columns that say what a row is about."""
    run = group.first
    return {
        "group": group.number,
        "task": TASKS[run.task].title,
        "model": run.model,
        "data": group.data,
        "synthetic": run.is_synthetic,
        "array": group.array,
        "task_model": f"{TASKS[run.task].title}, {run.model}",
        "data_array": f"{group.data}; {group.array}",
        "n_seeds": len(group.runs),
        "seeds": list(group.seeds),
        "draws": list(group.draws),
        "settings": group.apart_text,
    }


def _beside(group: Group, score: Score, published: Published | None) -> dict[str, Any]:
    """Ours, the paper's, and the difference."""
    if published is None:
        return {"accuracy": score, "published": None, "difference": None}
    same_data = group.first.dataset == PAPER_DATA[group.first.task]
    difference = score.mean - published.best_match if same_data else None
    return {
        "accuracy": score,
        "published": {"chip": published.chip, "software": published.software},
        "difference": difference,
    }


def _supervised(groups: Sequence[Group], protocol: Protocol) -> Table:
    accuracy, own = _KEYS[protocol]
    rows = []
    for group in groups:
        run = group.first
        score = group.score(lambda summary: summary[accuracy], run.summary.get(own))
        samples = f"{run.summary['n_train']:,} / {run.summary['n_test']:,}"
        rows.append(
            {**where(group), "samples": samples, **_beside(group, score, SUPERVISED.get((run.task, run.model)))}
        )
    columns = (*WHERE, Column("samples", "train / test"), *_BESIDE)
    return Table(f"supervised_{protocol}", f"Classification, {_TITLES[protocol]}", columns, rows, _NOTES[protocol])


def _speakers(groups: Sequence[Group]) -> Table:
    """Speakers that training never heard."""
    rows: list[Row] = []
    for group in groups:
        left_out = group.first.summary.get("leave_one_speaker_out")
        if not left_out or not all(run.summary.get("leave_one_speaker_out") for run in group.runs):
            continue
        score = group.score(lambda summary: summary["leave_one_speaker_out"]["mean_accuracy"])
        each = {
            entry["speaker"]: sum(_of_speaker(run.summary, entry["speaker"]) for run in group.runs) / len(group.runs)
            for entry in left_out["speakers"]
        }
        rows.append({**where(group), "accuracy": score, "speakers": each})
    columns = (
        *WHERE,
        Column("n_seeds", "seeds"),
        Column("accuracy", "mean over speakers", scored),
        Column("speakers", "each speaker", _each),
    )
    return Table(
        "leave_one_speaker_out", "Speakers that training never heard, honest protocol", columns, rows,
        "Each speaker in turn is kept out of training and is the whole test.",
    )  # fmt: skip


def _of_speaker(summary: Mapping[str, Any], speaker: str) -> float:
    entries = summary["leave_one_speaker_out"]["speakers"]
    return next(float(entry["accuracy"]) for entry in entries if entry["speaker"] == speaker)


def _each(accuracies: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {percent(value)}" for name, value in accuracies.items())


def _zero_shot(groups: Sequence[Group], protocol: Protocol) -> Table:
    rows: list[Row] = []
    for group in groups:
        run = group.first
        published = ZERO_SHOT.get((run.task, run.model), (None, None))
        for classes, figure in zip(CLASSES, published, strict=True):
            found = run.summary[protocol][classes]
            own = own_interval(classes, found)
            score = group.score(lambda summary, c=classes: summary[protocol][c]["accuracy"], own)
            back = group.score(lambda summary, c=classes: summary[protocol][c]["reverse_accuracy"]).mean
            rows.append({
                **where(group), "classes": classes, **_beside(group, score, figure), "reverse": back,
                "chance": run.summary["chance"][classes], **(_gates(group, classes) if protocol == "paper" else {}),
            })  # fmt: skip
    columns = (*WHERE, Column("classes", "classes"), *_BESIDE, Column("chance", "chance", percent))
    note = _NOTES[protocol] + _NO_INTERVAL
    if protocol == "honest":
        columns = (*columns, Column("reverse", "the other way round", percent))
    else:
        columns = (*columns, Column("passing", "pass the gates"), Column("reaching", "as published"))
        note += (
            " The published gates ask for a least accuracy on the test data of seen and of unseen classes; where no "
            "epoch passes them, the best epoch on the seen classes is taken. As published: seeds whose unseen accuracy "
            "reaches the published one."
        )
    return Table(f"zero_shot_{protocol}", f"Retrieval across modalities, {_TITLES[protocol]}", columns, rows, note)


def own_interval(classes: str, judged: Mapping[str, Any]) -> Sequence[float] | None:
    """Interval of a single run over its queries; unseen classes have none, see `_NO_INTERVAL`."""
    return None if classes == "unseen" else judged["interval"]


def _gates(group: Group, classes: str) -> dict[str, Any]:
    """How often the published selection finds what it asks for; said once, with the unseen classes."""
    if classes == "seen":
        return {}
    of = len(group.runs)
    passing = sum(bool(run.summary["paper"].get("gates_passed")) for run in group.runs)
    reaching = sum(bool(run.summary["paper"].get("reached")) for run in group.runs)
    return {"passing": f"{passing} of {of}", "reaching": f"{reaching} of {of}"}


def _shots(groups: Sequence[Group]) -> Table:
    """A few labelled pairs of the unseen classes."""
    numbers = sorted({int(k) for group in groups for k in group.first.summary.get("shots") or {}})
    rows = []
    for group in groups:
        shots = group.first.summary.get("shots")
        if not shots:
            continue
        row = where(group)
        for k in shots:
            # Of one draw, what the run holds is the interval over its queries.
            own = shots[k]["interval"] if shots[k].get("n_draws", 1) > 1 else None
            row[f"shots_{k}"] = group.score(lambda summary, k=k: summary["shots"][k]["accuracy"], own)
        rows.append(row)
    columns = (*WHERE, Column("n_seeds", "seeds"), *(Column(f"shots_{k}", f"{k} pairs", scored) for k in numbers))
    return Table(
        "shots", "Unseen classes with a few labelled pairs of each, honest protocol", columns, rows,
        "Encoder and projections stay as they are. Of a single seed the interval is that of the draws of the pairs; "
        "where there was one draw, or none, there is no interval.",
    )  # fmt: skip


def _by_seed(supervised: Sequence[Group], zero_shot: Sequence[Group]) -> Table:
    rows = [
        {
            **where(group), "seed": run.seed, "draw": run.draw, "run": run.run_id,
            "honest": run.summary["honest_accuracy"], "honest_interval": run.summary.get("accuracy_interval"),
            "paper": run.summary["paper_accuracy"],
        }
        for group in supervised
        for run in group.runs
    ]  # fmt: skip
    rows += [
        {
            **where(group), "seed": run.seed, "draw": run.draw, "run": run.run_id, "classes": classes,
            "honest": run.summary["honest"][classes]["accuracy"],
            "honest_interval": own_interval(classes, run.summary["honest"][classes]),
            "paper": run.summary["paper"][classes]["accuracy"],
        }
        for group in zero_shot
        for classes in CLASSES
        for run in group.runs
    ]  # fmt: skip
    columns = (
        *WHERE, Column("classes", "classes"), Column("draw", "seed"), Column("honest", "honest", percent),
        Column("honest_interval", "its 95 % interval", interval), Column("paper", "paper protocol", percent),
        Column("run", "run", _short),
    )  # fmt: skip
    note = _NO_INTERVAL.strip() if zero_shot else ""
    return Table("by_seed", "Each seed", columns, rows, note, folded=True)


def _short(run_id: str) -> str:
    """The random end of an id, by which hil runs show finds it."""
    return run_id.rsplit("-", 1)[-1]
