"""Picture of two runs of one array: cell against cell, and where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import style
from hil.errors import DataError
from hil.run_compare import conductances_of
from hil.runfile import RunReader

#: dots of a scatter plot that a file and an eye can take
_N_DOTS = 20_000
#: a map this much longer than wide is drawn without square cells
_LONG = 5
#: the colour scale leaves out so many per cent of the largest differences
_OUTER_PERCENT = 1.0


def draw(a: RunReader, b: RunReader) -> Any:
    """Conductance in B over that in A, and the map of B minus A; a matplotlib figure.

    Raises:
        DataError: a run has no conductances, or the arrays differ in size.
    """
    maps = conductances_of(a, b)
    for run, found in zip((a, b), maps, strict=True):
        if found is None:
            raise DataError(f"run {run.path} holds no conductances", fix="compare runs that read an array")
    in_a, in_b = (np.asarray(found, np.float64) for found in maps)
    if in_a.shape != in_b.shape:
        raise DataError(f"maps of {in_a.shape} and {in_b.shape} cells differ in size", fix="compare runs of one array")
    difference_us = 1e6 * (in_b - in_a)
    both = np.isfinite(difference_us)
    if not both.any():
        raise DataError("no cell was read in both runs", fix="compare runs over the same region")
    made, (scatter, where) = style.figure(9.5, 4.2, cols=2)
    x, y = 1e6 * in_a[both], 1e6 * in_b[both]
    some = slice(None, None, -(-len(x) // _N_DOTS))
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    scatter.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
    scatter.plot(x[some], y[some], ".", markersize=2, color=style.COLOURS[0], alpha=0.5, rasterized=True)
    scatter.set_xlabel("conductance in A (µS)")
    scatter.set_ylabel("conductance in B (µS)")
    style.title(scatter, "Cell against cell")
    rows, cols = np.flatnonzero(both.any(axis=1)), np.flatnonzero(both.any(axis=0))
    part = difference_us[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    largest = max(float(np.nanpercentile(np.abs(part), 100 - _OUTER_PERCENT)), 1e-12)
    where.set_facecolor(style.MISSING)
    aspect = "equal" if max(part.shape) < _LONG * min(part.shape) else "auto"
    shown = where.imshow(
        part, cmap="PuOr", aspect=aspect, vmin=-largest, vmax=largest, interpolation="nearest",
        extent=(cols[0] - 0.5, cols[-1] + 0.5, rows[-1] + 0.5, rows[0] - 0.5),
    )  # fmt: skip
    made.colorbar(shown, ax=where, label="B minus A (µS)", extend="both")
    where.set_xlabel("column")
    where.set_ylabel("row")
    style.title(where, "Where they differ")
    style.heading(made, f"A {a.run_id}\nB {b.run_id}")
    return made
