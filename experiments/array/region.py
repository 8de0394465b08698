"""Which cells: `all`, `ROWS,COLS` with slices as in Python, a mask file, or the healthy cells of a fault map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hil.errors import ConfigError, DataError, LimitError
from hil.fault_map import FaultMap


def region_mask(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells of a region such as `all`, `3,7`, `0:64,0:512`, `::2,:`.

    Raises:
        ConfigError: not a region.
        LimitError: outside the array, or without a cell.
    """
    mask = np.zeros(shape, np.bool_)
    if text.strip() == "all":
        mask[:] = True
        return mask
    parts = text.split(",")
    if len(parts) != 2:
        raise ConfigError(f"region {text!r} is not of the form ROWS,COLS", fix="write all, 3,7 or 0:64,0:512")
    rows, cols = (
        _lines(part, name, size, text) for part, name, size in zip(parts, ("rows", "columns"), shape, strict=True)
    )
    mask[np.ix_(rows, cols)] = True
    if not mask.any():
        raise LimitError(f"region {text!r} has no cell", fix=f"the array has {shape[0]} rows x {shape[1]} columns")
    return mask


def _lines(part: str, name: str, size: int, text: str) -> NDArray[np.intp]:
    try:
        numbers = [int(number) if number.strip() else None for number in part.split(":")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or numbers == [None] or numbers[2:] == [0]:
        raise ConfigError(
            f"{name} {part!r} of region {text!r} are not a number or a slice", fix="write 3, 0:64 or 0:64:2"
        )
    # Python cuts a slice that goes over the end; here it is a slip that would leave cells out without a word.
    ends = [number for number in numbers[:2] if number is not None]
    over = [n for k, n in enumerate(ends) if not -size <= n <= (size - 1 if len(numbers) == 1 else size)]
    if over:
        raise LimitError(
            f"region {text!r}: {name} {part} are outside the array, which has {size} {name}",
            fix=f"use {name} from 0 to {size - 1}",
        )
    if len(numbers) == 1:
        return np.array([numbers[0]])
    return np.arange(size)[slice(*numbers)]


def file_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells of a mask file: a bool array (.npy), or the healthy cells of a fault map.

    Raises:
        DataError: not such a file.
        LimitError: of another array.
    """
    mask = load_array(path, "mask") if path.suffix == ".npy" else FaultMap.load(path).healthy
    if mask.dtype != np.bool_:
        raise DataError(f"mask {path} holds {mask.dtype}", fix="save a bool array with numpy.save")
    if mask.shape != shape:
        raise LimitError(f"mask {path} has shape {mask.shape}, the array {shape}", fix="take a mask of this array")
    if not mask.any():
        raise LimitError(f"mask {path} has no cell", fix="choose at least one cell")
    return mask


def target_map(path: Path, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Target conductances of a .npy file, shape of the array or of the rectangle that the mask is; NaN elsewhere.

    Raises:
        DataError: not such a file.
        LimitError: of another shape.
    """
    found = load_array(path, "target")
    if found.dtype.kind not in "fiu":
        raise DataError(f"target {path} holds {found.dtype}", fix="save conductances in siemens with numpy.save")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        found = found.astype(np.float32)
    if np.isinf(found).any():
        raise DataError(f"target {path} holds infinite conductances", fix="give siemens; NaN leaves a cell alone")
    target_s = np.full(mask.shape, np.nan, np.float32)
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if found.shape == mask.shape:
        target_s[mask] = found[mask]
    elif found.shape == (len(rows), len(cols)) and mask[np.ix_(rows, cols)].all():
        target_s[np.ix_(rows, cols)] = found
    else:
        raise LimitError(
            f"target {path} has shape {found.shape}, the array {mask.shape} and the region {(len(rows), len(cols))}",
            fix="give one conductance per cell of the array, or of a rectangular region",
        )
    return target_s


def load_array(path: Path, what: str) -> NDArray[Any]:
    """Array of a .npy file.

    Raises:
        DataError: not such a file; `what` names it.
    """
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise DataError(f"{what} {path} cannot be read: {reason}", fix="save an array with numpy.save") from error
