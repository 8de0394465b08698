"""Read-out, accuracy with interval, and the two protocols."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.lsm.protocols import LabelledFeatures, honest, paper, split_validation
from hil.lsm.accuracy import confusion, wilson_interval
from hil.lsm.readout import Readout, features_of, train
from hil.lsm.settings import ReadoutSettings

QUICK = ReadoutSettings(epochs=5, steps_min=60, batch=50, weight_decays=[1e-4, 1e-1])


def clusters(n: int, seed: int, spread: float = 1.0) -> LabelledFeatures:
    """Three classes in ten dimensions; one centre for every seed."""
    centres = 2.0 * np.random.default_rng(99).standard_normal((3, 10))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return LabelledFeatures((centres[labels] + spread * rng.standard_normal((n, 10))).astype(np.float32), labels)


def test_features_are_spikes_per_step() -> None:
    counts = np.array([[0, 25, 50]], np.uint16)
    assert features_of(counts, 50).tolist() == [[0.0, 0.5, 1.0]]


def test_readout_learns_what_a_line_can_separate() -> None:
    training, test = clusters(600, 0), clusters(400, 1)
    seen: list[Readout] = []
    train(
        training.features,
        training.labels,
        3,
        QUICK,
        weight_decay=1e-4,
        seed=0,
        after_epoch=lambda _, r: seen.append(r),
    )
    assert seen[-1].accuracy(test.features, test.labels) > 0.97
    assert seen[-1].weight.shape == (3, 10)


def test_training_is_reproducible() -> None:
    training = clusters(200, 0)

    def weights(seed: int) -> np.ndarray:
        seen: list[Readout] = []
        keep = lambda _, readout: seen.append(readout)  # noqa: E731
        train(training.features, training.labels, 3, QUICK, weight_decay=0.0, seed=seed, after_epoch=keep)
        return seen[-1].weight

    runs = [weights(seed) for seed in (3, 3, 4)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    # from the closed form by hand; the first is a textbook example
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (8966, 10000, 0.8905, 0.9024)],
)
def test_wilson_interval(n_right: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(n_right, n) == pytest.approx((low, high), abs=1e-4)


def test_confusion_counts_truth_down_and_prediction_across() -> None:
    table = confusion(np.array([0, 0, 2]), np.array([0, 1, 2]), 3)
    assert table.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_validation_split_is_disjoint_stratified_and_seeded() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    fit, held_out = split_validation(labels, 0.1, seed=0)
    assert np.array_equal(np.sort(np.concatenate([fit, held_out])), np.arange(160))
    assert np.bincount(labels[held_out]).tolist() == [10, 5, 1]
    assert np.array_equal(held_out, split_validation(labels, 0.1, seed=0)[1])
    assert not np.array_equal(held_out, split_validation(labels, 0.1, seed=1)[1])


def test_honest_protocol_never_looks_at_the_test_labels() -> None:
    training, test = clusters(300, 0, spread=4.0), clusters(200, 1, spread=4.0)
    scrambled = LabelledFeatures(test.features, np.random.default_rng(0).permutation(test.labels))
    a, b = honest(training, test, 3, QUICK, seed=0), honest(training, scrambled, 3, QUICK, seed=0)
    assert np.array_equal(a.predicted, b.predicted)
    assert (a.epochs, a.weight_decay) == (b.epochs, b.weight_decay)
    assert a.accuracy != b.accuracy


def test_honest_protocol_chooses_the_penalty_that_validates_best() -> None:
    # Hardly any data and much noise: a strong penalty wins.
    settings = QUICK.model_copy(update={"weight_decays": [0.0, 0.3], "steps_min": 400, "validation_fraction": 0.5})
    rng = np.random.default_rng(0)
    wide = LabelledFeatures(
        np.hstack([clusters(60, 0).features, 3 * rng.standard_normal((60, 200)).astype(np.float32)]),
        clusters(60, 0).labels,
    )
    assert honest(wide, wide, 3, settings, seed=0).weight_decay == 0.3


def test_paper_protocol_takes_the_best_epoch_on_the_test_data() -> None:
    training, test = clusters(300, 0, spread=4.0), clusters(200, 1, spread=4.0)
    scored = paper(training, test, 3, QUICK, seed=0)
    history: list[float] = []
    train(
        training.features,
        training.labels,
        3,
        QUICK,
        weight_decay=1e-4,
        seed=0,
        after_epoch=lambda _, r: history.append(r.accuracy(test.features, test.labels)),
    )
    assert scored.accuracy == max(history)
    assert scored.epochs == history.index(max(history)) + 1
    assert scored.interval == wilson_interval(round(scored.accuracy * 200), 200)
