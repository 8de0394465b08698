"""The command line, run inside this process where that is enough, and small data for it."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.datasets import Events
from experiments.datasets.nmnist import encode_events
from hil.cli.app import app
from hil.runfile._layout import PNG_SIGNATURE

#: settings that make an experiment take a second
SMALL = [
    text
    for key_value in (
        "data.n_train=100", "data.n_test=30", "data.digits_views=1", "lsm.n_neurons=16", "readout.epochs=2",
        "readout.steps_min=4", "readout.weight_decays=[1e-3]",
    )
    for text in ("--set", key_value)
]  # fmt: skip


class Ran:
    """What a command did."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; NaN and infinity are no JSON."""

        def refuse(constant: str) -> None:
            raise ValueError(constant)

        assert self.code == 0, self.stderr
        assert self.stdout.count("\n") == 1
        found = json.loads(self.stdout, parse_constant=refuse)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def small() -> list[str]:
    return list(SMALL)


@pytest.fixture
def hil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ran]]:
    """Runs `hil ARGUMENTS` in an empty folder; an exception that no one expects fails the test."""
    monkeypatch.chdir(tmp_path)
    # Nobody's own keys and journals.
    monkeypatch.setenv("CROSSBAR_HIL_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: object) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="hil")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    yield run
    for package in ("hil", "drivers", "firmware_bridge", "sim_backend", "calibration", "experiments"):
        logger = logging.getLogger(package)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not rendered, which takes longer than the rest of a small run; a few tests look at them."""
    monkeypatch.setattr("experiments.style.png", lambda made, **options: PNG_SIGNATURE + b"blank")


@pytest.fixture(scope="session")
def nmnist_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive in the layout of N-MNIST: 12 training and 4 test recordings of each digit, random events."""
    path = tmp_path_factory.mktemp("nmnist") / "nmnist.tar.gz"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as archive:
        for split, n_each in (("Train", 12), ("Test", 4)):
            for digit in range(10):
                for number in range(n_each):
                    x, y = rng.integers(0, 34, (2, 2000))
                    t_us = np.sort(rng.integers(0, 300_000, 2000))
                    content = encode_events(Events(x=x, y=y, on=rng.random(2000) < 0.5 + 0.04 * digit, t_us=t_us))
                    member = tarfile.TarInfo(f"{split}/{digit}/{number:05}.bin")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return path
