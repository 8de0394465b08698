"""Readers of real images of letters, and their split."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.datasets.idx import read_idx
from experiments.datasets.letter_images import LetterPack, read_letters, source_files
from experiments.datasets.letter_split import split_letters
from experiments.datasets.letters import load_letters
from experiments.datasets.letters_settings import LettersSettings
from hil.errors import DataError


def images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 28, 28)).astype(np.uint8)


def labels(n: int, n_letters: int = 26) -> NDArray[np.uint8]:
    return (np.arange(n) % n_letters + 1).astype(np.uint8)


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    return np.array([0x800 + array.ndim, *array.shape], dtype=">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, tag: str, x: NDArray[np.uint8], y: NDArray[np.uint8], end: str = "") -> Path:
    for kind, array in (("images-idx3", x), ("labels-idx1", y)):
        content = idx_bytes(array)
        (folder / f"emnist-letters{tag}-{kind}-ubyte{end}").write_bytes(gzip.compress(content) if end else content)
    return folder / f"emnist-letters{tag}-images-idx3-ubyte{end}"


def split(packs: list[LetterPack], **changed: object) -> object:
    options = {"test_fraction": 0.25, "at_most": {"train": 999, "test": 999}, "seed": 0} | changed
    return split_letters(packs, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tag", "end"), [("", ""), ("-AM", ".gz"), ("-train", ".gz"), ("-test", "")])
def test_idx_pairs_are_read_upright_with_labels_from_0(tmp_path: Path, tag: str, end: str) -> None:
    x, y = images(30), labels(30)
    file = write_idx(tmp_path, tag, x, y, end)
    for path in (tmp_path, file, Path(str(file).replace("images-idx3", "labels-idx1"))):
        (pack,) = read_letters(path)
        np.testing.assert_array_equal(pack.x, x.swapaxes(1, 2))
        assert pack.y.tolist() == (y - 1).tolist()
        assert pack.part == (tag[1:] if tag in ("-train", "-test") else "")


@pytest.mark.parametrize(
    ("name", "more", "transposed", "turned"),
    [
        ("letters.npz", {}, "auto", True),
        ("letters.npz", {"writer": np.arange(30)}, "auto", False),
        ("letters_AZ_55writers.npz", {}, "auto", False),
        ("letters.npz", {}, "false", False),
        ("letters.npz", {"writer": np.arange(30)}, "true", True),
    ],
)
def test_orientation_of_packs(
    tmp_path: Path, name: str, more: dict[str, object], transposed: str, turned: bool
) -> None:
    np.savez(tmp_path / name, x=images(30), y=labels(30), **more)
    (pack,) = read_letters(tmp_path / name, transposed)  # type: ignore[arg-type]
    np.testing.assert_array_equal(pack.x, images(30).swapaxes(1, 2) if turned else images(30))
    assert (pack.writer is not None) == bool(more)


def test_idx_files_that_are_upright_can_be_said_to_be(tmp_path: Path) -> None:
    (pack,) = read_letters(write_idx(tmp_path, "", images(3), labels(3)), "false")
    np.testing.assert_array_equal(pack.x, images(3))


def test_a_folder_is_merged_and_nothing_counts_twice(tmp_path: Path) -> None:
    x, y = images(40), labels(40)
    write_idx(tmp_path, "-test", x[:10], y[:10])
    write_idx(tmp_path, "-AM", x[:20], y[:20], ".gz")
    np.savez(tmp_path / "emnist_letters_AM.npz", x=x[:20], y=y[:20])
    np.savez(tmp_path / "some_letters.npz", x=images(6, seed=1), y=labels(6), writer=np.arange(6))
    np.savez(tmp_path / "mnist.npz", other=np.zeros(3))
    packs = read_letters(tmp_path)
    assert [(pack.file.split("-images")[0], len(pack.x)) for pack in packs] == [
        ("emnist-letters-test", 10),
        ("some_letters.npz", 6),
        ("emnist-letters-AM", 10),
    ]
    every = np.concatenate([pack.x for pack in packs])
    assert len(np.unique(every.reshape(len(every), -1), axis=0)) == len(every) == 26


def test_what_a_file_repeats_in_itself_counts_once_where_the_split_is_drawn(tmp_path: Path) -> None:
    x = images(4)
    x[2] = x[0]
    np.savez(tmp_path / "letters.npz", x=x, y=labels(4))
    (pack,) = read_letters(tmp_path / "letters.npz", "false")
    np.testing.assert_array_equal(pack.x, x[[0, 1, 3]])
    assert pack.y.tolist() == [0, 1, 3]
    # a part of EMNIST without the other one is split anew
    assert len(read_letters(write_idx(tmp_path, "-train", x, labels(4)))[0].x) == 3


def test_what_a_file_repeats_in_itself_stays_where_it_says_what_is_held_out(tmp_path: Path) -> None:
    x, other = images(4), images(5, seed=1)
    x[2], other[4] = x[0], other[1]
    np.savez(tmp_path / "letters.npz", x=x, y=labels(4), writer=np.arange(4))
    assert len(read_letters(tmp_path / "letters.npz")[0].x) == 4
    write_idx(tmp_path, "-train", x, labels(4))
    write_idx(tmp_path, "-test", other, labels(5))
    (tmp_path / "letters.npz").unlink()
    assert [len(pack.x) for pack in read_letters(tmp_path)] == [5, 4]


def test_official_split_is_kept(tmp_path: Path) -> None:
    write_idx(tmp_path, "-train", images(52), labels(52))
    write_idx(tmp_path, "-test", images(26, seed=1), labels(26))
    found = split(read_letters(tmp_path))
    assert found.x["train"].shape == (52, 28, 28)
    assert found.x["test"].shape == (26, 28, 28)
    test = {image.tobytes() for image in images(26, seed=1).swapaxes(1, 2)}
    assert {image.tobytes() for image in found.x["test"]} == test
    assert "EMNIST's own split" in found.text
    assert "A..Z 2 + 1" in found.text


def test_half_of_an_official_split_is_split_anew(tmp_path: Path) -> None:
    found = split(read_letters(write_idx(tmp_path, "-train", images(104), labels(104))))
    assert np.bincount(found.y["test"]).tolist() == 26 * [1]
    assert "at random within each letter" in found.text


def test_writers_are_in_one_part_only() -> None:
    x = images(80)
    x[:, 0, 0] = np.arange(80)
    writer = np.repeat(np.arange(20), 4)
    found = split([LetterPack("w", "", x, np.tile(np.arange(4), 20), writer)])
    who = {part: set(writer[found.x[part][:, 0, 0]]) for part in ("train", "test")}
    assert len(who["test"]) == 5
    assert not who["test"] & who["train"]
    assert "by writer" in found.text


def test_split_is_by_letter_seeded_and_capped() -> None:
    pack = LetterPack("p", "", images(120), np.repeat([0, 1, 5], [60, 40, 20]))
    found = split([pack])
    assert np.bincount(found.y["train"]).tolist() == [45, 30, 0, 0, 0, 15]
    assert np.bincount(found.y["test"]).tolist() == [15, 10, 0, 0, 0, 5]
    assert "A 45 + 15, B 30 + 10, C..E none, F 15 + 5, G..Z none" in found.text
    np.testing.assert_array_equal(found.x["test"], split([pack]).x["test"])
    assert not np.array_equal(found.x["test"], split([pack], seed=1).x["test"])
    capped = split([pack], at_most={"train": 7, "test": 3})
    assert np.bincount(capped.y["train"])[[0, 1, 5]].tolist() == [7, 7, 7]
    assert np.bincount(capped.y["test"])[[0, 1, 5]].tolist() == [3, 3, 3]
    whole = {image.tobytes() for image in found.x["test"]}
    assert {image.tobytes() for image in capped.x["test"]} <= whole
    assert not whole & {image.tobytes() for image in found.x["train"]}


def test_letters_of_which_one_image_is_there_are_for_training() -> None:
    found = split([LetterPack("p", "", images(5), np.array([0, 0, 0, 0, 1]))])
    assert "A 3 + 1, B 1 + 0, C..Z none" in found.text
    with pytest.raises(DataError, match=r"one\.npz: no letter has an image for training and one for testing"):
        split([LetterPack("one.npz", "", images(2), np.array([0, 1]))])


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("x", np.zeros((5, 28, 28), np.float32), "float32(5, 28, 28)"),
        ("x", np.zeros((5, 32, 32), np.uint8), "uint8(5, 32, 32)"),
        ("x", np.zeros((0, 28, 28), np.uint8), "n > 0"),
        ("y", labels(4), "4 labels for 5 images"),
        ("y", np.zeros(5), "y is float64"),
        ("y", np.arange(5), "labels span 0..4, letters are 1..26"),
        ("y", np.arange(23, 28), "labels span 23..27"),
        ("writer", np.arange(3), "3 writers for 5 images"),
        ("writer", np.array(["a"] * 5), "writer is <U1"),
    ],
)
def test_packs_with_wrong_content_are_named(tmp_path: Path, key: str, value: object, named: str) -> None:
    np.savez(tmp_path / "some.npz", **{"x": images(5), "y": labels(5), key: value})
    with pytest.raises(DataError) as caught:
        read_letters(tmp_path / "some.npz")
    assert named in str(caught.value)
    assert "some.npz" in str(caught.value)


def test_files_that_are_something_else_are_named(tmp_path: Path) -> None:
    some = tmp_path / "some.npz"
    np.savez(some, x_train=images(3), y_train=labels(3))
    with pytest.raises(DataError, match=r"some\.npz lacks x and y; it holds x_train, y_train"):
        read_letters(some)
    whole = some.read_bytes()
    for content in (b"text\n" * 50, b"", whole[: len(whole) // 2]):
        some.write_bytes(content)
        with pytest.raises(DataError, match=r"some\.npz is no readable \.npz"):
            read_letters(some)
    np.save(tmp_path / "one.npy", images(3))
    with pytest.raises(DataError, match="single array"):
        read_letters(tmp_path / "one.npy")
    some.unlink()
    with pytest.raises(DataError, match="holds no images of letters"):
        read_letters(tmp_path)


def test_idx_files_that_are_damaged_or_alone_are_named(tmp_path: Path) -> None:
    file = write_idx(tmp_path, "-AM", images(3), labels(3))
    partner = tmp_path / "emnist-letters-AM-labels-idx1-ubyte"
    whole = file.read_bytes()
    for content, named in ((whole[:-1], "2367 bytes"), (b"abc", "0x00616263"), (idx_bytes(labels(3)), "0x00000801")):
        file.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_letters(tmp_path)
        assert named in str(caught.value)
        assert file.name in str(caught.value)
    partner.rename(tmp_path / "labels")
    with pytest.raises(DataError, match=r"no emnist-letters-AM-labels-idx1-ubyte\(\.gz\)"):
        source_files(tmp_path)
    (tmp_path / "emnist-letters-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    (tmp_path / "emnist-letters-labels-idx1-ubyte").write_bytes(idx_bytes(labels(3)))
    with pytest.raises(DataError, match=r"emnist-letters-images-idx3-ubyte\.gz cannot be read"):
        read_letters(tmp_path / "emnist-letters-images-idx3-ubyte.gz")


@pytest.mark.parametrize("end", ["", ".gz"])
def test_no_more_of_an_idx_file_is_read_than_its_header_promises(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"some{end}"
    pack = gzip.compress if end else bytes
    whole = idx_bytes(images(3))
    for content, named in (
        (whole + bytes(30_000_000), "has 2369 bytes or more, its header (3, 28, 28) asks for 2368"),
        (whole[:-9], "has 2359 bytes, its header (3, 28, 28) asks for 2368"),
        (np.array([0x803, 2**31, 2**31, 2**31], dtype=">u4").tobytes(), f"asks for {2**93} bytes, at most {2**30}"),
    ):
        path.write_bytes(pack(content))
        tracemalloc.start()
        with pytest.raises(DataError) as caught:
            read_idx(path, 3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert f"some{end}" in str(caught.value)
        assert named in str(caught.value)
        assert peak < 5_000_000


def test_checksum_of_a_packed_idx_file_is_compared(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(images(3))))
    content[-6] ^= 1
    (tmp_path / "some.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"some\.gz cannot be read \(BadGzipFile: CRC"):
        read_idx(tmp_path / "some.gz", 3)


def test_loading_follows_path_orientation_and_content(tmp_path: Path) -> None:
    file = tmp_path / "letters.npz"
    np.savez(file, x=images(60), y=labels(60, 3))
    settings = LettersSettings(dataset="emnist-letters", path=file)
    dataset = load_letters(settings)
    assert not dataset.synthetic
    assert "A..C 16 + 4, D..Z none" in dataset.note
    turned = load_letters(settings.model_copy(update={"transposed": "false"}))
    other = load_letters(settings.model_copy(update={"test_fraction": 0.5}))
    np.savez(file, x=images(60, seed=1), y=labels(60, 3))
    changed = load_letters(settings)
    for one in (turned, changed):
        assert not np.array_equal(one.train.words, dataset.train.words)
    assert len(other.test) == 30
