"""`hil lsm nmnist` from data to figures: results, run file, reproducibility, real recordings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.runfile import open_run

DATA = Path(os.environ.get("CROSSBAR_HIL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
KEYS = {
    "experiment", "dataset", "backend", "seed", "n_train", "n_test", "honest_accuracy", "paper_accuracy",
    "accuracy_interval", "wall_s", "run_file",
}  # fmt: skip
FIGURES = {"confusion", "spike_raster", "membrane", "tsne"}
PROGRAM = "from hil.cli import main; main()"
UNDRAWN = pytest.mark.usefixtures("blank_figures")


def counts(path: str) -> dict[str, Any]:
    with open_run(Path(path)) as reader:
        return {split: reader.table(f"counts_{split}")["counts"] for split in ("train", "test")}


def test_result_run_file_and_figures(hil: Any, small: list[str], tmp_path: Path) -> None:
    ran = hil("lsm", "nmnist", *small, "--seed", 5, "--out", "results", "--json")
    assert ran.stderr == ""
    result = ran.json
    assert set(result) >= KEYS
    assert (result["experiment"], result["dataset"], result["backend"]) == ("lsm nmnist", "digits-saccade", "sim")
    assert (result["seed"], result["n_train"], result["n_test"]) == (5, 100, 30)
    low, high = result["accuracy_interval"]
    assert 0 <= low <= result["honest_accuracy"] <= high <= 1
    assert 0 < result["wall_s"] < 60
    run_file = tmp_path / result["run_file"]
    folder = run_file.with_suffix("")
    assert {path.name for path in (tmp_path / "results").iterdir()} == {run_file.name, folder.name}
    assert {path.name for path in folder.iterdir()} == {f"{name}.png" for name in FIGURES}
    with open_run(run_file) as reader:
        assert (reader.status, reader.cause, reader.seed) == ("complete", "", 5)
        assert reader.config["lsm"]["n_neurons"] == 16
        assert reader.backend["name"] == "sim"
        assert {"numpy", "torch", "numba", "python"} <= set(reader.software)
        for split, n in (("train", 100), ("test", 30)):
            table = reader.table(f"counts_{split}")
            np.testing.assert_array_equal(table["sample"], np.arange(n))
            assert table["counts"].shape == (n, 16)
            assert table["counts"].max() <= 50
            assert set(table["label"]) <= set(range(10))
        assert reader.table("counts_test")["counts"].sum() > 0
        results = reader.results
        assert results["predicted"].shape == (30,)
        assert results["summary"]["honest_accuracy"] == result["honest_accuracy"]
        assert set(reader.figures) == FIGURES
        for name in FIGURES:
            png = reader.figure(name)
            assert png.startswith(b"\x89PNG\r\n\x1a\n")
            assert png.rstrip(b"\0").endswith(b"IEND\xaeB`\x82")
            assert (folder / f"{name}.png").read_bytes() == png


@UNDRAWN
def test_confusion_matrix_is_in_the_run_file(hil: Any, small: list[str]) -> None:
    result = hil("lsm", "nmnist", *small, "--json").json
    with open_run(Path(result["run_file"])) as reader:
        tables = [value for value in reader.results.values() if getattr(value, "shape", ()) == (10, 10)]
    assert [table.sum() for table in tables] == [30]
    assert np.trace(tables[0]) == round(30 * result["honest_accuracy"])


@UNDRAWN
def test_text_for_people(hil: Any, small: list[str]) -> None:
    ran = hil("lsm", "nmnist", *small)
    assert (ran.code, ran.stderr) == (0, "")
    text = " ".join(ran.stdout.split())
    for part in ("honest protocol", "paper protocol", "95 % interval", "synthetic events", "100 for training"):
        assert part in text


@UNDRAWN
def test_seeds(hil: Any, spawn: Any, small: list[str], tmp_path: Path) -> None:
    """Equal seeds give equal spike counts, in another process too; another seed gives others."""
    arguments = ["lsm", "nmnist", *small, "--json", "--out", tmp_path]
    process = spawn("-c", PROGRAM, *arguments, "--seed", 1)
    first, again, other = (counts(hil(*arguments, "--seed", seed).json["run_file"]) for seed in (1, 1, 2))
    output, noise = process.communicate(timeout=60)
    assert (process.returncode, noise) == (0, "")
    elsewhere = counts(json.loads(output)["run_file"])
    for split in ("train", "test"):
        np.testing.assert_array_equal(first[split], again[split])
        np.testing.assert_array_equal(first[split], elsewhere[split])
        assert not np.array_equal(first[split], other[split])


@UNDRAWN
@pytest.mark.parametrize(
    "setting", ["sim.fidelity=conversion", "sim.ideal=true", "lsm.engine=torch", "lsm.gain=nominal"]
)
def test_variants(hil: Any, small: list[str], setting: str) -> None:
    result = hil("lsm", "nmnist", *small, "--set", setting, "--json").json
    assert result["spike_rate_per_step"] > 0


@UNDRAWN
def test_limits_of_the_session_are_tightened(hil: Any, small: list[str], tmp_path: Path) -> None:
    assert hil("lsm", "nmnist", *small, "--set", "limits.v_read_max_v=0.2", "--json").json["n_test"] == 30
    ran = hil("lsm", "nmnist", *small, "--set", "limits.v_read_max_v=0.19", "--out", "other")
    assert ran.code == 2
    assert "0.2 V is outside 0 to 0.19 V" in ran.stderr
    assert not (tmp_path / "other").exists()


@UNDRAWN
def test_archive_and_folder_of_recordings(hil: Any, small: list[str], nmnist_archive: Path) -> None:
    result = hil("lsm", "nmnist", *small, "--dataset", "nmnist", "--data", nmnist_archive, "--json").json
    assert (result["dataset"], result["data_synthetic"]) == ("nmnist", False)
    assert "small set: 120 training and 40 test recordings" in result["data_note"]


@UNDRAWN
@pytest.mark.parametrize("name", ["it's.tar.gz", 'say "hi".tar.gz', "back\\slash.tar.gz", "2024", "x = 1.tar.gz"])
def test_any_file_name_may_be_given(hil: Any, tmp_path: Path, name: str) -> None:
    ran = hil("lsm", "nmnist", "--dataset", "nmnist", "--data", tmp_path / name)
    assert ran.code == 2
    assert f"{tmp_path / name} does not exist" in ran.stderr
    assert f"the data path {name} does not exist" in hil("lsm", "nmnist", "--dataset", "nmnist", "--data", name).stderr


@UNDRAWN
def test_real_recordings(hil: Any, small: list[str]) -> None:
    archive = DATA / "nmnist_subset.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not here; set CROSSBAR_HIL_TEST_DATA to the folder that has it")
    kept = [text for text in small if text != "--set" and not text.startswith("data.")]
    arguments = [part for text in kept for part in ("--set", text)]
    result = hil("lsm", "nmnist", "--dataset", "nmnist", "--data", archive, *arguments, "--json").json
    assert (result["dataset"], result["n_train"], result["n_test"]) == ("nmnist", 804, 52)
    assert result["data_synthetic"] is False
    assert "small set" in result["data_note"]
    low, high = result["accuracy_interval"]
    assert high - low > 0.1
    text = " ".join(hil("lsm", "nmnist", "--dataset", "nmnist", "--data", archive, *arguments).stdout.split())
    assert "small set: 804 training and 52 test recordings" in text


@UNDRAWN
def test_a_silent_network_ends_without_tsne(hil: Any, small: list[str]) -> None:
    result = hil("lsm", "nmnist", *small, "--set", "lsm.v_threshold=1e9", "--json").json
    assert result["spike_rate_per_step"] == 0.0
    assert not any(path.endswith("tsne.png") for path in result["figures"])
