"""Training of the projections, held against the same training in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from experiments.lsm.projection import Projections, train
from experiments.lsm.zero_shot_settings import ProjectionSettings

RNG = np.random.default_rng(0)
LABELS = np.repeat([1, 2, 3], [7, 8, 7])
QUERY = (RNG.random((22, 9)) * RNG.random(9)).astype(np.float32)
GALLERY = (RNG.random((22, 6)) + 0.2 * LABELS[:, None]).astype(np.float32)


def trained(settings: ProjectionSettings, *, penalty: float, temperature: float, epochs: int) -> list[Projections]:
    kept: list[Projections] = []
    train(
        QUERY, GALLERY, LABELS, settings, penalty=penalty, temperature=temperature, seed=4, epochs=epochs,
        after_epoch=lambda _, made: kept.append(made),
    )  # fmt: skip
    return kept


class InTorch:
    """The same layers, losses and optimiser, by automatic differentiation."""

    def __init__(self, settings: ProjectionSettings, start: Projections, temperature: float, penalty: float) -> None:
        self.settings, self.temperature = settings, temperature
        self.layers = [
            [torch.tensor(layer.weight, requires_grad=True), torch.tensor(layer.bias, requires_grad=True)]
            for layer in (start.query, start.gallery)
        ]
        self.log_scale = torch.tensor(-np.log(temperature), requires_grad=True)
        groups: list[dict[str, Any]] = [
            {"params": [layer[0] for layer in self.layers], "weight_decay": penalty},
            {"params": [*(layer[1] for layer in self.layers), self.log_scale], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self.x = [torch.tensor((x - x.mean(axis=0)) / (x.std(axis=0) + np.float32(1e-3))) for x in (QUERY, GALLERY)]

    def step(self, chosen: np.ndarray[Any, Any]) -> None:
        q, g = (
            torch.nn.functional.normalize(torch.nn.functional.gelu(x[chosen] @ weight + bias), dim=1)
            for x, (weight, bias) in zip(self.x, self.layers, strict=True)
        )
        labels = torch.tensor(LABELS[chosen])
        if self.settings.loss == "soft":
            logits = q @ g.T / self.temperature
            targets = torch.softmax((q @ q.T + g @ g.T) / 2 * self.temperature, dim=1)
            targets = targets if self.settings.target_gradient else targets.detach()
        else:
            logits = q @ g.T * self.log_scale.exp()
            same = (labels[:, None] == labels[None, :]).float()
            targets = same / same.sum(dim=1, keepdim=True)
        rows = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
        columns = -(targets.T * logits.T.log_softmax(dim=1)).sum(dim=1)
        self.optimiser.zero_grad()
        ((rows + columns) / 2).mean().backward()
        self.optimiser.step()


def starts() -> Iterator[Projections]:
    """What training starts from: one epoch with a step that is next to nothing."""
    yield from trained(ProjectionSettings(outputs=5, learning_rate=1e-12), penalty=0.0, temperature=1.0, epochs=1)


@pytest.mark.parametrize(
    ("choice", "temperature"),
    [
        ({"loss": "soft"}, 1.0),
        ({"loss": "soft"}, 0.3),
        ({"loss": "soft", "target_gradient": True}, 3.0),
        ({"loss": "labels"}, 0.2),
    ],
)
def test_training_is_that_of_torch(choice: dict[str, Any], temperature: float) -> None:
    """Losses, gradients, Adam, decay of the weights alone, and a last batch that is smaller than the others."""
    settings = ProjectionSettings.model_validate({"outputs": 5, "batch": 8, "learning_rate": 0.02, **choice})
    found = trained(settings, penalty=0.5, temperature=temperature, epochs=3)[-1]
    other = InTorch(settings, next(starts()), temperature, 0.5)
    rng = np.random.default_rng(4)
    for n_inputs in (10, 7):  # the starts of both layers come from the same generator
        rng.uniform(size=(n_inputs, 5))
    for _ in range(3):
        order = rng.permutation(22)
        for start in range(0, 22, 8):
            other.step(order[start : start + 8])
    for layer, (weight, bias) in zip((found.query, found.gallery), other.layers, strict=True):
        np.testing.assert_allclose(layer.weight, weight.detach().numpy(), atol=2e-4)
        np.testing.assert_allclose(layer.bias, bias.detach().numpy(), atol=2e-4)


def test_a_projection_gives_what_the_layer_in_torch_gives_at_length_one() -> None:
    layer = next(starts()).query
    z = torch.tensor((QUERY - layer.mean) / layer.spread) @ torch.tensor(layer.weight) + torch.tensor(layer.bias)
    expected = torch.nn.functional.normalize(torch.nn.functional.gelu(z), dim=1)
    np.testing.assert_allclose(layer(QUERY), expected.numpy(), atol=1e-5)
    assert layer(QUERY).dtype == np.float32


def test_the_seed_decides_start_and_order() -> None:
    settings = ProjectionSettings(outputs=5)
    one, again = (trained(settings, penalty=0.0, temperature=1.0, epochs=2) for _ in range(2))
    np.testing.assert_array_equal(one[1].query.weight, again[1].query.weight)
    assert (one[0].query.weight != one[1].query.weight).any()  # epochs do not share their arrays
