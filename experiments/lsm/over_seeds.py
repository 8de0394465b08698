"""One experiment over several seeds: means with intervals, and what chance alone does to unseen classes.

Test items of one class lie together, so that a run gets whole classes right or wrong at once, and the accuracy of one
run says little: with two unseen classes that lie well apart it is near 0 or near 1, and never where a binomial would
put it. What chance decides is which cluster of the one modality lies near which of the other. The null hypothesis is
therefore that the classes found could be named in any other order, independently for each seed: with two classes the
accuracy is a or 1 - a, that is, its distance from 1/2 has a random sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
#: Up to this many equally likely outcomes all are counted; beyond, the mean is taken as normally distributed.
_N_COUNTED = 2**20
_Z95 = 1.959964


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean over the seeds with its 95 % interval by Student's t, and the values; one seed has no interval."""
    data = np.asarray(values, np.float64)
    interval = None
    if len(data) > 1:
        from scipy.special import stdtrit

        half = float(stdtrit(len(data) - 1, 0.975) * data.std(ddof=1) / math.sqrt(len(data)))
        interval = [float(data.mean()) - half, float(data.mean()) + half]
    return {"mean": float(data.mean()), "interval": interval, "values": data.tolist()}


def renamed_accuracies(confusion: Sequence[Sequence[int]]) -> Values:
    """Accuracies if the classes found had other names: one for each order of the columns of a confusion matrix."""
    table = np.asarray(confusion, np.float64)
    rows = np.arange(len(table))
    return np.array([table[rows, list(order)].sum() for order in permutations(rows)]) / table.sum()


def chance(confusions: Sequence[Sequence[Sequence[int]]]) -> dict[str, Any]:
    """Where the mean accuracy of these seeds lies with 95 % if classes are matched by chance, and how odd it is.

    Args:
        confusions: of the unseen classes, one matrix for each seed.

    Returns:
        `chance_interval`; `p_value`, two-sided, of a mean at least as far from that of chance; `chance_method`.
    """
    outcomes = [renamed_accuracies(one) for one in confusions]
    n = len(outcomes)
    # The first order leaves the names as they are.
    found = sum(one[0] for one in outcomes) / n
    expected = sum(one.mean() for one in outcomes) / n
    if math.prod(len(one) for one in outcomes) <= _N_COUNTED:
        means = np.zeros(1)
        for one in outcomes:
            means = (means[:, None] + one / n).ravel()
        low, high = np.quantile(means, (0.025, 0.975), method="inverted_cdf")
        p_value = float((np.abs(means - expected) >= abs(found - expected) - 1e-9).mean())
        method = "all orders of the unseen classes, for each seed"
    else:
        spread = math.sqrt(sum(one.var() for one in outcomes)) / n
        low, high = expected - _Z95 * spread, expected + _Z95 * spread
        p_value = math.erfc(abs(found - expected) / spread / math.sqrt(2)) if spread else 1.0
        method = "all orders of the unseen classes, for each seed; normal approximation"
    return {"chance_interval": [float(low), float(high)], "p_value": p_value, "chance_method": method}
