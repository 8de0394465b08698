"""Run files: round trips, reading while writing, kills, ends, full disks, foreign files."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hil.errors import ConfigError, DataError, RunFileError
from hil.runfile import Column, RunFile, RunReader, TableSpec, _writer, open_run

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\nnot a whole picture"
PULSES = TableSpec(
    "pulses",
    [Column("row", "u2", "1"), Column("current_a", "f8", "A"), Column("operation", "S8", "")],
    "one row per pulse",
)
MAPS = TableSpec("maps", [Column("index", "i8", "1"), Column("conductance_s", "f8", "S", (3, 4))], "whole array reads")

WRITER = """
import sys
from pathlib import Path
import numpy as np
from hil.runfile import RunFile, TableSpec, Column
spec = TableSpec("maps", [Column("index", "i8", "1"), Column("conductance_s", "f8", "S", (3, 4))], "reads")
folder, rows_per_flush, flush_interval_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
run = RunFile.create(folder, "killed", config={}, backend={}, calibration=None, seed=1, software={}, tables=[spec],
                     flush_interval_s=flush_interval_s)
print(run.path, flush=True)
index = 0
while True:
    n = rows_per_flush
    rows = np.arange(index, index + n)
    run.append("maps", index=rows, conductance_s=np.broadcast_to(rows[:, None, None] * 1.0, (n, 3, 4)))
    index += n
    if flush_interval_s > 100:
        run.flush()
    print(index, flush=True)
    if flush_interval_s <= 100 and sys.stdin.readline() == "":
        break
"""


def create(folder: Path, **changed: Any) -> RunFile:
    arguments: dict[str, Any] = {
        "config": {"width_s": 1e-6, "nested": {"a": [1, 2]}},
        "backend": {"kind": "simulator", "shape": [3, 4]},
        "calibration": "board7/2024-01-01",
        "seed": 2**63 + 1,
        "software": {"crossbar-hil": "0.1.0"},
        "tables": [PULSES, MAPS],
        "flush_interval_s": 1000.0,
    }
    return RunFile.create(folder, "forming", **(arguments | changed))


def append_pulse(run: RunFile, row: int = 1) -> None:
    run.append("pulses", row=row, current_a=1e-6, operation="read")


def end_with(run: RunFile, error: BaseException) -> None:
    """A run of one row that an error ends."""
    with run:
        append_pulse(run)
        raise error


def spawn(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_maps(reader: RunReader) -> int:
    table = reader.table("maps")
    n = len(table["index"])
    assert {len(values) for values in table.values()} == {n}
    np.testing.assert_array_equal(table["index"], np.arange(n))
    np.testing.assert_array_equal(table["conductance_s"], np.arange(n)[:, None, None] * np.ones((1, 3, 4)))
    assert np.all(table["t_unix_s"] > 1e9)
    return n


class TestContent:
    def test_header(self, tmp_path: Path) -> None:
        before = time.time()
        with create(tmp_path / "new" / "folder") as run:
            pass
        assert run.path.parent == tmp_path / "new" / "folder"
        assert [run.path] == list(run.path.parent.iterdir())
        with open_run(run.path) as reader:
            assert reader.run_id == run.path.stem
            assert reader.experiment == "forming"
            assert reader.config == {"width_s": 1e-6, "nested": {"a": [1, 2]}}
            assert reader.backend == {"kind": "simulator", "shape": [3, 4]}
            assert reader.calibration == "board7/2024-01-01"
            assert reader.seed == 2**63 + 1
            assert reader.software == {"crossbar-hil": "0.1.0"}
            assert before <= reader.started_unix_s <= time.time()
            assert reader.ended_unix_s is not None
            assert reader.started_unix_s <= reader.ended_unix_s <= time.time()
            assert (reader.status, reader.cause) == ("complete", "")
            assert set(reader.tables) == {"sessions", "pulses", "maps"}
            assert reader.table("sessions")["previous_status"].tolist() == ["new"]
            assert reader.table_spec("maps").columns[1] == Column("conductance_s", np.dtype("f8"), "S", (3, 4))

    def test_runs_of_one_second_have_different_names(self, tmp_path: Path) -> None:
        paths = {create(tmp_path) for _ in range(5)}
        for run in paths:
            run.finish()
        assert len(list(tmp_path.glob("*-forming-*.h5"))) == 5

    def test_no_calibration(self, tmp_path: Path) -> None:
        with create(tmp_path, calibration=None) as run:
            pass
        with open_run(run.path) as reader:
            assert reader.calibration is None

    def test_rows_blocks_and_repeated_values(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            append_pulse(run, 7)
            run.append("pulses", row=[1, 2, 3], current_a=np.array([1.0, 2.0, 3.0]), operation="réset")
            run.append("pulses", row=np.zeros(0, int), current_a=np.zeros(0), operation="none")
            assert run.row_count("pulses") == 4
        with open_run(run.path) as reader:
            table = reader.table("pulses")
            assert list(table) == ["t_unix_s", "row", "current_a", "operation"]
            assert table["row"].tolist() == [7, 1, 2, 3]
            assert table["operation"].tolist() == ["read", "réset", "réset", "réset"]
            assert reader.table("pulses", 1, 3)["row"].tolist() == [1, 2]
            assert reader.row_count("maps") == 0

    def test_a_buffer_may_be_reused_after_append(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            buffer = np.ones((3, 4))
            run.append("maps", index=0, conductance_s=buffer)
            buffer[:] = 9
        with open_run(run.path) as reader:
            assert np.all(reader.table("maps")["conductance_s"] == 1)

    def test_results_and_figures(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            append_pulse(run)
            run.finish(
                results={
                    "accuracy": 0.5,
                    "confusion": np.arange(4).reshape(2, 2),
                    "labels": ["zéro", "one"],
                    "remark": "größer",
                    "empty": "",
                    "summary": {"n": np.int64(3), "mask": np.array([True])},
                    "figure_1": PNG,
                }
            )
        with open_run(run.path) as reader:
            results = reader.results
            assert results["accuracy"] == 0.5
            np.testing.assert_array_equal(results["confusion"], [[0, 1], [2, 3]])
            assert results["labels"].tolist() == ["zéro", "one"]
            assert (results["remark"], results["empty"]) == ("größer", "")
            assert results["summary"] == {"n": 3, "mask": [True]}
            assert reader.figures == ("figure_1",)
            assert reader.figure("figure_1") == PNG
            assert reader.row_count("pulses") == 1
            assert reader.status == "complete"
            with pytest.raises(DataError, match="no figure 'x'"):
                reader.figure("x")
            with pytest.raises(DataError, match="no table 'x'"):
                reader.table("x")
        with h5py.File(run.path, "r") as plain:
            assert plain["figures/figure_1"].attrs["media_type"] == "image/png"
            assert plain["tables/pulses/current_a"].attrs["unit"] == "A"
        assert list(tmp_path.iterdir()) == [run.path]


@st.composite
def columns_and_blocks(draw: st.DrawFn) -> tuple[Column, list[np.ndarray[Any, Any]]]:
    dtype = np.dtype(draw(st.sampled_from(["?", "i1", "u2", "<i4", ">i4", "u8", "f4", "f8", "c16", "S1", "S7"])))
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=2)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    blocks: list[np.ndarray[Any, Any]] = []
    for n in draw(st.lists(st.sampled_from([0, 1, 2, 17, 5000]), max_size=5)):
        if dtype.kind == "S":
            letters = generator.integers(97, 123, (n, *shape, dtype.itemsize)).astype(np.uint8)
            blocks.append(np.ascontiguousarray(letters).view(dtype)[..., 0])
        else:
            blocks.append(generator.integers(0, 2 if dtype.kind == "b" else 100, (n, *shape)).astype(dtype))
    return Column("value", dtype, "1", shape), blocks


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=columns_and_blocks(), flush_after=st.sets(st.integers(0, 4)))
def test_any_column_comes_back(
    tmp_path: Path, drawn: tuple[Column, list[np.ndarray[Any, Any]]], flush_after: set[int]
) -> None:
    column, blocks = drawn
    with create(tmp_path, tables=[TableSpec("t", [column], "")]) as run:
        for index, block in enumerate(blocks):
            run.append("t", value=block)
            if index in flush_after:
                run.flush()
    with open_run(run.path) as reader:
        read = reader.table("t")["value"]
        spec = reader.table_spec("t").columns[0]
    expected = np.concatenate([np.zeros((0, *column.shape), column.dtype), *blocks])
    assert (np.dtype(spec.dtype), spec.shape) == (column.dtype, column.shape)
    if np.dtype(column.dtype).kind == "S":
        expected = np.char.decode(expected, "utf-8")
    else:
        assert read.dtype == column.dtype
    assert read.shape == expected.shape
    np.testing.assert_array_equal(read, expected)


class TestRefusals:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Iterator[RunFile]:
        with create(tmp_path) as run:
            yield run

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"row": 1, "current_a": 1.0}, "no value for operation"),
            ({"row": 1, "current_a": 1.0, "operation": "x", "volt": 1}, "no column 'volt'"),
            ({"row": 1.5, "current_a": 1.0, "operation": "x"}, "column 'row' of table 'pulses' holds uint16"),
            ({"row": 70000, "current_a": 1.0, "operation": "x"}, "got 70000, uint16 holds 0 to 65535"),
            ({"row": -1, "current_a": 1.0, "operation": "x"}, "got -1"),
            ({"row": 1, "current_a": "1", "operation": "x"}, "'current_a'"),
            ({"row": 1, "current_a": None, "operation": "x"}, "got object"),
            ({"row": 1, "current_a": 1.0, "operation": "ninechars"}, "9 bytes, the limit is 8"),
            ({"row": 1, "current_a": 1.0, "operation": 3}, "holds text"),
            ({"row": 1, "current_a": 1.0, "operation": b"\xff"}, "not UTF-8"),
            ({"row": [[1]], "current_a": 1.0, "operation": "x"}, r"got shape \(1, 1\), a row has \(\)"),
            ({"row": [1, 2], "current_a": [1.0], "operation": "x"}, "different lengths"),
            ({"row": 1, "current_a": [[1.0], [2.0, 3.0]], "operation": "x"}, "ragged"),
        ],
    )
    def test_wrong_append(self, run: RunFile, columns: dict[str, Any], message: str) -> None:
        with pytest.raises(RunFileError, match=message):
            run.append("pulses", **columns)
        append_pulse(run)
        assert run.row_count("pulses") == 1

    def test_unknown_table_lists_the_known(self, run: RunFile) -> None:
        with pytest.raises(RunFileError, match=r"no table 'reads'.*pulses, maps"):
            run.append("reads", x=1)
        with pytest.raises(RunFileError, match="no table 'sessions'"):
            run.append("sessions", software="", previous_status="")

    def test_float32_overflow(self, tmp_path: Path) -> None:
        with (
            create(tmp_path, tables=[TableSpec("t", [Column("x", "f4", "1")], "")]) as run,
            pytest.raises(RunFileError, match="too large for float32"),
        ):
            run.append("t", x=1e300)

    @pytest.mark.parametrize("value", [object(), {"a": float("nan")}, [[1], [2, 3]], "a\0b"])
    def test_wrong_result_leaves_the_run_open(self, run: RunFile, value: Any) -> None:
        with pytest.raises((RunFileError, ConfigError), match="result 'r'"):
            run.finish(results={"r": value})
        append_pulse(run)

    def test_closed(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            run.finish()
        for call in (run.flush, run.finish, lambda: append_pulse(run)):
            with pytest.raises(RunFileError, match="is closed"):
                call()
        run.close()

    @pytest.mark.parametrize(
        "changed",
        [{"config": {"x": object()}}, {"config": {"x": float("inf")}}, {"seed": -1}, {"flush_interval_s": 0.0}],
    )
    def test_wrong_header(self, tmp_path: Path, changed: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            create(tmp_path, **changed)
        assert list(tmp_path.iterdir()) == []

    def test_wrong_specs(self, tmp_path: Path) -> None:
        for wrong in (
            lambda: Column("a b", "f8", "1"),
            lambda: Column("a", "O", "1"),
            lambda: Column("a", "U5", ""),
            lambda: Column("a", "f8", "1", (0,)),
            lambda: TableSpec("t", [], ""),
            lambda: TableSpec("t", [Column("t_unix_s", "f8", "s")], ""),
            lambda: create(tmp_path, tables=[PULSES, PULSES]),
            lambda: create(tmp_path, tables=[TableSpec("sessions", PULSES.columns, "")]),
        ):
            with pytest.raises(RunFileError):
                wrong()
        with pytest.raises(ConfigError, match="file name"):
            RunFile.create(
                tmp_path, "../x", config={}, backend={}, calibration=None, seed=0, software={}, tables=[PULSES]
            )

    def test_bad_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match=r"run folder .*file.* cannot be written: .*Fix: ") as caught:
            create(tmp_path / "file" / "runs")
        assert caught.value.exit_code == 2
        if Path("/proc/self").is_dir():
            with pytest.raises(ConfigError, match="run folder /proc/self"):
                create(Path("/proc/self"))


class TestForeignFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no run file"):
            open_run(tmp_path / "x.h5")

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\x05" * 500])
    def test_not_hdf5(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.h5").write_bytes(content)
        for call in (open_run, RunFile.resume):
            with pytest.raises(DataError, match=r"x\.h5 is not an HDF5 file or is truncated.*Fix"):
                call(tmp_path / "x.h5")

    @pytest.mark.parametrize("libver", ["earliest", "latest"])
    def test_other_hdf5(self, tmp_path: Path, libver: Any) -> None:
        with h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
            file["a"] = 1
        with pytest.raises(DataError, match="not a run file"):
            open_run(tmp_path / "x.h5")

    def test_newer_version(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            pass
        with h5py.File(run.path, "r+") as file:
            file.attrs["format_version"] = 2
        with pytest.raises(DataError, match="newer version"):
            open_run(run.path)

    def test_truncated_at_any_length(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            append_pulse(run)
        whole = run.path.read_bytes()
        for length in random.Random(1).sample(range(len(whole)), 40):
            run.path.write_bytes(whole[:length])
            with pytest.raises(DataError, match="truncated"):
                open_run(run.path)

    def test_missing_part(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            pass
        with h5py.File(run.path, "r+") as file:
            del file["run/seed"]
        with pytest.raises(DataError, match="damaged"):
            open_run(run.path)


class TestEnds:
    @pytest.mark.parametrize(
        ("error", "status", "cause"),
        [
            (ValueError("no cell formed"), "failed", "ValueError: no cell formed"),
            (KeyboardInterrupt(), "aborted", "KeyboardInterrupt: "),
            (SystemExit(3), "aborted", "SystemExit: 3"),
            (ValueError("ö" * 3000), "failed", "ValueError: ö"),
        ],
    )
    def test_exception(self, tmp_path: Path, error: BaseException, status: str, cause: str) -> None:
        run = create(tmp_path)
        with pytest.raises(type(error)):
            end_with(run, error)
        with open_run(run.path) as reader:
            assert reader.status == status
            assert reader.cause.startswith(cause)
            assert reader.ended_unix_s is not None
            assert reader.row_count("pulses") == 1

    def test_close_without_end_is_incomplete(self, tmp_path: Path) -> None:
        run = create(tmp_path)
        append_pulse(run)
        run.close()
        with open_run(run.path) as reader:
            assert (reader.status, reader.ended_unix_s, reader.row_count("pulses")) == ("incomplete", None, 1)

    def test_error_while_closing_does_not_hide_the_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        run = create(tmp_path)
        append_pulse(run)
        run.flush()
        monkeypatch.setattr(_writer, "_write_end", broken)
        with pytest.raises(ValueError, match="first"):
            end_with(run, ValueError("first"))
        assert "Input/output error" in caplog.text
        with open_run(run.path) as reader:
            assert (reader.status, reader.row_count("pulses")) == ("incomplete", 2)

    @pytest.mark.parametrize("fail_at", ["write_result", "_write_end", "status", "replace", "fallocate"])
    def test_finish_that_fails_half_way_is_not_complete(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: str
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        run = create(tmp_path)
        append_pulse(run)
        if fail_at == "replace":
            monkeypatch.setattr(os, "replace", broken)
        elif fail_at == "fallocate":
            run.flush()
            monkeypatch.setattr(os, "posix_fallocate", broken)
        elif fail_at == "status":  # the cause is written, the status is not
            monkeypatch.setattr(
                _writer, "clip_utf8", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space"))
            )
        else:
            monkeypatch.setattr(_writer, fail_at, broken)
        with pytest.raises(RunFileError, match=r"No space.*1 rows are safe"):
            run.finish(results={"accuracy": 1.0, "figure": PNG})
        monkeypatch.undo()
        assert list(tmp_path.iterdir()) == [run.path]
        with open_run(run.path) as reader:
            assert (reader.status, reader.row_count("pulses"), reader.results) == ("incomplete", 1, {})
        with RunFile.resume(run.path) as again:
            again.finish(results={"accuracy": 1.0})
        with open_run(run.path) as reader:
            assert (reader.status, reader.row_count("pulses"), reader.results) == ("complete", 1, {"accuracy": 1.0})

    @pytest.mark.parametrize("stop_at", range(1, 6))
    def test_interrupt_within_a_flush_neither_loses_nor_doubles_rows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
    ) -> None:
        real_store = _writer._Table.store
        calls = 0

        def interrupted(table: Any, names: Any) -> None:
            nonlocal calls
            calls += 1
            real_store(table, names)
            if calls == stop_at:
                raise KeyboardInterrupt

        def work(run: RunFile) -> None:
            monkeypatch.setattr(_writer._Table, "store", interrupted)
            with run:
                append_pulse(run, 1)
                append_pulse(run, 2)
                run.flush()  # calls 1 and 2; the flush at the end is 3 and 4 when this one is not interrupted
                append_pulse(run, 3)

        run = create(tmp_path)
        try:
            work(run)
        except KeyboardInterrupt:
            assert stop_at < 5
        with open_run(run.path) as reader:
            expected = {1: "aborted", 2: "aborted", 3: "incomplete", 4: "incomplete", 5: "complete"}
            assert reader.status == expected[stop_at]
            assert reader.table("pulses")["row"].tolist() == ([1, 2] if stop_at < 3 else [1, 2, 3])

    def test_interrupt_while_starting_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(_writer, "_store", interrupted)
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestReaderInTheSameProcess:
    """HDF5 shares one open file between all handles of a process: the writer's end must not disturb a reader."""

    @pytest.mark.parametrize("end", ["results", "plain", "close", "full"])
    def test_stays_usable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        run = create(tmp_path)
        append_pulse(run, 1)
        run.flush()
        with open_run(run.path) as reader:
            append_pulse(run, 2)
            run.flush()
            assert reader.row_count("pulses") == 2
            if end == "results":
                run.finish(results={"accuracy": 1.0})
            elif end == "plain":
                run.finish()
            elif end == "close":
                run.close()
            else:
                monkeypatch.setattr(os, "posix_fallocate", full)
                run.append("maps", index=np.arange(5000), conductance_s=np.zeros((5000, 3, 4)))
                with pytest.raises(RunFileError, match="2 rows are safe"):
                    run.flush()
                monkeypatch.undo()
            assert reader.table("pulses")["row"].tolist() == [1, 2]
            with open_run(run.path) as other:
                assert other.table("pulses")["row"].tolist() == [1, 2]
                assert other.status == ("complete" if end in ("results", "plain") else "incomplete")
        with open_run(run.path) as other:
            assert other.table("pulses")["row"].tolist() == [1, 2]
        if end in ("close", "full"):
            RunFile.resume(run.path).finish()
        with open_run(run.path) as other:
            assert other.status == "complete"


class TestResume:
    def test_complete_is_refused(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            pass
        with pytest.raises(RunFileError, match="is complete"):
            RunFile.resume(run.path)

    def test_live_is_refused(self, tmp_path: Path) -> None:
        with create(tmp_path) as run:
            with pytest.raises(RunFileError, match="being written"):
                RunFile.resume(run.path)
            append_pulse(run)
        with open_run(run.path) as reader:
            assert (reader.status, reader.row_count("pulses")) == ("complete", 1)

    def test_aborted_continues(self, tmp_path: Path) -> None:
        run = create(tmp_path)
        run.append("maps", index=np.arange(1000), conductance_s=np.ones((1000, 3, 4)) * np.arange(1000)[:, None, None])
        with pytest.raises(KeyboardInterrupt):
            end_with(run, KeyboardInterrupt())
        with RunFile.resume(run.path, software={"crossbar-hil": "0.2.0"}) as again:
            assert again.path == run.path
            assert again.row_count("maps") == 1000
            with open_run(run.path) as reader:
                assert (reader.status, reader.cause) == ("incomplete", "")
            again.append("maps", index=1000, conductance_s=np.full((3, 4), 1000.0))
        with open_run(run.path) as reader:
            assert check_maps(reader) == 1001
            assert (reader.status, reader.seed, reader.calibration) == ("complete", 2**63 + 1, "board7/2024-01-01")
            sessions = reader.table("sessions")
            assert sessions["previous_status"].tolist() == ["new", "aborted"]
            assert "0.1.0" in sessions["software"][0]
            assert "0.2.0" in sessions["software"][1]

    def test_torn_rows_are_not_shown_and_go(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = create(tmp_path)
        append_pulse(run, 5)
        run.flush()
        append_pulse(run, 6)
        run._tables["pulses"].store(["row", "current_a"])  # as a kill in the middle of a flush leaves it
        run._handle["tables/maps/t_unix_s"].resize((3,))
        run._handle.flush()
        run._tables["pulses"].state = (1, ())
        run._write_pending()
        run.close()
        with open_run(run.path) as reader:
            assert reader.table("pulses")["row"].tolist() == [5]
            assert reader.row_count("maps") == 0
        with RunFile.resume(run.path) as again:
            append_pulse(again, 7)
        with open_run(run.path) as reader:
            assert reader.table("pulses")["row"].tolist() == [5, 7]
        with h5py.File(run.path, "r") as plain:
            assert plain["tables/maps/t_unix_s"].shape == (0,)

    def test_time_missing_at_the_end_is_a_torn_row(self, tmp_path: Path) -> None:
        run = create(tmp_path)
        for row in range(3):
            append_pulse(run, row)
        run.flush()
        for column in ("t_unix_s", "row", "current_a", "operation"):
            run._handle["tables/pulses"][column].resize((5000 * 2,))
        run.close()
        with open_run(run.path) as reader:
            assert reader.table("pulses")["row"].tolist() == [0, 1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
class TestOtherProcess:
    def test_reading_while_writing(self, tmp_path: Path) -> None:
        process = spawn(WRITER, tmp_path, 7, 1000)
        try:
            assert process.stdout is not None
            path = Path(process.stdout.readline().strip())
            with open_run(path) as kept_open:
                for _ in range(20):
                    acknowledged = int(process.stdout.readline())
                    assert check_maps(kept_open) >= acknowledged
                    with open_run(path) as reader:
                        assert reader.status == "incomplete"
                        assert check_maps(reader) >= acknowledged
        finally:
            process.kill()
            process.communicate()

    @pytest.mark.parametrize("seed", range(12))
    def test_kill(self, tmp_path: Path, seed: int) -> None:
        chance = random.Random(seed)
        process = spawn(WRITER, tmp_path, chance.choice([1, 3, 50, 700]), 1000)
        try:
            assert process.stdout is not None
            path = Path(process.stdout.readline().strip())
            for _ in range(chance.randrange(30)):
                process.stdout.readline()
            time.sleep(chance.uniform(0, 0.02))
        finally:
            process.send_signal(signal.SIGKILL)
        rest, noise = process.communicate()
        acknowledged = int(([0, *rest.split("\n")[:-1]])[-1])
        assert noise == ""
        with open_run(path) as reader:
            kept = check_maps(reader)
            assert kept >= acknowledged
            assert (reader.status, reader.cause, reader.ended_unix_s) == ("incomplete", "", None)
        with RunFile.resume(path) as run:
            assert run.row_count("maps") == kept
            run.append("maps", index=kept, conductance_s=np.full((3, 4), float(kept)))
        with open_run(path) as reader:
            assert reader.status == "complete"
            assert check_maps(reader) == kept + 1
            assert reader.table("sessions")["previous_status"].tolist() == ["new", "incomplete"]

    def test_kill_loses_at_most_the_interval_when_nothing_is_appended_any_more(self, tmp_path: Path) -> None:
        process = spawn(WRITER, tmp_path, 5, 0.1)
        try:
            assert process.stdout is not None
            path = Path(process.stdout.readline().strip())
            assert process.stdout.readline() == "5\n"
            deadline = time.monotonic() + 5
            count = 0
            while count < 5 and time.monotonic() < deadline:
                time.sleep(0.05)
                with open_run(path) as reader:
                    count = check_maps(reader)
        finally:
            process.kill()
            process.communicate()
        assert count == 5
        with open_run(path) as reader:
            assert check_maps(reader) == 5

    def test_process_that_forgets_to_close(self, tmp_path: Path) -> None:
        process = spawn(WRITER, tmp_path, 5, 100)
        output, noise = process.communicate("\n", timeout=9)  # standard input ends: the loop ends, no close
        assert (process.returncode, noise) == (0, "")
        with open_run(Path(output.split("\n")[0])) as reader:
            assert (reader.status, check_maps(reader)) == ("incomplete", 10)


DISK_FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from hil.errors import RunFileError
from hil.runfile import Column, RunFile, TableSpec, _disk, open_run
folder, mode = Path(sys.argv[1]), sys.argv[2]
spec = TableSpec("maps", [Column("index", "i8", "1"), Column("conductance_s", "f8", "S", (3, 4))], "reads")
if "unreserved" in mode:  # as on a system that cannot reserve space: HDF5 itself runs into the full disk
    _disk.Disk.reserve = lambda self, size_bytes: None
run = RunFile.create(folder, "full", config={}, backend={}, calibration=None, seed=1, software={}, tables=[spec],
                     flush_interval_s=1000)
if "limit" in mode:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_003, 500_003))
done = 0
try:
    with run:
        for index in range(100_000):
            run.append("maps", index=index, conductance_s=np.full((3, 4), float(index)))
            if index % 50 == 49:
                run.flush()
                done = index + 1
except RunFileError as error:
    assert f"{done} rows are safe (maps: {done}), 50 not yet written are lost" in str(error), error
    assert str(run.path) in str(error), error
    assert "free space" in error.fix
    for call in (run.flush, run.finish):
        try:
            call()
        except RunFileError as again:
            assert str(again) == str(error)
        else:
            raise AssertionError("no error")
    print(run.path, done, str(error), sep="\\n")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_FSIZE and tmpfs of Linux")
class TestFullDisk:
    @staticmethod
    def check(folder: Path, mode: str, words: str) -> None:
        output, noise = (process := spawn(DISK_FULL, folder, mode)).communicate(timeout=9)
        assert (process.returncode, noise) == (0, "")
        path, done, message = output.rstrip("\n").split("\n")
        assert words in message
        with open_run(Path(path)) as reader:
            assert reader.status == "incomplete"
            count = check_maps(reader)
            # a failed write through HDF5 may leave whole rows of the last, unacknowledged flush
            assert int(done) <= count <= int(done) + 50
            assert count > 1000

    @pytest.mark.parametrize("mode", ["limit", "limit unreserved"])
    def test_file_size_limit(self, tmp_path: Path, mode: str) -> None:
        self.check(tmp_path, mode, "File too large")
        (path,) = tmp_path.iterdir()
        with RunFile.resume(path) as run:
            rows = run.row_count("maps")
            run.append("maps", index=rows, conductance_s=np.full((3, 4), float(rows)))
        with open_run(path) as reader:
            assert reader.status == "complete"
            assert check_maps(reader) == rows + 1

    @pytest.mark.parametrize("mode", ["disk", "disk unreserved"])
    def test_small_disk(self, tmp_path: Path, mode: str) -> None:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
        try:
            self.check(tmp_path, mode, "No space left on device")
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)

    def test_in_the_background(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        failed = threading.Event()

        def full(*_: object) -> None:
            failed.set()
            raise OSError(errno.ENOSPC, "No space left on device")

        run = create(tmp_path, flush_interval_s=0.01)
        monkeypatch.setattr(os, "posix_fallocate", full)
        append_pulse(run)
        assert failed.wait(5)
        with pytest.raises(RunFileError, match=r"No space left on device; 0 rows are safe .*, 1 not yet"):
            append_pulse(run)
        with open_run(run.path) as reader:
            assert (reader.status, reader.row_count("pulses")) == ("incomplete", 0)


def test_no_thread_outlives_the_run(tmp_path: Path) -> None:
    """One that did could hold the lock of h5py while Python shuts down, and the process would hang."""
    create(tmp_path).finish()
    create(tmp_path).close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("flush ")]
