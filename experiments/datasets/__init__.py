"""Data sets as packed spike rasters: real N-MNIST recordings, or images seen by a simulated event camera.

`load_dataset` chooses by name, `load_from_settings` by a `DataSettings`. Nothing here draws on the network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.datasets import cache, degrade, digits_images, mnist_images, nmnist
from experiments.datasets.binning import CROP_PX, DEFAULT_BIN_RULE, N_INPUTS, BinRule, Events, bin_events
from experiments.datasets.catalogue import DatasetEntry
from experiments.datasets.mnist_images import LabelledImages
from experiments.datasets.saccade_camera import SaccadeCamera
from experiments.datasets.settings import DataSettings
from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from hil.errors import ConfigError
from hil.progress import Progress, no_progress

__all__ = [
    "DATASET_NAMES",
    "DEFAULT_BIN_RULE",
    "ENTRIES",
    "BinRule",
    "DataSettings",
    "Events",
    "SaccadeCamera",
    "SpikeDataset",
    "SpikeSet",
    "bin_events",
    "load_dataset",
    "load_from_settings",
]


@dataclass(frozen=True)
class _Request:
    rule: BinRule
    seed: int
    digits_views: int
    progress: Progress


def _load_nmnist(path: Path, request: _Request) -> SpikeDataset:
    archives = sorted(path.glob("nmnist*.tar*")) if path.is_dir() else []
    if len(archives) == 1 and not (path / "Train").is_dir():
        path = archives[0]  # a folder with the files of several data sets

    def read() -> SpikeDataset:
        return nmnist.read_nmnist(path, request.rule, progress=request.progress)

    if path.is_dir():
        return read()  # to know the content of a folder is to read it all, so a cache would save nothing
    return cache.cached("nmnist", {"source": cache.content_hash([path]), "rule": request.rule.key()}, read)


def _load_mnist_saccade(path: Path, request: _Request) -> SpikeDataset:
    source = cache.content_hash(mnist_images.source_files(path))

    def generate() -> SpikeDataset:
        return _seen("mnist-saccade", "MNIST images", "", mnist_images.read_mnist(path), request)

    return cache.cached("mnist-saccade", _key(source, request), generate)


def _load_digits_saccade(request: _Request) -> SpikeDataset:
    def generate() -> SpikeDataset:
        images = digits_images.make_digits(request.digits_views, seed=request.seed)
        note = (
            f"easier than MNIST: {len(images.y_train) // request.digits_views} training images in "
            f"{request.digits_views} views each, {len(images.y_test)} test images, writers shared by both"
        )
        return _seen("digits-saccade", "scikit-learn's 8 x 8 digits, enlarged,", note, images, request)

    key = {**_key(digits_images.source_hash(), request), "views": request.digits_views}
    return cache.cached("digits-saccade", key, generate)


def _key(source: str, request: _Request) -> dict[str, object]:
    return {"source": source, "camera": SaccadeCamera().key(), "rule": request.rule.key(), "seed": request.seed}


def _seen(name: str, what: str, note: str, images: LabelledImages, request: _Request) -> SpikeDataset:
    camera = SaccadeCamera()
    n_train, n_images = len(images.x_train), len(images.x_train) + len(images.x_test)

    def shifted(before: int) -> Progress:
        # one bar over both splits
        def report(what: str, done: int, total: int) -> None:
            request.progress(what, before + done, n_images)

        return report

    # test images are numbered after the training images, so that no two images share their noise
    train = camera.rasters(images.x_train, request.rule, seed=request.seed, progress=shifted(0))
    test = camera.rasters(
        images.x_test, request.rule, seed=request.seed, first_index=n_train, progress=shifted(n_train)
    )
    return SpikeDataset(
        name=name,
        train=SpikeSet(train, images.y_train),
        test=SpikeSet(test, images.y_test),
        n_inputs=N_INPUTS,
        n_steps=request.rule.n_steps,
        n_classes=mnist_images.N_CLASSES,
        synthetic=True,
        source=f"{what} seen by a simulated event camera (synthetic events)",
        note=note,
    )


# name -> (loader, what the path must hold)
_FROM_PATH: dict[str, tuple[Callable[[Path, _Request], SpikeDataset], str]] = {
    "nmnist": (_load_nmnist, nmnist.LAYOUT),
    "mnist-saccade": (_load_mnist_saccade, mnist_images.LAYOUT),
}
_EMBEDDED: dict[str, Callable[[_Request], SpikeDataset]] = {"digits-saccade": _load_digits_saccade}

#: names that `load_dataset` knows
DATASET_NAMES: tuple[str, ...] = (*_FROM_PATH, *_EMBEDDED)

_RASTER = "256 inputs (16 x 16 pixels of one polarity), 50 steps of 4 ms, digits 0 to 9"
ENTRIES: tuple[DatasetEntry, ...] = (
    DatasetEntry(
        "digits-saccade",
        "vision",
        f"scikit-learn's 8 x 8 digits seen by a simulated event camera; {_RASTER}",
        "1,437 training images in 8 views each, 360 test images; writers shared",
        "",
        synthetic=True,
    ),
    DatasetEntry(
        "mnist-saccade",
        "vision",
        f"MNIST images seen by a simulated event camera; {_RASTER}",
        "that of MNIST: 60,000 and 10,000",
        mnist_images.LAYOUT,
        synthetic=True,
    ),
    DatasetEntry(
        "nmnist",
        "vision",
        f"real recordings of an event camera (N-MNIST); {_RASTER}",
        "that of the files: Train and Test",
        nmnist.LAYOUT,
        synthetic=False,
    ),
)


def load_dataset(
    name: str,
    path: Path | str | None = None,
    *,
    bin_rule: BinRule = DEFAULT_BIN_RULE,
    seed: int = 0,
    digits_views: int = 8,
    progress: Progress = no_progress,
) -> SpikeDataset:
    """Load a data set by name; generated sets are kept in the user's cache folder.

    Args:
        name: `nmnist` (real recordings at `path`), `mnist-saccade` (MNIST images at `path`, synthetic events) or
            `digits-saccade` (scikit-learn's digits, synthetic events, no path).
        path: file or folder of the data.
        bin_rule: how event times become time steps.
        seed: of the camera's noise and of the views, at least 0; recordings do not depend on it.
        digits_views: views per training image of `digits-saccade`.
        progress: told while events are read or simulated.

    Raises:
        ConfigError: the name is unknown, the path is missing, not wanted or does not exist, a value is out of range.
        DataError: the data at `path` are of another kind or damaged.
    """
    if seed < 0:
        raise ConfigError(f"the seed is {seed}, the least is 0", fix="choose a seed that is not negative")
    if digits_views < 1:
        raise ConfigError(f"digits_views is {digits_views}, the least is 1", fix="use for example 8 views")
    request = _Request(bin_rule, seed, digits_views, progress)
    if name in _EMBEDDED:
        if path is not None:
            raise ConfigError(
                f"data set {name} comes with scikit-learn and takes no path, but got {path}",
                fix=f"leave out --data, or choose {' or '.join(_FROM_PATH)}",
            )
        return _EMBEDDED[name](request)
    if name not in _FROM_PATH:
        raise ConfigError(f"unknown data set '{name}'", fix=f"choose one of {', '.join(DATASET_NAMES)}")
    loader, layout = _FROM_PATH[name]
    if path is None:
        raise ConfigError(f"data set {name} needs a path", fix=f"add --data PATH, where PATH is {layout}")
    place = Path(path)
    if not place.exists():
        raise ConfigError(f"the data path {place} does not exist", fix=f"give the path of {layout}")
    return loader(place, request)


def load_from_settings(settings: DataSettings, *, progress: Progress = no_progress) -> SpikeDataset:
    """Load what `settings` ask for, cut to `n_train` and `n_test`, with as poor an input as they say.

    Args:
        settings: see `DataSettings`.
        progress: told while events are read or simulated.

    Raises:
        ConfigError, DataError: as `load_dataset`; also where `n_train` or `n_test` exceed what the set holds.
    """
    dataset = load_dataset(
        settings.dataset,
        settings.path,
        bin_rule=BinRule(settings.bin_rule, settings.bin_width_s),
        seed=settings.seed,
        digits_views=settings.digits_views,
        progress=progress,
    )
    few = dataset.limited(settings.n_train, settings.n_test, seed=settings.seed)
    centre = degrade.cropped(few, settings.input_px, from_px=CROP_PX)
    return degrade.with_flipped_bits(centre, settings.input_noise, seed=settings.seed)
