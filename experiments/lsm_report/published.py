"""Accuracies that the paper reports, and those of its baselines, each as a fraction.

All of them were selected on test data. Sources: the preprint and the authors' repository;
docs/explanation/reproduction.md says which is from where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Accuracy of one model on one task.

    Attributes:
        software: by simulation, or of a trained baseline.
        chip: on the macro; None where no figure was found.
    """

    software: float
    chip: float | None = None

    @property
    def best_match(self) -> float:
        """What to compare with: the chip's figure, where there is one."""
        return self.software if self.chip is None else self.chip

    @property
    def text(self) -> str:
        """For people, in per cent."""
        if self.chip is None:
            return f"{100 * self.software:.2f}"
        return f"{100 * self.chip:.2f} (chip), {100 * self.software:.2f} (software)"


#: groups of classes in retrieval
CLASSES = ("seen", "unseen")
#: task -> data set of the paper, as a run names it
PAPER_DATA: Mapping[str, str] = {
    "lsm-nmnist": "nmnist",
    "lsm-ntidigits": "ntidigits",
    "lsm-atv": "ntidigits + nmnist",
    "lsm-btv": "willett + emnist-letters",
}

#: (task, model) -> accuracy
SUPERVISED: Mapping[tuple[str, str], Published] = {
    ("lsm-nmnist", "lsm"): Published(0.8911, chip=0.8966),
    ("lsm-nmnist", "srnn-ann"): Published(0.9696),
    ("lsm-nmnist", "srnn-snn"): Published(0.9393),
    ("lsm-nmnist", "rnn"): Published(0.9623),
    ("lsm-ntidigits", "lsm"): Published(0.7079, chip=0.7011),
    ("lsm-ntidigits", "srnn-ann"): Published(0.8262),
    ("lsm-ntidigits", "srnn-snn"): Published(0.6375),
    ("lsm-ntidigits", "rnn"): Published(0.7554),
}

#: (task, model) -> accuracy of each of `CLASSES`
ZERO_SHOT: Mapping[tuple[str, str], tuple[Published, Published]] = {
    ("lsm-atv", "lsm"): (Published(0.6614, chip=0.6742), Published(0.88, chip=0.875)),
    ("lsm-atv", "srnn-clip"): (Published(0.8228), Published(0.74)),
    ("lsm-atv", "srnn-proto"): (Published(0.5025), Published(0.8214)),
    ("lsm-atv", "lsm-proto"): (Published(0.5025), Published(0.8169)),
    ("lsm-btv", "lsm"): (Published(0.5227), Published(0.7083)),
    ("lsm-btv", "srnn-clip"): (Published(0.2152), Published(0.6167)),
}
