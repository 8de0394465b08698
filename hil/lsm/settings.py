"""Settings of the network and of its read-out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hil.config import Settings, setting

PAPER = "paper, N-MNIST"


class LsmSettings(Settings):
    """The network: inputs and recurrent neurons share the columns of one differential tile."""

    n_neurons: int = setting(200, "recurrent neurons", source=PAPER, ge=1, le=4096)
    decay: float = setting(0.9, "membrane left after one step", source=PAPER, ge=0, le=1)
    v_threshold: float = setting(5.0, "threshold, in units of the weights", source=PAPER, gt=0)
    const_per_us: float = setting(
        0.07, "weight per microsiemens of G+ - G-", unit="1/uS", source=PAPER + " (grid search)", gt=0
    )
    gain: Literal["measured", "nominal"] = setting(
        "measured",
        "'measured': scale so that the measured spread of the weights is sigma_nominal_s (makes up for voltage drop); "
        "'nominal': take currents as they come",
        source="ours",
    )
    sigma_nominal_s: float = setting(
        6.61e-6, "spread of G+ - G- that const_per_us is for", unit="S", source=PAPER, gt=0
    )
    v_read_v: float = setting(0.2, "read voltage", unit="V", source="guess: not published", gt=0)
    batch: int = setting(500, "samples encoded in lockstep", source="ours: fits the cache", ge=1)
    engine: Literal["numba", "torch"] = setting("numba", "what computes the neurons", source="ours")
    device: str = setting("cpu", "torch device of engine 'torch', such as 'cuda'", source="ours")


class NeuronSettings(Settings):
    """What makes the neurons of one kind of input other than those of N-MNIST; the rest is in `LsmSettings`."""

    decay: float = setting(0.9, "membrane left after one step", source=PAPER, ge=0, le=1)
    v_threshold: float = setting(5.0, "threshold, in units of the weights", source=PAPER, gt=0)
    const_per_us: float = setting(
        0.07, "weight per microsiemens of G+ - G-", unit="1/uS", source=PAPER + " (grid search)", gt=0
    )

    def of(self, lsm: LsmSettings) -> LsmSettings:
        """The network `lsm` with these neurons."""
        return lsm.model_copy(update=self.model_dump())


class ReadoutSettings(Settings):
    """The trained layer on the spike counts."""

    learning_rate: float = setting(1e-2, "Adam step at the start", source="ours; paper 1e-4 on raw counts / T", gt=0)
    weight_decays: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = setting(
        [1e-5, 1e-3, 3e-3, 1e-2, 3e-2], "L2 penalties to choose from by validation", source="ours", min_length=1
    )
    batch: int = setting(500, "samples per step", source="ours; paper 100", ge=1)
    epochs: int = setting(40, "passes over the training data", source="ours; paper 100", ge=1)
    steps_min: int = setting(1000, "lower bound on optimiser steps, for small sets", source="ours", ge=1)
    validation_fraction: float = setting(0.1, "part of the training data held out", source="ours", gt=0, lt=1)
