"""Pairs within classes, and which samples are needed for them."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lsm.pairs import first_of_classes, pair_by_index, training_samples
from hil.errors import DataError

QUERY = np.array([2, 1, 2, 3, 1, 2])
GALLERY = np.array([1, 1, 2, 3, 2, 1, 2, 2, 2, 2, 1, 1])


def test_first_samples_come_class_by_class_in_file_order() -> None:
    np.testing.assert_array_equal(first_of_classes(QUERY, [2, 1], 2), [0, 2, 1, 4])
    np.testing.assert_array_equal(first_of_classes(QUERY, [2, 1]), [0, 2, 5, 1, 4])
    assert len(first_of_classes(QUERY, [])) == 0


def test_the_i_th_of_a_class_meets_the_i_th_of_the_class() -> None:
    pairs = pair_by_index(QUERY, GALLERY, [1, 2])
    np.testing.assert_array_equal(pairs.query, [1, 4, 0, 2, 5])
    np.testing.assert_array_equal(pairs.gallery, [0, 1, 2, 4, 6])
    np.testing.assert_array_equal(pairs.labels, [1, 1, 2, 2, 2])


def test_further_pairs_take_the_gallery_samples_that_follow() -> None:
    pairs = pair_by_index(QUERY, GALLERY, [1, 2], per_query=2)
    np.testing.assert_array_equal(pairs.query[:4], [1, 4, 1, 4])
    np.testing.assert_array_equal(pairs.gallery[:4], [0, 1, 5, 10])
    np.testing.assert_array_equal(GALLERY[pairs.gallery], pairs.labels)
    assert len(set(pairs.gallery.tolist())) == len(pairs) == 10


def test_a_gallery_that_is_too_small_starts_again() -> None:
    pairs = pair_by_index(np.full(5, 3), GALLERY, [3])
    np.testing.assert_array_equal(pairs.query, range(5))
    assert set(pairs.gallery.tolist()) == {3}


def test_only_samples_that_are_paired_are_needed() -> None:
    asked, answering = training_samples(QUERY, GALLERY, [1, 2], per_query=1)
    np.testing.assert_array_equal(asked, [1, 4, 0, 2, 5])
    np.testing.assert_array_equal(answering, [0, 1, 2, 4, 6])
    # Pairs among the chosen are those among all.
    whole, part = (pair_by_index(q, g, [1, 2]) for q, g in ((QUERY, GALLERY), (QUERY[asked], GALLERY[answering])))
    np.testing.assert_array_equal(asked[part.query], whole.query)
    np.testing.assert_array_equal(answering[part.gallery], whole.gallery)
    assert len(training_samples(QUERY, GALLERY, [1, 2], per_query=2)[1]) == 10


def test_a_class_without_samples_is_named() -> None:
    with pytest.raises(DataError, match="no sample of class 7"):
        pair_by_index(QUERY, GALLERY, [1, 7])
