"""Reader of MNIST images: `mnist.npz`, or a folder of idx files."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError

IMAGE_PX = 28
N_CLASSES = 10
#: what `--data` must name
LAYOUT = "mnist.npz (x_train, y_train, x_test, y_test), or a folder with mnist.npz or the four idx files of MNIST"

_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_IDX_STEMS = {
    "x_train": "train-images",
    "y_train": "train-labels",
    "x_test": "t10k-images",
    "y_test": "t10k-labels",
}
# magic number of an idx file: two zero bytes, 8 = unsigned bytes, number of dimensions
_IMAGES_MAGIC, _LABELS_MAGIC = 0x00000803, 0x00000801


@dataclass(frozen=True)
class LabelledImages:
    """Images with labels, split into training and test.

    Attributes:
        x_train, x_test: uint8, shape (n, 28, 28), 0 = background.
        y_train, y_test: int64, shape (n,), 0..9.
    """

    x_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]


def source_files(path: Path) -> list[Path]:
    """Return the files that hold the images at `path`, in a fixed order.

    Raises:
        DataError: `path` is a folder without mnist.npz and without one of the idx files.
    """
    if not path.is_dir():
        return [path]
    if (path / "mnist.npz").is_file():
        return [path / "mnist.npz"]
    return [_idx_file(path, key) for key in _NPZ_KEYS]


def read_mnist(path: Path) -> LabelledImages:
    """Read the images.

    Args:
        path: an .npz file with x_train, y_train, x_test, y_test, or a folder with mnist.npz or with
            train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each plain
            or .gz, with '-' or '.' before 'idx'.

    Raises:
        DataError: a file is missing, cut off or of another kind; the message names it and what is wrong.
    """
    files = source_files(path)
    if len(files) == 1:
        arrays = _read_npz(files[0])
        names = {key: f"{files[0]}: {key}" for key in _NPZ_KEYS}
    else:
        arrays = {key: _read_idx(file, key) for key, file in zip(_NPZ_KEYS, files, strict=True)}
        names = {key: str(file) for key, file in zip(_NPZ_KEYS, files, strict=True)}
    checked: dict[str, NDArray[np.int64]] = {}
    for split in ("train", "test"):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        x_name, y_name = names[f"x_{split}"], names[f"y_{split}"]
        if x.dtype != np.uint8 or x.shape[1:] != (IMAGE_PX, IMAGE_PX) or not len(x):
            raise DataError(
                f"{x_name} is {x.dtype}{x.shape}, not uint8 (n, {IMAGE_PX}, {IMAGE_PX}) with n > 0",
                fix=f"give {LAYOUT}",
            )
        if not np.issubdtype(y.dtype, np.integer) or y.shape != x.shape[:1]:
            raise DataError(
                f"{y_name} is {y.dtype}{y.shape}, not {len(x)} integers, one per image", fix=f"give {LAYOUT}"
            )
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= N_CLASSES:
            raise DataError(
                f"{y_name} holds labels {low}..{high}, allowed are 0..{N_CLASSES - 1}",
                fix="give the digits; letters (EMNIST) are not read here",
            )
        checked[split] = y.astype(np.int64)
    return LabelledImages(arrays["x_train"], checked["train"], arrays["x_test"], checked["test"])


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an .npz archive", fix=f"give {LAYOUT}")
            missing = [key for key in _NPZ_KEYS if key not in archive.files]
            if missing:
                raise DataError(
                    f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive.files) or 'nothing'}",
                    fix=f"give {LAYOUT}",
                )
            return {key: archive[key] for key in _NPZ_KEYS}
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        # NumPy takes any unknown file for a pickle, which would be a misleading thing to tell
        raise DataError(f"{path} is no readable .npz file ({type(error).__name__})", fix=f"give {LAYOUT}") from error


def _idx_file(folder: Path, key: str) -> Path:
    rank = 3 if key.startswith("x") else 1
    stem = _IDX_STEMS[key]
    names = [f"{stem}{mark}idx{rank}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds neither mnist.npz nor {names[0]}(.gz)", fix=f"give {LAYOUT}")


def _read_idx(path: Path, key: str) -> NDArray[Any]:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error})", fix="fetch the file again; it may be cut off"
        ) from error
    is_images = key.startswith("x")
    magic, header = (_IMAGES_MAGIC, 16) if is_images else (_LABELS_MAGIC, 8)
    found = int.from_bytes(content[:4], "big")
    if len(content) < header or found != magic:
        raise DataError(
            f"{path} starts with 0x{found:08x}, not with 0x{magic:08x} as idx {'images' if is_images else 'labels'} do",
            fix=f"give {LAYOUT}",
        )
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], dtype=">u4"))
    n_bytes = 1
    for n in shape:
        n_bytes *= n
    if len(content) != header + n_bytes:
        raise DataError(
            f"{path} has {len(content)} bytes, its header {shape} asks for {header + n_bytes}",
            fix="fetch the file again; it is cut off or damaged",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
