"""How two runs differ: numbers, maps, faults, settings, and the verdict in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from array_runs import SHAPE, append_pulse, append_read, array_run, conductances, counts_run, create_run
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.errors import ConfigError
from hil.run_compare import Comparison, array_difference, compare, ks_distance
from hil.runfile import open_run

RNG = np.random.default_rng(5)


def compared(a: Path, b: Path, tolerance_s: float = 1e-6) -> Comparison:
    with open_run(a) as reader_a, open_run(b) as reader_b:
        return compare(reader_a, reader_b, tolerance_s)


class TestArrays:
    def test_shift_spread_and_correlation(self) -> None:
        a = RNG.normal(10.0, 2.0, (40, 50))
        b = a + 0.3 + RNG.normal(0.0, 0.5, a.shape)
        found = array_difference("x", a, b, tolerance=1.0)
        assert found.n == 2000
        assert found.bias == pytest.approx(0.3, abs=0.04)
        assert found.sigma == pytest.approx(0.5, rel=0.06)
        assert found.rms == pytest.approx(np.hypot(0.3, 0.5), rel=0.06)
        assert found.bias_error == pytest.approx(0.5 / np.sqrt(2000), rel=0.4)
        assert found.shift_in_errors > 10
        assert found.correlation == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        assert found.n_changed == int((np.abs(b - a) > 1.0).sum())

    @pytest.mark.parametrize("axis", [0, 1])
    def test_an_offset_per_line_widens_the_uncertainty(self, axis: int) -> None:
        """Cells of one converter move together: 16 columns tell no more of the mean than 16 values."""
        shape = (64, 16) if axis == 1 else (16, 64)
        offsets = RNG.normal(0.0, 1.0, 16)
        b = np.expand_dims(offsets, 1 - axis) + RNG.normal(0.0, 0.01, shape)
        found = array_difference("x", np.zeros(shape), b)
        assert found.bias_error == pytest.approx(offsets.std(ddof=1) / 4, rel=0.05)

    def test_equal(self) -> None:
        a = RNG.normal(size=(3, 4))
        found = array_difference("x", a, a)
        assert found.equal
        assert (found.shift_in_errors, found.n_changed, found.worst, found.ks) == (0.0, 0, (), 0.0)

    def test_a_constant_shift_is_certain(self) -> None:
        found = array_difference("x", np.zeros((3, 4)), np.ones((3, 4)))
        assert (found.bias, found.shift_in_errors, found.ks, found.correlation) == (1.0, np.inf, 1.0, None)

    def test_missing_elements_are_counted_and_left_out(self) -> None:
        a, b = np.array([1.0, np.nan, 3.0, 4.0, np.nan]), np.array([1.5, 2.0, np.nan, np.nan, np.nan])
        found = array_difference("x", a, b)
        assert (found.n, found.n_only_a, found.n_only_b, found.bias) == (1, 2, 1, 0.5)
        nothing = array_difference("x", a, np.full(5, np.nan))
        assert (nothing.n, nothing.n_changed, nothing.worst) == (0, 0, ())

    def test_the_worst_are_named_in_order(self) -> None:
        a, b = np.zeros((4, 5)), np.zeros((4, 5))
        b[3, 1], b[0, 2], b[2, 2] = 0.1, -5.0, 3.0
        found = array_difference("x", a, b)
        assert [element.index for element in found.worst] == [(0, 2), (2, 2), (3, 1)]
        assert found.worst[0].b == -5.0

    @pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f4"])
    def test_all_real_types(self, dtype: str) -> None:
        a, b = np.zeros(6, dtype), np.ones(6, dtype)
        assert array_difference("x", a, b).bias == 1.0
        assert array_difference("x", b, a).bias == -1.0

    @settings(max_examples=30)
    @given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
    def test_ks_distance_is_the_largest_gap_of_the_cumulative_shares(self, a: list[int], b: list[int]) -> None:
        x, y = np.array(a, float), np.array(b, float)
        expected = max(abs(np.mean(x <= at) - np.mean(y <= at)) for at in range(6))
        assert ks_distance(x, y) == pytest.approx(expected)


class TestRuns:
    def test_a_run_with_itself(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        found = compared(path, path)
        assert found.equal
        assert found.settings == {}
        assert found.verdict[:2] == ["conductance: all 60 cells are equal", "faults: the same in both"]
        assert found.title.startswith("the same array (sim)")

    def test_today_against_last_week(self, tmp_path: Path) -> None:
        a = array_run(tmp_path, conductances())
        b = array_run(tmp_path, conductances(1, 3e-7, noise_s=1e-7))
        found = compared(a, b)
        assert found.title.startswith("the same array (sim), B ")
        text = "\n".join(found.verdict)
        assert "B is +0.295 uS (+2 %) against A on average, 26 times its uncertainty of 0.011 uS" in text
        assert "a real shift" in text
        assert "the same cells are high and low" in text
        assert "0 of 60 (0 %) changed by more than 1 uS" in text
        assert "they agree" in text

    def test_noise_alone_is_no_shift(self, tmp_path: Path) -> None:
        a = array_run(tmp_path, conductances(noise_s=1e-7))
        b = array_run(tmp_path, conductances(4, noise_s=1e-7))
        shift = compared(a, b).verdict[0]
        assert "no more than cells and lines scatter" in shift or "perhaps no more than scatter" in shift

    def test_arrays_of_different_size_are_said_to_be_so(self, tmp_path: Path) -> None:
        a, b = array_run(tmp_path), array_run(tmp_path, results={"conductance_s": np.ones((3, 4), np.float32)})
        verdict = compared(a, b).verdict
        assert verdict[0] == "conductance: not compared: A is an array of 6 x 10 cells, B of 3 x 4"

    def test_board_against_simulator(self, tmp_path: Path) -> None:
        a = array_run(tmp_path)
        b = array_run(tmp_path, backend={"name": "tcp://x", "kind": "board", "seed": 3}, seed=4, calibration="c1",
                      config={"verb": "form", "array": {"v_max_v": 3.8}}, software={"python": "3.12"})  # fmt: skip
        found = compared(a, b)
        assert found.title == "two backends: A on sim, B on board"
        assert {part: [d.key for d in differences] for part, differences in found.settings.items()} == {
            "configuration": ["region", "array.v_max_v"],
            "backend": ["name", "kind"],
            "software": ["crossbar-hil", "python"],
            "run": ["calibration", "seed"],
        }
        assert (found.settings["configuration"][1].a, found.settings["configuration"][1].b) == (4.0, 3.8)

    def test_unrelated_chips_have_nothing_in_common(self, tmp_path: Path) -> None:
        a = array_run(tmp_path)
        b = array_run(tmp_path, RNG.permutation(conductances().ravel()).reshape(SHAPE), backend={"name": "sim"})
        found = compared(a, b)
        assert found.title.startswith("two arrays of one kind (sim)")
        assert any("little or nothing in common" in text for text in found.verdict)

    def test_stated_tolerance(self, tmp_path: Path) -> None:
        b = conductances()
        b[1, 2] += 5e-6
        a, b = array_run(tmp_path), array_run(tmp_path, b)
        assert [compared(a, b, tol).arrays[0].n_changed for tol in (1e-6, 6e-6)] == [1, 0]
        assert compared(a, b).arrays[0].worst[0].index == (1, 2)
        with pytest.raises(ConfigError, match="is not a conductance"):
            compared(a, b, -1.0)

    def test_faults_gained_and_lost(self, tmp_path: Path) -> None:
        before, after = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
        before[0, 0] = 1
        after[0, 0:3] = 2
        a = array_run(tmp_path, results={"faults": before})
        b = array_run(tmp_path, results={"faults": after})
        found = compared(a, b)
        assert found.faults is not None
        assert (found.faults.gained, found.faults.lost) == ({"stuck_on": 3}, {"unformed": 1})
        assert "faults: new in B: 3 stuck on; gone in B: 1 unformed" in found.verdict

    def test_a_cell_outside_a_run_has_no_fault_to_lose(self, tmp_path: Path) -> None:
        before, mask = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.bool_)
        before[0, 0], mask[0, :] = 1, False
        a = array_run(tmp_path, results={"faults": before})
        b = array_run(tmp_path, results={"mask_in": mask, "mask_ok": mask})
        assert "faults: the same in both" in compared(a, b).verdict

    def test_few_cells_say_nothing_of_a_distribution(self, tmp_path: Path) -> None:
        part = np.full(SHAPE, np.nan)
        part[0, :4] = 1e-5
        found = compared(array_run(tmp_path, part), array_run(tmp_path, 2 * part))
        assert any("too few cells to tell" in text for text in found.verdict)

    def test_numbers_texts_and_what_cannot_be_compared(self, tmp_path: Path) -> None:
        a = counts_run(tmp_path, accuracy=np.float64(0.9), name="x", one=np.arange(3), shape=np.arange(3),
                       summary={"n": 3, "deep": {"text": "t"}}, wave=np.ones(2, complex))  # fmt: skip
        b = counts_run(tmp_path, accuracy=np.float64(0.8), name="y", shape=np.arange(4),
                       summary={"n": 4, "deep": {"text": "u"}}, wave=np.ones(2, complex))  # fmt: skip
        found = compared(a, b)
        assert {s.name: s.difference for s in found.scalars} == {"accuracy": pytest.approx(-0.1), "summary.n": 1.0}
        assert [d.key for d in found.settings["results"]] == ["name", "summary.deep.text"]
        assert found.not_compared == ["one: only in A", "shape: shape (3,) in A, (4,) in B", "wave: holds complex128"]

    def test_a_killed_run_is_compared_as_far_as_it_was_read(self, tmp_path: Path) -> None:
        a = array_run(tmp_path)
        run = create_run(tmp_path)
        part = np.full(SHAPE, np.nan)
        part[:2] = conductances()[:2]
        append_pulse(run, 0, np.isfinite(part))
        append_read(run, 1, part + 1e-6)
        append_read(run, 2, part)
        run.close()
        found = compared(a, run.path)
        assert (found.arrays[0].n, found.arrays[0].n_only_a, found.arrays[0].rms) == (
            20,
            40,
            pytest.approx(0, abs=1e-12),
        )
        again = compared(run.path, run.path)
        assert again.arrays[0].n == 20
        assert again.arrays[0].mean_a == pytest.approx(np.nanmean(part))

    def test_nothing_in_common(self, tmp_path: Path) -> None:
        found = compared(counts_run(tmp_path), array_run(tmp_path))
        assert found.verdict == ["no result is in both runs"]
        assert found.as_dict()["arrays"] == []
