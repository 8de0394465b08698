"""Recurrent layers over time, with gradients written by hand: autograd would keep and walk hundreds of small steps.

Time comes first in every array, (steps, samples, neurons), so that one step is one block of memory. The products that
do not depend on the previous step, those with the inputs and those of the weights' gradients, are one large product
each, outside of the loop.
"""

from __future__ import annotations

from typing import Any

import torch


class _Lif(torch.autograd.Function):
    """u_t = decay u_{t-1} (1 - s_{t-1}) + i_t + V s_{t-1};  s_t = 1 where u_t > threshold, else 0."""

    @staticmethod
    def forward(
        ctx: Any, drive: torch.Tensor, recurrent: torch.Tensor | None, decay: float, v_threshold: float, lens: float
    ) -> torch.Tensor:
        membrane, spikes, kept = (torch.empty_like(drive) for _ in range(3))
        weight = None if recurrent is None else recurrent.T
        for step in range(len(drive)):
            u = membrane[step]
            if step == 0:
                u.copy_(drive[0])
            else:
                if weight is None:
                    u.copy_(drive[step])
                else:
                    torch.addmm(drive[step], spikes[step - 1], weight, out=u)
                u.addcmul_(membrane[step - 1], kept[step - 1], value=decay)
            torch.gt(u, v_threshold, out=spikes[step])
            torch.le(u, v_threshold, out=kept[step])
        ctx.save_for_backward(membrane, spikes, kept, recurrent)
        ctx.constants = decay, v_threshold, lens
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        membrane, spikes, kept, recurrent = ctx.saved_tensors
        decay, v_threshold, lens = ctx.constants
        # Rectangular surrogate of the step, 1 / (2 lens) within `lens` of the threshold.
        slope = ((membrane - v_threshold).abs_() < lens).to(membrane.dtype).mul_(0.5 / lens)
        d_membrane = torch.empty_like(membrane)
        d_spikes = torch.empty_like(membrane[0])
        torch.mul(slope[-1], grad[-1], out=d_membrane[-1])
        for step in range(len(membrane) - 2, -1, -1):
            later = d_membrane[step + 1]
            if recurrent is None:
                d_spikes.copy_(grad[step])
            else:
                torch.addmm(grad[step], later, recurrent, out=d_spikes)
            d_spikes.addcmul_(membrane[step], later, value=-decay)
            torch.mul(slope[step], d_spikes, out=d_membrane[step])
            d_membrane[step].addcmul_(kept[step], later, value=decay)
        d_recurrent = None
        if recurrent is not None:
            d_recurrent = d_membrane[1:].flatten(0, 1).T @ spikes[:-1].flatten(0, 1)
        return d_membrane, d_recurrent, None, None, None


def lif(
    drive: torch.Tensor, recurrent: torch.Tensor | None, *, decay: float, v_threshold: float, lens: float
) -> torch.Tensor:
    """Spikes of leaky integrate-and-fire neurons.

    The gradient goes through the reset, too; that of the step is a rectangle (paper-facts 1.2).

    Args:
        drive: what the inputs bring, shape (steps, samples, neurons), in units of the weights.
        recurrent: weight from neuron k to neuron j at [j, k], shape (neurons, neurons); None without recurrence.
        decay: membrane left after one step.
        v_threshold: threshold, in units of the weights.
        lens: half width of the surrogate, in units of the weights.

    Returns:
        0 or 1 as float, shape (steps, samples, neurons).
    """
    return _Lif.apply(drive, recurrent, decay, v_threshold, lens)


class _Tanh(torch.autograd.Function):
    """h_t = tanh(i_t + V h_{t-1})."""

    @staticmethod
    def forward(ctx: Any, drive: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
        hidden = torch.empty_like(drive)
        torch.tanh(drive[0], out=hidden[0])
        for step in range(1, len(drive)):
            torch.addmm(drive[step], hidden[step - 1], recurrent.T, out=hidden[step]).tanh_()
        ctx.save_for_backward(hidden, recurrent)
        return hidden

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        hidden, recurrent = ctx.saved_tensors
        slope = 1 - hidden * hidden
        d_drive = torch.empty_like(hidden)
        torch.mul(slope[-1], grad[-1], out=d_drive[-1])
        for step in range(len(hidden) - 2, -1, -1):
            torch.addmm(grad[step], d_drive[step + 1], recurrent, out=d_drive[step]).mul_(slope[step])
        return d_drive, d_drive[1:].flatten(0, 1).T @ hidden[:-1].flatten(0, 1)


def tanh_recurrence(drive: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
    """States of a plain recurrent layer, shape (steps, samples, neurons); arguments as of `lif`."""
    return _Tanh.apply(drive, recurrent)
