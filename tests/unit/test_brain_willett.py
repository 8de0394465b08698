"""Reader of singleLetters.mat, with small files made here."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from experiments.datasets import willett
from experiments.datasets.brain import load_brain
from experiments.datasets.brain_settings import BrainSettings
from hil.errors import ConfigError, DataError
from hil.spikes import unpack_bits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSBAR_HIL_CACHE", str(tmp_path / "cache"))


def cubes(**changed: Any) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    made = {f"neuralActivityCube_{letter}": rng.poisson(0.2, (3, 201, 192)) for letter in string.ascii_lowercase}
    return {name: array.astype(np.uint8) for name, array in made.items()} | changed


def write(path: Path, arrays: dict[str, NDArray[Any]], version: str) -> Path:
    if version == "5":
        savemat(path, {**arrays, "meansPerBlock": np.zeros((9, 192))}, do_compression=False)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T  # as MATLAB's column order appears in HDF5
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    return path


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_both_versions_of_the_file_give_counts_clamped_at_1(tmp_path: Path, version: str) -> None:
    file = write(tmp_path / "singleLetters.mat", cubes(), version)
    trials = willett.read_trials(file)
    assert trials.shape == (26, 3, 201, 192)
    for letter, counts in enumerate(cubes().values()):
        np.testing.assert_array_equal(trials[letter], counts > 0)
    for path in (file, tmp_path):
        dataset = load_brain(BrainSettings(dataset="willett", path=path, test_trials=1, held_out="last"))
        np.testing.assert_array_equal(unpack_bits(dataset.test.words, 192), trials[:, 2])
        np.testing.assert_array_equal(unpack_bits(dataset.train.words, 192), trials[:, :2].reshape(52, 201, 192))
        assert not dataset.synthetic
        assert "1 of 3 trials of each letter held out, the last of each letter" in dataset.note
    with pytest.raises(ConfigError, match="test_trials is 3, but there are 3 trials"):
        load_brain(BrainSettings(dataset="willett", path=file))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"neuralActivityCube_c": np.zeros((3, 200, 192))}, "neuralActivityCube_c has shape (3, 200, 192)"),
        ({"neuralActivityCube_c": np.zeros((201, 192))}, "neuralActivityCube_c has shape (201, 192)"),
        ({"neuralActivityCube_z": np.zeros((4, 201, 192))}, "neuralActivityCube_z has shape (4, 201, 192)"),
        ({"neuralActivityCube_b": np.full((3, 201, 192), -1.0)}, "neuralActivityCube_b holds values"),
        ({"neuralActivityCube_b": np.full((3, 201, 192), np.nan)}, "neuralActivityCube_b holds values"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, changed: dict[str, NDArray[Any]], named: str) -> None:
    file = write(tmp_path / "some.mat", cubes(**changed), "7.3")
    with pytest.raises(DataError) as caught:
        willett.read_trials(file)
    assert named in str(caught.value)
    assert "some.mat" in str(caught.value)


def test_arrays_are_judged_before_they_are_read(tmp_path: Path) -> None:
    # 2 TB without a byte in the file
    file = write(tmp_path / "some.mat", {}, "7.3")
    for kind, named in (("u1", "shape (50000000, 201, 192)"), ("V40000", "holds values that are no counts")):
        with h5py.File(file, "w") as out:
            for name in cubes():
                out.create_dataset(name, (192, 201, 50_000_000), dtype=kind, chunks=(1, 1, 1000))
        with pytest.raises(DataError) as caught:
            willett.read_trials(file)
        assert f"some.mat: neuralActivityCube_a {'has ' if kind == 'u1' else ''}{named}" in str(caught.value)
    with h5py.File(file, "w") as out:
        out.create_group("neuralActivityCube_a")
    with pytest.raises(DataError, match=r"some\.mat: neuralActivityCube_a holds values"):
        willett.read_trials(file)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_more_trials_than_a_limit_are_refused(tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "some.mat", cubes(), version)
    monkeypatch.setattr(willett, "_MAX_TRIALS", 2)
    monkeypatch.setattr("scipy.io.loadmat", None)
    with pytest.raises(DataError, match=r"neuralActivityCube_a has shape \(3, 201, 192\), .* 2\.\.2, as"):
        willett.read_trials(file)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_missing_letters_are_named(tmp_path: Path, version: str) -> None:
    arrays = cubes()
    del arrays["neuralActivityCube_q"]
    with pytest.raises(DataError, match=r"some\.mat lacks neuralActivityCube_q"):
        willett.read_trials(write(tmp_path / "some.mat", arrays, version))


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no singleLetters\.mat"):
        willett.source_file(tmp_path)
    file = write(tmp_path / "some.mat", {"neuralActivityCube_a": cubes()["neuralActivityCube_a"]}, "5")
    matlab5 = file.read_bytes()
    hdf5 = write(tmp_path / "other.mat", {"x": np.zeros((3, 201, 192))}, "7.3").read_bytes()
    for content in (b"", b"a text file\n" * 50, matlab5[: len(matlab5) // 2], hdf5[: len(hdf5) // 2]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"some\.mat is no readable MATLAB file"):
            willett.read_trials(file)
