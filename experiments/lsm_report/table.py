"""A table of a report: its rows are data, and each column knows how to show its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.lsm_report.groups import Score

Row = Mapping[str, Any]

_NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: in the rows.
        head: over it.
        shown: a value as text; it is never asked for a value that is None or missing.
    """

    key: str
    head: str
    shown: Callable[[Any], str] = str


@dataclass(frozen=True)
class Table:
    """Rows with their columns.

    Attributes:
        name: in JSON.
        title: over it.
        note: below it; what a reader must know.
        rows: values; None where there is none. A `Score` may be one.
        folded: shown only when asked for.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    note: str = ""
    folded: bool = False

    @cached_property
    def shown(self) -> tuple[Column, ...]:
        """Columns with a value in any row."""
        return tuple(column for column in self.columns if any(row.get(column.key) is not None for row in self.rows))

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the columns that are shown."""
        return tuple(column.head for column in self.shown)

    def texts(self) -> list[tuple[str, ...]]:
        """What people read."""
        return [tuple(_text(column, row.get(column.key)) for column in self.shown) for row in self.rows]

    def as_json(self) -> list[dict[str, Any]]:
        """Rows as JSON can hold them."""
        return [
            {key: value.as_dict() if isinstance(value, Score) else value for key, value in row.items()}
            for row in self.rows
        ]


def _text(column: Column, value: Any) -> str:
    return "" if value is None else column.shown(value)


def percent(value: float) -> str:
    """A fraction."""
    return f"{100 * value:.2f}{_NBSP}%"


def points(value: float) -> str:
    """A difference of fractions."""
    return f"{100 * value:+.2f}"


def interval(bounds: Sequence[float]) -> str:
    """An interval of fractions."""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}".replace(" ", _NBSP)


def scored(score: Score) -> str:
    """A mean with its interval."""
    return percent(score.mean) + (f" ({interval(score.interval)})" if score.interval else "")


def ratio(value: float) -> str:
    """How many times."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def energy(value_j: float) -> str:
    """An energy with a prefix."""
    scale, prefix = next(((s, p) for s, p in _PREFIXES if value_j >= s), _PREFIXES[-1])
    return f"{value_j / scale:.3g}{_NBSP}{prefix}J"


def duration(value_s: float) -> str:
    """A time with a prefix."""
    scale, prefix = next(((s, p) for s, p in _PREFIXES if value_s >= s), _PREFIXES[-1])
    return f"{value_s / scale:.3g}{_NBSP}{prefix}s"
