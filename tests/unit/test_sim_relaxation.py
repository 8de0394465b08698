"""Relaxation and loss to heat: strength, temperature, and no dependence on how a time is divided."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from hil.config import load
from hil.errors import ConfigError
from sim_backend.relaxation import Relaxation, arrhenius
from sim_backend.settings import RelaxationSettings, SimSettings

N = 40_000
G_S = 14e-6
ROOM_C = 25.0
#: every part strong enough to be measured
STRONG = {
    "trend": [0.02],
    "spread": [0.05],
    "jump_rate": [0.3],
    "jump_up_share": [0.4],
    "jump_up": [0.1],
    "jump_down": [0.2],
    "loss_per_s": [2e-4],
    "loss_spread": 0.5,
}


def relaxation(**changes: object) -> Relaxation:
    return Relaxation.from_settings(RelaxationSettings.model_validate(changes))


def changes_of(model: Relaxation, ages_s: list[float], temperature_c: float, seed: int) -> NDArray[np.float64]:
    """Change of ln(conductance) over a series of ages."""
    rng = np.random.default_rng(seed)
    programmed_s = np.full(N, G_S)
    now_s = programmed_s
    for start, end in pairwise(ages_s):
        now_s = model.step_s(now_s, programmed_s, start, end, temperature_c, rng)
    return np.log(now_s / programmed_s)


def expected(settings: RelaxationSettings, decades: float, loss: float) -> tuple[float, float]:
    """Mean and variance of the change, from the sums of independent parts."""
    up, a, b = settings.jump_up_share[0], settings.jump_up[0], settings.jump_down[0]
    mean = decades * (settings.trend[0] + settings.jump_rate[0] * (up * a - (1 - up) * b)) - loss
    variance = decades * (settings.spread[0] ** 2 + settings.jump_rate[0] * 2 * (up * a**2 + (1 - up) * b**2))
    return mean, variance + settings.loss_spread * loss


@pytest.mark.parametrize("ages_s", [[0.0, 1000.0], [0.0, 1e-3, 2.0, 2.1, 1000.0]])
def test_mean_and_variance_in_any_number_of_steps(ages_s: list[float]) -> None:
    model = relaxation(**STRONG, loss_reference_c=ROOM_C)
    change = changes_of(model, ages_s, ROOM_C, seed=len(ages_s))
    mean, variance = expected(model.settings, math.log10(1 + 1000.0 / 1e-3), 0.2)
    assert change.mean() == pytest.approx(mean, abs=4 * math.sqrt(variance / N))
    assert change.var() == pytest.approx(variance, rel=0.06)


def test_distribution_does_not_depend_on_the_number_of_steps() -> None:
    model = relaxation(**STRONG)
    quantiles = np.linspace(0.01, 0.99, 25)
    one = np.quantile(changes_of(model, [0.0, 3600.0], 180.0, seed=1), quantiles)
    many = np.quantile(changes_of(model, [0.0, 0.1, 1.0, 60.0, 900.0, 3600.0], 180.0, seed=2), quantiles)
    np.testing.assert_allclose(many, one, atol=0.03)


def test_default_spreads_half_a_percent_in_a_decade() -> None:
    model = relaxation()
    one = changes_of(model, [9e-3, 99e-3], ROOM_C, seed=3)
    assert one.std() == pytest.approx(0.005, rel=0.02)
    four = changes_of(model, [9e-3, 99.999], ROOM_C, seed=4)
    assert four.std() == pytest.approx(0.005 * 2.0, rel=0.02)
    assert abs(four.mean()) < 1e-4


def test_room_temperature_takes_nothing_in_a_week() -> None:
    change = changes_of(relaxation(spread=[0.0]), [0.0, 7 * 86400.0], ROOM_C, seed=5)
    assert -1e-3 < change.mean() <= 0.0


@pytest.mark.parametrize(("start", "end"), [(5.0, 5.0), (np.inf, np.inf)])
def test_no_time_or_a_cell_at_rest_changes_nothing(start: float, end: float) -> None:
    assert not changes_of(relaxation(**STRONG), [start, end], 200.0, seed=6).any()


def test_cells_of_one_step_may_have_different_ages() -> None:
    ages_s = np.repeat([0.0, 1e6], N // 2)
    programmed_s = np.full(N, G_S)
    now_s = relaxation(spread=[0.05]).step_s(
        programmed_s, programmed_s, ages_s, ages_s + 10.0, ROOM_C, np.random.default_rng(7)
    )
    assert now_s[: N // 2].std() == pytest.approx(0.1 * G_S, rel=0.05)
    assert now_s[N // 2 :].std() < 1e-3 * G_S


def test_switched_off_it_returns_a_copy() -> None:
    programmed_s = np.full(4, G_S)
    now_s = relaxation(**STRONG, enabled=False).step_s(programmed_s, programmed_s, 0, 9, 99.0, np.random.default_rng(0))
    np.testing.assert_array_equal(now_s, programmed_s)
    assert now_s is not programmed_s


def test_loss_follows_its_activation_energy() -> None:
    model = relaxation(spread=[0.0], loss_per_s=[1e-4], loss_activation_ev=0.9, loss_reference_c=220.0)
    at_220, at_200 = (-changes_of(model, [0.0, 1000.0], t, seed=8).mean() for t in (220.0, 200.0))
    assert at_220 == pytest.approx(0.1, rel=0.05)
    # 0.9 eV between 473.15 K and 493.15 K: exp(0.9 / k * 8.5714e-5) = 2.447
    assert at_220 / at_200 == pytest.approx(2.447, rel=0.06)


def test_heat_speeds_up_relaxation() -> None:
    model = relaxation(activation_ev=1.0)
    warm = model.decades(0.0, 1.0, 125.0)
    assert warm == pytest.approx(model.decades(0.0, arrhenius(1.0, 125.0, 25.0), 25.0))
    assert warm > model.decades(0.0, 1.0, 25.0) + 4


def test_an_age_carried_to_another_temperature_goes_on_where_it_was() -> None:
    model = relaxation(activation_ev=1.0)
    age_s = model.age_at_s(100.0, 25.0, 85.0)
    assert age_s < 1.0
    assert model.decades(0.0, age_s, 85.0) == pytest.approx(model.decades(0.0, 100.0, 25.0))


def test_the_nearest_level_counts() -> None:
    model = relaxation(full_scale_s=100e-6, levels=[0.1, 0.5, 0.9], spread=[0.0, 0.1, 0.0], trend=[0.1, 0.0, -0.1])
    programmed_s = np.array([1e-6, 29e-6, 31e-6, 69e-6, 71e-6, 200e-6])
    now_s = model.step_s(programmed_s, programmed_s, 0.0, 9e-3, ROOM_C, np.random.default_rng(0))
    ratio = np.log(now_s / programmed_s)
    np.testing.assert_allclose(ratio[[0, 1, 4, 5]], [0.1, 0.1, -0.1, -0.1], rtol=1e-9)
    assert np.all(ratio[[2, 3]] != 0.0)


def test_conductance_stays_positive() -> None:
    change = changes_of(relaxation(**{**STRONG, "loss_per_s": [0.1]}), [0.0, 100.0], 220.0, seed=9)
    assert np.all(np.isfinite(change))
    assert change.mean() < -5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["relaxation.spread=[0.1, 0.2]"], "spread has 2 values, but there are 1 levels"),
        (["relaxation.levels=[0.5, 0.2]"], "do not ascend"),
        (["relaxation.jump_rate=[-1.0]"], "jump_rate has a negative value"),
        (["relaxation.jump_up_share=[1.5]"], "above 1"),
    ],
)
def test_tables_that_do_not_match_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(SimSettings, overrides=overrides)
