"""`MmioBus`: the register bus on the ZYNQ itself, through pynq.

pynq is imported here only, and only when a bus is asked for. What is known of it was read in its source (4.0.0) and
run against it; what is known of the AXI DMA is AMD PG021. The fabric owes this module two things:

- the registers and the program memory on one AXI4-Lite window, 32-bit accesses;
- the result stream on the S2MM channel of an AXI DMA in direct register mode, in packets that end (TLAST) at the latest
  with the last word of a program's results, and never longer than the DMA's length register can say. A packet that is
  longer than the transfer is a DMA error (PG021, S2MM_LENGTH); one that is shorter is asked for again.
"""

from __future__ import annotations

import logging
import platform
import time
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from firmware_bridge import registers as reg
from firmware_bridge.sole_use import FabricClaim
from hil.errors import ConfigError, HilError, ProtocolError, TransportError

log = logging.getLogger(__name__)

#: first slave of M_AXI_GP0 as Vivado places it (unverified: from memory)
BASE_ADDRESS = 0x43C0_0000
#: registers and program memory
WINDOW_BYTES = reg.PROGRAM.offsets.stop
DMA_NAME = "axi_dma_0"
#: most that one DMA transfer takes: the emulated fabric's whole result stream
TRANSFER_MAX_BYTES = 256 * 1024
#: the results are complete when they are asked for, so a transfer takes milliseconds
STREAM_TIMEOUT_S = 1.0
#: a reset of the DMA engine ends what is on its bus, which takes microseconds
RESET_TIMEOUT_S = 0.1

_WORD_MAX = 0xFFFF_FFFF
#: registers of the DMA's receiving side (PG021)
_S2MM_CONTROL, _S2MM_STATUS = 0x30, 0x34
_RUN, _RESET = 0x1, 0x4
_HALTED = 0x1
_DMA_ERRORS = {
    0x10: "internal error: memory could not be written, or the fabric's packet is longer than the transfer",
    0x20: "slave error: the memory refuses the transfer",
    0x40: "decode error: no memory at the buffer's address",
}


@dataclass(frozen=True)
class Ports:
    """The two ways into a loaded fabric.

    Attributes:
        mmio: `pynq.MMIO` over the register window.
        dma: `pynq.lib.dma.DMA` whose receiving channel has the result stream.
        allocate: gives a `PynqBuffer` of so many 32-bit words.
        claim: keeps the fabric to this process while it is held.
    """

    mmio: Any
    dma: Any
    allocate: Callable[[int], Any]
    claim: FabricClaim | None = None


class MmioBus:
    """A `RegisterBus` over a fabric of this machine; used by one thread.

    Args:
        connect: gives the ports; called once, at the first access.
        stream_timeout_s: longest that one transfer out of the result stream may take.
    """

    def __init__(self, connect: Callable[[], Ports], *, stream_timeout_s: float = STREAM_TIMEOUT_S) -> None:
        self._connect = connect
        self._stream_timeout_s = stream_timeout_s
        self._connected: Ports | None = None
        #: the buffer that the DMA engine may write into; kept, since pynq frees a buffer that nobody holds
        self._lent: Any = None

    @classmethod
    def from_overlay(
        cls,
        bitfile: str | Path | None,
        *,
        base_address: int = BASE_ADDRESS,
        dma_name: str = DMA_NAME,
        download: bool = True,
    ) -> MmioBus:
        """A bus to the fabric of a bitstream, which is loaded at the first access and not before.

        Args:
            bitfile: the bitstream, its `.hwh` beside it.
            base_address: of the register window.
            dma_name: the DMA in the block design, "hierarchy/name" if it is in one.
            download: False when the fabric has this bitstream already.

        Raises:
            ConfigError: no pynq, no board, no such bitstream. The first access raises it for what the bitstream
                does not have, and without root.
        """
        with _opening(bitfile):
            pynq, device = _find_board()
        path = _checked_bitfile(bitfile)

        def connect() -> Ports:
            claim = FabricClaim(base_address)
            try:
                with _opening(path):
                    overlay = pynq.Overlay(str(path), download=download)
                    _check_window(overlay.ip_dict, base_address)
                    dma = _find_dma(overlay, dma_name)
                    mmio = pynq.MMIO(base_address, WINDOW_BYTES, device=device)
            except BaseException:
                claim.close()
                raise
            return Ports(mmio, dma, lambda n_words: pynq.allocate((n_words,), "u4", target=device), claim)

        return cls(connect)

    # Register bus

    def read(self, offset: int) -> int:
        mmio = self._ports.mmio
        with _accessing("read", offset):
            return int(mmio.read(_whole(offset)))

    def write(self, offset: int, value: int) -> None:
        mmio = self._ports.mmio
        with _accessing("write", offset):
            # pynq cuts larger numbers to 32 bits without a word, and refuses NumPy's integers.
            mmio.write(_whole(offset), _word(value))

    def write_block(self, offset: int, words: NDArray[np.uint32]) -> None:
        mmio = self._ports.mmio
        block = _words(words)
        with _accessing("write", offset):
            start = _whole(offset)
            first = start // 4
            # NumPy cuts a slice that runs past the end, and takes a negative one from there.
            if start % 4 or first < 0 or 4 * (first + len(block)) > mmio.length:
                raise IndexError(f"block of {len(block)} words")
            if _may_copy(mmio.array):
                mmio.array[first : first + len(block)] = block
            else:
                for k, word in enumerate(block.tolist()):
                    mmio.write(start + 4 * k, word)

    def read_stream(self, count: int) -> NDArray[np.uint32]:
        dma = self._ports.dma
        n_left = _whole(count)
        if n_left < 0:
            raise ProtocolError(f"{count} words asked of the result stream", fix="ask for 0 or more")
        most = min(TRANSFER_MAX_BYTES, dma.buffer_max_size) // 4
        pieces = [np.zeros(0, np.uint32)]
        while n_left:
            pieces.append(self._receive(min(n_left, most)))
            n_left -= len(pieces[-1])
        return np.concatenate(pieces)

    # Parts

    @property
    def _ports(self) -> Ports:
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    def _receive(self, n_words: int) -> NDArray[np.uint32]:
        """One transfer: at most so many words, at least one."""
        self._take_back()
        try:
            self._lent = buffer = self._ports.allocate(n_words)
            n_bytes = self._transfer(buffer)
            # A copy: the memory goes when the buffer does.
            words = np.array(buffer[: n_bytes // 4], np.uint32)
        except (RuntimeError, OSError, ValueError, MemoryError) as error:
            self._take_back_quietly()
            raise TransportError(f"a transfer of {n_words} result words failed: {error}", fix=_DMA_FIX) from error
        except BaseException:
            self._take_back_quietly()
            raise
        self._free()
        return words

    def _transfer(self, buffer: Any) -> int:
        """Bytes that came."""
        dma = self._ports.dma
        channel = dma.recvchannel
        channel.transfer(buffer)
        give_up = time.monotonic() + self._stream_timeout_s
        # pynq's wait() has no timeout, so it is called only when it has nothing to wait for.
        while not channel.idle:
            status = dma.read(_S2MM_STATUS)
            for bit, text in _DMA_ERRORS.items():
                if status & bit:
                    raise TransportError(f"DMA {text} ({buffer.nbytes} bytes were asked for)", fix=_DMA_FIX)
            if time.monotonic() > give_up:
                raise TransportError(
                    f"{buffer.nbytes} bytes of the result stream did not come within {self._stream_timeout_s:g} s",
                    fix="the fabric must end its packets by TLAST; check clock and stream of the DMA",
                )
        channel.wait()  # makes the CPU's cache forget the buffer, and looks how much came
        n_bytes = channel.transferred
        if not 0 < n_bytes <= buffer.nbytes or n_bytes % 4:
            raise ProtocolError(
                f"the DMA says that {n_bytes} of {buffer.nbytes} bytes came", fix="the stream must be 32 bits wide"
            )
        return n_bytes

    def _free(self) -> None:
        buffer, self._lent = self._lent, None
        buffer.freebuffer()

    def _take_back(self) -> None:
        """Free the buffer of a transfer that failed, once the engine cannot write into it any more."""
        if self._lent is None:
            return
        dma = self._ports.dma
        dma.write(_S2MM_CONTROL, _RESET)
        stopped = _soon(lambda: not dma.read(_S2MM_CONTROL) & _RESET)
        if stopped:
            dma.write(_S2MM_CONTROL, _RUN)
            stopped = _soon(lambda: not dma.read(_S2MM_STATUS) & _HALTED)
        if not stopped:
            raise TransportError(
                f"the DMA engine does not end a reset within {RESET_TIMEOUT_S:g} s",
                fix="load the bitstream again; the array is safe when the watchdog's time has passed",
            )
        # Tells pynq that the next transfer is the first; it waits without end for what has happened just now.
        dma.recvchannel.start()
        self._free()

    def _take_back_quietly(self) -> None:
        """The same on the way out of an error, which is the one to report."""
        try:
            self._take_back()
        except Exception as error:
            log.error("the DMA engine could not be stopped: %s", error)


_DMA_FIX = "check stream, clock and length register of the DMA in the bitstream"


def _soon(condition: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + RESET_TIMEOUT_S
    while not condition():
        if time.monotonic() > give_up:
            return False
    return True


# Values


def _whole(value: SupportsIndex) -> int:
    """An exact `int`: pynq takes nothing else."""
    try:
        return index(value)
    except TypeError:
        raise ProtocolError(f"{value!r} is not a whole number", fix="give one") from None


def _word(value: SupportsIndex) -> int:
    number = _whole(value)
    if not 0 <= number <= _WORD_MAX:
        raise ProtocolError(f"register value {number} is not a 32-bit number", fix="give 0 to 0xFFFFFFFF")
    return number


def _words(values: Any) -> NDArray[np.uint32]:
    block = np.asarray(values)
    if block.ndim != 1 or (block.size and block.dtype.kind not in "ui"):
        raise ProtocolError(f"block is {block.dtype}{block.shape}", fix="give a one-dimensional array of words")
    if block.dtype != np.uint32 and block.size:
        _word(block.min())
        _word(block.max())
    return np.ascontiguousarray(block, np.uint32)


def _may_copy(array: Any) -> bool:
    """Whether a block may be written by one copy.

    Not on ARMv8: its memcpy makes accesses that are not aligned, which kill the process on device memory. Not on a
    remote board, whose registers are no memory.
    """
    return isinstance(array, np.ndarray) and array.dtype == np.uint32 and platform.machine() != "aarch64"


@contextmanager
def _accessing(verb: str, offset: object) -> Generator[None, None, None]:
    """What pynq and NumPy raise for an offset becomes a `ProtocolError` that names it."""
    try:
        yield
    except (MemoryError, IndexError, ValueError) as error:
        where = f"{offset:#x}" if isinstance(offset, int | np.integer) else repr(offset)
        raise ProtocolError(
            f"cannot {verb} at offset {where}: {error}",
            fix=f"use multiples of 4 below {WINDOW_BYTES:#x}, the end of the register window",
        ) from None


# Opening


def _find_board() -> tuple[Any, Any]:
    """The package, and the device that it works on."""
    # Without a board pynq says so in warnings, and more than once; the ConfigError that follows says it once.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No devices found", UserWarning)
        warnings.filterwarnings("ignore", "Pynq does not support the CPU Architecture", ResourceWarning)
        try:
            import pynq
        except ImportError as error:
            raise ConfigError(
                f"the board needs package {error.name or error}, which is not installed",
                fix='on the board: pip install "crossbar-hil[board]" in an environment of its own (pynq wants numpy '
                "below 2); elsewhere use --backend emulator",
            ) from None
        return pynq, pynq.Device.active_device


def _checked_bitfile(bitfile: str | Path | None) -> Path:
    if bitfile is None:
        raise ConfigError("no bitstream is named", fix="set board.bitfile to the path of the sequencer's .bit file")
    path = Path(bitfile).absolute()
    for needed in (path, path.with_suffix(".hwh")):
        if not needed.is_file():
            raise ConfigError(
                f"there is no file {needed}",
                fix="give the path of the .bit file, with the .hwh of its design beside it",
            )
    return path


#: what pynq 4.0.0 raises while a board is opened: type, words of its message, and what it means
_OPENING_ERRORS: tuple[tuple[type[Exception], str, str, str], ...] = (
    (
        RuntimeError,
        "No Devices Found",
        "this machine has no ZYNQ fabric",
        "use --backend emulator, or --backend tcp://HOST:PORT for a daemon beside the board",
    ),
    (
        OSError,
        "Root permissions",
        "registers are reached through /dev/mem, which only root may map",
        "run as root, or run hil serve by its systemd unit",
    ),
    (
        PermissionError,
        "",
        "a file of the board may not be opened by this user",
        "run as root, or run hil serve by its systemd unit",
    ),
    (
        RuntimeError,
        "metadata",
        "the .hwh file does not describe the bitstream",
        "export it from the same design as the bitstream",
    ),
    (
        RuntimeError,
        "not currently loaded",
        "the fabric holds another bitstream",
        "set board.download to true, so that it is loaded",
    ),
    (
        RuntimeError,
        "remote device",
        "the board of PYNQ_REMOTE_DEVICES does not answer",
        "check its address and its network; or unset the variable",
    ),
)


@contextmanager
def _opening(bitfile: object) -> Generator[None, None, None]:
    """What pynq raises for a board that cannot be opened becomes one `ConfigError`."""
    try:
        yield
    except HilError:
        raise
    except Exception as error:
        for kind, words, what, fix in _OPENING_ERRORS:
            if isinstance(error, kind) and words in str(error):
                raise ConfigError(f"{what} (pynq: {error})", fix=fix) from error
        raise ConfigError(
            f"pynq cannot open the board with bitstream {bitfile}: {type(error).__name__}: {error}",
            fix="check the bitstream and its .hwh, and that this PYNQ image goes with pynq 4.0.0",
        ) from error


def _check_window(ip_dict: Mapping[str, Mapping[str, Any]], base_address: int) -> None:
    """An access where no part of the design answers would hang the bus, so that nothing is tried there."""
    end = base_address + WINDOW_BYTES
    found = {name: (part["phys_addr"], part["addr_range"]) for name, part in ip_dict.items() if "phys_addr" in part}
    if not any(first <= base_address and end <= first + size for first, size in found.values()):
        there = ", ".join(f"{name} {first:#x} to {first + size:#x}" for name, (first, size) in sorted(found.items()))
        raise ConfigError(
            f"the bitstream has no register window from {base_address:#x} to {end:#x}; it has: {there or 'none'}",
            fix="set board.base_address to the address of the sequencer",
        )


def _find_dma(overlay: Any, name: str) -> Any:
    there = sorted(key for key, part in overlay.ip_dict.items() if ":axi_dma:" in str(part.get("type")))
    if name not in overlay.ip_dict:
        raise ConfigError(
            f"the bitstream has no DMA {name!r}; it has: {', '.join(there) or 'none'}",
            fix="set board.dma to one of these",
        )
    dma = reduce(getattr, name.split("/"), overlay)
    if getattr(dma, "recvchannel", None) is None:
        raise ConfigError(
            f"{name} has no receiving (S2MM) channel, or is no AXI DMA 7.1",
            fix="build the bitstream with one, or set board.dma to another",
        )
    if int(dma.description["parameters"].get("c_include_sg", 0)):
        raise ConfigError(f"{name} is in scatter-gather mode", fix="build the bitstream with direct register mode")
    return dma
