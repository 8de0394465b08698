"""Read noise: a few cells read many times in a row, their spectra, and which of them show telegraph noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration import telegraph
from experiments.array.bench import Bench, steps
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan
from experiments.array.read import n_steps
from experiments.array.settings import NoiseSettings
from experiments.array.spectrum import Flicker, Spectrum, fit_flicker, welch
from experiments.array.trajectory import Mask, Trajectory, cell_places, counts, on_map
from hil.backend import BackendInfo
from hil.fault_map import Fault

#: traces kept as results for a figure; all of them are in the readings
_N_TRACES = 9


def plan(mask: Mask, settings: NoiseSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `noise` would do."""
    del info
    n = int(chosen_cells(mask, settings).sum())
    pauses = settings.n_reads if settings.interval_s > 0 else 0
    return Plan(
        text=f"read {n} cells {settings.n_reads} times",
        n_cells=n,
        reads_per_cell=settings.n_reads,
        primitives=settings.n_reads * n_steps(n, cells_per_step) + pauses,
        wait_s=pauses * settings.interval_s,
    )


def chosen_cells(mask: Mask, settings: NoiseSettings) -> Mask:
    """The cells to read: some of the mask, drawn by the seed, or all."""
    cells = np.flatnonzero(mask)
    if settings.n_cells and settings.n_cells < len(cells):
        cells = np.random.default_rng(settings.seed).choice(cells, settings.n_cells, replace=False)
    chosen = np.zeros(mask.shape, np.bool_)
    chosen.ravel()[cells] = True
    return chosen


def noise(bench: Bench, mask: Mask, settings: NoiseSettings) -> Outcome:
    """Read the chosen cells again and again; a resumed run reads what is left."""
    chosen = chosen_cells(mask, settings)
    how = bench.read_settings.model_copy(update={"n_average": settings.n_average})
    n_read = counts(bench, "noise")
    done = int(n_read[chosen].min())
    parts = list(steps(chosen, bench.cells_per_step))
    for k in range(done, settings.n_reads):
        bench.progress("noise", k, settings.n_reads)
        if settings.interval_s > 0:
            bench.wait(settings.interval_s, "noise")
        # A repeat that was interrupted half-way is completed: some cells have their reading already.
        for part in steps(chosen & (n_read <= k), bench.cells_per_step) if k == done else parts:
            bench.read_cells(part, "noise", how)
    bench.progress("noise", settings.n_reads, settings.n_reads)
    return _outcome(bench, chosen, settings)


def _outcome(bench: Bench, chosen: Mask, settings: NoiseSettings) -> Outcome:
    found = Trajectory.of(bench, "noise", chosen)
    trace_s = found.conductance_s.astype(np.float64)
    time_s = found.t_array_s.mean(axis=1)
    # A clock that stands still while cells are read leaves the number of the read as the only axis.
    by_clock = bool((np.diff(time_s) > 0).all())
    spectrum = welch(trace_s, time_s if by_clock else np.arange(len(time_s)) * 1.0, n_segments=settings.n_segments)
    flicker = fit_flicker(spectrum)
    jumps = telegraph.detect(
        trace_s, spectrum.interval_s, np.random.default_rng(settings.seed), significance=settings.telegraph_p
    )
    mean_s, variance_s2 = trace_s.mean(axis=0), trace_s.var(axis=0, ddof=1)
    quiet = variance_s2 < settings.variance_max_s2

    def on(values: NDArray[Any], empty: Any = np.nan) -> NDArray[Any]:
        return on_map(values, found.cells, bench.shape, empty)

    return Outcome(
        mask_ok=on(quiet, False),
        faults=on(np.where(quiet, np.uint8(0), np.uint8(Fault.NOISY)), 0),
        summary={
            "cells": len(found.cells),
            "reads_per_cell": len(time_s),
            "quiet_share": float(quiet.mean()),
            "variance_max_s2": settings.variance_max_s2,
            "variance_median_s2": float(np.median(variance_s2)),
            "sigma_median_s": float(np.median(np.sqrt(variance_s2))),
            "sigma_relative_median": float(np.median(np.sqrt(variance_s2) / np.maximum(np.abs(mean_s), 1e-12))),
            "time_base": "clock of the array" if by_clock else "number of the read",
            **_spectral_summary(spectrum, flicker),
            "telegraph_cells": int(jumps.found.sum()),
            "telegraph_false_positive_share": settings.telegraph_p,
        },
        results={
            "cells": cell_places(found.cells, bench.shape),
            "psd_frequency_hz": spectrum.frequency_hz,
            "psd_s2_per_hz": spectrum.psd.T.copy(),
            "trace_time_s": np.tile(time_s, (min(_N_TRACES, len(found.cells)), 1)),
            "trace_conductance_s": found.conductance_s[:, :_N_TRACES].T.copy(),
            "sigma_s": on(np.sqrt(variance_s2)),
            "flicker_exponent": on(flicker.exponent),
            "flicker_exponent_error": on(flicker.exponent_error),
            "flicker_s2_per_hz_at_1hz": on(flicker.psd_at_1hz),
            "white_s2_per_hz": on(flicker.psd_white),
            "telegraph": on(jumps.found, False),
            "telegraph_p_value": on(jumps.p_value),
            "telegraph_low_s": on(jumps.low),
            "telegraph_high_s": on(jumps.high),
            "telegraph_amplitude_s": on(jumps.amplitude),
            "telegraph_occupancy_high": on(jumps.occupancy_high),
            "telegraph_dwell_low_s": on(jumps.dwell_low_s),
            "telegraph_dwell_high_s": on(jumps.dwell_high_s),
        },
    )


def _spectral_summary(spectrum: Spectrum, flicker: Flicker) -> dict[str, Any]:
    sloped = np.isfinite(flicker.exponent)
    summary: dict[str, Any] = {
        "interval_s": spectrum.interval_s,
        "interval_jitter": spectrum.jitter,
        "stretches": spectrum.n_stretches,
        "segments": spectrum.n_segments,
        "flicker_cells": int(sloped.sum()),
    }
    if sloped.any():
        summary["flicker_exponent_mean"] = float(flicker.exponent[sloped].mean())
        summary["flicker_exponent_sigma"] = float(flicker.exponent[sloped].std())
    return summary
