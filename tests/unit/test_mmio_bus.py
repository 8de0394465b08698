"""The register bus of the ZYNQ over stand-ins made after pynq 4.0.0; tests/board_env has the same on the real one."""

from __future__ import annotations

import hashlib
import logging
import platform
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from axi_dma import CONTROL, HALTED, IDLE, LENGTH, RUN, STATUS, AxiDma
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge import board, sole_use
from firmware_bridge import registers as reg
from firmware_bridge.board import real_board
from firmware_bridge.mmio_bus import BASE_ADDRESS, WINDOW_BYTES, MmioBus, Ports
from hil.errors import ConfigError, ProtocolError, TransportError

STALE, GONE = 0xDEADDEAD, 0xFEEEFEEE


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sole_use, "_LOCK_FOLDERS", (tmp_path,))


class Mmio:
    """`pynq.MMIO` on a memory-mapped device."""

    def __init__(self, array: Any, length: int = WINDOW_BYTES) -> None:
        self.array = array
        self.length = length
        self.n_writes = 0

    def read(self, offset: int = 0) -> int:
        return int(self.array[self._word(offset)])

    def write(self, offset: int, data: int) -> None:
        word = self._word(offset)
        if type(data) is not int:
            raise ValueError("Data type must be int or bytes.")
        self.n_writes += 1
        self.array[word] = data & 0xFFFFFFFF

    def _word(self, offset: int) -> int:
        if offset < 0:
            raise ValueError("Offset cannot be negative.")
        if offset % 4:
            raise MemoryError("Unaligned read: offset must be multiple of 4.")
        return offset >> 2


class Channel:
    """`pynq.lib.dma.DMA.recvchannel`."""

    def __init__(self, mmio: Mmio, max_size: int) -> None:
        self._mmio = mmio
        self._max_size = max_size
        self._first = True
        self.start()

    @property
    def running(self) -> bool:
        return not self._mmio.read(STATUS) & HALTED

    @property
    def idle(self) -> bool:
        return bool(self._mmio.read(STATUS) & IDLE)

    def start(self) -> None:
        self._mmio.write(CONTROL, RUN)
        assert self.running, "pynq would wait for ever"
        self._first = True

    def transfer(self, buffer: Buffer) -> None:
        if not self.running:
            raise RuntimeError("DMA channel not started")
        if not self.idle and not self._first:
            raise RuntimeError("DMA channel not idle")
        if buffer.nbytes > self._max_size:
            raise ValueError(f"Transfer size is {buffer.nbytes} bytes, which exceeds {self._max_size}.")
        self._mmio.write(0x48, buffer.physical_address)
        self._mmio.write(LENGTH, buffer.nbytes)
        self._buffer, self._first = buffer, False

    def wait(self) -> None:
        assert self.idle, "pynq would wait for ever"
        self._buffer.invalidate()
        self.transferred = self._mmio.read(LENGTH)


class Buffer(np.ndarray):
    """`pynq.buffer.PynqBuffer`: its memory has what the DMA wrote only after it is invalidated, and goes when freed."""

    board: Board
    physical_address: int

    def invalidate(self) -> None:
        self[:] = self.board.dma_registers.memory[self.physical_address]

    def freebuffer(self) -> None:
        assert not self.board.dma_registers.busy, "freed while the DMA may write into it"
        self.board.buffers.remove(self.physical_address)
        self[:] = GONE


class Board:
    """Registers, DMA and memory."""

    def __init__(self, *packets: list[int], max_size: int = (1 << 14) - 1) -> None:
        self.memory = np.zeros(WINDOW_BYTES // 4, np.uint32)
        self.mmio = Mmio(self.memory)
        self.dma_registers = AxiDma(*packets)
        registers = Mmio(self.dma_registers, 0x10000)
        self.dma = SimpleNamespace(
            recvchannel=Channel(registers, max_size),
            read=registers.read,
            write=registers.write,
            buffer_max_size=max_size,
            description={"parameters": {"c_include_s2mm": "1"}},
        )
        self.buffers: list[int] = []
        self.n_connects = 0

    def allocate(self, n_words: int) -> Buffer:
        buffer = np.full(n_words, STALE, np.uint32).view(Buffer)
        buffer.board = self
        buffer.physical_address = 0x1000_0000 + 0x10_0000 * len(self.dma_registers.memory)
        self.dma_registers.memory[buffer.physical_address] = np.zeros(n_words, np.uint32)
        self.buffers.append(buffer.physical_address)
        return buffer

    def connect(self) -> Ports:
        self.n_connects += 1
        return Ports(self.mmio, self.dma, self.allocate)

    def bus(self) -> MmioBus:
        return MmioBus(self.connect, stream_timeout_s=0.02)


# Registers


def test_registers_are_words_at_byte_offsets() -> None:
    board = Board()
    bus = board.bus()
    board.memory[reg.STATUS.offset // 4] = 0x8000_0001
    assert bus.read(reg.STATUS.offset) == 0x8000_0001
    bus.write(reg.CONTROL.offset, 0xFFFF_FFFF)
    assert board.memory[4] == 0xFFFF_FFFF
    assert board.n_connects == 1


def test_nothing_is_connected_before_the_first_access() -> None:
    board = Board()
    board.bus()
    assert board.n_connects == 0


@pytest.mark.parametrize("kind", [int, np.uint32, np.int64, np.uint8])
def test_numpy_integers_are_numbers(kind: Callable[[int], int]) -> None:
    board = Board()
    bus = board.bus()
    bus.write(kind(0x20), kind(200))
    assert bus.read(kind(0x20)) == 200
    assert type(bus.read(0x20)) is int


@pytest.mark.parametrize("value", [-1, 1 << 32, np.int64(-1), 2.0, "1", None])
def test_what_is_no_32_bit_number_is_refused(value: Any) -> None:
    board = Board()
    with pytest.raises(ProtocolError, match=r"32-bit|whole number"):
        board.bus().write(0x10, value)
    assert not board.memory.any()


@pytest.mark.parametrize(
    ("offset", "shown"), [(2, "0x2"), (-4, "-0x4"), (WINDOW_BYTES, "0x20000"), (np.int64(6), "0x6"), ("4", "'4'")]
)
def test_an_offset_that_is_none_is_named(offset: Any, shown: str) -> None:
    bus = Board().bus()
    for access in (lambda: bus.read(offset), lambda: bus.write(offset, 1)):
        with pytest.raises(ProtocolError) as caught:
            access()
        assert shown in str(caught.value)


# Program memory


@pytest.fixture(params=["copied", "word by word", "remote"])
def program_board(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Board:
    """The ways a block can take: on the ZYNQ, on ARMv8, and where registers are no memory."""
    board = Board()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64" if request.param == "word by word" else "armv7l")
    if request.param == "remote":
        board.mmio.array = SimpleNamespace(__getitem__=None)
        board.mmio.write = lambda offset, data: board.memory.__setitem__(offset // 4, data)  # type: ignore[method-assign]
    return board


def test_a_block_arrives_where_it_belongs_and_nowhere_else(program_board: Board) -> None:
    words = np.arange(7, dtype=np.uint32) + 0xFFFF_FFF0
    program_board.bus().write_block(reg.PROGRAM.offset + 8, words)
    first = reg.PROGRAM.offset // 4 + 2
    np.testing.assert_array_equal(program_board.memory[first : first + 7], words)
    assert np.count_nonzero(program_board.memory) == 7


def test_a_block_up_to_the_end_fits_and_one_beyond_does_not(program_board: Board) -> None:
    bus = program_board.bus()
    bus.write_block(WINDOW_BYTES - 8, np.array([1, 2], np.uint32))
    assert program_board.memory[-2:].tolist() == [1, 2]
    for offset in (WINDOW_BYTES - 4, WINDOW_BYTES, -8, reg.PROGRAM.offset + 2):
        with pytest.raises(ProtocolError, match=f"{offset:#x}"):
            bus.write_block(offset, np.array([3, 4], np.uint32))
    assert program_board.memory[-2:].tolist() == [1, 2]


@pytest.mark.parametrize(("machine", "n_writes"), [("armv7l", 0), ("aarch64", 100)])
def test_only_where_a_copy_is_safe_is_a_block_copied(
    monkeypatch: pytest.MonkeyPatch, machine: str, n_writes: int
) -> None:
    board = Board()
    monkeypatch.setattr(platform, "machine", lambda: machine)
    board.bus().write_block(reg.PROGRAM.offset, np.ones(100, np.uint32))
    assert board.mmio.n_writes == n_writes


@pytest.mark.parametrize(
    "words", [np.array([-1]), np.array([1 << 32]), np.array([1.0]), np.ones((2, 2), np.uint32), np.array(["a"])]
)
def test_a_block_of_something_else_is_refused(words: Any) -> None:
    board = Board()
    with pytest.raises(ProtocolError):
        board.bus().write_block(reg.PROGRAM.offset, words)
    assert not board.memory.any()


def test_a_block_may_be_empty_or_of_wider_integers() -> None:
    board = Board()
    bus = board.bus()
    bus.write_block(reg.PROGRAM.offset, np.zeros(0))
    bus.write_block(reg.PROGRAM.offset, np.array([5, 0xFFFF_FFFF], np.int64))
    assert board.memory[reg.PROGRAM.offset // 4 :][:2].tolist() == [5, 0xFFFF_FFFF]


# Result stream


@given(
    packets=st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12), max_size=6),
    spare=st.integers(0, 8),
)
def test_the_stream_comes_whole_whatever_its_packets(packets: list[list[int]], spare: int) -> None:
    # A packet may be as long as a transfer and no longer.
    longest = max((len(packet) for packet in packets), default=1)
    board = Board(*packets, max_size=4 * (longest + spare) + 3)
    words = [word for packet in packets for word in packet]
    found = board.bus().read_stream(len(words))
    assert found.dtype == np.uint32
    assert type(found) is np.ndarray
    assert found.tolist() == words
    assert board.buffers == []


def test_a_long_stream_takes_several_transfers_within_the_limit_of_the_dma() -> None:
    words = list(range(10_000))
    packets = [words[k : k + 4095] for k in range(0, len(words), 4095)]
    board = Board(*packets, max_size=16383)
    assert board.bus().read_stream(len(words)).tolist() == words
    assert len(board.dma_registers.written) == 3


def test_nothing_asked_is_nothing_moved() -> None:
    board = Board()
    assert board.bus().read_stream(0).tolist() == []
    assert board.dma_registers.written == []


@pytest.mark.parametrize("count", [-1, 1.5, "3"])
def test_a_count_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(ProtocolError):
        Board().bus().read_stream(count)


def test_a_stream_that_does_not_come_is_a_lost_link_and_the_next_one_works() -> None:
    board = Board()
    bus = board.bus()
    with pytest.raises(TransportError, match=r"12 bytes of the result stream did not come within 0\.02 s"):
        bus.read_stream(3)
    assert board.buffers == []  # and `freebuffer` saw that the engine was stopped before
    board.dma_registers.packets.append([1, 2, 3])
    assert bus.read_stream(3).tolist() == [1, 2, 3]


def test_memory_is_kept_from_a_dma_engine_that_does_not_stop(caplog: pytest.LogCaptureFixture) -> None:
    board = Board()
    board.dma_registers.resets = False
    bus = board.bus()
    with pytest.raises(TransportError, match="did not come"), caplog.at_level(logging.ERROR):
        bus.read_stream(3)
    assert "could not be stopped" in caplog.text
    assert len(board.buffers) == 1
    with pytest.raises(TransportError, match="does not end a reset"):
        bus.read_stream(3)
    board.dma_registers.resets = True
    board.dma_registers.packets.append([1, 2, 3])
    assert bus.read_stream(3).tolist() == [1, 2, 3]
    assert board.buffers == []


@pytest.mark.parametrize(("bit", "told"), [(0x10, "internal error"), (0x20, "slave error"), (0x40, "decode error")])
def test_errors_of_the_dma_are_named_and_the_next_stream_works(bit: int, told: str) -> None:
    board = Board([1, 2])
    board.dma_registers.error = bit
    bus = board.bus()
    with pytest.raises(TransportError, match=told):
        bus.read_stream(2)
    assert board.buffers == []
    assert bus.read_stream(2).tolist() == [1, 2]


def test_a_packet_longer_than_the_transfer_is_an_error_that_says_so() -> None:
    with pytest.raises(TransportError, match="longer than the transfer"):
        Board([1, 2, 3]).bus().read_stream(2)


@pytest.mark.parametrize("n_bytes", [0, 6, 400])
def test_a_length_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    board = Board([1, 2])
    monkeypatch.setattr(Channel, "transferred", property(lambda self: n_bytes, lambda self, value: None), raising=False)
    with pytest.raises(ProtocolError, match=f"{n_bytes} of 8 bytes"):
        board.bus().read_stream(2)
    assert board.buffers == []


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_no_memory_for_a_buffer_is_a_transport_error(kind: type[Exception]) -> None:
    def allocate(n_words: int) -> Any:
        raise kind("BO allocation failed: no memory")

    board = Board([1])
    bus = MmioBus(lambda: Ports(board.mmio, board.dma, allocate))
    with pytest.raises(TransportError, match="BO allocation failed"):
        bus.read_stream(1)


def test_ctrl_c_during_a_transfer_stops_the_engine_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(bit: int) -> int:
        raise KeyboardInterrupt

    board = Board()
    read, board.dma.read = board.dma.read, interrupt

    def reading_again(offset: int, value: int) -> None:
        board.dma.read = read
        board.dma.recvchannel._mmio.write(offset, value)

    board.dma.write = reading_again
    with pytest.raises(KeyboardInterrupt):
        board.bus().read_stream(1)
    assert board.buffers == []


# Opening


class FakeOverlay:
    """`pynq.Overlay`, with one IP that has the sequencer and one DMA."""

    def __init__(self, name: str, download: bool) -> None:
        assert type(name) is str, "pynq takes nothing else"
        self.name, self.download = name, download
        self.ip_dict = {
            "sequencer_0": {"type": "lab:user:sequencer:1.0", "phys_addr": BASE_ADDRESS, "addr_range": WINDOW_BYTES},
            "axi_dma_0": {"type": "xilinx.com:ip:axi_dma:7.1", "phys_addr": 0x4040_0000, "addr_range": 0x10000},
            "processing_system7_0": {"type": "xilinx.com:ip:processing_system7:5.5"},
        }
        self.axi_dma_0 = Board([7, 8]).dma


class FakePynq:
    """The module `pynq` on a board, or what it does instead: `missing` is raised by what needs a device."""

    def __init__(self) -> None:
        self.memory = np.zeros(WINDOW_BYTES // 4, np.uint32)
        self.warning = ""
        self.missing: Exception | None = None
        self.broken: Exception | None = None
        self.mapped: Exception | None = None
        self.overlays: list[FakeOverlay] = []
        self.change: Callable[[FakeOverlay], object] = lambda overlay: None
        outer = self

        class Device:
            @property
            def active_device(self) -> str:
                if outer.warning:
                    warnings.warn(outer.warning, UserWarning, stacklevel=2)
                if outer.missing:
                    raise outer.missing
                return "device"

        self.Device = Device()

    def Overlay(self, name: str, download: bool = True) -> FakeOverlay:
        if self.broken:
            raise self.broken
        overlay = FakeOverlay(name, download)
        self.change(overlay)
        self.overlays.append(overlay)
        return overlay

    def MMIO(self, base: int, length: int, device: str) -> Mmio:
        assert (base, length, device) == (BASE_ADDRESS, WINDOW_BYTES, "device")
        if self.mapped:
            raise self.mapped
        return Mmio(self.memory)


@pytest.fixture
def pynq(monkeypatch: pytest.MonkeyPatch) -> FakePynq:
    fake = FakePynq()
    monkeypatch.setitem(sys.modules, "pynq", fake)  # type: ignore[arg-type]
    return fake


@pytest.fixture
def bitfile(tmp_path: Path) -> Path:
    (tmp_path / "sequencer.hwh").write_text("<xml/>")
    (tmp_path / "sequencer.bit").write_bytes(b"bits")
    return tmp_path / "sequencer.bit"


def test_the_bitstream_is_loaded_at_the_first_access_and_once(pynq: FakePynq, bitfile: Path) -> None:
    bus = MmioBus.from_overlay(bitfile)
    assert pynq.overlays == []
    pynq.memory[0] = reg.ID.reset
    assert bus.read(reg.ID.offset) == reg.ID.reset
    bus.write(0x20, 1)
    assert [(overlay.name, overlay.download) for overlay in pynq.overlays] == [(str(bitfile), True)]


def test_a_fabric_that_is_loaded_is_left_alone(pynq: FakePynq, bitfile: Path) -> None:
    MmioBus.from_overlay(str(bitfile), download=False).read(0)
    assert [overlay.download for overlay in pynq.overlays] == [False]


def test_without_pynq_the_package_is_named(monkeypatch: pytest.MonkeyPatch, bitfile: Path) -> None:
    monkeypatch.setitem(sys.modules, "pynq", None)
    with pytest.raises(ConfigError, match=r"pynq.*not installed.*crossbar-hil\[board\].*environment of its own"):
        MmioBus.from_overlay(bitfile)


def test_off_board_there_is_one_message_and_no_warning(
    pynq: FakePynq, recwarn: pytest.WarningsRecorder, tmp_path: Path
) -> None:
    pynq.warning = "No devices found, is the XRT environment sourced?"
    pynq.missing = RuntimeError("No Devices Found")
    with pytest.raises(ConfigError, match=r"this machine has no ZYNQ fabric.*--backend emulator.*tcp://"):
        MmioBus.from_overlay(tmp_path / "not even a bitfile.bit")
    assert not recwarn.list


def test_other_warnings_of_pynq_are_shown(pynq: FakePynq, bitfile: Path) -> None:
    pynq.warning = "something else"
    with pytest.warns(UserWarning, match="something else"):
        MmioBus.from_overlay(bitfile)


def test_a_remote_board_that_does_not_answer_is_named(pynq: FakePynq, bitfile: Path) -> None:
    pynq.missing = RuntimeError("Failed to connect to remote device at 10.0.0.9")
    with pytest.raises(ConfigError, match=r"PYNQ_REMOTE_DEVICES.*10\.0\.0\.9"):
        MmioBus.from_overlay(bitfile)


@pytest.mark.parametrize("missing", [".bit", ".hwh"])
def test_a_missing_file_is_named(pynq: FakePynq, bitfile: Path, missing: str) -> None:
    bitfile.with_suffix(missing).unlink()
    with pytest.raises(ConfigError, match=rf"there is no file .*sequencer\{missing}"):
        MmioBus.from_overlay(bitfile)


def test_without_a_bitstream_the_setting_is_named(pynq: FakePynq) -> None:
    with pytest.raises(ConfigError, match=r"board\.bitfile"):
        MmioBus.from_overlay(None)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            PermissionError(13, "Permission denied", "/lib/firmware/sequencer.bin"),
            "may not be opened.*root",
        ),
        (RuntimeError("Unable to find metadata for bitstream"), "hwh"),
        (RuntimeError("Unable to parse metadata"), "hwh"),
        (RuntimeError("Overlay not currently loaded"), r"board\.download"),
        (
            OSError("Bitstream file x does not exist."),
            "cannot open the board.*OSError: Bitstream file x",
        ),
        (KeyError("ps7"), "cannot open the board.*KeyError"),
    ],
)
def test_what_pynq_raises_for_a_bitstream_is_one_config_error(
    pynq: FakePynq, bitfile: Path, error: Exception, told: str
) -> None:
    pynq.broken = error
    with pytest.raises(ConfigError, match=told):
        MmioBus.from_overlay(bitfile).read(0)


def test_without_root_it_says_so(pynq: FakePynq, bitfile: Path) -> None:
    pynq.mapped = OSError("Root permissions required.")
    with pytest.raises(ConfigError, match=r"only root may map.*systemd unit"):
        MmioBus.from_overlay(bitfile).read(0)


def test_an_access_where_nothing_answers_is_never_tried(pynq: FakePynq, bitfile: Path) -> None:
    bus = MmioBus.from_overlay(bitfile, base_address=BASE_ADDRESS + 0x1000)
    with pytest.raises(ConfigError, match=r"0x43c01000 to 0x43c21000.*sequencer_0 0x43c00000 to 0x43c20000"):
        bus.read(0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda overlay: overlay.ip_dict.pop("axi_dma_0"), "no DMA 'axi_dma_0'; it has: none"),
        (lambda overlay: setattr(overlay.axi_dma_0, "recvchannel", None), "no receiving"),
        (lambda overlay: setattr(overlay, "axi_dma_0", SimpleNamespace()), "no receiving"),
        (
            lambda overlay: overlay.axi_dma_0.description["parameters"].update(c_include_sg="1"),
            "scatter-gather",
        ),
    ],
)
def test_a_dma_that_does_not_fit_is_refused(
    pynq: FakePynq, bitfile: Path, change: Callable[[FakeOverlay], object], told: str
) -> None:
    pynq.change = change
    with pytest.raises(ConfigError, match=told):
        MmioBus.from_overlay(bitfile).read(0)


def test_a_dma_within_a_hierarchy_is_found(pynq: FakePynq, bitfile: Path) -> None:
    def change(overlay: Any) -> None:
        overlay.ip_dict["results/axi_dma_0"] = overlay.ip_dict.pop("axi_dma_0")
        overlay.results = SimpleNamespace(axi_dma_0=overlay.axi_dma_0)

    pynq.change = change
    MmioBus.from_overlay(bitfile, dma_name="results/axi_dma_0").read(0)
    with pytest.raises(ConfigError, match="it has: results/axi_dma_0"):
        MmioBus.from_overlay(bitfile).read(0)


# Board


def test_the_board_says_which_bitstream_it_runs(
    pynq: FakePynq, bitfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "serial").write_bytes(b"XFL1-42\0")
    monkeypatch.setattr(board, "SERIAL_NUMBER", tmp_path / "serial")
    info = real_board("tiny-8x8", bitfile=bitfile).info
    assert info.name == "board"
    assert info.identity["profile"] == "tiny-8x8"
    assert info.identity["bitfile"] == "sequencer.bit"
    assert info.identity["bitfile_sha256"] == hashlib.sha256(b"bits").hexdigest()
    assert info.identity["base_address"] == "0x43c00000"
    assert info.identity["board_serial"] == "XFL1-42"
    assert pynq.overlays == []


def test_a_board_without_a_serial_number_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(board, "SERIAL_NUMBER", tmp_path / "none")
    assert board.board_serial() is None
    (tmp_path / "none").write_bytes(b"\0")
    assert board.board_serial() is None


def test_a_board_that_is_not_there_is_one_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynq", None)
    with pytest.raises(ConfigError, match="pynq"):
        real_board("tiny-8x8", bitfile=None)
