"""What every backend must do. A new backend joins by one entry in BACKENDS; any other, a board too, by an option:

python -m pytest tests/conformance --backend emulator --set board.profile=my-board.toml

It must have 8 rows and 8 columns at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from boards import INDEPENDENT, common, emulate
from daemons import shared_daemon

from firmware_bridge.remote_backend import RemoteBackend
from hil import (
    CrossbarBackend,
    PackedSpikes,
    Pulse,
    Session,
    Tile,
    differential_tile,
    open_session,
    single_ended_tile,
)
from hil.cli.settings import load_settings
from hil.errors import HilError, LimitError
from hil.factory import create_backend
from hil.tiled import TiledBackend
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings


def _sim(**changes: object) -> Callable[[], CrossbarBackend]:
    return lambda: SimBackend(SimSettings.model_validate({"rows": 24, "cols": 16, **changes}), seed=17)


def _tiled(n_macros: int) -> Callable[[], CrossbarBackend]:
    settings = SimSettings(rows=12, cols=8)
    return lambda: TiledBackend([SimBackend(settings, seed=17 + k) for k in range(n_macros)], 2, 2, seed=17)


BACKENDS: dict[str, Callable[[], CrossbarBackend]] = {
    "sim-statistical": _sim(),
    "sim-conversion": _sim(fidelity="conversion"),
    "sim-isolated-rows": _sim(mux={"idle_rows": "isolated"}),
    "sim-ideal": _sim(ideal=True),
    "tiled": _tiled(4),
    "tiled-multiplexed": _tiled(2),
    "emulator-independent": lambda: emulate(INDEPENDENT)[2],
    "emulator-common": lambda: emulate(common())[2],
    "remote-tcp": lambda: RemoteBackend(shared_daemon("tcp")),
    "remote-serial": lambda: RemoteBackend(shared_daemon("serial")),
    # the daemon of an environment without numba, torch, matplotlib and scikit-learn
    "remote-light": lambda: RemoteBackend(shared_daemon("light")),
}
V_READ_V = 0.2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "make" in metafunc.fixturenames:
        makers = dict(BACKENDS)
        if name := metafunc.config.getoption("--backend"):
            settings = load_settings(None, metafunc.config.getoption("--set"))
            makers[name] = lambda: create_backend(name, settings, seed=17)
        metafunc.parametrize("make", makers.values(), ids=makers)


def test_another_backend_can_join(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--backend") is None:
        pytest.skip("no board or other backend named with --backend")


@pytest.fixture
def session(make: Callable[[], CrossbarBackend]) -> Iterator[Session]:
    with open_session(make()) as opened:
        yield opened


@pytest.fixture
def tile(session: Session) -> Tile:
    rows, cols = session.info.shape
    return differential_tile(min(rows, 20), min(cols // 2, 6))


@pytest.fixture
def columns(session: Session) -> Tile:
    """A single-ended tile."""
    rows, cols = session.info.shape
    return single_ended_tile(min(rows, 20), min(cols, 8))


def mean_of(session: Session, bits: np.ndarray, tile: Tile, n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error of n VMMs with one row vector."""
    found = session.vmm(np.repeat(bits[None], n, axis=0), tile, V_READ_V).astype(float)
    return found.mean(axis=0), found.std(axis=0) / np.sqrt(n)


def test_info_is_complete_before_open(make: Callable[[], CrossbarBackend]) -> None:
    info = make().info
    assert info.name
    assert min(info.shape) > 0
    assert info.identity
    assert 0 < V_READ_V <= info.limits.v_read_max_v <= info.limits.v_pulse_max_v


def test_vmm_gives_amperes_of_the_right_shape(session: Session, tile: Tile) -> None:
    bits = np.random.default_rng(0).random((5, tile.n_rows)) < 0.4
    out = session.vmm(bits, tile, V_READ_V)
    assert out.shape == (5, tile.n_outputs)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert np.abs(out).max() < 1e-3


def test_out_is_used(session: Session, tile: Tile) -> None:
    out = np.full((2, tile.n_outputs), np.nan, np.float32)
    assert session.vmm(np.ones((2, tile.n_rows), np.bool_), tile, V_READ_V, out=out) is out
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    "wrong",
    [
        np.empty((1, 3), np.float32),
        np.empty((2, 99), np.float32),
        np.empty((2, 3), np.float64),
        np.empty(6, np.float32),
    ],
)
def test_an_out_that_cannot_take_the_result_is_refused(make: Callable[[], CrossbarBackend], wrong: np.ndarray) -> None:
    """By the session, and below it: a kernel would write past the end."""
    backend = make()
    with open_session(backend) as session:
        for target in (session, backend):
            with pytest.raises(HilError, match="out is"):
                target.vmm(np.ones((2, 8), np.bool_), differential_tile(8, 3), V_READ_V, out=wrong)


def test_an_empty_batch_is_fine(session: Session, tile: Tile) -> None:
    assert session.vmm(np.zeros((0, tile.n_rows), np.bool_), tile, V_READ_V).shape == (0, tile.n_outputs)


def test_no_spikes_no_current(session: Session, tile: Tile) -> None:
    mean, error = mean_of(session, np.zeros(tile.n_rows, np.bool_), tile)
    all_on, _ = mean_of(session, np.ones(tile.n_rows, np.bool_), single_ended_tile(tile.n_rows, 2))
    assert np.all(np.abs(mean) < 6 * error + 1e-3 * all_on.max())


def test_currents_are_positive_from_row_to_column(session: Session, columns: Tile) -> None:
    mean, _ = mean_of(session, np.ones(columns.n_rows, np.bool_), columns)
    assert np.all(mean > 0)


def test_rows_add_up(session: Session, columns: Tile) -> None:
    """Driving two sets of rows together gives the sum of driving each, up to noise and the zero codes."""
    first = np.arange(columns.n_rows) % 2 == 0
    (a, ea), (b, eb), (both, ec) = (
        mean_of(session, x, columns) for x in (first, ~first, np.ones(columns.n_rows, np.bool_))
    )
    assert np.all(np.abs(a + b - both) < 6 * np.sqrt(ea**2 + eb**2 + ec**2) + 1e-3 * both)


def test_a_differential_tile_is_the_difference_of_its_columns(session: Session, tile: Tile) -> None:
    assert tile.minus_cols is not None
    x = np.random.default_rng(1).random(tile.n_rows) < 0.5
    swapped = Tile(tile.rows, tile.minus_cols, tile.plus_cols)
    single = Tile(tile.rows, tile.cols)
    (d, ed), (s, es), (c, ec) = (mean_of(session, x, t) for t in (tile, swapped, single))
    n = tile.n_outputs
    slack = 1e-3 * np.abs(c).max()
    assert np.all(np.abs(d + s) < 6 * np.sqrt(ed**2 + es**2) + slack)
    assert np.all(np.abs(d - (c[:n] - c[n:])) < 6 * np.sqrt(ed**2 + ec[:n] ** 2 + ec[n:] ** 2) + slack)


def test_current_is_proportional_to_the_read_voltage(session: Session, columns: Tile) -> None:
    x = np.ones((200, columns.n_rows), np.bool_)
    half, full = (session.vmm(x, columns, v).astype(float).mean(axis=0) for v in (0.1, 0.2))
    np.testing.assert_allclose(2 * half, full, rtol=0.02)


def test_row_formats_are_equivalent(session: Session, tile: Tile) -> None:
    bits = np.random.default_rng(2).random((200, tile.n_rows)) < 0.4
    bits[:] = bits[0]
    found = [
        session.vmm(x, tile, V_READ_V).astype(float) for x in (bits, bits.astype(np.uint8), PackedSpikes.pack(bits))
    ]
    for other in found[1:]:
        error = np.sqrt((found[0].var(axis=0) + other.var(axis=0)) / 200)
        assert np.all(np.abs(found[0].mean(axis=0) - other.mean(axis=0)) < 6 * error + 1e-12)


def test_single_reads_agree_with_a_vmm_of_one_row_on_one_column(session: Session, columns: Tile) -> None:
    mask = np.zeros(session.info.shape, np.bool_)
    mask[7, 4] = True
    read_a = session.read(mask, V_READ_V, n_average=400)
    bits = np.zeros(columns.n_rows, np.bool_)
    bits[7] = True
    tile = Tile(columns.rows, np.array([4]))
    vmm_a, error = mean_of(session, bits, tile, 400)
    assert read_a.shape == (1,)
    # a lone column still has its other rows attached: a few percent at most on a small array
    assert read_a[0] == pytest.approx(vmm_a[0], rel=0.03, abs=6 * error[0])


def test_reads_come_in_row_major_order(session: Session) -> None:
    mask = np.zeros(session.info.shape, np.bool_)
    mask[2, 3] = mask[2, 7] = mask[5, 1] = True
    together = session.read(mask, V_READ_V, n_average=200)
    for k, (row, col) in enumerate([(2, 3), (2, 7), (5, 1)]):
        alone = np.zeros_like(mask)
        alone[row, col] = True
        assert together[k] == pytest.approx(session.read(alone, V_READ_V, n_average=200)[0], rel=0.03)


def test_time_passes_for_the_cells(session: Session) -> None:
    before_s = session.now_s()
    session.wait(0.02)
    assert session.now_s() - before_s >= 0.02
    before_s = session.now_s()
    session.wait(1e-9)
    assert session.now_s() > before_s, "a wait that moves no clock is waited for without end"
    for wrong in (-1.0, float("nan"), 1e9):
        with pytest.raises(LimitError, match="wait"):
            session.wait(wrong)


def test_both_polarities_give_the_same_conductance(session: Session) -> None:
    mask = np.zeros(session.info.shape, np.bool_)
    mask[3:6, 2:5] = True
    if not session.info.capabilities.bipolar_read:
        with pytest.raises(LimitError, match="read voltage"):
            session.read(mask, -V_READ_V)
        return
    plus, minus, zero = (session.read(mask, v, n_average=100) for v in (V_READ_V, -V_READ_V, 0.0))
    np.testing.assert_allclose(plus - zero, zero - minus, rtol=0.05)
    assert np.all(np.abs(zero) < 0.02 * plus)


def test_make_safe_can_be_called_any_time(session: Session, tile: Tile) -> None:
    session.make_safe()
    session.vmm(np.ones((1, tile.n_rows), np.bool_), tile, V_READ_V)
    session.make_safe()
    session.make_safe()
    assert np.isfinite(session.vmm(np.ones((1, tile.n_rows), np.bool_), tile, V_READ_V)).all()


def test_pulses_that_it_has_can_be_applied_and_others_are_refused(session: Session) -> None:
    mask = np.zeros(session.info.shape, np.bool_)
    mask[1, 1] = True
    limits = session.info.limits
    for kind in ("form", "set", "reset"):
        pulse = Pulse(kind, 0.5 * limits.v_pulse_max_v, 0.2 * limits.v_gate_max_v, 1e-2 * limits.pulse_width_max_s)  # type: ignore[arg-type]
        if kind in session.info.capabilities.pulse_kinds:
            assert session.pulse(mask, pulse).n_cells == 1
        else:
            with pytest.raises(HilError, match=kind):
                session.pulse(mask, pulse)


def test_a_closed_backend_says_so(make: Callable[[], CrossbarBackend]) -> None:
    backend = make()
    with pytest.raises(HilError, match="not open"):
        backend.vmm(np.ones((1, 4), np.bool_), single_ended_tile(4, 2), V_READ_V)
    with open_session(backend):
        pass
    backend.close()
    with pytest.raises(HilError, match="not open"):
        backend.read(np.zeros(backend.info.shape, np.bool_), V_READ_V)


def test_it_can_be_opened_again(make: Callable[[], CrossbarBackend]) -> None:
    backend = make()
    for _ in range(2):
        with open_session(backend) as session:
            session.vmm(np.ones((1, 4), np.bool_), single_ended_tile(4, 2), V_READ_V)


def test_telemetry_counts(session: Session, tile: Tile) -> None:
    before = dict(session.telemetry().values)
    session.vmm(np.ones((3, tile.n_rows), np.bool_), tile, V_READ_V)
    after = session.telemetry().values
    assert after["vmm_count"] - before["vmm_count"] == 3
    assert all(np.isfinite(v) for v in after.values())
