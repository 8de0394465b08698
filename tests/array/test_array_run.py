"""A run whatever happens: an error at any call, a kill, a resume, another board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cells import LIMITS, FakeCells, fail_at

from experiments.array import procedures
from experiments.array.history import History
from experiments.array.outcome import Outcome
from experiments.array.procedures import PROCEDURES
from experiments.array.record import Request
from experiments.array.run import Job, check_resumable, execute, resume, start
from experiments.array.settings import ArraySettings
from hil.errors import ConfigError, DeviceError, HilError, LimitError, RunFileError, TransportError
from hil.runfile import open_run
from hil.runfile._disk import Disk, NoSpaceError

SHAPE = (2, 3)
ALL = np.ones(SHAPE, np.bool_)
TARGET_S = np.linspace(5e-6, 20e-6, 6, dtype=np.float32).reshape(SHAPE)
#: settings that make runs short, and in several steps
SETTINGS: dict[str, dict[str, Any]] = {
    "read": {},
    "form": {},
    "form ramp": {"form": {"mode": "ramp", "v_start_v": 3.4, "v_step_v": 0.3}},
    "form sparsity": {"form": {"mode": "sparsity", "v_start_v": 3.2, "v_step_v": 0.2, "v_step_min_v": 0.1}},
    "set": {"set": {"n_pulses": 2}},
    "program": {
        "program": {"tolerance_s": 8e-6, "pulses_per_cell_max": 4, "grid_v": 0.3, "final_passes": 1, "final_reads": 2}
    },
}
EVERY = pytest.mark.parametrize("name", SETTINGS)
ERRORS = (RuntimeError("boom"), TransportError("the link broke", fix="mend it"))


def fake(name: str, **options: Any) -> FakeCells:
    return FakeCells(SHAPE, formed=not name.startswith("form"), **options)


def job(name: str, cells: FakeCells, **changes: Any) -> Job:
    procedure = PROCEDURES[name.split()[0]]
    request = Request(ALL, TARGET_S) if procedure.has_target else procedures.no_target(ALL)
    array = ArraySettings.model_validate({"cells_per_step": 3, **SETTINGS[name]})
    return Job(procedure, request, array, changes.pop("limits", cells.info.limits))


def run(folder: Path, name: str, cells: FakeCells) -> Path:
    """Run it to whatever end."""
    wanted = job(name, cells)
    wanted.plan(cells.info)
    run_file = start(folder, wanted, cells.info, cells.info.identity, 0, {})
    execute(wanted, cells, run_file)
    return run_file.path


def go_on(path: Path, name: str, cells: FakeCells, **changes: Any) -> None:
    wanted = job(name, cells, **changes)
    run_file, history = resume(path, wanted, cells.info, cells.info.identity)
    execute(wanted, cells, run_file, history)


def calls_of(tmp_path: Path, name: str) -> int:
    cells = fake(name)
    run(tmp_path / "whole", name, cells)
    return cells.calls


@EVERY
def test_results_of_a_complete_run(tmp_path: Path, name: str) -> None:
    cells = fake(name)
    with open_run(run(tmp_path, name, cells)) as reader:
        assert reader.status == "complete"
        found = reader.results
        history = History.from_run(reader, SHAPE)
        assert reader.config["verb"] == name.split()[0]
        assert set(reader.config["array"]) == {"cells_per_step", "read", reader.config["verb"]}
    np.testing.assert_array_equal(found["conductance_s"], history.last_conductance_s)
    np.testing.assert_array_equal(found["pulse_count"], sum(cells.pulsed.values()))
    np.testing.assert_array_equal(found["mask_in"], ALL)
    assert found["mask_ok"].dtype == np.bool_
    assert found["faults"].dtype == np.uint8
    assert found["summary"]


@EVERY
def test_an_error_at_any_call_ends_at_zero_bias_and_the_run_goes_on_from_there(tmp_path: Path, name: str) -> None:
    for number in range(1, calls_of(tmp_path, name) + 1):
        # Each kind of error, before and after the cells changed.
        error, applied = ERRORS[number % 2], number // 2 % 2 == 1
        cells = fake(name, fail=fail_at(number, error, applied=applied))
        folder = tmp_path / f"{number}"
        with pytest.raises(type(error)):
            run(folder, name, cells)
        assert cells.bias_v == 0.0
        (path,) = folder.glob("*.h5")
        with open_run(path) as reader:
            assert reader.status == "failed"
            assert str(error) in reader.cause
            history = History.from_run(reader, SHAPE)
        given = sum(cells.pulsed.values())
        # What the array got is in the file; what is in the file and was not given is uncertain.
        assert (history.pulse_count >= given).all()
        extra = history.pulse_count > given
        assert history.uncertain[extra].all()
        if number % 3:  # of each kind of error at each kind of call some go on
            continue
        cells.fail = lambda call, done: None
        go_on(path, name, cells)
        with open_run(path) as reader:
            assert reader.status == "complete"
            assert reader.results["mask_ok"].sum() >= (3 if "sparsity" in name else 5)
        assert not cells.formed_again.any()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stopped_run_is_aborted_and_goes_on(tmp_path: Path, stop: type[BaseException]) -> None:
    cells = fake("form", fail=fail_at(3, stop(), applied=False))
    with pytest.raises(stop):
        run(tmp_path, "form", cells)
    (path,) = tmp_path.glob("*.h5")
    with open_run(path) as reader:
        assert reader.status == "aborted"
    cells.fail = lambda call, done: None
    go_on(path, "form", cells)
    assert cells.is_formed.all()
    assert not cells.formed_again.any()


def test_a_resumed_run_does_not_repeat_what_is_done(tmp_path: Path) -> None:
    cells = fake("form", fail=fail_at(5, RuntimeError("boom"), applied=False))
    with pytest.raises(RuntimeError):
        run(tmp_path, "form", cells)
    (path,) = tmp_path.glob("*.h5")
    cells.fail = lambda call, done: None
    go_on(path, "form", cells)
    assert (cells.pulsed["form"] == 1).all()
    with open_run(path) as reader:
        assert (reader.results["pulse_count"][:1] == 1).all()
        operations = reader.table("operations")["op"]
    np.testing.assert_array_equal(operations, np.arange(len(operations)))


def test_a_cell_that_did_not_form_has_no_second_pulse_after_a_resume(tmp_path: Path) -> None:
    cells = fake("form", fail=fail_at(4, RuntimeError("boom"), applied=False))
    cells.stuck[0, 0] = True
    with pytest.raises(RuntimeError):
        run(tmp_path, "form", cells)
    cells.fail = lambda call, done: None
    go_on(next(tmp_path.glob("*.h5")), "form", cells)
    assert (cells.pulsed["form"] == 1).all()


def test_uncertain_cells_are_read_before_anything_else(tmp_path: Path) -> None:
    cells = fake("form", fail=fail_at(2, RuntimeError("boom"), applied=True))
    with pytest.raises(RuntimeError):
        run(tmp_path, "form", cells)
    (path,) = tmp_path.glob("*.h5")
    cells.fail = lambda call, done: None
    go_on(path, "form", cells)
    with open_run(path) as reader:
        operations = reader.table("operations")
    assert operations["purpose"][2] == "uncertain"
    assert (cells.pulsed["form"] == 1).all()


def interrupted(tmp_path: Path, **options: Any) -> tuple[Path, FakeCells]:
    cells = fake("form", fail=fail_at(3, RuntimeError("boom"), applied=False), **options)
    with pytest.raises(RuntimeError):
        run(tmp_path, "form", cells)
    cells.fail = lambda call, done: None
    return next(tmp_path.glob("*.h5")), cells


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"identity": "fake 2"}, r"backend.chip = 'fake 1' and would go on with 'fake 2': another array"),
        ({"calibration": "cal-7"}, "calibration = None"),
        ({"limits": replace(LIMITS, v_pulse_max_v=4.5)}, r"limits.v_pulse_max_v = 5.0 and would go on with 4.5"),
    ],
)
def test_another_board_or_other_limits_are_refused_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path, _ = interrupted(tmp_path)
    before = path.read_bytes()
    other = fake("form", **change)
    with pytest.raises(ConfigError, match=words):
        go_on(path, "form", other)
    assert other.calls == 0
    assert path.read_bytes() == before


def test_tighter_limits_of_the_session_are_other_limits(tmp_path: Path) -> None:
    path, cells = interrupted(tmp_path)
    with pytest.raises(ConfigError, match=r"limits\.v_pulse_max_v"):
        go_on(path, "form", cells, limits=replace(LIMITS, v_pulse_max_v=4.5))


def test_another_verb_and_a_complete_run_are_refused(tmp_path: Path) -> None:
    path, cells = interrupted(tmp_path)
    with open_run(path) as reader, pytest.raises(ConfigError, match="is a run of array-form, not of array-read"):
        check_resumable(reader, "read")
    go_on(path, "form", cells)
    with open_run(path) as reader, pytest.raises(RunFileError, match="is complete"):
        check_resumable(reader, "form")


def test_what_is_over_a_limit_makes_no_file(tmp_path: Path) -> None:
    cells = fake("form")
    wanted = job("form", cells, limits=replace(LIMITS, v_pulse_max_v=3.9))
    with pytest.raises(LimitError, match=r"form voltage 4 V is outside 0 to 3.9 V"):
        wanted.plan(cells.info)
    wanted = job("form", cells, limits=replace(LIMITS, v_read_max_v=0.1))
    with pytest.raises(LimitError, match="read voltage"):
        wanted.plan(cells.info)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_stops_before_the_pulse_that_it_could_not_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = fake("form")

    def full(self: object, size_bytes: int) -> None:
        if cells.calls >= 1:
            raise NoSpaceError(28, "No space left on device")

    monkeypatch.setattr("hil.runfile._disk.Disk.reserve", full)
    with pytest.raises(HilError, match="No space left"):
        run(tmp_path, "form", cells)
    assert not cells.pulsed["form"].any()
    assert cells.bias_v == 0.0


def space_for(monkeypatch: pytest.MonkeyPatch, n: int) -> list[bool]:
    """The disk is full from reservation n on, until the first entry of what is returned is cleared."""
    full, calls, reserve = [True], [0], Disk.reserve

    def reserve_or_not(disk: Disk, size_bytes: int) -> None:
        calls[0] += full[0]
        if full[0] and calls[0] > n:
            raise NoSpaceError(28, "No space left on device")
        reserve(disk, size_bytes)

    monkeypatch.setattr(Disk, "reserve", reserve_or_not)
    return full


def test_a_disk_that_fills_up_anywhere_loses_no_pulse_and_the_run_goes_on_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a pulse, after one, with readings, at the end."""
    for n in range(100):
        cells, folder = fake("form"), tmp_path / f"{n}"
        with monkeypatch.context() as patch:
            full = space_for(patch, n)
            try:
                run(folder, "form", cells)
            except RunFileError as error:
                message = str(error)
            else:
                break
            assert "No space left" in message
            full[0] = False
            assert cells.bias_v == 0.0
            given = sum(cells.pulsed.values())
            if not (found := list(folder.iterdir())):
                assert cells.calls == 0
                continue
            (path,) = found
            with open_run(path) as reader:
                history = History.from_run(reader, SHAPE)
            assert (history.pulse_count >= given).all()
            assert history.uncertain[history.pulse_count > given].all()
            go_on(path, "form", cells)
        with open_run(path) as reader:
            assert reader.status == "complete"
        assert not cells.formed_again.any()
    assert n > 5


def refusing(error: Exception) -> Callable[[], None]:
    def refuse() -> None:
        raise error

    return refuse


def test_a_backend_that_cannot_be_opened_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = fake("form")
    monkeypatch.setattr(cells, "open", refusing(ConfigError("another chip", fix="none")))
    with pytest.raises(ConfigError, match="another chip"):
        run(tmp_path, "form", cells)
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_stays_where_the_backend_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cells = interrupted(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cells, "open", refusing(DeviceError("no answer", fix="none")))
        with pytest.raises(DeviceError):
            go_on(path, "form", cells)
    go_on(path, "form", cells)
    assert (cells.pulsed["form"] == 1).all()


def test_cells_whose_clock_is_behind_the_run_are_not_those_of_the_run(tmp_path: Path) -> None:
    path, _ = interrupted(tmp_path)
    fresh = fake("form")
    with pytest.raises(ConfigError, match=r"clock of the array says 0 s, the newest record of this run 2 s"):
        go_on(path, "form", fresh)
    assert fresh.calls == 0


def test_a_number_that_is_not_finite_does_not_fail_a_run_at_its_end(tmp_path: Path) -> None:
    cells = fake("read")
    wanted = job("read", cells)
    mean = replace(wanted.procedure, run=lambda bench, mask, settings: Outcome(mask, 0 * mask.astype(np.uint8), {
        "mean_s": float("nan"), "cells": 6
    }))  # fmt: skip
    run_file = start(tmp_path, wanted, cells.info, cells.info.identity, 0, {})
    outcome, _ = execute(replace(wanted, procedure=mean), cells, run_file)
    assert outcome.summary == {"cells": 6}


def test_uncertain_cells_that_cannot_be_read_stay_uncertain(tmp_path: Path) -> None:
    cells = fake("form", fail=fail_at(2, RuntimeError("boom"), applied=True))
    with pytest.raises(RuntimeError):
        run(tmp_path, "form", cells)
    (path,) = tmp_path.glob("*.h5")
    cells.fail = fail_at(3, DeviceError("no answer", fix="none"), applied=False)
    with pytest.raises(DeviceError):
        go_on(path, "form", cells)
    with open_run(path) as reader:
        assert History.from_run(reader, SHAPE).uncertain.sum() == 3
    cells.fail = lambda call, done: None
    go_on(path, "form", cells)
    assert (cells.pulsed["form"] == 1).all()


@pytest.mark.parametrize(
    ("name", "settings", "needed"),
    [
        ("set", {"set": {"n_pulses": 501}}, 501),
        ("reset", {"reset": {"n_pulses": 501}}, 501),
        ("iv", {"iv": {"mode": "switch", "step_v": 0.01, "n_loops": 2}}, 2 * (171 + 181)),
        ("endurance", {"endurance": {"n_cycles": 251}}, 502),
        ("disturb", {"disturb": {"mode": "half-select", "count": 501}}, 501),
    ],
)
def test_more_pulses_than_a_cell_may_have_are_refused_before_the_first(
    name: str, settings: dict[str, Any], needed: int
) -> None:
    cells = FakeCells(SHAPE, limits=replace(LIMITS, pulses_per_cell_max=500))
    array = ArraySettings.model_validate(settings)
    with pytest.raises(LimitError, match=f"{needed} pulses on each cell are more than the limit of 500"):
        Job(PROCEDURES[name], procedures.no_target(ALL), array, cells.info.limits).plan(cells.info)


def test_the_usual_read_voltage_is_checked_also_where_a_procedure_has_its_own() -> None:
    cells = FakeCells(SHAPE, limits=replace(LIMITS, v_read_max_v=0.35))
    array = ArraySettings.model_validate({"read": {"v_read_v": 0.4}})
    with pytest.raises(LimitError, match=r"read voltage 0\.4 V"):
        Job(PROCEDURES["disturb"], procedures.no_target(ALL), array, cells.info.limits).plan(cells.info)


def test_the_array_is_at_zero_bias_when_make_safe_is_all_that_works(tmp_path: Path) -> None:
    def fail(call: int, applied: bool) -> None:
        if call > 2:
            raise DeviceError("nothing answers", fix="mend it")

    cells = fake("form", fail=fail)
    with pytest.raises(DeviceError):
        run(tmp_path, "form", cells)
    assert cells.bias_v == 0.0


def test_there_is_a_section_for_every_procedure() -> None:
    check: Callable[[str], bool] = ArraySettings.model_fields.__contains__
    assert all(map(check, PROCEDURES))
    with pytest.raises(ConfigError, match="no procedure 'burn'"):
        procedures.procedure("burn")
