"""Reader of spoken digits as wav files, in the layout of the Free Spoken Digit Dataset (FSDD).

Layout: `recordings/<digit>_<speaker>_<take>.wav`, 16-bit mono, in a folder or inside a .tar or .tar.gz archive. As its
authors split it, takes 0 to 4 of every speaker and digit are for testing and the others for training; so the same
speakers are in both.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import wave
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.cochlea import RATES_HZ, Cochlea
from experiments.datasets.utterances import Utterance, Utterances
from hil.errors import DataError
from hil.progress import Progress, no_progress

#: name of the archive that is looked for in a folder
ARCHIVE_NAME = "fsdd_wav.tar.gz"
#: takes below this number are for testing
N_TEST_TAKES = 5
#: what `--data` must name
LAYOUT = (
    "a folder or a .tar(.gz) archive with recordings/<digit>_<speaker>_<take>.wav (mono, 16 bit), or a folder with "
    f"{ARCHIVE_NAME}"
)
SOURCE = "recordings of spoken digits (layout of the Free Spoken Digit Dataset) through a simulated cochlea"

_FOLDER = "recordings"
_NAME = re.compile(r"([0-9])_([A-Za-z0-9-]+)_([0-9]{1,6})\.wav")
# all of FSDD is 3000 recordings and about 30 MB; the limits keep a wrong file from filling the memory
_MAX_ARCHIVE_BYTES = 2**30
_MAX_S = 30.0
# 16-bit samples of the longest recording at the highest rate, and the chunks around them
_MAX_FILE_BYTES = round(2 * _MAX_S * RATES_HZ[1]) + 2**16
_PROGRESS_EVERY = 50


def source_file(path: Path) -> Path:
    """Return the archive that `path` means, or the folder that holds the recordings themselves.

    Raises:
        DataError: the folder holds neither.
    """
    if not path.is_dir():
        return path
    if (path / _FOLDER).is_dir():
        return path / _FOLDER
    if (path / ARCHIVE_NAME).is_file():
        return path / ARCHIVE_NAME
    if any(path.glob("*.wav")):
        return path
    raise DataError(f"{path} holds no {_FOLDER}/, no {ARCHIVE_NAME} and no .wav files", fix=f"give {LAYOUT}")


def source_files(path: Path) -> list[Path]:
    """Return the files that hold the recordings at `path`, in a fixed order.

    Raises:
        DataError: as `source_file`.
    """
    source = source_file(path)
    return sorted(source.glob("*.wav")) if source.is_dir() else [source]


def read_spoken_digits(path: Path, cochlea: Cochlea, *, progress: Progress = no_progress) -> Utterances:
    """Read all recordings at `path` and let the cochlea hear them.

    Samples are ordered by take, then digit, then speaker, so that classes and speakers are mixed.

    Raises:
        DataError: a split is missing, a name does not fit, a file is broken or of another kind; the message names it.
    """
    source = source_file(path)
    found: dict[tuple[int, int, str], tuple[str, bytes]] = {}
    for name, content in _from_folder(source) if source.is_dir() else _from_archive(source):
        fits = _NAME.fullmatch(PurePosixPath(name).name)
        if fits is None:
            raise DataError(
                f"{source}: {name} is not named <digit>_<speaker>_<take>.wav, such as 7_jackson_32.wav",
                fix="take it out or rename it; label and speaker are read from the name",
            )
        key = (int(fits[3]), int(fits[1]), fits[2])
        if key in found:
            raise DataError(
                f"{source}: {name} and {found[key][0]} are the same take of the same digit by the same speaker",
                fix="take one out",
            )
        found[key] = (name, content)
    for split, is_there in (
        ("test", any(take < N_TEST_TAKES for take, _, _ in found)),
        ("training", any(take >= N_TEST_TAKES for take, _, _ in found)),
    ):
        if not is_there:
            raise DataError(
                f"{source} holds no {split} recordings: takes 0 to {N_TEST_TAKES - 1} are for testing, the others for "
                "training",
                fix=f"give {LAYOUT}",
            )
    names = tuple(sorted({speaker for _, _, speaker in found}))
    samples: list[Utterance] = []
    for number, (take, digit, speaker) in enumerate(sorted(found)):
        if number % _PROGRESS_EVERY == 0:
            progress("hearing spoken digits", number, len(found))
        name, content = found[take, digit, speaker]
        rate_hz, samples_of = read_wav(content, f"{source}: {name}")
        try:
            events = cochlea.hear(samples_of, rate_hz)
        except DataError as error:
            raise DataError(f"{source}: {name}: {error.what}", fix=error.fix) from error
        samples.append(Utterance(events, digit, names.index(speaker), is_test=take < N_TEST_TAKES))
    progress("hearing spoken digits", len(found), len(found))
    return Utterances(samples, names)


def read_wav(content: bytes, name: str) -> tuple[int, NDArray[np.float64]]:
    """Read a recording.

    Args:
        content: bytes of a wav file.
        name: file name for the error message.

    Returns:
        Sample rate in hertz, and float64 of shape (n_samples,), -1..1.

    Raises:
        DataError: it is no wav file, not mono, not of 16 bits, empty, cut off, or longer than 30 s.
    """
    try:
        with wave.open(io.BytesIO(content)) as reader:
            n_channels, width, rate_hz, n_samples, *_ = reader.getparams()
            data = reader.readframes(n_samples)
    except (wave.Error, EOFError, ValueError) as error:
        raise DataError(
            f"{name} is no readable PCM wav file ({str(error) or 'it ends early'})", fix=f"give {LAYOUT}"
        ) from error
    for is_wrong, what in (
        (n_channels != 1, f"has {n_channels} channels, not 1"),
        (width != 2, f"has {8 * width} bits a sample, not 16"),
        (n_samples == 0, "holds no samples"),
        (rate_hz <= 0 or n_samples > _MAX_S * rate_hz, f"lasts longer than {_MAX_S:g} s"),
        (len(data) != 2 * n_samples, f"is cut off: {len(data) // 2} of {n_samples} samples are there"),
    ):
        if is_wrong:
            raise DataError(f"{name} {what}", fix="convert it to 16-bit mono, or fetch it again")
    return rate_hz, np.frombuffer(data, dtype="<i2") / 32768.0


def _from_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.iterdir()):
        # hidden files are left-overs of file managers
        if file.name.startswith(".") or not file.is_file():
            continue
        try:
            if file.stat().st_size > _MAX_FILE_BYTES:
                raise _too_large(f"{file}", file.stat().st_size)
            content = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}", fix="check the file and its permissions") from error
        yield file.name, content


def _from_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(_unpacked(path)), mode="r:") as archive:
        try:
            for member in archive:
                place = PurePosixPath(member.name)
                if place.is_absolute() or ".." in place.parts:
                    raise DataError(f"{path}: {member.name} points outside the archive", fix="pack the archive again")
                if _FOLDER not in place.parts[:-1] or place.name.startswith(".") or member.isdir():
                    continue
                if member.issparse():
                    # its size costs no bytes in the archive
                    raise DataError(
                        f"{path}: {member.name} is a sparse file, not a recording",
                        fix="pack the archive again without --sparse",
                    )
                if member.size > _MAX_FILE_BYTES:
                    raise _too_large(f"{path}: {member.name}", member.size)
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None:
                    raise DataError(
                        f"{path}: {member.name} is a link or a special file, not a recording",
                        fix="pack the archive again with the files themselves",
                    )
                yield member.name, stream.read()
        except tarfile.TarError as error:
            raise _broken(path, error) from error


def _unpacked(path: Path) -> bytes:
    """The whole archive: gzip compares its checksum at the end only, and tarfile takes a cut-off one for complete."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(_MAX_ARCHIVE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(path, error) from error
    if len(content) > _MAX_ARCHIVE_BYTES:
        raise DataError(f"{path} unpacks to more than {_MAX_ARCHIVE_BYTES} bytes", fix=f"give {LAYOUT}")
    try:
        tarfile.open(fileobj=io.BytesIO(content), mode="r:").close()
    except tarfile.TarError as error:
        raise _broken(path, error) from error
    if content[-tarfile.BLOCKSIZE :].strip(b"\0"):
        raise _broken(path, tarfile.ReadError("the end mark is missing"))
    return content


def _too_large(name: str, n_bytes: int) -> DataError:
    return DataError(
        f"{name} has {n_bytes} bytes, a recording of {_MAX_S:g} s has at most {_MAX_FILE_BYTES}",
        fix="take it out, or convert it to 16-bit mono and cut it to the digit",
    )


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be read as a tar archive ({type(error).__name__}: {error})",
        fix=f"give {LAYOUT}; fetch a cut-off archive again",
    )
