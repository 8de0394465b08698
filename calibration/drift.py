"""What a calibration expects of a few measurements, and how far from it they come out.

Each estimator gives deviations, measured minus calibrated, and one sigma of what chance explains: the uncertainty of
the calibration, the noise of the measurement, and that of the zero codes of the two power-ups. A sigma that is infinite
says that nothing could be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.constants import converter_sigma_a, resistances
from calibration.network import OpenColumns
from hil.calibration_file import Calibration
from hil.errors import CalibrationError
from hil.wiring import Wiring

Matrix = NDArray[np.float64]
Lines = NDArray[np.intp]

#: a line that carries less than this share of what is expected is dead
_DEAD = 0.5
#: cells that carry less than this share of the median cell say nothing about gains
_CONDUCTS = 0.2
#: noise of a zero code, in units of that of one conversion: 64 are averaged at power-up
_ZERO_NOISE = 1 / 8
#: keeps ratios finite where a cell conducts nothing
_NO_CELL_S = 1e-12
#: keeps a ratio finite where cells have no noise
_NO_NOISE = 1e-6


@dataclass(frozen=True)
class Deviation:
    """Of one quantity or of several of a kind, shape (n,) both."""

    value: Matrix
    sigma: Matrix

    @classmethod
    def unknown(cls, n: int = 1) -> Deviation:
        """Where nothing can be compared."""
        return cls(np.zeros(n), np.full(n, np.inf))


@dataclass(frozen=True, eq=False)
class Known:
    """What the calibration says, on lines that it found working and that the board can still use.

    Attributes:
        calibration, wiring: of the board.
        v_read_v: read voltage.
        rows, cols: these lines.
        cell_sigma: relative uncertainty of each cell, shape of the array; infinite where a cell is unknown.
        read_noise: of each cell, relative, shape of the array.
        column_offset_v, column_offset_sigma_v: shape (array cols,).
        converter_a: noise of one conversion of each column, with its rounding, shape (array cols,).
    """

    calibration: Calibration
    wiring: Wiring
    v_read_v: float
    rows: Lines
    cols: Lines
    cell_s: Matrix
    cell_sigma: Matrix
    read_noise: Matrix
    column_offset_v: Matrix
    column_offset_sigma_v: Matrix
    converter_a: Matrix

    @classmethod
    def of(cls, calibration: Calibration, wiring: Wiring, v_read_v: float) -> Known:
        """By a calibration with the parts zero, line, noise and array.

        Args:
            calibration: of the board.
            wiring: as the last power-up found it.
            v_read_v: read voltage.

        Raises:
            CalibrationError: no line is left.
        """
        rows = np.flatnonzero(calibration.row_ok & wiring.row_ok)
        cols = np.flatnonzero(calibration.col_ok & wiring.col_ok)
        if not (len(rows) and len(cols)):
            raise CalibrationError(
                f"the board can use none of the lines of calibration {calibration.calibration_id}",
                fix="look at the board with `hil board test`",
            )
        cells, cell_ok, cell_sigma = _quantity(calibration, "conductance_s")
        offset_v, offset_ok, offset_sigma = _quantity(calibration, "column_offset_v")
        noise, noise_ok, _ = _quantity(calibration, "read_noise_cell")
        known = cell_ok & (cells > 0.0)
        return cls(
            calibration=calibration,
            wiring=wiring,
            v_read_v=v_read_v,
            rows=rows,
            cols=cols,
            cell_s=cells,
            cell_sigma=np.where(known, cell_sigma / np.where(known, cells, 1.0), np.inf),
            read_noise=np.where(noise_ok, noise, float(calibration.value("read_noise"))),
            column_offset_v=np.where(offset_ok, offset_v, 0.0),
            column_offset_sigma_v=offset_sigma,
            converter_a=converter_sigma_a(calibration, np.arange(calibration.board.shape[1])),
        )

    def alone_s(self, cols: Lines) -> Matrix:
        """Current of each column per volt on each row alone, with these columns open; shape (array rows, cols)."""
        stored = self.calibration.quantity("alone_s")
        # As it was measured, where it was measured with just these columns open.
        if stored is not None and np.array_equal(cols, np.flatnonzero(self.calibration.col_ok)):
            return stored.value[:, cols]
        return OpenColumns(self.cell_s[:, cols], cols, self.wiring, resistances(self.calibration)).rows_alone_s()

    def zero_a(self, cols: Lines) -> Matrix:
        """What the zero codes of two power-ups may differ by, per conversion."""
        return np.sqrt(2.0) * _ZERO_NOISE * self.converter_a[cols]

    @property
    def n_phases(self) -> int:
        """Phases in which all rows are driven once."""
        if self.wiring.independent_selects:
            return int(np.bincount(self.wiring.row_channel[self.rows]).max())
        return len(np.unique(self.wiring.row_position[self.rows]))


def _quantity(calibration: Calibration, name: str) -> tuple[Matrix, NDArray[np.bool_], Matrix]:
    """Value, where it may be used, and uncertainty, 0 where none is stated."""
    value = calibration.value(name)
    found = calibration.quantity(name)
    assert found is not None
    return value, found.ok, np.nan_to_num(found.uncertainty)


@dataclass(frozen=True, eq=False)
class Driven:
    """Sets of rows driven several times over, with some columns open; matrices have the shape (sets, cols).

    Attributes:
        known: what the calibration says.
        sets: rows of each set.
        cols: open columns.
        per_volt_s: current per volt on each row alone, shape (array rows, cols).
        expected_a: by the calibration.
        ratio: measured over expected.
        weight: inverse variance of `ratio`; 0 where a cell says nothing, or its line is dead.
        variance_a2, cells_a2: noise over the passes, and that of the cells by the calibration.
        n_passes: how often each set was driven.
    """

    known: Known
    sets: list[Lines]
    cols: Lines
    per_volt_s: Matrix
    expected_a: Matrix
    ratio: Matrix
    weight: Matrix
    variance_a2: Matrix
    cells_a2: Matrix
    n_passes: int

    @classmethod
    def of(
        cls, known: Known, sets: list[Lines], cols: Lines, passes: Matrix, per_volt_s: Matrix | None = None
    ) -> Driven:
        """Hold currents (passes, sets, cols) against what is expected."""
        per_volt_s = known.alone_s(cols) if per_volt_s is None else per_volt_s
        unknown = ~np.isfinite(known.cell_sigma[:, cols])
        expected_a, cells_a2, given_a2, incomplete = [], [], [], []
        for rows in sets:
            alone_a = per_volt_s[rows] * known.v_read_v
            connected_s = per_volt_s[_connected(known.wiring, rows)].sum(axis=0)
            shared_a = _shared_a(known, rows, alone_a, per_volt_s[rows])
            expected_a.append((alone_a - shared_a).sum(axis=0) - known.column_offset_v[cols] * connected_s)
            at = np.ix_(rows, cols)
            cells_a2.append(((known.read_noise[at] * alone_a) ** 2).sum(axis=0))
            given_a2.append(((np.where(unknown[rows], 0.0, known.cell_sigma[at]) * alone_a) ** 2).sum(axis=0))
            incomplete.append(unknown[rows].any(axis=0))
        expected, cells, given = np.array(expected_a), np.array(cells_a2), np.array(given_a2)
        carries = (expected > _CONDUCTS * np.median(expected)) & ~np.array(incomplete)
        safe_a = np.where(carries, expected, np.inf)
        ratio = np.where(carries, passes.mean(axis=0) / safe_a, 1.0)
        noise_a2, found_a2 = cells + known.converter_a[cols] ** 2, passes.var(axis=0, ddof=1)
        # A few noisy cells make a column noisier than its usual cells.
        louder = np.maximum(1.0, (found_a2 / np.where(noise_a2 > 0.0, noise_a2, np.inf)).mean(axis=0))
        variance = (given + louder * noise_a2 / len(passes)) / safe_a**2
        alive = (np.median(ratio, axis=1)[:, None] > _DEAD) & (np.median(ratio, axis=0) > _DEAD)
        weight = np.where(carries & alive, 1.0 / np.where(variance > 0.0, variance, 1.0), 0.0)
        return cls(known, sets, cols, per_volt_s, expected, ratio, weight, found_a2, cells, len(passes))

    @property
    def silent_sets(self) -> Lines:
        """Sets that carry next to nothing."""
        return np.flatnonzero(np.median(self.ratio, axis=1) <= _DEAD)

    @property
    def silent_cols(self) -> Lines:
        """Columns that carry next to nothing."""
        return self.cols[np.median(self.ratio, axis=0) <= _DEAD]

    @property
    def live_cols(self) -> NDArray[np.bool_]:
        """Columns that say something, shape (cols,)."""
        return (self.weight > 0.0).any(axis=0)

    def whole(self) -> tuple[Matrix, Matrix, Matrix]:
        """Of all columns of each set together: expected current, relative deviation, its variance.

        A set that says nothing has no current and an infinite variance.
        """
        used = self.weight > 0.0
        part_a = np.where(used, self.expected_a, 0.0)
        whole_a = part_a.sum(axis=1)
        safe_a = np.where(whole_a > 0.0, whole_a, 1.0)
        deviation = (part_a * (self.ratio - 1.0)).sum(axis=1) / safe_a
        variance = (part_a**2 / np.where(used, self.weight, 1.0)).sum(axis=1) / safe_a**2
        return whole_a, deviation, np.where(whole_a > 0.0, variance, np.inf)


def _connected(wiring: Wiring, rows: Lines) -> Lines:
    """Rows that a phase connects which drives some rows: without INH all at their positions, the others at idle."""
    if wiring.inhibit:
        return rows
    return np.flatnonzero(np.isin(wiring.row_position, wiring.row_position[rows]))


def _shared_a(known: Known, rows: Lines, alone_a: Matrix, alone_s: Matrix) -> Matrix:
    """Current that each row of a set loses to the others, which raise the source lines; to first order."""
    shared_ohm = float(known.calibration.value("col_ohm")) * (
        len(known.wiring.row_channel) - np.maximum.outer(rows, rows)
    )
    np.fill_diagonal(shared_ohm, 0.0)
    return alone_s * (shared_ohm @ alone_a)


def column_offsets(known: Known, all_open: Driven, idle_a: Matrix) -> Deviation:
    """Offset of each column against the median column, from all rows together at a read voltage of zero."""
    sum_s = all_open.per_volt_s[known.rows].sum(axis=0)
    moved_v = -idle_a.mean(axis=0) / sum_s - known.column_offset_v[known.cols]
    # The spread of all columns together: that of one column alone is not known well from so few.
    noise_a = np.sqrt(np.median(idle_a.var(axis=0, ddof=1)) / len(idle_a))
    sigma_v = np.hypot(noise_a, known.n_phases * known.zero_a(known.cols)) / sum_s
    sigma_v = np.hypot(sigma_v, known.column_offset_sigma_v[known.cols])
    alive = all_open.live_cols
    if not alive.any():
        return Deviation.unknown(len(moved_v))
    return Deviation(moved_v - np.median(moved_v[alive]), np.where(alive, sigma_v, np.inf))


def incomplete_sets(together: Driven) -> Lines:
    """Sets of which a row is missing, though others carry current."""
    whole_a, deviation, _ = together.whole()
    level = 1.0 + deviation
    usual = np.median(level[whole_a > 0.0]) if (whole_a > 0.0).any() else 1.0
    size = np.array([max(1, len(rows)) for rows in together.sets])
    return np.flatnonzero((whole_a > 0.0) & (level < (1.0 - _DEAD / size) * usual))


def column_gains(together: Driven) -> Deviation:
    """Gain of each column against the median column, relative."""
    _, whole, _ = together.whole()
    weight = together.weight.copy()
    weight[incomplete_sets(together)] = 0.0
    sum_weight = weight.sum(axis=0)
    alive = sum_weight > 0.0
    if not alive.any():
        return Deviation.unknown(len(alive))
    safe = np.where(alive, sum_weight, 1.0)
    level = np.where(whole > -_DEAD, 1.0 + whole, 1.0)
    deviation = (weight * (together.ratio / level[:, None] - 1.0)).sum(axis=0) / safe
    per_a = (weight / np.where(weight > 0.0, together.expected_a, 1.0)).sum(axis=0) / safe
    sigma = np.hypot(1.0 / np.sqrt(safe), together.known.zero_a(together.cols) * per_a)
    return Deviation(deviation - np.median(deviation[alive]), np.where(alive, sigma, np.inf))


@dataclass(frozen=True, eq=False)
class Rows:
    """What rows that were driven alone say.

    Attributes:
        cells: relative change of all conductances.
        front: change of the resistance in front of all rows, ohm.
        channels: relative deviation of each channel's rows from what these two make of them.
        is_level: whether a channel deviates as much with few columns open, where a resistance hardly matters.
    """

    cells: Deviation
    front: Deviation
    channels: Deviation
    is_level: NDArray[np.bool_]


def rows_alone(all_open: Driven, few_open: Driven) -> Rows:
    """Tell cells, resistances and channels apart, by rows driven alone with all columns open and with few."""
    known = all_open.known
    n_channels = known.wiring.n_channels
    parts = [_sensitivities(driven) for driven in (all_open, few_open)]
    deviation, weight, design = (np.concatenate(both) for both in zip(*parts, strict=True))
    normal = design.T @ (weight[:, None] * design)
    if np.linalg.matrix_rank(normal) < 2:
        unknown = Deviation.unknown()
        return Rows(unknown, unknown, Deviation.unknown(n_channels), np.zeros(n_channels, np.bool_))
    covariance = np.linalg.inv(normal)
    common = covariance @ (design.T @ (weight * deviation))
    sigma = np.sqrt(np.diag(covariance))
    board = known.calibration.electrics
    rounding = board["dac_full_scale_v"] / 2 ** board["dac_bits"] / np.sqrt(12.0) / known.v_read_v

    def by_channel(driven: Driven, deviation: Matrix, weight: Matrix, design: Matrix) -> Deviation:
        channel = known.wiring.row_channel[np.concatenate(driven.sets)]
        own = np.bincount(channel, weight, n_channels)
        safe = np.where(own > 0.0, own, 1.0)
        mean = np.bincount(channel, weight * (deviation - design @ common), n_channels) / safe
        return Deviation(mean, np.where(own > 0.0, np.hypot(1.0 / np.sqrt(safe), rounding), np.inf))

    with_all, with_few = (by_channel(d, *found) for d, found in zip((all_open, few_open), parts, strict=True))
    return Rows(
        cells=Deviation(common[:1], sigma[:1]),
        front=Deviation(common[1:], sigma[1:]),
        channels=with_all,
        is_level=np.abs(with_few.value) > 0.5 * np.abs(with_all.value),
    )


def _sensitivities(alone: Driven) -> tuple[Matrix, Matrix, Matrix]:
    """Relative deviation of each row's whole current, its weight, and how it changes with all conductances and with
    each ohm in front of the row, shape (rows, 2)."""
    rows = np.concatenate(alone.sets)
    whole_a, deviation, variance = alone.whole()
    part_a = np.where(alone.weight > 0.0, alone.expected_a, 0.0)
    # By Cohn's theorem a conductance changes the whole by the square of the share of the drive that is across it.
    share = alone.per_volt_s[rows] / alone.known.cell_s[np.ix_(rows, alone.cols)].clip(_NO_CELL_S)
    by_cells = (part_a * share).sum(axis=1) / np.where(whole_a > 0.0, whole_a, 1.0)
    per_ohm = -alone.per_volt_s[rows].sum(axis=1)
    return deviation, 1.0 / variance, np.stack([by_cells, per_ohm], axis=1)


def read_noise(alone: Driven) -> Deviation:
    """Noise of a usual cell, relative: the median over all cells, which few noisy ones do not move."""
    from scipy.stats import chi2

    used = alone.weight > 0.0
    quantity = alone.known.calibration.quantity("read_noise")
    expected_a2 = (alone.cells_a2 + alone.known.converter_a[alone.cols] ** 2)[used]
    if quantity is None or not expected_a2.size or not expected_a2.all():
        return Deviation.unknown()
    freedom = alone.n_passes - 1
    found = np.median(alone.variance_a2[used] / expected_a2) / (chi2.median(freedom) / freedom)
    stated = float(np.nan_to_num(quantity.uncertainty)) / max(float(quantity.value), _NO_NOISE)
    # A median of many has a spread larger by about the root of pi / 2 than their mean.
    by_chance = np.sqrt(np.pi / 2) / np.sqrt(2.0 * freedom * used.sum())
    return Deviation(np.array([np.sqrt(found) - 1.0]), np.array([np.hypot(stated, by_chance)]))


def converter_noise(known: Known, all_open: Driven, idle_a: Matrix) -> Deviation:
    """Noise of each converter, relative, from all rows together at a read voltage of zero."""
    # What the cells add: their columns' offsets drive a little through them.
    moving_a = known.read_noise[np.ix_(known.rows, known.cols)] * all_open.per_volt_s[known.rows]
    cells_a2 = (moving_a**2).sum(axis=0) * known.column_offset_v[known.cols] ** 2
    expected_a2 = known.n_phases * known.converter_a[known.cols] ** 2
    found = (idle_a.var(axis=0, ddof=1) - cells_a2) / np.where(expected_a2 > 0.0, expected_a2, np.inf)
    alive = all_open.live_cols
    converter = known.wiring.col_converter[known.cols][alive]
    n = np.bincount(converter, minlength=known.wiring.n_converters)
    mean = np.bincount(converter, found[alive], known.wiring.n_converters) / np.maximum(n, 1)
    sigma = np.where(n > 0, 1.0 / np.sqrt(2.0 * (len(idle_a) - 1) * np.maximum(n, 1)), np.inf)
    return Deviation(np.sqrt(np.maximum(mean, 0.0)) - 1.0, sigma)
