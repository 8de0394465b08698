"""The network: every engine spike for spike like the reference, and the reference like its equations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil import open_session
from hil.errors import CapabilityError, DataError, DeviceError, LimitError
from hil.lsm.encoder import LsmEncoder, lsm_tile
from hil.lsm.reference import trace
from hil.lsm.settings import LsmSettings
from hil.spikes import pack_bits
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings


def spikes_of(n_samples: int, n_steps: int, n_inputs: int, density: float, seed: int) -> np.ndarray:
    return pack_bits(np.random.default_rng(seed).random((n_samples, n_steps, n_inputs)) < density)


@settings(max_examples=30, deadline=None)
@given(
    n_inputs=st.integers(1, 140),
    n_neurons=st.integers(1, 75),
    n_steps=st.integers(1, 12),
    density=st.floats(0.02, 0.5),
    seed=st.integers(0, 2**31),
)
def test_engines_match_the_reference_spike_for_spike(
    n_inputs: int, n_neurons: int, n_steps: int, density: float, seed: int
) -> None:
    """Any shape, so that input and recurrent rows share words in every possible way."""
    spikes = spikes_of(7, n_steps, n_inputs, density, seed)
    array = SimSettings(rows=n_inputs + n_neurons, cols=2 * n_neurons, ideal=True)
    with open_session(SimBackend(array, seed=seed)) as session:
        network = LsmSettings(n_neurons=n_neurons, gain="nominal", const_per_us=0.2, batch=3)
        encoder = LsmEncoder(session, network, n_inputs)
        expected = trace(encoder, spikes).counts
        assert np.array_equal(encoder.encode(spikes), expected)
        encoder.settings = network.model_copy(update={"engine": "torch"})
        assert np.array_equal(encoder.encode(spikes), expected)


@pytest.mark.large
def test_engines_match_at_the_paper_s_size() -> None:
    spikes = spikes_of(40, 50, 256, 0.089, 0)
    with open_session(SimBackend(SimSettings(ideal=True), seed=0)) as session:
        encoder = LsmEncoder(session, LsmSettings(), 256)
        found = trace(encoder, spikes)
        assert np.array_equal(encoder.encode(spikes), found.counts)
        assert 0.02 < found.spikes.mean() < 0.2


def test_the_reference_obeys_the_equations() -> None:
    spikes = spikes_of(5, 30, 20, 0.2, 1)
    with open_session(SimBackend(SimSettings(rows=30, cols=20, ideal=True), seed=1)) as session:
        lsm = LsmSettings(n_neurons=10, gain="nominal", const_per_us=0.2)
        encoder = LsmEncoder(session, lsm, 20)
        found = trace(encoder, spikes)
        one_hot = np.eye(30, dtype=np.bool_)
        weights = session.vmm(one_hot, encoder.tile, lsm.v_read_v).astype(float) * encoder.drive_per_a
    u, s = np.zeros((5, 10)), np.zeros((5, 10))
    for t in range(30):
        x = found.inputs[:, t].astype(float)
        u = 0.9 * u * (1 - s) + x @ weights[:20] + s @ weights[20:]
        s = found.spikes[:, t].astype(float)
        np.testing.assert_allclose(found.membrane[:, t], u, atol=1e-4)
        assert np.array_equal(found.spikes[:, t], found.membrane[:, t] > 5.0)
    assert found.spikes.any()


def test_a_constant_drive_charges_as_the_closed_form_says() -> None:
    """One input, always on, no recurrence: u(t) = w (1 - decay^t) / (1 - decay) until it fires."""
    spikes = spikes_of(1, 20, 1, 2.0, 0)
    with open_session(SimBackend(SimSettings(rows=9, cols=16, ideal=True), seed=3)) as session:
        encoder = LsmEncoder(session, LsmSettings(n_neurons=8, gain="nominal", v_threshold=1e6), 1)
        found = trace(encoder, spikes)
    w = found.membrane[0, 0]
    expected = w * (1 - 0.9 ** np.arange(1, 21)[:, None]) / 0.1
    np.testing.assert_allclose(found.membrane[0], expected, rtol=1e-5)


def test_threshold_is_strict() -> None:
    spikes = spikes_of(1, 1, 1, 2.0, 0)
    with open_session(SimBackend(SimSettings(rows=9, cols=16, ideal=True), seed=0)) as session:
        lsm = LsmSettings(n_neurons=8, gain="nominal")
        u = trace(LsmEncoder(session, lsm, 1), spikes).membrane[0, 0]
        neuron = int(np.argmax(u))
        just_below = float(np.nextafter(u[neuron], np.float32(0)))
        for v_threshold, expected in ((float(u[neuron]), 0), (just_below, 1)):
            encoder = LsmEncoder(session, lsm.model_copy(update={"v_threshold": v_threshold}), 1)
            assert encoder.encode(spikes)[0, neuron] == expected
            assert trace(encoder, spikes).counts[0, neuron] == expected


def test_batch_size_does_not_change_anything_without_noise() -> None:
    spikes = spikes_of(23, 15, 40, 0.2, 2)
    found = []
    for batch in (1, 5, 23, 500):
        with open_session(SimBackend(SimSettings(rows=64, cols=48, ideal=True), seed=2)) as session:
            encoder = LsmEncoder(session, LsmSettings(n_neurons=24, batch=batch), 40)
            found.append(encoder.encode(spikes))
    assert all(np.array_equal(found[0], other) for other in found)


def test_same_seed_same_counts_other_seed_other_counts() -> None:
    spikes = spikes_of(30, 20, 40, 0.2, 4)

    def counts(seed: int, engine: str = "numba") -> np.ndarray:
        with open_session(SimBackend(SimSettings(rows=64, cols=48), seed=seed)) as session:
            return LsmEncoder(session, LsmSettings.model_validate({"n_neurons": 24, "engine": engine}), 40).encode(
                spikes
            )

    assert np.array_equal(counts(1), counts(1))
    assert np.array_equal(counts(1, "torch"), counts(1, "torch"))
    assert not np.array_equal(counts(1), counts(2))


def test_measured_gain_makes_up_for_the_voltage_drop() -> None:
    tree = {"rows": 64, "cols": 128, "mux": {"r_on_ohm": 800.0}, "lines": {"row_ohm": 0.0, "col_ohm": 0.0}}
    with open_session(SimBackend(SimSettings.model_validate(tree), seed=1)) as session:
        measured = LsmEncoder(session, LsmSettings(n_neurons=32), 32)
        nominal = LsmEncoder(session, LsmSettings(n_neurons=32, gain="nominal"), 32)
    drop = 1 / (1 + 800.0 * 64 * 14.25e-6)
    assert nominal.drive_per_a == pytest.approx(0.07 / 1e-6 / 0.2)
    assert measured.drive_per_a / nominal.drive_per_a == pytest.approx(1 / drop, rel=0.1)


def test_an_array_without_weights_is_refused() -> None:
    for ideal in (True, False):
        tree = {"rows": 20, "cols": 20, "ideal": ideal, "forming": {"formed": False}}
        blank = SimBackend(SimSettings.model_validate(tree))
        with open_session(blank) as session, pytest.raises(DeviceError, match="form the array"):
            LsmEncoder(session, LsmSettings(n_neurons=10), 10)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 2), np.uint64),
        np.zeros((2, 0, 1), np.uint64),
        np.zeros((2, 3, 1), np.float64),
        np.full((2, 3, 1), 1 << 25, np.uint64),
    ],
)
def test_spikes_that_do_not_fit_the_inputs_are_refused(wrong: np.ndarray) -> None:
    with open_session(SimBackend(SimSettings(rows=32, cols=32))) as session:
        encoder = LsmEncoder(session, LsmSettings(n_neurons=10), 20)
        with pytest.raises(DataError, match="input spikes"):
            encoder.encode(wrong)


def test_a_network_that_does_not_fit_is_refused_with_the_limit() -> None:
    with open_session(SimBackend(SimSettings(rows=32, cols=32))) as session, pytest.raises(LimitError, match="31"):
        LsmEncoder(session, LsmSettings(n_neurons=20), 20)


def test_a_missing_device_is_refused_by_name() -> None:
    with open_session(SimBackend(SimSettings(rows=32, cols=32))) as session:
        encoder = LsmEncoder(session, LsmSettings(n_neurons=8, engine="torch", device="cuda:77"), 8)
        with pytest.raises(CapabilityError, match="cuda:77"):
            encoder.encode(spikes_of(2, 3, 8, 0.5, 0))


def test_tile_has_inputs_first_and_adjacent_pairs() -> None:
    tile = lsm_tile(256, 200)
    assert (tile.n_rows, tile.n_outputs) == (456, 200)
    assert tile.plus_cols[:3].tolist() == [0, 2, 4]
    assert tile.minus_cols is not None
    assert tile.minus_cols[:3].tolist() == [1, 3, 5]
