"""Packed rasters against a slow reference, and the data set types."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.datasets.binning import BinRule, Events, bin_events
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from hil.errors import ConfigError, DataError
from hil.spikes import pack_bits, unpack_bits

ONE_EVENT = st.tuples(st.integers(0, 33), st.integers(0, 33), st.booleans(), st.integers(0, 400_000))


def as_events(rows: list[tuple[int, int, bool, int]]) -> Events:
    x, y, on, t_us = (np.array(column) for column in zip(*rows, strict=True))
    return Events(x=x, y=y, on=on.astype(bool), t_us=t_us)


def reference_words(rows: list[tuple[int, int, bool, int]], rule: BinRule) -> list[list[int]]:
    end_us = max(row[3] for row in rows) + 1
    words = [[0] * 4 for _ in range(rule.n_steps)]
    for x, y, on, t_us in rows:
        step = t_us * rule.n_steps // end_us if rule.kind == "equal" else t_us // round(rule.bin_width_s * 1e6)
        if on and 9 <= x <= 24 and 9 <= y <= 24 and step < rule.n_steps:
            i = (y - 9) * 16 + (x - 9)
            words[step][i // 64] |= 1 << (i % 64)
    return words


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(ONE_EVENT, min_size=1, max_size=60),
    kind=st.sampled_from(["equal", "fixed"]),
    width_us=st.integers(1, 20_000),
    n_steps=st.integers(1, 60),
)
def test_bins_equal_slow_reference(
    rows: list[tuple[int, int, bool, int]], kind: str, width_us: int, n_steps: int
) -> None:
    rule = BinRule(kind, width_us * 1e-6, n_steps)
    words = bin_events(as_events(rows), rule)
    assert words.dtype == np.uint64
    assert words.tolist() == reference_words(rows, rule)


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 200)), seed=st.integers(0, 99))
def test_unpack_undoes_pack(shape: tuple[int, int, int], seed: int) -> None:
    raster = np.random.default_rng(seed).integers(0, 2, shape)
    words = pack_bits(raster)
    assert words.shape == (*shape[:2], -(-shape[2] // 64))
    np.testing.assert_array_equal(unpack_bits(words, shape[2]), raster)


def test_bit_order() -> None:
    raster = np.zeros((1, 1, 256), dtype=np.uint8)
    raster[0, 0, [0, 65, 255]] = 1
    assert pack_bits(raster)[0, 0].tolist() == [1, 2, 0, 1 << 63]


def test_no_events_is_an_empty_raster() -> None:
    none = np.empty(0, dtype=np.int64)
    words = bin_events(Events(none, none, none.astype(bool), none))
    assert words.shape == (50, 4)
    assert not words.any()


def test_equal_bins_run_to_the_last_event_of_either_polarity() -> None:
    words = bin_events(as_events([(9, 9, True, 0), (9, 9, True, 50), (0, 0, False, 99)]))
    assert np.flatnonzero(words[:, 0]).tolist() == [0, 25]


@pytest.mark.parametrize(
    ("kind", "width_s", "n_steps", "named"),
    [
        ("other", 6e-3, 50, "other"),
        ("fixed", 0.0, 50, "bin_width_s"),
        ("fixed", float("nan"), 50, "nan"),
        ("equal", 6e-3, 0, "n_steps"),
    ],
)
def test_bad_rule(kind: str, width_s: float, n_steps: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        BinRule(kind, width_s, n_steps)


def test_event_after_the_end() -> None:
    with pytest.raises(DataError, match=r"0\.\.99 us"):
        bin_events(as_events([(9, 9, True, 100)]), end_us=100)


def test_event_arrays_of_unequal_length() -> None:
    one, two = np.zeros(1, dtype=np.int64), np.zeros(2, dtype=np.int64)
    with pytest.raises(DataError, match="lengths"):
        Events(one, two, one.astype(bool), one)


def small_dataset(n_train: int = 40, n_test: int = 20) -> SpikeDataset:
    def split(n: int) -> SpikeSet:
        words = np.arange(n, dtype=np.uint64)[:, None, None] * np.ones((1, 3, 4), dtype=np.uint64)
        return SpikeSet(words, np.arange(n, dtype=np.int64) % 10)

    return SpikeDataset("small", split(n_train), split(n_test), 256, 3, 10, True, "made by a test")


def test_limited_is_a_seeded_subset() -> None:
    dataset = small_dataset()
    first, again, other = (dataset.limited(12, 5, seed=seed) for seed in (1, 1, 2))
    assert (len(first.train), len(first.test)) == (12, 5)
    np.testing.assert_array_equal(first.train.words, again.train.words)
    assert not np.array_equal(first.train.words, other.train.words)
    # words hold the sample number here: labels must have moved with them, and no sample comes twice
    number = first.train.words[:, 0, 0].astype(np.int64)
    np.testing.assert_array_equal(first.train.labels, number % 10)
    assert len(set(number.tolist())) == 12


def test_limited_subsets_nest_and_splits_are_independent() -> None:
    dataset = small_dataset()
    small, large = dataset.limited(5, 7), dataset.limited(30, 7)
    np.testing.assert_array_equal(small.train.words, large.train.words[:5])
    np.testing.assert_array_equal(small.test.words, large.test.words)
    assert dataset.limited() is dataset


@pytest.mark.parametrize(("n_train", "n_test", "named"), [(41, None, "n_train is 41"), (None, 0, "n_test is 0")])
def test_limited_beyond_the_set(n_train: int | None, n_test: int | None, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        small_dataset().limited(n_train, n_test)


def test_dataset_refuses_what_does_not_fit() -> None:
    good = SpikeSet(np.zeros((2, 3, 4), dtype=np.uint64), np.zeros(2, dtype=np.int64))
    empty = SpikeSet(np.zeros((0, 3, 4), dtype=np.uint64), np.zeros(0, dtype=np.int64))
    wide = SpikeSet(np.zeros((2, 3, 5), dtype=np.uint64), np.zeros(2, dtype=np.int64))
    high = SpikeSet(np.zeros((2, 3, 4), dtype=np.uint64), np.full(2, 10, dtype=np.int64))
    for test, named in ((empty, "empty"), (wide, "shape"), (high, "labels")):
        with pytest.raises(DataError, match=named):
            SpikeDataset("small", good, test, 256, 3, 10, True, "made by a test")
    with pytest.raises(DataError, match="spike set"):
        SpikeSet(np.zeros((2, 3, 4), dtype=np.int64), np.zeros(2, dtype=np.int64))


def test_dataset_refuses_speakers_that_do_not_fit() -> None:
    words, labels = np.zeros((2, 3, 4), dtype=np.uint64), np.zeros(2, dtype=np.int64)

    def by(*speakers: int) -> SpikeSet:
        return SpikeSet(words, labels, np.array(speakers, dtype=np.int64))

    nobody = SpikeSet(words, labels)
    for train, test, names, named in (
        (by(0, 1), by(0, 2), ("a", "b"), "test speakers span 0..2, allowed are 0..1"),
        (by(-1, 0), by(0, 1), ("a", "b"), "train speakers span -1..0"),
        (by(0, 1), nobody, ("a", "b"), "test split does not say who spoke"),
        (by(0, 1), by(0, 1), (), "0 speakers are named, but the train split does say"),
    ):
        with pytest.raises(DataError) as caught:
            SpikeDataset("small", train, test, 256, 3, 10, True, "made by a test", speaker_names=names)
        assert named in str(caught.value)
    with pytest.raises(DataError, match="one speaker per sample"):
        by(0)


def test_taken_samples_keep_their_speakers() -> None:
    words = np.zeros((4, 3, 4), dtype=np.uint64)
    samples = SpikeSet(words, np.arange(4, dtype=np.int64), np.array([7, 8, 9, 7], dtype=np.int64))
    taken = samples.taken(np.array([2, 0]))
    assert taken.speakers is not None
    assert taken.speakers.tolist() == [9, 7]
    assert SpikeSet(words, samples.labels).taken(np.array([1])).speakers is None
