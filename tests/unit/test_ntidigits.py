"""Reader of N-TIDIGITS, on files of its layout."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments.datasets import ntidigits
from experiments.datasets.ntidigits import read_ntidigits
from hil.errors import DataError

LABELS = {
    "train": ["man-ah-a-1", "man-ah-b-z", "woman-bc-a-o", "woman-bc-a-12o", "man-ah-a-9"],
    "test": ["boy-zz-a-z", "boy-zz-a-oo", "boy-zz-b-5"],
}


def write(path: Path, labels: dict[str, list[str]] = LABELS, **replaced: object) -> Path:
    """A small file; `replaced` gives times or addresses of the first training utterance instead of good ones."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, names in labels.items():
            file[f"{split}_labels"] = np.array(names, dtype="S")
            for name in names:
                times = np.sort(rng.uniform(0.0, 0.7, 30))
                file[f"{split}_timestamps/{name}"] = times.astype(np.float32)
                file[f"{split}_addresses/{name}"] = rng.integers(0, 64, 30).astype(np.int8)
        for what, values in replaced.items():
            place = f"train_{what}/{labels['train'][0]}"
            del file[place]
            if values is not None:
                file[place] = values
    return path


def test_single_digits_with_labels_and_speakers(tmp_path: Path) -> None:
    write(tmp_path / ntidigits.FILE_NAME)
    told: list[tuple[int, int]] = []
    found = read_ntidigits(tmp_path, progress=lambda what, done, total, note="": told.append((done, total)))
    assert [(s.label, found.speaker_names[s.speaker], s.is_test) for s in found.samples] == [
        (1, "man-ah", False), (0, "man-ah", False), (10, "woman-bc", False), (9, "man-ah", False),
        (0, "boy-zz", True), (5, "boy-zz", True),
    ]  # fmt: skip
    assert told[-1] == (6, 6)


def test_events_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "other.h5", timestamps=np.array([0.0, 0.25, 1.5000004]), addresses=np.array([63, 0, 5]))
    first = read_ntidigits(path).samples[0].events
    assert first.t_us.tolist() == [0, 250_000, 1_500_000]
    assert first.channel.tolist() == [63, 0, 5]


@pytest.mark.parametrize(
    ("replaced", "named"),
    [
        ({"addresses": np.full(30, 64)}, "train man-ah-a-1 has addresses 64..64"),
        ({"addresses": np.full(30, -1)}, "addresses -1..-1"),
        ({"addresses": np.zeros(29, dtype=int)}, "man-ah-a-1 has times"),
        ({"timestamps": np.arange(30) * 1000.0}, "times 0.0..29000.0"),
        ({"timestamps": np.full(30, np.nan)}, "times nan"),
        ({"timestamps": np.full(30, -0.1)}, "times -0.1"),
        ({"timestamps": np.zeros(0), "addresses": np.zeros(0, dtype=int)}, "man-ah-a-1"),
        ({"timestamps": None}, "KeyError"),
    ],
)
def test_wrong_events_are_refused_by_name(tmp_path: Path, replaced: dict[str, object], named: str) -> None:
    path = write(tmp_path / "some.hdf5", **replaced)
    with pytest.raises(DataError, match=r"some\.hdf5") as caught:
        read_ntidigits(path)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("place", "shape", "kind", "named"),
    [
        ("train_labels", (10**11,), "S20", "train_labels is |S20(100000000000,)"),
        ("train_labels", (10,), "S5000", "train_labels is |S5000(10,)"),
        ("train_labels", (10,), "f8", "train_labels is float64(10,)"),
        ("train_labels", (5, 2), "S20", "train_labels is |S20(5, 2)"),
        ("train_timestamps/man-ah-a-1", (10**11,), "f8", "train_timestamps/man-ah-a-1 is float64(100000000000,)"),
        ("test_addresses/boy-zz-b-5", (10**6, 10**6), "i1", "test_addresses/boy-zz-b-5 is int8(1000000, 1000000)"),
        ("test_addresses/boy-zz-b-5", (30,), "V90000", "test_addresses/boy-zz-b-5 is |V90000(30,)"),
        ("test_addresses/boy-zz-b-5", None, "", "test_addresses/boy-zz-b-5 is a group"),
    ],
)
def test_arrays_are_judged_before_they_are_read(
    tmp_path: Path, place: str, shape: tuple[int, ...] | None, kind: str, named: str
) -> None:
    path = write(tmp_path / "some.hdf5")
    with h5py.File(path, "a") as file:
        del file[place]
        if shape is None:
            file.create_group(place)
        else:
            file.create_dataset(place, shape, dtype=kind, chunks=(1,) * len(shape))
    with pytest.raises(DataError) as caught:
        read_ntidigits(path)
    assert f"some.hdf5: {named}, not (n,)" in str(caught.value)


def test_labels_may_be_text_of_any_length(tmp_path: Path) -> None:
    path = write(tmp_path / "some.hdf5")
    with h5py.File(path, "a") as file:
        del file["train_labels"]
        file["train_labels"] = LABELS["train"]
    assert len(read_ntidigits(path).samples) == 6


@pytest.mark.parametrize(
    ("train", "named"),
    [
        (["man-ah-a-12"], "no train utterances of one digit"),
        (["man-ah-1"], "'man-ah-1'"),
        (["man-ah-a-1", "man-ah-a-x"], "'man-ah-a-x'"),
        (["man-ah-a-0"], "'man-ah-a-0'"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, train: list[str], named: str) -> None:
    with pytest.raises(DataError) as caught:
        read_ntidigits(write(tmp_path / "some.hdf5", {**LABELS, "train": train}))
    assert named in str(caught.value)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("no data\n" * 100)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = np.zeros(3)
    whole = write(tmp_path / "whole.hdf5").read_bytes()
    (tmp_path / "cut.hdf5").write_bytes(whole[: len(whole) // 2])
    for name in ("text.hdf5", "other.hdf5", "cut.hdf5"):
        with pytest.raises(DataError, match=name):
            read_ntidigits(tmp_path / name)
    with pytest.raises(DataError, match=f"holds no {ntidigits.FILE_NAME}"):
        read_ntidigits(tmp_path)
