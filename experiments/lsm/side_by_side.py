"""Two backends side by side: the same test recordings, encoded by both and judged by one read-out.

The read-out is trained on spike counts of the reference and never sees a count of the other backend: what the
comparison asks is whether the one can stand in for the other. The code is handed two open sessions and knows neither
chip nor simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import SpikeDataset
from experiments.lsm import figures
from experiments.lsm.paired import INTERVAL_METHOD, difference_interval
from experiments.lsm.protocols import Chosen, LabelledFeatures, choose_by_validation
from experiments.lsm.repeats import CORRECTED_CORRELATION_MIN, CountAgreement, RepeatedAccuracy
from experiments.lsm.supervised import SupervisedSettings, counts_table, encode_into
from experiments.lsm.tile_record import fault_summary, tile_results
from hil.backend import CrossbarBackend
from hil.errors import ConfigError
from hil.fault_map import FaultMap
from hil.lsm.accuracy import wilson_interval
from hil.lsm.encoder import LsmEncoder
from hil.lsm.readout import features_of
from hil.progress import Progress, no_progress
from hil.runfile import RunFile, TableSpec

Counts = NDArray[np.uint16]


@dataclass(frozen=True)
class Agreement:
    """How alike two arrays of spike counts (samples, neurons) are.

    Attributes:
        count_correlation: Pearson correlation over all pairs of counts; None where one side never varies.
        count_correlation_by_neuron: mean over the neurons of the correlation over the samples; neurons whose count does
            not vary on both sides are left out; None where none is left.
        n_neurons_correlated: neurons in that mean.
        count_mean: spikes per neuron and sample.
        count_mean_difference: the same, backend minus reference.
    """

    count_correlation: float | None
    count_correlation_by_neuron: float | None
    n_neurons_correlated: int
    count_mean: float
    count_mean_difference: float

    @classmethod
    def of(cls, counts: Counts, against: Counts) -> Agreement:
        """Compare counts of a backend with those of the reference."""
        overall = correlations(counts.reshape(-1, 1), against.reshape(-1, 1))
        by_neuron = correlations(counts, against)
        return cls(
            count_correlation=float(overall[0]) if len(overall) else None,
            count_correlation_by_neuron=float(by_neuron.mean()) if len(by_neuron) else None,
            n_neurons_correlated=len(by_neuron),
            count_mean=float(counts.mean()),
            count_mean_difference=float(counts.mean() - against.mean()),
        )


@dataclass(frozen=True)
class Outcome:
    """What a comparison found.

    `right` and `right_against` say of each sample whether its class was right; `faults` is as `fault_summary` says.
    These, `agreement` and the figure are of the first repeat. What all repeats say is in `repeated` and `accuracies`;
    both are None where there was one.
    """

    chosen: Chosen
    agreement: Agreement
    right: NDArray[np.bool_]
    right_against: NDArray[np.bool_]
    telemetry: dict[str, float]
    telemetry_against: dict[str, float]
    faults: dict[str, Any] | None
    figures: dict[str, bytes]
    repeated: CountAgreement | None = None
    accuracies: RepeatedAccuracy | None = None


def tables(n_neurons: int) -> list[TableSpec]:
    """Tables of the run file; `sample` counts within the split of the data set. Repeats follow one another."""
    return [
        counts_table("counts_train", n_neurons, "training samples, by the reference"),
        counts_table("counts_test", n_neurons, "drawn test samples, by the backend"),
        counts_table("counts_against", n_neurons, "drawn test samples, by the reference"),
    ]


def draw_samples(n_test: int, n_samples: int, seed: int) -> NDArray[np.intp]:
    """Which of the test samples to compare, in ascending order.

    Args:
        n_test: test samples there are.
        n_samples: how many to draw, without replacement and without regard to class.
        seed: the same seed draws the same; a smaller number draws a part of a larger one.

    Raises:
        ConfigError: fewer than 1, or more than there are.
    """
    if not 1 <= n_samples <= n_test:
        raise ConfigError(
            f"--samples {n_samples} is outside 1 to {n_test}, the test samples there are",
            fix=f"choose a number from 1 to {n_test}",
        )
    return np.sort(np.random.default_rng(seed).permutation(n_test)[:n_samples])


def correlations(one: Counts, other: Counts) -> NDArray[np.float64]:
    """Pearson correlation of each column (samples, columns); columns that do not vary on both sides are left out."""
    a, b = one - one.mean(axis=0), other - other.mean(axis=0)
    varies = (one != one[0]).any(axis=0) & (other != other[0]).any(axis=0)
    a, b = a[:, varies], b[:, varies]
    return np.asarray((a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)), np.float64)


def run(
    backend: CrossbarBackend,
    reference: CrossbarBackend,
    dataset: SpikeDataset,
    settings: SupervisedSettings,
    run_file: RunFile,
    *,
    n_samples: int,
    seed: int,
    repeats: int = 1,
    fault_map: FaultMap | None = None,
    progress: Progress = no_progress,
) -> Outcome:
    """Train on the reference, encode the drawn test samples with both, compare, and complete the run file.

    Args:
        backend, reference: open sessions.
        dataset: packed spikes.
        settings: network and read-out.
        run_file: made with `tables`; completed here.
        n_samples: test samples to draw.
        seed: draws them; also of the validation split and the read-out.
        repeats: how often each backend encodes them; from 2 on, what noise alone does is known too.
        fault_map: of the array of the backend. Both put the network on the same cells, neuron by neuron.
        progress: told on the way.

    Raises:
        ConfigError: more samples than there are, too few training samples, or no repeat.
    """
    if repeats < 1:
        raise ConfigError(f"--repeats {repeats} is below 1", fix="encode every recording once at least")
    index = draw_samples(len(dataset.test), n_samples, seed)
    samples = dataset.test.taken(index)
    encoder = LsmEncoder(backend, settings.lsm, dataset.n_inputs, fault_map)

    def encoder_of_reference() -> LsmEncoder:
        return LsmEncoder(reference, settings.lsm, dataset.n_inputs, fault_map)

    _rehearse(reference, encoder_of_reference, samples.words, repeats, progress)
    encoder_against = encoder_of_reference()
    trained_on = encode_into(
        run_file, "counts_train", encoder_against, dataset.train, progress, what="encode train samples"
    )
    training = LabelledFeatures(features_of(trained_on, dataset.n_steps), dataset.train.labels)
    chosen = choose_by_validation(training, dataset.n_classes, settings.readout, seed, progress)
    by_reference, by_backend = (
        np.stack(
            [
                encode_into(run_file, table, encodes, samples, progress, what=f"encode, {who}", index=index)
                for _ in range(repeats)
            ]
        )
        for table, encodes, who in (
            ("counts_against", encoder_against, "reference"),
            ("counts_test", encoder, "backend"),
        )
    )
    predicted, predicted_against = (
        np.stack([chosen.readout.predict(features_of(counts, dataset.n_steps)) for counts in found])
        for found in (by_backend, by_reference)
    )
    right, right_against = predicted == samples.labels, predicted_against == samples.labels
    agreement = Agreement.of(by_backend[0], by_reference[0])
    outcome = Outcome(
        chosen=chosen,
        agreement=agreement,
        right=right[0],
        right_against=right_against[0],
        telemetry=dict(backend.telemetry().values),
        telemetry_against=dict(reference.telemetry().values),
        faults=fault_summary(encoder),
        figures={"side_by_side": _figure(by_backend[0], by_reference[0], agreement, backend, reference)},
        repeated=CountAgreement.of(by_backend, by_reference, seed) if repeats > 1 else None,
        accuracies=RepeatedAccuracy(right, right_against) if repeats > 1 else None,
    )
    results = {
        "summary": summary(outcome, dataset),
        "predicted": predicted[0] if repeats == 1 else predicted,
        "predicted_against": predicted_against[0] if repeats == 1 else predicted_against,
        **tile_results(encoder),
        **outcome.figures,
    }
    run_file.finish("complete", results)
    return outcome


def summary(outcome: Outcome, dataset: SpikeDataset) -> dict[str, Any]:
    """What a report says about a comparison, as JSON can hold it."""
    n = len(outcome.right)
    right, right_against = outcome.right, outcome.right_against
    return {
        **dataset.described(),
        "n_samples": n,
        "honest_accuracy": float(right.mean()),
        "accuracy_interval": list(wilson_interval(int(right.sum()), n)),
        "honest_accuracy_against": float(right_against.mean()),
        "accuracy_interval_against": list(wilson_interval(int(right_against.sum()), n)),
        "accuracy_difference": (int(right.sum()) - int(right_against.sum())) / n,
        "accuracy_difference_interval": list(difference_interval(right, right_against)),
        "accuracy_difference_method": INTERVAL_METHOD,
        **asdict(outcome.agreement),
        "validation_accuracy": outcome.chosen.validation_accuracy,
        "honest_weight_decay": outcome.chosen.weight_decay,
        "honest_epochs": outcome.chosen.epochs,
        "telemetry": outcome.telemetry,
        "telemetry_against": outcome.telemetry_against,
        "faults": outcome.faults,
        **_repeats_summary(outcome),
    }


def _repeats_summary(outcome: Outcome) -> dict[str, Any]:
    """What all repeats say; nothing where there was one."""
    if outcome.repeated is None or outcome.accuracies is None:
        return {}
    return {
        "n_repeats": len(outcome.accuracies.right),
        **asdict(outcome.repeated),
        "corrected_correlation_min": CORRECTED_CORRELATION_MIN,
        "counts_agree": outcome.repeated.agrees,
        **outcome.accuracies.described(),
    }


def _rehearse(
    reference: CrossbarBackend,
    make_encoder: Callable[[], LsmEncoder],
    words: NDArray[np.uint64],
    repeats: int,
    progress: Progress,
) -> None:
    """Have the reference do what the other backend will do, and forget it, so that their noise is independent.

    Two backends that draw their noise from one seed draw the same noise when they do the same. After this the reference
    is ahead in every stream by all that the other will use. Zero bias in between, since a board measures its zero codes
    when it is brought up again.
    """
    encoder = make_encoder()
    for _ in range(repeats):
        encoder.encode(words, progress, what="rehearse, reference")
    reference.make_safe()


def _figure(
    counts: Counts, against: Counts, agreement: Agreement, backend: CrossbarBackend, reference: CrossbarBackend
) -> bytes:
    r = agreement.count_correlation
    names = (f"backend ({backend.info.name})", f"reference ({reference.info.name})")
    title = f"Spike counts of {len(counts)} recordings, correlation {'not defined' if r is None else f'{r:.4f}'}"
    return figures.side_by_side_png(counts, against, names, title)
