"""What the run file keeps of a zero-shot run: arrays, and the figures made from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.lsm import zero_shot_figures as figures
from experiments.lsm.figures import embed as tsne
from experiments.lsm.retrieval import class_similarity
from experiments.lsm.zero_shot import Judged, ZeroShotOutcome
from hil.progress import Progress, no_progress

#: Samples of each class and modality that t-SNE shows, and the least in all that it can show.
_N_EMBEDDED, _N_EMBEDDED_MIN = 25, 10


def record(
    outcome: ZeroShotOutcome,
    seed: int,
    names: dict[int, str],
    sides: tuple[str, str],
    progress: Progress = no_progress,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Arrays for the run file, and figures by name.

    Args:
        outcome: from `zero_shot`.
        seed: of t-SNE.
        names: of the classes, one character each.
        sides: names of query and gallery.
        progress: told on the way.
    """
    settings = outcome.settings
    classes = [*settings.seen, *settings.unseen]
    progress("figures", 0, 2)
    arrays: dict[str, Any] = {
        **_confusions(outcome),
        **{f"curve_{name}": curve for name, curve in outcome.curves.items()},
        **{f"shots_{k}": found.accuracies for k, found in outcome.shots.items()},
        "class_similarity": class_similarity(*outcome.after, classes),
    }
    for side, before, after in zip(("query", "gallery"), outcome.before, outcome.after, strict=True):
        arrays |= {
            f"{side}_labels": after.labels,
            f"{side}_features": before.vectors,
            f"{side}_embeddings": after.vectors,
        }
    if outcome.projections is not None:
        for side, layer in (("query", outcome.projections.query), ("gallery", outcome.projections.gallery)):
            arrays |= {f"{side}_projection_{name}": value for name, value in vars(layer).items()}
    arrays |= _tsne(outcome, seed)
    progress("figures", 1, 2)
    pictures = draw(arrays, outcome, names, sides)
    progress("figures", 2, 2)
    return arrays, pictures


def draw(
    arrays: dict[str, Any], outcome: ZeroShotOutcome, names: dict[int, str], sides: tuple[str, str]
) -> dict[str, bytes]:
    """The figures, from the arrays of `record`."""
    settings = outcome.settings
    groups = [[names[label] for label in group] for group in (settings.seen, settings.unseen)]
    pictures = {
        f"confusion_{protocol}": figures.confusion_png(
            [arrays[f"confusion_{protocol}_seen"], arrays[f"confusion_{protocol}_unseen"]],
            groups,
            [
                f"{group} classes, {protocol} protocol: {100 * found.accuracy:.1f} %"
                for group, found in (("seen", judged.seen), ("unseen", judged.unseen))
            ],
        )
        for protocol, judged in (("honest", outcome.honest), ("paper", outcome.paper))
    }
    pictures["similarity"] = figures.similarity_png(
        arrays["class_similarity"], groups[0] + groups[1], len(settings.seen), sides,
        "Similarity by class of test items, honest protocol",
    )  # fmt: skip
    chance = 1 / len(settings.unseen)
    curves = {name: arrays[f"curve_{name}"] for name in outcome.curves}
    pictures["accuracy_by_epoch"] = figures.curves_png(curves, outcome.choice.epoch, chance, settings.published_unseen)
    pictures["shots"] = figures.shots_png(settings.shots, [arrays[f"shots_{k}"] for k in settings.shots], chance)
    if "tsne_before" in arrays:
        pictures["tsne"] = figures.embedding_png(
            [arrays["tsne_before"], arrays["tsne_after"]],
            arrays["tsne_labels"], arrays["tsne_is_query"], settings.unseen, names, sides,
        )  # fmt: skip
    return pictures


def _confusions(outcome: ZeroShotOutcome) -> dict[str, Any]:
    def of(judged: Judged, protocol: str) -> dict[str, Any]:
        return {
            f"confusion_{protocol}_seen": judged.seen.confusion(outcome.settings.seen),
            f"confusion_{protocol}_unseen": judged.unseen.confusion(outcome.settings.unseen),
        }

    return {**of(outcome.honest, "honest"), **of(outcome.paper, "paper")}


def _tsne(outcome: ZeroShotOutcome, seed: int) -> dict[str, Any]:
    """Points before and after, or nothing where there are too few samples or all are equal, which t-SNE cannot show."""
    classes = [*outcome.settings.seen, *outcome.settings.unseen]
    chosen = [
        np.concatenate([np.flatnonzero(side.labels == label)[:_N_EMBEDDED] for label in classes])
        for side in outcome.after
    ]
    if sum(map(len, chosen)) < _N_EMBEDDED_MIN:
        return {}
    before, after = (
        np.concatenate([side.vectors[index] for side, index in zip(sides, chosen, strict=True)])
        for sides in (outcome.before, outcome.after)
    )
    if not (before.std(axis=0).any() and after.std(axis=0).any()):
        return {}
    return {
        "tsne_before": tsne(before, seed),
        "tsne_after": tsne(after, seed),
        "tsne_labels": np.concatenate([side.labels[index] for side, index in zip(outcome.after, chosen, strict=True)]),
        "tsne_is_query": np.repeat([True, False], [len(index) for index in chosen]),
    }
