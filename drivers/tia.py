"""Transimpedance amplifier of a column: OPA4322-Q1 (DS SLOS856B) with a feedback resistor and capacitor.

Current counts positive from the driven row into the column, so into the summing node, and moves the output down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hil.errors import ConfigError

#: gain-bandwidth product (DS)
GBW_HZ = 20e6
#: slew rate (DS)
SLEW_V_PER_S = 10e6
#: input noise at 1 kHz (DS)
NOISE_V_PER_RTHZ = 8.5e-9
#: largest input offset (data sheet of the family)
OFFSET_MAX_V = 2e-3
#: how close to ground the output gets with 10 kohm, pessimistic end; unverified
SWING_LOW_V = 0.02


@dataclass(frozen=True)
class Tia:
    """Output law: v_common - current * r_feedback.

    Attributes:
        r_feedback_ohm: feedback resistor.
        v_common_v: virtual ground of the column, and output at no current.
        swing_low_v: lowest output.
    """

    r_feedback_ohm: float
    v_common_v: float
    swing_low_v: float = SWING_LOW_V

    def __post_init__(self) -> None:
        if not (self.r_feedback_ohm > 0 and math.isfinite(self.r_feedback_ohm)):
            raise ConfigError(f"TIA feedback of {self.r_feedback_ohm} ohm", fix="give a positive resistance")
        if not 0 <= self.swing_low_v < self.v_common_v < math.inf:
            raise ConfigError(
                f"TIA virtual ground of {self.v_common_v} V with a lowest output of {self.swing_low_v} V",
                fix="the virtual ground must lie above the lowest output: positive current moves the output down",
            )

    @property
    def current_max_a(self) -> float:
        """Current that brings the output to its lowest value; the law does not hold above."""
        return (self.v_common_v - self.swing_low_v) / self.r_feedback_ohm

    def output_v(self, current_a: Any) -> Any:
        """Output for a current: number or array. Not limited: compare with `current_max_a`."""
        return self.v_common_v - current_a * self.r_feedback_ohm

    def current_a(self, output_v: Any) -> Any:
        """Current that makes an output: number or array."""
        return (self.v_common_v - output_v) / self.r_feedback_ohm


def feedback_capacitor_f(r_feedback_ohm: float, c_input_f: float, gbw_hz: float = GBW_HZ) -> float:
    """Feedback capacitor of a Butterworth response, for a capacitance at the summing node."""
    return math.sqrt(c_input_f / (math.pi * r_feedback_ohm * gbw_hz))


def noise_gain(r_feedback_ohm: float, g_total_s: float) -> float:
    """Gain from offset and noise of the amplifier to its output, with this conductance at the summing node."""
    return 1 + r_feedback_ohm * g_total_s


def bandwidth_hz(r_feedback_ohm: float, c_input_f: float, g_total_s: float = 0.0, gbw_hz: float = GBW_HZ) -> float:
    """-3 dB bandwidth with the capacitor of `feedback_capacitor_f`, capped by the noise gain of the array's cells."""
    butterworth_hz = math.sqrt(gbw_hz / (2 * math.pi * r_feedback_ohm * c_input_f))
    return min(butterworth_hz, gbw_hz / noise_gain(r_feedback_ohm, g_total_s))


def settling_s(bits: int, r_feedback_ohm: float, c_feedback_f: float) -> float:
    """Time of a single pole to settle a full-scale step within half an LSB of `bits`."""
    return math.log(2 ** (bits + 1)) * r_feedback_ohm * c_feedback_f
