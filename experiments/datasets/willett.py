"""Reader of the recordings of Willett et al. 2021: attempted handwriting of single letters, `singleLetters.mat`."""

from __future__ import annotations

import string
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from experiments.datasets.cortex import N_BINS, N_CHANNELS
from hil.errors import DataError

FILE = "singleLetters.mat"
#: what the path must name
LAYOUT = f"{FILE} of doi:10.5061/dryad.wh70rxwmv (MATLAB 5 or 7.3), or the folder that holds it"

# the recordings have 27; the limit keeps a wrong file from filling the memory
_MAX_TRIALS = 100
_ARRAYS = tuple(f"neuralActivityCube_{letter}" for letter in string.ascii_lowercase)


def source_file(path: Path) -> Path:
    """The file at `path`.

    Raises:
        DataError: `path` is a folder without it.
    """
    if not path.is_dir():
        return path
    if not (path / FILE).is_file():
        raise DataError(f"{path} holds no {FILE}", fix=f"give {LAYOUT}")
    return path / FILE


def read_trials(path: Path) -> NDArray[np.bool_]:
    """Read the trials of all 26 letters, counts clamped at 1.

    Args:
        path: the file. Of its arrays, neuralActivityCube_a .. _z are read: threshold crossings, shape (27 trials, 201
            bins of 10 ms, 192 electrodes).

    Returns:
        bool, shape (26, n_trials, 201, 192): whether a threshold crossing falls into the bin.

    Raises:
        DataError: the file is of another kind or damaged, an array is missing, of another shape or too large.
    """
    from scipy.io.matlab import MatReadError

    try:
        arrays = _from_hdf5(path) if h5py.is_hdf5(path) else _from_matlab5(path)
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, NotImplementedError, MemoryError,
            MatReadError, zlib.error) as error:  # fmt: skip
        raise DataError(f"{path} is no readable MATLAB file ({type(error).__name__})", fix=f"give {LAYOUT}") from error
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}", fix=f"give {LAYOUT}")
    for name in _ARRAYS:
        counts = arrays[name]
        # NaN is not >= 0 either
        if not np.issubdtype(counts.dtype, np.number) or not (counts >= 0).all():
            raise _no_counts(path, name)
    return np.stack([arrays[name] > 0 for name in _ARRAYS])


def _from_matlab5(path: Path) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat, whosmat

    with path.open("rb") as stream:
        _check_shapes(path, {name: tuple(shape) for name, shape, _ in whosmat(stream) if name in _ARRAYS})
        stream.seek(0)
        return loadmat(stream, variable_names=_ARRAYS)


def _from_hdf5(path: Path) -> dict[str, NDArray[Any]]:
    with h5py.File(path, "r") as file:
        found = {name: file[name] for name in _ARRAYS if name in file}
        for name, array in found.items():
            if not isinstance(array, h5py.Dataset) or not np.issubdtype(array.dtype, np.number):
                raise _no_counts(path, name)
        # MATLAB stores the first axis fastest, which HDF5 sees as the last
        _check_shapes(path, {name: tuple(array.shape or ())[::-1] for name, array in found.items()})
        return {name: array[()].T for name, array in found.items()}


def _check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Before anything is read: a small file can promise arrays of any size."""
    first = min(shapes, default="")
    for name, shape in sorted(shapes.items()):
        if shape[1:] != (N_BINS, N_CHANNELS) or not 2 <= shape[0] <= _MAX_TRIALS or shape != shapes[first]:
            raise DataError(
                f"{path}: {name} has shape {shape}, not (n, {N_BINS}, {N_CHANNELS}) with as many trials, "
                f"2..{_MAX_TRIALS}, as {first} has",
                fix=f"give {LAYOUT}",
            )


def _no_counts(path: Path, name: str) -> DataError:
    return DataError(f"{path}: {name} holds values that are no counts", fix=f"give {LAYOUT}")
