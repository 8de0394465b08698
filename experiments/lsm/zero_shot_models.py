"""What can be trained on the spike counts of both modalities: projections, or a prototypical network."""

from __future__ import annotations

from experiments.baselines.settings import BaselineSettings
from experiments.lsm.zero_shot import Modality, ZeroShotOutcome, zero_shot
from experiments.lsm.zero_shot_settings import ProjectionSettings, ZeroShotSettings
from hil.errors import ConfigError
from hil.progress import Progress, no_progress

#: Models on the counts of a random network.
NAMES = ("lsm", "lsm-proto")


def judge_counts(
    model: str,
    query: Modality,
    gallery: Modality,
    settings: ZeroShotSettings,
    projection: ProjectionSettings,
    baseline: BaselineSettings,
    seed: int,
    progress: Progress = no_progress,
    *,
    experiment: str,
) -> ZeroShotOutcome:
    """Train a model on spikes per step, and judge it by both protocols.

    Args:
        model: one of `NAMES`.
        query, gallery: features of both modalities.
        settings: classes, gates and shots.
        projection: of model 'lsm'.
        baseline: of model 'lsm-proto'.
        seed: of the validation split, the training and the shots.
        progress: told on the way.
        experiment: 'atv' or 'btv'.

    Raises:
        ConfigError: there is no such model.
    """
    if model == "lsm":
        return zero_shot(query, gallery, settings, projection, seed, progress)
    if model == "lsm-proto":
        # It needs torch.
        from experiments.baselines.zero_shot import run_lsm_proto

        return run_lsm_proto(query, gallery, settings, baseline, seed, progress, experiment=experiment)
    raise ConfigError(f"unknown model {model!r} on spike counts", fix=f"choose one of {', '.join(NAMES)}")
