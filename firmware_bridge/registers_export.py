"""Makes `registers.py` and the reference pages of the sequencer out of `sequencer.rdl` and the instruction table.

    python -m firmware_bridge.registers_export           writes the files
    python -m firmware_bridge.registers_export --check   exit code 1 if one of them is not up to date

Needs systemrdl-compiler, which is a development dependency: nothing imports this module at run time.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from systemrdl.compiler import RDLCompiler
from systemrdl.messages import RDLCompileError
from systemrdl.node import AddrmapNode, FieldNode, MemNode, RegNode

from firmware_bridge.reference_pages import Encoding, EncodingValue, instruction_page, register_page
from firmware_bridge.register_table import WORD_BITS, WORD_BYTES, MemoryWindow, Register, RegisterField
from hil.errors import ConfigError

SOURCE = Path(__file__).with_name("sequencer.rdl")
ROOT = SOURCE.parents[1]
LINE_LENGTH = 120
#: how numbers are written; others in decimal
NUMBER_FORMATS = {"offset=": "0x{:03X}", "reset=": "0x{:X}"}


@dataclasses.dataclass(frozen=True)
class RegisterMap:
    """What a SystemRDL file describes, as rows."""

    title: str
    text: str
    registers: tuple[Register, ...]
    windows: tuple[MemoryWindow, ...]
    encodings: tuple[Encoding, ...]


def compile_map(source: Path = SOURCE) -> RegisterMap:
    """Compile a SystemRDL file.

    Raises:
        ConfigError: it does not compile, or uses what the rows cannot hold.
    """
    compiler = RDLCompiler()
    try:
        compiler.compile_file(str(source))
        top = compiler.elaborate().top
    except RDLCompileError as error:
        raise ConfigError(f"{source} does not compile: {error}", fix="correct it at the places shown above") from None
    registers: list[Register] = []
    windows: list[MemoryWindow] = []
    encodings: list[Encoding] = []
    for node in top.children():
        if isinstance(node, RegNode):
            registers.append(_register(node))
            encodings += [row for field in node.fields() for row in _encoding(node, field)]
        elif isinstance(node, MemNode):
            windows.append(_window(node))
        else:
            raise ConfigError(f"{node.get_path()} is neither register nor memory", fix="use reg and mem only")
    return RegisterMap(*_texts(top), tuple(registers), tuple(windows), tuple(encodings))


def _texts(node: AddrmapNode | RegNode | MemNode) -> tuple[str, str]:
    return node.get_property("name"), node.get_property("desc") or ""


def _register(node: RegNode) -> Register:
    width, dimensions = node.get_property("regwidth"), node.array_dimensions or [1]
    stride = node.array_stride or WORD_BYTES
    if width != WORD_BITS or len(dimensions) != 1 or stride != WORD_BYTES:
        raise ConfigError(
            f"register {node.inst_name} has {width} bits, array dimensions {dimensions}, stride {stride}",
            fix=f"use {WORD_BITS} bits, at most one dimension and stride {WORD_BYTES}",
        )
    title, text = _texts(node)
    fields = tuple(_field(field) for field in node.fields())
    return Register(node.inst_name, node.raw_address_offset, title, fields, text, dimensions[0])


def _field(node: FieldNode) -> RegisterField:
    text, reset, access = node.get_property("desc"), node.get_property("reset"), node.get_property("sw")
    if not isinstance(reset, int):
        raise ConfigError(f"field {node.get_path()} has no constant reset value", fix="give it one")
    return RegisterField(node.inst_name, node.low, node.width, text or "", reset, access.name)


def _encoding(register: RegNode, field: FieldNode) -> list[Encoding]:
    """The named values of a field; none for most. The type `some_name_e` becomes the class `SomeName`."""
    enum = field.get_property("encode")
    if enum is None:
        return []
    name = enum.type_name.removesuffix("_e").title().replace("_", "")
    values = tuple(EncodingValue(row.name, row.value, row.rdl_desc or "") for row in enum)
    return [Encoding(name, f"{register.inst_name}.{field.inst_name}", values)]


def _window(node: MemNode) -> MemoryWindow:
    width = node.get_property("memwidth")
    if width != WORD_BITS or node.is_array:
        raise ConfigError(
            f"memory {node.inst_name} is an array or has {width} bits", fix=f"use single memories of {WORD_BITS} bits"
        )
    entries, access = node.get_property("mementries"), node.get_property("sw").name
    return MemoryWindow(node.inst_name, node.raw_address_offset, entries, *_texts(node), access)


def python_source(table: RegisterMap) -> str:
    """Text of `registers.py`, laid out as `ruff format` leaves it."""
    lines = [
        '"""Registers of the sequencer.',
        "",
        "Generated from sequencer.rdl by `python -m firmware_bridge.registers_export`: change that file, not this one.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "from enum import IntEnum",
        "",
        "from firmware_bridge.register_table import MemoryWindow, Register, RegisterField",
    ]
    for encoding in table.encodings:
        lines += ["", "", f"class {encoding.name}(IntEnum):", f'    """Values of {encoding.place}."""', ""]
        lines += [f"    {row.name} = {row.value}" for row in encoding.values]
        lines += ["", "", f"{encoding.name.upper()}_TEXT: Mapping[{encoding.name}, str] = {{"]
        lines += [f"    {encoding.name}.{row.name}: {_quoted(row.text)}," for row in encoding.values]
        lines += ["}"]
    lines += [""]
    for row in (*table.registers, *table.windows):
        lines += _source_lines(f"{row.name} = ", row)
    for name, kind, rows in (
        ("REGISTERS", Register, table.registers),
        ("WINDOWS", MemoryWindow, table.windows),
    ):
        target = f"{name}: tuple[{kind.__name__}, ...] = "
        lines += ["", *_source_lines(target, tuple(_Name(row.name) for row in rows))]
    return "\n".join(lines) + "\n"


class _Name(str):
    """A name in Python source, as opposed to a text."""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _source_lines(before: str, value: Any, after: str = "") -> list[str]:
    """Source of a value between `before` and `after`: one line if that fits, else one item a line."""
    line = before + _inline(before, value) + after
    if len(line) <= LINE_LENGTH or isinstance(value, str | int):
        return [line]
    outer = " " * (len(before) - len(before.lstrip()))
    opening, items = _items(value)
    inner = [line for label, item in items for line in _source_lines(f"{outer}    {label}", item, ",")]
    return [before + opening, *inner, f"{outer}){after}"]


def _inline(label: str, value: Any) -> str:
    if isinstance(value, str):
        return value if isinstance(value, _Name) else _quoted(value)
    if isinstance(value, int):
        return NUMBER_FORMATS.get(label.strip(), "{}").format(value)
    opening, items = _items(value)
    comma = "," if opening == "(" and len(items) == 1 else ""
    return opening + ", ".join(label + _inline(label, item) for label, item in items) + comma + ")"


def _items(value: Any) -> tuple[str, Sequence[tuple[str, Any]]]:
    """Opening and labelled items of a tuple, or of a row without what has its default."""
    if isinstance(value, tuple):
        return "(", [("", item) for item in value]
    pairs = [(field, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return f"{type(value).__name__}(", [(f"{field.name}=", item) for field, item in pairs if item != field.default]


def generated(table: RegisterMap) -> Mapping[str, str]:
    """Every generated file: path below the root of the project, and text."""
    return {
        "firmware_bridge/registers.py": python_source(table),
        "docs/reference/sequencer-registers.md": register_page(
            table.title, table.text, table.registers, table.windows, table.encodings
        ),
        "docs/reference/sequencer-instructions.md": instruction_page(),
    }


def export(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if a file is stale.")] = False,
) -> None:
    """Write the generated files of the sequencer."""
    stale = 0
    for path, text in generated(compile_map()).items():
        file = ROOT / path
        if file.is_file() and file.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        typer.echo(f"{'stale' if check else 'written'}: {path}")
        if not check:
            file.write_text(text, encoding="utf-8", newline="\n")
    if check and stale:
        typer.echo("fix: python -m firmware_bridge.registers_export", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(export)
