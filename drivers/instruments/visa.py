"""VISA: opening a resource by its name, and finding what is connected.

pyvisa-py is the library unless `CROSSBAR_HIL_VISA` names another one: `@ivi` (the one that is installed on this
machine, for example NI-VISA or Keysight IO Libraries) or the path of its file.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import pyvisa

from drivers.instruments.link import Link
from hil.errors import ConfigError, HilError, TransportError

LIBRARY_VARIABLE = "CROSSBAR_HIL_VISA"
DEFAULT_LIBRARY = "@py"
#: longest wait for a connection or an answer; a measurement over ten power line cycles takes 0.2 s, autorange more
TIMEOUT_S = 5.0
#: longest wait for the answer of something that may be no instrument
DISCOVERY_TIMEOUT_S = 0.5
_TERMINATION = "\n"
_FIX_NAME = "give a VISA name such as TCPIP::192.168.1.20::5025::SOCKET; see docs/how-to/connect-instruments.md"
#: packages that pyvisa-py needs for an interface, by the beginning of a name
_PACKAGES = {"USB": "pyusb", "GPIB": "gpib-ctypes", "ASRL": "pyserial"}


class Found(NamedTuple):
    """A resource that this machine sees.

    Attributes:
        resource: its VISA name.
        identity: answer to *IDN?; empty where it was not asked or did not answer.
    """

    resource: str
    identity: str


def open_link(resource: str, who: str, *, library: str | None = None, timeout_s: float = TIMEOUT_S) -> Link:
    """Open a resource.

    Args:
        resource: VISA name, for example `TCPIP::192.168.1.20::5025::SOCKET`, `TCPIP::192.168.1.20::INSTR`,
            `ASRL/dev/ttyUSB0::INSTR`, `GPIB0::24::INSTR` or `USB0::0x05E6::0x2450::04000001::INSTR`.
        who: the instrument in the words of errors.
        library: of VISA, as pyvisa takes it; None for the one of this machine.
        timeout_s: longest wait for the connection and for each answer.

    Raises:
        ConfigError: not the name of a resource, or its interface needs a package or a library that is not there.
        TransportError: it cannot be reached. A refused socket is seen only when the first command is sent.
    """
    resources = _resources(library)
    if "::" not in resource:
        raise ConfigError(f"{who} cannot be opened: {resource!r} is no VISA name", fix=_FIX_NAME)
    # pyvisa names what is wrong with a name or an interface by a ValueError; connecting has errors of all kinds.
    try:
        connection: Any = resources.open_resource(
            resource,
            read_termination=_TERMINATION,
            write_termination=_TERMINATION,
            timeout=timeout_s * 1e3,
            open_timeout=round(timeout_s * 1e3),
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{who} cannot be opened: {' '.join(str(error).split())}", fix=_fix(resource)) from error
    except Exception as error:
        raise TransportError(
            f"{who} cannot be reached: {error}", fix="check that it is switched on and connected, and its address"
        ) from error
    return Link(connection, who)


def _fix(resource: str) -> str:
    for interface, package in _PACKAGES.items():
        if resource.upper().startswith(interface):
            return f"if it says that a package is missing: pip install {package}; else {_FIX_NAME}"
    return _FIX_NAME


def discover(library: str | None = None) -> list[Found]:
    """What this machine sees, by resource.

    Serial ports are listed, not asked: behind one may be a board, to which *IDN? means something else. Instruments
    behind a bare socket cannot be found.

    Raises:
        ConfigError: the VISA library cannot be loaded.
        TransportError: it cannot list resources.
    """
    resources = _resources(library)
    with warnings.catch_warnings():
        # pyvisa-py says by warnings which interfaces it cannot search.
        warnings.simplefilter("ignore")
        try:
            names = sorted(resources.list_resources("?*::INSTR"))
        except Exception as error:
            raise TransportError(f"VISA cannot list resources: {error}", fix=f"check {LIBRARY_VARIABLE}") from error
        return [Found(name, "" if name.startswith("ASRL") else _identity(name, library)) for name in names]


def _identity(resource: str, library: str | None) -> str:
    try:
        link = open_link(resource, resource, library=library, timeout_s=DISCOVERY_TIMEOUT_S)
    except HilError:
        return ""
    try:
        return link.ask("*IDN?")
    except HilError:
        return ""
    finally:
        link.close()


def _resources(library: str | None) -> pyvisa.ResourceManager:
    name = library or os.environ.get(LIBRARY_VARIABLE) or DEFAULT_LIBRARY
    try:
        return pyvisa.ResourceManager(name)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"VISA library {name!r} cannot be loaded: {error}", fix=f"correct or unset {LIBRARY_VARIABLE}"
        ) from error
