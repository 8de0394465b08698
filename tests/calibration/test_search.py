"""Search and fit algorithms find what is there, state their error, and say so where there is nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from calibration.search import bisect, fit_line, fit_settling


class Function:
    """A noisy function of one setting."""

    def __init__(self, law: Callable[[float], float], noise: float = 0.0, seed: int = 0) -> None:
        self._law, self._noise, self._rng = law, noise, np.random.default_rng(seed)
        self._at = math.nan
        self.tried: list[float] = []

    def configure(self, setting: float) -> None:
        self._at = setting
        self.tried.append(setting)

    def measure(self) -> float:
        return self._law(self._at) + self._noise * float(self._rng.standard_normal())


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rising", "falling"])
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
def test_a_threshold_is_found_within_its_uncertainty(sign: float, noise: float) -> None:
    strays = []
    for seed in range(20):
        crossing = 0.2 + 0.03 * seed
        function = Function(lambda x, c=crossing: sign * math.tanh((x - c) / 0.3), noise, seed)
        found = bisect(function.configure, function.measure, 0.0, 0.0, 1.0, resolution=1e-3)
        assert found.found
        assert found.rising is (sign > 0)
        assert found.uncertainty < 0.1
        strays.append((found.value - crossing) / found.uncertainty)
    assert np.sqrt(np.mean(np.square(strays))) < 1.5
    assert np.abs(strays).max() < 4


def test_a_sharp_step_is_found_to_the_resolution() -> None:
    function = Function(lambda x: float(x > 0.3217))
    found = bisect(function.configure, function.measure, 0.5, 0.0, 1.0, resolution=1e-4)
    assert found.value == pytest.approx(0.3217, abs=1e-4)


def test_a_search_never_leaves_its_bracket() -> None:
    function = Function(lambda x: x, 0.2)
    bisect(function.configure, function.measure, 0.9, 0.5, 1.0, resolution=1e-6)
    assert min(function.tried) >= 0.5
    assert max(function.tried) <= 1.0


@pytest.mark.parametrize(("target", "reason"), [(0.0, "flat"), (5.0, "flat")])
def test_a_flat_function_has_no_threshold(target: float, reason: str) -> None:
    function = Function(lambda x: 0.0, 0.05)
    found = bisect(function.configure, function.measure, target, 0.0, 1.0, resolution=1e-3)
    assert not found.found
    assert reason in found.reason
    assert math.isnan(found.value)


def test_a_target_that_is_never_reached_is_no_threshold() -> None:
    function = Function(lambda x: x)
    found = bisect(function.configure, function.measure, 2.0, 0.0, 1.0, resolution=1e-3)
    assert not found.found
    assert "not crossed" in found.reason


@pytest.mark.parametrize("slope", [2.0, -2.0], ids=["rising", "falling"])
@pytest.mark.parametrize("wild", [0, 2], ids=["clean", "with outliers"])
def test_a_line_is_found_within_its_errors(slope: float, wild: int) -> None:
    rng = np.random.default_rng(4)
    x = np.linspace(-1, 1, 15)
    strays, rejected = [], []
    for _ in range(60):
        y = slope * x + 1 + 0.05 * rng.standard_normal(len(x))
        outliers = rng.choice(len(x), wild, replace=False)
        y[outliers] += rng.choice([-3, 3], wild)
        line = fit_line(x, y)
        assert line.ok
        assert line.significant
        assert not line.inlier[outliers].any()
        rejected.append((~line.inlier).sum() - wild)
        strays.append([(line.slope - slope) / line.slope_error, (line.offset - 1) / line.offset_error])
    assert np.std(strays, axis=0) == pytest.approx([1, 1], abs=0.35)
    assert np.mean(rejected) < 0.1


def test_a_known_noise_sets_the_errors() -> None:
    x = np.arange(4.0)
    line = fit_line(x, 3 * x, sigma=0.5)
    assert line.slope == pytest.approx(3)
    assert line.slope_error == pytest.approx(0.5 / math.sqrt(5))
    assert not fit_line(x, 0.1 * x, sigma=0.5).significant


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_flat_line_has_no_slope(noise: float) -> None:
    y = 1 + noise * np.random.default_rng(5).standard_normal(20)
    assert not fit_line(np.arange(20.0), y).significant


def test_points_that_are_no_line_are_not_taken_for_one() -> None:
    assert not fit_line(np.ones(10), np.arange(10.0)).ok
    assert not fit_line(np.arange(3.0), np.array([np.nan, 1.0, np.nan])).ok
    rng = np.random.default_rng(6)
    half_wild = np.where(np.arange(20) % 5 < 2, rng.normal(0, 1e3, 20), np.arange(20.0))
    assert not fit_line(np.arange(20.0), half_wild).ok


@pytest.mark.parametrize("amplitude", [-2.0, 2.0], ids=["rising", "falling"])
def test_a_settling_is_found_within_its_errors(amplitude: float) -> None:
    rng = np.random.default_rng(7)
    time_s = np.geomspace(0.1e-6, 20e-6, 12)
    strays = []
    for tau_s in np.linspace(0.5e-6, 3e-6, 50):
        y = 3 + amplitude * np.exp(-time_s / tau_s) + 0.01 * rng.standard_normal(len(time_s))
        found = fit_settling(time_s, y, sigma=0.01)
        assert found.found
        settled_s = tau_s * math.log(abs(amplitude) / 3e-3)
        strays.append(
            [
                (found.tau_s - tau_s) / found.tau_error_s,
                (found.final - 3) / found.final_error,
                (found.amplitude - amplitude) / found.amplitude_error,
                (found.time_to_s(3e-3) - settled_s) / found.time_error_s(3e-3),
            ]
        )
    scatter = np.std(strays, axis=0)
    assert (scatter < 1.35).all()
    assert (scatter > 0.4).all()


def test_what_has_settled_already_shows_no_settling() -> None:
    y = 3 + 0.01 * np.random.default_rng(8).standard_normal(12)
    found = fit_settling(np.geomspace(1, 100, 12), y, sigma=0.01)
    assert not found.found
    assert found.final == pytest.approx(3, abs=0.02)
    assert math.isnan(found.time_to_s(1e-3))
