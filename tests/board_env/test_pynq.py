"""`MmioBus` on the real pynq package, with a device double in place of a board.

They run in the board's environment, which has neither torch nor numba, so without the conftest of the other tests:

    pip install ".[board]" pytest pytest-timeout
    PYTHONPATH=.:tests python -m pytest --noconftest tests/board_env
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axi_dma import LENGTH, AxiDma

from firmware_bridge import registers as reg
from firmware_bridge.mmio_bus import BASE_ADDRESS, WINDOW_BYTES, MmioBus, Ports
from hil.errors import ConfigError, ProtocolError, TransportError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pynq finds neither its processor nor a board
    pynq = pytest.importorskip("pynq", reason="needs the board's environment: pip install '.[board]'")
    from pynq.buffer import PynqBuffer
    from pynq.lib.dma import DMA

DMA_ADDRESS = 0x4040_0000
LENGTH_BITS = 14
ROOT = Path(__file__).parents[2]
STALE = 0xDEADDEAD


class Munmap:
    """Stands for the C library that pynq frees a buffer with on a board: what is freed is gone."""

    def __init__(self) -> None:
        self.lent: dict[int, tuple[Device, Any]] = {}

    def munmap(self, address: ctypes.c_void_p, n_bytes: int) -> None:
        device, memory = self.lent.pop(address.value or 0)
        assert not device.dma.busy, "freed while the DMA may write into it"
        assert n_bytes == memory.nbytes
        memory[:] = 0xFEEEFEEE


LIBC = Munmap()
# pynq has them on a board only.
pynq.buffer.libc, pynq.buffer.ctypes = LIBC, ctypes


class Device:
    """What `pynq.MMIO` and `pynq.allocate` need of a device: memory without a board."""

    def __init__(self, *packets: list[int]) -> None:
        self.dma: AxiDma = AxiDma(*packets)
        self.window: Any = np.frombuffer(mmap.mmap(-1, WINDOW_BYTES), np.uint32)
        self.mapped: list[tuple[int, int]] = []

    def has_capability(self, name: str) -> bool:
        return name == "MEMORY_MAPPED"

    def mmap(self, base_address: int, length: int) -> Any:
        self.mapped.append((base_address, length))
        return self.dma if base_address == DMA_ADDRESS else self.window

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Any:
        address = 0x1000_0000 + 0x10_0000 * len(self.dma.memory)
        self.dma.memory[address] = np.zeros(shape, np.uint32)
        stale = np.full(shape, STALE, np.uint32)
        bo = (stale, address)
        buffer = PynqBuffer(shape, dtype, buffer=stale, device=self, device_address=address, bo=bo, coherent=False)
        buffer.memory = self  # as XrtMemory marks what it must free
        LIBC.lent[buffer.virtual_address] = self, stale
        return buffer

    @property
    def n_lent(self) -> int:
        """Buffers that are not freed."""
        return sum(device is self for device, _ in LIBC.lent.values())

    def invalidate(self, bo: tuple[Any, int], offset: int, address: int, n_bytes: int) -> None:
        cached, device_address = bo
        cached[:] = self.dma.memory[device_address]

    def bus(self) -> MmioBus:
        return MmioBus(self.connect, stream_timeout_s=0.02)

    def connect(self) -> Ports:
        description = {
            "fullpath": "axi_dma_0",
            "phys_addr": DMA_ADDRESS,
            "addr_range": 0x10000,
            "device": self,
            "interrupts": {},
            "parameters": {
                "c_include_mm2s": "0",
                "c_include_s2mm": "1",
                "c_include_sg": "0",
                "c_m_axi_s2mm_data_width": "32",
                "c_sg_length_width": str(LENGTH_BITS),
            },
        }
        return Ports(
            pynq.MMIO(BASE_ADDRESS, WINDOW_BYTES, device=self),
            DMA(description),
            lambda n_words: pynq.allocate((n_words,), "u4", target=self),
        )


@pytest.fixture
def device() -> Device:
    return Device()


def test_this_is_the_pynq_that_the_bus_was_written_for() -> None:
    assert pynq.__version__ == "4.0.0"


def test_registers_are_words_at_byte_offsets(device: Device) -> None:
    bus = device.bus()
    device.window[reg.STATUS.offset // 4] = 0x8000_0001
    assert bus.read(reg.STATUS.offset) == 0x8000_0001
    bus.write(reg.CONTROL.offset, 0xFFFF_FFFF)
    assert device.window[reg.CONTROL.offset // 4] == 0xFFFF_FFFF
    assert (BASE_ADDRESS, WINDOW_BYTES) in device.mapped


@pytest.mark.parametrize("kind", [int, np.uint32, np.int64, np.uint8])
def test_numpy_integers_are_numbers(device: Device, kind: Any) -> None:
    bus = device.bus()
    bus.write(kind(0x20), kind(200))
    assert bus.read(kind(0x20)) == 200
    assert type(bus.read(0x20)) is int


@pytest.mark.parametrize("value", [-1, 1 << 32, np.int64(-1), 2.0, "1"])
def test_what_is_no_32_bit_number_never_reaches_pynq(device: Device, value: Any) -> None:
    with pytest.raises(ProtocolError):
        device.bus().write(0x10, value)
    assert not device.window.any()


@pytest.mark.parametrize("offset", [2, -4, WINDOW_BYTES, np.int64(6)])
def test_an_offset_that_is_none_is_named(device: Device, offset: int) -> None:
    bus = device.bus()
    words = np.ones(1, np.uint32)
    for access in (lambda: bus.read(offset), lambda: bus.write(offset, 1), lambda: bus.write_block(offset, words)):
        with pytest.raises(ProtocolError, match=f"offset {offset:#x}"):
            access()
    assert not device.window.any()


@pytest.mark.parametrize("machine", ["armv7l", "aarch64"])
def test_a_block_arrives_where_it_belongs(device: Device, monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    bus = device.bus()
    words = np.arange(1, 2 * 8192 + 1, dtype=np.uint32)
    bus.write_block(reg.PROGRAM.offset, words)
    np.testing.assert_array_equal(device.window[reg.PROGRAM.offset // 4 :], words)
    assert not device.window[: reg.PROGRAM.offset // 4].any()
    with pytest.raises(ProtocolError, match="0x10004"):
        bus.write_block(reg.PROGRAM.offset + 4, words)


def test_the_stream_comes_through_the_dma(device: Device) -> None:
    device.dma.packets.append([3, 1, 0xFFFF_FFFF])
    found = device.bus().read_stream(3)
    assert type(found) is np.ndarray
    assert found.tolist() == [3, 1, 0xFFFF_FFFF]
    assert device.n_lent == 0


def test_a_long_stream_takes_several_transfers_within_the_limit_of_the_dma(device: Device) -> None:
    words = list(range(10_000))
    most = ((1 << LENGTH_BITS) - 1) // 4
    device.dma.packets.extend(words[k : k + most] for k in range(0, len(words), most))
    bus = device.bus()
    assert bus.read_stream(len(words)).tolist() == words
    assert len(device.dma.written) == 3
    device.dma.packets.append([9])
    assert bus.read_stream(1).tolist() == [9]
    assert device.n_lent == 0


def test_a_stream_that_does_not_come_is_a_lost_link_and_the_next_one_works(device: Device) -> None:
    bus = device.bus()
    with pytest.raises(TransportError, match="did not come within"):
        bus.read_stream(3)
    assert device.n_lent == 0
    device.dma.packets.append([1, 2, 3])
    assert bus.read_stream(3).tolist() == [1, 2, 3]


def test_an_error_of_the_dma_is_named_and_the_next_stream_works(device: Device) -> None:
    bus = device.bus()
    device.dma.packets.append([1, 2])
    device.dma.error = 0x20
    with pytest.raises(TransportError, match="slave error"):
        bus.read_stream(2)
    assert bus.read_stream(2).tolist() == [1, 2]
    assert device.n_lent == 0


def test_memory_is_kept_from_a_dma_engine_that_does_not_stop(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    device.dma.resets = False
    bus = device.bus()
    with pytest.raises(TransportError, match="did not come"), caplog.at_level(logging.ERROR):
        bus.read_stream(3)
    assert "could not be stopped" in caplog.text
    assert device.n_lent == 1
    device.dma.resets = True
    device.dma.packets.append([1])
    assert bus.read_stream(1).tolist() == [1]
    assert device.n_lent == 0


# A backend


class FabricWindow:
    """The emulated fabric's registers, as `pynq.MMIO.array` is indexed."""

    def __init__(self, fabric: Any) -> None:
        self.fabric = fabric

    def __getitem__(self, word: int) -> int:
        return self.fabric.read(4 * word)

    def __setitem__(self, word: int, value: int) -> None:
        if 4 * word in reg.PROGRAM.offsets:
            self.fabric.write_block(4 * word, np.array([value], np.uint32))
        else:
            self.fabric.write(4 * word, int(value))


class FabricDma(AxiDma):
    """The emulated fabric sends as much as a transfer asks for."""

    def __init__(self, fabric: Any) -> None:
        super().__init__()
        self.fabric = fabric

    def __setitem__(self, word: int, value: int) -> None:
        if 4 * word == LENGTH:
            self.packets.append(self.fabric.read_stream(int(value) // 4).tolist())
        super().__setitem__(word, value)


def test_a_backend_measures_through_pynq_what_it_measures_without() -> None:
    pytest.importorskip("scipy", reason="the emulated array needs it")
    import recorded_session
    from boards import emulate

    def fabric() -> Any:
        return emulate(forming={"formed": False})[1]

    device = Device()
    behind = fabric()
    device.window, device.dma = FabricWindow(behind), FabricDma(behind)
    through = recorded_session.play(recorded_session.backend_on(device.bus()))
    without = recorded_session.play(recorded_session.backend_on(fabric()))
    for name in ("before_a", "after_a", "currents_a"):
        np.testing.assert_array_equal(through[name], without[name])
    assert through["telemetry"] == without["telemetry"]
    assert device.n_lent == 0


# Off-board


def test_off_board_there_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"this machine has no ZYNQ fabric.*--backend emulator"):
        MmioBus.from_overlay(tmp_path / "sequencer.bit")


def test_off_board_nothing_but_that_message_is_said() -> None:
    """In a process of its own, since pynq warns once, and with every warning an error."""
    program = """
from firmware_bridge.board import real_board
from hil.errors import ConfigError
try:
    real_board("tiny-8x8", bitfile="sequencer.bit")
except ConfigError as error:
    print(error)
"""
    for strictness in ("default", "error"):
        found = subprocess.run(
            [sys.executable, "-W", strictness, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert len(found.stdout.splitlines()) == 1, found.stdout
        assert "this machine has no ZYNQ fabric" in found.stdout
        assert found.stderr == ""


def test_the_bus_imports_pynq_only_when_it_is_asked_for_one() -> None:
    program = """
import sys
import firmware_bridge.mmio_bus, firmware_bridge.board
assert not {"pynq", "torch", "numba", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=True)
