"""The studies: what each varies, where the paper works, and what makes the comparison fair."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hil.errors import ConfigError

#: experiments that a study may repeat; names of `hil lsm` commands
EXPERIMENTS = ("nmnist", "ntidigits")


@dataclass(frozen=True)
class Study:
    """One axis.

    Attributes:
        name: on the command line.
        axis: what is varied, as the figure says it.
        unit: of the axis as it is drawn; "" for a number without one.
        scale: a value times this is what is drawn.
        keys: settings that are varied, each with what a value is multiplied by to get it.
        values: the grid, in units of the settings (SI).
        paper: value at which the paper works.
        fair: what is kept equal over the axis and what is not, for whoever reads the figure.
        fixed: settings of every point.
        needs: switches without which the axis would show nothing.
        experiments: those that have these settings.
    """

    name: str
    axis: str
    unit: str
    scale: float
    keys: Mapping[str, float]
    values: tuple[float, ...]
    paper: float
    fair: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, bool] = field(default_factory=dict)
    experiments: tuple[str, ...] = EXPERIMENTS

    @property
    def label(self) -> str:
        """Of the axis, with its unit."""
        return f"{self.axis} ({self.unit})" if self.unit else self.axis

    @property
    def of_chip(self) -> bool:
        """Whether it varies a simulated chip: what a real board has, no setting changes."""
        return any(key.startswith("sim.") for key in self.keys)

    def shown(self, value: float) -> str:
        """A value as people read it."""
        return f"{value * self.scale:.6g}{f' {self.unit}' if self.unit else ''}"

    def overrides(self, value: float) -> list[str]:
        """Settings of one value, as `hil.config.load` takes them."""
        varied = {key: _plain(value * factor) for key, factor in self.keys.items()}
        return [f"{key}={json.dumps(setting)}" for key, setting in {**self.fixed, **varied}.items()]


def find(name: str, experiment: str) -> Study:
    """The study of that name.

    Raises:
        ConfigError: no such experiment, no such study, or none of that name for the experiment.
    """
    if experiment not in EXPERIMENTS:
        raise ConfigError(f"unknown experiment {experiment!r}", fix=f"choose one of: {', '.join(EXPERIMENTS)}")
    named = [study for study in STUDIES if study.name == name]
    if not named:
        known = dict.fromkeys(study.name for study in STUDIES)
        raise ConfigError(f"unknown study {name!r}", fix=f"choose one of: {', '.join(known)}")
    for study in named:
        if experiment in study.experiments:
            return study
    others = dict.fromkeys(other for study in named for other in study.experiments)
    raise ConfigError(
        f"study {name!r} is not made for experiment {experiment!r}", fix=f"use --experiment {' or '.join(others)}"
    )


def check_switches(study: Study, settings: Any, overrides: Sequence[str]) -> None:
    """Refuse settings under which the study would show nothing, or not what was asked for.

    Args:
        study: the axis.
        settings: the whole configuration.
        overrides: those of the user.

    Raises:
        ConfigError: an effect is off, or the user sets what the study varies.
    """
    own = {*study.keys, *study.fixed}
    for text in overrides:
        key = text.partition("=")[0].strip()
        if key in own:
            raise ConfigError(
                f"study {study.name} sets {key} itself, but got {text!r}", fix="choose values by --values"
            )
    for key, wanted in study.needs.items():
        found = settings
        for part in key.split("."):
            found = getattr(found, part)
        if found is not wanted:
            raise ConfigError(
                f"study {study.name} varies what {key} = {str(found).lower()} switches off",
                fix=f"set {key}={str(wanted).lower()}",
            )


def _plain(value: float) -> float | int:
    """Whole numbers without a point, which some settings refuse; others without the last bits of a product."""
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() else rounded


_WITH_EFFECTS = {"sim.ideal": False}

STUDIES: tuple[Study, ...] = (
    Study(
        name="read-noise",
        axis="read noise of a cell, relative",
        unit="%",
        scale=100.0,
        keys={"sim.noise.relative": 1.0},
        values=(0.0, 0.02, 0.05, 0.1, 0.15),
        paper=0.02,
        fair="the gain is measured on each chip and corrected for its noise, so that the drive of the neurons is the "
        "same; telegraph noise and converter noise stay as they are",
        needs={**_WITH_EFFECTS, "sim.noise.enabled": True},
    ),
    Study(
        name="input-noise",
        axis="input bits flipped",
        unit="%",
        scale=100.0,
        keys={"data.input_noise": 1.0},
        values=(0.0, 0.01, 0.02, 0.05, 0.1),
        paper=0.0,
        fair="bits are flipped in training and test alike; since few bits are set, most flips add spikes and raise the "
        "drive of the neurons, for which nothing makes up",
        experiments=("nmnist",),
    ),
    Study(
        name="hidden-size",
        axis="recurrent neurons",
        unit="",
        scale=1.0,
        keys={"lsm.n_neurons": 1.0},
        values=(25, 50, 100, 200, 256),
        paper=200,
        fair="weights, threshold and read-out training are the same; a smaller network has less recurrent drive and "
        "fewer features",
    ),
    Study(
        name="input-size",
        axis="side of the input's centre",
        unit="px",
        scale=1.0,
        keys={"data.input_px": 1.0},
        values=(4, 8, 10, 12, 16),
        paper=16,
        fair="the frame is cut, not shrunk, and the weights stay the same: fewer inputs see less of the digit and "
        "drive the neurons less",
        experiments=("nmnist",),
    ),
    Study(
        name="conductance-spread",
        axis="spread of G+ - G-",
        unit="µS",
        scale=1e6,
        keys={"sim.forming.sigma_difference_s": 1.0},
        values=(1e-6, 1.5e-6, 2e-6, 4e-6, 6.61e-6),
        paper=6.61e-6,
        fair="the gain is measured, which brings the weights of every chip to the same spread: what changes is their "
        "spread over the noise, which is relative to the mean conductance; with lsm.gain = 'nominal' the drive of the "
        "neurons would change with it",
        fixed={"sim.forming.preset": "custom"},
        needs={**_WITH_EFFECTS, "sim.noise.enabled": True, "sim.forming.formed": True},
    ),
    Study(
        name="stuck-cells",
        axis="stuck cells",
        unit="%",
        scale=100.0,
        keys={"sim.faults.stuck_on": 0.5, "sim.faults.stuck_off": 0.5},
        values=(0.0, 0.01, 0.05, 0.1, 0.3),
        paper=0.0,
        fair="half of them stuck on, half stuck off; more faults include the fewer; nobody tells the network which "
        "cells they are: its gain is measured over all of them, which makes stuck cells part of the random weights",
        needs={**_WITH_EFFECTS, "sim.faults.enabled": True},
    ),
)
