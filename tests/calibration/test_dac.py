"""Drive channels are measured as they are, by multimeter and without; what is dead is named."""

from __future__ import annotations

import numpy as np
import pytest
from on_the_bench import Meter

from calibration import dac
from hil.errors import CalibrationError, ConfigError, DeviceError


def test_a_multimeter_with_a_scanner_finds_gain_and_offset_of_every_channel(lay) -> None:
    strays = []
    for seed in (1, 2, 3):
        laid = lay(seed=seed)
        laid.knows_zero()
        laid.connect(dmm=Meter(laid.terminals(), scanner=True))
        part = dac.measure(laid.bench)
        assert part.findings == ()
        assert part.instruments == {"dmm": "meter of the tests"}
        assert part.quantities["row_works"].value.all()
        gain, offset = part.quantities["row_gain_error"], part.quantities["row_offset_v"]
        assert gain.ok.all()
        assert offset.ok.all()
        assert np.abs(offset.value - laid.truth.row_offset_v).max() < 20e-6
        strays += ((gain.value - laid.truth.row_gain_error) / gain.uncertainty).tolist()
    assert np.sqrt(np.mean(np.square(strays))) < 2
    assert np.std(strays) > 0.3


def test_offsets_of_columns_become_absolute_with_those_of_rows(lay) -> None:
    laid = lay(seed=4)
    laid.knows_zero(gauge_v=1e-3)
    laid.connect(dmm=Meter(laid.terminals(), scanner=True))
    found = dac.measure(laid.bench).quantities["column_offset_v"]
    assert np.abs(found.value - laid.truth.column_offset_v).max() < 25e-6
    assert ((found.value - laid.truth.column_offset_v) / found.uncertainty).std() < 1.5


def test_on_a_single_pad_one_channel_is_measured_and_the_others_are_moved_with_it(lay) -> None:
    laid = lay(seed=5)
    laid.knows_zero()
    laid.connect(dmm=Meter(laid.terminals(row=9)))
    part = dac.measure(laid.bench, dac.DacOptions(pad_row=9))
    np.testing.assert_array_equal(part.quantities["row_gain_error"].ok, [False, True, False])
    offset = part.quantities["row_offset_v"]
    assert offset.ok.all()
    assert np.abs(offset.value - laid.truth.row_offset_v).max() < 40e-6
    (finding,) = part.findings
    assert "DAC80508 chip 0 channel 1" in finding
    assert "bit line 9" in finding


def test_a_multimeter_that_is_not_connected_does_not_make_all_rows_dead(lay, monkeypatch) -> None:
    laid = lay()
    laid.knows_zero()
    laid.connect(dmm=Meter(laid.terminals(), scanner=True))
    monkeypatch.setattr(Meter, "measure_voltage_v", lambda meter: 0.0)
    with pytest.raises(DeviceError, match=r"meter of the tests sees no drive channel do as told: DAC80508 chip 0"):
        dac.measure(laid.bench)


@pytest.mark.parametrize("pad_row", [None, 99])
def test_a_multimeter_that_is_nowhere_is_refused(lay, pad_row: int | None) -> None:
    laid = lay()
    laid.knows_zero()
    laid.connect(dmm=Meter(laid.terminals()))
    with pytest.raises(ConfigError, match="pad_row"):
        dac.measure(laid.bench, dac.DacOptions(pad_row=pad_row))


def test_levels_stay_within_reads_and_all_are_recorded(lay) -> None:
    laid = lay()
    laid.knows_zero()
    laid.connect(dmm=Meter(laid.terminals(), scanner=True))
    dac.measure(laid.bench, dac.DacOptions(n_levels=5, n_readings=2))
    levels_v = np.concatenate([batch["ideal_v"] for batch in laid.recorded["dac_levels"]])
    assert len(levels_v) == 3 * 5 * 2
    assert np.abs(levels_v - 1.6).max() <= 0.2 + 1e-4


def test_a_channel_that_does_not_follow_is_named(lay) -> None:
    laid = lay(seed=6)
    laid.knows_zero()
    laid.connect(dmm=Meter(laid.terminals(), scanner=True))
    laid.board.dacs[0]._gain[2] = 0.5
    part = dac.measure(laid.bench)
    np.testing.assert_array_equal(part.quantities["row_gain_error"].ok, [True, True, False])
    assert not part.quantities["row_works"].value[16:].any()
    assert part.quantities["row_works"].value[:16].all()
    (finding,) = part.findings
    assert "chip 0 channel 2" in finding
    assert "rows 16 to 23" in finding
    good = part.quantities["row_offset_v"]
    assert np.abs(good.value - laid.truth.row_offset_v)[:2].max() < 25e-6


def test_without_a_multimeter_linearity_is_seen_and_gain_is_not_claimed(lay) -> None:
    laid = lay(seed=7)
    laid.knows_zero()
    part = dac.measure(laid.bench)
    gain = part.quantities["row_gain_error"]
    assert not gain.value.any()
    assert not gain.ok.any()
    assert (np.abs(laid.truth.row_gain_error) < 3 * gain.uncertainty).all()
    bent = part.quantities["row_nonlinearity_v"]
    assert bent.ok.all()
    assert (bent.value < 1e-3).all()
    assert "row_offset_v" not in part.quantities
    assert any("nominal" in text or "not measured" in text for text in part.findings)


def test_without_a_multimeter_a_dead_channel_is_named(lay) -> None:
    laid = lay(seed=8)
    laid.knows_zero()
    laid.board.dacs[0]._gain[0] = 0.0
    laid.board.dacs[0]._offset_v[0] = 1.6
    part = dac.measure(laid.bench)
    assert not part.quantities["row_works"].value[:8].any()
    assert part.quantities["row_works"].value[8:].all()
    assert any("chip 0 channel 0" in text and "rows 0 to 7" in text for text in part.findings)


def test_part_zero_comes_first(lay) -> None:
    with pytest.raises(CalibrationError, match="zero"):
        dac.measure(lay().bench)
