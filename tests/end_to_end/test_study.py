"""`hil study`: a grid of runs in processes of their own, once and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hil.runfile import open_run

#: an array that just holds the small network
SMALL_ARRAY = ["--set", "sim.rows=272", "--set", "sim.cols=32"]


def test_a_study_runs_says_what_failed_and_goes_on(
    hil: Any, small: list[str], nmnist_archive: Path, tmp_path: Path
) -> None:
    def study(*arguments: object) -> Any:
        data = ("--dataset", "nmnist", "--data", nmnist_archive)
        return hil("study", "read-noise", "--seeds", 1, *arguments, *data, *small, *SMALL_ARRAY, "--out", "out")

    # With so much noise no weight is left: the network refuses this array, and the rest of the study stands.
    ran = study("--values", "0,1", "--jobs", 1)
    assert ran.code == 1
    assert ran.stderr.startswith("failed: 100 %, seed 0: the weights of the tile spread by ")
    folder = tmp_path / "out" / "study-read-noise"
    index = json.loads((folder / "study.json").read_text())
    done, failed = index["points"]
    assert failed["failure"].startswith("the weights of the tile")
    assert {path.name for path in folder.iterdir() if path.suffix != ".h5"} == {"study.json", "study.csv", "study.png"}
    (cut_off,) = {path.name for path in folder.glob("*.h5")} - {done["run_file"]}
    with open_run(folder / cut_off) as run:
        assert (run.status, run.config["sim"]["noise"]["relative"]) == ("failed", 1.0)
    with open_run(folder / done["run_file"]) as run:
        assert (run.status, run.experiment, run.seed) == ("complete", "lsm-nmnist", 0)
        assert run.config["sim"]["noise"]["relative"] == 0.0
        assert run.results["summary"]["honest_accuracy"] == done["honest_accuracy"]
    again = study("--values", "0")
    assert (again.code, again.stderr) == (0, "")
    assert "1 of 1 points were there already" in again.stdout
    found = study("--values", "0", "--json").json
    assert found["points"] == [done]
    assert tmp_path / found["folder"] == folder


def test_the_studies_are_listed(hil: Any) -> None:
    shown = hil("study").stdout
    for listed in hil("study", "--json").json["studies"]:
        assert listed["study"][:15] in shown


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("noise",), 2, "unknown study 'noise'"),
        (("read-noise", "--backend", "board"), 2, "varies a simulated chip, and backend 'board' has none"),
        (("read-noise", "--backend", "emulator", "--jobs", "2"), 2, "serves one process at a time"),
        (("read-noise", "--jobs", "0"), 2, "--jobs 0 is below 1"),
        (("read-noise", "--set", "sim.ideal=true"), 2, "sim.ideal = true switches off"),
        (("hidden-size", "--values", "0"), 2, "lsm.n_neurons"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    hil: Any, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = hil("study", *arguments)
    assert (ran.code, words in ran.stderr) == (code, True), ran.stderr
    assert not (tmp_path / "runs").exists()
