"""A simulated chip that is kept in a file: what one session did, the next one finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.emulator import emulated_backend
from hil import CrossbarBackend, Pulse, open_session
from hil.errors import ConfigError, DataError, DeviceError
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

FORM = Pulse("form", voltage_v=4.0, v_gate_v=1.2, width_s=1e-3)


def settings(path: Path, **more: object) -> SimSettings:
    return SimSettings.model_validate(
        {"rows": 8, "cols": 8, "chip": str(path), "forming": {"formed": False}, "mux": {"width": 2}, **more}
    )


def sim(path: Path, seed: int = 1, **more: object) -> SimBackend:
    return SimBackend(settings(path, **more), seed=seed)


def emulator(path: Path) -> CrossbarBackend:
    return emulated_backend("tiny-8x8", settings(path), 1)


def half() -> np.ndarray:
    mask = np.zeros((8, 8), np.bool_)
    mask[:4] = True
    return mask


def read_s(backend: CrossbarBackend) -> np.ndarray:
    with open_session(backend) as session:
        return (session.read(np.ones((8, 8), np.bool_), 0.2, n_average=50) / 0.2).reshape(8, 8)


@pytest.mark.parametrize("make", [sim, emulator])
def test_what_is_formed_in_one_session_is_formed_in_the_next(make: type, tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    with open_session(make(path)) as session:
        session.pulse(half(), FORM)
        session.wait(100.0)
    found_s = read_s(make(path))
    assert (found_s[:4] > 1e-6).all()
    assert (found_s[4:] < 1e-6).all()
    with open_session(make(path)) as session:
        assert session.now_s() > 100.0


def test_simulator_and_emulated_board_share_a_chip(tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    with open_session(sim(path)) as session:
        session.pulse(half(), FORM)
    np.testing.assert_allclose(read_s(emulator(path)), read_s(sim(path)), rtol=0.1, atol=0.3e-6)


def test_how_a_chip_began_is_asked_of_a_new_file_only(tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    with open_session(sim(path)) as session:
        session.pulse(half(), FORM)
    assert ((read_s(sim(path, forming={"formed": True})) > 1e-6) == half()).all()


def test_noise_goes_on_from_session_to_session(tmp_path: Path) -> None:
    first, second = (read_s(sim(tmp_path / "one.chip", forming={"formed": True})) for _ in range(2))
    assert (first != second).any()


def test_a_killed_process_takes_no_pulse_back(tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    script = f"""
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, *{sys.path!r}]
from test_chip_file import *
session = open_session(sim(Path({str(path)!r}))).__enter__()
session.pulse(half(), FORM)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script])
    assert ended.returncode == -signal.SIGKILL
    assert ((read_s(sim(path)) > 1e-6) == half()).all()


def test_two_sessions_cannot_have_one_chip(tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    with open_session(sim(path)), pytest.raises(DeviceError, match="in use"):
        sim(path).open()


def test_another_chip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    with open_session(sim(path)):
        pass
    for other, text in (
        (sim(path, seed=2), "seed"),
        (sim(path, rows=16), "rows"),
        (sim(path, forming={"formed": False, "mean_s": 10e-6}), "mean_s"),
    ):
        with pytest.raises(ConfigError, match=text):
            other.open()


@pytest.mark.parametrize("content", [b"", b"x" * 9000, b'{"format": 1}' + bytes(9000), b"[]" + bytes(9000)])
def test_a_foreign_file_is_refused_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not the file of a simulated chip"):
        sim(path).open()
    assert path.read_bytes() == content


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.chip"
    with open_session(sim(path)):
        pass
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(DataError, match="damaged"):
        sim(path).open()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"sim\.chip"):
        sim(tmp_path / "file" / "one.chip").open()
