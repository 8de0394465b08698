"""`hil lsm nmnist --faults`: the network avoids faults, and the run says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.fault_map import Fault, FaultMap
from hil.placement import place, tile_faults
from hil.runfile import open_run

pytestmark = pytest.mark.usefixtures("blank_figures")

#: room for 256 inputs and 16 neurons, and a little more
ARRAY = ["--set", "sim.rows=280", "--set", "sim.cols=48"]
SHAPE = (280, 48)
DEAD_ROWS, DEAD_COLS = [0, 100], [5, 20, 21]


@pytest.fixture
def faults(tmp_path: Path) -> FaultMap:
    """Dead lines, and so many unformed cells at the far end that some have to be taken; saved as faults.npz."""
    cells = np.zeros(SHAPE, np.uint8)
    cells[DEAD_ROWS], cells[:, DEAD_COLS] = Fault.ROW_OPEN, Fault.COL_OPEN
    cells[:, 36:46] |= np.uint8(Fault.STUCK_ON) * (np.arange(SHAPE[0]) % 4 == 1)[:, None]
    cells[:, :36] |= np.uint8(Fault.UNFORMED) * (np.arange(SHAPE[0]) % 8 == 1)[:, None]
    found = FaultMap(cells)
    found.save(tmp_path / "faults.npz")
    return found


def test_the_network_avoids_dead_lines_and_says_what_remains(hil: Any, small: list[str], faults: FaultMap) -> None:
    result = hil("lsm", "nmnist", *small, *ARRAY, "--faults", "faults.npz", "--json").json
    assert result["n_test"] == 30
    said = result["faults"]
    with open_run(Path(result["run_file"])) as reader:
        results = reader.results
    rows = results["tile_rows"]
    cols = np.concatenate([results["tile_plus_cols"], results["tile_minus_cols"]])
    assert (rows.shape, cols.shape) == ((272,), (32,))
    assert not set(rows.tolist()) & set(DEAD_ROWS)
    assert not set(cols.tolist()) & set(DEAD_COLS)
    np.testing.assert_array_equal(results["faults"], faults.faults)
    in_tile = faults.faults[np.ix_(rows, cols)]
    assert results["summary"]["faults"] == said
    assert (said["tile_cells"], said["tile_faulty"]) == (272 * 32, np.count_nonzero(in_tile))
    assert said["tile_faulty"] > 0
    assert said["tile"]["unformed"] == np.count_nonzero(in_tile & Fault.UNFORMED)
    assert said["tile"]["row_open"] == said["tile"]["col_open"] == 0
    assert said["array"] == faults.count()
    assert (said["rows_out"], said["cols_out"]) == (2, 3)


def test_people_are_told(hil: Any, small: list[str], faults: FaultMap) -> None:
    ran = hil("lsm", "nmnist", *small, *ARRAY, "--faults", "faults.npz")
    assert (ran.code, ran.stderr) == (0, "")
    text = " ".join(ran.stdout.split())
    assert "faulty cells in the tile" in text
    assert "of 8704 (" in text
    assert "2 rows and 3 columns that are open or shorted" in text


def test_two_backends_use_the_same_cells(hil: Any, small: list[str], faults: FaultMap) -> None:
    result = hil("lsm", "nmnist", *small, *ARRAY, "--faults", "faults.npz", "--samples", 8, "--json").json
    tile = place(272, 16, faults)
    assert result["faults"]["tile_faulty"] == np.count_nonzero(tile_faults(tile, faults))
    # One chip, seen twice: only noise keeps the counts from being equal.
    assert result["count_correlation"] > 0.8
    with open_run(Path(result["run_file"])) as reader:
        assert reader.results["tile_rows"].tolist() == tile.rows.tolist()
        assert reader.results["tile_minus_cols"].tolist() == tile.cols[tile.n_outputs :].tolist()
        np.testing.assert_array_equal(reader.results["faults"], faults.faults)


def test_a_run_file_with_a_map_will_do_and_a_map_without_faults_changes_nothing(
    hil: Any, small: list[str], tmp_path: Path
) -> None:
    FaultMap.healthy_array(SHAPE).save(tmp_path / "none.npz")
    command = ["lsm", "nmnist", *small, *ARRAY, "--json"]
    without = hil(*command).json
    with_map = hil(*command, "--faults", "none.npz").json
    again = hil(*command, "--faults", with_map["run_file"]).json
    assert without["faults"] is None
    assert with_map["faults"] == again["faults"]
    counts = []
    for result in (without, with_map, again):
        with open_run(Path(result["run_file"])) as reader:
            counts.append(reader.table("counts_test")["counts"])
            assert reader.results["tile_rows"].tolist() == list(range(272))
            assert ("faults" in reader.results) == (result is not without)
    np.testing.assert_array_equal(counts[0], counts[1])
    np.testing.assert_array_equal(counts[0], counts[2])
    ran = hil(*command, "--faults", without["run_file"])
    assert ran.code == 1
    assert "holds no fault map" in ran.stderr


@pytest.mark.parametrize(
    ("shape", "dead_rows", "code", "texts"),
    [
        (None, 0, 1, ("fault map faults.npz cannot be read",)),
        ((8, 8), 0, 2, ("the map of --faults is of an array of 8 x 8 cells, this one has 280 x 48",)),
        (SHAPE, 9, 2, ("271 of 280 rows", "use at most 15 neurons")),
    ],
)
def test_refused_before_a_run_file_exists(
    hil: Any, small: list[str], tmp_path: Path, shape: Any, dead_rows: int, code: int, texts: tuple[str, ...]
) -> None:
    if shape is not None:
        cells = np.zeros(shape, np.uint8)
        cells[:dead_rows] = Fault.ROW_SHORT
        FaultMap(cells).save(tmp_path / "faults.npz")
    ran = hil("lsm", "nmnist", *small, *ARRAY, "--faults", "faults.npz", "--out", "results")
    assert ran.code == code
    for text in texts:
        assert text in " ".join(ran.stderr.split())
    assert not (tmp_path / "results").exists()
