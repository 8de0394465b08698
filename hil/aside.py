"""Files that appear whole or not at all: written under another name, and renamed once they are complete."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_aside(path: Path, *, durable: bool = False) -> Generator[Path, None, None]:
    """Hand out where to write; after the block that file takes the name `path`, after an exception nothing is left.

    Args:
        path: the file; its folder must be there.
        durable: wait until the content is on the disk itself before it takes the name.

    Raises:
        OSError: it cannot be written; whoever calls knows what that means to the user.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if durable:
            with part.open("rb") as written:
                os.fsync(written.fileno())
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
