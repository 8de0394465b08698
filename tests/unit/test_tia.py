"""TIA: output law with its sign, and the design formulas against worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.tia import GBW_HZ, Tia, bandwidth_hz, feedback_capacitor_f, noise_gain, settling_s
from hil.errors import ConfigError

# feedback, then for 100 pF and 300 pF at the summing node: capacitor (pF), bandwidth (MHz), 14-bit settling (us)
TABLE = [
    (100, (126, 17.8, 0.13), (219, 10, 0.23)),
    (200, (89, 12.6, 0.19), (155, 7.3, 0.32)),
    (1e3, (40, 5.6, 0.41), (69, 3.3, 0.72)),
    (1.6e3, (31, 4.5, 0.52), (55, 2.6, 0.91)),
    (10e3, (12.6, 1.8, 1.3), (22, 1.0, 2.3)),
    (45e3, (6, 0.84, 2.8), (10, 0.49, 4.8)),
]


class TestOutputLaw:
    def test_current_into_the_node_moves_the_output_down(self) -> None:
        tia = Tia(10e3, 0.9)
        assert tia.output_v(0.0) == 0.9
        assert tia.output_v(20e-6) == pytest.approx(0.7)
        assert tia.output_v(-20e-6) == pytest.approx(1.1)

    @given(st.floats(10, 1e5), st.floats(0.1, 2.5), st.floats(-1e-3, 1e-3))
    def test_round_trip(self, r_feedback_ohm: float, v_common_v: float, current_a: float) -> None:
        tia = Tia(r_feedback_ohm, v_common_v)
        assert tia.current_a(tia.output_v(current_a)) == pytest.approx(current_a, abs=1e-14 + 1e-15 / r_feedback_ohm)

    def test_largest_current_reaches_the_lowest_output(self) -> None:
        tia = Tia(10e3, 0.9, swing_low_v=0.05)
        assert tia.current_max_a == pytest.approx(85e-6)
        assert tia.output_v(tia.current_max_a) == pytest.approx(0.05)

    def test_many_currents_at_once(self) -> None:
        tia = Tia(1e3, 1.0)
        outputs_v = tia.output_v(np.array([[0.0, 1e-4], [2e-4, 3e-4]]))
        np.testing.assert_allclose(outputs_v, [[1.0, 0.9], [0.8, 0.7]])
        np.testing.assert_allclose(tia.current_a(outputs_v), [[0.0, 1e-4], [2e-4, 3e-4]], atol=1e-15)

    @pytest.mark.parametrize(
        ("r_feedback_ohm", "v_common_v", "swing_low_v"),
        [(0.0, 0.9, 0.02), (-1.0, 0.9, 0.02), (float("nan"), 0.9, 0.02), (1e3, 0.02, 0.02), (1e3, 0.9, -0.1),
         (1e3, float("nan"), 0.02)],
    )  # fmt: skip
    def test_impossible_amplifiers_are_refused(
        self, r_feedback_ohm: float, v_common_v: float, swing_low_v: float
    ) -> None:
        with pytest.raises(ConfigError, match="TIA"):
            Tia(r_feedback_ohm, v_common_v, swing_low_v)


class TestDesignFormulas:
    @pytest.mark.parametrize(("r_feedback_ohm", "at_100_pf", "at_300_pf"), TABLE)
    def test_worked_examples(
        self, r_feedback_ohm: float, at_100_pf: tuple[float, float, float], at_300_pf: tuple[float, float, float]
    ) -> None:
        for c_input_f, (capacitor_pf, bandwidth_mhz, settling_us) in ((100e-12, at_100_pf), (300e-12, at_300_pf)):
            capacitor_f = feedback_capacitor_f(r_feedback_ohm, c_input_f)
            assert capacitor_f * 1e12 == pytest.approx(capacitor_pf, rel=0.06)
            assert bandwidth_hz(r_feedback_ohm, c_input_f) * 1e-6 == pytest.approx(bandwidth_mhz, rel=0.04)
            assert settling_s(14, r_feedback_ohm, capacitor_f) * 1e6 == pytest.approx(settling_us, rel=0.04)

    def test_14_bits_take_10_4_time_constants(self) -> None:
        assert settling_s(14, 1e3, 1e-9) == pytest.approx(10.4e-6, rel=1e-3)

    def test_conducting_cells_raise_the_noise_gain_and_cap_the_bandwidth(self) -> None:
        assert noise_gain(10e3, 0.0) == 1
        assert noise_gain(10e3, 5e-3) == pytest.approx(51)
        assert bandwidth_hz(10e3, 100e-12, g_total_s=5e-3) == pytest.approx(GBW_HZ / 51)
        assert bandwidth_hz(10e3, 100e-12, g_total_s=1e-6) == bandwidth_hz(10e3, 100e-12)
