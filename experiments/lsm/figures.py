"""Figures of the LSM runs, made from stored arrays only, as PNG bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from experiments import style
from experiments.style import COLOURS


def confusion_png(table: NDArray[np.int64], title: str) -> bytes:
    """Confusion matrix (classes, classes), true class down, predicted class across; in percent of the true class."""
    figure, axes = style.figure(5.6, 5.0)
    percent = 100.0 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(percent, cmap=style.MAP, vmin=0, vmax=100)
    for (row, col), value in np.ndenumerate(percent):
        if table[row, col]:
            axes.text(
                col, row, f"{value:.0f}" if value >= 0.5 else "<1",
                ha="center", va="center", fontsize=7, color="black" if value > 55 else "white",
            )  # fmt: skip
    figure.colorbar(image, label="% of the true class")
    ticks = range(len(table))
    axes.set(xlabel="predicted class", ylabel="true class", xticks=ticks, yticks=ticks)
    style.title(axes, title)
    return style.png(figure)


def raster_png(inputs: NDArray[np.bool_], spikes: NDArray[np.bool_], label: int) -> bytes:
    """Spikes of one sample: inputs (steps, inputs) below, neurons (steps, neurons) above."""
    figure, (above, below) = style.figure(7.0, 5.6, rows=2, sharex=True)
    for axes, raster, name in ((above, spikes, "recurrent neuron"), (below, inputs, "input row")):
        step, line = np.nonzero(raster)
        axes.plot(step, line, linestyle="none", marker="|", markersize=3, color=COLOURS[0])
        axes.set(ylabel=name, ylim=(-1, raster.shape[1]))
    style.title(above, f"Spikes of one test sample of class {label}")
    below.set_xlabel("time step")
    return style.png(figure)


def membrane_png(membrane: NDArray[np.float32], spikes: NDArray[np.bool_], v_threshold: float) -> bytes:
    """Membrane potential (steps, neurons) of a few neurons of one sample, with their spikes."""
    n_shown = min(4, membrane.shape[1])
    # The busiest neurons show most; a silent one shows nothing.
    busiest = np.argsort(-spikes.sum(axis=0), kind="stable")[:n_shown]
    figure, panels = style.figure(7.0, 1.5 * n_shown + 0.8, rows=n_shown, sharex=True)
    for axes, neuron, colour in zip(np.atleast_1d(panels), busiest, COLOURS, strict=False):
        axes.plot(membrane[:, neuron], color=colour, linewidth=1.2)
        fired = np.flatnonzero(spikes[:, neuron])
        axes.plot(fired, membrane[fired, neuron], linestyle="none", marker="o", markersize=3, color=colour)
        axes.axhline(v_threshold, color="black", linewidth=0.7, linestyle="--")
        axes.set_ylabel(f"neuron {neuron}")
    style.title(
        np.atleast_1d(panels)[0], "Membrane potential in units of the weights (dashed: threshold, dots: spikes)"
    )
    np.atleast_1d(panels)[-1].set_xlabel("time step")
    return style.png(figure)


def embedding_png(points: NDArray[np.float64], labels: NDArray[np.int64]) -> bytes:
    """t-SNE of spike counts, points (samples, 2), coloured by class."""
    figure, axes = style.figure(6.4, 5.4)
    for label in np.unique(labels):
        x, y = points[labels == label].T
        axes.scatter(x, y, s=6, color=COLOURS[label % len(COLOURS)], label=str(label))
    axes.set(xticks=[], yticks=[])
    style.title(axes, f"t-SNE of the spike counts of {len(points)} test samples")
    axes.legend(title="class", markerscale=2.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return style.png(figure)


def side_by_side_png(
    counts: NDArray[np.uint16], against: NDArray[np.uint16], names: tuple[str, str], title: str
) -> bytes:
    """Spike counts (samples, neurons) of one backend over those of another: each count, and the mean of each neuron.

    `names` are those of the two backends.
    """
    figure, (left, right) = style.figure(9.6, 4.6, cols=2)
    most = int(max(counts.max(), against.max(), 1))
    edges = np.arange(most + 2) - 0.5
    seen, _, _ = np.histogram2d(against.ravel(), counts.ravel(), bins=[edges, edges])
    # On a logarithmic scale, since most counts are near zero; what never occurs stays white.
    image = left.pcolormesh(edges, edges, np.ma.masked_equal(seen.T, 0), cmap=style.MAP, norm="log", rasterized=True)
    figure.colorbar(image, ax=left, label="pairs of counts")
    right.plot(against.mean(axis=0), counts.mean(axis=0), linestyle="none", marker="o", markersize=3, color=COLOURS[0])
    for axes, what in ((left, "spikes of a neuron in a recording"), (right, "mean over the recordings, per neuron")):
        axes.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle="--")
        axes.set(xlabel=f"{names[1]}: {what}", ylabel=names[0], aspect="equal")
    style.heading(figure, title)
    return style.png(figure)


def embed(features: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """t-SNE of features (samples, neurons) in two dimensions, shape (samples, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(2.0, (len(features) - 1) / 4))
    init = "pca" if min(features.shape) >= 2 else "random"
    tsne = TSNE(n_components=2, perplexity=perplexity, init=init, random_state=seed % 2**32, n_jobs=1)
    return np.asarray(tsne.fit_transform(features), np.float64)
