"""Fit of the loss to heat: it finds the parameters of its own model, and repeats measured bakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hil.errors import DataError
from sim_backend.fits import retention
from sim_backend.fits.fit import with_settings
from sim_backend.relaxation import Relaxation
from sim_backend.settings import RelaxationSettings

MEASURED = Path(__file__).parents[3] / "shared" / "data" / "rram_relaxation.npz"
TEMPERATURES_C = (100.0, 180.0, 220.0, 260.0)
BAKE_S = 5000.0
TRUTH = {
    "spread": [0.02],
    "jump_rate": [0.1],
    "jump_up": [0.1],
    "jump_down": [0.1],
    "reference_c": 100.0,
    "activation_ev": 1.0,
    "loss_per_s": [5e-5],
    "loss_activation_ev": 0.9,
    "loss_spread": 0.6,
    "loss_reference_c": 220.0,
}


def columns(n_cells: int = 2000, level_s: float = 100e-6) -> dict[str, np.ndarray]:
    """Cells of one level before and after bakes, as the model makes them."""
    model, rng = Relaxation.from_settings(RelaxationSettings.model_validate(TRUTH)), np.random.default_rng(0)
    before_s = np.full(n_cells, level_s)
    parts = []
    for temperature_c in TEMPERATURES_C:
        after_s = model.step_s(before_s, before_s, 0.0, BAKE_S, temperature_c, rng)
        for time_s, conductance_s in ((0.0, before_s), (BAKE_S, after_s)):
            cells = rng.permutation(n_cells)
            parts.append((cells, np.full(n_cells, time_s), conductance_s[cells], np.full(n_cells, temperature_c)))
    names = ("A_bake_addr", "A_bake_time_s", "A_bake_g", "A_bake_temp_C")
    return dict(zip(names, (np.concatenate(column) for column in zip(*parts, strict=True)), strict=True))


def save(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = folder / "bakes.npz"
    np.savez(path, **arrays)
    return path


def test_reads_before_and_after_are_paired_by_cell_and_temperature(tmp_path: Path) -> None:
    shuffled = np.random.default_rng(1).permutation(400)
    rows = retention.load(save(tmp_path, {name: column[shuffled] for name, column in columns(50).items()}))
    assert len(rows.cell) == 200
    assert np.all(rows.before_s == 100e-6)
    assert np.all(rows.time_s == BAKE_S)
    loss = [np.log(rows.before_s / rows.after_s)[rows.temperature_c == t].mean() for t in TEMPERATURES_C]
    np.testing.assert_allclose(loss[2:], [0.25, 1.2], rtol=0.5)
    assert abs(loss[0]) < 0.1


def test_it_finds_the_parameters_of_its_own_model(tmp_path: Path) -> None:
    found = retention.fit(retention.load(save(tmp_path, columns())))
    assert found.parameters["loss_activation_ev"].value == pytest.approx(0.9, abs=0.1)
    assert found.parameters["loss_spread"].value == pytest.approx(0.6, rel=0.2)
    value, error, unit = found.parameters["loss_per_s at 100 uS"]
    assert value == pytest.approx(5e-5, rel=0.1)
    assert 0.0 < error < 5e-6
    assert unit == "1/s"
    assert all(distance.ks < 0.08 for distance in found.distances.values())
    assert with_settings(found.settings).relaxation.loss_reference_c == 220.0


def test_a_cell_read_only_once_is_found(tmp_path: Path) -> None:
    arrays = {name: column[1:] for name, column in columns(50).items()}
    with pytest.raises(DataError, match=r"199 reads are before a bake .* and 200 after it"):
        retention.load(save(tmp_path, arrays))


def test_a_cell_read_twice_before_is_found(tmp_path: Path) -> None:
    arrays = columns(50)
    arrays["A_bake_addr"][0] = arrays["A_bake_addr"][1]
    with pytest.raises(DataError, match="not one and one of each cell"):
        retention.load(save(tmp_path, arrays))


def test_one_temperature_is_not_enough(tmp_path: Path) -> None:
    arrays = columns(200)
    chosen = arrays["A_bake_temp_C"] == 220.0
    rows = retention.load(save(tmp_path, {name: column[chosen] for name, column in arrays.items()}))
    with pytest.raises(DataError, match="220 degC alone"):
        retention.fit(rows)


def test_another_technology_has_other_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no array 'B_bake_addr'"):
        retention.load(save(tmp_path, columns(50)), technology="B")


@pytest.mark.skipif(not MEASURED.exists(), reason=f"measured data not found: {MEASURED}")
def test_measured_bakes_are_repeated() -> None:
    rows = retention.load(MEASURED)
    # two of the levels, to be quick
    chosen = (rows.before_s > 76.8e-6) & (rows.before_s < 122.4e-6)
    fields = ("cell", "temperature_c", "time_s", "before_s", "after_s")
    found = retention.fit(replace(rows, **{name: getattr(rows, name)[chosen] for name in fields}))
    inside = {name: distance.ks for name, distance in found.distances.items() if "60 to 120 uS" in name}
    assert len(inside) == 5
    assert max(inside.values()) < 0.12
    assert 0.6 < found.parameters["loss_activation_ev"].value < 1.1
