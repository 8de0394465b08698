"""Parts are measured in their order, saved one by one, and dropped when what they rest on is measured anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from boards import emulate

from calibration import run
from calibration.procedure import CalibrationBench
from firmware_bridge.board_backend import BoardBackend
from hil.calibration_file import PARTS, UNKNOWN_SERIAL, Calibration, Part, Quantity
from hil.errors import CalibrationError, ConfigError, DeviceError
from hil.session import open_session


def test_every_part_of_a_file_has_a_procedure_in_the_same_order() -> None:
    assert tuple(run.STEPS) == PARTS
    for number, name in enumerate(PARTS):
        assert set(run.STEPS[name].needs) <= set(PARTS[:number])
    assert set(run.ALL) == set(PARTS) - {"gate"}, "what wears cells is asked for by name"


def test_parts_come_in_order_whatever_order_they_are_asked_for() -> None:
    assert run.plan(["array", "zero", "noise", "tia", "dac", "line"], (), again=False) == list(run.ALL)


def test_parts_that_are_there_are_skipped_unless_asked_for_again() -> None:
    assert run.plan(run.ALL, ("zero", "dac"), again=False) == ["tia", "line", "noise", "array"]
    assert run.plan(["zero"], run.ALL, again=False) == []
    assert run.plan(["zero"], run.ALL, again=True) == ["zero"]


@pytest.mark.parametrize(
    ("name", "have", "missing"),
    [
        ("line", ["zero", "dac"], "tia would"),
        ("line", ["zero"], "dac and tia would"),
        ("array", [], "zero, dac, tia, line and noise would"),
    ],
)
def test_a_missing_prerequisite_is_named_with_its_command(name: str, have: list[str], missing: str) -> None:
    with pytest.raises(CalibrationError, match=f"part {name} needs what {missing}") as error:
        run.plan([name], have, again=False)
    assert "hil calibrate all" in str(error.value)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """Procedures that take note of when they ran and of what was known then."""
    ran: list[tuple[str, tuple[str, ...]]] = []

    def procedure(name: str):
        def measure(bench: CalibrationBench, wishes: run.Wishes) -> Part:
            ran.append((name, tuple(bench.known.parts)))
            if name == "line" and bench.seed == 13:
                raise DeviceError("the board is gone", fix="none")
            return Part(name, {"row_ohm": Quantity.of(len(ran))})

        return measure

    monkeypatch.setattr(run, "STEPS", {n: replace(step, measure=procedure(n)) for n, step in run.STEPS.items()})
    return ran


def test_each_part_is_saved_before_the_next_begins(lay, steps) -> None:
    laid, saved = lay(), []
    laid.bench.seed = 13
    with pytest.raises(DeviceError):
        run.measure_parts(laid.bench, run.ALL, saved.append)
    assert [tuple(known.parts) for known in saved] == [("zero",), ("zero", "dac"), ("zero", "dac", "tia")]
    laid.bench.seed = 0
    left = run.plan(run.ALL, saved[-1].parts, again=False)
    whole = run.measure_parts(laid.bench, left, saved.append)
    assert tuple(whole.parts) == run.ALL
    assert whole is saved[-1]
    assert all(part.measured_unix_s > 1.7e9 for part in whole.parts.values())


def test_a_part_that_is_measured_anew_takes_along_what_rests_on_it(lay, steps) -> None:
    laid, saved = lay(), []
    whole: Calibration = run.measure_parts(laid.bench, run.ALL, saved.append)
    laid.bench.known = whole.with_validation({"verdict": True})
    again = run.measure_parts(laid.bench, ["line"], saved.append)
    assert set(again.parts) == {"zero", "dac", "tia", "line", "noise"}, "the array was fitted with the old resistances"
    assert again.validation is None
    assert again.calibration_id != whole.calibration_id


def test_a_part_that_changes_cells_drops_what_was_known_of_them_before_it_begins(lay, steps, monkeypatch) -> None:
    laid, saved = lay(), []
    run.measure_parts(laid.bench, run.ALL, saved.append)

    def stopped(bench: CalibrationBench, wishes: run.Wishes) -> Part:
        raise DeviceError("stopped in mid-pulse", fix="none")

    monkeypatch.setitem(run.STEPS, "gate", replace(run.STEPS["gate"], measure=stopped))
    with pytest.raises(DeviceError):
        run.measure_parts(laid.bench, ["gate"], saved.append)
    assert "array" not in saved[-1].parts
    assert "noise" in saved[-1].parts
    monkeypatch.setitem(run.STEPS, "gate", replace(run.STEPS["gate"], measure=lambda bench, wishes: Part("gate", {})))
    run.measure_parts(laid.bench, ["gate", "array"], saved.append)
    assert set(saved[-1].parts) == set(PARTS), "the array can be measured again without wearing it again"


def test_part_gate_wears_only_cells_that_were_named(lay) -> None:
    laid = lay()
    laid.bench.known = laid.bench.known.with_part(Part("array", {}))
    with pytest.raises(ConfigError, match="--region"):
        run.measure_parts(laid.bench, ["gate"], lambda known: None)


def test_a_board_with_a_calibration_applied_is_refused_since_its_errors_do_not_show() -> None:
    board, fabric, _ = emulate()
    identity = {"board_serial": "board-1"}
    with open_session(BoardBackend(fabric, board.profile, identity=identity)) as session:
        known = run.new_calibration(session, seed=0)
    backend = BoardBackend(fabric, board.profile, calibration=known, identity=identity)
    with open_session(backend) as session, pytest.raises(CalibrationError, match=known.calibration_id):
        run.new_calibration(session, seed=0)


def test_a_board_that_does_not_tell_its_serial_number_is_refused() -> None:
    board, fabric, _ = emulate()
    backend = BoardBackend(fabric, board.profile, identity={"board_serial": UNKNOWN_SERIAL})
    with open_session(backend) as session, pytest.raises(CalibrationError, match=r"board\.serial"):
        run.new_calibration(session, seed=0)
