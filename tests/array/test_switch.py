"""Trains of SET and RESET pulses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from fake_cells import FakeCells

from experiments.array.bench import Bench
from experiments.array.settings import ResetSettings, TrainSettings
from experiments.array.switch import reset_cells, set_cells

ALL = np.ones((8, 8), np.bool_)


def test_each_cell_gets_the_train_and_is_read_after_every_pulse(make_bench: Callable[..., Bench]) -> None:
    cells = FakeCells()
    bench = make_bench(cells, cells_per_step=24)
    before_s = cells.true_s.copy()
    found = set_cells(bench, ALL, TrainSettings(n_pulses=3, v_gate_v=2.0))
    assert (cells.pulsed["set"] == 3).all()
    assert (bench.history.n_reads == 4).all()
    assert found.mask_ok.all()
    np.testing.assert_allclose(found.results["before_s"], before_s, rtol=0.03)
    assert found.summary["mean_s"] > found.summary["before_mean_s"]


def test_reset_lowers_and_the_ceiling_cuts_the_train_short(make_bench: Callable[..., Bench]) -> None:
    cells = FakeCells()
    found = reset_cells(make_bench(cells), ALL, ResetSettings(n_pulses=5, pulses_per_cell_max=2))
    assert (cells.pulsed["reset"] == 2).all()
    assert found.summary["mean_s"] < found.summary["before_mean_s"]
    assert not found.mask_ok.any()
    assert found.summary["cells_at_ceiling"] == 64
