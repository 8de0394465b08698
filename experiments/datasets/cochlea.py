"""A cochlea of 64 channels: from a waveform to events; model and figures are in docs/explanation/cochlea.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.utterances import N_CHANNELS, ChannelEvents
from hil.errors import DataError

#: sample rate that the filters are made for
SAMPLE_RATE_HZ = 8000
#: a frame: events fall on its end
FRAME_S = 1e-3
#: sample rates that are converted to it
RATES_HZ = (8000, 192_000)

_HOP = round(SAMPLE_RATE_HZ * FRAME_S)


@dataclass(frozen=True)
class Cochlea:
    """The model. All constants are part of the data that it makes, so they are not settings of a run.

    Where a constant is said to be chosen, it is ours: chosen on validation takes of the training part of FSDD, for
    digits of known and of unheard speakers alike; docs/explanation/cochlea.md has the figures.

    Attributes:
        low_hz, high_hz: centre frequencies of the first and the last channel: pitch of a low voice, and what a sample
            rate of 8 kHz leaves of the upper end.
        bandwidth_erb: bandwidth of a filter relative to people's (Glasberg, Moore 1990). Chosen: at 1 the harmonics of
            a voice are told apart, which hides what vowels of different voices share.
        smooth_hz: corner of the hair cell's low-pass; below 1 kHz as in people's loss of phase locking, ours.
        floor: level at which compression sets in, relative to the loudest frame (-34 dB); chosen.
        inhibition: part of the mean loudness around a channel that is taken off it; chosen.
        inhibition_channels: standard deviation of that surround, in channels; chosen.
        adapt_s: time constant of adaptation; chosen.
        rate_hz: spikes per second at the level of the loudest frame, before inhibition and adaptation; chosen.
        leak_s: time constant of the spiking cell; chosen.
    """

    low_hz: float = 100.0
    high_hz: float = 3600.0
    bandwidth_erb: float = 1.5
    smooth_hz: float = 400.0
    floor: float = 0.02
    inhibition: float = 0.5
    inhibition_channels: float = 20.0
    adapt_s: float = 0.14
    rate_hz: float = 580.0
    leak_s: float = 0.07

    def key(self) -> dict[str, object]:
        """Return what the events depend on, for the name of a cache file."""
        return asdict(self)

    def centres_hz(self) -> NDArray[np.float64]:
        """Centre frequencies, shape (64,), equally spaced in ERB numbers (Glasberg, Moore 1990)."""
        low, high = (21.4 * np.log10(1.0 + 4.37e-3 * f) for f in (self.low_hz, self.high_hz))
        return (10.0 ** (np.linspace(low, high, N_CHANNELS) / 21.4) - 1.0) / 4.37e-3

    def envelope(self, wave: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
        """Mean output of the hair cells in each frame of 1 ms, shape (n_frames, 64).

        Raises:
            DataError: the sample rate is out of range, or the waveform is empty or silent.
        """
        from experiments.datasets._cochlea_kernel import envelopes

        wave = _resampled(wave, rate_hz)
        if not len(wave) or not np.abs(wave).max() > 0:
            raise DataError(f"the waveform of {len(wave)} samples is silent", fix="give a recording of speech")
        centre = self.centres_hz()
        # fourth order: the bandwidth of one pole is 1.019 ERB (Patterson et al. 1987)
        decay = np.exp(-2.0 * np.pi * 1.019 * self.bandwidth_erb * 24.7 * (4.37e-3 * centre + 1.0) / SAMPLE_RATE_HZ)
        pole = decay * np.exp(2j * np.pi * centre / SAMPLE_RATE_HZ)
        smooth = float(np.exp(-2.0 * np.pi * self.smooth_hz / SAMPLE_RATE_HZ))
        n_frames = -(-len(wave) // _HOP)
        padded = np.zeros(n_frames * _HOP)
        padded[: len(wave)] = wave
        out = np.empty((n_frames, N_CHANNELS))
        envelopes(padded, pole, 2.0 * (1.0 - decay) ** 4, smooth, _HOP, out)
        return out

    def raster(self, envelope: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Spikes of each frame, 0 or 1, shape (n_frames, 64), from what `envelope` gives."""
        from experiments.datasets._cochlea_kernel import fire

        level = np.sqrt((envelope**2).mean(axis=1).max())
        loudness = np.log1p(envelope / (self.floor * level)) / np.log1p(1.0 / self.floor)
        sharpened = np.maximum(loudness - self.inhibition * loudness @ self._neighbours(), 0.0)
        out = np.empty(envelope.shape, dtype=np.uint8)
        leak, adapt = (float(np.exp(-FRAME_S / tau)) for tau in (self.leak_s, self.adapt_s))
        fire(sharpened * (self.rate_hz * FRAME_S), leak, adapt, out)
        return out

    def _neighbours(self) -> NDArray[np.float64]:
        """Shares (64, 64) with which channels enter the mean around each channel; columns add up to 1."""
        distance = np.subtract.outer(np.arange(N_CHANNELS), np.arange(N_CHANNELS)) / self.inhibition_channels
        share = np.exp(-0.5 * distance**2)
        return share / share.sum(axis=0)

    def hear(self, wave: NDArray[np.float64], rate_hz: int) -> ChannelEvents:
        """Events of a waveform; equal waveforms give equal events, whatever their loudness.

        Args:
            wave: float64, shape (n_samples,), any unit.
            rate_hz: sample rate, 8000 to 192,000.

        Raises:
            DataError: the sample rate is out of range, or the waveform is empty or silent.
        """
        frame, channel = np.nonzero(self.raster(self.envelope(wave, rate_hz)))
        return ChannelEvents(frame.astype(np.int64) * round(FRAME_S * 1e6), channel.astype(np.int64))


def _resampled(wave: NDArray[np.float64], rate_hz: int) -> NDArray[np.float64]:
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise DataError(
            f"the sample rate is {rate_hz} Hz, allowed are {RATES_HZ[0]}..{RATES_HZ[1]} Hz",
            fix="convert the recording to 8 or 16 kHz",
        )
    if rate_hz == SAMPLE_RATE_HZ:
        return wave
    from scipy.signal import resample_poly

    common = gcd(SAMPLE_RATE_HZ, rate_hz)
    return np.asarray(resample_poly(wave, SAMPLE_RATE_HZ // common, rate_hz // common))
