"""Whatever stops host, link or supply, no cell stays under bias, and no pulse is given twice unknowingly."""

from __future__ import annotations

import copyreg
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate

from firmware_bridge import registers as reg
from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.bus import RegisterBus
from firmware_bridge.emulator import EmulatedBoard, EmulatedFabric
from firmware_bridge.instructions import SourceLines, pack
from firmware_bridge.programs import Blocks
from firmware_bridge.registers import Fault
from hil import Pulse, differential_tile, open_session
from hil.errors import HilError, LimitError, TransportError, UncertainError

WIRINGS = pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=["independent", "common"])
FORM = Pulse("form", 4.0, 1.5, 1e-6)


def checkered() -> np.ndarray:
    """Two patterns of columns, so that a forming program has several gate pulses."""
    mask = np.zeros((24, 16), np.bool_)
    mask[0:9, 2:5] = True
    mask[10, 7] = True
    return mask


def no_bias(board: EmulatedBoard) -> bool:
    return not board.analogue.bias_v().any() and not board.analogue.inputs.gate_on


def count_instructions(fabric: EmulatedFabric, run: Callable[[], object]) -> int:
    """Instructions that the fabric issues during a call."""
    link = fabric.board.faults.link
    link.power_fails_at = 1 << 40
    run()
    issued = (1 << 40) - link.power_fails_at
    link.power_fails_at = None
    return issued


@pytest.fixture
def _locks_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """`deepcopy` takes boards that nobody uses: a lock's copy is a free one."""
    for make in (threading.Lock, threading.RLock):
        monkeypatch.setitem(copyreg.dispatch_table, type(make()), lambda _, make=make: (make, ()))


@WIRINGS
@pytest.mark.usefixtures("_locks_are_copied")
def test_power_loss_between_any_two_instructions_of_a_forming_program(tree: dict[str, Any]) -> None:
    mask = checkered()
    # To bring a board up takes much longer than the program: each loss has a copy of one that is up.
    is_up = _opened(tree)
    _bring_up(is_up[2])
    _, fabric, backend = deepcopy(is_up)
    n = count_instructions(fabric, lambda: backend.pulse(mask, FORM))
    assert n > 60
    for at in range(n):
        board, fabric, backend = deepcopy(is_up)
        board.faults.link.power_fails_at = at
        with pytest.raises(UncertainError, match=r"does not answer.*had their pulse for sure"):
            backend.pulse(mask, FORM)
        assert no_bias(board)
        assert not (board.formed & ~mask).any()
        fabric.restore_power()
        assert board.is_safe, f"after power loss at instruction {at}"
        assert any(chain.stored for chain in board.chains), "the chains should hold garbage"
        fabric.idle(1e-3)
        assert board.is_safe
        if at % 10 == 0:
            _bring_up(backend)
            assert no_bias(board)


def _bring_up(backend: BoardBackend) -> None:
    backend.read(np.zeros((24, 16), np.bool_), 0.2)


def _opened(tree: dict[str, Any]) -> tuple[EmulatedBoard, EmulatedFabric, BoardBackend]:
    board, fabric, backend = emulate(tree, forming={"formed": False})
    backend.open()
    return board, fabric, backend


@WIRINGS
def test_forming_reaches_the_mask_only(tree: dict[str, Any]) -> None:
    board, _, backend = emulate(tree, forming={"formed": False, "breakdown_sigma_v": 0.0})
    mask = checkered()
    with open_session(backend) as session:
        assert session.pulse(mask, FORM).n_cells == mask.sum()
        np.testing.assert_array_equal(board.formed, mask)
        read_a = session.read(mask, 0.2, n_average=20)
    assert np.all(read_a > 2e-7)
    assert board.peak_bias_v == pytest.approx(4.0, abs=0.01)
    assert board.is_safe


@WIRINGS
def test_reading_never_exceeds_the_read_voltage(tree: dict[str, Any]) -> None:
    board, _, backend = emulate(tree)
    with open_session(backend) as session:
        session.vmm(np.random.default_rng(0).random((6, 20)) < 0.5, differential_tile(20, 6), 0.2)
        session.vmm(np.random.default_rng(0).random((3, 20)), differential_tile(20, 6), 0.2)
        session.read(checkered(), 0.2)
    assert 0.19 < board.peak_bias_v < 0.2 + 5e-3


def test_nothing_stays_under_bias_between_calls() -> None:
    board, _, backend = emulate()
    with open_session(backend) as session:
        for call in (
            lambda: session.vmm(np.ones((2, 20), np.bool_), differential_tile(20, 6), 0.2),
            lambda: session.read(checkered(), 0.2),
            lambda: session.pulse(checkered(), FORM),
        ):
            call()
            assert no_bias(board)
            assert (board.mux_positions() == -1).all()


class _CutBus:
    """A link that breaks at one call and stays broken."""

    def __init__(self, bus: RegisterBus, at: int) -> None:
        self._bus, self.left = bus, at

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            if self.left == 0:
                raise TransportError("the cable is out", fix="plug it in")
            self.left -= 1
            return getattr(self._bus, name)(*arguments)

        return call


@pytest.mark.parametrize("call", ["vmm", "pulse"])
def test_a_link_lost_at_any_call_leaves_no_bias(call: str) -> None:
    board, fabric, _ = emulate()
    bus = _CutBus(fabric, 1 << 40)
    backend = BoardBackend(bus, board.profile, name="emulator")
    operations: dict[str, Callable[[], object]] = {
        "vmm": lambda: backend.vmm(np.ones((4, 20), np.bool_), differential_tile(20, 6), 0.2),
        "pulse": lambda: backend.pulse(checkered(), FORM),
    }
    operation = operations[call]
    backend.open()
    operation()
    before = bus.left
    operation()
    for at in range(before - bus.left):
        bus.left = 1 << 40
        with suppress(HilError):
            backend.open()
        bus.left = at
        with pytest.raises((TransportError, UncertainError), match="cable is out"):
            operation()
        fabric.idle(2 * board.profile.limits.watchdog_s)  # nobody feeds the watchdog
        assert no_bias(board)


class TestWatchdog:
    def start(self, fabric: EmulatedFabric, *words: int) -> None:
        code = np.array(words, np.uint64).view(np.uint32)
        fabric.write_block(reg.PROGRAM.offset, code)
        fabric.write(reg.PROGRAM_LENGTH.offset, len(words))
        fabric.write(reg.PROGRAM_CRC.offset, zlib.crc32(code.tobytes()))
        fabric.write(reg.CONTROL.offset, reg.CONTROL.pack(start=1))

    def fault(self, fabric: EmulatedFabric) -> Fault:
        return Fault(reg.FAULT.unpack(fabric.read(reg.FAULT.offset))["code"])

    @property
    def on(self) -> int:
        return pack("DRIVE", outputs=1, source_lines=int(SourceLines.TIA), gate=1)

    def test_it_trips_when_the_host_is_gone(self) -> None:
        board, fabric, _ = emulate()
        self.start(fabric, pack("WATCHDOG", ticks=1000), self.on, pack("WAIT", ticks=1 << 31), pack("HALT", code=0))
        fabric.idle(9e-6)
        assert board.analogue.inputs.gate_on
        fabric.idle(2e-6)
        assert self.fault(fabric) is Fault.WATCHDOG
        assert board.is_safe
        assert fabric.read(reg.WATCHDOG_TRIPS.offset) == 1

    def test_a_heartbeat_keeps_it_from_tripping(self) -> None:
        board, fabric, _ = emulate()
        self.start(fabric, pack("WATCHDOG", ticks=1000), self.on, pack("WAIT", ticks=1 << 31), pack("HALT", code=0))
        for _ in range(20):
            fabric.idle(5e-6)
            fabric.write(reg.HEARTBEAT.offset, 0x5AFE)
        assert board.analogue.inputs.gate_on
        fabric.write(reg.HEARTBEAT.offset, 0x1234)  # not the key
        fabric.idle(11e-6)
        assert board.is_safe

    def test_bias_left_on_after_halt_is_still_watched(self) -> None:
        board, fabric, _ = emulate()
        self.start(fabric, pack("WATCHDOG", ticks=10_000), self.on, pack("HALT", code=0))
        fabric.idle(50e-6)
        assert board.analogue.inputs.gate_on
        fabric.idle(60e-6)
        assert board.is_safe

    @pytest.mark.parametrize(
        ("words", "fault"),
        [
            ([pack("DRIVE", outputs=1, source_lines=0, gate=0)], Fault.NO_WATCHDOG),
            ([pack("GATE", ticks=10)], Fault.NO_WATCHDOG),
            ([pack("WATCHDOG", ticks=9999), pack("GATE", ticks=1 << 20)], Fault.GATE_TOO_LONG),
            (
                [pack("WATCHDOG", ticks=9999), pack("DRIVE", outputs=1, source_lines=int(SourceLines.BIAS), gate=1)],
                Fault.STATIC_GATE,
            ),
            ([0], Fault.ILLEGAL),
            ([pack("WAIT", ticks=1)], Fault.ILLEGAL),  # runs past the end
            ([pack("SHIFT", data=0, count=8, chain=3)], Fault.NO_SUCH_UNIT),
            ([pack("SELECT", position=8)], Fault.NO_SUCH_UNIT),
        ],
    )
    def test_the_fabric_refuses_by_itself(self, words: list[int], fault: Fault) -> None:
        board, fabric, _ = emulate()
        self.start(fabric, *words)
        fabric.idle(1e-3)
        assert self.fault(fabric) is fault
        assert board.is_safe

    def test_control_safe_stops_a_running_program(self) -> None:
        board, fabric, _ = emulate()
        self.start(fabric, pack("WATCHDOG", ticks=1 << 20), self.on, pack("WAIT", ticks=1 << 30), pack("HALT", code=0))
        fabric.idle(1e-6)
        fabric.write(reg.CONTROL.offset, reg.CONTROL.pack(safe=1))
        assert board.is_safe
        assert self.fault(fabric) is Fault.ABORTED


class TestRefusedBeforeAnythingIsSent:
    @pytest.mark.parametrize(
        ("pulse", "words"),
        [
            (Pulse("form", 4.95, 1.5, 1e-6), "V"),
            (Pulse("form", 3.0, 4.95, 1e-6), "V"),
            (Pulse("form", 3.0, 1.5, 2e-3), "s"),
            (Pulse("form", 3.0, 1.5, 1e-9), "width"),
        ],
    )
    def test_a_pulse_over_limits_below_the_session(self, pulse: Pulse, words: str) -> None:
        """The bridge is asked directly here, as if the session had let it pass."""
        board, _, backend = emulate(forming={"formed": False})
        backend.open()
        board.peak_bias_v = 0.0
        with pytest.raises(LimitError, match=words):
            backend.pulse(checkered(), pulse)
        assert board.peak_bias_v == 0.0
        assert not board.formed.any()

    def test_a_program_over_limits(self) -> None:
        board, _, backend = emulate()
        backend.open()
        board.peak_bias_v = 0.0
        blocks = Blocks(board.profile)
        words = np.concatenate(
            [
                blocks.open_reads(np.ones(16, np.bool_), (blocks.all_rows(blocks.range.code(4.0)),)),
                blocks.shift_rows(np.zeros((1, 3), np.intp))[0],
                blocks.word("LATCH", chains=1),
                blocks.close_reads(),
                blocks.halt(),
            ]
        )
        with pytest.raises(LimitError, match=r"word \d+, LATCH"):
            backend._sequencer.run(words, 0)
        assert board.peak_bias_v == 0.0

    @pytest.mark.parametrize("offset", [0x3, 0xFFC, 0x200, -4])
    def test_a_register_that_does_not_exist(self, offset: int) -> None:
        _, fabric, _ = emulate()
        with pytest.raises(HilError, match="no register at offset"):
            fabric.read(offset)


def test_a_half_formed_array_can_be_opened_again() -> None:
    """A lane whose columns hold no formed cell yet is no broken lane."""
    board, _, backend = emulate(forming={"formed": False})
    mask = np.zeros((24, 16), np.bool_)
    mask[:, 0] = True
    with open_session(backend) as session:
        session.pulse(mask, Pulse("form", 4.5, 3.0, 1e-3))
    assert board.formed[:, 0].any()
    with open_session(backend) as session:
        verdicts = {check.part: check.ok for check in session.self_test()}
    assert verdicts["ADS8324 lane 0"]
    assert False not in verdicts.values()
