"""Power-up sequence and self-test of a board.

Order: the fabric makes the array safe, outputs disabled; every DAC is identified, configured and read back; the chains
are cleared and get their idle content; only then are outputs enabled. The ADCs are then looked at with idle rows, and
each mux with one row at read voltage. All parts are tested before an error lists those that failed. A part that serves
some lines only, and without which the others can be used, is told together with these lines (`Finding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivers.dac80508 import CHANNELS, RESET_WAIT_S, Dac80508
from firmware_bridge.electrics import converter_name
from firmware_bridge.instructions import Engine, SourceLines, unpack_sums
from firmware_bridge.phases import OFF
from firmware_bridge.programs import ROW_LATCH, WORD_LINE_LATCH, Blocks, Words
from firmware_bridge.sequencer import Sequencer, SequencerSpi, program
from hil.backend import Check
from hil.errors import DeviceError, ProtocolError

#: conversions averaged for the zero code of each column
ZERO_REPEAT = 64
#: an idle input further from its nominal code than this is a fault, LSB (offsets of TIA and ADC are below 50)
_IDLE_TOLERANCE_CODE = 300
#: patterns written to a DAC's data registers and read back, as stored codes that never reach an output
_PATTERNS = (0x5555, 0xAAAA)
_SELF_TEST_REPEAT = 16
#: columns looked at by the self-test of the muxes, at least
_SELF_TEST_COLS = 16
#: a row draws at least this much more than an idle one, mean over the tested columns (unformed cells at 0.2 V: 3.6)
_CONDUCTS_CODE = 1.0
#: columns further than this from their zero code with idle rows are driven by one that is not idle: a formed cell at
#: the idle level against ground draws thrice as much, amplified offsets below a third
_ASTRAY_CODE = 1000.0
#: positions of one mux that differ by less than this fraction are one and the same row
_ALIKE = 0.1
#: variance between positions, over that of noise, above which there are several rows
_OTHER_ROWS = 4.0
#: below this largest code difference cells are too alike to tell positions apart
_DISTINCT_CODE = 100.0


#: runs of lines that a message names
_NAMED_RUNS = 12

Lines = NDArray[np.intp]


def _no_lines() -> Lines:
    return np.zeros(0, np.intp)


@dataclass(frozen=True, eq=False)
class Finding:
    """Verdict on one part.

    Attributes:
        check: the verdict.
        rows, cols: lines that are lost if the part failed and the board is used without it; none where it cannot be.
    """

    check: Check
    rows: Lines = field(default_factory=_no_lines)
    cols: Lines = field(default_factory=_no_lines)

    @property
    def can_be_left_out(self) -> bool:
        return bool(len(self.rows) or len(self.cols))

    @property
    def lines(self) -> str:
        """The lost lines, as a person would name them."""
        return " and ".join(
            f"{kind}{'s' * (len(lines) > 1)} {named(lines)}"
            for kind, lines in (("row", self.rows), ("column", self.cols))
            if len(lines)
        )


def named(lines: Lines) -> str:
    """Numbers in few words: `3, 8 to 15`, or `2 to 506 in steps of 8`."""
    steps = np.diff(lines)
    if len(lines) > 3 and steps[0] > 1 and (steps == steps[0]).all():
        return f"{lines[0]} to {lines[-1]} in steps of {steps[0]}"
    runs = np.split(lines, np.flatnonzero(steps != 1) + 1)
    found = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    more = f" and {sum(map(len, runs[_NAMED_RUNS:]))} more" if len(runs) > _NAMED_RUNS else ""
    return ", ".join(found[:_NAMED_RUNS]) + more


@dataclass(frozen=True)
class IdleCodes:
    """What the ADCs read with idle rows.

    Attributes:
        zero_code: mean per column, shape (cols,).
        broken: columns with wrong frames, shape (cols,).
        clipped: columns at the end of their converter's range, shape (cols,).
    """

    zero_code: NDArray[np.float64]
    broken: NDArray[np.bool_]
    clipped: NDArray[np.bool_]


def start_dacs(sequencer: Sequencer, blocks: Blocks) -> list[Check]:
    """Identify, configure and read back every DAC; outputs stay at 0 V."""
    sequencer.run(program(blocks.wait(RESET_WAIT_S).tolist()), 0)
    dac = blocks.profile.dac
    found: list[Check] = []
    for chip in range(dac.chips):
        role = "row drive" if chip in dac.row_chips else "word lines and source-line bias"
        part = f"DAC80508 chip {chip} ({role})"
        driver = Dac80508(
            SequencerSpi(sequencer),
            chip,
            output_range=blocks.range,
            variant=dac.variant,
            reference=dac.reference,
        )
        try:
            identity = driver.identify()
            if dac.crc:
                driver.enable_crc()
            # All channels wait for LDAC while the patterns are written.
            driver.configure()
            _check_reference(driver)
            for pattern in _PATTERNS:
                for channel in range(CHANNELS):
                    driver.set_code(channel, pattern ^ channel)
                for channel in range(CHANNELS):
                    driver.verify(f"DAC{channel}", pattern ^ channel)
            driver.broadcast(0)
            if chip not in dac.row_chips:
                driver.configure(sync_channels=0)
            found.append(Check(part, ok=True, text=f"id 0x{identity:04X}, read-back good, reference good"))
        except (DeviceError, ProtocolError) as error:
            if sequencer.aborted.is_set():
                raise
            found.append(Check(part, ok=False, text=error.what))
    return found


def _check_reference(driver: Dac80508) -> None:
    if driver.reference_alarm():
        raise DeviceError(
            f"{driver}: STATUS.REF_ALM is set: the supply leaves the reference no headroom, all outputs are at 0 V",
            fix="raise the supply of the DACs",
        )


def start_lines(sequencer: Sequencer, blocks: Blocks) -> None:
    """Put idle content into the chains, idle levels on the rows, and enable the outputs; word lines stay off."""
    closed = np.zeros(blocks.profile.cols, np.bool_)
    gate_code = blocks.range.code(blocks.profile.limits.v_gate_read_v)
    words: Sequence[Words] = (
        blocks.arm(),
        blocks.word("CLEAR", chains=ROW_LATCH | WORD_LINE_LATCH),
        blocks.shift_rows(blocks.idle_position())[0],
        blocks.shift_word_lines(closed),
        blocks.wait_for(Engine.CHAIN),
        blocks.word("LATCH", chains=ROW_LATCH | WORD_LINE_LATCH),
        blocks.rows_at(blocks.idle_codes),
        blocks.store(blocks.gate_chip, blocks.gate_channel, gate_code),
        blocks.wait_for(Engine.SPI),
        blocks.wait(blocks.profile.dac.settle_s),
        blocks.drive(SourceLines.TIA, gate=False),
        blocks.wait(blocks.profile.tia.settle_s),
        blocks.halt(),
    )
    sequencer.run(np.concatenate(words), 0)


def measure_idle(sequencer: Sequencer, blocks: Blocks) -> IdleCodes:
    """Convert every column with all rows idle."""
    adc = blocks.profile.adc
    words = np.concatenate(
        [
            blocks.open_reads(np.zeros(blocks.profile.cols, np.bool_), ()),
            blocks.phases(
                blocks.idle_position(),
                [(0, adc.positions)],
                repeat=ZERO_REPEAT,
                lanes=(1 << adc.count) - 1,
                overwrite=np.ones(1, np.bool_),
                emit=np.ones(1, np.bool_),
            ),
            blocks.close_reads(),
            blocks.halt(),
        ]
    )
    found = sequencer.run(words, adc.positions * adc.count).reshape(adc.positions, adc.count)
    sums, clipped, broken = unpack_sums(found)
    cols = np.arange(blocks.profile.cols)
    here = blocks.profile.column_position(cols), blocks.profile.column_lane(cols)
    return IdleCodes(sums[here] / ZERO_REPEAT, broken[here], clipped[here])


def check_adcs(blocks: Blocks, idle: IdleCodes) -> list[Finding]:
    """Judge every ADC by its idle codes."""
    adc = blocks.profile.adc
    nominal = adc.converter.code(blocks.profile.tia.v_common_v)
    lanes = blocks.profile.column_lane(np.arange(blocks.profile.cols))
    found: list[Finding] = []
    for lane in range(adc.count):
        cols = np.flatnonzero(lanes == lane)
        codes = idle.zero_code[cols]
        off = np.abs(codes - nominal)
        largest = float(off.max(initial=0.0))
        lost = idle.broken[cols] | idle.clipped[cols] | (off > _IDLE_TOLERANCE_CODE)
        where = f" on {'columns' if lost.sum() > 1 else 'column'} {named(cols[lost])}" if not lost.all() else ""
        always = f"; it gives {codes[0]:.0f} on every column" if len(codes) > 1 and np.ptp(codes) == 0 else ""
        if idle.broken[cols].any():
            text = f"frames have wrong null or dummy bits: DOUT stuck high or not driven{where}"
        elif idle.clipped[cols].any():
            text = f"clips while its inputs are idle, at code {codes[off.argmax()]:.0f}{always}{where}"
        elif lost.any():
            text = (
                f"idle code is {largest:.0f} LSB from its nominal {nominal}{always}: stuck, or TIA level wrong{where}"
            )
        else:
            text = f"idle code within {largest:.0f} LSB of {nominal}"
        found.append(Finding(Check(converter_name(lane), ok=not lost.any(), text=text), cols=cols[lost]))
    return found


def check_muxes(
    sequencer: Sequencer, blocks: Blocks, v_read_v: float, idle: IdleCodes, col_ok: NDArray[np.bool_]
) -> list[Finding]:
    """Put one row after the other at read voltage and look whether the right current flows.

    Every mux is tried at every position and, where INH is wired, switched off. One row at a time is above the idle
    level, so that no cell sees more than the read voltage; a channel that gives nothing puts its row at ground.

    Args:
        sequencer, blocks: the board.
        v_read_v: read voltage.
        idle: codes with word lines off.
        col_ok: columns that can be read, shape (cols,); the others are not looked at.
    """
    mux = blocks.profile.mux
    test = _Test(sequencer, blocks, v_read_v, idle, col_ok)
    drawn = np.stack([test.drawn(p) for p in range(mux.width)])
    conducts = drawn.mean(axis=2) > _CONDUCTS_CODE
    closed = np.zeros(mux.count, np.bool_)
    if mux.inhibit:
        closed = test.drawn(OFF).mean(axis=1) > _CONDUCTS_CODE
    stuck: dict[int, bool | None] = dict.fromkeys(range(mux.count), False)
    if suspects := [m for m in range(mux.count) if _shows_one_row(drawn[:, m])]:
        again = np.stack([test.drawn(p) for p in range(mux.width)])
        stuck |= {m: _is_stuck(drawn, again, m) for m in suspects}
    found: list[Finding] = []
    for m in range(mux.count):
        ok, text = _judge_mux(drawn[:, m], conducts[:, m], bool(closed[m]), bool(conducts.any()), stuck[m])
        rows = mux.width * m + np.flatnonzero(~conducts[:, m])
        lost = ok is False and not closed[m]
        found.append(Finding(Check(f"CD4051B mux {m}", ok, text), rows=rows if lost else _no_lines()))
    return [*found, *_check_answers(blocks, test.cols, drawn[conducts]), *_check_idle_rows(mux.inhibit, test.astray)]


def _shows_one_row(drawn: NDArray[np.float64]) -> bool:
    """Whether all positions look much alike: stuck selects do, and so do rows that were programmed alike."""
    largest = np.abs(drawn).max(initial=0.0)
    return len(drawn) > 1 and largest > _DISTINCT_CODE and bool(np.abs(drawn - drawn[0]).max() < _ALIKE * largest)


def _is_stuck(drawn: NDArray[np.float64], again: NDArray[np.float64], m: int) -> bool | None:
    """Whether one row stands behind all positions of a mux; None where that cannot be told.

    One row differs from itself by noise only, which two looks at each position show; rows that were programmed alike
    differ by more.
    """
    noise = np.mean((drawn[:, m] - again[:, m]) ** 2) / 4.0
    mean = 0.5 * (drawn[:, m] + again[:, m])
    between = np.mean(np.var(mean, axis=0, ddof=1))
    if between > _OTHER_ROWS * noise:
        return False
    # On an array whose rows are alike everywhere, nothing follows from that.
    everywhere = drawn.reshape(-1, drawn.shape[2])
    return None if _shows_one_row(everywhere) else True


def _judge_mux(
    drawn: NDArray[np.float64], conducts: NDArray[np.bool_], closed: bool, any_conducts: bool, stuck: bool | None
) -> tuple[bool | None, str]:
    """Verdict on one mux from what it draws at each position, shape (positions, tested columns)."""
    largest = np.abs(drawn).max(initial=0.0)
    if closed:
        return False, "conducts although INH is set: stuck on"
    if not any_conducts:
        return None, "not tested: no cell of the array conducts"
    if not conducts.any():
        text = "draws no current at any position: stuck off, or its DAC channel gives nothing"
        backwards = drawn.mean() < -_CONDUCTS_CODE
        return False, f"{text} (current flows backwards: the channel is below the idle level)" if backwards else text
    if not conducts.all():
        return False, f"draws no current at positions {np.flatnonzero(~conducts).tolist()}"
    if stuck:
        return False, "shows the same row at every position: selects stuck"
    if stuck is None:
        return None, "conducts at every position; all rows of the array are too alike to tell positions apart"
    if largest <= _DISTINCT_CODE:
        return True, "conducts at every position; cells too alike to tell positions apart"
    return True, "conducts at every position"


def _check_answers(blocks: Blocks, cols: Lines, drawn: NDArray[np.float64]) -> list[Finding]:
    """Lanes that see no current from any row although others do; `drawn` has shape (rows, tested columns).

    Unformed cells draw little, or nothing that can be told from noise; a lane that is stuck has no noise either.
    """
    if np.abs(drawn).max(initial=0.0) <= _DISTINCT_CODE:
        return []
    every = np.arange(blocks.profile.cols)
    tested, lanes = blocks.profile.column_lane(cols), blocks.profile.column_lane(every)
    found: list[Finding] = []
    for lane in np.unique(tested).tolist():
        seen = drawn[:, tested == lane]
        if seen.mean() > _CONDUCTS_CODE:
            continue
        if np.ptp(seen) == 0:
            text = "does not answer to current although others do: stuck"
            found.append(Finding(Check(converter_name(lane), ok=False, text=text), cols=every[lanes == lane]))
        else:
            text = "sees no current: its columns have no formed cell, or its line is open"
            found.append(Finding(Check(converter_name(lane), ok=None, text=text)))
    return found


def _check_idle_rows(inhibit: bool, astray: list[int]) -> list[Finding]:
    """A row that nothing cuts off and that is not at the idle level: its cells are under bias in every read."""
    if inhibit or not astray:
        return []
    text = (
        f"columns carry current with all rows idle, with the muxes at positions {astray}: a DAC channel gives nothing, "
        "and without INH nothing cuts its rows off"
    )
    return [Finding(Check("row drive", ok=False, text=text))]


class _Test:
    """Looks by how many codes some columns fall when rows are raised to the read voltage.

    Attributes:
        cols: columns that are looked at.
        astray: mux positions at which some of these carry current although all rows are told to be idle.
    """

    def __init__(
        self, sequencer: Sequencer, blocks: Blocks, v_read_v: float, idle: IdleCodes, col_ok: NDArray[np.bool_]
    ) -> None:
        profile = blocks.profile
        self._sequencer, self._blocks, self._v_read_v = sequencer, blocks, v_read_v
        adc = profile.adc
        every = np.arange(profile.cols)
        self._positions = np.unique(np.linspace(0, adc.positions - 1, -(-_SELF_TEST_COLS // adc.count)).astype(int))
        self.cols = every[np.isin(profile.column_position(every), self._positions) & col_ok]
        if not len(self.cols):
            # Those that happened to be chosen are dead: any that live do.
            self.cols = every[col_ok][:_SELF_TEST_COLS]
            self._positions = np.unique(profile.column_position(self.cols))
        self._place = np.searchsorted(self._positions, profile.column_position(self.cols))
        self._lane = profile.column_lane(self.cols)
        self._open = np.isin(every, self.cols)
        self._zero = idle.zero_code[self.cols]
        self.astray: list[int] = []

    def drawn(self, position: int) -> NDArray[np.float64]:
        """What the row of each mux at this position draws, in codes, relative to all rows idle.

        Returns:
            Shape (muxes, tested columns).
        """
        profile, blocks = self._blocks.profile, self._blocks
        count, lanes = profile.mux.count, profile.adc.count
        on_codes = blocks.trim.codes(profile.tia.v_common_v + self._v_read_v)
        # Phase 0 has every row idle; phase m + 1 raises the row of mux m and lets that of mux m - 1 fall.
        stores = [blocks.store_rows(np.zeros(0, np.intp), np.zeros(0, np.int64))]
        for m in range(count):
            before = np.arange(m - 1, m)[m == 0 :]
            raised = np.append(before, m)
            stores.append(blocks.store_rows(raised, np.append(blocks.idle_codes[before], on_codes[m])))
        positions = np.full((count + 1, count), position)
        if profile.mux.inhibit and position != OFF:
            # One row at a time is connected, so that a channel that is astray does not hide the others.
            positions = np.full((count + 1, count), OFF)
            positions[np.arange(1, count + 1), np.arange(count)] = position
        words = np.concatenate(
            [
                blocks.open_reads(self._open, (blocks.rows_at(blocks.idle_codes),)),
                blocks.phases(
                    positions,
                    [(int(p), 1) for p in self._positions],
                    repeat=_SELF_TEST_REPEAT,
                    lanes=(1 << lanes) - 1,
                    overwrite=np.ones(count + 1, np.bool_),
                    emit=np.ones(count + 1, np.bool_),
                    stores=stores,
                ),
                # Broadcasts move the outputs at once, in the middle of a conversion too.
                blocks.wait_for(Engine.ADC),
                blocks.rows_at(blocks.idle_codes),
                blocks.close_reads(),
                blocks.halt(),
            ]
        )
        found = self._sequencer.run(words, (count + 1) * len(self._positions) * lanes)
        sums, _, _ = unpack_sums(found.reshape(count + 1, len(self._positions), lanes))
        codes = sums[:, self._place, self._lane] / _SELF_TEST_REPEAT
        # One column may be shorted; a row that is not idle draws on every column that it has a formed cell on.
        off = np.sort(np.abs(codes[0] - self._zero))[-2:]
        if position not in (OFF, *self.astray) and off[0] > _ASTRAY_CODE:
            self.astray.append(position)
        return codes[:1] - codes[1:]
