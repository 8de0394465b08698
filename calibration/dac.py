"""DAC transfer: what each drive channel really puts on its rows.

The law of this project, defined here and nowhere else: a channel that is told an ideal level `w` above the idle level
(what its code would give without errors, minus v_common) gives

    v - v_common = (1 + row_gain_error) * w + row_offset_v

on its rows. `row_offset_v` is thus the error at idle level, and holds what the channel's gain error makes of v_common.

Two methods. With a multimeter (role "dmm") levels stand still on one row of each channel and are measured against the
board's ground: gain, offset and non-linearity follow, absolute. Part `zero` knows offsets of rows against columns only,
so that all of them are then shifted by what the multimeter says, columns as well. Without a multimeter the board's own
converters look at one row per channel: they see linearity and a dead channel, but no gain, which in a current is the
same as a larger conductance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.procedure import CalibrationBench
from calibration.search import Line, fit_line
from hil.calibration_file import ROW_WORKS, Part, Quantity
from hil.errors import CapabilityError, ConfigError, DeviceError
from hil.instruments import Multimeter
from hil.runfile import Column, TableSpec
from hil.tile import Tile

Values = NDArray[np.float64]

#: a channel whose rows draw less than this share of the usual drives nothing
_DRIVES = 0.1


#: of the run file
TABLES = (
    TableSpec(
        "dac_levels",
        [
            Column("channel", np.uint16, "1"),
            Column("row", np.uint16, "1"),
            Column("ideal_v", np.float64, "V"),
            Column("measured_v", np.float64, "V"),
        ],
        "levels of drive channels against board ground, by multimeter; ideal: what the code would give without errors",
    ),
    TableSpec(
        "dac_totals",
        [
            Column("channel", np.uint16, "1"),
            Column("row", np.uint16, "1"),
            Column("ideal_v", np.float64, "V"),
            Column("total_a", np.float64, "A"),
        ],
        "current of all columns with one row at a level above idle, one multiplication each",
    ),
)


@dataclass(frozen=True)
class DacOptions:
    """How drive channels are measured.

    Attributes:
        n_levels: levels per channel; with a multimeter from v_read below idle to v_read above it, with the board's own
            converters from idle to v_read.
        n_readings: readings of the multimeter per level.
        n_repeats: multiplications per level of the own converters, whose cells are noisy.
        pad_row: bit line whose pad the multimeter is on, if it has no scanner.
        dmm_uncertainty_v: one sigma of what the multimeter adds to all its readings alike; default: data sheets of
            6.5 digit instruments at 2 V.
        gain_max, offset_max_v: a channel with larger errors is broken; default: far beyond the chip's total
            unadjusted error of 0.1 % of full scale (TI SLASEL1D).
        nominal_gain: one sigma of a gain that nobody has measured (the same source).
    """

    n_levels: int = 9
    n_readings: int = 1
    n_repeats: int = 16
    pad_row: int | None = None
    dmm_uncertainty_v: float = 30e-6
    gain_max: float = 2e-2
    offset_max_v: float = 20e-3
    nominal_gain: float = 1e-3


def measure(bench: CalibrationBench, options: DacOptions | None = None) -> Part:
    """Transfer of every drive channel, by multimeter where one is there, else by the board's own converters.

    Raises:
        CalibrationError: part `zero` was not measured.
        ConfigError: the multimeter is no multimeter, or nobody said where it is.
        DeviceError: no channel is as told by the multimeter: it is not connected to them.
    """
    options = options or DacOptions()
    bench.known.require(["zero"])
    dmm = bench.instruments.get("dmm")
    if dmm is None or bench.access is None:
        return _by_own_converters(bench, options)
    if not isinstance(dmm, Multimeter):
        raise ConfigError(f"instrument in role dmm is {type(dmm).__name__}", fix="name a multimeter: dmm=RESOURCE")
    return _by_multimeter(bench, options, dmm)


def dac_step_v(electrics: Mapping[str, Any]) -> float:
    """Volts per code of the row drivers."""
    return float(electrics["dac_full_scale_v"]) / 2 ** int(electrics["dac_bits"])


def ideal_v(electrics: Mapping[str, Any], wanted_v: Values) -> Values:
    """What codes give without errors, above idle, for levels `wanted_v` above idle: the next step of the converter."""
    step_v, common_v = dac_step_v(electrics), float(electrics["v_common_v"])
    return np.rint((common_v + wanted_v) / step_v) * step_v - common_v


def first_rows(bench: CalibrationBench, among: NDArray[np.intp]) -> NDArray[np.intp]:
    """First of these rows on each channel, -1 for a channel that has none of them; shape (channels,)."""
    rows = np.full(bench.wiring.n_channels, -1, np.intp)
    rows[bench.wiring.row_channel[among[::-1]]] = among[::-1]
    return rows


# With a multimeter


def _by_multimeter(bench: CalibrationBench, options: DacOptions, dmm: Multimeter) -> Part:
    wiring = bench.wiring
    wanted_v = ideal_v(bench.known.electrics, np.linspace(-bench.v_read_v, bench.v_read_v, options.n_levels))
    scanner = _has_channel(dmm, 0)
    rows, findings = _rows_in_reach(bench, options, dmm, scanner=scanner)
    reached = rows >= 0
    lines = _Lines.unknown(wiring.n_channels)
    for channel in np.flatnonzero(reached).tolist():
        bench.progress("dac", channel, wiring.n_channels)
        if scanner and not _has_channel(dmm, channel):
            # A scanner with fewer channels than the board has; one that refuses the first, too, is out of order.
            dmm.select(1)
            reached[channel:] = False
            findings.append(
                f"{wiring.channel_names[channel]} and those after it were not measured: {dmm.identity} has no scanner "
                f"channel {channel + 1}"
            )
            break
        lines.put(channel, _hold_and_measure(bench, options, dmm, channel, int(rows[channel]), wanted_v))
    bench.progress("dac", wiring.n_channels, wiring.n_channels)
    lines.share_noise()
    gain = lines.slope - 1.0
    sound = lines.ok & (np.abs(gain) <= options.gain_max) & (np.abs(lines.offset) <= options.offset_max_v)
    if reached.any() and not sound.any():
        # Part zero has seen these rows carry current.
        k = int(reached.argmax())
        raise DeviceError(
            f"{dmm.identity} sees no drive channel do as told: {wiring.channel_names[k]} is said to be "
            f"{1e3 * lines.offset[k]:.3g} mV off at idle and to rise by {lines.slope[k]:.3g} V per volt",
            fix="check that its low terminal is on board ground and its high one on the pad, or its scanner on the "
            "drive channels; or leave it away",
        )
    broken = reached & ~sound
    findings += [
        f"{wiring.channel_names[k]}: gives {1e3 * lines.offset[k]:.3g} mV more than told at idle and rises by "
        f"{lines.slope[k]:.3g} V per volt; {_rows_of(bench, k)} cannot be used"
        for k in np.flatnonzero(broken).tolist()
    ]
    quantities = {
        "row_gain_error": Quantity.of(
            np.where(sound, gain, 0.0), np.where(sound, lines.slope_error, options.nominal_gain), sound
        ),
        "row_nonlinearity_v": Quantity.of(np.where(sound, lines.rms, 0.0), lines.rms, sound),
        ROW_WORKS: Quantity.of(~broken[wiring.row_channel], 0.0, reached[wiring.row_channel]),
        **_offsets(bench, options, lines, sound),
    }
    return Part(
        name="dac",
        quantities=quantities,
        residuals={"line_v": _rms(lines.rms[sound])},
        method=f"{options.n_levels} levels of each channel on one of its rows, by multimeter; straight line",
        options=asdict(options),
        instruments={"dmm": dmm.identity},
        findings=tuple(findings),
    )


def _rows_in_reach(
    bench: CalibrationBench, options: DacOptions, dmm: Multimeter, *, scanner: bool
) -> tuple[NDArray[np.intp], list[str]]:
    """Row by which each channel is measured, -1 where none is; and what to say of the others."""
    names, rows = bench.wiring.channel_names, first_rows(bench, bench.rows)
    if scanner:
        return rows, _unreached(bench, rows)
    if options.pad_row is None or options.pad_row not in bench.rows:
        raise ConfigError(
            f"multimeter {dmm.identity} has no scanner, and pad_row is {options.pad_row}",
            fix="set pad_row to the bit line that its probe is on, one that works, or use a scanner",
        )
    channel = int(bench.wiring.row_channel[options.pad_row])
    only = np.full(len(rows), -1, np.intp)
    only[channel] = options.pad_row
    return only, [
        f"{names[channel]} alone was measured: the multimeter has no scanner and is on bit line {options.pad_row}; the "
        f"gain of the other {len(rows) - 1} drive channels is nominal"
    ]


def _has_channel(dmm: Multimeter, channel: int) -> bool:
    """Close the scanner's channel of a drive channel, if there is one; refused twice, since once may be a hiccup."""
    for _ in range(2):
        try:
            dmm.select(channel + 1)
        except CapabilityError:
            continue
        return True
    return False


def _hold_and_measure(
    bench: CalibrationBench, options: DacOptions, dmm: Multimeter, channel: int, row: int, wanted_v: Values
) -> Line:
    assert bench.access is not None
    common_v = float(bench.known.electrics["v_common_v"])
    found_v = np.empty((len(wanted_v), options.n_readings))
    for k, level_v in enumerate(wanted_v.tolist()):
        bench.access.hold_row(row, common_v + level_v)
        found_v[k] = [dmm.measure_voltage_v() for _ in range(options.n_readings)]
    bench.record(
        "dac_levels",
        {
            "channel": np.full(found_v.size, channel),
            "row": np.full(found_v.size, row),
            "ideal_v": np.repeat(common_v + wanted_v, options.n_readings),
            "measured_v": found_v.ravel(),
        },
    )
    return fit_line(wanted_v, found_v.mean(axis=1) - common_v)


def _offsets(
    bench: CalibrationBench, options: DacOptions, lines: _Lines, sound: NDArray[np.bool_]
) -> dict[str, Quantity]:
    """Offsets of rows and columns, absolute: those of part `zero`, moved by what the multimeter says of rows."""
    zero = bench.known.parts["zero"].quantities
    rows, cols = zero["row_offset_v"], zero["column_offset_v"]
    # Part zero sees rows at the step of the converter next to v_common.
    idle_v = float(ideal_v(bench.known.electrics, np.array(0.0)))
    common_v = options.dmm_uncertainty_v
    both = sound & rows.ok
    if not both.any():
        return {
            "row_offset_v": Quantity.of(
                np.where(sound, lines.offset, 0.0), np.hypot(lines.offset_error, common_v), sound
            )
        }
    apart_v = (rows.value - lines.offset - idle_v * lines.slope)[both]
    sigma_v = np.hypot(rows.uncertainty, lines.offset_error)[both]
    sigma_v = np.where(np.isfinite(sigma_v) & (sigma_v > 0.0), sigma_v, common_v)
    shift_v = float(np.average(apart_v, weights=sigma_v**-2))
    shift_error_v = float(np.hypot((sigma_v**-2).sum() ** -0.5, common_v))
    moved_v, moved_error_v = rows.value - shift_v - idle_v, np.hypot(rows.uncertainty, shift_error_v)
    return {
        "row_offset_v": Quantity.of(
            np.where(sound, lines.offset, np.where(rows.ok, moved_v, 0.0)),
            np.where(sound, np.hypot(lines.offset_error, common_v), moved_error_v),
            sound | (rows.ok & ~lines.measured),
        ),
        "column_offset_v": Quantity.of(cols.value - shift_v, np.hypot(cols.uncertainty, shift_error_v), cols.ok),
    }


# With the board's own converters


def _by_own_converters(bench: CalibrationBench, options: DacOptions) -> Part:
    wiring = bench.wiring
    share = np.arange(1, options.n_levels + 1) / options.n_levels
    wanted_v = ideal_v(bench.known.electrics, share * bench.v_read_v)
    rows = first_rows(bench, bench.working_rows)
    reached = rows >= 0
    tile = Tile(rows[reached], bench.working_cols)
    lines = _Lines.unknown(wiring.n_channels)
    for k, channel in enumerate(np.flatnonzero(reached).tolist()):
        bench.progress("dac", channel, wiring.n_channels)
        x = np.zeros((options.n_repeats, len(share), tile.n_rows))
        x[:, :, k] = share
        found_a = bench.session.vmm(x.reshape(-1, tile.n_rows), tile, bench.v_read_v).astype(np.float64)
        total_a = found_a.reshape(*x.shape[:2], -1).sum(axis=2)
        bench.record(
            "dac_totals",
            {
                "channel": np.full(total_a.size, channel),
                "row": np.full(total_a.size, rows[channel]),
                "ideal_v": np.tile(wanted_v, options.n_repeats),
                "total_a": total_a.ravel(),
            },
        )
        # Noise of cells grows with the level.
        error_a = total_a.std(axis=0, ddof=1) / np.sqrt(options.n_repeats)
        lines.put(channel, fit_line(wanted_v, total_a.mean(axis=0), sigma=_smooth(share, error_a)))
    bench.progress("dac", wiring.n_channels, wiring.n_channels)
    typical_s = float(np.median(lines.slope[lines.ok])) if lines.ok.any() else np.nan
    sound = lines.ok & (lines.slope > _DRIVES * typical_s)
    broken = reached & ~sound
    findings = _unreached(bench, rows)
    findings += [
        f"{wiring.channel_names[k]}: the current of its rows does not follow its level; {_rows_of(bench, k)} cannot be "
        "used"
        for k in np.flatnonzero(broken).tolist()
    ]
    findings.append(
        "gains of the drive channels were not measured: without a multimeter a gain looks like a larger conductance; "
        f"they count as 0 within {100 * options.nominal_gain:g} %"
    )
    with np.errstate(invalid="ignore"):
        # What few cells scatter is in this, too: it is an upper bound.
        bent_v = lines.rms / lines.slope
    n = wiring.n_channels
    return Part(
        name="dac",
        quantities={
            "row_gain_error": Quantity.of(np.zeros(n), options.nominal_gain, np.zeros(n, np.bool_)),
            "row_nonlinearity_v": Quantity.of(np.where(sound, bent_v, 0.0), bent_v, sound),
            ROW_WORKS: Quantity.of(~broken[wiring.row_channel], 0.0, reached[wiring.row_channel]),
        },
        residuals={"line_v": _rms(bent_v[sound])},
        method=f"{options.n_levels} levels of one row of each channel, by the converters of {len(tile.cols)} columns; "
        "offsets are those of part zero",
        options=asdict(options),
        findings=tuple(findings),
    )


def _smooth(share: Values, error_a: Values) -> Values:
    """Noise of the mean at each level: constant noise and noise in proportion, fitted to what few repeats scatter."""
    design = np.stack([np.ones(len(share)), share**2], axis=1)
    constant, growing = np.linalg.lstsq(design, error_a**2, rcond=None)[0]
    floor = 0.1 * float((error_a**2).mean()) + 1e-30
    return np.sqrt(np.maximum(constant + growing * share**2, floor))


# Both


@dataclass(eq=False)
class _Lines:
    """Straight lines of all channels; arrays over channels."""

    slope: Values
    offset: Values
    slope_error: Values
    offset_error: Values
    rms: Values
    measured: NDArray[np.bool_]
    ok: NDArray[np.bool_]

    @classmethod
    def unknown(cls, n: int) -> _Lines:
        return cls(*(np.full(n, np.nan) for _ in range(5)), np.zeros(n, np.bool_), np.zeros(n, np.bool_))

    def put(self, channel: int, line: Line) -> None:
        for name in ("slope", "offset", "slope_error", "offset_error", "rms"):
            getattr(self, name)[channel] = getattr(line, name)
        self.measured[channel], self.ok[channel] = True, line.ok and line.significant

    def share_noise(self) -> None:
        """Errors by the noise of all channels, which one instrument has measured: nine points alone tell it badly."""
        usual = float(np.sqrt(np.median(self.rms[self.ok] ** 2))) if self.ok.any() else np.nan
        factor = np.maximum(usual / np.maximum(self.rms, 1e-12), 1.0)
        self.slope_error, self.offset_error = factor * self.slope_error, factor * self.offset_error


def _unreached(bench: CalibrationBench, rows: NDArray[np.intp]) -> list[str]:
    names = bench.wiring.channel_names
    return [f"{names[k]}: not measured, since none of its rows works" for k in np.flatnonzero(rows < 0).tolist()]


def _rows_of(bench: CalibrationBench, channel: int) -> str:
    rows = np.flatnonzero(bench.wiring.row_channel == channel)
    return f"rows {rows[0]} to {rows[-1]}"


def _rms(values: Values) -> float:
    return float(np.sqrt((values**2).mean())) if values.size else float("nan")
