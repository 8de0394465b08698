"""Programs for instruments on the bench: a row that is held at a level, and a column that sees a row step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drivers.ads8324 import HOLD_CLOCKS
from drivers.dac80508 import FRAME_BITS, FRAME_BITS_CRC
from firmware_bridge.electrics import half_period_ticks
from firmware_bridge.instructions import TICK_S, Engine, SourceLines
from firmware_bridge.programs import ROW_LATCH, WORD_LINE_LATCH, Blocks, Words

#: what the fabric spends on issuing a word, and on chip select around a DAC frame, ticks
_ISSUE_TICKS, _SELECT_TICKS = 2, 8
#: a row rests between two steps for so many times what the profile says that it needs to settle
_REST = 4


def positions(blocks: Blocks, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Mux settings that connect each of `rows` (n,) and nothing else, as far as the wiring can; shape (n, muxes).

    Row -1 stands for none.
    """
    profile = blocks.profile
    here = np.flatnonzero(rows >= 0)
    mux, place = profile.row_mux(rows[here]), profile.row_position(rows[here])
    found = np.repeat(blocks.idle_position(), len(rows), axis=0)
    if profile.mux.selects == "common" and not profile.mux.inhibit:
        found[here] = place[:, None]
    found[here, mux] = place
    return found


def hold(blocks: Blocks, row: int, voltage_v: float) -> Words:
    """Put a row at a level, all word lines off, and end so: the watchdog, which HALT disarms, does not take it away."""
    profile = blocks.profile
    mux = int(profile.row_mux(row))
    codes = blocks.idle_codes.copy()
    codes[mux] = blocks.trim.codes(voltage_v)[mux]
    return np.concatenate(
        [
            *_lines_off(blocks),
            blocks.rows_at(codes),
            blocks.shift_rows(positions(blocks, np.array([row])))[0],
            blocks.wait_for(Engine.CHAIN | Engine.SPI),
            blocks.word("LATCH", chains=ROW_LATCH),
            blocks.wait(profile.dac.settle_s + blocks.settle_s),
        ]
    )


def release(blocks: Blocks) -> Words:
    """All rows off and at the idle level, word lines off."""
    return np.concatenate(
        [
            *_lines_off(blocks),
            blocks.shift_rows(blocks.idle_position())[0],
            blocks.wait_for(Engine.CHAIN),
            blocks.word("LATCH", chains=ROW_LATCH),
            blocks.rows_at(blocks.idle_codes),
            blocks.wait_for(Engine.SPI),
            blocks.wait(blocks.profile.dac.settle_s),
        ]
    )


def _lines_off(blocks: Blocks) -> tuple[Words, ...]:
    closed = np.zeros(blocks.profile.cols, np.bool_)
    return (
        blocks.arm(),
        blocks.drive(SourceLines.TIA, gate=False),
        blocks.shift_word_lines(closed),
        blocks.wait_for(Engine.CHAIN),
        blocks.word("LATCH", chains=WORD_LINE_LATCH),
    )


class Steps:
    """A row steps from idle to a level, again and again, and a column is converted a time after each step.

    The step is what makes a row driven in a multiplication: its mux connects it to the channel, which stands at the
    level; where the mux cannot be switched off, the channel steps.

    Args:
        blocks: the board.
        row: the row.
        v_read_v: level above idle.
        settle_s: from the step to the moment at which the converter holds its input.
    """

    def __init__(self, blocks: Blocks, row: int, v_read_v: float, settle_s: float) -> None:
        profile = blocks.profile
        self._blocks = blocks
        self._by_mux = profile.mux.inhibit
        mux = np.array([profile.row_mux(row)])
        level = blocks.trim.codes(profile.tia.v_common_v + v_read_v)[mux]
        self._connected = positions(blocks, np.array([row]))
        self._start_codes = blocks.idle_codes.copy()
        if self._by_mux:
            self._start_codes[mux] = level
        apart, stepping = blocks.idle_position(), blocks.word("LATCH", chains=ROW_LATCH)
        off = [blocks.shift_rows(apart)[0], blocks.wait_for(Engine.CHAIN | Engine.ADC), stepping]
        ready = [blocks.shift_rows(self._connected)[0]]
        lead_ticks = 0
        if not self._by_mux:
            stepping = blocks.load()
            off = [blocks.store_rows(mux, blocks.idle_codes[mux]), blocks.wait_for(Engine.SPI | Engine.ADC), stepping]
            ready = [blocks.store_rows(mux, level)]
            n_bits = FRAME_BITS_CRC if profile.dac.crc else FRAME_BITS
            lead_ticks = 2 * n_bits * half_period_ticks(profile.dac.write_clock_hz) + _SELECT_TICKS
        self._step = stepping
        # The step before must be forgotten.
        rest_s = max(settle_s, _REST * (blocks.settle_s + (0.0 if self._by_mux else profile.dac.settle_s)))
        self._before = np.concatenate(
            [*off, blocks.wait_for(Engine.SPI), blocks.wait(rest_s), *ready, blocks.wait_for(Engine.CHAIN | Engine.SPI)]
        )
        #: time that one step takes, about
        self.duration_s = rest_s + settle_s
        hold_ticks = 2 * HOLD_CLOCKS * half_period_ticks(profile.adc.clock_hz)
        #: ticks from the step to the start of the conversion; below zero the conversion starts first
        self._gap_ticks = round(settle_s / TICK_S) + lead_ticks - hold_ticks

    @property
    def n_words(self) -> int:
        """Words of one step, at most."""
        return len(self._before) + len(self._step) + 2

    def open(self) -> Words:
        """Get ready, with no column open."""
        blocks = self._blocks
        closed = np.zeros(blocks.profile.cols, np.bool_)
        words = [blocks.open_reads(closed, (blocks.rows_at(self._start_codes),))]
        if not self._by_mux:
            words += [blocks.shift_rows(self._connected)[0], blocks.wait_for(Engine.CHAIN)]
            words.append(blocks.word("LATCH", chains=ROW_LATCH))
        return np.concatenate(words)

    def column(self, col: int, n: int) -> Words:
        """One column and no other: its sum over `n` steps."""
        blocks, profile = self._blocks, self._blocks.profile
        position, lane = int(profile.column_position(col)), int(profile.column_lane(col))
        only = np.zeros(profile.cols, np.bool_)
        only[col] = True
        words = [
            blocks.shift_word_lines(only),
            blocks.wait_for(Engine.CHAIN | Engine.ADC),
            blocks.word("LATCH", chains=WORD_LINE_LATCH),
            blocks.word("SELECT", position=position),
        ]
        for k in range(n):
            ends = {"overwrite": int(k == 0), "emit": int(k == n - 1)}
            convert = blocks.word("CONVERT", first=position, count=1, repeat=1, lanes=1 << lane, **ends)
            pair = (self._step, convert) if self._gap_ticks >= 0 else (convert, self._step)
            wait_ticks = abs(self._gap_ticks) - 2 * _ISSUE_TICKS
            between = blocks.word("WAIT", ticks=wait_ticks) if wait_ticks > 0 else np.zeros(0, np.uint64)
            words += [self._before, pair[0], between, pair[1]]
        return np.concatenate(words)

    def close(self) -> Words:
        """Column and row off."""
        blocks = self._blocks
        idle = () if self._by_mux else (blocks.wait_for(Engine.ADC), blocks.rows_at(blocks.idle_codes))
        return np.concatenate([*idle, blocks.close_reads()])
