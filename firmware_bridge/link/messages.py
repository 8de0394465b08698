"""Messages between host and daemon: msgpack maps, arrays as little-endian bytes, bits as bits.

A request is `{v, id, do, session, ...}`, a reply `{id, ok}` or `{id, error}`, and `{event}` comes unasked. What a
request may hold is one model each below; anything else is refused before it touches a backend.
"""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgpack
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from firmware_bridge.link.channel import MESSAGE_MAX_BYTES, check_length
from hil import errors
from hil.backend import BackendInfo, Capabilities, Check, Limits, Pulse, PulseReport, RowInput
from hil.errors import DeviceError, HilError, LimitError, ProtocolError
from hil.spikes import PackedSpikes, n_words
from hil.tile import Tile
from hil.wiring import Wiring

#: both sides must speak the same; raised with every change that the other side would misread
PROTOCOL = 3
SESSION_BYTES = 16
#: tiles that a daemon keeps for its writer
TILE_SLOTS = 64

#: lists and maps of a message: what is long in it is bytes, and an empty list is one byte here and 56 in memory
_ITEMS_MAX = 10_000
#: columns of one request, by number
_COLS_MAX = 4096
#: longest side of an array
_SIDE_MAX = MESSAGE_MAX_BYTES * 8

_PLAIN, _DEFLATED = b"\x00", b"\x01"
#: shorter messages are not worth packing
_DEFLATE_MIN_BYTES = 200
_ARRAY_TYPES = ("<f4", "<f8", "<u4", "<u8")
_BITS = "b"
_WIRING_NUMBERS, _WIRING_BITS = ("row_channel", "row_position", "col_converter"), ("row_ok", "col_ok")
_SAME = "install the same crossbar-hil on both sides"
_ERRORS = {kind.__name__: kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HilError)}


# Requests


#: numbers of requests; the journal has 63 bits for them
Number = Annotated[int, Field(ge=0, lt=2**63)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ArrayMessage(_Message):
    """An array: type (`b` for bits, eight to a byte), shape, content."""

    t: Literal["b", "<f4", "<f8", "<u4", "<u8"]
    s: list[int] = Field(max_length=3)
    b: bytes


class TileMessage(_Message):
    rows: ArrayMessage
    plus: ArrayMessage
    minus: ArrayMessage | None


class PulseMessage(_Message):
    kind: Literal["form", "set", "reset"]
    voltage_v: float
    v_gate_v: float
    width_s: float


class Request(_Message):
    """What every request has: the protocol's version, its number, what to do, and whose it is."""

    v: int
    id: Number
    do: str
    session: bytes = Field(min_length=SESSION_BYTES, max_length=SESSION_BYTES)


class Hello(Request):
    do: Literal["hello"]
    version: str = Field(max_length=100)
    who: str = Field(max_length=200)


class Beat(Request):
    """A sign of life; `number` is the request that the host waits for, or 0."""

    do: Literal["beat"]
    number: Number


class Status(Request):
    do: Literal["status"]


class Echo(Request):
    do: Literal["echo"]
    data: bytes
    n_back: int = Field(ge=0, le=MESSAGE_MAX_BYTES // 2)


class Lookup(Request):
    do: Literal["lookup"]
    number: Number


class Watch(Request):
    do: Literal["watch"]
    for_s: float = Field(gt=0, le=600)


class Open(Request):
    do: Literal["open"]


class Close(Request):
    do: Literal["close"]


class MakeSafe(Request):
    do: Literal["make_safe"]


class ReadTelemetry(Request):
    do: Literal["telemetry"]


class Wait(Request):
    """Let time pass for the cells; the heart beats meanwhile."""

    do: Literal["wait"]
    duration_s: float = Field(ge=0)


class Now(Request):
    """What the clock of the cells shows."""

    do: Literal["now"]


class Vmm(Request):
    """`slot` says where the daemon keeps the tile; `tile` comes with its first use."""

    do: Literal["vmm"]
    slot: int = Field(ge=0, lt=TILE_SLOTS)
    tile: TileMessage | None
    v_read_v: float
    x: ArrayMessage


class Read(Request):
    do: Literal["read"]
    mask: ArrayMessage
    v_read_v: float
    n_average: int


class ApplyPulse(Request):
    do: Literal["pulse"]
    mask: ArrayMessage
    pulse: PulseMessage


class HoldRow(Request):
    """Of a backend that bench instruments are connected to; so is `Sense`."""

    do: Literal["hold_row"]
    row: int
    voltage_v: float


class Sense(Request):
    """`row` and `settle_s` may be nothing: no row, and the board's own settling time."""

    do: Literal["sense"]
    cols: list[int] = Field(max_length=_COLS_MAX)
    n_average: int
    row: int | None
    v_read_v: float
    settle_s: float | None


REQUESTS: Mapping[str, type[Request]] = {
    get_args(kind.model_fields["do"].annotation)[0]: kind
    for kind in (
        Hello, Beat, Status, Echo, Lookup, Watch, Open, Close, MakeSafe, ReadTelemetry, Wait, Now, Vmm, Read,
        ApplyPulse, HoldRow, Sense,
    )
}  # fmt: skip
MadeT = TypeVar("MadeT")


def read_request(fields_: Mapping[str, Any]) -> Request:
    """The request that a message is.

    Raises:
        ProtocolError: of another protocol version, or not a request of this one.
    """
    if (version := fields_.get("v")) != PROTOCOL:
        raise ProtocolError(
            f"the host speaks link protocol {version if isinstance(version, int) else '?'}, this daemon {PROTOCOL}",
            fix=_SAME,
        )
    kind = REQUESTS.get(str(fields_.get("do")))
    if kind is None:
        raise ProtocolError(
            f"no such request: {str(fields_.get('do'))[:40]!r}", fix=f"there are: {', '.join(REQUESTS)}"
        )
    try:
        return kind.model_validate(fields_)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(
            f"request {fields_['do']!r}: field {place!r}: {first['msg'][0].lower()}{first['msg'][1:]}"[:300],
            fix=_SAME,
        ) from None


# Bytes on the link


def pack(message: Mapping[str, Any], *, slow: bool) -> bytes:
    """A message as bytes, deflated where the link is slow and that helps.

    Raises:
        LimitError: longer than a link carries.
    """
    plain = msgpack.packb(message, use_bin_type=True, unicode_errors="replace")
    packed = _PLAIN + plain
    if slow and len(plain) >= _DEFLATE_MIN_BYTES:
        smaller = zlib.compress(plain, 1)
        packed = min(packed, _DEFLATED + smaller, key=len)
    check_length(len(plain) + 1)
    return packed


def unpack(data: bytes) -> dict[str, Any]:
    """Undo `pack`.

    Raises:
        LimitError: too long.
        ProtocolError: not a message.
    """
    check_length(len(data))
    try:
        body = data[1:]
        if data[:1] == _DEFLATED:
            inflate = zlib.decompressobj()
            body = inflate.decompress(body, MESSAGE_MAX_BYTES)
            if inflate.unconsumed_tail:
                check_length(len(body) + 1)
        elif data[:1] != _PLAIN:
            raise ValueError("unknown packing")
        count = _counter()
        found = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            list_hook=count,
            object_hook=count,
            max_array_len=_ITEMS_MAX,
            max_map_len=_ITEMS_MAX,
        )
    except LimitError:
        raise
    # msgpack has a dozen ways to say that bytes are not its own, RecursionError among them.
    except Exception as error:
        raise ProtocolError(
            f"{len(data)} bytes are no message: {type(error).__name__}",
            fix=_SAME,
        ) from None
    if not isinstance(found, dict):
        raise ProtocolError(f"a message is a {type(found).__name__}", fix=_SAME)
    return found


def _counter() -> Callable[[Any], Any]:
    """Lets lists and maps pass while they are few."""
    n_items = 0

    def count(found: Any) -> Any:
        nonlocal n_items
        n_items += 1 + len(found)
        if n_items > _ITEMS_MAX:
            raise ValueError("too many items")
        return found

    return count


def noise_bytes(n: int) -> bytes:
    """So many bytes that pack no smaller, for measurements."""
    return np.random.default_rng(0).bytes(n)


# Values


def array_fields(array: NDArray[Any]) -> dict[str, Any]:
    """An array as message fields: bool as bits, float32, float64 and unsigned integers as they are."""
    if array.dtype == np.bool_:
        return {"t": _BITS, "s": list(array.shape), "b": np.packbits(array, bitorder="little").tobytes()}
    code = array.dtype.newbyteorder("<").str
    if code not in _ARRAY_TYPES:
        raise LimitError(f"an array of {array.dtype} cannot be sent", fix="give bool, float32 or float64")
    content = np.ascontiguousarray(array).astype(code, copy=False)
    return {"t": code, "s": list(array.shape), "b": content.tobytes()}


def array_of(message: ArrayMessage | Mapping[str, Any]) -> NDArray[Any]:
    """Undo `array_fields`.

    Raises:
        ProtocolError: shape and content do not agree.
    """
    if not isinstance(message, ArrayMessage):
        try:
            message = ArrayMessage.model_validate(dict(message))
        except (ValidationError, TypeError, ValueError):
            raise ProtocolError("a reply holds no array", fix=_SAME) from None
    n_items = math.prod(message.s)
    # Each side by itself, since one of them may be 0.
    if not all(0 <= n <= _SIDE_MAX for n in message.s) or n_items > _SIDE_MAX:
        raise ProtocolError(f"an array of shape {message.s} cannot be sent", fix="send smaller batches")
    itemsize = 1 if message.t == _BITS else int(message.t[-1])
    n_bytes = -(-n_items // 8) if message.t == _BITS else n_items * itemsize
    if len(message.b) != n_bytes:
        raise ProtocolError(
            f"an array of {message.t}{message.s} came with {len(message.b)} bytes instead of {n_bytes}",
            fix=_SAME,
        )
    octets = np.frombuffer(message.b, np.uint8)
    if message.t == _BITS:
        return np.unpackbits(octets, count=n_items, bitorder="little").astype(np.bool_).reshape(message.s)
    return octets.view(message.t).astype(np.dtype(message.t).newbyteorder("="), copy=True).reshape(message.s)


def rows_fields(x: RowInput) -> dict[str, Any]:
    """Row vectors of a VMM: bits as bits, levels as floats.

    Packed spikes go as bits of exactly their rows; a vector of 456 rows is 57 bytes.
    """
    if isinstance(x, PackedSpikes):
        octets = np.ascontiguousarray(x.words.astype("<u8", copy=False)).view(np.uint8)
        used = octets.reshape(len(x), 8 * n_words(x.n_rows))[:, : -(-x.n_rows // 8)]
        return {"t": _BITS, "s": [len(x), x.n_rows, 0], "b": used.tobytes()}
    array = np.asarray(x)
    if array.dtype.kind in "ui":
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise LimitError(
                f"row input runs from {array.min()} to {array.max()}", fix="give bits, or levels as floats"
            )
        array = array.astype(np.bool_)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return array_fields(array)


def rows_of(message: ArrayMessage) -> PackedSpikes | NDArray[Any]:
    """Undo `rows_fields`; packed spikes come back as such."""
    if message.t == _BITS and len(message.s) == 3:
        n, n_rows, zero = message.s
        stride = -(-n_rows // 8)
        if zero != 0 or not (0 <= n <= _SIDE_MAX and 0 <= n_rows <= _SIDE_MAX) or len(message.b) != n * stride:
            raise ProtocolError(
                f"{n} spike vectors of {n_rows} rows came with {len(message.b)} bytes",
                fix=_SAME,
            )
        octets = np.zeros((n, 8 * n_words(n_rows)), np.uint8)
        octets[:, :stride] = np.frombuffer(message.b, np.uint8).reshape(n, stride)
        return PackedSpikes(octets.view("<u8").astype(np.uint64, copy=False), n_rows)
    return array_of(message)


def tile_fields(tile: Tile) -> dict[str, Any]:
    """A tile as message fields."""
    minus = tile.minus_cols
    return {
        "rows": array_fields(tile.rows.astype(np.uint32)),
        "plus": array_fields(tile.plus_cols.astype(np.uint32)),
        "minus": None if minus is None else array_fields(minus.astype(np.uint32)),
    }


def tile_of(message: TileMessage) -> Tile:
    """Undo `tile_fields`."""

    def lines(item: ArrayMessage) -> NDArray[np.intp]:
        if item.t != "<u4":
            raise ProtocolError(f"lines of a tile came as {item.t}", fix=_SAME)
        return array_of(item).astype(np.intp)

    return Tile(lines(message.rows), lines(message.plus), None if message.minus is None else lines(message.minus))


def info_fields(info: BackendInfo) -> dict[str, Any]:
    """A `BackendInfo` as message fields; a link takes no tensors."""
    # asdict would go into the wiring and copy its arrays
    found = asdict(replace(info, wiring=None))
    found["shape"] = list(info.shape)
    found["wiring"] = None if info.wiring is None else wiring_fields(info.wiring)
    found["capabilities"] |= {"pulse_kinds": sorted(info.capabilities.pulse_kinds), "tensors": False}
    return found


def info_of(found: Mapping[str, Any]) -> BackendInfo:
    """Undo `info_fields`."""
    try:
        can = dict(found["capabilities"])
        can["pulse_kinds"] = frozenset(can["pulse_kinds"])
        rows, cols = found["shape"]
        return BackendInfo(
            name=found["name"],
            shape=(int(rows), int(cols)),
            identity=found["identity"],
            capabilities=Capabilities(**can),
            limits=Limits(**found["limits"]),
            calibration_id=found["calibration_id"],
            wiring=None if found["wiring"] is None else wiring_of(found["wiring"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(
            f"the daemon describes its backend in a way that this host cannot read ({error})",
            fix=_SAME,
        ) from None


def wiring_fields(wiring: Wiring) -> dict[str, Any]:
    """A wiring as message fields."""
    return {
        **{name: array_fields(getattr(wiring, name).astype(np.uint32)) for name in _WIRING_NUMBERS},
        **{name: array_fields(getattr(wiring, name)) for name in _WIRING_BITS},
        "independent_selects": bool(wiring.independent_selects),
        "inhibit": bool(wiring.inhibit),
        "channel_names": list(wiring.channel_names),
        "converter_names": list(wiring.converter_names),
    }


def wiring_of(found: Mapping[str, Any]) -> Wiring:
    """Undo `wiring_fields`; raises KeyError, TypeError or ProtocolError where that cannot be."""
    numbers = {name: array_of(found[name]).astype(np.intp) for name in _WIRING_NUMBERS}
    bits = {name: array_of(found[name]).astype(np.bool_) for name in _WIRING_BITS}
    return Wiring(
        **numbers,
        **bits,
        independent_selects=bool(found["independent_selects"]),
        inhibit=bool(found["inhibit"]),
        channel_names=tuple(map(str, found["channel_names"])),
        converter_names=tuple(map(str, found["converter_names"])),
    )


def pulse_fields(pulse: Pulse) -> dict[str, Any]:
    """A pulse as message fields; numbers of NumPy become plain ones."""
    return {"kind": pulse.kind, **{f.name: float(getattr(pulse, f.name)) for f in fields(Pulse) if f.name != "kind"}}


def pulse_of(found: PulseMessage | Mapping[str, Any]) -> Pulse:
    """Undo `pulse_fields`."""
    return Pulse(**found.model_dump()) if isinstance(found, PulseMessage) else _made("a pulse", lambda: Pulse(**found))


def report_fields(report: PulseReport) -> dict[str, Any]:
    """A pulse report as message fields."""
    return {
        "n_cells": int(report.n_cells),
        "requested": pulse_fields(report.requested),
        "achieved": pulse_fields(report.achieved),
    }


def report_of(found: Mapping[str, Any]) -> PulseReport:
    """Undo `report_fields`."""
    return _made(
        "a pulse report",
        lambda: PulseReport(found["n_cells"], pulse_of(found["requested"]), pulse_of(found["achieved"])),
    )


def checks_fields(checks: list[Check]) -> list[dict[str, Any]]:
    """Verdicts of a self-test as message fields."""
    return [asdict(check) for check in checks]


def checks_of(found: list[Mapping[str, Any]]) -> list[Check]:
    """Undo `checks_fields`."""
    return _made("a self-test", lambda: [Check(**check) for check in found])


def error_fields(error: BaseException) -> dict[str, str]:
    """An error as message fields: the nearest class of `hil.errors`, what is wrong, and the fix."""
    if isinstance(error, HilError):
        kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in _ERRORS)
        return {"kind": kind, "what": error.what, "fix": error.fix}
    return {
        "kind": DeviceError.__name__,
        "what": f"the daemon failed: {type(error).__name__}: {error}",
        "fix": "see the daemon's log",
    }


def error_of(found: Mapping[str, Any]) -> HilError:
    """Undo `error_fields`."""
    return _made(
        "an error",
        lambda: _ERRORS.get(str(found.get("kind")), DeviceError)(str(found.get("what")), fix=str(found.get("fix"))),
    )


def _made(what: str, make: Callable[[], MadeT]) -> MadeT:
    """A value out of a part of a reply, which may be anything.

    Raises:
        ProtocolError: it makes no sense.
    """
    try:
        return make()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the daemon sent {what} that this host cannot read ({error!r})"[:300], fix=_SAME) from None
