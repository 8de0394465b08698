"""Which samples of two modalities are paired, and which are tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.errors import DataError

Labels = NDArray[np.int64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Pairs:
    """Training pairs of one class each.

    Attributes:
        query, gallery: number of the sample in its modality, shape (pairs,).
        labels: class of each pair, shape (pairs,).
    """

    query: Index
    gallery: Index
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


def first_of_classes(labels: Labels, classes: Sequence[int], n: int | None = None) -> Index:
    """Numbers of the first `n` samples of each class, class by class; of all of them where n is None.

    Raises:
        DataError: there is no sample of a class.
    """
    found = [np.flatnonzero(labels == label)[:n] for label in classes]
    for label, members in zip(classes, found, strict=True):
        if not len(members):
            raise DataError(
                f"there is no sample of class {label}", fix="choose other classes, or give data that hold them"
            )
    return np.concatenate([np.zeros(0, np.intp), *found])


def pair_by_index(query: Labels, gallery: Labels, classes: Sequence[int], per_query: int = 1) -> Pairs:
    """Pair samples within each class in the order in which they come.

    The i-th query sample of a class meets the i-th gallery sample of it, as in the paper; further pairs of it take the
    gallery samples that follow. Where the gallery has too few, it starts again.

    Args:
        query, gallery: class of every sample of the modality.
        classes: those to pair.
        per_query: pairs of each query sample.

    Raises:
        DataError: a modality has no sample of a class.
    """
    parts: list[tuple[Index, Index]] = []
    for label in classes:
        asking = np.tile(first_of_classes(query, [label]), per_query)
        answering = first_of_classes(gallery, [label])
        parts.append((asking, answering[np.arange(len(asking)) % len(answering)]))
    chosen = np.concatenate([asking for asking, _ in parts])
    return Pairs(chosen, np.concatenate([answering for _, answering in parts]), query[chosen])


def training_samples(query: Labels, gallery: Labels, seen: Sequence[int], per_query: int) -> tuple[Index, Index]:
    """Numbers of the training samples that are paired, of each modality, so that no others are encoded.

    All query samples, and as many gallery samples as they are paired with.

    Args:
        query, gallery: class of every training sample.
        seen: classes to train on.
        per_query: pairs of each query sample.

    Raises:
        DataError: a modality has no sample of a class.
    """
    asking = first_of_classes(query, seen)
    answering = [first_of_classes(gallery, [label], per_query * int((query[asking] == label).sum())) for label in seen]
    return asking, np.concatenate(answering)
