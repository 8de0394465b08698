"""What a run file looks like inside: names, table descriptions, checks of values, creation of all objects."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import h5py  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import numpy.typing as npt

from hil.errors import ConfigError, RunFileError

Status = Literal["complete", "failed", "aborted", "incomplete"]

FORMAT_NAME = "crossbar-hil run"
FORMAT_VERSION = 1
TIME_COLUMN = "t_unix_s"
SESSIONS = "sessions"
RUNNING = "running"
STATUS_BYTES = 16
CAUSE_BYTES = 1024
SOFTWARE_BYTES = 2048
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: oldest file format with SWMR, so that every HDF5 since 1.10 reads the file, not only the newest
LIBVER = ("v110", "v110")

_CHUNK_BYTES = 16 * 1024
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# h5py has no type information and numpy.char only partial one: both are Any at this edge.
h5: Any = h5py
char: Any = np.char


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: letters, digits and underscore, with the unit as suffix (`current_a`).
        dtype: bool, integer, float, complex, or fixed-length text as `"S16"` (16 bytes of UTF-8).
        unit: SI unit, `"1"` for a pure number, `""` for text.
        shape: shape of one row's value, `()` for a scalar.

    Raises:
        RunFileError: name or dtype cannot be stored.
    """

    name: str
    dtype: npt.DTypeLike
    unit: str
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_name("column", self.name)
        dtype = np.dtype(self.dtype)
        if dtype.kind not in "biufcS" or dtype.itemsize == 0:
            raise RunFileError(
                f"column {self.name!r} has dtype {dtype}, which a run file cannot hold",
                fix="use bool, integer, float, complex, or text of fixed length such as 'S16'",
            )
        if any(length < 1 for length in self.shape):
            raise RunFileError(f"column {self.name!r} has shape {self.shape}", fix="use lengths of at least 1")

    @property
    def storage(self) -> Any:
        """NumPy dtype as it lies in the file."""
        dtype = np.dtype(self.dtype)
        return h5.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype

    @property
    def row_bytes(self) -> int:
        """Size of one row's value in bytes."""
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))

    @property
    def chunk_rows(self) -> int:
        """Rows in one HDF5 chunk."""
        return max(1, _CHUNK_BYTES // self.row_bytes)


@dataclass(frozen=True)
class TableSpec:
    """An append-only table; every row gets `t_unix_s` (seconds since 1970, float64) besides these columns.

    Raises:
        RunFileError: a name is reserved, used twice or not allowed, or there is no column.
    """

    name: str
    columns: Sequence[Column]
    description: str

    def __post_init__(self) -> None:
        check_name("table", self.name)
        names = [column.name for column in self.columns]
        if not names:
            raise RunFileError(f"table {self.name!r} has no column", fix="give at least one")
        for name in names:
            if name == TIME_COLUMN or names.count(name) > 1:
                raise RunFileError(
                    f"column {name!r} of table {self.name!r} is reserved or there twice", fix="choose another name"
                )

    def column(self, name: str) -> Column | None:
        """The column of that name, None when there is none."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """The time column and then the others, as stored."""
        return (Column(TIME_COLUMN, "f8", "s"), *self.columns)


@dataclass(frozen=True)
class Header:
    """What is known at the start of a run; JSON as text."""

    run_id: str
    experiment: str
    config: str
    backend: str
    calibration: str
    seed: int
    software: str
    started_unix_s: float
    tables: tuple[TableSpec, ...] = field(default=())


def check_name(kind: str, name: str) -> None:
    """Raise RunFileError unless `name` may name a table, column, result or figure."""
    if not _NAME.fullmatch(name):
        raise RunFileError(f"{kind} name {name!r} is not allowed", fix="use letters, digits and _, letter first")


SESSIONS_SPEC = TableSpec(
    SESSIONS,
    [Column("software", f"S{SOFTWARE_BYTES}", ""), Column("previous_status", f"S{STATUS_BYTES}", "")],
    "one row per process that wrote this file: at its creation and at each resume",
)


def to_json(thing: str, value: Any) -> str:
    """Value as JSON text. Raises ConfigError naming `thing` when JSON cannot say it (objects, NaN, infinity)."""

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic | np.ndarray):
            return item.tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if isinstance(item, Mapping):
            return dict(item)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        raise TypeError(f"a value of type {type(item).__name__}")

    try:
        return json.dumps(
            plain(value) if isinstance(value, Mapping) else value, default=plain, allow_nan=False, indent=1
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{thing} cannot be written as JSON: {error}", fix="use texts, finite numbers, booleans, lists and mappings"
        ) from error


def to_rows(table: str, column: Column, value: Any) -> tuple[npt.NDArray[Any], bool]:
    """Check and convert what was given for one column.

    Returns:
        A copy in the stored dtype, and True when it is a block, shape (n, *column.shape), False when it is one
        row's value, shape column.shape.

    Raises:
        RunFileError: wrong dtype, number out of range, text too long, wrong shape.
    """
    where = f"column {column.name!r} of table {table!r}"
    dtype = np.dtype(column.dtype)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise RunFileError(f"{where} got a ragged value: {error}", fix="give an array") from error
    converted = _to_text(where, dtype, array) if dtype.kind == "S" else _to_number(where, dtype, array)
    if array.shape == column.shape:
        return converted, False
    if array.ndim == len(column.shape) + 1 and array.shape[1:] == column.shape:
        return converted, True
    raise RunFileError(
        f"{where} got shape {array.shape}, a row has {column.shape}",
        fix=f"give {column.shape} for one row or (n, ...) for a block of n rows",
    )


def _to_text(where: str, dtype: np.dtype[Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype.kind not in "SU":
        raise RunFileError(f"{where} holds text and got {array.dtype}", fix="give str or bytes")
    try:
        text = char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        char.decode(text, "utf-8")
    except UnicodeError as error:
        raise RunFileError(f"{where} got text that is not UTF-8: {error}", fix="give valid text") from error
    longest = int(np.max(char.str_len(text), initial=0))
    if longest > dtype.itemsize:
        raise RunFileError(
            f"{where} got a text of {longest} bytes, the limit is {dtype.itemsize}",
            fix="shorten it or widen the column",
        )
    return text.astype(dtype)


def _to_number(where: str, dtype: np.dtype[Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    both_integer = dtype.kind in "iu" and array.dtype.kind in "iu"
    allowed = array.size == 0 or (
        array.dtype.kind in "biufc" and (both_integer or np.can_cast(array.dtype, dtype, "same_kind"))
    )
    if not allowed:
        raise RunFileError(f"{where} holds {dtype} and got {array.dtype}", fix=f"convert to {dtype} first")
    if both_integer and array.size:
        low, high = int(array.min()), int(array.max())
        limits = np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            raise RunFileError(
                f"{where} got {low if low < limits.min else high}, {dtype} holds {limits.min} to {limits.max}",
                fix="correct the value or widen the column",
            )
    with np.errstate(all="ignore"):
        converted = array.astype(dtype)
    if dtype.kind in "fc" and not np.array_equal(np.isfinite(converted), np.isfinite(array)):
        raise RunFileError(f"{where} got a number too large for {dtype}", fix="correct the value or widen the column")
    return converted


def write_text(group: Any, name: str, text: str, *, n_bytes: int | None = None) -> Any:
    """Create a scalar dataset of fixed-length UTF-8 text, `n_bytes` long or as long as the text."""
    data = text.encode()
    dtype = h5.string_dtype("utf-8", n_bytes or max(1, len(data)))
    return group.create_dataset(name, data=np.array(data, dtype=dtype))


def read_text(dataset: Any) -> str:
    """Text of a scalar dataset written by `write_text`."""
    return bytes(dataset[()]).decode()


def clip_utf8(text: str, n_bytes: int) -> str:
    """The text, cut to at most `n_bytes` of UTF-8 with an ellipsis when it is longer."""
    data = text.replace("\0", " ").encode("utf-8", "replace")
    if len(data) > n_bytes:
        data = data[: n_bytes - 3].decode("utf-8", "ignore").encode() + "…".encode()
    return data.decode()


def build(file: Any, header: Header) -> None:
    """Create all groups, attributes and datasets in a new file; nothing can be added once SWMR is on."""
    file.attrs["format"] = FORMAT_NAME
    file.attrs["format_version"] = FORMAT_VERSION
    run = file.create_group("run")
    write_text(run, "id", header.run_id)
    write_text(run, "experiment", header.experiment)
    for name, text in (("config", header.config), ("backend", header.backend), ("software", header.software)):
        write_text(run, name, text).attrs["media_type"] = "application/json"
    write_text(run, "calibration", header.calibration)
    run.create_dataset("seed", data=np.uint64(header.seed))
    run.create_dataset("started_unix_s", data=np.float64(header.started_unix_s)).attrs["unit"] = "s"
    run.create_dataset("ended_unix_s", data=np.float64("nan")).attrs["unit"] = "s"
    write_text(run, "status", RUNNING, n_bytes=STATUS_BYTES)
    write_text(run, "cause", "", n_bytes=CAUSE_BYTES)
    tables = file.create_group("tables")
    for spec in (SESSIONS_SPEC, *header.tables):
        group = tables.create_group(spec.name)
        group.attrs["description"] = spec.description
        group.attrs["columns"] = json.dumps([column.name for column in spec.columns])
        for column in spec.all_columns:
            dataset = group.create_dataset(
                column.name,
                shape=(0, *column.shape),
                maxshape=(None, *column.shape),
                chunks=(column.chunk_rows, *column.shape),
                dtype=column.storage,
                fillvalue=np.nan if column.name == TIME_COLUMN else None,
            )
            dataset.attrs["unit"] = column.unit
    file.create_group("results")
    file.create_group("figures")


def checked_results(results: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Results as (value to store, media type); media type is "" for plain numbers and texts.

    Raises:
        RunFileError: a name or a value that a run file cannot hold.
    """
    checked: dict[str, tuple[Any, str]] = {}
    for name, value in results.items():
        check_name("result", name)
        if isinstance(value, bytes | bytearray | memoryview):
            data = bytes(cast("bytes", value))
            kind = "image/png" if data.startswith(PNG_SIGNATURE) else "application/octet-stream"
            checked[name] = (np.frombuffer(data, np.uint8), kind)
        elif isinstance(value, str):
            if "\0" in value:
                raise RunFileError(f"result {name!r} is text with a NUL character", fix="remove it or give bytes")
            checked[name] = (value, "text/plain")
        elif isinstance(value, Mapping):
            checked[name] = (to_json(f"result {name!r}", value), "application/json")
        else:
            try:
                array = np.asarray(value)
            except ValueError as error:
                raise RunFileError(f"result {name!r} is ragged: {error}", fix="give an array or a mapping") from error
            if array.dtype.kind == "U":
                array = char.encode(array, "utf-8")
            if array.dtype.kind not in "biufcS" or array.dtype.itemsize == 0:
                raise RunFileError(
                    f"result {name!r} has dtype {array.dtype}",
                    fix="give numbers, texts, a mapping, or bytes for a figure",
                )
            checked[name] = (array, "")
    return checked


def write_result(file: Any, name: str, value: Any, media_type: str) -> None:
    """Write one checked result under /results, or under /figures when it came as bytes."""
    if media_type in ("text/plain", "application/json"):
        write_text(file["results"], name, value).attrs["media_type"] = media_type
    elif media_type:
        file["figures"].create_dataset(name, data=value).attrs["media_type"] = media_type
    else:
        dtype = h5.string_dtype("utf-8", value.dtype.itemsize) if value.dtype.kind == "S" else value.dtype
        file["results"].create_dataset(name, data=value.astype(dtype))
