"""Cache of generated data sets."""

import logging
from pathlib import Path

import numpy as np
import pytest

from experiments.datasets import cache
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(place))
    return place


class Generator:
    """Makes a data set and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> SpikeDataset:
        self.calls += 1
        rng = np.random.default_rng(0)
        words = rng.integers(0, 2**63, (9, 5, 4), dtype=np.uint64)
        labels = np.arange(9, dtype=np.int64)
        return SpikeDataset(
            "some",
            SpikeSet(words[:6], labels[:6]),
            SpikeSet(words[6:], labels[6:]),
            256,
            5,
            10,
            True,
            "a test",
            "small",
        )


def assert_equal(one: SpikeDataset, two: SpikeDataset) -> None:
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(one, split).words, getattr(two, split).words)
        np.testing.assert_array_equal(getattr(one, split).labels, getattr(two, split).labels)
    for name in ("name", "n_inputs", "n_steps", "n_classes", "synthetic", "source", "note"):
        assert getattr(one, name) == getattr(two, name)


def test_second_load_is_identical_and_does_not_generate(folder: Path) -> None:
    generate = Generator()
    first = cache.cached("some", {"a": 1}, generate)
    second = cache.cached("some", {"a": 1}, generate)
    assert generate.calls == 1
    assert_equal(first, second)
    assert [path.name for path in folder.iterdir()] == [cache.cache_file("some", {"a": 1}).name]


def test_speakers_survive() -> None:
    made: list[int] = []

    def generate() -> SpikeDataset:
        made.append(1)
        words = np.zeros((3, 5, 1), dtype=np.uint64)
        labels = np.zeros(3, dtype=np.int64)
        train, test = (SpikeSet(words, labels, np.array(who, dtype=np.int64)) for who in ([1, 0, 1], [0, 2, 2]))
        return SpikeDataset("some", train, test, 64, 5, 10, False, "a test", speaker_names=("a", "b", "c"))

    for _ in range(2):
        found = cache.cached("some", {}, generate)
        assert found.speaker_names == ("a", "b", "c")
        assert found.train.speakers is not None
        assert found.test.speakers is not None
        assert found.train.speakers.tolist() == [1, 0, 1]
        assert found.test.speakers.tolist() == [0, 2, 2]
    assert len(made) == 1


def test_other_key_is_another_file() -> None:
    generate = Generator()
    for key in ({"a": 1}, {"a": 2}, {"a": 1, "b": (1.0, 2.0)}):
        cache.cached("some", key, generate)
    assert generate.calls == 3
    assert cache.cache_file("some", {"a": 1, "b": 2}) == cache.cache_file("some", {"b": 2, "a": 1})


def test_format_version_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.cache_file("some", {})
    monkeypatch.setattr(cache, "FORMAT_VERSION", cache.FORMAT_VERSION + 1)
    assert cache.cache_file("some", {}) != before


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped", "other keys", "other meta", "labels"])
def test_damaged_file_is_generated_anew(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    generate = Generator()
    good = cache.cached("some", {}, generate)
    path = cache.cache_file("some", {})
    whole = path.read_bytes()
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("something else\n" * 100)
    elif damage == "flipped":
        path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    elif damage == "other keys":
        np.savez(path, x=np.zeros(3))
    elif damage == "other meta":
        np.savez(path, **(content | {"meta": np.array("[1, 2]")}))
    else:
        np.savez(path, **(content | {"train_labels": np.full(6, 77, dtype=np.int64)}))
    with caplog.at_level(logging.WARNING, logger=cache.__name__):
        assert_equal(cache.cached("some", {}, generate), good)
    assert generate.calls == 2
    assert "is damaged" in caplog.text
    cache.cached("some", {}, generate)
    assert generate.calls == 2


def test_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # a file in the way stops even a user who may write everywhere
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "file" / "cache"))
    generate = Generator()
    with caplog.at_level(logging.WARNING, logger=cache.__name__):
        assert len(cache.cached("some", {}, generate).train) == 6
    assert "cannot be kept" in caplog.text


def test_failed_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "savez", full_disk)
    assert len(cache.cached("some", {}, Generator()).train) == 6
    assert list(folder.iterdir()) == []


def test_content_hash_sees_content_and_borders(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"ab")
    two.write_bytes(b"c")
    before = cache.content_hash([one, two])
    one.write_bytes(b"a")
    two.write_bytes(b"bc")
    assert cache.content_hash([one, two]) != before


def test_default_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("platformdirs")
    monkeypatch.delenv(cache.FOLDER_VARIABLE)
    assert "crossbar-hil" in str(cache.cache_folder())
