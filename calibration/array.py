"""Conductance of every cell, its read noise, and the statistics of the formed array.

Rows are driven alone over many passes, with all columns open as in a multiplication. What resistances and offsets do to
the currents is taken out with the network that the resistances were fitted with, until it gives what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.alone import RowsAlone, drive_v, measure_rows_alone
from calibration.constants import converter_sigma_a, resistances
from calibration.line import spread_s
from calibration.network import OpenColumns, by_ladder_s, missing_s, secant_s
from calibration.procedure import CalibrationBench
from hil.calibration_file import Part, Quantity
from hil.fault_map import Fault

Matrix = NDArray[np.float64]
Lines = NDArray[np.intp]


@dataclass(frozen=True)
class ArrayOptions:
    """What to measure.

    Attributes:
        n_passes: over all rows; the error of a conductance is the read noise over the root of this.
        n_steps: of the inversion, at most.
        tolerance: rms change of a step over the median conductance that ends the inversion; what is left is far less.
        unformed_below_s: conductance below which a cell counts as unformed.
        noisy_sigmas: how far beyond chance a cell's noise must be to count as its own.
    """

    n_passes: int = 32
    n_steps: int = 4
    tolerance: float = 2e-3
    unformed_below_s: float = 1e-6
    noisy_sigmas: float = 5.0


def measure(bench: CalibrationBench, options: ArrayOptions | None = None) -> Part:
    """Measure all cells that can be reached."""
    options = options or ArrayOptions()
    rows, cols = bench.working_rows, bench.working_cols
    alone = measure_rows_alone(bench, cols, bench.v_read_v, options.n_passes, rows=rows, what="rows alone")
    drive = drive_v(bench, bench.v_read_v, rows, cols)
    cell_s, left, per_current = invert(bench, alone, drive, options)
    noise = float(bench.known.value("read_noise"))
    converter_a = converter_sigma_a(bench.known, cols) * np.sqrt(alone.n_conversions)
    own, is_noisy = cell_noise(alone, noise, converter_a, options)
    shape = bench.session.info.shape
    reached = np.ix_(rows, cols)

    def whole(values: Matrix, missing: float) -> Matrix:
        result = np.full(shape, missing)
        result[reached] = values
        return result

    ok = np.zeros(shape, np.bool_)
    ok[reached] = True
    faults = np.zeros(shape, np.uint8)
    faults[reached] |= np.where(cell_s < options.unformed_below_s, np.uint8(Fault.UNFORMED), np.uint8(0))
    faults[reached] |= np.where(is_noisy, np.uint8(Fault.NOISY), np.uint8(0))
    error_s = np.sqrt(alone.variance_a2 / alone.n_passes) * per_current
    formed = whole(np.where(cell_s >= options.unformed_below_s, cell_s, np.nan), np.nan)
    n_formed = int(np.isfinite(formed).sum())
    pairs = formed[:, 0 : 2 * (shape[1] // 2) : 2] - formed[:, 1::2]
    n_pairs = int(np.isfinite(pairs).sum())
    sigma_pairs = float(np.nanstd(pairs)) if n_pairs else np.nan
    return Part(
        name="array",
        quantities={
            # A cell that cannot be reached is taken as an average one: its row floats beside the others.
            "conductance_s": Quantity.of(whole(cell_s, float(np.mean(cell_s))), whole(error_s, np.nan), ok),
            # What a row alone gives per volt, all working columns open: what the drift watch compares with.
            "alone_s": Quantity.of(
                whole(alone.mean_a / drive, 0.0), whole(np.sqrt(alone.variance_a2 / alone.n_passes) / drive, np.nan), ok
            ),
            "read_noise_cell": Quantity.of(
                whole(own, noise), whole(own / np.sqrt(2 * max(options.n_passes - 1, 1)), np.nan), ok
            ),
            "faults": Quantity.of(faults, ok=ok),
            "forming_mean_s": Quantity.of(np.nanmean(formed), np.nanstd(formed) / np.sqrt(max(n_formed, 1))),
            "forming_sigma_difference_s": Quantity.of(sigma_pairs, sigma_pairs / np.sqrt(2 * max(n_pairs, 1))),
            "formed_share": Quantity.of(n_formed / cell_s.size),
        },
        residuals={"inversion_relative": left},
        method="passes of rows alone on all columns; resistances and offsets taken out by the network",
        options=vars(options),
        findings=_findings(faults),
    )


def invert(
    bench: CalibrationBench, alone: RowsAlone, drive: Matrix, options: ArrayOptions
) -> tuple[Matrix, float, Matrix]:
    """Conductances that the network turns into the currents that were measured.

    Returns:
        Conductances (rows, cols) of the rows and columns that took part; rms change of the last step over the median
        conductance; siemens per ampere, to turn errors of currents into errors of conductances.
    """
    wiring = bench.wiring
    n_rows = bench.session.info.shape[0]
    ohms = resistances(bench.known)
    cell_s = by_ladder_s(alone.mean_a, drive, alone.rows, alone.cols, wiring, ohms)
    usual_s = float(np.median(cell_s))
    before: tuple[Matrix, Matrix] | None = None
    left = np.inf
    for k in range(options.n_steps):
        bench.progress("take resistances out", k, options.n_steps)
        network = OpenColumns(spread_s(cell_s, alone.rows, n_rows), alone.cols, wiring, ohms)
        model_s = network.rows_alone_s()[alone.rows]
        step_s = missing_s(alone.mean_a, model_s, drive, alone.rows, alone.cols, wiring, ohms)
        better_s = cell_s + step_s if before is None else secant_s(cell_s, before[0], step_s, before[1])
        before = cell_s, step_s
        cell_s = np.maximum(better_s, 0.0)
        left = float(np.sqrt(np.mean(step_s**2))) / usual_s
        if left < options.tolerance:
            break
    bench.progress("take resistances out", options.n_steps, options.n_steps)
    return cell_s, left, cell_s / np.maximum(alone.mean_a, 1e-12)


def cell_noise(
    alone: RowsAlone, usual: float, converter_a: Matrix, options: ArrayOptions
) -> tuple[Matrix, NDArray[np.bool_]]:
    """Relative read noise of every cell: the usual one, but for cells that have more beyond chance."""
    current_a = np.maximum(alone.mean_a, 1e-12)
    own = np.sqrt(np.maximum(alone.variance_a2 - converter_a**2, 0.0)) / current_a
    expected = (usual * current_a) ** 2 + converter_a**2
    limit = 1.0 + options.noisy_sigmas * np.sqrt(2.0 / max(alone.n_passes - 1, 1))
    is_noisy = alone.variance_a2 > limit * expected
    return np.where(is_noisy, own, usual), is_noisy


def _findings(faults: NDArray[np.uint8]) -> tuple[str, ...]:
    found = []
    for fault, words in ((Fault.UNFORMED, "conduct next to nothing"), (Fault.NOISY, "have more noise than others")):
        n = int(np.count_nonzero(faults & np.uint8(fault)))
        if n:
            found.append(f"cells that {words}: {n:,}")
    return tuple(found)
