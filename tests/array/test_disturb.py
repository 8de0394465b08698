"""Disturb: an effect is found with its size, drift is not taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_array import FakeArray
from verbs import run_verb

from experiments.array.disturb import roles
from experiments.array.settings import DisturbSettings
from hil.errors import ConfigError, LimitError

MASK = np.ones((16, 16), np.bool_)
SHAPE = (16, 16)
HALF = DisturbSettings(mode="half-select", count=20)


def test_aggressors_share_no_line_and_controls_none_with_them() -> None:
    chosen = roles(MASK, HALF)
    rows, cols = np.nonzero(chosen.stressed)
    assert len(rows) == len(set(rows)) == len(set(cols)) == 4
    assert not chosen.groups["control"][rows].any()
    assert not chosen.groups["control"][:, cols].any()
    assert np.sum([*chosen.groups.values(), chosen.stressed], axis=0).tolist() == np.ones(SHAPE, int).tolist()


def test_pulses_that_disturb_their_row_are_found_with_their_size(tmp_path: Path) -> None:
    array = FakeArray(SHAPE, disturb=-0.001, drift_per_decade=0.02, noise=0.01)
    summary = run_verb(tmp_path, array, "disturb", MASK, HALF).summary
    assert summary["same_row_significant"]
    assert not summary["same_column_significant"]
    per_pulse = -0.001 * 14e-6
    assert summary["same_row_shift_per_count_s"] == pytest.approx(
        per_pulse, abs=4 * summary["same_row_shift_per_count_error_s"]
    )
    assert summary["same_row_shift_relative"] == pytest.approx(-0.02, rel=0.3)


@pytest.mark.parametrize("mode", ["read", "half-select"])
def test_drift_and_noise_are_not_taken_for_disturb(mode: str, tmp_path: Path) -> None:
    """Six comparisons at three standard errors: none by chance in a hundred runs or so."""
    array = FakeArray(SHAPE, drift_per_decade=-0.05, noise=0.02)
    summary = run_verb(tmp_path, array, "disturb", MASK, DisturbSettings(mode=mode, count=20)).summary
    assert [key for key, value in summary.items() if key.endswith("_significant") and value] == []


def test_reads_that_disturb_are_found_with_their_size(tmp_path: Path) -> None:
    array = FakeArray(SHAPE, read_disturb=1e-5, noise=0.005)
    outcome = run_verb(tmp_path, array, "disturb", MASK, DisturbSettings(count=5000))
    assert outcome.summary["read_significant"]
    assert outcome.summary["read_shift_relative"] == pytest.approx(0.05, rel=0.1)
    assert outcome.results["disturb_count"].tolist()[0] == 1
    assert outcome.results["disturb_count"].tolist()[-1] == 5000
    assert outcome.results["disturb_shift_s"].shape == (len(outcome.results["disturb_count"]), 1)


def test_disturbed_cells_are_in_the_mask(tmp_path: Path) -> None:
    array = FakeArray(SHAPE, disturb=-0.01)
    outcome = run_verb(tmp_path, array, "disturb", MASK, HALF)
    chosen = roles(MASK, HALF)
    victims = chosen.groups["same row"] | chosen.groups["both"]
    assert not outcome.mask_ok[victims].any()
    assert outcome.mask_ok[chosen.groups["same column"] | chosen.groups["control"]].all()


def test_one_cell_can_be_read_without_control(tmp_path: Path) -> None:
    one = np.zeros(SHAPE, np.bool_)
    one[3, 3] = True
    summary = run_verb(tmp_path, FakeArray(SHAPE), "disturb", one, DisturbSettings(count=10)).summary
    assert summary["cells_control"] == 0
    assert not summary["read_significant"]  # one cell has no spread to judge by


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (DisturbSettings(v_disturb_v=0.6), LimitError, "read voltage 0.6 V"),
        (DisturbSettings(mode="half-select", count=200_000), ConfigError, "pulses_per_cell_max"),
        (DisturbSettings(mode="half-select", voltage_v=6.0, count=5), LimitError, "reset voltage 6 V"),
    ],
)
def test_what_goes_beyond_limits_is_refused_before_anything_is_applied(
    settings: DisturbSettings, error: type[Exception], message: str, tmp_path: Path
) -> None:
    array = FakeArray(SHAPE)
    with pytest.raises(error, match=message):
        run_verb(tmp_path, array, "disturb", MASK, settings)
    assert array.calls == 0


def test_a_region_without_a_victim_is_refused(tmp_path: Path) -> None:
    one = np.zeros(SHAPE, np.bool_)
    one[3, 3] = True
    with pytest.raises(ConfigError, match="none beside an aggressor"):
        run_verb(tmp_path, FakeArray(SHAPE), "disturb", one, HALF)
