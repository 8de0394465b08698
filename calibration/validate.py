"""Validation: does the calibrated simulator answer as the board does, on inputs that no fit has seen?

Both are asked the same, several times over, so that what differs between them can be held against what the board
differs from itself. A simulator that knows nothing of the board is asked beside them.

An error is the difference of one multiplication by the board and one by the simulator and holds the noise of both: a
perfect simulator has an rms ratio of the square root of two.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.validation_inputs import InputOptions, InputSet, input_sets, network_tile
from hil.backend import BackendInfo, CrossbarBackend
from hil.calibration_file import BoardIdentity, Calibration
from hil.errors import ConfigError
from hil.progress import Progress, no_progress
from hil.tile import Tile

Matrix = NDArray[np.float64]
Interval = tuple[float, float]

#: in the telemetry of a board: conversions at the end of their range
_CLIPPED = "clipped_sums_count"
_PERCENTILES = (2.5, 97.5)
#: keeps the deviations of a simulator without noise finite
_NO_NOISE_A = 1e-18


@dataclass(frozen=True)
class ValidateOptions:
    """What is asked, and what must hold.

    Attributes:
        inputs: sets of inputs.
        n_repeats: how often each input is asked.
        n_bootstrap: resamplings behind each 95 % interval.
        rms_ratio_max: largest rms error, in units of the board's repeat-read noise.
        bias_ratio_max: largest mean error, in the same.
        clipped_share_max: a set of which a larger share of sums holds clipped conversions is not judged.
    """

    inputs: InputOptions = field(default_factory=InputOptions)
    n_repeats: int = 8
    n_bootstrap: int = 1000
    rms_ratio_max: float = 1.5
    bias_ratio_max: float = 0.2
    clipped_share_max: float = 1e-3

    def __post_init__(self) -> None:
        if self.n_repeats < 2:
            raise ConfigError(f"{self.n_repeats} repeats show no noise", fix="use 2 or more, such as 8")
        if self.n_bootstrap < 1:
            raise ConfigError(f"{self.n_bootstrap} resamplings make no interval", fix="use 100 or more")


@dataclass(frozen=True)
class Closeness:
    """How close a simulator comes to the board; all in units of the board's repeat-read noise (one sigma).

    Attributes:
        rms_ratio: rms of the error, with the noise of both in it.
        bias_ratio: mean of the error, board minus simulator.
        systematic_ratio: rms of what is left of the error when noise is taken out.
        output_bias_ratio: rms over the outputs of each output's own mean error, noise taken out.
        noise_ratio: noise of the simulator.
        deviation_ks: Kolmogorov-Smirnov distance between the deviations of repeats from their mean, each in units of
            its own side's sigma: how alike the shapes of the noise are.
        current_wasserstein: Wasserstein distance between the distributions of all currents.
        rms_ratio_interval, bias_ratio_interval, systematic_ratio_interval: 95 %, by bootstrap over the inputs.
    """

    rms_ratio: float
    bias_ratio: float
    systematic_ratio: float
    output_bias_ratio: float
    noise_ratio: float
    deviation_ks: float
    current_wasserstein: float
    rms_ratio_interval: Interval
    bias_ratio_interval: Interval
    systematic_ratio_interval: Interval


@dataclass(frozen=True)
class SetOutcome:
    """One set of inputs.

    Attributes:
        name, what: of the set.
        n_inputs, n_outputs, n_repeats: what was asked.
        rows_driven: mean over the inputs.
        v_read_v: read voltage.
        sigma_a: repeat-read noise of the board.
        current_rms_a: of the board's answers.
        clipped_share: of the board's sums, those that hold conversions at the end of their range.
        is_judged: whether these are few enough.
        calibrated: the calibrated simulator.
        uncalibrated: the other one; None where none was asked.
    """

    name: str
    what: str
    n_inputs: int
    n_outputs: int
    n_repeats: int
    rows_driven: float
    v_read_v: float
    sigma_a: float
    current_rms_a: float
    clipped_share: float
    is_judged: bool
    calibrated: Closeness
    uncalibrated: Closeness | None


@dataclass(frozen=True)
class Pooled:
    """All judged sets together, each in units of its own sigma and with the same weight."""

    rms_ratio: float
    bias_ratio: float
    systematic_ratio: float
    rms_ratio_interval: Interval
    bias_ratio_interval: Interval
    systematic_ratio_interval: Interval


@dataclass(frozen=True)
class Criterion:
    """One thing that must hold.

    Attributes:
        name: of the figure.
        value: over all judged sets.
        interval: 95 %.
        limit: largest value that holds.
        holds: whether it does.
        worst_set: set with the largest value.
        worst_value: that value.
        sets_outside: judged sets that by themselves are above the limit.
    """

    name: str
    value: float
    interval: Interval
    limit: float
    holds: bool
    worst_set: str
    worst_value: float
    sets_outside: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """Outcome.

    Attributes:
        holds: whether all criteria do.
        criteria: what was judged, for the calibrated simulator.
        calibrated, uncalibrated: pooled figures of both simulators.
        sets: figures of each set.
        sets_not_judged: names of those in which converters clipped too often.
        calibration_id: what was validated.
        board, simulator, other: who answered.
        seed: of the inputs and of the bootstrap.
        options: as they were.
        measured_unix_s, wall_s: when, and how long it took.
    """

    holds: bool
    criteria: tuple[Criterion, ...]
    calibrated: Pooled
    uncalibrated: Pooled | None
    sets: tuple[SetOutcome, ...]
    sets_not_judged: tuple[str, ...]
    calibration_id: str
    board: dict[str, Any]
    simulator: dict[str, Any]
    other: dict[str, Any] | None
    seed: int
    options: dict[str, Any]
    measured_unix_s: float
    wall_s: float

    def as_mapping(self) -> dict[str, Any]:
        """As texts, numbers, lists and mappings, for `Calibration.with_validation` and for JSON."""
        return dataclasses.asdict(self)


def validate(
    board: CrossbarBackend,
    simulator: CrossbarBackend,
    calibration: Calibration,
    *,
    v_read_v: float,
    uncalibrated: CrossbarBackend | None = None,
    tile: Tile | None = None,
    spikes: NDArray[np.bool_] | None = None,
    options: ValidateOptions | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
    now_unix_s: Callable[[], float] = time.time,
) -> Validation:
    """Ask the board and both simulators the same.

    Args:
        board: open session on the board, with the calibration applied.
        simulator: open session on the simulator that has loaded it; its noise must be independent of the board's.
        calibration: both their calibration.
        v_read_v: read voltage that the calibration is for.
        uncalibrated: open session on a simulator that knows nothing of the chip: drawn by another seed.
        tile: differential; None: `network_tile`.
        spikes: row vectors of the tile from real spike trains, shape (n, tile.n_rows); None leaves that set out.
        options: what is asked.
        seed: of random inputs, and of the bootstrap.
        progress: told on the way.
        now_unix_s: clock.

    Raises:
        ConfigError: board or simulator has another calibration, the board has no noise, or `spikes` do not fit the
            tile.
    """
    options = options or ValidateOptions()
    for name, info in (("board", board.info), ("simulator", simulator.info)):
        check_applied(name, info, calibration)
    started = time.perf_counter()
    tile = tile or network_tile(calibration, options.inputs)
    sets = input_sets(simulator, calibration, tile, v_read_v, spikes, options.inputs, seed)
    outcomes: list[SetOutcome] = []
    replicates: list[dict[str, _Replicates]] = []
    sides = {"calibrated": simulator} | ({"uncalibrated": uncalibrated} if uncalibrated is not None else {})
    for number, inputs in enumerate(sets):
        progress("validate", number, len(sets))
        clipped = board.telemetry().values.get(_CLIPPED, 0.0)
        asked = _ask(board, inputs, options.n_repeats)
        clipped = board.telemetry().values.get(_CLIPPED, 0.0) - clipped
        clipped_share = clipped / (options.n_repeats * len(inputs.bits) * len(inputs.tile.cols))
        if not _sigma(asked) > 0.0:
            raise ConfigError(
                f"the board repeats itself exactly in set {inputs.name!r}: without noise errors have no measure",
                fix="validate a board that has noise",
            )
        answers = {name: _ask(side, inputs, options.n_repeats) for name, side in sides.items()}
        # The same resampling for both simulators.
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, number)))
        resampled = rng.integers(len(inputs.bits), size=(options.n_bootstrap, len(inputs.bits)))
        found = {name: _Replicates.of(asked, answer, resampled) for name, answer in answers.items()}
        replicates.append(found)
        closeness = {name: _closeness(asked, answers[name], found[name]) for name in answers}
        outcomes.append(
            SetOutcome(
                name=inputs.name,
                what=inputs.what,
                n_inputs=len(inputs.bits),
                n_outputs=inputs.tile.n_outputs,
                n_repeats=options.n_repeats,
                rows_driven=float(inputs.bits.sum(axis=1).mean()),
                v_read_v=inputs.v_read_v,
                sigma_a=_sigma(asked),
                current_rms_a=float(np.sqrt(np.mean(asked**2))),
                clipped_share=clipped_share,
                is_judged=clipped_share <= options.clipped_share_max,
                calibrated=closeness["calibrated"],
                uncalibrated=closeness.get("uncalibrated"),
            )
        )
    progress("validate", len(sets), len(sets))
    judged = [k for k, outcome in enumerate(outcomes) if outcome.is_judged]
    if not judged:
        raise ConfigError(
            "converters clipped in every set of inputs, so that nothing can be judged",
            fix="validate at a lower read voltage, or look at the converters with `hil board test`",
        )
    pooled = {name: _pool([replicates[k][name] for k in judged]) for name in sides}
    criteria = _criteria([outcomes[k] for k in judged], pooled["calibrated"], options)
    return Validation(
        holds=all(criterion.holds for criterion in criteria),
        criteria=criteria,
        calibrated=pooled["calibrated"],
        uncalibrated=pooled.get("uncalibrated"),
        sets=tuple(outcomes),
        sets_not_judged=tuple(outcome.name for outcome in outcomes if not outcome.is_judged),
        calibration_id=calibration.calibration_id,
        board=_identity(board.info),
        simulator=_identity(simulator.info),
        other=None if uncalibrated is None else _identity(uncalibrated.info),
        seed=seed,
        options=dataclasses.asdict(options),
        measured_unix_s=now_unix_s(),
        wall_s=time.perf_counter() - started,
    )


def check_applied(name: str, info: BackendInfo, calibration: Calibration) -> None:
    """Raise `ConfigError` unless a backend has this calibration applied."""
    if info.calibration_id != calibration.calibration_id:
        found = f"calibration {info.calibration_id}" if info.calibration_id else "no calibration"
        raise ConfigError(
            f"the {name} ({info.name}) has {found} applied, not {calibration.calibration_id}",
            fix="open it with this calibration: --calibration FILE",
        )


def _ask(backend: CrossbarBackend, inputs: InputSet, n_repeats: int) -> Matrix:
    """Answers of shape (inputs, repeats, outputs); every repeat goes over all inputs."""
    passes = [backend.vmm(inputs.bits, inputs.tile, inputs.v_read_v).astype(np.float64) for _ in range(n_repeats)]
    return np.stack(passes, axis=1)


def _sigma(answers: Matrix) -> float:
    """Repeat-read noise: root of the mean variance over the repeats of an input."""
    return float(np.sqrt(answers.var(axis=1, ddof=1).mean()))


@dataclass(frozen=True)
class _Replicates:
    """The three ratios; entry 0 as measured, the others by inputs drawn with replacement. All of shape (1 + n,)."""

    rms: Matrix
    bias: Matrix
    systematic_squared: Matrix

    @classmethod
    def of(cls, board: Matrix, simulator: Matrix, resampled: NDArray[np.intp]) -> _Replicates:
        """From answers (inputs, repeats, outputs); `resampled` (n, inputs) are indices of inputs."""
        n_inputs, n_repeats, _ = board.shape
        error = board - simulator
        by_input = np.stack(
            [
                (error**2).mean(axis=(1, 2)),
                error.mean(axis=(1, 2)),
                (error.mean(axis=1) ** 2).mean(axis=1),
                board.var(axis=1, ddof=1).mean(axis=1),
                simulator.var(axis=1, ddof=1).mean(axis=1),
            ]
        )
        index = np.concatenate([np.arange(n_inputs)[None], resampled])
        squared, mean, of_means, own, other = by_input[:, index].mean(axis=2)
        return cls(np.sqrt(squared / own), mean / np.sqrt(own), (of_means - (own + other) / n_repeats) / own)

    @property
    def systematic(self) -> Matrix:
        """Where noise explains all of it and more: none."""
        return np.sqrt(np.maximum(self.systematic_squared, 0.0))


def _closeness(board: Matrix, simulator: Matrix, ratios: _Replicates) -> Closeness:
    from scipy.stats import ks_2samp, wasserstein_distance

    n_inputs, n_repeats, _ = board.shape
    sigma, other = _sigma(board), _sigma(simulator)
    of_output = (board - simulator).mean(axis=(0, 1))
    by_chance = (board.var(axis=1, ddof=1) + simulator.var(axis=1, ddof=1)).mean() / (n_inputs * n_repeats)
    grown = np.sqrt(n_repeats / (n_repeats - 1))
    deviations = [
        (grown / max(own, _NO_NOISE_A) * (answers - answers.mean(axis=1, keepdims=True))).ravel()
        for answers, own in ((board, sigma), (simulator, other))
    ]
    return Closeness(
        rms_ratio=float(ratios.rms[0]),
        bias_ratio=float(ratios.bias[0]),
        systematic_ratio=float(ratios.systematic[0]),
        output_bias_ratio=float(np.sqrt(max(0.0, (of_output**2).mean() - by_chance)) / sigma),
        noise_ratio=other / sigma,
        deviation_ks=float(ks_2samp(*deviations, method="asymp").statistic),
        current_wasserstein=float(wasserstein_distance(board.ravel(), simulator.ravel())) / sigma,
        rms_ratio_interval=_interval(ratios.rms),
        bias_ratio_interval=_interval(ratios.bias),
        systematic_ratio_interval=_interval(ratios.systematic),
    )


def _interval(replicates: Matrix) -> Interval:
    low, high = np.percentile(replicates[1:], _PERCENTILES)
    return float(low), float(high)


def _pool(sets: Sequence[_Replicates]) -> Pooled:
    rms = np.sqrt(np.mean([s.rms**2 for s in sets], axis=0))
    bias = np.mean([s.bias for s in sets], axis=0)
    systematic = np.sqrt(np.maximum(np.mean([s.systematic_squared for s in sets], axis=0), 0.0))
    return Pooled(
        rms_ratio=float(rms[0]),
        bias_ratio=float(bias[0]),
        systematic_ratio=float(systematic[0]),
        rms_ratio_interval=_interval(rms),
        bias_ratio_interval=_interval(bias),
        systematic_ratio_interval=_interval(systematic),
    )


def _criteria(sets: Sequence[SetOutcome], pooled: Pooled, options: ValidateOptions) -> tuple[Criterion, ...]:
    low, high = pooled.bias_ratio_interval
    bias_interval = (0.0 if low <= 0.0 <= high else min(abs(low), abs(high)), max(abs(low), abs(high)))
    asked = (
        ("rms_ratio", pooled.rms_ratio, pooled.rms_ratio_interval, options.rms_ratio_max),
        ("bias_ratio", abs(pooled.bias_ratio), bias_interval, options.bias_ratio_max),
    )
    found: list[Criterion] = []
    for name, value, interval, limit in asked:
        by_set = {s.name: abs(getattr(s.calibrated, name)) for s in sets}
        worst = max(by_set, key=lambda name: by_set[name])
        outside = tuple(s for s, size in by_set.items() if not size <= limit)
        found.append(Criterion(name, value, interval, limit, value <= limit, worst, by_set[worst], outside))
    return tuple(found)


def _identity(info: BackendInfo) -> dict[str, Any]:
    """Who answered."""
    return {
        "backend": info.name,
        **dataclasses.asdict(BoardIdentity.of(info)),
        "chip": str(info.identity.get("chip", "")),
        "seed": info.identity.get("seed"),
        "calibration_id": info.calibration_id,
    }
