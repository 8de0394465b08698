"""Loading by name and by settings."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from experiments import datasets
from experiments.datasets import BinRule, DataSettings, load_dataset, load_from_settings
from experiments.datasets.mnist_images import LabelledImages
from hil.errors import ConfigError, DataError
from hil.spikes import unpack_bits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSBAR_HIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = datasets.digits_images.make_digits

    def few(n_views: int, *, seed: int) -> LabelledImages:
        images = whole(1, seed=seed)
        return LabelledImages(images.x_train[:40], images.y_train[:40], images.x_test[:20], images.y_test[:20])

    monkeypatch.setattr(datasets.digits_images, "make_digits", few)


@pytest.mark.usefixtures("_few_digits")
def test_digits_saccade() -> None:
    told: list[tuple[int, int]] = []
    first = load_dataset("digits-saccade", progress=lambda what, done, total: told.append((done, total)))
    assert told[-1] == (60, 60)
    assert first.synthetic
    assert "simulated event camera (synthetic events)" in first.source
    assert first.train.words.shape == (40, 50, 4)
    assert 0.05 < unpack_bits(first.train.words, 256).mean() < 0.12
    n_told = len(told)
    again = load_dataset("digits-saccade", progress=lambda what, done, total: told.append((done, total)))
    assert len(told) == n_told
    np.testing.assert_array_equal(first.test.words, again.test.words)
    other = load_dataset("digits-saccade", seed=1)
    assert not np.array_equal(first.test.words, other.test.words)


@pytest.mark.usefixtures("_few_digits")
def test_settings_choose_subset_and_bins() -> None:
    fixed = DataSettings(n_train=12, n_test=5, bin_rule="fixed", bin_width_s=5e-3, seed=2)
    dataset = load_from_settings(fixed)
    assert (len(dataset.train), len(dataset.test)) == (12, 5)
    # 50 bins of 5 ms end before the last saccade does
    assert not np.array_equal(
        dataset.train.words,
        load_from_settings(DataSettings(n_train=12, n_test=5, bin_rule="equal", seed=2)).train.words,
    )
    with pytest.raises(ConfigError, match="n_train is 41"):
        load_from_settings(DataSettings(n_train=41))


def test_mnist_saccade(tmp_path: Path) -> None:
    x = np.zeros((6, 28, 28), dtype=np.uint8)
    x[:, 6:22, 12:16] = 255
    y = np.arange(6, dtype=np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    dataset = load_dataset("mnist-saccade", tmp_path / "mnist.npz")
    assert dataset.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    # test images draw noise of their own, even where the image is the same
    assert not np.array_equal(dataset.train.words[:2], dataset.test.words)
    x[:, 6:22, 18:20] = 255
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    changed = load_dataset("mnist-saccade", str(tmp_path / "mnist.npz"))
    assert not np.array_equal(dataset.train.words, changed.train.words)


@pytest.mark.parametrize(
    ("name", "path", "named"),
    [
        ("mnist", None, "choose one of nmnist, mnist-saccade, digits-saccade"),
        ("nmnist", None, "add --data PATH, where PATH is a folder or a .tar"),
        ("mnist-saccade", None, "add --data PATH, where PATH is mnist.npz"),
        ("digits-saccade", "some.npz", "takes no path"),
        ("nmnist", "/no/such/place", "/no/such/place does not exist"),
        ("mnist-saccade", "/no/such/place", "/no/such/place does not exist"),
    ],
)
def test_wrong_name_or_path(name: str, path: str | None, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_dataset(name, path)
    assert named in str(caught.value)


@pytest.mark.parametrize("name", ["nmnist", "mnist-saccade"])
def test_data_of_another_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / "some.npz"
    path.write_text("no data\n" * 100)
    (tmp_path / "empty").mkdir()
    for place in (path, tmp_path / "empty"):
        with pytest.raises(DataError, match=place.name):
            load_dataset(name, place)


def test_bad_numbers() -> None:
    with pytest.raises(ConfigError, match="seed is -1"):
        load_dataset("digits-saccade", seed=-1)
    with pytest.raises(ConfigError, match="digits_views is 0"):
        load_dataset("digits-saccade", digits_views=0)


@pytest.mark.parametrize(
    "wrong", [{"bin_width_s": 0.0}, {"bin_rule": "other"}, {"n_train": 0}, {"digits_views": 0}, {"colour": 1}]
)
def test_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DataSettings.model_validate(wrong)


def test_every_setting_is_described() -> None:
    for name, field in DataSettings.model_fields.items():
        assert field.description, name
        assert isinstance(field.json_schema_extra, dict), name
        assert {"unit", "source"} <= field.json_schema_extra.keys(), name


def test_import_is_light() -> None:
    code = (
        "import sys; import experiments.datasets.settings; "
        "print([name for name in ('numba', 'scipy', 'sklearn', 'torch', 'platformdirs') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_bin_rule_key_ignores_an_unused_width() -> None:
    assert BinRule("equal", 1e-3).key() == BinRule("equal", 2e-3).key()
    assert BinRule("fixed", 1e-3).key() != BinRule("fixed", 2e-3).key()
