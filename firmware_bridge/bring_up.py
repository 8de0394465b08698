"""Power-up sequence and self-test of a board.

Order: the fabric makes the array safe, outputs disabled; every DAC is identified, configured and read back; the chains
are cleared and get their idle content; only then are outputs enabled. The ADCs are then looked at with idle rows, and
each mux with one row at read voltage. All parts are tested before an error lists those that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.dac80508 import CHANNELS, RESET_WAIT_S, Dac80508
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
#: positions of one mux that differ by less than this fraction are one and the same row
_ALIKE = 0.1
#: variance between positions, over that of noise, above which there are several rows
_OTHER_ROWS = 4.0
#: below this largest code difference cells are too alike to tell positions apart
_DISTINCT_CODE = 100.0


@dataclass(frozen=True)
class IdleCodes:
    """What the ADCs read with idle rows.

    Attributes:
        zero_code: mean per column, shape (cols,).
        broken: lanes with wrong frames, shape (lanes,).
        clipped: lanes at the end of their range, shape (lanes,).
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
        blocks.all_rows(blocks.idle_code),
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
    mean = sums[blocks.profile.column_position(cols), blocks.profile.column_lane(cols)] / ZERO_REPEAT
    return IdleCodes(mean, broken.any(axis=0), clipped.any(axis=0))


def check_adcs(blocks: Blocks, idle: IdleCodes) -> list[Check]:
    """Judge every ADC by its idle codes."""
    adc = blocks.profile.adc
    nominal = adc.converter.code(blocks.profile.tia.v_common_v)
    lanes = blocks.profile.column_lane(np.arange(blocks.profile.cols))
    found: list[Check] = []
    for lane in range(adc.count):
        codes = idle.zero_code[lanes == lane]
        off = float(np.abs(codes - nominal).max(initial=0.0))
        always = f"; it gives {codes[0]:.0f} on every column" if len(codes) > 1 and np.ptp(codes) == 0 else ""
        if idle.broken[lane]:
            text = "frames have wrong null or dummy bits: DOUT stuck high or not driven"
        elif idle.clipped[lane]:
            text = f"clips while its inputs are idle, at code {codes[np.abs(codes - nominal).argmax()]:.0f}{always}"
        elif off > _IDLE_TOLERANCE_CODE:
            text = f"idle code is {off:.0f} LSB from its nominal {nominal}{always}: stuck, or TIA level wrong"
        else:
            text = f"idle code within {off:.0f} LSB of {nominal}"
        ok = not (idle.broken[lane] or idle.clipped[lane] or off > _IDLE_TOLERANCE_CODE)
        found.append(Check(f"ADS8324 lane {lane}", ok=ok, text=text))
    return found


def check_muxes(sequencer: Sequencer, blocks: Blocks, v_read_v: float) -> list[Check]:
    """Put one row after the other at read voltage and look whether the right current flows.

    Every mux is tried at every position and, where INH is wired, switched off. One row at a time is above the idle
    level, so that no cell sees more than the read voltage.
    """
    mux = blocks.profile.mux
    drawn = np.stack([_row_codes(sequencer, blocks, p, v_read_v) for p in range(mux.width)])
    conducts = drawn.mean(axis=(2, 3)) > _CONDUCTS_CODE
    closed = np.zeros(mux.count, np.bool_)
    if mux.inhibit:
        closed = _row_codes(sequencer, blocks, OFF, v_read_v).mean(axis=(1, 2)) > _CONDUCTS_CODE
    stuck: dict[int, bool | None] = dict.fromkeys(range(mux.count), False)
    if suspects := [m for m in range(mux.count) if _shows_one_row(drawn[:, m])]:
        again = np.stack([_row_codes(sequencer, blocks, p, v_read_v) for p in range(mux.width)])
        stuck |= {m: _is_stuck(drawn, again, m) for m in suspects}
    found = [
        Check(
            f"CD4051B mux {m}",
            *_judge_mux(drawn[:, m], conducts[:, m], bool(closed[m]), bool(conducts.any()), stuck[m]),
        )
        for m in range(mux.count)
    ]
    return [*found, *_check_answers(drawn)]


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
    everywhere = drawn.reshape(-1, *drawn.shape[2:])
    return None if _shows_one_row(everywhere) else True


def _judge_mux(
    drawn: NDArray[np.float64], conducts: NDArray[np.bool_], closed: bool, any_conducts: bool, stuck: bool | None
) -> tuple[bool | None, str]:
    """Verdict on one mux from what it draws at each position, shape (positions, test positions, lanes)."""
    largest = np.abs(drawn).max(initial=0.0)
    if closed:
        return False, "conducts although INH is set: stuck on"
    if not any_conducts:
        return None, "not tested: no cell of the array conducts"
    if not conducts.any():
        return False, "draws no current at any position: stuck off, or its DAC channel gives nothing"
    if not conducts.all():
        return False, f"draws no current at positions {np.flatnonzero(~conducts).tolist()}"
    if stuck:
        return False, "shows the same row at every position: selects stuck"
    if stuck is None:
        return None, "conducts at every position; all rows of the array are too alike to tell positions apart"
    if largest <= _DISTINCT_CODE:
        return True, "conducts at every position; cells too alike to tell positions apart"
    return True, "conducts at every position"


def _check_answers(drawn: NDArray[np.float64]) -> list[Check]:
    """Lanes that see no current from any row although others do.

    Unformed cells draw little, or nothing that can be told from noise; a lane that is stuck has no noise either.
    """
    if np.abs(drawn).max(initial=0.0) <= _DISTINCT_CODE:
        return []
    by_lane = drawn.reshape(-1, drawn.shape[-1])
    found: list[Check] = []
    for lane in np.flatnonzero(by_lane.mean(axis=0) <= _CONDUCTS_CODE).tolist():
        if np.ptp(by_lane[:, lane]) == 0:
            text = "does not answer to current although others do: stuck"
            found.append(Check(f"ADS8324 lane {lane}", ok=False, text=text))
        else:
            text = "sees no current: its columns have no formed cell, or its line is open"
            found.append(Check(f"ADS8324 lane {lane}", ok=None, text=text))
    return found


def _row_codes(sequencer: Sequencer, blocks: Blocks, position: int, v_read_v: float) -> NDArray[np.float64]:
    """By how many codes each ADC falls when the row of each mux at this position is raised to the read voltage.

    Returns:
        Shape (muxes, test positions, lanes), relative to all rows idle.
    """
    profile = blocks.profile
    count = profile.mux.count
    lanes = profile.adc.count
    tested = np.unique(np.linspace(0, profile.adc.positions - 1, -(-_SELF_TEST_COLS // lanes)).astype(int))
    open_cols = np.isin(profile.column_position(np.arange(profile.cols)), tested)
    on_code = blocks.range.code(profile.tia.v_common_v + v_read_v)
    # Phase 0 has every row idle; phase m + 1 raises the row of mux m and lets that of mux m - 1 fall.
    stores = [blocks.store_rows(np.zeros(0, np.intp), np.zeros(0, np.int64))]
    for m in range(count):
        changed = np.array([m, m - 1])[: 1 + (m > 0)]
        stores.append(blocks.store_rows(changed, np.array([on_code, blocks.idle_code])[: len(changed)]))
    alone = profile.mux.inhibit and profile.mux.selects == "independent" and position != OFF
    positions = np.full((count + 1, count), position)
    if alone:
        positions = np.full((count + 1, count), OFF)
        positions[np.arange(1, count + 1), np.arange(count)] = position
    words = np.concatenate(
        [
            blocks.open_reads(open_cols, (blocks.all_rows(blocks.idle_code),)),
            blocks.phases(
                positions,
                [(int(p), 1) for p in tested],
                repeat=_SELF_TEST_REPEAT,
                lanes=(1 << lanes) - 1,
                overwrite=np.ones(count + 1, np.bool_),
                emit=np.ones(count + 1, np.bool_),
                stores=stores,
            ),
            # Broadcasts move the outputs at once, in the middle of a conversion too.
            blocks.wait_for(Engine.ADC),
            blocks.all_rows(blocks.idle_code),
            blocks.close_reads(),
            blocks.halt(),
        ]
    )
    found = sequencer.run(words, (count + 1) * len(tested) * lanes)
    sums, _, _ = unpack_sums(found.reshape(count + 1, len(tested), lanes))
    codes = sums / _SELF_TEST_REPEAT
    return codes[:1] - codes[1:]
