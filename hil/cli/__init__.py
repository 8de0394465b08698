"""Command line `hil`: parses, calls the same functions as a script would, prints."""

from hil.cli.app import main

__all__ = ["main"]
