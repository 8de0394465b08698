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


def read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """Read an array of `rank` dimensions.

    Raises:
        DataError: the file cannot be read, holds something else or is cut off.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {error})", fix="fetch the file again; it may be cut off"
        ) from error
    header, found = 4 + 4 * rank, int.from_bytes(content[:4], "big")
    if len(content) < header or found != _MAGIC + rank:
        raise DataError(
            f"{path} starts with 0x{found:08x}, not with 0x{_MAGIC + rank:08x} as idx files of {rank} dimensions do",
            fix="give the file under its own name; fetch it again if it is damaged",
        )
    shape = tuple(int(n) for n in np.frombuffer(content[4:header], dtype=">u4"))
    if len(content) != header + math.prod(shape):
        raise DataError(
            f"{path} has {len(content)} bytes, its header {shape} asks for {header + math.prod(shape)}",
            fix="fetch the file again; it is cut off or damaged",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
