"""What every fit routine returns, and how two samples are compared."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import expit, logit

from hil.errors import DataError
from sim_backend.settings import SimSettings


class Parameter(NamedTuple):
    """One fitted parameter.

    Attributes:
        value: estimate, in `unit`.
        error: its standard error; NaN where the data cannot tell (a limit of the measurement, a value held fixed).
        unit: SI unit; "" for a number without one.
    """

    value: float
    error: float
    unit: str


@dataclass(frozen=True)
class Distance:
    """How far two samples are apart.

    Attributes:
        ks: largest distance between the two cumulative distributions (Kolmogorov-Smirnov).
        p_value: probability of at least that distance for two samples of one distribution, were the rows independent.
        wasserstein: mean distance between the two quantile functions, in the unit of the samples.
    """

    ks: float
    p_value: float
    wasserstein: float

    @classmethod
    def between(cls, measured: NDArray[np.floating], simulated: NDArray[np.floating]) -> Distance:
        """Two-sample distances; samples may differ in size."""
        ks = stats.ks_2samp(measured, simulated, method="asymp")
        return cls(float(ks.statistic), float(ks.pvalue), float(stats.wasserstein_distance(measured, simulated)))


@dataclass(frozen=True, eq=False)
class Fit:
    """Parameters found in measured rows, and how well the model with those parameters repeats the rows.

    Attributes:
        model: name of the model, a key of `sim_backend.fits.MODELS`.
        parameters: what was fitted.
        goodness: further figures of merit by name (counts, log-likelihood, share of outliers ...).
        samples: quantity -> (measured, simulated); measured rows are those kept out of the fit, simulated ones are
            drawn from the simulator's model built from `settings`, with another seed than any used in fitting.
        settings: dotted settings of the simulator -> value, such as "forming.breakdown_mean_v".
        n_rows: measured rows used, fitted and kept out together.
        notes: what a reader must know: where the model does not fit, and why.
    """

    model: str
    parameters: Mapping[str, Parameter]
    goodness: Mapping[str, float]
    samples: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]]
    settings: Mapping[str, Any]
    n_rows: int
    notes: tuple[str, ...] = ()
    distances: Mapping[str, Distance] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "distances", {name: Distance.between(*pair) for name, pair in self.samples.items()})


def with_settings(settings: Mapping[str, Any], base: SimSettings | None = None) -> SimSettings:
    """Simulator settings with some dotted keys changed; checked as any configuration is."""
    tree = (base or SimSettings()).model_dump()
    for key, value in settings.items():
        *path, name = key.split(".")
        place = tree
        for part in path:
            place = place[part]
        place[name] = value
    return SimSettings.model_validate(tree)


def halves(cell: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split rows at random into two halves such that all rows of a cell fall into the same one."""
    names, cell_index = np.unique(cell, return_inverse=True)
    first = np.zeros(len(names), np.bool_)
    first[rng.permutation(len(names))[: (len(names) + 1) // 2]] = True
    return first[cell_index], ~first[cell_index]


Samples = Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]]


def between_halves(against_model: Samples, against_half: Samples) -> dict[str, float]:
    """Distance of the cells kept out from the fitted cells themselves: how near a perfect model would come."""
    return {
        f"ks between measured halves, {name}": Distance.between(*against_half[name]).ks
        for name in against_model
        if name in against_half
    }


def require_cells(cell: NDArray[Any], minimum: int) -> None:
    """Refuse rows of too few cells to fit one half and compare with the other.

    Raises:
        DataError: there are fewer than `minimum` cells.
    """
    n_cells = len(np.unique(cell))
    if n_cells < minimum:
        raise DataError(f"the rows are of {n_cells} cells; a fit needs at least {minimum}", fix="give more cells")


def bootstrap(
    estimate: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    n_cells: int,
    rng: np.random.Generator,
    repeats: int = 40,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates and their standard errors, by drawing the cells again with replacement.

    Args:
        estimate: takes indices of cells (some may occur twice), returns the parameters found in them.
        n_cells: how many cells there are.
    """
    again = [estimate(rng.integers(0, n_cells, n_cells)) for _ in range(repeats)]
    return estimate(np.arange(n_cells)), np.std(again, axis=0, ddof=1)


def most_likely(
    probability: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    count: NDArray[np.integer],
    start: NDArray[np.float64],
    share: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Parameters that make the counts of bins most likely; one that the counts do not show stays near the first guess.

    Args:
        probability: takes the parameters, returns the probability of each bin.
        count: rows in each bin.
        start: first guess; all parameters are positive.
        share: which parameters lie between 0 and 1.
    """

    def parameters(free: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(share, expit(free), np.exp(np.where(share, 0.0, free)))

    first = np.where(share, logit(np.where(share, start, 0.5)), np.log(start))
    width = np.where(share, 1.5, 0.5)  # of the prior, in logit and log: a factor of 4.5 and of 1.6

    def cost(free: NDArray[np.float64]) -> float:
        likelihood = count @ np.log(np.maximum(probability(parameters(free)), 1e-12))
        return 0.5 * float(np.sum(((free - first) / width) ** 2)) - float(likelihood)

    found = optimize.minimize(
        cost, first, method="Nelder-Mead", options={"maxiter": 1500, "xatol": 1e-4, "fatol": 1e-3}
    )
    return parameters(found.x)


def refuse(path: Path, column: str, expected: str, bad: NDArray[np.bool_], table: dict[str, NDArray[Any]]) -> None:
    """Refuse a file some of whose rows hold a value that the column cannot have.

    Raises:
        DataError: `bad` marks a row; the message names the first.
    """
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"line {row + 1} of {path}: {column} is {table[column][row]:g} instead of {expected}",
            fix=f"give a file with the columns {', '.join(table)}",
        )


def read_table(path: Path, columns: tuple[str, ...], *, sep: str = "\t") -> dict[str, NDArray[np.float64]]:
    """Columns of a text table without header, plain or gzip'd.

    Raises:
        DataError: the file is missing, damaged, or has other columns; the message names the first bad line.
    """
    expected = (
        f"{len(columns)} numbers a line ({', '.join(columns)}), separated by {'tabs' if sep == chr(9) else sep!r}"
    )
    rows = [
        parse_numbers(line, sep, len(columns), f"line {number} of {path}", expected)
        for number, line in enumerate(read_lines(path), 1)
    ]
    if not rows:
        raise DataError(f"{path} has no rows", fix=f"give a file with {expected}")
    return dict(zip(columns, np.array(rows).T, strict=True))


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, plain or gzip'd.

    Raises:
        DataError: the file is missing, damaged or not text.
    """
    try:
        raw = Path(path).read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("ascii").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path} cannot be read as text: {reason}", fix="give a text file, plain or gzip'd") from None


def parse_numbers(line: str, sep: str, count: int, place: str, expected: str) -> list[float]:
    """The numbers of one line of a table; DataError names the place and what is expected there."""
    fields = line.split(sep)
    try:
        values = [float(text) for text in fields]
    except ValueError as error:
        raise DataError(f"{place} is not a row of numbers: {error}", fix=f"give a file with {expected}") from None
    if len(values) != count:
        raise DataError(f"{place} has {len(values)} numbers instead of {count}", fix=f"give a file with {expected}")
    if not np.isfinite(values).all():
        raise DataError(f"{place} holds a value that is not finite", fix="leave rows that were not measured out")
    return values
