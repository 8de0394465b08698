"""What a calibration changes on a board: levels of the rows, scale of the currents, and nothing beyond the limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate
from numpy.typing import NDArray

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.electrics import electrics
from firmware_bridge.emulator import EmulatedBoard, EmulatedFabric
from firmware_bridge.row_trim import RowTrim
from hil import Pulse, open_session, single_ended_tile
from hil.calibration_file import BoardIdentity, Calibration, Part, Quantity
from hil.errors import CalibrationError, LimitError

WIRINGS = pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=["independent", "common"])
LSB_V = 5.0 / 65536


def true_errors(board: EmulatedBoard) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain error and offset at the idle level of every row channel, from the emulated chips."""
    profile = board.profile
    places = [profile.row_channel(m) for m in range(profile.mux.count)]
    gain = np.array([board.dacs[chip]._gain[channel] for chip, channel in places])
    offset_v = np.array([board.dacs[chip]._offset_v[channel] for chip, channel in places])
    return gain - 1.0, offset_v + (gain - 1.0) * profile.tia.v_common_v


def calibration_of(backend: BoardBackend, **quantities: Quantity) -> Calibration:
    info = backend.info
    assert info.wiring is not None
    part = Part("dac", quantities, measured_unix_s=time.time())
    empty = Calibration(
        BoardIdentity.of(info), info.wiring, electrics(backend.profile), created_unix_s=time.time() - 2 * 86400.0
    )
    return empty.with_part(part)


def calibrated(
    tree: dict[str, Any], *, ok: Any = True, **effects: Any
) -> tuple[EmulatedBoard, EmulatedFabric, BoardBackend]:
    """A board with a backend that knows the errors of its row channels."""
    board, fabric, plain = emulate(tree, **effects)
    gain, offset_v = true_errors(board)
    known = calibration_of(
        plain, row_gain_error=Quantity.of(gain, 1e-5, ok), row_offset_v=Quantity.of(offset_v, 1e-5, ok)
    )
    return board, fabric, BoardBackend(fabric, board.profile, name="emulator", calibration=known)


@contextmanager
def levels_with_word_lines_on(board: EmulatedBoard) -> Iterator[list[tuple[NDArray[np.float64], NDArray[np.intp]]]]:
    """DAC outputs of all rows and mux positions whenever they change while word lines are on."""
    seen: list[tuple[NDArray[np.float64], NDArray[np.intp]]] = []
    honest = board.note_bias

    def note() -> None:
        honest()
        inputs = board.analogue.inputs
        if inputs.gate_on:
            seen.append((inputs.row_v.copy(), inputs.position.copy()))

    board.note_bias = note  # type: ignore[method-assign]
    yield seen
    board.note_bias = honest  # type: ignore[method-assign]


def off_by_lsb(board: EmulatedBoard, seen: list[Any], wanted_v: list[float]) -> float:
    """By how much any connected row misses the nearest of the wanted levels; a channel cannot go below its code 0."""
    gain, offset_v = true_errors(board)
    lowest_v = offset_v - gain * board.profile.tia.v_common_v
    worst = 0.0
    for row_v, position in seen:
        goal_v = np.maximum(np.array(wanted_v)[:, None], lowest_v)
        missed = np.abs(row_v - goal_v).min(axis=0)[position >= 0]
        worst = max(worst, float(missed.max(initial=0.0)) / LSB_V)
    return worst


class TestRowLevels:
    @WIRINGS
    def test_reads_put_every_row_where_it_should_be(self, tree: dict[str, Any]) -> None:
        board, _, backend = calibrated(tree)
        tile = single_ended_tile(24, 16)
        levels = np.random.default_rng(1).choice([0.0, 0.25, 0.5, 1.0], (6, 24))
        with open_session(backend) as session, levels_with_word_lines_on(board) as seen:
            session.vmm(np.ones((2, 24), np.bool_), tile, 0.2)
            session.vmm(np.ones((1, 24), np.bool_), tile, 0.0)
            session.vmm(levels, tile, 0.2)
            session.read(np.ones((24, 16), np.bool_), -0.2)
            session.sense(np.arange(4), row=5, v_read_v=0.2)
            session.sense(np.arange(4), row=5, v_read_v=0.2, settle_s=2e-6)
        assert len(seen) > 100
        assert off_by_lsb(board, seen, [1.4, 1.6, 1.65, 1.7, 1.8]) <= 0.51

    @WIRINGS
    @pytest.mark.parametrize("kind", ["form", "reset"])
    def test_pulses_too(self, tree: dict[str, Any], kind: Any) -> None:
        board, _, backend = calibrated(tree)
        mask = np.zeros((24, 16), np.bool_)
        mask[[0, 3, 9, 20], [1, 1, 5, 7]] = True
        level_v = round(2.0 / LSB_V) * LSB_V
        with open_session(backend) as session, levels_with_word_lines_on(board) as seen:
            session.pulse(mask, Pulse(kind, 2.0, 1.5, 1e-6))
        assert seen
        assert off_by_lsb(board, seen, [0.0, level_v]) <= 0.51

    @WIRINGS
    def test_without_a_calibration_they_are_as_far_off_as_their_channels(self, tree: dict[str, Any]) -> None:
        board, _, backend = emulate(tree)
        with open_session(backend) as session, levels_with_word_lines_on(board) as seen:
            session.vmm(np.ones((2, 24), np.bool_), single_ended_tile(24, 16), 0.2)
        assert off_by_lsb(board, seen, [1.6, 1.8]) > 3

    def test_a_row_is_held_at_the_level_asked_for(self) -> None:
        board, _, backend = calibrated(INDEPENDENT)
        with open_session(backend) as session:
            for row, level_v in ((0, 0.7), (9, 1.6), (23, 2.1)):
                session.hold_row(row, level_v)
                assert board.analogue.inputs.row_v[row // 8] == pytest.approx(level_v, abs=0.51 * LSB_V)

    def test_channels_that_are_not_ok_keep_their_nominal_codes(self) -> None:
        ok = np.array([True, False, True])
        board, _, backend = calibrated(INDEPENDENT, ok=ok)
        gain, offset_v = true_errors(board)
        with open_session(backend) as session:
            session.vmm(np.ones((1, 24), np.bool_), single_ended_tile(24, 16), 0.2)
            off_v = board.analogue.inputs.row_v - 1.8
        np.testing.assert_allclose(off_v[ok], 0.0, atol=0.51 * LSB_V)
        assert off_v[1] == pytest.approx(offset_v[1] + 0.2 * gain[1], abs=0.51 * LSB_V)

    def test_a_gain_known_worse_than_the_data_sheet_is_not_used(self) -> None:
        _, fabric, backend = emulate(INDEPENDENT)
        gain = Quantity.of(np.array([1e-3, 1e-3, 1e-3]), np.array([1e-4, 2e-3, np.nan]))
        trim = RowTrim.of(fabric.board.profile, calibration_of(backend, row_gain_error=gain))
        np.testing.assert_array_equal(trim.gain_error, [1e-3, 0.0, 1e-3])


class TestCurrents:
    @WIRINGS
    def test_scale_by_the_columns_that_are_ok(self, tree: dict[str, Any]) -> None:
        _, _, plain = emulate(tree)
        nominal = 1.8 / 2**14 / 20e3
        factor = np.linspace(0.99, 1.01, 16)
        ok = np.arange(16) % 3 != 0
        known = calibration_of(plain, amps_per_code=Quantity.of(nominal * factor, 1e-12, ok))
        board, fabric, _ = emulate(tree)
        other = BoardBackend(fabric, board.profile, name="emulator", calibration=known)
        tile, x = single_ended_tile(24, 16), np.ones((3, 24), np.bool_)
        cells = np.zeros((24, 16), np.bool_)
        cells[4] = True
        with open_session(plain) as session:
            before, read_before = session.vmm(x, tile, 0.1), session.read(cells, 0.2)
        with open_session(other) as session:
            after, read_after = session.vmm(x, tile, 0.1), session.read(cells, 0.2)
        expected = np.where(ok, factor, 1.0)
        np.testing.assert_allclose(after, before * expected, rtol=1e-5)
        np.testing.assert_allclose(read_after, read_before * expected, rtol=1e-9)

    def test_what_a_calibration_says_of_amplifier_offsets_changes_nothing(self) -> None:
        _, _, plain = emulate()
        known = calibration_of(plain, column_offset_v=Quantity.of(np.full(16, 1e-3)))
        board, fabric, _ = emulate()
        other = BoardBackend(fabric, board.profile, name="emulator", calibration=known)
        results = []
        for backend in (plain, other):
            with open_session(backend) as session:
                results.append(session.vmm(np.ones((2, 24), np.bool_), single_ended_tile(24, 16), 0.1))
        np.testing.assert_array_equal(*results)


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("row_offset_v", [0.0, 0.0, 0.011], r"DAC80508 chip 0 channel 2, CD4051B mux 2 .* 11 mV off.*above 10 mV"),
            ("row_gain_error", [0.0, -3.1e-3, 0.0], r"chip 0 channel 1, CD4051B mux 1 .* 10.5 mV off at 5 V"),
            ("row_offset_v", [0.0, np.nan, 0.0], "row_offset_v holds values that are no numbers"),
            ("row_offset_v", [0.0, 0.0], r"row_offset_v has shape \(2,\), this board needs \(3,\)"),
            ("amps_per_code", np.full(16, 1.2e-8), "a step of column 0 .* 2.18 times"),
            ("amps_per_code", np.full(16, -5e-9), "a step of column 0"),
        ],
    )
    def test_values_that_no_such_board_has(self, name: str, value: Any, words: str) -> None:
        board, fabric, plain = emulate()
        known = calibration_of(plain, **{name: Quantity.of(np.array(value))})
        with pytest.raises(CalibrationError, match=words):
            BoardBackend(fabric, board.profile, name="emulator", calibration=known)
        assert board.peak_bias_v == 0.0

    def test_values_that_are_not_ok_are_not_looked_at(self) -> None:
        board, _, plain = emulate()
        known = calibration_of(plain, row_offset_v=Quantity.of([np.nan, 1.0, 0.0], ok=[False, False, True]))
        assert not RowTrim.of(board.profile, known).is_active


class TestLimits:
    #: limits that trimmed codes of these channels lie beyond, and their nominal ones within
    OFFSET_V = np.array([-9e-3, 9e-3, 0.0])

    def backend(self) -> tuple[EmulatedBoard, BoardBackend]:
        board, fabric, plain = emulate(dac={"gain_sigma": 0.0, "offset_sigma_v": 0.0})
        for channel, offset_v in enumerate(self.OFFSET_V):
            board.dacs[0]._offset_v[channel] = offset_v
        known = calibration_of(plain, row_offset_v=Quantity.of(self.OFFSET_V))
        return board, BoardBackend(fabric, board.profile, name="emulator", calibration=known)

    def test_a_read_at_the_limit_runs_and_no_cell_gets_more(self) -> None:
        board, backend = self.backend()
        with open_session(backend) as session:
            for v_read_v in (0.5, -0.5):
                session.read(np.ones((24, 16), np.bool_), v_read_v)
        assert 0.499 < board.peak_bias_v <= 0.5 + 1.01 * LSB_V

    def test_a_channel_at_the_nominal_code_of_the_limit_is_refused(self) -> None:
        """The check below the session sees the true level: this code would put row 8 at +0.509 V."""
        board, backend = self.backend()
        with open_session(backend):
            backend._ready()
            blocks = backend._blocks
            words = [
                blocks.open_reads(np.ones(16, np.bool_), (blocks.all_rows(blocks.range.code(2.1)),)),
                blocks.shift_rows(np.array([[-1, 0, -1]]))[0],
                blocks.wait_for(1),  # type: ignore[arg-type]
                blocks.word("LATCH", chains=1),
                blocks.close_reads(),
                blocks.halt(),
            ]
            before_v = board.peak_bias_v
            with pytest.raises(LimitError, match=r"row 8 \(DAC chip 0 channel 1, 2\.109 V\) is at \+0\.509 V"):
                backend._sequencer.run(np.concatenate(words), 0)
            assert board.peak_bias_v == before_v


class TestInfo:
    def test_names_the_calibration(self) -> None:
        _, fabric, plain = emulate()
        assert plain.info.calibration_id is None
        assert plain.info.identity["calibration"] is None
        known = calibration_of(plain).with_validation({"text": "well"})
        info = BoardBackend(fabric, plain.profile, calibration=known).info
        assert info.calibration_id == known.calibration_id
        summary = info.identity["calibration"]
        assert summary["id"] == known.calibration_id
        assert summary["created_unix_s"] == known.created_unix_s
        assert summary["validation"] == "well"

    def test_a_calibration_of_this_board_fits_it(self) -> None:
        _, _, backend = emulate()
        calibration_of(backend).check_fits(backend.info)

    @WIRINGS
    def test_wiring_is_that_of_the_profile(self, tree: dict[str, Any]) -> None:
        _, _, backend = emulate(tree)
        wiring, profile = backend.info.wiring, backend.profile
        assert wiring is not None
        for row in range(24):
            assert profile.mux.width * wiring.row_channel[row] + wiring.row_position[row] == row
        np.testing.assert_array_equal(wiring.col_converter, profile.column_lane(np.arange(16)))
        assert wiring.independent_selects == (profile.mux.selects == "independent")
        assert wiring.inhibit == profile.mux.inhibit
        assert wiring.channel_names[2] == "DAC80508 chip 0 channel 2, CD4051B mux 2"
        assert wiring.converter_names == ("ADS8324 lane 0", "ADS8324 lane 1")
        assert wiring.row_ok.all()
        assert wiring.col_ok.all()

    def test_electrics_are_those_of_the_board(self) -> None:
        board, _, backend = emulate()
        found = backend.info.identity["electrics"]
        assert found["dac_full_scale_v"] / 2 ** found["dac_bits"] == LSB_V
        assert found["adc_v_reference_v"] * 2 / 2 ** found["adc_bits"] == board.profile.adc.converter.lsb_v
        assert backend.info.identity["firmware"] == "1.0"

    def test_the_conversion_period_is_the_one_that_the_fabric_takes(self) -> None:
        _, _, backend = emulate()
        with open_session(backend) as session:
            before = session.telemetry().values["board_convert_s"]
            session.vmm(np.ones((1, 24), np.bool_), single_ended_tile(24, 16), 0.1)
            spent_s = session.telemetry().values["board_convert_s"] - before
        assert spent_s == pytest.approx(8 * 8 * backend.info.identity["electrics"]["conversion_period_s"])
