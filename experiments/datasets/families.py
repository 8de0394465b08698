"""All data sets by family: what `hil data` lists, and how each family is loaded."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from experiments.datasets.catalogue import DatasetEntry
from experiments.datasets.spike_dataset import SpikeDataset
from hil.errors import ConfigError
from hil.progress import Progress, no_progress


@dataclass(frozen=True)
class Family:
    """Data sets that stand in for one another.

    Attributes:
        section: of the settings, with `dataset` and `path`.
        module: where its `ENTRIES` and its loader are.
        loader: name of the loader, which takes the section and progress.
        commands: what reads it.
    """

    section: str
    module: str
    loader: str
    commands: str


#: family -> where it is
FAMILIES: dict[str, Family] = {
    "vision": Family("data", "experiments.datasets", "load_from_settings", "hil lsm nmnist, hil lsm atv"),
    "audio": Family("audio", "experiments.datasets.audio", "load_audio", "hil lsm ntidigits, hil lsm atv"),
    "letters": Family("letters", "experiments.datasets.letters", "load_letters", "hil lsm btv"),
    "brain": Family("brain", "experiments.datasets.brain", "load_brain", "hil lsm btv"),
}


def entries() -> tuple[DatasetEntry, ...]:
    """Every data set, family by family."""
    return tuple(entry for family in FAMILIES.values() for entry in importlib.import_module(family.module).ENTRIES)


def entry_of(name: str) -> DatasetEntry:
    """The data set of that name.

    Raises:
        ConfigError: there is none.
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        raise ConfigError(f"unknown data set '{name}'", fix=f"choose one of {', '.join(known)}")
    return known[name]


def needs_path(name: str) -> bool:
    """Whether the data set of that name is read from files; False for a name that nobody knows."""
    return any(entry.name == name and entry.layout for entry in entries())


def load(family_name: str, settings: Any, progress: Progress = no_progress) -> SpikeDataset:
    """Load what the family's section of the whole configuration asks for.

    Raises:
        ConfigError, DataError: as the loader of the family.
    """
    family = FAMILIES[family_name]
    loader = getattr(importlib.import_module(family.module), family.loader)
    return loader(getattr(settings, family.section), progress=progress)
