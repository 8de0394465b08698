"""Training of two towers on pairs: contrastive, or by prototypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.baselines import losses
from experiments.baselines.networks import SpikingEncoder
from experiments.baselines.towers import Samples, Tower
from experiments.lsm.pairs import pair_by_index
from hil.progress import Progress

#: The learned scale of cosines stays below this, as in CLIP.
_SCALE_MAX = 100.0
#: A smaller rest of an epoch holds no contrast and is left out.
_N_PAIRS_MIN = 4


class Towers(nn.Module):
    """Both towers and what the loss learns.

    Args:
        query, gallery: the tower of each modality.
        scale: that cosines start with.
        n_pairs: that they are trained on.
    """

    def __init__(self, query: Tower, gallery: Tower, scale: float, n_pairs: int) -> None:
        super().__init__()
        self.query, self.gallery, self.n_pairs = query, gallery, n_pairs
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))


#: (towers, query samples, gallery samples of the same pairs) -> loss
PairLoss = Callable[[Towers, Samples, Samples], torch.Tensor]


def contrastive_loss(kind: str, temperature: float, length: float) -> PairLoss:
    """Loss 'soft' or 'labels', see `losses`; `length` is for 'soft', 'labels' learns its scale."""

    def soft(towers: Towers, query: Samples, gallery: Samples) -> torch.Tensor:
        return losses.soft_targets(towers.query(query), towers.gallery(gallery), temperature, length)

    def labels(towers: Towers, query: Samples, gallery: Samples) -> torch.Tensor:
        scale = towers.log_scale.clamp(max=math.log(_SCALE_MAX)).exp()
        classes = torch.from_numpy(query.labels)
        return losses.label_targets(towers.query(query), towers.gallery(gallery), classes, scale)

    return {"soft": soft, "labels": labels}[kind]


def half_prototypes(towers: Towers, query: Samples, gallery: Samples) -> torch.Tensor:
    """Half of the pairs are the support, whose means classify the other half; both modalities in both."""
    half = len(query) // 2
    vectors = towers.query(query), towers.gallery(gallery)
    support = torch.cat([one[:half] for one in vectors])
    asked = torch.cat([one[half:] for one in vectors])
    labels = torch.from_numpy(query.labels)
    return losses.prototypes(support, labels[:half].repeat(2), asked, labels[half:].repeat(2))


def leaking_prototypes(test_query: Samples, test_gallery: Samples, rng: np.random.Generator) -> PairLoss:
    """The pairs are the support; the queries are test samples, as in the paper's code. For the paper protocol only."""

    def loss(towers: Towers, query: Samples, gallery: Samples) -> torch.Tensor:
        support = torch.cat([towers.query(query), towers.gallery(gallery)])
        asking = [side[rng.permutation(len(side))[: len(query)]] for side in (test_query, test_gallery)]
        asked = torch.cat([towers.query(asking[0]), towers.gallery(asking[1])])
        labels = [torch.from_numpy(side.labels) for side in (query, gallery, *asking)]
        return losses.prototypes(support, torch.cat(labels[:2]), asked, torch.cat(labels[2:]))

    return loss


@dataclass(frozen=True)
class TrainPairs:
    """Trains two towers on index-aligned pairs of each class with Adam.

    Attributes:
        model: name, for progress.
        table: settings of the model.
        encoders: settings of both encoders; None where the samples are features.
        gradient_max: longest gradient; longer ones are cut to it.
        progress: told after each epoch.
    """

    model: str
    table: Any
    encoders: tuple[Any, Any] | None
    gradient_max: float
    progress: Progress

    def __call__(
        self,
        query: Samples,
        gallery: Samples,
        loss_of: PairLoss,
        training: str,
        epochs: int,
        seed: int,
        after_epoch: Callable[[str, int, float, Towers], None],
    ) -> None:
        """Train, and show the towers after every epoch.

        Args:
            query, gallery: training samples of both modalities, of the same classes.
            loss_of: loss of a batch of pairs.
            training: name of this training.
            epochs: passes over the pairs.
            seed: of the weights before training and of the order of the pairs.
            after_epoch: called with (training, epochs done, mean loss, towers).
        """
        generator = torch.Generator()
        generator.manual_seed(seed)
        classes = np.unique(query.labels).tolist()
        pairs = pair_by_index(query.labels, gallery.labels, classes, self.table.pairs_per_query)
        towers = self._started(query, gallery, len(pairs), generator)
        optimiser = torch.optim.Adam(towers.parameters(), lr=self.table.learning_rate)
        what = f"train {self.model}, {training}"
        self.progress(what, 0, epochs)
        for epoch in range(1, epochs + 1):
            seen: list[float] = []
            order = torch.randperm(len(pairs), generator=generator).numpy()
            for chosen in np.split(order, range(self.table.batch, len(order), self.table.batch)):
                if seen and len(chosen) < _N_PAIRS_MIN:
                    continue
                loss = loss_of(towers, query[pairs.query[chosen]], gallery[pairs.gallery[chosen]])
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(towers.parameters(), self.gradient_max)
                optimiser.step()
                seen.append(float(loss.detach()))
            after_epoch(training, epoch, float(np.mean(seen)), towers)
            self.progress(what, epoch, epochs)

    def _started(self, query: Samples, gallery: Samples, n_pairs: int, generator: torch.Generator) -> Towers:
        towers = []
        for side, samples in enumerate((query, gallery)):
            encoder = None
            if self.encoders is not None:
                own = self.encoders[side]
                encoder = SpikingEncoder(samples.n_inputs, self.table.n_neurons, own, generator)
            towers.append(Tower(samples, encoder, self.table.outputs, generator))
        return Towers(*towers, scale=1 / getattr(self.table, "temperature", 1.0), n_pairs=n_pairs)
