"""What the paper reports of costs, and the networks that its figures are of.

Sources: the preprint, the journal's abstract and the authors' repository; docs/explanation/reproduction.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.accounts.networks import NetworkShape


@dataclass(frozen=True)
class ReportedRatio:
    """Training operations of a trained network over those of the LSM.

    Attributes:
        against: the trained network.
        ratio: as reported.
        spiking_readout: whether the trained network's read-out is of spiking neurons.
    """

    against: str
    ratio: float
    spiking_readout: bool = False


@dataclass(frozen=True)
class ReportedEnergy:
    """Energy of inference as reported; None where no figure was found.

    Attributes:
        digital_j, hybrid_j: of one sample, or one of each modality.
        ratio: digital over hybrid, all parts.
        ratio_products: of the matrix products alone.
    """

    ratio: float
    digital_j: float | None = None
    hybrid_j: float | None = None
    ratio_products: float | None = None


@dataclass(frozen=True)
class Task:
    """One task of the paper.

    Attributes:
        title: for people.
        networks: one, or one for each modality.
        epochs: passes over the training data.
        operations: reported ratios.
        energy: reported energy.
        energy_note: what a reader must know of the reported energy; may be empty.
    """

    title: str
    networks: tuple[NetworkShape, ...]
    epochs: int
    operations: tuple[ReportedRatio, ...]
    energy: ReportedEnergy
    energy_note: str = ""


#: name of the run's experiment -> task
TASKS: Mapping[str, Task] = {
    "lsm-nmnist": Task(
        "N-MNIST",
        (NetworkShape(256, 200, 50, 10),),
        100,
        (ReportedRatio("SRNN-ANN", 802.18), ReportedRatio("SRNN-SNN", 817.95, spiking_readout=True)),
        ReportedEnergy(ratio=29.91, digital_j=4.39e-6, hybrid_j=0.14e-6, ratio_products=31.29),
    ),
    "lsm-ntidigits": Task(
        "N-TIDIGITS",
        (NetworkShape(64, 200, 129, 11),),
        600,
        (ReportedRatio("SRNN-ANN", 1061.60), ReportedRatio("SRNN-SNN", 1102.92, spiking_readout=True)),
        ReportedEnergy(ratio=22.07, digital_j=8.28e-6, hybrid_j=0.37e-6, ratio_products=8.28 / 0.36),
        "The digital figure is that of the matrix products. At the price per operation that fits N-MNIST they come to "
        "6.55 uJ; no source says why 8.28.",
    ),
    "lsm-atv": Task(
        "audio to vision",
        (NetworkShape(256, 200, 50, 64), NetworkShape(64, 200, 129, 64)),
        100,
        (ReportedRatio("SRNN-CLIP", 152.83),),
        ReportedEnergy(ratio=23.34, hybrid_j=0.545e-6),
    ),
    "lsm-btv": Task(
        "brain to vision",
        (NetworkShape(192, 2048, 201, 256), NetworkShape(784, 2048, 50, 256)),
        100,
        (ReportedRatio("SRNN-CLIP", 393.07),),
        ReportedEnergy(ratio=160.0),
        "The journal says 160, the repository 161. Both fit the matrix products alone.",
    ),
}
