"""Arrays out of `.npz` files, with the file, what is expected and what was found in every error."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError


def read_arrays(path: str | Path, names: tuple[str, ...], *, optional: bool = False) -> dict[str, NDArray[np.float64]]:
    """Finite one-dimensional arrays of equal length, in the order of `names`.

    Args:
        optional: return nothing, instead of an error, if the file lacks one of them.

    Raises:
        DataError: the file is missing or no `.npz`, lacks an array, or an array is of another kind.
    """
    arrays = read_any(path, names, optional=optional)
    lengths = {name: array.shape for name, array in arrays.items()}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
        raise DataError(
            f"{path}: arrays {', '.join(names)} should be columns of equal length, but have shapes "
            f"{', '.join(str(shape) for shape in lengths.values())}",
            fix="give one entry per read in each",
        )
    return arrays


def read_any(path: str | Path, names: tuple[str, ...], *, optional: bool = False) -> dict[str, NDArray[np.float64]]:
    """As `read_arrays`, of any shape."""
    expected = f"a NumPy .npz with the arrays {', '.join(names)}"
    try:
        # numpy leaves a file open that it opens itself and finds damaged
        with Path(path).open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single NumPy array", fix=f"give {expected}")
            missing = [name for name in names if name not in file.files]
            if missing and optional:
                return {}
            if missing:
                raise DataError(
                    f"{path} has no array {missing[0]!r}, only {', '.join(file.files) or 'none'}",
                    fix=f"give {expected}",
                )
            arrays = {name: file[name] for name in names}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no intact .npz"
        raise DataError(f"{path} cannot be read: {reason}", fix=f"give {expected}") from None
    return {name: _finite(path, name, array) for name, array in arrays.items()}


def _finite(path: str | Path, name: str, array: NDArray[np.generic]) -> NDArray[np.float64]:
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise DataError(
            f"{path}: array {name!r} has {array.size} entries of type {array.dtype}", fix="give numbers, at least one"
        )
    values = array.astype(np.float64)
    n_bad = np.count_nonzero(~np.isfinite(values))
    if n_bad:
        raise DataError(
            f"{path}: {n_bad} of {values.size} entries of {name!r} are not finite", fix="leave such reads out"
        )
    return values
