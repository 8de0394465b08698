"""Backend factory: a name on the command line becomes a backend. Real hardware is never a fallback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hil.backend import CrossbarBackend
from hil.errors import ConfigError

if TYPE_CHECKING:
    from hil.calibration_file import Calibration


def _sim(settings: Any, seed: int) -> CrossbarBackend:
    from sim_backend.backend import SimBackend

    # A calibrated simulator is of the board of its file, whichever that is.
    return SimBackend(settings.sim, seed=seed, calibration=_calibration(settings))


def _emulator(settings: Any, seed: int) -> CrossbarBackend:
    from firmware_bridge.emulator import emulated_backend

    calibration = _calibration(settings)
    made = emulated_backend(
        settings.board.profile,
        settings.sim,
        seed,
        emulator=settings.emulator,
        calibration=calibration,
        tolerate_faults=settings.board.tolerate_faults,
    )
    return _fitting(made, calibration, settings)


def _board(settings: Any, seed: int) -> CrossbarBackend:
    del seed
    from firmware_bridge.board import real_board

    board, calibration = settings.board, _calibration(settings)
    made = real_board(
        board.profile,
        bitfile=board.bitfile,
        base_address=board.base_address,
        dma_name=board.dma,
        download=board.download,
        calibration=calibration,
        tolerate_faults=board.tolerate_faults,
        serial=board.serial,
    )
    return _fitting(made, calibration, settings)


def _null(settings: Any, seed: int) -> CrossbarBackend:
    del settings
    from firmware_bridge.null_backend import NullBackend

    return NullBackend(seed)


def _calibration(settings: Any) -> Calibration | None:
    from hil.calibration_file import Calibration

    return None if settings.calibration.file is None else Calibration.load(settings.calibration.file)


def _fitting(made: CrossbarBackend, calibration: Calibration | None, settings: Any) -> CrossbarBackend:
    """The backend, once it is known to be the board that the calibration was made of."""
    if calibration is not None:
        chosen = settings.calibration
        calibration.check_fits(made.info, allow=chosen.allow, max_age_days=chosen.max_age_days)
    return made


def _remote(url: str, settings: Any) -> CrossbarBackend:
    from firmware_bridge.remote_backend import RemoteBackend

    made, calibration = RemoteBackend(url), _calibration(settings)
    # A daemon applies a calibration of its own: one that is asked for here must be that one.
    if calibration is not None and (applied := made.info.calibration_id) != calibration.calibration_id:
        raise ConfigError(
            f"the daemon at {url} has {f'calibration {applied}' if applied else 'no calibration'} applied, "
            f"not {calibration.calibration_id}",
            fix="start it with this one: hil serve ... --set calibration.file=FILE",
        )
    return made


#: name -> how to make it
BACKENDS: dict[str, Callable[[Any, int], CrossbarBackend]] = {
    "sim": _sim,
    "emulator": _emulator,
    "board": _board,
    "null": _null,
}
#: links to a daemon, which has a backend of its own
SCHEMES = ("tcp", "serial")


def create_backend(name: str, settings: Any, *, seed: int) -> CrossbarBackend:
    """Make the backend of that name; it is not opened.

    Args:
        name: a key of `BACKENDS`, or the URL of a daemon: `tcp://HOST:PORT`, `serial:///dev/ttyUSB0?baud=921600`.
        settings: the whole configuration; each backend reads its own section, one behind a URL none: a calibration
            that is named must be the one that its daemon has applied.
        seed: draws a simulated chip and its noise; a daemon has its own.

    Raises:
        ConfigError: no such backend, the packages it needs are not installed, or a daemon has another calibration.
        CalibrationError: the calibration file is missing, damaged, of another board or stale.
    """
    if name.partition("://")[0] in SCHEMES and "://" in name:
        return _remote(name, settings)
    try:
        make = BACKENDS[name]
    except KeyError:
        raise ConfigError(
            f"unknown backend {name!r}", fix=f"choose one of: {', '.join(BACKENDS)}, or a URL: tcp://HOST:PORT"
        ) from None
    try:
        return make(settings, seed)
    except ImportError as error:
        raise ConfigError(
            f"backend {name!r} needs a package that is not installed: {error.name}",
            fix='run: pip install "crossbar-hil[sim]"',
        ) from None
