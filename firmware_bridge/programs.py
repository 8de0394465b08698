"""Blocks of sequencer words that the board backend composes its programs of.

The schedule of a scan hides everything it can: while the ADCs convert phase p, the chain is shifted and DAC codes are
stored for phase p + 1; at the hold edge of the last conversion the inputs are free, so that latch, LDAC and settling
fit into the rest of it (15.8 us of 20).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from drivers import dac80508
from drivers.dac80508 import dac_address
from firmware_bridge.instructions import ROW_CHAIN, WORD_LINE_CHAIN, Engine, SourceLines, pack
from firmware_bridge.phases import OFF
from firmware_bridge.profile import BoardProfile
from firmware_bridge.row_trim import RowTrim
from firmware_bridge.sequencer import ticks_of
from hil.errors import DeviceError, ProtocolError

Words = NDArray[np.uint64]

ROW_LATCH, WORD_LINE_LATCH = 1 << ROW_CHAIN, 1 << WORD_LINE_CHAIN
#: bits that one SHIFT takes
_PIECE_BYTES = 6
#: time between DRIVE and the moment that word lines may open, s
_LINES_SETTLE_S = 5e-6


class Blocks:
    """Encodes for one board; keeps no state of it.

    Args:
        profile: the board.
        trim: errors of the row channels, which codes undo; None takes them as without.
    """

    def __init__(self, profile: BoardProfile, trim: RowTrim | None = None) -> None:
        self.profile = profile
        self.trim = RowTrim.of(profile, None) if trim is None else trim
        self.bank = profile.mux.bank
        self.row_chain = profile.chains.rows.shift_chain
        self.word_line_chain = profile.chains.word_lines.shift_chain
        dac = profile.dac
        self.range = dac.output_range
        #: codes that bring the row channels to the idle level, shape (muxes,)
        self.idle_codes = self.trim.codes(profile.tia.v_common_v)
        self.channels = np.array([profile.row_channel(m) for m in range(profile.mux.count)])
        self.row_chips = sum(1 << chip for chip in dac.row_chips)
        #: what a step of the muxes needs until conversions see it in full
        self.settle_s = profile.mux.settle_s + profile.tia.settle_s
        self._status, self._nop = (dac80508.BY_NAME[name].address for name in ("STATUS", "NOP"))
        self.gate_chip, self.gate_channel = dac.gate_channel
        self.bias_chip, self.bias_channel = dac.source_line_channel

    # DAC bus

    def spi(self, chips: int | NDArray[np.int64], frame: int | NDArray[np.int64]) -> Words:
        """Frames at the write clock, in the profile's frame length."""
        words = pack("SPI", chips=chips, frame=frame, long=int(self.profile.dac.crc), capture=0, slow=0)
        return np.atleast_1d(np.asarray(words, np.uint64))

    def store(self, chip: int, channel: int, code: int) -> Words:
        """Write one channel's code."""
        frame = dac80508.write_frame(dac_address(channel), code, crc=self.profile.dac.crc)
        return self.spi(1 << chip, frame)

    def store_rows(self, muxes: NDArray[np.intp], codes: NDArray[np.int64]) -> Words:
        """Write codes of the row channels of some muxes; they wait for `load`."""
        if not len(muxes):
            return np.zeros(0, np.uint64)
        chips, channels = self.channels[muxes].T
        first = dac80508.BY_NAME["DAC0"].address
        frames = dac80508.write_frame(first + channels, codes, crc=self.profile.dac.crc)
        return self.spi(1 << chips.astype(np.int64), frames)

    def load(self) -> Words:
        """Let all row channels take their stored codes, at the same time."""
        return self.spi(self.row_chips, dac80508.ldac_frame(self.profile.dac.crc))

    def all_rows(self, code: int) -> Words:
        """All channels of all row chips at one code, at once."""
        address = dac80508.BY_NAME["BRDCAST"].address
        return self.spi(self.row_chips, dac80508.write_frame(address, code, crc=self.profile.dac.crc))

    def rows_at(self, codes: NDArray[np.int64]) -> Words:
        """Bring the row channels to codes, shape (muxes,): by one frame if all are the same."""
        if (codes == codes[0]).all():
            return self.all_rows(int(codes[0]))
        return np.concatenate([self.store_rows(np.arange(len(codes)), codes), self.load()])

    # Chains

    def shift_rows(self, position: NDArray[np.intp]) -> Words:
        """Shift mux settings, shape (P, muxes), into the row chain; one row of words per phase."""
        bits = np.zeros((len(position), self.row_chain.n_bits), np.uint8)
        bits[:, : self.bank.n_bits] = self.bank.encode(position)
        return self._shift(ROW_CHAIN, self.row_chain.words(bits))

    def shift_word_lines(self, word_lines: NDArray[np.bool_]) -> Words:
        """Shift one set of word lines, shape (cols,)."""
        bits = np.zeros((1, self.word_line_chain.n_bits), np.uint8)
        bits[0, : self.profile.cols] = word_lines
        return self._shift(WORD_LINE_CHAIN, self.word_line_chain.words(bits))[0]

    def idle_position(self) -> NDArray[np.intp]:
        """All muxes off, or at their first position where they cannot be switched off; shape (1, muxes)."""
        return np.full((1, self.profile.mux.count), OFF if self.profile.mux.inhibit else 0)

    @staticmethod
    def _shift(chain: int, packed: NDArray[np.uint8]) -> Words:
        """SHIFT words for chain contents, most significant byte first, shape (P, bytes); the first one is short."""
        n, n_bytes = packed.shape
        n_words = -(-n_bytes // _PIECE_BYTES)
        padded = np.zeros((n, n_words, 8), np.uint8)
        flat = np.zeros((n, n_words * _PIECE_BYTES), np.uint8)
        flat[:, n_words * _PIECE_BYTES - n_bytes :] = packed
        padded[:, :, 2:] = flat.reshape(n, n_words, _PIECE_BYTES)
        data = padded.view(">u8")[..., 0].astype(np.uint64)
        count = np.full(n_words, 8 * _PIECE_BYTES)
        count[0] = 8 * (n_bytes - (n_words - 1) * _PIECE_BYTES)
        return pack("SHIFT", data=data, count=count, chain=chain)

    # Phases

    def phases(
        self,
        position: NDArray[np.intp],
        scans: Sequence[tuple[int, int]],
        *,
        repeat: int,
        lanes: int,
        overwrite: NDArray[np.bool_],
        emit: NDArray[np.bool_],
        stores: Sequence[Words] | None = None,
        settle_s: float | None = None,
    ) -> Words:
        """One phase after the other.

        Args:
            position: mux settings, shape (P, muxes).
            scans: (first, count) of source-line mux positions, in order.
            repeat: conversions of each position.
            lanes: ADCs whose sums are emitted.
            overwrite: whether a phase starts new sums, shape (P,).
            emit: whether it gives the sums out, shape (P,).
            stores: DAC frames of each phase, to be loaded with its latch; None where the DACs stay as they are.
            settle_s: time before the first conversion starts; None: what muxes and amplifiers need.
        """
        no_dac_s = self.settle_s if settle_s is None else settle_s
        shifts = self.shift_rows(position)
        ready = pack("WAITFOR", engines=int(Engine.CHAIN | Engine.SPI | Engine.INPUTS_FREE))
        head = [ready, pack("LATCH", chains=ROW_LATCH)]
        select = pack("SELECT", position=scans[0][0])
        converts = np.stack(
            [
                pack("CONVERT", first=first, count=count, repeat=repeat, lanes=lanes, overwrite=overwrite, emit=emit)
                for first, count in scans
            ],
            axis=1,
        )
        if stores is None:
            middle = np.array([*head, select, pack("SETTLE", ticks=ticks_of(no_dac_s))], np.uint64)
            return np.hstack([shifts, np.broadcast_to(middle, (len(shifts), len(middle))), converts]).ravel()
        load = np.array([*head, *self.load(), select, pack("WAITFOR", engines=int(Engine.SPI))], np.uint64)
        settle = np.array([pack("SETTLE", ticks=ticks_of(no_dac_s + self.profile.dac.settle_s))], np.uint64)
        keep = np.array([*head, select, pack("SETTLE", ticks=ticks_of(no_dac_s))], np.uint64)
        parts: list[Words] = []
        for k, frames in enumerate(stores):
            parts += [shifts[k], frames, *((load, settle) if len(frames) else (keep,)), converts[k]]
        return np.concatenate(parts)

    # Pins

    def drive(self, source_lines: SourceLines, *, gate: bool, outputs: bool = True) -> Words:
        """Set the static pins."""
        word = pack("DRIVE", outputs=int(outputs), source_lines=int(source_lines), gate=int(gate))
        return np.array([word], np.uint64)

    def arm(self) -> Words:
        """Arm the watchdog."""
        return self.word("WATCHDOG", ticks=ticks_of(self.profile.limits.watchdog_s))

    def wait_for(self, engines: Engine) -> Words:
        return self.word("WAITFOR", engines=int(engines))

    def wait(self, time_s: float) -> Words:
        return self.word("WAIT", ticks=ticks_of(time_s))

    @staticmethod
    def word(name: str, **fields: int) -> Words:
        """One word."""
        return np.array([pack(name, **fields)], np.uint64)

    # Frames of a program

    def open_reads(self, word_lines: NDArray[np.bool_], levels: Iterable[Words]) -> Words:
        """Get ready to read: lines quiet, DACs at `levels`, then source lines at the TIAs, word lines last."""
        return np.concatenate(
            [
                self.arm(),
                self.drive(SourceLines.TIA, gate=False),
                *levels,
                self.shift_word_lines(word_lines),
                self.wait_for(Engine.CHAIN | Engine.SPI),
                self.word("LATCH", chains=WORD_LINE_LATCH),
                self.wait(self.profile.dac.settle_s + _LINES_SETTLE_S),
                self.drive(SourceLines.TIA, gate=True),
            ]
        )

    def close_reads(self) -> Words:
        """Word lines off first, then all rows off; where they cannot be switched off, at the idle level."""
        return np.concatenate(
            [
                self.shift_rows(self.idle_position())[0],
                self.wait_for(Engine.CHAIN | Engine.SPI | Engine.ADC),
                self.drive(SourceLines.TIA, gate=False),
                self.word("LATCH", chains=ROW_LATCH),
                *(() if self.profile.mux.inhibit else (self.rows_at(self.idle_codes),)),
            ]
        )

    def health(self) -> Words:
        """Read STATUS of every DAC into the result stream: a chip that died or lost its reference is found."""
        crc = self.profile.dac.crc
        frames = (dac80508.read_frame(self._status, crc=crc), dac80508.write_frame(self._nop, 0, crc=crc))
        chips = 1 << np.repeat(np.arange(self.profile.dac.chips), 2)
        words: Words = pack(
            "SPI",
            chips=chips,
            frame=np.tile(frames, self.profile.dac.chips),
            long=int(crc),
            capture=np.tile([0, 1], self.profile.dac.chips),
            slow=1,
        )
        return words

    def check_health(self, replies: NDArray[np.uint32]) -> None:
        """Raise `DeviceError` naming the chips whose STATUS is not good."""
        found = {chip: self._trouble(reply) for chip, reply in enumerate(replies.tolist())}
        failed = [f"DAC80508 chip {chip}: {text}" for chip, text in found.items() if text]
        if failed:
            raise DeviceError(
                f"after a program, {'; '.join(failed)}",
                fix="see docs/how-to/find-a-board-fault.md; nothing of this result was used",
            )

    def _trouble(self, reply: int) -> str:
        try:
            status = dac80508.decode_reply(reply, self._status, crc=self.profile.dac.crc)
        except ProtocolError as error:
            return error.what
        return "STATUS.REF_ALM is set: no headroom, all outputs at 0 V" if status & dac80508.REF_ALM else ""

    def halt(self) -> Words:
        """End of the program."""
        return self.word("HALT", code=0)
