"""What a host must know of a board's profile: how it is wired, and what its parts do.

Calibration and the simulator use both without knowing board profiles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivers import dac80508
from drivers.ads8324 import BITS as ADC_BITS
from drivers.ads8324 import FRAME_CLOCKS
from firmware_bridge.instructions import TICK_S
from firmware_bridge.profile import BoardProfile
from hil.wiring import Wiring


def half_period_ticks(clock_hz: float) -> int:
    """Half a period of the fastest clock that the fabric can make and that is not faster than this one."""
    return max(1, int(np.ceil(0.5 / clock_hz / TICK_S - 1e-6)))


def electrics(profile: BoardProfile) -> dict[str, float | int | str | bool]:
    """Facts of a profile, each with its unit as suffix; goes into a backend's identity.

    Settling times are those that the profile plans with, conversion_period_s is that of the fabric's next slower clock.
    """
    dac, mux, tia, adc = profile.dac, profile.mux, profile.tia, profile.adc
    return {
        "mux_width": mux.width,
        "selects": mux.selects,
        "inhibit": mux.inhibit,
        "r_feedback_ohm": tia.r_feedback_ohm,
        "v_common_v": tia.v_common_v,
        "adc_v_reference_v": adc.v_reference_v,
        "adc_bits": ADC_BITS,
        "dac_full_scale_v": dac.output_range.span_v,
        "dac_bits": dac80508.BITS,
        "dac_vdd_v": dac.vdd_v,
        "conversion_period_s": 2 * FRAME_CLOCKS * half_period_ticks(adc.clock_hz) * TICK_S,
        "dac_settle_s": dac.settle_s,
        "mux_settle_s": mux.settle_s,
        "tia_settle_s": tia.settle_s,
        "select_settle_s": adc.select_settle_s,
    }


def wiring(profile: BoardProfile, row_ok: NDArray[np.bool_], col_ok: NDArray[np.bool_]) -> Wiring:
    """Which part serves which line.

    Args:
        profile: the board.
        row_ok, col_ok: lines whose parts work, shape (rows,) and (cols,).
    """
    rows, cols = np.arange(profile.rows), np.arange(profile.cols)
    mux = profile.mux
    return Wiring(
        row_channel=profile.row_mux(rows),
        row_position=profile.row_position(rows),
        col_converter=profile.column_lane(cols),
        independent_selects=mux.selects == "independent",
        inhibit=mux.inhibit,
        channel_names=tuple(channel_name(profile, m) for m in range(mux.count)),
        converter_names=tuple(converter_name(lane) for lane in range(profile.adc.count)),
        row_ok=row_ok.copy(),
        col_ok=col_ok.copy(),
    )


def channel_name(profile: BoardProfile, mux: int) -> str:
    """What a person calls the channel that drives a mux."""
    chip, channel = profile.row_channel(mux)
    return f"DAC80508 chip {chip} channel {channel}, CD4051B mux {mux}"


def converter_name(lane: int) -> str:
    """What a person calls a converter."""
    return f"ADS8324 lane {lane}"
