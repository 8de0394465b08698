"""What was measured, in words and numbers that people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.array.units import scaled
from hil.calibration_file import COL_WORKS, ROW_WORKS, Calibration, Quantity

#: quantity -> what it is, and its unit
LABELS: Mapping[str, tuple[str, str]] = {
    "row_offset_v": ("drive offset", "V"),
    "column_offset_v": ("column offset", "V"),
    "row_gain_error": ("drive gain error", "%"),
    "row_nonlinearity_v": ("drive non-linearity", "V"),
    "amps_per_code": ("current per step", "A"),
    "r_on_ohm": ("mux resistance", "Ω"),
    "row_ohm": ("bit line / cell", "Ω"),
    "col_ohm": ("source line / cell", "Ω"),
    "settle_s": ("settling time", "s"),
    "settle_tau_s": ("settling constant", "s"),
    "converter_noise_lsb": ("converter noise", "LSB"),
    "read_noise": ("read noise", "%"),
    "read_noise_white": ("white read noise", "%"),
    "flicker_share": ("1/f noise share", "%"),
    "telegraph_share": ("telegraph cells", "%"),
    "conductance_s": ("conductance", "S"),
    "alone_s": ("current / read voltage", "S"),
    "read_noise_cell": ("noise by cell", "%"),
    "forming_mean_s": ("mean when formed", "S"),
    "forming_sigma_difference_s": ("sigma of pairs", "S"),
    "formed_share": ("formed cells", "%"),
    "gate_threshold_v": ("gate threshold", "V"),
    "set_gate_s_per_v": ("SET slope by gate", "S/V"),
    "set_series_ohm": ("resistance in series", "Ω"),
    "gate_v": ("gate voltages", "V"),
    "set_conductance_s": ("... SET leaves", "S"),
    "compliance_a": ("... current limit", "A"),
}
#: quantities that are masks: lines or cells are counted
_COUNTED = {ROW_WORKS: "working rows", COL_WORKS: "working columns", "faults": "healthy cells"}
_HEALTHY = {ROW_WORKS: 1, COL_WORKS: 1, "faults": 0}
#: in which the quantities of a part are told, whatever their order in the file
_ORDER = {name: k for k, name in enumerate((*LABELS, *_COUNTED))}
#: what is smaller than this, in SI units, is rounding
_NOTHING = 1e-15
#: what a fit left, by the suffix of its name -> unit
_RESIDUAL_UNITS: Mapping[str, str] = {"_a": "A", "_v": "V", "_relative": "%"}
HEADER = ("part", "quantity", "median", "spread", "uncertainty", "usable")


@dataclass(frozen=True)
class Line:
    """One quantity in a few numbers.

    Attributes:
        part, name: which one.
        median: over what is usable, or over all where nothing is, such as nominal values; None of what is counted.
        spread: standard deviation over lines or cells, by quantiles; None of a single number.
        uncertainty: median of one sigma; None where it was not stated.
        n_ok, n: usable ones of how many.
    """

    part: str
    name: str
    median: float | None
    spread: float | None
    uncertainty: float | None
    n_ok: int
    n: int

    def numbers(self) -> dict[str, Any]:
        """All but its names."""
        return {key: value for key, value in vars(self).items() if key not in ("part", "name")}

    def texts(self) -> tuple[str, ...]:
        """For a table with `HEADER`."""
        label, unit = LABELS.get(self.name, (_COUNTED.get(self.name, self.name), ""))
        values = (number(value, unit) for value in (self.median, self.spread, self.uncertainty))
        return (self.part, label, *values, f"{self.n_ok:,} of {self.n:,}")


def residual(name: str, value: float) -> str:
    """What a fit left, as "idle current 2.67 nA"."""
    for suffix, unit in _RESIDUAL_UNITS.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} {number(value, unit)}"
    return f"{name.replace('_', ' ')} {value:.3g}"


def number(value: float | None, unit: str) -> str:
    """A value with its unit; nothing for None."""
    if value is None:
        return ""
    if abs(value) < _NOTHING:
        value = 0.0
    if unit == "%":
        return f"{100 * value:.3g} %"
    if unit in ("", "LSB"):
        return f"{value:.3g} {unit}".rstrip()
    factor, text = scaled(value, unit, largest_prefix=1e6 if unit == "Ω" else 1.0)
    return f"{factor * value:.4g} {text}"


def line_of(part: str, name: str, quantity: Quantity) -> Line:
    """A quantity in a few numbers."""
    value, n = quantity.value, quantity.value.size
    if name in _COUNTED:
        good = value[quantity.ok] == _HEALTHY[name]
        return Line(part, name, None, None, None, int(good.sum()), good.size)
    n_ok = int((quantity.ok & np.isfinite(value)).sum())
    good = np.isfinite(value) & (quantity.ok if n_ok else True)
    if not good.any():
        return Line(part, name, None, None, None, 0, n)
    values, errors = value[good].astype(np.float64), quantity.uncertainty[good]
    low, high = np.quantile(values, [0.1587, 0.8413])
    known = errors[np.isfinite(errors)]
    return Line(
        part,
        name,
        float(np.median(values)),
        float(0.5 * (high - low)) if n > 1 else None,
        float(np.median(known)) if known.size else None,
        n_ok,
        n,
    )


def lines_of(calibration: Calibration) -> Iterable[Line]:
    """Every quantity of every part, in the order of measuring."""
    for part in calibration.parts.values():
        for name, quantity in part.quantities.items():
            yield line_of(part.name, name, quantity)


def summary(calibration: Calibration) -> dict[str, Any]:
    """A calibration as JSON can hold it, without its arrays."""
    parts: dict[str, Any] = {}
    for part in calibration.parts.values():
        parts[part.name] = {
            "method": part.method,
            "measured_unix_s": part.measured_unix_s,
            "instruments": dict(part.instruments),
            "residuals": {name: _finite(value) for name, value in part.residuals.items()},
            "findings": list(part.findings),
            "quantities": {
                name: line_of(part.name, name, part.quantities[name]).numbers()
                for name in sorted(part.quantities, key=lambda name: _ORDER.get(name, len(_ORDER)))
            },
        }
    return {
        "calibration_id": calibration.calibration_id,
        "board": {**vars(calibration.board), "shape": list(calibration.board.shape)},
        "rows_ok": int(calibration.row_ok.sum()),
        "cols_ok": int(calibration.col_ok.sum()),
        "parts": parts,
        "findings": findings(calibration),
        "validation": None if calibration.validation is None else dict(calibration.validation),
    }


def findings(calibration: Calibration) -> list[str]:
    """What a person should know, with the part that found it."""
    return [f"{part.name}: {text}" for part in calibration.parts.values() for text in part.findings]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
