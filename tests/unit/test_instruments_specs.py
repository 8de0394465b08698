"""Arguments that name instruments."""

from __future__ import annotations

import pytest

from hil.errors import ConfigError
from hil.instruments import instrument_specs


def test_roles_and_resources() -> None:
    specs = instrument_specs(["smu=TCPIP::192.0.2.1::5025::SOCKET", " dmm = ASRL/dev/ttyUSB0::INSTR "])
    assert specs == {"smu": "TCPIP::192.0.2.1::5025::SOCKET", "dmm": "ASRL/dev/ttyUSB0::INSTR"}
    assert instrument_specs([]) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TCPIP::192.0.2.1::5025::SOCKET"], "is not ROLE=RESOURCE"),
        (["smu="], "'smu=' is not ROLE=RESOURCE"),
        ([""], "'' is not ROLE=RESOURCE"),
        (["scope=GPIB0::1::INSTR"], "'scope' is no role. Fix: use one of smu, dmm, psu"),
        (["smu=a", "smu=b"], "instrument smu is given twice: a and b"),
    ],
)
def test_what_names_no_instrument_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instrument_specs(arguments)
