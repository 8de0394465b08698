"""Telegraph noise is found with its levels and times; other noise is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from traces import flicker, telegraph

from calibration.telegraph import detect

N, DT_S = 2000, 1e-3


@pytest.mark.parametrize(
    ("amplitude", "dwell_low", "dwell_high", "share_found"),
    [(4.0, 30, 30, 0.95), (4.0, 3, 3, 0.95), (3.0, 5, 50, 0.95), (2.0, 50, 50, 0.85), (1.0, 100, 100, 0.65)],
    ids=["clear", "fast", "mostly high", "twice the scatter", "within the scatter but slow"],
)
def test_telegraph_noise_is_found_with_its_amplitude_and_its_dwell_times(
    amplitude: float, dwell_low: float, dwell_high: float, share_found: float
) -> None:
    rng = np.random.default_rng(1)
    up = telegraph(rng, N, 10, dwell_low, dwell_high)
    found = detect(10.0 + amplitude * up + rng.standard_normal((N, 10)), DT_S, rng, significance=0.01)
    assert found.found.mean() >= share_found
    assert np.nanmean(found.amplitude) == pytest.approx(amplitude, rel=0.08)
    assert np.nanmean(found.low) == pytest.approx(10.0, abs=0.15)
    assert np.nanmean(np.abs(found.occupancy_high - up.mean(axis=0))) < 0.04
    if amplitude > 1:
        assert np.nanmedian(found.dwell_low_s) == pytest.approx(dwell_low * DT_S, rel=0.5)
        assert np.nanmedian(found.dwell_high_s) == pytest.approx(dwell_high * DT_S, rel=0.5)


def test_with_little_other_noise_every_change_of_level_is_counted() -> None:
    rng = np.random.default_rng(2)
    up = telegraph(rng, N, 3, 40, 40)
    found = detect(up + 0.05 * rng.standard_normal(up.shape), DT_S, rng)
    assert found.found.all()
    np.testing.assert_array_equal(found.n_changes, (np.diff(up.astype(int), axis=0) != 0).sum(axis=0))


def test_telegraph_noise_on_top_of_flicker_noise_is_found() -> None:
    rng = np.random.default_rng(3)
    x = 4.0 * telegraph(rng, N, 8, 30, 30) + flicker(rng, N, 8, 1.0)
    found = detect(x, DT_S, rng)
    assert found.found.all()
    assert found.amplitude.mean() == pytest.approx(4.0, rel=0.05)


def _drift(rng: np.random.Generator, n: int, m: int) -> NDArray[np.float64]:
    return np.linspace(0, 3, n)[:, None] + 0.3 * rng.standard_normal((n, m))


def _step(rng: np.random.Generator, n: int, m: int) -> NDArray[np.float64]:
    return 4.0 * (np.arange(n) > n / 3)[:, None] + rng.standard_normal((n, m))


ONE_LEVEL = {
    "white": lambda rng, n, m: rng.standard_normal((n, m)),
    "1/f": lambda rng, n, m: flicker(rng, n, m, 1.0),
    "1/f and white": lambda rng, n, m: flicker(rng, n, m, 1.0) + 0.7 * rng.standard_normal((n, m)),
    "heavy tails": lambda rng, n, m: rng.standard_t(4, (n, m)),
    "drift": _drift,
    "one step": _step,
    "codes of a coarse converter": lambda rng, n, m: np.round(0.4 * rng.standard_normal((n, m)) + rng.random(m)),
    "constant": lambda rng, n, m: np.full((n, m), 7.0),
}


@pytest.mark.parametrize("kind", ONE_LEVEL)
def test_noise_of_one_level_is_rarely_taken_for_telegraph_noise(kind: str) -> None:
    """At most the stated share of traces: of 50, three are beyond chance at 0.5 %."""
    rng = np.random.default_rng(4)
    found = detect(ONE_LEVEL[kind](rng, 800, 50), DT_S, rng, significance=0.005)
    assert found.found.sum() < 3
    assert np.isnan(found.amplitude[~found.found]).all()


def test_a_trace_too_short_to_tell_is_not_telegraph_noise() -> None:
    found = detect(np.array([[0.0], [1.0]] * 10), DT_S, np.random.default_rng(5))
    assert not found.found.any()
    assert found.p_value.tolist() == [1.0]
