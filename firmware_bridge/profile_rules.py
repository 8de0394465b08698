"""What the entries of a board profile must fulfil together, as a table.

A rule names the entry that a person would correct, and says what must hold; the reference page prints both. What a chip
allows is asked of its driver, so that no data-sheet number stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from drivers import dac80508
from hil.errors import HilError

if TYPE_CHECKING:
    from firmware_bridge.profile import BoardProfile

_V_INTERNAL_REFERENCE_V = 2.5


class Broken(NamedTuple):
    """A rule that a profile breaks."""

    entry: str
    why: str
    fix: str


@dataclass(frozen=True)
class Rule:
    """Holds where `holds` is true; `why` and `fix` are format strings over the profile `p`."""

    entry: str
    must: str
    holds: Callable[[BoardProfile], bool]
    why: str
    fix: str

    def broken(self, profile: BoardProfile) -> Broken | None:
        if self.holds(profile):
            return None
        return Broken(self.entry, self.why.format(p=profile), self.fix.format(p=profile))


@dataclass(frozen=True)
class ChipRule:
    """Holds where a driver accepts the values; its error says why and how to correct them."""

    entry: str
    must: str
    ask: Callable[[BoardProfile], object]

    def broken(self, profile: BoardProfile) -> Broken | None:
        try:
            self.ask(profile)
        except HilError as error:
            return Broken(self.entry, error.what, error.fix)
        return None


def _exists(profile: BoardProfile, channel: tuple[int, int]) -> bool:
    return 0 <= channel[0] < profile.dac.chips and 0 <= channel[1] < dac80508.CHANNELS


def _drives_rows(profile: BoardProfile, channel: tuple[int, int]) -> bool:
    chips, channels = profile.row_channel(range(profile.mux.count))
    return bool(((chips == channel[0]) & (channels == channel[1])).any())


def _mux_v_max_v(profile: BoardProfile) -> float:
    read_v = profile.tia.v_common_v + profile.limits.v_read_max_v
    pulses_rows = "row" in profile.programming.model_dump().values()
    return max(read_v, profile.limits.v_pulse_max_v) if pulses_rows else read_v


# In this order: a rule may rely on those before it.
RULES: tuple[Rule | ChipRule, ...] = (
    # DAC channels
    Rule(
        "dac.row_chips",
        "names one chip or more, each from 0 to `dac.chips` - 1",
        lambda p: bool(p.dac.row_chips) and all(0 <= chip < p.dac.chips for chip in p.dac.row_chips),
        "{p.dac.row_chips} does not name chips of the {p.dac.chips} that dac.chips gives, counted from 0",
        "correct dac.row_chips or dac.chips",
    ),
    Rule(
        "dac.row_chips",
        "names no chip twice",
        lambda p: len(set(p.dac.row_chips)) == len(p.dac.row_chips),
        "{p.dac.row_chips} names a chip twice",
        "name each chip once, in the order of the rows it drives",
    ),
    Rule(
        "mux.count",
        "at most 8 for each of `dac.row_chips`",
        lambda p: p.mux.count <= dac80508.CHANNELS * len(p.dac.row_chips),
        "{p.mux.count} muxes need more channels than the 8 of each of dac.row_chips = {p.dac.row_chips}",
        "correct mux.count, or add chips to dac.row_chips",
    ),
    Rule(
        "dac.gate_channel",
        "a chip from 0 to `dac.chips` - 1 and a channel from 0 to 7",
        lambda p: _exists(p, p.dac.gate_channel),
        "{p.dac.gate_channel} is no (chip, channel) of {p.dac.chips} chips with 8 channels, counted from 0",
        "correct dac.gate_channel or dac.chips",
    ),
    Rule(
        "dac.gate_channel",
        "drives no row",
        lambda p: not _drives_rows(p, p.dac.gate_channel),
        "{p.dac.gate_channel} drives a row: it is one of the first {p.mux.count} channels of dac.row_chips",
        "give the word lines a channel of their own",
    ),
    Rule(
        "dac.source_line_channel",
        "a chip from 0 to `dac.chips` - 1 and a channel from 0 to 7",
        lambda p: _exists(p, p.dac.source_line_channel),
        "{p.dac.source_line_channel} is no (chip, channel) of {p.dac.chips} chips with 8 channels, counted from 0",
        "correct dac.source_line_channel or dac.chips",
    ),
    Rule(
        "dac.source_line_channel",
        "drives no row",
        lambda p: not _drives_rows(p, p.dac.source_line_channel),
        "{p.dac.source_line_channel} drives a row: it is one of the first {p.mux.count} channels of dac.row_chips",
        "give the source lines a channel of their own",
    ),
    Rule(
        "dac.source_line_channel",
        "is not `dac.gate_channel`",
        lambda p: p.dac.source_line_channel != p.dac.gate_channel,
        "{p.dac.source_line_channel} is dac.gate_channel too",
        "give the source lines a channel of their own",
    ),
    # DAC supply
    Rule(
        "dac.v_reference_v",
        "2.5 where `dac.reference` is internal",
        lambda p: p.dac.reference == "external" or p.dac.v_reference_v == _V_INTERNAL_REFERENCE_V,
        "{p.dac.v_reference_v:g} V is not the 2.5 V of the internal reference",
        "leave dac.v_reference_v out, or set dac.reference to external",
    ),
    ChipRule(
        "dac.vdd_v",
        "at least 2 * `dac.v_reference_v` / `dac.divide`, which is also the span at gain 2: below it the DAC80508 turns"
        " all outputs off",
        lambda p: p.dac.output_range.check_supply(p.dac.vdd_v),
    ),
    Rule(
        "dac.vdd_v",
        "above 2 * `dac.v_reference_v` where `dac.divide` is 1, for some margin",
        lambda p: p.dac.divide == 2 or p.dac.vdd_v > 2 * p.dac.v_reference_v,
        "{p.dac.vdd_v:g} V is just twice the undivided reference of {p.dac.v_reference_v:g} V: when it sags, the "
        "DAC80508 turns all outputs off",
        "give the chip 5.1 to 5.5 V, or set dac.divide to 2",
    ),
    # Rows
    Rule(
        "rows",
        "fill all muxes but the last, and that in part or in full",
        lambda p: (p.mux.count - 1) * p.mux.width < p.rows <= p.mux.count * p.mux.width,
        "{p.rows} rows do not fit mux.count = {p.mux.count} muxes of mux.width = {p.mux.width}",
        "correct rows, mux.count or mux.width so that only the last mux has positions to spare",
    ),
    Rule(
        "chains.rows.chips",
        "8 outputs each for the muxes: 3 select bits per mux (independent) or for all (common), and one bit per mux "
        "where `mux.inhibit` is true",
        lambda p: p.chains.rows.shift_chain.n_bits >= p.mux_bits,
        "{p.chains.rows.chips} chips have {p.chains.rows.shift_chain.n_bits} outputs; the muxes need {p.mux_bits}",
        "correct chains.rows.chips, mux.selects or mux.inhibit",
    ),
    Rule(
        "chains.word_lines.chips",
        "8 outputs each for `cols` word lines",
        lambda p: p.chains.word_lines.shift_chain.n_bits >= p.cols,
        "{p.chains.word_lines.chips} chips have {p.chains.word_lines.shift_chain.n_bits} outputs for {p.cols} columns",
        "correct chains.word_lines.chips or cols",
    ),
    Rule(
        "chains.clock_hz",
        "within what a cascade of 74HC595 can do at `chains.vcc_v`",
        lambda p: p.chains.clock_hz <= p.chains.clock_max_hz,
        "{p.chains.clock_hz:g} Hz is above the {p.chains.clock_max_hz:g} Hz of a cascade at {p.chains.vcc_v:g} V",
        "lower chains.clock_hz, or correct chains.vcc_v",
    ),
    # Columns
    Rule(
        "adc.positions",
        "`adc.count` * `adc.positions` is at least `cols`",
        lambda p: p.adc.count * p.adc.positions >= p.cols,
        "{p.adc.count} converters with {p.adc.positions} positions serve fewer than {p.cols} columns",
        "correct adc.positions, adc.count or cols",
    ),
    ChipRule(
        "adc.v_reference_v",
        "at most `adc.vcc_v` / 2, and `adc.vcc_v` within what the ADS8324 stands",
        lambda p: p.adc.converter.check(p.adc.vcc_v, p.adc.clock_hz),
    ),
    ChipRule(
        "tia.v_common_v",
        "above the lowest output of the OPA4322",
        lambda p: p.tia.amplifier,
    ),
    Rule(
        "tia.v_common_v",
        "below the end of the converter's range: 2 * `adc.v_reference_v` with `adc.minus_input` at the reference, "
        "`adc.v_reference_v` with it at ground",
        lambda p: p.tia.v_common_v < p.adc.converter.range_v[1],
        "{p.tia.v_common_v:g} V, the output at no current, is not below {p.adc.converter.range_v[1]:g} V, where the "
        "converter's range ends",
        "correct tia.v_common_v, adc.v_reference_v or adc.minus_input",
    ),
    # Voltages
    ChipRule(
        "limits.v_read_max_v",
        "`tia.v_common_v` + `limits.v_read_max_v` is an output of the DAC",
        lambda p: p.dac.output_range.code(p.tia.v_common_v + p.limits.v_read_max_v),
    ),
    ChipRule(
        "limits.v_pulse_max_v",
        "an output of the DAC: below its span",
        lambda p: p.dac.output_range.code(p.limits.v_pulse_max_v),
    ),
    ChipRule(
        "limits.v_gate_max_v",
        "an output of the DAC: below its span",
        lambda p: p.dac.output_range.code(p.limits.v_gate_max_v),
    ),
    Rule(
        "limits.v_gate_read_v",
        "at most `limits.v_gate_max_v`",
        lambda p: p.limits.v_gate_read_v <= p.limits.v_gate_max_v,
        "{p.limits.v_gate_read_v:g} V is above limits.v_gate_max_v = {p.limits.v_gate_max_v:g} V",
        "lower the one or raise the other",
    ),
    Rule(
        "mux.vdd_v",
        "at least the largest voltage on a row: `tia.v_common_v` + `limits.v_read_max_v`, and `limits.v_pulse_max_v` "
        "where a pulse raises the row",
        lambda p: p.mux.vdd_v >= _mux_v_max_v(p),
        "{p.mux.vdd_v:g} V is below the largest voltage that limits and tia.v_common_v allow on a row",
        "raise mux.vdd_v, or lower limits.v_pulse_max_v or limits.v_read_max_v",
    ),
    # Times
    Rule(
        "limits.pulse_width_max_s",
        "at least `limits.pulse_width_min_s`",
        lambda p: p.limits.pulse_width_max_s >= p.limits.pulse_width_min_s,
        "{p.limits.pulse_width_max_s:g} s is below limits.pulse_width_min_s = {p.limits.pulse_width_min_s:g} s",
        "exchange them or correct one",
    ),
)


def first_broken(profile: BoardProfile) -> Broken | None:
    """The first rule that the profile breaks; none where it is free of contradictions."""
    return next((broken for rule in RULES if (broken := rule.broken(profile)) is not None), None)
