"""Numbers of a summary in units that people read: `mean_s` of 1.425e-05 is 14.25 µS, `width_s` of 1e-7 is 100 ns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))

#: `_s` is siemens, and seconds after one of these words.
_TIME_WORDS = frozenset(
    ("width", "duration", "time", "wait", "wall", "board", "elapsed", "period", "interval", "age", "t", "tau", "dwell",
     "life", "lifetime", "until")
)  # fmt: skip
#: Shares of one, shown in percent.
_SHARE_WORDS = frozenset(("yield", "fraction", "share", "relative", "change", "drift"))
_SCALED = {"a": "A", "hz": "Hz", "ohm": "Ω"}
_FIXED = {"v": "V", "c": "°C"}
_WORDS = {"p5": "5 % of the cells below", "p95": "95 % of the cells below"}


def scaled(values: Any, unit: str, *, largest_prefix: float = 1e9) -> tuple[float, str]:
    """Factor and unit that bring the largest value between 1 and 1000: (1e6, "µA") for microamperes."""
    finite = np.abs(np.asarray(values, np.float64))
    finite = finite[np.isfinite(finite)]
    largest = float(finite.max()) if finite.size else 0.0
    if largest == 0:
        return 1.0, unit
    # 999.9 and something would be shown as 1e+03
    fitting = [(size, prefix) for size, prefix in _PREFIXES if size <= largest_prefix and largest * 1.00005 >= size]
    size, prefix = fitting[0] if fitting else _PREFIXES[-1]
    return 1 / size, f"{prefix}{unit}"


def label_of(name: str) -> str:
    """Name of a quantity without its unit, for people."""
    words = name.split("_")
    if len(words) > 1 and (words[-1] in _SCALED or words[-1] in _FIXED or words[-1] in ("s", "s2")):
        words = words[:-1]
    return " ".join(_WORDS.get(word, word) for word in words)


def shown(name: str, value: Any) -> str:
    """A value with its unit, which the last part of its name says."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, int | float):
        return str(value)
    if not np.isfinite(value):
        return "not known"
    words = name.lower().split("_")
    unit = words[-1] if len(words) > 1 else ""
    if unit == "s" and not _TIME_WORDS.intersection(words):
        return f"{value * 1e6:.4g} µS"
    if unit == "s2":
        return f"{value * 1e12:.4g} µS²"
    if unit == "s" or unit in _SCALED:
        factor, text = scaled(value, _SCALED.get(unit, "s"), largest_prefix=1.0 if unit == "s" else 1e9)
        return f"{value * factor:.4g} {text}"
    if unit in _FIXED:
        return f"{value:.4g} {_FIXED[unit]}"
    if isinstance(value, int):
        return f"{value:,}"
    if _SHARE_WORDS.intersection(words):
        return f"{100 * value:.4g} %"
    return f"{value:.4g}"
