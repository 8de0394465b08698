"""The fault map: a value that says what is wrong with which cell, and its files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hil.errors import ConfigError, DataError
from hil.fault_map import Fault, FaultMap
from hil.runfile import RunFile

BITS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)))
TWO_MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(arrays(np.uint8, shape), arrays(np.uint8, shape))
)


def some_map() -> FaultMap:
    """4 x 6: row 1 open, column 4 shorted, cell (2, 3) noisy and unformed."""
    faults = np.zeros((4, 6), np.uint8)
    faults[1] |= np.uint8(Fault.ROW_OPEN)
    faults[:, 4] |= np.uint8(Fault.COL_SHORT)
    faults[2, 3] |= np.uint8(Fault.NOISY | Fault.UNFORMED)
    return FaultMap(faults)


def run_with(folder: Path, results: dict[str, object]) -> Path:
    with RunFile.create(
        folder, "health", config={}, backend={"name": "sim"}, calibration=None, seed=0, software={}, tables=[]
    ) as run:
        run.finish("complete", results)
    return Path(run.path)


# The value


def test_the_bits_are_those_of_the_file_format() -> None:
    assert {fault.name: fault.value for fault in Fault} == {
        "UNFORMED": 1, "STUCK_ON": 2, "STUCK_OFF": 4, "NOISY": 8,
        "ROW_OPEN": 16, "COL_OPEN": 32, "ROW_SHORT": 64, "COL_SHORT": 128,
    }  # fmt: skip


def test_summaries() -> None:
    found = some_map()
    assert found.shape == (4, 6)
    assert found.n_faulty == 6 + 4 - 1 + 1
    assert found.n_faulty == np.count_nonzero(~found.healthy)
    assert found.count() == {
        "unformed": 1, "stuck_on": 0, "stuck_off": 0, "noisy": 1,
        "row_open": 6, "col_open": 0, "row_short": 0, "col_short": 4,
    }  # fmt: skip
    assert found.lines() == {"row_open": [1], "row_short": [], "col_open": [], "col_short": [4]}
    assert np.flatnonzero(found.rows_out).tolist() == [1]
    assert np.flatnonzero(found.cols_out).tolist() == [4]


@pytest.mark.parametrize(
    ("cell", "text"),
    [((0, 0), "healthy"), ((2, 3), "unformed, noisy"), ((1, 4), "row open, col short"), ((3, 4), "col short")],
)
def test_a_cell_in_words(cell: tuple[int, int], text: str) -> None:
    assert some_map().faults_text(cell) == text


def test_a_line_that_is_out_in_part_is_out() -> None:
    part = np.zeros((4, 6), np.bool_)
    part[2, 4:] = True
    found = FaultMap.healthy_array((4, 6)).with_faults(part, Fault.ROW_SHORT)
    assert np.flatnonzero(found.rows_out).tolist() == [2]
    assert not found.cols_out.any()


@given(BITS)
def test_counts_agree_with_the_cells(faults: np.ndarray) -> None:
    found = FaultMap(faults)
    assert found.count() == {
        str(fault.name).lower(): sum(bool(cell & fault) for cell in faults.ravel().tolist()) for fault in Fault
    }


@settings(max_examples=30)
@given(BITS, st.sampled_from(list(Fault)), st.integers(0, 2**31))
def test_a_fault_is_added_to_the_cells_of_a_mask_and_nothing_else_changes(
    faults: np.ndarray, fault: Fault, seed: int
) -> None:
    before = FaultMap(faults)
    mask = np.random.default_rng(seed).random(faults.shape) < 0.5
    after = before.with_faults(mask, fault)
    assert after.faults.dtype == np.uint8
    assert after.having(fault)[mask].all()
    np.testing.assert_array_equal(after.faults[~mask], faults[~mask])
    np.testing.assert_array_equal(after.faults[mask] & ~np.uint8(fault), faults[mask] & ~np.uint8(fault))
    np.testing.assert_array_equal(before.faults, faults)


@given(TWO_MAPS)
def test_what_changed_leads_from_one_map_to_the_other(pair: tuple[np.ndarray, np.ndarray]) -> None:
    earlier, later = (FaultMap(faults) for faults in pair)
    change = later.since(earlier)
    assert not (change.gained.faults & earlier.faults).any()
    assert not (change.lost.faults & later.faults).any()
    np.testing.assert_array_equal((earlier.faults & ~change.lost.faults) | change.gained.faults, later.faults)
    np.testing.assert_array_equal((earlier | later).faults, (earlier | change.gained).faults)


def test_a_map_cannot_be_changed() -> None:
    faults = np.zeros((3, 3), np.uint8)
    found = FaultMap(faults)
    faults[0, 0] = 1
    assert found.n_faulty == 0
    with pytest.raises(ValueError, match="read-only"):
        found.faults[0, 0] = 1


@pytest.mark.parametrize("wrong", [np.zeros((3, 3)), np.zeros(9, np.uint8), np.zeros((0, 3), np.uint8)])
def test_what_is_not_a_map_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="a fault map is"):
        FaultMap(wrong)


def test_maps_and_masks_of_another_shape_are_refused() -> None:
    found, other = some_map(), FaultMap.healthy_array((6, 4))
    found.check_shape((4, 6))
    for refused in (lambda: found | other, lambda: found.since(other), lambda: other.check_shape((4, 6), "map.npz")):
        with pytest.raises(ConfigError, match=r"array of 6 x 4 cells, this one has 4 x 6"):
            refused()
    for mask in (np.ones((6, 4), np.bool_), np.ones((1, 6), np.bool_), np.ones((4, 6), np.uint8)):
        with pytest.raises(DataError, match="mask of faulty cells"):
            found.with_faults(mask, Fault.NOISY)


# Its files


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BITS)
def test_a_saved_map_is_read_back(tmp_path: Path, faults: np.ndarray) -> None:
    FaultMap(faults).save(tmp_path / "map.npz")
    np.testing.assert_array_equal(FaultMap.load(tmp_path / "map.npz").faults, faults)
    assert [path.name for path in tmp_path.iterdir()] == ["map.npz"]


def test_a_run_file_gives_its_map(tmp_path: Path) -> None:
    path = run_with(tmp_path, {"faults": some_map().faults})
    np.testing.assert_array_equal(FaultMap.load(path).faults, some_map().faults)


def test_a_failed_save_leaves_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.npz"
    some_map().save(path)

    def full_disk(stream: io.BufferedWriter, **_: object) -> None:
        stream.write(b"PK half of a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(DataError, match=r"map\.npz cannot be written: No space left"):
        FaultMap.healthy_array((4, 6)).save(path)
    np.testing.assert_array_equal(FaultMap.load(path).faults, some_map().faults)
    assert [found.name for found in tmp_path.iterdir()] == ["map.npz"]


def test_who_reads_a_map_while_it_is_replaced_reads_the_whole_old_one(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    some_map().save(path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        FaultMap.healthy_array((4, 6)).save(path)
        assert reader.read() == before
    assert FaultMap.load(path).n_faulty == 0


def test_a_run_file_is_never_written_over(tmp_path: Path) -> None:
    path = run_with(tmp_path, {"faults": some_map().faults})
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"ends in \.npz"):
        some_map().save(path)
    assert path.read_bytes() == before


def test_files_that_hold_no_map_are_refused_by_name(tmp_path: Path) -> None:
    def npz(name: str, **content: object) -> Path:
        np.savez(tmp_path / name, **content)  # pyright: ignore[reportArgumentType]
        return tmp_path / name

    ours = {"format": "crossbar-hil fault map", "format_version": 1}
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "zip.npz").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "fake.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    faults = some_map().faults
    refused = {
        tmp_path / "nothing.npz": "cannot be read",
        tmp_path: "cannot be read",
        tmp_path / "text.npz": "is not a fault map",
        tmp_path / "empty.npz": "is not a fault map",
        tmp_path / "zip.npz": "is damaged",
        tmp_path / "fake.h5": "not an HDF5 file",
        npz("other.npz", faults=faults): "not a fault map",
        npz("newer.npz", **{**ours, "format_version": 2}, faults=faults): "has format 2",
        npz("without.npz", **ours): "is damaged",
        npz("pickled.npz", **ours, faults=np.array([[{}]], object)): "is damaged",
        npz("kind.npz", **ours, faults=faults.astype(float)): r"a fault map is float64\(4, 6\)",
        npz("flat.npz", **ours, faults=faults.ravel()): r"a fault map is uint8\(24,\)",
        run_with(tmp_path, {}): "health .complete. holds no fault map",
        run_with(tmp_path, {"faults": {"stuck": 3}}): "a fault map is",
    }
    for path, text in refused.items():
        with pytest.raises(DataError, match=text) as caught:
            FaultMap.load(path)
        assert str(path) in str(caught.value)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_a_data_error_or_the_map(tmp_path: Path, data: st.DataObject) -> None:
    """Cut off, or with bytes changed: never another exception, and never another map without notice."""
    path = tmp_path / "map.npz"
    some_map().save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = FaultMap.load(path)
    except DataError:
        return
    np.testing.assert_array_equal(found.faults, some_map().faults)
