"""Chip in the loop: what is learned on a board is used on its simulator, and the other way round.

The same recordings are encoded by both. Whatever learns from spike counts is trained once on the counts of each and
judged on the counts of both, which makes a table of two by two: if the simulator stands in for the board, all four
agree. The code is handed two open sessions and knows neither chip nor simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from experiments import style
from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm.paired import INTERVAL_METHOD, difference_interval
from experiments.lsm.protocols import LabelledFeatures, choose_by_validation, split_validation
from experiments.lsm.supervised import SupervisedSettings, counts_table, encode_into
from experiments.lsm.tile_record import fault_summary, tile_results
from hil.backend import CrossbarBackend
from hil.errors import ConfigError
from hil.fault_map import FaultMap
from hil.lsm.accuracy import wilson_interval
from hil.lsm.encoder import LsmEncoder
from hil.lsm.readout import Features, Labels, features_of
from hil.progress import Progress, no_progress
from hil.runfile import RunFile, TableSpec

#: the two sides, in the order of every table: the board, and its simulator
SIDES = ("board", "simulator")


class Learned(Protocol):
    """What was learned from spike counts; a `Readout` is one."""

    def predict(self, features: Features) -> Labels:
        """Class of every sample."""
        ...


#: learns from training counts of one side; whatever it must choose, it chooses on a part of them
Learn = Callable[[LabelledFeatures, Progress], Learned]


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        right: whether each test sample's class was right, shape (trained on, tested on, samples), sides as in `SIDES`.
        faults: of the tile, as `fault_summary` says; None without a fault map.
        figures: PNG by name.
    """

    right: NDArray[np.bool_]
    faults: dict[str, Any] | None
    figures: dict[str, bytes]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Shape (trained on, tested on)."""
        return self.right.mean(axis=2)

    def interval(self, trained: int, tested: int) -> tuple[float, float]:
        """95 % Wilson interval of one accuracy."""
        right = self.right[trained, tested]
        return wilson_interval(int(right.sum()), len(right))

    def lost(self, tested: int) -> tuple[float, tuple[float, float]]:
        """What a side loses when what it uses was learned on the other: accuracy and its paired interval, 95 %."""
        own, other = self.right[tested, tested], self.right[1 - tested, tested]
        return float(own.mean() - other.mean()), difference_interval(own, other)


def tables(n_neurons: int) -> list[TableSpec]:
    """Tables of the run file; `sample` counts within the split of the data set."""
    return [
        counts_table(f"counts_{split}_{side}", n_neurons, f"drawn {split} samples, by the {side}")
        for side in SIDES
        for split in ("train", "test")
    ]


def run(
    board: CrossbarBackend,
    simulator: CrossbarBackend,
    dataset: SpikeDataset,
    settings: SupervisedSettings,
    run_file: RunFile,
    *,
    n_train: int,
    n_test: int,
    seed: int,
    fault_map: FaultMap | None = None,
    learn: Learn | None = None,
    progress: Progress = no_progress,
) -> Outcome:
    """Encode the drawn samples with both, learn on each, test on both, and complete the run file.

    Args:
        board, simulator: open sessions.
        dataset: packed spikes.
        settings: network and read-out.
        run_file: made with `tables`; completed here.
        n_train, n_test: samples to draw from the two splits, the same ones for both sides.
        seed: draws them; also of the validation split and of training.
        fault_map: of the array. Both put the network on the same cells, neuron by neuron.
        learn: what to learn from counts; None: the read-out of the honest protocol.
        progress: told on the way.

    Raises:
        ConfigError: more samples than there are, or too few to hold any out for validation.
    """
    chosen = {
        "train": _draw("--train", len(dataset.train), n_train, seed),
        "test": _draw("--test", len(dataset.test), n_test, seed),
    }
    samples = {split: getattr(dataset, split).taken(index) for split, index in chosen.items()}
    # Known now, and needed only after the board has encoded everything.
    split_validation(samples["train"].labels, settings.readout.validation_fraction, seed)

    def by_validation(training: LabelledFeatures, progress: Progress) -> Learned:
        return choose_by_validation(training, dataset.n_classes, settings.readout, seed, progress).readout

    learn = learn or by_validation
    encoder = LsmEncoder(board, settings.lsm, dataset.n_inputs, fault_map)
    _rehearse(simulator, settings, dataset, fault_map, samples, progress)
    encoders = (encoder, LsmEncoder(simulator, settings.lsm, dataset.n_inputs, fault_map))
    found: dict[str, list[LabelledFeatures]] = {"train": [], "test": []}
    for side, encodes in zip(SIDES, encoders, strict=True):
        for split, index in chosen.items():
            counts = encode_into(
                run_file,
                f"counts_{split}_{side}",
                encodes,
                samples[split],
                progress,
                what=f"encode {split} samples, {side}",
                index=index,
            )
            found[split].append(LabelledFeatures(features_of(counts, dataset.n_steps), samples[split].labels))
    learned = [learn(training, progress) for training in found["train"]]
    predicted = np.array([[one.predict(test.features) for test in found["test"]] for one in learned])
    right = predicted == samples["test"].labels
    outcome = Outcome(right=right, faults=fault_summary(encoder), figures={})
    outcome.figures["transfer"] = _figure(outcome, f"{dataset.name}: {n_train} training and {n_test} test recordings")
    run_file.finish(
        "complete",
        {
            "summary": summary(outcome, dataset, n_train=n_train),
            "predicted": predicted,
            **tile_results(encoder),
            **outcome.figures,
        },
    )
    return outcome


def summary(outcome: Outcome, dataset: SpikeDataset, *, n_train: int) -> dict[str, Any]:
    """What a report says about a run, as JSON can hold it."""
    cells = [
        {
            "trained_on": SIDES[trained],
            "tested_on": SIDES[tested],
            "accuracy": float(outcome.accuracy[trained, tested]),
            "accuracy_interval": list(outcome.interval(trained, tested)),
        }
        for trained in range(2)
        for tested in range(2)
    ]
    lost = []
    for tested, side in enumerate(SIDES):
        value, interval = outcome.lost(tested)
        lost.append({"tested_on": side, "accuracy_lost": value, "accuracy_lost_interval": list(interval)})
    return {
        **dataset.described(),
        "n_train_drawn": n_train,
        "n_test_drawn": outcome.right.shape[2],
        "transfer": cells,
        "lost_by_transfer": lost,
        "accuracy_difference_method": INTERVAL_METHOD,
        "faults": outcome.faults,
    }


def _draw(option: str, n_there: int, n: int, seed: int) -> NDArray[np.intp]:
    """Which samples of a split, in ascending order; a smaller number draws a part of a larger one."""
    if not 1 <= n <= n_there:
        raise ConfigError(
            f"{option} {n} is outside 1 to {n_there}, the samples there are", fix=f"choose a number up to {n_there}"
        )
    return np.sort(np.random.default_rng(seed).permutation(n_there)[:n])


def _rehearse(
    simulator: CrossbarBackend,
    settings: SupervisedSettings,
    dataset: SpikeDataset,
    fault_map: FaultMap | None,
    samples: dict[str, SpikeSet],
    progress: Progress,
) -> None:
    """Have the simulator do what the board will do, and forget it: two backends of one seed then share no noise."""
    encoder = LsmEncoder(simulator, settings.lsm, dataset.n_inputs, fault_map)
    for split, drawn in samples.items():
        encoder.encode(drawn.words, progress, what=f"rehearse {split} samples, simulator")
    simulator.make_safe()


def _figure(outcome: Outcome, title: str) -> bytes:
    """The four accuracies with their intervals, one group for each side that was tested."""
    figure, axes = style.figure(5.6, 4.2)
    for trained, side in enumerate(SIDES):
        at = np.arange(2) + 0.18 * (2 * trained - 1)
        percent = 100.0 * outcome.accuracy[trained]
        bounds = 100.0 * np.array([outcome.interval(trained, tested) for tested in range(2)]).T
        axes.errorbar(
            at, percent, yerr=np.maximum(np.abs(bounds - percent), 0.0),
            linestyle="none", marker="os"[trained], capsize=4, color=style.COLOURS[trained], label=f"trained on {side}",
        )  # fmt: skip
        for x, y in zip(at, percent, strict=True):
            axes.annotate(f"{y:.1f} %", (x, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(
        xticks=[0, 1], xticklabels=[f"tested on {side}" for side in SIDES], xlim=(-0.5, 1.6),
        ylabel="accuracy in %, 95 % intervals",
    )  # fmt: skip
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    style.title(axes, title)
    return style.png(figure)
