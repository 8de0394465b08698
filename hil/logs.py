"""Logging for the command line: messages to stderr or a file, results never among them."""

from __future__ import annotations

import logging
from pathlib import Path

from hil.errors import ConfigError

_LEVELS = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO, 2: logging.DEBUG}
_PACKAGES = ("hil", "drivers", "firmware_bridge", "sim_backend", "calibration", "experiments")


def configure(verbosity: int = 0, file: Path | None = None) -> None:
    """Send the log of this project's packages to stderr, or to a file, and leave the root logger alone.

    Args:
        verbosity: -1 errors, 0 warnings, 1 information, 2 debugging.
        file: append to this file instead.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        handler = logging.FileHandler(file, encoding="utf-8") if file is not None else logging.StreamHandler()
    except OSError as error:
        raise ConfigError(
            f"log file {file} cannot be written: {error.strerror}", fix="choose another --log-file"
        ) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = _LEVELS[max(-1, min(2, verbosity))]
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        for old in list(logger.handlers):
            logger.removeHandler(old)
            old.close()
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
