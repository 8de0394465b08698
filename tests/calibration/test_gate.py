"""The gate's limit of SET is found on the cells that were chosen, and on no other."""

from __future__ import annotations

import numpy as np
import pytest

from calibration import gate
from calibration.gate import GateOptions, fit_gate
from hil.errors import ConfigError

GATE_V = (0.7, 0.9, 1.1, 1.3, 1.5)


def region(shape: tuple[int, int] = (24, 16), n: int = 4) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    mask[:n, ::2] = True
    return mask


def test_the_law_is_found_in_exact_points() -> None:
    gate_v = np.linspace(0.6, 1.6, 8)
    limit_s = 18e-6 * (gate_v - 0.4)
    law = fit_gate(gate_v, limit_s / (1 + 3e3 * limit_s))
    assert law.threshold_v == pytest.approx(0.4, abs=2e-3)
    assert law.s_per_v == pytest.approx(18e-6, rel=0.01)
    assert law.series_ohm == pytest.approx(3e3, rel=0.1)
    np.testing.assert_allclose(law.conductance_s(gate_v), limit_s / (1 + 3e3 * limit_s), rtol=1e-3)


@pytest.mark.parametrize("after_s", [np.full(6, 10e-6), np.linspace(20e-6, 1e-6, 6)], ids=["flat", "falling"])
def test_conductance_that_does_not_rise_has_no_law(after_s: np.ndarray) -> None:
    assert np.isnan(fit_gate(np.linspace(0.6, 1.6, 6), after_s).s_per_v)


def test_threshold_and_slope_of_a_board_are_found_within_their_uncertainties(lay) -> None:
    strays = []
    for seed in (1, 2):
        laid = lay(seed=seed)
        # what the reads see in series: transistor and lines of the model, and the mux
        part = gate.measure(laid.bench, GateOptions(region(), gate_v=GATE_V, n_average=8, series_ohm=3.2e3 + 125))
        settings = laid.board.array.chip.settings.switching
        for name, true in (
            ("gate_threshold_v", settings.gate_threshold_v),
            ("set_gate_s_per_v", settings.set_gate_s_per_v),
        ):
            found = part.quantities[name]
            assert found.ok
            assert float(found.value) == pytest.approx(true, rel=0.06)
            strays.append(float((found.value - true) / found.uncertainty))
    assert np.abs(strays).max() < 3.5


def test_only_the_chosen_cells_are_touched_and_every_pulse_is_recorded(lay) -> None:
    laid = lay(seed=3)
    mask = region(n=2)
    before_s = laid.board.array.chip.conductance_s.copy()
    gate.measure(laid.bench, GateOptions(mask, gate_v=GATE_V, n_average=4))
    after_s = laid.board.array.chip.conductance_s
    assert (before_s[~mask] == after_s[~mask]).all()
    assert (before_s[mask] != after_s[mask]).any()
    pulses = [np.stack([batch["row"], batch["col"]], axis=1) for batch in laid.recorded["gate_pulses"]]
    applied = np.zeros(mask.shape, int)
    np.add.at(applied, tuple(np.concatenate(pulses).T), 1)
    np.testing.assert_array_equal(applied, laid.bench.session._pulses_applied)
    assert all(np.isfinite(batch["after_s"]).all() for batch in laid.recorded["gate_pulses"])


def test_no_cell_gets_more_pulses_than_allowed(lay) -> None:
    laid = lay(seed=4)
    options = GateOptions(region(n=2), gate_v=GATE_V, n_average=2, pulses_max=6, low_s=1e-9)
    part = gate.measure(laid.bench, options)
    assert laid.bench.session._pulses_applied.max() == 6
    assert not part.quantities["set_gate_s_per_v"].ok
    assert any("do not RESET" in text for text in part.findings)
    assert any("6 pulses" in text for text in part.findings)


def test_stress_needs_chosen_cells(lay) -> None:
    laid = lay()
    with pytest.raises(ConfigError, match="cells to stress"):
        gate.measure(laid.bench, GateOptions(np.zeros((24, 16), np.bool_)))
