"""Which optional packages a command needs, asked before anything is done."""

from __future__ import annotations

from importlib.util import find_spec

from hil.errors import ConfigError


def require_lab() -> None:
    """Raise `ConfigError` unless the packages of the extra `lab` are installed."""
    _require(("serial",), "lab")


def require_sim() -> None:
    """Raise `ConfigError` unless the packages of the extra `sim` are installed."""
    _require(("numba", "torch", "scipy", "sklearn", "matplotlib"), "sim")


def require_figures() -> None:
    """Raise `ConfigError` unless the package that draws is installed."""
    _require(("matplotlib",), "sim")


def _require(modules: tuple[str, ...], extra: str) -> None:
    for module in modules:
        if find_spec(module) is None:
            raise ConfigError(
                f"this command needs the package {module!r}, which is not installed",
                fix=f'run: pip install "crossbar-hil[{extra}]"',
            )
