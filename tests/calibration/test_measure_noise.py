"""Noise is found with its kinds; strange cells do not decide on normal ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from calibration import noise
from calibration.constants import nominal_amps_per_code
from calibration.noise import NoiseOptions, flicker_structure, split_variance
from sim_backend.flicker import FlickerNoise
from sim_backend.settings import NoiseSettings

#: fewer reads than on a real board
QUICK = NoiseOptions(n_columns=16, n_rows=12, n_repeats=32, n_cells=16, n_reads=64, n_average=8)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_white_and_flicker_noise_are_told_apart(share: float) -> None:
    """Against the simulator's noise itself."""
    strays = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        n_cells, n_reads, every, interval_s = 64, 160, 4, 0.12
        settings = NoiseSettings(relative=0.02, flicker_share=share)
        slow = FlickerNoise.from_settings(settings, (n_cells,))
        white = 0.02 * np.sqrt(1 - share)
        one, many = [], []
        for k in range(n_reads):
            time_s = interval_s * k
            many.append(slow.at(time_s, ..., np.ones(n_cells), rng) + white / 4 * rng.standard_normal(n_cells))
            if (k + 1) % every == 0:
                one.append(slow.at(time_s + 0.01, ..., np.ones(n_cells), rng) + white * rng.standard_normal(n_cells))
        band_hz = (settings.flicker_low_hz, settings.flicker_high_hz)
        found = split_variance(np.array(one), np.array(many), every, interval_s, 16, band_hz)
        strays.append([part.mean() / 0.02**2 for part in found])
    assert np.mean(strays, axis=0) == pytest.approx([1 - share, share], abs=0.05)


def test_the_structure_of_flicker_noise_grows_with_the_logarithm_of_time() -> None:
    steps = np.diff(flicker_structure(np.geomspace(1e-2, 1e2, 5), (1e-4, 1e3)))
    assert steps == pytest.approx(1 / 8, rel=0.02)
    assert flicker_structure(np.array([1e9]), (1e-4, 1e3)) == pytest.approx(1.0)


def test_the_noise_of_a_board_is_found_within_its_uncertainties(lay) -> None:
    strays = []
    for seed in (1, 2):
        laid = lay(seed=seed, noise={"relative": 0.03, "flicker_share": 0.4}, telegraph={"enabled": False})
        found = noise.measure(laid.bench, QUICK).quantities
        for name, true in (("converter_noise_lsb", 0.8), ("read_noise", 0.03), ("flicker_share", 0.4)):
            assert found[name].ok.all()
            strays += np.ravel((found[name].value - true) / found[name].uncertainty).tolist()
        assert float(found["read_noise"].uncertainty) < 0.03 * 0.03
        assert float(found["telegraph_share"].value) <= 2 * float(found["telegraph_share"].uncertainty)
    assert np.abs(strays).max() < 4
    assert np.std(strays) > 0.2


def test_noisy_cells_do_not_decide(lay) -> None:
    laid = lay(seed=3, faults={"noisy": 0.05}, telegraph={"enabled": False})
    found = noise.measure(laid.bench, QUICK).quantities
    assert float(found["read_noise"].value) == pytest.approx(0.02, rel=0.03)


@pytest.mark.parametrize("converter_lsb", [0.3, 4.0])
def test_a_chip_without_noise_has_none_whatever_its_converters_add(lay, converter_lsb: float) -> None:
    laid = lay(seed=4, noise={"enabled": False}, adc={"noise_lsb": converter_lsb})
    found = noise.measure(laid.bench, QUICK).quantities
    own = np.hypot(converter_lsb, 0.29) * nominal_amps_per_code(laid.bench.known) / 2.8e-6
    assert float(found["read_noise"].value) < 0.4 * own
    assert float(found["read_noise_white"].value) < 0.6 * own
    assert found["converter_noise_lsb"].value == pytest.approx(converter_lsb, rel=0.15)
    assert float(found["telegraph_share"].value) <= 0.06


def test_telegraph_cells_are_counted(lay) -> None:
    settings = {"share": 0.4, "amplitude": 0.15, "amplitude_spread": 0.1, "dwell_min_s": 0.3, "dwell_max_s": 1.0}
    laid = lay(seed=5, telegraph=settings)
    longer = replace(QUICK, n_cells=25, n_reads=128)
    found = noise.measure(laid.bench, longer).quantities["telegraph_share"]
    assert float(found.value) == pytest.approx(0.4, abs=3 * float(found.uncertainty))
    assert float(found.value) > 0.15


def test_a_converter_without_a_working_column_is_named(lay) -> None:
    laid = lay(seed=6)
    wiring = laid.bench.known.wiring
    dead = replace(wiring, col_ok=wiring.col_converter != 1)
    laid.bench.known = replace(laid.bench.known, wiring=dead)
    part = noise.measure(laid.bench, replace(QUICK, n_reads=48))
    np.testing.assert_array_equal(part.quantities["converter_noise_lsb"].ok, [True, False])
    (finding,) = part.findings
    assert "ADS8324 lane 1" in finding


def test_all_reads_are_recorded(lay) -> None:
    laid = lay(seed=7)
    noise.measure(laid.bench, replace(QUICK, n_reads=48))
    many, one = laid.recorded["noise_reads"]
    assert (many["n_average"] == 8).all()
    assert len(many["row"]) == 48 * 16
    assert (one["n_average"] == 1).all()
    assert len(one["row"]) == 12 * 16
    assert set(one["t_array_s"]) < set(many["t_array_s"])
