"""Amperes per code of every column: its amplifier and its converter together, with a known current.

Wiring: the high terminal of a source-measure unit on the test pad of one bit line, its low terminal on the board's
`v_common`, where the virtual grounds of the columns are. No row is connected. One word line after the other is on, so
that the whole current flows through one cell into one column; what the cell conducts does not matter, as long as the
unit stays below its limit, the read voltage. Each column gets currents, zero included, that its own cell carries at a
share of that voltage; a straight line through them is free of offsets.

Between two columns nothing conducts: the unit is then at its limit, as it should be. Whether it was during a conversion
shows in the conversion, which then has less current than was asked for.

Without such an instrument the constants stay nominal, with the tolerance that data sheets allow. A reference resistor
in place of the source-measure unit would need a voltage source that is known and still; it is not supported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.constants import nominal_amps_per_code
from calibration.procedure import CalibrationBench
from calibration.search import Line, fit_line
from hil.bench_access import BenchAccess
from hil.calibration_file import Part, Quantity
from hil.errors import ConfigError, DeviceError
from hil.instruments import SourceMeasureUnit
from hil.runfile import Column, TableSpec

Values = NDArray[np.float64]
Lines = NDArray[np.intp]

#: columns whose cells conduct alike within this factor share their currents
_ALIKE = 1.3
#: a column that strays further from its line than this, in standard deviations, is not measured right
_OUTLIER = 6.0


#: of the run file
TABLES = (
    TableSpec(
        "tia_levels",
        [
            Column("col", np.uint16, "1"),
            Column("sourced_a", np.float64, "A"),
            Column("converted_a", np.float64, "A"),
        ],
        "current sourced into one column, and what was converted, by nominal constants",
    ),
)


@dataclass(frozen=True)
class TiaOptions:
    """How amperes per code are measured.

    Attributes:
        smu_row: bit line whose test pad the source-measure unit is on; needed with such an instrument.
        n_levels: currents per column, evenly spaced from zero.
        n_average: conversions averaged for each.
        share: largest current, as a share of what drives a cell to the read voltage.
        least_codes: largest current in converter steps below which a cell conducts too little for this.
        smu_uncertainty: relative one sigma of the sourced current; default: data sheets of units with 1 uA ranges.
        gain_max: a column whose gain is off by more was not measured right, or is broken.
        nominal_uncertainty: relative one sigma of nominal constants: 0.1 % each for resistor and converter.
    """

    smu_row: int | None = None
    n_levels: int = 4
    n_average: int = 256
    share: float = 0.8
    least_codes: float = 40.0
    smu_uncertainty: float = 2e-4
    gain_max: float = 0.03
    nominal_uncertainty: float = 1.5e-3


def measure(bench: CalibrationBench, options: TiaOptions | None = None) -> Part:
    """Amperes per code, by source-measure unit where one is there, else nominal.

    Raises:
        ConfigError: nobody said which bit line the source-measure unit is on, or it is one that does not work.
        DeviceError: the sourced current arrives at no column: the unit is held back by its limit, or not connected.
    """
    options = options or TiaOptions()
    smu, access = bench.instruments.get("smu"), bench.access
    if smu is None or access is None:
        return _nominal(bench, options)
    if not isinstance(smu, SourceMeasureUnit):
        raise ConfigError(
            f"instrument in role smu is {type(smu).__name__}", fix="name a source-measure unit: smu=RESOURCE"
        )
    if options.smu_row is None or options.smu_row not in bench.rows:
        raise ConfigError(
            f"smu_row is {options.smu_row}; {smu.identity} must be on a bit line that works",
            fix="set smu_row to the bit line whose test pad it is on",
        )
    return _by_source(bench, options, smu, access)


def _nominal(bench: CalibrationBench, options: TiaOptions) -> Part:
    n_cols = bench.session.info.shape[1]
    nominal = nominal_amps_per_code(bench.known)
    return Part(
        name="tia",
        quantities={
            "amps_per_code": Quantity.of(np.full(n_cols, nominal), options.nominal_uncertainty * nominal, ok=False)
        },
        method="nominal constants of amplifier and converter",
        options=asdict(options),
        findings=(
            "amperes per code are nominal: there was no source-measure unit; currents are true within "
            f"{100 * options.nominal_uncertainty:g} %, column by column",
        ),
    )


def _by_source(bench: CalibrationBench, options: TiaOptions, smu: SourceMeasureUnit, access: BenchAccess) -> Part:
    assert options.smu_row is not None
    nominal, n_cols = nominal_amps_per_code(bench.known), bench.session.info.shape[1]
    cols = bench.working_cols
    full_a = options.share * bench.v_read_v * _row_conductance_s(bench, options, options.smu_row, cols)
    carries = full_a >= options.least_codes * nominal
    slope, error, left = np.full(n_cols, np.nan), np.full(n_cols, np.nan), np.full(n_cols, np.nan)
    for group, currents_a, found_a in _sourced(bench, options, smu, access, cols[carries], full_a[carries]):
        lines = [fit_line(currents_a, of_column) for of_column in found_a.T]
        slope[group], left[group] = _of(lines, "slope"), _of(lines, "rms")
        # The slope's own scatter of a few points is no measure: the scatter of all columns is, below.
        error[group] = 1.0 / np.sqrt(((currents_a - currents_a.mean()) ** 2).sum())
    measured = np.isfinite(slope)
    sound = measured & (np.abs(slope - 1.0) <= options.gain_max)
    if measured.any() and not sound.any():
        raise DeviceError(
            f"{smu.identity} sources, but {np.nanmin(slope):.1%} to {np.nanmax(slope):.1%} of its current arrive at "
            f"the columns, at none of them all of it; it is held back by its limit of {bench.v_read_v:g} V, or leaks",
            fix=f"check that its high terminal is on bit line {options.smu_row} and its low terminal on v_common",
        )
    noise_a = (
        float(np.sqrt(np.mean(left[sound & (left < _OUTLIER * np.median(left[sound]))] ** 2)))
        if sound.any()
        else np.nan
    )
    sound &= ~(left > _OUTLIER * noise_a)
    gain = np.where(sound, slope, 1.0)
    relative = np.where(sound, np.hypot(noise_a * error / gain, options.smu_uncertainty), options.nominal_uncertainty)
    return Part(
        name="tia",
        quantities={"amps_per_code": Quantity.of(nominal / gain, relative * nominal / gain, sound)},
        residuals={"line_a": noise_a},
        method=f"{options.n_levels} currents through bit line {options.smu_row} into one column at a time, by "
        "source-measure unit; straight line",
        options=asdict(options),
        instruments={"smu": smu.identity},
        findings=tuple(_findings(bench, options, cols, cols[~carries], np.flatnonzero(measured & ~sound))),
    )


def _row_conductance_s(bench: CalibrationBench, options: TiaOptions, row: int, cols: Lines) -> Values:
    """What each cell of the instrument's row conducts; read before the instrument is switched on."""
    mask = np.zeros(bench.session.info.shape, np.bool_)
    mask[row, cols] = True
    return bench.session.read(mask, bench.v_read_v, n_average=options.n_average) / bench.v_read_v


def _sourced(
    bench: CalibrationBench,
    options: TiaOptions,
    smu: SourceMeasureUnit,
    access: BenchAccess,
    cols: Lines,
    full_a: Values,
) -> list[tuple[Lines, Values, Values]]:
    """Groups of columns, the currents sourced into each (levels,), and what was converted (levels, columns)."""
    result: list[tuple[Lines, Values, Values]] = []
    if not len(cols):
        return result
    factor = np.floor(np.log(full_a / full_a.min()) / np.log(_ALIKE)).astype(np.intp)
    groups = [np.flatnonzero(factor == k) for k in np.unique(factor)]
    try:
        for k, group in enumerate(groups):
            bench.progress("tia", k, len(groups))
            # The cell that conducts least bears the current at the share of the read voltage.
            currents_a = np.linspace(0.0, float(full_a[group].min()), options.n_levels)
            found_a = np.empty((len(currents_a), len(group)))
            for level, current_a in enumerate(currents_a.tolist()):
                smu.source_current(current_a, compliance_v=bench.v_read_v)
                smu.output_on()
                found_a[level] = access.sense(cols[group], n_average=options.n_average)
            bench.record(
                "tia_levels",
                {
                    "col": np.tile(cols[group], len(currents_a)),
                    "sourced_a": np.repeat(currents_a, len(group)),
                    "converted_a": found_a.ravel(),
                },
            )
            result.append((cols[group], currents_a, found_a))
    finally:
        smu.output_off()
    bench.progress("tia", len(groups), len(groups))
    return result


def _of(lines: list[Line], name: str) -> Values:
    return np.array([getattr(line, name) for line in lines])


def _findings(bench: CalibrationBench, options: TiaOptions, cols: Lines, weak: Lines, wrong: Lines) -> list[str]:
    findings: list[str] = []
    if len(weak):
        findings.append(
            f"{len(weak)} of {len(cols)} cells of bit line {options.smu_row} conduct too little to carry a known "
            f"current: amperes per code of their columns ({_some(weak)}) are nominal"
        )
    if len(wrong):
        findings.append(
            f"{len(wrong)} of {len(cols)} columns do not follow the sourced current: amperes per code of columns "
            f"{_some(wrong)} are nominal"
        )
    names, converter = bench.wiring.converter_names, bench.wiring.col_converter
    for k, name in enumerate(names):
        own = cols[converter[cols] == k]
        if len(own) and np.isin(own, wrong).all():
            findings.append(f"{name}: none of its {len(own)} columns follows a sourced current")
    return findings


def _some(cols: Lines) -> str:
    return ", ".join(map(str, cols[:8].tolist())) + (", ..." if len(cols) > 8 else "")
