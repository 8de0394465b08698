"""What follows from the facts of a board and from the parts of its calibration that were measured so far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calibration.network import Resistances
from hil.calibration_file import Calibration

#: variance of rounding, in squared steps
ROUNDING = 1.0 / 12.0


def nominal_amps_per_code(known: Calibration) -> float:
    """Current of one converter step by the board profile."""
    electrics = known.electrics
    step_v = 2.0 * electrics["adc_v_reference_v"] / 2 ** electrics["adc_bits"]
    return float(step_v / electrics["r_feedback_ohm"])


def converter_range_a(known: Calibration) -> float:
    """Largest current of one conversion: the amplifier's swing, or what the converter resolves."""
    electrics = known.electrics
    return float(min(electrics["v_common_v"], 2.0 * electrics["adc_v_reference_v"]) / electrics["r_feedback_ohm"])


def converter_sigma_a(known: Calibration, cols: NDArray[np.intp]) -> NDArray[np.float64]:
    """Noise of one conversion of each column with its rounding, in amperes, shape (len(cols),)."""
    lsb = np.asarray(known.value("converter_noise_lsb"))[known.wiring.col_converter[cols]]
    return np.sqrt(lsb**2 + ROUNDING) * nominal_amps_per_code(known)


def resistances(known: Calibration) -> Resistances:
    """As part `line` found them."""
    return Resistances(
        np.asarray(known.value("r_on_ohm")), float(known.value("row_ohm")), float(known.value("col_ohm"))
    )
