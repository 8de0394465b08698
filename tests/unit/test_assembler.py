"""Programs as text: both directions, every instruction, what errors say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.assembler import NOTATIONS, assemble, disassemble
from firmware_bridge.instructions import INSTRUCTIONS, Engine, Instruction, SourceLines, pack
from firmware_bridge.reference_pages import EXAMPLE
from hil.errors import ProtocolError

EVERY = pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: row.name)


def words_of(row: Instruction) -> st.SearchStrategy[int]:
    fields = {field.name: st.integers(field.least, field.most) for field in row.fields}
    return st.fixed_dictionaries(fields).map(lambda values: pack(row.name, **values))


def as_words(*words: int) -> Any:
    return np.array(words, np.uint64)


class TestRoundTrip:
    @given(st.lists(st.one_of([words_of(row) for row in INSTRUCTIONS]), max_size=20))
    def test_text_of_a_program_gives_its_words_back(self, words: list[int]) -> None:
        assembled = assemble(disassemble(as_words(*words)))
        assert assembled.dtype == np.uint64
        assert assembled.tolist() == words

    @EVERY
    @settings(max_examples=30)
    @given(data=st.data())
    def test_every_instruction(self, row: Instruction, data: st.DataObject) -> None:
        word = data.draw(words_of(row))
        text = disassemble(as_words(word))
        assert text.split()[0] == row.name
        assert [part.partition("=")[0] for part in text.split()[1:]] == [field.name for field in row.fields]
        assert assemble(text).tolist() == [word]

    @EVERY
    def test_ends_of_every_range(self, row: Instruction) -> None:
        for end in ("least", "most"):
            word = pack(row.name, **{field.name: getattr(field, end) for field in row.fields})
            assert assemble(disassemble(as_words(word))).tolist() == [word]

    def test_no_instructions(self) -> None:
        assert disassemble(as_words()) == ""
        assert assemble("\n  # nothing\n").tolist() == []

    def test_line_k_is_word_k(self) -> None:
        lines = disassemble(assemble(EXAMPLE)).splitlines()
        assert lines[0] == "WATCHDOG ticks=100ms"
        assert lines[-1] == "HALT code=0"
        assert len(lines) == len(assemble(EXAMPLE))


class TestText:
    def test_comments_and_blank_lines_are_no_words(self) -> None:
        assert assemble("# one\n\nHALT code=7 # two # three\n   \n").tolist() == [pack("HALT", code=7)]

    def test_fields_come_in_any_order_and_left_out_ones_are_0(self) -> None:
        word = pack("CONVERT", first=0, count=8, repeat=2, lanes=0, overwrite=0, emit=1)
        assert assemble("CONVERT emit=1 repeat=2 count=8").tolist() == [word]
        assert assemble("DRIVE").tolist() == [pack("DRIVE", outputs=0, source_lines=SourceLines.GROUND, gate=0)]

    @pytest.mark.parametrize("value", ["10", "0xA", "0xa", "0b1010"])
    def test_number_bases(self, value: str) -> None:
        assert assemble(f"MARK tag={value}").tolist() == [pack("MARK", tag=10)]

    @pytest.mark.parametrize(
        ("time", "ticks"),
        [
            ("1", 1),
            ("10ns", 1),
            ("12us", 1200),
            ("1.5us", 150),
            ("0.01us", 1),
            ("3ms", 300_000),
            ("42s", 4_200_000_000),
        ],
    )
    def test_times(self, time: str, ticks: int) -> None:
        assert assemble(f"WAIT ticks={time}").tolist() == [pack("WAIT", ticks=ticks)]

    @pytest.mark.parametrize(
        ("ticks", "time"), [(1, "10ns"), (99, "990ns"), (100, "1us"), (150, "1500ns"), (100_000, "1ms"), (10**8, "1s")]
    )
    def test_times_are_written_in_the_longest_unit_that_is_exact(self, ticks: int, time: str) -> None:
        assert disassemble(as_words(pack("WAIT", ticks=ticks))) == f"WAIT ticks={time}\n"

    @pytest.mark.parametrize("lines", SourceLines)
    def test_source_lines_by_name(self, lines: SourceLines) -> None:
        word = pack("DRIVE", outputs=0, source_lines=lines, gate=0)
        assert assemble(f"DRIVE source_lines={lines.name}").tolist() == [word]
        assert f"source_lines={lines.name} " in disassemble(as_words(word))

    def test_engines_by_name(self) -> None:
        word = pack("WAITFOR", engines=Engine.CHAIN | Engine.INPUTS_FREE)
        assert assemble("WAITFOR engines=CHAIN|INPUTS_FREE").tolist() == [word]
        assert assemble("WAITFOR engines=INPUTS_FREE|CHAIN|CHAIN").tolist() == [word]
        assert disassemble(as_words(word)) == "WAITFOR engines=CHAIN|INPUTS_FREE\n"

    def test_masks_are_written_in_hexadecimal(self) -> None:
        word = pack("SPI", frame=0x088000, chips=0x1F, long=0, capture=0, slow=0)
        assert disassemble(as_words(word)) == "SPI frame=0x88000 chips=0x1F long=0 capture=0 slow=0\n"

    def test_every_notation_belongs_to_a_field(self) -> None:
        assert set(NOTATIONS) <= {field.name for row in INSTRUCTIONS for field in row.fields}


class TestErrors:
    @pytest.mark.parametrize(
        ("line", "what", "fix"),
        [
            ("JUMP", "no instruction 'JUMP'", "HALT"),
            ("halt", "no instruction 'halt'", "HALT"),
            ("DRIVE colour=1", "colour", "outputs, source_lines, gate"),
            ("WAIT", "WAIT", "ticks"),
            ("WAIT ticks", "'ticks' is not of the form field=value", "without spaces"),
            ("WAIT ticks = 1", "'ticks' is not of the form field=value", "without spaces"),
            ("WAIT ticks=1 ticks=2", "WAIT field ticks is given twice", "once"),
            ("WAIT ticks=0", "WAIT field ticks = 0", "from 1 to 4294967295"),
            ("WAIT ticks=43s", "WAIT field ticks = 4300000000", "from 1 to 4294967295"),
            ("WAIT ticks=15ns", "WAIT field ticks = '15ns'", "whole number of 10 ns ticks"),
            ("WAIT ticks=1h", "WAIT field ticks = '1h'", "whole number of 10 ns ticks"),
            ("WAIT ticks=1/2us", "WAIT field ticks = '1/2us'", "whole number of 10 ns ticks"),
            ("HALT code=-1", "HALT field code = -1", "from 0 to 65535"),
            ("HALT code=1us", "HALT field code = '1us'", "decimal, 0x.. or 0b.."),
            ("HALT code=", "HALT field code = ''", "decimal, 0x.. or 0b.."),
            ("DRIVE source_lines=VCC", "DRIVE field source_lines = 'VCC'", "GROUND, TIA, BIAS, FLOAT"),
            ("WAITFOR engines=CHAIN|SPU", "WAITFOR field engines = 'CHAIN|SPU'", "CHAIN, SPI, INPUTS_FREE"),
            ("WAITFOR engines=0", "WAITFOR field engines = 0", "from 1 to 31"),
        ],
    )
    def test_messages_say_line_thing_and_fix(self, line: str, what: str, fix: str) -> None:
        with pytest.raises(ProtocolError) as caught:
            assemble(f"# a program\nHALT\n{line}  # bad\nHALT\n")
        assert caught.value.what.startswith("line 3: ")
        assert what in caught.value.what
        assert fix in caught.value.fix

    @EVERY
    def test_a_field_that_cannot_be_0_cannot_be_left_out(self, row: Instruction) -> None:
        for field in row.fields:
            given_fields = [f"{other.name}={other.least}" for other in row.fields if other is not field]
            line = " ".join([row.name, *given_fields])
            if field.least == 0:
                assert assemble(line).size == 1
            else:
                with pytest.raises(ProtocolError, match=row.name) as caught:
                    assemble(line)
                assert field.name in caught.value.fix

    def test_disassembly_names_the_bad_word(self) -> None:
        with pytest.raises(ProtocolError, match=r"word 1 of the program: .*0x0000000000000000"):
            disassemble(as_words(pack("HALT", code=0), 0))
