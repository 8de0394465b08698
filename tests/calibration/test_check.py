"""Drift watch: what has moved is found and blamed on the right part; what has not is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate
from linear_array import COLS, CONVERTER_NOISE_LSB, MUX, READ_NOISE, ROWS, LinearArray, calibration, cells_s, wiring
from numpy.typing import NDArray

from calibration.check import CheckOptions, CheckResult, Watched, check
from calibration.drift import Driven, Known
from calibration.network import OpenColumns, Resistances
from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.electrics import electrics
from firmware_bridge.emulator import EmulatedBoard
from hil.calibration_file import BoardIdentity, Calibration, Part, Quantity
from hil.errors import CalibrationError, ConfigError
from hil.session import open_session
from hil.wiring import Wiring

#: how well a cell is known
KNOWN_TO = 1e-3
V_READ = 0.2
#: as many reads as an array of 512 x 512 gives in a few passes
THOROUGH = CheckOptions(n_passes=48, n_idle=64)
Values = NDArray[np.float64]
Change = Callable[[LinearArray], None]


def known_parts(
    cells: np.ndarray[Any, Any],
    offset_v: np.ndarray[Any, Any],
    wiring: Wiring,
    ohms: tuple[Any, float, float],
    seed: int,
) -> dict[str, dict[str, Quantity]]:
    """What procedures would find, with their errors."""
    rng = np.random.default_rng(1000 + seed)
    n_channels = wiring.n_channels
    found_s = cells * rng.normal(1.0, KNOWN_TO, cells.shape)
    return {
        "zero": {
            "column_offset_v": Quantity.of(offset_v + 5e-6 * rng.standard_normal(len(offset_v)), 5e-6),
            "row_offset_v": Quantity.of(np.zeros(n_channels), 5e-6),
        },
        "line": {
            "r_on_ohm": Quantity.of(np.broadcast_to(ohms[0], n_channels), 0.3),
            "row_ohm": Quantity.of(ohms[1], 0.001),
            "col_ohm": Quantity.of(ohms[2], 0.001),
        },
        "noise": {
            "read_noise": Quantity.of(READ_NOISE, 0.02 * READ_NOISE),
            "converter_noise_lsb": Quantity.of(np.full(wiring.n_converters, CONVERTER_NOISE_LSB), 0.02),
        },
        "array": {
            "conductance_s": Quantity.of(found_s, KNOWN_TO * cells),
            "read_noise_cell": Quantity.of(np.full(cells.shape, READ_NOISE)),
            "faults": Quantity.of(np.zeros(cells.shape, np.uint8)),
        },
    }


def known(seed: int = 0) -> Calibration:
    empty = calibration()
    offset_v = np.random.default_rng(seed).normal(0.0, 0.5e-3, COLS)
    offset_v -= np.median(offset_v)
    return calibration(known_parts(cells_s(seed), offset_v, empty.wiring, (0.0, 0.0, 0.0), seed))


def array(found: Calibration, seed: int = 0, noise_seed: int = 1) -> LinearArray:
    """The array that `known(seed)` is of."""
    made = LinearArray(cells_s(seed), seed=noise_seed, calibration_id=found.calibration_id)
    made.offset_v = np.random.default_rng(seed).normal(0.0, 0.5e-3, COLS)
    made.offset_v -= np.median(made.offset_v)
    return made


def after(change: Change, options: CheckOptions = THOROUGH) -> CheckResult:
    found = known()
    board = array(found)
    change(board)
    return check(board, found, v_read_v=V_READ, options=options, now_unix_s=lambda: 7.0)


def by_name(result: CheckResult) -> dict[str, Watched]:
    return {watched.name: watched for watched in result.watched}


def test_a_chip_that_did_not_change_is_left_alone() -> None:
    worst = []
    for seed in range(20):
        found = known(seed)
        result = check(array(found, seed, 50 + seed), found, v_read_v=V_READ, options=THOROUGH, seed=seed)
        assert result.holds, by_name(result)
        assert result.redo == ()
        worst += [abs(watched.z) for watched in result.watched if watched.z is not None]
    # Sigmas are neither too small nor so large that nothing would be found.
    assert max(worst) < 4.5
    assert np.mean(worst) > 0.5


def moved_offset(board: LinearArray) -> None:
    board.offset_v[5] += 1e-3


def moved_gain(board: LinearArray) -> None:
    board.gain[9] *= 1.005


def relaxed(board: LinearArray) -> None:
    board.cells_s *= 0.99


def moved_channel(board: LinearArray) -> None:
    board.row_gain[2 * MUX : 3 * MUX] *= 1.01


def noisier_cells(board: LinearArray) -> None:
    board.noise *= 1.6


def noisier_converters(board: LinearArray) -> None:
    board.converter_lsb *= 1.7


def dead_column(board: LinearArray) -> None:
    board.cells_s[:, 7] = 0.0


def dead_channel(board: LinearArray) -> None:
    board.cells_s[MUX : 2 * MUX] = 0.0


def dead_row(board: LinearArray) -> None:
    board.cells_s[13] = 0.0


@pytest.mark.parametrize(
    ("change", "name", "where", "worst", "redo"),
    [
        (moved_offset, "column offset", "column 5 (converter 1)", 1e-3, "zero"),
        (moved_gain, "column gain", "column 9 (converter 1)", 5e-3, "array"),
        (relaxed, "conductance of all cells", "", -1e-2, "array"),
        (moved_channel, "drive channel", "channel 2", 1e-2, "zero"),
        (noisier_cells, "read noise", "", 0.6, "noise"),
        (dead_column, "lines that carry current", "column 7 (converter 1)", -1.0, "zero"),
        (dead_channel, "lines that carry current", "channel 1", -1.0, "zero"),
        (dead_row, "lines that carry current", "row 13", -1.0, "zero"),
    ],
)
def test_what_has_moved_is_found_and_blamed(change: Change, name: str, where: str, worst: float, redo: str) -> None:
    result = after(change)
    watched = by_name(result)[name]
    assert not watched.holds
    assert watched.at == where
    assert watched.worst == pytest.approx(worst, rel=0.25)
    assert watched.redo == (redo,)
    assert redo in result.redo
    assert not result.holds


def test_more_noise_of_converters_is_told_from_that_of_cells() -> None:
    result = by_name(after(noisier_converters))
    assert not result["converter noise"].holds
    assert result["converter noise"].n_outside == 2
    assert result["converter noise"].worst == pytest.approx(0.7, rel=0.3)
    assert result["read noise"].holds


@pytest.mark.parametrize("change", [moved_gain, moved_offset, relaxed, dead_column, dead_channel])
def test_other_things_hold(change: Change) -> None:
    """One change is blamed on one thing; an offset is part of what a column carries, and shows there, too."""
    outside = {name for name, watched in by_name(after(change)).items() if not watched.holds}
    assert outside - {"column gain"} <= {
        {
            moved_offset: "column offset",
            relaxed: "conductance of all cells",
            dead_column: "lines that carry current",
            dead_channel: "lines that carry current",
        }.get(change)
    }
    assert ("column gain" in outside) == (change in (moved_gain, moved_offset))


def test_a_noisy_column_is_no_moved_column() -> None:
    """As telegraph noise of some of its cells makes it."""

    def change(board: LinearArray) -> None:
        board.noise[:, 3] *= 8.0

    few = replace(THOROUGH, n_passes=12)
    for seed in range(10):
        found = known(seed)
        board = array(found, seed, 80 + seed)
        change(board)
        assert by_name(check(board, found, v_read_v=V_READ, options=few))["column gain"].holds


def test_rows_that_are_driven_together_take_from_each_other_on_the_source_lines() -> None:
    """As the network says that takes everything into account."""
    wired = wiring()
    cells = cells_s()
    parts = known_parts(cells, np.zeros(COLS), wired, (100.0, 0.5, 2.0), 0)
    parts["array"]["conductance_s"] = Quantity.of(cells, KNOWN_TO * cells)
    expects = Known.of(calibration(parts), wired, V_READ)
    rows, cols = np.arange(0, ROWS, MUX), np.arange(COLS)
    network = OpenColumns(cells, cols, wired, Resistances(np.full(wired.n_channels, 100.0), 0.5, 2.0))
    together_a = network.together_s(rows).sum(axis=0) * V_READ
    sum_a = network.rows_alone_s()[rows].sum(axis=0) * V_READ
    expected_a = Driven.of(expects, [rows], cols, np.ones((2, 1, COLS))).expected_a[0]
    lost_a = (sum_a - together_a).mean()
    assert lost_a > 0.0005 * sum_a.mean()
    assert (expected_a - together_a).mean() == pytest.approx(0.0, abs=0.1 * lost_a)


@pytest.mark.parametrize("inhibit", [True, False])
def test_rows_at_idle_level_beside_a_driven_one_carry_what_the_offsets_drive(inhibit: bool) -> None:
    wired = wiring(independent_selects=False, inhibit=inhibit)
    cells, offset_v = cells_s(), np.full(COLS, 1e-3)
    offset_v[0] = 0.0
    parts = known_parts(cells, offset_v, wired, (0.0, 0.0, 0.0), 0)
    parts["array"]["conductance_s"] = Quantity.of(cells, KNOWN_TO * cells)
    parts["zero"]["column_offset_v"] = Quantity.of(offset_v, 1e-6)
    found = calibration(parts, independent_selects=False, inhibit=inhibit)
    expects = Known.of(found, wired, V_READ)
    expected_a = Driven.of(expects, [np.array([2])], np.arange(COLS), np.ones((2, 1, COLS))).expected_a[0]
    connected = [2] if inhibit else np.arange(2, ROWS, MUX)
    np.testing.assert_allclose(expected_a, cells[2] * V_READ - offset_v * cells[connected].sum(axis=0), rtol=1e-4)


def test_a_dead_row_that_was_not_driven_alone_is_narrowed_down() -> None:
    result = by_name(after(dead_row, replace(THOROUGH, n_rows=ROWS // MUX)))
    assert any("13" in name for name in result["lines that carry current"].outside)


def test_what_the_calibration_has_masked_is_not_looked_at() -> None:
    found = known()
    works = np.ones(COLS, np.bool_)
    works[7] = False
    zero = found.parts["zero"]
    found = found.with_part(replace(zero, quantities={**zero.quantities, "col_works": Quantity.of(works)}))
    board = array(found)
    dead_column(board)
    assert check(board, found, v_read_v=V_READ, options=THOROUGH).holds


@pytest.mark.parametrize(("lost", "names"), [(slice(4, 6), ("row 4", "row 5")), (slice(4, 8), ("channel 1",))])
def test_lines_that_the_board_lost_are_named(lost: slice, names: tuple[str, ...]) -> None:
    found = known()
    board = array(found)
    ok = np.ones(ROWS, np.bool_)
    ok[lost] = False
    assert board.info.wiring is not None
    board._info = replace(board.info, wiring=replace(board.info.wiring, row_ok=ok))
    result = check(board, found, v_read_v=V_READ, options=THOROUGH)
    dead = by_name(result)["lines that carry current"]
    assert dead.outside == names
    assert not result.holds


def test_allowed_drift_is_allowed() -> None:
    assert not by_name(after(relaxed))["conductance of all cells"].holds
    assert by_name(after(relaxed, replace(THOROUGH, conductance=0.01)))["conductance of all cells"].holds


def test_currents_that_were_measured_are_preferred_to_those_of_the_network() -> None:
    """Part array may keep what rows alone carried; then no network has to be computed."""
    found = known()
    part = found.parts["array"]
    kept = {**part.quantities, "alone_s": Quantity.of(1.05 * part.quantities["conductance_s"].value)}
    found = found.with_part(replace(part, quantities=kept))
    result = by_name(check(array(found), found, v_read_v=V_READ, options=THOROUGH))
    assert not all(watched.holds for watched in result.values())


def test_the_outcome_is_plain() -> None:
    result = after(moved_gain)
    again = json.loads(json.dumps(result.as_mapping()))
    assert again["holds"] is False
    assert again["redo"] == ["array"]
    assert again["measured_unix_s"] == 7.0
    assert again["board_time_s"] == 0.0
    assert {watched["name"] for watched in again["watched"]} == set(by_name(result))


def test_what_cannot_be_checked_is_refused() -> None:
    found = known()
    with pytest.raises(ConfigError, match=r"the board \(fake\) has no calibration applied"):
        check(LinearArray(cells_s(), seed=1), found, v_read_v=V_READ)
    partial = calibration({"zero": found.parts["zero"].quantities})
    with pytest.raises(CalibrationError, match="lacks line, noise, array"):
        check(LinearArray(cells_s(), seed=1, calibration_id=partial.calibration_id), partial, v_read_v=V_READ)
    with pytest.raises(ConfigError, match="n_passes = 1 is below 2"):
        CheckOptions(n_passes=1)


def emulated(
    tree: dict[str, Any], seed: int, change: Callable[[EmulatedBoard], None] | None, n_passes: int = 8
) -> CheckResult:
    """A small emulated board, known as well as procedures would know it, then changed."""
    board, fabric, backend = emulate(tree, seed)
    profile = backend.profile
    wiring = backend.info.wiring
    assert wiring is not None
    chip = board.array.chip
    lines = chip.settings.lines
    trim = Calibration(BoardIdentity.of(backend.info), wiring, electrics(profile))
    parts = known_parts(
        chip.conductance_s, board.analogue.tias.offset_v, wiring, (chip.r_on_ohm, lines.row_ohm, lines.col_ohm), seed
    )
    parts["zero"]["row_offset_v"], parts["dac"] = _channels(board)
    lanes = profile.column_lane(np.arange(profile.cols))
    gain = board.adcs._scale[lanes] * profile.tia.r_feedback_ohm * (1.0 + board.analogue.tias.gain_error)
    parts["tia"] = {"amps_per_code": Quantity.of(1.0 / gain, 1e-4 / gain)}
    relative = float(np.median(chip.read_noise()))
    parts["noise"]["read_noise"] = Quantity.of(relative, 0.02 * relative)
    parts["array"]["read_noise_cell"] = Quantity.of(np.broadcast_to(chip.read_noise(), chip.conductance_s.shape))
    found = replace(trim, parts={name: Part(name, quantities) for name, quantities in parts.items()})
    if change is not None:
        change(board)
    with open_session(BoardBackend(fabric, profile, calibration=found)) as session:
        return check(session, found, v_read_v=V_READ, options=CheckOptions(n_passes=n_passes, n_idle=32), seed=seed)


def _channels(board: EmulatedBoard) -> tuple[Quantity, dict[str, Quantity]]:
    """Offset and gain error of the row channels, as parts zero and dac state them."""
    chip, channel = board.profile.row_channel(np.arange(board.profile.mux.count))
    each = list(zip(chip, channel, strict=True))
    gain = np.array([board.dacs[c]._gain[k] for c, k in each]) - 1.0
    offset_v = np.array([board.dacs[c]._offset_v[k] for c, k in each]) + board.profile.tia.v_common_v * gain
    return Quantity.of(offset_v, 5e-6), {"row_gain_error": Quantity.of(gain, 1e-5)}


@pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=lambda tree: tree["name"])
def test_an_emulated_board_that_did_not_change_holds(tree: dict[str, Any]) -> None:
    for seed in range(2):
        result = emulated(tree, seed, None)
        assert result.holds, by_name(result)
        assert result.board_time_s is not None
        assert result.board_time_s < 2.0


def test_an_emulated_board_shows_more_resistance_of_its_muxes() -> None:
    """With 16 columns a row loses little in its mux: 60 ohm here are worth 3 at 512 columns."""

    def change(board: EmulatedBoard) -> None:
        board.array._r_on_ohm = board.array._r_on_ohm + 60.0

    watched = by_name(emulated(INDEPENDENT, 0, change, n_passes=32))
    ohm = watched["resistance in front of rows"]
    assert ohm.worst == pytest.approx(60.0, abs=4 * abs(ohm.worst / (ohm.z or 1.0)))


def test_an_emulated_board_shows_offsets_gains_and_cells() -> None:
    def change(board: EmulatedBoard) -> None:
        board.analogue.tias.offset_v[4] += 1e-3
        board.analogue.tias.gain_error[11] += 0.01
        board.array._conductance_s = board.array._conductance_s * 0.97

    watched = by_name(emulated(INDEPENDENT, 1, change, n_passes=32))
    assert watched["column offset"].outside == ("column 4 (ADS8324 lane 0)",)
    assert watched["column offset"].worst == pytest.approx(1e-3, rel=0.15)
    assert "column 11 (ADS8324 lane 1)" in watched["column gain"].outside
