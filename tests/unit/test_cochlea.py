"""The cochlea: what it must do with tones, clicks and loudness."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.datasets._cochlea_kernel import envelopes, fire
from experiments.datasets.cochlea import Cochlea
from hil.errors import DataError

COCHLEA = Cochlea()


def tone(
    frequency_hz: float, rate_hz: int = 8000, *, length_s: float = 0.3, before_s: float = 0.1
) -> NDArray[np.float64]:
    t = np.arange(round(length_s * rate_hz)) / rate_hz
    return np.concatenate([np.zeros(round(before_s * rate_hz)), np.sin(2 * np.pi * frequency_hz * t)])


def rates(wave: NDArray[np.float64], rate_hz: int = 8000) -> NDArray[np.float64]:
    return np.bincount(COCHLEA.hear(wave, rate_hz).channel, minlength=64).astype(float)


def test_centres_are_equally_spaced_in_erb_numbers() -> None:
    centre = COCHLEA.centres_hz()
    assert centre[0] == pytest.approx(COCHLEA.low_hz)
    assert centre[-1] == pytest.approx(COCHLEA.high_hz)
    # Glasberg and Moore's bandwidth is the derivative: neighbours lie an equal share of it apart
    erb_hz = 24.7 * (4.37e-3 * (centre[1:] + centre[:-1]) / 2 + 1)
    steps = np.diff(centre) / erb_hz
    assert steps.max() / steps.min() < 1.01


def test_filter_is_the_fourth_order_gammatone() -> None:
    impulse = np.zeros(200)
    impulse[0] = 1.0
    pole = np.array([0.9 * np.exp(0.7j), 0.8 * np.exp(2.0j)])
    out = np.empty((200, 2))
    envelopes(impulse, pole, np.array([0.5, 3.0]), 0.0, 1, out)
    n = np.arange(200)
    for channel, gain in enumerate((0.5, 3.0)):
        whole = gain * (n + 1) * (n + 2) * (n + 3) / 6 * (pole[channel] ** n).real
        np.testing.assert_allclose(out[:, channel], np.maximum(whole, 0.0), atol=1e-12)


@pytest.mark.parametrize("channel", [8, 24, 40, 56])
def test_a_tone_excites_its_own_channel_most(channel: int) -> None:
    envelope = COCHLEA.envelope(tone(float(COCHLEA.centres_hz()[channel])), 8000)
    assert abs(int(envelope[150:300].mean(axis=0).argmax()) - channel) <= 1
    heard = rates(tone(float(COCHLEA.centres_hz()[channel])))
    assert np.average(np.arange(64), weights=heard**2) == pytest.approx(channel, abs=3)


def test_a_tone_at_a_centre_passes_with_gain_one() -> None:
    centre = float(COCHLEA.centres_hz()[30])
    # the mean of a rectified sine is 1 / pi of its amplitude
    assert COCHLEA.envelope(tone(centre), 8000)[200:300, 30].mean() == pytest.approx(1 / math.pi, rel=0.02)


def test_loudness_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    wave = tone(700.0) + 0.3 * tone(2200.0) + 0.01 * rng.standard_normal(3200)
    loud, quiet = COCHLEA.hear(wave, 8000), COCHLEA.hear(wave * 2.0**-7, 8000)
    assert len(loud) > 500
    np.testing.assert_array_equal(loud.t_us, quiet.t_us)
    np.testing.assert_array_equal(loud.channel, quiet.channel)


@pytest.mark.parametrize("rate_hz", [16000, 44100, 48000])
def test_other_sample_rates_sound_alike(rate_hz: int) -> None:
    here, there = (rates(tone(700.0, rate) + tone(2200.0, rate), rate) for rate in (8000, rate_hz))
    assert np.corrcoef(here, there)[0, 1] > 0.98
    assert there.sum() == pytest.approx(here.sum(), rel=0.05)


def test_channels_answer_an_onset_most_and_adapt() -> None:
    events = COCHLEA.hear(tone(1000.0, length_s=0.4), 8000)
    assert events.t_us.min() > 100_000
    early = np.count_nonzero((events.t_us > 105_000) & (events.t_us <= 155_000))
    late = np.count_nonzero(events.t_us > 450_000)
    assert early > 2 * late


def test_times_are_frames_of_the_recording() -> None:
    events = COCHLEA.hear(np.random.default_rng(1).standard_normal(4001), 8000)
    assert (events.t_us % 1000 == 0).all()
    assert events.t_us.max() <= 500_000
    assert set(events.channel) == set(range(64))


def test_steady_drive_fires_at_its_rate_less_the_leak() -> None:
    counts = np.zeros((1000, 2), dtype=np.uint8)
    fire(np.tile([0.3, 0.02], (1000, 1)), 0.95, 1.0, counts)
    # 0.3 + 0.3 * 0.95 + ... passes 1 at the fourth frame; 0.02 never passes 0.02 / (1 - 0.95) = 0.4
    assert np.flatnonzero(counts[:, 0])[0] == 3
    assert counts[:, 0].sum() == pytest.approx(1000 * 0.27, rel=0.1)
    assert not counts[:, 1].any()


def test_full_adaptation_silences_a_steady_drive() -> None:
    counts = np.zeros((1000, 1), dtype=np.uint8)
    fire(np.full((1000, 1), 0.5), 1.0, 0.98, counts)
    # what is left of the drive is 0.5 * 0.98**n: 24.5 thresholds in all
    assert counts.sum() == 24
    assert not counts[400:].any()


def test_inhibition_takes_off_what_neighbours_share() -> None:
    flat = np.ones((50, 64))
    assert not Cochlea(inhibition=1.0).raster(flat).any()
    peak = flat.copy()
    peak[:, 20] = 3.0
    heard = Cochlea(inhibition=1.0).raster(peak).sum(axis=0)
    assert np.flatnonzero(heard).tolist() == [20]


@pytest.mark.parametrize(
    ("wave", "rate_hz", "named"),
    [
        (np.zeros(100), 8000, "silent"),
        (np.zeros(0), 8000, "0 samples"),
        (np.full(100, np.nan), 8000, "silent"),
        (np.ones(100), 7999, "7999 Hz"),
        (np.ones(100), 192_001, "192001 Hz"),
    ],
)
def test_what_cannot_be_heard_is_refused(wave: NDArray[np.float64], rate_hz: int, named: str) -> None:
    with pytest.raises(DataError, match=named):
        COCHLEA.hear(wave, rate_hz)


def test_every_constant_is_part_of_the_key() -> None:
    assert Cochlea(rate_hz=100.0).key() != COCHLEA.key()
    assert set(COCHLEA.key()) == set(Cochlea.__dataclass_fields__)
