"""Reader of idx files, the format of MNIST and EMNIST: unsigned bytes in one or three dimensions, plain or .gz."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError

# two zero bytes, 8 = unsigned bytes, number of dimensions
_MAGIC = 0x00000800
# all images of EMNIST's largest split are 0.6 GB; the limit keeps a wrong or hostile header from filling the memory
_MAX_BYTES = 2**30


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """Read an array of `rank` dimensions.

    Raises:
        DataError: the file cannot be read, holds something else, is cut off, goes on after its array, or promises more
            than 1 GiB.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            header = stream.read(4 + 4 * rank)
            shape = _shape(path, header, rank)
            # one byte more shows a file that goes on, and lets gzip compare its checksum where it does not
            content = stream.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error})", fix="fetch the file again; it may be cut off"
        ) from error
    if len(content) != math.prod(shape):
        n_bytes = len(header) + len(content)
        raise DataError(
            f"{path} has {n_bytes} bytes{' or more' if len(content) > math.prod(shape) else ''}, its header {shape} "
            f"asks for {len(header) + math.prod(shape)}",
            fix="fetch the file again; it is cut off or damaged",
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _shape(path: Path, header: bytes, rank: int) -> tuple[int, ...]:
    found = int.from_bytes(header[:4], "big")
    if len(header) < 4 + 4 * rank or found != _MAGIC + rank:
        raise DataError(
            f"{path} starts with 0x{found:08x}, not with 0x{_MAGIC + rank:08x} as idx files of {rank} dimensions do",
            fix="give the file under its own name; fetch it again if it is damaged",
        )
    shape = tuple(int(n) for n in np.frombuffer(header[4:], dtype=">u4"))
    if math.prod(shape) > _MAX_BYTES:
        raise DataError(
            f"{path}: its header {shape} asks for {math.prod(shape)} bytes, at most {_MAX_BYTES} are read",
            fix="fetch the file again if it is damaged; give a smaller file",
        )
    return shape
