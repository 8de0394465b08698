"""Spoken digits by synthetic voices: the synthesiser, the file of events, and the script that makes it."""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.datasets.cochlea import Cochlea
from experiments.datasets.utterances import ChannelEvents, Utterance, Utterances
from experiments.datasets.voices import FILE, load_voices, make_events
from experiments.datasets.voices.articulation import articulate
from experiments.datasets.voices.event_file import VoiceFile, read_voice_file, write_voice_file
from experiments.datasets.voices.glottis import glottal_flow
from experiments.datasets.voices.phonemes import SOUNDS, WORD_NAMES, WORDS
from experiments.datasets.voices.speech import RATE_HZ, speak
from experiments.datasets.voices.surroundings import shaped_noise, trimmed
from experiments.datasets.voices.tract import through_tract
from experiments.datasets.voices.voice import KINDS, draw_voice
from hil.errors import ConfigError, DataError

MAX_FILE_BYTES = 1_500_000


@cache
def shipped() -> VoiceFile:
    return read_voice_file(FILE)


def power_above(wave: NDArray[np.float64], low_hz: float, rate_hz: float = RATE_HZ) -> float:
    """Share of the power above a frequency."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[np.fft.rfftfreq(len(wave), 1.0 / rate_hz) > low_hz].sum() / power.sum())


def peak_hz(wave: NDArray[np.float64], low_hz: float, high_hz: float) -> float:
    """Frequency of the strongest part within a band."""
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
    frequency = np.fft.rfftfreq(len(wave), 1.0 / RATE_HZ)
    return float(frequency[np.argmax(np.where((frequency > low_hz) & (frequency < high_hz), power, 0.0))])


def raster(events: ChannelEvents) -> set[tuple[int, int]]:
    return set(zip(events.t_us.tolist(), events.channel.tolist(), strict=True))


def small_set(*events: Sequence[tuple[int, int]]) -> VoiceFile:
    """A file of utterances with the given (t_us, channel)."""
    samples = []
    for number, pairs in enumerate(events):
        t_us, channel = np.array(pairs, dtype=np.int64).T
        samples.append(Utterance(ChannelEvents(t_us, channel), number % 11, number % 2, number % 2 == 1))
    return VoiceFile(Utterances(samples, ("a", "b")), {"seed": 5})


# the synthesiser


def test_every_word_is_made_of_known_sounds_and_every_sound_is_used() -> None:
    assert len(WORDS) == len(WORD_NAMES) == 11
    assert {name for word in WORDS for name in word} == set(SOUNDS)


def test_equal_arguments_give_equal_waves_and_any_other_argument_another_wave() -> None:
    first = speak(6, draw_voice(0), 0)
    np.testing.assert_array_equal(first, speak(6, draw_voice(0), 0))
    for other in (
        speak(5, draw_voice(0), 0), speak(6, draw_voice(1), 0), speak(6, draw_voice(0), 1),
        speak(6, draw_voice(0), 0, seed=1), speak(6, draw_voice(0, seed=1), 0),
    ):  # fmt: skip
        assert len(other) != len(first) or not np.array_equal(other, first)


def test_a_word_lasts_as_long_as_a_word_and_stays_within_full_scale() -> None:
    for label in range(len(WORDS)):
        wave = speak(label, draw_voice(label), 0)
        assert 0.1 < len(wave) / RATE_HZ < 1.5
        assert 0.2 < np.abs(wave).max() <= 1.0


@pytest.mark.parametrize(("label", "take", "seed"), [(11, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_a_label_a_take_or_a_seed_out_of_range_is_refused(label: int, take: int, seed: int) -> None:
    with pytest.raises(ConfigError, match="0 and up"):
        speak(label, draw_voice(0), take, seed=seed)


def test_a_negative_voice_is_refused() -> None:
    with pytest.raises(ConfigError, match="voice -1"):
        draw_voice(-1)


def test_voices_lie_within_the_ranges_of_their_kind_and_all_kinds_are_there() -> None:
    voices = [draw_voice(number) for number in range(20)]
    assert {voice.kind for voice in voices} == set(KINDS)
    for voice in voices:
        kind = KINDS[voice.kind]
        assert kind.tract_scale[0] <= voice.tract_scale <= kind.tract_scale[1]
        assert kind.pitch_hz[0] <= voice.pitch_hz <= kind.pitch_hz[1]


def test_formants_of_a_smaller_speaker_are_higher() -> None:
    def mean_hz(number: int) -> NDArray[np.float64]:
        return articulate(3, draw_voice(number), np.random.default_rng(0)).formants_hz.mean(axis=0)

    men, children = (np.mean([mean_hz(n) for n in numbers], axis=0) for numbers in ((0, 2, 5, 7), (4, 9, 14, 19)))
    assert np.all(children / men > 1.12)


def test_a_glide_moves_the_second_formant_where_the_ear_expects_it() -> None:
    """Up in "three" and "nine", down in "two"."""
    for label, sign in ((3, 1.0), (9, 1.0), (2, -1.0)):
        rise = []
        for number in range(6):
            word = articulate(label, draw_voice(number), np.random.default_rng(number))
            vowel = next(i for i, sound in enumerate(word.sounds) if sound.is_vowel)
            first = word.first_frames[vowel]
            last = first + round(word.sounds[vowel].duration_s * 1e3) - 1
            rise.append(np.log(word.formants_hz[last, 1] / word.formants_hz[first, 1]))
        assert sign * float(np.mean(rise)) > 0.1


def test_words_that_begin_with_s_hiss_and_others_do_not() -> None:
    def hiss(label: int) -> float:
        waves = [speak(label, draw_voice(number), 0) for number in range(3)]
        return float(np.median([power_above(w[: round(0.06 * RATE_HZ)], 3500.0) for w in waves]))

    assert min(hiss(6), hiss(7)) > 0.3 > 0.05 > max(hiss(1), hiss(9), hiss(10))


def test_the_tract_resonates_at_its_formants() -> None:
    pulse = np.zeros(200 * 16)
    pulse[0] = 1.0
    formants = np.tile([500.0, 1500.0, 2500.0], (200, 1))
    widths = np.tile([60.0, 80.0, 100.0], (200, 1))
    heard = through_tract(pulse, formants, widths, np.zeros(200), scale=1.0, rate_hz=RATE_HZ)
    for formant, low, high in ((500, 300, 900), (1500, 1100, 1900), (2500, 2100, 2900)):
        assert peak_hz(heard, low, high) == pytest.approx(formant, abs=25)


def test_an_open_nose_takes_away_what_is_above_its_resonance() -> None:
    pulse = np.zeros(200 * 16)
    pulse[0] = 1.0
    formants, widths = np.tile([350.0, 1340.0, 2470.0], (200, 1)), np.tile([60.0, 300.0, 300.0], (200, 1))
    closed, opened = (
        through_tract(pulse, formants, widths, np.full(200, part), scale=1.0, rate_hz=RATE_HZ) for part in (0.0, 1.0)
    )
    assert power_above(opened, 400.0) < 0.7 * power_above(closed, 400.0)


def test_glottal_pulses_come_at_the_pitch_and_carry_no_offset() -> None:
    steady = {"open_quotient": 0.6, "tilt_hz": 3000.0, "jitter": 0.0, "shimmer": 0.0}
    flow, is_open = glottal_flow(np.full(RATE_HZ, 125.0), RATE_HZ, **steady, rng=np.random.default_rng(0))
    assert peak_hz(flow, 50.0, 160.0) == pytest.approx(125.0, abs=1.5)
    assert abs(flow.mean()) < 0.01 * flow.std()
    assert is_open.mean() == pytest.approx(0.6, abs=0.01)
    shaky, _ = glottal_flow(
        np.full(RATE_HZ, 125.0), RATE_HZ, **{**steady, "jitter": 0.02}, rng=np.random.default_rng(0)
    )  # fmt: skip
    assert np.abs(shaky[128:256] - shaky[:128]).max() > 10 * np.abs(flow[256:384] - flow[128:256]).max()


def test_shaped_noise_has_the_spectrum_that_was_asked_for() -> None:
    noise = shaped_noise(RATE_HZ, ((0.0, 0.0), (4000.0, 0.0), (4001.0, -20.0)), RATE_HZ, np.random.default_rng(0))
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0)
    assert power_above(noise, 4000.0) == pytest.approx(1.0 / 101.0, rel=0.15)


def test_silence_around_a_word_is_cut_off() -> None:
    samples = np.zeros(RATE_HZ)
    samples[5000:9000] = np.random.default_rng(0).standard_normal(4000)
    kept = trimmed(samples, RATE_HZ, np.random.default_rng(1))
    assert 4000 < len(kept) < 4000 + 2 * 0.05 * RATE_HZ
    assert np.sum(kept**2) == pytest.approx(np.sum(samples**2))


# the file


def test_the_file_gives_back_what_was_written_sorted_by_time_and_each_event_once(tmp_path: Path) -> None:
    path = tmp_path / "small.npz"
    # distances of 254, 255, 256 and many cells; two events of one millisecond; the last and the first cell of a raster
    written = small_set(
        [(9000, 0), (0, 0), (2000, 63), (9999, 63), (9400, 63)], [(1000 * t, 0) for t in (0, 254, 509, 765, 2000)],
        [(0, 63)], [(0, 0), (0, 1)], [(3000, 5)],
    )  # fmt: skip
    write_voice_file(path, written)
    found = read_voice_file(path)
    assert found.recipe == {"seed": 5}
    assert found.utterances.speaker_names == ("a", "b")
    for before, after in zip(written.utterances.samples, found.utterances.samples, strict=True):
        expected = {(t // 1000 * 1000, channel) for t, channel in raster(before.events)}
        assert raster(after.events) == expected
        assert len(after.events) == len(expected)
        assert np.all(np.diff(after.events.t_us) >= 0)
        assert (before.label, before.speaker, before.is_test) == (after.label, after.speaker, after.is_test)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name in "ab":
        write_voice_file(tmp_path / name, small_set([(0, 1), (5000, 2)]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_utterance_without_events_or_of_many_seconds_is_not_written(tmp_path: Path) -> None:
    silent = VoiceFile(
        Utterances([Utterance(ChannelEvents(np.empty(0, np.int64), np.empty(0, np.int64)), 0, 0, False)], ("a",)), {}
    )
    for content in (silent, small_set([(4_000_000, 0)])):
        with pytest.raises(DataError, match="utterance 0"):
            write_voice_file(tmp_path / "x.npz", content)


def rewritten(path: Path, **changes: Any) -> None:
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, **changes})


def broken_files() -> dict[str, Any]:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-200])

    def version(path: Path) -> None:
        with np.load(path) as archive:
            meta = json.loads(str(archive["meta"]))
        rewritten(path, meta=np.array(json.dumps({**meta, "format": 99})))

    def without_labels(path: Path) -> None:
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **{name: arrays[name] for name in arrays if name != "labels"})

    return {
        "missing": lambda path: path.unlink(),
        "cut": cut,
        "text": lambda path: path.write_text("voices"),
        "empty": lambda path: path.write_bytes(b""),
        "a changed label": lambda path: rewritten(path, labels=np.array([3], np.uint8)),
        "a changed event": lambda path: rewritten(path, gaps=np.array([1, 6], np.uint8)),
        "another type": lambda path: rewritten(path, gaps=np.array([1, 5], np.int64)),
        "another meta": lambda path: rewritten(path, meta=np.array("[1]")),
        "no labels": without_labels,
        "version": version,
    }


@pytest.mark.parametrize("how", broken_files())
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, how: str) -> None:
    path = tmp_path / "voices.npz"
    write_voice_file(path, small_set([(1000, 0), (2000, 1)]))
    broken_files()[how](path)
    with pytest.raises(DataError, match=r"voices\.npz .*make_events"):
        load_voices(path)


# what comes with the project


def test_the_shipped_file_is_small_and_holds_every_word_of_every_voice() -> None:
    samples = load_voices().samples
    assert FILE.stat().st_size < MAX_FILE_BYTES
    said = [(sample.speaker, sample.label) for sample in samples]
    everything = {(voice, label) for voice in range(make_events.N_VOICES) for label in range(11)}
    assert {pair: said.count(pair) for pair in everything} == dict.fromkeys(everything, make_events.N_TAKES)
    assert len(said) == len(everything) * make_events.N_TAKES


def test_no_voice_is_in_both_splits_and_each_split_has_men_women_and_children() -> None:
    utterances = shipped().utterances
    voices = {split: {s.speaker for s in utterances.samples if s.is_test == split} for split in (False, True)}
    assert not voices[False] & voices[True]
    assert len(voices[True]) == len(utterances.speaker_names) // 4
    for split in voices.values():
        assert {utterances.speaker_names[number].split("-")[0] for number in split} == set(KINDS)


def test_utterances_have_as_many_events_and_last_as_long_as_words() -> None:
    samples = shipped().utterances.samples
    n_events = np.array([len(sample.events) for sample in samples])
    length_s = np.array([sample.events.t_us.max() for sample in samples]) * 1e-6
    assert 100 < n_events.min() < n_events.max() < 6000
    assert 0.1 < length_s.min() < length_s.max() < 1.5
    assert 0.35 < length_s.mean() < 0.6
    assert {int(channel) for sample in samples for channel in sample.events.channel} == set(range(64))


def test_the_shipped_file_was_made_with_the_present_cochlea_and_tables() -> None:
    """If this fails, make the file anew: python -m experiments.datasets.voices.make_events."""
    assert shipped().recipe == make_events.recipe(Cochlea())


@pytest.mark.parametrize("number", [3, 700, 1500])
def test_the_program_makes_what_the_shipped_file_holds(number: int) -> None:
    """If this fails, make the file anew: python -m experiments.datasets.voices.make_events."""
    take, label, speaker = make_events.order()[number]
    voice = draw_voice(speaker, seed=make_events.SEED)
    made = make_events.utterance(voice, label, speak(label, voice, take, seed=make_events.SEED), Cochlea())
    held = shipped().utterances.samples[number]
    assert (made.label, made.speaker, made.is_test) == (held.label, held.speaker, held.is_test)
    assert shipped().utterances.speaker_names[speaker] == make_events.voice_name(voice)
    ours, theirs = raster(made.events), raster(held.events)
    # another processor may round a few events into another millisecond
    assert len(ours & theirs) > 0.98 * len(ours | theirs)


def test_the_script_writes_the_file_and_waves_to_listen_to(tmp_path: Path) -> None:
    out, waves = tmp_path / "few.npz", tmp_path / "waves"
    make_events.main(["--out", str(out), "--wav", str(waves), "--voices", "1"])
    assert len(load_voices(out).samples) == 11 * make_events.N_TAKES
    names = {path.name for path in waves.iterdir()}
    assert len(names) == 11 * make_events.N_TAKES
    with wave.open(str(waves / "oh_man-00_1.wav")) as stream:
        assert (stream.getframerate(), stream.getnchannels(), stream.getsampwidth()) == (RATE_HZ, 1, 2)
        samples = np.frombuffer(stream.readframes(stream.getnframes()), "<i2") / 32767.0
    np.testing.assert_allclose(samples, speak(10, draw_voice(0), 1), atol=2e-5)


def test_the_script_refuses_a_number_of_voices_that_it_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--voices is 0"):
        make_events.main(["--out", str(tmp_path / "x.npz"), "--voices", "0"])
    assert not list(tmp_path.iterdir())


def test_words_of_unheard_voices_can_be_told_apart_by_their_events() -> None:
    """Nearest class mean of counts in 8 windows: far above chance (9 %), far from perfect."""

    def features(sample: Utterance) -> NDArray[np.float64]:
        at = sample.events.t_us * 8 // (sample.events.t_us.max() + 1)
        counts = np.bincount(at * 64 + sample.events.channel, minlength=512).astype(np.float64)
        return counts / np.linalg.norm(counts)

    samples = shipped().utterances.samples
    x, y = np.stack([features(sample) for sample in samples]), np.array([sample.label for sample in samples])
    is_test = np.array([sample.is_test for sample in samples])
    means = np.stack([x[~is_test & (y == label)].mean(axis=0) for label in range(11)])
    distance = ((x[is_test][:, None] - means) ** 2).sum(axis=2)
    assert 0.6 < float((distance.argmin(axis=1) == y[is_test]).mean()) < 0.98
