"""Spoken digits by name and by settings."""

import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from experiments.datasets import audio, cache, voices
from experiments.datasets.audio import AUDIO_NAMES, ENTRIES, load_audio
from experiments.datasets.audio_settings import AudioSettings, NtidigitsSettings, SpokenDigitNeurons
from experiments.datasets.cochlea import Cochlea
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from experiments.datasets.utterances import ChannelEvents, Utterance, Utterances
from hil.errors import ConfigError, DataError
from hil.lsm.settings import LsmSettings
from hil.spikes import unpack_bits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Tones for digits: two speakers, two digits, takes 3 to 6."""
    place = tmp_path / "fsdd" / "recordings"
    place.mkdir(parents=True)
    t = np.arange(1600) / 8000
    for digit in (3, 8):
        for speaker in ("ann", "bob"):
            for take in range(3, 7):
                samples = np.sin(2 * np.pi * (200.0 * digit + 10.0 * take) * t) * 9000.0
                with wave.open(str(place / f"{digit}_{speaker}_{take}.wav"), "wb") as writer:
                    writer.setparams((1, 2, 8000, 0, "NONE", ""))
                    writer.writeframes(samples.astype("<i2").tobytes())
    return place.parent


@pytest.fixture
def _hears_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cochlea that fails after as many recordings as there are."""
    heard: list[int] = []
    hear = Cochlea.hear

    def count(self: Cochlea, wave: np.ndarray, rate_hz: int) -> ChannelEvents:
        heard.append(1)
        assert len(heard) <= 16
        return hear(self, wave, rate_hz)

    monkeypatch.setattr(Cochlea, "hear", count)


def of(path: Path, **settings: object) -> AudioSettings:
    return AudioSettings.model_validate({"dataset": "spoken-digits", "path": path, **settings})


def same(one: SpikeDataset, two: SpikeDataset) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in ((one.train, two.train), (one.test, two.test))
        for name in ("words", "labels", "speakers")
    )


@pytest.mark.usefixtures("_hears_once")
def test_recordings_become_rasters_with_speakers_and_are_kept(recordings: Path) -> None:
    first = load_audio(of(recordings))
    assert (first.n_inputs, first.n_steps, first.n_classes, first.synthetic) == (64, 129, 11, False)
    assert first.speaker_names == ("ann", "bob")
    assert first.test.labels.tolist() == first.train.labels.tolist() == [3, 3, 8, 8] * 2
    assert first.train.speakers is not None
    assert first.train.speakers.tolist() == [0, 1] * 4
    spikes = unpack_bits(first.train.words, 64).sum(axis=(0, 1))
    assert spikes.sum() > 100
    again = load_audio(of(recordings))
    assert same(first, again)
    assert again.speaker_names == ("ann", "bob")


def test_subset_keeps_labels_and_speakers_together(recordings: Path) -> None:
    whole, part = load_audio(of(recordings)), load_audio(of(recordings, n_train=5, n_test=3, seed=4))
    assert (len(part.train), len(part.test)) == (5, 3)

    def rows(samples: SpikeSet) -> list[tuple[bytes, int, int]]:
        assert samples.speakers is not None
        words = [words.tobytes() for words in samples.words]
        return list(zip(words, samples.labels.tolist(), samples.speakers.tolist(), strict=True))

    assert set(rows(part.train)) < set(rows(whole.train))
    assert set(rows(part.test)) < set(rows(whole.test))
    assert part.speaker_names == whole.speaker_names


def test_bins_and_recordings_are_part_of_what_is_kept(recordings: Path) -> None:
    paper = load_audio(of(recordings))
    # 200 ms are 100 steps of 2 ms, and silence
    assert not unpack_bits(paper.train.words, 64)[:, 100:].any()
    assert unpack_bits(load_audio(of(recordings, bin_rule="equal")).train.words, 64)[:, 120:].any()
    assert load_audio(of(recordings, n_steps=40)).n_steps == 40
    assert not same(paper, load_audio(of(recordings, time_step_s=5e-3)))
    place = recordings / "recordings"
    (place / "8_bob_6.wav").rename(place / "9_bob_6.wav")
    assert sorted(load_audio(of(recordings)).train.labels.tolist()) == [3, 3, 3, 3, 8, 8, 8, 9]


def test_embedded_voices_are_binned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = tmp_path / "voices.npz"
    stored.write_bytes(b"events")

    def load_voices() -> Utterances:
        events = ChannelEvents(np.array([0, 5000], dtype=np.int64), np.array([7, 63], dtype=np.int64))
        return Utterances([Utterance(events, label, label % 2, label == 1) for label in (10, 4, 1)], ("a", "b"))

    monkeypatch.setattr(voices, "FILE", stored)
    monkeypatch.setattr(voices, "load_voices", load_voices)
    dataset = load_audio(AudioSettings())
    assert dataset.name == "digits-voices"
    assert dataset.synthetic
    assert "synthetic" in dataset.source
    assert dataset.train.labels.tolist() == [10, 4]
    assert dataset.test.labels.tolist() == [1]
    assert np.argwhere(unpack_bits(dataset.test.words, 64)[0]).tolist() == [[0, 7], [5, 63]]


def test_reader_code_is_part_of_what_is_kept(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_audio(of(recordings))
    monkeypatch.setattr(audio, "_VERSION", audio._VERSION + 1)
    load_audio(of(recordings))
    assert len(list(cache.cache_folder().glob("spoken-digits-*.npz"))) == 2


@pytest.mark.parametrize(
    ("test", "note"),
    [
        (["boy-zz-a-z"], "no speaker is in both training and test"),
        (["man-ah-c-3", "boy-zz-a-z"], "1 of 3 speakers are in both training and test, such as man-ah"),
        (["woman-bc-b-1", "man-ah-c-3"], "the same speakers are in training and test"),
    ],
)
def test_note_says_who_speaks_in_both_splits(tmp_path: Path, test: list[str], note: str) -> None:
    path = tmp_path / "some.hdf5"
    with h5py.File(path, "w") as file:
        for split, labels in (("train", ["man-ah-a-1", "woman-bc-a-o"]), ("test", test)):
            file[f"{split}_labels"] = np.array(labels, dtype="S")
            for label in labels:
                file[f"{split}_timestamps/{label}"] = np.array([0.1, 0.2])
                file[f"{split}_addresses/{label}"] = np.array([3, 4])
    assert load_audio(AudioSettings(dataset="ntidigits", path=path)).note == note


def test_no_voice_is_in_both_splits() -> None:
    assert audio._shared(voices.load_voices(), "voice") == "no voice is in both training and test"


@pytest.mark.parametrize(
    ("name", "path", "named"),
    [
        ("digits", None, "choose one of digits-voices, spoken-digits, ntidigits"),
        ("spoken-digits", None, "fsdd_wav.tar.gz"),
        ("ntidigits", None, "n-tidigits.hdf5"),
        ("ntidigits", "/no/such/place", "/no/such/place does not exist"),
        ("digits-voices", "some.npz", "takes no path"),
    ],
)
def test_wrong_name_or_path(name: str, path: str | None, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_audio(AudioSettings.model_validate({"dataset": name, "path": path}))
    assert named in str(caught.value)


@pytest.mark.parametrize("name", ["spoken-digits", "ntidigits"])
def test_data_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / "some.file").write_text("no data\n" * 100)
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "some.file", tmp_path / "empty"):
        with pytest.raises(DataError, match=place.name):
            load_audio(AudioSettings(dataset=name, path=place))


def test_entries_say_what_a_user_must_know() -> None:
    assert AUDIO_NAMES == ("digits-voices", "spoken-digits", "ntidigits")
    assert AudioSettings().dataset in AUDIO_NAMES
    for entry in ENTRIES:
        assert entry.family == "audio"
        assert entry.synthetic == (entry.layout == "")
        assert "64" in entry.content
        assert "129" in entry.content
        assert entry.split


@pytest.mark.parametrize(
    "wrong", [{"bin_rule": "fixed"}, {"time_step_s": 0.0}, {"n_steps": 0}, {"n_train": 0}, {"seed": -1}, {"colour": 1}]
)
def test_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AudioSettings.model_validate(wrong)


@pytest.mark.parametrize("model", [AudioSettings, SpokenDigitNeurons], ids=lambda model: model.__name__)
def test_every_setting_is_described(model: Callable[[], object]) -> None:
    for name, field in model.model_fields.items():  # pyright: ignore[reportFunctionMemberAccess]
        assert field.description, name
        assert {"unit", "source"} <= field.json_schema_extra.keys(), name


def test_neurons_of_spoken_digits_replace_those_of_images() -> None:
    network = NtidigitsSettings().neurons.of(LsmSettings(n_neurons=50))
    assert network.n_neurons == 50
    assert network.v_threshold == 5.3
    assert network.decay > 0.95


def test_one_neuron_constant_leaves_the_others_alone() -> None:
    chosen = NtidigitsSettings.model_validate({"neurons": {"decay": 0.5}}).neurons
    assert (chosen.decay, chosen.v_threshold, chosen.const_per_us) == (0.5, 5.3, 0.08)


def test_import_is_light() -> None:
    code = (
        "import sys; import experiments.datasets.audio; "
        "print([name for name in ('numba', 'scipy', 'h5py', 'torch', 'platformdirs') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
