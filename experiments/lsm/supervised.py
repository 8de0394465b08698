"""Supervised classification: event stream -> LSM on the crossbar -> spike counters -> trained read-out.

The same code runs on every backend; it is handed an open session and a run file and knows neither chip nor simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import DataSettings, SpikeDataset, SpikeSet
from experiments.lsm import figures
from experiments.lsm.protocols import LabelledFeatures, Scored, honest, paper
from experiments.lsm.speakers import LeftOut, leave_one_speaker_out
from experiments.lsm.tile_record import fault_summary, tile_results
from hil.backend import CrossbarBackend
from hil.config import Settings
from hil.fault_map import FaultMap
from hil.lsm.accuracy import confusion
from hil.lsm.encoder import LsmEncoder
from hil.lsm.readout import features_of
from hil.lsm.reference import trace
from hil.lsm.settings import LsmSettings, ReadoutSettings
from hil.progress import Progress, no_progress
from hil.runfile import Column, RunFile, TableSpec

#: Test samples traced spike by spike, and shown by t-SNE.
_N_TRACED, _N_EMBEDDED = 3, 1000
#: With more speakers than these a test split by speaker says the same for less time.
_N_SPEAKERS_MAX = 12
#: Below this number of samples t-SNE shows nothing and is left out.
_N_EMBEDDED_MIN = 10


class SupervisedSettings(Settings):
    """Settings of the experiment; the backend has its own."""

    data: DataSettings = DataSettings()
    lsm: LsmSettings = LsmSettings()
    readout: ReadoutSettings = ReadoutSettings()


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        honest, paper: scores of the two protocols.
        spike_rate: spikes per neuron and step over the test data.
        weight_sigma_s: measured spread of G+ - G-.
        telemetry: what the backend counted, and a board's time where it knows it.
        faults: of the tile, as `fault_summary` says; None without a fault map.
        unheard: accuracy on speakers that training never heard; None where nobody speaks.
        figures: PNG by name.
    """

    honest: Scored
    paper: Scored
    spike_rate: float
    weight_sigma_s: float
    telemetry: dict[str, float]
    faults: dict[str, Any] | None
    unheard: LeftOut | None
    figures: dict[str, bytes]


def tables(n_neurons: int) -> list[TableSpec]:
    """Tables of the run file: spike counts as they are measured."""
    return [
        counts_table("counts_train", n_neurons, "training samples"),
        counts_table("counts_test", n_neurons, "test samples"),
    ]


def counts_table(name: str, n_neurons: int, samples: str) -> TableSpec:
    """A table of spike counts, filled by `encode_into`; `samples` says of which."""
    columns = [
        Column("sample", np.int64, "1"),
        Column("label", np.int64, "1"),
        Column("counts", np.uint16, "1", (n_neurons,)),
    ]
    return TableSpec(name, columns, f"spike counts of each neuron over all steps, {samples}")


def encode_into(
    run_file: RunFile,
    table: str,
    encoder: LsmEncoder,
    samples: SpikeSet,
    progress: Progress,
    *,
    what: str,
    index: NDArray[np.intp] | None = None,
) -> NDArray[np.uint16]:
    """Spike counts of every sample (samples, neurons), kept in a table batch by batch.

    Args:
        run_file: where they are kept.
        table: made by `counts_table`.
        encoder: the network.
        samples: packed spikes and labels.
        progress: told on the way.
        what: name of this pass for `progress`.
        index: number of each sample in its data set, None for 0, 1, 2, ...
    """
    numbers = np.arange(len(samples)) if index is None else index

    def keep(start: int, counts: NDArray[np.uint16]) -> None:
        batch = slice(start, start + len(counts))
        run_file.append(table, sample=numbers[batch], label=samples.labels[batch], counts=counts)

    return encoder.encode(samples.words, progress, what=what, keep=keep)


def run(
    backend: CrossbarBackend,
    dataset: SpikeDataset,
    settings: SupervisedSettings,
    run_file: RunFile,
    *,
    seed: int,
    fault_map: FaultMap | None = None,
    progress: Progress = no_progress,
) -> Outcome:
    """Encode both splits, train and score the read-out, draw the figures, and complete the run file.

    Args:
        backend: an open session.
        dataset: packed spikes.
        settings: network and read-out.
        run_file: made with `tables`; completed here.
        seed: of the validation split, the read-out and t-SNE.
        fault_map: of the array; the network is put where the faults are fewest.
        progress: told on the way.
    """
    encoder = LsmEncoder(backend, settings.lsm, dataset.n_inputs, fault_map)
    scored: dict[str, LabelledFeatures] = {}
    for split, samples in (("train", dataset.train), ("test", dataset.test)):
        counts = encode_into(run_file, f"counts_{split}", encoder, samples, progress, what=f"encode {split} samples")
        scored[split] = LabelledFeatures(features_of(counts, dataset.n_steps), samples.labels)
    training, test = scored["train"], scored["test"]
    honest_score = honest(training, test, dataset.n_classes, settings.readout, seed, progress)
    paper_score = paper(training, test, dataset.n_classes, settings.readout, seed, progress)
    unheard = _unheard_speakers(dataset, training, test, settings, seed, progress)
    results, pictures = _report(encoder, dataset, test, honest_score, seed, progress)
    outcome = Outcome(
        honest=honest_score,
        paper=paper_score,
        spike_rate=float(test.features.mean()),
        weight_sigma_s=encoder.measure_sigma_s(),
        telemetry=dict(backend.telemetry().values),
        faults=fault_summary(encoder),
        unheard=unheard,
        figures=pictures,
    )
    run_file.finish("complete", {**results, "summary": summary(outcome, dataset), **pictures})
    return outcome


def summary(outcome: Outcome, dataset: SpikeDataset) -> dict[str, Any]:
    """What a report says about a run, as JSON can hold it."""
    return {
        "model": "lsm",
        **dataset.described(),
        "honest_accuracy": outcome.honest.accuracy,
        "accuracy_interval": list(outcome.honest.interval),
        "validation_accuracy": outcome.honest.validation_accuracy,
        "honest_weight_decay": outcome.honest.weight_decay,
        "honest_epochs": outcome.honest.epochs,
        "paper_accuracy": outcome.paper.accuracy,
        "paper_accuracy_interval": list(outcome.paper.interval),
        "paper_epochs": outcome.paper.epochs,
        "spike_rate_per_step": outcome.spike_rate,
        "weight_sigma_s": outcome.weight_sigma_s,
        "leave_one_speaker_out": None if outcome.unheard is None else outcome.unheard.described(),
        "telemetry": outcome.telemetry,
        "faults": outcome.faults,
    }


def _unheard_speakers(
    dataset: SpikeDataset,
    training: LabelledFeatures,
    test: LabelledFeatures,
    settings: SupervisedSettings,
    seed: int,
    progress: Progress,
) -> LeftOut | None:
    """Each speaker in turn kept out of training; None where the data do not say who speaks, or too many do."""
    if not 2 <= len(dataset.speaker_names) <= _N_SPEAKERS_MAX:
        return None
    speakers = (dataset.train.speakers, dataset.test.speakers)
    return leave_one_speaker_out(
        training, test, *speakers, dataset.speaker_names, dataset.n_classes, settings.readout, seed, progress
    )


def _report(
    encoder: LsmEncoder, dataset: SpikeDataset, test: LabelledFeatures, score: Scored, seed: int, progress: Progress
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Arrays for the run file, and the figures made from them."""
    progress("figures", 0, 2)
    table = confusion(test.labels, score.predicted, dataset.n_classes)
    traced = trace(encoder, dataset.test.words[:_N_TRACED])
    chosen = np.random.default_rng(seed).permutation(len(test.labels))[:_N_EMBEDDED]
    title = f"{dataset.name}, honest protocol: {100 * score.accuracy:.2f} % of {len(test.labels)} test samples"
    results = {
        "confusion_matrix": table,
        "predicted": score.predicted,
        "trace_inputs": traced.inputs,
        "trace_spikes": traced.spikes,
        "trace_membrane": traced.membrane,
        **tile_results(encoder),
    }
    pictures = {
        "confusion": figures.confusion_png(table, title),
        "spike_raster": figures.raster_png(traced.inputs[0], traced.spikes[0], int(test.labels[0])),
        "membrane": figures.membrane_png(traced.membrane[0], traced.spikes[0], encoder.settings.v_threshold),
    }
    progress("figures", 1, 2)
    # Where all counts are equal there is nothing to embed, and t-SNE breaks.
    if len(chosen) >= _N_EMBEDDED_MIN and test.features[chosen].std(axis=0).any():
        points = figures.embed(test.features[chosen], seed)
        results |= {"embedding": points, "embedding_samples": chosen}
        pictures["tsne"] = figures.embedding_png(points, test.labels[chosen])
    progress("figures", 2, 2)
    return results, pictures
