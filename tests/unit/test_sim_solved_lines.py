"""Tiles on the same lines share what their lines do to the currents, and only while the cells stay as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hil.backend import Pulse
from hil.tile import Tile, differential_tile
from sim_backend import prepared
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

SETTINGS = SimSettings.model_validate(
    {"rows": 32, "cols": 16, **{part: {"enabled": False} for part in ("noise", "adc", "telegraph")}}
)
ROWS = np.random.default_rng(0).permutation(32)
X = np.random.default_rng(1).random((6, 32)) < 0.4


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows of the sets of lines that were solved."""
    found: list[int] = []
    solve = prepared.reduce_to_ports

    def counted(cells_s: np.ndarray, **wires: np.ndarray) -> prepared.Matrix:
        found.append(len(cells_s))
        return solve(cells_s, **wires)  # type: ignore[return-value]

    monkeypatch.setattr(prepared, "reduce_to_ports", counted)
    return found


def opened() -> SimBackend:
    backend = SimBackend(SETTINGS, seed=2)
    backend.open()
    return backend


def test_the_order_in_which_a_tile_names_its_lines_costs_nothing_and_changes_nothing(solved: list[int]) -> None:
    backend = opened()
    straight = backend.vmm(X, Tile(np.arange(32), np.arange(8), np.arange(8, 16)), 0.2)
    shuffled = backend.vmm(X[:, ROWS], Tile(ROWS, np.arange(15, 7, -1), np.arange(7, -1, -1)), 0.2)
    np.testing.assert_allclose(shuffled, -straight[:, ::-1], rtol=1e-4, atol=1e-12)
    assert solved == [32]


@pytest.mark.parametrize(
    "change",
    [
        lambda backend: backend.pulse(np.ones((32, 16), np.bool_), Pulse("reset", 1.5, 2.0, 1e-6)),
        lambda backend: backend.wait(1e6),
        lambda backend: backend.open(),
    ],
    ids=["pulse", "wait", "open"],
)
def test_cells_that_may_have_changed_are_solved_anew(solved: list[int], change: Callable[[SimBackend], object]) -> None:
    backend, tile = opened(), differential_tile(32, 8)
    backend.vmm(X, tile, 0.2)
    change(backend)
    backend.vmm(X, tile, 0.2)
    assert solved == [32, 32]


def test_only_the_last_few_are_kept(solved: list[int]) -> None:
    backend = opened()
    for n_rows in (10, 11, 12, 13, 14, 11, 10):
        backend.vmm(X[:, :n_rows], differential_tile(n_rows, 4), 0.2)
    assert solved == [10, 11, 12, 13, 14, 10]
