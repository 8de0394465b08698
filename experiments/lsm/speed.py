"""How fast the encoder is, as ratios measured in one run against a plain dense torch loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hil.backend import CrossbarBackend
from hil.lsm.encoder import LsmEncoder
from hil.lsm.settings import LsmSettings
from hil.session import open_session
from hil.spikes import PackedSpikes, pack_bits, unpack_bits

#: Shape of the paper's N-MNIST network and density of the real recordings (8.9 % of the bins of the 16 x 16 crop).
N_INPUTS, N_STEPS, DENSITY = 256, 50, 0.089


@dataclass(frozen=True)
class Speed:
    """Samples per second at one number of threads, medians over rounds.

    Attributes:
        threads: compute threads of every contestant.
        dense_torch: noise-free dense torch loop, the reference.
        engine_ideal: the encoder on the simulator, every effect off.
        engine_full: the encoder on the simulator, every effect on, fidelity `statistical`.
        ratio_ideal, ratio_full: over dense_torch; medians of the ratios round by round, since machines drift.
    """

    threads: int
    dense_torch: float
    engine_ideal: float
    engine_full: float
    ratio_ideal: float
    ratio_full: float


def poisson_input(n_samples: int, seed: int) -> NDArray[np.uint64]:
    """Packed random spikes (samples, steps, words) at the density of real recordings."""
    rng = np.random.default_rng(seed)
    return pack_bits(rng.random((n_samples, N_STEPS, N_INPUTS)) < DENSITY)


def dense_torch_loop(
    inputs: NDArray[np.float32], weights: NDArray[np.float32], lsm: LsmSettings
) -> NDArray[np.float32]:
    """The reference: spike counts (samples, neurons) by dense products, as one would write it in torch.

    Args:
        inputs: 0/1, shape (steps, samples, inputs).
        weights: shape (inputs + neurons, neurons), in units of the weights.
        lsm: decay and threshold.
    """
    import torch

    x, w = torch.from_numpy(inputs), torch.from_numpy(weights)
    w_in, w_rec = w[: x.shape[2]], w[x.shape[2] :]
    u = torch.zeros(x.shape[1], w.shape[1])
    s, count = torch.zeros_like(u), torch.zeros_like(u)
    for step in x:
        u = lsm.decay * u * (1 - s) + step @ w_in + s @ w_rec
        s = (u > lsm.v_threshold).float()
        count += s
    return count.numpy()


def measure(
    ideal: CrossbarBackend,
    full: CrossbarBackend,
    *,
    threads: int,
    n_samples: int = 1000,
    rounds: int = 5,
    seed: int = 0,
) -> Speed:
    """Time the three in turn, round by round, after one round that is not counted.

    Args:
        ideal: simulator with every effect off.
        full: the same with every effect on.
        threads: threads of torch and numba.
        n_samples: samples per round.
        rounds: rounds that count.
        seed: input.
    """
    import numba
    import torch

    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    lsm = LsmSettings(batch=n_samples)
    spikes = poisson_input(n_samples, seed)
    with open_session(ideal) as first:
        ideal_encoder = LsmEncoder(first, lsm, N_INPUTS)
        with open_session(full) as second:
            full_encoder = LsmEncoder(second, lsm, N_INPUTS)
            one_hot = PackedSpikes.pack(np.eye(ideal_encoder.tile.n_rows, dtype=np.bool_))
            weights = first.vmm(one_hot, ideal_encoder.tile, lsm.v_read_v) * np.float32(ideal_encoder.drive_per_a)
            by_step = unpack_bits(spikes, N_INPUTS).transpose(1, 0, 2)
            dense = np.ascontiguousarray(by_step, dtype=np.float32)
            contestants: tuple[Callable[[], object], ...] = (
                lambda: dense_torch_loop(dense, weights, lsm),
                lambda: ideal_encoder.encode(spikes),
                lambda: full_encoder.encode(spikes),
            )
            rates = np.array([[n_samples / _seconds(run) for run in contestants] for _ in range(rounds + 1)])[1:]
    dense_torch, engine_ideal, engine_full = (float(v) for v in np.median(rates, axis=0))
    ratio_ideal, ratio_full = (float(v) for v in np.median(rates[:, 1:] / rates[:, :1], axis=0))
    return Speed(threads, dense_torch, engine_ideal, engine_full, ratio_ideal, ratio_full)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
