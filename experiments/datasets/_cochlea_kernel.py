"""Compiled core of the cochlea; imported late, since Numba takes a second to load."""

from __future__ import annotations

from typing import Any

import numba


@numba.njit(nogil=True)
def envelopes(wave: Any, pole: Any, gain: Any, smooth: float, hop: int, out: Any) -> None:
    """Filter, rectify and smooth one waveform.

    Args:
        wave: float64 (n_samples,).
        pole: complex128 (n_channels,), of each of the four one-pole filters in a row.
        gain: float64 (n_channels,), makes the response 1 at the centre frequency.
        smooth: share of the past that the low-pass of the hair cell keeps from sample to sample.
        hop: samples of one frame.
        out: float64 (n_frames, n_channels), the mean of each frame.
    """
    n_frames, n_channels = out.shape
    for channel in range(n_channels):
        p, g = pole[channel], gain[channel]
        z0 = z1 = z2 = z3 = 0j
        low = 0.0
        for frame in range(n_frames):
            total = 0.0
            for k in range(frame * hop, frame * hop + hop):
                z0 = p * z0 + g * wave[k]
                z1 = p * z1 + z0
                z2 = p * z2 + z1
                z3 = p * z3 + z2
                low = smooth * low + (1.0 - smooth) * max(z3.real, 0.0)
                total += low
            out[frame, channel] = total / hop


@numba.njit(nogil=True)
def fire(drive: Any, leak: float, adapt: float, counts: Any) -> None:
    """Adapt and integrate the drive of each channel, and count the spikes of each frame.

    Args:
        drive: float64 (n_frames, n_channels), charge per frame in thresholds.
        leak: share of the charge left after one frame.
        adapt: share of the past that the adaptation keeps from frame to frame.
        counts: uint8 (n_frames, n_channels), 0 or 1.
    """
    n_frames, n_channels = drive.shape
    for channel in range(n_channels):
        charge = slow = 0.0
        for frame in range(n_frames):
            now = drive[frame, channel]
            slow = adapt * slow + (1.0 - adapt) * now
            charge = leak * charge + max(now - slow, 0.0)
            if charge >= 1.0:
                charge = min(charge - 1.0, 1.0)
                counts[frame, channel] = 1
            else:
                counts[frame, channel] = 0
