"""Noise: of the converters, of a cell from one multiplication to the next, and what of it lasts.

Three measurements.

- Multiplications at a read voltage of zero: nothing flows, so that what varies is the converters' own.
- Multiplications with one row at a time, repeated: variance over the square of the current, the converters' part
  taken off, is the relative noise of a cell per read, whatever its kind.
- Single cells read again and again, once with one conversion and once with many: the difference of two reads of the
  same cell has a variance that does not depend on their distance in time for white noise, that grows with the
  logarithm of it for 1/f noise, and of which only the white part is averaged away by many conversions.

The share of 1/f noise is that of a spectrum which falls as 1/f over a stated band and is flat below, as the simulator
draws it: one Lorentzian per decade. Reads of some seconds see part of it only; the rest is that law's. Cells with
telegraph noise are counted and left out of it; those that jump more rarely than a few times in all reads, or more often
than they are read, are not seen, so that their share is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from calibration import telegraph
from calibration.constants import ROUNDING, nominal_amps_per_code
from calibration.procedure import CalibrationBench
from hil.calibration_file import Part, Quantity
from hil.runfile import Column, TableSpec
from hil.tile import Tile

Values = NDArray[np.float64]
Lines = NDArray[np.intp]

#: cells whose noise is further from the median than this factor do not count as normal
_STRANGE = 3.0
#: converter steps by which two levels of a cell must differ
_STEPS = 2.0
_N_LAGS = 10
_N_BOOTSTRAPS = 100


#: of the run file
TABLES = (
    TableSpec(
        "noise_reads",
        [
            Column("t_array_s", np.float64, "s"),
            Column("row", np.uint16, "1"),
            Column("col", np.uint16, "1"),
            Column("n_average", np.uint16, "1"),
            Column("current_a", np.float64, "A"),
        ],
        "reads of single cells at read voltage, by nominal constants; t_array_s: on the clock of the array",
    ),
)


@dataclass(frozen=True)
class NoiseOptions:
    """How noise is measured.

    Attributes:
        n_columns: columns of the multiplications, evenly spread.
        n_rows: rows that are driven, one at a time.
        n_repeats: multiplications with each row; at zero read voltage eight times as many.
        n_cells: single cells that are read in time, evenly spread.
        n_reads: reads of each with many conversions.
        n_average: conversions of such a read.
        single_every: after every so many of them there is one with a single conversion.
        pause_s: between reads.
        flicker_band_hz: lowest and highest corner frequency of 1/f noise; default: the simulator's.
        telegraph_p: share of cells without telegraph noise that may be taken for cells with it.
    """

    n_columns: int = 64
    n_rows: int = 32
    n_repeats: int = 64
    n_cells: int = 64
    n_reads: int = 160
    n_average: int = 16
    single_every: int = 4
    pause_s: float = 0.1
    flicker_band_hz: tuple[float, float] = (1e-4, 1e3)
    telegraph_p: float = 0.005


def measure(bench: CalibrationBench, options: NoiseOptions | None = None) -> Part:
    """Noise of converters and cells."""
    options = options or NoiseOptions()
    cols = _of_every_converter(bench, options.n_columns)
    # Before any pause: the emulator solves its network anew after one.
    converters, missing = _converter_noise(bench, options, cols)
    read_noise, read_error = _read_noise(bench, options, cols, converters)
    traces = _read_in_time(bench, options)
    jumps = telegraph.detect(
        traces.many, traces.interval_s, np.random.default_rng(bench.seed), significance=options.telegraph_p
    )
    n_cells = traces.many.shape[1]
    # Averages of few codes lie on levels of their own, which are no jumps of a cell.
    jumps_far = jumps.amplitude * traces.current_a > _STEPS * nominal_amps_per_code(bench.known)
    restless = jumps.found & jumps_far
    telegraph_share, telegraph_error = _share_of(int(restless.sum()), n_cells, options.telegraph_p)
    white, flicker = _split(bench, options, traces, ~restless, converters)
    share, share_error = _flicker_share(white, flicker)
    names = bench.wiring.converter_names
    return Part(
        name="noise",
        quantities={
            "converter_noise_lsb": converters,
            "read_noise": Quantity.of(read_noise, read_error, math.isfinite(read_noise)),
            "read_noise_white": Quantity.of(*_mean_error(np.sqrt(np.maximum(white, 0.0)))),
            "flicker_share": Quantity.of(share, share_error, math.isfinite(share)),
            "telegraph_share": Quantity.of(telegraph_share, telegraph_error),
        },
        method=f"{options.n_repeats} multiplications with each of {options.n_rows} rows, and at zero read voltage; "
        f"{n_cells} cells read {options.n_reads} times in {traces.time_s[-1] - traces.time_s[0]:.3g} s",
        options=asdict(options),
        findings=tuple(f"{names[k]}: its noise was not measured, none of its columns works" for k in missing),
    )


def flicker_structure(lag_s: Values, band_hz: tuple[float, float]) -> Values:
    """Half the variance of the difference of two reads `lag_s` apart, for 1/f noise of unit variance."""
    low_hz, high_hz = band_hz
    n = max(2, round(math.log10(high_hz / low_hz)) + 1)
    tau_s = 1.0 / (2.0 * math.pi * np.geomspace(low_hz, high_hz, n))
    return -np.expm1(-np.asarray(lag_s)[..., None] / tau_s).mean(axis=-1)


# Multiplications


def _spread(lines: Lines, n: int) -> Lines:
    """About n of these lines, evenly spread."""
    return lines[np.unique(np.linspace(0, len(lines) - 1, min(n, len(lines))).astype(np.intp))]


def _of_every_converter(bench: CalibrationBench, n: int) -> Lines:
    """About n columns that work, as many of each converter."""
    working = bench.working_cols
    converter = bench.wiring.col_converter[working]
    present = np.unique(converter)
    return np.sort(np.concatenate([_spread(working[converter == k], max(n // len(present), 1)) for k in present]))


def _converter_noise(bench: CalibrationBench, options: NoiseOptions, cols: Lines) -> tuple[Quantity, list[int]]:
    """Noise of every converter in steps, without rounding; and the converters that have no column here."""
    tile = Tile(bench.working_rows[:1], cols)
    one = np.ones((8 * options.n_repeats, 1), np.bool_)
    codes = bench.vmm("noise at idle level", one, tile, 0.0) / nominal_amps_per_code(bench.known)
    variance = codes.var(axis=0, ddof=1)
    n = bench.wiring.n_converters
    converter = bench.wiring.col_converter[cols]
    count = np.bincount(converter, minlength=n)
    mean = np.bincount(converter, variance, n) / np.maximum(count, 1)
    freedom = np.maximum(count * (len(codes) - 1), 1)
    sigma = np.sqrt(np.maximum(mean - ROUNDING, 0.0))
    error = mean * np.sqrt(2.0 / freedom) / (2.0 * np.maximum(sigma, math.sqrt(ROUNDING)))
    present = count > 0
    return (
        Quantity.of(np.where(present, sigma, 0.0), np.where(present, error, np.nan), present),
        np.flatnonzero(~present).tolist(),
    )


def _read_noise(
    bench: CalibrationBench, options: NoiseOptions, cols: Lines, converters: Quantity
) -> tuple[float, float]:
    """Relative noise of a cell per multiplication, and its standard error."""
    rows = _spread(bench.working_rows, options.n_rows)
    one_by_one = np.repeat(np.eye(len(rows), dtype=np.bool_), options.n_repeats, axis=0)
    found_a = bench.vmm("noise of rows alone", one_by_one, Tile(rows, cols), bench.v_read_v)
    found_a = found_a.reshape(len(rows), options.n_repeats, len(cols))
    mean_a, variance_a2 = found_a.mean(axis=1), found_a.var(axis=1, ddof=1)
    own_codes2 = (converters.value**2 + ROUNDING)[bench.wiring.col_converter[cols]]
    own_a2 = own_codes2 * nominal_amps_per_code(bench.known) ** 2
    relative2 = np.where(mean_a > 0, (variance_a2 - own_a2) / np.maximum(mean_a, 1e-12) ** 2, np.nan)
    # Where the current is small, the converter's part hides the cell's.
    weight = 1.0 / (np.nanmedian(relative2) + own_a2 / np.maximum(mean_a, 1e-12) ** 2) ** 2
    usual = np.nanmedian(relative2)
    chance = 4.0 / np.sqrt(weight * options.n_repeats)
    normal = np.isfinite(relative2) & (relative2 < _STRANGE * usual + chance)
    if not normal.any():
        return math.nan, math.nan
    mean2 = float(np.average(relative2[normal], weights=weight[normal]))
    scatter = np.sqrt(np.average((relative2[normal] - mean2) ** 2, weights=weight[normal]))
    effective = float(weight[normal].sum() ** 2 / (weight[normal] ** 2).sum())
    sigma = math.sqrt(max(mean2, 0.0))
    return sigma, float(scatter / math.sqrt(effective)) / (2.0 * max(sigma, 1e-6))


# Single cells in time


@dataclass(frozen=True, eq=False)
class _Traces:
    """Reads of cells in time, relative to the mean of each cell.

    Attributes:
        one: with one conversion, shape (n_reads // single_every, n_cells).
        many: with many, shape (n_reads, n_cells).
        time_s: of the latter, shape (n_reads,).
        current_a: mean current of each cell, shape (n_cells,).
        cols: column of each cell.
    """

    one: Values
    many: Values
    time_s: Values
    current_a: Values
    cols: Lines

    @property
    def interval_s(self) -> float:
        return float(np.diff(self.time_s).mean())


def _read_in_time(bench: CalibrationBench, options: NoiseOptions) -> _Traces:
    session = bench.session
    n_side = math.ceil(math.sqrt(options.n_cells))
    rows, cols = _spread(bench.working_rows, n_side), _spread(bench.working_cols, n_side)
    mask = np.zeros(session.info.shape, np.bool_)
    mask[np.ix_(rows, cols)] = True
    n_cells = int(mask.sum())
    n_single = options.n_reads // options.single_every
    one, many = np.empty((n_single, n_cells)), np.empty((options.n_reads, n_cells))
    time_s = np.empty(options.n_reads)
    for k in range(options.n_reads):
        bench.progress("noise in time", k, options.n_reads)
        if k:
            session.wait(options.pause_s)
        time_s[k] = session.now_s()
        many[k] = session.read(mask, bench.v_read_v, n_average=options.n_average)
        single, rest = divmod(k + 1, options.single_every)
        if rest == 0:
            one[single - 1] = session.read(mask, bench.v_read_v)
    bench.progress("noise in time", options.n_reads, options.n_reads)
    row, col = np.nonzero(mask)
    row, col = np.nonzero(mask)
    singles_s = time_s[options.single_every - 1 :: options.single_every]
    for found_a, at_s, n_average in ((many, time_s, options.n_average), (one, singles_s, 1)):
        bench.record(
            "noise_reads",
            {
                "t_array_s": np.repeat(at_s, n_cells),
                "row": np.tile(row, len(at_s)),
                "col": np.tile(col, len(at_s)),
                "n_average": np.full(found_a.size, n_average),
                "current_a": found_a.ravel(),
            },
        )
    current_a = many.mean(axis=0)
    conducts = current_a > 0.1 * np.median(current_a)
    one, many, current_a = one[:, conducts], many[:, conducts], current_a[conducts]
    return _Traces(one / current_a, many / current_a, time_s, current_a, col[conducts])


def _structure(trace: Values, lags: Lines) -> Values:
    """Half the mean square of differences of reads some reads apart, shape (lags, cells)."""
    return np.stack([0.5 * ((trace[lag:] - trace[:-lag]) ** 2).mean(axis=0) for lag in lags.tolist()])


def split_variance(
    one: Values, many: Values, every: int, interval_s: float, n_average: int, band_hz: tuple[float, float]
) -> tuple[Values, Values]:
    """White and 1/f part of the variance of single conversions, cell by cell.

    Args:
        one: reads of one conversion, taken with every `every`-th of the others, shape (n // every, cells).
        many: reads of `n_average` conversions, shape (n, cells).
        every: see there.
        interval_s: between the latter.
        n_average: conversions of each of them.
        band_hz: corner frequencies of 1/f noise.

    Returns:
        Both of shape (cells,), in the unit of the traces squared. They scatter about the truth, below 0 too.
    """
    left = 1.0 / n_average
    both = np.arange(1, max(len(one) // 3, 2))
    # The longer two reads are apart, the more the slow noise between them hides the white.
    weight = 1.0 / both**2
    more = _structure(one, both) - _structure(many[every - 1 :: every][: len(one)], both)
    white = np.average(more, axis=0, weights=weight) / (1.0 - left)
    lags = np.unique(np.geomspace(1, max(len(many) // 3, 1), _N_LAGS).astype(np.intp))
    slow = _structure(many, lags) - left * white
    shape = flicker_structure(lags * interval_s, band_hz)
    # Fewer differences are independent at long lags.
    weight = 1.0 / (lags * shape**2)
    return white, (weight * shape) @ slow / (weight @ shape**2)


def _split(
    bench: CalibrationBench, options: NoiseOptions, traces: _Traces, quiet: NDArray[np.bool_], converters: Quantity
) -> tuple[Values, Values]:
    """White and 1/f part of the relative variance of the cells, shape (samples,): of all of them, and of bootstrap
    samples of them."""
    if not quiet.any():
        return np.full(1, np.nan), np.full(1, np.nan)
    white, flicker = split_variance(
        traces.one[:, quiet],
        traces.many[:, quiet],
        options.single_every,
        traces.interval_s,
        options.n_average,
        options.flicker_band_hz,
    )
    # Noise of the converters is white, too.
    own = (converters.value**2 + ROUNDING)[bench.wiring.col_converter[traces.cols[quiet]]]
    white = white - own * (nominal_amps_per_code(bench.known) / traces.current_a[quiet]) ** 2
    rng = np.random.default_rng(bench.seed)
    n = int(quiet.sum())
    samples = np.concatenate([np.arange(n)[None], rng.integers(0, n, (_N_BOOTSTRAPS, n))])
    # A cell of another kind among them, such as one with telegraph noise that was not found, must not decide.
    return _middle(white[samples]), _middle(flicker[samples])


def _middle(values: Values) -> Values:
    """Mean along the last axis of what is not far out."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75], axis=-1, keepdims=True)
    near = np.abs(values - middle) <= 3.0 * (high - low)
    return (values * near).sum(axis=-1) / near.sum(axis=-1)


def _flicker_share(white: Values, flicker: Values) -> tuple[float, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _mean_error(np.clip(flicker, 0.0, None) / (np.clip(flicker, 0.0, None) + np.clip(white, 0.0, None)))


def _mean_error(samples: Values) -> tuple[float, float]:
    """Value of all cells, and its error by the bootstrap samples behind it."""
    return float(samples[0]), float(samples[1:].std()) if len(samples) > 1 else math.nan


def _share_of(n_found: int, n_cells: int, false_share: float) -> tuple[float, float]:
    """Share of cells and its standard error, false finds taken off; an error even where none was found."""
    share = (n_found + 0.5) / (n_cells + 1.0)
    return max(n_found / n_cells - false_share, 0.0), math.sqrt(share * (1.0 - share) / n_cells)
