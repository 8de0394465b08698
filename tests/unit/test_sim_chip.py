"""What a simulated chip is made of: forming statistics, static errors, and one switch per effect."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from hil import Pulse, differential_tile, open_session, single_ended_tile
from sim_backend.backend import SimBackend
from sim_backend.chip import SimulatedChip
from sim_backend.forming import SIGMA_DIFFERENCE_S, FormingStatistics
from sim_backend.settings import FormingSettings, SimSettings

EFFECTS = ("noise", "lines", "mux", "dac", "tia", "adc")


def only(*on: str, **more: object) -> SimSettings:
    """A 32 x 16 array with no effect but those named."""
    tree: dict[str, object] = {effect: {"enabled": effect in on} for effect in EFFECTS}
    return SimSettings.model_validate({"rows": 32, "cols": 16, **tree, **more})


@pytest.mark.parametrize("preset", sorted(SIGMA_DIFFERENCE_S))
def test_formed_cells_have_the_paper_s_statistics(preset: str) -> None:
    statistics = FormingStatistics.from_settings(FormingSettings.model_validate({"preset": preset}))
    formed_s = statistics.draw_formed_s(np.random.default_rng(0), (512, 512))
    difference_s = formed_s[:, ::2] - formed_s[:, 1::2]
    assert difference_s.std() == pytest.approx(SIGMA_DIFFERENCE_S[preset], rel=0.01)
    assert formed_s.mean() == pytest.approx(14.25e-6, rel=0.01)
    assert formed_s.min() >= 0.1e-6


def test_custom_spread() -> None:
    statistics = FormingStatistics.from_settings(FormingSettings(preset="custom", sigma_difference_s=4e-6))
    formed_s = statistics.draw_formed_s(np.random.default_rng(0), (400, 400))
    assert (formed_s[:, ::2] - formed_s[:, 1::2]).std() == pytest.approx(4e-6, rel=0.01)


def test_ideal_simulator_multiplies_exactly() -> None:
    tile = differential_tile(32, 8)
    bits = np.random.default_rng(0).random((20, 32)) < 0.3
    backend = SimBackend(SimSettings(rows=32, cols=16, ideal=True), seed=1)
    with open_session(backend) as session:
        current_a = session.vmm(bits, tile, 0.2)
        cells_s = backend._open_chip().conductance_s
    expected_a = 0.2 * bits.astype(float) @ (cells_s[:, ::2] - cells_s[:, 1::2])
    np.testing.assert_allclose(current_a, expected_a, atol=2e-4 * 0.2 * cells_s.max())


@pytest.mark.parametrize("effect", EFFECTS)
def test_each_effect_acts_alone_and_can_be_switched_off(effect: str) -> None:
    tile = single_ended_tile(32, 16)
    bits = np.random.default_rng(0).random((50, 32)) < 0.3

    def run(settings: SimSettings) -> np.ndarray:
        with open_session(SimBackend(settings, seed=2)) as session:
            return session.vmm(bits, tile, 0.2)

    assert not np.array_equal(run(only(effect)), run(only()))
    assert np.array_equal(run(only()), run(SimSettings(rows=32, cols=16, ideal=True)))


def test_telegraph_cells_are_noisier_and_silent_where_read_noise_is_off() -> None:
    chips = {
        noise: SimulatedChip.draw(only(*noise, telegraph={"share": 0.5, "amplitude": 0.1}), 3)
        for noise in ((), ("noise",))
    }
    assert np.max(chips[()].read_noise()) == 0.0
    sigma = chips["noise",].read_noise()
    assert isinstance(sigma, np.ndarray)
    assert 0.3 < (sigma > 0.0201).mean() < 0.7
    assert sigma.min() == pytest.approx(0.02)


def test_switching_one_effect_leaves_the_rest_of_the_chip_alone() -> None:
    everything = SimulatedChip.draw(SimSettings(rows=32, cols=16), 3)
    without_dac = SimulatedChip.draw(SimSettings.model_validate({"rows": 32, "cols": 16, "dac": {"enabled": False}}), 3)
    np.testing.assert_array_equal(everything.conductance_s, without_dac.conductance_s)
    np.testing.assert_array_equal(everything.tias.offset_v, without_dac.tias.offset_v)
    assert not without_dac.dacs.gain_error.any()


def test_dac_steps_are_those_of_the_data_sheet() -> None:
    chip = SimulatedChip.draw(only("dac", dac={"gain_sigma": 0.0, "offset_sigma_v": 0.0}), 0)
    # 0.2 V is code 2621 of 65536 at 0 to 5 V: 0.199966 V
    assert chip.dacs.output_v(0.2, np.array([0]))[0] == pytest.approx(2621 / 65536 * 5.0, abs=1e-12)


def test_adc_code_and_clipping_are_those_of_the_data_sheet() -> None:
    chip = SimulatedChip.draw(only("adc", adc={"gain_sigma": 0.0, "offset_sigma_lsb": 0.0, "noise_lsb": 0.0}), 0)
    assert chip.adcs.lsb_v == pytest.approx(109.863e-6, rel=1e-4)
    volts = np.array([-1.0, 0.0, 0.9, 0.9 + 109.863e-6, 1.8, 3.0])
    codes = chip.adcs.convert(volts, np.zeros(6, int), np.random.default_rng(0))
    assert codes.tolist() == [-8192, -8192, 0, 1, 8191, 8191]


def test_tia_stops_at_its_swing() -> None:
    chip = SimulatedChip.draw(only("tia", tia={"gain_sigma": 0.0, "offset_sigma_v": 0.0}), 0)
    output_v = chip.tias.output_v(np.array([0.0, 10e-6, 1.0]), np.zeros(3, int), np.zeros(3))
    np.testing.assert_allclose(output_v, [1.6, 1.4, 0.02])


def test_reads_show_single_cells() -> None:
    backend = SimBackend(SimSettings(rows=32, cols=16), seed=4)
    mask = np.zeros((32, 16), np.bool_)
    mask[5, 3] = mask[20, 15] = mask[31, 0] = True
    with open_session(backend) as session:
        read_s = session.read(mask, 0.2, n_average=400) / 0.2
        cells_s = backend._open_chip().conductance_s[mask]
    np.testing.assert_allclose(read_s, cells_s, rtol=0.02)


def test_forming_follows_the_breakdown_voltage() -> None:
    settings = SimSettings.model_validate({"rows": 64, "cols": 64, "forming": {"formed": False}})
    backend = SimBackend(settings, seed=0)
    everywhere = np.ones((64, 64), np.bool_)
    with open_session(backend) as session:
        assert (session.read(everywhere, 0.2, n_average=20) / 0.2).max() < 2e-6
        report = session.pulse(everywhere, Pulse("form", voltage_v=3.433, v_gate_v=1.2, width_s=1e-3))
        formed = backend._open_chip().formed
        assert report.n_cells == 64 * 64
        assert formed.mean() == pytest.approx(0.5, abs=0.05)
        session.pulse(everywhere, Pulse("form", voltage_v=4.2, v_gate_v=1.2, width_s=1e-3))
        assert backend._open_chip().formed.all()
        before_s = backend._open_chip().conductance_s
        session.pulse(everywhere, Pulse("reset", voltage_v=2.5, v_gate_v=4.0, width_s=1e-6))
        assert (backend._open_chip().conductance_s < 0.5 * before_s).mean() > 0.9


def test_a_vmm_after_forming_sees_the_new_cells() -> None:
    settings = SimSettings.model_validate({"rows": 32, "cols": 16, "forming": {"formed": False}})
    tile = single_ended_tile(32, 16)
    bits = np.ones((1, 32), np.bool_)
    with open_session(SimBackend(settings, seed=0)) as session:
        before_a = session.vmm(bits, tile, 0.2).mean()
        session.pulse(np.ones((32, 16), np.bool_), Pulse("form", voltage_v=4.5, v_gate_v=1.2, width_s=1e-3))
        assert session.vmm(bits, tile, 0.2).mean() > 20 * before_a


def test_what_was_formed_stays_formed_when_opened_again() -> None:
    backend = SimBackend(SimSettings.model_validate({"rows": 32, "cols": 16, "forming": {"formed": False}}), seed=0)
    everywhere = np.ones((32, 16), np.bool_)
    with open_session(backend) as session:
        session.pulse(everywhere, Pulse("form", voltage_v=4.5, v_gate_v=1.2, width_s=1e-3))
    with open_session(backend) as session:
        assert (session.read(everywhere, 0.2) / 0.2).mean() > 10e-6


def test_a_prepared_tile_does_not_keep_its_tile_alive() -> None:
    tile = single_ended_tile(32, 16)
    with open_session(SimBackend(SimSettings(rows=32, cols=16, ideal=True))) as session:
        session.vmm(np.ones((1, 32), np.bool_), tile, 0.2)
        watch = weakref.ref(tile)
        del tile
        gc.collect()
        assert watch() is None


def test_dac_stops_at_full_scale() -> None:
    chip = SimulatedChip.draw(only("dac", dac={"gain_sigma": 0.0, "full_scale_v": 0.05}), 0)
    assert chip.dacs.output_v(0.2, np.array([0]))[0] == pytest.approx(0.05, rel=1e-4)
