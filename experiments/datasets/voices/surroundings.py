"""What is between a mouth and a file: a room, a microphone, and noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt


def shaped_noise(
    n: int, spectrum: tuple[tuple[float, float], ...], rate_hz: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return noise of rms 1.

    Args:
        n: samples, at least 2.
        spectrum: points (frequency in Hz, level in dB) with straight lines between; constant beyond the last.
        rate_hz: samples per second.
        rng: source of the noise.

    Returns:
        float64, shape (n,).
    """
    frequency, level_db = np.array(spectrum).T
    transform = np.fft.rfft(rng.standard_normal(n))
    transform *= 10.0 ** (np.interp(np.fft.rfftfreq(n, 1.0 / rate_hz), frequency, level_db) / 20.0)
    noise = np.fft.irfft(transform, n)
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)


def recorded(wave: NDArray[np.float64], rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return `wave` (float64, shape (n,)) as a microphone in a room records it, of the same shape.

    The background is 15 to 60 dB below the loudest 20 ms of speech.
    """
    heard = _through_microphone(_in_room(wave, rate_hz, rng), rate_hz, rng)
    level = loudest(heard, rate_hz) * 10.0 ** (-rng.uniform(15.0, 60.0) / 20.0)
    return heard + level * _background(len(wave), rate_hz, rng)


def trimmed(wave: NDArray[np.float64], rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the word without most of the silence around it.

    Whoever cuts recordings does it by loudness, so weak consonants at the edges are sometimes cut, too: kept is what
    reaches -42 to -20 dB of the loudest 10 ms, and 5 to 40 ms on either side.
    """
    width = round(0.01 * rate_hz)
    power = np.convolve(wave**2, np.full(width, 1.0 / width), mode="same")
    loud = np.flatnonzero(power >= power.max() * 10.0 ** (rng.uniform(-42.0, -20.0) / 10.0))
    before, after = (round(margin_s * rate_hz) for margin_s in rng.uniform(0.005, 0.04, 2))
    return wave[max(0, int(loud[0]) - before) : int(loud[-1]) + after]


def loudest(wave: NDArray[np.float64], rate_hz: float) -> float:
    """Return the rms of the loudest 20 ms of `wave`."""
    width = max(1, int(0.02 * rate_hz))
    power = np.convolve(wave**2, np.full(width, 1.0 / width), mode="same")
    return float(np.sqrt(max(float(power.max()), 1e-20)))


def _in_room(wave: NDArray[np.float64], rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Reverberation: noise that decays by 60 dB in 80 to 400 ms, in all 8 to 26 dB below the direct sound."""
    echo = rng.standard_normal(int(rng.uniform(0.08, 0.4) * rate_hz))
    echo *= 10.0 ** (-3.0 * np.arange(len(echo)) / len(echo))
    # no wall is nearer than 2 ms
    echo[: int(0.002 * rate_hz)] = 0.0
    echo *= 10.0 ** (-rng.uniform(8.0, 26.0) / 20.0) / np.sqrt(np.sum(echo**2))
    echo[0] = 1.0
    return fftconvolve(wave, echo)[: len(wave)]


def _through_microphone(wave: NDArray[np.float64], rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A high-pass of 50 to 180 Hz, and a slope of up to 8 dB per decade either way."""
    heard = sosfilt(butter(2, rng.uniform(50.0, 180.0), "highpass", fs=rate_hz, output="sos"), wave)
    frequency = np.maximum(np.fft.rfftfreq(len(wave), 1.0 / rate_hz), 50.0)
    gain_db = rng.uniform(-8.0, 8.0) * np.log10(frequency / 1000.0)
    return np.fft.irfft(np.fft.rfft(heard) * 10.0 ** (gain_db / 20.0), len(wave))


def _background(n: int, rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of rms 1 that is stronger at low frequencies, and some hum of the mains."""
    corner_hz = rng.uniform(150.0, 900.0)
    spectrum = ((0.0, 0.0), (corner_hz, -3.0), (4.0 * corner_hz, -14.0), (rate_hz / 2, -28.0))
    phase = 2.0 * np.pi * (rng.choice([50.0, 60.0]) * np.arange(n) / rate_hz + rng.uniform())
    return shaped_noise(n, spectrum, rate_hz, rng) + rng.uniform(0.0, 0.5) * np.sin(phase)
