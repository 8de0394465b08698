"""Checks of this machine behind `hil doctor`. Each is small, catches its own failure and names the fix."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hil.provenance import DISTRIBUTION, installed

State = Literal["works", "missing", "broken"]

#: extra -> distributions whose absence only means that the extra is not installed
_EXTRAS = {
    "sim": ("numba", "torch", "scipy", "scikit-learn", "matplotlib"),
    "lab": ("pyserial", "pyvisa", "pyvisa-py", "pymeasure"),
    "export": ("pyarrow", "xarray", "h5netcdf"),
}
_BASE = ("numpy", "pydantic", "h5py", "typer", "rich", "pyzmq", "msgpack", "cobs")
DISK_MIN_BYTES = 500e6


class Finding(NamedTuple):
    """One line of the report; "missing" is optional, "broken" stops a user."""

    state: State
    what: str
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Run all checks."""
    found = [_python(), _cores(), *_packages(), _disk()]
    there = {f.what.removeprefix("package ") for f in found if f.state == "works"}
    if there >= {*_BASE, *_EXTRAS["sim"]}:
        found += [_guarded("numba kernels", _numba), _guarded("torch", _torch), _guarded("run files", _hdf5)]
    return found


def _python() -> Finding:
    version, own = platform.python_version(), installed(DISTRIBUTION) or "not installed, run from its sources"
    return Finding("works", "Python", f"{version} on {platform.machine()}, {DISTRIBUTION} {own}")


def _cores() -> Finding:
    return Finding("works", "cores", f"{os.cpu_count()}")


def _packages() -> list[Finding]:
    found: list[Finding] = []
    for name in _BASE:
        version = installed(name)
        state: State = "works" if version else "broken"
        found.append(
            Finding(state, f"package {name}", version or "not installed", "" if version else f"pip install {name}")
        )
    for extra, names in _EXTRAS.items():
        for name in names:
            version = installed(name)
            fix = "" if version else f'pip install "crossbar-hil[{extra}]"'
            found.append(Finding("works" if version else "missing", f"package {name}", version or "not installed", fix))
    return found


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    detail = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    if free < DISK_MIN_BYTES:
        return Finding("broken", "disk", detail, "free some space; a run needs up to 100 MB")
    return Finding("works", "disk", detail)


def _guarded(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding("works", what, check())
    except Exception as error:
        return Finding(
            "broken", what, f"{type(error).__name__}: {error}", 'pip install --force-reinstall "crossbar-hil[sim]"'
        )


def _numba() -> str:
    numba: Any = importlib.import_module("numba")
    double: Any = numba.njit(lambda x: 2 * x)  # pyright: ignore[reportUnknownLambdaType]
    if double(21) != 42:
        raise ArithmeticError("a compiled function gave a wrong result")
    return f"compiles; {numba.get_num_threads()} threads"


def _torch() -> str:
    torch: Any = importlib.import_module("torch")
    if float(torch.ones(2, 2).sum()) != 4.0:
        raise ArithmeticError("a tensor sum gave a wrong result")
    if torch.cuda.is_available():
        return f"works; GPU: {torch.cuda.get_device_name(0)} (use --set lsm.engine=torch --set lsm.device=cuda)"
    return "works; no GPU, which is fine"


def _hdf5() -> str:
    h5py: Any = importlib.import_module("h5py")
    return f"HDF5 {h5py.version.hdf5_version}"
