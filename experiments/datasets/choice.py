"""Choosing a data set of one family by the name and the path that a user gave."""

from __future__ import annotations

from pathlib import Path

from experiments.datasets.catalogue import DatasetEntry
from hil.errors import ConfigError


def chosen(entries: tuple[DatasetEntry, ...], name: str, path: Path | None) -> DatasetEntry:
    """The data set called `name`, after a look at whether it takes a path and whether there is something.

    Raises:
        ConfigError: the name is unknown; the path is missing, not wanted or does not exist.
    """
    known = {entry.name: entry for entry in entries}
    if name not in known:
        raise ConfigError(f"unknown data set '{name}'", fix=f"choose one of {', '.join(known)}")
    entry = known[name]
    if not entry.layout and path is not None:
        others = [other.name for other in entries if other.layout]
        raise ConfigError(
            f"data set {name} comes with the project and takes no path, but got {path}",
            fix=f"leave out the path, or choose {' or '.join(others)}",
        )
    if entry.layout and path is None:
        raise ConfigError(f"data set {name} needs a path", fix=f"add --data PATH, where PATH is {entry.layout}")
    if path is not None and not path.exists():
        raise ConfigError(f"the data path {path} does not exist", fix=f"add --data PATH, where PATH is {entry.layout}")
    return entry
