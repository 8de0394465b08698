"""The report of an array run: self-contained, harmless, and there for runs that did not end well, too."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.array import report
from experiments.array.record import Operation, Request, pack_mask, tables
from experiments.array.report import write_report
from hil.errors import DataError
from hil.fault_map import Fault
from hil.runfile import RunFile

VOID = {"meta", "img", "br"}
EVIL = '<script>alert("x")</script> & <img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails where an element is not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def run_file(folder: Path, shape: tuple[int, int] = (4, 4), **config: Any) -> RunFile:
    return RunFile.create(
        folder,
        "array-form",
        config={"verb": "form", "limits": {"v_pulse_max_v": 5.0}, **config},
        backend={"name": "sim", "seed": 7},
        calibration=None,
        seed=7,
        software={"crossbar-hil": "1.2.3"},
        tables=tables(shape),
    )


def results(shape: tuple[int, int] = (4, 4), n_failed: int = 1) -> dict[str, Any]:
    g = np.random.default_rng(3).normal(14e-6, 4e-6, shape).astype(np.float32)
    ok = np.ones(shape, np.bool_)
    ok.ravel()[:n_failed] = False
    return {
        "summary": {"cells": g.size, "yield": float(ok.mean()), "mean_s": 14.25e-6, "formed_at_mean_v": 3.433},
        "conductance_s": g,
        "pulse_count": np.ones(shape, np.uint32),
        "mask_in": np.ones(shape, np.bool_),
        "mask_ok": ok,
        "faults": np.where(ok, 0, int(Fault.UNFORMED)).astype(np.uint8),
        "formed_at_v": np.where(ok, 3.4 + 1e4 * g, np.nan),
    }


def begin(run: RunFile) -> None:
    """A read and a pulse that nobody confirmed, on the first row."""
    mask = np.zeros((4, 4), np.bool_)
    mask[0] = True
    run.append("request", **Request(mask, np.full((4, 4), np.nan, np.float32)).columns())
    zeros, cols = np.zeros(4, np.uint16), np.arange(4, dtype=np.uint16)
    g = np.full(4, 12.5e-6, np.float32)
    run.append("operations", **Operation(0, "read", "before", n_cells=4, voltage_v=0.2, n_average=4).columns())
    run.append("readings", op=np.uint32(0), row=zeros, col=cols, current_a=0.2 * g, conductance_s=g)
    done = {"voltage_v": 0.2, "v_gate_v": 0.0, "width_s": 0.0, "t_array_s": 1.0, "duration_s": 0.1, "text": ""}
    run.append("outcomes", op=np.uint32(0), status="done", **done)
    row, packed = pack_mask(mask)
    pulse = Operation(1, "pulse", "form", "form", 4, 3.5, 1.2, 1e-6)
    run.append("operations", **pulse.columns())
    run.append("masks", op=np.uint32(1), row=row, cols=packed)


def page_of(run: RunFile) -> Page:
    return Page(write_report(run.path))


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Page:
    run = run_file(
        tmp_path_factory.mktemp("complete"),
        region="all",
        array={"form": {"mode": "ramp"}, "read": {"n_average": 4}},
        sim={"dac": {"bits": 16}},
    )
    run.finish("complete", results=results())
    return page_of(run)


def test_it_lies_in_the_folder_of_the_run(tmp_path: Path) -> None:
    run = run_file(tmp_path)
    run.finish("complete", results={})
    path = write_report(run.path)
    assert path == run.path.with_suffix("") / "report.html"
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]


def test_it_needs_nothing_from_elsewhere(complete: Page) -> None:
    for tag, attributes in complete.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:image/").startswith("data:image/")
    assert not re.search(r"https?://|url\(|@import", complete.source)


def test_a_policy_forbids_scripts_and_links(complete: Page) -> None:
    policies = [meta["content"] for meta in complete.named("meta") if "http-equiv" in meta]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_its_figures_are_images_with_a_text_and_a_caption(complete: Page) -> None:
    images = complete.named("img")
    assert len(images) == len(complete.named("figcaption")) >= 5
    for image in images:
        kind, content = str(image["src"]).split(";base64,")
        start = {"data:image/png": b"\x89PNG", "data:image/svg+xml": b"<?xml"}[kind]
        assert base64.b64decode(content, validate=True).startswith(start)
        assert image["alt"]


def test_it_says_how_the_run_ended_and_with_what(complete: Page) -> None:
    for text in (
        "Array run: form", "Complete.", "15 of 16 cells are as they should be (93.75 %), 1 is not.", "14.25 µS",
        "3.433 V", "fault: unformed 1", "v_pulse_max_v 5.0", "seed 7", "software: crossbar-hil 1.2.3", "region all",
        "array.form.mode ramp", "calibration none",
    ):  # fmt: skip
        assert text in complete.text, text


def test_long_sections_are_folded_but_there(complete: Page) -> None:
    assert len(complete.named("details")) == 1
    assert "sim.dac.bits 16" in complete.text


def test_a_share_is_not_rounded_up_to_all(tmp_path: Path) -> None:
    run = run_file(tmp_path, (400, 400))
    run.finish("complete", results={k: v for k, v in results((400, 400)).items() if k in ("mask_in", "mask_ok")})
    assert "159,999 of 160,000 cells are as they should be (99.99 %), 1 is not." in page_of(run).text


def test_texts_are_shown_and_never_run(tmp_path: Path) -> None:
    run = run_file(tmp_path, region=EVIL, **{EVIL: {EVIL: [EVIL]}})
    run.finish("failed", cause=EVIL, results={"summary": {EVIL: EVIL}})
    page = page_of(run)
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert page.text.count('<script>alert("x")</script>') >= 4


def test_a_verb_that_is_a_script_is_shown_in_the_title(tmp_path: Path) -> None:
    run = RunFile.create(
        tmp_path, "array-x", config={"verb": EVIL}, backend={EVIL: EVIL}, calibration=EVIL, seed=0,
        software={EVIL: EVIL}, tables=tables((4, 4)),
    )  # fmt: skip
    run.finish("complete", results={})
    assert "script" not in {tag for tag, _ in page_of(run).tags}


@pytest.mark.parametrize(("status", "word"), [("failed", "Failed."), ("aborted", "Aborted.")])
def test_a_run_that_stopped_is_reported_from_its_records(tmp_path: Path, status: Any, word: str) -> None:
    run = run_file(tmp_path)
    begin(run)
    run.finish(status, cause="DeviceError: TIA 3 is silent")
    page = page_of(run)
    for text in (word, "Cause: DeviceError: TIA 3 is silent", "The run is about 4 cells.", "cells read 4",
                 "4 cells had a pulse that nobody confirmed and that was not read since.", "12.5 µS"):  # fmt: skip
        assert text in page.text, text
    assert len(page.named("img")) >= 2


def test_a_killed_run_says_that_it_did_not_end(tmp_path: Path) -> None:
    run = run_file(tmp_path)
    run.close()
    page = page_of(run)
    assert "Not ended: its process was killed, or still runs." in page.text
    assert "ended not known" in page.text
    assert f"hil array form --resume {run.path.name}" in page.text


def test_a_run_that_did_nothing_has_a_report(tmp_path: Path) -> None:
    run = run_file(tmp_path)
    run.close()
    page = page_of(run)
    assert "No cell was read or pulsed." in page.text
    assert page.named("img") == []


def test_what_was_applied_is_counted_and_what_nobody_confirmed_stands_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None)  # this is about the table
    run = run_file(tmp_path)
    begin(run)
    run.close()
    text = page_of(run).text
    assert "pulse form form 1 1 4 3.5 V 1.2 V 1 µs" in text
    assert "read before 1 0 4 0.2 V" in text


def test_without_matplotlib_the_report_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_file(tmp_path)
    run.finish("complete", results=results())
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    page = page_of(run)
    assert "Figures need matplotlib" in page.text
    assert page.named("img") == []
    assert "14.25 µS" in page.text


def test_a_new_report_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    run = run_file(tmp_path)
    run.finish("complete", results={})
    path = write_report(run.path)
    path.write_text("old")
    assert write_report(run.path).read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_file_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run file"):
        write_report(tmp_path / "missing.h5")


@pytest.mark.large
def test_the_report_of_a_whole_macro_stays_small(tmp_path: Path) -> None:
    run = run_file(tmp_path, (512, 512))
    run.finish("complete", results=results((512, 512), n_failed=500))
    assert write_report(run.path).stat().st_size < 3e6
