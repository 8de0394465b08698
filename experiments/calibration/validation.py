"""A validation run: board and calibrated simulator are asked the same; what came out is kept with the calibration."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.validate import Closeness, SetOutcome, ValidateOptions, Validation, validate
from experiments import style
from experiments.calibration.run import drawn
from experiments.calibration.verdicts import criterion
from experiments.style import COLOURS
from hil.backend import CrossbarBackend
from hil.calibration_file import Calibration
from hil.progress import Progress, no_progress

EXPERIMENT = "calibrate-validate"


@dataclass(frozen=True)
class Sides:
    """Who is asked; all open sessions.

    Attributes:
        board: with the calibration applied.
        simulator: with it, too.
        uncalibrated: a simulator that knows nothing of the board.
    """

    board: CrossbarBackend
    simulator: CrossbarBackend
    uncalibrated: CrossbarBackend


def currents(
    sides: Sides,
    calibration: Calibration,
    v_read_v: float,
    *,
    network: Any = None,
    seed: int = 0,
    options: ValidateOptions | None = None,
    progress: Progress = no_progress,
) -> Validation:
    """Compare currents.

    Args:
        sides: who is asked.
        calibration: that board and simulator have applied.
        v_read_v: read voltage.
        network: an encoder on the simulator and packed spikes for it, whose row vectors are asked too; None: none.
        seed: draws inputs.
        options: what is asked.
        progress: told on the way.
    """
    tile = spikes = None
    options = options or ValidateOptions()
    if network is not None:
        from experiments.lsm.row_vectors import row_vectors

        encoder, packed = network
        tile = encoder.tile
        spikes = row_vectors(encoder, packed, options.inputs.n_inputs, seed)
    return validate(
        sides.board,
        sides.simulator,
        calibration,
        v_read_v=v_read_v,
        uncalibrated=sides.uncalibrated,
        tile=tile,
        spikes=spikes,
        options=options,
        seed=seed,
        progress=progress,
    )


def stored(found: Validation, lsm: Mapping[str, Any] | None) -> dict[str, Any]:
    """What goes into the calibration file."""
    criteria = criteria_of(found, lsm)
    return {
        **found.as_mapping(),
        "holds": all(c["ok"] is not False for c in criteria),
        "verdicts": criteria,
        "lsm": None if lsm is None else dict(lsm),
        "text": in_words(found),
    }


def in_words(found: Validation) -> str:
    """The outcome in one line, as every run that uses the calibration prints it."""
    day = time.strftime("%Y-%m-%d", time.gmtime(found.measured_unix_s))
    return (
        f"rms error {found.calibrated.rms_ratio:.2f} x repeat noise, bias {abs(found.calibrated.bias_ratio):.2f} x, "
        f"on {day}"
    )


def criteria_of(found: Validation, lsm: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What was to be shown, and what is only told."""
    one, other = found.calibrated, found.uncalibrated
    words = {"rms_ratio": "rms error / noise", "bias_ratio": "bias / noise"}
    criteria = [
        criterion(
            words.get(judged.name, judged.name),
            judged.value,
            f"<= {judged.limit:g}",
            ok=judged.holds,
            uncalibrated=None if other is None else abs(getattr(other, judged.name)),
        )
        for judged in found.criteria
    ]
    worst = max((s for s in found.sets if s.name not in found.sets_not_judged), key=lambda s: s.calibrated.rms_ratio)
    criteria += [
        criterion(
            f"rms error at worst ({worst.name})",
            worst.calibrated.rms_ratio,
            uncalibrated=None if worst.uncalibrated is None else worst.uncalibrated.rms_ratio,
        ),
        criterion(
            "systematic error / noise",
            one.systematic_ratio,
            uncalibrated=None if other is None else other.systematic_ratio,
        ),
        criterion("simulator's noise / noise", _median(found.sets, "noise_ratio")),
        criterion("noise, KS distance", _median(found.sets, "deviation_ks")),
        criterion("currents, Wasserstein / noise", _median(found.sets, "current_wasserstein")),
    ]
    if lsm is not None:
        criteria += lsm_criteria(lsm)
    return criteria


def lsm_criteria(lsm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Spike counts and accuracies of the network on both, over all repeats."""
    corrected, least = lsm["corrected_correlation"], lsm["corrected_correlation_min"]
    low, high = lsm["accuracy_pooled_difference_interval"]
    return [
        criterion(
            "spike counts, without noise",
            corrected,
            f">= {least:g}",
            ok=corrected is not None and corrected >= least,
        ),
        criterion("... with noise", lsm["cross_correlation"]),
        criterion("... board with itself", lsm["repeat_correlation"]),
        criterion(
            "accuracy, difference",
            lsm["accuracy_pooled_difference"],
            f"0 in {low:+.3f} to {high:+.3f}",
            ok=bool(low <= 0.0 <= high),
        ),
    ]


def _median(sets: Sequence[SetOutcome], name: str) -> float:
    return float(np.median([getattr(s.calibrated, name) for s in sets]))


def draw_ratios(found: Validation) -> Any:
    """Errors of both simulators over the sets of inputs, in units of the board's own noise."""
    sets = found.sets
    place = np.arange(len(sets))[::-1]
    made, panels = style.figure(10.2, 1.2 + 0.33 * len(sets), cols=3)
    limits = {criterion.name: criterion.limit for criterion in found.criteria}
    for axes, (name, label) in zip(
        panels,
        (("rms_ratio", "rms error"), ("bias_ratio", "bias"), ("systematic_ratio", "systematic error")),
        strict=True,
    ):
        for side, colour, marker in (("uncalibrated", COLOURS[7], "s"), ("calibrated", COLOURS[0], "o")):
            _points(axes, [getattr(s, side) for s in sets], place, name, colour, marker, side)
        if name in limits:
            axes.axvline(limits[name], color=COLOURS[3], linewidth=1.2, linestyle="--", label="bar")
        axes.set(xlabel=f"{label} / repeat noise", ylim=(-0.7, len(sets) - 0.3), xscale="log")
        axes.set_yticks(place, [s.name for s in sets])
        axes.tick_params(labelleft=axes is panels[0], left=axes is panels[0])
        _few_ticks(axes)
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    panels[0].axvline(np.sqrt(2), color=COLOURS[2], linewidth=1.2, linestyle=":", label="noise of both alone")
    panels[0].set_xlim(left=1.0)
    handles, labels = panels[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    style.heading(made, "Simulator against board, by kind of input")
    return made


def _few_ticks(axes: Any) -> None:
    """Numbers as people write them: at 1, 2 and 5 within two decades, at whole decades beyond."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _points(
    axes: Any, found: Sequence[Closeness | None], place: Any, name: str, colour: str, marker: str, label: str
) -> None:
    known = [(k, closeness) for k, closeness in zip(place, found, strict=True) if closeness is not None]
    if not known:
        return
    values = np.array([abs(getattr(closeness, name)) for _, closeness in known])
    # A logarithmic axis has no zero: what is not there at all is drawn at its left end.
    axes.plot(
        np.maximum(values, 1e-3), [k for k, _ in known], linestyle="none", marker=marker, markersize=5, color=colour,
        label=label,
    )  # fmt: skip


def figures(found: Validation) -> tuple[dict[str, bytes], str | None]:
    """Figures as PNG, or why there are none."""
    return drawn(lambda: {"validation": draw_ratios(found)})


def file_with(calibration: Calibration, validation: Mapping[str, Any], file: Path) -> Calibration:
    """Keep the outcome in the calibration file."""
    validated = calibration.with_validation(validation)
    validated.save(file)
    return validated
