"""Report of an array run: one HTML file that needs nothing else, made from the run file alone.

Figures are embedded. There is no script and no link to the outside, and a policy in the page forbids both: whatever
text a configuration or an error message holds, it is shown and never run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from experiments import page, style
from experiments.array.figures import CAPTIONS, figures_of
from experiments.array.stored import Stored
from experiments.array.units import label_of, shown
from hil.fault_map import FaultMap
from hil.runfile import RunReader, open_run

REPORT_NAME = "report.html"

#: A figure goes in as SVG up to this size, and as PNG beyond: a map of many cells is smaller as pixels.
_SVG_BYTES_MAX = 150_000

_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def write_report(run_path: Path, saved: Sequence[Path] = ()) -> Path:
    """Write the report of a run to `report.html` in the folder beside the run file that has its name.

    Args:
        run_path: the run file.
        saved: its figures as PNG and SVG files, to be put in as they are; drawn if there are none.

    Raises:
        DataError: no run file, or damaged.
        RunFileError: the folder cannot be written.
    """
    run_path = Path(run_path)
    with open_run(run_path) as reader:
        content = report_html(reader, saved)
    return style.write_aside(run_path.with_suffix("") / REPORT_NAME, content.encode())


def report_html(reader: RunReader, saved: Sequence[Path] = ()) -> str:
    """The report of a run as HTML; also of one that failed, was aborted or has not ended. Arguments: see above."""
    stored = Stored(reader)
    config = reader.config
    title = f"Array run: {config.get('verb', reader.experiment)}"
    parts = [
        page.verdict(reader, _in_words(stored)),
        page.section("Summary", _summary(stored)),
        page.section("What was applied", _applied(stored)),
        page.section("Figures", _figures(reader, saved)),
        page.section("Configuration", page.unfolded(_without(config, "limits", "backend"), ("array",))),
        page.section("Limits", page.settings(_mapping(config.get("limits")))),
        page.section("Backend", page.unfolded({**_mapping(config.get("backend")), **reader.backend})),
        page.section("Provenance", page.provenance(reader)),
    ]
    return page.page(title, reader.run_id, parts)


def _in_words(stored: Stored) -> list[str]:
    reader = stored.reader
    lines = [escape(line) for line in _cells_in_words(stored)]
    if reader.status != "complete" and "verb" in reader.config:
        command = f"hil array {reader.config['verb']} --resume {reader.path.name}"
        lines.append(f"To go on, in the folder of the run: <code>{escape(command)}</code>")
    return lines


def _cells_in_words(stored: Stored) -> list[str]:
    treated, ok = stored.get("treated"), stored.get("mask_ok")
    if treated is None:
        return ["No cell was read or pulsed."]
    n = int(treated.sum())
    if ok is not None:
        good = int((treated & ok).sum())
        if good == n:
            return [f"All {n:,} cells are as they should be."]
        # Cut, not rounded: 99.999 % of many cells is not all of them.
        share = int(1e4 * good / n) / 1e2
        return [
            f"{good:,} of {n:,} cells are as they should be ({share:.2f} %), "
            f"{n - good:,} {'is' if n - good == 1 else 'are'} not."
        ]
    lines = [f"The run is about {n:,} cells. No result was stored; figures and counts are from the records of single "
             "operations."]  # fmt: skip
    if stored.history is not None and (uncertain := int(stored.history.uncertain.sum())):
        lines.append(f"{uncertain:,} cells had a pulse that nobody confirmed and that was not read since.")
    return lines


def _summary(stored: Stored) -> str:
    rows = [(label_of(name), shown(name, value)) for name, value in stored.summary.items()]
    conductance, count = stored.get("conductance_s"), stored.get("pulse_count")
    if not rows and conductance is not None:
        known = conductance[np.isfinite(conductance)]
        rows = [("cells read", shown("", known.size))]
        if known.size:
            rows += [(f"{name} of the newest readings", shown("conductance_s", value)) for name, value in
                     (("mean", known.mean()), ("sigma", known.std()), ("median", np.median(known)))]  # fmt: skip
    if count is not None and count.any():
        treated = count[count > 0]
        rows += [
            ("cells that got pulses", shown("", treated.size)),
            ("pulses of all cells", shown("", int(treated.sum()))),
            ("pulses of one cell, most", shown("", int(treated.max()))),
        ]
    faults = stored.get("faults")
    if faults is not None and faults.any():
        counts = FaultMap(faults).count()
        rows += [(f"fault: {name.replace('_', ' ').lower()}", shown("", n)) for name, n in counts.items() if n]
    return page.table(rows)


def _applied(stored: Stored) -> str:
    """One row for each kind of operation: how often, on how many cells, with what."""
    if "operations" not in stored.reader.tables or not stored.reader.row_count("operations"):
        return ""
    table, outcomes = stored.reader.table("operations"), stored.reader.table("outcomes")
    done = np.isin(table["op"], outcomes["op"][outcomes["status"] == "done"])
    keys = np.array([" ".join(filter(None, key)) for key in zip(table["verb"], table["kind"], strict=True)])
    rows: list[tuple[str, ...]] = []
    for key, purpose in sorted(set(zip(keys.tolist(), table["purpose"].tolist(), strict=True))):
        here = (keys == key) & (table["purpose"] == purpose)
        counts = (here.sum(), (here & ~done).sum(), table["n_cells"][here].sum())
        rows.append((
            key, purpose, *(f"{int(count):,}" for count in counts),
            *(_range(name, table[name][here]) for name in ("voltage_v", "v_gate_v", "width_s")),
        ))  # fmt: skip
    heads = ("operation", "purpose", "times", "not confirmed", "cells", "voltage", "gate", "width or duration")
    return page.table(rows, heads)


def _range(name: str, values: Any) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return ""
    low, high = shown(name, float(known.min())), shown(name, float(known.max()))
    return low if low == high else f"{low} to {high}"


def _figures(reader: RunReader, saved: Sequence[Path]) -> str:
    if not saved and find_spec("matplotlib") is None:
        return (
            '<p class="note">Figures need matplotlib: pip install "crossbar-hil[sim]", then make the report again.</p>'
        )
    images = _images_in(saved) if saved else {name: _image(made) for name, made in figures_of(reader).items()}
    blocks = [page.figure(name, image, CAPTIONS[name]) for name, image in images.items()]
    blocks += [
        page.figure(name, page.data_uri("image/png", reader.figure(name)), name.replace("_", " "))
        for name in reader.figures
    ]
    return "\n".join(blocks)


def _images_in(saved: Sequence[Path]) -> dict[str, str]:
    """Images of figure files by name: of each the SVG, if that is not too long."""
    images: dict[str, str] = {}
    for path in sorted(saved, key=lambda path: path.suffix):
        kind = _MEDIA_TYPES[path.suffix]
        if path.suffix == ".png" or path.stat().st_size <= _SVG_BYTES_MAX:
            images[path.stem] = page.data_uri(kind, path.read_bytes())
    return {path.stem: images[path.stem] for path in saved}


def _image(made: Any) -> str:
    vector = style.svg(made)
    if len(vector) <= _SVG_BYTES_MAX:
        return page.data_uri("image/svg+xml", vector)
    return page.data_uri("image/png", style.png(made))


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in names}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
