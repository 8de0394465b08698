"""`hil data`: every data set is listed with what it needs, files are checked past the cache, wrong ones are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.datasets import BinRule, cache, load_dataset
from experiments.datasets.families import FAMILIES, entries, needs_path
from hil.spikes import unpack_bits

#: data sets of files, and a setting that makes each family's other one small
FROM_FILES = [entry for entry in entries() if entry.layout]
EMBEDDED = [entry for entry in entries() if not entry.layout]


def test_each_family_has_a_default_that_needs_no_file(hil: Any) -> None:
    listed = hil("data", "list", "--json").json["datasets"]
    assert {entry["family"] for entry in listed if not entry["layout"]} == set(FAMILIES)
    assert len({entry["name"] for entry in listed}) == len(listed)
    # What a person sees names every one.
    shown = hil("data", "list").stdout
    assert all(entry["name"] in shown for entry in listed)


def test_what_comes_with_the_project_is_called_synthetic() -> None:
    assert all(entry.synthetic for entry in EMBEDDED)
    assert needs_path("nmnist")
    assert not needs_path("digits-saccade")


@pytest.mark.parametrize("entry", FROM_FILES, ids=lambda entry: entry.name)
class TestFiles:
    def test_a_path_is_asked_for(self, hil: Any, entry: Any) -> None:
        ran = hil("data", "check", entry.name)
        assert ran.code == 2
        assert entry.name in ran.stderr
        assert "--data" in ran.stderr

    def test_a_wrong_file_is_named(self, hil: Any, entry: Any, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong.bin"
        wrong.write_bytes(bytes(range(256)))
        ran = hil("data", "check", entry.name, "--data", str(wrong))
        assert ran.code in (1, 2)
        assert "wrong.bin" in ran.stderr
        assert "Fix: " in ran.stderr

    def test_an_empty_folder_is_named(self, hil: Any, entry: Any, tmp_path: Path) -> None:
        (tmp_path / "nothing").mkdir()
        ran = hil("data", "check", entry.name, "--data", "nothing")
        assert ran.code in (1, 2)
        assert "nothing" in ran.stderr


def test_check_reads_anew_and_prepare_keeps(
    hil: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nmnist_archive: Path
) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    found = hil("data", "check", "nmnist", "--data", str(nmnist_archive), "--json").json
    assert not (tmp_path / "cache").exists()
    assert (found["n_inputs"], found["n_steps"], found["n_classes"]) == (256, 50, 10)
    assert sum(found["per_class"]["train"]) == found["n_train"]
    assert 0 < found["spikes_per_input_and_step"]["test"] < 0.5
    kept = hil("data", "prepare", "nmnist", "--data", str(nmnist_archive), "--json").json
    assert len(list((tmp_path / "cache").glob("nmnist-*.npz"))) == 1
    assert {**kept, "wall_s": 0, "cache": 0} == {**found, "wall_s": 0, "cache": 0}


def test_densities_are_those_of_the_rasters(hil: Any, nmnist_archive: Path) -> None:
    dataset = load_dataset("nmnist", nmnist_archive)
    found = hil(
        "data", "check", "nmnist", "--data", str(nmnist_archive), "--set", "data.bin_width_s=6e-3", "--json"
    ).json
    by_hand = load_dataset("nmnist", nmnist_archive, bin_rule=BinRule("fixed", 6e-3))
    assert found["spikes_per_input_and_step"]["train"] == pytest.approx(unpack_bits(by_hand.train.words, 256).mean())
    assert not np.array_equal(dataset.train.words, by_hand.train.words)


def test_unknown_names_are_answered_with_the_known_ones(hil: Any) -> None:
    ran = hil("data", "check", "mnist")
    assert ran.code == 2
    assert "mnist-saccade" in ran.stderr
