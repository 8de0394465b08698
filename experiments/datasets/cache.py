"""Cache of generated data sets: a file per set of parameters, never half-written, and never needed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path

import numpy as np

from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet
from hil.errors import DataError

_LOG = logging.getLogger(__name__)

#: names the folder to use instead of the user's cache folder
FOLDER_VARIABLE = "CROSSBAR_HIL_CACHE"
#: raise when the camera, the digits or the file layout change, so that old files are not taken for new ones
FORMAT_VERSION = 2

_META_FIELDS = tuple(field.name for field in fields(SpikeDataset) if field.name not in ("train", "test"))


_BYPASSED: ContextVar[bool] = ContextVar("bypassed", default=False)


def cache_folder() -> Path:
    """Return the folder of the cache; it need not exist."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("crossbar-hil")


def content_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 over the contents of `files`, in this order.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        inner = hashlib.sha256()
        try:
            with path.open("rb") as stream:
                while block := stream.read(1 << 20):
                    inner.update(block)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}", fix="check the file and its permissions") from error
        digest.update(inner.digest())
    return digest.hexdigest()


def cache_file(name: str, key: Mapping[str, object]) -> Path:
    """Return the cache file of data set `name`.

    Args:
        name: name of the data set.
        key: everything that the content depends on; must be representable as JSON.
    """
    text = json.dumps({"format": FORMAT_VERSION, **key}, sort_keys=True)
    return cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"


def cached(name: str, key: Mapping[str, object], generate: Callable[[], SpikeDataset]) -> SpikeDataset:
    """Return the data set from the cache, or generate and keep it.

    A damaged file is generated anew. A folder that cannot be written costs a warning in the log, never an error.

    Args:
        name: name of the data set.
        key: everything that the content depends on.
        generate: makes the data set; called at most once.
    """
    if _BYPASSED.get():
        return generate()
    path = cache_file(name, key)
    found = _load(path)
    if found is not None:
        _LOG.info("data set %s read from %s", name, path)
        return found
    dataset = generate()
    _save(path, dataset)
    return dataset


@contextmanager
def bypassed() -> Generator[None, None, None]:
    """Make data sets anew and keep none of them, as who checks files wants it."""
    token = _BYPASSED.set(True)
    try:
        yield
    finally:
        _BYPASSED.reset(token)


def _load(path: Path) -> SpikeDataset | None:
    try:
        if not path.is_file():
            return None
        # opened here, since numpy leaves a damaged file open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            sets = {
                split: SpikeSet(
                    archive[f"{split}_words"],
                    archive[f"{split}_labels"],
                    archive[f"{split}_speakers"] if f"{split}_speakers" in archive.files else None,
                )
                for split in ("train", "test")
            }
            meta = json.loads(str(archive["meta"]))
        if not isinstance(meta, dict) or set(meta) != set(_META_FIELDS):
            raise DataError(f"{path} has other fields than this version writes", fix="delete it")
        meta["speaker_names"] = tuple(meta["speaker_names"])
        return SpikeDataset(train=sets["train"], test=sets["test"], **meta)
    except (
        DataError, ValueError, TypeError, AttributeError, KeyError, OSError, EOFError, MemoryError, zlib.error,
        zipfile.BadZipFile, NotImplementedError,
    ) as error:  # fmt: skip
        _LOG.warning("cache file %s is damaged (%s); the data set is made anew", path, type(error).__name__)
        return None


def _save(path: Path, dataset: SpikeDataset) -> None:
    meta = json.dumps({name: getattr(dataset, name) for name in _META_FIELDS})
    speakers = {
        f"{split}_speakers": samples.speakers
        for split, samples in (("train", dataset.train), ("test", dataset.test))
        if samples.speakers is not None
    }
    aside: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as stream:
            aside = Path(stream.name)
            np.savez(
                stream,
                train_words=dataset.train.words,
                train_labels=dataset.train.labels,
                test_words=dataset.test.words,
                test_labels=dataset.test.labels,
                meta=np.array(meta),
                **speakers,
            )
        os.replace(aside, path)
    except OSError as error:
        _LOG.warning("data set %s cannot be kept in %s: %s", dataset.name, path.parent, error)
    finally:
        if aside is not None:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
