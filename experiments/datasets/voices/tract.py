"""The vocal tract: resonators in cascade whose frequencies move, after Klatt 1980."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

#: resonances above the moving ones, of a man's tract of 17.5 cm: (frequency, bandwidth) in Hz
UPPER_HZ = ((3500.0, 200.0), (4500.0, 280.0), (5500.0, 350.0), (6500.0, 450.0))
#: pole and zero of the nose (Klatt 1980): the zero leaves the pole as the velum opens
_NOSE_HZ, _NOSE_WIDTH_HZ, _NOSE_ZERO_HZ = 270.0, 100.0, 450.0
#: a resonance so near half the sampling rate is left out, since its image below would be heard
_NYQUIST_PART = 0.94


def through_tract(
    source: NDArray[np.float64],
    formants_hz: NDArray[np.float64],
    bandwidths_hz: NDArray[np.float64],
    nasality: NDArray[np.float64],
    *,
    scale: float,
    rate_hz: float,
) -> NDArray[np.float64]:
    """Return what leaves the lips.

    Args:
        source: float64, shape (n_frames * samples per frame,): flow and breath at the glottis.
        formants_hz, bandwidths_hz: float64, shape (n_frames, 3): the moving resonances.
        nasality: float64, shape (n_frames,), 0..1.
        scale: of the fixed resonances, relative to the man of UPPER_HZ.
        rate_hz: samples per second.

    Returns:
        float64, shape of `source`.
    """
    n_frames = len(formants_hz)
    upper = np.array([pair for pair in UPPER_HZ if pair[0] * scale < _NYQUIST_PART * rate_hz / 2]) * [scale, 1.0]
    frequency = np.concatenate([formants_hz, np.tile(upper[:, 0], (n_frames, 1))], axis=1)
    bandwidth = np.concatenate([bandwidths_hz, np.tile(upper[:, 1], (n_frames, 1))], axis=1)
    sections = np.zeros((n_frames, 1 + frequency.shape[1], 6))
    sections[:, 1:] = _resonators(frequency, bandwidth, rate_hz)
    nose = np.full(n_frames, _NOSE_HZ * scale)
    pole = _resonators(nose, np.full(n_frames, _NOSE_WIDTH_HZ), rate_hz)
    zero = _resonators(nose + nasality * (_NOSE_ZERO_HZ - _NOSE_HZ) * scale, np.full(n_frames, _NOSE_WIDTH_HZ), rate_hz)
    sections[:, 0, :3] = zero[:, 3:] * (pole[:, :1] / zero[:, :1])
    sections[:, 0, 3:] = pole[:, 3:]
    out = np.empty_like(source)
    state = np.zeros((sections.shape[1], 2))
    per_frame = len(source) // n_frames
    for frame in range(n_frames):
        part = slice(frame * per_frame, (frame + 1) * per_frame)
        out[part], state = sosfilt(sections[frame], source[part], zi=state)
    return out


def _resonators(
    frequency_hz: NDArray[np.float64], bandwidth_hz: NDArray[np.float64], rate_hz: float
) -> NDArray[np.float64]:
    """Second-order sections (..., 6) with a gain of 1 at 0 Hz."""
    radius = np.exp(-np.pi * bandwidth_hz / rate_hz)
    a1 = -2.0 * radius * np.cos(2.0 * np.pi * frequency_hz / rate_hz)
    a2 = radius * radius
    none, one = np.zeros_like(a1), np.ones_like(a1)
    return np.stack([one + a1 + a2, none, none, one, a1, a2], axis=-1)
