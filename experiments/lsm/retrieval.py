"""Retrieval across modalities: every query finds the gallery item that is most like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.lsm.pairs import Index, Labels
from hil.lsm.accuracy import wilson_interval


@dataclass(frozen=True)
class Embedded:
    """Vectors (samples, outputs) of one modality and their classes (samples,)."""

    vectors: NDArray[np.float32]
    labels: Labels

    def of(self, classes: Sequence[int]) -> Embedded:
        """The samples of these classes, in their order."""
        chosen = np.isin(self.labels, classes)
        return Embedded(self.vectors[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Retrieval:
    """What the queries of a group of classes found in the gallery of that group, and the other way round.

    Attributes:
        query_labels, gallery_labels: class of every item.
        found: number of the gallery item that each query found.
        found_reverse: number of the query that each gallery item found.
    """

    query_labels: Labels
    gallery_labels: Labels
    found: Index
    found_reverse: Index

    @property
    def predicted(self) -> Labels:
        """Class of what each query found."""
        return self.gallery_labels[self.found]

    @property
    def accuracy(self) -> float:
        """Share of queries that found an item of their class."""
        return float((self.predicted == self.query_labels).mean())

    @property
    def reverse_accuracy(self) -> float:
        """The same from gallery to queries."""
        return float((self.query_labels[self.found_reverse] == self.gallery_labels).mean())

    def confusion(self, classes: Sequence[int]) -> NDArray[np.int64]:
        """Queries by their class (down) and the class that they found (across), in the order of `classes`."""
        return np.array(
            [[((self.query_labels == a) & (self.predicted == b)).sum() for b in classes] for a in classes], np.int64
        )

    def described(self) -> dict[str, Any]:
        """As JSON can hold it. The interval covers the choice of queries, not that of seed, chip or gallery."""
        n_right = int((self.predicted == self.query_labels).sum())
        return {
            "accuracy": self.accuracy,
            "interval": list(wilson_interval(n_right, len(self.query_labels))),
            "reverse_accuracy": self.reverse_accuracy,
        }


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors (samples, outputs) of length one; those of length zero stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1), np.float32)


def similarities(query: Embedded, gallery: Embedded) -> NDArray[np.float32]:
    """Cosine of every query with every gallery item, shape (queries, items)."""
    return unit(query.vectors) @ unit(gallery.vectors).T


def retrieve(query: Embedded, gallery: Embedded, classes: Sequence[int]) -> Retrieval:
    """Top-1 retrieval both ways among the items of `classes`; of equal ones the first."""
    asking, answering = query.of(classes), gallery.of(classes)
    return retrieve_by_score(similarities(asking, answering), asking.labels, answering.labels)


def retrieve_by_score(score: NDArray[Any], query_labels: Labels, gallery_labels: Labels) -> Retrieval:
    """Top-1 retrieval both ways by any score (queries, items), the highest wins."""
    return Retrieval(query_labels, gallery_labels, score.argmax(axis=1), score.argmax(axis=0))


def class_similarity(query: Embedded, gallery: Embedded, classes: Sequence[int]) -> NDArray[np.float64]:
    """Mean cosine between the queries of a class (down) and the gallery items of a class (across)."""
    score = similarities(query, gallery)
    return np.array(
        [[score[np.ix_(query.labels == a, gallery.labels == b)].mean() for b in classes] for a in classes], np.float64
    )
