"""Figures of zero-shot retrieval, made from stored arrays only, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import style
from experiments.style import COLOURS

_QUERY, _GALLERY = COLOURS[0], COLOURS[1]
_SEEN, _UNSEEN = COLOURS[0], COLOURS[3]
#: A matrix with more classes than this has no room for numbers in its cells.
_N_WRITTEN = 12


def confusion_png(tables: Sequence[NDArray[np.int64]], names: Sequence[Sequence[str]], titles: Sequence[str]) -> bytes:
    """Confusion matrices side by side: class of the query down, class of what it found across, in percent of the query.

    Args:
        tables: counts (classes, classes).
        names: of the classes, for each table.
        titles: one for each table.
    """
    figure, panels = style.figure(5.2 * len(tables), 4.6, cols=len(tables))
    for axes, table, classes, title in zip(np.atleast_1d(panels), tables, names, titles, strict=True):
        percent = 100.0 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(percent, cmap=style.MAP, vmin=0, vmax=100)
        if len(table) <= _N_WRITTEN:
            for (row, col), value in np.ndenumerate(percent):
                colour = "black" if value > 55 else "white"
                axes.text(col, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
        _class_ticks(axes, classes)
        axes.set(xlabel="class found", ylabel="class of the query")
        figure.colorbar(image, ax=axes, label="% of the queries of a class", shrink=0.8)
        style.title(axes, title)
    return style.png(figure)


def similarity_png(
    similarity: NDArray[np.float64], names: Sequence[str], n_seen: int, sides: tuple[str, str], title: str
) -> bytes:
    """Mean cosine by class (classes, classes), seen classes first; lines part them from the unseen ones."""
    figure, axes = style.figure(5.6, 4.8)
    image = axes.imshow(similarity, cmap=style.MAP)
    middle = (similarity.min() + similarity.max()) / 2
    if len(similarity) <= _N_WRITTEN:
        for (row, col), value in np.ndenumerate(similarity):
            colour = "black" if value > middle else "white"
            axes.text(col, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    for draw in (axes.axhline, axes.axvline):
        draw(n_seen - 0.5, color="white", linewidth=1.5)
    _class_ticks(axes, names)
    axes.set(xlabel=f"class of {sides[1]}", ylabel=f"class of {sides[0]}")
    figure.colorbar(image, ax=axes, label="mean cosine")
    style.title(axes, title)
    return style.png(figure)


def curves_png(curves: Mapping[str, NDArray[np.float64]], picked: int, chance: float, published: float) -> bytes:
    """Test accuracies `seen` and `unseen` after each epoch, with the epoch that the paper protocol picks."""
    figure, axes = style.figure(6.8, 4.2)
    epochs = np.arange(1, len(curves["seen"]) + 1)
    axes.plot(epochs, 100 * curves["seen"], color=_SEEN, label="seen classes")
    axes.plot(epochs, 100 * curves["unseen"], color=_UNSEEN, linestyle="--", label="unseen classes")
    axes.axhline(100 * chance, color="#7F7F7F", linestyle=":", linewidth=1, label="chance, unseen classes")
    axes.axhline(100 * published, color="black", linestyle="-.", linewidth=1, label="published, unseen classes")
    axes.axvline(picked, color="black", linewidth=0.7)
    axes.annotate("picked", (picked, 2), xytext=(3, 0), textcoords="offset points", fontsize=8)
    axes.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 100))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    style.title(axes, "Paper protocol: accuracy on the test data by epoch")
    return style.png(figure)


def shots_png(shots: Sequence[int], accuracies: Sequence[NDArray[np.float64]], chance: float) -> bytes:
    """Accuracy among unseen classes over the number of labelled pairs: each draw, and the means."""
    figure, axes = style.figure(5.4, 4.0)
    for place, drawn in enumerate(accuracies):
        across = place + np.linspace(-0.12, 0.12, len(drawn)) * (len(drawn) > 1)
        axes.plot(across, 100 * drawn, linestyle="none", marker="o", markersize=3, color=COLOURS[5])
    means = [100 * drawn.mean() for drawn in accuracies]
    axes.plot(range(len(shots)), means, color=_SEEN, marker="D", markersize=6, label="mean over the draws")
    axes.axhline(100 * chance, color="#7F7F7F", linestyle=":", linewidth=1, label="chance")
    axes.set(xlabel="labelled pairs of each unseen class", ylabel="accuracy, unseen classes (%)", ylim=(0, 100))
    axes.set_xticks(range(len(shots)), [str(k) for k in shots])
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    style.title(axes, "Frozen projections and a few labelled pairs")
    return style.png(figure)


def embedding_png(
    points: Sequence[NDArray[np.float64]],
    labels: NDArray[np.int64],
    is_query: NDArray[np.bool_],
    unseen: Sequence[int],
    names: Mapping[int, str],
    sides: tuple[str, str],
) -> bytes:
    """t-SNE of both modalities before and after the projection.

    The class is written at each point, its colour is the modality, and unseen classes stand on a grey disc.

    Args:
        points: before and after, each of shape (samples, 2).
        labels, is_query: class and modality of the samples.
        unseen: classes that were not trained on.
        names: of the classes, one character each.
        sides: names of query and gallery.
    """
    from matplotlib.lines import Line2D

    figure, panels = style.figure(11.0, 5.4, cols=2)
    marked = np.isin(labels, unseen)
    for axes, place, title in zip(panels, points, ("before the projection", "after the projection"), strict=True):
        axes.scatter(*place[marked].T, s=60, color=style.MISSING, linewidths=0)
        for side, colour in ((is_query, _QUERY), (~is_query, _GALLERY)):
            for label in np.unique(labels):
                x, y = place[side & (labels == label)].T
                axes.scatter(x, y, s=22, color=colour, marker=f"${names[int(label)]}$", linewidths=0.3)
        axes.set(xticks=[], yticks=[])
        style.title(axes, f"t-SNE {title}")

    def key(colour: str, label: str, size: float) -> Any:
        return Line2D([], [], linestyle="none", marker="o", color=colour, label=label, markersize=size)

    panels[1].legend(
        handles=[key(_QUERY, sides[0], 5), key(_GALLERY, sides[1], 5), key(style.MISSING, "unseen class", 8)],
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False,
    )  # fmt: skip
    return style.png(figure)


def _class_ticks(axes: Any, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
