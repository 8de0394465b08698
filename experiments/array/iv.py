"""I-V curves: currents within the read range, or the hysteresis loop of SET and RESET pulses.

Within the read range each cell is read at rising voltages, of both signs where the backend can, and the curve is
described by a straight line and a cubic part. The loop applies a rising staircase of SET pulses, then one of RESET
pulses, with a read after each pulse; the gate limits the current of the SET pulses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.array.bench import Bench, steps
from experiments.array.outcome import Outcome
from experiments.array.plan import Plan, PlannedPulses
from experiments.array.read import n_steps
from experiments.array.settings import IvSettings
from experiments.array.trajectory import Mask, Trajectory, cell_places, counts, on_map
from hil.backend import BackendInfo, Pulse
from hil.errors import ConfigError

#: a cubic part beyond so many standard errors is there
_Z = 3.0


def plan(mask: Mask, settings: IvSettings, info: BackendInfo, cells_per_step: int) -> Plan:
    """What `iv` would do at most.

    Raises:
        ConfigError: a staircase that ends below its start, or more pulses than their ceiling.
    """
    n = int(mask.sum())
    if settings.mode == "read":
        grid = _read_grid(settings, info)
        return Plan(
            text=f"read each cell at {len(grid)} voltages from {grid[0]:g} to {grid[-1]:g} V",
            n_cells=n,
            v_read_v=tuple(grid),
            reads_per_cell=len(grid),
            primitives=len(grid) * n_steps(n, cells_per_step),
        )
    stairs = _staircase(settings)
    n_set = settings.n_loops * sum(step.kind == "set" for step in stairs)
    n_all = settings.n_loops * len(stairs)
    if n_all > settings.pulses_per_cell_max:
        raise ConfigError(
            f"{settings.n_loops} loops take {n_all} pulses per cell, array.iv.pulses_per_cell_max allows "
            f"{settings.pulses_per_cell_max}",
            fix="use fewer loops or a larger step",
        )
    return Plan(
        text=f"{settings.n_loops} loops of SET pulses to {settings.set_stop_v:g} V and RESET pulses to "
        f"{settings.reset_stop_v:g} V, a read after each",
        n_cells=n,
        pulses=(
            PlannedPulses("set", settings.set_stop_v, settings.set_gate_v, settings.width_s, n_set),
            PlannedPulses("reset", settings.reset_stop_v, settings.reset_gate_v, settings.width_s, n_all - n_set),
        ),
        pulses_needed=n_all,
        reads_per_cell=1 + n_all,
        primitives=(1 + 2 * n_all) * n_steps(n, cells_per_step),
    )


def iv(bench: Bench, mask: Mask, settings: IvSettings) -> Outcome:
    """I-V curves of each cell of the mask, in the way that `settings.mode` names."""
    return {"read": _read_range, "switch": _loops}[settings.mode](bench, mask, settings)


def _read_grid(settings: IvSettings, info: BackendInfo) -> NDArray[np.float64]:
    """Voltages, rising; 0 V, where only offsets flow, is among them."""
    rising = np.linspace(0.0, settings.v_read_stop_v, settings.n_points + 1)
    return np.concatenate([-rising[:0:-1], rising]) if info.capabilities.bipolar_read else rising


def _read_range(bench: Bench, mask: Mask, settings: IvSettings) -> Outcome:
    grid_v = _read_grid(settings, bench.info)
    n_read = counts(bench, "iv")
    for k, voltage_v in enumerate(grid_v.tolist()):
        bench.progress("iv", k, len(grid_v))
        for part in steps(mask & (n_read <= k), bench.cells_per_step):
            bench.current_a(part, "iv", voltage_v, settings.n_average)
    bench.progress("iv", len(grid_v), len(grid_v))
    found = Trajectory.of(bench, "iv", mask)
    curve = fit_ohmic(grid_v, found.current_a.astype(np.float64))
    bent = np.abs(curve.nonlinearity) > _Z * curve.nonlinearity_error
    ohmic = np.abs(curve.nonlinearity) <= settings.nonlinearity_max + _Z * curve.nonlinearity_error
    n_cells = len(found.cells)
    return Outcome(
        mask_ok=on_map(ohmic, found.cells, bench.shape, False),
        faults=np.zeros(bench.shape, np.uint8),
        summary={
            "cells": n_cells,
            "voltages": len(grid_v),
            "ohmic_mean_s": float(curve.conductance_s.mean()),
            "nonlinearity_median": float(np.median(curve.nonlinearity)),
            "nonlinearity_sigma": float(curve.nonlinearity.std()),
            "cells_significantly_nonlinear": int(bent.sum()),
            "cells_not_ohmic": n_cells - int(ohmic.sum()),
        },
        results={
            "cells": cell_places(found.cells, bench.shape),
            "iv_voltage_v": np.broadcast_to(grid_v, (n_cells, len(grid_v))).copy(),
            "iv_current_a": found.current_a.T.copy(),
            "ohmic_s": on_map(curve.conductance_s, found.cells, bench.shape),
            "nonlinearity": on_map(curve.nonlinearity, found.cells, bench.shape),
            "nonlinearity_error": on_map(curve.nonlinearity_error, found.cells, bench.shape),
        },
    )


@dataclass(frozen=True, eq=False)
class OhmicFit:
    """I = offset + G V (1 + n (V / V_max)^2), fitted to each cell; arrays over cells.

    Attributes:
        conductance_s: G, at small voltages.
        nonlinearity: n, the cubic part of the current at the largest voltage over the linear one.
        nonlinearity_error: its standard error, from the scatter around the fit; 0 where nothing scatters.
    """

    conductance_s: NDArray[np.float64]
    nonlinearity: NDArray[np.float64]
    nonlinearity_error: NDArray[np.float64]


def fit_ohmic(voltage_v: NDArray[np.float64], current_a: NDArray[np.float64]) -> OhmicFit:
    """Least squares over all voltages; read noise grows with the current, so that points are weighted by 1 / |V|.

    Args:
        voltage_v: (n_points,), 0 V among them.
        current_a: (n_points, n_cells).
    """
    v = voltage_v / np.abs(voltage_v).max()
    weight = 1.0 / np.maximum(np.abs(v), np.abs(v[v != 0]).min())
    design = np.stack([np.ones_like(v), v, v**3], axis=1) * weight[:, None]
    solve = np.linalg.pinv(design)
    coefficients = solve @ (current_a * weight[:, None])
    residual = current_a * weight[:, None] - design @ coefficients
    variance = (residual**2).sum(axis=0) / max(len(v) - 3, 1)
    covariance = solve @ solve.T
    _, linear, cubic = coefficients
    safe = np.where(linear == 0, np.inf, linear)
    ratio = cubic / safe
    spread = covariance[2, 2] - 2 * ratio * covariance[1, 2] + ratio**2 * covariance[1, 1]
    error = np.sqrt(variance * spread) / np.abs(safe)
    return OhmicFit(linear / np.abs(voltage_v).max(), ratio, error)


def _staircase(settings: IvSettings) -> list[Pulse]:
    """Pulses of one loop.

    Raises:
        ConfigError: a staircase that ends below its start.
    """
    pulses: list[Pulse] = []
    for kind in ("set", "reset"):
        start_v, stop_v, gate_v = (getattr(settings, f"{kind}_{name}_v") for name in ("start", "stop", "gate"))
        if stop_v < start_v:
            raise ConfigError(
                f"array.iv.{kind}_stop_v = {stop_v:g} V is below {kind}_start_v = {start_v:g} V",
                fix="let the staircase rise",
            )
        n = int((stop_v - start_v) / settings.step_v + 1e-9) + 1
        levels_v = [min(round(start_v + k * settings.step_v, 9), stop_v) for k in range(n)]
        pulses += [Pulse(kind, voltage_v, gate_v, settings.width_s) for voltage_v in levels_v]
    return pulses


def _loops(bench: Bench, mask: Mask, settings: IvSettings) -> Outcome:
    stairs = _staircase(settings)
    n_all = settings.n_loops * len(stairs)
    n_read = counts(bench, "iv")  # reading 0 comes before the first pulse, reading k + 1 after pulse k
    bench.read(mask & (n_read == 0), "iv")
    for k in range(n_all):
        bench.progress("iv", k, n_all)
        pulse, rest = stairs[k % len(stairs)], mask & (n_read <= k + 1)
        too_much = (pulse.kind == "set") & (bench.history.last_conductance_s > settings.stop_above_s)
        # After an interruption a cell may have had this pulse already; one that nobody confirmed is applied again.
        had = (bench.history.pulse_count > 0) & ~bench.history.read_since_pulse
        able = bench.pulses_left(settings.pulses_per_cell_max) > 0
        bench.pulse(rest & ~too_much & ~had & able, pulse, "iv")
        bench.read(rest, "iv")
    bench.progress("iv", n_all, n_all)
    return _loop_outcome(bench, mask, settings, stairs)


def _loop_outcome(bench: Bench, mask: Mask, settings: IvSettings, stairs: list[Pulse]) -> Outcome:
    found = Trajectory.of(bench, "iv", mask)
    n_set = sum(step.kind == "set" for step in stairs)
    voltage_v = np.array([step.voltage_v for step in stairs])
    start, after = found.conductance_s[0], found.conductance_s[1:].reshape(settings.n_loops, len(stairs), -1)
    set_at_v, reset_at_v = [], []
    for loop in after:
        set_at_v.append(first_v(voltage_v[:n_set], loop[:n_set] >= settings.factor * start))
        start = loop[n_set - 1]
        reset_at_v.append(first_v(voltage_v[n_set:], loop[n_set:] <= start / settings.factor))
        start = loop[-1]
    set_v, reset_v = _median(set_at_v), _median(reset_at_v)
    switches = np.isfinite(set_v) & np.isfinite(reset_v)
    on_s, off_s = after[:, n_set - 1], after[:, -1]
    summary = {
        "cells": len(found.cells),
        "cells_switching": int(switches.sum()),
        "loops": settings.n_loops,
        "on_median_s": float(np.median(on_s)),
        "off_median_s": float(np.median(off_s)),
        "pulses_per_cell_max": int(bench.history.pulse_count[mask].max()),
    }
    for name, values in (("set_at", set_v), ("reset_at", reset_v)):
        if np.isfinite(values).any():
            summary[f"{name}_mean_v"] = float(np.nanmean(values))
            summary[f"{name}_sigma_v"] = float(np.nanstd(values))
    signed_v = np.where(np.arange(len(stairs)) < n_set, voltage_v, -voltage_v)
    return Outcome(
        mask_ok=on_map(switches, found.cells, bench.shape, False),
        faults=np.zeros(bench.shape, np.uint8),
        summary=summary,
        results={
            "cells": cell_places(found.cells, bench.shape),
            "loop_voltage_v": np.tile(signed_v, settings.n_loops),
            "loop_conductance_s": found.conductance_s[1:],
            "set_at_v": on_map(set_v, found.cells, bench.shape),
            "reset_at_v": on_map(reset_v, found.cells, bench.shape),
        },
    )


def first_v(voltage_v: NDArray[np.float64], passed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Voltage of the first point, (n_points, n_cells), that passed; NaN where none did."""
    return np.where(passed.any(axis=0), voltage_v[passed.argmax(axis=0)], np.nan)


def _median(by_loop: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Median over the loops in which a cell switched; NaN where it never did."""
    stacked = np.sort(np.stack(by_loop), axis=0)  # NaN last
    n = np.isfinite(stacked).sum(axis=0)
    low, high = (np.take_along_axis(stacked, np.maximum(k, 0)[None], axis=0)[0] for k in ((n - 1) // 2, n // 2))
    return np.where(n > 0, 0.5 * (low + np.where(n > 0, high, low)), np.nan)
