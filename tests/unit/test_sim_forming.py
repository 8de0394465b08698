"""Forming of the simulator: odd cells, pulse width, compliance; the chips of old seeds stay as they were."""

from __future__ import annotations

import numpy as np
import pytest

from sim_backend.forming import FormingStatistics
from sim_backend.settings import FormingSettings


def statistics(**settings: float) -> FormingStatistics:
    return FormingStatistics.from_settings(FormingSettings.model_validate(settings))


def test_without_odd_cells_draws_are_those_of_before() -> None:
    model = statistics()
    breakdown_v = model.draw_breakdown_v(np.random.default_rng(7), (50, 50))
    np.testing.assert_array_equal(breakdown_v, np.random.default_rng(7).normal(3.433, 0.114, (50, 50)))
    rng = np.random.default_rng(7)
    model.draw_formed_s(rng, (50, 50))
    used = np.random.default_rng(7)
    used.random((50, 50))
    assert rng.random() == used.random()


def test_early_cells_form_an_exponential_distance_below_the_mean() -> None:
    model = statistics(early_share=0.2, early_scale_v=0.4)
    breakdown_v = model.draw_breakdown_v(np.random.default_rng(0), (200, 200))
    # 4.4 sigma below the mean there are no other cells
    assert (breakdown_v < 3.433 - 0.5).mean() == pytest.approx(0.2 * np.exp(-0.5 / 0.4), rel=0.1)
    assert breakdown_v.min() >= 0.0


def test_leaky_cells_form_at_any_voltage() -> None:
    model = statistics(leaky_share=0.03)
    breakdown_v = model.draw_breakdown_v(np.random.default_rng(0), (200, 200))
    assert model.forms(0.01, model.width_ref_s, breakdown_v).mean() == pytest.approx(0.03, rel=0.1)


def test_weak_cells_conduct_less_than_the_mean_and_more_than_pristine() -> None:
    model = statistics(weak_share=1.0)
    formed_s = model.draw_formed_s(np.random.default_rng(0), (200, 200))
    assert model.pristine_s <= formed_s.min()
    assert formed_s.max() <= model.mean_s
    assert formed_s.mean() == pytest.approx(2 / 3 * 14.25e-6, rel=0.02)


def test_a_cell_forms_at_its_voltage_and_not_below() -> None:
    model = statistics()
    assert model.forms(3.4, model.width_ref_s, np.array([3.39, 3.4, 3.41])).tolist() == [True, True, False]


def test_a_longer_pulse_forms_at_a_lower_voltage() -> None:
    model = statistics(width_slope_v=0.06)
    breakdown_v = np.array([3.43, 3.45, 3.47])
    assert model.forms(3.4, 1e-3, breakdown_v).tolist() == [False, False, False]
    assert model.forms(3.4, 1e-2, breakdown_v).tolist() == [True, True, False]
    assert not model.forms(3.45, 1e-4, breakdown_v).any()


def test_conductance_after_forming_follows_the_gate() -> None:
    model = statistics(gate_ref_v=1.2, gate_threshold_v=0.4)
    assert [model.compliance_scale(v) for v in (0.3, 0.8, 1.2, 2.0)] == pytest.approx([0.0, 0.5, 1.0, 2.0])
