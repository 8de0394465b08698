"""Settling: how long after a row is connected its currents are final.

A row is connected again and again, and its columns are converted sooner or later after that. Each of these conversions
is compared with a late one next to it, so that slow noise of the cells drops out; the ratio approaches one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.procedure import CalibrationBench
from calibration.search import Settling, fit_settling
from hil.calibration_file import Quantity
from hil.errors import CapabilityError
from hil.runfile import Column, TableSpec

Values = NDArray[np.float64]

#: before the currents have come this far nothing but dead time is seen
_BEGUN = 0.2


#: of the run file
TABLES = (
    TableSpec(
        "settling",
        [
            Column("row", np.uint16, "1"),
            Column("settle_s", np.float64, "s"),
            Column("soon_a", np.float64, "A"),
            Column("late_a", np.float64, "A"),
        ],
        "current of some columns a time after a row was connected, and late after it",
    ),
)


@dataclass(frozen=True)
class SettlingOptions:
    """How settling is measured.

    Attributes:
        row: bit line that is connected; None: the first that works.
        delays_s: from connecting to converting, rising, in steps of the fabric's clock; the last one is late enough
            for certain.
        n_cols: columns that are converted, those that conduct most.
        n_repeats: times that each delay is measured.
        rest: share of a current that may be missing when it counts as settled.
    """

    row: int | None = None
    delays_s: tuple[float, ...] = tuple(np.geomspace(0.2e-6, 20e-6, 10).round(8).tolist())
    n_cols: int = 8
    n_repeats: int = 6
    rest: float = 1e-4


def measure_settling(
    bench: CalibrationBench, options: SettlingOptions | None = None
) -> tuple[dict[str, Quantity], tuple[str, ...]]:
    """Time to settle within `rest` and the time constant, and what to say of them.

    Raises:
        CapabilityError: the backend cannot convert at a time of one's choice.
    """
    options = options or SettlingOptions()
    if bench.access is None:
        raise CapabilityError(
            f"backend {bench.session.info.name!r} cannot convert at a time of one's choice",
            fix="use a board, real or emulated",
        )
    delays_s = np.array(options.delays_s)
    ratio, error = _ratios(bench, options, delays_s)
    begun = np.maximum.accumulate(ratio > _BEGUN)
    fit = fit_settling(delays_s[begun], ratio[begun], sigma=error[begun])
    return _quantities(options, delays_s, fit), _findings(bench, options, delays_s, fit)


def _ratios(bench: CalibrationBench, options: SettlingOptions, delays_s: Values) -> tuple[Values, Values]:
    """Current over final current at each delay, and its standard error, both of shape (delays,)."""
    assert bench.access is not None
    row = int(bench.working_rows[0]) if options.row is None else options.row
    cols = bench.working_cols
    late_s = float(delays_s[-1])
    first_a = bench.access.sense(cols, row=row, v_read_v=bench.v_read_v, settle_s=late_s)
    cols = np.sort(cols[np.argsort(-first_a)[: options.n_cols]])
    found_a = np.empty((options.n_repeats, len(delays_s), 2))
    for k in range(options.n_repeats):
        bench.progress("settling", k, options.n_repeats)
        for i, delay_s in enumerate(delays_s.tolist()):
            for j, settle_s in enumerate((delay_s, late_s)):
                each_a = bench.access.sense(cols, row=row, v_read_v=bench.v_read_v, settle_s=settle_s)
                found_a[k, i, j] = each_a.sum()
    bench.progress("settling", options.n_repeats, options.n_repeats)
    soon_a, late_a = np.moveaxis(found_a, -1, 0)
    bench.record(
        "settling",
        {
            "row": np.full(soon_a.size, row),
            "settle_s": np.tile(delays_s, options.n_repeats),
            "soon_a": soon_a.ravel(),
            "late_a": late_a.ravel(),
        },
    )
    ratio = soon_a / late_a
    # All delays scatter alike, which makes one estimate of many.
    error = math.sqrt(float(ratio.var(axis=0, ddof=1).mean()) / options.n_repeats)
    return ratio.mean(axis=0), np.full(len(delays_s), error)


def _quantities(options: SettlingOptions, delays_s: Values, fit: Settling) -> dict[str, Quantity]:
    if not fit.found:
        shortest_s = float(delays_s[0])
        return {
            "settle_s": Quantity.of(shortest_s, shortest_s, ok=False),
            "settle_tau_s": Quantity.of(math.nan, math.nan, ok=False),
        }
    rest = options.rest * abs(fit.final)
    return {
        "settle_s": Quantity.of(fit.time_to_s(rest), fit.time_error_s(rest)),
        "settle_tau_s": Quantity.of(fit.tau_s, fit.tau_error_s),
    }


def _findings(bench: CalibrationBench, options: SettlingOptions, delays_s: Values, fit: Settling) -> tuple[str, ...]:
    if not fit.found:
        return (f"no settling was seen: currents are final {delays_s[0]:.2g} s after a row is connected, within noise",)
    needed_s = fit.time_to_s(options.rest * abs(fit.final))
    electrics = bench.known.electrics
    given_s = float(electrics.get("mux_settle_s", 0.0)) + float(electrics.get("tia_settle_s", math.inf))
    if given_s < needed_s - 2.0 * fit.time_error_s(options.rest * abs(fit.final)):
        missing = abs(fit.amplitude / fit.final) * math.exp(-given_s / fit.tau_s)
        return (
            f"the board waits {given_s:.2g} s after connecting a row, but currents need {needed_s:.2g} s to settle "
            f"within {options.rest:g}: {missing:.2g} of each is missing; raise tia.settle_s of the board profile",
        )
    return ()
