"""`hil runs`: what a person sees, machine-readable output, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_runs import SHAPE, append_pulse, array_run, conductances, counts_run, create_run

from hil.cli.run_view import count_text, duration_text
from hil.cli.runs import parse_since
from hil.errors import ConfigError

PNG = b"\x89PNG\r\n\x1a\nas good as a picture"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def pair(runs: Path) -> tuple[Path, Path]:
    faults = np.zeros(SHAPE, np.uint8)
    faults[1, 2] = 2
    last_week = array_run(runs, conductances())
    return last_week, array_run(runs, conductances(1, 3e-7, noise_s=1e-7), results={"faults": faults})


class TestList:
    def test_lines_fit_a_terminal(self, hil: Any, runs: Path) -> None:
        array_run(runs)
        counts_run(runs)
        killed = create_run(runs)
        killed.close()
        (runs / "a-file-with-a-rather-long-name.h5").write_bytes(b"foreign")
        ran = hil("runs", "list")
        assert (ran.code, ran.stderr) == (0, "")
        header, *lines, unreadable = ran.stdout.splitlines()
        assert header.split() == ["id", "started", "experiment", "backend", "status", "took", "cells/points"]
        assert [line.split()[3:6] for line in lines] == [
            ["array-form", "sim", "incomplete"], ["lsm-nmnist", "sim", "complete"], ["array-form", "sim", "complete"],
        ]  # fmt: skip
        assert lines[0].startswith(killed.path.stem[-8:])
        assert max(map(len, [header, *lines])) <= 80
        assert unreadable.startswith("unreadable: runs/a-file-with-a-rather-long-name.h5 is not an HDF5 file")

    def test_filters(self, hil: Any, runs: Path) -> None:
        old = array_run(runs).stem
        counts_run(runs)
        create_run(runs).finish("failed", cause="x")
        assert hil("runs", "tag", old, "good").code == 0
        ids = lambda *options: [run["id"] for run in hil("runs", "list", *options, "--json").json["runs"]]  # noqa: E731
        assert ids("--tag", "good") == ids("--experiment", "form", "--status", "complete") == [old]
        assert len(ids("--since", "1h")) == 3
        assert len(ids("--status", "failed", "--since", "2020-01-01")) == 1
        assert len(ids("--limit", "2")) == 2
        assert hil("runs", "list", "--limit", 1).stdout.endswith("2 older runs are not shown: --limit 0 shows all\n")
        assert hil("runs", "list", "--tag", "bad").stdout == "none of 3 runs in runs is meant\n"

    def test_notes_are_messages(self, hil: Any, runs: Path) -> None:
        array_run(runs)
        (runs / "tags.json").write_text("damaged")
        ran = hil("runs", "list")
        assert ran.code == 0
        assert "note: tags are not shown" in ran.stderr
        assert hil("runs", "list", "--json").json["notes"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--status", "done"], "choose one of complete, failed"),
            (["--since", "yesterday"], "is not a moment"),
            (["--out", "nowhere"], "run folder nowhere cannot be read"),
        ],
    )
    def test_bad_input(self, hil: Any, runs: Path, arguments: list[str], message: str) -> None:
        runs.mkdir()
        ran = hil("runs", "list", *arguments)
        assert ran.code == 2
        assert message in ran.stderr

    def test_empty(self, hil: Any, runs: Path) -> None:
        runs.mkdir()
        assert hil("runs", "list").stdout == "no run in runs\n"


class TestShow:
    def test_tells_who_what_and_how_it_went(self, hil: Any, runs: Path) -> None:
        path = array_run(runs, calibration="bench-3", config={"verb": "form", "lsm": {"decay": 0.5, "n_neurons": 200}})
        hil("runs", "tag", "last", "good", "--note", "clean probe")
        text = hil("runs", "show", "last").stdout
        for part in (path.stem, "runs/", "complete", "bench-3", "crossbar-hil 0.1.0", "good", "clean probe",
                     "lsm.decay  0.5", "60 rows", "6 x 10 float32", "summary.yield", "no fault"):  # fmt: skip
            assert part in text
        assert "lsm.n_neurons" not in text, "at its default"
        assert "1 at their defaults" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_says_how_to_go_on(self, hil: Any, runs: Path) -> None:
        run = create_run(runs)
        append_pulse(run, 0, np.ones(SHAPE, np.bool_), outcome=None)
        run.flush()
        shown = hil("runs", "show", "last", "--json").json
        assert (shown["status"], shown["resume"]) == ("running", "")
        run.close()
        shown = hil("runs", "show", "last", "--json").json
        assert (shown["status"], shown["resume"]) == ("incomplete", f"hil array form --resume runs/{run.path.name}")
        assert f"hil array form --resume runs/{run.path.name}" in hil("runs", "show", "last").stdout
        assert shown["tables"]["operations"]["rows"] == 1

    def test_a_failure_has_its_cause(self, hil: Any, runs: Path) -> None:
        create_run(runs).finish("failed", cause="DeviceError: no answer")
        assert "failed: DeviceError: no answer" in hil("runs", "show", "last").stdout

    @pytest.mark.parametrize(
        ("name", "message"),
        [("zzz", "has 'zzz' in its id or as a tag"), ("form", "means 2 runs"), ("runs/x.h5", "there is no run file")],
    )
    def test_names_that_mean_no_run(self, hil: Any, pair: Any, name: str, message: str) -> None:
        for command in ("show", "plot", "check", "tag", "export"):
            ran = hil("runs", command, name)
            assert ran.code == 2
            assert message in ran.stderr

    def test_an_unreadable_file(self, hil: Any, runs: Path) -> None:
        runs.mkdir()
        (runs / "foreign.h5").write_bytes(b"x")
        ran = hil("runs", "show", "foreign")
        assert (ran.code, "is not an HDF5 file" in ran.stderr) == (1, True)


class TestPlot:
    def test_stored_figures_are_written(self, hil: Any, runs: Path) -> None:
        path = counts_run(runs, raster=PNG)
        (file,) = hil("runs", "plot", "last", "--json").json["files"]
        assert Path(file).read_bytes() == PNG
        assert Path(file) == Path("runs") / path.stem / "raster.png"

    def test_figures_of_an_array_run_are_drawn(self, hil: Any, runs: Path) -> None:
        array_run(runs)
        files = [Path(file) for file in hil("runs", "plot", "last", "--json").json["files"]]
        assert {file.suffix for file in files} == {".png", ".svg"}
        assert "conductance_map" in {file.stem for file in files}
        assert all(file.stat().st_size > 1000 for file in files)

    def test_nothing_to_draw(self, hil: Any, runs: Path) -> None:
        counts_run(runs)
        ran = hil("runs", "plot", "last")
        assert (ran.code, "has no figure" in ran.stderr) == (2, True)
        assert "has no report" in hil("runs", "plot", "last", "--report").stderr

    def test_report(self, hil: Any, runs: Path) -> None:
        array_run(runs)
        *_, report = hil("runs", "plot", "last", "--report", "--json").json["files"]
        assert "<html" in Path(report).read_text(encoding="utf-8")

    def test_without_matplotlib(self, hil: Any, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        array_run(runs)
        monkeypatch.setattr("hil.cli.extras.find_spec", lambda name: None)
        ran = hil("runs", "plot", "last")
        assert ran.code == 2
        assert "needs the package 'matplotlib'" in ran.stderr
        assert 'pip install "crossbar-hil[sim]"' in ran.stderr


class TestCompare:
    def test_in_plain_words(self, hil: Any, pair: tuple[Path, Path]) -> None:
        text = hil("runs", "compare", pair[0].stem, "last").stdout
        for part in (f"A  {pair[0].stem}", f"B  {pair[1].stem}", "the same array (sim), B ", "a real shift",
                     "faults: new in B: 1 stuck on", "conductance_s"):  # fmt: skip
            assert part in text
        assert max(map(len, text.splitlines())) <= 80

    def test_json(self, hil: Any, pair: tuple[Path, Path]) -> None:
        found = hil("runs", "compare", *pair, "--tolerance-s", "1e-9", "--json").json
        assert found["equal"] is False
        assert found["faults"] == {"gained": {"stuck_on": 1}, "lost": {}}
        conductance = found["arrays"][0]
        assert conductance["name"] == "conductance_s"
        assert conductance["bias"] == pytest.approx(3e-7, rel=0.1)
        assert conductance["n_changed"] == 60

    @pytest.mark.parametrize("name", ["x.png", "x.svg"])
    def test_figure(self, hil: Any, pair: tuple[Path, Path], name: str) -> None:
        ran = hil("runs", "compare", *pair, "--figure", name)
        assert ran.stdout.endswith(f"figure: {name}\n")
        assert Path(name).stat().st_size > 5000

    def test_figures_that_cannot_be(self, hil: Any, pair: tuple[Path, Path], runs: Path) -> None:
        assert "neither PNG nor SVG" in hil("runs", "compare", *pair, "--figure", "x.gif").stderr
        lsm = counts_run(runs)
        assert "holds no conductances" in hil("runs", "compare", lsm, pair[0], "--figure", "x.png").stderr
        killed = create_run(runs)
        killed.close()
        assert hil("runs", "compare", killed.path, pair[0]).code == 0


class TestExport:
    def test_default_folder(self, hil: Any, runs: Path) -> None:
        path = array_run(runs)
        files = hil("runs", "export", "last", "--json").json["files"]
        assert f"runs/{path.stem}/csv/readings.csv" in files
        ran = hil("runs", "export", "last")
        assert (ran.code, "is there already" in ran.stderr) == (2, True)
        assert hil("runs", "export", "last", "--force").code == 0

    def test_unknown_format(self, hil: Any, runs: Path) -> None:
        array_run(runs)
        ran = hil("runs", "export", "last", "--format", "xlsx")
        assert (ran.code, "choose one of csv, parquet, netcdf" in ran.stderr) == (2, True)


class TestCheck:
    def test_good(self, hil: Any, runs: Path) -> None:
        path = array_run(runs)
        ran = hil("runs", "check", "last")
        assert (ran.code, ran.stdout) == (0, f"ok  runs/{path.name}\n")

    def test_all_with_something_wrong(self, hil: Any, runs: Path) -> None:
        good = array_run(runs)
        bad = array_run(runs, results={"pulse_count": np.zeros(SHAPE, np.uint32)})
        ran = hil("runs", "check", "--all")
        assert ran.code == 1
        assert f"WRONG  runs/{bad.name}\n  wrong: result pulse_count: is not the number of its pulses" in ran.stdout
        assert f"ok  runs/{good.name}\n" in ran.stdout
        assert ran.stdout.endswith("2 runs checked, 1 with something wrong\n")
        ran = hil("runs", "check", "--all", "--json")
        found = json.loads(ran.stdout)
        assert (ran.code, found["ok"], [run["ok"] for run in found["runs"]]) == (1, False, [False, True])

    def test_a_run_or_all(self, hil: Any, runs: Path) -> None:
        array_run(runs)
        assert hil("runs", "check").code == hil("runs", "check", "last", "--all").code == 2


class TestTag:
    def test_tags_name_a_run_and_are_listed(self, hil: Any, pair: tuple[Path, Path]) -> None:
        found = hil("runs", "tag", pair[0], "baseline", "chip-7", "--note", "before", "--json").json
        assert found == {"id": pair[0].stem, "tags": ["baseline", "chip-7"], "note": "before"}
        assert "baseline, chip-7" in hil("runs", "list").stdout
        assert hil("runs", "compare", "baseline", "last").code == 0
        assert (
            hil("runs", "tag", "baseline", "--remove", "chip-7", "--note", "").stdout == f"{pair[0].stem}: baseline\n"
        )
        assert hil("runs", "tag", "last").stdout == f"{pair[1].stem}: no tags\n"

    def test_many_tags_do_not_widen_a_list(self, hil: Any, pair: tuple[Path, Path]) -> None:
        tags = [f"after-cleaning-{k}" for k in range(6)]
        assert hil("runs", "tag", pair[0], *tags).code == 0
        listed = hil("runs", "list").stdout
        assert max(map(len, listed.splitlines())) <= 80
        assert all(tag in listed for tag in tags)

    def test_bad_tags(self, hil: Any, pair: tuple[Path, Path]) -> None:
        assert hil("runs", "tag", "last", "a,b").code == 2
        assert "has no tag 'x'" in hil("runs", "tag", "last", "--remove", "x").stderr


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (0, "0"), (999, "999"), (1300, "1.3k"), (262144, "262k"), (1_200_000, "1.2M")]
)
def test_counts_are_short(count: int | None, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(None, "-"), (0.04, "0.0s"), (9.94, "9.9s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"), (7260, "2h01m"),
     (90_000, "1d01h")],
)  # fmt: skip
def test_durations_are_short(duration_s: float | None, text: str) -> None:
    assert duration_text(duration_s) == text


@pytest.mark.parametrize(
    ("text", "moment"),
    [("30m", 1e9 - 1800), ("1.5h", 1e9 - 5400), ("2d", 1e9 - 172_800), ("1w", 1e9 - 604_800), ("1970-01-02", 86_400),
     ("1970-01-01T01:00", 3600), ("1970-01-01T01:00:00+01:00", 0)],
)  # fmt: skip
def test_since(text: str, moment: float) -> None:
    assert parse_since(text, 1e9) == moment
    with pytest.raises(ConfigError):
        parse_since(f"{text}x", 1e9)
