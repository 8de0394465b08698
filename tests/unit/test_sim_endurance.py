"""Wear-out of the simulator's cells."""

from __future__ import annotations

import numpy as np
import pytest

from sim_backend.endurance import Endurance
from sim_backend.settings import EnduranceSettings


def endurance(**settings: object) -> Endurance:
    return Endurance.from_settings(EnduranceSettings.model_validate(settings))


def test_lives_are_log_normal() -> None:
    life = endurance(life_cycles=1e5, life_decades=0.3).draw_life(np.random.default_rng(0), (100, 100))
    assert np.median(life) == pytest.approx(1e5, rel=0.03)
    assert np.log10(life).std() == pytest.approx(0.3, rel=0.03)


def test_the_window_closes_over_the_last_decade_of_a_life() -> None:
    cycles = np.array([0, 1, 99, 100, 316.228, 1000, 5000])
    window = endurance().window(cycles, np.full(7, 1e3))
    np.testing.assert_allclose(window, [1, 1, 1, 1, 0.5, 0, 0], atol=1e-5)


def test_a_worn_cell_sticks_one_way_or_the_other() -> None:
    model = endurance(stuck_on_s=50e-6, stuck_off_s=0.1e-6)
    window, stuck_on = np.array([1.0, 0.5, 0.0, 0.0]), np.array([True, True, True, False])
    np.testing.assert_allclose(model.worn_s(np.full(4, 10e-6), window, stuck_on), [10e-6, 30e-6, 50e-6, 0.1e-6])


def test_which_way_cells_stick_follows_the_share() -> None:
    assert endurance(stuck_on_share=0.2).draw_stuck_on(np.random.default_rng(0), (100, 100)).mean() == pytest.approx(
        0.2, rel=0.1
    )


def test_switched_off_no_cell_wears_out() -> None:
    model = endurance(enabled=False)
    life = model.draw_life(np.random.default_rng(0), (10,))
    np.testing.assert_array_equal(model.window(np.full(10, 10**9), life), 1.0)
