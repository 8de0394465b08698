"""Parts that an emulated board has dead from the start, by its settings."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, as_toml, profile

from firmware_bridge.emulator import emulated_backend
from firmware_bridge.emulator.board import EmulatedBoard
from firmware_bridge.emulator.fabric import EmulatedFabric
from firmware_bridge.emulator_settings import EmulatorSettings
from hil.cli.settings import load_settings
from hil.errors import ConfigError, DeviceError
from hil.factory import create_backend
from hil.session import open_session
from sim_backend.settings import SimSettings


def board(seed: int = 3, **settings: Any) -> EmulatedBoard:
    sim = SimSettings.model_validate({"rows": 24, "cols": 16, "mux": {"width": 8}})
    return EmulatedBoard(profile(), sim, seed, EmulatorSettings(**settings))


def test_dead_lines_are_a_share_drawn_from_the_seed() -> None:
    faults = [board(seed, dead_columns=0.25, dead_rows=0.125).array.chip.faults for seed in (3, 3, 4)]
    for one in faults:
        assert one.open_cols.sum() == 4
        assert one.open_rows.sum() == 3
    np.testing.assert_array_equal(faults[0].open_cols, faults[1].open_cols)
    assert (faults[0].open_cols != faults[2].open_cols).any()


def test_more_dead_lines_include_the_fewer() -> None:
    few, many = (board(dead_columns=share).array.chip.faults.open_cols for share in (0.125, 0.5))
    assert few.sum() == 2
    assert not (few & ~many).any()


def test_nothing_flows_through_dead_lines_and_the_rest_of_the_chip_is_the_same() -> None:
    whole, broken = board(), board(dead_columns=0.25, dead_rows=0.125)
    faults = broken.array.chip.faults
    alive = ~(faults.open_rows[:, None] | faults.open_cols)
    conductance_s = broken.array.chip.conductance_s
    assert not conductance_s[~alive].any()
    np.testing.assert_array_equal(conductance_s[alive], whole.array.chip.conductance_s[alive])
    np.testing.assert_array_equal(broken.array.chip.r_on_ohm, whole.array.chip.r_on_ohm)
    np.testing.assert_array_equal(broken.array.chip.tias.offset_v, whole.array.chip.tias.offset_v)
    assert broken.noise.bit_generator.state == whole.noise.bit_generator.state


def test_a_dead_dac_channel_gives_0_v_whatever_it_is_told() -> None:
    found = board(dead_dac_channels=((0, 1),))
    found.apply_faults()
    dac = found.dacs[0]
    for channel in range(3):
        dac.frame((0x08 + channel) << 16 | 0x4000, 24)
    assert dac.outputs_v[0] > 0.5
    assert dac.outputs_v[1] == 0.0
    dac.frame(0x89_0000, 24)
    assert dac.frame(0, 24) & 0xFFFF == 0x4000, "its register works, so that read-back does not find it"
    found.faults.dead_dac_channels.clear()
    found.apply_faults()
    assert dac.outputs_v[1] == pytest.approx(dac.outputs_v[0], rel=0.01)


def test_a_channel_that_dies_under_way_is_felt_at_once() -> None:
    found = board()
    fabric = EmulatedFabric(found)
    for dac in found.dacs:
        dac.frame(0x08_4000, 24)
    fabric._levels_changed()
    assert found.analogue.inputs.row_v[0] > 0.5
    found.faults.dead_dac_channels.add((0, 0))
    fabric.read(0)
    assert found.analogue.inputs.row_v[0] == 0.0


def test_a_clipping_converter_is_at_its_upper_end() -> None:
    found = board(clipping_adcs=(1,))
    found.apply_faults()
    codes = found.adcs.convert(np.full((5, 2), 1.6), np.arange(2), found.noise)
    assert (codes[:, 1] == 8191).all()
    assert (np.abs(codes[:, 0] - 6372) < 50).all()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"dead_dac_channels": ((2, 0),)}, "emulator.dead_dac_channels names DAC chip 2, but .* has 2"),
        ({"dead_dac_channels": ((0, 8),)}, "names DAC channel 8, but .* has 8"),
        ({"dead_dac_channels": ((0, -1),)}, "names DAC channel -1"),
        ({"clipping_adcs": (2,)}, "emulator.clipping_adcs names ADC lane 2, but .* has 2"),
        ({"smu_row": 24}, "emulator.smu_row names bit line 24, but .* has 24"),
    ],
)
def test_parts_that_the_board_does_not_have_are_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        board(**settings)


def test_settings_reach_the_board_from_the_command_line(tmp_path: Any) -> None:
    file = tmp_path / "board.toml"
    file.write_text(as_toml(INDEPENDENT))
    overrides = [f"board.profile={file}", "emulator.dead_dac_channels=[[0, 2]]", "emulator.clipping_adcs=[0]"]
    overrides += ["emulator.dead_columns=0.125", "emulator.smu_row=9"]
    backend = create_backend("emulator", load_settings(None, overrides), seed=5)
    found = backend.fabric.board  # type: ignore[attr-defined]
    assert found.faults.dead_dac_channels == {(0, 2)}
    assert found.faults.clipping_adcs == {0: 1}
    assert found.array.chip.faults.open_cols.sum() == 2
    assert found.emulator.smu_row == 9
    assert backend.info.identity["emulator"]["dead_dac_channels"] == [[0, 2]]


@pytest.mark.parametrize("text", ["dead_columns=1.1", "dead_rows=-0.1", "dead_dac_channels=[3]", "smu_row=-1"])
def test_impossible_settings_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text.partition("=")[0])):
        load_settings(None, [f"emulator.{text}"])


@pytest.mark.parametrize(
    ("settings", "part"),
    [({"dead_dac_channels": ((0, 1),)}, "CD4051B mux 1"), ({"clipping_adcs": (1,)}, "ADS8324 lane 1")],
)
def test_the_self_test_names_them(tmp_path: Any, settings: dict[str, Any], part: str) -> None:
    file = tmp_path / "board.toml"
    file.write_text(as_toml(INDEPENDENT))
    backend = emulated_backend(str(file), SimSettings(), 5, emulator=EmulatorSettings(**settings))
    with pytest.raises(DeviceError, match=f"1 part of the board failed: {part}"):
        backend.open()
    assert backend.fabric.board.is_safe  # type: ignore[attr-defined]


def test_another_session_of_a_chip_draws_other_noise_and_keeps_the_cells() -> None:
    made = [
        emulated_backend("tiny-8x8", SimSettings(), 3, emulator=EmulatorSettings(noise_session=number))
        for number in (0, 0, 1)
    ]
    chips = [backend.fabric.board.array.chip.conductance_s for backend in made]
    np.testing.assert_array_equal(chips[0], chips[2])
    read = []
    for backend in made:
        with open_session(backend) as session:
            read.append(session.read(np.ones((8, 8), np.bool_), 0.2))
    np.testing.assert_array_equal(read[0], read[1])
    assert (read[0] != read[2]).mean() > 0.9
