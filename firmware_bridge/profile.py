"""Board profile: everything that varies between boards, as a validated model read from TOML.

A profile that loads is free of contradictions: each entry is within its limits, and all entries together obey the rules
of `firmware_bridge.profile_rules`. docs/reference/board-profile.md describes every entry.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ConfigDict, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from drivers import ads8324, cd4051b, dac80508, sn74hc595
from drivers.ads8324 import Ads8324
from drivers.cd4051b import MuxBank
from drivers.dac80508 import OutputRange
from drivers.sn74hc595 import ShiftChain
from drivers.tia import Tia
from firmware_bridge.instructions import TICK_S
from firmware_bridge.profile_rules import Broken, first_broken
from hil.config import Settings, load, setting
from hil.errors import ConfigError, LimitError

PROFILE = "board profile"
SHIPPED_FOLDER = Path(__file__).parent / "profiles"
REFERENCE_PAGE = "docs/reference/board-profile.md"

#: type of the pydantic error that carries a broken rule
_BROKEN_RULE = "broken_rule"

# What the fabric can count in ticks: half periods and the settling of the source-line mux in 16 bits, other times in 32
# bits, where settling times may be added up.
_CLOCK_MIN_HZ = 1e3
_SELECT_SETTLE_MAX_S = 655e-6
_TIME_MAX_S = 42.9
_SETTLE_MAX_S = 10.0

Integers = NDArray[np.intp]


class DacSection(Settings):
    """DAC80508 chips on one SPI bus with one chip select each."""

    chips: int = setting(..., "chips; chip k has chip select k", source=PROFILE, ge=1, le=16)
    variant: Literal["Z", "M"] = setting("Z", "reset to zero (Z) or mid-scale (M)", source=PROFILE)
    vdd_v: float = setting(..., "supply", unit="V", source=PROFILE, ge=dac80508.VDD_MIN_V, le=dac80508.VDD_MAX_V)
    v_reference_v: float = setting(2.5, "reference", unit="V", source=PROFILE, gt=0, le=dac80508.VDD_MAX_V)
    reference: Literal["internal", "external"] = setting("internal", "where the reference comes from", source=PROFILE)
    divide: Literal[1, 2] = setting(1, "reference divider", source=PROFILE)
    gain: Literal[1, 2] = setting(2, "output gain", source=PROFILE)
    crc: bool = setting(True, "frames carry a CRC", source=PROFILE)
    settle_s: float = setting(5e-6, "output settling time", unit="s", source=PROFILE, gt=0, le=_SETTLE_MAX_S)
    write_clock_hz: float = setting(
        ...,
        "SPI clock of writes, at most",
        unit="Hz",
        source=PROFILE,
        ge=_CLOCK_MIN_HZ,
        le=dac80508.SPI_WRITE.clock_max_hz,
    )
    read_clock_hz: float = setting(
        ...,
        "SPI clock of read-back, at most",
        unit="Hz",
        source=PROFILE,
        ge=_CLOCK_MIN_HZ,
        le=dac80508.SPI_READ.clock_max_hz,
    )
    row_chips: tuple[int, ...] = setting(..., "chips whose channels drive the rows, in order", source=PROFILE)
    gate_channel: tuple[int, int] = setting(..., "(chip, channel) of the word-line voltage", source=PROFILE)
    source_line_channel: tuple[int, int] = setting(..., "(chip, channel) of the source-line bias", source=PROFILE)

    @property
    def output_range(self) -> OutputRange:
        return OutputRange(self.v_reference_v, self.divide, self.gain)


class MuxSection(Settings):
    """CD4051B multiplexers between row-drive channels and rows: row = width * mux + position."""

    count: int = setting(..., "multiplexers, one per row-drive channel", source=PROFILE, ge=1)
    width: int = setting(8, "positions used of each", source=PROFILE, ge=1, le=cd4051b.POSITIONS)
    selects: Literal["independent", "common"] = setting(..., "select lines per mux, or shared by all", source=PROFILE)
    inhibit: bool = setting(..., "INH of each mux is wired to the chain", source=PROFILE)
    vdd_v: float = setting(
        ...,
        "supply; sets on-resistance and speed",
        unit="V",
        source=PROFILE,
        ge=cd4051b.VDD_MIN_V,
        le=cd4051b.VDD_MAX_V,
    )
    settle_s: float = setting(..., "address or INH to output", unit="s", source=PROFILE, gt=0, le=_SETTLE_MAX_S)

    @property
    def bank(self) -> MuxBank:
        return MuxBank(self.count, self.width, self.selects, self.inhibit)


class ChainSection(Settings):
    """One chain of 74HC595."""

    chips: int = setting(..., "chips in the chain", source=PROFILE, ge=1)

    @property
    def shift_chain(self) -> ShiftChain:
        return ShiftChain(self.chips)


class ChainsSection(Settings):
    """Shift-register chains; chain 0 sets the muxes, chain 1 the word lines (bit j of the latch: word line j on)."""

    rows: ChainSection = setting(..., "chain 0: mux selects and INH", source=PROFILE)
    word_lines: ChainSection = setting(..., "chain 1: one bit per column's word line", source=PROFILE)
    vcc_v: float = setting(..., "supply", unit="V", source=PROFILE, ge=2, le=6)
    clock_hz: float = setting(..., "shift clock, at most", unit="Hz", source=PROFILE, ge=_CLOCK_MIN_HZ)

    @property
    def clock_max_hz(self) -> float:
        """What the longer chain can do at this supply."""
        return sn74hc595.clock_max_hz(self.vcc_v, max(self.rows.chips, self.word_lines.chips))


class AdcSection(Settings):
    """ADS8324 converters with common CS and DCLOCK, behind source-line muxes that step together."""

    count: int = setting(..., "converters", source=PROFILE, ge=1, le=16)
    positions: int = setting(..., "source-line mux positions", source=PROFILE, ge=1, le=1023)
    columns: Literal["interleaved", "blocks"] = setting(
        ..., "interleaved: column = count * position + lane; blocks: column = positions * lane + position",
        source=PROFILE,
    )  # fmt: skip
    vcc_v: float = setting(1.8, "supply", unit="V", source=PROFILE, gt=0, le=ads8324.VCC_MAX_V)
    v_reference_v: float = setting(0.9, "reference", unit="V", source=PROFILE, ge=ads8324.V_REFERENCE_MIN_V)
    minus_input: Literal["reference", "ground"] = setting("reference", "what -IN is tied to", source=PROFILE)
    clock_hz: float = setting(
        ..., "DCLOCK, at most", unit="Hz", source=PROFILE, ge=ads8324.CLOCK_MIN_HZ, le=ads8324.CLOCK_MAX_HZ
    )
    select_settle_s: float = setting(
        ..., "settling after a step of the mux", unit="s", source=PROFILE, gt=0, le=_SELECT_SETTLE_MAX_S
    )

    @property
    def converter(self) -> Ads8324:
        return Ads8324(self.v_reference_v, self.minus_input)


class TiaSection(Settings):
    """OPA4322 transimpedance amplifiers, one per column."""

    r_feedback_ohm: float = setting(..., "feedback resistor", unit="ohm", source=PROFILE, gt=0)
    v_common_v: float = setting(..., "virtual ground and idle level of the rows", unit="V", source=PROFILE, gt=0)
    settle_s: float = setting(..., "settling of amplifier and line", unit="s", source=PROFILE, gt=0, le=_SETTLE_MAX_S)

    @property
    def amplifier(self) -> Tia:
        return Tia(self.r_feedback_ohm, self.v_common_v)


class ProgrammingSection(Settings):
    """Which line a pulse raises; the other one is grounded."""

    form: Literal["source_line", "row"] | None = setting(None, "forming; none: not wired", source=PROFILE)
    set: Literal["source_line", "row"] | None = setting(None, "SET; none: not wired", source=PROFILE)
    reset: Literal["source_line", "row"] | None = setting(None, "RESET; none: not wired", source=PROFILE)


class LimitsSection(Settings):
    """Ceilings of this board."""

    v_read_max_v: float = setting(..., "largest read voltage", unit="V", source=PROFILE, gt=0)
    v_pulse_max_v: float = setting(..., "largest programming voltage", unit="V", source=PROFILE, gt=0)
    v_gate_max_v: float = setting(..., "largest word-line voltage", unit="V", source=PROFILE, gt=0)
    v_gate_read_v: float = setting(..., "word-line voltage of reads", unit="V", source=PROFILE, gt=0)
    pulse_width_min_s: float = setting(1e-7, "shortest pulse", unit="s", source=PROFILE, ge=TICK_S)
    pulse_width_max_s: float = setting(..., "longest pulse", unit="s", source=PROFILE, gt=0, le=_TIME_MAX_S)
    pulses_per_cell_max: int = setting(..., "most pulses of one session on one cell", source=PROFILE, ge=1)
    watchdog_s: float = setting(
        0.2, "the fabric waits this long for a heartbeat", unit="s", source=PROFILE, gt=0, le=_TIME_MAX_S
    )


class BoardProfile(Settings):
    """A board. Indices count from zero."""

    name: str = setting(..., "name of the profile", source=PROFILE, min_length=1)
    rows: int = setting(..., "bit lines", source=PROFILE, ge=1)
    cols: int = setting(..., "source lines", source=PROFILE, ge=1)
    dac: DacSection = setting(..., "", source=PROFILE)
    mux: MuxSection = setting(..., "", source=PROFILE)
    chains: ChainsSection = setting(..., "", source=PROFILE)
    adc: AdcSection = setting(..., "", source=PROFILE)
    tia: TiaSection = setting(..., "", source=PROFILE)
    programming: ProgrammingSection = ProgrammingSection()
    limits: LimitsSection = setting(..., "", source=PROFILE)
    guesses: dict[str, str] = setting({}, "entries that are guesses, by dotted key, each with its reason",
                                      source=PROFILE)  # fmt: skip

    @field_validator("guesses")
    @classmethod
    def _guesses_name_entries(cls, guesses: dict[str, str]) -> dict[str, str]:
        known = [key for key, _ in entries()]
        for key, reason in guesses.items():
            if key not in known:
                raise _as_pydantic(Broken("guesses", f"{key!r} is no entry of a profile", _nearest(key, known)))
            if not reason.strip():
                raise _as_pydantic(Broken("guesses", f"{key!r} has no reason", "say what the guess rests on"))
        return guesses

    @model_validator(mode="after")
    def _obeys_the_rules(self) -> BoardProfile:
        broken = first_broken(self)
        if broken is not None:
            raise _as_pydantic(broken)
        return self

    @property
    def fingerprint(self) -> str:
        """Short hash of all entries but `guesses`: what is said about a board does not make it another one."""
        content = json.dumps(self.model_dump(mode="json", exclude={"guesses"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    # Rows: DAC channel -> mux -> bit line.

    @property
    def mux_bits(self) -> int:
        """Outputs of chain 0 in use."""
        return self.mux.bank.n_bits

    def row_mux(self, rows: ArrayLike) -> Integers:
        """Which mux serves each row."""
        return _indices(rows, self.rows, "row") // self.mux.width

    def row_position(self, rows: ArrayLike) -> Integers:
        """Position of its mux that each row is on."""
        return _indices(rows, self.rows, "row") % self.mux.width

    def row_channel(self, mux: ArrayLike) -> tuple[Integers, Integers]:
        """(chip, channel) of the DAC output that drives each mux."""
        chip_place, channel = np.divmod(_indices(mux, self.mux.count, "mux"), dac80508.CHANNELS)
        return np.asarray(self.dac.row_chips, dtype=np.intp)[chip_place], channel

    # Columns: source line -> TIA -> position of the source-line mux -> converter (lane).

    def column_lane(self, cols: ArrayLike) -> Integers:
        """Which converter serves each column."""
        cols = _indices(cols, self.cols, "column")
        return cols % self.adc.count if self.adc.columns == "interleaved" else cols // self.adc.positions

    def column_position(self, cols: ArrayLike) -> Integers:
        """Position of the source-line mux that each column is on."""
        cols = _indices(cols, self.cols, "column")
        return cols // self.adc.count if self.adc.columns == "interleaved" else cols % self.adc.positions

    def column_of(self, position: ArrayLike, lane: ArrayLike) -> Integers:
        """Column that each converter sees at each position; -1 where no column is connected."""
        position = _indices(position, self.adc.positions, "source-line mux position")
        lane = _indices(lane, self.adc.count, "lane")
        interleaved = self.adc.columns == "interleaved"
        cols = self.adc.count * position + lane if interleaved else self.adc.positions * lane + position
        return np.where(cols < self.cols, cols, -1)


def _indices(values: ArrayLike, count: int, what: str) -> Integers:
    indices = np.asarray(values, dtype=np.intp)
    outside = indices[(indices < 0) | (indices >= count)]
    if outside.size:
        raise LimitError(f"no {what} {outside.flat[0]}: the board has {count}", fix=f"use {what} 0 to {count - 1}")
    return indices


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(file.stem for file in SHIPPED_FOLDER.glob("*.toml"))


def load_profile(name_or_path: str | Path) -> BoardProfile:
    """Read a shipped profile by its name, or any profile by the path of its .toml file.

    Raises:
        ConfigError: no such profile, not TOML, an entry is unknown, missing or out of its limits, or entries contradict
            each other.
    """
    file = Path(name_or_path)
    if str(name_or_path) in shipped_profiles():
        file = SHIPPED_FOLDER / f"{name_or_path}.toml"
    elif file.suffix != ".toml":
        raise ConfigError(
            f"unknown board profile {str(name_or_path)!r}",
            fix=f"choose one of: {', '.join(shipped_profiles())}, or give the path of a .toml file",
        )
    return profile_from(load(_AnyToml, file).model_dump(), str(file))


def profile_from(tree: Mapping[str, Any], source: str) -> BoardProfile:
    """Build a profile from nested mappings.

    Args:
        tree: the entries, as a TOML file has them.
        source: where they come from, for error messages.

    Raises:
        ConfigError: as for `load_profile`.
    """
    try:
        return BoardProfile.model_validate(tree)
    except ValidationError as error:
        raise _explain(error.errors()[0], source) from None


def entries(model: type[Settings] = BoardProfile, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and declaration of every entry, in the order of the sections."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from entries(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


class _AnyToml(Settings):
    """Any TOML file, so that `hil.config.load` reads it and explains what is not TOML."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)


def _as_pydantic(broken: Broken) -> PydanticCustomError:
    """An error that pydantic passes on with its parts, so that `_explain` finds entry, reason and fix."""
    return PydanticCustomError(_BROKEN_RULE, "{why}", broken._asdict())


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"{REFERENCE_PAGE} lists the entries"


def _explain(error: ErrorDetails, source: str) -> ConfigError:
    entry = ".".join(str(part) for part in error["loc"])
    why = f"is {error['input']!r}; {error['msg'][0].lower()}{error['msg'][1:]}"
    fix = f"{REFERENCE_PAGE} has unit, meaning and limits of each entry"
    if error["type"] == _BROKEN_RULE:
        entry, why, fix = (error.get("ctx", {})[part] for part in Broken._fields)
    elif error["type"] == "missing":
        why, fix = "is missing", f"add it; {fix}"
    elif error["type"] == "extra_forbidden":
        why, fix = "no such entry", _nearest(entry, [key for key, _ in entries()])
    elif entry.startswith("guesses."):
        fix = 'write the key in quotes, such as "dac.vdd_v" = "reason"'
    return ConfigError(f"board profile {source}: entry {entry}: {why}", fix=fix)
