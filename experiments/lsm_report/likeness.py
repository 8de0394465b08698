"""What two runs must share to be averaged, and what may differ: what a seed draws."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: sections of the settings that a task uses and others do not; a run file holds them all
_OF_TASK: Mapping[str, tuple[str, ...]] = {
    "lsm-nmnist": ("data", "readout"),
    "lsm-ntidigits": ("audio", "readout", "ntidigits"),
    "lsm-atv": ("data", "audio", "atv", "projection"),
    "lsm-btv": ("brain", "letters", "btv"),
}
#: sections that no LSM run uses, and that of the calibration: its id says it, wherever the file lies
_FOREIGN = ("array", "energy", "study", "calibration")
#: sections that mean nothing to what answered, alone
_UNUSED_BY_ARRAY: Mapping[str, tuple[str, ...]] = {
    "none": ("lsm", "limits", "board", "emulator", "sim"),
    "sim": ("board", "emulator"),
}
#: texts of an identity that hold nothing but a seed
_SEED_TEXT = re.compile(r"simulated, seed \d+|emulated-\d+")


def used_settings(
    config: Mapping[str, Any], *, task: str, model: str, array: str, is_comparison: bool
) -> dict[str, Any]:
    """Settings of a run that its result depends on, by their full names.

    Args:
        config: all settings.
        array: kind of what answered.
    """
    unused = {section for sections in _OF_TASK.values() for section in sections} - set(_OF_TASK[task])
    unused |= set(_FOREIGN)
    if model == "lsm":
        unused.add("baseline")
    if not is_comparison:
        unused |= set(_UNUSED_BY_ARRAY.get(array, ()))
    return {name: value for name, value in flat(config) if name.split(".")[0] not in unused}


def array_identity(backend: Mapping[str, Any]) -> dict[str, Any]:
    """What answered, by full names, but not where it was reached, nor what is found out about a calibration later."""
    has_kind = "kind" in backend
    return {
        name: value
        for name, value in flat(backend)
        if not name.endswith("calibration.validation") and not (has_kind and name.rsplit(".", 1)[-1] == "name")
    }


def is_drawn(name: str, value: Any) -> bool:
    """Whether a setting, or a part of an identity, is a seed or says nothing else."""
    last = name.rsplit(".", 1)[-1]
    return last == "seed" or last.endswith("_seed") or (isinstance(value, str) and bool(_SEED_TEXT.fullmatch(value)))


def chip_seed(backend: Mapping[str, Any]) -> int | None:
    """Seed that drew the chip; of several macros, the first one's."""
    identity = dict(flat(backend))
    return next((identity[name] for name in ("seed", "all_macros.seed", "macros.0.seed") if name in identity), None)


def flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of nested mappings, and of lists of them, by their full names: `lsm.n_neurons`, `macros.0.seed`."""
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            yield from flat({str(number): one for number, one in enumerate(value)}, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
