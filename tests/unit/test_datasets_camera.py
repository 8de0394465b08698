"""The simulated event camera: reproducible, consistent with itself, and like the real recordings."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from experiments.datasets.binning import BinRule, bin_events
from experiments.datasets.nmnist import decode_events
from experiments.datasets.saccade_camera import SaccadeCamera
from hil.errors import ConfigError, DataError
from hil.spikes import unpack_bits

DATA = Path(os.environ.get("CROSSBAR_HIL_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Strokes of random position and direction, and one image bright up to its edge."""
    rng = np.random.default_rng(5)
    made = np.zeros((12, 28, 28), dtype=np.uint8)
    for image in made:
        for _ in range(3):
            centre, angle = rng.uniform(8, 20, 2), rng.uniform(0, np.pi)
            for along in np.linspace(-7, 7, 40):
                row, col = np.clip(np.round(centre + along * np.array([np.sin(angle), np.cos(angle)])), 0, 27)
                image[int(row), int(col)] = 255
    made[-1] = rng.integers(0, 256, (28, 28))
    return made


def test_same_seed_same_raster(images: NDArray[np.uint8]) -> None:
    camera = SaccadeCamera()
    first = camera.rasters(images, seed=3)
    np.testing.assert_array_equal(first, camera.rasters(images, seed=3))
    assert not np.array_equal(first, camera.rasters(images, seed=4))
    # the same image draws other noise at another place of the set
    assert not np.array_equal(first[0], camera.rasters(images[:1], seed=3, first_index=1)[0])


def test_raster_does_not_depend_on_batches_or_threads(images: NDArray[np.uint8]) -> None:
    camera = SaccadeCamera()
    whole = camera.rasters(images, seed=3)
    parts = [camera.rasters(images[a:b], seed=3, first_index=a) for a, b in ((0, 5), (5, 6), (6, 12))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    np.testing.assert_array_equal(whole, camera.rasters(images, seed=3))
    # a view with other strides
    np.testing.assert_array_equal(whole[::2], _seen_one_by_one(camera, images[::2]))


def _seen_one_by_one(camera: SaccadeCamera, images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.concatenate([camera.rasters(image[None], seed=3, first_index=2 * i) for i, image in enumerate(images)])


@pytest.mark.parametrize("rule", [BinRule(), BinRule("fixed", 5e-3), BinRule("equal", n_steps=20)])
@pytest.mark.parametrize("camera", [SaccadeCamera(), SaccadeCamera(blur_px=0.0, scale_px=1.3, time_step_s=3e-3)])
def test_raster_equals_binned_events(images: NDArray[np.uint8], rule: BinRule, camera: SaccadeCamera) -> None:
    rasters = camera.rasters(images, rule, seed=7)
    for index in (0, 5, 11):
        events = camera.events(images[index], seed=7, index=index)
        np.testing.assert_array_equal(rasters[index], bin_events(events, rule, end_us=camera.duration_us))


def test_events_are_ordered_and_on_the_sensor(images: NDArray[np.uint8]) -> None:
    events = SaccadeCamera().events(images[0])
    assert len(events) > 500
    assert (np.diff(events.t_us) >= 0).all()
    assert 0 <= events.t_us[0] < events.t_us[-1] < 310_000
    for axis in (events.x, events.y):
        assert 0 <= axis.min() < 9
        assert 24 < axis.max() < 34
    # ON means darker: what got brighter must get darker, to within a threshold or two per pixel
    assert events.on.mean() == pytest.approx(0.5, abs=0.05)


def test_on_means_decreasing_brightness() -> None:
    image = np.zeros((28, 28), dtype=np.uint8)
    image[10:18, 10:18] = 255
    # one leg, and every pixel under the square when it starts is dark when it ends
    camera = SaccadeCamera(vertices_px=((16.5, 16.5), (30.0, 16.5)), leg_times_s=((0.01, 0.3),))
    events = camera.events(image)
    left = (events.x < 20) & (events.y >= 14) & (events.y <= 19)
    right = (events.x > 24) & (events.y >= 14) & (events.y <= 19)
    assert events.on[left].all()
    assert left.sum() > 30
    assert not events.on[right & (events.t_us < 200_000)].any()


def test_black_and_resting_images_make_no_events(images: NDArray[np.uint8]) -> None:
    assert len(SaccadeCamera().events(np.zeros((28, 28), dtype=np.uint8))) == 0
    resting = SaccadeCamera(vertices_px=((17.0, 17.0), (17.0, 17.0)), leg_times_s=((0.0, 0.1),))
    assert len(resting.events(images[0])) == 0


def test_path_visits_the_vertices() -> None:
    camera = SaccadeCamera()
    path, t_us = camera.path_px(), camera.step_times_us()
    assert len(t_us) == 155
    assert np.unique(np.diff(t_us)).tolist() == [2000]
    for t, vertex in zip((0, 96_000, 200_000, 308_000), camera.vertices_px, strict=True):
        np.testing.assert_allclose(path[np.flatnonzero(t_us == t)[0]], vertex, atol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"contrast_threshold": 0.0},
        {"threshold_jitter": 0.5},
        {"duration_s": float("nan")},
        {"blur_px": -1.0},
        {"vertices_px": ((0.0, 0.0),)},
        {"leg_times_s": ((0.1, 0.05), (0.1, 0.2), (0.2, 0.3))},
    ],
)
def test_bad_parameter(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        SaccadeCamera(**wrong)


def test_bad_images_and_seed() -> None:
    with pytest.raises(DataError, match="uint8"):
        SaccadeCamera().rasters(np.zeros((2, 28, 28)))
    with pytest.raises(DataError, match="28"):
        SaccadeCamera().events(np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(ConfigError, match="seed"):
        SaccadeCamera().events(np.zeros((28, 28), dtype=np.uint8), seed=-1)


def test_progress_ends(images: NDArray[np.uint8]) -> None:
    told: list[tuple[int, int]] = []
    SaccadeCamera().rasters(images, progress=lambda what, done, total: told.append((done, total)))
    assert told[-1] == (12, 12)


def test_like_the_real_recordings() -> None:
    recordings, mnist = DATA / "nmnist_subset.tar.gz", DATA / "mnist.npz"
    for path in (recordings, mnist):
        if not path.is_file():
            pytest.skip(f"real data are not at {path} (CROSSBAR_HIL_TEST_DATA names their folder)")
    real, index = [], []
    with tarfile.open(recordings) as archive:
        for member in archive:
            if member.name.startswith("Train/") and member.name.endswith(".bin") and len(real) < 250:
                stream = archive.extractfile(member)
                assert stream is not None
                real.append(bin_events(decode_events(stream.read(), member.name)))
                index.append(int(Path(member.name).stem) - 1)
    with np.load(mnist) as arrays:
        seen = SaccadeCamera().rasters(arrays["x_train"][index])
    rasters = [unpack_bits(words, 256).reshape(-1, 50, 16, 16) for words in (np.stack(real), seen)]
    density = [float(raster.mean()) for raster in rasters]
    assert density[1] == pytest.approx(density[0], rel=0.15)
    # blurred by one bin and 0.7 pixel, since which bin a single event falls into is noise in both
    flat = [
        gaussian_filter(r.astype(np.float32), (0, 1, 0.7, 0.7)).reshape(len(r), -1).astype(np.float64) for r in rasters
    ]
    flat = [r - r.mean(axis=1, keepdims=True) for r in flat]
    flat = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in flat]
    correlation = (flat[0] * flat[1]).sum(axis=1)
    assert correlation.mean() > 0.7  # 0.87 when this was written
    # and it is this digit that was seen: another image correlates less
    assert correlation.mean() > (flat[0] * np.roll(flat[1], 31, axis=0)).sum(axis=1).mean() + 0.2
