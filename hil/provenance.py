"""Which software made a run."""

from __future__ import annotations

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "crossbar-hil"
_NUMERIC = ("numpy", "numba", "torch", "scipy", "scikit-learn", "h5py")


@functools.cache
def installed(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def own_version() -> str:
    """Version of this project as it runs here."""
    return installed(DISTRIBUTION) or "from its sources"


def software_versions() -> dict[str, str]:
    """This project, Python and the packages that numbers depend on; only what is installed."""
    found = {name: installed(name) for name in (DISTRIBUTION, *_NUMERIC)}
    present = {name: number for name, number in found.items() if number is not None}
    return {**present, "python": platform.python_version(), "platform": platform.platform()}
