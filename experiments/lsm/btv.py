"""Brain to vision: brain activity of writing a letter finds images of that letter, through two networks on one tile.

The network is larger than a macro: its array is a `TiledBackend`, which this code, like any experiment, cannot tell
from a macro. The images' network fills the tile; that of the brain uses the cells of its first input rows and all of
its recurrent rows, with neurons of its own.

Every sample is encoded once, and the projections are trained anew for every split of the letters into seen and unseen:
the published one, and fixed windows of the alphabet. A trial meets several images in training (the paper's
enlargement); in the test it asks once, since it would find the same image every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from experiments.baselines.settings import BaselineSettings
from experiments.datasets import SpikeDataset, SpikeSet
from experiments.datasets.letters import N_INPUTS as N_LETTER_INPUTS
from experiments.lsm.btv_figures import splits_png
from experiments.lsm.btv_settings import BtvSettings
from experiments.lsm.over_seeds import chance
from experiments.lsm.pairs import Index, first_of_classes, training_samples
from experiments.lsm.principal import Components
from experiments.lsm.projection import Projections
from experiments.lsm.protocols import LabelledFeatures
from experiments.lsm.retrieval import Embedded, Retrieval, retrieve
from experiments.lsm.supervised import counts_table, encode_into
from experiments.lsm.tile_record import tile_results
from experiments.lsm.zero_shot import Modality, ZeroShotOutcome, embed, summary
from experiments.lsm.zero_shot_models import judge_counts
from experiments.lsm.zero_shot_record import record
from experiments.lsm.zero_shot_settings import ZeroShotSettings
from hil.backend import CrossbarBackend
from hil.config import Settings
from hil.lsm.accuracy import wilson_interval
from hil.lsm.encoder import LsmEncoder, lsm_tile, shared_tile
from hil.lsm.readout import features_of
from hil.lsm.settings import LsmSettings
from hil.progress import Progress, no_progress
from hil.runfile import RunFile, TableSpec
from hil.tiled import TiledBackend

#: What the two modalities are called in run files and figures, query first.
SIDES = ("brain", "image")


class BtvRunSettings(Settings):
    """Settings of the experiment; data and backend have their own."""

    lsm: LsmSettings = LsmSettings()
    btv: BtvSettings = BtvSettings()
    baseline: BaselineSettings = BaselineSettings()


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        splits: by split of the letters, the published one first.
        summary, figures: what the run file holds, figures as PNG by name.
    """

    splits: list[ZeroShotOutcome]
    summary: dict[str, Any]
    figures: dict[str, bytes]


def make_tiled(
    macros: Sequence[CrossbarBackend], settings: BtvRunSettings, n_inputs: int = N_LETTER_INPUTS
) -> TiledBackend:
    """An array for the network of `settings` from macros of one shape; it is not opened.

    Args:
        macros: none of them open; no more are used than there are blocks.
        settings: section `btv`.
        n_inputs: inputs of the larger network, that of the images.
    """
    n_neurons = settings.btv.n_neurons
    rows, cols = macros[0].info.shape
    grid = -(-(n_inputs + n_neurons) // rows), -(-2 * n_neurons // cols)
    return TiledBackend(macros[: grid[0] * grid[1]], *grid, seed=settings.btv.arrangement_seed)


def tables(settings: BtvRunSettings) -> list[TableSpec]:
    """Tables of the run file: spike counts as they are measured."""
    return [
        counts_table(f"counts_{side}_{split}", settings.btv.n_neurons, f"{side}, {split} samples")
        for side in SIDES
        for split in ("train", "test")
    ]


def run(
    backend: CrossbarBackend,
    brain: SpikeDataset,
    letters: SpikeDataset,
    settings: BtvRunSettings,
    run_file: RunFile,
    *,
    seed: int,
    model: str = "lsm",
    progress: Progress = no_progress,
) -> Outcome:
    """Encode both modalities, train and judge the projections of every split, and complete the run file.

    Args:
        backend: an open session, of an array from `make_tiled` or any other that is large enough.
        brain, letters: packed spikes.
        settings: sections `lsm`, `btv` and `baseline`.
        run_file: made with `tables`; completed here.
        seed: of the validation split, the training, the shots and t-SNE.
        model: one of `zero_shot_models.NAMES`: what is trained on the spike counts.
        progress: told on the way.

    Raises:
        DataError: a data set has no sample of a letter.
        LimitError: the network does not fit the array.
    """
    btv = settings.btv
    chosen = _Selection.of(brain, letters, btv)
    tile = lsm_tile(letters.n_inputs, btv.n_neurons)
    shared = shared_tile(tile, letters.n_inputs, brain.n_inputs)
    encoders = (
        LsmEncoder(backend, btv.network(settings.lsm, btv.brain), brain.n_inputs, tile=shared),
        LsmEncoder(backend, btv.network(settings.lsm, btv.image), letters.n_inputs, tile=tile),
    )
    datasets = (brain, letters)
    sides = [
        Modality(
            train=_features(run_file, f"counts_{side}_train", encoder, dataset.train, train, progress),
            test=_features(run_file, f"counts_{side}_test", encoder, dataset.test, test, progress),
        )
        for side, encoder, dataset, train, test in zip(
            SIDES, encoders, datasets, chosen.train, chosen.test, strict=True
        )
    ]
    sigma_s = {side: encoder.measure_sigma_s() for side, encoder in zip(SIDES, encoders, strict=True)}
    outcomes: list[ZeroShotOutcome] = []
    for number, split in enumerate(btv.splits):
        progress("splits of the letters", number, len(btv.splits))
        outcomes.append(_judged(model, sides, split, settings, seed))
    progress("splits of the letters", len(outcomes), len(btv.splits))
    described = [
        _described(side, *each) for side, each in zip(SIDES, zip(datasets, encoders, strict=True), strict=True)
    ]
    found = [
        {
            **summary(outcome, model=model, query=described[0], gallery=described[1]),
            "unseen_all_trials": _with_confusion(_all_trials(outcome, *sides), outcome.settings.unseen),
        }
        for outcome in outcomes
    ]
    arrays, pictures = record(outcomes[0], seed, class_names(btv), SIDES, progress)
    pictures["splits"] = splits_png(found, class_names(btv))
    whole = {
        **found[0],
        "splits": [{key: one[key] for key in _OF_A_SPLIT} for one in found],
        "windows": _over_windows(outcomes[1:], found[1:]) if outcomes[1:] else None,
        "spike_rate": {side: float(modality.test.features.mean()) for side, modality in zip(SIDES, sides, strict=True)},
        "weight_sigma_s": sigma_s["image"],
        "weight_sigma_brain_s": sigma_s["brain"],
        "faults": None,
        "telemetry": dict(backend.telemetry().values),
    }
    run_file.finish("complete", {**arrays, **tile_results(encoders[1]), "summary": whole, **pictures})
    return Outcome(outcomes, whole, pictures)


#: what a summary says of every split
_OF_A_SPLIT = (
    "seen_classes", "unseen_classes", "n_train_pairs", "honest", "paper", "shots", "chance", "unseen_all_trials"
)  # fmt: skip


def class_names(settings: BtvSettings) -> dict[int, str]:
    """Names of the letters."""
    return {label: chr(ord("a") + label) for label in settings.letters}


def _judged(
    model: str, sides: Sequence[Modality], split: ZeroShotSettings, settings: BtvRunSettings, seed: int
) -> ZeroShotOutcome:
    """One split, trained on the principal components of its seen classes; what it returns is of all neurons."""
    components = [
        Components.of(side.train.features[np.isin(side.train.labels, split.seen)], settings.btv.components, seed)
        for side in sides
    ]
    reduced = [
        Modality(*(LabelledFeatures(by(part.features), part.labels) for part in (side.train, side.test)))
        for side, by in zip(sides, components, strict=True)
    ]
    found = judge_counts(model, *reduced, split, settings.btv.projection, settings.baseline, seed, experiment="btv")
    query, gallery = (Embedded(side.test.features, side.test.labels) for side in sides)
    if (made := found.projections) is not None:
        made = Projections(components[0].folded(made.query), components[1].folded(made.gallery))
    return replace(found, before=(query, gallery), projections=made)


def _all_trials(outcome: ZeroShotOutcome, brain: Modality, image: Modality) -> Retrieval | None:
    """Retrieval by the honest projections with every trial of the unseen letters, for an estimate that says more.

    Nothing was trained or chosen on any trial of an unseen letter, whatever its split. The images are the test images.
    """
    if outcome.projections is None:
        return None
    both = brain.train, brain.test
    every = LabelledFeatures(
        np.concatenate([part.features for part in both]), np.concatenate([part.labels for part in both])
    )
    return retrieve(*embed(outcome.projections, every, image.test), outcome.settings.unseen)


def _with_confusion(found: Retrieval | None, classes: list[int]) -> dict[str, Any] | None:
    if found is None:
        return None
    return {**found.described(), "confusion": found.confusion(classes).tolist(), "n_queries": len(found.query_labels)}


@dataclass(frozen=True)
class _Selection:
    """Numbers of the samples that are encoded, of brain and image: each may be seen in one split and unseen in another.

    Attributes:
        train: all trials, and the images that they are paired with or that shots are drawn from.
        test: the first samples of each letter.
    """

    train: tuple[Index, Index]
    test: tuple[Index, Index]

    @classmethod
    def of(cls, brain: SpikeDataset, letters: SpikeDataset, settings: BtvSettings) -> _Selection:
        classes = settings.letters
        trials, paired = training_samples(
            brain.train.labels, letters.train.labels, classes, settings.projection.pairs_per_query
        )
        pool = first_of_classes(letters.train.labels, classes, settings.n_shot_pool)
        return cls(
            train=(trials, np.union1d(paired, pool)),
            test=(
                first_of_classes(brain.test.labels, classes, settings.n_test_per_class),
                first_of_classes(letters.test.labels, classes, settings.n_test_per_class),
            ),
        )


def _features(
    run_file: RunFile, table: str, encoder: LsmEncoder, samples: SpikeSet, chosen: Index, progress: Progress
) -> LabelledFeatures:
    """Spikes per step of the chosen samples, whose counts are kept in a table."""
    taken = samples.taken(chosen)
    what = f"encode {table.removeprefix('counts_').replace('_', ', ')} samples"
    counts = encode_into(run_file, table, encoder, taken, progress, what=what, index=chosen)
    return LabelledFeatures(features_of(counts, samples.words.shape[1]), taken.labels)


def _described(side: str, dataset: SpikeDataset, encoder: LsmEncoder) -> dict[str, Any]:
    return {
        "name": side,
        **dataset.described(),
        "n_inputs": dataset.n_inputs,
        "n_steps": dataset.n_steps,
        "n_neurons": encoder.settings.n_neurons,
    }


def _over_windows(outcomes: Sequence[ZeroShotOutcome], found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All windows together, each with projections of its own; chance as of the honest protocol."""
    honest, paper = ([getattr(outcome, name) for outcome in outcomes] for name in ("honest", "paper"))
    best = int(np.argmax([judged.unseen.accuracy for judged in paper]))
    return {
        "unseen_classes": [one["unseen_classes"] for one in found],
        "honest": {
            "seen": _pooled([judged.seen for judged in honest]),
            "unseen": {
                **_pooled([judged.unseen for judged in honest]),
                **chance([one["honest"]["unseen"]["confusion"] for one in found]),
            },
        },
        "paper": {
            "seen": _pooled([judged.seen for judged in paper]),
            "unseen": _pooled([judged.unseen for judged in paper]),
            # The published figure is that of the best window.
            "best_unseen_accuracy": paper[best].unseen.accuracy,
            "best_unseen_classes": found[best]["unseen_classes"],
        },
        "unseen_all_trials": _all_trials_over(found),
        "chance": found[0]["chance"],
    }


def _all_trials_over(found: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    each = [one["unseen_all_trials"] for one in found]
    if None in each:
        return None
    accuracies = [one["accuracy"] for one in each]
    return {
        # Every letter has as many trials, and every window as many letters.
        "accuracy": float(np.mean(accuracies)),
        "by_window": accuracies,
        "n_queries": sum(one["n_queries"] for one in each),
        **chance([one["confusion"] for one in each]),
    }


def _pooled(found: Sequence[Retrieval]) -> dict[str, Any]:
    """Accuracy over the queries of all windows; the interval covers the choice of queries and takes each for itself."""
    n_right = sum(int((one.predicted == one.query_labels).sum()) for one in found)
    n_queries = sum(len(one.query_labels) for one in found)
    return {
        "accuracy": n_right / n_queries,
        "interval": list(wilson_interval(n_right, n_queries)),
        "reverse_accuracy": float(np.mean([one.reverse_accuracy for one in found])),
        "by_window": [one.accuracy for one in found],
        "n_queries": n_queries,
    }
