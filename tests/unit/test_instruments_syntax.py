"""What goes over the wire to each supported instrument, by pyvisa-sim dialogues.

Commands and their order as in the instruments' command references:

- Keithley 2450: Reference Manual 2450-901-01, section 6, SCPI command reference (:SOURce[1]:<function>:<x>LIMit and
  :TRIPped?, :OUTPut[1]:<function>:SMODe, :READ? with buffer elements)
- Keithley 2400: Series 2400 User's Manual 2400S-900-01, section 18 (:SENSe[1]:VOLTage:PROTection, :OUTPut[1]:SMODe,
  :FORMat:ELEMents; bit 3 of the status word: in compliance)
- Keithley DMM6500: Reference Manual DMM6500-901-01 (:SENSe[1]:FUNCtion with a channel list, :ROUTe:CLOSe,
  :ROUTe:OPEN:ALL, :ROUTe:TERMinals?)
- Keithley DAQ6510: Reference Manual DAQ6510-901-01 (the same commands; channels are slot times 100 plus number)
- Keysight 34461A: Truevolt Operating and Service Guide 34460-90901 (MEASure:VOLTage:DC?, MEASure:FRESistance?)
- Keysight E36312A: E36300 Series Programming Guide (channel lists; STATus:QUEStionable:INSTrument:ISUMmary<n>:
  CONDition? 1 in constant current, 2 in constant voltage)
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pyvisa

from drivers.instruments import discover, open_instrument
from hil.errors import CapabilityError, ConfigError, DeviceError, LimitError, ProtocolError, TransportError
from hil.instruments import SourcePoint

RESOURCES = {
    "2450": "TCPIP0::192.0.2.1::5025::SOCKET",
    "2400": "GPIB0::24::INSTR",
    "DMM6500": "ASRL7::INSTR",
    "DAQ6510": "GPIB0::16::INSTR",
    "34461A": "TCPIP0::192.0.2.4::inst0::INSTR",
    "E36312A": "USB0::0x2A8D::0x1102::MY00000003::0::INSTR",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Its own copy for each test, since pyvisa-sim keeps the state of a file's instruments."""
    return Path(shutil.copy(Path(__file__).parents[1] / "fixtures" / "instruments.yaml", tmp_path))


@pytest.fixture
def library(table: Path) -> Iterator[str]:
    name = f"{table}@sim"
    yield name
    pyvisa.ResourceManager(name).close()


@pytest.fixture
def sent(caplog: pytest.LogCaptureFixture) -> Any:
    """Commands so far, in order."""
    caplog.set_level(logging.DEBUG, logger="Adapter")
    return lambda: [r.getMessage().removeprefix("WRITE:") for r in caplog.records if r.msg.startswith("WRITE")]


OPEN_2450 = [
    "*IDN?",
    "*LANG?",
    "OUTPUT OFF",
    "*CLS",
    "*RST",
    ":OUTP:CURR:SMOD HIMP",
    ":OUTP:VOLT:SMOD HIMP",
    "SYST:ERR?",
    "OUTPUT OFF",
    "OUTPUT?",
]


def test_2450_sets_the_limit_before_the_level_and_both_before_the_output(library: str, sent: Any) -> None:
    with open_instrument("smu", RESOURCES["2450"], library=library) as smu:
        assert sent() == OPEN_2450
        smu.source_current(1e-5, compliance_v=0.5)
        smu.output_on()
        point = smu.measure()
        smu.source_current(-2e-5, compliance_v=0.5)
        smu.output_off()
    assert point == SourcePoint(voltage_v=0.2345678, current_a=1.000012e-05, in_compliance=False)
    assert sent()[len(OPEN_2450) :] == [
        ":SOUR:FUNC CURR",
        ':SENS:FUNC "VOLT"',
        ":SOUR:CURR:VLIM 0.5",
        "SYST:ERR?",
        ":SOUR:CURR:LEV 1e-05",
        "SYST:ERR?",
        "OUTPUT ON",
        "SYST:ERR?",
        "OUTPUT?",
        ':READ? "defbuffer1", SOUR, READ',
        ":SOUR:CURR:VLIM:TRIP?",
        ":SOUR:CURR:VLIM 0.5",
        "SYST:ERR?",
        ":SOUR:CURR:LEV -2e-05",
        "SYST:ERR?",
        "OUTPUT OFF",
        "OUTPUT?",
        "OUTPUT OFF",
        "OUTPUT?",
    ]


def test_2450_goes_off_before_it_sources_something_else(library: str, sent: Any) -> None:
    with open_instrument("smu", RESOURCES["2450"], library=library) as smu:
        smu.source_current(1e-5, compliance_v=0.5)
        smu.output_on()
        before = len(sent())
        smu.source_voltage(0.2, compliance_a=1e-3)
        assert sent()[before:] == [
            "OUTPUT OFF",
            "OUTPUT?",
            ":SOUR:FUNC VOLT",
            ':SENS:FUNC "CURR"',
            ":SOUR:VOLT:ILIM 0.001",
            "SYST:ERR?",
            ":SOUR:VOLT:LEV 0.2",
            "SYST:ERR?",
        ]
        smu.output_on()
        # A voltage source reads back volts first, and has a current limit to trip.
        assert smu.measure() == SourcePoint(voltage_v=1.000012e-05, current_a=0.2345678, in_compliance=True)
        assert sent()[-1] == ":SOUR:VOLT:ILIM:TRIP?"


def test_2400_reads_compliance_from_its_status_word(library: str, sent: Any) -> None:
    with open_instrument("smu", RESOURCES["2400"], library=library) as smu:
        smu.source_voltage(0.5, compliance_a=1e-5)
        smu.output_on()
        assert smu.measure() == SourcePoint(voltage_v=0.4999876, current_a=9.876543e-06, in_compliance=True)
    assert sent() == [
        "*IDN?",
        ":FORMAT:ELEMENTS VOLTAGE, CURRENT, RESISTANCE, TIME, STATUS",
        "OUTPUT 0",
        "*CLS",
        "*RST",
        ":OUTPUT:SMODE HIMP",
        ":SENSE:FUNCTION 'VOLTAGE', 'CURRENT'",
        ":FORMAT:ELEMENTS VOLTAGE, CURRENT, STATUS",
        "SYST:ERR?",
        "OUTPUT 0",
        "OUTPUT?",
        ":SOURCE:FUNCTION VOLT",
        ":SENSE:CURRENT:PROTECTION 1e-05",
        "SYST:ERR?",
        ":SOURCE:VOLTAGE 0.5",
        "SYST:ERR?",
        "OUTPUT 1",
        "SYST:ERR?",
        "OUTPUT?",
        ":READ?",
        "OUTPUT 0",
        "OUTPUT?",
    ]


def test_2400_sources_a_current_within_a_voltage(library: str, sent: Any) -> None:
    with open_instrument("smu", RESOURCES["2400"], library=library) as smu:
        before = len(sent())
        smu.source_current(1e-6, compliance_v=1.5)
        assert sent()[before:] == [
            ":SOURCE:FUNCTION CURR",
            ":SENSE:VOLTAGE:PROTECTION 1.5",
            "SYST:ERR?",
            ":SOURCE:CURRENT 1e-06",
            "SYST:ERR?",
        ]


def test_dmm6500_sets_the_function_of_a_channel_before_it_closes_it(library: str, sent: Any) -> None:
    with open_instrument("dmm", RESOURCES["DMM6500"], library=library) as dmm:
        dmm.select(3)
        assert dmm.measure_voltage_v() == 0.199993
        dmm.measure_resistance_ohm()
        dmm.select(None)
        dmm.measure_resistance_ohm()
        dmm.measure_resistance_ohm()
    assert sent() == [
        "*IDN?",
        "*LANG?",
        "*LANG SCPI",
        "*CLS",
        "*RST",
        "SYST:ERR?",
        "ROUT:TERM?",
        ":ROUT:OPEN:ALL",
        ':SENS:FUNC "VOLT:DC", (@3)',
        ":ROUT:CLOS (@3)",
        "SYST:ERR?",
        ":READ?",
        ":ROUT:OPEN:ALL",
        ':SENS:FUNC "FRES", (@3)',
        ":ROUT:CLOS (@3)",
        "SYST:ERR?",
        ":READ?",
        ":ROUT:OPEN:ALL",
        "SYST:ERR?",
        # Said again: what it had without a channel is not what the channel had.
        ':SENS:FUNC "FRES"',
        ":READ?",
        ":READ?",
    ]


def test_dmm6500_opens_its_scanner_at_the_end(library: str, sent: Any) -> None:
    with open_instrument("dmm", RESOURCES["DMM6500"], library=library) as dmm:
        dmm.select(3)
    assert sent()[-1] == ":ROUT:OPEN:ALL"


def test_dmm6500_with_its_switch_at_the_front_has_no_scanner(table: Path, library: str) -> None:
    table.write_text(table.read_text().replace('r: "REAR"', 'r: "FRON"'))
    with (
        open_instrument("dmm", RESOURCES["DMM6500"], library=library) as dmm,
        pytest.raises(CapabilityError, match="front terminals"),
    ):
        dmm.select(3)


def test_dmm6500_that_does_not_say_which_terminals_it_uses_is_not_taken_for_one_without_a_scanner(
    table: Path, library: str
) -> None:
    table.write_text(table.read_text().replace('r: "REAR"', 'r: "+1.2#E"'))
    with (
        open_instrument("dmm", RESOURCES["DMM6500"], library=library) as dmm,
        pytest.raises(ProtocolError, match=r"ROUT:TERM\?"),
    ):
        dmm.select(3)


def test_a_channel_that_the_scanner_does_not_have_is_told_from_a_refused_command(library: str, sent: Any) -> None:
    with open_instrument("dmm", RESOURCES["DMM6500"], library=library) as dmm:
        with pytest.raises(CapabilityError, match=r"no scanner channel 11: .*-113"):
            dmm.select(11)
        # It is on its own terminals now, and knows that.
        dmm.measure_voltage_v()
        assert sent()[-2:] == [':SENS:FUNC "VOLT:DC"', ":READ?"]


def test_daq6510_counts_its_channels_by_slots(library: str, sent: Any) -> None:
    with open_instrument("dmm", RESOURCES["DAQ6510"], library=library) as dmm:
        for channel in (1, 40, 41):
            dmm.select(channel)
            assert dmm.measure_voltage_v() == 0.199993
    closed = [command for command in sent() if command.startswith(":ROUT:CLOS")]
    assert closed == [":ROUT:CLOS (@101)", ":ROUT:CLOS (@140)", ":ROUT:CLOS (@201)"]


def test_34461a_measures_in_one_command(library: str, sent: Any) -> None:
    with open_instrument("dmm", RESOURCES["34461A"], library=library) as dmm:
        assert (dmm.measure_voltage_v(), dmm.measure_resistance_ohm()) == (0.199987654, 1000.12345)
        with pytest.raises(CapabilityError, match="no scanner channel 1"):
            dmm.select(1)
    assert sent() == ["*IDN?", "*CLS", "*RST", "SYST:ERR?", "MEAS:VOLT:DC? DEF,DEF", "MEAS:FRES? DEF,DEF"]


def test_e36312a_uses_one_output_and_leaves_the_others_alone(library: str, sent: Any) -> None:
    with open_instrument("psu", RESOURCES["E36312A"], library=library) as psu:
        psu.set_voltage(5.0, current_limit_a=0.1)
        psu.output_on()
        assert psu.measure() == SourcePoint(voltage_v=4.999, current_a=0.012, in_compliance=False)
    assert sent() == [
        "*IDN?",
        "OUTPut 0, (@1)",
        "*CLS",
        "VOLT 0, (@1)",
        "SYST:ERR?",
        "OUTPut 0, (@1)",
        "OUTP? (@1)",
        "CURR 0.1, (@1)",
        "SYST:ERR?",
        "VOLT 5, (@1)",
        "SYST:ERR?",
        "OUTPut 1, (@1)",
        "SYST:ERR?",
        "OUTP? (@1)",
        "MEAS:VOLT? (@1)",
        "MEAS:CURR? (@1)",
        "STAT:QUES:INST:ISUM1:COND?",
        "OUTPut 0, (@1)",
        "OUTP? (@1)",
    ]


def test_e36312a_says_what_regulates_its_output(table: Path, library: str) -> None:
    table.write_text(table.read_text().replace('COND?", r: "+2"', 'COND?", r: "+1"'))
    with open_instrument("psu", RESOURCES["E36312A"], library=library) as psu:
        psu.set_voltage(5.0, current_limit_a=0.1)
        psu.output_on()
        assert psu.measure().in_compliance
        with pytest.raises(DeviceError, match=r"held back by its limit at 4\.999 V and 0\.012 A"):
            psu.measure_in_control()


@pytest.mark.parametrize("condition", ["+0", "+3"])
def test_e36312a_that_regulates_nothing_is_an_error(table: Path, library: str, condition: str) -> None:
    table.write_text(table.read_text().replace('COND?", r: "+2"', f'COND?", r: "{condition}"'))
    with open_instrument("psu", RESOURCES["E36312A"], library=library) as psu:
        psu.set_voltage(5.0, current_limit_a=0.1)
        psu.output_on()
        with pytest.raises(DeviceError, match="does not regulate its output"):
            psu.measure()


def test_a_refused_setting_is_an_error_with_the_words_of_the_instrument(table: Path, library: str, sent: Any) -> None:
    table.write_text(table.read_text().replace(":SOUR:CURR:VLIM {}", ":SOUR:CURR:OTHER {}"))
    with (
        pytest.raises(DeviceError, match=r"the smu at TCPIP0.* refused a command: -113,\"Undefined header"),
        open_instrument("smu", RESOURCES["2450"], library=library) as smu,
    ):
        smu.source_current(1e-5, compliance_v=0.5)
    # The level did not go out under the wrong limit.
    assert not [command for command in sent() if command.startswith(":SOUR:CURR:LEV")]


def test_a_refused_limit_does_not_count_as_one(table: Path, library: str) -> None:
    table.write_text(table.read_text().replace(":SOUR:CURR:VLIM {}", ":SOUR:CURR:OTHER {}"))
    with open_instrument("smu", RESOURCES["2450"], library=library) as smu:
        with pytest.raises(DeviceError):
            smu.source_current(1e-5, compliance_v=0.5)
        with pytest.raises(LimitError, match="no limit yet"):
            smu.output_on()


def test_another_command_set_is_refused_before_anything_is_switched(table: Path, library: str, sent: Any) -> None:
    table.write_text(table.read_text().replace('{q: "*LANG?", r: "SCPI"}', '{q: "*LANG?", r: "TSP"}'))
    with pytest.raises(ConfigError, match="command set 'TSP'"):
        open_instrument("smu", RESOURCES["2450"], library=library).__enter__()
    assert sent() == ["*IDN?", "*LANG?"]


def test_an_instrument_in_another_role_is_refused_with_its_own(library: str, sent: Any) -> None:
    with pytest.raises(ConfigError, match=r"is a Keithley 2400, which is no dmm. Fix: give it as smu=GPIB0::24::INSTR"):
        open_instrument("dmm", RESOURCES["2400"], library=library).__enter__()
    assert sent() == ["*IDN?"]


def test_an_unknown_model_is_refused_with_those_that_are_known(table: Path, library: str) -> None:
    table.write_text(table.read_text().replace("MODEL 2450", "MODEL 9999"))
    with pytest.raises(ConfigError, match=r"unknown model: .*MODEL 9999.* use one of: Keithley 2400; Keithley 2450"):
        open_instrument("smu", RESOURCES["2450"], library=library).__enter__()


def test_discovery_asks_all_but_serial_ports_who_they_are(library: str) -> None:
    found = dict(discover(library))
    assert set(found) == set(RESOURCES.values()) - {RESOURCES["2450"]}
    assert found[RESOURCES["2400"]].startswith("KEITHLEY INSTRUMENTS INC.,MODEL 2400")
    assert found[RESOURCES["DMM6500"]] == ""


def test_a_name_that_is_no_visa_name_is_refused(library: str) -> None:
    with pytest.raises(ConfigError, match="give a VISA name"):
        open_instrument("smu", "192.0.2.1:5025", library=library).__enter__()


def test_a_resource_that_is_not_there_cannot_be_reached(library: str) -> None:
    with pytest.raises(TransportError, match=r"the smu at GPIB0::7::INSTR"):
        open_instrument("smu", "GPIB0::7::INSTR", library=library).__enter__()
