"""What a simulated board tells of itself, as a real one does: its wiring, and what its parts do."""

from __future__ import annotations

import numpy as np

from hil.wiring import Wiring
from sim_backend.mux import channel_of_row, phase_of_row
from sim_backend.settings import SimSettings

#: time of one conversion on the board, by which the chip's clock moves on; source: TI ADS8324 at 1.2 MHz
CONVERSION_S = 20e-6


def electrics(settings: SimSettings) -> dict[str, float | int | str | bool]:
    """What a calibration must know of the board that it measures; the same facts as those of a board's profile."""
    mux, tia, adc, dac = settings.mux, settings.tia, settings.adc, settings.dac
    return {
        "mux_width": mux.width,
        "selects": mux.selects,
        "inhibit": mux.inhibit,
        "r_feedback_ohm": tia.r_feedback_ohm,
        "v_common_v": tia.v_common_v,
        "adc_v_reference_v": adc.v_reference_v,
        "adc_bits": adc.bits,
        "dac_full_scale_v": dac.full_scale_v,
        "dac_bits": dac.bits,
        "conversion_period_s": CONVERSION_S,
        # Simulated lines are always settled.
        **dict.fromkeys(("dac_settle_s", "mux_settle_s", "tia_settle_s", "select_settle_s"), 0.0),
    }


def wiring(settings: SimSettings) -> Wiring:
    """Wiring of a drawn board: a channel per mux, a converter per column."""
    rows, cols, mux = np.arange(settings.rows), np.arange(settings.cols), settings.mux
    channel = channel_of_row(rows, mux.width)
    return Wiring(
        row_channel=channel,
        row_position=phase_of_row(rows, mux.width),
        col_converter=cols,
        independent_selects=mux.selects == "independent",
        inhibit=mux.inhibit,
        channel_names=tuple(f"mux {m}" for m in range(int(channel[-1]) + 1)),
        converter_names=tuple(f"column {c}" for c in range(settings.cols)),
        row_ok=np.ones(settings.rows, np.bool_),
        col_ok=np.ones(settings.cols, np.bool_),
    )
