"""What pulses and time do to the cells behind an emulated board: the same as to those of the simulator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from firmware_bridge.emulator import emulated_backend
from hil import CrossbarBackend, Pulse, open_session
from hil.session import Session
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

EVERYWHERE = np.ones((8, 8), np.bool_)


def settings(**more: object) -> SimSettings:
    return SimSettings.model_validate({"rows": 8, "cols": 8, "mux": {"width": 2}, **more})


BACKENDS: dict[str, Callable[..., CrossbarBackend]] = {
    "sim": lambda **more: SimBackend(settings(**more), seed=4),
    "emulator": lambda **more: emulated_backend("tiny-8x8", settings(**more), 4),
}


@pytest.fixture(params=sorted(BACKENDS))
def make(request: pytest.FixtureRequest) -> Callable[..., CrossbarBackend]:
    return BACKENDS[request.param]


def read_s(session: Session) -> np.ndarray:
    return (session.read(EVERYWHERE, 0.2, n_average=30) / 0.2).reshape(8, 8)


def test_reset_lowers_and_set_raises_to_what_the_gate_allows(make: Callable[..., CrossbarBackend]) -> None:
    with open_session(make()) as session:
        session.pulse(EVERYWHERE, Pulse("reset", 2.8, 3.5, 1e-6))
        low_s = read_s(session)
        assert np.median(low_s) < 3e-6
        levels_s = []
        for v_gate_v in (1.0, 1.3, 1.6):
            session.pulse(EVERYWHERE, Pulse("set", 2.5, v_gate_v, 1e-6))
            levels_s.append(np.median(read_s(session)))
    assert 1.5 * np.median(low_s) < levels_s[0] < 0.85 * levels_s[1]
    assert levels_s[1] < 0.85 * levels_s[2]


def test_a_stronger_reset_goes_deeper(make: Callable[..., CrossbarBackend]) -> None:
    found_s = []
    for voltage_v in (1.4, 1.8, 2.6):
        with open_session(make()) as session:
            session.pulse(EVERYWHERE, Pulse("reset", voltage_v, 3.5, 1e-6))
            found_s.append(np.median(read_s(session)))
    assert found_s[0] > 1.2 * found_s[1] > 1.5 * found_s[2]


def test_cells_outside_the_mask_stay_as_they_are(make: Callable[..., CrossbarBackend]) -> None:
    mask = np.zeros((8, 8), np.bool_)
    mask[1, 2] = mask[1, 5] = mask[6, 2] = True
    with open_session(make()) as session:
        before_s = read_s(session)
        session.pulse(mask, Pulse("reset", 2.8, 3.5, 1e-6))
        after_s = read_s(session)
    changed = np.abs(after_s - before_s) > 0.3 * before_s
    np.testing.assert_array_equal(changed, mask)


def test_a_closed_gate_keeps_every_pulse_from_the_cells(make: Callable[..., CrossbarBackend]) -> None:
    with open_session(make()) as session:
        before_s = read_s(session)
        for kind in ("set", "reset"):
            session.pulse(EVERYWHERE, Pulse(kind, 3.0, 0.0, 1e-6))  # type: ignore[arg-type]
        np.testing.assert_allclose(read_s(session), before_s, rtol=0.15, atol=0.3e-6)


def test_set_does_not_form_and_reset_does_not_harm_a_pristine_cell(make: Callable[..., CrossbarBackend]) -> None:
    with open_session(make(forming={"formed": False})) as session:
        session.pulse(EVERYWHERE, Pulse("set", 2.0, 1.5, 1e-6))
        session.pulse(EVERYWHERE, Pulse("reset", 2.8, 3.5, 1e-6))
        assert read_s(session).max() < 0.5e-6


def test_the_gate_sets_what_a_cell_conducts_once_formed(make: Callable[..., CrossbarBackend]) -> None:
    found_s = []
    for v_gate_v in (0.9, 1.2, 1.5):
        with open_session(make(forming={"formed": False})) as session:
            session.pulse(EVERYWHERE, Pulse("form", 4.0, v_gate_v, 1e-3))
            found_s.append(read_s(session).mean())
    assert found_s[0] < 0.8 * found_s[1] < 0.7 * found_s[2]


def test_cells_relax_while_time_passes_and_only_then(make: Callable[..., CrossbarBackend]) -> None:
    quiet = {"noise": {"enabled": False}, "telegraph": {"enabled": False}}
    strong = {"spread": (0.05,) * len(SimSettings().relaxation.levels)}
    with open_session(make(relaxation=strong, **quiet)) as session:
        session.pulse(EVERYWHERE, Pulse("set", 2.5, 2.0, 1e-6))
        first_s = read_s(session)
        again_s = read_s(session)
        session.wait(1e5)
        later_s = read_s(session)
    moved, noise = (np.median(np.abs(np.log(found_s / first_s))) for found_s in (later_s, again_s))
    assert moved > 3 * noise
    assert moved > 0.05


def test_both_backends_do_the_same_to_the_same_chip() -> None:
    found_s = {}
    for name, make in BACKENDS.items():
        with open_session(make()) as session:
            session.pulse(EVERYWHERE, Pulse("reset", 2.2, 3.5, 1e-6))
            session.pulse(EVERYWHERE, Pulse("set", 2.5, 1.2, 1e-6))
            found_s[name] = read_s(session)
    # What differs between cells is the same, what differs between pulses is not.
    assert np.corrcoef(found_s["sim"].ravel(), found_s["emulator"].ravel())[0, 1] > 0.6
    assert np.median(found_s["sim"]) == pytest.approx(np.median(found_s["emulator"]), rel=0.05)
