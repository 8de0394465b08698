"""Which cells a region or a file means."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.array.region import file_mask, region_mask, target_map
from hil.errors import ConfigError, DataError, HilError, LimitError
from hil.fault_map import Fault, FaultMap

SHAPE = (6, 10)
ALL = np.ones(SHAPE, np.bool_)


def test_all_is_every_cell() -> None:
    assert region_mask("all", SHAPE).all()


@pytest.mark.parametrize("text", ["3,7", "0:4,0:10", "::2,:", "-1,-3:", " 2 , 1:9:3 "])
def test_a_region_selects_as_python_does(text: str) -> None:
    rows, cols = (eval(f"np.s_[{part}]") for part in text.split(","))  # the reference
    wanted = np.zeros(SHAPE, np.bool_)
    wanted[rows, cols] = True
    np.testing.assert_array_equal(region_mask(text, SHAPE), wanted)


@pytest.mark.parametrize("text", ["", "3", "1,2,3", "a,b", "1:2:3:4,0", "::0,1", ",", "1.5,2"])
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        region_mask(text, SHAPE)


@pytest.mark.parametrize("text", ["6,0", "0,10", "0:7,0", "0,0:11", "-7,0"])
def test_a_region_outside_the_array_is_refused_with_its_size(text: str) -> None:
    with pytest.raises(LimitError, match=r"outside the array, which has (6 rows|10 columns)"):
        region_mask(text, SHAPE)


def test_a_region_without_cells_is_refused() -> None:
    with pytest.raises(LimitError, match="no cell"):
        region_mask("3:3,:", SHAPE)


@given(st.text("0123456789:,- all", max_size=10))
def test_any_text_is_a_region_or_refused(text: str) -> None:
    with suppress(HilError):
        assert region_mask(text, SHAPE).any()


def test_a_mask_file_is_a_bool_array_or_the_healthy_cells_of_a_fault_map(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[2, 3] = True
    np.save(tmp_path / "mask.npy", mask)
    np.testing.assert_array_equal(file_mask(tmp_path / "mask.npy", SHAPE), mask)
    FaultMap.healthy_array(SHAPE).with_faults(mask, Fault.NOISY).save(tmp_path / "faults.npz")
    np.testing.assert_array_equal(file_mask(tmp_path / "faults.npz", SHAPE), ~mask)


@pytest.mark.parametrize(
    ("array", "words"),
    [(np.ones(SHAPE), "float64"), (np.ones((2, 2), bool), "shape"), (np.zeros(SHAPE, bool), "no cell")],
)
def test_a_mask_of_another_kind_is_refused(tmp_path: Path, array: np.ndarray, words: str) -> None:
    np.save(tmp_path / "mask.npy", array)
    with pytest.raises(HilError, match=words):
        file_mask(tmp_path / "mask.npy", SHAPE)


@pytest.mark.parametrize("content", [b"", b"not an array", None])
def test_a_file_that_is_no_array_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        target_map(path, ALL)


def test_a_target_has_the_shape_of_the_array_or_of_a_rectangle(tmp_path: Path) -> None:
    path = tmp_path / "target.npy"
    part = region_mask("1:3,2:5", SHAPE)
    np.save(path, np.arange(6.0).reshape(2, 3))
    found = target_map(path, part)
    np.testing.assert_array_equal(found[1:3, 2:5], np.arange(6.0).reshape(2, 3))
    assert np.isnan(found[~part]).all()
    np.save(path, np.full(SHAPE, 2e-6))
    assert np.isfinite(target_map(path, part)).sum() == 6
    with pytest.raises(LimitError, match="shape"):
        target_map(path, region_mask("1:3,2:5", (6, 9)))
    np.save(path, np.array([["a"]]))
    with pytest.raises(DataError, match="holds"):
        target_map(path, part)
    for endless in (np.inf, -np.inf, 1e300):
        np.save(path, np.full(SHAPE, endless))
        with pytest.raises(DataError, match="holds infinite conductances"):
            target_map(path, part)
