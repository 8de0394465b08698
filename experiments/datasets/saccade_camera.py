"""A simulated event camera that sees an image move along the three saccades of N-MNIST."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.binning import (
    CROP_FIRST_PX,
    CROP_PX,
    DEFAULT_BIN_RULE,
    N_INPUTS,
    SENSOR_PX,
    BinRule,
    Events,
)
from hil.errors import ConfigError, DataError
from hil.progress import Progress, no_progress
from hil.spikes import n_words

#: side of the images the camera looks at, in pixels
IMAGE_PX = 28
#: the largest threshold jitter for which no threshold can be negative: 1 / (2 sqrt 3)
MAX_JITTER = 0.28
# small enough that progress moves, large enough that the threads stay busy
_BATCH_IMAGES = 2000


@dataclass(frozen=True)
class SaccadeCamera:
    """Event camera of 34 x 34 pixels that looks at a moving 28 x 28 image.

    The image centre runs from vertex to vertex (sensor pixels, x then y), along each leg as u * u * (3 - 2 u) in time,
    and rests in between. A pixel emits an event whenever the logarithm of (log_offset + brightness) has moved by its
    threshold since its last event.

    **Polarity.** `on` is the polarity bit as the N-MNIST files have it. The fit found that bit 1 goes with *decreasing*
    brightness of the white-on-black digit (correlation 0.79 with this sign, 0.02 with the other), so `on` means
    decreasing brightness here. This is a fitted sign, not a claim about the recording camera.

    Source: fitted here to 804 real N-MNIST recordings whose MNIST images are known; three-saccade protocol by Orchard,
    Jayawant, Cohen, Thakor 2015 (doi:10.3389/fnins.2015.00437). Valid for white-on-black images like MNIST's; sensor
    noise, dead pixels and the camera's latency are not modelled. The fit used training recordings; the real
    test recordings seem to sit about 0.7 pixels higher on the sensor (docs/explanation/event-camera.md).

    Attributes:
        vertices_px: where the image centre is before and after each leg, (x, y) in sensor pixels.
        leg_times_s: start and end of each leg.
        duration_s: length of the recording.
        time_step_s: simulation step; events carry the time of their step.
        scale_px: sensor pixels per image pixel.
        display_gamma: brightness = (pixel / 255) ** gamma.
        blur_px: standard deviation of the optics' blur, in image pixels.
        log_offset: brightness added before the logarithm, relative to a white pixel.
        contrast_threshold: change of the logarithm per event.
        threshold_jitter: standard deviation of the threshold, relative, drawn anew after each event (sum of four
            uniform numbers: nearly normal, bounded at 3.5 standard deviations).

    Raises:
        ConfigError: a parameter is out of its range.
    """

    vertices_px: tuple[tuple[float, float], ...] = ((13.29, 14.57), (15.23, 20.93), (19.66, 14.61), (13.50, 14.84))
    leg_times_s: tuple[tuple[float, float], ...] = ((3e-3, 87e-3), (105e-3, 191e-3), (218e-3, 295e-3))
    duration_s: float = 0.310
    time_step_s: float = 2e-3
    scale_px: float = 0.984
    display_gamma: float = 2.2
    blur_px: float = 0.6
    log_offset: float = 2.0
    contrast_threshold: float = 0.06
    threshold_jitter: float = 0.10

    def __post_init__(self) -> None:
        limits = {
            "duration_s": (1e-3, 8.0),  # the time field of an N-MNIST file ends at 8.39 s
            "time_step_s": (1e-6, self.duration_s),
            "scale_px": (0.1, 10.0),
            "display_gamma": (0.1, 10.0),
            "blur_px": (0.0, 5.0),
            "log_offset": (1e-6, 1e3),
            "contrast_threshold": (1e-3, 5.0),
            "threshold_jitter": (0.0, MAX_JITTER),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(
                    f"camera parameter {name} is {value}, allowed are {low}..{high}",
                    fix=f"choose {name} within these limits",
                )
        if len(self.vertices_px) != len(self.leg_times_s) + 1:
            raise ConfigError(
                f"the camera path has {len(self.vertices_px)} vertices and {len(self.leg_times_s)} legs",
                fix="give one vertex more than legs",
            )
        times = [time for leg in self.leg_times_s for time in leg]
        if any(late <= early for early, late in pairwise(times)):
            raise ConfigError(f"the leg times {self.leg_times_s} s do not rise", fix="give legs one after another")

    @property
    def duration_us(self) -> int:
        """Length of the recording in microseconds."""
        return round(self.duration_s * 1e6)

    def step_times_us(self) -> NDArray[np.int64]:
        """Return the time of each simulation step in microseconds, int64, shape (n_times,)."""
        n_times = math.ceil(self.duration_us / (self.time_step_s * 1e6) - 1e-9)
        return np.floor(np.arange(n_times) * self.time_step_s * 1e6 + 1e-6).astype(np.int64)

    def path_px(self) -> NDArray[np.float64]:
        """Return where the image centre is at each step, float64, shape (n_times, 2): x, y in sensor pixels."""
        t_s = self.step_times_us() * 1e-6
        position = np.tile(np.asarray(self.vertices_px[0], dtype=np.float64), (len(t_s), 1))
        for leg, (start_s, end_s) in enumerate(self.leg_times_s):
            u = np.clip((t_s - start_s) / (end_s - start_s), 0.0, 1.0)
            way = np.subtract(self.vertices_px[leg + 1], self.vertices_px[leg])
            position += (u * u * (3 - 2 * u))[:, None] * way
        return position

    def key(self) -> dict[str, object]:
        """Return all parameters, for the name of a cache file."""
        return asdict(self)

    def rasters(
        self,
        images: NDArray[np.uint8],
        rule: BinRule = DEFAULT_BIN_RULE,
        *,
        seed: int = 0,
        first_index: int = 0,
        progress: Progress = no_progress,
    ) -> NDArray[np.uint64]:
        """Return the packed rasters of the centre crop.

        Equal to `bin_events(self.events(image), rule, end_us=self.duration_us)` of each image, but only the 16 x 16
        pixels of the crop are simulated.

        Args:
            images: uint8, shape (n, 28, 28), 0 = black.
            rule: the bins.
            seed: 0 .. 2**64 - 1.
            first_index: number of the first image; image i draws its noise from (seed, first_index + i), whatever the
                number of threads and however a set is cut into calls.
            progress: told after each batch of images.

        Returns:
            uint64, shape (n, n_steps, 4).

        Raises:
            DataError: the images have another shape or type.
            ConfigError: the seed is out of its range.
        """
        _check_images(images)
        word_seed = _checked_seed(seed)
        # late: Numba takes a second to import, and not every use of the package needs it
        from experiments.datasets import _saccade_kernel as kernel

        words = np.zeros((len(images), rule.n_steps, n_words(N_INPUTS)), dtype=np.uint64)
        tables = self._tables(CROP_FIRST_PX, CROP_PX)
        bins = rule.bins(self.step_times_us(), self.duration_us)
        what = "simulating the event camera"
        for start in range(0, len(images), _BATCH_IMAGES):
            stop = min(start + _BATCH_IMAGES, len(images))
            batch = np.ascontiguousarray(images[start:stop])
            kernel.see_images(
                batch, first_index + start, word_seed, *tables, *self._analogue(), bins, words[start:stop]
            )
            progress(what, stop, len(images))
        return words

    def events(self, image: NDArray[np.uint8], *, seed: int = 0, index: int = 0) -> Events:
        """Return all events of one image on the whole sensor, in order of time.

        Args:
            image: uint8, shape (28, 28), 0 = black.
            seed: 0 .. 2**64 - 1.
            index: number of the image in its set; see `rasters`.

        Raises:
            DataError: the image has another shape or type.
            ConfigError: the seed is out of its range.
        """
        _check_images(image[None])
        word_seed = _checked_seed(seed)
        from experiments.datasets import _saccade_kernel as kernel

        tables = self._tables(0, SENSOR_PX)
        image = np.ascontiguousarray(image)
        pixel, on, step = kernel.image_events(image, index, word_seed, *tables, *self._analogue())
        return Events(x=pixel % SENSOR_PX, y=pixel // SENSOR_PX, on=on, t_us=self.step_times_us()[step])

    def _analogue(self) -> tuple[float, float, float]:
        return self.log_offset, self.contrast_threshold, self.threshold_jitter

    def _tables(
        self, first_px: int, n_px: int
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.uint32],
        NDArray[np.float32],
        NDArray[np.uint32],
        NDArray[np.float32],
        NDArray[np.bool_],
        NDArray[np.uint64],
    ]:
        """Return all that does not depend on the image, for the square patch of n_px pixels from first_px on."""
        brightness = ((np.arange(256) / 255.0) ** self.display_gamma).astype(np.float32)
        radius = int(4 * self.blur_px + 0.5)  # where scipy.ndimage.gaussian_filter cuts the bell, too
        distance = np.arange(-radius, radius + 1)
        bell = np.exp(-0.5 * (distance / self.blur_px) ** 2) if radius else np.ones(1)
        weights = (bell / bell.sum()).astype(np.float32)
        pad = radius + 1
        path = self.path_px()
        sensor = np.arange(first_px, first_px + n_px)
        corner: list[NDArray[np.uint32]] = []
        part: list[NDArray[np.float32]] = []
        for axis in (1, 0):  # rows follow y, columns follow x
            source = (sensor[None, :] - path[:, axis : axis + 1]) / self.scale_px + (IMAGE_PX - 1) / 2
            # beyond the padding all is dark, so a clipped coordinate reads the same 0
            source = np.clip(source + pad, 0.0, IMAGE_PX - 1 + 2 * pad)
            # unsigned: Numba need not look for negative indices, which makes the kernel a quarter faster
            lower = np.minimum(np.floor(source), IMAGE_PX - 2 + 2 * pad).astype(np.uint32)
            corner.append(lower)
            part.append((source - lower).astype(np.float32))
        moved = np.ones(len(path), dtype=np.bool_)
        moved[1:] = np.any(path[1:] != path[:-1], axis=1)
        # numbered on the whole sensor, so that a pixel draws the same noise in every patch
        ids = (sensor[:, None] * SENSOR_PX + sensor[None, :]).astype(np.uint64)
        return brightness, weights, corner[0], part[0], corner[1], part[1], moved, ids


def _check_images(images: NDArray[np.uint8]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != (IMAGE_PX, IMAGE_PX):
        raise DataError(
            f"the images are {images.dtype}{images.shape}, not uint8 (n, {IMAGE_PX}, {IMAGE_PX})",
            fix="scale them to 28 x 28 pixels with values 0..255",
        )


def _checked_seed(seed: int) -> np.uint64:
    if not 0 <= seed < 2**64:
        raise ConfigError(f"the seed is {seed}, allowed are 0..2**64 - 1", fix="choose a seed that is not negative")
    return np.uint64(seed)
