"""What a board spent, by the counters it brings back with a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.accounts.networks import NetworkShape
from experiments.accounts.technology import TechnologySettings


@dataclass(frozen=True)
class BoardUse:
    """Time and conversions of one product of a row vector with the array.

    Attributes:
        time_s: time within programs of the board.
        conversions: converters times the conversions that each had time for.
        measured: counted by a board, or by the emulated one; False: the bound of the schedule.
    """

    time_s: float
    conversions: float
    measured: bool

    @classmethod
    def counted(cls, telemetry: Mapping[str, float], technology: TechnologySettings) -> BoardUse | None:
        """From the telemetry of a run, mean over its products; None where no board answered."""
        n_vmm, time_s = telemetry.get("vmm_count", 0.0), telemetry.get("board_time_s", 0.0)
        if not (n_vmm and time_s):
            return None
        slots = telemetry.get("board_convert_s", 0.0) * technology.board_adc_rate_hz * technology.board_adc_count
        return cls(time_s / n_vmm, slots / n_vmm, measured=True)

    @classmethod
    def bound(cls, network: NetworkShape, technology: TechnologySettings) -> BoardUse | None:
        """With every phase used and nothing but conversions taking time; None for a network beyond one macro."""
        if network.n_inputs + network.n_neurons > technology.array_rows:
            return None
        columns = technology.conversions_per_neuron * network.n_neurons
        rounds = technology.board_phases * -(-columns // technology.board_adc_count)
        return cls(rounds / technology.board_adc_rate_hz, float(rounds * technology.board_adc_count), measured=False)

    def energy_j(self, technology: TechnologySettings) -> float:
        """Of one product: what the board draws all the time, and its conversions."""
        return self.time_s * technology.board_static_w + self.conversions * technology.board_adc_j
