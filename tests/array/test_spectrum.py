"""Spectra have the power of their trace and the slope that the noise was made with."""

from __future__ import annotations

import numpy as np
import pytest
from traces import flicker

from experiments.array.spectrum import fit_flicker, stretches, welch
from hil.errors import DataError

N, DT_S = 4096, 1e-3


def test_the_density_of_white_noise_is_twice_its_variance_times_the_interval() -> None:
    x = 3.0 * np.random.default_rng(1).standard_normal((N, 20))
    spectrum = welch(x, np.arange(N) * DT_S)
    assert spectrum.psd.mean() == pytest.approx(2 * 9.0 * DT_S, rel=0.02)
    assert spectrum.frequency_hz[-1] == pytest.approx(500.0)
    # the highest frequency stands for itself only, each other one for its negative twin, too
    assert spectrum.psd[-1].mean() == pytest.approx(9.0 * DT_S, rel=0.2)
    assert spectrum.interval_s == pytest.approx(DT_S)


def test_a_sine_keeps_its_power_at_its_frequency() -> None:
    time_s = np.arange(N) * DT_S
    spectrum = welch(np.sin(2 * np.pi * 125.0 * time_s)[:, None], time_s)
    assert spectrum.frequency_hz[spectrum.psd[:, 0].argmax()] == pytest.approx(125.0)
    assert spectrum.psd.sum() * spectrum.frequency_hz[0] == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("exponent", [0.8, 1.0, 1.4])
@pytest.mark.parametrize("white", [0.0, 1.0])
def test_the_exponent_is_found_with_and_without_a_white_floor(exponent: float, white: float) -> None:
    rng = np.random.default_rng(2)
    x = flicker(rng, N, 60, exponent) + white * rng.standard_normal((N, 60))
    fit = fit_flicker(welch(x, np.arange(N) * DT_S))
    found = np.isfinite(fit.exponent)
    assert found.mean() > 0.95
    scatter = fit.exponent[found].std()
    assert fit.exponent[found].mean() == pytest.approx(exponent, abs=0.05 + 3 * scatter / 60**0.5)
    # the stated error is the scatter between traces of the same noise
    assert 0.6 < np.nanmedian(fit.exponent_error) / scatter < 1.5


def test_the_level_and_the_corner_are_those_of_the_noise() -> None:
    """White density and 1/f density are equal where they were made equal."""
    rng = np.random.default_rng(3)
    x = flicker(rng, N, 60, 1.0)
    level = np.median(fit_flicker(welch(x, np.arange(N) * DT_S)).psd_at_1hz)
    corner_hz = 50.0
    sigma = np.sqrt(level / corner_hz / (2 * DT_S))
    fit = fit_flicker(welch(x + sigma * rng.standard_normal(x.shape), np.arange(N) * DT_S))
    assert np.nanmedian(fit.corner_hz) == pytest.approx(corner_hz, rel=0.3)
    assert np.median(fit.psd_white) == pytest.approx(2 * DT_S * sigma**2, rel=0.2)


def test_white_noise_is_not_taken_for_flicker_noise() -> None:
    x = np.random.default_rng(4).standard_normal((1024, 500))
    fit = fit_flicker(welch(x, np.arange(1024) * DT_S))
    assert np.isfinite(fit.exponent).sum() <= 2  # 1 in 1000 each
    assert (fit.psd_at_1hz[np.isnan(fit.exponent)] == 0).all()
    assert fit.psd_white.mean() == pytest.approx(2 * DT_S, rel=0.05)


def test_a_pause_divides_the_trace_and_no_segment_reaches_across_it() -> None:
    """An interrupted run must not look like one slow jump."""
    rng = np.random.default_rng(5)
    time_s = np.arange(N) * DT_S
    time_s[N // 2 :] += 3600.0
    x = rng.standard_normal((N, 10))
    x[N // 2 :] += 100.0
    assert [part.start for part in stretches(time_s)] == [0, N // 2]
    spectrum = welch(x, time_s)
    assert spectrum.n_stretches == 2
    assert spectrum.interval_s == pytest.approx(DT_S)
    assert spectrum.psd.max() < 20 * 2 * DT_S


def test_uneven_reads_are_stated_as_jitter() -> None:
    rng = np.random.default_rng(6)
    time_s = np.arange(N) * DT_S + 1e-4 * rng.standard_normal(N)
    spectrum = welch(rng.standard_normal((N, 2)), time_s)
    assert spectrum.jitter == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("time_s", [np.arange(5.0), np.zeros(100)], ids=["too few", "clock stands still"])
def test_times_that_make_no_spectrum_are_refused(time_s: np.ndarray) -> None:
    with pytest.raises(DataError, match="rising times"):
        welch(np.zeros((len(time_s), 1)), time_s)


def test_a_constant_trace_has_no_noise_and_raises_nothing() -> None:
    fit = fit_flicker(welch(np.full((256, 2), 14e-6), np.arange(256.0)))
    assert np.isnan(fit.exponent).all()
