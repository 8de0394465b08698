"""Retention: how conductance drifts after programming, read at times that are even on a logarithmic axis.

Nothing is programmed here. Ages count from the start of the run, or from the time that the user states; between two
reads the array is at zero bias. Times are those of the array's clock, so that a resumed run goes on at the next time
that is due, and a time that passed while nothing ran is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan
from experiments.array.read import n_steps
from experiments.array.schedule import log_times
from experiments.array.settings import RetentionSettings
from experiments.array.trajectory import Mask, Trajectory, cell_places, counts, on_map
from hil.array_records import DONE
from hil.backend import BackendInfo
from hil.errors import ConfigError

#: longest single wait: progress is shown in between
_WAIT_S = 600.0
#: a time so near has come: clocks have steps
_NOW_S = 1e-6


def plan(mask: Mask, settings: RetentionSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `retention` would do.

    Raises:
        ConfigError: the last time is before the first.
    """
    del info
    n, times_s = int(mask.sum()), _ages_s(settings)
    return Plan(
        text=f"read each cell {len(times_s)} times, from {times_s[0]:g} to {times_s[-1]:g} s after programming",
        n_cells=n,
        reads_per_cell=len(times_s),
        primitives=len(times_s) * n_steps(n, cells_per_step),
        wait_s=float(times_s[-1]),
    )


def _ages_s(settings: RetentionSettings) -> NDArray[np.float64]:
    if settings.last_s < settings.first_s:
        raise ConfigError(
            f"array.retention.last_s = {settings.last_s:g} s is before first_s = {settings.first_s:g} s",
            fix="let the times rise",
        )
    return log_times(settings.first_s, settings.last_s, settings.per_decade)


def retention(bench: Bench, mask: Mask, settings: RetentionSettings) -> Outcome:
    """Read the cells of a mask at each time that is due."""
    ages_s = _ages_s(settings)
    start_s = _start_s(bench) if settings.programmed_at_s is None else settings.programmed_at_s
    if start_s > bench.now_s():
        raise ConfigError(
            f"array.retention.programmed_at_s = {start_s:g} s is in the future: the array's clock says "
            f"{bench.now_s():g} s",
            fix="give a time of the array's clock, or leave it out",
        )
    how = bench.read_settings.model_copy(update={"n_average": settings.n_average})
    for k, age_s in enumerate(ages_s.tolist()):
        begun = counts(bench, _purpose(k))[mask] > 0
        next_s = start_s + ages_s[k + 1] if k + 1 < len(ages_s) else np.inf
        if begun.all() or (not begun.any() and bench.now_s() >= next_s):
            continue
        _wait_until(bench, start_s + age_s, k, len(ages_s))
        rest = mask.copy()
        rest[mask] = ~begun
        bench.read(rest, _purpose(k), how)
        bench.flush()
    bench.progress("retention", len(ages_s), len(ages_s))
    return _outcome(bench, mask, settings, start_s, len(ages_s))


def _purpose(k: int) -> str:
    return f"retention {k}"


def _start_s(bench: Bench) -> float:
    """The array's clock when the run began, which its first record keeps."""
    known = [op.t_array_s for op in bench.history.operations if op.purpose == "start" and op.status == DONE]
    if not known:
        bench.wait(0.0, "start")
        known = [bench.history.operations[-1].t_array_s]
    return known[0]


def _wait_until(bench: Bench, due_s: float, k: int, n: int) -> None:
    while (left_s := due_s - bench.now_s()) > _NOW_S:
        bench.progress("retention", k, n, f"next read in {left_s:.0f} s")
        bench.wait(min(left_s, _WAIT_S), "retention")


@dataclass(frozen=True, eq=False)
class Drift:
    """Relative change per decade of time, of each cell; NaN where it has fewer than three readings.

    Attributes:
        per_decade: slope of g over the fitted g after the first reading's age, per decade.
        error: its standard error from the scatter around the line.
    """

    per_decade: NDArray[np.float64]
    error: NDArray[np.float64]


def fit_drift(age_s: NDArray[np.float64], conductance_s: NDArray[np.float64]) -> Drift:
    """A straight line over log10(age) for each cell; both arguments (n_points, n_cells), NaN is left out."""
    known = np.isfinite(conductance_s) & (age_s > 0)
    n = known.sum(axis=0)
    x = np.log10(np.where(known, age_s, 1.0))
    y = np.where(known, conductance_s, 0.0)
    some = np.maximum(n, 1)
    x = np.where(known, x - x.sum(axis=0, where=known) / some, 0.0)
    mean = y.sum(axis=0) / some
    sxx = (x**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (x * y).sum(axis=0) / sxx
        residual = np.where(known, conductance_s - mean - slope * x, 0.0)
        error = np.sqrt((residual**2).sum(axis=0) / (n - 2) / sxx)
        first_s = mean + slope * np.min(x, axis=0)
        fits = n >= 3
        return Drift(np.where(fits, slope / first_s, np.nan), np.where(fits, error / np.abs(first_s), np.nan))


def _outcome(bench: Bench, mask: Mask, settings: RetentionSettings, start_s: float, n_points: int) -> Outcome:
    cells = np.flatnonzero(mask)
    conductance_s = np.full((n_points, len(cells)), np.nan)
    age_s = np.full((n_points, len(cells)), np.nan)
    for k in range(n_points):
        point = Trajectory.of(bench, _purpose(k), mask)
        if len(point.conductance_s):
            conductance_s[k], age_s[k] = point.conductance_s[0], point.t_array_s[0] - start_s
    read = np.isfinite(conductance_s).any(axis=1)
    conductance_s, age_s = conductance_s[read], age_s[read]
    drift = fit_drift(age_s, conductance_s)
    change = conductance_s[-1] / np.where(conductance_s[0] == 0, np.nan, conductance_s[0]) - 1
    kept = np.abs(change) <= settings.change_max
    summary = {
        "cells": len(cells),
        "cells_kept": int(kept.sum()),
        "points": len(age_s),
        "points_missed": n_points - len(age_s),
        "temperature_c": settings.temperature_c,
        "first_age_s": float(np.nanmean(age_s[0])),
        "last_age_s": float(np.nanmean(age_s[-1])),
    }
    if np.isfinite(change).any():
        summary["change_mean"] = float(np.nanmean(change))
        summary["change_sigma"] = float(np.nanstd(change))
    fitted = drift.per_decade[np.isfinite(drift.per_decade)]
    if fitted.size:
        summary["drift_per_decade_mean"] = float(fitted.mean())
        summary["drift_per_decade_mean_error"] = float(fitted.std() / np.sqrt(fitted.size))
        summary["drift_per_decade_sigma"] = float(fitted.std())
        summary["drift_per_decade_fit_error_median"] = float(np.nanmedian(drift.error))
    return Outcome(
        mask_ok=on_map(kept, cells, bench.shape, False),
        faults=np.zeros(bench.shape, np.uint8),
        summary=summary,
        results={
            "cells": cell_places(cells, bench.shape),
            "retention_time_s": np.nanmean(age_s, axis=1),
            "retention_conductance_s": conductance_s.astype(np.float32),
            "drift_per_decade": on_map(drift.per_decade, cells, bench.shape),
            "drift_per_decade_error": on_map(drift.error, cells, bench.shape),
            "change": on_map(change, cells, bench.shape),
        },
    )
