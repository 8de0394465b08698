"""From exceptions to one clear message on stderr and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from hil.errors import HilError
from hil.session import Terminated

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
        except KeyboardInterrupt:
            typer.echo("stopped by Ctrl-C; the array is at zero bias", err=True)
            raise typer.Exit(130) from None
        except Terminated:
            typer.echo("stopped by SIGTERM; the array is at zero bias", err=True)
            raise typer.Exit(143) from None

    return wrapper
