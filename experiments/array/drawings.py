"""Drawings of cell arrays: arrays in SI units in, a figure out. Nothing here knows of runs or files.

Data without a finite value, of one value only, or of one cell give a figure that says so; they never raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments import style
from experiments.array.units import scaled
from experiments.style import COLOURS
from hil.fault_map import Fault

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

#: A conductance is shown in microsiemens, whatever its size: people compare figures.
_US = 1e6
#: Up to this many marked cells get a marker that stays visible where a cell is smaller than a pixel.
_MARKED_ONE_BY_ONE = 1500
#: Beyond this many points a scatter plot is a blot: their density is drawn.
_POINTS_MAX = 3000
_QUANTILES_MAX = 400
#: From this many cells on, the outermost 1 % are beyond the ends of a colour scale.
_MANY = 1000
#: Lines drawn one by one; of more curves some are drawn, and the spread of all.
_CURVES_MAX = 40
_PANELS_MAX = 9

#: What a cell with several faults is shown as: the last that it has. A broken line explains the faults of its cells.
_FAULT_LOOK: tuple[tuple[Fault, str, str], ...] = (
    (Fault.UNFORMED, "unformed", "#56B4E9"),
    (Fault.NOISY, "noisy", "#F0E442"),
    (Fault.STUCK_OFF, "stuck off", "#0072B2"),
    (Fault.STUCK_ON, "stuck on", "#D55E00"),
    (Fault.ROW_OPEN, "row open", "#009E73"),
    (Fault.COL_OPEN, "column open", "#CC79A7"),
    (Fault.ROW_SHORT, "row shorted", "#000000"),
    (Fault.COL_SHORT, "column shorted", "#8C564B"),
)
_HEALTHY = "#CFCFCF"
_UNSEEN = "#FFFFFF"


def conductance_map(conductance_s: Floats, failed: Mask | None = None, title: str = "Conductance") -> Any:
    """Map of conductances (rows, cols); cells of `failed` are marked, NaN (not read) is grey."""
    shown = np.isfinite(conductance_s)
    n_failed = 0 if failed is None else int(failed.sum())
    made, axes = style.figure(6.6, 5.6)
    _map(made, axes, conductance_s * _US, "conductance (µS)", failed)
    style.title(axes, f"{title}: {_cells(int(shown.sum()))}" + (f", {n_failed:,} failed" if n_failed else ""))
    return made


def distribution(values: Floats, quantity: str, unit: str, title: str, factor: float = 1.0) -> Any:
    """Histogram with normal fit, and the normal quantile plot beside it. Shown is `values` * `factor` in `unit`."""
    made, (left, right) = style.figure(9.2, 4.0, cols=2)
    data = np.sort(values[np.isfinite(values)].astype(np.float64).ravel() * factor)
    style.heading(made, f"{title}: {_cells(len(data))}")
    if not len(data):
        return _say_nothing(made, (left, right))
    mean, sigma = float(data.mean()), float(data.std(ddof=1)) if len(data) > 1 else 0.0
    _histogram(left, data, f"{quantity} ({unit})", "cells")
    shares = (np.arange(n := min(len(data), _QUANTILES_MAX)) + 0.5) / n
    z = np.array([NormalDist().inv_cdf(share) for share in shares])
    right.plot(z, np.quantile(data, shares), linestyle="none", marker="o", markersize=3, color=COLOURS[0])
    right.set(xlabel="quantile of the normal distribution (sigma)", ylabel=f"{quantity} ({unit})")
    if sigma > 0:
        low, high = left.get_xlim()
        x = np.linspace(low, high, 300)
        width = np.diff([patch.get_x() for patch in left.patches[:2]])[0]
        density = np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        label = f"normal: mean {mean:.4g} {unit},\nsigma {sigma:.3g} {unit}"
        left.plot(x, density * len(data) * width, color=COLOURS[3], linewidth=1.6, label=label)
        left.set_xlim(low, high)
        ends = z[[0, -1]]
        right.plot(ends, mean + sigma * ends, color=COLOURS[3], linewidth=1.6, label="normal fit")
        for axes in (left, right):
            _legend_above_data(axes)
    else:
        style.title(left, f"all cells: {mean:.4g} {unit}")
    return made


def forming_voltage(formed_at_v: Floats) -> Any:
    """Map of the voltage at which each cell formed (NaN: not formed), and its cumulative distribution."""
    made, (left, right) = style.figure(11.0, 4.8, cols=2)
    made.get_layout_engine().set(wspace=0.06)
    data = formed_at_v[np.isfinite(formed_at_v)]
    style.heading(made, f"Forming voltage: {_cells(len(data))}")
    if not len(data):
        return _say_nothing(made, (left, right))
    _map(made, left, formed_at_v, "forming voltage (V)", None)
    _cumulative(right, data, {"color": COLOURS[0], "label": "cells"})
    mean, sigma = float(data.mean()), float(data.std(ddof=1)) if len(data) > 1 else 0.0
    if sigma > 0:
        x = np.linspace(data.min(), data.max(), 200)
        normal = NormalDist(mean, sigma)
        label = f"normal: mean {mean:.3f} V, sigma {sigma:.3f} V"
        right.plot(x, [100 * normal.cdf(v) for v in x], color=COLOURS[3], linewidth=1.6, label=label)
    right.set(xlabel="forming voltage (V)", ylabel="formed cells at or below it (%)", ylim=(-2, 102))
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 1.12), ncols=2, fontsize=8)
    return made


def fault_map(faults: NDArray[np.uint8], looked_at: Mask | None = None) -> Any:
    """Map of the faults, one colour per kind, in the smallest rectangle around the cells that were looked at.

    The legend counts the cells that have each.
    """
    from matplotlib.colors import ListedColormap

    made, axes = style.figure(7.4, 5.2)
    looked_at = np.ones(faults.shape, np.bool_) if looked_at is None else looked_at | (faults != 0)
    rows, cols = _rectangle(looked_at)
    faults, looked_at = faults[rows, cols], looked_at[rows, cols]
    shown = np.zeros(faults.shape, np.uint8)
    handles = [_swatch(_HEALTHY, f"healthy ({int((looked_at & (faults == 0)).sum()):,})")]
    for number, (fault, name, colour) in enumerate(_FAULT_LOOK, start=1):
        has = (faults & int(fault)) != 0
        shown[has] = number
        if has.any():
            handles.append(_swatch(colour, f"{name} ({int(has.sum()):,})"))
    colours = [_HEALTHY, *(colour for _, _, colour in _FAULT_LOOK)]
    if unseen := int((~looked_at).sum()):
        handles.append(_swatch(_UNSEEN, f"not looked at ({unseen:,})"))
    axes.imshow(
        np.ma.masked_where(~looked_at, shown),
        cmap=ListedColormap(colours).with_extremes(bad=_UNSEEN),
        vmin=-0.5, vmax=len(colours) - 0.5, interpolation="nearest", aspect=_aspect(shown.shape),
        extent=(cols.start - 0.5, cols.stop - 0.5, rows.stop - 0.5, rows.start - 0.5),
    )  # fmt: skip
    for number, colour in enumerate(colours[1:], start=1):
        _enlarge(axes, shown == number, colour, (rows.start, cols.start))
    _name_lines(axes)
    style.title(axes, f"Faults: {int((faults != 0).sum()):,} of {_cells(int(looked_at.sum()))}")
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False)
    return made


def iv_family(voltage_v: Floats, current_a: Floats, names: Sequence[str]) -> Any:
    """Current over voltage, (curves, points) each: linear beside its magnitude on a logarithmic scale."""
    made, (left, right) = style.figure(9.6, 4.2, cols=2)
    style.heading(made, f"I-V: {len(names):,} {'curve' if len(names) == 1 else 'curves'}")
    known = np.isfinite(voltage_v) & np.isfinite(current_a)
    if not known.any():
        return _say_nothing(made, (left, right))
    factor, unit = scaled(current_a, "A")
    chosen = _few(len(names), _CURVES_MAX)
    for number, curve in enumerate(chosen):
        v, i = voltage_v[curve][known[curve]], current_a[curve][known[curve]] * factor
        look = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.0, "label": names[curve]}
        left.plot(v, i, marker="." if len(v) < 3 else "", **look)
        right.plot(v, np.where((i == 0) | (v == 0), np.nan, np.abs(i)), marker="." if len(v) < 3 else "", **look)
    left.set(xlabel="voltage (V)", ylabel=f"current ({unit})")
    right.set(xlabel="voltage (V)", ylabel=f"|current| ({unit})")
    # At 0 V only offsets are left, which would stretch the axis over many decades.
    driven = known & (current_a != 0) & (voltage_v != 0)
    if driven.any():
        right.set_yscale("log")
        magnitude = np.abs(current_a[driven]) * factor
        _few_log_ticks(right.yaxis, magnitude)
    _legend_of_curves(right, len(chosen))
    return made


def switching_loop(
    voltage_v: Floats, conductance_s: Floats, set_at_v: Floats | None = None, reset_at_v: Floats | None = None
) -> Any:
    """Conductance after each pulse of a loop, (pulses, cells), RESET at negative `voltage_v`; switching voltages."""
    made, (left, right) = style.figure(9.6, 4.4, cols=2)
    g = np.asarray(conductance_s, np.float64).reshape(len(voltage_v), -1) * _US
    style.heading(made, f"Switching: {_cells(g.shape[1])}")
    if not np.isfinite(g).any():
        return _say_nothing(made, (left, right))
    for cell in _few(g.shape[1], _CURVES_MAX):
        left.plot(voltage_v, g[:, cell], color=COLOURS[7], linewidth=0.5, alpha=0.6)
    middle = _quantiles(g, (0.5,), 1)[0]
    left.plot(voltage_v, middle, color=COLOURS[0], linewidth=1.6, marker=".", label="median of the cells")
    left.set(xlabel="voltage of the pulse (V)", ylabel="conductance after it (µS)")
    _legend_above_data(left)
    limits = ((set_at_v, "SET", COLOURS[3], "-"), (reset_at_v, "RESET", COLOURS[0], "--"))
    known = [(v[np.isfinite(v)], *look) for v, *look in limits if v is not None and np.isfinite(v).any()]
    for data, name, colour, line in known:
        _cumulative(right, data, {"color": colour, "linestyle": line, "label": f"{name} ({len(data):,})"})
    if not known:
        return _say_nothing(made, (right,))
    right.set(xlabel="switching voltage (V)", ylabel="switched cells at or below it (%)", ylim=(-2, 102))
    right.set_yticks(range(0, 101, 20))
    _legend_above_data(right)
    return made


def noise_psd(frequency_hz: Floats, psd_s2_per_hz: Floats, *, by_clock: bool = True) -> Any:
    """Power spectral density of the conductance noise, (cells, frequencies): each cell, their median, a 1/f guide.

    Without a clock a reading counts as one second.
    """
    made, axes = style.figure(6.4, 4.6)
    psd = np.atleast_2d(psd_s2_per_hz) * _US**2
    style.title(axes, f"Read noise: {_cells(len(psd))}")
    axis = frequency_hz > 0
    known = np.isfinite(psd) & (psd > 0) & axis
    if not known.any():
        return _say_nothing(made, (axes,))
    f, psd = _log_binned(frequency_hz[axis], np.where(known, psd, np.nan)[:, axis])
    for curve in _few(len(psd), _CURVES_MAX):
        axes.plot(f, psd[curve], color=COLOURS[5], linewidth=0.6, alpha=0.6)
    middle = _quantiles(psd, (0.5,), 0)[0]
    axes.plot(f, middle, color=COLOURS[0], linewidth=1.8, label="median of the cells")
    first = np.flatnonzero(np.isfinite(middle))[0]
    unit = ("Hz", "µS²/Hz") if by_clock else ("1/reading", "µS² x reading")
    guide = middle[first] * f[first] / f
    axes.plot(f, guide, color="black", linewidth=1.0, linestyle="--", label="1/f, for comparison")
    axes.set(xscale="log", yscale="log", xlabel=f"frequency ({unit[0]})", ylabel=f"PSD of the conductance ({unit[1]})")
    _few_log_ticks(axes.xaxis, f)
    _few_log_ticks(axes.yaxis, psd[np.isfinite(psd)])
    axes.legend(frameon=False)
    return made


def traces(time_s: Floats, conductance_s: Floats, names: Sequence[str], *, by_clock: bool = True) -> Any:
    """Conductance over time of a few cells, (cells, readings) each, one panel per cell.

    Without a clock `time_s` is the number of the reading.
    """
    n = max(1, len(names))
    made, panels = style.figure(7.6, 1.3 * n + 0.9, rows=n, sharex=True)
    panels = np.atleast_1d(panels)
    style.heading(made, "Conductance over time")
    known = np.isfinite(time_s) & np.isfinite(conductance_s)
    if not known.any():
        return _say_nothing(made, panels)
    factor, unit = scaled(np.where(known, time_s, 0.0), "s", largest_prefix=1.0) if by_clock else (1.0, "")
    for number, axes in enumerate(panels):
        t, g = time_s[number][known[number]], conductance_s[number][known[number]]
        dots = {"marker": ".", "markersize": 3} if len(t) < 200 else {}
        axes.plot(t * factor, g * _US, color=COLOURS[0], linewidth=0.6, rasterized=len(t) > _POINTS_MAX, **dots)
        style.title(axes, names[number])
    made.supylabel("conductance (µS)", fontsize=10)
    panels[-1].set_xlabel(f"time ({unit})" if by_clock else "reading")
    return made


def retention(time_s: Floats, conductance_s: Floats) -> Any:
    """Conductance over time since programming, (times, cells): single cells, their median and the middle 80 %."""
    made, (left, right) = style.figure(9.6, 4.2, cols=2)
    g = np.asarray(conductance_s, np.float64).reshape(len(time_s), -1) * _US
    style.heading(made, f"Retention: {_cells(int(np.isfinite(g).any(axis=0).sum()))}")
    if not np.isfinite(g).any():
        return _say_nothing(made, (left, right))
    # The first reading that a cell has is what the others are compared with.
    first = np.take_along_axis(g, np.argmax(np.isfinite(g), axis=0)[None], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(first != 0, 100 * (g - first) / first, np.nan)
    _curves_and_spread(left, time_s, g)
    _curves_and_spread(right, time_s, change)
    left.set_ylabel("conductance (µS)")
    right.set_ylabel("change since the first reading (%)")
    for axes in (left, right):
        _log_axis(axes, time_s)
        axes.set_xlabel("time since programming (s)")
    _legend_above_data(left)
    return made


def endurance(cycle: NDArray[Any], high_s: Floats, low_s: Floats) -> Any:
    """Conductance after SET and after RESET over cycles, (cycles, cells) each, and the window between them."""
    made, (above, below) = style.figure(7.2, 6.0, rows=2, sharex=True)
    high, low = (_finite(g).reshape(len(cycle), -1) * _US for g in (high_s, low_s))
    style.heading(made, f"Endurance: {_cells(high.shape[1])}")
    if not (np.isfinite(high).any() or np.isfinite(low).any()):
        return _say_nothing(made, (above, below))
    for g, colour, name in ((high, COLOURS[3], "after SET"), (low, COLOURS[0], "after RESET")):
        bottom, middle, top = _quantiles(g, (0.1, 0.5, 0.9), 1)
        above.fill_between(cycle, bottom, top, color=colour, alpha=0.25, linewidth=0)
        above.plot(cycle, middle, color=colour, linewidth=1.6, marker=".", label=f"{name}: median, middle 80 %")
    bottom, middle, top = _quantiles(high - low, (0.1, 0.5, 0.9), 1)
    below.fill_between(cycle, bottom, top, color=COLOURS[2], alpha=0.25, linewidth=0)
    below.plot(cycle, middle, color=COLOURS[2], linewidth=1.6, marker=".", label="window: median, middle 80 %")
    below.axhline(0, color="black", linewidth=0.7, linestyle="--")
    above.set_ylabel("conductance (µS)")
    below.set(xlabel="cycles", ylabel="window (µS)")
    _log_axis(below, cycle)
    for axes in (above, below):
        _legend_above_data(axes)
    return made


def disturb(count: NDArray[Any], shift_s: Floats, error_s: Floats, groups: Sequence[str]) -> Any:
    """Mean change of the conductance of groups of cells, (counts, groups), with its standard error."""
    made, axes = style.figure(7.2, 4.4)
    style.title(axes, "Disturb")
    shift_s, error_s = _finite(shift_s), _finite(error_s)
    if not np.isfinite(shift_s).any():
        return _say_nothing(made, (axes,))
    factor, unit = scaled(shift_s, "S", largest_prefix=1e-6)
    for number, name in enumerate(groups):
        look = {"color": COLOURS[number % len(COLOURS)], "linewidth": 1.2, "marker": ".", "capsize": 2}
        axes.errorbar(count, shift_s[:, number] * factor, error_s[:, number] * factor, label=name, **look)
    axes.axhline(0, color="black", linewidth=0.7, linestyle="--")
    _log_axis(axes, np.asarray(count))
    axes.set(xlabel="reads or pulses applied", ylabel=f"change of the mean conductance ({unit})")
    _legend_of_curves(axes, len(groups))
    return made


def target_and_achieved(
    target_s: Floats,
    conductance_s: Floats,
    ok: Mask | None = None,
    tolerance_s: float | None = None,
    error_s: Floats | None = None,
) -> Any:
    """Achieved over wanted conductance of each cell, and the histogram of the errors; `ok` tells which cells passed.

    `error_s`: as the run found it at the end; without it, by `conductance_s`, the newest single reading.
    """
    made, (left, right) = style.figure(9.6, 4.4, cols=2)
    if error_s is not None:
        conductance_s = np.where(np.isfinite(error_s), target_s + error_s, conductance_s)
    known = np.isfinite(target_s) & np.isfinite(conductance_s)
    target, got = target_s[known] * _US, conductance_s[known] * _US
    passed = np.ones(len(target), np.bool_) if ok is None else ok[known]
    n_failed = int((~passed).sum())
    style.heading(
        made, f"Programming: {_cells(len(target))}" + (f", {n_failed:,} not within tolerance" if n_failed else "")
    )
    if not len(target):
        return _say_nothing(made, (left, right))
    if len(target) > _POINTS_MAX:
        drawn = left.hexbin(target, got, gridsize=60, bins="log", cmap=style.MAP, mincnt=1, rasterized=True)
        made.colorbar(drawn, ax=left, label="cells")
    else:
        left.plot(target[passed], got[passed], linestyle="none", marker="o", markersize=3, color=COLOURS[0])
    if not passed.all():
        worst = np.flatnonzero(~passed)[:_POINTS_MAX]
        size = 5 if len(worst) < 200 else 2
        look = {"linestyle": "none", "marker": "x", "markersize": size, "color": style.FAILED}
        left.plot(target[worst], got[worst], label="not within tolerance", rasterized=len(worst) > 500, **look)
    left.axline((target[0], target[0]), slope=1, color="black", linewidth=0.8, linestyle="--", label="target")
    left.set(xlabel="target (µS)", ylabel="achieved (µS)")
    _legend_above_data(left)
    error = got - target
    _histogram(right, error, "achieved - target (µS)", "cells")
    if tolerance_s:
        for sign in (-1, 1):
            label = f"tolerance ±{tolerance_s * _US:.3g} µS" if sign > 0 else None
            right.axvline(sign * tolerance_s * _US, color="black", linewidth=0.8, linestyle="--", label=label)
        _legend_above_data(right)
    style.title(right, f"mean {error.mean():+.3g} µS, sigma {error.std():.3g} µS")
    return made


def pulses_per_cell(pulse_count: NDArray[Any], ok: Mask | None = None) -> Any:
    """Histogram of the pulses that each cell got, cells that passed apart from those that did not."""
    made, axes = style.figure(6.4, 4.2)
    counts = np.asarray(pulse_count).ravel().astype(np.int64)
    if not len(counts):
        return _say_nothing(made, (axes,))
    most = int(counts.max())
    step = max(1, -(-(most + 1) // 60))
    edges = np.arange(0, most + step + 1, step) - 0.5
    passed = np.ones(len(counts), np.bool_) if ok is None else ok.ravel()
    groups = [(counts[passed], COLOURS[0], "passed"), (counts[~passed], style.FAILED, "failed")]
    groups = [(data, colour, f"{name} ({len(data):,})") for data, colour, name in groups if len(data)]
    data, colours, labels = zip(*groups, strict=True)
    axes.hist(data, edges, stacked=True, color=colours, label=labels)
    axes.set(xlabel="pulses of a cell", ylabel="cells")
    _whole_numbers(axes.xaxis)
    style.title(axes, f"Pulses: {_cells(len(counts))}, mean {counts.mean():.3g}, most {most:,}")
    if ok is not None:
        _legend_above_data(axes)
    return made


def trajectories(readings_s: Sequence[Floats], targets_s: Sequence[float], names: Sequence[str]) -> Any:
    """What each reading of a few cells gave, in order, with the target (NaN: none) as a dashed line."""
    made, axes = style.figure(7.2, 4.4)
    style.title(axes, "From reading to reading: a few cells")
    if not any(np.isfinite(g).any() for g in readings_s):
        return _say_nothing(made, (axes,))
    for number, (g, target_s, name) in enumerate(zip(readings_s, targets_s, names, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(np.arange(len(g)), g * _US, color=colour, linewidth=1.0, marker=".", label=name)
        if np.isfinite(target_s):
            axes.axhline(target_s * _US, color=colour, linewidth=0.8, linestyle="--")
    axes.set(xlabel="reading of the cell", ylabel="conductance (µS)")
    _whole_numbers(axes.xaxis)
    _legend_of_curves(axes, len(names))
    return made


def distribution_figure(samples: Mapping[str, tuple[Floats, Floats]], distances: Mapping[str, str]) -> Any:
    """Cumulative distributions, measured against simulated, one panel per quantity.

    The outermost 0.5 % at each end of both samples may lie beyond the ends of the axis.

    Args:
        samples: (measured, simulated) of each quantity; its name carries its unit; siemens are shown as microsiemens.
            Up to nine are drawn.
        distances: text under the name of a quantity, such as its two-sample distances.
    """
    chosen = list(samples.items())[:_PANELS_MAX]
    # Three columns, or two where that leaves fewer places empty.
    cols = max(1, len(chosen)) if len(chosen) <= 3 else min((3, 2), key=lambda n: -len(chosen) % n)
    rows = max(1, -(-len(chosen) // cols))
    made, panels = style.figure(3.4 * cols + 0.8, 3.1 * rows + 0.7, rows=rows, cols=cols)
    panels = np.atleast_1d(panels).ravel()
    if not chosen:
        return _say_nothing(made, panels)
    if len(samples) > len(chosen):
        style.heading(made, f"the first {len(chosen)} of {len(samples)} quantities")
    for axes, (name, both) in zip(panels, chosen, strict=False):
        shown_name, factor = _in_microsiemens(name)
        measured, simulated = (factor * np.asarray(values, np.float64).ravel() for values in both)
        measured, simulated = measured[np.isfinite(measured)], simulated[np.isfinite(simulated)]
        style.title(axes, f"{shown_name}\n{distances[name]}" if distances.get(name) else shown_name)
        if not (len(measured) and len(simulated)):
            _say_nothing(made, (axes,))
            continue
        _cumulative(axes, measured, {"color": COLOURS[0], "label": f"measured ({len(measured):,})"})
        look = {"color": COLOURS[3], "linestyle": "--"}
        _cumulative(axes, simulated, look | {"label": f"simulated ({len(simulated):,})"})
        axes.set(ylabel="cumulative (%)", ylim=(-2, 102))
        ends = [np.quantile(values, share) for values in (measured, simulated) for share in (0.005, 0.995)]
        low, high = float(min(ends)), float(max(ends))
        if high > low:
            axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        # Below the panel, where no curve is.
        axes.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)
    for axes in panels[len(chosen) :]:
        axes.set_axis_off()
    return made


def _in_microsiemens(name: str) -> tuple[str, float]:
    """Name of a quantity as it is shown, and what its values are multiplied by: siemens become microsiemens."""
    if name.endswith(" (S)"):
        return name.removesuffix("(S)") + "(µS)", _US
    return name.replace("[uS]", "(µS)").replace("uS", "µS"), 1.0


def _map(made: Any, axes: Any, values: Floats, label: str, failed: Mask | None) -> None:
    """Map of the smallest rectangle that holds all cells with a value or a fault, with colour bar."""
    from matplotlib import colormaps

    marked = np.zeros(values.shape, np.bool_) if failed is None else failed
    rows, cols = _rectangle(np.isfinite(values) | marked)
    inside, marked = values[rows, cols], marked[rows, cols]
    usual = inside[np.isfinite(inside) & ~marked]
    usual = usual if usual.size else inside[np.isfinite(inside)]
    if not usual.size:
        _say_nothing(made, (axes,))
        return
    # A few cells of many that lie far out must not flatten the rest.
    ends = (0.005, 0.995) if len(usual) >= _MANY else (0, 1)
    low, high = (float(v) for v in np.quantile(usual, ends))
    if high - low < 1e-9 * max(abs(high), 1e-12):
        low, high = low - 0.5, high + 0.5
    below, above = bool((usual < low).any()), bool((usual > high).any())
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]
    extent = (cols.start - 0.5, cols.stop - 0.5, rows.stop - 0.5, rows.start - 0.5)
    image = axes.imshow(
        np.ma.masked_invalid(inside),
        cmap=colormaps[style.MAP].with_extremes(bad=style.MISSING),
        vmin=low, vmax=high, extent=extent, interpolation="nearest", aspect=_aspect(inside.shape),
    )  # fmt: skip
    made.colorbar(image, ax=axes, label=label, extend=extend)
    handles = []
    if marked.any():
        axes.imshow(
            np.ma.masked_equal(marked.astype(float), 0.0), cmap=_one_colour(style.FAILED), extent=extent,
            interpolation="nearest", aspect=_aspect(inside.shape),
        )  # fmt: skip
        _enlarge(axes, marked, style.FAILED, (rows.start, cols.start))
        handles.append(_swatch(style.FAILED, f"failed ({int(marked.sum()):,})"))
    if missing := int((~np.isfinite(inside) & ~marked).sum()):
        handles.append(_swatch(style.MISSING, f"no value ({missing:,})"))
    if handles:
        made.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    _name_lines(axes)


def _rectangle(cells: Mask) -> tuple[slice, slice]:
    """Smallest rectangle around the cells; the whole array if there are none."""
    rows, cols = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    if not rows.size:
        return slice(0, cells.shape[0]), slice(0, cells.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)


def _aspect(shape: tuple[int, ...]) -> str:
    """Square cells, unless the map would be a thread."""
    return "equal" if max(shape) <= 4 * min(shape) else "auto"


def _one_colour(colour: str) -> Any:
    from matplotlib.colors import ListedColormap

    return ListedColormap([colour])


def _swatch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor="#777777", linewidth=0.5, label=label)


def _enlarge(axes: Any, cells: Mask, colour: str, origin: tuple[int, int] = (0, 0)) -> None:
    """Markers on a few cells of a large map, which would be lost as single pixels."""
    row, col = np.nonzero(cells)
    if 0 < len(row) <= _MARKED_ONE_BY_ONE and max(cells.shape) > 64:
        axes.scatter(col + origin[1], row + origin[0], s=7, marker="s", color=colour, linewidths=0)


def _name_lines(axes: Any) -> None:
    axes.set(xlabel="column", ylabel="row")
    _whole_numbers(axes.xaxis)
    _whole_numbers(axes.yaxis)


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _histogram(axes: Any, data: Floats, xlabel: str, ylabel: str) -> None:
    """Histogram of finite values; values far out of the rest are counted in the label, not drawn."""
    low, high = (float(v) for v in np.quantile(data, (0.001, 0.999)))
    slack = 0.25 * (high - low)
    low, high = max(low - slack, float(data.min())), min(high + slack, float(data.max()))
    outside = int(((data < low) | (data > high)).sum())
    if high <= low:
        half = 0.5 * abs(low) or 0.5
        low, high = low - half, high + half
    axes.hist(data, bins=int(np.clip(np.sqrt(len(data)), 9, 80)), range=(low, high), color=COLOURS[5])
    axes.set(xlabel=xlabel + (f"\n{outside:,} further out" if outside else ""), ylabel=ylabel)


def _cumulative(axes: Any, data: Floats, look: Mapping[str, Any]) -> None:
    """Share of the values at or below each value, in percent; of many values, quantiles that are close together."""
    if len(data) > 2 * _QUANTILES_MAX:
        share = np.linspace(0, 1, _QUANTILES_MAX)
        value = np.quantile(data, share)
    else:
        value, share = np.sort(data), np.arange(1, len(data) + 1) / len(data)
    # From 0 % on, so that one value is a step and not an invisible point.
    value, share = np.append(value[:1], value), np.append(0.0, share)
    axes.plot(value, 100 * share, drawstyle="steps-post", linewidth=1.6, **look)


def _curves_and_spread(axes: Any, x: Floats, curves: Floats) -> None:
    """Curves (points, cells): some one by one, the median, and the band that holds the middle 80 % of all."""
    for cell in _few(curves.shape[1], _CURVES_MAX):
        axes.plot(x, curves[:, cell], color=COLOURS[7], linewidth=0.5, alpha=0.6)
    low, middle, high = _quantiles(curves, (0.1, 0.5, 0.9), 1)
    axes.fill_between(x, low, high, color=COLOURS[5], alpha=0.35, linewidth=0, label="middle 80 % of the cells")
    axes.plot(x, middle, color=COLOURS[0], linewidth=1.8, marker=".", label="median")


def _finite(values: Floats) -> Floats:
    """With NaN, which is left out of a drawing, in place of infinities, such as the error of a single cell."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _quantiles(values: Floats, shares: Sequence[float], axis: int) -> Floats:
    """Quantiles of the finite values; NaN where there is none."""
    found = np.isfinite(values)
    some = found.any(axis=axis)
    result = np.full((len(shares), len(some)), np.nan)
    whole = np.where(found, values, np.nan)
    result[:, some] = np.nanquantile(np.compress(some, whole, axis=1 - axis), shares, axis=axis)
    return result


def _log_axis(axes: Any, x: NDArray[Any]) -> None:
    """Logarithmic x axis; linear below the first positive value where there is a zero."""
    positive = x[np.isfinite(x) & (x > 0)]
    if not positive.size:
        return
    if len(positive) == len(x):
        axes.set_xscale("log")
        _few_log_ticks(axes.xaxis, positive)
    else:
        axes.set_xscale("symlog", linthresh=float(positive.min()))


def _few_log_ticks(axis: Any, values: Floats) -> None:
    """Labels at whole decades; within less than two decades also at 2 and 5, where others would overlap."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if values.max() < 100 * values.min():
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _log_binned(f: Floats, psd: Floats, per_decade: int = 20) -> tuple[Floats, Floats]:
    """Means over bins of equal width on a logarithmic axis: the many points of the last decade are a blot otherwise."""
    number = np.floor(per_decade * np.log10(f)).astype(np.int64)
    bins = np.unique(number)
    sums = np.stack([np.nansum(psd[:, number == b], axis=1) for b in bins], axis=1)
    counts = np.stack([np.isfinite(psd[:, number == b]).sum(axis=1) for b in bins], axis=1)
    centre = np.array([f[number == b].mean() for b in bins])
    return centre, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _few(n: int, most: int) -> NDArray[np.intp]:
    """Up to `most` of n, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.intp)) if n else np.zeros(0, np.intp)


def _legend_above_data(axes: Any) -> None:
    """A legend in a strip of its own on top of the panel, where no curve is."""
    if axes.get_yscale() == "linear":
        low, high = axes.get_ylim()
        lines = sum(1 + handle.get_label().count("\n") for handle in axes.get_legend_handles_labels()[0])
        axes.set_ylim(low, high + (high - low) * (0.04 + 0.075 * lines))
    # White behind it: lines that mark a value run through the strip.
    axes.legend(frameon=True, framealpha=1.0, edgecolor="none", loc="upper left", fontsize=8)


def _legend_of_curves(axes: Any, n: int) -> None:
    """Names of the curves, where they are few enough to be told apart."""
    if n <= len(COLOURS):
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _cells(n: int) -> str:
    return "1 cell" if n == 1 else f"{n:,} cells"


def _say_nothing(made: Any, panels: Sequence[Any]) -> Any:
    """A panel without data says so: an empty frame looks like a fault of the program."""
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="#555555", transform=axes.transAxes)
    return made
