"""Offsets, resistances and conductances of hidden chips are found, within what the procedures state."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate

from calibration import array, line, zero
from calibration.network import OpenColumns, Resistances, by_ladder_s, missing_s, secant_s
from calibration.procedure import CalibrationBench
from calibration.run import new_calibration
from calibration.zero import split_offsets
from firmware_bridge.board_backend import BoardBackend
from hil.calibration_file import Part, Quantity
from hil.errors import CalibrationError
from hil.fault_map import Fault
from hil.session import open_session
from hil.wiring import Wiring
from sim_backend.nodal import solve_column_currents_a

#: wires that matter on a small array
WIRES = {"row_ohm": 4.0, "col_ohm": 6.0}


def larger() -> dict[str, Any]:
    """Eight muxes of eight, 48 columns, selects of their own."""
    tree = deepcopy(INDEPENDENT)
    tree |= {"name": "independent-64x48", "rows": 64, "cols": 48}
    tree["mux"] |= {"count": 8}
    tree["chains"] |= {"rows": {"chips": 4}, "word_lines": {"chips": 6}}
    tree["adc"] |= {"positions": 24}
    return tree


def wiring(n_rows: int, n_cols: int, *, inhibit: bool = True, width: int = 4) -> Wiring:
    rows = np.arange(n_rows)
    return Wiring(
        row_channel=rows // width,
        row_position=rows % width,
        col_converter=np.zeros(n_cols, np.intp),
        independent_selects=inhibit,
        inhibit=inhibit,
        channel_names=tuple(f"channel {k}" for k in range(-(-n_rows // width))),
        converter_names=("converter 0",),
        row_ok=np.ones(n_rows, np.bool_),
        col_ok=np.ones(n_cols, np.bool_),
    )


def cells(n_rows: int, n_cols: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(14e-6, 4e-6, (n_rows, n_cols)).clip(0.2e-6)


@pytest.mark.parametrize("inhibit", [True, False])
def test_the_network_agrees_with_a_full_nodal_solve(inhibit: bool) -> None:
    wires = wiring(8, 6, inhibit=inhibit)
    cell_s = cells(8, 6)
    resistances = Resistances(np.array([100.0, 140.0]), 3.0, 5.0)
    found = OpenColumns(cell_s, np.arange(6), wires, resistances).rows_alone_s()
    r_on_ohm = resistances.r_on_ohm[wires.row_channel]
    for row in range(8):
        drive = np.full(8, np.nan)
        if not inhibit:
            drive[wires.row_position == wires.row_position[row]] = 0.0
        drive[row] = 1.0
        want = solve_column_currents_a(cell_s, drive, r_on_ohm, np.full(6, 3.0), np.full(8, 5.0))
        np.testing.assert_allclose(found[row], want, rtol=1e-9)


def test_rows_in_one_phase_give_less_than_their_sum() -> None:
    wires = wiring(12, 5)
    cell_s = cells(12, 5, 1)
    resistances = Resistances(np.full(3, 120.0), 1.0, 8.0)
    network = OpenColumns(cell_s, np.arange(5), wires, resistances)
    rows = np.array([1, 6, 9])
    drive = np.full(12, np.nan)
    drive[rows] = 1.0
    want = solve_column_currents_a(cell_s, drive, np.full(12, 120.0), np.full(5, 1.0), np.full(12, 8.0))
    together = network.together_s(rows).sum(axis=0)
    np.testing.assert_allclose(together, want, rtol=1e-9)
    assert (together < network.rows_alone_s()[rows].sum(axis=0)).all()


def test_conductances_come_back_from_the_currents_of_rows_alone() -> None:
    wires = wiring(32, 24)
    cell_s, cols = cells(32, 24, 2), 2 * np.arange(24)
    rows = np.arange(32)
    resistances = Resistances(np.linspace(90, 160, 8), 5.0, 30.0)
    drive_v = np.full((32, 24), 0.2)
    measured_a = OpenColumns(cell_s, cols, wires, resistances).rows_alone_s() * drive_v
    found = by_ladder_s(measured_a, drive_v, rows, cols, wires, resistances)
    errors, before = [np.abs(found - cell_s).max()], None
    for _ in range(4):
        model_s = OpenColumns(found, cols, wires, resistances).rows_alone_s()
        step = missing_s(measured_a, model_s, drive_v, rows, cols, wires, resistances)
        better = found + step if before is None else secant_s(found, before[0], step, before[1])
        before, found = (found, step), better
        errors.append(np.abs(found - cell_s).max())
    assert errors[0] > 0.01e-6, "back ways through floating rows matter here"
    assert errors[-1] < 1e-3 * errors[0]


@pytest.mark.parametrize("inhibit", [True, False])
def test_offsets_of_channels_and_columns_are_told_apart(inhibit: bool) -> None:
    wires, rng = wiring(24, 10, inhibit=inhibit), np.random.default_rng(3)
    alone_s = cells(24, 10, 3)
    row_v, col_v = rng.normal(0, 1e-3, 6), rng.normal(0, 1e-3, 10)
    col_v -= np.median(col_v)
    driven_a = (row_v[wires.row_channel][:, None] - col_v) * alone_s
    groups = [np.array([r]) for r in range(24)]
    if not inhibit:
        groups = [np.flatnonzero(wires.row_position == p) for p in range(4)]
    idle_a = np.empty_like(driven_a)
    for group in groups:
        idle_a[group] = driven_a[group].sum(axis=0)
    found_row_v, found_col_v = split_offsets(alone_s, idle_a, driven_a.sum(axis=0), wires.row_channel, groups)
    np.testing.assert_allclose(found_row_v, row_v, atol=1e-8)
    np.testing.assert_allclose(found_col_v, col_v, atol=1e-8)


@pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=["independent", "common"])
def test_part_zero_finds_the_offsets_of_a_board(lay, tree) -> None:
    for seed in (1, 2):
        laid = lay(tree, seed=seed)
        part = zero.measure(laid.bench, zero.ZeroOptions(n_passes=24, n_together=200))
        truth = laid.truth
        level_v = float(np.median(truth.column_offset_v))
        rows_v = truth.row_offset_v + truth.idle_v * (1.0 + truth.row_gain_error) - level_v
        for name, true_v in (("row_offset_v", rows_v), ("column_offset_v", truth.column_offset_v - level_v)):
            found = part.quantities[name]
            assert found.ok.all()
            # Zero codes of 64 conversions leave more on an array this small than on one of 512 rows.
            assert np.abs(found.value - true_v).max() < 0.12e-3, name
            assert np.abs(true_v).max() > 0.25e-3, name
        assert part.quantities["row_works"].value.all()
        assert part.quantities["col_works"].value.all()
        assert part.findings == ()


def test_dead_lines_are_named_and_left_out() -> None:
    board, fabric, _ = emulate(larger(), seed=9, faults={"line_open": 0.05})
    hidden = board.array.chip.faults
    assert hidden.open_rows.any()
    assert hidden.open_cols.any()
    with open_session(
        BoardBackend(fabric, board.profile, identity={"board_serial": "B1"}, tolerate_faults=True)
    ) as session:
        part = zero.measure(CalibrationBench(session, new_calibration(session, seed=0), v_read_v=0.2))
    np.testing.assert_array_equal(part.quantities["row_works"].value, ~hidden.open_rows)
    np.testing.assert_array_equal(part.quantities["col_works"].value, ~hidden.open_cols)
    text = " ".join(part.findings)
    assert all(str(k) in text for k in (*np.flatnonzero(hidden.open_rows), *np.flatnonzero(hidden.open_cols)))
    assert np.isfinite(part.quantities["column_offset_v"].value).all()


@pytest.mark.parametrize("channel", [0, 2])
def test_a_channel_whose_rows_carry_nothing_is_left_out_the_last_one_too(lay, channel: int) -> None:
    laid = lay(seed=2)
    for name in ("conductance_s", "programmed_s"):
        laid.board.array.chip.state.cells[name][8 * channel : 8 * channel + 8] = 1e-9
    laid.board.array.refresh()
    part = zero.measure(laid.bench)
    np.testing.assert_array_equal(part.quantities["row_offset_v"].ok, np.arange(3) != channel)
    np.testing.assert_array_equal(part.quantities["row_works"].value, np.arange(24) // 8 != channel)
    assert any(f"rows {8 * channel}-{8 * channel + 7} are left out" in text for text in part.findings)


def test_an_array_that_is_not_formed_is_said_to_be_so(lay) -> None:
    laid = lay(seed=2, forming={"formed": False})
    with pytest.raises(CalibrationError, match="not formed"):
        zero.measure(laid.bench)


def known_noise(laid: Any, lsb: float = 0.8) -> None:
    n = laid.bench.wiring.n_converters
    quantities = {"read_noise": Quantity.of(0.02), "converter_noise_lsb": Quantity.of(np.full(n, lsb))}
    laid.bench.known = laid.bench.known.with_part(Part("noise", quantities))


def test_resistances_of_a_hidden_chip_are_found(lay) -> None:
    strays = []
    for seed in (1,):
        laid = lay(larger(), seed=seed, lines=WIRES)
        laid.bench.known = laid.bench.known.with_part(zero.measure(laid.bench))
        part = line.measure(laid.bench, line.LineOptions(n_columns=48, n_passes=24, n_together=60))
        found, chip = part.quantities, laid.board.array.chip
        # 48 columns load a row by 6 % only, where 512 load it by half.
        np.testing.assert_allclose(found["r_on_ohm"].value, chip.r_on_ohm, atol=12.0)
        np.testing.assert_allclose(found["row_ohm"].value, 4.0, atol=0.25)
        np.testing.assert_allclose(found["col_ohm"].value, 6.0, atol=0.6)
        for name, true in (("r_on_ohm", chip.r_on_ohm), ("row_ohm", 4.0), ("col_ohm", 6.0)):
            strays += np.atleast_1d((found[name].value - true) / found[name].uncertainty).tolist()
    assert 0.4 < np.std(strays) < 1.8
    assert np.abs(strays).max() < 5.0


def test_a_start_far_off_ends_at_the_same_resistances(lay) -> None:
    laid = lay(larger(), seed=4, lines=WIRES)
    laid.bench.known = laid.bench.known.with_part(zero.measure(laid.bench))
    options = line.LineOptions(n_columns=48, n_passes=4, n_together=40, n_steps=6)
    data = line.take(laid.bench, options)
    near = line.fit(laid.bench, data, options)
    far = line.fit(
        laid.bench, data, line.LineOptions(n_steps=8, start_r_on_ohm=300.0, start_row_ohm=0.0, start_col_ohm=0.0)
    )
    np.testing.assert_allclose(far.resistances.r_on_ohm, near.resistances.r_on_ohm, atol=0.5)
    assert abs(far.resistances.row_ohm - near.resistances.row_ohm) < 0.02
    assert abs(far.resistances.col_ohm - near.resistances.col_ohm) < 0.05


def test_conductances_noise_and_faults_of_a_hidden_chip_are_found(lay) -> None:
    effects = {"lines": WIRES, "tia": {"gain_sigma": 0.0}, "adc": {"gain_sigma": 0.0}, "telegraph": {"enabled": False}}
    laid = lay(larger(), seed=6, faults={"noisy": 0.02, "stuck_off": 0.02}, **effects)
    chip = laid.board.array.chip
    laid.bench.known = laid.bench.known.with_part(zero.measure(laid.bench))
    resistances = {"r_on_ohm": chip.r_on_ohm, "row_ohm": 4.0, "col_ohm": 6.0}
    laid.bench.known = laid.bench.known.with_part(
        Part("line", {name: Quantity.of(value) for name, value in resistances.items()})
    )
    known_noise(laid)
    part = array.measure(laid.bench)
    found, true_s = part.quantities["conductance_s"], chip.conductance_s
    quiet = (chip.faults.noise_factor == 1.0) & (true_s > 2e-6)
    stray = ((found.value - true_s) / np.hypot(found.uncertainty, 2e-4 * true_s))[quiet]
    assert 0.8 < np.std(stray) < 1.3
    assert abs(np.median(found.value[quiet] / true_s[quiet] - 1.0)) < 1.5e-3
    noisy = chip.faults.noise_factor > 1.0
    says = part.quantities["faults"].value
    assert (says[noisy & (true_s > 2e-6)] & Fault.NOISY).all()
    assert (says[~noisy & (true_s > 2e-6)] & Fault.NOISY).mean() < 0.01
    np.testing.assert_array_equal((says & Fault.UNFORMED) > 0, true_s < 1e-6)
    own = part.quantities["read_noise_cell"].value
    assert np.median(own[noisy & (true_s > 2e-6)]) == pytest.approx(0.2, rel=0.2)
    assert np.median(own[~noisy]) == 0.02
    assert float(part.quantities["forming_mean_s"].value) == pytest.approx(true_s[true_s > 1e-6].mean(), rel=0.01)
    assert len(part.findings) == 2
