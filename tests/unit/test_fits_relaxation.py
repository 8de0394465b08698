"""Fit of relaxation: it finds the parameters of its own model, and repeats measured reads."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hil.errors import DataError
from sim_backend.fits import relaxation
from sim_backend.fits.fit import with_settings
from sim_backend.relaxation import Relaxation
from sim_backend.settings import RelaxationSettings

MEASURED = Path(__file__).parents[3] / "shared" / "data" / "rram_relaxation.npz"
TIMES_S = (0.0, 0.01, 0.1, 1.0, 100.0, 1000.0)
TRUTH = {
    "start_s": 1e-3,
    "spread": [0.01],
    "trend": [0.002],
    "jump_rate": [0.2],
    "jump_up_share": [0.3],
    "jump_up": [0.1],
    "jump_down": [0.3],
}


def columns(n_cells: int = 3000, level_s: float = 30e-6) -> dict[str, np.ndarray]:
    """Reads of cells of one level as the model makes them, with 1 % read noise."""
    model, rng = Relaxation.from_settings(RelaxationSettings.model_validate(TRUTH)), np.random.default_rng(0)
    programmed_s = now_s = np.full(n_cells, level_s)
    reads_s, initial_s = [], np.zeros(0)
    for number, time_s in enumerate(TIMES_S):
        if number:
            now_s = model.step_s(now_s, programmed_s, TIMES_S[number - 1], time_s, 25.0, rng)
        reads_s.append(now_s * np.exp(0.01 * rng.standard_normal(n_cells)))
        initial_s = reads_s[0]
    return {
        "B_relax_addr": np.tile(np.arange(n_cells), len(TIMES_S)),
        "B_relax_timept_s": np.repeat(TIMES_S, n_cells),
        "B_relax_g": np.concatenate(reads_s),
        "B_relax_g_initial": np.tile(initial_s, len(TIMES_S)),
    }


def save(folder: Path, **changes: np.ndarray | None) -> Path:
    arrays = {**columns(200), **changes}
    path = folder / "rows.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_it_finds_the_parameters_of_its_own_model(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    np.savez(path, **columns())
    found = relaxation.fit(relaxation.load(path))
    assert found.parameters["start_s"].value == pytest.approx(1e-3, rel=0.6)
    for name in ("spread", "jump_rate", "jump_up_share", "jump_up", "jump_down"):
        value, error, _ = found.parameters[f"{name} at 30 uS"]
        assert 0.0 < error < 0.35 * value
        assert abs(value - TRUTH[name][0]) < 4.0 * error + 0.1 * TRUTH[name][0], name
    # of the difference of two reads
    assert found.parameters["read_noise at 30 uS"].value == pytest.approx(0.01 * math.sqrt(2.0), rel=0.15)
    assert all(distance.ks < 0.07 for distance in found.distances.values())
    assert found.goodness["cells_fitted"] == found.goodness["cells_compared"] == 1500


def test_equal_seeds_give_equal_fits_and_the_settings_are_settings(tmp_path: Path) -> None:
    rows = relaxation.load(save(tmp_path))
    one, two = relaxation.fit(rows), relaxation.fit(rows)
    assert one.settings == two.settings
    assert relaxation.fit(rows, seed=1).settings != one.settings
    assert with_settings(one.settings).relaxation.full_scale_s == 128e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"B_relax_g": None}, "has no array 'B_relax_g', only"),
        ({"B_relax_g": np.ones(3)}, "columns of equal length"),
        ({"B_relax_g": np.full(1200, np.nan)}, "1200 of 1200 entries of 'B_relax_g' are not finite"),
        ({"B_relax_g": np.zeros(1200)}, "1200 of 1200 conductances are not above 0 S"),
        ({"B_relax_timept_s": np.zeros(1200)}, "no read is later than 0 s"),
        ({"B_relax_addr": np.array(["a"] * 1200)}, "entries of type <U1"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        relaxation.load(save(tmp_path, **changes))
    assert str(tmp_path) in error.value.what


@pytest.mark.parametrize("content", [None, b"", b"1.0\t2.0\n", b"PK\x03\x04 but then nothing"])
def test_foreign_files_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "foreign.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"foreign\.npz cannot be read") as error:
        relaxation.load(path)
    assert "B_relax_addr" in error.value.fix


@pytest.mark.parametrize("n_cells", [2, 12])
def test_few_cells_are_fitted_as_one_level(tmp_path: Path, n_cells: int) -> None:
    np.savez(tmp_path / "few.npz", **columns(n_cells))
    found = relaxation.fit(relaxation.load(tmp_path / "few.npz"))
    assert len(found.settings["relaxation.levels"]) == 1
    assert found.n_rows == 5 * n_cells


def test_a_single_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(DataError, match="is a single NumPy array"):
        relaxation.load(tmp_path / "one.npy")


@pytest.mark.skipif(not MEASURED.exists(), reason=f"measured data not found: {MEASURED}")
def test_measured_reads_are_repeated() -> None:
    rows = relaxation.load(MEASURED)
    # two of the levels, to be quick
    chosen = (rows.initial_s > 41.0e-6) & (rows.initial_s < 65e-6)
    fields = ("cell", "time_s", "conductance_s", "initial_s")
    found = relaxation.fit(replace(rows, **{name: getattr(rows, name)[chosen] for name in fields}))
    inside = {name: distance.ks for name, distance in found.distances.items() if "32 to 64 uS" in name}
    assert len(inside) == 6
    assert max(inside.values()) < 0.08
    # jumps are many and mostly down at these conductances
    assert 0.1 < found.parameters["jump_rate at 47 uS"].value < 0.6
    assert found.parameters["jump_down at 47 uS"].value > found.parameters["jump_up at 47 uS"].value
    # the reads at 10000 s seem to belong to other programmings
    memory = found.goodness
    assert memory["correlation of changes after 1000 s and 10000 s, measured"] < 0.4
    assert memory["correlation of changes after 100 s and 1000 s, measured"] > 0.6
