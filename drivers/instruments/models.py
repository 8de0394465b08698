"""Which instruments are supported: what each answers to *IDN?, and the class that drives it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from drivers.instruments.dmm import Daq6510, Dmm6500, Dmm34410
from drivers.instruments.link import Link
from drivers.instruments.psu import PsuE36312A
from drivers.instruments.scpi import ScpiInstrument
from drivers.instruments.smu import Smu2400, Smu2450
from hil.errors import ConfigError


class Model(NamedTuple):
    """A supported instrument.

    Attributes:
        name: as people know it.
        role: what it is used for.
        pattern: regular expression for the start of its answer to *IDN?.
        open: makes the instrument from its link and its answer.
    """

    name: str
    role: str
    pattern: str
    open: Callable[[Link, str], ScpiInstrument]


_KEITHLEY = r"KEITHLEY INSTRUMENTS[^,]*, *MODEL "
_KEYSIGHT = r"(AGILENT|KEYSIGHT) TECHNOLOGIES, *"

MODELS = (
    Model("Keithley 2400", "smu", _KEITHLEY + "2400,", Smu2400),
    Model("Keithley 2450", "smu", _KEITHLEY + "2450,", Smu2450),
    Model("Keithley DMM6500", "dmm", _KEITHLEY + "DMM6500,", Dmm6500),
    Model("Keithley DAQ6510", "dmm", _KEITHLEY + "DAQ6510,", Daq6510),
    Model("Keysight 34410A, 34411A", "dmm", _KEYSIGHT + "344(10|11)A,", Dmm34410),
    Model("Keysight 34460A, 34461A, 34465A, 34470A", "dmm", _KEYSIGHT + "344(60|61|65|70)A,", Dmm34410),
    Model("Keysight E36312A", "psu", _KEYSIGHT + "E36312A,", PsuE36312A),
)


def model_of(role: str, identity: str, resource: str) -> Model:
    """Model that answered this.

    Raises:
        ConfigError: none for this role.
    """
    matching = [model for model in MODELS if re.match(model.pattern, identity, re.IGNORECASE)]
    for model in matching:
        if model.role == role:
            return model
    supported = "; ".join(model.name for model in MODELS if model.role == role)
    if matching:
        raise ConfigError(
            f"{resource} is a {matching[0].name}, which is no {role}", fix=f"give it as {matching[0].role}={resource}"
        )
    raise ConfigError(f"the {role} at {resource} is of an unknown model: {identity!r}", fix=f"use one of: {supported}")


def role_of(identity: str) -> str | None:
    """What an instrument may be used for; None for an unknown one."""
    return next((model.role for model in MODELS if re.match(model.pattern, identity, re.IGNORECASE)), None)
