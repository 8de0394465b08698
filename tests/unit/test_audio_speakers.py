"""Leave-one-speaker-out."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.lsm import speakers
from experiments.lsm.protocols import Chosen, LabelledFeatures
from experiments.lsm.speakers import LeftOut, SpeakerScore, leave_one_speaker_out
from hil.errors import ConfigError
from hil.lsm.accuracy import wilson_interval
from hil.lsm.readout import Readout
from hil.lsm.settings import ReadoutSettings

QUICK = ReadoutSettings(weight_decays=[1e-3], epochs=20, steps_min=200)
NAMES = ("ann", "bob", "cyd")


def spoken(n_per_speaker: int, *, odd_speaker: int | None = None) -> tuple[LabelledFeatures, NDArray[np.int64]]:
    """Two classes told apart by the first feature, the other way round for an odd speaker."""
    rng = np.random.default_rng(n_per_speaker)
    who = np.repeat(np.arange(3), n_per_speaker)
    labels = np.tile([0, 1], len(who) // 2)
    features = rng.normal(0.0, 0.05, (len(who), 4)).astype(np.float32)
    features[:, 0] += np.where(who == odd_speaker, 1 - labels, labels)
    return LabelledFeatures(features, labels), who


def test_a_speaker_unlike_the_others_is_not_understood() -> None:
    (training, who_train), (test, who_test) = spoken(20, odd_speaker=1), spoken(6, odd_speaker=1)
    told: list[tuple[int, int]] = []
    found = leave_one_speaker_out(
        training, test, who_train, who_test, NAMES, 2, QUICK, 0,
        lambda what, done, total, note="": told.append((done, total)),
    )  # fmt: skip
    assert [score.speaker for score in found.scores] == ["ann", "bob", "cyd"]
    # bob's own recordings would have taught the read-out better
    assert found.scores[1].accuracy < 0.1
    assert [score.n_samples for score in found.scores] == [26, 26, 26]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_nothing_of_the_one_left_out_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[float]] = []

    def choose(training: LabelledFeatures, n_classes: int, settings: ReadoutSettings, seed: int) -> Chosen:
        seen.append(set(training.features[:, 0].tolist()))
        assert len(training.features) == len(training.labels)
        return Chosen(Readout(np.zeros((n_classes, 1), np.float32), np.zeros(n_classes, np.float32)), 0.0, 1, 0.5)

    monkeypatch.setattr(speakers, "choose_by_validation", choose)
    who_train, who_test = np.array([0, 0, 2, 2, 1]), np.array([1, 0])
    numbers = np.arange(7, dtype=np.float32)[:, None]
    training = LabelledFeatures(numbers[:5], np.array([0, 1, 0, 1, 1]))
    test = LabelledFeatures(numbers[5:], np.array([0, 1]))
    found = leave_one_speaker_out(training, test, who_train, who_test, NAMES, 2, QUICK, 0)
    assert seen == [{2.0, 3.0, 4.0, 5.0}, {0.0, 1.0, 2.0, 3.0, 6.0}, {0.0, 1.0, 4.0, 5.0, 6.0}]
    # a read-out of zeros says class 0
    assert [(score.n_right, score.n_samples) for score in found.scores] == [(1, 3), (1, 2), (1, 2)]


def test_speakers_without_samples_are_passed_over() -> None:
    features, who = spoken(8)
    kept = np.flatnonzero(who != 1)
    found = leave_one_speaker_out(features[kept], features[kept], who[kept], who[kept], NAMES, 2, QUICK, 0)
    assert [score.speaker for score in found.scores] == ["ann", "cyd"]
    alone = np.flatnonzero(who == 0)
    with pytest.raises(ConfigError, match="samples of 1"):
        leave_one_speaker_out(features[alone], features[alone], who[alone], who[alone], NAMES, 2, QUICK, 0)


def test_description_holds_intervals_and_the_mean_over_speakers() -> None:
    found = LeftOut((SpeakerScore("ann", 9, 10, 0.95), SpeakerScore("bob", 10, 40, 0.9)))
    described = json.loads(json.dumps(found.described()))
    assert described["mean_accuracy"] == pytest.approx((0.9 + 0.25) / 2)
    first = described["speakers"][0]
    assert first["speaker"] == "ann"
    assert first["accuracy"] == 0.9
    assert first["accuracy_interval"] == pytest.approx(wilson_interval(9, 10))
    assert first["n_samples"] == 10
    assert first["validation_accuracy"] == 0.95
