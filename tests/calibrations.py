"""A board that was calibrated once, for the tests that need a calibration and not the measuring of it."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from unittest import mock

from boards import INDEPENDENT, as_toml
from typer.testing import CliRunner

from calibration import noise
from hil.cli.app import app

#: reads enough to tell noise within some percent
QUICK = noise.NoiseOptions(n_cells=64, n_reads=64, n_repeats=32)
#: what `hil` is given so that a network fits on that board: the centre of each frame, and few neurons
NETWORK = [
    text
    for key_value in (
        "board.profile=board.toml", "data.n_train=60", "data.n_test=20", "data.digits_views=1", "data.input_px=4",
        "lsm.n_neurons=6", "readout.epochs=2", "readout.steps_min=4", "readout.weight_decays=[1e-3]",
    )
    for text in ("--set", key_value)
]  # fmt: skip


@functools.cache
def calibrated() -> Path:
    """Folder with board.toml, the calibration of chip seed 7 in runs/calibrations, and result.json of the command."""
    folder = Path(tempfile.mkdtemp(prefix="calibrated-"))
    (folder / "board.toml").write_text(as_toml(INDEPENDENT))
    arguments = ["calibrate", "all", "--chip-seed", "7", "--json", "--out", str(folder / "runs")]
    arguments += ["--set", f"board.profile={folder / 'board.toml'}"]
    with mock.patch("calibration.noise.measure", functools.partial(noise.measure, options=QUICK)):
        ran = CliRunner().invoke(app, arguments, prog_name="hil")
    assert ran.exit_code == 0, ran.stderr
    (folder / "result.json").write_text(ran.stdout)
    return folder
