"""A row held for an instrument, and a column sensed alone: no cell is under bias but while it is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate

from firmware_bridge import board_backend, bring_up
from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.emulator import EmulatedBoard
from firmware_bridge.instructions import TICK_S
from hil import Pulse, Session, open_session, single_ended_tile
from hil.errors import CapabilityError, HilError, LimitError

WIRINGS = pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=["independent", "common"])
ALL = np.arange(16)


def no_bias(board: EmulatedBoard) -> bool:
    return not board.analogue.bias_v().any() and not board.analogue.inputs.gate_on


class TestHold:
    @WIRINGS
    def test_puts_the_row_at_the_level_and_no_cell_under_bias(self, tree: dict[str, Any]) -> None:
        board, _, backend = emulate(tree)
        width = tree["mux"]["width"]
        with open_session(backend) as session:
            for row, level_v in ((0, 0.4), (13, 1.2), (23, 2.05)):
                board.peak_bias_v = 0.0
                session.hold_row(row, level_v)
                inputs = board.analogue.inputs
                assert inputs.position[row // width] == row % width
                assert inputs.row_v[row // width] == pytest.approx(level_v, abs=6e-3)
                assert no_bias(board)
                assert board.peak_bias_v == 0.0
            assert board.chains[0].outputs_enabled

    def test_nothing_else_is_connected(self) -> None:
        board, _, backend = emulate()
        with open_session(backend) as session:
            session.hold_row(13, 1.2)
            assert board.mux_positions().tolist() == [-1, 5, -1]

    @WIRINGS
    def test_the_watchdog_lets_it_stand_for_minutes(self, tree: dict[str, Any]) -> None:
        board, fabric, backend = emulate(tree)
        with open_session(backend) as session:
            session.hold_row(3, 1.0)
            held_v = board.analogue.inputs.row_v.copy()
            fabric.idle(600.0)
            np.testing.assert_array_equal(board.analogue.inputs.row_v, held_v)
            assert session.telemetry().values["watchdog_trips_count"] == 0
            assert no_bias(board)

    @WIRINGS
    @pytest.mark.parametrize(
        "call",
        [
            lambda s: s.vmm(np.ones((1, 24), np.bool_), single_ended_tile(24, 16), 0.1),
            lambda s: s.read(np.ones((24, 16), np.bool_), 0.1),
            lambda s: s.pulse(np.ones((24, 16), np.bool_), Pulse("form", 2.0, 1.5, 1e-6)),
            lambda s: s.sense(ALL, row=2, v_read_v=0.1),
            lambda s: s.sense(ALL, row=2, v_read_v=0.1, settle_s=1e-6),
            lambda s: s.hold_row(20, 1.6),
            lambda s: s.wait(1e-3),
            lambda s: s.make_safe(),
        ],
        ids=["vmm", "read", "pulse", "sense", "sense steps", "hold_row", "wait", "make_safe"],
    )
    def test_ends_before_anything_else_begins(self, tree: dict[str, Any], call: Callable[[Session], object]) -> None:
        board, _, backend = emulate(tree)
        levels_v: list[float] = []
        honest = board.note_bias

        def note() -> None:
            honest()
            if board.analogue.inputs.gate_on:
                levels_v.append(float(board.analogue.inputs.row_v[3 // tree["mux"]["width"]]))

        with open_session(backend) as session:
            session.hold_row(3, 0.3)
            board.note_bias = note  # type: ignore[method-assign]
            call(session)
            assert no_bias(board)
            assert abs(board.analogue.inputs.row_v[3 // tree["mux"]["width"]] - 0.3) > 0.05 or board.is_safe
        # 0.3 V is no level of any of these calls.
        assert all(abs(level_v - 0.3) > 0.1 for level_v in levels_v)
        assert board.is_safe

    @pytest.mark.parametrize("level_v", [-0.1, 2.11, math.nan])
    def test_only_levels_that_reads_reach(self, level_v: float) -> None:
        board, _, backend = emulate()
        with open_session(backend):
            before = board.analogue.inputs
            with pytest.raises(LimitError, match="held level"):
                backend.hold_row(0, level_v)
            assert board.analogue.inputs is before

    def test_no_such_row(self) -> None:
        _, _, backend = emulate()
        with open_session(backend), pytest.raises(LimitError, match="no row 24"):
            backend.hold_row(24, 1.0)


class TestSense:
    @WIRINGS
    def test_a_driven_row_reads_as_single_cells_do(self, tree: dict[str, Any]) -> None:
        _, _, backend = emulate(tree)
        cells = np.zeros((24, 16), np.bool_)
        cells[7] = True
        cols = np.array([9, 2, 15, 2])
        with open_session(backend) as session:
            read_a = session.read(cells, 0.2, n_average=200)
            for settle_s in (None, 20e-6):
                sensed_a = session.sense(cols, row=7, v_read_v=0.2, n_average=200, settle_s=settle_s)
                np.testing.assert_allclose(sensed_a, read_a[cols], rtol=0.03)
            backwards_a = session.sense(cols, row=7, v_read_v=-0.2, n_average=200)
        np.testing.assert_allclose(backwards_a, -read_a[cols], rtol=0.05)

    def test_without_a_row_nothing_flows_and_nothing_is_connected(self) -> None:
        board, _, backend = emulate()
        seen: list[list[int]] = []
        honest = board.note_bias

        def note() -> None:
            honest()
            inputs = board.analogue.inputs
            if inputs.gate_on:
                seen.append([int(inputs.word_lines.sum()), int(inputs.position.max())])

        with open_session(backend) as session:
            board.note_bias = note  # type: ignore[method-assign]
            found_a = session.sense(ALL, n_average=400)
        assert np.abs(found_a).max() < 3e-9
        assert max(n for n, _ in seen) == 1
        assert {position for _, position in seen} == {-1}

    def test_a_board_whose_rows_cannot_be_switched_off_says_so(self) -> None:
        _, _, backend = emulate(common())
        with open_session(backend) as session, pytest.raises(CapabilityError, match="INH of the muxes is not wired"):
            session.sense(ALL)

    @WIRINGS
    def test_the_step_settles_as_the_board_does(self, tree: dict[str, Any]) -> None:
        """The emulated outputs follow exponentially, after the dead time of the mux that connects the row."""
        board, _, backend = emulate(tree, noise={"enabled": False}, telegraph={"enabled": False})
        profile = board.profile
        by_mux = profile.mux.inhibit
        path_s = (profile.mux.settle_s if by_mux else profile.dac.settle_s) + profile.tia.settle_s
        tau_s, dead_s = path_s / 10.4, profile.mux.settle_s / 2 if by_mux else 0.0
        with open_session(backend) as session:
            late_a = session.sense(ALL, row=3, v_read_v=0.2, n_average=20, settle_s=60e-6)
            for settle_s in (0.0, 0.4e-6, 0.8e-6, 1.5e-6, 3e-6, 8e-6, 30e-6):
                found_a = session.sense(ALL, row=3, v_read_v=0.2, n_average=20, settle_s=settle_s)
                expected = 1.0 - math.exp(-max(settle_s - dead_s, 0.0) / tau_s)
                # 20 ns of the fabric, and the converters' noise
                assert found_a.sum() / late_a.sum() == pytest.approx(
                    expected, abs=0.04 * math.exp(-settle_s / tau_s) + 2e-3
                )

    @WIRINGS
    def test_many_steps_take_several_programs_and_average_the_same(self, tree: dict[str, Any]) -> None:
        board, fabric, backend = emulate(tree)
        with open_session(backend) as session:
            few_a = session.sense(ALL[:2], row=3, v_read_v=0.2, n_average=50, settle_s=10e-6)
            programs = []
            honest = fabric.write_block
            fabric.write_block = lambda *args: (programs.append(1), honest(*args))[1]  # type: ignore[method-assign]
            many_a = session.sense(ALL[:2], row=3, v_read_v=0.2, n_average=600, settle_s=10e-6)
        assert len(programs) > 1
        np.testing.assert_allclose(many_a, few_a, rtol=0.03)
        assert board.peak_bias_v < 0.21

    def test_slow_steps_take_programs_that_the_host_can_wait_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        board, fabric, backend = emulate()
        spent_ticks = []
        honest = backend._sequencer.run

        def run(*args: Any) -> Any:
            before = fabric.now
            found = honest(*args)
            spent_ticks.append(fabric.now - before)
            return found

        monkeypatch.setattr(board_backend, "_STEPS_MAX_S", 1.0)
        with open_session(backend) as session:
            monkeypatch.setattr(backend._sequencer, "run", run)
            session.sense(ALL[:2], row=3, v_read_v=0.2, n_average=12, settle_s=0.1)
        assert len(spent_ticks) == 6
        assert max(spent_ticks) * TICK_S < 1.01
        assert board.is_safe

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"v_read_v": 0.6, "row": 1}, "read voltage"),
            ({"settle_s": 0.2, "row": 1}, "settling time"),
            ({"settle_s": -1e-6, "row": 1}, "settling time"),
            ({"n_average": 0}, "n_average"),
            ({"row": 24}, "no row 24"),
            ({"cols": np.array([16])}, "no column 16"),
        ],
    )
    def test_refused_below_the_session_too(self, wrong: dict[str, Any], words: str) -> None:
        board, _, backend = emulate()
        with open_session(backend):
            board.peak_bias_v = 0.0
            with pytest.raises(LimitError, match=words):
                backend.sense(**{"cols": ALL, **wrong})
            assert board.peak_bias_v == 0.0


def _every_program(backend: BoardBackend, board: EmulatedBoard) -> None:
    """A row is held, let go, and steps while a column is sensed."""
    backend.hold_row(13, 0.5)
    assert no_bias(board)
    backend.sense(ALL[:1], row=5, v_read_v=0.2, settle_s=1e-6)


@WIRINGS
def test_power_loss_between_any_two_instructions(tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Most of a power-up, and nothing that matters here.
    monkeypatch.setattr(bring_up, "_PATTERNS", ())
    board, fabric, backend = emulate(tree)
    backend.open()
    link = board.faults.link
    link.power_fails_at = 1 << 40
    _every_program(backend, board)
    n = (1 << 40) - link.power_fails_at
    link.power_fails_at = None
    assert n > 60
    for at in range(n):
        backend.read(np.zeros((24, 16), np.bool_), 0.2)  # brings the board up again
        board.peak_bias_v = 0.0
        link.power_fails_at = at
        with pytest.raises(HilError, match="does not answer"):
            _every_program(backend, board)
        assert no_bias(board)
        assert board.peak_bias_v < 0.21
        fabric.restore_power()
        assert board.is_safe, f"after power loss at instruction {at}"


def test_a_link_lost_while_a_row_is_held_leaves_no_cell_under_bias() -> None:
    board, fabric, backend = emulate()
    backend.open()
    backend.hold_row(3, 0.2)
    fabric.idle(10.0)
    assert no_bias(board)
    backend.make_safe()
    assert board.is_safe
