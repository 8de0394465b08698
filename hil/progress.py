"""Progress as an abstract callback, so that a terminal, a test or a web page can share it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the state of a long operation.

    Called as `progress(what, done, total)` where `what` names the operation; `done == total` ends it. `note` is a short
    text on how it goes, such as the yield so far.
    """

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


def no_progress(what: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""
