"""Energy of inference on one sample, counted in four ways that are kept apart.

`digital`: all of it in digital logic, at one price per operation.
`hybrid_paper`: the paper's projection as its figures tell it: so much per neuron column and step, whatever the rows.
`hybrid`: our own projection of a chip, part by part: converters, amplifiers, array, row drivers, digital logic.
`board`: the board as it is: its time, what it draws, its conversions.

docs/explanation/costs.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments.accounts.board import BoardUse
from experiments.accounts.networks import NetworkShape
from experiments.accounts.operations import OPS_PER_NEURON_STEP, OPS_PER_WEIGHT, encoder_ops
from experiments.accounts.technology import TechnologySettings


@dataclass(frozen=True)
class Activity:
    """How many lines are driven.

    Attributes:
        input_rate: input spikes per line and step.
        spike_rate: spikes per neuron and step.
        measured: in a run; False: the technology's guess.
    """

    input_rate: float
    spike_rate: float
    measured: bool = False

    def rows(self, network: NetworkShape) -> float:
        """Rows driven in one step, on average."""
        return self.input_rate * network.n_inputs + self.spike_rate * network.n_neurons


@dataclass(frozen=True)
class HybridEnergy:
    """Parts of our projection, in joules per sample."""

    converters_j: float
    amplifiers_j: float
    array_j: float
    drivers_j: float
    digital_j: float

    @property
    def total_j(self) -> float:
        """All parts."""
        return self.converters_j + self.amplifiers_j + self.array_j + self.drivers_j + self.digital_j


def rest_ops(network: NetworkShape) -> int:
    """Digital operations of the paper's projection beside the products: a spike counter per neuron and step, and the
    trained layer."""
    return network.n_steps * network.n_neurons + OPS_PER_WEIGHT * network.n_trained_weights


def digital_j(network: NetworkShape, technology: TechnologySettings) -> float:
    """Everything digital."""
    return (encoder_ops(network) + rest_ops(network)) * technology.digital_j_per_op


def hybrid_paper_j(network: NetworkShape, technology: TechnologySettings) -> float:
    """The paper's projection."""
    columns = network.n_steps * network.n_neurons
    return columns * technology.paper_column_j + rest_ops(network) * technology.digital_j_per_op


def hybrid(network: NetworkShape, technology: TechnologySettings, activity: Activity) -> HybridEnergy:
    """Our projection. Rows beyond one macro are converted block by block and summed by digital logic."""
    steps, neurons = network.n_steps, network.n_neurons
    blocks = -(-(network.n_inputs + neurons) // technology.array_rows)
    per_step = technology.conversions_per_neuron * neurons * blocks
    conversions = steps * per_step
    driven = steps * activity.rows(network)
    cell_j = technology.v_read_v**2 * technology.mean_conductance_s * technology.read_time_s
    sums = conversions - steps * neurons
    ops = OPS_PER_NEURON_STEP * steps * neurons + OPS_PER_WEIGHT * network.n_trained_weights + sums
    return HybridEnergy(
        converters_j=conversions * technology.adc_j,
        amplifiers_j=conversions * technology.front_end_j,
        array_j=driven * 2 * neurons * cell_j,
        drivers_j=driven * technology.line_capacitance_f * technology.v_read_v**2,
        digital_j=ops * technology.digital_j_per_op,
    )


def energy_of(
    networks: Sequence[NetworkShape],
    technology: TechnologySettings,
    activities: Sequence[Activity] = (),
    board: BoardUse | None = None,
) -> dict[str, Any]:
    """Energy of one sample, or one of each modality, by all conventions.

    Args:
        networks: one, or one for each modality.
        technology: prices.
        activities: of each network; none: the technology's guess.
        board: what one product took on a board; None: the bound of its schedule.

    Returns:
        Joules: `digital_j`, `hybrid_paper_j`, `hybrid_j`, its `hybrid_parts`, `board_j` (None for networks beyond one
        macro); the ratios of `digital_j` to the others, and that of the products alone under the paper's convention;
        `board_time_s` per sample; `board_measured` and `activity_measured`.
    """
    guess = Activity(technology.input_rate, technology.spike_rate)
    activities = tuple(activities) or (guess,) * len(networks)
    parts = [hybrid(one, technology, how) for one, how in zip(networks, activities, strict=True)]
    summed = {name: sum(asdict(part)[name] for part in parts) for name in asdict(parts[0])}
    total_j = sum(part.total_j for part in parts)
    in_digital_j = sum(digital_j(one, technology) for one in networks)
    in_paper_j = sum(hybrid_paper_j(one, technology) for one in networks)
    products_j = sum(encoder_ops(one) for one in networks) * technology.digital_j_per_op
    columns_j = sum(one.n_steps * one.n_neurons for one in networks) * technology.paper_column_j
    uses = [board or BoardUse.bound(one, technology) for one in networks]
    board_j, board_s = _on_the_board(networks, uses, technology)
    return {
        "digital_j": in_digital_j,
        "hybrid_paper_j": in_paper_j,
        "hybrid_j": total_j,
        "hybrid_parts": summed,
        "board_j": board_j,
        "ratio_paper": in_digital_j / in_paper_j,
        "ratio_paper_products": products_j / columns_j,
        "ratio_hybrid": in_digital_j / total_j,
        "ratio_board": None if board_j is None else in_digital_j / board_j,
        "board_time_s": board_s,
        "board_measured": board is not None and board.measured,
        "activity_measured": all(how.measured for how in activities),
    }


def _on_the_board(
    networks: Sequence[NetworkShape], uses: Sequence[BoardUse | None], technology: TechnologySettings
) -> tuple[float | None, float | None]:
    known = [(one, use) for one, use in zip(networks, uses, strict=True) if use is not None]
    if len(known) < len(networks):
        return None, None
    return (
        sum(one.n_steps * use.energy_j(technology) for one, use in known),
        sum(one.n_steps * use.time_s for one, use in known),
    )
