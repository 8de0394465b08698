"""Zero-shot baselines: losses against their formulas, training, protocols."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.baselines import losses
from experiments.baselines.settings import BaselineSettings
from experiments.baselines.towers import Samples, Tower
from experiments.baselines.zero_shot import run_lsm_proto, train_and_judge
from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm.protocols import LabelledFeatures
from experiments.lsm.zero_shot import Modality, ZeroShotOutcome
from experiments.lsm.zero_shot_settings import AtvSettings
from hil.errors import ConfigError
from hil.spikes import pack_bits

SEEN, UNSEEN = [0, 1, 2], [3, 4]
CLASSES = AtvSettings(seen=SEEN, unseen=UNSEEN, n_test_per_class=6, shots=[0, 2], n_shot_draws=3)


def quick(**changes: Any) -> BaselineSettings:
    """Small networks and short trainings; thresholds that few inputs can reach."""
    encoder = {"v_threshold": 1.0, "lens": 0.5, "const": 0.4}
    layer = {"outputs": 8, "batch": 20, "epochs": 3, "learning_rate": 1e-2, **changes}
    trained = {"query": encoder, "gallery": encoder, "n_neurons": 16, **layer}
    models = {"srnn_clip": trained, "srnn_proto": trained, "lsm_proto": layer}
    return BaselineSettings.model_validate({"atv": models})


def rasters(n_inputs: int, n_steps: int, seed: int, n_train: int = 10) -> SpikeDataset:
    """Five classes, each with inputs of its own that are busy."""
    rng = np.random.default_rng(seed)

    def split(n: int) -> SpikeSet:
        labels = np.repeat(np.arange(5), n)
        busy = np.arange(n_inputs) % 5 == labels[:, None]
        bits = rng.random((len(labels), n_steps, n_inputs)) < np.where(busy, 0.5, 0.08)[:, None]
        return SpikeSet(pack_bits(bits), labels)

    return SpikeDataset("toy", split(n_train), split(6), n_inputs, n_steps, 5, True, "made for a test")


def features(n_inputs: int, seed: int, n_train: int = 10) -> Modality:
    """Five classes about centres of their own."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, n_inputs))

    def split(n: int) -> LabelledFeatures:
        labels = np.repeat(np.arange(5), n)
        return LabelledFeatures((centres[labels] + 0.5 * rng.standard_normal((5 * n, n_inputs))).astype("f4"), labels)

    return Modality(split(n_train), split(6))


def judged(
    model: str, settings: BaselineSettings, query: SpikeDataset, gallery: SpikeDataset, seed: int = 0
) -> tuple[ZeroShotOutcome, list[tuple[str, int]]]:
    noted: list[tuple[str, int]] = []
    outcome = train_and_judge(
        query, gallery, model, "atv", CLASSES, settings, seed=seed,
        note=lambda training, epoch, _, **scores: noted.append((training, epoch)),
    )  # fmt: skip
    return outcome, noted


def units(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator()
    generator.manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1)


def cross_entropy(score: np.ndarray, target: np.ndarray) -> float:
    """Mean over the rows of -sum target log softmax(score)."""
    return float(-(target * (score - np.log(np.exp(score).sum(1, keepdims=True)))).sum(1).mean())


def test_soft_targets_are_those_of_the_formula() -> None:
    q, g = units(5, 0).numpy(), units(5, 1).numpy()
    logits = 4 * q @ g.T / 0.7
    target = np.exp(4 * (q @ q.T + g @ g.T) / 2 * 0.7)
    target /= target.sum(1, keepdims=True)
    expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target.T)) / 2
    assert float(losses.soft_targets(torch.tensor(q), torch.tensor(g), 0.7, 2.0)) == pytest.approx(expected, rel=1e-5)


def test_label_targets_are_those_of_the_formula() -> None:
    q, g, labels = units(5, 2).numpy(), units(5, 3).numpy(), np.array([0, 1, 0, 2, 0])
    same = (labels[:, None] == labels).astype(float)
    target = same / same.sum(1, keepdims=True)
    logits = 3.0 * q @ g.T
    expected = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    ours = losses.label_targets(torch.tensor(q), torch.tensor(g), torch.tensor(labels), torch.tensor(3.0))
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_prototypes_are_class_means_and_scores_squared_distances() -> None:
    support, asked = units(6, 4), units(3, 5)
    labels = torch.tensor([7, 3, 7, 3, 3, 7])
    means = np.stack([support[labels == c].mean(0).numpy() for c in (3, 7)])
    score = -((asked.numpy()[:, None] - means) ** 2).sum(2)
    expected = cross_entropy(score, np.array([[0, 1], [1, 0], [0, 1]]))
    ours = losses.prototypes(support, labels, asked, torch.tensor([7, 3, 7]))
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_queries_of_classes_without_support_do_not_count() -> None:
    support, asked, labels = units(4, 6), units(3, 7), torch.tensor([0, 1, 0, 1])
    with_stranger = losses.prototypes(support, labels, asked, torch.tensor([0, 5, 1]))
    without = losses.prototypes(support, labels, asked[[0, 2]], torch.tensor([0, 1]))
    assert float(with_stranger) == pytest.approx(float(without))
    assert float(losses.prototypes(support, labels, asked, torch.tensor([5, 5, 5]))) == 0


@pytest.mark.parametrize(
    ("model", "changes"),
    [("srnn-clip", {"loss": "soft"}), ("srnn-clip", {"loss": "labels", "temperature": 0.2}), ("srnn-proto", {})],
)
def test_it_learns_to_retrieve_seen_classes(model: str, changes: dict[str, Any]) -> None:
    settings = quick(epochs=6)
    name = model.replace("-", "_")
    table = getattr(settings.atv, name).model_copy(update=changes)
    settings = settings.model_copy(update={"atv": settings.atv.model_copy(update={name: table})})
    outcome, _ = judged(model, settings, rasters(20, 12, 0, 20), rasters(30, 9, 1, 20))
    assert outcome.honest.seen.accuracy > 0.7
    assert outcome.n_train_pairs == 60
    assert outcome.after[0].vectors.shape == (30, 8)
    assert outcome.before[0].vectors.shape == (30, 16)


def test_prototypes_on_counts_learn_to_retrieve_seen_classes() -> None:
    outcome = run_lsm_proto(features(12, 0), features(9, 1), CLASSES, quick(epochs=10, learning_rate=3e-2), seed=0)
    assert outcome.honest.seen.accuracy > 0.8
    assert set(outcome.shots) == {0, 2}


@pytest.mark.parametrize("model", ["srnn-clip", "srnn-proto"])
def test_the_seed_decides_everything(model: str) -> None:
    query, gallery, settings = rasters(20, 12, 0), rasters(30, 9, 1), quick(epochs=1)
    first, again, other = (judged(model, settings, query, gallery, seed)[0] for seed in (3, 3, 4))
    for side in (0, 1):
        np.testing.assert_array_equal(first.after[side].vectors, again.after[side].vectors)
        assert not np.array_equal(first.after[side].vectors, other.after[side].vectors)


def test_encoders_are_trained() -> None:
    query, gallery = rasters(20, 12, 0), rasters(30, 9, 1)
    with_rate = [judged("srnn-clip", quick(epochs=1, learning_rate=rate), query, gallery)[0] for rate in (1e-9, 1e-2)]
    for side in (0, 1):
        assert not np.array_equal(with_rate[0].before[side].vectors, with_rate[1].before[side].vectors)


@pytest.mark.parametrize("model", ["srnn-clip", "srnn-proto"])
def test_test_labels_and_unseen_classes_change_nothing_of_the_honest_towers(model: str) -> None:
    query, gallery, settings = rasters(20, 12, 0), rasters(30, 9, 1), quick(epochs=2)
    rng = np.random.default_rng(5)

    def disturbed(one: SpikeDataset) -> SpikeDataset:
        # Test labels are shuffled within seen and unseen classes: the same samples are tested, under other names.
        labels = one.test.labels.copy()
        for group in (SEEN, UNSEEN):
            members = np.flatnonzero(np.isin(labels, group))
            labels[members] = rng.permutation(labels[members])
        words = one.train.words.copy()
        words[np.isin(one.train.labels, UNSEEN)] = 0
        return replace(one, train=SpikeSet(words, one.train.labels), test=SpikeSet(one.test.words, labels))

    def by_content(outcome: ZeroShotOutcome, side: int) -> np.ndarray:
        vectors = outcome.after[side].vectors
        return vectors[np.lexsort(vectors.T)]

    plain, _ = judged(model, settings, query, gallery)
    blind, _ = judged(model, settings, disturbed(query), disturbed(gallery))
    assert plain.chosen == blind.chosen
    for side in (0, 1):
        np.testing.assert_array_equal(by_content(plain, side), by_content(blind, side))


def test_only_the_paper_protocol_of_prototypes_trains_on_test_samples() -> None:
    query, gallery, settings = rasters(20, 12, 0), rasters(30, 9, 1), quick(epochs=2)
    clip, noted = judged("srnn-clip", settings, query, gallery)
    assert [name for name, _ in noted] == ["validation"] * 2 + ["all"] * 2
    # Without a leak both protocols pick from one training.
    assert clip.honest.seen.accuracy == clip.curves["seen"][clip.chosen.epochs - 1]
    _, noted = judged("srnn-proto", settings, query, gallery)
    assert noted == [("validation", 1), ("validation", 2), ("leaking", 1), ("leaking", 2)]


def test_labels_of_seen_test_samples_reach_the_towers_of_the_leaking_training_alone() -> None:
    query, gallery = features(12, 0), features(9, 1)

    def relabelled(one: Modality) -> Modality:
        labels = one.test.labels.copy()
        labels[np.isin(labels, SEEN)] = (labels[np.isin(labels, SEEN)] + 1) % len(SEEN)
        return Modality(one.train, LabelledFeatures(one.test.features, labels))

    settings = quick(epochs=10, learning_rate=3e-2)
    plain = run_lsm_proto(query, gallery, CLASSES, settings, seed=0)
    other = run_lsm_proto(query, relabelled(gallery), CLASSES, settings, seed=0)
    np.testing.assert_array_equal(plain.honest.unseen.found, other.honest.unseen.found)
    assert plain.chosen == other.chosen
    assert not np.array_equal(plain.curves["unseen"], other.curves["unseen"])


@pytest.mark.parametrize(("gate_seen", "gate_unseen", "n_passing"), [(0, 0, 1), (1, 0, 0), (0, 1, 0)])
def test_gates_are_those_of_the_model(gate_seen: float, gate_unseen: float, n_passing: int) -> None:
    settings = quick(epochs=1, gate_seen=gate_seen, gate_unseen=gate_unseen)
    outcome, _ = judged("srnn-clip", settings, rasters(20, 12, 0), rasters(30, 9, 1))
    assert outcome.curves["seen"] < 1
    assert outcome.curves["unseen"] < 1
    assert outcome.choice.n_passing == n_passing


def test_features_are_standardised_by_the_training_samples() -> None:
    generator = torch.Generator()
    generator.manual_seed(0)
    values = 100 + 5 * np.random.default_rng(0).standard_normal((40, 6)).astype("f4")
    samples = Samples(values, np.zeros(40, np.int64))
    shifted = Samples(3 * values - 7, samples.labels)
    towers = [Tower(one, None, 4, generator.manual_seed(0)) for one in (samples, shifted)]
    np.testing.assert_allclose(towers[0].embed(samples).vectors, towers[1].embed(shifted).vectors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(towers[0].embed(samples).vectors, axis=1), 1, rtol=1e-5)


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="srnn-clap"):
        judged("srnn-clap", quick(), rasters(20, 12, 0), rasters(30, 9, 1))
