"""Noise: chosen cells, variance, spectrum and telegraph noise of what was read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_array import FakeArray
from traces import telegraph
from verbs import run_verb

from experiments.array.noise import chosen_cells
from experiments.array.settings import NoiseSettings
from hil.fault_map import Fault
from hil.runfile import open_run

MASK = np.ones((8, 8), np.bool_)


def test_the_seed_chooses_cells_of_the_region() -> None:
    region = np.zeros((8, 8), np.bool_)
    region[:, :4] = True
    chosen = chosen_cells(region, NoiseSettings(n_cells=10))
    assert chosen.sum() == 10
    assert not (chosen & ~region).any()
    np.testing.assert_array_equal(chosen, chosen_cells(region, NoiseSettings(n_cells=10)))
    assert (chosen != chosen_cells(region, NoiseSettings(n_cells=10, seed=1))).any()
    np.testing.assert_array_equal(chosen_cells(region, NoiseSettings(n_cells=0)), region)
    np.testing.assert_array_equal(chosen_cells(region, NoiseSettings(n_cells=40)), region)


def test_variance_and_white_level_are_those_of_the_cells(tmp_path: Path) -> None:
    array = FakeArray(noise=0.02, read_s=2e-3)
    array.conductance_s[:] = 10e-6
    array.conductance_s[0, 0] = 30e-6  # sigma 0.6 uS: not quiet
    outcome = run_verb(tmp_path, array, "noise", MASK, NoiseSettings(n_cells=0, n_reads=512))
    quiet = MASK.copy()
    quiet[0, 0] = False
    np.testing.assert_array_equal(outcome.mask_ok, quiet)
    assert outcome.faults[0, 0] == Fault.NOISY
    assert outcome.summary["quiet_share"] == pytest.approx(63 / 64)
    assert outcome.results["sigma_s"][quiet].mean() == pytest.approx(0.2e-6, rel=0.03)
    assert outcome.summary["interval_s"] == pytest.approx(2e-3)
    assert np.median(outcome.results["white_s2_per_hz"]) == pytest.approx(2 * 2e-3 * (0.2e-6) ** 2, rel=0.05)
    assert outcome.results["psd_frequency_hz"].max() == pytest.approx(250)
    assert outcome.results["psd_s2_per_hz"].shape == (64, len(outcome.results["psd_frequency_hz"]))


def test_every_reading_is_in_the_record(tmp_path: Path) -> None:
    run_verb(tmp_path, FakeArray(), "noise", MASK, NoiseSettings(n_cells=5, n_reads=100))
    with open_run(next(tmp_path.glob("*.h5"))) as run:
        assert run.row_count("readings") == 500
        assert set(run.table("operations")["n_average"]) == {1}


class JumpingArray(FakeArray):
    """Column 0 has telegraph noise of 2 uS."""

    def read(self, mask: np.ndarray, v_read_v: float, *, n_average: int = 1) -> np.ndarray:
        if not hasattr(self, "up"):
            self.up = iter(telegraph(np.random.default_rng(9), 2000, 8, 20, 20))
            self.base_s = self.conductance_s.copy()
        self.conductance_s[:, 0] = self.base_s[:, 0] + 2e-6 * next(self.up)
        return super().read(mask, v_read_v, n_average=n_average)


def test_cells_with_telegraph_noise_are_named_with_its_amplitude(tmp_path: Path) -> None:
    outcome = run_verb(tmp_path, JumpingArray(), "noise", MASK, NoiseSettings(n_cells=0, n_reads=1000))
    jumping = np.zeros_like(MASK)
    jumping[:, 0] = True
    np.testing.assert_array_equal(outcome.results["telegraph"], jumping)
    assert outcome.summary["telegraph_cells"] == 8
    np.testing.assert_allclose(outcome.results["telegraph_amplitude_s"][jumping], 2e-6, rtol=0.05)
    assert np.nanmean(outcome.results["telegraph_dwell_high_s"]) == pytest.approx(0.02, rel=0.3)


def test_a_clock_that_stands_still_leaves_the_number_of_the_read_as_axis(tmp_path: Path) -> None:
    outcome = run_verb(tmp_path, FakeArray(read_s=0.0), "noise", MASK, NoiseSettings(n_cells=4, n_reads=64))
    assert outcome.summary["time_base"] == "number of the read"
    assert outcome.results["psd_frequency_hz"].max() == pytest.approx(0.5)


def test_pauses_make_the_interval(tmp_path: Path) -> None:
    array = FakeArray(read_s=0.0)
    outcome = run_verb(tmp_path, array, "noise", MASK, NoiseSettings(n_cells=4, n_reads=64, interval_s=0.5))
    assert outcome.summary["interval_s"] == pytest.approx(0.5)
