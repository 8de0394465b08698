"""Reader of N-MNIST recordings in their original layout.

Layout: `Train/<digit>/<number>.bin` and `Test/<digit>/<number>.bin`, as a folder or inside a .tar or .tar.gz archive,
at its top or below leading folders. A record is 5 bytes, big-endian: x (8 bits), y (8 bits), polarity (1 bit), time in
microseconds (23 bits); Orchard et al. 2015, doi:10.3389/fnins.2015.00437.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.binning import DEFAULT_BIN_RULE, N_INPUTS, SENSOR_PX, BinRule, Events, bin_events
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from hil.errors import DataError
from hil.progress import Progress, no_progress

#: bytes of one event
RECORD_BYTES = 5
#: the largest time that a record can hold, in microseconds
MAX_TIME_US = (1 << 23) - 1
N_CLASSES = 10
#: what `--data` must name
LAYOUT = "a folder or a .tar(.gz) archive with Train/<digit>/*.bin and Test/<digit>/*.bin"
# real recordings hold below 10,000 events; the limit keeps a wrong file from filling the memory
_MAX_FILE_BYTES = 16 * 2**20
# below these numbers a result says more about the subset than about the network
_SMALL_TRAIN, _SMALL_TEST = 5000, 1000
_PROGRESS_EVERY = 500
_BROKEN_ARCHIVE = (tarfile.TarError, EOFError, OSError, zlib.error)


def decode_events(content: bytes, name: str) -> Events:
    """Decode the bytes of one recording.

    Args:
        content: 5 bytes per event.
        name: file name for the error message.

    Raises:
        DataError: the length is 0 or no multiple of 5, or a coordinate is outside the sensor.
    """
    if not content or len(content) % RECORD_BYTES:
        raise DataError(
            f"{name} has {len(content)} bytes, not a positive multiple of {RECORD_BYTES}",
            fix="fetch the file again; it is cut off or no N-MNIST recording",
        )
    octets = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD_BYTES).astype(np.int64)
    x, y = octets[:, 0], octets[:, 1]
    outside = np.flatnonzero((x >= SENSOR_PX) | (y >= SENSOR_PX))
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"{name}: event {first} is at x={x[first]}, y={y[first]}, the sensor ends at {SENSOR_PX - 1}",
            fix="use N-MNIST recordings (34 x 34 pixels, 5 bytes an event)",
        )
    t_us = (octets[:, 2] & 0x7F) << 16 | octets[:, 3] << 8 | octets[:, 4]
    return Events(x=x, y=y, on=octets[:, 2] >= 0x80, t_us=t_us)


def encode_events(events: Events) -> bytes:
    """Encode a recording as the content of a .bin file; the inverse of `decode_events`.

    Raises:
        DataError: a coordinate or a time does not fit the format.
    """
    for name, values, limit in (
        ("x", events.x, SENSOR_PX - 1),
        ("y", events.y, SENSOR_PX - 1),
        ("t_us", events.t_us, MAX_TIME_US),
    ):
        outside = np.flatnonzero((values < 0) | (values > limit))
        if len(outside):
            first = int(outside[0])
            raise DataError(
                f"event {first} has {name} = {values[first]}, allowed are 0..{limit}",
                fix="crop the recording to 34 x 34 pixels and 8.38 s",
            )
    octets = np.empty((len(events), RECORD_BYTES), dtype=np.uint8)
    octets[:, 0], octets[:, 1] = events.x, events.y
    octets[:, 2] = events.on.astype(np.int64) << 7 | events.t_us >> 16
    octets[:, 3], octets[:, 4] = events.t_us >> 8 & 0xFF, events.t_us & 0xFF
    return octets.tobytes()


def read_nmnist(path: Path, rule: BinRule = DEFAULT_BIN_RULE, *, progress: Progress = no_progress) -> SpikeDataset:
    """Read all recordings below `path` and bin them.

    Samples are ordered by file name, which is the MNIST order in the original files, so that the classes are mixed.
    An archive is read from front to back and never unpacked to disk.

    Args:
        path: a folder, or a .tar or .tar.gz file.
        rule: the bins.
        progress: told now and then; in an archive the total is not known, so it is one more than what is done.

    Raises:
        DataError: a split is missing, a label is not 0..9, a file is broken; the message names the file.
    """
    found: dict[str, list[tuple[str, int, NDArray[np.uint64]]]] = {"Train": [], "Test": []}
    recordings = _from_folder(path) if path.is_dir() else _from_archive(path)
    what = "reading N-MNIST recordings"
    done = 0
    for parts, content in recordings:
        split, label = _split_and_label(parts, path)
        events = decode_events(content, f"{path}: {'/'.join(parts)}")
        found[split].append((parts[-1], label, bin_events(events, rule)))
        done += 1
        if done % _PROGRESS_EVERY == 0:
            progress(what, done, done + 1)
    progress(what, done, done)
    for split, samples in found.items():
        if not samples:
            raise DataError(f"{path} holds no {split}/<digit>/*.bin", fix=f"give {LAYOUT}")
    sets: dict[str, SpikeSet] = {}
    for split, samples in found.items():
        # shorter names first, so that 2.bin comes before 10.bin where numbers are not padded
        samples.sort(key=lambda sample: (len(sample[0]), sample[0], sample[1]))
        words = np.stack([sample[2] for sample in samples])
        sets[split] = SpikeSet(words, np.array([sample[1] for sample in samples], dtype=np.int64))
    train, test = sets["Train"], sets["Test"]
    small = len(train) < _SMALL_TRAIN or len(test) < _SMALL_TEST
    return SpikeDataset(
        name="nmnist",
        train=train,
        test=test,
        n_inputs=N_INPUTS,
        n_steps=rule.n_steps,
        n_classes=N_CLASSES,
        synthetic=False,
        source="N-MNIST recordings made with a real event camera (Orchard et al. 2015)",
        note=f"small set: {len(train)} training and {len(test)} test recordings" if small else "",
    )


def _is_recording(parts: tuple[str, ...]) -> bool:
    # hidden files are left-overs of file managers, such as ._00001.bin
    return parts[-1].endswith(".bin") and not parts[-1].startswith(".") and ("Train" in parts or "Test" in parts)


def _split_and_label(parts: tuple[str, ...], path: Path) -> tuple[str, int]:
    place = "/".join(parts)
    # the last one counts, since a leading folder may be called Train, too
    at = max(i for i, part in enumerate(parts) if part in ("Train", "Test"))
    between = parts[at + 1 : -1]
    if len(between) != 1 or between[0] not in {str(digit) for digit in range(N_CLASSES)}:
        label = "/".join(between)
        raise DataError(
            f"{path}: {place} has the label folder '{label}', allowed are 0..{N_CLASSES - 1}", fix=f"give {LAYOUT}"
        )
    return parts[at], int(between[0])


def _from_folder(path: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    for file in sorted(path.rglob("*.bin")):
        parts = file.relative_to(path).parts
        if not _is_recording(parts):
            continue
        try:
            if file.stat().st_size > _MAX_FILE_BYTES:
                raise _too_large(f"{file}", file.stat().st_size)
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}", fix="check the file and its permissions") from error
        yield parts, content


def _from_archive(path: Path) -> Iterator[tuple[tuple[str, ...], bytes]]:
    last = "its start"
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            # gzip's own reader, since the one inside tarfile takes a cut-off stream for a complete one
            watched = _TailWatch(gzip.GzipFile(fileobj=raw) if packed else raw)
            # 'r|' reads once from front to back: no seeking in compressed data
            with tarfile.open(fileobj=watched, mode="r|") as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
                for member in archive:
                    parts = PurePosixPath(member.name).parts
                    last = member.name
                    if not parts or not _is_recording(parts) or member.isdir():
                        continue
                    if member.size > _MAX_FILE_BYTES:
                        raise _too_large(f"{path}: {member.name}", member.size)
                    stream = archive.extractfile(member) if member.isreg() else None
                    if stream is None:
                        raise DataError(
                            f"{path}: {member.name} is a link or a special file, not a recording",
                            fix="pack the archive again with the files themselves",
                        )
                    yield parts, stream.read()
            watched.drain()
            if watched.tail.strip(b"\0"):
                raise tarfile.ReadError("the end mark is missing")
    except _BROKEN_ARCHIVE as error:
        raise DataError(
            f"{path} cannot be read as a tar archive at {last} ({type(error).__name__}: {error})",
            fix=f"give {LAYOUT}; fetch a cut-off archive again; unpack Train.zip and Test.zip into one folder",
        ) from error


class _TailWatch:
    """Passes bytes on and keeps the last 512: tarfile takes an archive cut off at a header for a complete one."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream = stream
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.tail = (self.tail + content)[-tarfile.BLOCKSIZE :]
        return content

    def drain(self) -> None:
        """Read to the end, where gzip compares its checksum."""
        while self.read(1 << 20):
            pass


def _too_large(name: str, n_bytes: int) -> DataError:
    return DataError(
        f"{name} has {n_bytes} bytes, an N-MNIST recording has at most {_MAX_FILE_BYTES}",
        fix=f"give {LAYOUT}",
    )
