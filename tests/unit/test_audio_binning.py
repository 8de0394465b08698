"""From the events of a cochlea to time steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from experiments.datasets.audio_binning import AudioBinRule, bin_channels
from experiments.datasets.utterances import ChannelEvents
from hil.errors import ConfigError, DataError
from hil.spikes import unpack_bits


def events(times_us: list[int], channels: list[int] | None = None) -> ChannelEvents:
    return ChannelEvents(np.array(times_us, dtype=np.int64), np.array(channels or [0] * len(times_us), dtype=np.int64))


def raster(of: ChannelEvents, rule: AudioBinRule) -> NDArray[np.uint8]:
    return unpack_bits(bin_channels(of, rule), 64)


@pytest.mark.parametrize(
    ("last_ms", "step_of_the_last"),
    [(0, 0), (128, 128), (129, 64), (257, 128), (258, 86), (999, 124)],  # 1, 1, 2, 2, 3 and 8 ms a step
)
def test_a_step_lasts_the_smallest_whole_number_of_bins_that_fits(last_ms: int, step_of_the_last: int) -> None:
    found = raster(events([0, last_ms * 1000 + 999]), AudioBinRule())
    assert found.shape == (129, 64)
    assert np.flatnonzero(found.any(axis=1)).tolist() == sorted({0, step_of_the_last})


def test_many_events_of_a_channel_in_a_step_make_one_spike() -> None:
    found = raster(events([10, 20, 30, 1010], [63, 63, 2, 63]), AudioBinRule())
    assert np.argwhere(found).tolist() == [[0, 2], [0, 63], [1, 63]]
    assert found.max() == 1


@given(
    st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(0, 63)), min_size=1, max_size=40),
    st.integers(1, 200),
    st.sampled_from([250, 1000, 7000]),
)
def test_paper_rule_is_raster_then_chunks_then_clip_then_padding(
    pairs: list[tuple[int, int]], n_steps: int, bin_us: int
) -> None:
    n_bins = max(time for time, _ in pairs) // bin_us + 1
    bins = np.zeros((n_bins, 64), dtype=int)
    for time, channel in pairs:
        bins[time // bin_us, channel] = 1
    length = -(-n_bins // n_steps)
    chunks = [bins[start : start + length].sum(axis=0).clip(0, 1) for start in range(0, n_bins, length)]
    expected = np.zeros((n_steps, 64), dtype=int)
    expected[: len(chunks)] = chunks
    rule = AudioBinRule("paper", bin_us * 1e-6, n_steps)
    of = events([time for time, _ in pairs], [channel for _, channel in pairs])
    np.testing.assert_array_equal(raster(of, rule), expected)


@given(st.integers(1, 3_000_000), st.integers(1, 300))
def test_equal_steps_fill_the_utterance(last_us: int, n_steps: int) -> None:
    rule = AudioBinRule("equal", n_steps=n_steps)
    found = np.flatnonzero(raster(events([0, last_us // 2, last_us]), rule).any(axis=1))
    assert found[-1] == min(n_steps - 1, n_steps * last_us // (last_us + 1))
    assert (last_us // 2) * n_steps // (last_us + 1) in found


def test_no_events_make_no_spikes() -> None:
    for kind in ("paper", "equal"):
        assert not raster(events([]), AudioBinRule(kind)).any()


def test_bin_width_counts_where_it_is_used() -> None:
    assert AudioBinRule("paper", 1e-3).key() != AudioBinRule("paper", 2e-3).key()
    assert AudioBinRule("equal", 1e-3).key() == AudioBinRule("equal", 2e-3).key()
    assert AudioBinRule("equal").key() != AudioBinRule("paper").key()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"kind": "other"}, "other"), ({"time_step_s": 1e-7}, "1e-07"), ({"time_step_s": float("nan")}, "nan"),
     ({"n_steps": 0}, "n_steps is 0")],
)  # fmt: skip
def test_rule_refuses(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        AudioBinRule(**wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("times_us", "channels", "named"),
    [([0, 1], [0], "shapes"), ([-1], [0], "-1 us"), ([0], [64], "64"), ([0], [-1], "-1")],
)
def test_events_refuse(times_us: list[int], channels: list[int], named: str) -> None:
    with pytest.raises(DataError, match=named):
        events(times_us, channels)
