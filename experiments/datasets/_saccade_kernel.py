"""Compiled core of the event camera; imported late, since Numba takes a second to load.

All random numbers come from one SplitMix64 stream per pixel (Steele, Lea, Flood 2014), seeded by the run, the image and
the pixel. The result therefore depends neither on the number of threads, nor on how images are split into batches, nor
on which part of the sensor is simulated.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_S16, _S32, _S48 = np.uint64(16), np.uint64(32), np.uint64(48)
_LOW16 = np.uint64(0xFFFF)
_ONE = np.uint64(1)
_SQRT3 = math.sqrt(3.0)


@numba.njit(inline="always")
def _mix(z: Any) -> Any:
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@numba.njit(inline="always")
def _near_normal(z: Any) -> Any:
    # Sum of four uniform numbers: mean 0, variance 1, bounded by 2 * sqrt(3). The bound keeps every threshold
    # positive without a clamp, and it costs one draw where Box-Muller needs a logarithm, a root and a cosine.
    total = (z & _LOW16) + ((z >> _S16) & _LOW16) + ((z >> _S32) & _LOW16) + (z >> _S48)
    return (np.float64(total) + 2.0) / 65536.0 * _SQRT3 - 2.0 * _SQRT3


@numba.njit(nogil=True)
def _blur_into(image: Any, brightness: Any, weights: Any, padded: Any, scratch: Any) -> None:
    # padded is (28 + 2 pad) square with pad = radius + 1, so the dark outermost ring stays 0
    radius = len(weights) // 2
    pad = radius + 1
    n_rows, n_cols = image.shape
    padded[:] = 0
    scratch[:] = 0
    for i in range(n_rows):
        for j in range(n_cols):
            level = image[i, j]
            if level:
                for d in range(len(weights)):
                    scratch[i, j + d + 1] += brightness[level] * weights[d]
    for i in range(n_rows):
        for d in range(len(weights)):
            w = weights[d]
            for c in range(n_cols + 2 * pad):
                padded[i + d + 1, c] += scratch[i, c] * w


@numba.njit(nogil=True)
def see_image(
    padded: Any,
    row0: Any,
    row_part: Any,
    col0: Any,
    col_part: Any,
    moved: Any,
    image_seed: Any,
    pixel_ids: Any,
    offset: float,
    threshold: float,
    jitter: float,
    bins: Any,
    words: Any,
    event_pixel: Any,
    event_on: Any,
    event_step: Any,
) -> int:
    """Let a patch of pixels see one image; return the number of events.

    Light compares with the next threshold as a brightness, not as a logarithm: L - ref > threshold is the same as
    s + offset > exp(ref) * exp(threshold). So an exponential is needed per event, and nothing per time step.

    Args:
        padded: float32 (side, side), blurred brightness with a dark border.
        row0, row_part: uint32 and float32 (n_times, n_rows), source row and the part of the next one, per sensor row.
        col0, col_part: the same for columns.
        moved: bool (n_times,), whether the image moved since the step before.
        image_seed: uint64.
        pixel_ids: uint64 (n_rows, n_cols), names the random stream of each pixel.
        offset, threshold, jitter: of the photoreceptor and the comparator.
        bins: int64 (n_times,), time bin or -1.
        words: uint64 (n_steps, n_words), packed raster to set bits in, or (0, 0) for none.
        event_pixel, event_on, event_step: (n_events,) each to write events into; length 0 for none.
    """
    n_times, n_rows = row0.shape
    n_cols = col0.shape[1]
    pack = words.shape[0] > 0
    capacity = len(event_pixel)
    level = np.empty((n_rows, n_cols))  # exp(reference)
    gain = np.empty((n_rows, n_cols))  # exp(threshold of the next event)
    upper = np.zeros((n_rows, n_cols), dtype=np.float32)
    lower = np.zeros((n_rows, n_cols), dtype=np.float32)
    state = np.empty((n_rows, n_cols), dtype=np.uint64)
    line = np.empty(padded.shape[1], dtype=np.float32)
    seen = np.empty(n_cols, dtype=np.float32)
    n_events = 0
    for k in range(n_times):
        if k > 0 and not moved[k]:
            continue  # nothing changed, so nothing can cross a threshold
        step = bins[k]
        left, right = col0[k, 0], col0[k, n_cols - 1] + 2
        for i in range(n_rows):
            above, part = row0[k, i], row_part[k, i]
            for c in range(left, right):
                line[c] = padded[above, c] + (padded[above + 1, c] - padded[above, c]) * part
            # a pass of its own: without branches the compiler makes vector code of it
            crossings = 0
            for j in range(n_cols):
                c = col0[k, j]
                s = line[c] + (line[c + 1] - line[c]) * col_part[k, j]
                seen[j] = s
                crossings += (s > upper[i, j]) | (s < lower[i, j])
            if k > 0 and crossings == 0:
                continue
            for j in range(n_cols):
                s = seen[j]
                if k == 0:
                    z = _mix(image_seed ^ pixel_ids[i, j])
                    phase = np.float64(_mix(z + _GOLDEN) >> np.uint64(11)) / 9007199254740992.0 - 0.5
                    z += _GOLDEN + _GOLDEN
                    e = (np.float64(s) + offset) * math.exp(threshold * phase)
                    g = math.exp(threshold * (1.0 + jitter * _near_normal(_mix(z))))
                elif s > upper[i, j] or s < lower[i, j]:
                    e, g, z = level[i, j], gain[i, j], state[i, j]
                    light = np.float64(s) + offset
                    while light > e * g:
                        e *= g
                        z += _GOLDEN
                        g = math.exp(threshold * (1.0 + jitter * _near_normal(_mix(z))))
                        if n_events < capacity:
                            event_pixel[n_events] = i * n_cols + j
                            event_on[n_events] = False
                            event_step[n_events] = k
                        n_events += 1
                    darker = False
                    while light * g < e:
                        e /= g
                        z += _GOLDEN
                        g = math.exp(threshold * (1.0 + jitter * _near_normal(_mix(z))))
                        if n_events < capacity:
                            event_pixel[n_events] = i * n_cols + j
                            event_on[n_events] = True
                            event_step[n_events] = k
                        n_events += 1
                        darker = True
                    if darker and pack and step >= 0:
                        bit = i * n_cols + j
                        words[step, bit >> 6] |= _ONE << np.uint64(bit & 63)
                else:
                    continue
                level[i, j], gain[i, j], state[i, j] = e, g, z
                upper[i, j] = e * g - offset
                lower[i, j] = e / g - offset
    return n_events


@numba.njit(nogil=True)
def _seed_of_image(seed: Any, index: Any) -> Any:
    return _mix(_mix(seed + _GOLDEN) ^ (index * _GOLDEN))


@numba.njit(parallel=True)
def see_images(
    images: Any,
    first_index: int,
    seed: Any,
    brightness: Any,
    weights: Any,
    row0: Any,
    row_part: Any,
    col0: Any,
    col_part: Any,
    moved: Any,
    pixel_ids: Any,
    offset: float,
    threshold: float,
    jitter: float,
    bins: Any,
    words: Any,
) -> None:
    """Fill `words`, uint64 (n_images, n_steps, n_words), with the rasters of `images`, uint8 (n_images, 28, 28)."""
    side = images.shape[1] + 2 * (len(weights) // 2 + 1)
    for b in numba.prange(images.shape[0]):
        padded = np.empty((side, side), dtype=np.float32)
        scratch = np.empty((side, side), dtype=np.float32)
        _blur_into(images[b], brightness, weights, padded, scratch)
        image_seed = _seed_of_image(seed, np.uint64(first_index + b))
        see_image(
            padded, row0, row_part, col0, col_part, moved, image_seed, pixel_ids, offset, threshold, jitter, bins,
            words[b], np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int64),
        )  # fmt: skip


def image_events(
    image: NDArray[np.uint8],
    index: int,
    seed: np.uint64,
    brightness: NDArray[np.float32],
    weights: NDArray[np.float32],
    row0: NDArray[np.uint32],
    row_part: NDArray[np.float32],
    col0: NDArray[np.uint32],
    col_part: NDArray[np.float32],
    moved: NDArray[np.bool_],
    pixel_ids: NDArray[np.uint64],
    offset: float,
    threshold: float,
    jitter: float,
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """Return (pixel, on, step) of all events of one image; pixel = row * n_cols + col of the patch."""
    side = image.shape[0] + 2 * (len(weights) // 2 + 1)
    padded, scratch = np.empty((side, side), np.float32), np.empty((side, side), np.float32)
    _blur_into(image, brightness, weights, padded, scratch)
    image_seed = np.uint64(_seed_of_image(seed, np.uint64(index)))
    bins, words = np.full(len(moved), -1, np.int64), np.empty((0, 0), np.uint64)
    count = 0
    pixel, on, step = np.empty(0, np.int64), np.empty(0, np.bool_), np.empty(0, np.int64)
    for _ in range(2):  # the first pass counts
        pixel, on, step = np.empty(count, np.int64), np.empty(count, np.bool_), np.empty(count, np.int64)
        count = see_image(
            padded, row0, row_part, col0, col_part, moved, image_seed, pixel_ids, offset, threshold, jitter, bins,
            words, pixel, on, step,
        )  # fmt: skip
    return pixel, on, step
