"""Audio to vision on two backends side by side: the same test pairs, encoded by both, judged by one set of projections.

The projections are trained on spike counts of the reference, by the honest protocol, and never see a count of the other
backend. The code is handed two open sessions and knows neither chip nor simulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm import figures
from experiments.lsm.atv import SIDES, AtvRunSettings, Encoders, Selection, described_side, encode_features
from experiments.lsm.paired import INTERVAL_METHOD, difference_interval
from experiments.lsm.pairs import Pairs, pair_by_index
from experiments.lsm.protocols import LabelledFeatures
from experiments.lsm.side_by_side import Agreement
from experiments.lsm.supervised import counts_table, encode_into
from experiments.lsm.tile_record import fault_summary, tile_results
from experiments.lsm.zero_shot import Chosen, Judged, embed, honest_projections, judge
from hil.backend import CrossbarBackend
from hil.errors import ConfigError
from hil.fault_map import FaultMap
from hil.lsm.readout import features_of
from hil.progress import Progress, no_progress
from hil.runfile import RunFile, TableSpec


@dataclass(frozen=True)
class Outcome:
    """What a comparison found.

    Attributes:
        chosen: by validation, on counts of the reference.
        judged, judged_against: retrieval among the drawn pairs, by backend and reference.
        agreement: of the counts, by modality.
        summary: what the run file says.
        figures: PNG by name.
    """

    chosen: Chosen
    judged: Judged
    judged_against: Judged
    agreement: dict[str, Agreement]
    summary: dict[str, Any]
    figures: dict[str, bytes]


def tables(n_neurons: int) -> list[TableSpec]:
    """Tables of the run file; `sample` counts within the split of the data set."""
    return [
        counts_table(f"counts_{side}_{kind}", n_neurons, f"{side}, {what}")
        for side in SIDES
        for kind, what in (
            ("train", "training samples, by the reference"),
            ("test", "drawn test samples, by the backend"),
            ("against", "drawn test samples, by the reference"),
        )
    ]


def draw_pairs(pairs: Pairs, n_samples: int, seed: int) -> Pairs:
    """Draw pairs, the same number of every class as far as that goes.

    Args:
        pairs: test pairs there are.
        n_samples: how many to draw, without replacement.
        seed: the same seed draws the same; a smaller number draws a part of a larger one.

    Raises:
        ConfigError: fewer than there are classes, or more than there are pairs.
    """
    n_classes = len(np.unique(pairs.labels))
    if not n_classes <= n_samples <= len(pairs):
        raise ConfigError(
            f"--samples {n_samples} is outside {n_classes} to {len(pairs)}, one test pair of each class to all",
            fix=f"choose a number from {n_classes} to {len(pairs)}",
        )
    order = np.random.default_rng(seed).permutation(len(pairs))
    labels = pairs.labels[order]
    # How many pairs of its class come before each: sorted by it, every class has its turn in every round.
    before = np.array([(labels[:place] == label).sum() for place, label in enumerate(labels)])
    drawn = np.sort(order[np.argsort(before, kind="stable")[:n_samples]])
    return Pairs(pairs.query[drawn], pairs.gallery[drawn], pairs.labels[drawn])


def run(
    backend: CrossbarBackend,
    reference: CrossbarBackend,
    audio: SpikeDataset,
    vision: SpikeDataset,
    settings: AtvRunSettings,
    run_file: RunFile,
    *,
    n_samples: int,
    seed: int,
    fault_map: FaultMap | None = None,
    progress: Progress = no_progress,
) -> Outcome:
    """Train on the reference, encode the drawn test pairs with both, compare, and complete the run file.

    Args:
        backend, reference: open sessions.
        audio, vision: packed spikes.
        settings: sections `lsm`, `atv` and `projection`.
        run_file: made with `tables`; completed here.
        n_samples: test pairs to draw.
        seed: draws them; also of the validation split and the training.
        fault_map: of the array of the backend. Both put the networks on the same cells, neuron by neuron.
        progress: told on the way.

    Raises:
        ConfigError: more pairs than there are, or fewer than classes.
    """
    datasets = audio, vision
    selection = Selection.of(audio, vision, settings)
    classes = [*settings.atv.seen, *settings.atv.unseen]
    drawn = _test_pairs(audio, vision, selection, classes, n_samples, seed)
    samples = audio.test.taken(drawn.query), vision.test.taken(drawn.gallery)

    def encoders_on(session: CrossbarBackend) -> Encoders:
        return Encoders.on(session, settings, audio, vision, fault_map)

    encoders = encoders_on(backend)
    _rehearse(reference, encoders_on, samples, progress)
    against = encoders_on(reference)
    training = [
        encode_features(run_file, f"counts_{side}_train", encoder, dataset.train, paired, progress)
        for side, encoder, dataset, paired in zip(SIDES, against.both, datasets, selection.paired, strict=True)
    ]
    chosen, projections = honest_projections(*training, settings.atv, settings.projection, seed, progress)

    def encode(who: str, kind: str, by: Encoders) -> list[NDArray[np.uint16]]:
        return [
            encode_into(run_file, f"counts_{side}_{kind}", one, part, progress, what=f"encode, {who}", index=numbers)
            for side, one, part, numbers in zip(SIDES, by.both, samples, (drawn.query, drawn.gallery), strict=True)
        ]

    counts_against, counts = encode("reference", "against", against), encode("backend", "test", encoders)
    judged, judged_against = (
        judge(
            *embed(
                projections,
                *(
                    LabelledFeatures(features_of(one, dataset.n_steps), drawn.labels)
                    for one, dataset in zip(found, datasets, strict=True)
                ),
            ),
            settings.atv,
        )
        for found in (counts, counts_against)
    )
    agreement = {side: Agreement.of(one, other) for side, one, other in zip(SIDES, counts, counts_against, strict=True)}
    names = f"backend ({backend.info.name})", f"reference ({reference.info.name})"
    pictures = {
        f"side_by_side_{side}": figures.side_by_side_png(one, other, names, _title(side, agreement[side], len(one)))
        for side, one, other in zip(SIDES, counts, counts_against, strict=True)
    }
    described = {
        "model": "lsm",
        "query": described_side("audio", audio, encoders.audio),
        "gallery": described_side("image", vision, encoders.image),
        "n_samples": len(drawn),
        "honest": judged.described(settings.atv),
        "honest_against": judged_against.described(settings.atv),
        **_difference(judged, judged_against),
        "agreement": {side: asdict(one) for side, one in agreement.items()},
        **{name: value for name, value in asdict(chosen).items()},
        "telemetry": dict(backend.telemetry().values),
        "telemetry_against": dict(reference.telemetry().values),
        "faults": fault_summary(encoders.image),
    }
    run_file.finish("complete", {"summary": described, **tile_results(encoders.image), **pictures})
    return Outcome(chosen, judged, judged_against, agreement, described, pictures)


def _test_pairs(
    audio: SpikeDataset, vision: SpikeDataset, selection: Selection, classes: list[int], n_samples: int, seed: int
) -> Pairs:
    """Drawn test pairs, numbered within the test splits."""
    chosen_audio, chosen_image = selection.test
    pairs = pair_by_index(audio.test.labels[chosen_audio], vision.test.labels[chosen_image], classes)
    return draw_pairs(Pairs(chosen_audio[pairs.query], chosen_image[pairs.gallery], pairs.labels), n_samples, seed)


def _rehearse(
    reference: CrossbarBackend,
    encoders_on: Callable[[CrossbarBackend], Encoders],
    samples: tuple[SpikeSet, SpikeSet],
    progress: Progress,
) -> None:
    """Have the reference do what the other backend will do, and forget it, so that their noise is independent.

    As in `experiments.lsm.side_by_side`.
    """
    for encoder, part in zip(encoders_on(reference).both, samples, strict=True):
        encoder.encode(part.words, progress, what="rehearse, reference")
    reference.make_safe()


def _difference(judged: Judged, against: Judged) -> dict[str, Any]:
    """Accuracies over all queries, seen and unseen, and their difference; it is the same queries on both sides."""
    right, right_against = (
        np.concatenate([group.predicted == group.query_labels for group in (one.seen, one.unseen)])
        for one in (judged, against)
    )
    return {
        "accuracy": float(right.mean()),
        "accuracy_against": float(right_against.mean()),
        "accuracy_difference": float(right.mean() - right_against.mean()),
        "accuracy_difference_interval": list(difference_interval(right, right_against)),
        "accuracy_difference_method": INTERVAL_METHOD,
    }


def _title(side: str, agreement: Agreement, n_samples: int) -> str:
    r = agreement.count_correlation
    return f"Spike counts of {n_samples} {side} samples, correlation {'not defined' if r is None else f'{r:.4f}'}"
