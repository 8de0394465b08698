"""The fast normal generator: moments, tails, distribution, independence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sim_backend.gaussian import LANES, fill_normal, new_state


def draw(seed: int, n_blocks: int) -> np.ndarray:
    state = new_state(np.random.default_rng(seed))
    raw, mantissa = np.empty(LANES, np.uint32), np.empty(LANES, np.float32)
    exponent, out = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    blocks = []
    for _ in range(n_blocks):
        fill_normal(state, raw, mantissa, mantissa.view(np.int32), exponent, out)
        blocks.append(out.copy())
    return np.array(blocks, np.float64)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return draw(7, 8000)


def test_moments(sample: np.ndarray) -> None:
    n = sample.size
    assert abs(sample.mean()) < 4 / np.sqrt(n)
    assert abs(sample.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(stats.skew(sample.ravel())) < 4 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(sample.ravel())) < 4 * np.sqrt(24 / n)


def test_distribution_and_tails(sample: np.ndarray) -> None:
    assert stats.kstest(sample.ravel()[:500_000], "norm").pvalue > 1e-3
    for sigmas in (2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(sigmas) * sample.size
        assert abs((np.abs(sample) > sigmas).sum() - expected) < 5 * np.sqrt(expected)


def test_numbers_are_independent_within_and_between_blocks(sample: np.ndarray) -> None:
    bound = 5 / np.sqrt(sample.size)
    flat = sample.ravel()
    for lag in (1, 2, LANES // 2, LANES, LANES + 1):
        assert abs(np.mean(flat[lag:] * flat[:-lag])) < bound
        assert abs(np.mean((flat[lag:] ** 2 - 1) * (flat[:-lag] ** 2 - 1))) < 2 * bound
    per_lane = np.corrcoef(sample.T[::16])
    assert np.abs(per_lane - np.eye(len(per_lane))).max() < 5 / np.sqrt(len(sample))


def test_seeds() -> None:
    assert np.array_equal(draw(1, 3), draw(1, 3))
    assert not np.array_equal(draw(1, 3), draw(2, 3))
