"""Runs as text for a terminal of 80 columns."""

from __future__ import annotations

import math
import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hil.catalogue import Run
from hil.fault_map import RESULT as FAULTS
from hil.fault_map import FaultMap
from hil.run_compare import Comparison, SettingDifference, flat
from hil.runfile import RunReader

_VALUE_WIDTH = 60
_NAME_WIDTH = 30
_LISTED = 20


def count_text(count: int | None) -> str:
    """Few digits of a count, as 940, 1.3k, 262k, 1.2M; "-" where it is not known."""
    if count is None:
        return "-"
    if count < 1000:
        return str(count)
    exponent = min(3, int(math.log10(count)) // 3)
    value = count / 1000**exponent
    return f"{value:.1f}{' kMG'[exponent]}" if value < 10 else f"{value:.0f}{' kMG'[exponent]}"


def duration_text(duration_s: float | None) -> str:
    """As 3.1s, 42s, 12m05s, 3h40m, 2d04h; "-" where it is not known."""
    if duration_s is None:
        return "-"
    if duration_s < 9.95:
        return f"{duration_s:.1f}s"
    seconds = round(duration_s)
    for unit, length, below, part in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= length:
            return f"{seconds // length}{unit}{seconds % length // part:02d}{below}"
    return f"{seconds}s"


def moment_text(time_s: float | None) -> str:
    """Date and time of day, UTC as in the names of run files."""
    return "-" if time_s is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time_s))


def _day_text(time_s: float | None) -> str:
    """Month, day and time of this year; the date of an earlier one."""
    if time_s is None:
        return "-"
    this_year = time.gmtime(time_s).tm_year == time.gmtime().tm_year
    return time.strftime("%m-%d %H:%M" if this_year else "%Y-%m-%d", time.gmtime(time_s))


def list_lines(runs: Sequence[Run]) -> Iterator[str]:
    """One line per run, columns as wide as they need to be; files that cannot be read at the end, with the reason."""
    readable = [run for run in runs if run.state != "unreadable"]
    tagged = any(run.label.tags for run in readable)
    rows = [("id", "started", "experiment", "backend", "status", "took", "cells/points", "tags" if tagged else "")]
    for run in readable:
        entry = run.entry
        cells = f"{count_text(entry.n_cells)}/{count_text(entry.n_points)}"
        rows.append((run.short_id, _day_text(entry.started_unix_s), entry.experiment, entry.backend or "-", run.state,
                     duration_text(run.duration_s), cells, ", ".join(run.label.tags)))  # fmt: skip
    if readable:
        yield from _columns(rows, _columns_shown())
    for run in runs:
        if run.state == "unreadable":
            yield f"unreadable: {run.entry.cause}"


def _columns(rows: Sequence[tuple[str, ...]], width: int) -> Iterator[str]:
    """Columns as wide as they need to be; what the last one has beyond the width of the terminal goes on below."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip()
        if len(line) <= width or not row[-1]:
            yield line
            continue
        yield "  ".join(text.ljust(n) for text, n in zip(row[:-1], widths, strict=False)).rstrip()
        yield from textwrap.wrap(row[-1], width, initial_indent=" " * (widths[0] + 2),
                                 subsequent_indent=" " * (widths[0] + 2), break_on_hyphens=False)  # fmt: skip


def show_lines(run: RunReader, found: Mapping[str, Any]) -> Iterator[str]:
    """What `hil runs show` says of a run; `found` is what it says with --json."""
    yield f"run {run.run_id}"
    rows: list[tuple[str, str]] = [("file", found["path"]), ("experiment", run.experiment), ("status", _status(found))]
    rows += [
        ("started", moment_text(run.started_unix_s)),
        ("time", _took(found)),
        ("backend", _identity(run.backend)),
        ("calibration", run.calibration or "none"),
        ("seed", str(run.seed)),
        ("software", _inline(run.software)),
    ]
    if found["tags"]:
        rows.append(("tags", ", ".join(found["tags"])))
    if found["note"]:
        rows.append(("note", found["note"]))
    yield from _aligned(rows)
    yield ""
    settings = found["settings"]
    n_default = found["n_default"]
    yield f"settings{f' ({n_default} at their defaults are not shown)' if n_default else ''}"
    yield from _aligned([(key, _shown(value)) for key, value in settings.items()]) if settings else ("  none",)
    yield ""
    yield "tables"
    yield from _aligned(
        [(name, f"{_rows(table['rows'])}: {table['description']}") for name, table in found["tables"].items()]
    )
    yield ""
    yield "results"
    results = [(name, result_text(name, value)) for name, value in flat(run.results)]
    yield from _aligned(results) if results else ("  none",)
    if run.figures:
        yield ""
        yield f"figures in the file: {', '.join(run.figures)}"
    if found["resume"]:
        yield ""
        yield "to go on with this run"
        yield f"  {found['resume']}"


def _rows(count: int) -> str:
    return f"{count} {'row' if count == 1 else 'rows'}"


def _status(found: Mapping[str, Any]) -> str:
    if found["status"] == "incomplete":
        return "incomplete: its process was killed, or the disk was full"
    cause = found["cause"].rstrip(": ")
    return f"{found['status']}: {cause}" if cause else str(found["status"])


def _identity(backend: Mapping[str, Any]) -> str:
    """What tells arrays apart; what is nested, as all settings of a simulated chip, is left to --json."""
    plain = {key: value for key, value in backend.items() if not isinstance(value, Mapping)}
    nested = [key for key in backend if key not in plain]
    return f"{_inline(plain)}; --json has {' and '.join(nested)}" if nested else _inline(plain)


def _took(found: Mapping[str, Any]) -> str:
    n_sessions = found["tables"]["sessions"]["rows"]
    return f"{duration_text(found['duration_s'])}{f' in {n_sessions} sessions' if n_sessions > 1 else ''}"


def result_text(name: str, value: Any) -> str:
    """A result in few words."""
    if not isinstance(value, np.ndarray) or not value.ndim:
        return _shown(value.item() if isinstance(value, np.generic | np.ndarray) else value)
    text = f"{' x '.join(str(n) for n in value.shape)} {value.dtype}"
    if name == FAULTS and value.dtype == np.uint8 and value.ndim == 2:
        counts = {fault.replace("_", " "): n for fault, n in FaultMap(value).count().items() if n}
        return f"{text}, {', '.join(f'{n} {fault}' for fault, n in counts.items()) or 'no fault'}"
    if value.dtype.kind == "b":
        return f"{text}, {np.count_nonzero(value)} true"
    if value.dtype.kind not in "iuf":
        return text
    finite = value[np.isfinite(value)]
    if finite.size == 0:
        return f"{text}, no value"
    missing = value.size - finite.size
    spread = f"mean {_number(finite.mean())}, {_number(finite.min())} to {_number(finite.max())}"
    return f"{text}, {spread}{f', {missing} missing' if missing else ''}"


def compare_lines(found: Comparison) -> Iterator[str]:
    """What `hil runs compare` says."""
    yield f"A  {found.a}"
    yield f"B  {found.b}"
    yield found.title
    for text in found.verdict:
        yield textwrap.fill(text, _columns_shown(), initial_indent="  ", subsequent_indent="    ")
    for part, differences in found.settings.items():
        yield ""
        yield f"{part}, A -> B"
        yield from _limited([f"  {_difference(difference)}" for difference in differences])
    changed = [scalar for scalar in found.scalars if scalar.difference != 0]
    if changed:
        yield ""
        yield "numbers, A -> B, difference"
        width = max(len(scalar.name) for scalar in changed)
        yield from _limited([
            f"  {scalar.name:<{width}}  {_number(scalar.a)} -> {_number(scalar.b)}  {scalar.difference:+.4g}"
            for scalar in changed
        ])  # fmt: skip
    arrays = [array for array in found.arrays if not array.equal]
    if arrays:
        yield ""
        yield "arrays, element by element, B minus A"
        width = max(len("name"), *(len(array.name) for array in arrays))
        yield f"  {'name':<{width}}  {'elements':>8}  {'bias':>10}  {'rms':>9}  {'corr.':>6}  {'KS':>5}  {'changed':>7}"
        for array in arrays:
            correlation = "-" if array.correlation is None else f"{array.correlation:.3f}"
            yield (
                f"  {array.name:<{width}}  {count_text(array.n):>8}  {array.bias:>+10.3g}  {array.rms:>9.3g}  "
                f"{correlation:>6}  {array.ks:>5.2f}  {count_text(array.n_changed):>7}"
            )
    for array in arrays:
        if array.worst and array.tolerance:
            yield ""
            yield f"{array.name}: largest differences, A -> B"
            for element in array.worst:
                yield f"  {element.index}  {_number(element.a)} -> {_number(element.b)}"
    if found.not_compared:
        yield ""
        yield "not compared"
        yield from _limited([f"  {text}" for text in found.not_compared])


def _difference(found: SettingDifference) -> str:
    return f"{found.key}: {_shown(found.a, _VALUE_WIDTH // 2)} -> {_shown(found.b, _VALUE_WIDTH // 2)}"


def _limited(lines: list[str]) -> Iterator[str]:
    yield from lines[:_LISTED]
    if len(lines) > _LISTED:
        yield f"  and {len(lines) - _LISTED} more: --json has all"


def _aligned(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Names and texts in two columns; long texts go on below, paths are never broken."""
    width = min(_NAME_WIDTH, max(len(name) for name, _ in rows))
    for name, text in rows:
        first = f"  {name:<{width}}  "
        yield textwrap.fill(
            text, _columns_shown(), initial_indent=first, subsequent_indent=" " * (width + 4), break_long_words=False,
            break_on_hyphens=False,
        ).rstrip() or first.rstrip()  # fmt: skip


def _columns_shown() -> int:
    return shutil.get_terminal_size().columns


def _inline(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_shown(value)}" for key, value in flat(values)) or "-"


def _shown(value: Any, width: int = _VALUE_WIDTH) -> str:
    text = "-" if value is None else _number(value) if isinstance(value, float) else str(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _number(value: Any) -> str:
    return f"{float(value):.5g}"
