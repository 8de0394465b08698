"""A simulator that was given a board's true parameters answers as that board does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from boards import common, emulate

from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.emulator import EmulatedBoard
from hil import differential_tile, open_session, single_ended_tile
from hil.backend import Pulse
from hil.calibration_file import BoardIdentity, Calibration, Part, Quantity
from hil.errors import CalibrationError, ConfigError
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

EFFECTS: dict[str, Any] = {
    "lines": {"row_ohm": 1.5, "col_ohm": 1.5},
    "noise": {"flicker_share": 0.0},
    "telegraph": {"enabled": False},
    "tia": {"offset_sigma_v": 2e-3},
}
SEED = 6


def true_calibration(board: EmulatedBoard, backend: BoardBackend) -> Calibration:
    """What a perfect calibration of an emulated board would find."""
    chip, profile, info = board.array.chip, board.profile, backend.info
    channels = [profile.row_channel(m) for m in range(profile.mux.count)]
    gain = np.array([board.dacs[chip]._gain[k] for chip, k in channels]) - 1.0
    offset_v = np.array([board.dacs[chip]._offset_v[k] for chip, k in channels])
    lane = profile.column_lane(np.arange(profile.cols))
    rows, cols = board.array.shape
    assert info.wiring is not None
    values: dict[str, dict[str, Any]] = {
        "zero": {"column_offset_v": chip.tias.offset_v},
        "dac": {"row_gain_error": gain, "row_offset_v": offset_v + gain * profile.tia.v_common_v},
        "tia": {"amps_per_code": 1.0 / (board.adcs._scale[lane] * 20e3 * (1.0 + chip.tias.gain_error))},
        "line": {
            "r_on_ohm": chip.r_on_ohm,
            "row_ohm": chip.settings.lines.row_ohm,
            "col_ohm": chip.settings.lines.col_ohm,
        },
        "noise": {
            "read_noise": 0.02,
            "flicker_share": 0.0,
            "converter_noise_lsb": np.full(profile.adc.count, 0.8),
        },
        "array": {"conductance_s": chip.conductance_s, "read_noise_cell": np.full((rows, cols), 0.02)},
    }
    parts = {
        name: Part(name, {key: Quantity.of(value, 1e-9) for key, value in of.items()}) for name, of in values.items()
    }
    board_identity = replace(BoardIdentity.of(info), serial="board-7")
    return Calibration(board_identity, info.wiring, info.identity["electrics"], parts, created_unix_s=1.7e9)


@pytest.fixture(scope="module", params=["independent", "common"])
def measured(request: pytest.FixtureRequest) -> tuple[BoardBackend, Calibration]:
    """A board with its true calibration applied, and that calibration."""
    board, fabric, bare = emulate(common() if request.param == "common" else None, seed=SEED, **EFFECTS)
    calibration = true_calibration(board, bare)
    return BoardBackend(fabric, board.profile, name="emulator", calibration=calibration), calibration


def independent() -> Calibration:
    board, _, bare = emulate(seed=SEED, **EFFECTS)
    return true_calibration(board, bare)


def with_value(calibration: Calibration, part: str, name: str, value: Any, ok: Any = True) -> Calibration:
    old = calibration.parts[part]
    return calibration.with_part(replace(old, quantities={**old.quantities, name: Quantity.of(value, 0.0, ok)}))


def test_it_answers_as_its_board_does(measured: tuple[BoardBackend, Calibration]) -> None:
    """Mean within a tenth of the noise, and the same noise: of single columns, on rows and columns beside which there
    are others."""
    emulator, calibration = measured
    n_repeat = 400
    tile, bits = single_ended_tile(20, 12, row0=2), np.random.default_rng(4).random((3, 20)) < 0.3
    x = np.repeat(bits, n_repeat, axis=0)
    found = []
    for backend in (emulator, SimBackend(seed=1, calibration=calibration)):
        with open_session(backend) as session:
            found.append(session.vmm(x, tile, 0.2).reshape(3, n_repeat, 12).astype(float))
    board, simulator = found
    noise_a = board.std(axis=1)
    bias = (simulator.mean(axis=1) - board.mean(axis=1)) / noise_a
    # Both have zero codes of their own, averages of 64 or more conversions, and codes rounded channel by channel.
    zero = 0.8 * np.sqrt(8) * np.sqrt(2 / 64) * (2 * 0.9 / 2**14 / 20e3) / noise_a
    assert np.sqrt((bias**2).mean()) < 0.1 + np.sqrt(2 / n_repeat) + zero.mean()
    assert abs(bias.mean()) < 0.1
    np.testing.assert_allclose(simulator.std(axis=1) / noise_a, 1.0, atol=0.2)


def test_without_the_measured_offsets_it_would_not(measured: tuple[BoardBackend, Calibration]) -> None:
    """The amplifiers' offsets are what distinguishes columns: that test can fail."""
    _, calibration = measured
    tile, bits = single_ended_tile(24, 16), np.ones((500, 24), np.bool_)
    wrong = with_value(calibration, "zero", "column_offset_v", np.zeros(16))
    means, noise_a = [], 0.0
    for known in (calibration, wrong):
        with open_session(SimBackend(seed=1, calibration=known)) as session:
            found = session.vmm(bits, tile, 0.2)
        means.append(found.mean(axis=0))
        noise_a = found.std(axis=0)
    assert (np.abs(means[1] - means[0]) / noise_a).max() > 1.0


def test_single_cells_too(measured: tuple[BoardBackend, Calibration]) -> None:
    emulator, calibration = measured
    mask = np.random.default_rng(0).random((24, 16)) < 0.1
    found = []
    for backend in (emulator, SimBackend(seed=1, calibration=calibration)):
        with open_session(backend) as session:
            found.append(session.read(mask, 0.2, n_average=400))
    lsb_a = 2 * 0.9 / 2**14 / 20e3
    np.testing.assert_allclose(found[1], found[0], rtol=0.006, atol=0.5 * lsb_a)


def test_it_says_what_it_stands_for() -> None:
    calibration = independent().with_validation({"text": "well"})
    info = SimBackend(seed=3, calibration=calibration).info
    assert info.calibration_id == calibration.calibration_id
    assert info.identity["chip"] == "calibrated simulator of board-7"
    assert info.identity["board_serial"] == "simulated board-7"
    assert info.identity["calibration"] == {
        "id": calibration.calibration_id,
        "created_unix_s": 1.7e9,
        "validation": "well",
    }
    assert info.shape == (24, 16)
    assert info.wiring is not None
    assert info.wiring.converter_names[0].startswith("ADS8324")
    assert info.identity["electrics"]["selects"] == "independent"


def test_a_drawn_simulator_has_wiring_too() -> None:
    info = SimBackend(SimSettings.model_validate({"rows": 20, "cols": 6, "mux": {"inhibit": True}})).info
    assert info.wiring is not None
    assert info.wiring.channel_names == ("mux 0", "mux 1", "mux 2")
    assert info.wiring.row_channel[17] == 2
    assert info.wiring.row_position[17] == 1
    assert info.wiring.converter_names[5] == "column 5"
    assert info.wiring.col_converter[5] == 5
    assert info.wiring.inhibit
    assert not info.wiring.independent_selects
    assert info.calibration_id is None
    # The facts that a calibration of it will have are those that a board tells.
    board = emulate()[2].info.identity["electrics"]
    assert set(info.identity["electrics"]) == set(board) - {"dac_vdd_v"}, "a simulator needs no supply"


def test_missing_parts_are_named() -> None:
    calibration = independent()
    parts = {name: part for name, part in calibration.parts.items() if name not in ("line", "array")}
    with pytest.raises(CalibrationError, match="line, array"):
        SimBackend(calibration=replace(calibration, parts=parts))


@pytest.mark.parametrize(
    ("name", "value"),
    [("mux_width", 0), ("selects", "none"), ("r_feedback_ohm", None), ("adc_bits", 14.5), ("v_common_v", float("nan"))],
)
def test_a_board_that_cannot_be_is_refused(name: str, value: Any) -> None:
    calibration = independent()
    with pytest.raises(CalibrationError, match=r"says of its board what none can have"):
        SimBackend(calibration=replace(calibration, electrics={**calibration.electrics, name: value}))


def test_electrics_that_are_missing_are_named() -> None:
    calibration = independent()
    electrics = {name: value for name, value in calibration.electrics.items() if name != "adc_bits"}
    with pytest.raises(CalibrationError, match="does not say adc_bits"):
        SimBackend(calibration=replace(calibration, electrics=electrics))


def test_a_value_beyond_all_reason_is_refused() -> None:
    cells_s = np.array(independent().value("conductance_s"))
    cells_s[0, 0] = 1e300
    calibration = with_value(independent(), "array", "conductance_s", cells_s)
    with (
        pytest.raises(CalibrationError, match="conductance_s goes up to 1e\\+300"),
        open_session(SimBackend(calibration=calibration)),
    ):
        pass


@pytest.mark.parametrize("name", ["read_noise", "flicker_share", "row_ohm"])
def test_a_number_that_could_not_be_measured_does_not_make_results_that_are_none(name: str) -> None:
    part = next(key for key in ("noise", "line") if name in independent().parts[key].quantities)
    calibration = with_value(independent(), part, name, np.array(np.nan))
    with open_session(SimBackend(calibration=calibration)) as session:
        found = session.vmm(np.ones((3, 24), np.bool_), single_ended_tile(24, 16), 0.2)
    assert np.isfinite(found).all()


def test_settings_that_contradict_it_are_refused_by_name(tmp_path: Any) -> None:
    calibration = independent()
    with pytest.raises(ConfigError, match=r"sim\.rows is 32.*24"):
        SimBackend(SimSettings(rows=32), calibration=calibration)
    with pytest.raises(ConfigError, match=r"sim\.chip"):
        SimBackend(SimSettings(chip=tmp_path / "chip.h5"), calibration=calibration)
    assert SimBackend(SimSettings(rows=24), calibration=calibration).info.shape == (24, 16)


def test_dead_lines_conduct_nothing_and_are_told() -> None:
    calibration = independent()
    works = np.ones(24, np.bool_)
    works[8:16] = False
    calibration = with_value(calibration, "array", "row_works", works)
    col_works = np.ones(16, np.bool_)
    col_works[5] = False
    calibration = with_value(calibration, "zero", "col_works", col_works)
    backend = SimBackend(SimSettings.model_validate({"ideal": True}), calibration=calibration)
    with open_session(backend) as session:
        alone_a = session.vmm(np.eye(24, dtype=np.bool_), single_ended_tile(24, 16), 0.2)
    assert not alone_a[~works].any()
    assert np.abs(alone_a[:, 5]).max() < 1e-15
    assert np.delete(alone_a[works], 5, axis=1).min() > 1e-9
    wiring = backend.info.wiring
    assert wiring is not None
    assert np.array_equal(wiring.row_ok, works)
    assert np.array_equal(wiring.col_ok, col_works)


def test_values_that_nobody_vouches_for() -> None:
    """A cell's conductance is used as measured, or as the mean where there is no number; the rest never."""
    calibration = independent()
    cells_s = np.array(calibration.value("conductance_s"))
    cells_s[0, :3] = [np.nan, -1e-7, 9e-5]
    noise = np.full(cells_s.shape, 0.02)
    noise[1, 1] = 70.0
    offset_v = np.array(calibration.value("column_offset_v"))
    ok = np.ones(cells_s.shape, np.bool_)
    ok[0, :3] = ok[1, 1] = False
    col_ok = np.ones(16, np.bool_)
    col_ok[4] = False
    offset_v[4] = 1.0
    calibration = with_value(calibration, "array", "conductance_s", cells_s, ok)
    calibration = with_value(calibration, "array", "read_noise_cell", noise, ok)
    calibration = with_value(calibration, "zero", "column_offset_v", offset_v, col_ok)
    backend = SimBackend(calibration=calibration)
    with open_session(backend):
        chip = backend._open_chip()
    assert chip.conductance_s[0, :3] == pytest.approx([cells_s[ok].mean(), 0.0, 9e-5])
    assert chip.read_noise()[1, 1] == pytest.approx(0.02)
    assert chip.tias.offset_v[4] == pytest.approx(np.delete(offset_v, 4).mean())


def test_effects_can_be_switched_off() -> None:
    calibration = independent()
    tile, bits = differential_tile(24, 8), np.ones((50, 24), np.bool_)
    with open_session(SimBackend(SimSettings(ideal=True), calibration=calibration)) as session:
        found = session.vmm(bits, tile, 0.2)
    cells_s = calibration.value("conductance_s")
    expected_a = 0.2 * (cells_s[:, ::2] - cells_s[:, 1::2]).sum(axis=0)
    np.testing.assert_allclose(found, np.tile(expected_a, (50, 1)), atol=1e-6 * 0.2 * cells_s.sum(axis=0).max())


def test_noise_is_that_of_each_cell() -> None:
    calibration = independent()
    relative = np.where(np.random.default_rng(0).random((24, 16)) < 0.5, 0.01, 0.05)
    calibration = with_value(calibration, "array", "read_noise_cell", relative)
    quiet = {part: {"enabled": False} for part in ("lines", "mux", "tia", "adc")}
    backend = SimBackend(SimSettings.model_validate(quiet), calibration=calibration)
    with open_session(backend) as session:
        found = session.vmm(np.tile(np.arange(24) == 5, (3000, 1)), single_ended_tile(24, 16), 0.2)
        mask = np.zeros((24, 16), np.bool_)
        mask[5] = True
        reads = np.stack([session.read(mask, 0.2) for _ in range(600)])
    np.testing.assert_allclose(found.std(axis=0) / found.mean(axis=0) / relative[5], 1.0, atol=0.07)
    np.testing.assert_allclose(reads.std(axis=0) / reads.mean(axis=0) / relative[5], 1.0, atol=0.15)


def test_cells_can_be_programmed_from_where_they_are() -> None:
    calibration = independent()
    cells_s = np.array(calibration.value("conductance_s"))
    cells_s[2, 2] = 0.15e-6
    backend = SimBackend(calibration=with_value(calibration, "array", "conductance_s", cells_s))
    mask = np.zeros((24, 16), np.bool_)
    mask[2, 2] = mask[3, 3] = True
    with open_session(backend) as session:
        chip = backend._open_chip()
        assert chip.conductance_s[2, 2] == 0.15e-6
        assert not chip.formed[2, 2]
        assert chip.formed[3, 3]
        session.pulse(mask, Pulse("form", 4.0, 1.2, 1e-3))
        assert chip.formed[2, 2]
        assert chip.conductance_s[2, 2] > 1e-6
