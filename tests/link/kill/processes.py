"""What the processes of the kill tests have in common."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from pathlib import Path


def log_to(path: Path) -> None:
    """Keep this process's log, for when a test fails."""
    logging.basicConfig(
        filename=path,
        format="%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        level=logging.INFO,
        force=True,
    )


def die_with_parent() -> None:
    """End this process when the test's own is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
