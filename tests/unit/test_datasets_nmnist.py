"""Reader of N-MNIST recordings, on small files that the tests write."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets.binning import BinRule, Events, bin_events
from experiments.datasets.nmnist import MAX_TIME_US, decode_events, encode_events, read_nmnist
from hil.errors import DataError

DATA = Path(os.environ.get("CROSSBAR_HIL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
ONE_EVENT = st.tuples(st.integers(0, 33), st.integers(0, 33), st.booleans(), st.integers(0, MAX_TIME_US))


def recording(seed: int, n_events: int = 80) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        x=rng.integers(0, 34, n_events),
        y=rng.integers(0, 34, n_events),
        on=rng.random(n_events) < 0.5,
        t_us=np.sort(rng.integers(0, 310_000, n_events)),
    )


def files() -> dict[str, bytes]:
    made = {f"Train/{seed % 10}/{seed + 1:05d}.bin": encode_events(recording(seed)) for seed in range(12)}
    made |= {f"Test/{seed % 10}/{seed + 1:05d}.bin": encode_events(recording(100 + seed)) for seed in range(3)}
    return made


def write_folder(root: Path, content: dict[str, bytes]) -> Path:
    for name, octets in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(octets)
    return root


def write_tar(path: Path, content: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, octets in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(octets)
            archive.addfile(member, io.BytesIO(octets))
    return path


@settings(max_examples=60, deadline=None)
@given(st.lists(ONE_EVENT, min_size=1, max_size=40))
def test_decode_undoes_encode(rows: list[tuple[int, int, bool, int]]) -> None:
    x, y, on, t_us = (np.array(column) for column in zip(*rows, strict=True))
    content = encode_events(Events(x=x, y=y, on=on.astype(bool), t_us=t_us))
    assert len(content) == 5 * len(rows)
    back = decode_events(content, "some.bin")
    for name, expected in (("x", x), ("y", y), ("on", on), ("t_us", t_us)):
        np.testing.assert_array_equal(getattr(back, name), expected)


def test_bytes_of_a_record() -> None:
    # the first event of the real file Train/0/00002.bin, as public tutorials print it
    event = decode_events(bytes([10, 30, 0x80, 0x03, 0xA9]), "some.bin")
    assert (event.x[0], event.y[0], bool(event.on[0]), event.t_us[0]) == (10, 30, True, 937)


@pytest.mark.parametrize(("field", "value"), [("x", 34), ("y", -1), ("t_us", MAX_TIME_US + 1)])
def test_encode_refuses_what_does_not_fit(field: str, value: int) -> None:
    arrays = {"x": np.array([1]), "y": np.array([1]), "on": np.array([True]), "t_us": np.array([1])}
    arrays[field] = np.array([value])
    with pytest.raises(DataError, match=f"{field} = {value}"):
        encode_events(Events(**arrays))


@pytest.mark.parametrize("rule", [BinRule(), BinRule("fixed", 4e-3)])
def test_folder_and_archives_agree(tmp_path: Path, rule: BinRule) -> None:
    content = files()
    unordered = dict(reversed(content.items()))
    sets = [
        read_nmnist(write_folder(tmp_path / "folder", content), rule),
        read_nmnist(write_tar(tmp_path / "a.tar.gz", unordered), rule),
        read_nmnist(write_tar(tmp_path / "b.tar", {f"./N-MNIST/{k}": v for k, v in content.items()}, "w"), rule),
        read_nmnist(write_tar(tmp_path / "c.tgz", {f"Train/{k}": v for k, v in content.items()}), rule),
    ]
    for dataset in sets:
        assert dataset.train.labels.tolist() == [seed % 10 for seed in range(12)]
        np.testing.assert_array_equal(dataset.train.words[3], bin_events(recording(3), rule))
        np.testing.assert_array_equal(dataset.test.words, sets[0].test.words)
        np.testing.assert_array_equal(dataset.train.words, sets[0].train.words)
    assert sets[0].note == "small set: 12 training and 3 test recordings"
    assert not sets[0].synthetic


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    extra = {"Train/0/._00001.bin": b"x", "Train/readme.txt": b"x", "notes/1.bin": b"x"}
    assert len(read_nmnist(write_folder(tmp_path, files() | extra)).train) == 12


@pytest.mark.parametrize(
    ("name", "octets", "named"),
    [
        ("Train/3/00099.bin", b"123456", "Train/3/00099.bin has 6 bytes"),
        ("Train/3/00099.bin", b"", "has 0 bytes"),
        ("Test/3/00099.bin", bytes([1, 1, 0, 0, 0, 40, 7, 0, 0, 0]), "event 1 is at x=40, y=7"),
        ("Train/10/00099.bin", bytes(5), "label folder '10'"),
        ("Train/00099.bin", bytes(5), "label folder ''"),
        ("Train/a/b/00099.bin", bytes(5), "label folder 'a/b'"),
    ],
)
def test_bad_recording_is_named(tmp_path: Path, name: str, octets: bytes, named: str) -> None:
    content = files() | {name: octets}
    for path in (write_folder(tmp_path / "folder", content), write_tar(tmp_path / "a.tar.gz", content)):
        with pytest.raises(DataError) as caught:
            read_nmnist(path)
        assert named in str(caught.value)
        assert name in str(caught.value)


@pytest.mark.parametrize("split", ["Train", "Test"])
def test_missing_split(tmp_path: Path, split: str) -> None:
    content = {name: octets for name, octets in files().items() if not name.startswith(split)}
    for path in (write_folder(tmp_path / "folder", content), write_tar(tmp_path / "a.tar.gz", content)):
        with pytest.raises(DataError, match=f"holds no {split}/"):
            read_nmnist(path)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no Train/"):
        read_nmnist(tmp_path)


def test_every_cut_of_an_archive_is_noticed(tmp_path: Path) -> None:
    packed = write_tar(tmp_path / "a.tar.gz", files()).read_bytes()
    plain = gzip.decompress(packed)
    n_blocks = len(plain.rstrip(b"\0")) // 512
    cut = tmp_path / "cut"
    contents = [packed[:n] for n in (0, 2, 15, len(packed) // 2, len(packed) - 9, len(packed) - 1)]
    contents += [plain[: 512 * n] for n in range(1, n_blocks)]  # at and inside headers alike
    contents += [plain[: 512 * n + 100] for n in range(0, n_blocks, 5)]
    for content in contents:
        cut.write_bytes(content)
        with pytest.raises(DataError, match="cut"):
            read_nmnist(cut)


@pytest.mark.parametrize("octets", [b"a text file\n" * 100, b"PK\x03\x04" + bytes(2000), b"\x1f\x8b" + b"x" * 2000])
def test_other_kind_of_file(tmp_path: Path, octets: bytes) -> None:
    path = tmp_path / "wrong.tar.gz"
    path.write_bytes(octets)
    with pytest.raises(DataError, match=r"wrong\.tar\.gz cannot be read as a tar archive"):
        read_nmnist(path)


def test_damaged_gzip_checksum(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", files())
    octets = bytearray(path.read_bytes())
    octets[-6] ^= 0xFF
    path.write_bytes(octets)
    with pytest.raises(DataError, match="cannot be read"):
        read_nmnist(path)


def test_links_and_huge_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("Train/1/00001.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(member)
    with pytest.raises(DataError, match="is a link"):
        read_nmnist(path)
    write_folder(tmp_path / "folder", files())
    with (tmp_path / "folder/Train/0/00001.bin").open("r+b") as stream:
        stream.truncate(17 * 2**20)
    with pytest.raises(DataError, match="at most"):
        read_nmnist(tmp_path / "folder")


def test_real_recordings() -> None:
    path = DATA / "nmnist_subset.tar.gz"
    if not path.is_file():
        pytest.skip(f"real recordings are not at {path} (CROSSBAR_HIL_TEST_DATA names their folder)")
    dataset = read_nmnist(path)
    assert (len(dataset.train), len(dataset.test)) == (804, 52)
    assert np.bincount(dataset.train.labels).tolist() == [78, 93, 80, 75, 84, 74, 76, 94, 70, 80]
    spikes = np.unpackbits(dataset.train.words.view(np.uint8)).mean()
    assert spikes == pytest.approx(0.0889, abs=0.0005)
