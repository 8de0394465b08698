"""Trained classifiers: learning, seeds, protocols."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.baselines.networks import SrnnAnn
from experiments.baselines.settings import SUPERVISED_MODELS, BaselineSettings
from experiments.baselines.spikes import over_steps
from experiments.baselines.supervised_protocols import BothScored, both_protocols
from experiments.baselines.training import Epoch, train
from experiments.datasets import SpikeDataset, SpikeSet
from hil.errors import ConfigError
from hil.spikes import pack_bits

N_INPUTS, N_STEPS, N_CLASSES = 24, 10, 3


def rasters(n_train: int, n_test: int = 60, seed: int = 0) -> SpikeDataset:
    """A class is a third of the inputs that is busy; every class of the last samples is as likely."""
    rng = np.random.default_rng(seed)

    def split(n: int) -> SpikeSet:
        labels = rng.permutation(np.arange(n) % N_CLASSES)
        busy = np.arange(N_INPUTS) % N_CLASSES == labels[:, None]
        bits = rng.random((n, N_STEPS, N_INPUTS)) < np.where(busy, 0.35, 0.1)[:, None]
        return SpikeSet(pack_bits(bits), labels)

    return SpikeDataset("toy", split(n_train), split(n_test), N_INPUTS, N_STEPS, N_CLASSES, True, "made for a test")


def quick(**changes: Any) -> BaselineSettings:
    """A small network; its inputs are few, so its weights are large."""
    table = {"const": 0.15, "batch": 20, "epochs": 4, "learning_rate": 1e-2, **changes}
    vision = {model.replace("-", "_"): table for model in SUPERVISED_MODELS}
    return BaselineSettings.model_validate(
        {"n_neurons": 20, "validation_fraction": 0.2, "steps_min": 1, "vision": vision}
    )


def scored(dataset: SpikeDataset, model: str, settings: BaselineSettings, seed: int = 0) -> BothScored:
    return both_protocols(dataset, model, settings, seed=seed, note=lambda *_: None)


@pytest.mark.parametrize(
    ("model", "loss"),
    [("srnn-ann", "squared"), ("srnn-ann", "cross-entropy"), ("srnn-snn", "squared"), ("rnn", "cross-entropy")],
)
def test_it_learns_a_task_that_counts_can_tell(model: str, loss: str) -> None:
    scale = 1.0 if loss == "squared" else 10.0
    found = scored(rasters(200), model, quick(loss=loss, scale=scale, epochs=6))
    assert found.honest.accuracy > 0.8
    assert found.validation_accuracy > 0.8
    assert len(found.honest.predicted) == 60


@pytest.mark.parametrize("model", SUPERVISED_MODELS)
def test_the_seed_decides_everything(model: str) -> None:
    dataset, settings = rasters(60), quick(epochs=2)
    first, again, other = (scored(dataset, model, settings, seed) for seed in (3, 3, 4))
    for name, value in first.weights.items():
        np.testing.assert_array_equal(value, again.weights[name])
    assert not np.array_equal(first.weights["head"], other.weights["head"])


def test_recurrent_weights_are_trained() -> None:
    dataset = rasters(60)
    short, long = (scored(dataset, "srnn-ann", quick(epochs=n)) for n in (1, 3))
    for name in ("encoder.weight", "encoder.recurrent", "head"):
        assert not np.array_equal(short.weights[name], long.weights[name])


def test_test_labels_change_nothing_of_the_honest_network() -> None:
    dataset, settings = rasters(90), quick(epochs=3)
    shuffled = replace(
        dataset, test=SpikeSet(dataset.test.words, np.random.default_rng(1).permutation(dataset.test.labels))
    )
    plain, blind = scored(dataset, "srnn-ann", settings), scored(shuffled, "srnn-ann", settings)
    assert plain.honest.epochs == blind.honest.epochs
    for name, value in plain.weights.items():
        np.testing.assert_array_equal(value, blind.weights[name])
    np.testing.assert_array_equal(plain.honest.predicted, blind.honest.predicted)


def test_validation_chooses_the_honest_epoch_and_the_test_data_the_paper_epoch() -> None:
    # Labels of noise: curves go up and down, so that the two choices differ for some seed.
    rng = np.random.default_rng(0)
    dataset = rasters(60, 20)
    dataset = replace(dataset, train=SpikeSet(dataset.train.words, rng.permutation(dataset.train.labels)))
    differ = False
    for seed in range(4):
        heads: list[np.ndarray] = []

        def note(training: str, epoch: Epoch, _: dict[str, float], heads: list[np.ndarray] = heads) -> None:
            if training == "all":
                heads.append(epoch.network.state_dict()["head"].numpy().copy())

        found = both_protocols(dataset, "srnn-ann", quick(epochs=5), seed=seed, note=note)
        validation, test = found.curves["validation"], found.curves["test"]
        best = np.flatnonzero(validation == validation.max())
        assert found.honest.epochs == best[-1] + 1
        assert found.validation_accuracy == validation.max()
        assert found.honest.accuracy == test[found.honest.epochs - 1]
        np.testing.assert_array_equal(found.weights["head"], heads[found.honest.epochs - 1])
        assert found.paper.accuracy == test.max()
        assert found.paper.epochs == test.argmax() + 1
        differ |= found.honest.epochs != found.paper.epochs
    assert differ


def test_a_small_set_gets_more_epochs_and_the_chosen_share_of_them() -> None:
    settings = quick(epochs=1).model_copy(update={"steps_min": 8})
    found = scored(rasters(45), "srnn-ann", settings)
    # At 20 samples a step, the 36 to fit are two steps an epoch, and all 45 are three.
    validation = found.curves["validation"]
    assert (len(validation), len(found.curves["test"])) == (4, 3)
    chosen = int(np.flatnonzero(validation == validation.max())[-1]) + 1
    assert found.honest.epochs == max(1, round(3 * chosen / 4))


def test_a_gradient_that_is_too_long_is_cut() -> None:
    settings = quick(epochs=1)
    weights = [
        scored(rasters(60), "srnn-ann", settings.model_copy(update={"gradient_max": limit})).weights["head"]
        for limit in (1e-12, 1.0)
    ]
    assert np.abs(weights[0]).max() < 0.5 * np.abs(weights[1]).max()


def test_spike_rate_is_that_of_neurons_that_fire() -> None:
    dataset, settings = rasters(60), quick(epochs=1)
    rates = {model: scored(dataset, model, settings).spike_rate for model in SUPERVISED_MODELS}
    assert rates["rnn"] is None
    assert 0 < rates["srnn-ann"] < 0.5
    assert 0 < rates["srnn-snn"] < 0.5


def test_every_epoch_of_both_trainings_is_noted() -> None:
    noted: list[tuple[str, int, list[str]]] = []
    both_protocols(
        rasters(60), "rnn", quick(epochs=2), seed=0,
        note=lambda training, epoch, scores: noted.append((training, epoch.number, list(scores))),
    )  # fmt: skip
    assert noted == [
        ("validation", 1, ["validation_accuracy"]),
        ("validation", 2, ["validation_accuracy"]),
        ("all", 1, ["test_accuracy"]),
        ("all", 2, ["test_accuracy"]),
    ]


def test_one_sample_of_each_class_cannot_be_split() -> None:
    dataset = rasters(60)
    one_each = dataset.train.taken(np.array([int(np.flatnonzero(dataset.train.labels == c)[0]) for c in range(3)]))
    with pytest.raises(ConfigError, match="no class has two"):
        scored(replace(dataset, train=one_each), "srnn-ann", quick())


def test_the_table_is_that_of_the_family_of_the_data() -> None:
    settings = BaselineSettings()
    audio = SpikeDataset(
        "spoken-digits", SpikeSet(np.zeros((1, 2, 1), np.uint64), np.zeros(1, np.int64)),
        SpikeSet(np.zeros((1, 2, 1), np.uint64), np.zeros(1, np.int64)), 64, 2, 2, True, "made for a test",
    )  # fmt: skip
    assert settings.of("srnn-snn", audio) is settings.audio.srnn_snn
    assert settings.of("srnn-snn", rasters(9)) is settings.vision.srnn_snn


def test_scale_multiplies_what_the_head_reads() -> None:
    samples = over_steps(rasters(6).train.words, N_INPUTS)
    table = quick().vision.srnn_ann
    scores = []
    for scale in (1.0, 3.0):
        generator = torch.Generator()
        generator.manual_seed(0)
        network = SrnnAnn(N_INPUTS, 20, N_CLASSES, table.model_copy(update={"scale": scale}), generator)
        torch.nn.init.ones_(network.head)
        scores.append(network(samples)[0].detach().numpy())
    assert scores[0].any()
    np.testing.assert_allclose(scores[1], 3 * scores[0], rtol=1e-6)


def test_the_learning_rate_falls_to_zero() -> None:
    heads: list[np.ndarray] = []
    train(
        "srnn-ann", rasters(60), rasters(60).train, quick(epochs=6), seed=0,
        after_epoch=lambda epoch: heads.append(epoch.network.state_dict()["head"].numpy().copy()),
    )  # fmt: skip
    moved = [float(np.abs(later - earlier).mean()) for earlier, later in itertools.pairwise(heads)]
    assert moved[-1] < moved[0] / 3
