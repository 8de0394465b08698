"""Exports hold what the run file holds, in every format, and appear whole or not at all."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from array_runs import SHAPE, append_pulse, append_read, array_run, conductances, counts_run, create_run

from hil import run_export
from hil.errors import ConfigError, RunFileError
from hil.run_export import FORMATS, export, to_xarray, unit_of
from hil.runfile import Column, RunReader, TableSpec, open_run

ALL_TYPES = TableSpec(
    "everything",
    [
        Column("flag", "?", "1"),
        Column("small", "u1", "1", (2, 3)),
        Column("big", "i8", "1"),
        Column("current_a", "f4", "A"),
        Column("voltage_v", "f8", "V", (2,)),
        Column("wave_a", "c16", "A"),
        Column("text", "S20", ""),
    ],
    "a column of each kind",
)


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A run with every kind of column and result; more rows than one block."""
    rng = np.random.default_rng(1)
    n = 400
    run = create_run(tmp_path, "everything", specs=[ALL_TYPES])
    run.append(
        "everything", flag=rng.random(n) < 0.5, small=rng.integers(0, 256, (n, 2, 3), np.uint8),
        big=rng.integers(-(2**62), 2**62, n), current_a=rng.normal(0, 1e-6, n).astype("f4"),
        voltage_v=np.where(rng.random((n, 2)) < 0.1, np.nan, rng.normal(size=(n, 2))),
        wave_a=rng.normal(size=n) + 1j * rng.normal(size=n),
        text=np.array(['a,"b', "line\nbreak", "é µ", ""] * (n // 4)),
    )  # fmt: skip
    run.finish(results={
        "rate_hz": np.float64(1.5), "missing": np.float32(np.nan), "note": "said so", "summary": {"n": 3},
        "cube": rng.normal(size=(2, 3, 4)), "vector_v": np.arange(5.0), "names": np.array(["a", "bé"]),
        "spectrum": np.array([1 + 2j, 3j]),
    })  # fmt: skip
    return run.path


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hil.array_records._BLOCK_ROWS", 128)


def exported(path: Path, file_format: Any, folder: Path, **options: Any) -> list[Path]:
    with open_run(path) as run:
        return export(run, file_format, folder, **options)


def read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return header, rows


class TestCsv:
    def test_every_value_comes_back(self, everything: Path, tmp_path: Path) -> None:
        exported(everything, "csv", tmp_path / "out")
        header, rows = read_csv(tmp_path / "out/everything.csv")
        assert header == [
            "t_unix_s [s]", "flag", *(f"small[{i}][{j}]" for i in range(2) for j in range(3)), "big", "current_a [A]",
            "voltage_v[0] [V]", "voltage_v[1] [V]", "wave_a_re [A]", "wave_a_im [A]", "text",
        ]  # fmt: skip
        with open_run(everything) as run:
            table = run.table("everything")
        columns = np.array(rows, dtype=object).T
        np.testing.assert_array_equal(columns[0].astype(float), table["t_unix_s"])
        np.testing.assert_array_equal(columns[1].astype(int).astype(bool), table["flag"])
        np.testing.assert_array_equal(columns[2:8].T.astype(int), table["small"].reshape(-1, 6))
        assert [int(text) for text in columns[8]] == table["big"].tolist()
        np.testing.assert_array_equal(columns[9].astype("f4"), table["current_a"])
        np.testing.assert_array_equal(columns[10:12].T.astype(float), table["voltage_v"])
        np.testing.assert_array_equal(columns[12].astype(float) + 1j * columns[13].astype(float), table["wave_a"])
        assert columns[14].tolist() == table["text"].tolist()

    def test_maps_are_matrices(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        exported(path, "csv", tmp_path / "out")
        with open_run(path) as run:
            for name, values in run.results.items():
                if isinstance(values, np.ndarray):
                    found = np.loadtxt(tmp_path / f"out/result_{name}.csv", delimiter=",")
                    np.testing.assert_array_equal(found.astype(values.dtype), values)

    def test_the_rest_is_in_one_text_file(self, everything: Path, tmp_path: Path) -> None:
        exported(everything, "csv", tmp_path / "out")
        found = json.loads((tmp_path / "out/run.json").read_text(encoding="utf-8"))
        assert found["results"] == {"rate_hz": 1.5, "missing": None, "note": "said so", "summary": {"n": 3}}
        assert found["tables"]["everything"]["units"]["current_a"] == "A"
        assert (found["tables"]["everything"]["rows"], found["status"], found["seed"]) == (400, "complete", 3)
        assert found["config"]["array"] == {"v_max_v": 4.0}


class TestParquet:
    def test_every_value_comes_back_with_its_type_and_unit(self, everything: Path, tmp_path: Path) -> None:
        exported(everything, "parquet", tmp_path / "out")
        found = pq.read_table(tmp_path / "out/everything.parquet")
        with open_run(everything) as run:
            table = run.table("everything")
        for name in ("t_unix_s", "flag", "big", "current_a"):
            values = found[name].to_numpy()
            assert values.dtype == table[name].dtype
            np.testing.assert_array_equal(values, table[name])
        np.testing.assert_array_equal(np.array(found["small"].to_pylist()), table["small"])
        np.testing.assert_array_equal(np.array(found["voltage_v"].to_pylist()), table["voltage_v"])
        wave = found["wave_a_re"].to_numpy() + 1j * found["wave_a_im"].to_numpy()
        np.testing.assert_array_equal(wave, table["wave_a"])
        assert found["text"].to_pylist() == table["text"].tolist()
        assert found.schema.field("current_a").metadata == {b"unit": b"A"}
        assert found.schema.metadata[b"run_id"] == everything.stem.encode()

    def test_maps_are_columns_of_one_table(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        exported(path, "parquet", tmp_path / "out")
        found = pq.read_table(tmp_path / "out/maps.parquet")
        with open_run(path) as run:
            results = run.results
        assert set(found.column_names) == {"row", "col", "conductance_s", "faults", "mask_in", "mask_ok", "pulse_count"}
        assert found.schema.field("conductance_s").metadata == {b"unit": b"S"}
        again = np.empty(SHAPE, "f4")
        again[found["row"].to_numpy(), found["col"].to_numpy()] = found["conductance_s"].to_numpy()
        np.testing.assert_array_equal(again, results["conductance_s"])

    def test_other_arrays_have_tables_of_their_own(self, everything: Path, tmp_path: Path) -> None:
        exported(everything, "parquet", tmp_path / "out")
        found = pq.read_table(tmp_path / "out/result_cube.parquet")
        with open_run(everything) as run:
            cube = run.results["cube"]
        index = tuple(found[f"index_{axis}"].to_numpy() for axis in range(3))
        np.testing.assert_array_equal(found["cube"].to_numpy(), cube[index])
        assert len(found) == cube.size
        assert pq.read_table(tmp_path / "out/result_names.parquet")["names"].to_pylist() == ["a", "bé"]
        assert pq.read_table(tmp_path / "out/result_spectrum.parquet")["spectrum_im"].to_pylist() == [2.0, 3.0]


class TestNetcdf:
    def dataset(self, path: Path, folder: Path) -> Any:
        (file,) = exported(path, "netcdf", folder)
        with xr.open_dataset(file, engine="h5netcdf") as found:
            return found.load()

    def test_every_value_comes_back(self, everything: Path, tmp_path: Path) -> None:
        found = self.dataset(everything, tmp_path / "out")
        with open_run(everything) as run:
            table, results = run.table("everything"), run.results
        for name in ("t_unix_s", "flag", "small", "big", "current_a", "voltage_v"):
            np.testing.assert_array_equal(found[f"everything_{name}"], table[name])
            assert found[f"everything_{name}"].dtype == table[name].dtype
        wave = found["everything_wave_a_re"].values + 1j * found["everything_wave_a_im"].values
        np.testing.assert_array_equal(wave, table["wave_a"])
        assert found["everything_text"].values.tolist() == table["text"].tolist()
        assert found["everything_current_a"].attrs["units"] == "A"
        np.testing.assert_array_equal(found["cube"], results["cube"])
        assert json.loads(found.attrs["config"])["verb"] == "form"
        assert json.loads(found.attrs["results"])["rate_hz"] == 1.5

    def test_maps_have_rows_and_columns(self, tmp_path: Path) -> None:
        path = array_run(tmp_path)
        found = self.dataset(path, tmp_path / "out")
        assert found["conductance_s"].dims == ("row", "col")
        assert found["conductance_s"].attrs["units"] == "S"
        np.testing.assert_array_equal(found["conductance_s"], conductances().astype("f4"))
        assert float(found["conductance_s"].sel(row=2, col=7)) == np.float32(conductances()[2, 7])
        assert found["mask_ok"].dtype == bool

    def test_repeated_reads_of_the_same_cells_are_traces(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        part = np.full(SHAPE, np.nan)
        part[1, 2:5] = [1e-6, 2e-6, 3e-6]
        append_pulse(run, 0, np.isfinite(part))
        for op in range(1, 6):
            append_read(run, op, part * op)
        run.close()
        found = self.dataset(run.path, tmp_path / "out")
        np.testing.assert_allclose(found["read_conductance_s"], np.outer(np.arange(1, 6), [1e-6, 2e-6, 3e-6]), 1e-6)
        assert found["cell_col"].values.tolist() == [2, 3, 4]
        assert found["read_op"].values.tolist() == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(found["read_t_array_s"], 1e-3 * np.arange(1, 6))

    def test_reads_of_different_cells_are_no_traces(self, tmp_path: Path) -> None:
        run = create_run(tmp_path)
        part = np.full(SHAPE, np.nan)
        part[1, 2:5] = 1e-6
        append_read(run, 0, part)
        append_read(run, 1, np.roll(part, 1, axis=0))
        run.close()
        with open_run(run.path) as reader:
            assert "read_conductance_s" not in to_xarray(reader)


class TestFiles:
    @pytest.mark.parametrize("file_format", FORMATS)
    def test_nothing_is_replaced_without_force(self, tmp_path: Path, file_format: Any) -> None:
        path, out = counts_run(tmp_path, x=np.arange(3)), tmp_path / "out"
        (first, *_) = files = exported(path, file_format, out)
        assert sorted(out.iterdir()) == sorted(files)
        first.write_text("mine")
        (out / "other.txt").write_text("mine, too")
        with pytest.raises(ConfigError, match=r"is there already.*--force"):
            exported(path, file_format, out)
        assert first.read_text() == "mine"
        exported(path, file_format, out, force=True)
        assert first.read_bytes() != b"mine"
        assert (out / "other.txt").read_text() == "mine, too"

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_a_full_disk_leaves_what_was_there(
        self, tmp_path: Path, file_format: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, out = counts_run(tmp_path, x=np.arange(3)), tmp_path / "out"
        files = exported(path, file_format, out)
        before = {file: file.read_bytes() for file in files}
        kinds: dict[str, Callable[[RunReader], dict[str, Callable[[Path], None]]]] = {
            "csv": run_export._csv_files, "parquet": run_export._parquet_files, "netcdf": run_export._netcdf_files,
        }  # fmt: skip

        def full(run: RunReader) -> dict[str, Callable[[Path], None]]:
            writers = kinds[file_format](run)

            def stop(part: Path) -> None:
                part.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")

            return {**writers, list(writers)[-1]: stop}

        monkeypatch.setitem(run_export._WRITERS, file_format, full)
        with pytest.raises(RunFileError, match="No space left"):
            exported(path, file_format, out, force=True)
        assert {file: file.read_bytes() for file in out.iterdir()} == before

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        path = counts_run(tmp_path)
        (tmp_path / "file").write_text("")
        with pytest.raises(RunFileError, match="choose another folder with --to"):
            exported(path, "csv", tmp_path / "file" / "out")

    @pytest.mark.parametrize(("file_format", "package"), [("parquet", "pyarrow"), ("netcdf", "h5netcdf")])
    def test_a_missing_package_is_named_with_its_extra(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: Any, package: str
    ) -> None:
        path = counts_run(tmp_path)
        monkeypatch.setattr(run_export, "find_spec", lambda name: None if name == package else object())
        with pytest.raises(ConfigError, match=rf'{package}.*pip install "crossbar-hil\[export\]"'):
            exported(path, file_format, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        exported(path, "csv", tmp_path / "out")

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_a_run_without_rows_and_results(self, tmp_path: Path, file_format: Any) -> None:
        run = create_run(tmp_path)
        run.close()
        assert exported(run.path, file_format, tmp_path / "out")

    def test_netcdf_is_plain_netcdf(self, tmp_path: Path) -> None:
        """No part of the file is HDF5 that netCDF does not know."""
        (file,) = exported(array_run(tmp_path), "netcdf", tmp_path / "out")
        with h5py.File(file) as found:
            assert all(dataset.dtype.kind != "b" for dataset in found.values())
            assert "_NCProperties" in found.attrs


@pytest.mark.parametrize(
    ("name", "unit"),
    [("conductance_s", "S"), ("target_s", "S"), ("wall_s", "s"), ("formed_at_v", "V"), ("current_a", "A"),
     ("faults", ""), ("mask_ok", ""), ("v", ""), ("rate_hz", "Hz"), ("sigma_s", "S"), ("ohmic_s", "S"),
     ("endurance_high_s", "S"), ("disturb_shift_error_s", "S"), ("telegraph_low_s", "S"), ("trace_time_s", "s"),
     ("telegraph_dwell_low_s", "s"), ("variance_max_s2", "S^2"), ("psd_s2_per_hz", "S^2/Hz"),
     ("flicker_s2_per_hz_at_1hz", "S^2/Hz"), ("psd_frequency_hz", "Hz")],
)  # fmt: skip
def test_unit_of_a_result(name: str, unit: str) -> None:
    assert unit_of(name) == unit
