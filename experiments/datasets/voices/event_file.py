"""The file that the events of the synthetic voices come in: about 0.7 kB for an utterance.

All rasters (channel by channel, one cell per millisecond, 1 where the channel has an event) stand in one long row, and
the file holds the distances between ones. A distance of 255 or more is written as 255 several times and the rest.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.datasets.utterances import N_CHANNELS, N_CLASSES, ChannelEvents, Utterance, Utterances
from hil.errors import DataError

FORMAT_VERSION = 1
#: time resolution of the file; the raster of the paper has the same
TICK_US = 1000

_FAR = 255
_ARRAYS = {"gaps": np.uint8, "n_ticks": np.uint16, "labels": np.uint8, "speakers": np.uint8, "is_test": np.bool_}
# a word of a slow speaker lasts about one second; the limit keeps a damaged file from filling the memory
_MAX_TICKS = 4000


@dataclass(frozen=True)
class VoiceFile:
    """Content of the file.

    Attributes:
        utterances: events, labels, voices and split.
        recipe: what the events were made with, as `make_events` wrote it.
    """

    utterances: Utterances
    recipe: dict[str, Any]


def write_voice_file(path: Path, content: VoiceFile) -> None:
    """Write the file; equal content gives equal bytes. Several events of a channel in one tick become one.

    Raises:
        DataError: an utterance is silent or too long, or there are more than 256 voices.
        OSError: the file cannot be written.
    """
    samples = content.utterances.samples
    gaps: list[NDArray[np.uint8]] = []
    n_ticks: list[int] = []
    behind = 0  # cells between the last event and the next raster
    for number, sample in enumerate(samples):
        ticks = sample.events.t_us // TICK_US
        if not len(ticks) or int(ticks.max()) >= _MAX_TICKS:
            raise DataError(
                f"utterance {number} has {len(ticks)} events and no room for more than {_MAX_TICKS} ms",
                fix="make utterances of one word",
            )
        n_ticks.append(int(ticks.max()) + 1)
        cells = np.unique(sample.events.channel * n_ticks[-1] + ticks)
        gaps.append(_as_bytes(np.diff(cells, prepend=-behind)))
        behind = N_CHANNELS * n_ticks[-1] - int(cells[-1])
    if len(content.utterances.speaker_names) > 256:
        raise DataError(f"{len(content.utterances.speaker_names)} voices", fix="make at most 256")
    arrays = {
        "gaps": np.concatenate(gaps),
        "n_ticks": n_ticks,
        "labels": [sample.label for sample in samples],
        "speakers": [sample.speaker for sample in samples],
        "is_test": [sample.is_test for sample in samples],
    }
    stored = {name: np.asarray(arrays[name], dtype=kind) for name, kind in _ARRAYS.items()}
    meta = {
        "format": FORMAT_VERSION,
        "sha256": _digest(stored),
        "speaker_names": content.utterances.speaker_names,
        "recipe": content.recipe,
    }
    with path.open("wb") as stream:
        np.savez_compressed(stream, meta=np.array(json.dumps(meta, sort_keys=True)), **stored)  # pyright: ignore


def read_voice_file(path: Path) -> VoiceFile:
    """Read the file.

    Raises:
        DataError: it is missing, damaged, of another version or another kind; the message names it.
    """
    try:
        # opened here, since NumPy leaves a damaged file open
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in _ARRAYS}
            meta = json.loads(str(archive["meta"]))
        version = meta["format"]
        if version == FORMAT_VERSION:
            if meta["sha256"] != _digest(stored):
                raise ValueError("its content does not fit its checksum")
            return VoiceFile(Utterances(_samples(stored), tuple(meta["speaker_names"])), meta["recipe"])
    except (
        OSError, EOFError, ValueError, TypeError, KeyError, IndexError, MemoryError, DataError,
        zlib.error, zipfile.BadZipFile, NotImplementedError,
    ) as error:  # fmt: skip
        raise DataError(
            f"{path} is no readable file of voices ({type(error).__name__}: {error})",
            fix="install the package again, or make the file with python -m experiments.datasets.voices.make_events",
        ) from error
    raise DataError(
        f"{path} has format {version}, this version reads {FORMAT_VERSION}",
        fix="make the file with python -m experiments.datasets.voices.make_events",
    )


def _as_bytes(distances: NDArray[np.int64]) -> NDArray[np.uint8]:
    n_far = distances // _FAR
    out = np.full(int(n_far.sum()) + len(distances), _FAR, dtype=np.uint8)
    out[np.cumsum(n_far + 1) - 1] = distances % _FAR
    return out


def _samples(stored: dict[str, NDArray[Any]]) -> list[Utterance]:
    gaps = stored["gaps"]
    n_ticks = stored["n_ticks"].astype(np.int64)
    cells = np.cumsum(gaps, dtype=np.int64)[gaps < _FAR]
    ends = np.cumsum(n_ticks * N_CHANNELS)
    bounds = [0, *np.searchsorted(cells, ends)]
    if bounds[-1] != len(cells) or not n_ticks.all() or stored["labels"].max() >= N_CLASSES:
        raise ValueError("events or labels are out of range")
    samples: list[Utterance] = []
    for i, (first, end) in enumerate(pairwise(bounds)):
        channel, tick = np.divmod(cells[first:end] - (ends[i] - n_ticks[i] * N_CHANNELS), n_ticks[i])
        order = np.argsort(tick, kind="stable")
        events = ChannelEvents(tick[order] * TICK_US, channel[order])
        label, speaker, is_test = (stored[name][i] for name in ("labels", "speakers", "is_test"))
        samples.append(Utterance(events, int(label), int(speaker), bool(is_test)))
    return samples


def _digest(stored: dict[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name, kind in _ARRAYS.items():
        if stored[name].dtype != kind or stored[name].ndim != 1:
            raise ValueError(f"{name} is {stored[name].dtype}{stored[name].shape}")
        # little-endian, so that the checksum is the same everywhere
        digest.update(stored[name].astype(stored[name].dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
