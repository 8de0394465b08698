"""Validation: figures that can be worked out by hand, and the inputs that it asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from linear_array import COLS, ELECTRICS, MUX, ROWS, LinearArray, calibration, cells_s

from calibration.validate import ValidateOptions, Validation, validate
from calibration.validation_inputs import InputOptions, InputSet, converter_range_a, input_sets, network_tile
from hil.calibration_file import Calibration, Quantity
from hil.errors import ConfigError
from hil.tile import single_ended_tile

FEW = ValidateOptions(inputs=InputOptions(n_inputs=16), n_repeats=6, n_bootstrap=200)
Change = Callable[[LinearArray], None]


def compare(change: Change | None = None, *, options: ValidateOptions = FEW, **kwargs: Any) -> Validation:
    """A board against a simulator of the same cells, in which something is changed."""
    found = calibration()
    board = LinearArray(cells_s(), seed=1, calibration_id=found.calibration_id)
    simulator = LinearArray(cells_s(), seed=2, calibration_id=found.calibration_id)
    if change is not None:
        change(simulator)
    kwargs.setdefault("uncalibrated", LinearArray(cells_s(9), seed=3))
    return validate(board, simulator, found, v_read_v=0.2, options=options, now_unix_s=lambda: 5.0, **kwargs)


def test_a_perfect_simulator_has_the_noise_of_two_sides_and_nothing_else() -> None:
    found = compare()
    assert found.holds
    assert found.calibrated.rms_ratio == pytest.approx(np.sqrt(2), rel=0.02)
    assert abs(found.calibrated.bias_ratio) < 0.02
    assert found.calibrated.systematic_ratio < 0.15
    for outcome in found.sets:
        assert outcome.calibrated.noise_ratio == pytest.approx(1.0, abs=0.1)
        assert outcome.calibrated.deviation_ks < 0.06
        assert outcome.clipped_share == 0.0
    assert [criterion.holds for criterion in found.criteria] == [True, True]


def test_an_unknown_chip_is_far_off() -> None:
    other = compare().uncalibrated
    assert other is not None
    assert other.rms_ratio > 5.0
    assert other.systematic_ratio > 5.0


def offset(sigmas: float) -> Change:
    """An offset in sigmas of single rows, where it is known best."""

    def change(simulator: LinearArray) -> None:
        simulator.offset_a[::2] -= sigmas * 5e-9

    return change


def test_a_bias_is_found_with_its_sign_and_size() -> None:
    found = compare(offset(40.0))
    outcome = next(s for s in found.sets if s.name == "other voltage")
    assert outcome.calibrated.bias_ratio * outcome.sigma_a == pytest.approx(40.0 * 5e-9, rel=0.05)
    low, high = outcome.calibrated.bias_ratio_interval
    assert low < outcome.calibrated.bias_ratio < high
    assert outcome.calibrated.output_bias_ratio == pytest.approx(outcome.calibrated.bias_ratio, rel=0.05)
    bias = next(criterion for criterion in found.criteria if criterion.name == "bias_ratio")
    assert not bias.holds
    assert bias.value == pytest.approx(found.calibrated.bias_ratio)
    assert bias.worst_set in {s.name for s in found.sets}
    assert not found.holds


def test_wrong_cells_are_a_systematic_error_without_bias() -> None:
    def change(simulator: LinearArray) -> None:
        simulator.cells_s *= np.random.default_rng(4).normal(1.0, 0.03, simulator.cells_s.shape)

    found = compare(change)
    outcome = next(s for s in found.sets if s.name == "single rows")
    # 3 % of a cell against 2 % read noise and the converter's.
    assert 1.2 < outcome.calibrated.systematic_ratio < 1.7
    assert outcome.calibrated.rms_ratio**2 == pytest.approx(2.0 + outcome.calibrated.systematic_ratio**2, rel=0.05)
    assert not found.holds


def test_noise_of_another_size_is_seen() -> None:
    def change(simulator: LinearArray) -> None:
        simulator.noise *= 2.0

    outcome = next(s for s in compare(change).sets if s.name == "random 20 %")
    assert outcome.calibrated.noise_ratio == pytest.approx(2.0, rel=0.15)
    assert outcome.calibrated.rms_ratio == pytest.approx(np.sqrt(5), rel=0.1)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(20):
        found = calibration()
        board = LinearArray(cells_s(), seed=100 + seed, calibration_id=found.calibration_id)
        simulator = LinearArray(cells_s(), seed=200 + seed, calibration_id=found.calibration_id)
        outcome = validate(board, simulator, found, v_read_v=0.2, options=FEW, seed=seed).calibrated
        low, high = outcome.rms_ratio_interval
        held += low <= np.sqrt(2) <= high
    assert held >= 15


def test_sets_that_clip_are_told_and_not_judged() -> None:
    found = calibration()
    board = LinearArray(cells_s(), seed=1, calibration_id=found.calibration_id)
    simulator = LinearArray(cells_s(), seed=2, calibration_id=found.calibration_id)
    board.clip_a = 9e-6
    outcome = validate(board, simulator, found, v_read_v=0.2, options=FEW)
    assert "single rows" not in outcome.sets_not_judged
    assert outcome.sets_not_judged
    assert {s.name for s in outcome.sets if s.clipped_share > 1e-3} == set(outcome.sets_not_judged)
    board.clip_a = -1.0
    with pytest.raises(ConfigError, match="clipped in every set"):
        validate(board, simulator, found, v_read_v=0.2, options=FEW)


def test_the_same_seed_asks_and_finds_the_same() -> None:
    one, two, three = compare(seed=3), compare(seed=3), compare(seed=4)
    assert one.sets == two.sets
    assert one.calibrated == two.calibrated
    assert one.sets != three.sets


def test_the_outcome_goes_into_a_calibration_and_back() -> None:
    found = compare()
    kept = Calibration.with_validation(calibration(), found.as_mapping()).validation
    assert kept is not None
    again = json.loads(json.dumps(kept))
    assert again["holds"] is True
    assert again["criteria"][0]["name"] == "rms_ratio"
    assert again["calibration_id"] == found.calibration_id == calibration().calibration_id
    assert again["uncalibrated"]["rms_ratio"] == found.uncalibrated.rms_ratio  # type: ignore[union-attr]
    assert again["measured_unix_s"] == 5.0
    assert again["board"]["serial"] == "fake-1"


def test_a_simulator_without_noise_can_be_judged_and_a_board_without_noise_cannot() -> None:
    def silent(side: LinearArray) -> None:
        side.noise[:] = side.converter_lsb = 0.0

    found = compare(silent)
    assert found.calibrated.rms_ratio == pytest.approx(1.0, rel=0.02)
    assert found.sets[0].calibrated.noise_ratio == 0.0
    json.dumps(found.as_mapping(), allow_nan=False)
    known = calibration()
    sides = [LinearArray(cells_s(), seed=k, calibration_id=known.calibration_id) for k in (1, 2)]
    silent(sides[0])
    with pytest.raises(ConfigError, match="repeats itself exactly in set 'random 2 %'"):
        validate(*sides, known, v_read_v=0.2, options=FEW)


@pytest.mark.parametrize("which", [0, 1])
def test_who_has_another_calibration_is_refused(which: int) -> None:
    found = calibration()
    sides = [LinearArray(cells_s(), seed=k, calibration_id=found.calibration_id) for k in (1, 2)]
    sides[which] = LinearArray(cells_s(), seed=5, calibration_id=[None, "abc"][which])
    name = ["board", "simulator"][which]
    with pytest.raises(ConfigError, match=f"the {name} .* has .*calibration.* not {found.calibration_id}"):
        validate(*sides, found, v_read_v=0.2, options=FEW)


def asked(spikes: np.ndarray[Any, Any] | None = None, **of_wiring: Any) -> dict[str, InputSet]:
    found = calibration(**of_wiring)
    options = InputOptions(n_inputs=20)
    tile = network_tile(found, options)
    simulator = LinearArray(cells_s(), seed=2)
    return {s.name: s for s in input_sets(simulator, found, tile, 0.2, spikes, options, seed=0)}


def test_every_set_asks_what_its_name_says() -> None:
    sets = asked()
    assert (sets["single rows"].bits.sum(axis=1) == 1).all()
    channel = np.arange(ROWS) // MUX
    for bits in sets["one mux"].bits:
        assert bits.sum() == MUX
        assert len(np.unique(channel[bits])) == 1
    for bits in sets["all muxes"].bits:
        assert np.bincount(channel[bits]).max() == 1
    assert max(np.flatnonzero(sets["far rows"].bits.any(axis=0))) < ROWS / 4
    assert min(np.flatnonzero(sets["near rows"].bits.any(axis=0))) >= 3 * ROWS / 4
    assert sets["few columns"].tile.n_outputs < sets["random 2 %"].tile.n_outputs
    assert not sets["single-ended"].tile.differential
    assert sets["other voltage"].v_read_v == 0.1
    for name, activity in {"random 2 %": 0.02, "random 20 %": 0.2}.items():
        assert abs(sets[name].bits.mean() - activity) < 0.06
    for s in sets.values():
        assert s.bits.any(axis=1).all()
        assert len(s.bits) <= 20


def test_muxes_together_fill_the_range_and_no_more() -> None:
    """Cells of 10 uS carry 2 uA each: 40 of them fill the range of 80 uA, and six are all that there are."""
    found = calibration()
    assert converter_range_a(found) == pytest.approx(1.6 / 20e3)
    assert {bits.sum() for bits in asked()["all muxes"].bits} == {ROWS // MUX}
    narrow = {**ELECTRICS, "r_feedback_ohm": 200e3}
    smaller = Calibration(found.board, found.wiring, narrow)
    options = InputOptions(n_inputs=20)
    tile = network_tile(smaller, options)
    simulator = LinearArray(cells_s(), seed=2)
    sets = {s.name: s for s in input_sets(simulator, smaller, tile, 0.2, None, options, seed=0)}
    carried = sets["all muxes"].bits @ cells_s()[np.ix_(tile.rows, tile.cols)] * 0.2
    assert carried.max() <= 8e-6
    assert carried.max(axis=1).mean() > 4e-6


def test_common_selects_share_a_position() -> None:
    position = np.arange(ROWS) % MUX
    for bits in asked(independent_selects=False)["all muxes"].bits:
        assert len(np.unique(position[bits])) == 1


def test_spikes_are_asked_as_they_are() -> None:
    vectors = np.zeros((9, ROWS), np.bool_)
    vectors[np.arange(1, 9), np.arange(8)] = True
    bits = asked(vectors)["spikes"].bits
    np.testing.assert_array_equal(bits, vectors[1:])
    assert "spikes" not in asked()
    for wrong in (vectors[:, 1:], np.zeros_like(vectors)):
        with pytest.raises(ConfigError, match="spike vectors have shape"):
            asked(wrong)


def test_lines_that_do_not_work_are_left_out() -> None:
    row_works, col_works = np.ones(ROWS, np.bool_), np.ones(COLS, np.bool_)
    row_works[4:8], col_works[6] = False, False
    zero = {"row_works": Quantity.of(row_works), "col_works": Quantity.of(col_works)}
    tile = network_tile(calibration({"zero": zero}), InputOptions())
    assert tile.n_rows == ROWS - 4
    assert not np.isin(tile.rows, np.arange(4, 8)).any()
    assert 6 not in tile.cols
    nothing = {"row_works": Quantity.of(np.zeros(ROWS, np.bool_)), "col_works": Quantity.of(col_works)}
    with pytest.raises(ConfigError, match="leaves 0 working rows"):
        network_tile(calibration({"zero": nothing}), InputOptions())


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 repeats show no noise"):
        ValidateOptions(n_repeats=1)
    with pytest.raises(ConfigError, match="0 resamplings make no interval"):
        ValidateOptions(n_bootstrap=0)
    with pytest.raises(ConfigError, match="single-ended"):
        compare(tile=single_ended_tile(8, 8))
