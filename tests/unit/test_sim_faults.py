"""Faults of cells and lines: how many, what they conduct, what still switches."""

from __future__ import annotations

import numpy as np
import pytest

from sim_backend.faults import NOISY, NORMAL, STUCK_OFF, STUCK_ON, CellFaults
from sim_backend.settings import FaultSettings

SHAPE = (300, 200)
G_S = 14e-6


def draw(seed: int = 0, shape: tuple[int, int] = SHAPE, **rates: float | bool) -> CellFaults:
    return CellFaults.draw(FaultSettings.model_validate(rates), shape, np.random.default_rng(seed))


def test_the_default_array_has_no_faults() -> None:
    faults = draw()
    conductance_s = np.full(SHAPE, G_S)
    assert not faults.any
    assert faults.can_switch.all()
    assert faults.noise_factor is None
    np.testing.assert_array_equal(faults.conductance_s(conductance_s), conductance_s)


@pytest.mark.parametrize(("name", "kind"), [("stuck_on", STUCK_ON), ("stuck_off", STUCK_OFF), ("noisy", NOISY)])
def test_rates_of_cell_faults(name: str, kind: int) -> None:
    faults = draw(**{name: 0.05})
    assert faults.any
    assert np.mean(faults.kind == kind) == pytest.approx(0.05, abs=0.004)
    assert np.mean(faults.kind == NORMAL) == pytest.approx(0.95, abs=0.004)


def test_all_rates_together() -> None:
    faults = draw(stuck_on=0.1, stuck_off=0.2, noisy=0.3)
    for kind, rate in ((STUCK_ON, 0.1), (STUCK_OFF, 0.2), (NOISY, 0.3)):
        assert np.mean(faults.kind == kind) == pytest.approx(rate, abs=0.01)


def test_a_higher_rate_keeps_the_faults_of_a_lower_one() -> None:
    few, many = draw(stuck_on=0.01, line_open=0.02), draw(stuck_on=0.05, line_open=0.1)
    assert np.all((many.kind == STUCK_ON)[few.kind == STUCK_ON])
    assert np.all(many.open_rows[few.open_rows])


def test_equal_seeds_give_equal_faults() -> None:
    np.testing.assert_array_equal(draw(3, stuck_off=0.1).kind, draw(3, stuck_off=0.1).kind)
    assert np.any(draw(3, stuck_off=0.1).kind != draw(4, stuck_off=0.1).kind)


def test_what_faulty_cells_conduct_and_whether_they_switch() -> None:
    faults = draw(stuck_on=0.1, stuck_off=0.1, noisy=0.1)
    conducted_s = faults.conductance_s(np.full(SHAPE, G_S))
    for kind, value_s, switches in (
        (STUCK_ON, 100e-6, False),
        (STUCK_OFF, 0.01e-6, False),
        (NOISY, G_S, True),
        (NORMAL, G_S, True),
    ):
        cells = faults.kind == kind
        assert np.all(conducted_s[cells] == value_s)
        assert np.all(faults.can_switch[cells] == switches)


def test_noisy_cells_have_a_noise_factor() -> None:
    faults = draw(noisy=0.1, noisy_factor=7.0)
    factor = faults.noise_factor
    assert factor is not None
    np.testing.assert_array_equal(factor, np.where(faults.kind == NOISY, 7.0, 1.0))


def test_lines() -> None:
    faults = draw(shape=(1000, 900), line_open=0.1, line_short=0.05)
    for rows, cols, rate in (
        (faults.open_rows, faults.open_cols, 0.1),
        (faults.shorted_rows, faults.shorted_cols, 0.05),
    ):
        assert rows.mean() == pytest.approx(rate, abs=0.035)
        assert cols.mean() == pytest.approx(rate, abs=0.035)
    assert not np.any(faults.open_rows & faults.shorted_rows)
    conducted_s = faults.conductance_s(np.full((1000, 900), G_S))
    is_open = faults.open_rows[:, None] | faults.open_cols
    is_short = (faults.shorted_rows[:, None] | faults.shorted_cols) & ~is_open
    assert np.all(conducted_s[is_open] == 0.0)
    assert np.all(conducted_s[is_short] == 1e-3)
    healthy = ~is_open & ~is_short
    assert np.all(conducted_s[healthy] == G_S)
    np.testing.assert_array_equal(faults.can_switch, healthy)


def test_switched_off_there_are_none() -> None:
    assert not draw(enabled=False, stuck_on=0.3, line_open=0.5, line_short=0.5).any
