"""Recordings from motor cortex, by name and settings: the modelled ones, and what is the same for real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from experiments.datasets import cortex
from experiments.datasets.brain import BRAIN_NAMES, ENTRIES, load_brain
from experiments.datasets.brain_settings import BrainSettings
from experiments.datasets.cortex import BIN_S, GO_BIN, N_BINS, N_CHANNELS, Cortex
from experiments.datasets.pen_trials import pen_movements, write_trials
from experiments.datasets.strokes import letter_paths
from hil.errors import ConfigError
from hil.spikes import unpack_bits

QUIET = replace(Cortex(), gain_spread=0.0, common=0.0, drift=0.0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSBAR_HIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def trials() -> NDArray[np.bool_]:
    return write_trials("small", 27, seed=0)


def few(**changed: object) -> BrainSettings:
    return BrainSettings.model_validate({"trials": 4, "test_trials": 1} | changed)


def test_modelled_trials_have_the_stated_shape_and_come_from_the_cache_the_second_time() -> None:
    told: list[int] = []
    dataset = load_brain(few(), lambda what, done, total: told.append(done))
    assert told == list(range(1, 27))
    again = load_brain(few(), progress=lambda what, done, total: told.append(done))
    assert len(told) == 26
    np.testing.assert_array_equal(again.test.words, dataset.test.words)
    assert dataset.train.words.shape == (78, 201, 3)
    assert (dataset.n_inputs, dataset.n_steps, dataset.n_classes) == (192, 201, 26)
    assert dataset.train.labels.tolist() == np.repeat(np.arange(26), 3).tolist()
    assert dataset.test.labels.tolist() == list(range(26))
    assert dataset.synthetic
    assert "synthetic" in dataset.source
    assert "1 of 4 trials of each letter held out, drawn at random" in dataset.note


@pytest.mark.parametrize("changed", [{"seed": 1}, {"case": "capital"}])
def test_person_and_case_change_the_spikes(changed: dict[str, object]) -> None:
    assert not np.array_equal(load_brain(few(**changed)).train.words, load_brain(few()).train.words)


@pytest.mark.parametrize("held_out", ["drawn", "last"])
def test_the_split_holds_out_the_said_trials(held_out: str) -> None:
    every = write_trials("small", 4, seed=0)
    dataset = load_brain(few(trials=4, test_trials=2, held_out=held_out))
    test = unpack_bits(dataset.test.words, 192).reshape(26, 2, 201, 192)
    train = unpack_bits(dataset.train.words, 192).reshape(26, 2, 201, 192)
    taken = [
        [next(i for i in range(4) if np.array_equal(every[letter, i], one)) for one in (*train[letter], *test[letter])]
        for letter in range(26)
    ]
    assert all(sorted(order) == list(range(4)) for order in taken)
    held = {tuple(order[2:]) for order in taken}
    assert held == {(2, 3)} if held_out == "last" else len(held) > 5


def test_rates_are_those_of_a_population(trials: NDArray[np.bool_]) -> None:
    assert trials.shape == (26, 27, 201, 192)
    rate = trials.mean(axis=(0, 1, 2))
    assert 0.10 < trials.mean() < 0.22
    assert rate.min() < 0.05
    assert rate.max() > 0.3
    assert np.median(rate) < rate.mean()  # log-normal


def test_activity_tells_letters_apart_after_the_go_cue_only(trials: NDArray[np.bool_]) -> None:
    def right(bins: slice) -> float:
        parts = np.array_split(np.arange(bins.start, bins.stop), 6)
        counts = np.concatenate([np.sqrt(trials[:, :, part].sum(axis=2)) for part in parts], axis=2)
        train, test = counts[:, :24].reshape(26 * 24, -1), counts[:, 24:].reshape(26 * 3, -1)
        mean = train.mean(axis=0)
        train, test = train - mean, test - mean
        targets = np.repeat(np.eye(26), 24, axis=0) - 1 / 26
        weights = train.T @ np.linalg.solve(train @ train.T + 1000 * np.eye(len(train)), targets)
        return float(((test @ weights).argmax(axis=1) == np.repeat(np.arange(26), 3)).mean())

    assert right(slice(0, GO_BIN)) < 0.15
    assert 0.4 < right(slice(GO_BIN, N_BINS)) < 0.95


def test_drift_is_shared_by_the_letters_of_a_block() -> None:
    # a drift of each letter's own would mark it in training and test
    channels = cortex.population(replace(Cortex(), drift=0.5), np.random.default_rng(0), 27)
    assert channels.drift.shape == (9, N_CHANNELS)
    still = np.zeros((27, N_BINS, 9))
    one, two = (
        cortex.spikes(QUIET, channels, still, np.random.default_rng(seed)).mean(axis=1).reshape(9, 3, -1).mean(axis=1)
        for seed in (1, 2)
    )
    assert np.corrcoef((one - one.mean(axis=0)).ravel(), (two - two.mean(axis=0)).ravel())[0, 1] > 0.8


def test_a_channel_spikes_most_in_its_preferred_direction_and_before_the_movement() -> None:
    channels = cortex.population(QUIET, np.random.default_rng(0), 96)
    angle = np.arctan2(channels.weights_hz[1], channels.weights_hz[0])
    # at one speed, 0.3 s long, from bin 100 on, in eight directions
    along, terms = np.arange(8) * np.pi / 4, np.zeros((8, N_BINS, 9))
    terms[:, 100:130, 0], terms[:, 100:130, 1] = np.cos(along)[:, None], np.sin(along)[:, None]
    made = cortex.spikes(QUIET, channels, np.repeat(terms, 12, axis=0), np.random.default_rng(1))
    made = made.reshape(8, 12, N_BINS, N_CHANNELS)
    strong = np.hypot(*channels.weights_hz[:2]) > 15
    early = (made[:, :, 92:118].mean(axis=(1, 2)))[:, strong]
    vector = (early * np.exp(1j * along)[:, None]).sum(axis=0)
    error = np.abs(np.angle(vector * np.exp(-1j * angle[strong])))
    assert np.median(error) < 0.2
    preferred = np.round(angle / (np.pi / 4)).astype(int) % 8
    course = np.mean([made[preferred[c], :, :, c].mean(axis=0) for c in np.flatnonzero(strong)], axis=0)
    rest = course[:80].mean()
    over = np.flatnonzero(course > (rest + course[95:115].mean()) / 2)
    assert np.median(over) == pytest.approx(114.5 - Cortex().lead_s / BIN_S, abs=3)


def test_untuned_channels_and_clamping() -> None:
    channels = cortex.population(Cortex(), np.random.default_rng(0), 3)
    untuned = (channels.weights_hz == 0).all(axis=0)
    assert untuned.mean() == pytest.approx(1 - Cortex().tuned, abs=0.08)
    busy = replace(channels, baseline_hz=np.full(N_CHANNELS, 100.0), weights_hz=0 * channels.weights_hz)
    made = cortex.spikes(QUIET, replace(busy, drift=np.ones((1, N_CHANNELS))), np.zeros((3, N_BINS, 9)),
                         np.random.default_rng(0))  # fmt: skip
    assert made.mean() == pytest.approx(1 - np.exp(-1), abs=0.01)  # of Poisson counts with mean 1, those above 0


def test_the_pen_starts_after_the_go_cue_at_varying_times_and_speeds() -> None:
    path = letter_paths("small")[19]  # t: two strokes
    at, lifted = pen_movements(path, path.points, np.random.default_rng(0), 200)
    assert at.shape == (200, N_BINS, 2)
    moving = np.abs(np.diff(at, axis=1)).sum(axis=2) > 0
    first, last = moving.argmax(axis=1), N_BINS - 1 - moving[:, ::-1].argmax(axis=1)
    assert first.min() >= GO_BIN + 9
    assert 3 < first.std() < 9
    took_s = (last - first) * BIN_S
    assert took_s.mean() == pytest.approx(path.time_s[-1], rel=0.1)
    assert 0.1 < np.log(took_s).std() < 0.25
    assert set(np.unique(lifted)) == {0.0, 1.0}
    assert (lifted.sum(axis=1) > 0).all()
    assert not lifted[:, :GO_BIN].any()


def test_the_go_cue_is_answered_whatever_the_letter() -> None:
    terms = cortex.movement_terms(np.full((2, N_BINS, 2), 0.7), np.zeros((2, N_BINS)))
    assert not terms[..., :8].any()
    assert terms[..., 8].argmax(axis=1).tolist() == [GO_BIN + 15] * 2


def test_terms_of_a_movement_are_its_derivatives() -> None:
    t_s = np.arange(N_BINS) * BIN_S
    at = np.stack([0.5 + 0.2 * np.sin(6 * t_s), 0.5 + 0.2 * np.cos(6 * t_s)], axis=1)[None]
    terms = cortex.movement_terms(at, np.zeros((1, N_BINS)))[0, 5:-5]
    np.testing.assert_allclose(terms[:, 2], 1.2 / 2.4, rtol=0.01)
    np.testing.assert_allclose(np.hypot(terms[:, 0], terms[:, 1]), terms[:, 2])
    np.testing.assert_allclose(np.hypot(terms[:, 3], terms[:, 4]), 0.2 / 0.25)
    np.testing.assert_allclose(np.hypot(terms[:, 5], terms[:, 6]), 7.2 / 40, rtol=0.01)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"dataset": "brain"}, "choose one of letters-pen, willett"),
        ({"path": "some.mat"}, "takes no path, but got some.mat"),
        ({"dataset": "willett"}, "PATH is singleLetters.mat"),
        ({"dataset": "willett", "path": "/no/such"}, "/no/such does not exist"),
        ({"test_trials": 4}, "test_trials is 4, but there are 4 trials"),
    ],
)
def test_wrong_name_path_or_number(changed: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_brain(few(**changed))
    assert named in str(caught.value)


@pytest.mark.parametrize("wrong", [{"trials": 1}, {"test_trials": 0}, {"held_out": "first"}, {"case": "mixed"}])
def test_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        BrainSettings.model_validate(wrong)


def test_table_and_settings_are_described() -> None:
    assert BRAIN_NAMES == ("letters-pen", "willett")
    assert [bool(entry.layout) for entry in ENTRIES] == [False, True]
    for field in BrainSettings.model_fields.values():
        assert field.description
        assert isinstance(field.json_schema_extra, dict)
        assert field.json_schema_extra["source"]
