"""Letters as spikes, by name and settings: the drawn ones, and what is the same for real ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.linear_model import RidgeClassifier

from experiments.datasets.letter_writers import write_letters
from experiments.datasets.letters import ENTRIES, LETTERS_NAMES, load_letters
from experiments.datasets.letters_settings import LettersSettings
from hil.errors import ConfigError
from hil.spikes import unpack_bits

DATA = Path(os.environ.get("CROSSBAR_HIL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSBAR_HIL_CACHE", str(tmp_path / "cache"))


def few(**changed: object) -> LettersSettings:
    return LettersSettings.model_validate({"train_per_class": 4, "test_per_class": 2} | changed)


def test_drawn_letters_have_the_stated_shape_and_come_from_the_cache_the_second_time() -> None:
    told: list[str] = []
    dataset = load_letters(few(), lambda what, done, total: told.append(what))
    assert set(told) == {"drawing letters", "rate coding"}
    n_told = len(told)
    again = load_letters(few(), progress=lambda what, done, total: told.append(what))
    assert len(told) == n_told
    np.testing.assert_array_equal(again.train.words, dataset.train.words)
    assert dataset.train.words.shape == (104, 49, 13)
    assert (dataset.n_inputs, dataset.n_steps, dataset.n_classes) == (784, 49, 26)
    assert dataset.train.labels.tolist() == np.repeat(np.arange(26), 4).tolist()
    assert dataset.test.labels.tolist() == np.repeat(np.arange(26), 2).tolist()
    assert dataset.synthetic
    assert "synthetic" in dataset.source
    assert "4 writers for training, 2 others for testing" in dataset.note
    assert 0.03 < unpack_bits(dataset.train.words, 784).mean() < 0.08


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"case": "capital"}, {"case": "mixed"}, {"max_spikes": 10.0}, {"shared_field": False}]
)
def test_every_setting_changes_the_spikes(changed: dict[str, object]) -> None:
    assert not np.array_equal(load_letters(few(**changed)).test.words, load_letters(few()).test.words)


def test_no_test_image_is_in_training_and_writers_differ() -> None:
    images = write_letters("small", 12, seed=3)
    assert images.shape == (26, 12, 28, 28)
    assert len(np.unique(images.reshape(26 * 12, -1), axis=0)) == 26 * 12
    ink = (images > 127).mean(axis=(2, 3))
    assert 0.10 < ink.mean() < 0.20  # EMNIST: 0.16
    # a writer's pen is the same for all letters
    share = ink / ink.mean(axis=1, keepdims=True)
    assert share.mean(axis=0).std() > 3 * share.std(axis=0).mean() / np.sqrt(26)


def test_mixed_letters_are_half_small_half_capital() -> None:
    l_or_capital = write_letters("mixed", 20, seed=0)[11]
    foot_px = (l_or_capital[:, 20:] > 127).any(axis=1).sum(axis=1)
    assert foot_px[1::2].mean() > 1.5 * foot_px[::2].mean()


def test_a_linear_classifier_is_often_right_and_often_wrong() -> None:
    images = write_letters("small", 60, seed=0).reshape(26, 60, -1) / 255.0
    labels = np.arange(26)
    train, test = images[:, :45].reshape(26 * 45, -1), images[:, 45:].reshape(26 * 15, -1)
    model = RidgeClassifier(alpha=100.0).fit(train, np.repeat(labels, 45))
    assert 0.6 < model.score(test, np.repeat(labels, 15)) < 0.95


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"dataset": "letters"}, "choose one of letters-strokes, emnist-letters"),
        ({"path": "some.npz"}, "takes no path, but got some.npz"),
        ({"dataset": "emnist-letters"}, "PATH is emnist-letters"),
        ({"dataset": "emnist-letters", "path": "/no/such"}, "/no/such does not exist"),
    ],
)
def test_wrong_name_or_path(changed: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_letters(few(**changed))
    assert named in str(caught.value)


@pytest.mark.parametrize("wrong", [{"train_per_class": 0}, {"test_fraction": 1.0}, {"max_spikes": 51}, {"case": "A"}])
def test_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LettersSettings.model_validate(wrong)


def test_table_and_settings_are_described() -> None:
    assert LETTERS_NAMES == ("letters-strokes", "emnist-letters")
    assert [bool(entry.layout) for entry in ENTRIES] == [False, True]
    for field in LettersSettings.model_fields.values():
        assert field.description
        assert isinstance(field.json_schema_extra, dict)
        assert field.json_schema_extra["source"]


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the data packs in {DATA}")
def test_real_letters_merge_to_all_26() -> None:
    dataset = load_letters(LettersSettings(dataset="emnist-letters", path=DATA, train_per_class=44, test_per_class=11))
    assert not dataset.synthetic
    assert np.bincount(dataset.train.labels).tolist() == 26 * [44]
    assert np.bincount(dataset.test.labels).tolist() == 26 * [11]
    assert "A..Z 44 + 11" in dataset.note
    # upright, an I (of EMNIST) is high and narrow, a T (of the other pack) heavy at its top
    i, t = (
        unpack_bits(dataset.train.words[dataset.train.labels == letter], 784).sum(axis=(0, 1)).reshape(28, 28)
        for letter in (8, 19)
    )
    assert i[:, 11:17].sum() > 1.5 * i[11:17].sum()
    assert t[:9].sum() > 2 * t[-9:].sum()
