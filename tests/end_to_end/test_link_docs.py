"""The pages say what the code does: commands and options exist, tables name every field, scripts run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from daemons import ROOT, serving

from firmware_bridge.link import frames
from firmware_bridge.link import messages as msg
from firmware_bridge.link.channel import MESSAGE_MAX_BYTES
from hil import errors
from hil.cli import settings_page
from hil.cli.app import app

DOCS = ROOT / "docs"
PROTOCOL = (DOCS / "reference/link-protocol.md").read_text(encoding="utf-8")
REMOTE = (DOCS / "how-to/use-a-remote-board.md").read_text(encoding="utf-8")
#: where a page shows a command with a prompt before it
PROMPT = re.compile(r"^(?:\w+[#$] )?(?:\S*/)?hil (?=[a-z-])")


def fences(text: str, language: str = "") -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for kind, block in found if kind == language]


def commands() -> Iterator[tuple[str, str]]:
    """Page and command, of all commands in fences."""
    for page in (ROOT / "README.md", *sorted(DOCS.rglob("*.md"))):
        for block in fences(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if PROMPT.match(line):
                    yield page.name, re.split(r" [|>&;]", PROMPT.sub("", line))[0]


def parse(words: list[str]) -> None:
    """As `hil WORDS` would, but without doing anything."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        word = words.pop(0)
        if word.startswith("-"):
            option = next(param for param in command.params if word in param.opts)
            del words[: 0 if option.is_flag or option.count else 1]
        else:
            command = command.commands[word]
    command.make_context("hil", words)


def table(text: str, heading: str) -> dict[str, list[str]]:
    """First column -> the others, of the tables below a heading; names without their backquotes."""
    section = re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            first, *others = line.strip("|").split("|")
            for name in names(first):
                found.setdefault(name, others)
    return found


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_command_and_option_exists(page: str, command: str) -> None:
    parse(shlex.split(command))


def test_commands_are_found_and_wrong_ones_are_noticed() -> None:
    pages = {page for page, _ in commands()}
    assert {"cli.md", "serve-a-board.md", "use-a-remote-board.md", "use-keys.md"} <= pages
    with pytest.raises(Exception, match="--nosuch"):
        parse(["serve", "--nosuch"])
    with pytest.raises(KeyError):
        parse(["serves"])


def test_settings_page_is_what_the_settings_say() -> None:
    said = settings_page.PAGE.read_text(encoding="utf-8")
    assert said == settings_page.page(), "make it anew: python -m hil.cli.settings_page"


def test_errors_page_has_every_class() -> None:
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type)} - {"HilError"}
    assert set(table((DOCS / "reference/errors.md").read_text(encoding="utf-8"), "Errors")) == kinds


class TestProtocol:
    def test_every_request_is_there_with_its_fields(self) -> None:
        said = {do: names(cells[0]) for do, cells in table(PROTOCOL, "Requests").items() if do in msg.REQUESTS}
        base = set(msg.Request.model_fields)
        assert said == {do: [f for f in kind.model_fields if f not in base] for do, kind in msg.REQUESTS.items()}

    def test_every_field_is_explained(self) -> None:
        own = {f for kind in msg.REQUESTS.values() for f in kind.model_fields} - set(msg.Request.model_fields)
        assert own <= set(table(PROTOCOL, "Requests"))
        assert set(msg.Request.model_fields) <= set(table(PROTOCOL, "Messages"))
        assert set(msg.ArrayMessage.model_fields) == set(table(PROTOCOL, "Arrays"))

    def test_header_of_a_frame(self) -> None:
        said = {name: int(cells[0]) for name, cells in table(PROTOCOL, "Serial frames").items()}
        sizes = {"B": 1, "H": 2, "I": 4}
        assert said == {name: sizes[code] for name, code, _ in frames.HEADER}
        assert f"Header, {sum(said.values())} bytes" in PROTOCOL
        for kind in frames.Kind:
            assert f"`{kind.name}` {kind.value}" in PROTOCOL

    def test_numbers(self) -> None:
        page = " ".join(PROTOCOL.split())
        for text in (
            f"protocol version {msg.PROTOCOL}.",
            f"| longest message | {MESSAGE_MAX_BYTES // 2**20} MiB",
            f"0 to {MESSAGE_MAX_BYTES // 2:,}",
            f"0 to {msg.TILE_SLOTS - 1} |",
            f"{msg.SESSION_BYTES} bytes | drawn",
            f"{frames.PAYLOAD_MAX_BYTES} bytes of piece and {frames.WIRE_MAX_BYTES} on the wire",
        ):
            assert text in page, text


def test_scripts_for_a_remote_board_run(spawn: Any, tmp_path: Path) -> None:
    settings = ("board.profile=tiny-8x8", "sim.forming.formed=false")
    with serving(
        [sys.executable, "-c", "from hil.cli import main; main()"],
        *("--backend", "emulator", "--keys", str(tmp_path / "keys"), "--state", str(tmp_path)),
        *(word for text in settings for word in ("--set", text)),
    ) as url:
        vmm, form = (text for text in fences(REMOTE, "python") if "tcp://127.0.0.1:7341" in text)
        process = spawn("-c", vmm.replace("tcp://127.0.0.1:7341", url))
        assert process.communicate(timeout=60) == ("(64, 4)\n", "")
        count = (
            "\nwith open_session(backend) as session:\n    print(int((session.read(~todo, 0.2) > FORMED_A).sum()))\n"
        )
        process = spawn("-c", form.replace("tcp://127.0.0.1:7341", url) + count)
        assert process.communicate(timeout=60) == ("all formed\n16\n", "")
