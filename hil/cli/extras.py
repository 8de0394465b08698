"""Which optional packages a command needs, asked before anything is done."""

from __future__ import annotations

from importlib.util import find_spec

from hil.errors import ConfigError


def require_sim() -> None:
    """Raise `ConfigError` unless the packages of the extra `sim` are installed."""
    for module in ("numba", "torch", "scipy", "sklearn", "matplotlib"):
        if find_spec(module) is None:
            raise ConfigError(
                f"this command needs the package {module!r}, which is not installed",
                fix='run: pip install "crossbar-hil[sim]"',
            )
