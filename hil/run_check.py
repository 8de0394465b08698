"""Integrity of a run file: can all of it be read, and do its parts agree with each other.

HDF5 files of runs carry no check sums, so a flipped bit in a number is found only where another part contradicts it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hil.array_records import DONE, array_shape, blocks, is_array_run, last_conductance_s, pulse_count, unpacked
from hil.errors import DataError
from hil.fault_map import FaultMap
from hil.runfile import RunReader, open_run
from hil.runfile._reader import open_hdf5

#: `wrong`: the file contradicts itself or cannot be read; `note`: worth knowing, and no fault of the file
Level = Literal["wrong", "note"]

_N_NAMED = 5
#: a computer's clock may be corrected by so much while a run goes on
_CLOCK_STEP_S = 1.0
#: readings are stored as float32
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    level: Level
    where: str
    what: str


def check_run(path: Path) -> list[Finding]:
    """Everything that is wrong with a run file, or worth knowing; empty when all is well."""
    try:
        with open_run(path) as run:
            findings = [*_header(run), *_lengths(run)]
            for name in run.tables:
                findings += _times(run, name)
            if is_array_run(run):
                findings += [finding for part in _ARRAY_PARTS for finding in part(run)]
            for figure in run.figures:
                run.figure(figure)
            return findings
    except DataError as error:
        return [_wrong("file", error.what)]
    except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:  # columns or results of another kind
        return [_wrong("file", f"its parts are not of the kind that they should be: {type(error).__name__}: {error}")]


def _wrong(where: str, what: str) -> Finding:
    return Finding("wrong", where, what)


def _note(where: str, what: str) -> Finding:
    return Finding("note", where, what)


def _header(run: RunReader) -> Iterator[Finding]:
    if run.path.stem != run.run_id:
        yield _note("header", f"the file was renamed: its run is {run.run_id}")
    if not run.run_id or not run.experiment:
        yield _wrong("header", "run id or experiment is missing")
    for name in ("config", "backend", "software"):
        try:
            found = json.loads(getattr(run.header, name))
        except ValueError as error:
            yield _wrong("header", f"{name} is not JSON: {error}")
            continue
        if not isinstance(found, dict):
            yield _wrong("header", f"{name} is not a mapping")
    if not math.isfinite(run.started_unix_s):
        yield _wrong("header", f"start is {run.started_unix_s}")
    if run.status != "incomplete":
        if run.ended_unix_s is None:
            yield _wrong("header", f"status is {run.status} and there is no end")
        elif run.ended_unix_s < run.started_unix_s - _CLOCK_STEP_S:
            yield _wrong("header", f"the end is {run.started_unix_s - run.ended_unix_s:.3g} s before the start")
    if run.status in ("failed", "aborted"):
        cause = run.cause.rstrip(": ") or "no cause"
        yield _note("header", f"the run {'failed' if run.status == 'failed' else 'was aborted'}: {cause}")
    if run.status == "incomplete":
        yield _note("header", "the run has no end: it goes on, or its process was killed")


def _lengths(run: RunReader) -> Iterator[Finding]:
    """Columns of unequal length are what a kill leaves; a run that ended has none."""
    file: Any = open_hdf5(run.path)
    try:
        for name in run.tables:
            lengths = {str(column): int(dataset.shape[0]) for column, dataset in file["tables"][name].items()}
            torn = max(lengths.values()) - run.row_count(name)
            if torn and run.status == "incomplete":
                yield _note(f"table {name}", f"{torn} rows at its end are torn and do not count")
            elif torn:
                longest = max(lengths, key=lambda column: lengths[column])
                yield _wrong(f"table {name}", f"column {longest} has {torn} rows more than count")
    finally:
        file.close()


def _times(run: RunReader, name: str) -> Iterator[Finding]:
    """Read all of a table, and see that its times rise."""
    before, row = -math.inf, 0
    for rows in blocks(run, name):
        times = rows["t_unix_s"]
        steps = np.diff(times, prepend=before)
        if np.isnan(times).any():
            yield _wrong(f"table {name}", f"{int(np.isnan(times).sum())} rows have no time")
        back = np.flatnonzero(steps < 0)
        if back.size:
            step_s = -float(steps[back].min())
            text = f"time goes back by {step_s:.3g} s at row {row + int(back[0])}"
            yield _wrong(f"table {name}", text) if step_s > _CLOCK_STEP_S else _note(f"table {name}", text)
        before, row = float(times[-1]), row + len(times)


def _references(run: RunReader) -> Iterator[Finding]:
    """Each operation once, and all other tables speak of operations that there are."""
    numbers = run.table("operations")["op"]
    repeated = _repeated(numbers)
    if repeated.size:
        yield _wrong("table operations", f"operations are there twice: {_named(repeated)}")
    elif np.any(np.diff(numbers.astype(np.int64)) <= 0):
        yield _wrong("table operations", "operations are out of order")
    for name in ("outcomes", "readings", "masks"):
        ops = run.table(name)["op"]
        unknown = np.setdiff1d(ops, numbers)
        if unknown.size:
            # A mask is written before its operation: a kill in between leaves it alone, and nothing was applied.
            alone = name == "masks" and len(unknown) < run.row_count("sessions") + (run.status != "complete")
            text = f"speaks of operations that are not there: {_named(unknown)}"
            yield _note(f"table {name}", f"{text}; they were not applied") if alone else _wrong(f"table {name}", text)
        if name == "outcomes" and _repeated(ops).size:
            yield _wrong("table outcomes", f"operations ended twice: {_named(_repeated(ops))}")
        if name != "outcomes" and np.any(np.diff(ops.astype(np.int64)) < 0):
            yield _wrong(f"table {name}", "rows are not in the order of operations")


def _masks(run: RunReader) -> Iterator[Finding]:
    """A pulse has the cells that it states, and a reading that is done as many as it states."""
    operations, masks = run.table("operations"), run.table("masks")
    cells = unpacked(masks["cols"]).sum(axis=1, dtype=np.int64)
    pulsed = operations["verb"] == "pulse"
    found = _sums(masks["op"], cells, operations["op"])
    outcomes = run.table("outcomes")
    ended = np.isin(operations["op"], outcomes["op"])
    differs = pulsed & (found != operations["n_cells"])
    for k in np.flatnonzero(differs & ended)[:_N_NAMED]:
        yield _wrong(
            "table masks",
            f"operation {operations['op'][k]} states {operations['n_cells'][k]} cells, its mask has {found[k]}",
        )
    never = operations["op"][differs & ~ended]
    if never.size:
        yield _note("table masks", f"pulses whose mask is not whole were not applied: operations {_named(never)}")
    done = np.isin(operations["op"], outcomes["op"][outcomes["status"] == DONE])
    n_read = _sums(run.table("readings")["op"], None, operations["op"])
    differs = (operations["verb"] == "read") & done & (n_read != operations["n_cells"])
    at_the_end = _at_the_end(run, operations, n_read > 0) & (n_read == 0)
    for k in np.flatnonzero(differs & ~at_the_end)[:_N_NAMED]:
        yield _wrong(
            "table readings",
            f"operation {operations['op'][k]} states {operations['n_cells'][k]} cells, {n_read[k]} were read",
        )
    lost = operations["op"][differs & at_the_end]
    if lost.size:
        yield _note("table readings", f"a process that did not end well left no readings of operations {_named(lost)}")


def _at_the_end(
    run: RunReader, operations: dict[str, NDArray[Any]], has_readings: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Operations of a session that did not end well, after the last one of it that has readings."""
    starts = run.table("sessions")["t_unix_s"]
    session = np.searchsorted(starts, operations["t_unix_s"], side="right")
    found = np.zeros(len(session), np.bool_)
    for number in np.unique(session):
        here = np.flatnonzero(session == number)
        if number < len(starts) or run.status != "complete":
            read = np.flatnonzero(has_readings[here])
            found[here[read[-1] + 1 :] if read.size else here] = True
    return found


def _uncertain(run: RunReader) -> Iterator[Finding]:
    """Cells of a pulse that nobody confirmed and that were not read since."""
    operations, outcomes = run.table("operations"), run.table("outcomes")
    confirmed = outcomes["op"][outcomes["status"] == DONE]
    pulses = operations["op"][operations["verb"] == "pulse"]
    open_pulses = np.setdiff1d(pulses, confirmed)
    if not open_pulses.size:
        return
    masks, readings = run.table("masks"), run.table("readings")
    width = max(8 * masks["cols"].shape[1], 1 + int(readings["col"].max(initial=0)))
    read = ~np.isnan(readings["conductance_s"])
    read_cells = readings["row"].astype(np.int64) * width + readings["col"]
    for op in open_pulses:
        here = masks["op"] == op
        k, cols = np.nonzero(unpacked(masks["cols"][here]))
        pulsed = masks["row"][here][k].astype(np.int64) * width + cols
        cells = np.setdiff1d(pulsed, read_cells[read & (readings["op"] > op)])
        if cells.size:
            named = _named([divmod(int(cell), width) for cell in cells[: _N_NAMED + 1]])
            text = f"pulse {op} was not confirmed and {cells.size} cells were not read since, so they may have had it"
            level: Level = "wrong" if run.status == "complete" else "note"
            yield Finding(level, "cells", f"{text}: {named}")


def _results(run: RunReader) -> Iterator[Finding]:
    """Results that the tables say as well."""
    results = run.results
    maps = {name: value for name, value in results.items() if isinstance(value, np.ndarray) and value.ndim == 2}
    if not maps:
        return
    shape = array_shape(run)
    for name in ("conductance_s", "pulse_count", "mask_in", "mask_ok", "faults"):
        if name in maps and maps[name].shape != shape:
            yield _wrong(f"result {name}", f"has shape {maps[name].shape}, the array {shape}")
            return
    masks, readings = run.table("masks"), run.table("readings")
    highest = [
        int(table[name].max(initial=0)) for table, name in ((masks, "row"), (readings, "row"), (readings, "col"))
    ]
    if max(highest[:2]) >= shape[0] or highest[2] >= shape[1]:
        yield _wrong("table readings", f"a cell is outside the array of {shape[0]} x {shape[1]}")
        return
    if "conductance_s" in maps:
        yield from _unequal(
            "conductance_s", maps["conductance_s"], last_conductance_s(run, shape), "the newest reading"
        )
    if "pulse_count" in maps:
        operations = run.table("operations")
        counted = pulse_count(run, shape, operations["op"][operations["verb"] == "pulse"])
        yield from _unequal("pulse_count", maps["pulse_count"], counted, "the number of its pulses")
    if {"mask_in", "mask_ok"} <= maps.keys():
        outside = maps["mask_ok"].astype(bool) & ~maps["mask_in"].astype(bool)
        if outside.any():
            yield _wrong("result mask_ok", f"has {int(outside.sum())} cells that are not in mask_in")
    if "faults" in maps:
        try:
            FaultMap(maps["faults"])
        except DataError as error:
            yield _wrong("result faults", error.what)


_ARRAY_PARTS: tuple[Callable[[RunReader], Iterator[Finding]], ...] = (_references, _masks, _uncertain, _results)


def _unequal(name: str, stored: NDArray[Any], expected: NDArray[Any], meaning: str) -> Iterator[Finding]:
    equal = np.isclose(stored.astype(float), expected, rtol=_ROUNDING, atol=0, equal_nan=True)
    if not equal.all():
        cells = [(int(row), int(col)) for row, col in np.argwhere(~equal)[: _N_NAMED + 1]]
        yield _wrong(f"result {name}", f"is not {meaning} at {int((~equal).sum())} cells: {_named(cells)}")


def _sums(ops: NDArray[Any], values: NDArray[Any] | None, numbers: NDArray[Any]) -> NDArray[np.int64]:
    """Sum of the values, or number of rows, of each operation of `numbers`."""
    named, at = np.unique(ops, return_inverse=True)
    sums = np.bincount(at, values, minlength=len(named) + 1).astype(np.int64)
    place = np.searchsorted(named, numbers)
    known = np.isin(numbers, named)
    return np.where(known, sums[np.where(known, place, 0)], 0)


def _repeated(ops: NDArray[Any]) -> NDArray[Any]:
    values, counts = np.unique(ops, return_counts=True)
    return values[counts > 1]


def _named(items: Any) -> str:
    shown = [str(item) for item in items[:_N_NAMED]]
    return ", ".join(shown) + (", ..." if len(items) > len(shown) else "")
