"""Instruction table of the sequencer: layout of the words, codec, result words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from firmware_bridge.instructions import (
    BY_NAME,
    BY_OPCODE,
    INSTRUCTIONS,
    OPCODE_LOW,
    SUM_CLIPPED_BIT,
    SUM_CONVERSIONS_MAX,
    SUM_FRAME_ERROR_BIT,
    SUM_WIDTH,
    Field,
    Instruction,
    pack,
    unpack,
    unpack_sums,
)
from hil.errors import ProtocolError

EVERY = pytest.mark.parametrize("row", INSTRUCTIONS, ids=lambda row: row.name)
EVERY_FIELD = pytest.mark.parametrize(
    ("row", "field"),
    [(row, field) for row in INSTRUCTIONS for field in row.fields],
    ids=lambda part: part.name,
)
ADC_BITS = 14


def values_of(row: Instruction) -> st.SearchStrategy[dict[str, int]]:
    return st.fixed_dictionaries({field.name: st.integers(field.least, field.most) for field in row.fields})


def least(row: Instruction) -> dict[str, Any]:
    return {field.name: field.least for field in row.fields}


class TestLayout:
    def test_names_and_opcodes_are_unique_and_word_0_is_none(self) -> None:
        assert len(BY_NAME) == len(BY_OPCODE) == len(INSTRUCTIONS)
        assert all(0 < row.opcode < 1 << 8 for row in INSTRUCTIONS)

    @EVERY
    def test_fields_lie_below_the_opcode_and_do_not_overlap(self, row: Instruction) -> None:
        bits = [bit for field in row.fields for bit in range(field.low, field.low + field.width)]
        assert len(set(bits)) == len(bits)
        assert max(bits) < OPCODE_LOW

    @EVERY_FIELD
    def test_a_field_has_a_value(self, row: Instruction, field: Field) -> None:
        assert 0 <= field.least <= field.most < 1 << field.width

    @pytest.mark.parametrize(
        ("name", "values", "word"),
        [
            ("HALT", {"code": 0x1234}, 0x01000000_00001234),
            ("WAIT", {"ticks": 0xFFFF_FFFF}, 0x03000000_FFFFFFFF),
            ("SPI", {"frame": 0x030800, "chips": 0x8001, "long": 0, "capture": 1, "slow": 0}, 0x10028001_00030800),
            ("SHIFT", {"data": 0x8000_0000_0001, "count": 48, "chain": 1}, 0x20708000_00000001),
            ("DRIVE", {"outputs": 1, "source_lines": 2, "gate": 0}, 0x30000000_00000005),
            (
                "CONVERT",
                {"first": 1, "count": 32, "repeat": 4, "lanes": 0xFFFF, "overwrite": 1, "emit": 1},
                0x413FFFF0_00408001,
            ),
        ],
    )
    def test_words_are_what_the_fabric_decodes(self, name: str, values: dict[str, int], word: int) -> None:
        assert pack(name, **values) == word


class TestPack:
    @EVERY
    @settings(max_examples=20)
    @given(data=st.data())
    def test_round_trip(self, row: Instruction, data: st.DataObject) -> None:
        values = data.draw(values_of(row))
        word = pack(row.name, **values)
        assert isinstance(word, int)
        assert word >> OPCODE_LOW == row.opcode
        assert unpack(word) == (row, values)

    @EVERY
    @settings(max_examples=20)
    @given(data=st.data())
    def test_arrays_pack_as_their_elements_do(self, row: Instruction, data: st.DataObject) -> None:
        drawn = data.draw(st.lists(values_of(row), min_size=1, max_size=4))
        columns = {field.name: np.array([values[field.name] for values in drawn], np.uint64) for field in row.fields}
        words = pack(row.name, **columns)
        assert words.dtype == np.uint64
        assert words.tolist() == [pack(row.name, **values) for values in drawn]

    def test_numbers_are_shared_by_all_elements_of_an_array(self) -> None:
        words = pack("SHIFT", data=np.array([1, 2, 3]), count=8, chain=0)
        assert words.tolist() == [pack("SHIFT", data=data, count=8, chain=0) for data in (1, 2, 3)]

    @EVERY_FIELD
    def test_values_out_of_range_are_refused_by_name(self, row: Instruction, field: Field) -> None:
        for value in (field.least - 1, field.most + 1, 1 << 70, 1.0, "1", np.array([field.least, field.most + 1])):
            with pytest.raises(ProtocolError, match=f"{row.name} field {field.name}") as caught:
                pack(row.name, **{**least(row), field.name: value})
            assert str(field.most) in caught.value.fix

    def test_an_unknown_instruction_is_refused(self) -> None:
        with pytest.raises(ProtocolError, match="no instruction 'JUMP'") as caught:
            pack("JUMP")
        assert "HALT" in caught.value.fix

    @EVERY
    def test_missing_and_unknown_fields_are_refused(self, row: Instruction) -> None:
        with pytest.raises(ProtocolError, match=row.name):
            pack(row.name, **{**least(row), "colour": 1})
        with pytest.raises(ProtocolError, match=row.name):
            pack(row.name)


class TestUnpack:
    @given(opcode=st.integers(0, 255).filter(lambda opcode: opcode not in BY_OPCODE), rest=st.integers(0, 2**56 - 1))
    def test_an_unknown_opcode_is_refused(self, opcode: int, rest: int) -> None:
        with pytest.raises(ProtocolError, match="no known opcode"):
            unpack(opcode << OPCODE_LOW | rest)

    def test_empty_memory_is_no_instruction(self) -> None:
        with pytest.raises(ProtocolError, match="no known opcode"):
            unpack(0)

    @EVERY
    def test_each_bit_outside_the_fields_is_refused(self, row: Instruction) -> None:
        used = {bit for field in row.fields for bit in range(field.low, field.low + field.width)}
        word = pack(row.name, **least(row))
        for bit in set(range(OPCODE_LOW)) - used:
            with pytest.raises(ProtocolError, match=f"{row.name} .* outside its fields"):
                unpack(word | 1 << bit)

    @EVERY
    def test_a_field_below_its_least_value_is_refused(self, row: Instruction) -> None:
        for field in row.fields:
            if field.least > 0:
                word = pack(row.name, **least(row)) - (field.least << field.low)
                with pytest.raises(ProtocolError, match=f"{row.name} field {field.name} = 0"):
                    unpack(word)


class TestSums:
    @given(
        st.lists(
            st.tuples(st.integers(-(2 ** (SUM_WIDTH - 1)), 2 ** (SUM_WIDTH - 1) - 1), st.booleans(), st.booleans()),
            min_size=1,
        )
    )
    def test_round_trip(self, rows: list[tuple[int, bool, bool]]) -> None:
        words = np.array(
            [
                total % 2**SUM_WIDTH | clipped << SUM_CLIPPED_BIT | broken << SUM_FRAME_ERROR_BIT
                for total, clipped, broken in rows
            ],
            np.uint32,
        )
        sums, clipped, frame_errors = unpack_sums(words)
        assert list(zip(sums.tolist(), clipped.tolist(), frame_errors.tolist(), strict=True)) == rows

    @given(hnp.arrays(np.uint32, hnp.array_shapes(min_dims=1, max_dims=3)))
    def test_shape_stays(self, words: Any) -> None:
        assert {part.shape for part in unpack_sums(words)} == {words.shape}

    @pytest.mark.parametrize("code", [-(2 ** (ADC_BITS - 1)), 2 ** (ADC_BITS - 1) - 1])
    def test_the_most_conversions_at_either_end_of_the_adc_fit(self, code: int) -> None:
        total = code * SUM_CONVERSIONS_MAX
        sums, *_ = unpack_sums(np.array([total % 2**SUM_WIDTH], np.uint32))
        assert sums[0] == total
