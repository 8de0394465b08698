"""Every fault is found and named, and the array ends at zero bias."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate

from firmware_bridge.emulator.board import Faults
from hil import Pulse, differential_tile, open_session, single_ended_tile
from hil.errors import DeviceError, HilError, TransportError

TILE = differential_tile(20, 6)
WIRINGS = pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=["independent", "common"])


def dead_dac(faults: Faults) -> None:
    faults.dead_dacs.add(0)


def floating_sdo(faults: Faults) -> None:
    faults.floating_sdo.add(1)


def sagging_supply(faults: Faults) -> None:
    faults.dac_vdd_v = 4.7


def mux_stuck_at_a_position(faults: Faults) -> None:
    faults.stuck_muxes[2] = 1


def mux_never_connects(faults: Faults) -> None:
    faults.stuck_muxes[1] = -1


def adc_stuck_low(faults: Faults) -> None:
    faults.stuck_adcs[1] = 0


def adc_stuck_high(faults: Faults) -> None:
    faults.stuck_adcs[0] = 1


def adc_frozen_at_its_idle_code(faults: Faults) -> None:
    faults.frozen_adcs[1] = 6372


def adc_frozen_elsewhere(faults: Faults) -> None:
    faults.frozen_adcs[1] = -1234


def adc_clipping_high(faults: Faults) -> None:
    faults.clipping_adcs[0] = 1


def adc_clipping_low(faults: Faults) -> None:
    faults.clipping_adcs[1] = -1


#: fault -> what the error says
AT_POWER_UP: dict[Callable[[Faults], None], str] = {
    dead_dac: r"DAC80508 chip 0 .*dead or unpowered",
    floating_sdo: r"DAC80508 chip 1 .*SDO floats",
    sagging_supply: r"DAC80508 chip 0 .*REF_ALM.*DAC80508 chip 1 .*REF_ALM",
    mux_stuck_at_a_position: r"CD4051B mux 2: .*stuck",
    mux_never_connects: r"CD4051B mux 1: draws no current at any position",
    adc_stuck_low: r"ADS8324 lane 1: .*gives 0 on every column",
    adc_stuck_high: r"ADS8324 lane 0: .*null or dummy bits",
    adc_frozen_at_its_idle_code: r"ADS8324 lane 1: does not answer",
    adc_frozen_elsewhere: r"ADS8324 lane 1: .*gives -1234 on every column",
    adc_clipping_high: r"ADS8324 lane 0: clips",
    adc_clipping_low: r"ADS8324 lane 1: clips",
}


def name(value: Any) -> str | None:
    return value.__name__ if callable(value) else None


@WIRINGS
@pytest.mark.parametrize(("fault", "words"), AT_POWER_UP.items(), ids=name)
def test_found_at_power_up(tree: dict[str, Any], fault: Callable[[Faults], None], words: str) -> None:
    board, _, backend = emulate(tree)
    fault(board.faults)
    with pytest.raises(DeviceError, match=words):
        backend.open()
    assert board.is_safe
    assert any(check.ok is False for check in backend.self_test())


@WIRINGS
def test_a_healthy_board_passes(tree: dict[str, Any]) -> None:
    board, _, backend = emulate(tree)
    with open_session(backend) as session:
        parts = [check.part for check in session.self_test()]
        assert all(check.ok for check in session.self_test())
    n_muxes = tree["mux"]["count"]
    assert sum("DAC80508" in part for part in parts) == 2
    assert sum("ADS8324" in part for part in parts) == 2
    assert sum("CD4051B" in part for part in parts) == n_muxes
    assert board.is_safe


@WIRINGS
def test_a_pristine_array_is_no_fault(tree: dict[str, Any]) -> None:
    _, _, backend = emulate(tree, forming={"formed": False})
    backend.open()
    assert not any(check.ok is False for check in backend.self_test())


def test_an_array_that_does_not_conduct_at_all_leaves_the_muxes_untested() -> None:
    _, _, backend = emulate(forming={"formed": False, "pristine_s": 0.0})
    backend.open()
    muxes = [check for check in backend.self_test() if "CD4051B" in check.part]
    assert {check.ok for check in muxes} == {None}


def test_all_failed_parts_are_listed_together() -> None:
    board, _, backend = emulate()
    board.faults.dead_dacs.add(0)
    board.faults.floating_sdo.add(1)
    with pytest.raises(DeviceError, match=r"2 parts .*chip 0.*chip 1"):
        backend.open()


#: faults that come while a session runs -> what the next VMM says
IN_A_SESSION: dict[Callable[[Faults], None], str] = {
    dead_dac: r"DAC80508 chip 0: .*dead or unpowered",
    floating_sdo: r"DAC80508 chip 1: .*SDO floats",
    sagging_supply: r"DAC80508 chip 0: .*REF_ALM",
    adc_stuck_low: r"ADS8324 lane 1: all codes are 0",
    adc_stuck_high: r"ADS8324 lane 0: .*null or dummy bits",
}


@WIRINGS
@pytest.mark.parametrize(("fault", "words"), IN_A_SESSION.items(), ids=name)
def test_found_in_a_session(tree: dict[str, Any], fault: Callable[[Faults], None], words: str) -> None:
    board, _, backend = emulate(tree)
    x = np.ones((2, 20), np.bool_)
    with pytest.raises(DeviceError, match=words), open_session(backend) as session:  # noqa: PT012 - where it happens
        session.vmm(x, TILE, 0.2)
        fault(board.faults)
        session.vmm(x, TILE, 0.2)
    assert board.is_safe


def test_clipping_in_a_session_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    board, _, backend = emulate()
    with open_session(backend) as session:
        board.faults.clipping_adcs[1] = -1
        session.vmm(np.ones((2, 20), np.bool_), TILE, 0.2)
        values = session.telemetry().values
    assert values["clipped_sums_count"] > 0
    assert values["clips_lane_1_count"] > 0
    assert values["clips_lane_0_count"] == 0
    assert "on lanes [1]" in caplog.text


def test_a_repaired_board_comes_back() -> None:
    board, _, backend = emulate()
    with open_session(backend) as session:
        board.faults.dead_dacs.add(0)
        with pytest.raises(DeviceError):
            session.vmm(np.ones((1, 20), np.bool_), TILE, 0.2)
        board.faults.dead_dacs.clear()
        assert np.isfinite(session.vmm(np.ones((1, 20), np.bool_), TILE, 0.2)).all()


class TestLink:
    def test_a_wrong_bit_in_a_program_stops_it_before_it_runs(self) -> None:
        board, fabric, backend = emulate(forming={"formed": False})
        mask = np.ones((24, 16), np.bool_)
        with pytest.raises(TransportError, match=r"PROGRAM_CRC.*nothing was run"), open_session(backend) as session:  # noqa: PT012
            fabric.board.faults.link.flip_program_bit = (7, 3)
            session.pulse(mask, Pulse("form", 4.0, 1.5, 1e-6))
        assert not board.formed.any()
        assert board.is_safe

    def test_a_wrong_bit_in_a_result_is_not_used(self) -> None:
        board, _, backend = emulate()
        with pytest.raises(TransportError, match="wrong CRC"), open_session(backend) as session:  # noqa: PT012
            board.faults.link.flip_result_bit = (3, 12)
            session.vmm(np.ones((1, 20), np.bool_), TILE, 0.2)
        assert board.is_safe

    @pytest.mark.parametrize("register", ["ID", "VERSION", "GEOMETRY"])
    def test_another_fabric_is_refused(self, register: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from firmware_bridge import registers

        board, fabric, backend = emulate()
        offset = getattr(registers, register).offset
        honest = fabric.read
        monkeypatch.setattr(fabric, "read", lambda at: honest(at) ^ 0x10000 if at == offset else honest(at))
        with pytest.raises(HilError, match=re.compile(f"{register}|speaks version|built for", re.IGNORECASE)):
            backend.open()
        assert board.peak_bias_v == 0.0


@pytest.mark.parametrize(("v_read_v", "clips"), [(0.2, False), (0.5, True)])
def test_an_amplifier_at_its_end_is_flagged_although_the_converter_is_not(
    v_read_v: float, clips: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Sums that hold such conversions are too small; the user hears of it once, and the telemetry counts."""
    tree = deepcopy(INDEPENDENT)
    tree["tia"]["r_feedback_ohm"] = 100e3
    _, _, backend = emulate(tree)
    tile = single_ended_tile(24, 16)
    with open_session(backend) as session:
        for _ in range(2):
            found_a = session.vmm(np.ones((1, 24), np.bool_), tile, v_read_v)
        n = session.telemetry().values["clipped_sums_count"]
    end_a = 8.1 * backend.profile.tia.amplifier.current_max_a
    assert (found_a < end_a).all()
    assert (n > 0) == clips
    assert caplog.text.count("are too small") == clips


@pytest.mark.parametrize("tree", [INDEPENDENT, common()], ids=["independent", "common"])
@pytest.mark.parametrize("spread_s", [0.0, 0.3e-6, 1e-6])
def test_a_board_opens_whose_cells_were_all_programmed_alike(tree: dict[str, Any], spread_s: float) -> None:
    cells = {"preset": "custom", "sigma_difference_s": max(spread_s, 1e-12) * 2**0.5, "mean_s": 12e-6}
    for seed in range(3):
        backend = emulate(tree, seed, forming=cells)[2]
        with open_session(backend) as session:
            verdicts = {check.ok for check in session.self_test() if check.part.startswith("CD4051B")}
        assert verdicts <= {True, None}
        if spread_s == 1e-6:
            assert verdicts == {True}


@pytest.mark.parametrize("spread_s", [0.3e-6, 6.61e-6])
def test_stuck_selects_are_found_where_rows_of_other_muxes_differ(spread_s: float) -> None:
    """Rows of one mux alike, those of others not: as after programming a gradient along the columns."""
    for seed in range(3):
        board, _, backend = emulate(common(), seed, forming={"preset": "custom", "sigma_difference_s": spread_s})
        scale = np.repeat(np.linspace(0.6, 1.4, 6), 4)[:, None]
        board.array.chip.state.cells["conductance_s"] *= scale
        board.array.refresh()
        with open_session(backend):
            pass
        board.faults.stuck_muxes[1] = 3
        with pytest.raises(DeviceError, match="mux 1: shows the same row at every position"):
            backend.open()
