"""Report of an array run: one HTML file that needs nothing else, made from the run file alone.

Figures are embedded. There is no script and no link to the outside, and a policy in the page forbids both: whatever
text a configuration or an error message holds, it is shown and never run.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from experiments import style
from experiments.array.figures import CAPTIONS, figures_of
from experiments.array.stored import Stored
from experiments.array.units import label_of, shown
from hil.fault_map import FaultMap
from hil.runfile import RunReader, open_run

REPORT_NAME = "report.html"

#: A figure goes in as SVG up to this size, and as PNG beyond: a map of many cells is smaller as pixels.
_SVG_BYTES_MAX = 150_000

_STATUS_TEXT = {
    "complete": "Complete",
    "failed": "Failed",
    "aborted": "Aborted",
    "incomplete": "Not ended: its process was killed, or still runs",
}

_CSS = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --soft: #666; --line: #d5d5d5;
  --good: #00664a; --bad: #a63c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #161616; --soft: #a5a5a5; --line: #3c3c3c;
  --good: #4fd0a5; --bad: #ff9a5c; } }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
.verdict { border-left: .4rem solid var(--bad); padding: .4rem .8rem; margin: 1rem 0; }
.verdict.complete { border-color: var(--good); }
.verdict p { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; max-width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .15rem 1.2rem .15rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { font-weight: normal; color: var(--soft); }
thead th { font-weight: bold; }
td { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
figure { margin: 1.2rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; background: #fff; padding: .4rem; box-sizing: border-box; }
summary { cursor: pointer; padding: .3rem 0; color: var(--soft); }
figcaption, .note { color: var(--soft); font-size: .9rem; max-width: 48rem; }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --good: #00664a;
  --bad: #a63c00; } body { max-width: none; padding: 0; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""

_MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


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
        page = report_html(reader, saved)
    return style.write_aside(run_path.with_suffix("") / REPORT_NAME, page.encode())


def report_html(reader: RunReader, saved: Sequence[Path] = ()) -> str:
    """The report of a run as HTML; also of one that failed, was aborted or has not ended. Arguments: see above."""
    stored = Stored(reader)
    config = reader.config
    title = f"Array run: {config.get('verb', reader.experiment)}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(reader.run_id)}</p>',
        _verdict(stored),
        _section("Summary", _summary(stored)),
        _section("What was applied", _applied(stored)),
        _section("Figures", _figures(reader, saved)),
        _section("Configuration", _unfolded(_without(config, "limits", "backend"), ("array",))),
        _section("Limits", _settings(_mapping(config.get("limits")))),
        _section("Backend", _unfolded({**_mapping(config.get("backend")), **reader.backend})),
        _section("Provenance", _provenance(reader)),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - {escape(reader.run_id)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(stored: Stored) -> str:
    reader = stored.reader
    lines = [f"<strong>{escape(_STATUS_TEXT[reader.status])}.</strong>"]
    if reader.cause:
        lines.append(f"Cause: {escape(reader.cause)}")
    lines += [escape(line) for line in _cells_in_words(stored)]
    if reader.status != "complete" and "verb" in reader.config:
        command = f"hil array {reader.config['verb']} --resume {reader.path.name}"
        lines.append(f"To go on, in the folder of the run: <code>{escape(command)}</code>")
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="verdict {reader.status}">{paragraphs}</div>'


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
    return _table(rows)


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
    return _table(rows, heads)


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
    blocks = [_figure(name, image, CAPTIONS[name]) for name, image in images.items()]
    blocks += [
        _figure(name, _data_uri("image/png", reader.figure(name)), name.replace("_", " ")) for name in reader.figures
    ]
    return "\n".join(blocks)


def _images_in(saved: Sequence[Path]) -> dict[str, str]:
    """Images of figure files by name: of each the SVG, if that is not too long."""
    images: dict[str, str] = {}
    for path in sorted(saved, key=lambda path: path.suffix):
        kind = _MEDIA_TYPES[path.suffix]
        if path.suffix == ".png" or path.stat().st_size <= _SVG_BYTES_MAX:
            images[path.stem] = _data_uri(kind, path.read_bytes())
    return {path.stem: images[path.stem] for path in saved}


def _image(made: Any) -> str:
    vector = style.svg(made)
    if len(vector) <= _SVG_BYTES_MAX:
        return _data_uri("image/svg+xml", vector)
    return _data_uri("image/png", style.png(made))


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _figure(name: str, source: str, caption: str) -> str:
    image = f'<img src="{source}" alt="{escape(name.replace("_", " "))}">'
    return f'<figure id="{escape(name)}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def _unfolded(mapping: Mapping[str, Any], shown_sections: tuple[str, ...] = ()) -> str:
    """Single values and the sections named; the other sections, which are long, can be folded out."""
    folded = {k: v for k, v in mapping.items() if isinstance(v, Mapping) and v and k not in shown_sections}
    own = _settings({key: value for key, value in mapping.items() if key not in folded})
    return own + "".join(
        f"<details><summary>{escape(key)}</summary>{_settings({key: part})}</details>" for key, part in folded.items()
    )


def _settings(mapping: Mapping[str, Any]) -> str:
    """Every key with its dotted name and its value in SI units, as a configuration file has them."""
    return _table([(key, _plain(value)) for key, value in _flat(mapping)])


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in names}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _provenance(reader: RunReader) -> str:
    ended = "not known" if reader.ended_unix_s is None else _utc(reader.ended_unix_s)
    rows = [
        ("run file", reader.path.name),
        ("started", _utc(reader.started_unix_s)),
        ("ended", ended),
        ("how it ended", reader.status),
        ("seed", str(reader.seed)),
        ("calibration", reader.calibration or "none"),
        *((f"software: {name}", str(version)) for name, version in reader.software.items()),
    ]
    sessions = reader.table("sessions")
    if len(sessions["t_unix_s"]) > 1:
        rows += [(f"session {n}", _utc(t)) for n, t in enumerate(sessions["t_unix_s"].tolist(), start=1)]
    return _table(rows)


def _utc(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def _table(rows: Iterable[tuple[str, ...]], heads: tuple[str, ...] = ()) -> str:
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    if not body:
        return ""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    head = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'
