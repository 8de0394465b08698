"""Register map of the sequencer: rows, generated files, what errors say."""

from __future__ import annotations

import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge import registers
from firmware_bridge.reference_pages import instruction_page
from firmware_bridge.register_table import WORD_BITS, WORD_BYTES, MemoryWindow, Register, RegisterField
from hil.errors import ConfigError, ProtocolError

ROOT = Path(__file__).parents[2]
EVERY = pytest.mark.parametrize("row", registers.REGISTERS, ids=lambda row: row.name)
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("systemrdl") is None, reason="systemrdl-compiler is not installed (extra dev)"
)


class TestMap:
    def test_names_are_unique_and_are_the_constants_of_the_module(self) -> None:
        rows = (*registers.REGISTERS, *registers.WINDOWS)
        assert len({row.name for row in rows}) == len(rows)
        assert all(getattr(registers, row.name) is row for row in rows)
        constants = {id(value) for value in vars(registers).values() if isinstance(value, Register | MemoryWindow)}
        assert constants == {id(row) for row in rows}

    def test_offsets_are_aligned_and_nothing_overlaps(self) -> None:
        ranges = sorted((row.offsets for row in (*registers.REGISTERS, *registers.WINDOWS)), key=lambda part: part[0])
        assert all(part.start % WORD_BYTES == 0 and part.step == WORD_BYTES for part in ranges)
        assert all(before.stop <= after.start for before, after in pairwise(ranges))

    @EVERY
    def test_fields_lie_in_the_word_and_do_not_overlap(self, row: Register) -> None:
        bits = [bit for field in row.fields for bit in range(field.low, field.low + field.width)]
        assert len(set(bits)) == len(bits)
        assert max(bits) < WORD_BITS
        assert len({field.name for field in row.fields}) == len(row.fields)

    @EVERY
    def test_reset_values_fit_and_access_is_known(self, row: Register) -> None:
        assert row.unpack(row.reset) == {field.name: field.reset for field in row.fields}
        assert row.access in {"r", "w", "rw"}

    def test_what_the_host_relies_on(self) -> None:
        assert registers.ID.reset.to_bytes(WORD_BYTES, "big") == b"HIL1"
        assert registers.VERSION.unpack(registers.VERSION.reset) == {"major": 1, "minor": 0}
        assert registers.STATUS.unpack(registers.STATUS.reset)["safe"] == 1
        assert (registers.CONTROL.access, registers.STATUS.access, registers.GATE_MAX.access) == ("w", "r", "rw")
        assert registers.GATE_MAX.reset == 0

    def test_every_fault_has_a_text_and_fits_its_field(self) -> None:
        assert set(registers.FAULT_TEXT) == set(registers.Fault)
        assert all(registers.FAULT_TEXT.values())
        assert max(registers.Fault) <= registers.FAULT["code"].most
        assert registers.Fault.NONE == registers.FAULT["code"].reset == 0


class TestCodec:
    @EVERY
    @settings(max_examples=20)
    @given(data=st.data())
    def test_unpack_gives_back_what_was_packed(self, row: Register, data: st.DataObject) -> None:
        values = data.draw(
            st.fixed_dictionaries({}, optional={field.name: st.integers(0, field.most) for field in row.fields})
        )
        word = row.pack(**values)
        assert 0 <= word < 1 << WORD_BITS
        assert row.unpack(word) == {field.name: values.get(field.name, 0) for field in row.fields}

    @EVERY
    @settings(max_examples=20)
    @given(word=st.integers(0, 2**WORD_BITS - 1))
    def test_pack_gives_back_the_bits_of_the_fields(self, row: Register, word: int) -> None:
        used = sum(field.most << field.low for field in row.fields)
        assert row.pack(**row.unpack(word)) == word & used

    @EVERY
    @settings(max_examples=20)
    @given(word=st.integers(0, 2**WORD_BITS - 1))
    def test_fields_decode_as_their_register_does(self, row: Register, word: int) -> None:
        assert {field.name: row[field.name].of(np.uint32(word)) for field in row.fields} == row.unpack(np.uint32(word))

    def test_bits_are_where_the_map_says(self) -> None:
        assert registers.CONTROL.pack(start=1) == 0b0001
        assert registers.CONTROL.pack(safe=True, clear=1) == 0b1100
        assert registers.FAULT.pack(code=registers.Fault.ILLEGAL, pc=0x123456) == 0x12345601
        assert registers.STATUS["busy"].of(0b0001) == 1
        assert registers.STATUS["safe"].of(0b0111) == 0

    @EVERY
    def test_values_out_of_range_are_refused_by_name(self, row: Register) -> None:
        for field in row.fields:
            bad: tuple[Any, ...] = (-1, field.most + 1, 1.0, "1", None)
            for value in bad:
                with pytest.raises(ProtocolError, match=f"register {row.name}: field {field.name} = ") as caught:
                    row.pack(**{field.name: value})
                assert f"from 0 to {field.most}" in caught.value.fix
                with pytest.raises(ProtocolError, match=f"field {field.name} = "):
                    field.encode(value)

    def test_unknown_fields_are_refused(self) -> None:
        with pytest.raises(ProtocolError, match="register STATUS has no field 'idle'") as caught:
            registers.STATUS["idle"]
        assert "busy" in caught.value.fix
        with pytest.raises(ProtocolError, match="register CONTROL has no field 'go'"):
            registers.CONTROL.pack(go=1)

    @pytest.mark.parametrize("word", [-1, 1 << WORD_BITS])
    def test_what_is_no_word_is_refused(self, word: int) -> None:
        with pytest.raises(ProtocolError, match="word of register STATUS"):
            registers.STATUS.unpack(word)


class TestArrays:
    def test_elements_are_consecutive_words(self) -> None:
        assert [registers.CLIPS.at(lane) for lane in range(16)] == list(range(0x100, 0x140, 4))
        assert registers.STATUS.at(0) == registers.STATUS.offset
        assert registers.PROGRAM.at(1) == registers.PROGRAM.offset + WORD_BYTES

    @pytest.mark.parametrize("element", [-1, 16, 1.0])
    def test_no_other_elements(self, element: Any) -> None:
        with pytest.raises(ProtocolError, match="element of register CLIPS = ") as caught:
            registers.CLIPS.at(element)
        assert "from 0 to 15" in caught.value.fix

    def test_a_register_that_is_no_array_has_element_0_only(self) -> None:
        with pytest.raises(ProtocolError, match="element of register STATUS = 1"):
            registers.STATUS.at(1)

    def test_no_words_beyond_a_memory(self) -> None:
        assert registers.PROGRAM.at(registers.PROGRAM.entries - 1) == registers.PROGRAM.offsets[-1]
        with pytest.raises(ProtocolError, match="word of memory PROGRAM = "):
            registers.PROGRAM.at(registers.PROGRAM.entries)


def test_access_is_what_any_field_allows() -> None:
    fields = (RegisterField("a", 0, 1, "", access="w"), RegisterField("b", 1, 1, "", access="r"))
    assert Register("MIXED", 0, "", fields).access == "rw"


class TestGeneratedFiles:
    def test_the_instruction_page_is_up_to_date(self) -> None:
        assert (ROOT / "docs/reference/sequencer-instructions.md").read_text(encoding="utf-8") == instruction_page()

    @needs_compiler
    def test_all_are_up_to_date(self) -> None:
        from firmware_bridge.registers_export import compile_map, generated

        for path, text in generated(compile_map()).items():
            assert (ROOT / path).read_text(encoding="utf-8") == text, "run python -m firmware_bridge.registers_export"

    @needs_compiler
    def test_the_generated_rows_are_those_of_the_source(self) -> None:
        from firmware_bridge.registers_export import compile_map

        table = compile_map()
        assert (table.registers, table.windows) == (registers.REGISTERS, registers.WINDOWS)

    @needs_compiler
    def test_check_finds_a_stale_file_and_writes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from firmware_bridge import registers_export

        monkeypatch.setattr(registers_export, "ROOT", tmp_path)
        for folder in ("firmware_bridge", "docs/reference"):
            (tmp_path / folder).mkdir(parents=True)
        with pytest.raises(typer.Exit) as caught:
            registers_export.export(check=True)
        assert caught.value.exit_code == 1
        assert "stale: firmware_bridge/registers.py" in capsys.readouterr().out
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        registers_export.export(check=False)
        registers_export.export(check=True)
        (tmp_path / "firmware_bridge/registers.py").write_text("", encoding="utf-8")
        with pytest.raises(typer.Exit):
            registers_export.export(check=True)


@needs_compiler
class TestCompileMap:
    FIELD = "field { sw = rw; hw = r; } value[7:0] = 5;"

    def compiled(self, tmp_path: Path, body: str) -> Any:
        from firmware_bridge.registers_export import compile_map

        source = tmp_path / "map.rdl"
        source.write_text(f"addrmap small {{ {body} }};", encoding="utf-8")
        return compile_map(source)

    def test_rows(self, tmp_path: Path) -> None:
        table = self.compiled(
            tmp_path,
            f'name = "Small"; reg {{ name = "First"; {self.FIELD} }} A[3] @ 0x8;'
            "external mem { mementries = 4; memwidth = 32; sw = r; } M @ 0x100;",
        )
        value = RegisterField("value", 0, 8, "", reset=5, access="rw")
        assert table.title == "Small"
        assert table.registers == (Register("A", 8, "First", (value,), count=3),)
        assert table.windows == (MemoryWindow("M", 0x100, 4, "M", access="r"),)
        assert table.encodings == ()

    @pytest.mark.parametrize(
        "body",
        [
            f"reg {{ regwidth = 64; {FIELD} }} A @ 0;",
            f"reg {{ {FIELD} }} A[2] @ 0 += 8;",
            f"reg {{ {FIELD} }} A[2][2] @ 0;",
            f"regfile {{ reg {{ {FIELD} }} A; }} F @ 0;",
            "reg { field { sw = rw; hw = r; } value[7:0]; } A @ 0;",
            "external mem { mementries = 4; memwidth = 64; } M @ 0;",
        ],
    )
    def test_what_the_rows_cannot_hold_is_refused(self, tmp_path: Path, body: str) -> None:
        with pytest.raises(ConfigError):
            self.compiled(tmp_path, body)

    def test_source_that_does_not_compile_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"map\.rdl does not compile"):
            self.compiled(tmp_path, "reg {} A @ 0x0 { };")
