"""Recurrent layers with gradients written by hand, against autograd over a plain loop."""

from __future__ import annotations

import pytest
import torch

from experiments.baselines.recurrence import lif, tanh_recurrence

DECAY, THRESHOLD, LENS = 0.9, 1.0, 0.25


class Spike(torch.autograd.Function):
    """1 where u > 0, with the rectangle as gradient (paper-facts 1.2)."""

    @staticmethod
    def forward(ctx, u):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (u,) = ctx.saved_tensors
        return grad * (u.abs() < LENS).to(u.dtype) / (2 * LENS)


def plain_lif(drive: torch.Tensor, recurrent: torch.Tensor | None) -> torch.Tensor:
    """The equation as it stands in the paper."""
    u, s = torch.zeros_like(drive[0]), torch.zeros_like(drive[0])
    spikes = []
    for step in drive:
        u = DECAY * u * (1 - s) + step + (0 if recurrent is None else s @ recurrent.T)
        s = Spike.apply(u - THRESHOLD)
        spikes.append(s)
    return torch.stack(spikes)


def plain_tanh(drive: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
    h = torch.zeros_like(drive[0])
    states = []
    for step in drive:
        h = torch.tanh(step + h @ recurrent.T)
        states.append(h)
    return torch.stack(states)


def leaves(seed: int, n_steps: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Drive, recurrent weight and a gradient that differs at every spike."""
    generator = torch.Generator()
    generator.manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return (0.7 * drawn(n_steps, 3, 5)).requires_grad_(), (0.4 * drawn(5, 5)).requires_grad_(), drawn(n_steps, 3, 5)


@pytest.mark.parametrize("n_steps", [1, 2, 12])
@pytest.mark.parametrize("with_recurrence", [True, False])
def test_lif_spikes_and_gradients_are_those_of_a_plain_loop(n_steps: int, with_recurrence: bool) -> None:
    drive, weight, against = leaves(0, n_steps)
    recurrent = weight if with_recurrence else None
    inputs = [drive, weight] if with_recurrence else [drive]
    fast = lif(drive, recurrent, decay=DECAY, v_threshold=THRESHOLD, lens=LENS)
    plain = plain_lif(drive, recurrent)
    assert torch.equal(fast, plain)
    assert n_steps < 12 or 0.05 < float(fast.detach().mean()) < 0.5
    for ours, theirs in zip(
        torch.autograd.grad((fast * against).sum(), inputs, allow_unused=True),
        torch.autograd.grad((plain * against).sum(), inputs, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs)


def test_a_neuron_at_the_threshold_is_silent() -> None:
    drive = torch.full((1, 1, 1), THRESHOLD)
    assert float(lif(drive, None, decay=DECAY, v_threshold=THRESHOLD, lens=LENS)) == 0


def test_a_spike_resets_the_membrane_at_the_next_step() -> None:
    # 1.5 fires and is forgotten: 0.9 stays below the threshold, which 0.9 * 1.5 + 0.9 would pass.
    drive = torch.tensor([1.5, 0.9, 0.0]).reshape(3, 1, 1)
    spikes = lif(drive, None, decay=DECAY, v_threshold=THRESHOLD, lens=LENS)
    assert spikes.flatten().tolist() == [1.0, 0.0, 0.0]


def test_tanh_states_and_gradients_are_those_of_a_plain_loop() -> None:
    drive, recurrent, against = leaves(1)
    fast, plain = tanh_recurrence(drive, recurrent), plain_tanh(drive, recurrent)
    torch.testing.assert_close(fast, plain)
    for ours, theirs in zip(
        torch.autograd.grad((fast * against).sum(), [drive, recurrent]),
        torch.autograd.grad((plain * against).sum(), [drive, recurrent]),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
