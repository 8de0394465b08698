"""Audio to vision: spoken digits find pictures of the same digit, through two networks that share one tile.

The network of the images fills the tile. That of the audio uses the cells of its first input rows and all of its
recurrent rows, with neurons of its own. The same code runs on every backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.baselines.settings import BaselineSettings
from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm.pairs import Index, Labels, first_of_classes, training_samples
from experiments.lsm.protocols import LabelledFeatures
from experiments.lsm.supervised import counts_table, encode_into
from experiments.lsm.tile_record import fault_summary, tile_results
from experiments.lsm.zero_shot import Modality, ZeroShotOutcome, summary
from experiments.lsm.zero_shot_models import judge_counts
from experiments.lsm.zero_shot_record import record
from experiments.lsm.zero_shot_settings import AtvSettings, ProjectionSettings
from hil.backend import CrossbarBackend
from hil.config import Settings
from hil.fault_map import FaultMap
from hil.lsm.encoder import LsmEncoder, lsm_tile, shared_tile
from hil.lsm.readout import features_of
from hil.lsm.settings import LsmSettings
from hil.progress import Progress, no_progress
from hil.runfile import RunFile, TableSpec

#: What the two modalities are called in run files and figures, query first.
SIDES = ("audio", "image")


class AtvRunSettings(Settings):
    """Settings of the experiment; data and backend have their own."""

    lsm: LsmSettings = LsmSettings()
    atv: AtvSettings = AtvSettings()
    projection: ProjectionSettings = ProjectionSettings()
    baseline: BaselineSettings = BaselineSettings()


@dataclass(frozen=True)
class Outcome:
    """What a run found: `zero_shot`, and the summary and figures (PNG by name) that the run file holds."""

    zero_shot: ZeroShotOutcome
    summary: dict[str, Any]
    figures: dict[str, bytes]


@dataclass(frozen=True)
class Selection:
    """Numbers of the samples that are encoded, of audio and image.

    Attributes:
        paired: training samples of seen classes.
        shots: training samples of unseen classes that labelled pairs are drawn from.
        test: the first test samples of each class.
    """

    paired: tuple[Index, Index]
    shots: tuple[Index, Index]
    test: tuple[Index, Index]

    @classmethod
    def of(cls, audio: SpikeDataset, vision: SpikeDataset, settings: AtvRunSettings) -> Selection:
        """Choose by class and order alone.

        Raises:
            DataError: a data set has no sample of a class.
        """
        atv = settings.atv

        def first(labels: tuple[Labels, Labels], classes: list[int], n: int) -> tuple[Index, Index]:
            return first_of_classes(labels[0], classes, n), first_of_classes(labels[1], classes, n)

        train = audio.train.labels, vision.train.labels
        return cls(
            paired=training_samples(*train, atv.seen, settings.projection.pairs_per_query),
            shots=first(train, atv.unseen, atv.n_shot_pool),
            test=first((audio.test.labels, vision.test.labels), [*atv.seen, *atv.unseen], atv.n_test_per_class),
        )

    @property
    def train(self) -> tuple[Index, Index]:
        """All training samples."""
        audio, image = (np.concatenate(both) for both in zip(self.paired, self.shots, strict=True))
        return audio, image


@dataclass(frozen=True)
class Encoders:
    """The networks of both modalities on one tile."""

    audio: LsmEncoder
    image: LsmEncoder

    @property
    def both(self) -> tuple[LsmEncoder, LsmEncoder]:
        """In the order of `SIDES`."""
        return self.audio, self.image

    @classmethod
    def on(
        cls,
        backend: CrossbarBackend,
        settings: AtvRunSettings,
        audio: SpikeDataset,
        vision: SpikeDataset,
        fault_map: FaultMap | None,
    ) -> Encoders:
        """Put both networks on the array.

        Raises:
            LimitError: the larger network does not fit, or there are more audio than image inputs.
        """
        tile = lsm_tile(vision.n_inputs, settings.lsm.n_neurons, fault_map)
        shared = shared_tile(tile, vision.n_inputs, audio.n_inputs)
        return cls(
            audio=LsmEncoder(backend, settings.atv.audio.of(settings.lsm), audio.n_inputs, fault_map, tile=shared),
            image=LsmEncoder(backend, settings.atv.image.of(settings.lsm), vision.n_inputs, fault_map, tile=tile),
        )


def tables(n_neurons: int) -> list[TableSpec]:
    """Tables of the run file: spike counts as they are measured."""
    return [
        counts_table(f"counts_{side}_{split}", n_neurons, f"{side}, {split} samples")
        for side in SIDES
        for split in ("train", "test")
    ]


def run(
    backend: CrossbarBackend,
    audio: SpikeDataset,
    vision: SpikeDataset,
    settings: AtvRunSettings,
    run_file: RunFile,
    *,
    seed: int,
    model: str = "lsm",
    fault_map: FaultMap | None = None,
    progress: Progress = no_progress,
) -> Outcome:
    """Encode what is needed of both modalities, train and judge the projections, and complete the run file.

    Args:
        backend: an open session.
        audio, vision: packed spikes.
        settings: sections `lsm`, `atv`, `projection` and `baseline`.
        run_file: made with `tables`; completed here.
        seed: of the validation split, the training, the shots and t-SNE.
        model: one of `zero_shot_models.NAMES`: what is trained on the spike counts.
        fault_map: of the array; the networks are put where the faults are fewest.
        progress: told on the way.
    """
    selection = Selection.of(audio, vision, settings)
    encoders = Encoders.on(backend, settings, audio, vision, fault_map)
    sides = [
        Modality(
            train=encode_features(run_file, f"counts_{side}_train", encoder, dataset.train, train, progress),
            test=encode_features(run_file, f"counts_{side}_test", encoder, dataset.test, test, progress),
        )
        for side, encoder, dataset, train, test in zip(
            SIDES, encoders.both, (audio, vision), selection.train, selection.test, strict=True
        )
    ]
    outcome = judge_counts(
        model, *sides, settings.atv, settings.projection, settings.baseline, seed, progress, experiment="atv"
    )
    arrays, pictures = record(outcome, seed, class_names(settings.atv), SIDES, progress)
    described = {
        **summary(
            outcome,
            model=model,
            query=described_side("audio", audio, encoders.audio),
            gallery=described_side("image", vision, encoders.image),
        ),
        "spike_rate": {side: float(modality.test.features.mean()) for side, modality in zip(SIDES, sides, strict=True)},
        "weight_sigma_s": encoders.image.measure_sigma_s(),
        "faults": fault_summary(encoders.image),
        "telemetry": dict(backend.telemetry().values),
    }
    results = {**arrays, **tile_results(encoders.image), "summary": described, **pictures}
    run_file.finish("complete", results)
    return Outcome(outcome, described, pictures)


def encode_features(
    run_file: RunFile, table: str, encoder: LsmEncoder, samples: SpikeSet, chosen: Index, progress: Progress
) -> LabelledFeatures:
    """Spikes per step of the chosen samples, whose counts are kept in a table."""
    taken = samples.taken(chosen)
    what = f"encode {table.removeprefix('counts_').replace('_', ', ')} samples"
    counts = encode_into(run_file, table, encoder, taken, progress, what=what, index=chosen)
    return LabelledFeatures(features_of(counts, samples.words.shape[1]), taken.labels)


def described_side(side: str, dataset: SpikeDataset, encoder: LsmEncoder) -> dict[str, Any]:
    """What a report says about a modality and its network."""
    return {
        "name": side,
        **dataset.described(),
        "n_inputs": dataset.n_inputs,
        "n_steps": dataset.n_steps,
        "n_neurons": encoder.settings.n_neurons,
    }


def class_names(settings: AtvSettings) -> dict[int, str]:
    """Names of the digits."""
    return {label: str(label) for label in (*settings.seen, *settings.unseen)}
