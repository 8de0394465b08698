"""Calibration files: HDF5 whose content is under one hash, so that an edited or damaged file is noticed.

A calibration is first laid out as fields, path -> text or array. The hash is over the fields, and the file is the
fields and nothing else. The layout is in docs/reference/calibration-file.md.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hil.aside import written_aside
from hil.calibration_file import PARTS, BoardIdentity, Calibration, Part, Quantity
from hil.calibration_shapes import check_shapes
from hil.errors import CalibrationError
from hil.wiring import Wiring

FORMAT_NAME = "crossbar-hil calibration"
FORMAT_VERSION = 1

#: what lies in a file: a text, or an array of numbers, by its path
Fields: TypeAlias = Mapping[str, "str | NDArray[Any]"]

_VALIDATION = "validation"
#: parts/zero/quantities/row_offset_v/value
_DEPTH_MAX = 5
_HDF5_SIGNATURE = b"\x89HDF"
_FIX = "take the file from a backup, or measure again with `hil calibrate all`"


def fields_of(calibration: Calibration) -> dict[str, str | NDArray[Any]]:
    """Everything but the validation."""
    board, wiring = calibration.board, calibration.wiring
    fields: dict[str, str | NDArray[Any]] = {
        "board/serial": board.serial,
        "board/firmware": board.firmware,
        "board/profile": board.profile,
        "board/profile_hash": board.profile_hash,
        "board/shape": np.asarray(board.shape, np.int64),
        "wiring/row_channel": wiring.row_channel.astype(np.int64),
        "wiring/row_position": wiring.row_position.astype(np.int64),
        "wiring/col_converter": wiring.col_converter.astype(np.int64),
        "wiring/independent_selects": np.asarray(wiring.independent_selects, np.bool_),
        "wiring/inhibit": np.asarray(wiring.inhibit, np.bool_),
        "wiring/channel_names": _to_json(wiring.channel_names),
        "wiring/converter_names": _to_json(wiring.converter_names),
        "wiring/row_ok": wiring.row_ok.astype(np.bool_),
        "wiring/col_ok": wiring.col_ok.astype(np.bool_),
        "electrics": _to_json(calibration.electrics),
        "software": _to_json(calibration.software),
        "seed": np.asarray(calibration.seed, np.uint64),
        "created_unix_s": np.asarray(calibration.created_unix_s, np.float64),
    }
    for part in calibration.parts.values():
        at = f"parts/{part.name}"
        fields[f"{at}/method"] = part.method
        fields[f"{at}/options"] = _to_json(part.options)
        fields[f"{at}/instruments"] = _to_json(part.instruments)
        fields[f"{at}/findings"] = _to_json(part.findings)
        fields[f"{at}/measured_unix_s"] = np.asarray(part.measured_unix_s, np.float64)
        for name, residual in part.residuals.items():
            fields[f"{at}/residuals/{name}"] = np.asarray(residual, np.float64)
        for name, quantity in part.quantities.items():
            fields[f"{at}/quantities/{name}/value"] = quantity.value
            fields[f"{at}/quantities/{name}/uncertainty"] = quantity.uncertainty
            fields[f"{at}/quantities/{name}/ok"] = quantity.ok
    return fields


def calibration_of(fields: Fields) -> Calibration:
    """Undo `fields_of`; raises KeyError, ValueError or TypeError where that cannot be."""

    def text(name: str) -> str:
        found = fields[name]
        if not isinstance(found, str):
            raise TypeError(f"{name} is no text")
        return found

    def array(name: str) -> NDArray[Any]:
        found = fields[name]
        if isinstance(found, str):
            raise TypeError(f"{name} is a text")
        return found

    def names(at: str) -> list[str]:
        """What lies directly below a path, in order."""
        return list(dict.fromkeys(path[len(at) :].split("/")[0] for path in fields if path.startswith(at)))

    def part(name: str) -> Part:
        at = f"parts/{name}"
        return Part(
            name=name,
            quantities={
                key: Quantity(*(array(f"{at}/quantities/{key}/{item}") for item in ("value", "uncertainty", "ok")))
                for key in names(f"{at}/quantities/")
            },
            residuals={key: float(array(f"{at}/residuals/{key}")) for key in names(f"{at}/residuals/")},
            method=text(f"{at}/method"),
            options=json.loads(text(f"{at}/options")),
            instruments=json.loads(text(f"{at}/instruments")),
            measured_unix_s=float(array(f"{at}/measured_unix_s")),
            findings=tuple(json.loads(text(f"{at}/findings"))),
        )

    rows, cols = array("board/shape").tolist()
    return Calibration(
        board=BoardIdentity(
            **{key: text(f"board/{key}") for key in ("serial", "firmware", "profile", "profile_hash")},
            shape=(int(rows), int(cols)),
        ),
        wiring=Wiring(
            row_channel=array("wiring/row_channel").astype(np.intp),
            row_position=array("wiring/row_position").astype(np.intp),
            col_converter=array("wiring/col_converter").astype(np.intp),
            independent_selects=bool(array("wiring/independent_selects")),
            inhibit=bool(array("wiring/inhibit")),
            channel_names=tuple(json.loads(text("wiring/channel_names"))),
            converter_names=tuple(json.loads(text("wiring/converter_names"))),
            row_ok=array("wiring/row_ok"),
            col_ok=array("wiring/col_ok"),
        ),
        electrics=json.loads(text("electrics")),
        parts={name: part(name) for name in sorted(names("parts/"), key=PARTS.index)},
        seed=int(array("seed")),
        created_unix_s=float(array("created_unix_s")),
        software=json.loads(text("software")),
    )


def digest(fields: Fields) -> str:
    """SHA-256 over name, type, shape and content of all fields, in hexadecimal digits."""
    found = hashlib.sha256()
    for name in sorted(fields):
        value = fields[name]
        if isinstance(value, str):
            kind, content = "text", _encoded(name, value)
        else:
            little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
            kind, content = f"{little.dtype.str}{value.shape}", little.tobytes()
        # lengths in front, so that no two sets of fields give the same bytes
        for item in (name.encode(), kind.encode(), content):
            found.update(len(item).to_bytes(8, "little"))
            found.update(item)
    return found.hexdigest()


def save(calibration: Calibration, path: Path) -> None:
    """Write a file whole or not at all; see `Calibration.save`."""
    content = _file_content(calibration)
    try:
        with written_aside(path, durable=True) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise CalibrationError(
            f"calibration file {path} cannot be written: {error.strerror}", fix="make room, or choose another folder"
        ) from None


def load(path: Path) -> Calibration:
    """Read a file; see `Calibration.load`."""
    try:
        with path.open("rb") as stream:
            signature = stream.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        raise CalibrationError(
            f"there is no calibration file {path}", fix="correct its path, or make one with `hil calibrate all`"
        ) from None
    except OSError as error:
        raise CalibrationError(
            f"calibration file {path} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from None
    if signature != _HDF5_SIGNATURE:
        raise _foreign(path)
    try:
        attributes, fields = _read(path)
        validation = fields.pop(_VALIDATION, None)
        content = digest(fields)
        expected = {
            "format": FORMAT_NAME,
            "format_version": FORMAT_VERSION,
            "sha256": content,
            **({} if validation is None else {"validation_sha256": _validation_digest(content, validation)}),
        }
        if attributes != expected:
            raise ValueError("its content is not what its hash says")
        calibration = calibration_of(fields)
        check_shapes(calibration)
        return calibration if validation is None else calibration.with_validation(json.loads(validation))
    except CalibrationError:
        raise
    # All that HDF5, its Python side and a content that is not ours may raise.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as error:
        raise CalibrationError(f"calibration file {path} was edited or damaged", fix=_FIX) from error


# The file


def _file_content(calibration: Calibration) -> bytes:
    """The file as bytes: HDF5 does not come back from a failed write, so it never sees the disk."""
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    h5: Any = h5py
    fields = fields_of(calibration)
    content = digest(fields)
    with h5.File("calibration", "w", driver="core", backing_store=False) as file:
        file.attrs["format"] = FORMAT_NAME
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["sha256"] = content
        if calibration.validation is not None:
            fields[_VALIDATION] = _to_json(calibration.validation)
            file.attrs["validation_sha256"] = _validation_digest(content, fields[_VALIDATION])
        for path, value in fields.items():
            if isinstance(value, str):
                data = _encoded(path, value)
                file.create_dataset(path, data=np.array(data, h5.string_dtype("utf-8", max(1, len(data)))))
            else:
                file.create_dataset(path, data=value)
        file.flush()
        return bytes(file.id.get_file_image())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes and fields of a file; raises CalibrationError where it is of another kind or version."""
    import h5py  # pyright: ignore[reportMissingTypeStubs]

    h5: Any = h5py
    with h5.File(path, "r", locking=False) as file:
        attributes = dict(file.attrs)
        if attributes.get("format") != FORMAT_NAME:
            raise _foreign(path)
        version = int(attributes["format_version"])
        if version > FORMAT_VERSION:
            raise CalibrationError(
                f"calibration file {path} has format {version}, this version of the program reads {FORMAT_VERSION}",
                fix="update crossbar-hil",
            )
        return attributes, dict(_walk(h5, file, ""))


def _walk(h5: Any, group: Any, at: str) -> Iterator[tuple[str, Any]]:
    """All datasets below a group; raises ValueError at anything that `save` does not write."""
    for name in group:
        path = f"{at}{name}"
        if not isinstance(group.get(name, getlink=True), h5.HardLink) or path.count("/") >= _DEPTH_MAX:
            raise ValueError(f"{path} points elsewhere")
        item = group[name]
        if len(item.attrs):
            raise ValueError(f"{path} has attributes")
        if isinstance(item, h5.Dataset):
            yield path, _value(h5, item)
        elif isinstance(item, h5.Group) and len(item):
            yield from _walk(h5, item, f"{path}/")
        else:
            raise ValueError(f"{path} is neither data nor a group of data")


def _value(h5: Any, dataset: Any) -> Any:
    if h5.check_string_dtype(dataset.dtype) is not None:
        return bytes(dataset[()]).decode()
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{dataset.name} is {dataset.dtype}")
    return np.asarray(dataset[()])


def _validation_digest(content: str, validation: Any) -> str:
    """Hash of a validation together with that of the calibration that it was made of."""
    return hashlib.sha256(f"{content}\n{validation}".encode()).hexdigest()


def _foreign(path: Path) -> CalibrationError:
    return CalibrationError(f"{path} is not a calibration file", fix="name a file that `hil calibrate` has written")


# Texts


def _to_json(value: Any) -> str:
    """Value as JSON, with NaN and Infinity as Python writes them: a number that could not be found is no error."""
    try:
        return json.dumps(value if isinstance(value, tuple) else _plain(value), default=_plain)
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"a calibration file cannot hold {str(value)[:80]}: {error}",
            fix="use texts, numbers, booleans, lists and mappings",
        ) from None


def _plain(item: Any) -> Any:
    if isinstance(item, np.generic | np.ndarray):
        return item.tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(item, Mapping):
        return dict(item)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(item, PurePath):
        return str(item)
    raise TypeError(f"a value of type {type(item).__name__}")


def _encoded(path: str, text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        data = b"\0"
    if b"\0" in data:
        raise CalibrationError(
            f"{path} of a calibration is {text[:80]!r}, which a file cannot hold", fix="use text without NUL"
        )
    return data
