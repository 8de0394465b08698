"""The voice source: glottal pulses with the small irregularities of a living voice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter


def glottal_flow(
    pitch_hz: NDArray[np.float64],
    rate_hz: float,
    *,
    open_quotient: float,
    tilt_hz: float,
    jitter: float,
    shimmer: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the derivative of the glottal flow, and where the glottis is open.

    The open phase is the polynomial pulse t**2 - t**3 of D. H. Klatt and L. C. Klatt, J. Acoust. Soc. Am. 87, 820
    (1990), doi:10.1121/1.398894. Its derivative stands for the flow as heard: lips radiate the derivative.

    Args:
        pitch_hz: fundamental frequency at each sample, float64, shape (n,).
        rate_hz: samples per second.
        open_quotient: part of a period with an open glottis.
        tilt_hz: corner of a one-pole low-pass that takes the edge off the closure.
        jitter: standard deviation of the periods, relative.
        shimmer: standard deviation of the amplitudes of the pulses, relative.
        rng: source of the irregularities.

    Returns:
        float64 (n,), about 1 in amplitude; and float64 (n,), 1 while the glottis is open, else 0.
    """
    cycles = np.cumsum(pitch_hz) / rate_hz
    period = cycles.astype(np.int64)
    n_periods = int(period[-1]) + 2
    # jitter moves the starts of periods; the later start is kept after the earlier one by the smallness of the shift
    starts = np.arange(n_periods) + np.clip(rng.normal(0.0, jitter, n_periods), -0.2, 0.2)
    amplitude = np.clip(rng.normal(1.0, shimmer, n_periods), 0.3, 1.7)
    period = np.searchsorted(starts, cycles, side="right") - 1
    period = np.clip(period, 0, n_periods - 2)
    phase = (cycles - starts[period]) / (starts[period + 1] - starts[period])
    x = np.clip(phase / open_quotient, 0.0, 1.0)
    is_open = (phase >= 0.0) & (phase < open_quotient)
    flow = np.where(is_open, amplitude[period] * (2.0 * x - 3.0 * x * x), 0.0)
    pole = np.exp(-2.0 * np.pi * tilt_hz / rate_hz)
    return lfilter([1.0 - pole], [1.0, -pole], flow), is_open.astype(np.float64)
