"""The instruments' side of SCPI, on an instrument that has one setting of each kind."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from firmware_bridge.emulator.scpi import (
    QUEUE_MAX,
    Command,
    ScpiInstrument,
    channels,
    number,
    switch,
    word,
)


class Lamp(ScpiInstrument):
    def __init__(self) -> None:
        super().__init__("ACME,LAMP,1,0")
        self.reset()

    def reset(self) -> None:
        self.on, self.level, self.colour, self.chosen = False, 0.0, "RED", [1]

    def commands(self) -> Sequence[Command]:
        return [
            Command("OUTPut[:STATe]", set=self._output, ask=lambda _: str(int(self.on))),
            Command("[SOURce:]LIGHt[:LEVel]", set=self._light, ask=lambda _: f"{self.level:g}"),
            Command("[SOURce:]LIGHt:COLour", set=self._paint, ask=lambda _: self.colour),
            Command("ROUTe:CLOSe", set=self._close),
            Command("READ", ask=lambda parameters: "|".join(parameters)),
        ]

    def _output(self, parameters: list[str]) -> None:
        self.on = switch(parameters)

    def _light(self, parameters: list[str]) -> None:
        self.level = number(parameters, 0.0, 5.0)

    def _paint(self, parameters: list[str]) -> None:
        self.colour = word(parameters, "RED", "GREen")

    def _close(self, parameters: list[str]) -> None:
        self.chosen = channels(parameters, 8)


@pytest.fixture
def lamp() -> Lamp:
    return Lamp()


def first_error(lamp: Lamp) -> str:
    answer = lamp.handle("SYST:ERR?")
    assert answer is not None
    return answer


@pytest.mark.parametrize(
    "text",
    [
        ":SOURce:LIGHt:LEVel 2",
        "source:light:level 2",
        "SOUR:LIGH:LEV 2",
        "sour1:ligh1 2",
        "LIGHT 2.0e0",
        ":LIGH:LEV  2 ",
        "SOUR:LIGHT 2",
    ],
)
def test_a_header_may_be_written_in_many_ways(lamp: Lamp, text: str) -> None:
    assert lamp.handle(text) is None
    assert lamp.level == 2.0
    assert first_error(lamp) == '0,"No error"'


@pytest.mark.parametrize(
    "text", ["SOURC:LIGH 2", "LIG 2", "LIGHT:LEVE 2", "LIGHT2 2", "SOUR:SOUR:LIGH 2", "FOO", "READ", "*FOO"]
)
def test_others_are_undefined(lamp: Lamp, text: str) -> None:
    lamp.handle(text)
    assert first_error(lamp).startswith('-113,"Undefined header')
    assert lamp.level == 0.0


def test_a_query_answers_and_a_compound_message_answers_in_one_line(lamp: Lamp) -> None:
    assert lamp.handle("LIGHT 3;:LIGHT?;:OUTP ON;OUTP?;*IDN?") == "3;1;ACME,LAMP,1,0"


def test_the_path_of_a_compound_message_goes_on(lamp: Lamp) -> None:
    lamp.handle(":SOUR:LIGH:COL GRE;LEV 4")
    assert (lamp.colour, lamp.level) == ("GRE", 4.0)
    lamp.handle(":SOUR:LIGH:LEV 1;*CLS;COL RED")
    assert (lamp.colour, lamp.level) == ("RED", 1.0)
    lamp.handle(":SOUR:LIGH:LEV 2;OUTP ON")
    assert not lamp.on
    assert first_error(lamp) == '-113,"Undefined header; SOUR:LIGH:OUTP"'


def test_separators_in_quotes_and_parentheses_separate_nothing(lamp: Lamp) -> None:
    assert lamp.handle("READ? \"a;b,c\", 'd,e', (@1,2)") == "\"a;b,c\"|'d,e'|(@1,2)"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("LIGHT", -109),
        ("LIGHT 1,2", -108),
        ("LIGHT bright", -104),
        ("LIGHT 5.1", -222),
        ("LIGHT -1", -222),
        ("LIGHT nan", -222),
        ("LIGHT:COL BLUE", -224),
        ("OUTP 2", -224),
        ("ROUT:CLOS 3", -104),
        ("ROUT:CLOS (@0)", -222),
        ("ROUT:CLOS (@9)", -222),
        ("ROUT:CLOS (@3:2)", -222),
        ("ROUT:CLOS (@1,,2)", -222),
    ],
)
def test_wrong_parameters_are_refused_and_change_nothing(lamp: Lamp, text: str, error: int) -> None:
    assert lamp.handle(text) is None
    assert first_error(lamp).startswith(f"{error},")
    assert (lamp.on, lamp.level, lamp.colour, lamp.chosen) == (False, 0.0, "RED", [1])


def test_channel_lists(lamp: Lamp) -> None:
    lamp.handle("ROUT:CLOS (@1, 3:5,8)")
    assert lamp.chosen == [1, 3, 4, 5, 8]


def test_a_refused_command_of_a_message_does_not_stop_the_others(lamp: Lamp) -> None:
    assert lamp.handle("LIGHT 9;:OUTP ON;:OUTP?") == "1"


def test_the_queue_keeps_the_oldest_errors_and_says_that_more_were_lost(lamp: Lamp) -> None:
    for _ in range(QUEUE_MAX + 3):
        lamp.handle("FOO")
    found = [first_error(lamp) for _ in range(QUEUE_MAX + 1)]
    assert found[-3].startswith("-113")
    assert found[-2:] == ['-350,"Queue overflow"', '0,"No error"']


def test_clear_empties_queue_and_events_but_no_setting(lamp: Lamp) -> None:
    lamp.handle("LIGHT 2;FOO;*CLS")
    assert first_error(lamp) == '0,"No error"'
    assert lamp.handle("*ESR?") == "0"
    assert lamp.level == 2.0


def test_the_event_register_has_a_bit_for_each_kind_and_is_cleared_by_reading(lamp: Lamp) -> None:
    assert lamp.handle("*ESR?") == "128"
    lamp.handle("FOO")
    lamp.handle("LIGHT 9")
    lamp.handle("*OPC")
    assert lamp.handle("*ESR?") == str(32 + 16 + 1)
    assert lamp.handle("*ESR?") == "0"


def test_the_status_byte_sums_up(lamp: Lamp) -> None:
    lamp.handle("*CLS;*ESE 16")
    assert lamp.handle("*STB?;*ESE?;*OPC?;*TST?") == "0;16;1;0"
    lamp.handle("LIGHT 9")
    assert lamp.handle("*STB?") == str(4 + 32)


def test_reset_resets(lamp: Lamp) -> None:
    lamp.handle("OUTP ON;:LIGHT 2;*RST")
    assert (lamp.on, lamp.level) == (False, 0.0)


def test_commands_but_no_queries_are_refused_on_request(lamp: Lamp) -> None:
    lamp.refuse_commands = 1
    assert lamp.handle("LIGHT?") == "0"
    lamp.handle("LIGHT 2;:OUTP ON")
    assert first_error(lamp) == '-200,"Execution error; LIGHT"'
    assert (lamp.on, lamp.level) == (True, 0.0)


def test_an_empty_message_is_none(lamp: Lamp) -> None:
    assert lamp.handle("") is None
    assert lamp.handle(" ; ") is None
    assert first_error(lamp) == '0,"No error"'
