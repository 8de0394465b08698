"""What the touch-screen instruments of Keithley have in common."""

from __future__ import annotations

from drivers.instruments.link import Link
from hil.errors import ConfigError


def check_command_set(link: Link) -> None:
    """Raise `ConfigError` unless a touch-screen Keithley understands its own SCPI commands."""
    chosen = link.ask("*LANG?")
    if chosen.upper() != "SCPI":
        raise ConfigError(
            f"{link.who} has the command set {chosen!r}",
            fix="choose SCPI at its front panel (Menu, System, Settings, Command Set) and restart it",
        )
