"""Pages of reports: one HTML file that needs nothing else.

Figures are embedded. There is no script and no link to the outside, and a policy in the page forbids both: whatever
text a configuration or an error message holds, it is shown and never run.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hil.runfile import RunReader

#: in words, how a run ended
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
th { font-weight: normal; color: var(--soft); min-width: 4rem; }
thead th { font-weight: bold; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.numbers th, .numbers td { overflow-wrap: normal; padding-right: .9rem; }
figure { margin: 1.2rem 0; break-inside: avoid; }
figure img { max-width: 100%; height: auto; background: #fff; padding: .4rem; box-sizing: border-box; }
summary { cursor: pointer; padding: .3rem 0; color: var(--soft); }
figcaption, .note { color: var(--soft); font-size: .9rem; max-width: 48rem; }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --good: #00664a;
  --bad: #a63c00; } body { max-width: none; padding: 0; } h2 { break-after: avoid; } tr { break-inside: avoid; } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, run_id: str, parts: Sequence[str]) -> str:
    """A whole page out of its parts, which are HTML already; empty ones are left out."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} - {escape(run_id)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="note">{escape(run_id)}</p>\n'
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def verdict(reader: RunReader, lines: Sequence[str], *, is_good: bool = True) -> str:
    """How a run ended, and what more there is to say at once; `lines` are HTML. What is not good is marked so, too."""
    lines = [f"<strong>{escape(_STATUS_TEXT[reader.status])}.</strong>", *lines]
    if reader.cause:
        lines.insert(1, f"Cause: {escape(reader.cause)}")
    paragraphs = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="verdict {reader.status if is_good else "failed"}">{paragraphs}</div>'


def section(title: str, content: str) -> str:
    """A heading with what is below it; nothing without content."""
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>" if content else ""


def table(rows: Iterable[tuple[str, ...]], heads: tuple[str, ...] = ()) -> str:
    """Rows of texts, the first of each as its heading."""
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    if not body:
        return ""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    head = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'


def listing(lines: Iterable[str]) -> str:
    """A list of sentences."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def data_uri(media_type: str, content: bytes) -> str:
    """An image as an address that holds it."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def figure(name: str, source: str, caption: str) -> str:
    """A figure with its caption; `source` is from `data_uri`."""
    image = f'<img src="{source}" alt="{escape(name.replace("_", " "))}">'
    return f'<figure id="{escape(name)}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def unfolded(mapping: Mapping[str, Any], shown_sections: tuple[str, ...] = ()) -> str:
    """Single values and the sections named; the other sections, which are long, can be folded out."""
    folded = {k: v for k, v in mapping.items() if isinstance(v, Mapping) and v and k not in shown_sections}
    own = settings({key: value for key, value in mapping.items() if key not in folded})
    return own + "".join(
        f"<details><summary>{escape(key)}</summary>{settings({key: part})}</details>" for key, part in folded.items()
    )


def settings(mapping: Mapping[str, Any]) -> str:
    """Every key with its dotted name and its value in SI units, as a configuration file has them."""
    return table([(key, _plain(value)) for key, value in _flat(mapping)])


def provenance(reader: RunReader) -> str:
    """Which run, when, by which software."""
    ended = "not known" if reader.ended_unix_s is None else utc(reader.ended_unix_s)
    rows = [
        ("run file", reader.path.name),
        ("started", utc(reader.started_unix_s)),
        ("ended", ended),
        ("how it ended", reader.status),
        ("seed", str(reader.seed)),
        ("calibration", reader.calibration or "none"),
        *((f"software: {name}", str(version)) for name, version in reader.software.items()),
    ]
    sessions = reader.table("sessions")
    if len(sessions["t_unix_s"]) > 1:
        rows += [(f"session {n}", utc(t)) for n, t in enumerate(sessions["t_unix_s"].tolist(), start=1)]
    return table(rows)


def utc(unix_s: float) -> str:
    """A time as a person reads it."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
