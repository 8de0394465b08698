"""A run in formats that other programs read: CSV, Parquet, netCDF.

Every file is written aside and renamed when all are whole, so that a full disk leaves nothing half-written.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hil.array_records import blocks, is_array_run
from hil.errors import ConfigError, RunFileError
from hil.runfile import RunReader

Format = Literal["csv", "parquet", "netcdf"]
FORMATS: tuple[Format, ...] = ("csv", "parquet", "netcdf")

RUN_FILE = "run.json"
_PACKAGES = {"csv": (), "parquet": ("pyarrow",), "netcdf": ("xarray", "h5netcdf")}
_TIME_WORDS = frozenset(("time", "t", "dwell", "duration", "width", "interval", "age", "wait", "wall", "unix"))
_UNITS = {"v": "V", "a": "A", "ohm": "ohm", "c": "degC", "hz": "Hz"}


def export(run: RunReader, file_format: Format, folder: Path, *, force: bool = False) -> list[Path]:
    """Write a run to a folder, which is made if missing.

    Args:
        force: replace files of the same names; others in the folder stay.

    Returns:
        The files.

    Raises:
        ConfigError: a package is missing, or a file is there already.
        DataError: the run file is damaged.
        RunFileError: the folder cannot be written; it is as it was.
    """
    for package in _PACKAGES[file_format]:
        if find_spec(package) is None:
            raise ConfigError(
                f"{file_format} needs the package {package!r}, which is not installed",
                fix='run: pip install "crossbar-hil[export]"',
            )
    writers = _WRITERS[file_format](run)
    present = [name for name in writers if (folder / name).exists()]
    if present and not force:
        raise ConfigError(
            f"{folder / present[0]} is there already", fix="use --force to replace it, or --to with another folder"
        )
    parts = {name: folder / f"{name}.part" for name in writers}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            write(parts[name])
        for name, part in parts.items():
            os.replace(part, folder / name)
    except OSError as error:
        raise RunFileError(
            f"export to {folder} failed: {error.strerror or error}", fix="make room, or choose another folder with --to"
        ) from error
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return [folder / name for name in writers]


_Writers = dict[str, Callable[[Path], None]]


def description(run: RunReader) -> dict[str, Any]:
    """All of a run but its tables and arrays: who, what, when, how it ended, units, single results."""
    return {
        "id": run.run_id,
        "experiment": run.experiment,
        "status": run.status,
        "cause": run.cause,
        "started_unix_s": run.started_unix_s,
        "ended_unix_s": run.ended_unix_s,
        "backend": run.backend,
        "calibration": run.calibration,
        "seed": run.seed,
        "software": run.software,
        "config": run.config,
        "tables": {name: _table_description(run, name) for name in run.tables},
        "results": {name: _plain(value) for name, value in run.results.items() if not _is_array(value)},
    }


def _table_description(run: RunReader, name: str) -> dict[str, Any]:
    spec = run.table_spec(name)
    return {
        "description": spec.description,
        "rows": run.row_count(name),
        "units": {column.name: column.unit for column in spec.all_columns},
    }


def _write_description(run: RunReader, path: Path) -> None:
    text = json.dumps(description(run), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(value, complex):
        return [value.real, value.imag]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0


def _arrays(run: RunReader) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in run.results.items() if _is_array(value)}


def unit_of(name: str) -> str:
    """Unit that a result's name states; `_s` is siemens, and seconds where a word of the name is about time."""
    words = name.split("_")
    if "s2" in words[1:]:
        return "S^2/Hz" if "_s2_per_hz" in name else "S^2"
    if words[-1] == "s" and len(words) > 1:
        return "s" if _TIME_WORDS.intersection(words) else "S"
    return _UNITS.get(words[-1], "") if len(words) > 1 else ""


def _real_columns(name: str, unit: str, values: NDArray[Any]) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """A column as columns of one real number or text each: (name, unit, values)."""
    if values.dtype.kind == "c":
        yield from _real_columns(f"{name}_re", unit, np.real(values))
        yield from _real_columns(f"{name}_im", unit, np.imag(values))
    else:
        yield name, unit, values


# CSV


def _csv_files(run: RunReader) -> _Writers:
    writers: _Writers = {RUN_FILE: lambda path: _write_description(run, path)}
    for name in run.tables:
        writers[f"{name}.csv"] = lambda path, name=name: _write_csv_table(run, name, path)
    for name, values in _arrays(run).items():
        writers[f"result_{name}.csv"] = lambda path, values=values: _write_csv_array(values, path)
    return writers


def _write_csv_table(run: RunReader, name: str, path: Path) -> None:
    columns = run.table_spec(name).all_columns
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow([header for column in columns for header in _headers(column.name, column.unit, column)])
        for rows in blocks(run, name):
            texts = [_texts(part.reshape(len(part), -1)) for column in columns
                     for _, _, part in _real_columns(column.name, column.unit, rows[column.name])]  # fmt: skip
            out.writerows(np.concatenate(texts, axis=1).tolist())


def _headers(name: str, unit: str, column: Any) -> list[str]:
    suffixes = ("_re", "_im") if np.dtype(column.dtype).kind == "c" else ("",)
    indices = ["".join(f"[{i}]" for i in index) for index in np.ndindex(*column.shape)]
    # A pure number and a text have no unit to show.
    shown = f" [{unit}]" if unit not in ("", "1") else ""
    return [f"{name}{suffix}{index}{shown}" for suffix in suffixes for index in indices]


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    """Shortest texts that give the same numbers again."""
    return values.astype(np.int8).astype(object) if values.dtype.kind == "b" else values.astype(str).astype(object)


def _write_csv_array(values: NDArray[Any], path: Path) -> None:
    """One line per index of the first axis; complex numbers as Python writes them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(_texts(values.reshape(len(values), -1)).tolist())


# Parquet


def _parquet_files(run: RunReader) -> _Writers:
    writers: _Writers = {RUN_FILE: lambda path: _write_description(run, path)}
    for name in run.tables:
        writers[f"{name}.parquet"] = lambda path, name=name: _write_parquet_table(run, name, path)
    maps = _maps(_arrays(run))
    if maps:
        writers["maps.parquet"] = lambda path: _write_parquet_arrays(run, maps, ("row", "col"), path)
    for name, values in _arrays(run).items():
        if name not in maps:
            axes = tuple(f"index_{axis}" for axis in range(values.ndim))
            writers[f"result_{name}.parquet"] = lambda path, name=name, values=values, axes=axes: _write_parquet_arrays(
                run, {name: values}, axes, path
            )
    return writers


def _maps(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Arrays with one value per cell of the array."""
    known = next((arrays[name] for name in ("conductance_s", "mask_in", "faults") if name in arrays), None)
    if known is None or known.ndim != 2:
        return {}
    return {name: values for name, values in arrays.items() if values.shape == known.shape}


def _write_parquet_table(run: RunReader, name: str, path: Path) -> None:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]

    spec = run.table_spec(name)
    fields: list[Any] = []
    for column in spec.all_columns:
        sample = np.empty(0, np.dtype(column.dtype) if np.dtype(column.dtype).kind != "S" else np.str_)
        for part, unit, values in _real_columns(column.name, column.unit, sample):
            kind: Any = pa.string() if values.dtype.kind == "U" else pa.from_numpy_dtype(values.dtype)
            for length in reversed(column.shape):
                kind = pa.list_(kind, length)
            fields.append(pa.field(part, kind, metadata={"unit": unit}))
    schema: Any = pa.schema(fields, metadata=_parquet_metadata(run, spec.description))
    with pq.ParquetWriter(path, schema) as writer:
        for rows in blocks(run, name):
            parts = [values for column in spec.all_columns
                     for _, _, values in _real_columns(column.name, column.unit, rows[column.name])]  # fmt: skip
            arrays = [_arrow(pa, values).cast(field.type) for values, field in zip(parts, fields, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _arrow(pa: Any, values: NDArray[Any]) -> Any:
    """NumPy values, shape (n, ...), as an arrow array of nested lists of fixed length."""
    flat = np.ascontiguousarray(values).reshape(-1)
    array = pa.array(flat.tolist(), pa.string()) if flat.dtype.kind == "U" else pa.array(flat)
    for length in reversed(values.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return array


def _write_parquet_arrays(run: RunReader, arrays: dict[str, NDArray[Any]], axes: Sequence[str], path: Path) -> None:
    """Arrays of one shape as a table with a row per element."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]

    shape = next(iter(arrays.values())).shape
    columns: list[tuple[str, str, NDArray[Any]]] = [
        (axis, "1", index.reshape(-1)) for axis, index in zip(axes, np.indices(shape, np.int32), strict=True)
    ]
    for name, values in arrays.items():
        columns += _real_columns(name, unit_of(name), values.reshape(-1))
    data = [_arrow(pa, values) for _, _, values in columns]
    fields = [
        pa.field(name, values.type, metadata={"unit": unit})
        for (name, unit, _), values in zip(columns, data, strict=True)
    ]
    text = "results of the run, one row per element"
    pq.write_table(pa.Table.from_arrays(data, schema=pa.schema(fields, metadata=_parquet_metadata(run, text))), path)


def _parquet_metadata(run: RunReader, text: str) -> dict[str, str]:
    return {"run_id": run.run_id, "experiment": run.experiment, "description": text}


# netCDF


def _netcdf_files(run: RunReader) -> _Writers:
    return {f"{run.run_id}.nc": lambda path: _write_netcdf(run, path)}


def to_xarray(run: RunReader) -> Any:
    """A run as an `xarray.Dataset`: maps over (row, col), each table along a dimension of its own name."""
    import xarray as xr  # pyright: ignore[reportMissingTypeStubs]

    arrays = _arrays(run)
    maps = _maps(arrays)
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    if maps:
        rows, cols = next(iter(maps.values())).shape
        coords = {"row": ("row", np.arange(rows)), "col": ("col", np.arange(cols))}
    for name, values in arrays.items():
        dims = ("row", "col") if name in maps else tuple(f"{name}_{axis}" for axis in range(values.ndim))
        for part, unit, real in _real_columns(name, unit_of(name), values):
            variables[part] = (dims, real, {"units": unit} if unit else {})
    for name in run.tables:
        table = run.table(name)
        for column in run.table_spec(name).all_columns:
            dims = (name, *(f"{name}_{column.name}_{axis}" for axis in range(len(column.shape))))
            for part, unit, real in _real_columns(column.name, column.unit, table[column.name]):
                attrs = {"units": unit} if unit not in ("", "1") else {}
                variables[f"{name}_{part}"] = (dims, real.astype(object) if real.dtype.kind == "U" else real, attrs)
    if is_array_run(run):
        traces, at = _traces(run)
        variables |= traces
        coords |= at
    found = description(run)
    attrs = {
        key: value if isinstance(value, str | int | float) else json.dumps(value, allow_nan=False)
        for key, value in found.items()
        if value is not None
    }
    # NetCDF has no unsigned 64-bit attribute that all programs read.
    attrs["seed"] = str(run.seed)
    return xr.Dataset(variables, coords, attrs)


def _traces(run: RunReader) -> tuple[dict[str, Any], dict[str, Any]]:
    """Readings as arrays over (read_op, cell), and the coordinates of both; empty unless every operation that gave
    conductances read the same cells."""
    readings, outcomes = run.table("readings"), run.table("outcomes")
    valid = np.isin(readings["op"], readings["op"][~np.isnan(readings["conductance_s"])])
    ops, counts = np.unique(readings["op"][valid], return_counts=True)
    if not ops.size or np.ptp(counts):
        return {}, {}
    by_op = {name: readings[name][valid].reshape(len(ops), -1) for name in ("row", "col", "current_a", "conductance_s")}
    if any((by_op[name] != by_op[name][0]).any() for name in ("row", "col")):
        return {}, {}
    variables = {
        "read_current_a": (("read_op", "cell"), by_op["current_a"], {"units": "A"}),
        "read_conductance_s": (("read_op", "cell"), by_op["conductance_s"], {"units": "S"}),
    }
    times = dict(zip(outcomes["op"].tolist(), outcomes["t_array_s"].tolist(), strict=True))
    coords = {
        "read_op": ("read_op", ops),
        "read_t_array_s": ("read_op", np.array([times.get(op, math.nan) for op in ops.tolist()]), {"units": "s"}),
        "cell_row": ("cell", by_op["row"][0]),
        "cell_col": ("cell", by_op["col"][0]),
    }
    return variables, coords


def _write_netcdf(run: RunReader, path: Path) -> None:
    """By way of memory: HDF5 that meets a full disk cannot close its file and takes the process down with it."""
    import h5netcdf  # pyright: ignore[reportMissingTypeStubs]
    from xarray.backends import H5NetCDFStore  # pyright: ignore[reportMissingTypeStubs]

    buffer = io.BytesIO()
    with h5netcdf.File(buffer, "w") as file:
        to_xarray(run).dump_to_store(H5NetCDFStore(file))
    path.write_bytes(buffer.getbuffer())


_WRITERS: dict[Format, Callable[[RunReader], _Writers]] = {
    "csv": _csv_files,
    "parquet": _parquet_files,
    "netcdf": _netcdf_files,
}
