"""A few labelled pairs of classes that nothing was trained on, through frozen projections.

Without them nothing says which unseen class of the one modality is which of the other. With k pairs of each class,
every item of either modality gets a probability over the classes by its nearness to the class means (prototypes) of its
own modality, and query and gallery item are as alike as it is probable that they are of one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.lsm.pairs import Index, first_of_classes
from experiments.lsm.retrieval import Embedded, retrieve, retrieve_by_score, unit
from hil.errors import ConfigError
from hil.lsm.accuracy import wilson_interval

#: Cosines are divided by this before they become probabilities. Tried by validation, with two seen classes left out of
#: the training in place of the unseen ones, from 0.02 to 0.5: from 0.1 on it makes no difference.
_TEMPERATURE = 0.2


@dataclass(frozen=True)
class Shots:
    """Accuracy with one number of labelled pairs for each class.

    Attributes:
        shots: pairs of each class.
        accuracies: from queries to gallery, one for each draw of the pairs; a single one without pairs.
        n_queries: test queries.
    """

    shots: int
    accuracies: NDArray[np.float64]
    n_queries: int

    @property
    def accuracy(self) -> float:
        """Mean over the draws."""
        return float(self.accuracies.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: where the draws lie, or, of a single one, the Wilson interval of the queries."""
        if len(self.accuracies) == 1:
            return wilson_interval(round(self.accuracy * self.n_queries), self.n_queries)
        low, high = np.percentile(self.accuracies, (2.5, 97.5))
        return float(low), float(high)

    def described(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"accuracy": self.accuracy, "interval": list(self.interval), "n_draws": len(self.accuracies)}


def few_shot(
    query: Embedded,
    gallery: Embedded,
    query_pool: Embedded,
    gallery_pool: Embedded,
    classes: Sequence[int],
    shots: Sequence[int],
    n_draws: int,
    seed: int,
) -> dict[int, Shots]:
    """Retrieval among `classes` with each number of labelled pairs.

    Args:
        query, gallery: test items; others than of `classes` are left out.
        query_pool, gallery_pool: labelled samples that pairs are drawn from, never test items.
        classes: unseen classes.
        shots: pairs of each class; 0 is plain retrieval.
        n_draws: draws of the pairs.
        seed: of the draws.

    Raises:
        ConfigError: a class has fewer samples than pairs are asked for.
    """
    asking, answering = query.of(classes), gallery.of(classes)
    found: dict[int, Shots] = {}
    for k in shots:
        if k == 0:
            accuracies = [retrieve(asking, answering, classes).accuracy]
        else:
            accuracies = [
                _with_prototypes(asking, answering, query_pool, gallery_pool, classes, k, [seed, k, draw])
                for draw in range(n_draws)
            ]
        found[k] = Shots(k, np.array(accuracies), len(asking.labels))
    return found


def _with_prototypes(
    asking: Embedded, answering: Embedded, query_pool: Embedded, gallery_pool: Embedded,
    classes: Sequence[int], k: int, seed: list[int],
) -> float:  # fmt: skip
    rng = np.random.default_rng(seed)
    probable = [
        class_probability(items, pool.vectors[_drawn(pool, classes, k, rng)].reshape(len(classes), k, -1))
        for items, pool in ((asking, query_pool), (answering, gallery_pool))
    ]
    return retrieve_by_score(probable[0] @ probable[1].T, asking.labels, answering.labels).accuracy


def class_probability(items: Embedded, support: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of each class for each item, by cosine to the class means of `support`.

    Args:
        items: n of them.
        support: labelled embeddings, shape (classes, k, outputs).

    Returns:
        Shape (n, classes).
    """
    prototypes = unit(support.mean(axis=1))
    score = (unit(items.vectors) @ prototypes.T).astype(np.float64) / _TEMPERATURE
    score = np.exp(score - score.max(axis=1, keepdims=True))
    return score / score.sum(axis=1, keepdims=True)


def _drawn(pool: Embedded, classes: Sequence[int], k: int, rng: np.random.Generator) -> Index:
    members = [first_of_classes(pool.labels, [label]) for label in classes]
    fewest = min(len(one) for one in members)
    if k > fewest:
        raise ConfigError(
            f"{k} shots are asked for, but a class has {fewest} labelled samples to draw from",
            fix=f"use at most {fewest} shots, or more training data",
        )
    return np.concatenate([rng.choice(one, k, replace=False) for one in members])
