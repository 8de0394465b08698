"""Reader of real images of letters: EMNIST's idx files, .npz packs, or a folder of both."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.idx import read_idx
from experiments.datasets.letter_drawing import IMAGE_PX
from experiments.datasets.letter_shapes import N_LETTERS
from hil.errors import DataError

#: what the path must name
LAYOUT = (
    "emnist-letters[-train|-test|-...]-images-idx3-ubyte with -labels-idx1-ubyte (plain or .gz), an .npz pack with x "
    "(n, 28, 28) uint8 and y 1..26, or a folder with such files (packs there have 'letters' in their name)"
)
Transposed = Literal["auto", "true", "false"]

_IDX = re.compile(r"emnist-letters(?:-(?P<tag>.+))?-(?:images-idx3|labels-idx1)-ubyte(?P<gz>\.gz)?")
#: packs without writers whose images are upright all the same
_UPRIGHT_STEMS = ("letters_AZ_55writers",)


@dataclass(frozen=True)
class LetterPack:
    """Images of one file, upright.

    Attributes:
        file: name of the file.
        part: "train" or "test" where the file is that part of EMNIST, else "".
        x: uint8, shape (n, 28, 28), 0 = paper.
        y: int64, shape (n,), 0 = A .. 25 = Z.
        writer: int64, shape (n,): who wrote the image, in this file's numbers; None where the file does not say.
    """

    file: str
    part: str
    x: NDArray[np.uint8]
    y: NDArray[np.int64]
    writer: NDArray[np.int64] | None = None

    def taken(self, index: NDArray[Any]) -> LetterPack:
        """The images at `index`."""
        writer = None if self.writer is None else self.writer[index]
        return replace(self, x=self.x[index], y=self.y[index], writer=writer)


def source_files(path: Path) -> list[Path]:
    """The files that hold letters at `path`, a label file after its images, in a fixed order.

    Raises:
        DataError: there are none, or images without labels.
    """
    if not path.is_dir():
        return _with_partner(path) if _IDX.fullmatch(path.name) else [path]
    found: list[Path] = []
    for file in sorted(path.iterdir()):
        if _IDX.fullmatch(file.name):
            found += [part for part in _with_partner(file) if part not in found]
        elif file.suffix == ".npz" and "letters" in file.stem:
            found.append(file)
    if not found:
        raise DataError(f"{path} holds no images of letters", fix=f"give {LAYOUT}")
    return found


def read_letters(path: Path, transposed: Transposed = "auto") -> list[LetterPack]:
    """Read all images at `path`; an image that an earlier file holds, too, is left out.

    So is one that its own file repeats, unless the file says by part or by writer what is held out: where that is drawn
    image by image, one copy could be in training and the other held out.

    EMNIST's test part is read first, then its training part, then all else: an image that two files hold is then
    never in training in one of them and held out in the other.

    Args:
        path: see `LAYOUT`.
        transposed: whether the images are stored with x and y exchanged: "true", "false", or "auto": in idx files they
            are, as in EMNIST (Cohen, Afshar, Tapson, van Schaik 2017, doi:10.1109/IJCNN.2017.7966217); in packs they
            are, too, unless the pack names writers or is called letters_AZ_55writers.

    Raises:
        DataError: a file is missing, cut off or of another kind; the message names it.
    """
    files = source_files(path)
    packs = [_read_npz(file, transposed) for file in files if not _IDX.fullmatch(file.name)]
    pairs = [file for file in files if _IDX.fullmatch(file.name)]
    packs += [_read_pair(*pair, transposed) for pair in zip(pairs[::2], pairs[1::2], strict=True)]
    order = {"test": 0, "train": 1, "": 2}
    return _without_repeats(sorted(packs, key=lambda pack: (order[pack.part], pack.writer is None, pack.file)))


def _without_repeats(packs: Sequence[LetterPack]) -> list[LetterPack]:
    seen: set[bytes] = set()
    kept: list[LetterPack] = []
    for pack in packs:
        marks = _marks(pack)
        new = np.array([mark not in seen for mark in marks])
        seen.update(marks)  # not earlier: what a file repeats in itself is another matter
        if new.any():
            kept.append(pack.taken(new))
    official = {"train", "test"} <= {pack.part for pack in kept}
    return [pack if (official and pack.part) or pack.writer is not None else _each_once(pack) for pack in kept]


def _each_once(pack: LetterPack) -> LetterPack:
    first: dict[bytes, int] = {}
    for index, mark in enumerate(_marks(pack)):
        first.setdefault(mark, index)
    return pack.taken(np.array(list(first.values())))


def _marks(pack: LetterPack) -> list[bytes]:
    """A number of each image, equal for equal images only."""
    return [blake2b(image.tobytes(), digest_size=16).digest() for image in pack.x]


def _with_partner(path: Path) -> list[Path]:
    """Image file and label file, of which `path` is one; either may be packed."""
    bare = path.name.removesuffix(".gz")
    both: list[Path] = []
    for kind, rank in (("images", 3), ("labels", 1)):
        name = re.sub(r"(images-idx3|labels-idx1)-ubyte$", f"{kind}-idx{rank}-ubyte", bare)
        files = [path.parent / f"{name}{end}" for end in ("", ".gz")]
        there = [file for file in files if file.is_file()]
        if not there:
            raise DataError(f"{path.parent} holds {path.name}, but no {name}(.gz)", fix="put both files there")
        both.append(there[0])
    return both


def _read_pair(images: Path, labels: Path, transposed: Transposed) -> LetterPack:
    match = _IDX.fullmatch(images.name)
    tag = (match["tag"] if match else "") or ""
    part = tag if tag in ("train", "test") else ""
    x, y = read_idx(images, 3), read_idx(labels, 1)
    return _checked(LetterPack(images.name, part, x, y.astype(np.int64)), images, labels, transposed != "false")


def _read_npz(path: Path, transposed: Transposed) -> LetterPack:
    try:
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an .npz archive", fix=f"give {LAYOUT}")
            arrays = {key: archive[key] for key in ("x", "y", "writer") if key in archive.files}
            missing = [key for key in ("x", "y") if key not in arrays]
            if missing:
                raise DataError(
                    f"{path} lacks {' and '.join(missing)}; it holds {', '.join(archive.files) or 'nothing'}",
                    fix=f"give {LAYOUT}",
                )
    except (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        # NumPy takes any unknown file for a pickle, which would be a misleading thing to tell
        raise DataError(f"{path} is no readable .npz file ({type(error).__name__})", fix=f"give {LAYOUT}") from error
    for key, array in arrays.items():
        if key != "x" and (array.ndim != 1 or not np.issubdtype(array.dtype, np.integer)):
            raise DataError(f"{path}: {key} is {array.dtype}{array.shape}, not integers (n,)", fix=f"give {LAYOUT}")
    writer = arrays["writer"].astype(np.int64) if "writer" in arrays else None
    turned = transposed == "true" or (transposed == "auto" and writer is None and path.stem not in _UPRIGHT_STEMS)
    return _checked(LetterPack(path.name, "", arrays["x"], arrays["y"].astype(np.int64), writer), path, path, turned)


def _checked(pack: LetterPack, x_file: Path, y_file: Path, transposed: bool) -> LetterPack:
    """The pack with upright images and labels from 0."""
    x, y = pack.x, pack.y
    if x.dtype != np.uint8 or x.shape[1:] != (IMAGE_PX, IMAGE_PX) or not len(x):
        raise DataError(
            f"{x_file}: the images are {x.dtype}{x.shape}, not uint8 (n, {IMAGE_PX}, {IMAGE_PX}) with n > 0",
            fix=f"give {LAYOUT}",
        )
    for what, numbers in (("labels", y), ("writers", pack.writer)):
        if numbers is not None and len(numbers) != len(x):
            raise DataError(f"{y_file} holds {len(numbers)} {what} for {len(x)} images", fix=f"give {LAYOUT}")
    if y.min() < 1 or y.max() > N_LETTERS:
        raise DataError(
            f"{y_file}: the labels span {y.min()}..{y.max()}, letters are 1..{N_LETTERS}",
            fix="give letters; digits (MNIST) and EMNIST's other splits are not read here",
        )
    return replace(pack, x=np.ascontiguousarray(x.swapaxes(1, 2)) if transposed else x, y=y - 1)
