"""Figures of the baselines, made from stored arrays only, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from experiments import style
from experiments.style import COLOURS

#: curve -> (what it is, its line)
_CURVES = {
    "train": ("training samples, mean over the epoch", "-"),
    "validation": ("validation samples, trained without them", "--"),
    "test": ("test samples", "-"),
}


def learning_png(curves: Mapping[str, NDArray[np.float64]], chosen: int, title: str) -> bytes:
    """Accuracies `train`, `validation` and `test` after each epoch, and the epoch that validation chose, from 1."""
    figure, axes = style.figure(6.4, 4.4)
    for (name, (label, line)), colour in zip(_CURVES.items(), COLOURS, strict=False):
        epochs = np.arange(1, len(curves[name]) + 1)
        axes.plot(epochs, 100 * curves[name], color=colour, linestyle=line, label=label, marker="o", markersize=3)
    axes.axvline(chosen, color="black", linewidth=0.7, linestyle="--", label="chosen by validation")
    axes.set(xlabel="epoch", ylabel="accuracy (%)")
    axes.legend(frameon=False)
    style.title(axes, title)
    return style.png(figure)
