"""The settling of the columns is measured, and a board that waits too little is told so."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from calibration.settling import measure_settling
from firmware_bridge.emulator.analogue import SETTLED_TAUS

#: of the small board: amplifier and mux; half of the mux's time is dead time
TAU_S = (5e-6 + 0.24e-6) / SETTLED_TAUS
SETTLED_S = 0.12e-6 + TAU_S * math.log(1e4)


def test_time_constant_and_settling_time_are_found(lay) -> None:
    quantities, findings = measure_settling(lay(seed=1).bench)
    tau, settled = quantities["settle_tau_s"], quantities["settle_s"]
    assert findings == ()
    assert tau.ok
    assert settled.ok
    assert float(tau.value) == pytest.approx(TAU_S, abs=4 * float(tau.uncertainty))
    assert float(settled.value) == pytest.approx(SETTLED_S, abs=4 * float(settled.uncertainty))
    assert float(tau.uncertainty) < 0.03 * TAU_S


def test_without_noise_of_cells_both_are_exact(lay) -> None:
    quantities, _ = measure_settling(lay(seed=2, noise={"enabled": False}).bench)
    assert float(quantities["settle_tau_s"].value) == pytest.approx(TAU_S, rel=0.01)
    assert float(quantities["settle_s"].value) == pytest.approx(SETTLED_S, rel=0.01)


def test_a_board_that_waits_too_little_is_told(lay) -> None:
    laid = lay(seed=3, noise={"enabled": False})
    electrics = {**laid.bench.known.electrics, "tia_settle_s": 2e-6}
    laid.bench.known = replace(laid.bench.known, electrics=electrics)
    _, (finding,) = measure_settling(laid.bench)
    assert "waits 2.2e-06 s" in finding
    assert "tia.settle_s" in finding


def test_every_conversion_is_recorded(lay) -> None:
    laid = lay(seed=4)
    measure_settling(laid.bench)
    (batch,) = laid.recorded["settling"]
    assert len(batch["soon_a"]) == len(batch["late_a"]) == 60
    assert np.isfinite(batch["late_a"]).all()
