"""Fit of read noise: it finds the parameters of its own processes, and repeats measured traces."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hil.errors import DataError
from sim_backend.fits import noise
from sim_backend.fits.fit import with_settings
from sim_backend.flicker import FlickerNoise
from sim_backend.settings import NoiseSettings
from sim_backend.telegraph import TelegraphNoise

MEASURED = Path(__file__).parents[3] / "shared" / "data" / "rram_relaxation.npz"
LOW_HZ, HIGH_HZ = 0.1, 200.0
G_S, FLICKER_S, WHITE_S, JUMP_S = 50e-6, 0.3e-6, 0.2e-6, 2e-6
DWELL_LOW_S, DWELL_HIGH_S = 0.4, 0.2


def windows(telegraph: bool, n_windows: int = 4, n_samples: int = 4000) -> NDArray[np.float64]:
    """Traces of 10 s with known parts."""
    rng = np.random.default_rng(1)
    settings = NoiseSettings(relative=1.0, flicker_share=1.0, flicker_low_hz=LOW_HZ, flicker_high_hz=HIGH_HZ)
    flicker = FlickerNoise.from_settings(settings, (n_windows,))
    same = np.ones(n_windows)
    traps = TelegraphNoise(
        np.arange(n_windows, dtype=np.int32),
        same,
        DWELL_HIGH_S * same,
        DWELL_LOW_S * same,
        same > 2,
        np.full(n_windows, -np.inf),
    )
    times_s = np.arange(n_samples) / 400.0
    trace_s = np.array([flicker.at(time_s, ..., FLICKER_S * same, rng) for time_s in times_s])
    if telegraph:
        trace_s += [traps.at(time_s, ..., JUMP_S * same, rng) for time_s in times_s]
    return G_S + (trace_s + WHITE_S * rng.standard_normal(trace_s.shape)).T


def test_white_and_flicker_part_are_told_apart() -> None:
    cell = noise.noise_of_cell(windows(telegraph=False), 400.0, LOW_HZ, HIGH_HZ)
    assert cell.states is None
    assert cell.telegraph_share == 0.0
    for (value, error), truth in ((cell.white_s, WHITE_S), (cell.flicker_s, FLICKER_S)):
        assert value == pytest.approx(truth, rel=0.1)
        assert abs(value - truth) < 4 * error < truth


def test_telegraph_part_is_found_with_its_times() -> None:
    cell = noise.noise_of_cell(windows(telegraph=True), 400.0, LOW_HZ, HIGH_HZ)
    assert cell.states is not None
    assert cell.telegraph_share == 1.0
    assert cell.states.high_s - cell.states.low_s == pytest.approx(JUMP_S, rel=0.05)
    for dwell_s, truth in ((cell.states.dwell_low_s, DWELL_LOW_S), (cell.states.dwell_high_s, DWELL_HIGH_S)):
        assert dwell_s == pytest.approx(truth, rel=4 / math.sqrt(cell.states.n_visits))
    assert cell.flicker_s[0] == pytest.approx(FLICKER_S, rel=0.15)
    assert cell.white_s[0] == pytest.approx(WHITE_S, rel=0.15)


def test_two_states_follow_the_trace() -> None:
    trace_s = np.where(np.arange(4000) // 400 % 2, 3e-6, 1e-6) + 1e-7 * np.random.default_rng(0).standard_normal(4000)
    states, path_s = noise.two_states(trace_s, 400.0)
    assert states is not None
    assert np.abs(path_s - trace_s).max() < 6e-7
    assert states.dwell_low_s == pytest.approx(1.0, rel=0.3)


def test_a_constant_trace_has_one_state() -> None:
    states, path_s = noise.two_states(np.full(4000, 1e-6), 400.0)
    assert states is None
    np.testing.assert_allclose(path_s, 1e-6)


def test_fit_of_its_own_model(tmp_path: Path) -> None:
    traces_s = np.stack([windows(telegraph, n_windows=4).ravel() for telegraph in (False, True)])
    # the first half is left out
    np.savez(tmp_path / "traces.npz", A_ts_g=np.concatenate([np.full_like(traces_s, 1e-6), traces_s], axis=1))
    found = noise.fit(noise.load(tmp_path / "traces.npz"))
    assert found.n_rows == 2 * 16_000
    assert "telegraph amplitude, cell 0" not in found.parameters
    assert found.parameters["telegraph amplitude, cell 1"].value == pytest.approx(JUMP_S, rel=0.05)
    settings = with_settings(found.settings)
    assert settings.noise.relative == pytest.approx(math.hypot(WHITE_S, FLICKER_S) / G_S, rel=0.1)
    assert settings.noise.flicker_share == pytest.approx(9 / 13, abs=0.08)
    assert settings.telegraph.share == 0.5
    short = [found.distances[f"change over 0.0025 s, cell {number} [uS]"].ks for number in (0, 1)]
    assert max(short) < 0.03
    assert found.goodness["spectrum, simulated over measured, rms of decades, cell 0"] < 0.15


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(20_000), "shape \\(20000,\\), not \\(cells, samples\\)"),
        (np.ones((2, 100)), "at least 16000 samples"),
        (-np.ones((1, 20_000)), "mean that is not above 0 S"),
        (np.ones((1, 20_000)), "trace 0 of 'A_ts_g' never changes"),
    ],
)
def test_traces_that_do_not_fit_are_named(tmp_path: Path, array: NDArray[np.float64], message: str) -> None:
    np.savez(tmp_path / "traces.npz", A_ts_g=array)
    with pytest.raises(DataError, match=message):
        noise.load(tmp_path / "traces.npz")


def test_a_file_without_traces_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "traces.npz", B_relax_g=np.ones(3))
    with pytest.raises(DataError, match="has no array 'A_ts_g', only B_relax_g"):
        noise.load(tmp_path / "traces.npz")


@pytest.mark.skipif(not MEASURED.exists(), reason=f"measured data not found: {MEASURED}")
def test_measured_traces_are_repeated() -> None:
    found = noise.fit(noise.load(MEASURED))
    changes = {name: distance.ks for name, distance in found.distances.items() if "change over" in name}
    # cell 1 has several traps at a time, which the model has not
    assert max(ks for name, ks in changes.items() if "cell 1" not in name) < 0.12
    assert max(ks for name, ks in changes.items() if "cell 4" in name) < 0.06
    assert found.parameters["telegraph amplitude, cell 1"].value == pytest.approx(2.9e-6, rel=0.1)
    assert 0.5 < found.settings["noise.flicker_share"] <= 1.0
