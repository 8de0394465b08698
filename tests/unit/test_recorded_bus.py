"""A session on a bus is written down as text and played back, strictly, without the board."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded_session
from boards import profile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from firmware_bridge import registers as reg
from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.instructions import HEARTBEAT_KEY, pack
from firmware_bridge.recorded_bus import FORMAT, TITLE, RecordingBus, ReplayBus
from firmware_bridge.registers import Fault
from firmware_bridge.sequencer import ProgramFault
from hil.errors import (
    ConfigError,
    DataError,
    DeviceError,
    HilError,
    LimitError,
    ProtocolError,
    RunFileError,
    TransportError,
)

BUSY = reg.STATUS.pack(busy=1, armed=1)
DONE = reg.STATUS.pack(halted=1)
#: without STATUS, whose busy looks are not kept one by one
OFFSETS = st.sampled_from([at for register in reg.REGISTERS if register is not reg.STATUS for at in register.offsets])
WORDS = st.integers(0, 2**32 - 1)
BLOCKS = arrays(np.uint32, st.integers(0, 40), elements=WORDS)


class Scripted:
    """A bus that gives the answers it was told to, in turn; an answer that is an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def _next(self) -> Any:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def read(self, offset: int) -> int:
        return self._next()

    def write(self, offset: int, value: int) -> None:
        self._next()

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        self._next()

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        return np.asarray(self._next(), np.uint32)


def recorded(path: Path, bus: Scripted, session: Callable[[Any], object]) -> Path:
    with RecordingBus(bus, path) as recording:
        session(recording)
    return path


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join([f"{TITLE} {FORMAT}", *lines]) + "\n")
    return path


def run_program(bus: Any, polls: int = 1) -> int:
    """Looks at STATUS until the program ends, with a heartbeat after each busy look."""
    for looks in range(1000):
        if bus.read(reg.STATUS.offset) != BUSY:
            return looks
        for _ in range(polls):
            bus.write(reg.HEARTBEAT.offset, HEARTBEAT_KEY)
    raise AssertionError("never ends")


# A session of the backend


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("recordings") / "session.txt"
    return path, recorded_session.record(path)


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other[name], err_msg=name)
        else:
            assert value == other[name], name


def test_a_session_of_a_backend_replays_to_identical_results(session: tuple[Path, dict[str, Any]]) -> None:
    path, results = session
    bus = ReplayBus(path)
    same(results, recorded_session.play(recorded_session.backend_on(bus)))
    bus.check_finished()


def test_the_recorded_session_measures_something(session: tuple[Path, dict[str, Any]]) -> None:
    _, results = session
    assert results["pulse"].n_cells == len(recorded_session.CELLS)
    assert (results["after_a"] > 10 * results["before_a"]).all()
    assert np.ptp(results["currents_a"]) > 1e-6


def test_recording_twice_gives_the_same_text(session: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    recorded_session.record(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == session[0].read_text()


def test_the_kept_recording_still_fits_todays_programs() -> None:
    """If this fails, the programs that the backend compiles have changed: see tests/recorded_session.py."""
    bus = ReplayBus(recorded_session.FIXTURE)
    results = recorded_session.play(recorded_session.backend_on(bus))
    bus.check_finished()
    assert all(check.ok is not False for check in results["self_test"])
    assert results["currents_a"].shape == (recorded_session.N_VECTORS, 16)


def test_the_kept_recording_is_small_and_has_busy_polls() -> None:
    text = recorded_session.FIXTURE.read_text()
    assert len(text) < 100_000
    assert "\npoll " in text


def test_a_changed_program_is_noticed_by_its_instruction(session: tuple[Path, dict[str, Any]]) -> None:
    slower = profile()
    slower = slower.model_copy(update={"dac": slower.dac.model_copy(update={"settle_s": 2 * slower.dac.settle_s})})
    bus = ReplayBus(session[0])
    with pytest.raises(ProtocolError, match=r"session\.txt, line \d+: expected block .* 'WAIT ticks=10us' instead of"):
        BoardBackend(bus, slower).open()
    with pytest.raises(ProtocolError, match="instruction"):
        bus.check_finished()


# Calls


@given(
    calls=st.lists(
        st.one_of(
            st.tuples(st.just("read"), OFFSETS, WORDS),
            st.tuples(st.just("write"), OFFSETS, WORDS),
            st.tuples(st.just("write_block"), st.sampled_from(reg.PROGRAM.offsets), BLOCKS),
            st.tuples(st.just("read_stream"), BLOCKS),
        ),
        max_size=8,
    )
)
def test_whatever_was_called_replays(tmp_path_factory: pytest.TempPathFactory, calls: list[Any]) -> None:
    path = tmp_path_factory.mktemp("recordings") / "calls.txt"
    answers = [call[-1] if call[0].startswith("read") else None for call in calls]

    def make(bus: Any) -> list[Any]:
        arguments = {
            "read": lambda call: call[1:2],
            "write": lambda call: call[1:],
            "write_block": lambda call: call[1:],
            "read_stream": lambda call: (len(call[1]),),
        }
        return [getattr(bus, call[0])(*arguments[call[0]](call)) for call in calls]

    recorded(path, Scripted(*answers), make)
    bus = ReplayBus(path)
    for found, answer in zip(make(bus), answers, strict=True):
        np.testing.assert_array_equal(found, answer)
    bus.check_finished()


def test_numpy_integers_are_numbers(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.txt", Scripted(7, None), lambda bus: (bus.read(0x14), bus.write(0x20, 9)))
    bus = ReplayBus(path)
    assert bus.read(np.uint32(0x14)) == 7  # type: ignore[arg-type]
    bus.write(np.int64(0x20), np.uint32(9))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "expected", "came"),
    [
        (lambda bus: bus.read(0x18), "write 0x0010 (CONTROL) 0x00000004", "read 0x0018 (FAULT)"),
        (lambda bus: bus.write(0x10, 8), "write 0x0010 (CONTROL) 0x00000004", "write 0x0010 (CONTROL) 0x00000008"),
        (lambda bus: bus.write(0x20, 4), "write 0x0010 (CONTROL) 0x00000004", "write 0x0020 (PROGRAM_LENGTH)"),
        (lambda bus: bus.read_stream(3), "write 0x0010 (CONTROL) 0x00000004", "stream 3"),
        (lambda bus: bus.check_finished(), "write 0x0010 (CONTROL) 0x00000004", "no further call"),
    ],
)
def test_a_call_that_differs_names_line_expected_and_came(
    tmp_path: Path, call: Callable[[ReplayBus], object], expected: str, came: str
) -> None:
    path = recorded(tmp_path / "r.txt", Scripted(1), lambda bus: (bus.read(0), bus.write(0x10, 4)))
    bus = ReplayBus(path)
    bus.read(0)
    with pytest.raises(ProtocolError) as caught:
        call(bus)
    assert f"r.txt, line 3: expected {expected}" in str(caught.value)
    assert came in str(caught.value)
    # What the host does after it, make_safe for one, is told the same.
    with pytest.raises(ProtocolError, match="line 3"):
        bus.write(0x10, 4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            [pack("WAIT", ticks=5), pack("HALT", code=0)],
            "instruction 0 is 'WAIT ticks=50ns' instead of 'WAIT ticks=40ns'",
        ),
        ([pack("WAIT", ticks=4)], "instruction 1 is 'no more' instead of 'HALT code=0'"),
        ([pack("WAIT", ticks=4), pack("HALT", code=0), 0], "instruction 0 is"),
    ],
)
def test_a_block_that_differs_names_the_instruction(tmp_path: Path, words: list[int], told: str) -> None:
    def block(*values: int) -> NDArray[np.uint32]:
        return np.array(values, np.uint64).view(np.uint32)

    first = block(pack("WAIT", ticks=4), pack("HALT", code=0))
    path = recorded(tmp_path / "r.txt", Scripted(), lambda bus: bus.write_block(0x10000, first))
    with pytest.raises(ProtocolError) as caught:
        ReplayBus(path).write_block(0x10000, block(*words))
    assert told in str(caught.value)


def test_the_end_of_a_recording_is_an_end(tmp_path: Path) -> None:
    bus = ReplayBus(recorded(tmp_path / "r.txt", Scripted(1), lambda bus: bus.read(0)))
    bus.read(0)
    bus.check_finished()
    with pytest.raises(ProtocolError, match=r"r\.txt: the recording is over, and the host asked for read 0x0004"):
        bus.read(4)


# Errors


@pytest.mark.parametrize("kind", [TransportError, ProtocolError, DeviceError, LimitError])
@pytest.mark.parametrize(
    "call",
    [
        lambda bus: bus.read(0x14),
        lambda bus: bus.write(0x10, 1),
        lambda bus: bus.write_block(0x10000, np.arange(4, dtype=np.uint32)),
        lambda bus: bus.read_stream(3),
        lambda bus: bus.read("what"),
    ],
)
def test_errors_of_the_bus_replay_as_they_were(
    tmp_path: Path, kind: type[HilError], call: Callable[[Any], Any]
) -> None:
    error = kind('no "answer"\n  # at ! [0x14]', fix="check the supply")

    def session(bus: Any) -> None:
        with pytest.raises(kind):
            call(bus)
        bus.read(0)

    bus = ReplayBus(recorded(tmp_path / "r.txt", Scripted(error, 5), session))
    with pytest.raises(kind) as caught:
        call(bus)
    assert type(caught.value) is kind
    assert (caught.value.what, caught.value.fix) == (error.what, error.fix)
    assert bus.read(0) == 5


def test_an_error_of_a_class_of_its_own_replays_as_the_class_it_is_derived_from(tmp_path: Path) -> None:
    error = ProgramFault(Fault.WATCHDOG, "stopped", [1, 2])

    def session(bus: Any) -> None:
        with pytest.raises(ProgramFault):
            bus.read(0)

    with pytest.raises(DeviceError, match="stopped"):
        ReplayBus(recorded(tmp_path / "r.txt", Scripted(error), session)).read(0)


# Polling


def test_rounds_of_polling_replay_as_one_whatever_their_number(tmp_path: Path) -> None:
    answers = [a for _ in range(37) for a in (BUSY, None)]
    path = recorded(tmp_path / "r.txt", Scripted(*answers, DONE), run_program)
    assert [line for line in path.read_text().splitlines() if "poll" in line] == [
        "poll 0x0014 -> 0x00000011 then 0x0040 0x00005afe  # STATUS, HEARTBEAT; 37 times"
    ]
    bus = ReplayBus(path)
    assert run_program(bus) == 1
    bus.check_finished()


def test_rounds_with_another_status_are_another_line(tmp_path: Path) -> None:
    other = reg.STATUS.pack(busy=1, armed=1, outputs=1)
    answers = [a for status in (BUSY, BUSY, other, BUSY) for a in (status, None)]

    def session(bus: Any) -> list[int]:
        found = []
        while (status := bus.read(0x14)) & 1:
            bus.write(0x40, HEARTBEAT_KEY)
            found.append(status)
        return found

    path = recorded(tmp_path / "r.txt", Scripted(*answers, DONE), session)
    assert session(ReplayBus(path)) == [BUSY, other, BUSY]


@pytest.mark.parametrize("heartbeats", [0, 2])
def test_a_host_that_feeds_the_watchdog_otherwise_is_noticed(tmp_path: Path, heartbeats: int) -> None:
    path = recorded(tmp_path / "r.txt", Scripted(BUSY, None, DONE), run_program)
    with pytest.raises(ProtocolError, match=r"line [23]: expected (write 0x0040 \(HEARTBEAT\)|read 0x0014 \(STATUS\))"):
        run_program(ReplayBus(path), polls=heartbeats)


def test_busy_looks_without_a_heartbeat_are_kept_one_by_one(tmp_path: Path) -> None:
    def session(bus: Any) -> list[int]:
        found = [bus.read(0x14), bus.read(0x14)]
        bus.write(0x10, 4)
        return [*found, bus.read(0x14)]

    path = recorded(tmp_path / "r.txt", Scripted(BUSY, BUSY, None, BUSY), session)
    bus = ReplayBus(path)
    assert session(bus) == [BUSY, BUSY, BUSY]
    bus.check_finished()


def test_a_link_lost_while_polling_replays(tmp_path: Path) -> None:
    lost = TransportError("the board does not answer", fix="check its supply")

    def session(bus: Any) -> None:
        with pytest.raises(TransportError, match="does not answer"):
            run_program(bus)

    path = recorded(tmp_path / "r.txt", Scripted(BUSY, None, BUSY, None, BUSY, lost), session)
    session(ReplayBus(path))


# Files


def test_a_recording_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    path.write_text("the one before")
    bus = RecordingBus(Scripted(1), path)
    bus.read(0)
    assert path.read_text() == "the one before"
    bus.close()
    bus.close()
    assert ReplayBus(path).read(0) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["r.txt"]


def test_a_session_that_ends_by_an_error_is_recorded_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    bus = Scripted(1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        recorded(path, bus, lambda bus: (bus.read(0), bus.read(4)))
    assert ReplayBus(path).read(0) == 1


def test_calls_after_the_end_go_through_and_are_not_recorded(tmp_path: Path) -> None:
    bus = RecordingBus(Scripted(1, 2), tmp_path / "r.txt")
    bus.read(0)
    bus.close()
    assert bus.read(0) == 2
    replay = ReplayBus(tmp_path / "r.txt")
    replay.read(0)
    replay.check_finished()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_recording_cut_by_a_kill_is_refused_and_can_be_played_up_to_the_cut(tmp_path: Path) -> None:
    path, part = tmp_path / "r.txt", tmp_path / "r.txt.part"
    child = os.fork()
    if child == 0:
        bus = RecordingBus(Scripted(1, 2), path)
        bus.read(0)
        bus.read(4)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert not path.exists()
    with pytest.raises(DataError, match=r"r\.txt\.part was cut: its last line is not 'end'"):
        ReplayBus(part)
    part.write_text(part.read_text() + "end\n")
    bus = ReplayBus(part)
    assert (bus.read(0), bus.read(4)) == (1, 2)


@given(length=st.integers(0, 400))
def test_a_file_cut_anywhere_is_refused(session: tuple[Path, dict[str, Any]], length: int) -> None:
    cut = session[0].with_name("cut.txt")
    text = session[0].read_text()
    cut.write_text(text[: length * (len(text) - 5) // 400])
    with pytest.raises(DataError):
        ReplayBus(cut)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["read 0x0000 -> 0x1", "reed 0x0000 -> 0x1", "end"], "line 3: 'reed"),
        (["read 0x0000", "end"], "line 2: 'read 0x0000' is no call"),
        (["stream 2 -> crc 0x12345678", "  00000001 00000002", "end"], "line 2: these words do not have the CRC"),
        (["stream 2 -> crc 0x12345678", "  00000001 0000000g", "end"], "line 2"),
        (["stream 2 -> crc 0x12345678", "  00000001", "end"], "line 2: words are missing"),
        (['read 0x0000 ! ["NoSuchError", "a", "b"]', "end"], "line 2: 'NoSuchError' is no error"),
        (['read 0x0000 ! ["Path", "a", "b"]', "end"], "line 2: 'Path' is no error"),
        (['read 0x0000 ! ["TransportError", "a"]', "end"], "line 2"),
        (['read 0x0000 ! ["TransportError", "a", 1]', "end"], "line 2"),
        (['read 0x0000 ! ["TransportError", "a" "b"]', "end"], "line 2"),
        (["read 0x0000 -> 0x1"], "was cut"),
    ],
)
def test_a_damaged_recording_is_refused_by_its_line(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(DataError) as caught:
        ReplayBus(written(tmp_path / "r.txt", *lines))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no recording"),
        (b"something else\n", "is no recording"),
        (b"\xff\xfe\n", "cannot be read"),
        (f"{TITLE} 99\nend\n".encode(), "has format 99, this software reads 1"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "r.txt").write_bytes(content)
    with pytest.raises(DataError, match=told):
        ReplayBus(tmp_path / "r.txt")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt cannot be read"):
        ReplayBus(tmp_path / "none.txt")


def test_a_recording_that_cannot_be_begun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.*cannot be written"):
        RecordingBus(Scripted(), tmp_path / "none" / "r.txt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_full_disk_stops_the_recording_and_not_the_session(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bus = RecordingBus(Scripted(1, None), tmp_path / "r.txt")
    bus._file.close()
    bus._file = open("/dev/full", "w", buffering=1)  # noqa: SIM115
    assert bus.read(0) == 1
    bus.write(0x10, 4)
    assert "No space left" in caplog.text
    with pytest.raises(RunFileError, match="No space left"):
        bus.close()
    assert not (tmp_path / "r.txt").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_recording_with_a_gap_is_never_complete(tmp_path: Path) -> None:
    bus = RecordingBus(Scripted(1, None), tmp_path / "r.txt")
    working, bus._file = bus._file, open("/dev/full", "w", buffering=1)  # noqa: SIM115
    bus.read(0)
    with contextlib.suppress(OSError):
        bus._file.close()
    bus._file = working
    bus.write(0x10, 4)
    with pytest.raises(RunFileError, match="No space left"):
        bus.close()
    assert not (tmp_path / "r.txt").exists()
