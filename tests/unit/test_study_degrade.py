"""Poorer input: the centre of a frame, flipped bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments import datasets
from experiments.datasets import DataSettings, SpikeDataset, SpikeSet, degrade, load_from_settings
from hil.errors import ConfigError
from hil.spikes import pack_bits, unpack_bits


def dataset(n_train: int = 30, px: int = 16, *, density: float = 0.08, note: str = "") -> SpikeDataset:
    rng = np.random.default_rng(0)

    def samples(n: int) -> SpikeSet:
        bits = rng.random((n, 10, px * px)) < density
        return SpikeSet(pack_bits(bits), rng.integers(0, 4, n))

    return SpikeDataset("made", samples(n_train), samples(20), px * px, 10, 4, True, "made here", note)


def frames(samples: SpikeSet, px: int) -> Any:
    bits = unpack_bits(samples.words, px * px)
    return bits.reshape(*bits.shape[:2], px, px)


@pytest.mark.parametrize("px", [1, 4, 7, 12])
def test_cropped_keeps_the_centre(px: int) -> None:
    whole = dataset()
    cut = degrade.cropped(whole, px, from_px=16)
    first = (16 - px) // 2
    assert (cut.n_inputs, cut.train.words.shape[2]) == (px * px, -(-px * px // 64))
    for before, after in ((whole.train, cut.train), (whole.test, cut.test)):
        kept = frames(before, 16)[..., first : first + px, first : first + px]
        np.testing.assert_array_equal(frames(after, px), kept)
        np.testing.assert_array_equal(after.labels, before.labels)
    assert cut.described()["data_note"] == f"cut to its centre of {px} x {px} pixels"


def test_a_whole_frame_is_left_alone() -> None:
    whole = dataset(note="as it is")
    assert degrade.cropped(whole, 16, from_px=16) is whole


@pytest.mark.parametrize(("px", "side"), [(0, 16), (17, 16), (8, 8)])
def test_what_cannot_be_cut_is_refused(px: int, side: int) -> None:
    with pytest.raises(ConfigError, match=f"has 256 inputs.*{px} x {px} pixels"):
        degrade.cropped(dataset(), px, from_px=side)


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_the_share_of_flipped_bits_is_what_was_asked_for(share: float) -> None:
    whole = dataset(200)
    noisy = degrade.with_flipped_bits(whole, share, seed=1)
    for before, after in ((whole.train, noisy.train), (whole.test, noisy.test)):
        was, flipped = frames(before, 16), frames(before, 16) != frames(after, 16)
        # spikes are lost and made up at the same rate; five standard errors
        for bits in (flipped[was == 1], flipped[was == 0]):
            assert abs(bits.mean() - share) < 5 * np.sqrt(share * (1 - share) / bits.size)
        np.testing.assert_array_equal(after.labels, before.labels)
    assert noisy.note == f"{100 * share:g} % of the input bits flipped, training and test"


def test_flipped_bits_follow_their_seed_and_more_include_fewer() -> None:
    whole = dataset(note="small")

    def flips(share: float, seed: int, split: str = "train") -> Any:
        noisy = degrade.with_flipped_bits(whole, share, seed=seed)
        return frames(getattr(noisy, split), 16) != frames(getattr(whole, split), 16)

    few, many = flips(0.02, 3), flips(0.1, 3)
    np.testing.assert_array_equal(few, flips(0.02, 3))
    assert (few & ~flips(0.02, 4)).any()
    assert not (few & ~many).any()
    assert many.sum() > 3 * few.sum()
    # what is flipped in training does not repeat in the test
    assert (flips(0.1, 3)[:20] & flips(0.1, 3, "test")).mean() < 0.02
    assert degrade.with_flipped_bits(whole, 0.1, seed=3).note.startswith("small; 10 % of the input bits")


def test_more_samples_than_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dataset()
    cut, noisy = degrade.cropped(whole, 6, from_px=16), degrade.with_flipped_bits(whole, 0.1, seed=0)
    monkeypatch.setattr(degrade, "_CHUNK", 7)
    np.testing.assert_array_equal(degrade.cropped(whole, 6, from_px=16).train.words, cut.train.words)
    np.testing.assert_array_equal(degrade.with_flipped_bits(whole, 0.1, seed=0).train.words, noisy.train.words)


def test_no_flips_leave_the_data_alone() -> None:
    whole = dataset()
    assert degrade.with_flipped_bits(whole, 0.0, seed=0) is whole


def test_bits_above_the_inputs_stay_clear() -> None:
    noisy = degrade.with_flipped_bits(dataset(px=5), 0.5, seed=0)
    assert not (noisy.train.words >> np.uint64(25)).any()


def test_settings_reach_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: dataset())
    plain = load_from_settings(DataSettings(n_train=10))
    poor = load_from_settings(DataSettings(n_train=10, input_px=8, input_noise=0.1))
    assert (plain.n_inputs, plain.note) == (256, "")
    assert (poor.n_inputs, len(poor.train)) == (64, 10)
    assert poor.note.startswith("cut to its centre of 8 x 8 pixels; 10 % of the input bits")
    other = load_from_settings(DataSettings(n_train=10, input_px=8, input_noise=0.1, seed=1))
    assert not np.array_equal(poor.test.words, other.test.words)
