"""`check_run` finds what is wrong with a run file and is content with what a kill leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from array_runs import SHAPE, append_pulse, append_read, array_run, conductances, counts_run, create_run

from hil.run_check import check_run
from hil.runfile import RunFile

EVERYWHERE = np.ones(SHAPE, np.bool_)


def some(*cells: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    for cell in cells:
        mask[cell] = True
    return mask


def change(path: Path, edit: Callable[[Any], None]) -> Path:
    """Edit a finished run file behind the program's back."""
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def found(path: Path, level: str) -> str:
    return "\n".join(f"{f.where}: {f.what}" for f in check_run(path) if f.level == level)


@pytest.mark.parametrize("make", [array_run, counts_run])
def test_a_good_run_has_no_finding(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert check_run(make(tmp_path)) == []


class TestFile:
    @pytest.mark.parametrize("content", [b"", b"no HDF5", None], ids=["empty", "foreign", "missing"])
    def test_no_run_file(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "x.h5"
        if content is not None:
            path.write_bytes(content)
        assert found(path, "wrong").startswith("file: ")

    def test_truncated(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        path.write_bytes(path.read_bytes()[:-5000])
        assert "truncated" in found(path, "wrong")

    def test_wiped_in_the_middle_never_raises(self, tmp_path: Path) -> None:
        whole = array_run(tmp_path).read_bytes()
        noticed = 0
        for start in range(0, len(whole) - 4096, len(whole) // 25):
            path = tmp_path / "wiped.h5"
            path.write_bytes(whole[:start] + b"\xff" * 4096 + whole[start + 4096 :])
            noticed += bool(found(path, "wrong"))
        assert noticed > 3

    def test_renamed(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        run_id = path.stem
        path = path.rename(tmp_path / "other.h5")
        assert found(path, "wrong") == ""
        assert run_id in found(path, "note")

    def test_how_it_ended_is_a_note(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        run.finish("failed", cause="DeviceError: no answer")
        assert found(run.path, "note") == "header: the run failed: DeviceError: no answer"
        run = create_run(tmp_path)
        run.close()
        assert "has no end" in found(run.path, "note")
        assert found(run.path, "wrong") == ""


class TestTables:
    def test_a_torn_row_of_a_run_that_ended(self, tmp_path: Path) -> None:
        def tear(file: Any) -> None:
            file["tables/readings/current_a"].resize(63, axis=0)

        assert "column current_a has 3 rows more than count" in found(change(array_run(tmp_path), tear), "wrong")

    def test_a_torn_row_of_a_killed_run_is_a_note(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        append_pulse(run, 0, EVERYWHERE)
        run.close()
        change(run.path, lambda file: file["tables/outcomes/voltage_v"].resize(2, axis=0))
        assert "table outcomes: 1 rows at its end are torn" in found(run.path, "note")
        assert found(run.path, "wrong") == ""

    @pytest.mark.parametrize(("step_s", "level"), [(100.0, "wrong"), (0.5, "note")])
    def test_time_goes_back(self, tmp_path: Path, step_s: float, level: str) -> None:
        def back(file: Any) -> None:
            file["tables/readings/t_unix_s"][40:] -= step_s

        assert "time goes back by" in found(change(array_run(tmp_path), back), level)
        assert "at row 40" in found(tmp_path / next(tmp_path.glob("*.h5")).name, level)

    def test_a_row_without_time(self, tmp_path: Path) -> None:
        def wipe(file: Any) -> None:
            file["tables/readings/t_unix_s"][3] = np.nan

        assert "1 rows have no time" in found(change(array_run(tmp_path), wipe), "wrong")

    def test_header(self, tmp_path: Path) -> None:
        def spoil(file: Any) -> None:
            file["run/ended_unix_s"][()] = file["run/started_unix_s"][()] - 1000

        assert "before the start" in found(change(array_run(tmp_path), spoil), "wrong")
        path = counts_run(tmp_path)
        change(path, lambda file: file["run/ended_unix_s"].write_direct(np.array(np.nan)))
        assert "there is no end" in found(path, "wrong")


def edit_column(table: str, column: str, row: int, value: Any) -> Callable[[Any], None]:
    def edit(file: Any) -> None:
        file[f"tables/{table}/{column}"][row] = value

    return edit


class TestReferences:
    @pytest.mark.parametrize(
        ("edit", "text"),
        [
            (edit_column("operations", "op", 1, 0), "operations are there twice: 0"),
            (edit_column("operations", "op", 0, 2), "operations are out of order"),
            (edit_column("readings", "op", 59, 7), "table readings: speaks of operations that are not there: 7"),
            (edit_column("outcomes", "op", 1, 7), "table outcomes: speaks of operations that are not there: 7"),
            (edit_column("outcomes", "op", 1, 0), "operations ended twice: 0"),
            (edit_column("readings", "op", 0, 1000), "rows are not in the order of operations"),
            (edit_column("operations", "n_cells", 0, 59), "operation 0 states 59 cells, its mask has 60"),
            (edit_column("operations", "n_cells", 1, 61), "operation 1 states 61 cells, 60 were read"),
            (edit_column("readings", "col", 5, 11), "a cell is outside the array of 6 x 10"),
            (edit_column("readings", "conductance_s", 5, 1.0), "result conductance_s: is not the newest reading at 1"),
        ],
    )
    def test_parts_that_contradict_each_other(self, tmp_path: Path, edit: Callable[[Any], None], text: str) -> None:
        assert text in found(change(array_run(tmp_path), edit), "wrong")

    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("conductance_s", conductances() * 1.01, "is not the newest reading at 60 cells: (0, 0), (0, 1)"),
            ("pulse_count", np.full(SHAPE, 2, np.uint32), "is not the number of its pulses at 60 cells"),
            ("mask_in", some((0, 0)), "has 59 cells that are not in mask_in"),
            ("faults", np.zeros(SHAPE, np.int32), "result faults"),
            ("pulse_count", np.ones((2, 2), np.uint32), "has shape (2, 2), the array (6, 10)"),
        ],
    )
    def test_results_that_the_tables_contradict(self, tmp_path: Path, name: str, value: Any, text: str) -> None:
        assert text in found(array_run(tmp_path, results={name: value}), "wrong")

    def test_cells_that_were_never_read_have_no_conductance(self, tmp_path: Path) -> None:
        def build(stored: np.ndarray) -> Path:
            run = create_run(tmp_path)
            append_read(run, 0, np.where(some((1, 1), (2, 3)), 1e-5, np.nan))
            run.finish(results={"conductance_s": stored})
            return run.path

        assert check_run(build(np.where(some((1, 1), (2, 3)), 1e-5, np.nan).astype("f4"))) == []
        assert "at 58 cells" in found(build(np.full(SHAPE, 1e-5, "f4")), "wrong")


class TestUncertain:
    def uncertain(self, tmp_path: Path, outcome: str | None, *, read: bool) -> RunFile:
        run = create_run(tmp_path)
        append_pulse(run, 0, some((1, 2), (1, 9), (3, 0)), outcome=outcome)
        if read:
            append_read(run, 1, np.where(some((1, 2), (3, 0)), 1e-5, np.nan))
        return run

    @pytest.mark.parametrize("outcome", [None, "failed"])
    def test_cells_of_an_unconfirmed_pulse_are_named(self, tmp_path: Path, outcome: str | None) -> None:
        run = self.uncertain(tmp_path, outcome, read=False)
        run.close()
        assert "pulse 0 was not confirmed and 3 cells were not read since" in found(run.path, "note")
        assert "(1, 2), (1, 9), (3, 0)" in found(run.path, "note")
        assert found(run.path, "wrong") == ""

    def test_cells_read_since_are_certain(self, tmp_path: Path) -> None:
        run = self.uncertain(tmp_path, None, read=True)
        run.close()
        assert "1 cells were not read since, so they may have had it: (1, 9)" in found(run.path, "note")

    def test_a_reading_before_the_pulse_says_nothing(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        append_read(run, 0, conductances())
        append_pulse(run, 1, some((1, 2)), outcome=None)
        run.close()
        assert "1 cells were not read since" in found(run.path, "note")

    def test_a_complete_run_may_have_none(self, tmp_path: Path) -> None:
        run = self.uncertain(tmp_path, None, read=True)
        run.finish()
        assert "(1, 9)" in found(run.path, "wrong")

    def test_a_pulse_whose_mask_is_not_whole_was_not_applied(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        append_pulse(run, 0, EVERYWHERE, outcome=None)
        run.close()

        def cut(file: Any) -> None:
            for dataset in file["tables/masks"].values():
                dataset.resize(4, axis=0)

        text = found(change(run.path, cut), "note")
        assert "were not applied: operations 0" in text

    def test_readings_that_a_kill_took_are_a_note(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        append_read(run, 0, conductances())
        append_read(run, 1, conductances())
        run.close()

        def cut(file: Any) -> None:
            for dataset in file["tables/readings"].values():
                dataset.resize(60, axis=0)

        change(run.path, cut)
        assert "left no readings of operations 1" in found(run.path, "note")
        assert found(run.path, "wrong") == ""
        again = RunFile.resume(run.path)
        append_read(again, 2, conductances())
        again.finish()
        assert "left no readings of operations 1" in found(run.path, "note")
        assert found(run.path, "wrong") == ""

    def test_readings_missing_at_the_end_of_a_complete_run_are_wrong(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        append_read(run, 0, conductances())
        append_read(run, 1, conductances())
        run.finish()

        def cut(file: Any) -> None:
            for dataset in file["tables/readings"].values():
                dataset.resize(60, axis=0)

        assert "operation 1 states 60 cells, 0 were read" in found(change(run.path, cut), "wrong")

    def test_readings_missing_in_between_are_wrong(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        for op in range(3):
            append_read(run, op, conductances())
        run.close()

        def cut(file: Any) -> None:
            file["tables/readings/op"][60:120] = 2

        assert "operation 1 states 60 cells, 0 were read" in found(change(run.path, cut), "wrong")
