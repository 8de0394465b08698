"""Amperes per code follow from sourced currents; the instrument is off at every exit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from on_the_bench import Unit

from calibration import tia
from hil.errors import ConfigError, DeviceError, LimitError


def test_a_sourced_current_tells_every_column_within_its_uncertainty(lay) -> None:
    strays = []
    for seed in (1, 2, 3):
        laid = lay(seed=seed)
        unit = Unit(laid.terminals(row=3))
        laid.connect(smu=unit)
        part = tia.measure(laid.bench, tia.TiaOptions(smu_row=3))
        found = part.quantities["amps_per_code"]
        assert found.ok.all()
        assert part.findings == ()
        assert not unit.is_on
        assert np.median(found.uncertainty / found.value) < 5e-4
        strays += ((found.value - laid.truth.amps_per_code) / found.uncertainty).tolist()
    assert 0.5 < np.std(strays) < 1.4
    assert np.abs(strays).max() < 4.5


def test_no_cell_gets_more_than_the_read_voltage(lay) -> None:
    laid = lay(seed=4)
    unit = Unit(laid.terminals(row=3))
    laid.connect(smu=unit)
    laid.bench = replace(laid.bench, v_read_v=0.15)
    laid.board.peak_bias_v = 0.0
    tia.measure(laid.bench, tia.TiaOptions(smu_row=3))
    assert {limit_v for _, limit_v in unit.log} == {0.15}
    assert min(current_a for current_a, _ in unit.log) == 0.0
    assert laid.board.peak_bias_v < 0.16


def test_cells_that_conduct_too_little_leave_their_columns_nominal(lay) -> None:
    laid = lay(seed=5, faults={"stuck_off": 0.2})
    laid.connect(smu=Unit(laid.terminals(row=3)))
    part = tia.measure(laid.bench, tia.TiaOptions(smu_row=3))
    found = part.quantities["amps_per_code"]
    weak = laid.board.array.chip.conductance_s[3] < 1e-6
    assert weak.any()
    np.testing.assert_array_equal(found.ok, ~weak)
    assert (found.uncertainty[weak] > 1e-3 * found.value[weak]).all()
    assert "conduct too little" in part.findings[0]
    assert all(str(col) in part.findings[0] for col in np.flatnonzero(weak))


def test_a_unit_at_its_limit_everywhere_ends_with_an_error_and_off(lay) -> None:
    laid = lay(seed=6)
    unit = Unit(laid.terminals(row=3), lead_ohm=1e6)
    laid.connect(smu=unit)
    with pytest.raises(DeviceError, match=r"unit of the tests sources, but .* its limit of 0\.2 V"):
        tia.measure(laid.bench, tia.TiaOptions(smu_row=3))
    assert not unit.is_on


def test_a_unit_that_fails_half_way_is_off_afterwards(lay) -> None:
    laid = lay(seed=7)
    unit = Unit(laid.terminals(row=3), fails_at=3)
    laid.connect(smu=unit)
    with pytest.raises(LimitError, match="lets this fail"):
        tia.measure(laid.bench, tia.TiaOptions(smu_row=3))
    assert not unit.is_on
    assert len(unit.log) == 3


@pytest.mark.parametrize("row", [None, 400])
def test_a_unit_that_is_nowhere_is_refused(lay, row: int | None) -> None:
    laid = lay()
    laid.connect(smu=Unit(laid.terminals(row=3)))
    with pytest.raises(ConfigError, match="smu_row"):
        tia.measure(laid.bench, tia.TiaOptions(smu_row=row))


def test_without_a_unit_constants_are_nominal_and_not_ok(lay) -> None:
    laid = lay(seed=8)
    part = tia.measure(laid.bench)
    found = part.quantities["amps_per_code"]
    assert not found.ok.any()
    assert np.abs((found.value - laid.truth.amps_per_code) / found.uncertainty).max() < 4
    assert "nominal" in part.findings[0]
