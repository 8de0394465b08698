"""Frames of the serial link: the codec, and that no bytes of any kind confuse the decoder for longer than one frame."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import pytest
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.link.frames import (
    HEADER,
    PAYLOAD_MAX_BYTES,
    VERSION,
    WIRE_MAX_BYTES,
    Decoder,
    Flag,
    Frame,
    Kind,
    decode,
    encode,
)

U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
FLAGS = st.integers(0, 3)
#: contents that are hard on COBS: zeros, none, and runs around its blocks of 254
PAYLOADS = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda byte, n: bytes([byte]) * n, st.integers(0, 255), st.sampled_from([253, 254, 255, 508, 1024])),
)
DATA = st.builds(Frame, st.just(Kind.DATA), FLAGS, U32, U16, U16, U16, U32, U16, PAYLOADS)
OTHERS = st.builds(Frame, st.sampled_from([k for k in Kind if k != Kind.DATA]), FLAGS, U32, U16, U16, U16, U32, U16)
FRAMES = st.one_of(DATA, OTHERS)
GARBAGE = st.binary(max_size=40)


def coded(version: int = VERSION, kind: int = Kind.DATA, flags: int = 0, payload: bytes = b"x") -> bytes:
    """A frame with a right CRC, written by hand from the format's description."""
    body = struct.pack("<BBBIHHHIH", version, kind, flags, 7, 1, 2, 3, 4, 5) + payload
    return cobs.encode(body + struct.pack("<I", zlib.crc32(body)))


class TestCodec:
    @given(FRAMES)
    def test_a_frame_comes_back_as_it_was(self, frame: Frame) -> None:
        assert Decoder().feed(encode(frame)) == [frame]

    @given(FRAMES)
    def test_zero_bytes_are_borders_only(self, frame: Frame) -> None:
        wire = encode(frame)
        assert wire[0] == wire[-1] == 0
        assert 0 not in wire[1:-1]
        assert len(wire) <= WIRE_MAX_BYTES

    def test_the_header_table_names_every_field_of_a_frame_in_its_order(self) -> None:
        names = [field.name for field in dataclasses.fields(Frame)]
        assert ["version", *names] == [*(name for name, _, _ in HEADER), "payload"]

    def test_the_layout_is_the_described_one(self) -> None:
        assert decode(coded(flags=Flag.LAST)) == Frame(Kind.DATA, Flag.LAST, 7, 1, 2, 3, 4, 5, b"x")

    @pytest.mark.parametrize(
        "wrong",
        [
            pytest.param(coded(version=VERSION + 1), id="version"),
            pytest.param(coded(kind=0), id="kind"),
            pytest.param(coded(flags=4), id="flags"),
            pytest.param(coded(kind=Kind.ACK), id="payload-outside-data"),
            pytest.param(coded(payload=bytes(PAYLOAD_MAX_BYTES + 1)), id="too-long"),
            pytest.param(cobs.encode(b"ab"), id="too-short"),
            pytest.param(b"\x05a", id="no-cobs"),
        ],
    )
    def test_what_is_against_the_format_is_no_frame_even_with_a_right_crc(self, wrong: bytes) -> None:
        decoder = Decoder()
        assert decoder.feed(wrong + b"\x00") == []
        assert decoder.bad == 1

    @given(FRAMES, st.data())
    def test_a_frame_with_a_changed_byte_is_no_frame(self, frame: Frame, data: st.DataObject) -> None:
        wire = bytearray(encode(frame))
        wire[data.draw(st.integers(1, len(wire) - 2))] ^= data.draw(st.integers(1, 255))
        assert Decoder().feed(bytes(wire)) == []


class TestDecoder:
    @given(st.lists(FRAMES, max_size=4), st.data())
    @settings(max_examples=50)
    def test_frames_are_found_however_the_stream_is_cut(self, frames: list[Frame], data: st.DataObject) -> None:
        wire = b"".join(encode(frame) for frame in frames)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
        decoder = Decoder()
        parts = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
        assert [frame for part in parts for frame in decoder.feed(part)] == frames
        assert decoder.bad == 0

    @given(st.lists(st.tuples(GARBAGE, FRAMES), min_size=1, max_size=4))
    @settings(max_examples=50)
    def test_garbage_before_a_frame_does_not_cost_the_frame(self, parts: list[tuple[bytes, Frame]]) -> None:
        wire = b"".join(garbage + encode(frame) for garbage, frame in parts)
        assert Decoder().feed(wire) == [frame for _, frame in parts]

    def test_a_lost_border_costs_no_frame(self) -> None:
        frames = [Frame(Kind.ACK, 0, 1), Frame(Kind.ACK, 0, 2)]
        assert Decoder().feed(encode(frames[0])[:-1] + encode(frames[1])) == frames

    @given(st.lists(st.binary(max_size=200), max_size=20))
    def test_no_bytes_make_it_raise(self, chunks: list[bytes]) -> None:
        decoder = Decoder()
        for chunk in chunks:
            decoder.feed(chunk)
        good = Frame(Kind.DATA, 0, 1, payload=b"after")
        assert decoder.feed(encode(good)) == [good]

    def test_a_flood_without_borders_counts_as_one_bad_frame_and_the_next_frame_is_found(self) -> None:
        decoder = Decoder()
        for _ in range(100):
            assert decoder.feed(b"\x01" * 10_000) == []
        good = Frame(Kind.DATA, 0, 1, payload=b"after")
        assert decoder.feed(encode(good)) == [good]
        assert decoder.bad == 1

    def test_a_flood_without_borders_is_not_kept(self) -> None:
        decoder = Decoder()
        for _ in range(100):
            decoder.feed(b"\x01" * 10_000)
        assert len(decoder._open) <= WIRE_MAX_BYTES
