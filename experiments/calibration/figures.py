"""Figures of a calibration, made from what its file holds.

`PICTURES` says what each figure needs; a calibration gets those whose quantities it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.gate import GateLaw
from experiments import style
from experiments.array import drawings
from experiments.array.units import scaled
from experiments.style import COLOURS
from hil.calibration_file import Calibration, Quantity

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """One figure of the table.

    Attributes:
        name: of the figure.
        needs: quantities; without one of them there is no figure.
        draw: makes it.
        caption: what it shows, in plain words.
    """

    name: str
    needs: tuple[str, ...]
    draw: Callable[[Calibration], Any]
    caption: str


def _offsets(calibration: Calibration) -> Any:
    made, panels = style.figure(9.6, 5.8, rows=2, cols=2)
    for (left, right), name, what in (
        (panels[0], "row_offset_v", "drive channel"),
        (panels[1], "column_offset_v", "column"),
    ):
        _line_by_line(left, right, _known(calibration, name), what, "offset", "V")
    style.heading(made, "Offsets against the board's idle level")
    return made


def _drive_gain(calibration: Calibration) -> Any:
    made, (left, right) = style.figure(9.6, 3.2, cols=2)
    _line_by_line(left, right, _percent(_known(calibration, "row_gain_error")), "drive channel", "gain error", "%")
    style.heading(made, "Gain of the drive channels")
    return made


def _amps_per_code(calibration: Calibration) -> Any:
    made, (left, right) = style.figure(9.6, 3.2, cols=2)
    found = _known(calibration, "amps_per_code")
    usual = float(np.median(found.value[found.ok])) if found.ok.any() else float(np.median(found.value))
    relative = Quantity.of(found.value / usual - 1.0, found.uncertainty / usual, found.ok)
    _line_by_line(left, right, _percent(relative), "column", "current per step", "%")
    style.heading(made, f"Current per converter step, against its median of {1e9 * usual:.5g} nA")
    return made


def _resistances(calibration: Calibration) -> Any:
    made, (left, right) = style.figure(9.6, 3.2, cols=2)
    _line_by_line(left, right, _known(calibration, "r_on_ohm"), "mux", "on-resistance", "Ω")
    wires = [(name, calibration.quantity(key)) for name, key in (("bit line", "row_ohm"), ("source line", "col_ohm"))]
    texts = [
        f"{name} {float(q.value):.4g} ± {float(q.uncertainty):.2g} Ω per cell" for name, q in wires if q is not None
    ]
    style.heading(made, "On-resistance of the muxes" + (f";  {',  '.join(texts)}" if texts else ""))
    return made


def _conductance_map(calibration: Calibration) -> Any:
    found = _known(calibration, "conductance_s")
    return drawings.conductance_map(np.where(found.ok, found.value, np.nan), None, "Conductance by calibration")


def _conductances(calibration: Calibration) -> Any:
    found = _known(calibration, "conductance_s")
    return drawings.distribution(found.value[found.ok], "conductance", "µS", "Conductance", 1e6)


def _faults(calibration: Calibration) -> Any:
    faults = calibration.fault_map().faults
    return drawings.fault_map(faults)


def _noise(calibration: Calibration) -> Any:
    made, (left, right) = style.figure(9.6, 3.4, cols=2)
    cells, converters = _known(calibration, "read_noise_cell"), _known(calibration, "converter_noise_lsb")
    own = cells.value[cells.ok]
    usual = calibration.quantity("read_noise")
    n_own = int((own != float(usual.value)).sum()) if usual is not None else 0
    if n_own:
        data = 100 * own[own != float(usual.value)] if usual is not None else own
        left.hist(np.clip(data, None, np.quantile(data, 0.995)), bins=40, color=COLOURS[5])
        left.set(xlabel="read noise of cells that have their own (%)", ylabel="cells")
    else:
        _say(left, "all cells have the usual read noise")
    if usual is not None:
        style.title(left, f"usual: {100 * float(usual.value):.3g} % in {own.size - n_own:,} of {own.size:,} cells")
        if n_own:
            left.axvline(100 * float(usual.value), color=COLOURS[3], linewidth=1.2)
    lanes = np.arange(converters.value.size)
    right.errorbar(
        lanes[converters.ok], converters.value[converters.ok], converters.uncertainty[converters.ok],
        linestyle="none", marker="o", markersize=4, color=COLOURS[0], ecolor=COLOURS[7], elinewidth=0.8,
    )  # fmt: skip
    top = float(np.max(converters.value[converters.ok], initial=0.1))
    right.set(xlabel="converter", ylabel="noise (LSB)", ylim=(0, 1.15 * top))
    _whole_numbers(right.xaxis)
    style.title(right, "converters, without rounding")
    return made


def _gate(calibration: Calibration) -> Any:
    made, (left, right) = style.figure(9.6, 3.4, cols=2)
    gate_v = _known(calibration, "gate_v").value
    for axes, name, label in (
        (left, "set_conductance_s", "conductance after SET (µS)"),
        (right, "compliance_a", "current limit (µA)"),
    ):
        found = _known(calibration, name)
        axes.errorbar(
            gate_v[found.ok], 1e6 * found.value[found.ok], 1e6 * found.uncertainty[found.ok], label="median of cells",
            linestyle="none", marker="o", markersize=4, color=COLOURS[0], ecolor=COLOURS[7], elinewidth=0.8,
        )  # fmt: skip
        axes.set(xlabel="gate voltage (V)", ylabel=label)
    law = [calibration.quantity(name) for name in ("gate_threshold_v", "set_gate_s_per_v", "set_series_ohm")]
    values = [float(found.value) for found in law if found is not None and np.isfinite(found.value)]
    if len(values) == len(law):
        v = np.linspace(gate_v.min(), gate_v.max(), 200)
        left.plot(v, 1e6 * GateLaw(*values).conductance_s(v), color=COLOURS[3], linewidth=1.2, label="fit")
        left.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in (left, right):
        axes.set_ylim(bottom=0.0)
    style.heading(made, "Word-line gate: what a SET leaves, and the current that it lets through")
    return made


PICTURES: tuple[Picture, ...] = (
    Picture(
        "offsets", ("row_offset_v", "column_offset_v"), _offsets,
        "Left: what each drive channel gives above its idle level when it is told to idle, and the level of each "
        "column's virtual ground. Bars are one sigma; crosses at the lower end are lines that are not usable. Right: "
        "how often each value occurs. Without a multimeter only differences can be seen: the median column is then at "
        "zero.",
    ),
    Picture(
        "drive_gain", ("row_gain_error",), _drive_gain,
        "How much more than told each drive channel moves.",
    ),
    Picture(
        "amps_per_code", ("amps_per_code",), _amps_per_code,
        "Current of one converter step of each column, as a deviation from the median of all.",
    ),
    Picture(
        "resistances", ("r_on_ohm",), _resistances,
        "On-resistance of each mux; the wires between neighbouring cells have one value for all bit lines and one for "
        "all source lines.",
    ),
    Picture(
        "conductance_map", ("conductance_s",), _conductance_map,
        "Conductance of each cell with resistances and offsets taken out; grey cells cannot be reached. The colour "
        "scale leaves out the outermost 1 % of the values.",
    ),
    Picture(
        "conductance_distribution", ("conductance_s",), _conductances,
        "Left: how often each conductance occurs. Right: the same over the quantiles of a normal distribution; points "
        "on the line mean normally distributed cells.",
    ),
    Picture(
        "faults", ("faults",), _faults,
        "Cells and lines that the simulator and the placement of a network leave out or treat as faulty.",
    ),
    Picture(
        "noise", ("read_noise_cell", "converter_noise_lsb"), _noise,
        "Left: read noise of the cells whose noise is larger than the usual one beyond chance; the line is the usual "
        "one. Right: noise of each converter, rounding taken off.",
    ),
    Picture(
        "gate", ("gate_v", "set_conductance_s", "compliance_a"), _gate,
        "Left: conductance that a SET leaves at each gate voltage, median over the cells. Right: the current that the "
        "gate lets through, which is that conductance times the voltage of the SET. Bars are one sigma.",
    ),
)  # fmt: skip

CAPTIONS: dict[str, str] = {
    **{picture.name: picture.caption for picture in PICTURES},
    "validation": "How far simulators are from the board on each kind of input, in units of the board's own noise from "
    "one reading to the next. Errors hold the noise of both sides, so that a perfect simulator has an rms error of "
    "1.41. The uncalibrated one has nominal constants, and cells of its own.",
}


def figures_of(calibration: Calibration) -> dict[str, Any]:
    """Every figure that the parts of a calibration allow, `matplotlib.figure.Figure` by name."""
    return {
        picture.name: picture.draw(calibration)
        for picture in PICTURES
        if all(_is_measured(calibration.quantity(name)) for name in picture.needs)
    }


def _is_measured(quantity: Quantity | None) -> bool:
    return quantity is not None and bool(quantity.ok.any())


def _known(calibration: Calibration, name: str) -> Quantity:
    found = calibration.quantity(name)
    assert found is not None, name
    return found


def _percent(quantity: Quantity) -> Quantity:
    return Quantity.of(100 * quantity.value, 100 * quantity.uncertainty, quantity.ok)


def _line_by_line(left: Any, right: Any, quantity: Quantity, what: str, name: str, unit: str) -> None:
    """Values over the number of their line with one sigma, and their histogram beside it, both on one scale."""
    good = quantity.ok & np.isfinite(quantity.value)
    number = np.arange(quantity.value.size)
    if not good.any():
        for axes in (left, right):
            _say(axes, "not measured")
        return
    factor, shown_unit = (1.0, unit) if unit == "%" else scaled(quantity.value[good], unit)
    value, error = factor * quantity.value, factor * quantity.uncertainty
    left.errorbar(
        number[good], value[good], np.where(np.isfinite(error[good]), error[good], 0.0),
        linestyle="none", marker="." if good.sum() > 100 else "o", markersize=4, color=COLOURS[0], ecolor=COLOURS[7],
        elinewidth=0.8,
    )  # fmt: skip
    if n_bad := int((~good).sum()):
        # They have no value: at the lower end, whatever that is.
        left.plot(
            number[~good], np.full(n_bad, 0.04), linestyle="none", marker="x", markersize=4, color=COLOURS[3],
            transform=left.get_xaxis_transform(), label=f"not usable ({n_bad})",
        )  # fmt: skip
        left.legend(fontsize=8)
    left.set(xlabel=what, ylabel=f"{name} ({shown_unit})")
    _whole_numbers(left.xaxis)
    data = value[good]
    right.hist(data, bins=int(np.clip(np.sqrt(data.size) * 1.5, 5, 40)), color=COLOURS[5])
    right.set(xlabel=f"{name} ({shown_unit})", ylabel=f"{what}s" if what != "mux" else "muxes")
    _whole_numbers(right.yaxis)
    style.title(right, f"mean {data.mean():.3g} {shown_unit}, sigma {data.std():.3g} {shown_unit}")


def _whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _say(axes: Any, text: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, text, ha="center", va="center", color="#555555", transform=axes.transAxes)
