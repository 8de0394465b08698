"""The two fidelities give the same distribution, and both that of a literal simulation cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hil import PackedSpikes, Tile, differential_tile, open_session, single_ended_tile
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

N_REPEAT = 3000


def repeats(settings: SimSettings, tile: Tile, bits: np.ndarray, n_repeat: int = N_REPEAT) -> np.ndarray:
    """The same VMM many times on one chip, shape (repeats, outputs)."""
    with open_session(SimBackend(settings, seed=11)) as session:
        return session.vmm(np.repeat(bits[None], n_repeat, axis=0), tile, 0.2).astype(float)


def small(**changes: object) -> SimSettings:
    return SimSettings.model_validate({"rows": 40, "cols": 24, **changes})


@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("differential", [True, False])
def test_statistical_and_conversion_agree(density: float, differential: bool) -> None:
    tile = differential_tile(40, 12) if differential else single_ended_tile(40, 24)
    bits = np.random.default_rng(3).random(40) < density
    bits[0] = True
    fast = repeats(small(), tile, bits)
    slow = repeats(small(fidelity="conversion"), tile, bits)
    standard_error = np.sqrt((fast.var(axis=0) + slow.var(axis=0)) / N_REPEAT)
    assert np.all(np.abs(fast.mean(axis=0) - slow.mean(axis=0)) < 4.5 * standard_error)
    assert np.all(np.abs(fast.var(axis=0) / slow.var(axis=0) - 1) < 6 * np.sqrt(4 / N_REPEAT))
    p = [stats.ks_2samp(fast[:, j], slow[:, j]).pvalue for j in range(tile.n_outputs)]
    assert min(p) > 1e-3 / tile.n_outputs
    # independent outputs: the columns share no noise
    off_diagonal = np.corrcoef(fast.T) - np.eye(tile.n_outputs)
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(N_REPEAT)


def test_they_agree_where_converters_clip() -> None:
    clipping = {"tia": {"r_feedback_ohm": 200e3}}
    tile, bits = differential_tile(40, 12), np.ones(40, np.bool_)
    fast, slow = repeats(small(**clipping), tile, bits), repeats(small(fidelity="conversion", **clipping), tile, bits)
    unclipped = repeats(small(), tile, bits)
    standard_error = np.sqrt((fast.var(axis=0) + slow.var(axis=0)) / N_REPEAT)
    assert np.all(np.abs(fast.mean(axis=0) - slow.mean(axis=0)) < 4.5 * standard_error + 1e-12)
    assert np.abs(fast.mean(axis=0) - unclipped.mean(axis=0)).max() > 50 * unclipped.std() / np.sqrt(N_REPEAT)


def test_the_fast_path_is_left_only_when_something_can_clip() -> None:
    tile, bits = differential_tile(40, 12), np.ones((10, 40), np.bool_)
    for r_ohm, expected in ((20e3, 0.0), (200e3, 10.0)):
        with open_session(SimBackend(small(tia={"r_feedback_ohm": r_ohm}), seed=0)) as session:
            session.vmm(bits, tile, 0.2)
            assert session.telemetry().values["vmm_by_conversion_count"] == expected


def test_noise_is_that_of_independent_cells_read_one_by_one() -> None:
    """Literal reference: draw every cell's noise, sum the currents."""
    quiet = {part: {"enabled": False} for part in ("lines", "mux", "dac", "tia", "adc")}
    tile, bits = differential_tile(40, 12), np.random.default_rng(0).random(40) < 0.3
    backend = SimBackend(small(**quiet), seed=11)
    with open_session(backend) as session:
        fast = session.vmm(np.repeat(bits[None], N_REPEAT, axis=0), tile, 0.2).astype(float)
        cells_s = backend._open_chip().conductance_s
    rng = np.random.default_rng(1)
    noisy_s = cells_s * (1 + 0.02 * rng.standard_normal((N_REPEAT, *cells_s.shape)))
    column_a = 0.2 * np.einsum("r,nrc->nc", bits.astype(float), noisy_s)
    literal = column_a[:, ::2] - column_a[:, 1::2]
    assert np.all(np.abs(fast.var(axis=0) / literal.var(axis=0) - 1) < 6 * np.sqrt(4 / N_REPEAT))
    assert min(stats.ks_2samp(fast[:, j], literal[:, j]).pvalue for j in range(12)) > 1e-4


def test_a_silent_phase_costs_no_noise_unless_it_is_converted() -> None:
    tile, nothing = differential_tile(40, 12), np.zeros(40, np.bool_)
    assert not repeats(small(), tile, nothing, 100).any()
    always = small(mux={"skip_silent": False})
    measured = repeats(always, tile, nothing)
    lsb_a = 2 * 0.9 / 2**14 / 20e3
    expected = lsb_a * np.sqrt(2 * 8 * (0.8**2 + 1 / 12))
    assert measured.std() == pytest.approx(expected, rel=0.05)


def test_results_do_not_depend_on_threads_or_row_format() -> None:
    import numba

    tile = differential_tile(40, 12)
    bits = np.random.default_rng(5).random((300, 40)) < 0.2
    before = numba.get_num_threads()
    found = []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            for x in (bits, bits.astype(np.uint8), PackedSpikes.pack(bits)):
                with open_session(SimBackend(small(), seed=9)) as session:
                    found.append(session.vmm(x, tile, 0.2))
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_tensors_give_the_same_distribution_and_exactly_the_same_without_noise() -> None:
    import torch

    tile = differential_tile(40, 12)
    bits = np.random.default_rng(5).random((200, 40)) < 0.2
    with open_session(SimBackend(small(ideal=True), seed=9)) as session:
        exact = session.vmm(bits, tile, 0.2)
        tensor = session.vmm(torch.from_numpy(bits.astype(np.float32)), tile, 0.2)
        assert np.array_equal(exact, tensor.numpy())
    one = np.repeat(bits[:1], N_REPEAT, axis=0)
    with open_session(SimBackend(small(), seed=9)) as session:
        fast = session.vmm(one, tile, 0.2)
        tensor = session.vmm(torch.from_numpy(one.astype(np.float32)), tile, 0.2).numpy()
    assert min(stats.ks_2samp(fast[:, j], tensor[:, j]).pvalue for j in range(12)) > 1e-4


def test_levels_between_idle_and_read_voltage() -> None:
    tile = single_ended_tile(40, 24)
    levels = np.zeros((1, 40))
    levels[0, ::2] = 0.5
    with open_session(SimBackend(small(ideal=True), seed=1)) as session:
        half = session.vmm(levels, tile, 0.2)
        full = session.vmm(levels > 0, tile, 0.2)
    np.testing.assert_allclose(half, 0.5 * full, rtol=1e-3)


def test_silent_samples_agree_when_the_idle_level_clips() -> None:
    changes = {"mux": {"skip_silent": False}, "tia": {"v_common_v": 1.9}}
    tile, nothing = differential_tile(40, 12), np.zeros(40, np.bool_)
    for fidelity in ("statistical", "conversion"):
        assert not repeats(small(fidelity=fidelity, **changes), tile, nothing, 20).any()


def test_tensors_obey_the_fidelity_and_hold_bits_only() -> None:
    import torch

    from hil.errors import LimitError

    tile = differential_tile(40, 12)
    with open_session(SimBackend(small(fidelity="conversion"), seed=9)) as session:
        session.vmm(torch.ones(5, 40), tile, 0.2)
        assert session.telemetry().values["vmm_by_conversion_count"] == 5
        with pytest.raises(LimitError, match="other than 0 and 1"):
            session.vmm(torch.full((5, 40), 0.5), tile, 0.2)
