"""Line and mux resistance: the port reduction against a full nodal solve, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil import open_session, single_ended_tile
from sim_backend.backend import SimBackend
from sim_backend.lines import effective_conductance_s, reduce_to_ports, single_cell_conductance_s
from sim_backend.nodal import solve_column_currents_a
from sim_backend.settings import SimSettings


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 9),
    n_cols=st.integers(1, 7),
    scale_ohm=st.sampled_from([1e-3, 1.0, 100.0, 5e3]),
    seed=st.integers(0, 2**32 - 1),
)
def test_ports_give_the_currents_of_a_full_nodal_solve(n_rows: int, n_cols: int, scale_ohm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells_s = rng.uniform(1e-7, 60e-6, (n_rows, n_cols))
    row_ohm = scale_ohm * rng.uniform(0.2, 2.0, n_cols)
    col_ohm = scale_ohm * rng.uniform(0.2, 2.0, n_rows)
    source_ohm = rng.uniform(50.0, 500.0, n_rows)
    selected = np.sort(rng.choice(n_rows, rng.integers(1, n_rows + 1), replace=False))
    voltage_v = np.full(n_rows, np.nan)
    voltage_v[selected] = rng.uniform(0.05, 0.4, len(selected)) * rng.integers(0, 2, len(selected))
    voltage_v[selected[0]] = 0.2

    ports = reduce_to_ports(cells_s, row_segment_ohm=row_ohm, col_segment_ohm=col_ohm)
    effective_s = effective_conductance_s(ports, selected, source_ohm[selected])

    expected_a = solve_column_currents_a(cells_s, voltage_v, source_ohm, row_ohm, col_ohm)
    np.testing.assert_allclose(voltage_v[selected] @ effective_s, expected_a, rtol=1e-8, atol=1e-18)


def test_without_resistance_a_row_shows_its_cells() -> None:
    cells_s = np.random.default_rng(0).uniform(1e-6, 40e-6, (6, 5))
    ports = reduce_to_ports(cells_s, row_segment_ohm=np.zeros(5), col_segment_ohm=np.zeros(6))
    effective_s = effective_conductance_s(ports, np.array([1, 4]), np.zeros(2))
    np.testing.assert_allclose(effective_s, cells_s[[1, 4]], rtol=1e-12)


def test_mux_alone_divides_the_voltage_as_the_closed_form_says() -> None:
    cells_s = np.full((3, 200), 25e-6)  # 5 mS on a bit line, as in the data sheet's example
    ports = reduce_to_ports(cells_s, row_segment_ohm=np.zeros(200), col_segment_ohm=np.zeros(3))
    effective_s = effective_conductance_s(ports, np.arange(3), np.full(3, 470.0))
    np.testing.assert_allclose(effective_s / cells_s, 1.0 / (1.0 + 470.0 * 5e-3), rtol=1e-12)


def test_a_single_cell_is_in_series_with_its_wires() -> None:
    cells_s = np.zeros((4, 3))
    cells_s[2, 1] = 40e-6
    ports = reduce_to_ports(cells_s + 1e-15, row_segment_ohm=np.full(3, 7.0), col_segment_ohm=np.full(4, 11.0))
    through_array = effective_conductance_s(ports, np.array([2]), np.array([125.0]))[0, 1]
    alone = single_cell_conductance_s(
        cells_s[[2], [1]],
        np.array([2]),
        np.array([1]),
        source_ohm=np.array([125.0]),
        row_ohm=7.0,
        col_ohm=11.0,
        n_rows=4,
    )
    assert through_array == pytest.approx(alone[0], rel=1e-6)


@pytest.mark.parametrize("idle_rows", ["floating", "isolated"])
def test_vmm_of_the_simulator_is_the_sum_of_nodal_solves_over_the_phases(idle_rows: str) -> None:
    """End to end: every mux phase solved with all wires, idle rows of the phase held, the others as configured."""
    settings = SimSettings.model_validate(
        {
            "rows": 16,
            "cols": 10,
            "lines": {"row_ohm": 40.0, "col_ohm": 60.0},
            "mux": {"r_on_ohm": 300.0, "r_on_sigma_ohm": 20.0, "idle_rows": idle_rows},
            **{part: {"enabled": False} for part in ("noise", "dac", "tia", "adc")},
        }
    )
    backend = SimBackend(settings, seed=5)
    tile = single_ended_tile(16, 10)
    bits = np.random.default_rng(1).random((4, 16)) < 0.4
    with open_session(backend) as session:
        measured_a = session.vmm(bits, tile, 0.2)
        chip = backend._open_chip()
        cells_s, r_on_ohm = chip.conductance_s, chip.r_on_ohm[np.arange(16) // 8]
    row_ohm, col_ohm = np.full(10, 40.0), np.full(16, 60.0)
    for x, measured in zip(bits, measured_a, strict=True):
        expected_a = np.zeros(10)
        for phase in range(8):
            voltage_v = np.full(16, np.nan)
            voltage_v[phase::8] = 0.2 * x[phase::8]
            conducting = cells_s.copy()
            if idle_rows == "isolated":
                conducting[np.isnan(voltage_v)] = 1e-12
            expected_a += solve_column_currents_a(conducting, voltage_v, r_on_ohm, row_ohm, col_ohm)
        np.testing.assert_allclose(measured, expected_a, rtol=2e-4)
