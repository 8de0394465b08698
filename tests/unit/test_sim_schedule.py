"""Muxes that connect only what a phase drives: the simulator gives the currents of the emulated board."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from boards import INDEPENDENT, emulate, profile
from scipy import stats

from firmware_bridge.emulator.array import EmulatedArray
from firmware_bridge.phases import OFF, plan
from hil import PackedSpikes, Tile, differential_tile, open_session, single_ended_tile
from sim_backend.backend import SimBackend
from sim_backend.chip import SimulatedChip
from sim_backend.mux import phases_of
from sim_backend.settings import MuxSettings, SimSettings

WIRINGS = [("independent", True), ("common", True), ("independent", False)]
QUIET: dict[str, Any] = {"noise": {"enabled": False}, "relaxation": {"enabled": False}}
N_REPEAT = 2000


def tree(selects: str, inhibit: bool, rows: int, cols: int) -> dict[str, Any]:
    """A board of this size."""
    found = deepcopy(INDEPENDENT)
    n_mux = -(-rows // 8)
    dacs = -(-n_mux // 8)
    found |= {"rows": rows, "cols": cols}
    found["dac"] |= {
        "chips": dacs + 1,
        "row_chips": list(range(dacs)),
        "gate_channel": [dacs, 0],
        "source_line_channel": [dacs, 1],
    }
    found["mux"] |= {"count": n_mux, "selects": selects, "inhibit": inhibit}
    found["chains"] |= {"rows": {"chips": -(-4 * n_mux // 8)}, "word_lines": {"chips": -(-cols // 8)}}
    found["adc"] |= {"positions": cols // 2}
    return found


def settings(
    selects: str = "independent", inhibit: bool = True, r_on_ohm: float = 125.0, **changes: Any
) -> SimSettings:
    mux = {"selects": selects, "inhibit": inhibit, "r_on_ohm": r_on_ohm}
    return SimSettings.model_validate({"rows": 40, "cols": 24, "mux": mux, **changes})


def repeats(chosen: SimSettings, tile: Tile, bits: np.ndarray, n_repeat: int = N_REPEAT) -> np.ndarray:
    with open_session(SimBackend(chosen, seed=11)) as session:
        return session.vmm(np.repeat(bits[None], n_repeat, axis=0), tile, 0.2).astype(float)


def emulated_a(
    chip: SimulatedChip, tile: Tile, levels: np.ndarray, v_read_v: float, selects: str, inhibit: bool
) -> np.ndarray:
    """Sum of the emulated array's currents over the phases that the board plans, with ideal converters."""
    rows, cols = chip.settings.rows, chip.settings.cols
    mux = profile(tree(selects, inhibit, rows, cols)).mux
    whole = np.zeros((len(levels), mux.count * mux.width))
    whole[:, tile.rows] = levels
    phases = plan(whole.reshape(len(levels), mux.count, mux.width), mux)
    array = EmulatedArray(chip, chip.r_on_ohm)
    open_cols = np.isin(np.arange(cols), tile.cols)
    current_a = np.zeros((len(levels), cols))
    for vector, position, level in zip(phases.vector, phases.position, phases.level, strict=True):
        muxes = np.flatnonzero(position != OFF)
        level_v = chip.dacs.output_v(level[muxes] * v_read_v, muxes) + chip.dacs.zero_offset_v(muxes)
        found = array.currents(muxes, 8 * muxes + position[muxes], level_v, open_cols)
        output_v = chip.tias.output_v(found.current_a, np.arange(cols), found.conductance_s)
        idle_v = chip.tias.output_v(np.zeros(cols), np.arange(cols), np.zeros(cols))
        current_a[vector] += (idle_v - output_v) / chip.settings.tia.r_feedback_ohm
    n = tile.n_outputs
    return current_a[:, tile.cols[:n]] - current_a[:, tile.cols[n:]] if tile.differential else current_a[:, tile.cols]


@pytest.mark.parametrize("wire_ohm", [0.1, 5.0])
@pytest.mark.parametrize(("selects", "inhibit"), WIRINGS)
@pytest.mark.parametrize("fidelity", ["statistical", "conversion"])
def test_currents_are_those_of_the_emulated_array(selects: str, inhibit: bool, wire_ohm: float, fidelity: str) -> None:
    """All errors of DACs and amplifiers are on; rows and columns of the tile in any order, some of the array unused."""
    chosen = settings(
        selects,
        inhibit,
        fidelity=fidelity,
        lines={"row_ohm": wire_ohm, "col_ohm": wire_ohm},
        tia={"offset_sigma_v": 2e-3, "gain_sigma": 1e-2},
        dac={"offset_sigma_v": 1e-3},
        adc={"enabled": False},
        **QUIET,
    )
    rng = np.random.default_rng(2)
    cols = rng.permutation(24)[:20]
    tile = Tile(rows=rng.permutation(40)[:33], plus_cols=cols[:10], minus_cols=cols[10:])
    bits = rng.random((30, 33)) < rng.choice([0.05, 0.3, 0.9], (30, 1))
    backend = SimBackend(chosen, seed=3)
    with open_session(backend) as session:
        measured_a = session.vmm(bits, tile, 0.2)
        expected_a = emulated_a(backend._open_chip(), tile, bits.astype(float), 0.2, selects, inhibit)
    # The amplifiers' offsets are four times those of the data sheet, which is what `statistical` is least exact for.
    off = {"statistical": 1e-5, "conversion": 1e-6}[fidelity] * np.abs(expected_a).max()
    np.testing.assert_allclose(measured_a, expected_a, rtol=0, atol=off)


@pytest.mark.parametrize(("selects", "inhibit"), WIRINGS)
def test_levels_take_part_in_the_schedule(selects: str, inhibit: bool) -> None:
    rng = np.random.default_rng(4)
    tile, levels = single_ended_tile(40, 24), rng.random((5, 40)) * (rng.random((5, 40)) < 0.4)
    backend = SimBackend(settings(selects, inhibit, adc={"enabled": False}, **QUIET), seed=3)
    with open_session(backend) as session:
        measured_a = session.vmm(levels, tile, 0.2)
        expected_a = emulated_a(backend._open_chip(), tile, levels, 0.2, selects, inhibit)
    np.testing.assert_allclose(measured_a, expected_a, rtol=0, atol=1e-6 * np.abs(expected_a).max())


@pytest.mark.parametrize(("selects", "inhibit"), WIRINGS)
def test_phases_are_those_of_the_board(selects: str, inhibit: bool) -> None:
    """The last mux is half empty."""
    mux = profile(tree(selects, inhibit, 28, 16)).mux
    rng = np.random.default_rng(0)
    rows = rng.permutation(28)
    driven = rng.random((50, 28)) < rng.choice([0.0, 0.1, 0.6], (50, 1))
    whole = np.zeros((50, 32))
    whole[:, rows] = driven
    expected = plan(whole.reshape(50, 4, 8), mux)
    found = list(phases_of(driven, rows, MuxSettings(selects=selects, inhibit=inhibit), 28))
    assert [phase.sample for phase in found] == expected.vector.tolist()
    for phase, position, level in zip(found, expected.position, expected.level, strict=True):
        on = np.flatnonzero(level > 0)
        assert sorted(rows[phase.driven]) == (8 * on + position[on]).tolist()
        idle = np.flatnonzero((level == 0) & (position != OFF))
        held = 8 * idle + position[idle]
        assert sorted(phase.held) == held[held < 28].tolist()


def test_the_board_itself_measures_the_same_means() -> None:
    """Through drivers, sequencer and converters of the emulated board, against the same chip in the simulator."""
    rows, cols, n_repeat = 64, 48, 60
    effects = {**QUIET, "dac": {"enabled": False}, "lines": {"row_ohm": 1.0, "col_ohm": 1.0}, "adc": {"gain_sigma": 0}}
    board, _, emulator = emulate(tree("independent", True, rows, cols), seed=5, **effects)
    v_read_v = 2621 * 5.0 / 2**16 + round(1.6 * 2**16 / 5.0) * 5.0 / 2**16 - 1.6  # what the DACs can give exactly
    tile, bits = differential_tile(rows, cols // 2), np.random.default_rng(8).random((6, rows)) < 0.15
    x = np.repeat(bits, n_repeat, axis=0)
    with open_session(emulator) as session:
        measured_a = session.vmm(x, tile, v_read_v).reshape(6, n_repeat, -1).mean(axis=1)
    chosen = SimSettings.model_validate(
        {"rows": rows, "cols": cols, "mux": {"selects": "independent", "inhibit": True}, **effects}
    )
    backend = SimBackend(chosen, seed=5)
    with open_session(backend) as session:
        assert np.array_equal(backend._open_chip().conductance_s, board.array.chip.conductance_s)
        simulated_a = session.vmm(np.repeat(bits, 10 * n_repeat, axis=0), tile, v_read_v).reshape(6, -1, 24).mean(1)
    lsb_a = 2 * 0.9 / 2**14 / 20e3
    phases = bits.reshape(6, 8, 8).sum(axis=2).max(axis=1)[:, None]
    # Zero codes of board and simulator are averages of 64 to 256 conversions; that of a pair stays for all phases.
    zero = 0.8 * phases * np.sqrt(2 * (1 / 64 + 1 / 64))
    repeat = 0.85 * np.sqrt(2 * phases / n_repeat)
    off_lsb = np.abs(measured_a - simulated_a) / lsb_a / np.hypot(zero, repeat)
    assert off_lsb.max() < 4.0
    assert np.sqrt((off_lsb**2).mean()) < 1.2
    assert np.abs(measured_a).max() / lsb_a > 500


@pytest.mark.parametrize(("selects", "inhibit"), WIRINGS[:2])
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("r_feedback_ohm", [20e3, 400e3])
def test_the_fidelities_agree(selects: str, inhibit: bool, density: float, r_feedback_ohm: float) -> None:
    """In mean, variance and distribution, also where converters clip (the large feedback).

    The muxes take a large share of the voltage, and with it of the cells' noise.
    """
    wiring = {"selects": selects, "inhibit": inhibit, "r_on_ohm": 2e3}
    chosen: dict[str, Any] = {**wiring, "tia": {"r_feedback_ohm": r_feedback_ohm}}
    tile, bits = differential_tile(40, 12), np.random.default_rng(3).random(40) < density
    bits[0] = True
    fast = repeats(settings(**chosen), tile, bits)
    slow = repeats(settings(fidelity="conversion", **chosen), tile, bits)
    standard_error = np.sqrt((fast.var(axis=0) + slow.var(axis=0)) / N_REPEAT)
    lsb_a = 2 * 0.9 / 2**14 / r_feedback_ohm
    assert np.all(np.abs(fast.mean(axis=0) - slow.mean(axis=0)) < 4.5 * standard_error + 0.01 * lsb_a)
    assert np.all(np.abs(fast.std(axis=0) - slow.std(axis=0)) < 3 * np.sqrt(4 / N_REPEAT) * slow.std(axis=0) + 1e-12)
    if r_feedback_ohm == 20e3:
        assert min(stats.ks_2samp(f, s).pvalue for f, s in zip(fast.T, slow.T, strict=True)) > 1e-4


def test_converters_do_clip_in_that_comparison() -> None:
    bits = np.ones(40, np.bool_)
    clipped = repeats(settings(tia={"r_feedback_ohm": 400e3}), single_ended_tile(40, 24), bits, 50)
    free = repeats(settings(), single_ended_tile(40, 24), bits, 50)
    assert clipped.max() < 0.9 * free.mean()


def test_a_silent_sample_takes_no_phase_and_has_no_noise() -> None:
    for fidelity in ("statistical", "conversion"):
        nothing = np.zeros(40, np.bool_)
        assert not repeats(settings(fidelity=fidelity), differential_tile(40, 12), nothing, 20).any()


def test_one_fold_serves_zero_volts_too() -> None:
    """At 0 V only offsets drive a current; a calibration looks at it."""
    chosen = settings(dac={"enabled": False}, adc={"enabled": False}, **QUIET)
    tile, bits = single_ended_tile(40, 24), np.eye(40, dtype=np.bool_)[:8]
    backend = SimBackend(chosen, seed=3)
    with open_session(backend) as session:
        measured_a = session.vmm(bits, tile, 0.0)
        expected_a = emulated_a(backend._open_chip(), tile, bits.astype(float), 1e-300, "independent", True)
        assert session.telemetry().values["vmm_by_conversion_count"] == 0
    assert np.abs(expected_a).max() > 1e-9
    np.testing.assert_allclose(measured_a, expected_a, rtol=1e-5)


def test_results_depend_neither_on_threads_nor_on_the_rest_of_the_batch() -> None:
    import numba
    import torch

    tile, bits = differential_tile(40, 12), np.random.default_rng(5).random((300, 40)) < 0.2
    before, found = numba.get_num_threads(), []
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            for x in (bits, bits.astype(np.uint8), PackedSpikes.pack(bits), torch.from_numpy(bits.astype(np.float32))):
                with open_session(SimBackend(settings(), seed=9)) as session:
                    found.append(np.asarray(session.vmm(x, tile, 0.2)))
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])
    with open_session(SimBackend(settings(adc={"enabled": False}, **QUIET), seed=9)) as session:
        whole = session.vmm(bits, tile, 0.2)
        alone = [session.vmm(bits[k : k + 1], tile, 0.2)[0] for k in (0, 70, 299)]
    assert np.array_equal(whole[[0, 70, 299]], alone)


@pytest.mark.parametrize(("selects", "inhibit"), WIRINGS)
def test_a_cell_read_alone_shows_what_the_board_shows(selects: str, inhibit: bool) -> None:
    """Zero codes were taken with all word lines off, so that offsets of DAC and amplifier are part of the current."""
    effects = {**QUIET, "tia": {"offset_sigma_v": 5e-3}, "dac": {"enabled": False}, "adc": {"gain_sigma": 0.0}}
    _, _, emulator = emulate(tree(selects, inhibit, 24, 16), seed=5, **effects)
    chosen = SimSettings.model_validate(
        {"rows": 24, "cols": 16, "mux": {"selects": selects, "inhibit": inhibit}, **effects}
    )
    mask = np.zeros((24, 16), np.bool_)
    mask[[3, 3, 9, 17], [0, 5, 5, 15]] = True
    with open_session(emulator) as session:
        measured_a = session.read(mask, 0.2, n_average=400)
    with open_session(SimBackend(chosen, seed=5)) as session:
        simulated_a = session.read(mask, 0.2, n_average=400)
    lsb_a = 2 * 0.9 / 2**14 / 20e3
    np.testing.assert_allclose(simulated_a, measured_a, atol=0.7 * lsb_a)


@pytest.mark.parametrize(("selects", "inhibit"), [*WIRINGS, ("common", False)])
def test_unusable_rows_carry_nothing(selects: str, inhibit: bool) -> None:
    off: dict[str, Any] = {part: {"enabled": False} for part in ("dac", "tia", "adc")}
    chosen = settings(selects, inhibit, faults={"line_open": 0.3}, **off, **QUIET)
    backend, tile = SimBackend(chosen, seed=1), single_ended_tile(40, 24)
    with open_session(backend) as session:
        alone = session.vmm(np.eye(40, dtype=np.bool_), tile, 0.2)
        faults = backend._open_chip().faults
    assert faults.open_rows.any()
    assert faults.open_cols.any()
    assert np.abs(alone[faults.open_rows]).max() < 1e-15
    assert np.abs(alone[:, faults.open_cols]).max() < 1e-15
    assert np.abs(alone[~faults.open_rows][:, ~faults.open_cols]).min() > 1e-9
