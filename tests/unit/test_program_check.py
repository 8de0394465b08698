"""The second safety check: nothing reaches the board that could put a cell above its limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drivers import dac80508
from drivers.dac80508 import gain_register_value, ldac_frame, read_frame, soft_reset_frame, write_frame
from firmware_bridge.instructions import PROGRAM_WORDS_MAX, SUM_CONVERSIONS_MAX, TICK_S, Engine, SourceLines, pack
from firmware_bridge.profile import BoardProfile, load_profile, profile_from
from firmware_bridge.program_check import BoardState, check_program
from firmware_bridge.row_trim import RowTrim
from hil.backend import Limits
from hil.errors import HilError, LimitError, ProtocolError

SYNC, CONFIG, GAIN, BRDCAST, DAC0 = (
    dac80508.BY_NAME[name].address for name in ("SYNC", "CONFIG", "GAIN", "BRDCAST", "DAC0")
)
HALT = pack("HALT", code=0)
OFF = -1


def limits_of(profile: BoardProfile, **tighter: float) -> Limits:
    """The profile's own limits, some of them tightened."""
    names = ("v_read_max_v", "v_pulse_max_v", "v_gate_max_v", "pulse_width_max_s", "pulses_per_cell_max")
    return Limits(**{**{name: getattr(profile.limits, name) for name in names}, **tighter})  # type: ignore[arg-type]


def flat(words: Any) -> Iterator[int]:
    """The words of nested lists."""
    if isinstance(words, int):
        yield words
        return
    for item in words:
        yield from flat(item)


class Bench:
    """Words for one board, written out by hand so that they do not share code with what is tested."""

    def __init__(self, profile: BoardProfile) -> None:
        self.profile = profile
        self.limits = limits_of(profile)
        dac = profile.dac
        self.all_chips = (1 << dac.chips) - 1
        self.row_chips = sum(1 << chip for chip in dac.row_chips)
        self.lsb_v = dac.v_reference_v / dac.divide * dac.gain / 65536

    def code(self, voltage_v: float) -> int:
        return round(voltage_v / self.lsb_v)

    def spi(self, chips: int, frame: int, *, long: bool | None = None) -> int:
        long = self.profile.dac.crc if long is None else long
        return pack("SPI", frame=frame, chips=chips, long=int(long), capture=0, slow=0)

    def write(self, chips: int, address: int, value: int) -> int:
        return self.spi(chips, write_frame(address, value, crc=self.profile.dac.crc))

    def all_rows(self, voltage_v: float) -> int:
        return self.write(self.row_chips, BRDCAST, self.code(voltage_v))

    def channel(self, place: tuple[int, int], voltage_v: float) -> list[int]:
        """Bring one output to a voltage: store, then load."""
        chip, channel = place
        load = self.spi(1 << chip, ldac_frame(self.profile.dac.crc))
        return [self.write(1 << chip, DAC0 + channel, self.code(voltage_v)), load]

    def word_line_voltage(self, voltage_v: float) -> list[int]:
        return self.channel(self.profile.dac.gate_channel, voltage_v)

    def bias(self, voltage_v: float) -> list[int]:
        return self.channel(self.profile.dac.source_line_channel, voltage_v)

    def fill(self, chain: int, bits: NDArray[np.bool_]) -> list[int]:
        """Shift a whole chain, last output first, and latch it."""
        chips = (self.profile.chains.rows, self.profile.chains.word_lines)[chain].chips
        padded = np.zeros(8 * chips, np.bool_)
        padded[: len(bits)] = bits
        words = []
        for piece in np.array_split(padded[::-1], -(-len(padded) // 48)):
            data = int("".join("01"[int(bit)] for bit in piece), 2)
            words.append(pack("SHIFT", data=data, count=len(piece), chain=chain))
        return [*words, pack("LATCH", chains=1 << chain)]

    def rows(self, positions: Iterable[int]) -> list[int]:
        """Set the muxes; OFF inhibits."""
        mux = self.profile.mux
        positions = list(positions)
        selects = [[max(p, 0) >> k & 1 for k in range(3)] for p in positions]
        inhibits = [[int(p == OFF)] if mux.inhibit else [] for p in positions]
        bits = [selects[0], inhibits] if mux.selects == "common" else list(zip(selects, inhibits, strict=True))
        return self.fill(0, np.array(list(flat(bits)), np.bool_))

    def word_lines(self, on: Iterable[int]) -> list[int]:
        bits = np.zeros(self.profile.cols, np.bool_)
        bits[list(on)] = True
        return self.fill(1, bits)

    def arm(self) -> int:
        return pack("WATCHDOG", ticks=round(self.profile.limits.watchdog_s / TICK_S))

    def wait_for_spi(self) -> int:
        return pack("WAITFOR", engines=int(Engine.SPI))

    def drive(self, source_lines: SourceLines, *, gate: bool = False, outputs: bool = True) -> int:
        return pack("DRIVE", outputs=int(outputs), source_lines=int(source_lines), gate=int(gate))

    def gate(self, width_s: float = 1e-6) -> int:
        return pack("GATE", ticks=round(width_s / TICK_S))

    def convert(self, **fields: int) -> int:
        return pack("CONVERT", **{"first": 0, "count": 1, "repeat": 1, "lanes": 1, "overwrite": 1, "emit": 1, **fields})

    def check(
        self,
        *words: Any,
        state: BoardState | None = None,
        limits: Limits | None = None,
        trim: RowTrim | None = None,
    ) -> BoardState:
        """Check words and HALT, from the state `ready` if nothing else is said."""
        before = self.ready() if state is None else state
        program = np.array([*flat(words), HALT], np.uint64)
        return check_program(program, self.profile, limits or self.limits, before, trim)

    def trim(self, gain_error: float, offset_v: float) -> RowTrim:
        """All row channels with the same errors."""
        n, dac = self.profile.mux.count, self.profile.dac
        return RowTrim(dac.output_range, self.profile.tia.v_common_v, np.full(n, gain_error), np.full(n, offset_v))

    def configured(self) -> BoardState:
        """DACs reset and configured, chains still garbage."""
        crc, every = self.profile.dac.crc, self.all_chips
        return self.check(
            self.spi(every, soft_reset_frame(False), long=False),
            self.spi(every, soft_reset_frame(True), long=True),
            [self.spi(every, write_frame(CONFIG, dac80508.CRC_EN), long=False)] if crc else [],
            self.write(every, GAIN, gain_register_value(self.profile.dac.divide, self.profile.dac.gain)),
            self.write(every, SYNC, 0xFFFF),
            state=BoardState.unknown(self.profile),
        )

    def ready(self) -> BoardState:
        """Outputs on, rows idle, word lines off."""
        return self.check(
            self.arm(),
            pack("CLEAR", chains=3),
            self.rows(self.idle()),
            self.word_lines([]),
            self.all_rows(self.profile.tia.v_common_v),
            self.word_line_voltage(self.profile.limits.v_gate_read_v),
            self.bias(0.0),
            self.wait_for_spi(),
            self.drive(SourceLines.TIA),
            state=self.configured(),
        )

    def idle(self) -> list[int]:
        return [OFF if self.profile.mux.inhibit else 0] * self.profile.mux.count

    def connected(self) -> list[int]:
        return [1] * self.profile.mux.count

    def reading(self) -> list[Any]:
        """Word lines on, every mux connected, rows idle."""
        return [
            self.arm(),
            self.drive(SourceLines.TIA),
            self.rows(self.connected()),
            self.word_lines(range(self.profile.cols)),
            self.drive(SourceLines.TIA, gate=True),
        ]

    def pulsing(self, source_lines: SourceLines, rows_v: float = 0.0, bias_v: float = 0.0) -> list[Any]:
        """Everything of a programming pulse but GATE: one word line, all muxes connected."""
        return [
            self.arm(),
            self.all_rows(rows_v),
            self.bias(bias_v),
            self.word_line_voltage(1.5),
            self.wait_for_spi(),
            self.drive(source_lines),
            self.rows(self.connected()),
            self.word_lines([0]),
            pack("SETTLE", ticks=500),
        ]


@pytest.fixture(params=["paper-guess", "tiny-8x8"])
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(load_profile(request.param))


# --- what is accepted -----------------------------------------------------------------------------------------------


def test_a_vmm_is_accepted_and_its_end_is_known(bench: Bench) -> None:
    common_v, adc = bench.profile.tia.v_common_v, bench.profile.adc
    phases = [
        [
            bench.rows([p % bench.profile.mux.width] * bench.profile.mux.count),
            pack("WAITFOR", engines=int(Engine.CHAIN | Engine.SPI | Engine.INPUTS_FREE)),
            pack("SETTLE", ticks=500),
            bench.convert(count=adc.positions, lanes=(1 << adc.count) - 1, overwrite=int(p == 0), emit=int(p == 7)),
        ]
        for p in range(8)
    ]
    after = bench.check(
        *bench.reading(),
        bench.all_rows(common_v + bench.limits.v_read_max_v),
        phases,
        bench.drive(SourceLines.TIA),
        bench.all_rows(common_v),
    )
    assert after.outputs
    assert not after.gate
    assert not after.armed
    assert after.source_lines is SourceLines.TIA
    assert after.latched[1] == (1 << bench.profile.cols) - 1
    for chip in bench.profile.dac.row_chips:
        assert after.dacs[chip].outputs == [bench.code(common_v)] * 8


def test_forming_is_accepted_at_the_limits(bench: Bench) -> None:
    limits = bench.limits
    bench.check(
        bench.pulsing(SourceLines.BIAS, bias_v=min(limits.v_pulse_max_v, 4.99)),
        bench.word_line_voltage(min(limits.v_gate_max_v, 4.99)),
        bench.wait_for_spi(),
        bench.gate(limits.pulse_width_max_s),
        bench.gate(bench.profile.limits.pulse_width_min_s),
    )


def test_the_state_given_is_left_as_it_is(bench: Bench) -> None:
    before = bench.ready()
    kept = before.copy()
    bench.check(bench.reading(), bench.all_rows(1.7), state=before)
    assert before == kept


def test_the_longest_program_fits(bench: Bench) -> None:
    bench.check([pack("MARK", tag=1)] * (PROGRAM_WORDS_MAX - 1))


# --- one refusal per rule -------------------------------------------------------------------------------------------

Words = Callable[[Bench], Any]

REFUSALS: dict[str, tuple[type[HilError], str, Words]] = {
    # form of the program
    "no instruction": (ProtocolError, "word 0: .*no known opcode", lambda b: 0xFF << 56),
    "word of zeros": (ProtocolError, "word 0: .*no known opcode", lambda b: 0),
    "bits outside the fields": (ProtocolError, "word 1: LATCH .*outside", lambda b: [b.arm(), (0x21 << 56) | 0x101]),
    "a field below its least": (ProtocolError, "word 0: WAIT field ticks = 0", lambda b: 0x03 << 56),
    "words after HALT": (ProtocolError, "word 0, HALT, is followed", lambda b: HALT),
    "too long": (ProtocolError, "8193.*8192", lambda b: [pack("MARK", tag=1)] * PROGRAM_WORDS_MAX),
    # what the board does not have
    "no such DAC": (ProtocolError, "DAC chip 15 does not exist", lambda b: b.spi(1 << 15, 0, long=False)),
    "no such chain": (ProtocolError, "chain 2 does not exist: this board has 2", lambda b: pack("LATCH", chains=4)),
    "no such chain to clear": (ProtocolError, "chain 3 does not exist", lambda b: pack("CLEAR", chains=8)),
    "no such chain to shift": (ProtocolError, "chain 3", lambda b: pack("SHIFT", data=0, count=1, chain=3)),
    "no such lane": (ProtocolError, "ADC lane 15 does not exist", lambda b: b.convert(lanes=1 << 15)),
    "no such position": (
        ProtocolError,
        r"position (\d+) does not exist: this board has \1",
        lambda b: pack("SELECT", position=b.profile.adc.positions),
    ),
    "a scan beyond the positions": (
        ProtocolError,
        r"position (\d+) does not exist: this board has \1",
        lambda b: b.convert(first=1, count=b.profile.adc.positions),
    ),
    "more bits than a SHIFT has": (ProtocolError, "SHIFT field count = 49", lambda b: 0x20 << 56 | 49 << 48),
    "bits above the count": (ProtocolError, "above count", lambda b: pack("SHIFT", data=4, count=2, chain=0)),
    "a sum too large": (
        ProtocolError,
        f"sum of {SUM_CONVERSIONS_MAX + 1} conversions; it holds {SUM_CONVERSIONS_MAX}",
        lambda b: [b.convert(repeat=0xFFFF), b.convert(repeat=2, overwrite=0)],
    ),
    "adding to an unknown sum": (
        ProtocolError,
        "overwrite=1",
        lambda b: [b.convert(), b.convert(first=1, overwrite=0)],
    ),
    # watchdog and pulse width
    "outputs without watchdog": (ProtocolError, "word 0, DRIVE .*WATCHDOG", lambda b: b.drive(SourceLines.GROUND)),
    "pulse without watchdog": (ProtocolError, "word 0, GATE .*WATCHDOG before", lambda b: b.gate()),
    "watchdog too slow": (
        LimitError,
        "watchdog of .* s is above",
        lambda b: pack("WATCHDOG", ticks=round(b.profile.limits.watchdog_s / TICK_S) + 1),
    ),
    "pulse too long": (
        LimitError,
        "pulse width .* is outside",
        lambda b: [b.arm(), b.gate(b.limits.pulse_width_max_s + TICK_S)],
    ),
    "pulse too short": (
        LimitError,
        "pulse width 9e-08 s is outside 1e-07",
        lambda b: [b.arm(), b.gate(b.profile.limits.pulse_width_min_s - TICK_S)],
    ),
    # bias of reads
    "rows at ground against the common level": (
        LimitError,
        r"word \d+, SPI .*: row \d+ \(DAC chip 0 channel 0, 0 V\) is at -1.6 V against the source lines .*limit 0.5 V",
        lambda b: [b.reading(), b.all_rows(0.0)],
    ),
    "read voltage too high": (LimitError, r"is at \+0.6 V .*limit 0.5 V", lambda b: [b.reading(), b.all_rows(2.2)]),
    "word lines on over wrong rows": (
        LimitError,
        r"DRIVE .* is at \+0.6 V",
        lambda b: [b.all_rows(2.2), b.wait_for_spi(), b.reading()],
    ),
    "latched word lines over wrong rows": (
        LimitError,
        r"LATCH chains=0x2: row .* is at \+0.6 V",
        lambda b: [
            *(b.arm(), b.all_rows(2.2), b.wait_for_spi(), b.rows(b.connected())),
            *(b.word_lines([]), b.drive(SourceLines.TIA, gate=True), b.word_lines([0])),
        ],
    ),
    "static word lines off the TIAs": (
        ProtocolError,
        "static word lines while the source lines are at BIAS",
        lambda b: [b.arm(), b.drive(SourceLines.BIAS, gate=True)],
    ),
    "word lines on before a frame has ended": (
        ProtocolError,
        "WAITFOR engines=2",
        lambda b: [b.all_rows(2.2), b.wait_for_spi(), b.all_rows(1.6), b.reading()],
    ),
    # bias of pulses
    "pulse before a frame has ended": (
        ProtocolError,
        "GATE .*WAITFOR engines=2",
        lambda b: [b.pulsing(SourceLines.BIAS), b.bias(1.0), b.gate()],
    ),
    "pulse on word lines that are on": (ProtocolError, "on already", lambda b: [b.reading(), b.gate()]),
    # DAC frames
    "frame of the wrong length": (
        ProtocolError,
        "DAC chip 0, which takes",
        lambda b: b.spi(1, write_frame(SYNC, 0, crc=not b.profile.dac.crc), long=not b.profile.dac.crc),
    ),
    "wrong CRC": (
        ProtocolError,
        "CRC|24 bits",
        lambda b: b.spi(1, write_frame(SYNC, 0, crc=True) ^ 1),
    ),
    "reserved bit of a frame": (
        ProtocolError,
        "reserved bits|CRC",
        lambda b: b.spi(1, 0x10_0000 if not b.profile.dac.crc else 0x10_0000 << 8 | dac80508.crc8(0x10_0000)),
    ),
    "reserved bit of a register": (ProtocolError, "CONFIG = 0x8000", lambda b: b.write(1, CONFIG, 0x8000)),
    "register that cannot be written": (ProtocolError, "STATUS", lambda b: b.write(1, 0x7, 0)),
    "reset code that does not reset": (ProtocolError, "SOFT_RESET", lambda b: b.write(1, 0x5, 0b0101)),
    "another range": (ProtocolError, "GAIN = 0x0000, the board profile needs", lambda b: b.write(1, GAIN, 0)),
}


@pytest.mark.parametrize("rule", REFUSALS)
def test_refused(bench: Bench, rule: str) -> None:
    error, message, words = REFUSALS[rule]
    with pytest.raises(error, match=message):
        bench.check(words(bench))


def test_a_program_must_end_with_halt(bench: Bench) -> None:
    with pytest.raises(ProtocolError, match="no HALT"):
        check_program(np.array([bench.arm()], np.uint64), bench.profile, bench.limits, bench.ready())


@pytest.mark.parametrize("words", [np.zeros(0, np.uint64), np.ones(2, np.int64), np.ones((1, 1), np.uint64)])
def test_a_program_must_be_words(bench: Bench, words: Any) -> None:
    with pytest.raises(ProtocolError, match="give 1 to 8192 words of uint64"):
        check_program(words, bench.profile, bench.limits, bench.ready())


@pytest.mark.parametrize(
    ("source_lines", "rows_v", "bias_v", "found"),
    [
        (SourceLines.GROUND, 1.1, 0.0, r"\+1.1 V against the source lines \(GROUND, 0 V\)"),
        (SourceLines.BIAS, 0.0, 1.1, r"-1.1 V against the source lines \(BIAS, 1.1 V\)"),
        (SourceLines.BIAS, 3.2, 2.1, r"\+1.1 V against the source lines \(BIAS, 2.1 V\)"),
        (SourceLines.TIA, 2.7, 0.0, r"\+1.1 V against the source lines \(TIA, 1.6 V\)"),
    ],
)
def test_a_pulse_above_the_session_limit_is_refused(
    bench: Bench, source_lines: SourceLines, rows_v: float, bias_v: float, found: str
) -> None:
    words = [bench.pulsing(source_lines, rows_v, bias_v), bench.gate()]
    bench.check(words, limits=limits_of(bench.profile, v_pulse_max_v=1.2))
    with pytest.raises(LimitError, match=f"GATE ticks=1us: row .* is at {found} .*limit 1 V"):
        bench.check(words, limits=limits_of(bench.profile, v_pulse_max_v=1.0))


def test_floating_source_lines_limit_the_difference_between_rows(bench: Bench) -> None:
    words = [
        bench.pulsing(SourceLines.FLOAT, rows_v=3.0),
        bench.channel((bench.profile.dac.row_chips[0], 1), 1.9),
        bench.wait_for_spi(),
        bench.gate(),
    ]
    bench.check(words, limits=limits_of(bench.profile, v_pulse_max_v=1.2))
    with pytest.raises(LimitError, match=r"row .* is at \+1.1 V against the source lines \(FLOAT, 1.9 V\)"):
        bench.check(words, limits=limits_of(bench.profile, v_pulse_max_v=1.0))


def test_word_line_voltage_has_its_own_limit(bench: Bench) -> None:
    bench.check(bench.reading(), limits=limits_of(bench.profile, v_gate_max_v=3.3))
    with pytest.raises(LimitError, match=r"DRIVE .*word lines .* is at \+3.3 V against ground .*limit 3.2 V"):
        bench.check(bench.reading(), limits=limits_of(bench.profile, v_gate_max_v=3.2))
    words = [bench.pulsing(SourceLines.BIAS), bench.gate()]
    with pytest.raises(LimitError, match=r"word lines .* is at \+1.5 V against ground .*limit 1.4 V"):
        bench.check(words, limits=limits_of(bench.profile, v_gate_max_v=1.4))


@pytest.mark.parametrize("sign", [-1, 1])
def test_one_lsb_above_a_limit_is_granted_and_two_are_not(bench: Bench, sign: int) -> None:
    def rows(centre_v: float, limit_v: float, steps: int) -> int:
        exact = (centre_v + sign * limit_v) / bench.lsb_v
        nearest_inside = math.floor(exact) if sign > 0 else math.ceil(exact)
        return bench.write(bench.row_chips, BRDCAST, nearest_inside + sign * steps)

    limits = limits_of(bench.profile, v_read_max_v=0.3, v_pulse_max_v=1.3)
    bench.check(bench.reading(), rows(1.6, 0.3, 1), limits=limits)
    with pytest.raises(LimitError, match=r"0\.3001 V against"):
        bench.check(bench.reading(), rows(1.6, 0.3, 2), limits=limits)
    pulse = bench.pulsing(SourceLines.TIA)
    bench.check(pulse, rows(1.6, 1.3, 1), bench.wait_for_spi(), bench.gate(), limits=limits)
    with pytest.raises(LimitError, match=r"1\.3 V against"):
        bench.check(pulse, rows(1.6, 1.3, 2), bench.wait_for_spi(), bench.gate(), limits=limits)


#: true levels that a channel gives for a code, with errors as large as a trim may undo
ERRORS = pytest.mark.parametrize(("gain_error", "offset_v"), [(0.0, 6e-3), (0.0, -6e-3), (2e-3, 2e-3), (-2e-3, 0.0)])


@ERRORS
@pytest.mark.parametrize("sign", [-1, 1])
def test_limits_hold_for_what_trimmed_rows_get(bench: Bench, sign: int, gain_error: float, offset_v: float) -> None:
    """One LSB above is granted, two are not, counted in the true levels of the channel."""

    def rows(limit_v: float, steps: int) -> int:
        # true = 1.6 + offset + (code * lsb - 1.6) * (1 + gain error)
        exact = (1.6 + (sign * limit_v - offset_v) / (1.0 + gain_error)) / bench.lsb_v
        nearest_inside = math.floor(exact) if sign > 0 else math.ceil(exact)
        return bench.write(bench.row_chips, BRDCAST, nearest_inside + sign * steps)

    trim = bench.trim(gain_error, offset_v)
    limits = limits_of(bench.profile, v_read_max_v=0.3, v_pulse_max_v=1.3)
    bench.check(bench.reading(), rows(0.3, 1), limits=limits, trim=trim)
    with pytest.raises(LimitError, match=r"at [+-]0\.3\d* V against"):
        bench.check(bench.reading(), rows(0.3, 2), limits=limits, trim=trim)
    pulse = bench.pulsing(SourceLines.TIA)
    bench.check(pulse, rows(1.3, 1), bench.wait_for_spi(), bench.gate(), limits=limits, trim=trim)
    with pytest.raises(LimitError, match=r"at [+-]1\.3\d* V against"):
        bench.check(pulse, rows(1.3, 2), bench.wait_for_spi(), bench.gate(), limits=limits, trim=trim)


def test_a_trimmed_code_may_be_beyond_the_code_of_the_limit(bench: Bench) -> None:
    limits = limits_of(bench.profile, v_read_max_v=0.3)
    words = [bench.reading(), bench.all_rows(1.905)]
    with pytest.raises(LimitError, match=r"1\.905 V\) is at \+0\.305 V"):
        bench.check(words, limits=limits)
    bench.check(words, limits=limits, trim=bench.trim(0.0, -6e-3))
    nominal = [bench.reading(), bench.all_rows(1.9)]
    bench.check(nominal, limits=limits)
    with pytest.raises(LimitError, match=r"1\.906 V\) is at \+0\.306 V"):
        bench.check(nominal, limits=limits, trim=bench.trim(0.0, 6e-3))


def test_channels_have_their_own_windows(bench: Bench) -> None:
    trim = bench.trim(0.0, 0.0)
    offset_v = trim.offset_v.copy()
    offset_v[1] = 6e-3
    trim = RowTrim(trim.range, trim.idle_v, trim.gain_error, offset_v)
    width = bench.profile.mux.width
    with pytest.raises(LimitError, match=f"row {width + 1} .*channel 1, 1.906 V"):
        bench.check(bench.reading(), bench.all_rows(1.9), limits=limits_of(bench.profile, v_read_max_v=0.3), trim=trim)


def test_floating_source_lines_follow_the_true_levels(bench: Bench) -> None:
    limits = limits_of(bench.profile, v_pulse_max_v=1.0)
    offset_v = np.zeros(bench.profile.mux.count)
    offset_v[1] = -6e-3
    n = bench.profile.mux.count
    trim = RowTrim(bench.profile.dac.output_range, bench.profile.tia.v_common_v, np.zeros(n), offset_v)
    words = [
        bench.pulsing(SourceLines.FLOAT, rows_v=3.0),
        bench.channel((bench.profile.dac.row_chips[0], 1), 2.0),
        bench.wait_for_spi(),
        bench.gate(),
    ]
    bench.check(words, limits=limits)
    with pytest.raises(LimitError, match=r"\+1.006 V against the source lines \(FLOAT, 1.994 V\)"):
        bench.check(words, limits=limits, trim=trim)


def test_a_pulse_with_no_word_line_selected_biases_nothing(bench: Bench) -> None:
    limits = limits_of(bench.profile, v_pulse_max_v=1.0)
    words = [bench.pulsing(SourceLines.GROUND, rows_v=1.1), bench.word_lines([]), bench.gate()]
    bench.check(words, limits=limits)


def test_the_profile_limits_hold_under_wider_ones(bench: Bench) -> None:
    wide = Limits(9.0, 9.0, 9.0, 9.0, 10**9)
    with pytest.raises(LimitError, match=r"limit 0.5 V"):
        bench.check(bench.reading(), bench.all_rows(2.2), limits=wide)
    with pytest.raises(LimitError, match="pulse width"):
        bench.check(bench.arm(), bench.gate(bench.profile.limits.pulse_width_max_s * 2), limits=wide)
    tiny = Bench(load_profile("tiny-8x8"))
    with pytest.raises(LimitError, match="limit 4 V"):
        tiny.check(tiny.pulsing(SourceLines.BIAS, bias_v=4.1), tiny.gate(), limits=wide)
    with pytest.raises(LimitError, match=r"word lines .*limit 4 V"):
        tiny.check(tiny.reading(), tiny.word_line_voltage(4.1), limits=wide)


def test_garbage_in_the_chains_keeps_the_outputs_off(bench: Bench) -> None:
    on = [bench.arm(), bench.drive(SourceLines.GROUND)]
    with pytest.raises(ProtocolError, match=r"DRIVE .*chain 0 holds is unknown.*CLEAR"):
        bench.check(on, state=bench.configured())
    with pytest.raises(ProtocolError, match="chain 1 holds is unknown"):
        bench.check(bench.rows(bench.idle()), on, state=bench.configured())
    part = pack("SHIFT", data=0, count=7, chain=0)
    with pytest.raises(ProtocolError, match="chain 0 holds is unknown"):
        bench.check(part, pack("LATCH", chains=1), bench.word_lines([]), on, state=bench.configured())
    bench.check(bench.rows(bench.idle()), bench.word_lines([]), on, state=bench.configured())
    bench.check(pack("CLEAR", chains=3), pack("LATCH", chains=3), on, state=bench.configured())


def test_unknown_levels_keep_the_word_lines_off(bench: Bench) -> None:
    state = bench.ready()
    row_chip, (bias_chip, bias_channel) = bench.profile.dac.row_chips[0], bench.profile.dac.source_line_channel
    state.dacs[row_chip].outputs[1] = None
    with pytest.raises(LimitError, match=f"row .*DAC chip {row_chip} channel 1 gives is unknown"):
        bench.check(bench.reading(), state=state)
    state = bench.ready()
    state.dacs[bias_chip].stored[bias_channel] = None
    load = bench.spi(1 << bias_chip, ldac_frame(bench.profile.dac.crc))
    words = [bench.pulsing(SourceLines.GROUND), bench.drive(SourceLines.BIAS), bench.gate()]
    bench.check(words, state=state)
    state.dacs[bias_chip].outputs[bias_channel] = None
    state.dacs[bias_chip].stored[bias_channel] = None
    bare = [bench.arm(), load, bench.wait_for_spi(), bench.all_rows(0.0), bench.wait_for_spi(), bench.word_lines([0])]
    with pytest.raises(LimitError, match=r"source lines: what DAC chip .* gives is unknown"):
        bench.check(bare, bench.drive(SourceLines.BIAS), bench.gate(), state=state)


def test_a_chip_with_the_range_of_its_reset_state_is_not_trusted(bench: Bench) -> None:
    reset = bench.spi(1, soft_reset_frame(bench.profile.dac.crc))
    with pytest.raises(LimitError, match="DAC chip 0 channel 0 gives is unknown"):
        bench.check(reset, bench.wait_for_spi(), bench.reading())


def test_a_powered_down_row_is_at_ground(bench: Bench) -> None:
    crc = dac80508.CRC_EN if bench.profile.dac.crc else 0
    with pytest.raises(LimitError, match=r"channel 2, 0 V.* is at -1.6 V"):
        bench.check(bench.reading(), bench.write(1, CONFIG, crc | 0b100))


def test_a_chip_without_its_reference_is_not_trusted(bench: Bench) -> None:
    config = dac80508.REF_PWDWN | (dac80508.CRC_EN if bench.profile.dac.crc else 0)
    with pytest.raises(LimitError, match="DAC chip 0 channel 0 gives is unknown"):
        bench.check(bench.reading(), bench.write(1, CONFIG, config))


def test_rows_that_are_off_may_be_at_any_level() -> None:
    bench = Bench(load_profile("paper-guess"))
    words = [bench.reading()[:2], bench.word_lines([0]), bench.drive(SourceLines.TIA, gate=True), bench.all_rows(0.0)]
    bench.check(words, bench.rows([OFF] * bench.profile.mux.count))
    with pytest.raises(LimitError, match=r"LATCH chains=0x1: row 93 .*DAC chip 1 channel 3, 0 V"):
        bench.check(words, bench.wait_for_spi(), bench.rows([5 if m == 11 else OFF for m in range(64)]))


def test_rows_without_inhibit_are_always_connected() -> None:
    bench = Bench(load_profile("tiny-8x8"))
    words = [bench.arm(), bench.word_lines([0]), bench.drive(SourceLines.TIA, gate=True)]
    with pytest.raises(LimitError, match="row 0 "):
        bench.check(words, bench.all_rows(0.0))


# --- what the host knows of the DACs --------------------------------------------------------------------------------


def test_both_reset_frames_are_needed_when_the_mode_is_unknown(bench: Bench) -> None:
    short, long = bench.spi(1, soft_reset_frame(False), long=False), bench.spi(1, soft_reset_frame(True), long=True)
    unknown = BoardState.unknown(bench.profile)
    for words in ([short, long], [long, short], [short, long, short]):
        dac = bench.check(words, state=unknown).dacs[0]
        assert (dac.outputs, dac.crc, dac.gain, dac.sync_en, dac.broadcast_en) == ([0] * 8, False, 0, 0, 0xFF)
    for words in ([short], [long], []):
        assert bench.check(words, state=unknown).dacs[0].outputs == [None] * 8
    for word in (bench.spi(1, 0, long=False), bench.spi(1, write_frame(SYNC, 0), long=False)):
        with pytest.raises(ProtocolError, match=r"CRC mode is unknown.*soft reset"):
            bench.check(short, word, state=unknown)


def test_reads_change_nothing(bench: Bench) -> None:
    before = bench.ready()
    words = [bench.spi(1, read_frame(address, crc=bench.profile.dac.crc)) for address in range(16)]
    assert bench.check(words, state=before) == before


def test_waiting_channels_move_on_load_only(bench: Bench) -> None:
    store = bench.write(1, DAC0 + 3, 1234)
    dac = bench.check(store).dacs[0]
    assert (dac.outputs[3], dac.stored[3]) == (bench.code(1.6), 1234)
    assert bench.check(store, bench.spi(1, ldac_frame(bench.profile.dac.crc))).dacs[0].outputs[3] == 1234
    assert bench.check(bench.write(1, SYNC, 0xFFF7), store).dacs[0].outputs[3] == 1234


def test_an_output_that_stops_waiting_with_another_code_stored_is_unknown(bench: Bench) -> None:
    words = [bench.write(1, DAC0 + 3, 1234), bench.write(1, SYNC, 0xFF00)]
    for more in ([], [bench.spi(1, ldac_frame(bench.profile.dac.crc))]):
        dac = bench.check(words, more).dacs[0]
        assert [k for k, code in enumerate(dac.outputs) if code is None] == [3]


def test_broadcast_reaches_the_channels_that_follow(bench: Bench) -> None:
    dac = bench.check(bench.write(1, SYNC, 0x0FFF), bench.write(1, BRDCAST, 77)).dacs[0]
    assert dac.outputs == dac.stored == [77] * 4 + [bench.code(1.6)] * 4


def test_the_fabric_resets_pins_and_dacs_but_not_the_chains(bench: Bench) -> None:
    state = bench.check(bench.reading())
    assert state.armed
    latched = state.latched.copy()
    state.reset_by_fabric()
    assert (state.outputs, state.gate, state.source_lines, state.armed) == (False, False, SourceLines.GROUND, False)
    assert state.latched == latched
    assert all(dac.outputs == [0] * 8 and dac.crc is False for dac in state.dacs)


# --- against a brute-force board ------------------------------------------------------------------------------------


def small_boards() -> list[Bench]:
    """The tiny board, and one wired as paper-guess but small."""
    tree = load_profile("paper-guess").model_dump()
    tree |= {"name": "paper-like", "rows": 16, "cols": 16, "guesses": {}}
    tree["dac"] |= {"chips": 2, "row_chips": (0,), "gate_channel": (1, 0), "source_line_channel": (1, 1)}
    tree["mux"] |= {"count": 2}
    tree["chains"] |= {"rows": {"chips": 1}, "word_lines": {"chips": 2}}
    tree["adc"] |= {"count": 2, "positions": 8}
    return [Bench(load_profile("tiny-8x8")), Bench(profile_from(tree, "test"))]


BOARDS = small_boards()
READ_V, PULSE_V, GATE_V = 0.3, 1.4, 2.5


class BruteForceBoard:
    """Every cell of a board, after every step. Frames act at once, or as late as they can."""

    def __init__(self, bench: Bench, late: bool, trim: RowTrim) -> None:
        self.bench, self.late, self.trim = bench, late, trim
        profile = bench.profile
        shape = (profile.dac.chips, 8)
        self.outputs = np.full(shape, np.nan)
        self.stored = np.full(shape, np.nan)
        self.waits = np.ones(shape, np.bool_)
        self.follows = np.ones(shape, np.bool_)
        self.down = np.zeros(shape, np.bool_)
        for chip, dac in enumerate(bench.ready().dacs):
            self.outputs[chip], self.stored[chip] = np.array(dac.outputs), np.array(dac.stored)
        self.positions = bench.idle()
        self.word_lines = np.zeros(profile.cols, np.bool_)
        self.pins = (True, SourceLines.TIA, False)
        self.pending: tuple[Any, ...] | None = None

    def step(self, kind: str, *values: Any) -> bool:
        """Whether any cell or word line is above its limits then."""
        if kind in ("store", "load", "broadcast", "sync", "down"):
            self.flush()
            self.pending = (kind, *values)
            if not self.late:
                self.flush()
        elif kind == "wait":
            self.flush()
        elif kind == "rows":
            self.positions = values[0]
        elif kind == "lines":
            self.word_lines = values[0]
        elif kind == "drive":
            self.pins = values
        outputs_on, source_lines, gate = self.pins
        if kind == "gate":
            return outputs_on and self.too_much(source_lines, PULSE_V)
        return outputs_on and gate and self.too_much(source_lines, READ_V)

    def flush(self) -> None:
        if self.pending is None:
            return
        kind, chip, *values = self.pending
        self.pending = None
        if kind == "store":
            channel, code = values
            self.stored[chip, channel] = code
            if not self.waits[chip, channel]:
                self.outputs[chip, channel] = code
        elif kind == "load":
            self.outputs[chip, self.waits[chip]] = self.stored[chip, self.waits[chip]]
        elif kind == "broadcast":
            self.outputs[chip, self.follows[chip]] = self.stored[chip, self.follows[chip]] = values[0]
        elif kind == "sync":
            bits = values[0] >> np.arange(16) & 1 != 0
            self.waits[chip], self.follows[chip] = bits[:8], bits[8:]
            stops = ~self.waits[chip] & (self.outputs[chip] != self.stored[chip])
            self.outputs[chip, stops] = np.nan
        elif kind == "down":
            self.down[chip] = values[0] >> np.arange(8) & 1 != 0

    def too_much(self, source_lines: SourceLines, limit_v: float) -> bool:
        profile, lsb_v = self.bench.profile, self.bench.lsb_v
        level_v = np.where(self.down, 0.0, self.outputs * lsb_v)
        row_v = np.full(profile.rows, np.nan)
        connected = np.zeros(profile.rows, np.bool_)
        for row in range(profile.rows):
            mux = row // profile.mux.width
            if self.positions[mux] == row % profile.mux.width:
                ideal_v, gain = level_v[0, mux] - profile.tia.v_common_v, 1.0 + self.trim.gain_error[mux]
                connected[row] = True
                row_v[row] = profile.tia.v_common_v + self.trim.offset_v[mux] + ideal_v * gain
        source_v = {SourceLines.GROUND: 0.0, SourceLines.TIA: profile.tia.v_common_v, SourceLines.BIAS: level_v[1, 1]}
        if source_lines is SourceLines.FLOAT:
            # A floating line may be anywhere between the rows: the worst it can do to a cell is their span.
            bias_v = row_v[:, None] - row_v[connected].min(initial=np.inf)
        else:
            bias_v = row_v[:, None] - source_v[source_lines]
        cells = connected[:, None] & self.word_lines[None, :]
        bias_v = np.broadcast_to(bias_v, cells.shape)[cells]
        least_v = 1e-9 + lsb_v
        gate_fine = level_v[1, 0] <= GATE_V + least_v
        # Written so that a level that is not known is too much.
        return bool(self.word_lines.any() and not (gate_fine and (np.abs(bias_v) <= limit_v + least_v).all()))

    def known_by(self, state: BoardState) -> None:
        """Assert that `state` is this board's."""
        for chip, dac in enumerate(state.dacs):
            for mine, its in ((self.outputs, dac.outputs), (self.stored, dac.stored)):
                np.testing.assert_array_equal(mine[chip], np.array(its, float))
            assert dac.sync_en == sum(1 << k for k in np.flatnonzero(self.waits[chip]))
            assert dac.broadcast_en == sum(1 << k for k in np.flatnonzero(self.follows[chip]))
            assert dac.config is not None
            assert dac.config & 0xFF == sum(1 << k for k in np.flatnonzero(self.down[chip]))
        assert state.latched[1] == sum(1 << k for k in np.flatnonzero(self.word_lines).tolist())
        assert (state.outputs, state.source_lines, state.gate) == self.pins


def encode(bench: Bench, kind: str, *values: Any) -> Any:
    crc = bench.profile.dac.crc
    words: dict[str, Callable[..., Any]] = {
        "store": lambda chip, channel, code: bench.write(1 << chip, DAC0 + channel, code),
        "load": lambda chip: bench.spi(1 << chip, ldac_frame(crc)),
        "broadcast": lambda chip, code: bench.write(1 << chip, BRDCAST, code),
        "sync": lambda chip, value: bench.write(1 << chip, SYNC, value),
        "down": lambda chip, value: bench.write(1 << chip, CONFIG, value | (dac80508.CRC_EN if crc else 0)),
        "wait": bench.wait_for_spi,
        "rows": bench.rows,
        "lines": lambda on: bench.word_lines(np.flatnonzero(on)),
        "drive": lambda outputs, source, gate: bench.drive(source, gate=gate, outputs=outputs),
        "gate": bench.gate,
    }
    return words[kind](*values)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Bench, list[tuple[Any, ...]]]:
    """A board and steps that look legal, of which some are not."""
    bench = draw(st.sampled_from(BOARDS))
    profile = bench.profile
    chip = st.integers(0, 1)
    edges_v = (0.0, 0.2, 1.3, 1.4, 1.6, 1.9, 2.5, 3.0)
    edge = st.builds(lambda v, d: max(0, bench.code(v) + d), st.sampled_from(edges_v), st.integers(-3, 3))
    fine = st.integers(bench.code(1.3), bench.code(1.9)) | st.just(bench.code(1.6))
    code = st.one_of(fine, fine, edge, st.integers(0, 0xFFFF))
    if profile.mux.selects == "common":
        positions = st.integers(0, profile.mux.width - 1).map(lambda p: [p] * profile.mux.count)
    else:
        positions = st.lists(st.integers(OFF, profile.mux.width - 1), min_size=2, max_size=2)
    lines = st.lists(st.booleans(), min_size=profile.cols, max_size=profile.cols).map(np.array)
    reading = ("drive", True, SourceLines.TIA, True)
    resting = st.sampled_from(SourceLines).map(lambda source: ("drive", True, source, False))
    wait = ("wait",)
    one = st.one_of(
        st.tuples(st.just("store"), chip, st.integers(0, 7), code),
        st.tuples(st.just("load"), chip),
        st.tuples(st.just("broadcast"), chip, code),
        st.tuples(st.just("sync"), chip, st.integers(0, 0xFFFF) | st.just(0xFFFF)),
        st.tuples(st.just("down"), chip, st.just(0) | st.integers(0, 0xFF)),
        st.tuples(st.just("rows"), positions),
        st.tuples(st.just("lines"), lines),
        st.just(("drive", False, SourceLines.GROUND, False)),
        resting,
    )
    steps = st.one_of(
        one.map(lambda step: [step]),
        one.map(lambda step: [step, wait]),
        st.just([reading]),
        # rows and source lines at some level, then a pulse
        st.builds(
            lambda rest, row, bias: [
                *(rest, ("broadcast", 0, row), ("store", 1, 1, bias), ("load", 1), wait, ("gate",)),
                *(("broadcast", 0, bench.code(1.6)), wait),
            ],
            resting,
            edge | code,
            edge | code,
        ),
    )
    start = [
        ("broadcast", 1, bench.code(2.0)),
        wait,
        ("rows", bench.connected()),
        ("lines", np.arange(profile.cols) < draw(st.integers(1, 3))),
        draw(st.just(reading) | resting),
    ]
    return bench, [*start, *(step for group in draw(st.lists(steps, min_size=3, max_size=8)) for step in group)]


TRIMS = st.tuples(st.sampled_from([0.0, -2e-3, 1e-3]), st.sampled_from([0.0, -5e-3, 4e-3]))


@given(histories(), TRIMS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_what_passes_never_puts_a_cell_above_its_limits(
    history: tuple[Bench, list[tuple[Any, ...]]], errors: tuple[float, float]
) -> None:
    bench, steps = history
    trim = bench.trim(*errors)
    limits = limits_of(bench.profile, v_read_max_v=READ_V, v_pulse_max_v=PULSE_V, v_gate_max_v=GATE_V)
    boards = [BruteForceBoard(bench, late, trim) for late in (False, True)]
    bad = [any([board.step(*step) for step in steps]) for board in boards]
    words = [encode(bench, *step) for step in steps]
    try:
        state = bench.check(bench.arm(), words, limits=limits, trim=trim)
    except LimitError:
        assert bad[0], "refused although no cell is above its limits"
        return
    except ProtocolError as error:
        assume("WAITFOR engines=2" in error.fix or "DRIVE gate=0" in error.fix)
        return
    assert bad == [False, False]
    for board in boards:
        board.flush()
        board.known_by(state)
