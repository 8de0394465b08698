"""Accounts of operations and energy: the paper's figures as far as they can be counted, and the conventions' rules."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.accounts import (
    TASKS,
    Activity,
    BoardUse,
    NetworkShape,
    TechnologySettings,
    energy_of,
    operations_of,
)
from experiments.accounts.energy import hybrid
from experiments.accounts.operations import encoder_ops, full_lsm_ops, full_srnn_ops, paper_lsm_ops, paper_srnn_ops

NMNIST = TASKS["lsm-nmnist"].networks
ATV = TASKS["lsm-atv"].networks
BTV = TASKS["lsm-btv"].networks
TECHNOLOGY = TechnologySettings()

networks = st.builds(
    NetworkShape, st.integers(1, 800), st.integers(1, 2048), st.integers(1, 201), st.integers(1, 256)
)  # fmt: skip


class TestOperations:
    @pytest.mark.parametrize(("task", "expected"), [("lsm-nmnist", 9_120_000), ("lsm-ntidigits", 13_622_400),
                                                     ("lsm-atv", 22_742_400)])  # fmt: skip
    def test_an_encoder_costs_two_operations_per_weight_and_step(self, task: str, expected: int) -> None:
        """22.7 million for audio to vision is the paper's own figure."""
        assert sum(map(encoder_ops, TASKS[task].networks)) == expected

    @pytest.mark.parametrize(
        ("task", "against", "deviation"),
        [
            ("lsm-nmnist", "SRNN-ANN", -0.0513), ("lsm-nmnist", "SRNN-SNN", -0.0492),
            ("lsm-ntidigits", "SRNN-ANN", -0.0269), ("lsm-ntidigits", "SRNN-SNN", -0.0244),
            ("lsm-atv", "SRNN-CLIP", -0.0247), ("lsm-btv", "SRNN-CLIP", -0.0172),
        ],
    )  # fmt: skip
    def test_reported_ratios_are_met_within_a_few_per_cent(self, task: str, against: str, deviation: float) -> None:
        reported = next(one for one in TASKS[task].operations if one.against == against)
        counted = operations_of(TASKS[task].networks, spiking_readout=reported.spiking_readout)
        assert counted["paper"]["ratio"] / reported.ratio - 1 == pytest.approx(deviation, abs=1e-4)

    def test_a_full_count_by_hand(self) -> None:
        """One input, two neurons, three steps, one output: every term written out."""
        small = NetworkShape(n_inputs=1, n_neurons=2, n_steps=3, n_outputs=1)
        products, neurons = 2 * 3 * 6, 5 * 3 * 2
        back = 2 * 3 * 6 + 2 * 3 * 4 + 5 * 3 * 2
        layer = 6 * 2 + 2
        assert full_srnn_ops(small) == products + neurons + back + layer
        outputs_spike = 3 * layer + (5 + 5) * 3
        assert full_srnn_ops(small, spiking_readout=True) == products + neurons + back + outputs_spike
        assert full_lsm_ops(small, epochs=10) == neurons / 10 + 4 * 2 + 2

    @settings(max_examples=25, deadline=None)
    @given(networks)
    def test_the_full_count_is_larger_than_the_papers_for_a_trained_encoder(self, network: NetworkShape) -> None:
        assert full_srnn_ops(network) > paper_srnn_ops(network)
        assert full_srnn_ops(network, spiking_readout=True) > full_srnn_ops(network)
        assert paper_srnn_ops(network, spiking_readout=True) > paper_srnn_ops(network) > paper_lsm_ops(network)

    def test_both_modalities_are_summed(self) -> None:
        both, each = operations_of(ATV), [operations_of([one]) for one in ATV]
        for convention in ("paper", "full"):
            for name in ("srnn", "lsm"):
                assert both[convention][name] == sum(one[convention][name] for one in each)

    def test_a_summary_can_hold_the_count_and_gives_the_shapes_back(self) -> None:
        stored = json.loads(json.dumps(operations_of(ATV)))
        assert tuple(NetworkShape(**shape) for shape in stored["networks"]) == ATV


class TestEnergy:
    @pytest.mark.parametrize(
        ("task", "key", "reported", "within"),
        [
            ("lsm-nmnist", "digital_j", 4.39e-6, 0.001),
            ("lsm-nmnist", "hybrid_paper_j", 0.14e-6, 0.06),
            ("lsm-nmnist", "ratio_paper", 29.91, 0.001),
            ("lsm-nmnist", "ratio_paper_products", 31.29, 0.002),
            ("lsm-ntidigits", "hybrid_paper_j", 0.37e-6, 0.02),
            ("lsm-atv", "hybrid_paper_j", 0.545e-6, 0.005),
            ("lsm-btv", "ratio_paper_products", 160.0, 0.02),
        ],
    )
    def test_the_papers_rule_gives_the_papers_figure(self, task: str, key: str, reported: float, within: float) -> None:
        assert energy_of(TASKS[task].networks, TECHNOLOGY)[key] == pytest.approx(reported, rel=within)

    def test_the_papers_digital_figure_for_speech_is_not_met(self) -> None:
        """6.56 uJ against 8.28 reported: unexplained, and to be seen."""
        counted = energy_of(TASKS["lsm-ntidigits"].networks, TECHNOLOGY)
        assert counted["digital_j"] == pytest.approx(6.56e-6, rel=1e-3)
        assert counted["ratio_paper"] < 0.8 * TASKS["lsm-ntidigits"].energy.ratio

    def test_the_parts_add_up(self) -> None:
        found = energy_of(ATV, TECHNOLOGY)
        assert sum(found["hybrid_parts"].values()) == pytest.approx(found["hybrid_j"])
        assert found["hybrid_j"] == pytest.approx(sum(energy_of([one], TECHNOLOGY)["hybrid_j"] for one in ATV))

    def test_spikes_cost_array_and_drivers_only(self) -> None:
        quiet, busy = (hybrid(NMNIST[0], TECHNOLOGY, Activity(rate, rate)) for rate in (0.05, 0.1))
        assert busy.array_j == pytest.approx(2 * quiet.array_j)
        assert busy.drivers_j == pytest.approx(2 * quiet.drivers_j)
        assert (busy.converters_j, busy.amplifiers_j, busy.digital_j) == (
            quiet.converters_j, quiet.amplifiers_j, quiet.digital_j
        )  # fmt: skip

    def test_array_energy_by_hand(self) -> None:
        """25.6 + 20 rows driven in each of 50 steps, 400 cells each, V^2 G t in a cell."""
        array_j = hybrid(NMNIST[0], TECHNOLOGY, Activity(0.1, 0.1)).array_j
        assert array_j == pytest.approx(50 * 45.6 * 400 * 0.2**2 * 14.25e-6 * 100e-9)

    def test_digital_energy_by_hand(self) -> None:
        """Neurons, read-out, and the difference of the two columns of each neuron."""
        ops = 5 * 50 * 200 + 2 * 2000 + 50 * 200
        assert hybrid(NMNIST[0], TECHNOLOGY, Activity(0, 0)).digital_j == pytest.approx(ops * 0.4808e-12)

    def test_a_network_beyond_one_macro_is_converted_block_by_block(self) -> None:
        """784 + 2048 rows are six blocks of 512: six conversions where the paper's rule has one."""
        one_block = TechnologySettings(array_rows=4096)
        cut, whole = (hybrid(BTV[1], technology, Activity(0.1, 0.1)) for technology in (TECHNOLOGY, one_block))
        assert cut.converters_j == pytest.approx(6 * whole.converters_j)
        sums = 50 * 2048 * 2 * 5
        assert cut.digital_j - whole.digital_j == pytest.approx(sums * TECHNOLOGY.digital_j_per_op)
        assert cut.array_j == whole.array_j

    def test_a_converter_with_one_more_bit_costs_twice_as_much(self) -> None:
        assert TechnologySettings(adc_bits=9).adc_j == 2 * TECHNOLOGY.adc_j

    def test_measured_activity_is_said_to_be(self) -> None:
        assert not energy_of(NMNIST, TECHNOLOGY)["activity_measured"]
        assert energy_of(NMNIST, TECHNOLOGY, [Activity(0.1, 0.1, measured=True)])["activity_measured"]


class TestBoard:
    def test_the_bound_is_that_of_the_schedule(self) -> None:
        """400 columns over 8 converters are 50 conversions in each of 8 phases, 20 us each: 8 ms."""
        use = BoardUse.bound(NMNIST[0], TECHNOLOGY)
        assert use is not None
        assert use.time_s == pytest.approx(8e-3)
        assert use.conversions == 8 * 400
        assert not use.measured

    def test_a_network_beyond_one_macro_has_no_board(self) -> None:
        found = energy_of(BTV, TECHNOLOGY)
        assert found["board_j"] is None
        assert found["ratio_board"] is None
        assert found["board_time_s"] is None

    def test_what_a_board_counted_replaces_the_bound(self) -> None:
        use = BoardUse.counted({"vmm_count": 100.0, "board_time_s": 0.2, "board_convert_s": 0.1}, TECHNOLOGY)
        assert use == BoardUse(time_s=2e-3, conversions=1e-3 * 50e3 * 8, measured=True)
        found = energy_of(NMNIST, TECHNOLOGY, board=use)
        assert found["board_measured"]
        assert found["board_time_s"] == pytest.approx(50 * 2e-3)
        static_j = 50 * 2e-3 * (0.192 + 512 * 7.5e-3 + 2.0)
        assert found["board_j"] == pytest.approx(static_j + 50 * 400 * 50e-9)

    @pytest.mark.parametrize("telemetry", [{}, {"vmm_count": 5.0}, {"vmm_count": 0.0, "board_time_s": 1.0}])
    def test_a_simulator_spends_no_board_time(self, telemetry: dict[str, float]) -> None:
        assert BoardUse.counted(telemetry, TECHNOLOGY) is None


def test_every_constant_says_where_it_is_from() -> None:
    for name, field in TechnologySettings.model_fields.items():
        assert field.json_schema_extra["source"], name  # type: ignore[index]


def test_a_task_with_other_steps_costs_in_proportion() -> None:
    half = [replace(one, n_steps=25) for one in NMNIST]
    assert 2 * sum(map(encoder_ops, half)) == sum(map(encoder_ops, NMNIST))
