"""Tiles: the rectangle of the array that one network uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import LimitError


@dataclass(frozen=True, eq=False)
class Tile:
    """Rows and columns of the array that belong together in a vector-matrix multiplication.

    A tile is compared by identity, so that a backend can keep what it prepared for it.

    Attributes:
        rows: physical row (bit line) of each input, shape (n_rows,).
        plus_cols: physical column (source line) whose current counts positive, shape (n_outputs,).
        minus_cols: column whose current is subtracted, shape (n_outputs,); None for a single-ended tile.
    """

    rows: NDArray[np.intp]
    plus_cols: NDArray[np.intp]
    minus_cols: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "plus_cols", "minus_cols"):
            lines = getattr(self, name)
            if lines is None:
                continue
            own = np.array(lines)
            if own.ndim != 1 or own.dtype.kind not in "iu":
                raise LimitError(
                    f"tile {name} is {own.dtype}{own.shape}", fix="give a one-dimensional array of whole numbers"
                )
            # A copy that nobody can change: backends keep what they prepared for a tile.
            own = own.astype(np.intp)
            own.setflags(write=False)
            object.__setattr__(self, name, own)
        for name, lines in (("row", self.rows), ("column", self.cols)):
            if len(np.unique(lines)) != len(lines):
                raise LimitError(f"a {name} occurs twice in the tile", fix=f"name each {name} once")
        if self.minus_cols is not None and len(self.minus_cols) != len(self.plus_cols):
            raise LimitError(
                f"{len(self.plus_cols)} plus columns but {len(self.minus_cols)} minus columns",
                fix="give one minus column per plus column",
            )

    @property
    def n_rows(self) -> int:
        """Number of inputs."""
        return len(self.rows)

    @property
    def n_outputs(self) -> int:
        """Number of outputs: columns, or column pairs of a differential tile."""
        return len(self.plus_cols)

    @property
    def differential(self) -> bool:
        """Whether each output is the difference of two columns."""
        return self.minus_cols is not None

    @property
    def cols(self) -> NDArray[np.intp]:
        """All physical columns: the plus columns, then the minus columns."""
        if self.minus_cols is None:
            return self.plus_cols
        return np.concatenate([self.plus_cols, self.minus_cols])

    def check_fits(self, shape: tuple[int, int]) -> None:
        """Raise `LimitError` unless the tile lies inside an array of `shape` (rows, cols)."""
        for name, lines, size in (("row", self.rows, shape[0]), ("column", self.cols, shape[1])):
            if len(lines) == 0:
                raise LimitError(f"the tile has no {name}", fix=f"give at least one {name}")
            if lines.min() < 0 or lines.max() >= size:
                worst = int(lines.min()) if lines.min() < 0 else int(lines.max())
                raise LimitError(
                    f"tile {name} {worst} is outside the array, which has {name}s 0 to {size - 1}",
                    fix="use a smaller network or another origin",
                )


def differential_tile(n_rows: int, n_outputs: int, *, row0: int = 0, col0: int = 0) -> Tile:
    """Tile whose output j is column `col0 + 2 j` minus column `col0 + 2 j + 1`.

    Adjacent columns share most of their wiring, so that its voltage drop cancels. The paper does not say which axis it
    pairs along (docs/explanation/open-points.md).
    """
    plus = col0 + 2 * np.arange(n_outputs)
    return Tile(rows=row0 + np.arange(n_rows), plus_cols=plus, minus_cols=plus + 1)


def single_ended_tile(n_rows: int, n_outputs: int, *, row0: int = 0, col0: int = 0) -> Tile:
    """Tile whose output j is column `col0 + j`."""
    return Tile(rows=row0 + np.arange(n_rows), plus_cols=col0 + np.arange(n_outputs))
