"""Criteria of a validation or a check, as rows that people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from calibration.check import CheckResult
from experiments.array.units import scaled

#: of what is judged
HEADER = ("criterion", "calibrated", "bar", "verdict", "uncalibrated")
#: of the kinds of input: rows driven, errors over the board's repeat-read noise, rms without calibration
SETS_HEADER = ("inputs", "rows", "rms", "bias", "systematic", "uncalibrated", "clipped")


def rows_of(criteria: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row per criterion; see `criterion`."""
    return [
        (
            str(c["what"]),
            _number(c["value"]),
            str(c["bar"]),
            "" if c["ok"] is None else "met" if c["ok"] else "NOT MET",
            _number(c["uncalibrated"]),
        )
        for c in criteria
    ]


def set_rows(sets: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row per set of inputs, for `SETS_HEADER`; sets as `calibration.validate.Validation.as_mapping` gives them."""
    return [
        (
            one["name"],
            f"{one['rows_driven']:.1f}",
            *(f"{one['calibrated'][name]:.3f}" for name in ("rms_ratio", "bias_ratio", "systematic_ratio")),
            f"{one['uncalibrated']['rms_ratio']:.3g}" if one["uncalibrated"] else "",
            _clipped(one["clipped_share"], one["is_judged"]),
        )
        for one in sets
    ]


def _clipped(share: float, is_judged: bool) -> str:
    return (f"{100 * share:.2g} %" if share else "") + ("" if is_judged else ", not judged")


#: of what a check looked at
WATCHED_HEADER = ("quantity", "verdict", "largest deviation", "sigmas", "at", "drifted")


def watched_rows(watched: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """One row per quantity, for `WATCHED_HEADER`; as `calibration.check.CheckResult.as_mapping` gives them."""
    return [
        (
            one["name"],
            "holds" if one["holds"] else "DRIFTED",
            "" if one["z"] is None else _deviation(one["worst"], one["unit"]),
            "" if one["z"] is None else f"{one['z']:.1f}",
            one["at"],
            f"{one['n_outside']} of {one['n']}",
        )
        for one in watched
    ]


def drifted(watched: Iterable[Mapping[str, Any]]) -> list[str]:
    """What has drifted, line by line where it is known which."""
    return [
        f"{one['name']}: {', '.join(one['outside'])}{', ...' if one['n_outside'] > len(one['outside']) else ''}"
        for one in watched
        if one["outside"]
    ]


def _deviation(value: float, unit: str) -> str:
    if unit == "1":
        return f"{100 * value:+.2f} %"
    factor, text = scaled(value, {"ohm": "Ω"}.get(unit, unit))
    return f"{factor * value:+.3g} {text}"


def check_text(found: CheckResult) -> str:
    """What to do now, in one line."""
    if found.holds:
        return "the calibration still holds"
    commands = "; ".join(f"hil calibrate {name} --again" for name in found.redo)
    return f"the calibration does not hold any more; measure again: {commands}; then hil calibrate all"


def criterion(
    what: str, value: float | None, bar: str = "", *, ok: bool | None = None, uncalibrated: float | None = None
) -> dict[str, Any]:
    """One criterion: what was compared, the number, its bar in words, whether it was met, and the same without
    calibration."""
    return {"what": what, "value": value, "bar": bar, "ok": ok, "uncalibrated": uncalibrated}


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
