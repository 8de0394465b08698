"""Messages: every value arrives as it was sent; whatever else arrives is refused by a named error, cheaply."""

from __future__ import annotations

import dataclasses
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from links import FakeBackend

from firmware_bridge.link import messages as msg
from firmware_bridge.link.channel import MESSAGE_MAX_BYTES
from hil import errors
from hil.backend import Check, Pulse, PulseReport
from hil.errors import DeviceError, HilError, LimitError, ProtocolError
from hil.spikes import PackedSpikes
from hil.tile import Tile, differential_tile, single_ended_tile
from hil.wiring import Wiring

few = settings(max_examples=60, deadline=None)
WIRING = Wiring(
    row_channel=np.array([0, 1, 0, 1, 2, 2, 3, 3]),
    row_position=np.arange(8)[::-1],
    col_converter=np.array([0, 0, 1, 1, 2, 2]),
    independent_selects=True,
    inhibit=False,
    channel_names=("DAC 0 channel 0", "µ", "", "d"),
    converter_names=("ADC lane 0", "b", "c"),
    row_ok=np.arange(8) != 2,
    col_ok=np.arange(6) != 5,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SLOW = st.booleans()
ARRAYS = st.sampled_from(["?", "<f4", "<f8", "<u4", "<u8"]).flatmap(
    lambda kind: hnp.arrays(np.dtype(kind), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9))
)
LINES = st.lists(st.integers(0, 511), unique=True, max_size=40)
PULSES = st.builds(Pulse, st.sampled_from(["form", "set", "reset"]), FINITE, FINITE, FINITE)
SESSION = bytes(range(msg.SESSION_BYTES))
BASE: dict[str, Any] = {"v": msg.PROTOCOL, "id": 7, "session": SESSION}


def over_the_link(value: Any, slow: bool) -> Any:
    return msg.unpack(msg.pack({"value": value}, slow=slow))["value"]


def same_tile(a: Tile, b: Tile) -> bool:
    return np.array_equal(a.rows, b.rows) and np.array_equal(a.cols, b.cols) and a.differential == b.differential


class TestValuesArriveAsTheyWereSent:
    @few
    @given(ARRAYS, SLOW)
    def test_arrays_of_every_type_and_shape(self, array: np.ndarray, slow: bool) -> None:
        found = msg.array_of(over_the_link(msg.array_fields(array), slow))
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()
        found[...] = 0  # the host's own, to write to

    @pytest.mark.parametrize("slow", [False, True])
    @pytest.mark.parametrize(
        "array",
        [
            np.arange(24.0).reshape(4, 6)[::2, ::-3],
            np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
            np.arange(5, dtype=">f8"),
            (np.arange(35).reshape(5, 7) % 3 == 0)[::2, 1::2],
        ],
        ids=["strided", "fortran", "big-endian", "strided bits"],
    )
    def test_arrays_in_any_memory_layout(self, array: np.ndarray, slow: bool) -> None:
        np.testing.assert_array_equal(msg.array_of(over_the_link(msg.array_fields(array), slow)), array)

    @few
    @given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=200)), SLOW)
    def test_packed_spikes_of_any_number_of_rows(self, bits: np.ndarray, slow: bool) -> None:
        packed = PackedSpikes.pack(bits)
        found = msg.rows_of(msg.ArrayMessage.model_validate(over_the_link(msg.rows_fields(packed), slow)))
        assert isinstance(found, PackedSpikes)
        assert found.n_rows == packed.n_rows
        assert found.words.dtype == np.uint64
        np.testing.assert_array_equal(found.words, packed.words)

    @pytest.mark.parametrize("kind", ["u1", "i1", "i8", "u8"])
    def test_whole_numbers_0_and_1_become_bits(self, kind: str) -> None:
        rows = (np.arange(60).reshape(3, 20) % 3 == 0).astype(kind)
        fields = msg.rows_fields(rows)
        assert fields["t"] == "b"
        found = msg.rows_of(msg.ArrayMessage.model_validate(fields))
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, rows)

    @few
    @given(LINES, LINES, st.booleans(), SLOW)
    def test_tiles(self, rows: list[int], cols: list[int], differential: bool, slow: bool) -> None:
        half = len(cols) // 2
        lines = [np.array(part, np.intp) for part in (rows, cols[:half], cols[half : 2 * half])]
        tile = Tile(*lines) if differential else Tile(lines[0], lines[1])
        assert same_tile(msg.tile_of(msg.TileMessage.model_validate(over_the_link(msg.tile_fields(tile), slow))), tile)

    @few
    @given(PULSES, PULSES, st.integers(0, 512 * 512), SLOW)
    def test_pulses_and_their_reports(self, requested: Pulse, achieved: Pulse, n_cells: int, slow: bool) -> None:
        report = PulseReport(n_cells, requested, achieved)
        assert msg.report_of(over_the_link(msg.report_fields(report), slow)) == report
        fields = over_the_link(msg.pulse_fields(requested), slow)
        assert msg.pulse_of(msg.PulseMessage.model_validate(fields)) == requested

    def test_numbers_of_numpy_in_a_pulse(self) -> None:
        pulse = Pulse("set", np.float64(2.5), np.float32(1.5), np.float64(1e-6))
        assert msg.pulse_of(over_the_link(msg.pulse_fields(pulse), False)) == pulse

    def test_the_description_of_a_backend(self) -> None:
        info = FakeBackend().info
        assert msg.info_of(over_the_link(msg.info_fields(info), False)) == info

    @pytest.mark.parametrize("slow", [False, True])
    def test_the_wiring_of_a_backend(self, slow: bool) -> None:
        far = FakeBackend()
        far.wiring = WIRING
        found = msg.info_of(over_the_link(msg.info_fields(far.info), slow))
        assert found.wiring is not None
        for item in dataclasses.fields(WIRING):
            sent, came = getattr(WIRING, item.name), getattr(found.wiring, item.name)
            assert type(came) is type(sent)
            np.testing.assert_array_equal(came, sent)
            assert getattr(came, "dtype", None) == getattr(sent, "dtype", None)
        assert found.capabilities.bench

    @pytest.mark.parametrize("wrong", [{}, 1, {"row_channel": None}, {"row_ok": {"t": "b", "s": [9], "b": b""}}])
    def test_a_wiring_that_is_none_is_refused(self, wrong: Any) -> None:
        fields = msg.info_fields(FakeBackend().info)
        good = msg.wiring_fields(WIRING)
        with pytest.raises(ProtocolError):
            msg.info_of({**fields, "wiring": {**good, **wrong} if wrong and isinstance(wrong, dict) else wrong})

    def test_a_link_takes_no_tensors(self) -> None:
        info = FakeBackend().info
        can = info.capabilities.__class__(pulse_kinds=frozenset({"set"}), tensors=True)
        found = msg.info_of(msg.info_fields(info.__class__(**{**info.__dict__, "capabilities": can})))
        assert not found.capabilities.tensors
        assert found.capabilities.pulse_kinds == {"set"}

    def test_verdicts_of_a_self_test(self) -> None:
        checks = [Check("DAC80508 chip 0", True, "answers"), Check("mux 3", None, ""), Check("lane 1", False, "0 µV")]
        assert msg.checks_of(over_the_link(msg.checks_fields(checks), True)) == checks

    @pytest.mark.parametrize(
        "kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, HilError)]
    )
    def test_errors_by_class_and_text(self, kind: type[HilError]) -> None:
        error = kind("voltage 5 V is above 4 V (Ω)", fix="use at most 4 V")
        found = msg.error_of(over_the_link(msg.error_fields(error), False))
        assert type(found) is kind
        assert (found.what, found.fix, str(found)) == (error.what, error.fix, str(error))

    def test_an_error_of_a_class_of_its_own_arrives_as_the_nearest_one_that_hosts_know(self) -> None:
        class BrokenChip(DeviceError):
            pass

        assert type(msg.error_of(msg.error_fields(BrokenChip("lane 1 is dead", fix="look")))) is DeviceError

    def test_any_other_exception_arrives_as_a_failure_of_the_daemon(self) -> None:
        found = msg.error_of(msg.error_fields(KeyError("lane")))
        assert type(found) is DeviceError
        assert "KeyError" in str(found)


class TestSizes:
    @pytest.mark.parametrize(("n_rows", "n_bytes"), [(456, 57), (512, 64), (1, 1), (8, 1), (9, 2)])
    def test_a_spike_vector_takes_one_bit_per_row(self, n_rows: int, n_bytes: int) -> None:
        assert len(msg.rows_fields(PackedSpikes.pack(np.ones((1, n_rows), np.bool_)))["b"]) == n_bytes
        assert len(msg.rows_fields(PackedSpikes.pack(np.ones((64, n_rows), np.bool_)))["b"]) == 64 * n_bytes

    def test_a_request_around_64_spike_vectors_adds_little(self) -> None:
        x = PackedSpikes.pack(np.random.default_rng(0).random((64, 456)) < 0.1)
        request = {**BASE, "do": "vmm", "slot": 0, "tile": None, "v_read_v": 0.2, "x": msg.rows_fields(x)}
        assert len(msg.pack(request, slow=False)) < 64 * 57 + 100

    def test_on_a_slow_link_currents_are_packed_smaller(self) -> None:
        currents = np.random.default_rng(0).normal(1e-5, 1e-6, (64, 100)).astype(np.float32)
        plain = msg.pack(msg.array_fields(currents), slow=False)
        packed = msg.pack(msg.array_fields(currents), slow=True)
        assert len(packed) < 0.97 * len(plain)

    def test_what_does_not_get_smaller_is_sent_as_it_is(self) -> None:
        noise = {"data": np.random.default_rng(0).bytes(5000)}
        assert msg.pack(noise, slow=True) == msg.pack(noise, slow=False)

    @pytest.mark.parametrize("slow", [False, True])
    def test_the_longest_message_arrives_and_one_byte_more_is_refused(self, slow: bool) -> None:
        around = len(msgpack.packb({"data": bytes(1 << 16)})) - (1 << 16)
        longest = {"data": bytes(MESSAGE_MAX_BYTES - 1 - around)}
        packed = msg.pack(longest, slow=slow)
        assert len(packed) <= MESSAGE_MAX_BYTES
        assert msg.unpack(packed) == longest
        with pytest.raises(LimitError, match="16,777,216"):
            msg.pack({"data": longest["data"] + b"."}, slow=slow)

    @pytest.mark.parametrize(
        "rows",
        [np.array([[0, 2]]), np.array([[-1, 0]]), np.zeros((1, 2), np.complex64), np.array([["1"]])],
        ids=["two", "negative", "complex", "text"],
    )
    def test_rows_that_cannot_be_sent_are_refused_on_the_host(self, rows: np.ndarray) -> None:
        with pytest.raises(LimitError):
            msg.rows_fields(rows)


REQUESTS: dict[str, dict[str, Any]] = {
    "hello": {"version": "1", "who": "me"},
    "beat": {"number": 3},
    "status": {},
    "echo": {"data": b"abc", "n_back": 5},
    "lookup": {"number": 3},
    "watch": {"for_s": 2.5},
    "open": {},
    "close": {},
    "make_safe": {},
    "telemetry": {},
    "wait": {"duration_s": 0.5},
    "now": {},
    "vmm": {
        "slot": 1,
        "tile": msg.tile_fields(differential_tile(4, 2)),
        "v_read_v": 0.2,
        "x": msg.rows_fields(np.ones((2, 4), np.bool_)),
    },
    "read": {"mask": msg.array_fields(np.ones((8, 6), np.bool_)), "v_read_v": 0.2, "n_average": 2},
    "hold_row": {"row": 3, "voltage_v": 1.6},
    "sense": {"cols": [0, 5], "n_average": 2, "row": 3, "v_read_v": 0.2, "settle_s": 1e-6},
    "pulse": {
        "mask": msg.array_fields(np.ones((8, 6), np.bool_)),
        "pulse": msg.pulse_fields(Pulse("set", 2.0, 1.0, 1e-6)),
    },
}
JUNK: list[Any] = [
    None, True, -1, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), "", "x", b"", b"x" * 16, [], [1], {},
    {"t": 1}, [None] * 50, {"t": "b", "s": [], "b": b""}, {"t": "b", "s": [2**62, 0, 0], "b": b""},
    msgpack.Timestamp(1), msgpack.ExtType(5, b"x"),
]  # fmt: skip


class TestRequests:
    def test_all_are_specified_here(self) -> None:
        assert set(REQUESTS) == set(msg.REQUESTS)

    @pytest.mark.parametrize("do", REQUESTS)
    def test_each_is_read(self, do: str) -> None:
        found = msg.read_request(msg.unpack(msg.pack({**BASE, "do": do, **REQUESTS[do]}, slow=True)))
        assert type(found) is msg.REQUESTS[do]
        assert (found.id, found.do, found.session) == (7, do, SESSION)

    @pytest.mark.parametrize("do", REQUESTS)
    def test_one_that_lacks_a_field_is_refused_by_its_name(self, do: str) -> None:
        for name in (*REQUESTS[do], "id", "session"):
            fields = {**BASE, "do": do, **REQUESTS[do]}
            del fields[name]
            with pytest.raises(ProtocolError, match=rf"'{do}'.*'{name}'"):
                msg.read_request(fields)

    @pytest.mark.parametrize("do", REQUESTS)
    def test_one_with_a_field_too_many_is_refused_by_its_name(self, do: str) -> None:
        with pytest.raises(ProtocolError, match=rf"'{do}'.*'twice'"):
            msg.read_request({**BASE, "do": do, **REQUESTS[do], "twice": True})

    @pytest.mark.parametrize("do", REQUESTS)
    def test_junk_in_any_field_is_refused_or_harmless(self, do: str) -> None:
        for name in (*BASE, *REQUESTS[do]):
            for junk in JUNK:
                fields = {**BASE, "do": do, **REQUESTS[do], name: junk}
                refused(lambda fields=fields: msg.read_request(msg.unpack(b"\x00" + msgpack.packb(fields))))

    @pytest.mark.parametrize("version", [msg.PROTOCOL + 1, msg.PROTOCOL - 1, None, "1", True, 1.0, [1]])
    def test_another_protocol_version_is_refused(self, version: Any) -> None:
        with pytest.raises(ProtocolError):
            msg.read_request({**BASE, "do": "status", "v": version})

    def test_another_protocol_version_is_named_together_with_our_own(self) -> None:
        with pytest.raises(ProtocolError, match=rf"protocol 99.*{msg.PROTOCOL}.*same crossbar-hil"):
            msg.read_request({**BASE, "do": "status", "v": 99})

    @pytest.mark.parametrize("do", ["reset", None, 5, ["open"], {"open": 1}, b"open", "Open"])
    def test_an_unknown_request_is_refused_with_those_that_there_are(self, do: Any) -> None:
        with pytest.raises(ProtocolError, match=r"no such request.*hello.*pulse"):
            msg.read_request({**BASE, "do": do})

    def test_an_error_never_carries_what_a_peer_sent_at_length(self) -> None:
        """Else the answer to a message could be longer than a message may be."""
        long = "x" * 10**6
        for wrong in (
            {"v": long},
            {"do": long},
            {"do": [long] * 3},
            {"do": "status", long: 1},
            {"do": "echo", "data": long},
        ):
            with pytest.raises(ProtocolError) as found:
                msg.read_request({**BASE, "do": "status", **wrong})
            assert len(str(found.value)) < 2000, list(wrong)

    def test_a_sense_may_be_without_a_row_and_have_the_boards_settling(self) -> None:
        found = msg.read_request({**BASE, "do": "sense", **REQUESTS["sense"], "row": None, "settle_s": None})
        assert isinstance(found, msg.Sense)
        assert (found.row, found.settle_s) == (None, None)

    def test_a_sense_of_more_columns_than_any_array_has_is_refused(self) -> None:
        with pytest.raises(ProtocolError, match="'cols'"):
            msg.read_request({**BASE, "do": "sense", **REQUESTS["sense"], "cols": [0] * 4097})

    @pytest.mark.parametrize("number", [2**63, 2**64 - 1])
    def test_numbers_of_requests_are_the_same_everywhere(self, number: int) -> None:
        """A number that no request can have cannot be asked for either: the journal has 63 bits for it."""
        with pytest.raises(ProtocolError):
            msg.read_request({**BASE, "do": "lookup", "number": number})


def refused(call: Callable[[], object]) -> bool:
    """Whether a call is refused by an error that names what is wrong; any other exception goes on."""
    try:
        call()
    except (ProtocolError, LimitError):
        return True
    return False


class TestMalformedBytes:
    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60))
    def test_random_bytes(self, data: bytes) -> None:
        refused(lambda: msg.unpack(data))
        refused(lambda: msg.unpack(b"\x00" + data))
        refused(lambda: msg.unpack(b"\x01" + data))

    def test_every_truncation_and_every_changed_byte_of_a_request(self) -> None:
        rng = random.Random(1)
        for do in ("vmm", "pulse", "sense"):
            for slow in (False, True):
                whole = msg.pack({**BASE, "do": do, **REQUESTS[do]}, slow=slow)
                for k in range(len(whole)):
                    assert refused(lambda k=k, whole=whole: msg.read_request(msg.unpack(whole[:k])))
                    changed = bytearray(whole)
                    changed[k] ^= rng.randrange(1, 256)
                    refused(lambda changed=changed: msg.read_request(msg.unpack(bytes(changed))))

    @pytest.mark.parametrize(
        "data",
        [b"", b"\x00", b"\x01", b"\x02\x80", b"\x00\xc0", b"\x00\x93\x01\x02\x03", b"\x00" + msgpack.packb({1: 2}),
         b"\x00\x80\x80", b"\x00" + b"\x91" * 5000 + b"\xc0", b"\x00" + b"\x81\xa1x" * 5000 + b"\xc0",
         b"\x00\xdf\xff\xff\xff\xff", b"\x00\xdd\xff\xff\xff\xff", b"\x00\xc6\xff\xff\xff\xff", b"\x00\x81\xa1\xff\xc0",
         b"\x01" + zlib.compress(b"\x80")[:-6] + b"......"],
    )  # fmt: skip
    def test_no_message(self, data: bytes) -> None:
        with pytest.raises(ProtocolError):
            msg.unpack(data)

    def test_too_long(self) -> None:
        with pytest.raises(LimitError, match=r"16,777,217 bytes is above"):
            msg.unpack(bytes(MESSAGE_MAX_BYTES + 1))

    def test_a_small_message_that_inflates_beyond_all_limits_is_refused_in_little_memory(self) -> None:
        deflate = zlib.compressobj(9)
        bomb = b"\x01" + b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64)) + deflate.flush()
        assert len(bomb) < 100_000
        tracemalloc.start()
        try:
            with pytest.raises(LimitError):
                msg.unpack(bomb)
            assert tracemalloc.get_traced_memory()[1] < 3 * MESSAGE_MAX_BYTES
        finally:
            tracemalloc.stop()

    def test_a_message_of_a_million_little_things_takes_little_memory(self) -> None:
        """An empty list is one byte on a link and 56 in memory: 16 MiB of them are more than a ZYNQ has."""
        n = 1 << 20
        body = b"\x81\xa1x\xdd" + n.to_bytes(4, "big") + b"\x90" * n
        tracemalloc.start()
        try:
            refused(lambda: msg.unpack(b"\x01" + zlib.compress(body)))
            assert tracemalloc.get_traced_memory()[1] < 16 * n
        finally:
            tracemalloc.stop()


ABSURD_SHAPES = [
    [-1], [0, -1], [-1, 0], [-1, -1], [2**64 - 1, 0], [2**62, 0, 4], [0, 2**62, 0], [2**40, 2**40], [2**32, 2**32],
    [2**62, 0, 0], [2**63, 2, 2], [1, 1, 1], [0, 0, 0], [], [8, 1], [1, 8, 0], [1, 8, 1], [8], [2**31, 2**31, 4],
]  # fmt: skip


class TestMalformedValues:
    @pytest.mark.parametrize("shape", ABSURD_SHAPES, ids=str)
    @pytest.mark.parametrize("kind", ["b", "<f4", "<u8"])
    def test_absurd_shapes_of_arrays_and_rows(self, kind: Any, shape: list[int]) -> None:
        for content in (b"", b"\x01", bytes(8)):
            message = msg.ArrayMessage(t=kind, s=shape, b=content)
            tracemalloc.start()
            try:
                refused(lambda message=message: msg.array_of(message))
                refused(lambda message=message: msg.rows_of(message))
                assert tracemalloc.get_traced_memory()[1] < 1 << 20
            finally:
                tracemalloc.stop()

    def test_a_box_of_bits_is_no_batch_of_rows(self) -> None:
        """Packed spikes travel as bits of a third dimension of 0; a real box of bits must not be taken for them."""
        message = msg.ArrayMessage.model_validate(msg.array_fields(np.ones((1, 8, 1), np.bool_)))
        assert refused(lambda: msg.rows_of(message))

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(["b", "<f4", "<f8", "<u4", "<u8"]),
        st.lists(st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 9), max_size=3),
        st.binary(max_size=40),
    )
    def test_any_type_shape_and_content(self, kind: Any, shape: list[int], content: bytes) -> None:
        message = msg.ArrayMessage(t=kind, s=shape, b=content)
        refused(lambda: msg.array_of(message))
        refused(lambda: msg.rows_of(message))

    @pytest.mark.parametrize("part", ["rows", "plus", "minus"])
    @pytest.mark.parametrize(
        "lines",
        [
            np.array([4.7, 6.2], np.float32),
            np.array([True, False]),
            np.array([np.nan, 1.0]),
            np.array([1e300, 1.0]),
            np.array([2**63, 1], np.uint64),
            np.array([3, 3], np.uint32),
            np.array([[0, 1]], np.uint32),
        ],
        ids=["fractions", "bits", "nan", "huge", "beyond 63 bits", "twice the same", "matrix"],
    )
    def test_a_tile_of_anything_but_line_numbers_is_refused(self, part: str, lines: np.ndarray) -> None:
        fields = {**msg.tile_fields(differential_tile(2, 2)), part: msg.array_fields(lines)}
        message = msg.TileMessage.model_validate(fields)
        assert refused(lambda: msg.tile_of(message).check_fits((512, 512)))

    @pytest.mark.parametrize("read", ["array_of", "info_of", "pulse_of", "report_of", "checks_of", "error_of"])
    def test_parts_of_a_reply_that_make_no_sense(self, read: str) -> None:
        for found in (*JUNK, {"n_cells": 1}, {"kind": "set"}, [{"part": 1}], {"error": 1}, [[]]):
            refused(lambda found=found: getattr(msg, read)(found))


def test_single_ended_tiles_stay_single_ended() -> None:
    tile = single_ended_tile(5, 3, row0=2, col0=4)
    assert same_tile(msg.tile_of(msg.TileMessage.model_validate(msg.tile_fields(tile))), tile)
