"""Packed spikes as torch takes them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hil.spikes import unpack_bits


def over_steps(words: NDArray[np.uint64], n_inputs: int) -> torch.Tensor:
    """Packed spikes (samples, steps, words) as float (steps, samples, inputs)."""
    return torch.from_numpy(unpack_bits(words, n_inputs)).transpose(0, 1).to(torch.float32).contiguous()
