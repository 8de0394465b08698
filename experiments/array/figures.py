"""Figures of an array run, made from what its file holds and from nothing else.

`PICTURES` says what each figure needs; a run gets those whose data it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.array import drawings
from experiments.array.stored import Stored
from hil.runfile import RunReader


@dataclass(frozen=True)
class Picture:
    """One figure of the table.

    Attributes:
        name: of the figure and its files.
        needs: names in `Stored`; without one of them there is no figure.
        draw: makes it.
        caption: what it shows, in plain words.
    """

    name: str
    needs: tuple[str, ...]
    draw: Callable[[Stored], Any]
    caption: str


def _conductance_map(stored: Stored) -> Any:
    return drawings.conductance_map(stored.get("conductance_s"), stored.get("failed"))


def _conductances(stored: Stored) -> Any:
    return drawings.distribution(stored.get("sound_s"), "conductance", "µS", "Conductance", 1e6)


def _pairs(stored: Stored) -> Any:
    return drawings.distribution(stored.get("pairs_s"), "G+ - G-", "µS", "Column pairs", 1e6)


def _forming(stored: Stored) -> Any:
    return drawings.forming_voltage(stored.get("forming_voltages_v"))


def _faults(stored: Stored) -> Any:
    return drawings.fault_map(stored.get("known_faults"), stored.get("treated"))


def _program(stored: Stored) -> Any:
    return drawings.target_and_achieved(
        stored.get("target_s"),
        stored.get("conductance_s"),
        stored.get("mask_ok"),
        stored.summary.get("tolerance_s"),
        stored.get("error_s"),
    )


def _pulses(stored: Stored) -> Any:
    return drawings.pulses_per_cell(stored.get("pulses"), stored.get("pulses_ok"))


def _trajectories(stored: Stored) -> Any:
    cells = _telling_cells(stored)
    target = stored.get("target_s")
    targets = [float("nan") if target is None else float(target[cell]) for cell in cells]
    return drawings.trajectories(stored.readings_of(cells), targets, [_name(cell) for cell in cells])


def _telling_cells(stored: Stored, n_passed: int = 5, n_failed: int = 2) -> list[tuple[int, int]]:
    """A few cells from the one with fewest pulses to the one with most, and some that failed."""
    count, failed = stored.get("pulse_count"), stored.get("failed")
    failed = np.zeros(count.shape, np.bool_) if failed is None else failed
    chosen: list[tuple[int, int]] = []
    for cells, n in (((count > 0) & ~failed, n_passed), ((count > 0) & failed, n_failed)):
        place = np.argwhere(cells)
        order = np.argsort(count[cells], kind="stable")
        picked = np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int))
        chosen += [(int(row), int(col)) for row, col in place[order[picked]]]
    return chosen


def _name(cell: tuple[int, int]) -> str:
    return f"row {cell[0]}, column {cell[1]}"


def _iv(stored: Stored) -> Any:
    voltage_v, current_a = stored.get("iv_voltage_v"), stored.get("iv_current_a")
    return drawings.iv_family(voltage_v, current_a, _names(stored, len(current_a)))


def _loop(stored: Stored) -> Any:
    return drawings.switching_loop(
        stored.get("loop_voltage_v"), stored.get("loop_conductance_s"), stored.get("set_at_v"), stored.get("reset_at_v")
    )


def _names(stored: Stored, n: int) -> list[str]:
    """Names of the first cells of a result that has one row per cell."""
    places = stored.get("cells")
    if places is None:
        return [f"cell {k}" for k in range(n)]
    return [_name((int(row), int(col))) for row, col in places[:n]]


def _psd(stored: Stored) -> Any:
    return drawings.noise_psd(stored.get("psd_frequency_hz"), stored.get("psd_s2_per_hz"), by_clock=_by_clock(stored))


def _traces(stored: Stored) -> Any:
    conductance_s = stored.get("trace_conductance_s")
    time_s = stored.get("trace_time_s") if _by_clock(stored) else np.indices(conductance_s.shape)[1].astype(float)
    return drawings.traces(time_s, conductance_s, _names(stored, len(conductance_s)), by_clock=_by_clock(stored))


def _by_clock(stored: Stored) -> bool:
    """Whether times are those of a clock; one that stands still leaves only the number of the reading."""
    return stored.summary.get("time_base") != "number of the read"


def _retention(stored: Stored) -> Any:
    return drawings.retention(stored.get("retention_time_s"), stored.get("retention_conductance_s"))


def _endurance(stored: Stored) -> Any:
    return drawings.endurance(*(stored.get(n) for n in ("endurance_cycle", "endurance_high_s", "endurance_low_s")))


def _disturb(stored: Stored) -> Any:
    shift_s = stored.get("disturb_shift_s")
    names = stored.text("disturb_groups").split(",") if stored.text("disturb_groups") else []
    names += [f"group {k}" for k in range(len(names), shift_s.shape[1])]
    return drawings.disturb(stored.get("disturb_count"), shift_s, stored.get("disturb_shift_error_s"), names)


PICTURES: tuple[Picture, ...] = (
    Picture(
        "conductance_map", ("conductance_s",), _conductance_map,
        "Conductance of each cell as it was read last. Only the smallest rectangle around the cells is shown; the "
        "colour scale leaves out the outermost 1 % of the values. Cells that the procedure reported as failed are "
        "marked.",
    ),
    Picture(
        "conductance_distribution", ("sound_s",), _conductances,
        "Left: how often each conductance occurs among the cells that passed, with the normal distribution of the "
        "same mean and standard deviation. Right: the same data over the quantiles of a normal distribution; points on "
        "the line mean normally distributed cells, and bent ends mean heavier or lighter tails.",
    ),
    Picture(
        "pair_distribution", ("pairs_s",), _pairs,
        "Differences G+ - G- of neighbouring columns (0 and 1, 2 and 3, ...), which are the weights of a differential "
        "tile, with normal fit and quantile plot as above.",
    ),
    Picture(
        "forming_voltage", ("forming_voltages_v",), _forming,
        "Left: voltage of the pulse after which each cell was found formed. Right: share of the formed cells that "
        "formed at or below a voltage, with the normal distribution of the same mean and standard deviation.",
    ),
    Picture(
        "fault_map", ("known_faults",), _faults,
        "What is wrong with each cell. A cell with several faults has the colour of the one furthest down the legend, "
        "whose numbers count every cell that has the fault.",
    ),
    Picture(
        "target_and_achieved", ("target_s", "conductance_s"), _program,
        "Left: conductance reached over conductance wanted; the dashed line is where both are equal, crosses are cells "
        "that did not come within tolerance. Right: how often each error occurs.",
    ),
    Picture(
        "pulses_per_cell", ("pulses",), _pulses,
        "How many pulses the cells got.",
    ),
    Picture(
        "trajectories", ("pulses",), _trajectories,
        "Successive readings of single cells, from one that needed few pulses to the one that needed most, and of some "
        "that failed. Dashed: target.",
    ),
    Picture(
        "iv_family", ("iv_voltage_v", "iv_current_a"), _iv,
        "Left: current over voltage of single cells; a straight line is an ohmic cell. Right: the same on a "
        "logarithmic scale.",
    ),
    Picture(
        "switching_loop", ("loop_voltage_v", "loop_conductance_s"), _loop,
        "Left: conductance found after each pulse over its voltage; SET pulses are on the right, RESET pulses on the "
        "left. Right: share of the cells that switched at or below a voltage.",
    ),
    Picture(
        "noise_traces", ("trace_time_s", "trace_conductance_s"), _traces,
        "Readings of single cells one after the other. Jumps between two levels are telegraph noise.",
    ),
    Picture(
        "noise_psd", ("psd_frequency_hz", "psd_s2_per_hz"), _psd,
        "Power spectral density of the conductance. Thin lines are single cells, the thick line is their median. A "
        "flat line is white noise, one along the dashed guide is 1/f noise.",
    ),
    Picture(
        "retention", ("retention_time_s", "retention_conductance_s"), _retention,
        "Left: conductance over time since programming. Right: its change since the first reading. Thin lines are "
        "single cells, the band holds the middle 80 % of all cells.",
    ),
    Picture(
        "endurance", ("endurance_cycle", "endurance_high_s", "endurance_low_s"), _endurance,
        "Above: conductance after SET and after RESET over the number of cycles. Below: the difference between both. "
        "Bands hold the middle 80 % of the cells; a window at zero means a cell that no longer switches.",
    ),
    Picture(
        "disturb", ("disturb_count", "disturb_shift_s", "disturb_shift_error_s"), _disturb,
        "How far the mean conductance of each group of cells moved, against that of the control group where there is "
        "one, with its standard error.",
    ),
)  # fmt: skip

CAPTIONS: dict[str, str] = {picture.name: picture.caption for picture in PICTURES}


def figures_of(reader: RunReader) -> dict[str, Any]:
    """Every figure that the data of a run allow, `matplotlib.figure.Figure` by name; also of a run that did not end."""
    stored = Stored(reader)
    return {
        picture.name: picture.draw(stored)
        for picture in PICTURES
        if all(stored.get(name) is not None for name in picture.needs)
    }
