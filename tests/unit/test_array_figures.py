"""Figures of array runs: which a run gets, that they show its numbers, and that odd data do not stop them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from experiments import style
from experiments.array import drawings
from experiments.array.figures import CAPTIONS, PICTURES, figures_of
from experiments.array.record import Operation, Request, pack_mask, tables
from experiments.array.units import label_of, scaled, shown
from hil.fault_map import Fault
from hil.runfile import RunFile, open_run

SHAPE = (4, 6)
RNG_SEED = 5


def conductances() -> NDArray[np.float32]:
    return np.random.default_rng(RNG_SEED).normal(14e-6, 4e-6, SHAPE).astype(np.float32)


def new_run(folder: Path, results: dict[str, Any] | None, **config: Any) -> Path:
    """A run file with these results; None leaves the run as a killed process does."""
    run = RunFile.create(
        folder, "array-test", config=config, backend={"name": "sim"}, calibration=None, seed=0, software={},
        tables=tables(SHAPE),
    )  # fmt: skip
    if results is None:
        record(run)
    else:
        run.finish("complete", results=results)
    run.close()
    return run.path


def record(run: RunFile, target_s: float = float("nan")) -> None:
    """Two pulses on the first row, each verified by a read; the second is not confirmed."""
    mask = np.zeros(SHAPE, np.bool_)
    mask[0] = True
    run.append("request", **Request(mask, np.full(SHAPE, target_s, np.float32)).columns())
    rows, cols = pack_mask(mask)
    for op, (verb, kind) in enumerate([("read", ""), ("pulse", "set"), ("read", ""), ("pulse", "set")]):
        operation = Operation(op, verb, "test", kind, n_cells=6, voltage_v=1.5, v_gate_v=1.0, width_s=1e-6)
        run.append("operations", **operation.columns())
        if verb == "pulse":
            run.append("masks", op=np.uint32(op), row=rows, cols=cols)
        if op == 3:
            break
        if verb == "read":
            g = np.full(6, (10 + op) * 1e-6, np.float32)
            row, col = np.zeros(6, np.uint16), np.arange(6, dtype=np.uint16)
            run.append("readings", op=np.uint32(op), row=row, col=col, current_a=0.2 * g, conductance_s=g)
        run.append(
            "outcomes", op=np.uint32(op), status="done", voltage_v=1.5, v_gate_v=1.0, width_s=1e-6, t_array_s=float(op),
            duration_s=0.1, text="",
        )  # fmt: skip


def figures(path: Path) -> dict[str, Any]:
    with open_run(path) as reader:
        return figures_of(reader)


def words(made: Any) -> str:
    """Every text of a figure."""
    from matplotlib.text import Text

    return "\n".join(found.get_text() for found in made.findobj(Text))


class TestWhichFigures:
    """A run gets the figures whose data it has."""

    def test_a_read_run_has_its_map_and_its_distributions(self, tmp_path: Path) -> None:
        path = new_run(tmp_path, {"conductance_s": conductances(), "mask_ok": np.ones(SHAPE, np.bool_)})
        assert list(figures(path)) == ["conductance_map", "conductance_distribution", "pair_distribution"]

    def test_every_kind_of_data_has_its_figure(self, tmp_path: Path) -> None:
        g = conductances()
        cells = 3
        curves = np.ones((cells, 8))
        path = new_run(
            tmp_path,
            {
                "conductance_s": g, "mask_in": np.ones(SHAPE, np.bool_), "mask_ok": g > 1e-5,
                "faults": np.eye(*SHAPE, dtype=np.uint8), "formed_at_v": 3.4 + 1e4 * g, "target_s": g,
                "pulse_count": np.ones(SHAPE, np.uint32), "iv_voltage_v": curves, "iv_current_a": curves,
                "loop_voltage_v": np.arange(8.0), "loop_conductance_s": curves.T, "trace_time_s": curves,
                "trace_conductance_s": curves, "psd_frequency_hz": np.arange(8.0), "psd_s2_per_hz": curves,
                "retention_time_s": np.arange(8.0), "retention_conductance_s": curves.T,
                "endurance_cycle": np.arange(1, 9), "endurance_high_s": curves.T, "endurance_low_s": curves.T,
                "disturb_count": np.arange(8), "disturb_shift_s": curves.T, "disturb_shift_error_s": curves.T,
                "disturb_groups": "row,column,both",
            },
        )  # fmt: skip
        chosen = {"conductance_distribution", "pair_distribution"}
        assert list(figures(path)) == [picture.name for picture in PICTURES if picture.name not in chosen]

    def test_conductances_that_were_chosen_are_held_against_their_targets_and_no_normal_distribution(
        self, tmp_path: Path
    ) -> None:
        made = figures(new_run(tmp_path, {"conductance_s": conductances(), "target_s": conductances()}))
        assert list(made) == ["conductance_map", "target_and_achieved"]

    def test_every_figure_has_a_caption(self) -> None:
        assert all(CAPTIONS[picture.name].endswith(".") for picture in PICTURES)

    def test_one_forming_voltage_for_all_cells_is_no_figure(self, tmp_path: Path) -> None:
        path = new_run(tmp_path, {"conductance_s": conductances(), "formed_at_v": np.full(SHAPE, 4.0)})
        assert "forming_voltage" not in figures(path)

    def test_a_map_without_a_fault_is_no_figure(self, tmp_path: Path) -> None:
        path = new_run(tmp_path, {"conductance_s": conductances(), "faults": np.zeros(SHAPE, np.uint8)})
        assert "fault_map" not in figures(path)

    def test_readings_that_are_all_nan_are_no_figure(self, tmp_path: Path) -> None:
        assert figures(new_run(tmp_path, {"conductance_s": np.full(SHAPE, np.nan)})) == {}

    def test_a_killed_run_is_drawn_from_its_records(self, tmp_path: Path) -> None:
        made = figures(new_run(tmp_path, None))
        assert {"conductance_map", "pulses_per_cell", "trajectories"} <= set(made)
        assert "6 cells" in words(made["conductance_map"])
        # The second pulse was not confirmed; it may have happened, and counts.
        assert "mean 2, most 2" in words(made["pulses_per_cell"])
        assert "passed" not in words(made["pulses_per_cell"])

    def test_a_killed_run_shows_its_target(self, tmp_path: Path) -> None:
        run = RunFile.create(
            tmp_path, "array-test", config={}, backend={}, calibration=None, seed=0, software={}, tables=tables(SHAPE)
        )
        record(run, target_s=12e-6)
        run.close()
        made = figures(run.path)
        assert "within tolerance" not in words(made["target_and_achieved"])
        assert "target" in words(made["target_and_achieved"])

    def test_a_run_that_was_cut_off_at_once_has_no_figure(self, tmp_path: Path) -> None:
        run = RunFile.create(
            tmp_path, "array-test", config={}, backend={}, calibration=None, seed=0, software={}, tables=tables(SHAPE)
        )
        run.close()
        assert figures(run.path) == {}


class TestWhatTheyShow:
    """Numbers of the figures are those of the data."""

    def test_failed_cells_are_those_treated_and_not_ok(self, tmp_path: Path) -> None:
        mask_in = np.zeros(SHAPE, np.bool_)
        mask_in[:2] = True
        ok = mask_in.copy()
        ok[0, :3] = False
        path = new_run(tmp_path, {"conductance_s": conductances(), "mask_in": mask_in, "mask_ok": ok})
        assert "failed (3)" in words(figures(path)["conductance_map"])

    def test_cells_that_were_not_drawn_from_the_mask_did_not_fail(self, tmp_path: Path) -> None:
        ok = np.zeros(SHAPE, np.bool_)
        ok[1, 2] = True
        results = {"mask_in": np.ones(SHAPE, np.bool_), "mask_ok": ok, "cells": np.array([[1, 2], [3, 5]])}
        path = new_run(tmp_path, {"conductance_s": conductances(), **results})
        assert "failed (1)" in words(figures(path)["conductance_map"])

    def test_cells_without_a_target_did_not_fail(self, tmp_path: Path) -> None:
        target = conductances()
        target[1:] = np.nan
        ok = np.isfinite(target)
        path = new_run(
            tmp_path,
            {"conductance_s": conductances(), "mask_in": np.ones(SHAPE, np.bool_), "mask_ok": ok, "target_s": target},
        )
        assert "failed" not in words(figures(path)["conductance_map"])

    def test_distribution_is_in_microsiemens_and_leaves_out_what_failed_or_is_unformed(self, tmp_path: Path) -> None:
        g = np.full(SHAPE, 14e-6)
        g[0, 0], g[1, 1] = 1e-3, 1e-7
        g[2] = 16e-6
        ok = np.ones(SHAPE, np.bool_)
        ok[0, 0] = False
        faults = np.zeros(SHAPE, np.uint8)
        faults[1, 1] = Fault.UNFORMED
        path = new_run(
            tmp_path, {"conductance_s": g, "mask_in": np.ones(SHAPE, np.bool_), "mask_ok": ok, "faults": faults}
        )
        text = words(figures(path)["conductance_distribution"])
        assert "22 cells" in text
        assert "mean 14.55 µS" in text

    def test_pairs_are_neighbouring_columns(self) -> None:
        made = drawings.distribution(np.array([[1.0, 2.0, 4.0]]), "difference", "µS", "Pairs")
        assert "mean 2.333 µS" in words(made)

    def test_pair_difference_is_even_less_odd_column(self, tmp_path: Path) -> None:
        g = np.tile(np.array([12e-6, 10e-6]), (4, 3))
        g[0, 0] = 13e-6
        text = words(figures(new_run(tmp_path, {"conductance_s": g}))["pair_distribution"])
        assert "12 cells" in text
        assert f"mean {(11 * 2 + 3) / 12:.4g} µS" in text

    def test_fault_map_counts_a_cell_for_each_of_its_faults(self) -> None:
        faults = np.zeros(SHAPE, np.uint8)
        faults[0] = Fault.ROW_OPEN
        faults[0, 0] |= Fault.NOISY
        text = words(drawings.fault_map(faults))
        assert "healthy (18)" in text
        assert "row open (6)" in text
        assert "noisy (1)" in text
        assert "Faults: 6 of 24 cells" in text

    def test_a_map_is_cut_to_its_cells_and_keeps_their_numbers(self) -> None:
        g = np.full((512, 512), np.nan)
        g[100:108, 300:316] = 14e-6
        axes = drawings.conductance_map(g).axes[0]
        assert axes.get_xlim() == (299.5, 315.5)
        assert axes.get_ylim() == (107.5, 99.5)

    def test_a_few_cells_far_out_of_many_do_not_flatten_the_colours(self) -> None:
        few, many = np.linspace(10e-6, 20e-6, 64).reshape(8, 8), np.linspace(10e-6, 20e-6, 6400).reshape(80, 80)
        few[0, 0] = many[0, 0] = 1e-3
        assert drawings.conductance_map(few).axes[0].images[0].get_clim()[1] == pytest.approx(1000)
        assert drawings.conductance_map(many).axes[0].images[0].get_clim()[1] == pytest.approx(20, abs=0.1)

    def test_cumulative_distribution_ends_at_all_cells(self) -> None:
        values = np.array([[3.3, 3.4], [3.4, np.nan]])
        line = drawings.forming_voltage(values).axes[1].lines[0]
        assert line.get_xdata().tolist() == [3.3, 3.3, 3.4, 3.4]
        assert np.allclose(line.get_ydata(), [0, 100 / 3, 200 / 3, 100])

    def test_retention_compares_with_the_first_reading_that_a_cell_has(self) -> None:
        g = np.array([[10e-6, np.nan], [11e-6, 20e-6], [12e-6, 10e-6]])
        change = drawings.retention(np.array([1.0, 10.0, 100.0]), g).axes[1]
        first, second = (line.get_ydata() for line in change.lines[:2])
        assert np.allclose(first, [0, 10, 20])
        assert np.allclose(second[1:], [0, -50])

    def test_psd_is_averaged_in_bins_and_not_shifted(self) -> None:
        f = np.linspace(0.0, 100.0, 1001)
        axes = drawings.noise_psd(f, np.full((3, len(f)), 1e-12)).axes[0]
        for line in axes.lines[:4]:
            assert np.allclose(line.get_ydata(), 1.0)

    def test_a_comparison_has_a_panel_per_quantity_with_its_distance(self) -> None:
        samples = {f"quantity {k} (V)": (np.arange(5.0), np.arange(7.0)) for k in range(12)}
        made = drawings.distribution_figure(samples, {"quantity 0 (V)": "KS 0.03"})
        assert len([axes for axes in made.axes if axes.axison]) == 9
        assert "quantity 0 (V)\nKS 0.03" in words(made)
        assert "measured (5)" in words(made)
        assert "simulated (7)" in words(made)

    def test_a_comparison_shows_siemens_as_microsiemens_and_ends_where_nearly_all_values_are(self) -> None:
        values_s = np.append(np.linspace(160e-6, 240e-6, 999), 9e-4)
        made = drawings.distribution_figure(
            {"conductance (S)": (values_s, values_s), "b [uS]": (values_s, values_s)}, {}
        )
        assert "conductance (µS)" in words(made)
        assert "b (µS)" in words(made)
        low, high = made.axes[0].get_xlim()
        assert 150 < low < 165
        assert 235 < high < 250

    @pytest.mark.parametrize(("n", "empty"), [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 0), (8, 0), (9, 0)])
    def test_a_comparison_leaves_few_places_empty(self, n: int, empty: int) -> None:
        made = drawings.distribution_figure({f"{k} (V)": (np.arange(5.0), np.arange(5.0)) for k in range(n)}, {})
        assert len([axes for axes in made.axes if not axes.axison]) == empty

    def test_a_comparison_says_what_it_leaves_out(self) -> None:
        made = drawings.distribution_figure({f"{k} (V)": (np.arange(5.0), np.arange(5.0)) for k in range(12)}, {})
        assert "the first 9 of 12 quantities" in words(made)


ODD = {
    "only NaN": np.full((4, 4), np.nan),
    "one value": np.full((4, 4), 14e-6),
    "zero": np.zeros((4, 4)),
    "one cell": np.array([[14e-6]]),
    "one finite": np.where(np.eye(4) > 2, 0.0, np.where(np.arange(16).reshape(4, 4) == 6, 1e-5, np.nan)),
    "a thread": np.linspace(1e-6, 2e-5, 120)[None],
    "infinite": np.where(np.eye(4) > 0, np.inf, 1e-5),
}
DRAWN: dict[str, Callable[[NDArray[np.float64]], Any]] = {
    "map": lambda a: drawings.conductance_map(a, np.zeros(a.shape, np.bool_)),
    "failed map": lambda a: drawings.conductance_map(a, np.ones(a.shape, np.bool_)),
    "distribution": lambda a: drawings.distribution(a, "G", "µS", "G", 1e6),
    "forming": drawings.forming_voltage,
    "program": lambda a: drawings.target_and_achieved(np.full(a.shape, 1e-5), a, np.zeros(a.shape, np.bool_), 1e-6),
    "iv": lambda a: drawings.iv_family(a, a, ["x"] * len(a)),
    "loop": lambda a: drawings.switching_loop(a[0], np.tile(a[0][:, None], (1, 3)), a, a),
    "psd": lambda a: drawings.noise_psd(np.arange(a.shape[1], dtype=float), a),
    "traces": lambda a: drawings.traces(a, a, ["x"] * len(a)),
    "retention": lambda a: drawings.retention(np.arange(len(a), dtype=float), a),
    "endurance": lambda a: drawings.endurance(np.arange(len(a)) + 1, a, a),
    "disturb": lambda a: drawings.disturb(np.arange(len(a)), a, np.abs(a), ["x"] * a.shape[1]),
    "comparison": lambda a: drawings.distribution_figure({"a": (a, a)}, {}),
    "trajectories": lambda a: drawings.trajectories([a[0]], [1e-5], ["x"]),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", DRAWN)
def test_odd_data_are_drawn_all_the_same(name: str, odd: str) -> None:
    made = DRAWN[name](ODD[odd])
    # Ticks and their labels are computed, which is where odd limits are noticed; the layout would take longest.
    made.set_layout_engine("none")
    made.draw_without_rendering()


@pytest.mark.parametrize("name", set(DRAWN) - {"failed map"})
def test_a_figure_without_data_says_so(name: str) -> None:
    assert "no data" in words(DRAWN[name](ODD["only NaN"]))


def test_no_cells_at_all() -> None:
    nothing = np.zeros((0, 3))
    for made in (
        drawings.pulses_per_cell(np.zeros(0, np.uint32)),
        drawings.trajectories([], [], []),
        drawings.iv_family(nothing, nothing, []),
        drawings.traces(nothing, nothing, []),
        drawings.distribution_figure({}, {}),
        drawings.distribution_figure({"a": (np.zeros(0), np.ones(3))}, {}),
    ):
        assert "no data" in words(made)
        assert style.svg(made)


def test_one_value_is_drawn_without_a_fit() -> None:
    text = words(drawings.distribution(np.full(9, 14e-6), "G", "µS", "G", 1e6))
    assert "all cells: 14 µS" in text
    assert "normal:" not in text


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-11, 1e11))
def test_a_scaled_value_has_few_digits_before_its_point(value: float) -> None:
    factor, unit = scaled([value, -value / 2], "A")
    assert 0.999 <= value * factor < 1000 or unit in ("GA", "pA")
    assert unit.endswith("A")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("mean_s", 14.25e-6, "14.25 µS"),
        ("sigma_s", 0.0, "0 µS"),
        ("variance_max_s2", 1.4e-13, "0.14 µS²"),
        ("width_s", 200e-9, "200 ns"),
        ("first_age_s", 3600.0, "3600 s"),
        ("v_gate_v", 1.2, "1.2 V"),
        ("formed_at_mean_v", 3.433, "3.433 V"),
        ("current_a", 2.9e-6, "2.9 µA"),
        ("interval_s", 0.99999, "1 s"),
        ("temperature_c", 25.0, "25 °C"),
        ("yield", 0.9979, "99.79 %"),
        ("cells", 262144, "262,144"),
        ("cells", np.int64(5), "5"),
        ("read_significant", False, "no"),
        ("window_first_median", 4.5866, "4.587"),
        ("mean_s", float("nan"), "not known"),
        ("time_base", "clock of the array", "clock of the array"),
    ],
)
def test_numbers_come_in_readable_units(name: str, value: Any, text: str) -> None:
    assert shown(name, value) == text


def test_a_label_is_the_name_without_its_unit() -> None:
    assert label_of("formed_at_mean_v") == "formed at mean"
    assert label_of("p5_s") == "5 % of the cells below"
    assert label_of("cells_formed") == "cells formed"


def test_a_fault_map_shows_and_counts_the_cells_that_were_looked_at() -> None:
    faults = np.zeros((64, 64), np.uint8)
    faults[20, 12] = int(Fault.NOISY)
    looked_at = np.zeros((64, 64), np.bool_)
    looked_at[16:24, 8:16] = True
    looked_at[16, 8] = False
    made = drawings.fault_map(faults, looked_at)
    said = [text.get_text() for text in made.axes[0].get_legend().get_texts()]
    assert said == ["healthy (62)", "noisy (1)", "not looked at (1)"]
    assert made.axes[0].get_xlim() == (7.5, 15.5)
    assert made.axes[0].get_ylim() == (23.5, 15.5)


def test_the_current_at_zero_volts_does_not_stretch_the_axis() -> None:
    voltage_v = np.array([[-0.2, 0.0, 0.2]])
    made = drawings.iv_family(voltage_v, np.array([[-3e-6, 1e-19, 3e-6]]), ["a cell"])
    low, high = made.axes[1].get_ylim()
    assert high / low < 100


def test_errors_of_programming_are_those_that_the_run_found() -> None:
    target_s = np.full((2, 2), 10e-6)
    made = drawings.target_and_achieved(target_s, target_s + 2e-6, None, 1e-6, np.full((2, 2), 0.5e-6))
    assert "+0.5 µS" in made.axes[1].get_title()
