"""Whatever call of the backend fails: the array ends at zero bias, the run says why, and it can be continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_array import FakeArray
from verbs import resume_verb, run_verb

from experiments.array import settings as array_settings
from experiments.array.record import recorded
from hil.errors import DeviceError
from hil.runfile import RunFile, open_run

SHAPE = (4, 4)
MASK = np.ones(SHAPE, np.bool_)

#: verb and settings of runs of a few dozen calls each
RUNS: dict[str, tuple[str, Any]] = {
    "iv read": ("iv", array_settings.IvSettings(n_points=4)),
    "iv switch": ("iv", array_settings.IvSettings(mode="switch", set_start_v=0.6, step_v=1.4, n_loops=2)),
    "noise": ("noise", array_settings.NoiseSettings(n_reads=16, n_cells=0)),
    "retention": ("retention", array_settings.RetentionSettings(first_s=1, last_s=100, per_decade=1)),
    "endurance": ("endurance", array_settings.EnduranceSettings(n_cycles=3, every_until=1, per_decade=2)),
    "read disturb": ("disturb", array_settings.DisturbSettings(count=2500)),
    "half-select": ("disturb", array_settings.DisturbSettings(mode="half-select", count=5, n_aggressors=2)),
    "health": ("health", array_settings.HealthSettings(n_reads=8)),
    "health with stress": ("health", array_settings.HealthSettings(n_reads=8, stress=True)),
}
EVERY_RUN = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many calls each run makes when nothing fails."""
    found: dict[str, int] = {}
    for name, (verb, settings) in RUNS.items():
        array = FakeArray(SHAPE)
        run_verb(tmp_path_factory.mktemp("whole"), array, verb, MASK, settings)
        found[name] = array.calls
    return found


def failed_run(folder: Path, array: FakeArray, name: str) -> Path:
    """The file of a run one of whose calls fails."""
    verb, settings = RUNS[name]
    with pytest.raises(DeviceError, match="fails"):
        run_verb(folder, array, verb, MASK, settings, cells_per_step=8)
    return next(folder.glob("*.h5"))


@EVERY_RUN
def test_a_call_that_fails_ends_the_run_with_its_cause_and_the_array_at_zero_bias(
    name: str, calls: dict[str, int], tmp_path: Path
) -> None:
    # with fewer cells per step there are more calls, of which at least these are hit
    for k in range(1, calls[name] + 1):
        array = FakeArray(SHAPE, fail_at=k)
        path = failed_run(tmp_path / str(k), array, name)
        assert array.is_safe, k
        with open_run(path) as run:
            assert run.status == "failed", k
            assert f"call {k} fails" in run.cause


@EVERY_RUN
def test_a_resumed_run_does_what_is_left_and_no_more(name: str, calls: dict[str, int], tmp_path: Path) -> None:
    verb, settings = RUNS[name]
    whole = run_verb(tmp_path / "whole", FakeArray(SHAPE), verb, MASK, settings)
    wanted = done_by(next((tmp_path / "whole").glob("*.h5")))
    # A cycle of endurance has eight calls: SET, read, RESET, read, each for half of the cells.
    n_phases = 8 if verb == "endurance" else 4
    for k in range(calls[name] // 2, calls[name] // 2 + n_phases):
        array = FakeArray(SHAPE, fail_at=k)
        path = failed_run(tmp_path / str(k), array, name)
        array.fail_at = None
        resumed = resume_verb(path, array, verb, MASK, settings)
        shapes = {key: np.shape(value) for key, value in resumed.results.items()}
        assert shapes == {key: np.shape(value) for key, value in whole.results.items()}, k
        np.testing.assert_array_equal(resumed.mask_ok, whole.mask_ok, err_msg=str(k))
        found = done_by(path)
        assert found.keys() == wanted.keys(), k
        for what, n in wanted.items():
            np.testing.assert_array_equal(found[what], n, err_msg=f"call {k}: {what}")


def done_by(path: Path) -> dict[str, Any]:
    """How many readings of each purpose, and how many confirmed pulses of each kind, each cell had in a run."""
    found: dict[str, Any] = {}
    with open_run(path) as run:
        for record in recorded(run, SHAPE):
            operation = record.operation
            # What nobody confirmed is read and then applied again; waits are as many as it takes.
            if operation.purpose == "uncertain" or operation.status != "done" or operation.verb == "wait":
                continue
            what = f"{operation.verb} {operation.kind} {operation.purpose}"
            cells = record.pulsed if operation.verb == "pulse" else record.read
            found.setdefault(what, np.zeros(SHAPE, int)).ravel()[cells] += 1
    return found


@EVERY_RUN
def test_a_run_of_a_complete_record_asks_nothing_of_the_array(name: str, tmp_path: Path) -> None:
    verb, settings = RUNS[name]
    array = FakeArray(SHAPE)
    whole = run_verb(tmp_path, array, verb, MASK, settings)
    path = _as_if_killed_at_the_end(next(tmp_path.glob("*.h5")))
    calls, reads = array.calls, array.rng.bit_generator.state
    again = resume_verb(path, array, verb, MASK, settings)
    assert array.calls == calls
    assert array.rng.bit_generator.state == reads
    for key, value in whole.results.items():
        np.testing.assert_array_equal(again.results[key], value, err_msg=key)


def _as_if_killed_at_the_end(path: Path) -> Path:
    """A copy of the run's tables without its end."""
    with open_run(path) as done:
        specs = [done.table_spec(name) for name in done.tables if name != "sessions"]
        rows = {spec.name: done.table(spec.name) for spec in specs}
        same = {"config": done.config, "backend": done.backend, "calibration": None, "seed": 0, "software": {}}
    copy = RunFile.create(path.parent / "killed", done.experiment, **same, tables=specs)
    for name, columns in rows.items():
        own = {key: values for key, values in columns.items() if key != "t_unix_s"}
        if len(next(iter(own.values()))):
            copy.append(name, **own)
    copy.close()
    return copy.path
