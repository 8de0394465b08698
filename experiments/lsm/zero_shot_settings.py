"""Settings of the zero-shot experiments: classes, projections, gates of the paper protocol, shots."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hil.config import Settings, setting
from hil.lsm.settings import NeuronSettings

PAPER = "paper, audio to vision"
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ProjectionSettings(Settings):
    """The trained layer of each modality, and how it is trained."""

    outputs: int = setting(64, "outputs of each projection", source=PAPER, ge=2)
    loss: Literal["soft", "labels"] = setting(
        "soft", "'soft': targets from the similarities within each modality; 'labels': from the classes", source=PAPER
    )
    target_gradient: bool = setting(
        False,
        "whether the loss 'soft' also trains through its targets; training then falls apart after some ten epochs",
        source="ours, by validation; not known of the paper, True in public code of this loss",
    )
    temperatures: list[_Positive] = setting(
        [1.0],
        "temperatures to choose from by validation, that of the paper protocol first; of 'labels' where the learned "
        "scale starts",
        source=PAPER,
    )
    penalties: list[_NotNegative] = setting(
        [0.0, 0.3], "decoupled weight decays to choose from by validation", source="ours; paper 0"
    )
    learning_rate: float = setting(1e-3, "Adam step", source=PAPER, gt=0)
    batch: int = setting(8, "pairs per step", source=PAPER, ge=2)
    epochs: int = setting(100, "passes over the training pairs", source=PAPER, ge=1)
    pairs_per_query: int = setting(1, "gallery samples that each query sample is paired with", source=PAPER, ge=1)
    validation_fraction: float = setting(0.2, "part of the training samples held out", source="ours", gt=0, lt=1)


class ZeroShotSettings(Settings):
    """Which classes are trained on, and how the test is judged."""

    seen: list[int] = setting([1, 2, 3, 4, 5, 6, 7], "classes with training pairs", source=PAPER, min_length=2)
    unseen: list[int] = setting([8, 9], "classes that no training pair is of", source=PAPER, min_length=2)
    n_test_per_class: int = setting(100, "test samples of each class and modality, the first ones", source=PAPER, ge=1)
    shots: list[Annotated[int, Field(ge=0)]] = setting(
        [0, 1, 5, 20], "labelled pairs of each unseen class that a user gives", source="ours"
    )
    n_shot_draws: int = setting(20, "draws of these pairs, averaged", source="ours", ge=1)
    n_shot_pool: int = setting(
        100, "training samples of each unseen class and modality that these are drawn from", source="ours", ge=1
    )
    gate_seen: float = setting(0.65, "paper protocol: least test accuracy of seen classes", source=PAPER, ge=0, le=1)
    gate_unseen: float = setting(
        0.85, "paper protocol: least test accuracy of unseen classes", source=PAPER, ge=0, le=1
    )
    published_unseen: float = setting(
        0.875, "published accuracy of unseen classes, beside which ours is put", source=PAPER, ge=0, le=1
    )

    @model_validator(mode="after")
    def _classes_are_apart(self) -> ZeroShotSettings:
        """A class that training pairs are of would be unseen in name only."""
        named = [*self.seen, *self.unseen]
        twice = sorted({label for label in named if named.count(label) > 1})
        if twice:
            raise ValueError(f"class {', '.join(map(str, twice))} occurs twice in seen and unseen; name each once")
        return self


def _const_per_us(value: float) -> float:
    return setting(value, "weight per microsiemens of G+ - G-", unit="1/uS", source=PAPER + " (grid search)", gt=0)


# Classes of their own, so that who sets one value keeps the defaults of the others.
class ImageNeurons(NeuronSettings):
    """Neurons of the network that sees the pictures."""

    const_per_us: float = _const_per_us(0.3)


class AudioNeurons(NeuronSettings):
    """Neurons of the network that hears the words."""

    decay: float = setting(0.97, "membrane left after one step", source=PAPER, ge=0, le=1)
    v_threshold: float = setting(5.3, "threshold, in units of the weights", source=PAPER, gt=0)
    const_per_us: float = _const_per_us(0.1)


class AtvSettings(ZeroShotSettings):
    """Audio to vision: two networks that share one tile."""

    image: ImageNeurons = ImageNeurons()
    audio: AudioNeurons = AudioNeurons()
