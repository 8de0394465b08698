"""A few labelled pairs of unseen classes."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lsm.few_shot import class_probability, few_shot
from experiments.lsm.retrieval import Embedded
from hil.errors import ConfigError

CENTRES = np.eye(6, dtype=np.float32)[:2]


def clusters(n: int, seed: int, *, swapped: bool = False, noise: float = 0.2) -> Embedded:
    """Classes 8 and 9, and samples of class 3 that have no business here."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([8, 9, 3], [n, n, 5])
    centres = np.concatenate([CENTRES[::-1] if swapped else CENTRES, [[0, 0, 9, 0, 0, 0]]])
    vectors = centres[np.searchsorted([8, 9], labels) * (labels > 3) + 2 * (labels == 3)]
    return Embedded((vectors + noise * rng.standard_normal(vectors.shape)).astype(np.float32), labels)


def scored(swapped: bool, shots: list[int], seed: int = 0, noise: float = 0.2) -> dict[int, float]:
    found = few_shot(
        clusters(30, 1, noise=noise), clusters(30, 2, swapped=swapped, noise=noise),
        clusters(20, 3, noise=noise), clusters(20, 4, swapped=swapped, noise=noise), [8, 9], shots, 12, seed,
    )  # fmt: skip
    return {k: one.accuracy for k, one in found.items()}


def test_one_pair_tells_which_cluster_is_which() -> None:
    """Clusters that lie the wrong way round: retrieval finds the other class, until a pair says so."""
    assert scored(False, [0])[0] > 0.95
    found = scored(True, [0, 1, 5])
    assert found[0] < 0.05
    assert found[1] > 0.9
    assert found[5] > 0.95


def test_more_pairs_help_when_clusters_are_wide() -> None:
    found = scored(True, [1, 20], noise=0.6)
    assert found[20] > found[1] + 0.03


def test_draws_are_repeated_and_follow_the_seed() -> None:
    sides = clusters(30, 1, noise=0.6), clusters(30, 2, noise=0.6), clusters(20, 3, noise=0.6), clusters(20, 4)
    one, again, other = (few_shot(*sides, [8, 9], [1, 5], 12, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one[1].accuracies, again[1].accuracies)
    assert (one[1].accuracies != other[1].accuracies).any()
    assert len(one[1].accuracies) == 12
    assert one[1].accuracies.std() > one[5].accuracies.std()
    low, high = one[1].interval
    assert one[1].accuracies.min() <= low < one[1].accuracy < high <= one[1].accuracies.max()


def test_without_pairs_there_is_one_figure_with_the_interval_of_its_queries() -> None:
    found = few_shot(*(clusters(30, seed) for seed in range(4)), [8, 9], [0], 12, 0)[0]
    assert found.accuracies.shape == (1,)
    low, high = found.interval
    assert low < found.accuracy <= high
    assert found.described()["n_draws"] == 1


def test_pairs_are_drawn_without_replacement() -> None:
    """All thirty in every draw, so that every draw gives the same."""
    sides = [clusters(30, seed, noise=0.8) for seed in range(4)]
    assert few_shot(*sides, [8, 9], [30], 12, 0)[30].accuracies.std() == 0.0
    with pytest.raises(ConfigError, match="31 shots are asked for, but a class has 30"):
        few_shot(*sides, [8, 9], [31], 3, 0)


def test_probabilities_sum_to_one_and_follow_nearness() -> None:
    found = class_probability(clusters(4, 0, noise=0.0).of([8, 9]), CENTRES[:, None])
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_array_equal(found.argmax(axis=1), [0, 0, 0, 0, 1, 1, 1, 1])
