"""Reader of N-TIDIGITS: spoken digits and a silicon cochlea (Anumula et al. 2018, doi:10.3389/fnins.2018.00023).

Layout of n-tidigits.hdf5: `<split>_labels`, byte strings `gender-speaker-take-digits` with digits of "o", "z" and 1..9,
and the groups `<split>_timestamps/<label>` (seconds) and `<split>_addresses/<label>` (channel 0..63); split is train
or test. As published, no speaker is in both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.utterances import N_CHANNELS, OH, ChannelEvents, Utterance, Utterances
from hil.errors import DataError
from hil.progress import Progress, no_progress

#: name that is looked for in a folder
FILE_NAME = "n-tidigits.hdf5"
#: what `--data` must name
LAYOUT = f"{FILE_NAME}, or a folder that holds it"
SOURCE = "spoken digits recorded from people (TIDIGITS) with a silicon cochlea (N-TIDIGITS)"

_DIGITS = {"z": 0, **{str(digit): digit for digit in range(1, 10)}, "o": OH}
# utterances last a few seconds; a time far above is in another unit than seconds
_MAX_S = 60.0
# published are some 17,000 utterances of a few thousand events; a small file can promise arrays of any size
_MAX_LABELS, _MAX_LABEL_BYTES, _MAX_EVENTS = 100_000, 256, 1_000_000
_PROGRESS_EVERY = 200


def source_file(path: Path) -> Path:
    """Return the file that `path` means.

    Raises:
        DataError: the folder does not hold it.
    """
    if not path.is_dir():
        return path
    if not (path / FILE_NAME).is_file():
        raise DataError(f"{path} holds no {FILE_NAME}", fix=f"give {LAYOUT}")
    return path / FILE_NAME


def read_ntidigits(path: Path, *, progress: Progress = no_progress) -> Utterances:
    """Read the utterances of one digit, in the order of the file, training before test.

    Raises:
        DataError: the file is of another kind or damaged, a split has no single digits; the message names the file.
    """
    import h5py

    source = source_file(path)
    try:
        with h5py.File(source, "r") as file:
            return _read(file, source, progress)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source} is no readable N-TIDIGITS file ({type(error).__name__}: {error})", fix=f"give {LAYOUT}"
        ) from error


def _read(file: Any, source: Path, progress: Progress) -> Utterances:
    singles: list[tuple[str, str, str]] = []  # split, label, speaker
    for split in ("train", "test"):
        before = len(singles)
        for raw in _labels(file[f"{split}_labels"], f"{source}: {split}_labels").tolist():
            label = raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw)
            parts = label.split("-")
            if len(parts) != 4 or not parts[3] or set(parts[3]) - set(_DIGITS):
                raise DataError(
                    f"{source}: {split}_labels holds '{label}', not gender-speaker-take-digits (digits: o, z, 1..9)",
                    fix=f"give {LAYOUT}",
                )
            if len(parts[3]) == 1:
                singles.append((split, label, f"{parts[0]}-{parts[1]}"))
        if len(singles) == before:
            raise DataError(f"{source} holds no {split} utterances of one digit", fix=f"give {LAYOUT}")
    names = tuple(sorted({speaker for _, _, speaker in singles}))
    index = {name: number for number, name in enumerate(names)}
    samples: list[Utterance] = []
    for number, (split, label, speaker) in enumerate(singles):
        if number % _PROGRESS_EVERY == 0:
            progress("reading N-TIDIGITS", number, len(singles))
        times_s, addresses = (
            _numbers(file[f"{split}_{what}/{label}"], f"{source}: {split}_{what}/{label}")
            for what in ("timestamps", "addresses")
        )
        events = _events(times_s, addresses, f"{source}: {split} {label}")
        samples.append(Utterance(events, _DIGITS[label[-1]], index[speaker], is_test=split == "test"))
    progress("reading N-TIDIGITS", len(singles), len(singles))
    return Utterances(samples, names)


def _labels(dataset: Any, name: str) -> NDArray[Any]:
    import h5py

    dtype = getattr(dataset, "dtype", None)
    is_text = dtype is not None and h5py.check_string_dtype(dtype) is not None and dtype.itemsize <= _MAX_LABEL_BYTES
    return _whole(dataset, name, is_text, f"text of at most {_MAX_LABEL_BYTES} bytes", _MAX_LABELS)


def _numbers(dataset: Any, name: str) -> NDArray[Any]:
    dtype = getattr(dataset, "dtype", None)
    return _whole(dataset, name, dtype is not None and dtype.kind in "fiu", "real numbers", _MAX_EVENTS)


def _whole(dataset: Any, name: str, is_wanted: bool, wanted: str, at_most: int) -> NDArray[Any]:
    """All of an array of one dimension, if it is not absurd; looked at before anything is read."""
    shape = getattr(dataset, "shape", None)
    if not is_wanted or shape is None or len(shape) != 1 or shape[0] > at_most:
        kind = f"{dataset.dtype}{shape}" if hasattr(dataset, "dtype") else "a group"
        raise DataError(f"{name} is {kind}, not (n,) with n <= {at_most}, {wanted}", fix=f"give {LAYOUT}")
    return dataset[()]


def _events(times_s: Any, addresses: Any, name: str) -> ChannelEvents:
    times: NDArray[np.float64] = np.asarray(times_s, dtype=np.float64)
    channels = np.asarray(addresses)
    if times.ndim != 1 or times.shape != channels.shape or not len(times):
        raise DataError(f"{name} has times {times.shape} and addresses {channels.shape}", fix=f"give {LAYOUT}")
    for what, values, limit in (("times", times, _MAX_S), ("addresses", channels, N_CHANNELS - 1)):
        # written so that NaN is refused, too
        if not (values.min() >= 0 and values.max() <= limit):
            raise DataError(
                f"{name} has {what} {values.min()}..{values.max()}, allowed are 0..{limit:g}", fix=f"give {LAYOUT}"
            )
    return ChannelEvents(np.rint(times * 1e6).astype(np.int64), channels.astype(np.int64))
