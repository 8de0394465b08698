"""Flicker and telegraph noise: spectrum, memory and variance, however the reads lie in time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hil.config import load
from hil.errors import ConfigError
from sim_backend.flicker import FlickerNoise, lorentzians_s, psd_per_hz
from sim_backend.noise import WhiteReadNoise
from sim_backend.settings import NoiseSettings, SimSettings, TelegraphSettings
from sim_backend.telegraph import TelegraphNoise

LOW_HZ, HIGH_HZ = 1e-4, 1e3
G_S = 14e-6


def flicker(n_cells: int, share: float = 1.0) -> FlickerNoise:
    return FlickerNoise.from_settings(NoiseSettings(relative=0.02, flicker_share=share), (n_cells,))


def every_cell(n_cells: int, **changes: float) -> TelegraphNoise:
    settings = TelegraphSettings.model_validate({"share": 1.0, "amplitude_spread": 0.0, **changes})
    return TelegraphNoise.draw(settings, (n_cells,), np.random.default_rng(5))


# Flicker noise


def test_flicker_variance_is_its_share_of_the_whole() -> None:
    n_cells = 40_000
    deviation_s = flicker(n_cells, share=0.5).at(0.0, ..., np.full(n_cells, G_S), np.random.default_rng(0))
    assert deviation_s.std() == pytest.approx(0.02 * math.sqrt(0.5) * G_S, rel=0.02)
    assert abs(deviation_s.mean()) < 4 * 0.02 * G_S / math.sqrt(n_cells)


def test_expected_spectrum_falls_as_one_over_frequency_over_five_decades() -> None:
    frequency_hz = np.geomspace(5e-4, 1e2, 200)
    power = psd_per_hz(frequency_hz, 1e-5, lorentzians_s(LOW_HZ, HIGH_HZ))
    slope = np.polyfit(np.log(frequency_hz), np.log(power), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.02)
    flat = power * frequency_hz
    assert np.all(np.abs(flat / flat.mean() - 1.0) < 0.1)


def test_drawn_spectrum_is_the_expected_one() -> None:
    n_cells, n_reads, interval_s = 400, 2048, 1e-3
    noise, rng, ones = flicker(n_cells), np.random.default_rng(1), np.ones(n_cells)
    trace = np.array([noise.at(number * interval_s, ..., ones, rng) for number in range(n_reads)]) / 0.02
    window = np.hanning(n_reads)[:, None]
    power = 2 * interval_s / np.sum(window**2) * np.abs(np.fft.rfft(trace * window, axis=0)[8:-8]) ** 2
    frequency_hz = np.fft.rfftfreq(n_reads, interval_s)[8:-8]
    expected = psd_per_hz(frequency_hz, interval_s, lorentzians_s(LOW_HZ, HIGH_HZ))
    for part in np.array_split(np.arange(len(frequency_hz)), 8):
        assert power[part].mean() == pytest.approx(expected[part].mean(), rel=0.05)


@pytest.mark.parametrize("elapsed_s", [1e-4, 1e-2, 1.0, 1e2, 1e4])
def test_memory_does_not_depend_on_reads_in_between(elapsed_s: float) -> None:
    n_cells = 20_000
    noise, rng, ones = flicker(n_cells), np.random.default_rng(2), np.ones(n_cells)
    first = noise.at(5.0, ..., ones, rng)
    half = slice(0, n_cells // 2)
    for fraction in (0.1, 0.7):
        noise.at(5.0 + fraction * elapsed_s, half, ones[half], rng)
    second = noise.at(5.0 + elapsed_s, ..., ones, rng)
    expected = np.exp(-elapsed_s / lorentzians_s(LOW_HZ, HIGH_HZ)).mean()
    for cells in (half, slice(n_cells // 2, None)):
        assert np.corrcoef(first[cells], second[cells])[0, 1] == pytest.approx(expected, abs=0.03)
        assert second[cells].std() == pytest.approx(0.02, rel=0.03)


def test_fast_reads_do_not_freeze_slow_processes() -> None:
    """A step of a hundred-millionth of the longest time constant is lost in single precision if taken naively."""
    noise, rng, ones = flicker(4000), np.random.default_rng(3), np.ones(4000)
    first = noise.at(0.0, ..., ones, rng) / 0.02
    for number in range(1, 201):
        last = noise.at(number * 1e-5, ..., ones, rng) / 0.02
    expected = 2.0 * np.mean(1.0 - np.exp(-2e-3 / lorentzians_s(LOW_HZ, HIGH_HZ)))
    assert np.mean((last - first) ** 2) == pytest.approx(expected, rel=0.06)


def test_two_reads_at_one_time_see_the_same_state() -> None:
    noise, traps, rng, ones = flicker(50), every_cell(50), np.random.default_rng(4), np.ones(50)
    for process in (noise, traps):
        np.testing.assert_array_equal(process.at(3.0, ..., ones, rng), process.at(3.0, ..., ones, rng))


@pytest.mark.parametrize("index", [(np.array([1, 2]), np.array([0, 3])), np.eye(4, dtype=bool), (slice(1, 2), ...)])
def test_cells_are_chosen_as_numpy_does_and_others_stay_undrawn(index: object) -> None:
    chosen = np.zeros((4, 4), bool)
    chosen[index] = True
    noise = FlickerNoise.from_settings(NoiseSettings(), (4, 4))
    traps = TelegraphNoise.draw(TelegraphSettings(share=1.0), (4, 4), np.random.default_rng(0))
    conductance_s = np.full((4, 4), G_S)[index]
    for process in (noise, traps):
        deviation_s = process.at(1.0, index, conductance_s, np.random.default_rng(1))
        assert deviation_s.shape == conductance_s.shape
        assert np.all(deviation_s != 0.0)
    np.testing.assert_array_equal(np.isfinite(noise.time_s), chosen)
    np.testing.assert_array_equal(np.isfinite(traps.time_s).reshape(4, 4), chosen)


# Telegraph noise


def test_share_of_telegraph_cells() -> None:
    traps = TelegraphNoise.draw(TelegraphSettings(share=0.02), (300, 300), np.random.default_rng(0))
    assert np.count_nonzero(traps.trap >= 0) == pytest.approx(1800, abs=4 * math.sqrt(1800))
    np.testing.assert_array_equal(np.sort(traps.trap[traps.trap >= 0]), np.arange(len(traps.amplitude)))


def test_a_telegraph_cell_has_two_values_their_mean_its_conductance() -> None:
    traps, rng = every_cell(2000, amplitude=0.1), np.random.default_rng(1)
    reads_s = np.array([traps.at(1e5 * number, ..., np.full(2000, G_S), rng) for number in range(50)])
    up = traps.high_share
    for value, reached in ((0.1 * G_S * (1 - up), reads_s.max(axis=0)), (-0.1 * G_S * up, reads_s.min(axis=0))):
        often = (up > 0.2) & (up < 0.8)
        np.testing.assert_allclose(reached[often], value[often], rtol=1e-9)
    assert abs(reads_s.mean()) < 4 * 0.05 * G_S / math.sqrt(reads_s.size)
    assert np.sqrt(np.mean(reads_s**2)) == pytest.approx(
        np.sqrt(np.mean(traps.sigma_s(np.full(2000, G_S)) ** 2)), rel=0.02
    )


@pytest.mark.parametrize("elapsed_s", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_transition_probability_is_exact_in_any_number_of_steps(elapsed_s: float, n_steps: int) -> None:
    n_cells = 20_000
    traps = every_cell(n_cells, dwell_min_s=0.5, dwell_max_s=0.5)
    rng, ones = np.random.default_rng(2), np.ones(n_cells)
    before = traps.at(0.0, ..., ones, rng) > 0
    for number in range(1, n_steps + 1):
        after = traps.at(elapsed_s * number / n_steps, ..., ones, rng) > 0
    expected = 0.5 + 0.5 * math.exp(-elapsed_s * (1 / 0.5 + 1 / 0.5))
    for state in (False, True):
        assert np.mean(after[before == state] == state) == pytest.approx(expected, abs=0.015)


def test_dwell_times_are_those_of_the_settings() -> None:
    traps = every_cell(5000, dwell_min_s=0.01, dwell_max_s=100.0)
    for dwell_s in (traps.high_s, traps.low_s):
        assert 0.01 <= dwell_s.min() < 0.011
        assert 90 < dwell_s.max() <= 100
        assert np.median(dwell_s) == pytest.approx(1.0, rel=0.2)


# Together with white noise


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_flicker_is_a_share_of_a_noise_that_stays_the_same(share: float) -> None:
    settings = NoiseSettings(relative=0.02, flicker_share=share)
    assert WhiteReadNoise.from_settings(settings).relative == 0.02
    sigma_s = FlickerNoise.from_settings(settings, (1,)).sigma_s(np.array([G_S]))
    assert sigma_s[0] ** 2 == pytest.approx(share * (0.02 * G_S) ** 2)


def test_only_telegraph_cells_have_telegraph_noise() -> None:
    traps = TelegraphNoise.draw(TelegraphSettings(share=0.1), (100, 100), np.random.default_rng(1))
    sigma_s = traps.sigma_s(np.full((100, 100), G_S))
    np.testing.assert_array_equal(sigma_s > 0.0, traps.trap >= 0)
    np.testing.assert_array_equal(traps.sigma_s(np.full(100, G_S), (3,)), sigma_s[3])


def test_switched_off_there_is_none() -> None:
    off = FlickerNoise.from_settings(NoiseSettings(enabled=False), (8, 8))
    traps = TelegraphNoise.draw(TelegraphSettings(enabled=False, share=1.0), (8, 8), np.random.default_rng(1))
    for process in (off, traps):
        assert not process.at(1.0, ..., np.full((8, 8), G_S), np.random.default_rng(2)).any()
        assert not process.sigma_s(np.full((8, 8), G_S)).any()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("noise.flicker_high_hz=1e-5", "not above"),
        ("telegraph.dwell_max_s=1e-6", "below dwell_min_s"),
        ("noise.flicker_share=1.5", "less than or equal to 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(SimSettings, overrides=[override])
