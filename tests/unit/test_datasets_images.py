"""Readers of MNIST images, and the embedded digits."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.datasets.digits_images import make_digits, source_hash
from experiments.datasets.mnist_images import read_mnist, source_files
from hil.errors import ConfigError, DataError


def arrays() -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (7, 28, 28)).astype(np.uint8),
        "y_train": np.arange(7, dtype=np.uint8),
        "x_test": rng.integers(0, 256, (3, 28, 28)).astype(np.uint8),
        "y_test": np.array([9, 0, 1], dtype=np.uint8),
    }


def idx_bytes(array: NDArray[np.generic], magic: int | None = None) -> bytes:
    head = [0x800 + array.ndim if magic is None else magic, *array.shape]
    return np.array(head, dtype=">u4").tobytes() + array.tobytes()


def write_idx(folder: Path, mark: str = "-", end: str = "") -> Path:
    folder.mkdir()
    for key, stem in (("train", "train"), ("test", "t10k")):
        for part, kind, rank in (("x", "images", 3), ("y", "labels", 1)):
            content = idx_bytes(arrays()[f"{part}_{key}"])
            name = f"{stem}-{kind}{mark}idx{rank}-ubyte{end}"
            (folder / name).write_bytes(gzip.compress(content) if end else content)
    return folder


def test_all_forms_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", **arrays())
    np.savez_compressed(tmp_path / "packed.npz", **arrays(), more=np.zeros(3))
    forms = [
        tmp_path,
        tmp_path / "mnist.npz",
        tmp_path / "packed.npz",
        write_idx(tmp_path / "plain"),
        write_idx(tmp_path / "gz", end=".gz"),
        write_idx(tmp_path / "dots", mark="."),
    ]
    for path in forms:
        images = read_mnist(path)
        for key, expected in arrays().items():
            np.testing.assert_array_equal(getattr(images, key), expected)
        assert images.y_train.dtype == np.int64
    assert len(source_files(forms[3])) == 4


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("x_train", np.zeros((7, 28, 28), dtype=np.float32), "x_train is float32"),
        ("x_test", np.zeros((3, 32, 32), dtype=np.uint8), "x_test is uint8(3, 32, 32)"),
        ("x_test", np.zeros((0, 28, 28), dtype=np.uint8), "n > 0"),
        ("y_train", np.zeros(6, dtype=np.uint8), "not 7 integers"),
        ("y_train", np.zeros(7), "y_train is float64"),
        ("y_test", np.array([1, 2, 26], dtype=np.uint8), "labels 1..26"),
    ],
)
def test_npz_with_wrong_content(tmp_path: Path, key: str, value: NDArray[np.generic], named: str) -> None:
    np.savez(tmp_path / "some.npz", **(arrays() | {key: value}))
    with pytest.raises(DataError) as caught:
        read_mnist(tmp_path / "some.npz")
    assert named in str(caught.value)
    assert "some.npz" in str(caught.value)


def test_npz_with_other_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(DataError, match="lacks x_train, y_train, x_test, y_test; it holds x, y"):
        read_mnist(tmp_path / "some.npz")


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    for content in (b"a text file\n" * 50, b"", whole[: len(whole) // 2], whole[:300] + b"?" * 300 + whole[600:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"some\.npz is no readable \.npz"):
            read_mnist(path)
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        read_mnist(path)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, **(arrays() | {"y_test": np.array([print, 1, 2], dtype=object)}))
    with pytest.raises(DataError, match=r"some\.npz"):
        read_mnist(path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("train-images-idx3-ubyte", idx_bytes(arrays()["x_train"], magic=0x801), "starts with 0x00000801"),
        ("train-images-idx3-ubyte", b"abc", "starts with 0x00616263"),
        ("train-images-idx3-ubyte", idx_bytes(arrays()["x_train"])[:-1], "5503 bytes"),
        ("t10k-labels-idx1-ubyte", idx_bytes(arrays()["x_test"]), "starts with 0x00000803"),
        ("t10k-labels-idx1-ubyte", idx_bytes(arrays()["y_train"]), "not 3 integers"),
    ],
)
def test_bad_idx_file_is_named(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    folder = write_idx(tmp_path / "idx")
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_mnist(folder)
    assert named in str(caught.value)
    assert name in str(caught.value)


def test_cut_off_gzip(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "idx", end=".gz")
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-20], whole[:5], b"no gzip at all", whole[:50] + b"?" * 100 + whole[150:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
            read_mnist(folder)


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither mnist\.npz nor train-images-idx3-ubyte"):
        read_mnist(tmp_path)


def test_digits_split_and_views() -> None:
    one, two, other = make_digits(1), make_digits(2, seed=1), make_digits(2, seed=2)
    assert one.x_train.shape == (1437, 28, 28)
    assert one.x_test.shape == (360, 28, 28)
    assert np.bincount(one.y_test).min() >= 34
    # the split, the test images and the first view depend on neither seed nor number of views
    for views in (two, other):
        np.testing.assert_array_equal(views.x_test, one.x_test)
        np.testing.assert_array_equal(views.x_train[:1437], one.x_train)
        np.testing.assert_array_equal(views.y_train, np.tile(one.y_train, 2))
    assert not np.array_equal(two.x_train[1437:], other.x_train[1437:])
    # a view is the same digit, a little moved: nearer to its own image than to another one
    flat = [part.reshape(1437, -1).astype(float) for part in (two.x_train[:1437], two.x_train[1437:])]
    own = np.linalg.norm(flat[0] - flat[1], axis=1)
    assert own.min() > 0
    assert np.median(own) < 0.8 * np.median(np.linalg.norm(flat[0] - np.roll(flat[1], 7, axis=0), axis=1))


def test_no_test_image_is_in_training() -> None:
    images = make_digits(1)
    train = {image.tobytes() for image in images.x_train}
    assert not any(image.tobytes() in train for image in images.x_test)


def test_digits_look_like_mnist() -> None:
    images = make_digits(1).x_test.astype(float)
    mass = images.sum(axis=(1, 2))
    for axis in (1, 2):
        profile = images.sum(axis=axis)
        centre = (profile * np.arange(28)).sum(axis=1) / mass
        assert np.abs(centre - 13.5).max() < 0.35
        inked = (profile > 0.05 * profile.max(axis=1, keepdims=True)).sum(axis=1)
        assert inked.max() <= 26
    assert 0.08 < images.mean() / 255 < 0.20


def test_digits_need_a_view() -> None:
    with pytest.raises(ConfigError, match="n_views is 0"):
        make_digits(0)
    assert source_hash() == source_hash()
