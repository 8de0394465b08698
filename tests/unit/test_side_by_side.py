"""Figures of merit of a comparison of two backends."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lsm.side_by_side import Agreement, correlations, difference_interval, draw_samples
from hil.errors import ConfigError


def test_drawn_samples_are_distinct_sorted_and_nested() -> None:
    few, many = draw_samples(100, 8, 3), draw_samples(100, 40, 3)
    assert len(set(few.tolist())) == 8
    assert (np.diff(few) > 0).all()
    assert set(few.tolist()) <= set(many.tolist())
    np.testing.assert_array_equal(draw_samples(5, 5, 0), np.arange(5))


@pytest.mark.parametrize("n", [0, 101])
def test_too_few_or_too_many_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"--samples {n} is outside 1 to 100"):
        draw_samples(100, n, 0)


def test_correlations_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 20, (30, 5)).astype(np.uint16)
    b = (a + rng.integers(0, 9, a.shape)).astype(np.uint16)
    b[:, 4] = 7  # never varies
    expected = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(4)]
    np.testing.assert_allclose(correlations(a, b), expected)
    found = Agreement.of(a, a)
    assert found.count_correlation == pytest.approx(1.0)
    assert found.count_mean_difference == 0.0
    assert Agreement.of(np.zeros_like(a), a).count_correlation is None


def test_interval_of_a_paired_difference() -> None:
    """Newcombe 1998, table II: 36 both right, 12 and 2 right on one side only, none wrong twice."""
    one = np.repeat([True, True, False], [36, 12, 2])
    other = np.repeat([True, False, True], [36, 12, 2])
    low, high = difference_interval(one, other)
    assert low < 0.2 < high
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=2e-3)
    same_low, same_high = difference_interval(one, one)
    assert same_low < 0.0 < same_high
