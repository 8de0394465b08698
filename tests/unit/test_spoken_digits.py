"""Reader of spoken digits as wav files."""

import gzip
import io
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.datasets import spoken_digits
from experiments.datasets.cochlea import Cochlea
from experiments.datasets.spoken_digits import read_spoken_digits, read_wav
from experiments.datasets.utterances import ChannelEvents
from hil.errors import DataError

REAL = Path(__file__).parents[3] / "shared" / "data" / spoken_digits.ARCHIVE_NAME


class Stub(Cochlea):
    """Hears one event, in the channel that the first sample names: fast, and tells which recording it was."""

    def hear(self, wave: NDArray[np.float64], rate_hz: int) -> ChannelEvents:
        return ChannelEvents(np.array([rate_hz]), np.array([round(wave[0] * 32768) % 64]))


def wav(first: int = 1, *, rate_hz: int = 8000, channels: int = 1, width: int = 2, n: int = 80) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as writer:
        writer.setparams((channels, width, rate_hz, n, "NONE", ""))
        writer.writeframes((first.to_bytes(width, "little") + bytes(width * channels * n))[: n * width * channels])
    return stream.getvalue()


def recordings() -> dict[str, bytes]:
    names = [f"{d}_{s}_{t}.wav" for d in (0, 7) for s in ("theo", "ann") for t in (0, 4, 5, 12)]
    return {name: wav(number + 1) for number, name in enumerate(names)}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(path: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as out:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        for info in extra or []:
            out.addfile(info)
    return path


def test_name_says_label_speaker_and_split(tmp_path: Path) -> None:
    found = read_spoken_digits(folder(tmp_path / "recordings", recordings()), Stub())
    assert found.speaker_names == ("ann", "theo")
    told = [(s.label, found.speaker_names[s.speaker], s.is_test, int(s.events.channel[0])) for s in found.samples]
    # by take, then digit, then speaker; the channel is the number in which the file was made
    assert told[:4] == [(0, "ann", True, 5), (0, "theo", True, 1), (7, "ann", True, 13), (7, "theo", True, 9)]
    assert [row[2] for row in told] == [True] * 8 + [False] * 8


def test_every_layout_gives_the_same(tmp_path: Path) -> None:
    files = recordings()
    places = [
        folder(tmp_path / "a" / "recordings", files).parent,
        folder(tmp_path / "b", files),
        archive(tmp_path / "some.tar.gz", {f"recordings/{name}": content for name, content in files.items()}),
        archive(tmp_path / "some.tar", {f"./top/recordings/{name}": content for name, content in files.items()}),
    ]
    archive(folder(tmp_path / "c", {"readme.txt": b""}) / spoken_digits.ARCHIVE_NAME,
            {f"recordings/{name}": content for name, content in files.items()})  # fmt: skip
    places.append(tmp_path / "c")
    told = [
        [(s.label, s.speaker, s.is_test, s.events.channel.tolist()) for s in read_spoken_digits(place, Stub()).samples]
        for place in places
    ]
    assert all(one == told[0] for one in told)


def test_files_that_are_no_recordings_are_passed_over(tmp_path: Path) -> None:
    files = {"recordings/._0_ann_0.wav": b"x", "metadata.py": b"x", "README.md": b"x"}
    files |= {f"recordings/{name}": content for name, content in recordings().items()}
    assert len(read_spoken_digits(archive(tmp_path / "some.tar", files), Stub()).samples) == 16


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("1_ann_5.wav", b"no sound at all", "not start with RIFF"),
        ("1_ann_5.wav", b"", "ends early"),
        ("1_ann_5.wav", wav(channels=2), "has 2 channels"),
        ("1_ann_5.wav", wav(width=1), "has 8 bits"),
        ("1_ann_5.wav", wav(width=3), "has 24 bits"),
        ("1_ann_5.wav", wav(n=0), "holds no samples"),
        ("1_ann_5.wav", wav()[:-20], "is cut off"),
        ("1_ann_5.wav", wav(n=9000, rate_hz=100), "lasts longer"),
        ("11_ann_5.wav", wav(), "is not named"),
        ("1_ann.wav", wav(), "is not named"),
        ("x_ann_5.wav", wav(), "is not named"),
        ("1_ann_5.flac", wav(), "is not named"),
        ("0_ann_05.wav", wav(), "same take"),
    ],
)
def test_wrong_recording_is_refused_by_name(tmp_path: Path, name: str, content: bytes, named: str) -> None:
    place = folder(tmp_path / "recordings", recordings() | {name: content})
    with pytest.raises(DataError) as caught:
        read_spoken_digits(place, Stub())
    assert name in str(caught.value)
    assert named in str(caught.value)


def test_silence_and_odd_rates_are_refused_by_name(tmp_path: Path) -> None:
    for number, (content, named) in enumerate([(wav(0), "silent"), (wav(rate_hz=4000), "4000 Hz")]):
        place = folder(tmp_path / f"{number}" / "recordings", {"0_ann_0.wav": content, "0_ann_5.wav": content})
        with pytest.raises(DataError, match=named) as caught:
            read_spoken_digits(place, Cochlea())
        assert "0_ann_0.wav" in str(caught.value)


def test_both_splits_must_be_there(tmp_path: Path) -> None:
    for number, (take, missing) in enumerate([(4, "training"), (5, "test")]):
        place = folder(tmp_path / f"{number}", {f"0_ann_{take}.wav": wav()})
        with pytest.raises(DataError, match=f"holds no {missing} recordings"):
            read_spoken_digits(place, Stub())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no recordings/"):
        read_spoken_digits(tmp_path / "empty", Stub())


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (member("recordings/1_ann_9.wav", tarfile.SYMTYPE, "/etc/hostname"), "is a link"),
        (member("recordings/1_ann_9.wav", tarfile.LNKTYPE, "recordings/0_ann_0.wav"), "is a link"),
        (member("recordings/1_ann_9.wav", tarfile.FIFOTYPE), "special file"),
        (member("../recordings/1_ann_9.wav", tarfile.REGTYPE), "points outside"),
        (member("/recordings/1_ann_9.wav", tarfile.REGTYPE), "points outside"),
    ],
    ids=["symbolic link", "hard link", "pipe", "parent", "absolute"],
)
def test_unsafe_members_are_refused_by_name(tmp_path: Path, extra: tarfile.TarInfo, named: str) -> None:
    files = {f"recordings/{name}": content for name, content in recordings().items()}
    with pytest.raises(DataError, match=r"1_ann_9\.wav") as caught:
        read_spoken_digits(archive(tmp_path / "some.tar", files, [extra]), Stub())
    assert named in str(caught.value)


def sparse(name: str, size: int) -> bytes:
    """A member of `size` bytes in the old format of GNU tar, of which the archive holds none."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:482] = b"".join(b"%011o\0" % number for number in (size, 0)) + bytes(72)
    block[482], block[483:495] = 0, b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_sparse_members_are_refused_by_name(tmp_path: Path) -> None:
    files = {f"recordings/{name}": content for name, content in recordings().items()}
    plain = archive(tmp_path / "plain.tar", files).read_bytes()
    path = tmp_path / "some.tar.gz"
    path.write_bytes(gzip.compress(sparse("recordings/1_ann_9.wav", 3 * 2**30) + plain))
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match=r"some\.tar\.gz: recordings/1_ann_9\.wav is a sparse file"):
        read_spoken_digits(path, Stub())


@pytest.mark.parametrize("packed", [False, True])
def test_recordings_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    files = recordings()
    whole = archive(tmp_path / "some.tar", {f"recordings/{name}": content for name, content in files.items()})
    path = whole if packed else folder(tmp_path / "recordings", files)
    largest = max(map(len, files.values()))
    monkeypatch.setattr(spoken_digits, "_MAX_FILE_BYTES", largest)
    assert len(read_spoken_digits(path, Stub()).samples) == 16
    monkeypatch.setattr(spoken_digits, "_MAX_FILE_BYTES", largest - 1)
    with pytest.raises(DataError, match=rf"\d_\w+_\d+\.wav has {largest} bytes, .* at most {largest - 1}"):
        read_spoken_digits(path, Stub())


def test_the_longest_recording_at_the_highest_rate_is_not_too_large() -> None:
    assert len(wav(rate_hz=192_000, n=30 * 192_000)) < spoken_digits._MAX_FILE_BYTES


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "cut inside", "flipped", "packed text", "no end"])
def test_damaged_archive_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    files = {f"recordings/{name}": content for name, content in recordings().items()}
    whole = archive(tmp_path / "whole.tar.gz", files).read_bytes()
    plain = gzip.decompress(whole)
    half = bytearray(whole)
    half[len(whole) // 2] ^= 0x10
    content = {
        "text": b"no archive\n" * 100,
        "empty": b"",
        "cut": whole[:-10],
        "cut inside": plain[: 8 * 512 + 100],
        "flipped": bytes(half),
        "packed text": gzip.compress(b"no archive\n" * 100),
        "no end": plain[: plain.rindex(b"RIFF") + 512],
    }[damage]
    path = tmp_path / "some.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"some\.tar\.gz"):
        read_spoken_digits(path, Stub())


def test_unpacked_size_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken_digits, "_MAX_ARCHIVE_BYTES", 4096)
    with pytest.raises(DataError, match="unpacks to more than 4096 bytes"):
        read_spoken_digits(archive(tmp_path / "some.tar.gz", {"recordings/0_ann_0.wav": bytes(5000)}), Stub())


def test_samples_are_within_one() -> None:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as writer:
        writer.setparams((1, 2, 16000, 3, "NONE", ""))
        writer.writeframes(np.array([-32768, 0, 16384], dtype="<i2").tobytes())
    rate_hz, samples = read_wav(stream.getvalue(), "some.wav")
    assert rate_hz == 16000
    assert samples.tolist() == [-1.0, 0.0, 0.5]


def test_real_recordings_are_all_read() -> None:
    if not REAL.is_file():
        pytest.skip(f"no recordings at {REAL}")
    found = read_spoken_digits(REAL.parent, Stub())
    assert found.speaker_names == ("george", "jackson", "lucas", "nicolas", "theo")
    counts = np.zeros((2, 10, 5), dtype=int)
    for sample in found.samples:
        counts[int(sample.is_test), sample.label, sample.speaker] += 1
        assert sample.events.t_us[0] == 8000
    assert (counts[0] == 45).all()
    assert (counts[1] == 5).all()
