"""Retention: reads at the times that are due, and the drift that the cells have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_array import FakeArray
from verbs import resume_verb, run_verb

from experiments.array.retention import fit_drift
from experiments.array.settings import RetentionSettings
from hil.errors import ConfigError, DeviceError

MASK = np.ones((8, 8), np.bool_)
SETTINGS = RetentionSettings(first_s=1, last_s=1e4, per_decade=2)


def test_reads_come_at_times_even_on_a_logarithmic_axis(tmp_path: Path) -> None:
    array = FakeArray(clock_s=500.0)
    found = run_verb(tmp_path, array, "retention", MASK, SETTINGS).results["retention_time_s"]
    np.testing.assert_allclose(found, np.geomspace(1, 1e4, 9), rtol=2e-3)


@pytest.mark.parametrize("drift", [0.0, -0.03, 0.02])
def test_the_drift_per_decade_is_found_with_its_error(drift: float, tmp_path: Path) -> None:
    array = FakeArray(drift_per_decade=drift, noise=0.01)
    outcome = run_verb(tmp_path, array, "retention", MASK, RetentionSettings(per_decade=3, n_average=4))
    summary = outcome.summary
    assert abs(summary["drift_per_decade_mean"] - drift) < 4 * summary["drift_per_decade_mean_error"]
    assert summary["drift_per_decade_mean_error"] < 0.001
    # the error of each cell's line is the spread between cells, which differ by noise only
    assert 0.6 < summary["drift_per_decade_fit_error_median"] / summary["drift_per_decade_sigma"] < 1.5
    assert summary["change_mean"] == pytest.approx(4 * drift, abs=0.005)


def test_cells_that_lost_their_state_are_in_the_mask(tmp_path: Path) -> None:
    outcome = run_verb(tmp_path, FakeArray(drift_per_decade=-0.1), "retention", MASK, SETTINGS)
    assert not outcome.mask_ok.any()
    assert run_verb(tmp_path, FakeArray(), "retention", MASK, SETTINGS).mask_ok.all()


def test_a_resumed_run_leaves_out_what_is_past_and_keeps_its_start(tmp_path: Path) -> None:
    array = FakeArray()
    array.fail_at = 6
    with pytest.raises(DeviceError):
        run_verb(tmp_path, array, "retention", MASK, SETTINGS)
    array.fail_at, array.clock_s = None, 150.0
    outcome = resume_verb(next(tmp_path.glob("*.h5")), array, "retention", MASK, SETTINGS)
    times = outcome.results["retention_time_s"]
    np.testing.assert_allclose(times, [1, 10**0.5, 150, 10**2.5, 1e3, 10**3.5, 1e4], rtol=2e-3)
    assert outcome.summary["points_missed"] == 2


def test_ages_count_from_the_programming_that_the_user_states(tmp_path: Path) -> None:
    settings = RetentionSettings(first_s=1, last_s=1e3, per_decade=1, programmed_at_s=40.0)
    outcome = run_verb(tmp_path, FakeArray(clock_s=50.0), "retention", MASK, settings)
    np.testing.assert_allclose(outcome.results["retention_time_s"], [10, 100, 1000], rtol=2e-3)
    with pytest.raises(ConfigError, match="in the future"):
        run_verb(tmp_path, FakeArray(clock_s=5.0), "retention", MASK, settings)


def test_times_that_fall_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"last_s = 1 s is before first_s = 10 s"):
        run_verb(tmp_path, FakeArray(), "retention", MASK, RetentionSettings(first_s=10, last_s=1))


def test_a_cell_without_three_readings_has_no_drift() -> None:
    age_s = np.array([[1.0, 1.0], [10.0, 10.0], [100.0, 100.0]])
    fit = fit_drift(age_s, np.array([[1.0, 1.0], [1.1, 1.1], [1.2, np.nan]]))
    np.testing.assert_allclose(fit.per_decade, [0.1, np.nan])
