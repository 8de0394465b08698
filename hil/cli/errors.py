"""From exceptions to one clear message on stderr and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from hil.errors import HilError
from hil.session import Terminated, is_known_safe

P = ParamSpec("P")
R = TypeVar("R")


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Make a command print what it raises on purpose as one message, without a traceback.

    Exit code: 2 for wrong usage, 1 for a failure, 130 after Ctrl-C, 143 after SIGTERM.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except HilError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except (KeyboardInterrupt, Terminated) as error:
            name, code = ("SIGTERM", 143) if isinstance(error, Terminated) else ("Ctrl-C", 130)
            safe = "; the array is at zero bias" if is_known_safe(error) else ""
            typer.echo(f"stopped by {name}{safe}", err=True)
            raise typer.Exit(code) from None

    return wrapper
