"""A board with dead parts: refused, or used without the lines that these serve; never with a fault that could harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate
from numpy.typing import NDArray

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.bring_up import named
from firmware_bridge.electrics import electrics
from firmware_bridge.emulator import EmulatedBoard
from firmware_bridge.emulator.board import Faults
from hil import Pulse, Session, Tile, open_session, single_ended_tile
from hil.calibration_file import BoardIdentity, Calibration, Part, Quantity
from hil.errors import DeviceError

WIRINGS = pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=["independent", "common"])
V_READ_V = 0.1


def tolerant(tree: dict[str, Any] | None = None, **effects: Any) -> tuple[EmulatedBoard, BoardBackend]:
    board, fabric, _ = emulate(tree, **effects)
    return board, BoardBackend(fabric, board.profile, name="emulator", tolerate_faults=True)


def common_with_inhibit() -> dict[str, Any]:
    tree = common()
    tree["mux"]["inhibit"] = True
    tree["chains"]["rows"]["chips"] = 2
    return tree


def dead(backend: BoardBackend) -> tuple[list[int], list[int]]:
    """(rows, columns) that the backend says to be dead."""
    wiring = backend.info.wiring
    assert wiring is not None
    return np.flatnonzero(~wiring.row_ok).tolist(), np.flatnonzero(~wiring.col_ok).tolist()


def mux_stuck_off(faults: Faults) -> None:
    faults.stuck_muxes[1] = -1


def dead_channel(faults: Faults) -> None:
    faults.dead_dac_channels.add((0, 1))


def clipping_adc(faults: Faults) -> None:
    faults.clipping_adcs[1] = 1


def broken_frames(faults: Faults) -> None:
    faults.stuck_adcs[1] = 1


def silent_adc(faults: Faults) -> None:
    faults.stuck_adcs[1] = 0


def frozen_adc(faults: Faults) -> None:
    faults.frozen_adcs[1] = 6372


def frozen_elsewhere(faults: Faults) -> None:
    faults.frozen_adcs[1] = -1234


LANES = (clipping_adc, broken_frames, silent_adc, frozen_adc, frozen_elsewhere)


def name(value: Any) -> str | None:
    return value.__name__ if callable(value) else None


class TestConverters:
    @WIRINGS
    @pytest.mark.parametrize("fault", LANES, ids=name)
    def test_a_dead_lane_takes_its_columns_and_nothing_else(
        self, tree: dict[str, Any], fault: Callable[[Faults], None]
    ) -> None:
        healthy, _, whole = emulate(tree)
        lost = np.flatnonzero(healthy.profile.column_lane(np.arange(16)) == 1)
        left = np.setdiff1d(np.arange(16), lost)
        tile, x = Tile(np.arange(24), left, None), np.random.default_rng(0).random((40, 24)) < 0.3
        with open_session(whole) as session:
            expected_a = session.vmm(x, tile, V_READ_V).mean(axis=0)
        board, backend = tolerant(tree)
        fault(board.faults)
        with open_session(backend) as session:
            assert dead(backend) == ([], lost.tolist())
            failed = [check for check in session.self_test() if check.ok is False]
            assert [check.part for check in failed] == ["ADS8324 lane 1"]
            assert f"tolerated: columns {named(lost)} left out" in failed[0].text
            np.testing.assert_allclose(session.vmm(x, tile, V_READ_V).mean(axis=0), expected_a, rtol=0.02)
            for touch in touching(cols=lost[:2]):
                with pytest.raises(DeviceError, match=r"ADS8324 lane 1 failed at power-up .* need it.*--faults"):
                    touch(session)
        assert board.is_safe

    def test_amplifiers_that_stand_wrong_take_their_own_columns_only(self) -> None:
        board, backend = tolerant()
        board.array.chip.tias.offset_v[[3, 9]] = 0.5
        with open_session(backend):
            assert dead(backend) == ([], [3, 9])
            text = next(check.text for check in backend.self_test() if check.part == "ADS8324 lane 1")
        assert "on columns 3, 9" in text

    def test_a_board_without_any_column_is_refused(self) -> None:
        board, backend = tolerant()
        board.faults.clipping_adcs.update({0: 1, 1: -1})
        with pytest.raises(DeviceError, match=r"no column of the board works: ADS8324 lane 0.*ADS8324 lane 1"):
            backend.open()
        assert board.is_safe


def touching(
    rows: NDArray[np.intp] | None = None, cols: NDArray[np.intp] | None = None
) -> list[Callable[[Session], object]]:
    """Every call, on these lines and on some that work."""
    rows = np.arange(3) if rows is None else np.append(rows, 0)
    cols = np.arange(0, 4, 2) if cols is None else np.append(cols, 0)
    cells = np.zeros((24, 16), np.bool_)
    cells[rows[0], cols[0]] = True
    tile = Tile(np.sort(rows), np.sort(cols), None)
    return [
        lambda s: s.vmm(np.zeros((1, len(rows)), np.bool_), tile, V_READ_V),
        lambda s: s.read(cells, V_READ_V),
        lambda s: s.pulse(cells, Pulse("form", 2.0, 1.5, 1e-6)),
        lambda s: s.sense(np.sort(cols), row=int(rows[0]), v_read_v=V_READ_V),
    ]


class TestRows:
    @pytest.mark.parametrize(
        ("tree", "fault"),
        [
            (INDEPENDENT, mux_stuck_off),
            (INDEPENDENT, dead_channel),
            (common_with_inhibit(), mux_stuck_off),
            (common_with_inhibit(), dead_channel),
            # without INH a mux that never connects does no harm either
            (common(), mux_stuck_off),
        ],
        ids=lambda value: value["name"] if isinstance(value, dict) else name(value),
    )
    def test_a_dead_channel_takes_its_rows_and_nothing_else(
        self, tree: dict[str, Any], fault: Callable[[Faults], None]
    ) -> None:
        board, backend = tolerant(tree)
        width = board.profile.mux.width
        lost = np.arange(width, 2 * width)
        left = np.setdiff1d(np.arange(24), lost)
        fault(board.faults)
        with open_session(backend) as session:
            assert dead(backend) == (lost.tolist(), [])
            failed = [check for check in session.self_test() if check.ok is False]
            assert [check.part for check in failed] == ["CD4051B mux 1"]
            assert failed[0].text.startswith("draws no current at any position: stuck off, or its DAC channel gives")
            assert failed[0].text.endswith(f"tolerated: rows {named(lost)} left out")
            assert ("backwards" in failed[0].text) == (fault is dead_channel)
            # What a dead channel drives backwards says nothing of the converters.
            assert not any(check.ok is None for check in session.self_test())
            board.peak_bias_v = 0.0
            tile = Tile(left, np.arange(16), None)
            assert (session.vmm(np.ones((3, len(left)), np.bool_), tile, V_READ_V) > 0).all()
            cells = np.zeros((24, 16), np.bool_)
            cells[left] = True
            assert (session.read(cells, V_READ_V, n_average=20) > 0).all()
            assert board.peak_bias_v < V_READ_V + 6e-3
            for touch in touching(rows=lost[:2]):
                with pytest.raises(DeviceError, match=r"CD4051B mux 1 failed at power-up .* need it.*--region"):
                    touch(session)
            # An instrument may look which of the two it is.
            session.hold_row(int(lost[0]), 1.0)
        assert board.is_safe

    def test_a_channel_at_ground_is_refused_where_nothing_cuts_its_rows_off(self) -> None:
        """Its rows would be at minus the common level against every open column, in every read."""
        board, backend = tolerant(common())
        dead_channel(board.faults)
        with pytest.raises(DeviceError, match="row drive: columns carry current with all rows idle"):
            backend.open()
        assert board.is_safe

    @WIRINGS
    def test_open_lines_of_the_array(self, tree: dict[str, Any]) -> None:
        for seed in (0, 1, 2):
            board, backend = tolerant(tree, seed=seed, faults={"line_open": 0.12})
            faults = board.array.chip.faults
            assert faults.open_rows.any()
            with open_session(backend) as session:
                assert dead(backend) == (np.flatnonzero(faults.open_rows).tolist(), [])
                tile = Tile(np.flatnonzero(~faults.open_rows), np.arange(16), None)
                found_a = session.vmm(np.ones((20, len(tile.rows)), np.bool_), tile, V_READ_V).mean(axis=0)
            np.testing.assert_array_equal(found_a > 1e-7, ~faults.open_cols)

    @WIRINGS
    def test_open_columns_need_no_tolerance(self, tree: dict[str, Any]) -> None:
        board, _, backend = emulate(tree)
        faults = board.array.chip.faults
        board.array.chip.faults = type(faults)(
            faults.settings, faults.kind, faults.open_rows, faults.shorted_rows,
            np.isin(np.arange(16), [2, 5]), faults.shorted_cols,
        )  # fmt: skip
        board.array.refresh()
        with open_session(backend) as session:
            assert not any(check.ok is False for check in session.self_test())

    @WIRINGS
    def test_a_dead_lane_and_a_dead_mux_together(self, tree: dict[str, Any]) -> None:
        board, backend = tolerant(tree)
        mux_stuck_off(board.faults)
        clipping_adc(board.faults)
        width = board.profile.mux.width
        with open_session(backend):
            rows, cols = dead(backend)
        assert rows == list(range(width, 2 * width))
        assert cols == np.flatnonzero(board.profile.column_lane(np.arange(16)) == 1).tolist()


class TestFatal:
    @WIRINGS
    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (lambda f: f.dead_dacs.add(0), "DAC80508 chip 0 .*dead or unpowered"),
            (lambda f: f.floating_sdo.add(1), "DAC80508 chip 1 .*SDO floats"),
            (lambda f: f.stuck_muxes.update({2: 1}), "CD4051B mux 2: .*stuck"),
        ],
        ids=["dead DAC chip", "missing reply", "stuck selects"],
    )
    def test_stays_fatal(self, tree: dict[str, Any], fault: Callable[[Faults], Any], words: str) -> None:
        board, backend = tolerant(tree)
        fault(board.faults)
        with pytest.raises(DeviceError, match=words):
            backend.open()
        assert board.is_safe

    @WIRINGS
    def test_a_lane_that_breaks_in_a_session_is_an_error_there(self, tree: dict[str, Any]) -> None:
        board, backend = tolerant(tree)
        with open_session(backend) as session:
            broken_frames(board.faults)
            with pytest.raises(DeviceError, match="lane 1: frames have wrong"):
                session.vmm(np.ones((1, 24), np.bool_), single_ended_tile(24, 16), V_READ_V)
            # The next call powers up again, and goes on without that lane.
            with pytest.raises(DeviceError, match="lane 1 failed at power-up"):
                session.vmm(np.ones((1, 24), np.bool_), single_ended_tile(24, 16), V_READ_V)


def test_what_was_left_out_stays_so_when_the_board_comes_up_again() -> None:
    board, backend = tolerant()
    mux_stuck_off(board.faults)
    with open_session(backend) as session:
        session.make_safe()
        with pytest.raises(DeviceError, match="mux 1 failed"):
            session.vmm(np.ones((1, 24), np.bool_), single_ended_tile(24, 16), V_READ_V)
        assert "CD4051B mux 1" in [check.part for check in session.self_test() if check.ok is False]


def test_a_repaired_part_is_used_from_the_next_session_on() -> None:
    board, backend = tolerant()
    mux_stuck_off(board.faults)
    with open_session(backend):
        assert dead(backend)[0]
    board.faults.stuck_muxes.clear()
    with open_session(backend) as session:
        assert dead(backend) == ([], [])
        session.vmm(np.ones((1, 24), np.bool_), single_ended_tile(24, 16), V_READ_V)


class TestKnownFromACalibration:
    def backend(self, known: bool) -> tuple[EmulatedBoard, BoardBackend]:
        board, fabric, plain = emulate()
        mux_stuck_off(board.faults)
        clipping_adc(board.faults)
        rows, cols = np.arange(24) // 8 != 1, np.arange(16) % 2 != 1
        part = Part(
            "array",
            {"row_works": Quantity.of(rows | (not known)), "col_works": Quantity.of(cols)},
            measured_unix_s=time.time(),
        )
        info = plain.info
        assert info.wiring is not None
        calibration = Calibration(BoardIdentity.of(info), info.wiring, electrics(board.profile)).with_part(part)
        return board, BoardBackend(fabric, board.profile, name="emulator", calibration=calibration)

    def test_lines_known_as_dead_are_tolerated_without_a_word(self) -> None:
        _, backend = self.backend(known=True)
        with open_session(backend):
            assert dead(backend) == (list(range(8, 16)), list(range(1, 16, 2)))

    def test_others_are_not(self) -> None:
        _, backend = self.backend(known=False)
        with pytest.raises(DeviceError, match="1 part of the board failed: CD4051B mux 1"):
            backend.open()


def test_lines_are_named_in_few_words() -> None:
    assert named(np.array([3])) == "3"
    assert named(np.array([3, 4])) == "3, 4"
    assert named(np.array([0, 3, 8, 9, 10, 11])) == "0, 3, 8 to 11"
    assert named(np.arange(2, 512, 8)) == "2 to 506 in steps of 8"
    scattered = np.arange(40) ** 2 + np.arange(40)
    assert named(scattered).endswith("132 and 28 more")


def test_an_intolerant_backend_is_the_default() -> None:
    board, _, backend = emulate(deepcopy(INDEPENDENT))
    clipping_adc(board.faults)
    with pytest.raises(DeviceError, match="lane 1: clips"):
        backend.open()
