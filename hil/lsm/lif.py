"""Leaky integrate-and-fire neurons, one step for a batch.

u(t) = decay * u(t-1) * (1 - s(t-1)) + drive * I(t);   s(t) = u(t) > v_threshold, strictly.

Reset to zero takes effect at the next step; no refractory period; all state starts at zero. Source: the paper's
equations and its authors' later code. Every operation is a single float32 rounding in this order, so that all engines
agree spike for spike.
"""

from __future__ import annotations

import numba as nb
import numpy as np

_GATHER = np.uint64(0x0102040810204080)  # moves bit 0 of byte i of a word to bit i of its top byte
_ONES = np.uint64(0x0101010101010101)


@nb.njit(nogil=True, parallel=True, cache=True)
def lif_step(current_a, drive, decay, v_threshold, carry, counts, next_inputs, n_inputs, rows):  # type: ignore[no-untyped-def]
    """Advance all neurons, count their spikes, and lay out the rows of the next VMM.

    Args:
        current_a: float32, shape (B, N).
        drive: weight units per ampere, float32.
        decay, v_threshold: float32.
        carry: decay * u * (1 - s) of the last step, float32, shape (B, N); updated.
        counts: uint16, shape (B, N); updated.
        next_inputs: packed input spikes of the next step, uint64, shape (B, words).
        n_inputs: number of input rows; recurrent row j follows as row n_inputs + j.
        rows: packed rows of the next VMM, uint64, shape (B, row words); overwritten.
    """
    n_batch, n_neurons = current_a.shape
    n_groups = (n_neurons + 7) // 8
    n_chunks = (n_batch + 63) // 64
    for chunk in nb.prange(n_chunks):
        flags = np.zeros(n_groups * 8, np.uint8)
        groups = flags.view(np.uint64)
        for b in range(chunk * 64, min(n_batch, chunk * 64 + 64)):
            current, left, count = current_a[b], carry[b], counts[b]
            for j in range(n_neurons):
                u = left[j] + drive * current[j]
                spike = u > v_threshold
                flags[j] = spike
                count[j] += np.uint16(spike)
                left[j] = np.float32(0.0) if spike else decay * u
            row = rows[b]
            n_input_words = next_inputs.shape[1]
            for w in range(n_input_words):
                row[w] = next_inputs[b, w]
            for w in range(n_input_words, len(row)):
                row[w] = np.uint64(0)
            for g in range(n_groups):
                octet = ((groups[g] & _ONES) * _GATHER) >> np.uint64(56)
                position = n_inputs + 8 * g
                word, shift = position // 64, np.uint64(position % 64)
                row[word] |= octet << shift
                if shift > np.uint64(56) and word + 1 < len(row):
                    row[word + 1] |= octet >> (np.uint64(64) - shift)
