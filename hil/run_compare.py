"""How two runs differ: settings, software, and every result that both have. Differences are B minus A."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hil.array_records import array_shape, is_array_run, last_conductance_s
from hil.catalogue import backend_kind
from hil.errors import ConfigError
from hil.fault_map import RESULT as FAULTS
from hil.fault_map import FaultMap
from hil.runfile import RunReader

CONDUCTANCE = "conductance_s"
#: a cell that changed by more counts as changed; the tolerance of programming
DEFAULT_TOLERANCE_S = 1e-6

_N_WORST = 5
#: two samples of one distribution exceed this times sqrt(1/n + 1/m) in 1 % of cases (Kolmogorov and Smirnov)
_KS_ONE_PERCENT = 1.628
#: a mean shift of so many standard errors is scatter, or hardly
_SCATTER, _HARDLY_SCATTER = 2.0, 3.0
#: correlation above which cells keep their order, and below which nothing is common
_SAME_PATTERN, _NO_PATTERN = 0.9, 0.3


@dataclass(frozen=True)
class SettingDifference:
    """A value that the two runs state differently; None where it is not stated."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class ScalarDifference:
    """One number of both runs."""

    name: str
    a: float
    b: float
    difference: float


@dataclass(frozen=True)
class ElementDifference:
    """One element of an array in both runs."""

    index: tuple[int, ...]
    a: float
    b: float


@dataclass(frozen=True)
class ArrayDifference:
    """One array of both runs, element by element over the `n` elements that are finite in both.

    Attributes:
        bias: mean difference.
        bias_error: its standard error; of independent elements, rows or columns, the largest.
        sigma: standard deviation of the differences.
        rms: root mean square of the differences.
        correlation: None where one of them does not vary.
        ks, ks_chance: largest distance of the two cumulative distributions, and what chance exceeds in 1 % of cases.
        tolerance, n_changed: elements that changed by more than the tolerance; 0: that changed at all.
        n_only_a, n_only_b: elements that are finite in one run only.
        worst: elements with the largest differences.
    """

    name: str
    shape: tuple[int, ...]
    n: int
    n_only_a: int
    n_only_b: int
    mean_a: float
    mean_b: float
    bias: float
    bias_error: float
    sigma: float
    rms: float
    correlation: float | None
    ks: float
    ks_chance: float
    tolerance: float
    n_changed: int
    worst: tuple[ElementDifference, ...]

    @property
    def equal(self) -> bool:
        """Whether there is no difference at all."""
        return self.rms == 0 and not self.n_only_a and not self.n_only_b

    @property
    def shift_in_errors(self) -> float:
        """Mean difference in units of its uncertainty."""
        if self.bias == 0:
            return 0.0
        return self.bias / self.bias_error if self.bias_error > 0 else math.copysign(math.inf, self.bias)


@dataclass(frozen=True)
class FaultDifference:
    """Cells of both runs that got a fault from A to B, and that lost one, by the name of the fault."""

    gained: dict[str, int]
    lost: dict[str, int]


@dataclass(frozen=True)
class Comparison:
    """How run B differs from run A."""

    a: str
    b: str
    title: str
    settings: dict[str, list[SettingDifference]]  #: by part: configuration, backend, software, run
    scalars: list[ScalarDifference]
    arrays: list[ArrayDifference]
    faults: FaultDifference | None
    not_compared: list[str]
    verdict: list[str]

    @property
    def equal(self) -> bool:
        """Whether all results that both have are equal."""
        return all(s.difference == 0 for s in self.scalars) and all(array.equal for array in self.arrays)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        arrays = [{**asdict(array), "shift_in_errors": array.shift_in_errors} for array in self.arrays]
        return {**asdict(self), "arrays": arrays, "equal": self.equal}


def compare(a: RunReader, b: RunReader, tolerance_s: float = DEFAULT_TOLERANCE_S) -> Comparison:
    """Compare two runs.

    Args:
        tolerance_s: a cell whose conductance differs by more counts as changed.

    Raises:
        ConfigError: the tolerance is no conductance.
        DataError: a file is damaged.
    """
    if not 0 <= tolerance_s < math.inf:
        raise ConfigError(f"tolerance {tolerance_s} S is not a conductance", fix="give siemens, such as 1e-6")
    results_a, results_b = _results(a), _results(b)
    if CONDUCTANCE in results_a and CONDUCTANCE in results_b:
        results_a[CONDUCTANCE], results_b[CONDUCTANCE] = conductances_of(a, b)
    scalars: list[ScalarDifference] = []
    arrays: list[ArrayDifference] = []
    texts: list[SettingDifference] = []
    not_compared: list[str] = []
    for name in sorted(results_a.keys() | results_b.keys()):
        if name not in results_a or name not in results_b:
            not_compared.append(f"{name}: only in {'A' if name in results_a else 'B'}")
            continue
        value_a, value_b = results_a[name], results_b[name]
        if isinstance(value_a, np.ndarray) and isinstance(value_b, np.ndarray):
            if value_a.shape != value_b.shape:
                not_compared.append(f"{name}: shape {value_a.shape} in A, {value_b.shape} in B")
            elif value_a.dtype.kind not in "biuf" or value_b.dtype.kind not in "biuf":
                not_compared.append(f"{name}: holds {value_a.dtype}")
            else:
                tolerance = tolerance_s if name == CONDUCTANCE else 0.0
                arrays.append(array_difference(name, value_a, value_b, tolerance))
        elif _is_number(value_a) and _is_number(value_b):
            scalars.append(ScalarDifference(name, float(value_a), float(value_b), float(value_b) - float(value_a)))
        elif value_a != value_b:
            texts.append(SettingDifference(name, value_a, value_b))
    arrays.sort(key=lambda array: array.name != CONDUCTANCE)
    faults = _faults(results_a, results_b)
    settings = {
        "configuration": _differences(a.config, b.config),
        "backend": _differences(a.backend, b.backend),
        "software": _differences(a.software, b.software),
        "run": _differences(_run(a), _run(b)),
        "results": texts,
    }
    conductance = next((array for array in arrays if array.name == CONDUCTANCE), None)
    return Comparison(
        a=a.run_id,
        b=b.run_id,
        title=_title(a, b),
        settings={part: found for part, found in settings.items() if found},
        scalars=scalars,
        arrays=arrays,
        faults=faults,
        not_compared=not_compared,
        verdict=[
            *(_verdict_on_sizes(results_a, results_b) or _verdict_on_cells(conductance)),
            *_verdict_on_faults(faults),
            *_verdict_on_rest(scalars, arrays),
        ],
    )


def array_difference(name: str, a: NDArray[Any], b: NDArray[Any], tolerance: float = 0.0) -> ArrayDifference:
    """Compare two arrays of equal shape element by element, over the elements that are finite in both."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    in_a, in_b = np.isfinite(x), np.isfinite(y)
    both = in_a & in_b
    n = int(np.count_nonzero(both))
    difference = np.where(both, y - x, 0.0) if n else np.zeros(x.shape)
    xs, ys, ds = x[both], y[both], difference[both]
    bias = float(ds.mean()) if n else math.nan
    # Order of falling difference; ties by index, so that equal files give equal lists.
    order = np.argsort(-np.abs(difference), axis=None, kind="stable")[:_N_WORST]
    worst = [tuple(int(i) for i in np.unravel_index(k, x.shape)) for k in order if difference.flat[k]]
    return ArrayDifference(
        name=name,
        shape=a.shape,
        n=n,
        n_only_a=int(np.count_nonzero(in_a & ~in_b)),
        n_only_b=int(np.count_nonzero(in_b & ~in_a)),
        mean_a=float(xs.mean()) if n else math.nan,
        mean_b=float(ys.mean()) if n else math.nan,
        bias=bias,
        bias_error=_standard_error(difference, both) if n > 1 else math.nan,
        sigma=float(ds.std(ddof=1)) if n > 1 else math.nan,
        rms=float(np.sqrt(np.mean(ds**2))) if n else math.nan,
        correlation=_correlation(xs, ys),
        ks=ks_distance(xs, ys) if n else math.nan,
        ks_chance=_KS_ONE_PERCENT * math.sqrt(2 / n) if n else math.nan,
        tolerance=tolerance,
        n_changed=int(np.count_nonzero(np.abs(ds) > tolerance)),
        worst=tuple(ElementDifference(i, float(x[i]), float(y[i])) for i in worst),
    )


def ks_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Largest distance between the cumulative distributions of two samples (Kolmogorov and Smirnov)."""
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    below_a = np.searchsorted(a, at, side="right") / len(a)
    below_b = np.searchsorted(b, at, side="right") / len(b)
    return float(np.max(np.abs(below_a - below_b)))


def _standard_error(difference: NDArray[np.float64], both: NDArray[np.bool_]) -> float:
    """Standard error of the mean difference. An offset of a converter or a line moves all its cells together, so that
    they are not independent: sums over rows and over columns are tried as well, and the largest error counts."""
    n = np.count_nonzero(both)
    rest = np.where(both, difference - difference[both].mean(), 0.0)
    groupings = [rest[both]]
    if rest.ndim == 2:
        groupings += [rest.sum(axis=1)[both.any(axis=1)], rest.sum(axis=0)[both.any(axis=0)]]
    errors = [
        math.sqrt(len(sums) / (len(sums) - 1) * float(np.sum(sums**2))) / n for sums in groupings if len(sums) > 1
    ]
    return max(errors, default=math.nan)


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    dx, dy = x - x.mean(), y - y.mean()
    return float(np.sum(dx * dy) / math.sqrt(float(np.sum(dx**2)) * float(np.sum(dy**2))))


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested mapping by dotted key."""
    for key, below in value.items():
        if isinstance(below, Mapping) and below:
            yield from flat(cast("Mapping[str, Any]", below), f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", below


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[SettingDifference]:
    flat_a, flat_b = dict(flat(a)), dict(flat(b))
    keys = [*flat_a, *(key for key in flat_b if key not in flat_a)]
    pairs = [SettingDifference(key, flat_a.get(key), flat_b.get(key)) for key in keys]
    return [pair for pair in pairs if pair.a != pair.b]


def _run(run: RunReader) -> dict[str, Any]:
    return {
        "experiment": run.experiment,
        "status": run.status,
        "calibration": run.calibration,
        "seed": run.seed,
    }


def _results(run: RunReader) -> dict[str, Any]:
    """Results by name, mappings by dotted key; of an array run without an end, the map as far as it was read."""
    found: dict[str, Any] = {}
    for name, value in run.results.items():
        found.update(flat(cast("dict[str, Any]", value), f"{name}.") if isinstance(value, dict) else {name: value})
    if CONDUCTANCE not in found and (conductance_s := _conductance_of(run)) is not None:
        found[CONDUCTANCE] = conductance_s
    return found


def conductances_of(a: RunReader, b: RunReader) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
    """Maps of the newest conductances of two runs. The records of a run without results say which cells were read and
    not how large the array is: such a map is filled up with NaN to the size of the other."""
    maps = [_conductance_of(run) for run in (a, b)]
    for k, run in enumerate((a, b)):
        found, other = maps[k], maps[1 - k]
        if found is not None and other is not None and CONDUCTANCE not in run.results:
            missing = [max(0, n - m) for n, m in zip(other.shape, found.shape, strict=True)]
            maps[k] = np.pad(found, [(0, n) for n in missing], constant_values=np.nan)
    return maps[0], maps[1]


def _conductance_of(run: RunReader) -> NDArray[Any] | None:
    """A result, or as far as the cells were read; None without any."""
    stored = run.results.get(CONDUCTANCE)
    if isinstance(stored, np.ndarray):
        return stored
    if is_array_run(run) and run.row_count("readings"):
        return last_conductance_s(run, array_shape(run))
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_) and not isinstance(value, complex)


def _faults(a: Mapping[str, Any], b: Mapping[str, Any]) -> FaultDifference | None:
    """Faults of the cells that both runs were about: of others a run says nothing."""
    maps: list[NDArray[np.uint8]] = []
    looked_at: list[NDArray[np.bool_]] = []
    for results in (a, b):
        faults, mask = results.get(FAULTS), results.get("mask_in")
        if not isinstance(faults, np.ndarray) or faults.dtype != np.uint8 or faults.ndim != 2:
            return None
        maps.append(faults)
        if not isinstance(mask, np.ndarray) or mask.shape != faults.shape:
            mask = np.ones(faults.shape)
        looked_at.append(mask.astype(bool))
    if maps[0].shape != maps[1].shape:
        return None
    common = looked_at[0] & looked_at[1]
    before, after = (FaultMap(np.where(common, faults, 0).astype(np.uint8)) for faults in maps)
    change = after.since(before)
    return FaultDifference(
        gained={name: n for name, n in change.gained.count().items() if n},
        lost={name: n for name, n in change.lost.count().items() if n},
    )


def _title(a: RunReader, b: RunReader) -> str:
    kind_a, kind_b = backend_kind(a.backend) or "unknown", backend_kind(b.backend) or "unknown"
    if kind_a != kind_b:
        return f"two backends: A on {kind_a}, B on {kind_b}"
    apart_s = b.started_unix_s - a.started_unix_s
    when = f"B {_span(abs(apart_s))} {'later' if apart_s >= 0 else 'earlier'}"
    if _identity(a) == _identity(b):
        return f"the same array ({kind_a}), {when}"
    return f"two arrays of one kind ({kind_a}), {when}"


def _identity(run: RunReader) -> dict[str, Any]:
    """What tells one array from another; what is nested are settings of a simulated chip."""
    return {key: value for key, value in run.backend.items() if not isinstance(value, Mapping)}


def _span(time_s: float) -> str:
    for unit, length_s in (("days", 86_400), ("hours", 3600), ("min", 60)):
        if time_s >= 2 * length_s:
            return f"{time_s / length_s:.3g} {unit}"
    return f"{time_s:.3g} s"


def _verdict_on_sizes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """That two arrays of different size have no cells in common; empty where both are alike, or one has no map."""
    shapes = [found.shape for found in (a.get(CONDUCTANCE), b.get(CONDUCTANCE)) if isinstance(found, np.ndarray)]
    if len(shapes) < 2 or shapes[0] == shapes[1]:
        return []
    sizes = [" x ".join(str(n) for n in shape) for shape in shapes]
    return [f"conductance: not compared: A is an array of {sizes[0]} cells, B of {sizes[1]}"]


def _verdict_on_cells(found: ArrayDifference | None) -> list[str]:
    if found is None:
        return []
    if not found.n:
        return ["conductance: no cell was read in both runs"]
    if found.equal:
        return [f"conductance: all {found.n} cells are equal"]
    texts = [_shift_text(found)]
    share = found.n_changed / found.n
    texts.append(
        f"cells: {found.n_changed} of {found.n} ({100 * share:.3g} %) changed by more than "
        f"{1e6 * found.tolerance:g} uS; differences spread by {1e6 * found.sigma:.3g} uS"
    )
    if found.correlation is not None:
        if found.correlation > _SAME_PATTERN:
            meaning = "the same cells are high and low"
        elif found.correlation < _NO_PATTERN:
            meaning = "cells have little or nothing in common"
        else:
            meaning = "cells kept their order in part"
        texts.append(f"pattern: correlation {found.correlation:.4f}, {meaning}")
    if found.ks_chance < 1:
        agree = "differ" if found.ks > found.ks_chance else "agree"
        texts.append(
            f"distribution: KS distance {found.ks:.3g}, chance stays below {found.ks_chance:.2g}: they {agree}"
        )
    else:
        texts.append(f"distribution: KS distance {found.ks:.3g}, too few cells to tell")
    if found.n_only_a or found.n_only_b:
        texts.append(f"not compared: {found.n_only_a} cells read in A only, {found.n_only_b} in B only")
    return texts


def _shift_text(found: ArrayDifference) -> str:
    percent = f" ({100 * found.bias / found.mean_a:+.2g} %)" if found.mean_a else ""
    shift = f"conductance: B is {1e6 * found.bias:+.3g} uS{percent} against A on average"
    if math.isnan(found.bias_error):
        return f"{shift}, of one cell only"
    times = abs(found.shift_in_errors)
    if times < _SCATTER:
        meaning = "no more than cells and lines scatter"
    elif times < _HARDLY_SCATTER:
        meaning = "perhaps no more than scatter"
    else:
        meaning = "a real shift"
    return f"{shift}, {times:.2g} times its uncertainty of {1e6 * found.bias_error:.2g} uS: {meaning}"


def _verdict_on_faults(found: FaultDifference | None) -> list[str]:
    if found is None:
        return []

    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items()) or "none"

    if not found.gained and not found.lost:
        return ["faults: the same in both"]
    return [f"faults: new in B: {listed(found.gained)}; gone in B: {listed(found.lost)}"]


def _verdict_on_rest(scalars: list[ScalarDifference], arrays: list[ArrayDifference]) -> list[str]:
    if not scalars and not arrays:
        return ["no result is in both runs"]
    numbers = sum(1 for scalar in scalars if scalar.difference != 0)
    others = sum(1 for array in arrays if not array.equal and array.name != CONDUCTANCE)
    n_others = sum(1 for array in arrays if array.name != CONDUCTANCE)
    return [f"other results: {numbers} of {len(scalars)} numbers and {others} of {n_others} arrays differ"]
