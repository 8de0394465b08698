"""The two protocols of zero-shot retrieval, on features made here."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.baselines.settings import BaselineSettings
from experiments.lsm import zero_shot as module
from experiments.lsm.protocols import LabelledFeatures
from experiments.lsm.retrieval import retrieve
from experiments.lsm.zero_shot import Modality, PaperChoice, choose_by_validation, embed, summary, zero_shot
from experiments.lsm.zero_shot_models import judge_counts
from experiments.lsm.zero_shot_settings import AtvSettings, ProjectionSettings, ZeroShotSettings
from hil.errors import ConfigError

SETTINGS = ZeroShotSettings(seen=[1, 2, 3], unseen=[4, 5], shots=[0, 2], n_shot_draws=3)
PROJECTION = ProjectionSettings(outputs=8, epochs=6, penalties=[0.0, 50.0], learning_rate=0.01)


def modality(n_inputs: int, seed: int, noise: float = 0.3, n_train: int = 20, n_test: int = 12) -> Modality:
    """Classes 1 to 5 around random centres."""
    rng = np.random.default_rng(seed)
    centres = rng.random((6, n_inputs))

    def split(n: int) -> LabelledFeatures:
        labels = np.tile(np.arange(1, 6), n)
        features = centres[labels] + noise * rng.standard_normal((len(labels), n_inputs))
        return LabelledFeatures(features.astype(np.float32), labels)

    return Modality(split(n_train), split(n_test))


QUERY, GALLERY = modality(20, 0), modality(12, 1)


def test_seen_classes_are_learned_and_a_few_pairs_tell_the_unseen_ones() -> None:
    outcome = zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0)
    assert outcome.n_train_pairs == 60
    assert outcome.honest.seen.accuracy > 0.8
    assert outcome.paper.seen.accuracy > 0.8
    assert outcome.shots[0].accuracy == outcome.honest.unseen.accuracy
    assert outcome.shots[2].accuracy > 0.7
    assert outcome.chosen.validation_accuracy > 0.6
    assert set(outcome.honest.unseen.query_labels) == {4, 5}


def changed(side: Modality, split: str, classes: list[int]) -> Modality:
    """The features of some classes replaced by others."""
    samples: LabelledFeatures = getattr(side, split)
    features = np.where(np.isin(samples.labels, classes)[:, None], -5.0, samples.features).astype(np.float32)
    return replace(side, **{split: LabelledFeatures(features, samples.labels)})


@pytest.mark.parametrize(
    ("split", "classes"), [("train", SETTINGS.unseen), ("test", [*SETTINGS.seen, *SETTINGS.unseen])]
)
def test_neither_unseen_classes_nor_test_data_influence_the_honest_projections(split: str, classes: list[int]) -> None:
    one = zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0)
    other = zero_shot(changed(QUERY, split, classes), changed(GALLERY, split, classes), SETTINGS, PROJECTION, 0)
    assert one.chosen == other.chosen
    assert one.projections is not None
    assert other.projections is not None
    np.testing.assert_array_equal(one.projections.query.weight, other.projections.query.weight)
    np.testing.assert_array_equal(one.projections.gallery.mean, other.projections.gallery.mean)


def test_training_samples_of_seen_classes_do_influence_them() -> None:
    one = zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0)
    other = zero_shot(changed(QUERY, "train", [2]), GALLERY, SETTINGS, PROJECTION, 0)
    assert one.projections is not None
    assert other.projections is not None
    assert (one.projections.query.weight != other.projections.query.weight).any()


def test_validation_judges_samples_that_were_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With many inputs every pair of pure noise can be learned by heart, and none that is held out."""
    fitted: list[np.ndarray] = []  # type: ignore[type-arg]
    real = module.train

    def watched(query: np.ndarray, *rest: object, **named: object) -> None:  # type: ignore[type-arg]
        fitted.append(query)
        real(query, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "train", watched)
    noise = modality(200, 5, noise=100.0).train
    chosen = choose_by_validation(noise, noise, replace_pairs(2), 0)
    assert len(fitted) == 2  # one for each penalty
    assert len(np.unique(fitted[0], axis=0)) == 5 * 16
    assert len(fitted[0]) == 2 * 5 * 16
    assert chosen.validation_accuracy < 0.5


def replace_pairs(n: int) -> ProjectionSettings:
    return PROJECTION.model_copy(update={"pairs_per_query": n})


def test_penalty_and_epochs_are_those_that_validation_prefers() -> None:
    chosen = zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0).chosen
    assert chosen.penalty == 0.0  # the other one leaves no weights
    assert 1 <= chosen.epochs <= 6
    one = choose_by_validation(QUERY.train, GALLERY.train, PROJECTION.model_copy(update={"temperatures": [1e6]}), 0)
    assert one.temperature == 1e6


def test_honest_projections_are_trained_on_all_pairs_for_the_chosen_epochs() -> None:
    outcome = zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0)
    assert outcome.projections is not None
    seen = np.isin(QUERY.train.labels, SETTINGS.seen)
    np.testing.assert_allclose(outcome.projections.query.mean, QUERY.train.features[seen].mean(axis=0), rtol=1e-5)
    again = retrieve(*embed(outcome.projections, QUERY.test, GALLERY.test), SETTINGS.seen)
    np.testing.assert_array_equal(again.found, outcome.honest.seen.found)


def test_the_paper_protocol_takes_the_best_epoch_of_seen_test_classes_behind_the_gates() -> None:
    seen, unseen = np.array([0.9, 0.66, 0.7, 0.6]), np.array([0.5, 0.9, 0.85, 1.0])
    choice = PaperChoice.of(seen, unseen, SETTINGS)
    assert choice == PaperChoice(epoch=3, n_passing=2, n_reaching=2)
    nothing_passes = PaperChoice.of(seen, np.full(4, 0.84), SETTINGS)
    assert nothing_passes == PaperChoice(epoch=1, n_passing=0, n_reaching=0)


def test_the_paper_protocol_keeps_the_accuracies_of_every_epoch() -> None:
    outcome = zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0)
    assert {len(curve) for curve in outcome.curves.values()} == {6}
    picked = outcome.choice.epoch - 1
    assert outcome.curves["seen"][picked] == outcome.paper.seen.accuracy
    assert outcome.curves["unseen_reverse"][picked] == outcome.paper.unseen.reverse_accuracy


def test_equal_seeds_give_equal_outcomes() -> None:
    one, again, other = (zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.after[0].vectors, again.after[0].vectors)
    np.testing.assert_array_equal(one.shots[2].accuracies, again.shots[2].accuracies)
    assert (one.after[0].vectors != other.after[0].vectors).any()


def test_the_summary_holds_what_a_report_reads() -> None:
    outcome = zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0)
    found = summary(outcome, model="lsm", query={"name": "audio"}, gallery={"name": "image"})
    json.dumps(found, allow_nan=False)
    assert (found["n_train_pairs"], found["n_test_seen"], found["n_test_unseen"]) == (60, 36, 24)
    assert found["projection_outputs"] == 8
    for protocol in ("honest", "paper"):
        for group in ("seen", "unseen"):
            assert {"accuracy", "interval", "reverse_accuracy"} <= set(found[protocol][group])
        assert np.sum(found[protocol]["unseen"]["confusion"]) == 24
    assert {"epochs", "penalty", "temperature", "validation_accuracy"} <= set(found["honest"])
    assert {"epoch", "gates_passed", "n_epochs_passing", "reached"} <= set(found["paper"])
    assert found["paper"]["reached"] == (found["paper"]["unseen"]["accuracy"] >= 0.875)
    assert set(found["shots"]) == {"0", "2"}
    assert found["chance"] == {"seen": 1 / 3, "unseen": 1 / 2}


def test_models_on_spike_counts_are_chosen_by_name() -> None:
    rest = (QUERY, GALLERY, SETTINGS, PROJECTION, BaselineSettings(), 0)
    found = judge_counts("lsm", *rest, experiment="atv")
    np.testing.assert_array_equal(
        found.after[0].vectors, zero_shot(QUERY, GALLERY, SETTINGS, PROJECTION, 0).after[0].vectors
    )
    with pytest.raises(ConfigError, match="unknown model 'rnn' on spike counts"):
        judge_counts("rnn", *rest, experiment="atv")


def test_settings_of_the_paper() -> None:
    settings = AtvSettings()
    assert (settings.seen, settings.unseen) == ([1, 2, 3, 4, 5, 6, 7], [8, 9])
    assert (settings.image.const_per_us, settings.audio.const_per_us) == (0.3, 0.1)
    assert (settings.audio.decay, settings.audio.v_threshold) == (0.97, 5.3)
