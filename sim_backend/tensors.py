"""Fidelity `statistical` on torch tensors, dense, on the device of the input (a GPU when one is present).

Same matrices as `sim_backend.statistical`, hence the same currents to the last bit when nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sim_backend.statistical import FoldedTile


@dataclass(frozen=True)
class TensorTile:
    """Matrices of a folded tile on a device.

    Attributes:
        mean_a: shape (rows + phases, outputs).
        variance_a2: same shape, or None.
        phase_of_row: one-hot, shape (rows, phases).
        folded: where they come from.
    """

    mean_a: Tensor
    variance_a2: Tensor | None
    phase_of_row: Tensor
    folded: FoldedTile

    @classmethod
    def on(cls, folded: FoldedTile, device: torch.device) -> TensorTile:
        one_hot = torch.zeros(len(folded.phase), folded.n_phases)
        one_hot[torch.arange(len(folded.phase)), torch.from_numpy(folded.phase)] = 1.0
        variance = None if folded.variance_a2 is None else torch.from_numpy(folded.variance_a2[:-1]).to(device)
        return cls(torch.from_numpy(folded.mean_a[:-1]).to(device), variance, one_hot.to(device), folded)


def sum_rows_tensor_a(tile: TensorTile, bits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Output currents (B, outputs) of bits (B, rows), and which samples might clip."""
    x = bits.to(torch.float32)
    count = x @ tile.phase_of_row
    active = torch.ones_like(count) if tile.folded.all_phases_always else (count > 0).to(torch.float32)
    driven = torch.cat([x, active], dim=1)
    total = driven @ tile.mean_a
    if tile.variance_a2 is not None:
        normal = torch.randn(total.shape, generator=generator, device=total.device)
        total = total + torch.sqrt(driven @ tile.variance_a2) * normal
    clip_count = torch.from_numpy(tile.folded.clip_count).to(count.device)
    return total, (count > clip_count).any(dim=1)
