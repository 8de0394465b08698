"""Rate coding of images."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.datasets.rate_coding import rate_coded, spike_probability
from hil.spikes import unpack_bits


def grey(*values: int) -> np.ndarray:
    return np.stack([np.full((28, 28), value, np.uint8) for value in values])


def coded(images: np.ndarray, **changed: object) -> np.ndarray:
    return rate_coded(images, **{"max_spikes": 20.0, "shared_field": False, "seed": 0} | changed)  # type: ignore[arg-type]


def test_probability_is_the_papers() -> None:
    chance = spike_probability(np.array([0, 127, 128, 191, 255], np.uint8), 20.0)
    np.testing.assert_allclose(chance, [0.0, 0.0, 0.4 / 255, 0.4 * 127 / 255, 0.4], rtol=1e-4, atol=1e-7)


def test_rasters_have_49_steps_of_784_inputs_at_these_rates() -> None:
    words = coded(grey(0, 127, 191, 255))
    assert (words.shape, words.dtype) == ((4, 49, 13), np.uint64)
    rate = unpack_bits(words, 784).mean(axis=(1, 2))
    assert rate[:2].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(rate[2:], [0.4 * 127 / 255, 0.4], rtol=0.03)
    assert not (words[..., -1] >> np.uint64(784 % 64)).any()


def test_pixel_row_col_is_input_row_times_28_plus_col() -> None:
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 3, 5] = 255
    assert np.flatnonzero(unpack_bits(coded(image), 784).sum(axis=(0, 1))).tolist() == [3 * 28 + 5]


def test_a_shared_field_gives_equal_images_equal_spikes_and_own_fields_do_not() -> None:
    twice = grey(200, 200)
    shared, own = coded(twice, shared_field=True), coded(twice)
    np.testing.assert_array_equal(shared[0], shared[1])
    assert not np.array_equal(own[0], own[1])
    # with one field, a brighter pixel spikes wherever a darker one does
    dark, bright = unpack_bits(coded(grey(170, 220), shared_field=True), 784)
    assert (dark <= bright).all()
    assert not np.array_equal(coded(twice, shared_field=True, seed=1), shared)


def test_an_images_own_spikes_depend_on_its_number_only() -> None:
    images = grey(*range(150, 250, 10))
    whole = coded(images)
    np.testing.assert_array_equal(coded(images[4:], first_index=4), whole[4:])
    assert not np.array_equal(coded(images[4:]), whole[4:])


def test_batches_are_reported_and_join(monkeypatch: pytest.MonkeyPatch) -> None:
    images = grey(140, 180, 220, 250, 160)
    whole = {shared: coded(images, shared_field=shared) for shared in (True, False)}
    monkeypatch.setattr("experiments.datasets.rate_coding._BATCH", 2)
    told: list[tuple[int, int]] = []
    for shared, words in whole.items():
        again = coded(images, shared_field=shared, progress=lambda what, done, total: told.append((done, total)))
        np.testing.assert_array_equal(again, words)
    assert told == 2 * [(2, 5), (4, 5), (5, 5)]
