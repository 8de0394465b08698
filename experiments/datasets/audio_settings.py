"""What a user can set about spoken digits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hil.config import Settings, setting
from hil.lsm.settings import NeuronSettings

_PAPER = "paper, N-TIDIGITS"


class AudioSettings(Settings):
    """Which spoken digits an experiment reads and how they are cut into time steps."""

    dataset: str = setting(
        "digits-voices",
        "data set: ntidigits, spoken-digits or digits-voices",
        source="ours: digits-voices needs no file",
    )
    path: Path | None = setting(None, "file or folder of ntidigits or spoken-digits", source="given by the user")
    bin_rule: Literal["paper", "equal"] = setting(
        "paper",
        "'paper': bins of time_step_s, joined to chunks of ceil(bins / n_steps), silence at the end; "
        "'equal': n_steps equal steps over each utterance",
        source=_PAPER,
    )
    time_step_s: float = setting(
        1e-3, "width of a bin where bin_rule is 'paper'", unit="s", source=_PAPER, gt=0, le=0.1
    )
    n_steps: int = setting(129, "time steps of one utterance", source=_PAPER, ge=1, le=10_000)
    n_train: int | None = setting(None, "training samples, a random subset; all if absent", source="user", ge=1)
    n_test: int | None = setting(None, "test samples, a random subset; all if absent", source="user", ge=1)
    seed: int = setting(0, "seed of subsets", source="ours", ge=0)


class SpokenDigitNeurons(NeuronSettings):
    """Neurons for spoken digits. A class of its own, so that who sets one value keeps the defaults of the others."""

    decay: float = setting(0.97, "membrane left after one step", source=_PAPER, ge=0, le=1)
    v_threshold: float = setting(5.3, "threshold, in units of the weights", source=_PAPER, gt=0)
    const_per_us: float = setting(
        0.08, "weight per microsiemens of G+ - G-", unit="1/uS", source=f"{_PAPER} (grid search)", gt=0
    )


class NtidigitsSettings(Settings):
    """What the experiment on spoken digits has beyond the network of N-MNIST."""

    neurons: SpokenDigitNeurons = SpokenDigitNeurons()
