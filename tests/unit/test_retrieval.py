"""Retrieval across modalities."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lsm.retrieval import Embedded, class_similarity, retrieve, unit


def embedded(vectors: list[list[float]], labels: list[int]) -> Embedded:
    return Embedded(np.array(vectors, np.float32), np.array(labels))


QUERY = embedded([[1, 0], [10, 1], [0, 1], [1, 1]], [1, 1, 2, 3])
GALLERY = embedded([[0, 5], [7, 0], [0.1, 1], [3, 3]], [2, 1, 1, 3])


def test_every_query_finds_the_item_of_highest_cosine_whatever_its_length() -> None:
    found = retrieve(QUERY, GALLERY, [1, 2])
    np.testing.assert_array_equal(found.found, [1, 1, 0])
    np.testing.assert_array_equal(found.predicted, [1, 1, 2])
    assert found.accuracy == 1.0
    # The other way round the third item, of class 1, is nearest to a query of class 2.
    np.testing.assert_array_equal(found.found_reverse, [2, 0, 2])
    np.testing.assert_array_equal(found.gallery_labels, [2, 1, 1])
    assert found.reverse_accuracy == pytest.approx(2 / 3)
    one_way = retrieve(embedded([[1, 0], [0, 1]], [1, 2]), embedded([[3, 1], [2, 1], [1, 1.1]], [1, 2, 2]), [1, 2])
    assert (one_way.accuracy, one_way.reverse_accuracy) == (1.0, pytest.approx(2 / 3))


def test_classes_outside_the_group_are_in_neither_queries_nor_gallery() -> None:
    found = retrieve(QUERY, GALLERY, [2, 3])
    np.testing.assert_array_equal(found.query_labels, [2, 3])
    np.testing.assert_array_equal(found.gallery_labels, [2, 3])


def test_confusion_has_queries_down_and_what_they_found_across() -> None:
    swapped = retrieve(embedded([[0, 1], [1, 0], [1, 0]], [1, 2, 2]), embedded([[1, 0], [0, 1]], [1, 2]), [1, 2])
    np.testing.assert_array_equal(swapped.confusion([1, 2]), [[0, 1], [2, 0]])
    np.testing.assert_array_equal(swapped.confusion([2, 1]), [[0, 2], [1, 0]])
    assert swapped.described()["accuracy"] == 0.0
    low, high = swapped.described()["interval"]
    assert low == pytest.approx(0.0)
    assert 0.0 < high < 1.0


def test_similarity_by_class_is_the_mean_cosine() -> None:
    table = class_similarity(QUERY, GALLERY, [1, 2])
    cosines = unit(QUERY.vectors)[:2] @ unit(GALLERY.vectors)[[1, 2]].T
    assert table[0, 0] == pytest.approx(float(cosines.mean()), rel=1e-5)
    assert table[1, 0] != table[0, 1]


def test_a_vector_of_zeros_stays_one() -> None:
    np.testing.assert_array_equal(unit(np.zeros((1, 3), np.float32)), np.zeros((1, 3)))
