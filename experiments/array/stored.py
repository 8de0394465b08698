"""What a run file of an array holds, by name: results, and what follows from results and tables.

A run that did not end well has no results: then the records of its operations tell what is known of each cell.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.array.history import History
from experiments.array.record import Request
from hil.array_records import array_shape, is_array_run
from hil.fault_map import Fault
from hil.runfile import RunReader

Values = NDArray[Any]


class Stored:
    """Arrays of a run; None for what it does not hold."""

    def __init__(self, reader: RunReader) -> None:
        self.reader = reader
        self._results = reader.results
        self._derived: dict[str, Values | None] = {}

    def get(self, name: str) -> Values | None:
        """A result, or what can be derived from the others; an array of nothing but NaN tells nothing."""
        found = self._results.get(name)
        if isinstance(found, np.ndarray | np.generic) and (found.dtype.kind != "f" or np.isfinite(found).any()):
            return np.asarray(found)
        if name not in self._derived:
            derive = _DERIVED.get(name)
            self._derived[name] = derive(self) if derive else None
        return self._derived[name]

    def text(self, name: str) -> str:
        """A result that is text, "" without one."""
        found = self._results.get(name)
        return found if isinstance(found, str) else ""

    @property
    def summary(self) -> dict[str, Any]:
        """Numbers that the procedure reported; empty if it did not come that far."""
        found = self._results.get("summary")
        return found if isinstance(found, dict) else {}

    @cached_property
    def shape(self) -> tuple[int, int] | None:
        """(rows, cols) of the array, or of the part of it that the tables speak of; None if they are empty."""
        if not is_array_run(self.reader):
            return None
        if self.request is not None:
            return self.request.mask.shape
        rows, cols = array_shape(self.reader)
        return (rows, cols) if rows and cols else None

    @cached_property
    def history(self) -> History | None:
        """What the records say of each cell; None without records."""
        return None if self.shape is None else History.from_run(self.reader, self.shape)

    @cached_property
    def request(self) -> Request | None:
        """Cells that the run is about and their targets; None if it was cut off before they were written."""
        if "request" not in self.reader.tables:
            return None
        rows = self.reader.table("request")["target_s"].shape
        return Request.from_run(self.reader, rows) if rows[0] else None

    def readings_of(self, cells: list[tuple[int, int]]) -> list[NDArray[np.float32]]:
        """Conductances read from each of a few cells (row, col), in order."""
        readings = self._readings
        # A reading without a conductance only corrects another one.
        known = np.isfinite(readings["conductance_s"])
        return [
            readings["conductance_s"][known & (readings["row"] == row) & (readings["col"] == col)] for row, col in cells
        ]

    @cached_property
    def _readings(self) -> dict[str, Values]:
        return self.reader.table("readings") if "readings" in self.reader.tables else {}


def _newest_reading(stored: Stored) -> Values | None:
    """Newest readings; of cells that were only read at many voltages, the slope of their curves."""
    if (slope := stored.get("ohmic_s")) is not None:
        return slope
    if stored.history is None or not stored.history.n_reads.any():
        return None
    return stored.history.last_conductance_s


def _pulse_count(stored: Stored) -> Values | None:
    return None if stored.history is None else stored.history.pulse_count


def _cells(stored: Stored) -> Values | None:
    if stored.request is not None:
        return stored.request.mask
    if stored.history is None:
        return None
    return (stored.history.n_reads > 0) | (stored.history.pulse_count > 0)


def _target(stored: Stored) -> Values | None:
    """Wanted conductances; None for a run that has no target."""
    if stored.request is None or not np.isfinite(stored.request.target_s).any():
        return None
    return stored.request.target_s


def _treated(stored: Stored) -> Values | None:
    """Cells of the run that the procedure meant: those drawn from its mask, or those that have a target."""
    mask, target, places = stored.get("mask_in"), stored.get("target_s"), stored.get("cells")
    if mask is None:
        return None
    treated = mask.copy()
    if target is not None:
        treated &= np.isfinite(target)
    if places is not None and places.ndim == 2 and places.shape[1] == 2:
        chosen = np.zeros(mask.shape, np.bool_)
        chosen[places[:, 0], places[:, 1]] = True
        treated &= chosen
    return treated


def _failed(stored: Stored) -> Values | None:
    """Cells that were to be treated and are not as they should be; unknown before the procedure ended."""
    treated, ok = stored.get("treated"), stored.get("mask_ok")
    return None if treated is None or ok is None else treated & ~ok


def _sound(stored: Stored) -> Values | None:
    """Conductances of the cells that are formed and passed, NaN elsewhere; of all if none did.

    None for a run with targets: its conductances are chosen, and there is no distribution to learn about.
    """
    g, ok, faults = stored.get("conductance_s"), stored.get("mask_ok"), stored.get("faults")
    if g is None or stored.get("target_s") is not None:
        return None
    sound = np.isfinite(g)
    if ok is not None:
        sound &= ok
    if faults is not None:
        sound &= (faults & int(Fault.UNFORMED)) == 0
    return np.where(sound, g, np.nan) if sound.any() else g


def _pairs(stored: Stored) -> Values | None:
    """G+ - G- of the column pairs (0, 1), (2, 3), ... whose two cells are sound; None without such a pair."""
    sound = _sound(stored)
    if sound is None or sound.shape[1] < 2:
        return None
    even = sound.shape[1] // 2 * 2
    pairs = sound[:, 0:even:2] - sound[:, 1:even:2]
    return pairs if np.isfinite(pairs).any() else None


def _forming_voltages(stored: Stored) -> Values | None:
    """Voltages at which the cells formed, where they tell cells apart; one voltage for all does not."""
    found = stored.get("formed_at_v")
    return None if found is None or len(np.unique(found[np.isfinite(found)])) < 2 else found


def _pulsed(stored: Stored) -> Values | None:
    """Pulses of each treated cell, one number per cell; None if no cell had a pulse."""
    count, treated = stored.get("pulse_count"), stored.get("treated")
    if count is None or not count.any():
        return None
    return count if treated is None else count[treated]


def _pulsed_ok(stored: Stored) -> Values | None:
    """Whether each of the cells of `pulses` passed; None if the procedure did not come as far as to say."""
    treated, ok = stored.get("treated"), stored.get("mask_ok")
    return None if treated is None or ok is None else ok[treated]


def _known_faults(stored: Stored) -> Values | None:
    """The fault map, if there is a fault in it."""
    found = stored.get("faults")
    return None if found is None or not found.any() else found


_DERIVED: dict[str, Callable[[Stored], Values | None]] = {
    "conductance_s": _newest_reading,
    "pulse_count": _pulse_count,
    "mask_in": _cells,
    "target_s": _target,
    "treated": _treated,
    "failed": _failed,
    "sound_s": _sound,
    "pairs_s": _pairs,
    "forming_voltages_v": _forming_voltages,
    "pulses": _pulsed,
    "pulses_ok": _pulsed_ok,
    "known_faults": _known_faults,
}
