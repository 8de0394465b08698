"""Word-line gate: what conductance a SET leaves at each gate voltage, and so the current that the gate lets through.

This is stress: chosen cells are RESET and SET again and again. Each gate voltage begins with RESET pulses until a cell
is low enough that the SET is what made its conductance; a cell that does not get there is left out of that point, and
out of all later ones once it has had its share of pulses. The word line limits the current, so that conductance rises
in proportion to the gate voltage above a threshold, with a resistance in series that no SET goes below:

    1 / G = 1 / (set_gate_s_per_v * (v_gate - gate_threshold_v)) + set_series_ohm

The median over cells is fitted, since the spread of cells is one of factors; errors come from cells drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.procedure import CalibrationBench
from hil.backend import Pulse, PulseKind
from hil.calibration_file import Part, Quantity
from hil.errors import ConfigError
from hil.runfile import Column, TableSpec

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]

_N_BOOTSTRAPS = 100
_OHM_STEPS = 201
#: standard errors that a slope must lie above zero
_RISES = 4.0
#: fewest cells and gate voltages that a fit is made of
_CELLS_MIN, _POINTS_MIN = 4, 4


#: of the run file
TABLES = (
    TableSpec(
        "gate_pulses",
        [
            Column("row", np.uint16, "1"),
            Column("col", np.uint16, "1"),
            Column("is_set", np.bool_, "1"),
            Column("voltage_v", np.float64, "V"),
            Column("v_gate_v", np.float64, "V"),
            Column("width_s", np.float64, "s"),
            Column("before_s", np.float64, "S"),
            Column("after_s", np.float64, "S"),
        ],
        "every pulse on every cell, SET or RESET, with the conductance before and after it",
    ),
)


@dataclass(frozen=True, eq=False)
class GateOptions:
    """Which cells, which pulses.

    Attributes:
        mask: cells that may be stressed, shape of the array.
        gate_v: gate voltages of SET, in the order in which they are applied.
        set_voltage_v, reset_voltage_v: amplitudes.
        reset_gate_v: gate voltage of RESET.
        width_s: of all pulses.
        low_s: conductance at which a cell counts as RESET.
        reset_max: RESET pulses per gate voltage.
        pulses_max: pulses per cell altogether, at which the cell is left alone.
        n_average: conversions of each read.
        series_ohm: resistance in series, if known; None: fitted, which needs conductances above 20 uS.
    """

    mask: Mask
    gate_v: tuple[float, ...] = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
    set_voltage_v: float = 2.0
    reset_voltage_v: float = 2.5
    reset_gate_v: float = 4.0
    width_s: float = 200e-9
    low_s: float = 3e-6
    reset_max: int = 5
    pulses_max: int = 100
    n_average: int = 16
    series_ohm: float | None = None


def measure(bench: CalibrationBench, options: GateOptions) -> Part:
    """Gate voltage to compliance.

    Raises:
        ConfigError: no cell was chosen, or a mask of another array.
        CapabilityError, LimitError: the board has no such pulse, or does not allow it.
    """
    if options.mask.shape != bench.session.info.shape or not options.mask.any():
        raise ConfigError(
            f"gate needs cells to stress; its mask has shape {options.mask.shape} and {int(options.mask.sum())} cells",
            fix="choose a region of the array that may be stressed",
        )
    stress = _Stress(bench, options)
    after_s = np.full((len(options.gate_v), stress.n_cells), np.nan)
    for k, gate_v in enumerate(options.gate_v):
        bench.progress("gate", k, len(options.gate_v))
        low = stress.reset()
        after_s[k] = np.where(low, stress.set(gate_v, low), np.nan)
    bench.progress("gate", len(options.gate_v), len(options.gate_v))
    return _part(bench, options, after_s, stress)


class _Stress:
    """Pulses and reads of the chosen cells, counted and recorded; arrays over these cells."""

    def __init__(self, bench: CalibrationBench, options: GateOptions) -> None:
        self._bench, self._options = bench, options
        self.n_cells = int(options.mask.sum())
        self.pulses = np.zeros(self.n_cells, np.intp)
        self._now_s = self._read(np.ones(self.n_cells, np.bool_))

    def reset(self) -> Mask:
        """RESET cells that are not low yet; which ones are low in the end."""
        options = self._options
        for _ in range(options.reset_max):
            high = self._now_s > options.low_s
            if not self._apply("reset", high, options.reset_voltage_v, options.reset_gate_v).any():
                break
        return self._now_s <= options.low_s

    def set(self, gate_v: float, chosen: Mask) -> Values:
        """One SET pulse; conductance after it, NaN where a cell had none."""
        had = self._apply("set", chosen, self._options.set_voltage_v, gate_v)
        return np.where(had, self._now_s, np.nan)

    def _apply(self, kind: PulseKind, chosen: Mask, voltage_v: float, gate_v: float) -> Mask:
        """Pulse those of the chosen cells that have pulses left; which ones those were."""
        options = self._options
        chosen = chosen & (self.pulses < options.pulses_max)
        if not chosen.any():
            return chosen
        # Counted before it is applied: a pulse that fails half-way must count as given.
        self.pulses[chosen] += 1
        before_s = self._now_s[chosen]
        pulse = Pulse(kind, voltage_v, gate_v, options.width_s)
        report = self._bench.session.pulse(self._mask(chosen), pulse)
        self._now_s[chosen] = self._read(chosen)
        row, col = np.nonzero(self._mask(chosen))
        n = len(row)
        self._bench.record(
            "gate_pulses",
            {
                "row": row,
                "col": col,
                "is_set": np.full(n, kind == "set"),
                "voltage_v": np.full(n, report.achieved.voltage_v),
                "v_gate_v": np.full(n, report.achieved.v_gate_v),
                "width_s": np.full(n, report.achieved.width_s),
                "before_s": before_s,
                "after_s": self._now_s[chosen],
            },
        )
        return chosen

    def _read(self, chosen: Mask) -> Values:
        bench = self._bench
        return (
            bench.session.read(self._mask(chosen), bench.v_read_v, n_average=self._options.n_average) / bench.v_read_v
        )

    def _mask(self, chosen: Mask) -> Mask:
        mask = np.zeros(self._options.mask.shape, np.bool_)
        mask[self._options.mask] = chosen
        return mask


@dataclass(frozen=True)
class GateLaw:
    """Parameters of the law above; NaN where it could not be fitted."""

    threshold_v: float
    s_per_v: float
    series_ohm: float

    def conductance_s(self, gate_v: Values) -> Values:
        limit_s = self.s_per_v * np.maximum(gate_v - self.threshold_v, 0.0)
        return limit_s / (1.0 + limit_s * self.series_ohm)


_NO_LAW = GateLaw(math.nan, math.nan, math.nan)


def fit_gate(gate_v: Values, after_s: Values, *, series_ohm: float | None = None) -> GateLaw:
    """Fit the law to conductances after SET.

    Args:
        gate_v: shape (n,).
        after_s: median over cells, shape (n,).
        series_ohm: if known; None: the one that makes the limit rise in a straight line.
    """
    usable = np.isfinite(after_s) & (after_s > 0.0)
    gate_v, after_s = gate_v[usable], after_s[usable]
    if len(gate_v) < _POINTS_MIN:
        return _NO_LAW
    known = series_ohm is not None
    tried_ohm = np.array([series_ohm]) if known else np.linspace(0.0, 0.5, _OHM_STEPS) / after_s.max()
    # The spread is one in proportion, also once the series resistance is taken off.
    rest = 1.0 - after_s * tried_ohm[:, None]
    limit_s, weight = after_s / rest, (after_s / rest**2) ** -2.0
    total = weight.sum(axis=1)
    mean_v, mean_s = (weight * gate_v).sum(axis=1) / total, (weight * limit_s).sum(axis=1) / total
    off_v = gate_v - mean_v[:, None]
    spread = (weight * off_v**2).sum(axis=1)
    s_per_v = (weight * off_v * limit_s).sum(axis=1) / spread
    cost = (weight * (limit_s - mean_s[:, None] - s_per_v[:, None] * off_v) ** 2).sum(axis=1)
    k = int(cost.argmin())
    relative2 = cost[k] / (len(gate_v) - (2 if known else 3))
    if not s_per_v[k] > _RISES * math.sqrt(relative2 / spread[k]):
        return _NO_LAW
    return GateLaw(float(mean_v[k] - mean_s[k] / s_per_v[k]), float(s_per_v[k]), float(tried_ohm[k]))


def _part(bench: CalibrationBench, options: GateOptions, after_s: Values, stress: _Stress) -> Part:
    gate_v = np.array(options.gate_v)
    counted = np.isfinite(after_s)
    enough = counted.sum(axis=1) >= _CELLS_MIN
    law = _law_of(options, gate_v, after_s, enough)
    rng = np.random.default_rng(bench.seed)
    again = [
        _law_of(options, gate_v, after_s[:, rng.integers(0, stress.n_cells, stress.n_cells)], enough)
        for _ in range(_N_BOOTSTRAPS if math.isfinite(law.s_per_v) else 0)
    ]

    def quantity(name: str, ok: bool = True) -> Quantity:
        value = getattr(law, name)
        values = [getattr(one, name) for one in again]
        error = float(np.nanstd(values)) if values else math.nan
        return Quantity.of(value, error, ok and math.isfinite(value))

    middle_s, error_s = _median(after_s)
    left = np.log(middle_s[enough] / law.conductance_s(gate_v[enough])) if math.isfinite(law.s_per_v) else np.empty(0)
    return Part(
        name="gate",
        quantities={
            "gate_threshold_v": quantity("threshold_v"),
            "set_gate_s_per_v": quantity("s_per_v"),
            "set_series_ohm": quantity("series_ohm", ok=options.series_ohm is None),
            "gate_v": Quantity.of(gate_v, 0.0),
            "set_conductance_s": Quantity.of(middle_s, error_s, enough),
            "compliance_a": Quantity.of(middle_s * options.set_voltage_v, error_s * options.set_voltage_v, enough),
        },
        residuals={"log_conductance": float(np.sqrt((left**2).mean())) if left.size else math.nan},
        method=f"SET of {options.set_voltage_v:g} V at {len(gate_v)} gate voltages on {stress.n_cells} cells, each "
        "after RESET; fit of the median",
        options={name: value for name, value in asdict(options).items() if name != "mask"}
        | {"n_cells": stress.n_cells},
        findings=tuple(_findings(options, counted, stress, law)),
    )


def _law_of(options: GateOptions, gate_v: Values, after_s: Values, enough: Mask) -> GateLaw:
    return fit_gate(gate_v[enough], _median(after_s)[0][enough], series_ohm=options.series_ohm)


def _median(after_s: Values) -> tuple[Values, Values]:
    """Median over the cells that count at each gate voltage, and its standard error."""
    middle, error = np.full((2, len(after_s)), np.nan)
    for k, values in enumerate(after_s):
        values = values[np.isfinite(values)]
        if len(values):
            middle[k] = np.median(values)
            error[k] = 1.2533 * 1.4826 * np.median(np.abs(values - middle[k])) / math.sqrt(len(values))
    return middle, error


def _findings(options: GateOptions, counted: Mask, stress: _Stress, law: GateLaw) -> Sequence[str]:
    findings: list[str] = []
    never = int((~counted.any(axis=0)).sum())
    if never:
        findings.append(
            f"{never} of {stress.n_cells} cells do not RESET below {options.low_s:g} S with {options.reset_max} pulses "
            f"of {options.reset_voltage_v:g} V; they took no part"
        )
    if (spent := int((stress.pulses >= options.pulses_max).sum())) > 0:
        findings.append(f"{spent} of {stress.n_cells} cells had {options.pulses_max} pulses and were then left alone")
    if not math.isfinite(law.s_per_v):
        findings.append("conductance after SET does not rise with the gate voltage: no threshold and no slope found")
    return findings
