"""Means over seeds, and what chance alone would make of unseen classes."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lsm.over_seeds import chance, mean_interval, renamed_accuracies


def test_interval_is_that_of_student() -> None:
    """Three values with standard error 1: t for 2 degrees of freedom is 4.3027."""
    root3 = 3**0.5
    found = mean_interval([1 - root3, 1, 1 + root3])
    assert found["mean"] == pytest.approx(1.0)
    assert found["interval"] == pytest.approx([1 - 4.3027, 1 + 4.3027], abs=1e-3)
    assert mean_interval([0.5])["interval"] is None


def test_two_classes_may_swap() -> None:
    np.testing.assert_allclose(renamed_accuracies([[9, 1], [3, 7]]), [0.8, 0.2])


def test_other_names_for_four_classes_leave_chance_on_average() -> None:
    found = renamed_accuracies(10 * np.eye(4, dtype=int))
    assert len(found) == 24
    assert found[0] == 1.0
    assert found.mean() == pytest.approx(1 / 4)


def two_classes(accuracy: float) -> list[list[int]]:
    right = round(100 * accuracy)
    return [[right, 100 - right], [100 - right, right]]


def test_one_seed_near_one_shows_nothing() -> None:
    """However many queries agree: they do so together, and half of all runs do."""
    found = chance([two_classes(0.99)])
    assert found["p_value"] == 1.0
    assert found["chance_interval"] == pytest.approx([0.01, 0.99])


def test_chance_over_seeds_counts_every_choice_of_signs() -> None:
    """Of 2^6 choices two are as far from 1/2 as six seeds that all are right."""
    found = chance([two_classes(0.9)] * 6)
    assert found["p_value"] == pytest.approx(2 / 64)
    assert found["chance_interval"] == pytest.approx([0.5 - 0.4 * 4 / 6, 0.5 + 0.4 * 4 / 6])
    assert "approximation" not in found["chance_method"]
    assert chance([two_classes(0.9), two_classes(0.1)] * 3)["p_value"] == 1.0


def test_many_seeds_are_taken_as_normal_and_agree_with_counting() -> None:
    rng = np.random.default_rng(0)
    seeds = [two_classes(accuracy) for accuracy in rng.uniform(0.35, 0.75, 21)]
    exact, normal = chance(seeds[:20]), chance(seeds)
    assert "approximation" in normal["chance_method"]
    np.testing.assert_allclose(exact["chance_interval"], normal["chance_interval"], atol=0.01)
    assert normal["p_value"] == pytest.approx(chance(seeds[:20])["p_value"], abs=0.25)
