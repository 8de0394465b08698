"""`hil array`: the same commands on any backend, asked before, resumable after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.runfile import RunReader, open_run
from sim_backend.backend import SimBackend

SMALL = ("--set", "sim.rows=8", "--set", "sim.cols=8", "--set", "array.cells_per_step=16")
EMULATOR = ("--backend", "emulator", "--set", "board.profile=tiny-8x8")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and report take far longer than a small run; one test looks at them."""
    monkeypatch.setattr("hil.cli.array._pictures", lambda path: ([], None, None))


UNDRAWN = pytest.mark.usefixtures("no_pictures")


def form(hil: Any, *options: str) -> Any:
    return hil("array", "form", *SMALL, "--yes", *options)


def results(tmp_path: Path, found: dict[str, Any]) -> dict[str, Any]:
    with open_run(tmp_path / found["run_file"]) as reader:
        return reader.results


@UNDRAWN
@pytest.mark.parametrize("backend", [SMALL, EMULATOR], ids=["sim", "emulator"])
def test_form_then_read_then_program_are_about_the_same_cells(hil: Any, tmp_path: Path, backend: Any) -> None:
    formed = hil("array", "form", *backend, "--yes", "--json").json
    assert formed["cells"] == 64
    assert formed["yield"] > 0.95
    read = hil("array", "read", *backend, "--json").json
    assert read["chip_file"] == str(tmp_path / "runs" / "chips" / "seed-0-8x8.chip")
    g, again = (results(tmp_path, found)["conductance_s"] for found in (formed, read))
    assert np.corrcoef(g.ravel(), again.ravel())[0, 1] > 0.95
    np.save(tmp_path / "target.npy", np.full((2, 8), 12e-6))
    wanted = ("--target", "target.npy", "--region", "0:2,:", "--set", "array.program.tolerance_s=2e-6")
    programmed = hil("array", "program", *backend, *wanted, "--yes", "--json").json
    assert programmed["cells"] == 16
    assert programmed["fraction_ok"] > 0.9
    assert programmed["pulses_max"] >= programmed["pulses_median"] > 0
    assert ("board_time_s" in programmed) == (backend is EMULATOR)


def test_the_output_names_what_was_written(hil: Any, tmp_path: Path) -> None:
    ran = form(hil)
    assert ran.code == 0
    for what in ("run file:", "report:", "figure:", "chip file:"):
        path = next(line.split(maxsplit=len(what.split()))[-1] for line in ran.stdout.splitlines() if what in line)
        assert (tmp_path / path).exists()
    assert "yield" in ran.stdout


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_a_dry_run_says_what_would_be_applied_and_touches_nothing(hil: Any, tmp_path: Path, as_json: list[str]) -> None:
    ran = hil("array", "form", "--region", "0:4,0:4", *SMALL, "--dry-run", *as_json)
    assert ran.code == 0
    assert not list(tmp_path.iterdir())
    if as_json:
        assert ran.json["n_cells"] == 16
        assert ran.json["limits"]["v_pulse_max_v"] == 5.0
        assert ran.json["pulses"][0] == {
            "kind": "form", "voltage_v": 4.0, "v_gate_v": 1.2, "width_s": 1e-3, "per_cell": 1
        }  # fmt: skip
    else:
        assert "nothing was applied" in ran.stdout


def test_without_a_terminal_nothing_is_changed_unless_told_so(hil: Any, tmp_path: Path) -> None:
    ran = hil("array", "form", *SMALL)
    assert ran.code == 2
    assert "64 cells of sim (simulated, seed 0)" in ran.stderr
    assert "--yes" in ran.stderr
    assert not list(tmp_path.iterdir())


@UNDRAWN
@pytest.mark.parametrize("answer", [True, False])
def test_a_person_is_asked(hil: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bool) -> None:
    monkeypatch.setattr("hil.cli.array._is_somebody_there", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda text, **options: answer)
    ran = hil("array", "form", *SMALL)
    assert ran.code == (0 if answer else 2)
    assert "at most 1 per cell, 4 V" in ran.stderr
    assert (tmp_path / "runs").exists() == answer


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("read", "--region", "0:9,0"), "rows 0:9 are outside the array, which has 8 rows"),
        (("read", "--region", "x"), "not of the form ROWS,COLS"),
        (("read", "--mask", "missing.npy"), "mask missing.npy cannot be read"),
        (("form", "--set", "array.form.voltage_v=5.5"), "form voltage 5.5 V is outside 0 to 5 V"),
        (("form", "--set", "array.form.width_s=0.5"), "form pulse of 0.5 s"),
        (("form", "--set", "limits.v_pulse_max_v=3.5"), "form voltage 4 V is outside 0 to 3.5 V"),
        (("program",), "needs --target FILE"),
        (("program", "--target", "high.npy"), "64 of 64 targets are outside the reachable range"),
        (("program", "--target", "odd.npy"), "target odd.npy has shape (3, 3)"),
        (("read", *EMULATOR, "--set", "array.read.v_read_v=0.7"), "read voltage 0.7 V is outside 0 to 0.5 V"),
        (("form", "--resume", "missing.h5"), "missing.h5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_refused_by_name_and_nothing_is_made(
    hil: Any, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    np.save(tmp_path / "high.npy", np.full((8, 8), 1e-3))
    np.save(tmp_path / "odd.npy", np.full((3, 3), 1e-5))
    verb, *options = arguments
    small = () if "--resume" in options else SMALL
    ran = hil("array", verb, *small, *options, "--yes")
    assert ran.code in (1, 2)
    assert words in ran.stderr
    assert not (tmp_path / "runs").exists()


class Stops:
    """Replaces `SimBackend.pulse`: raises at one of its calls."""

    def __init__(self, error: BaseException, at: int) -> None:
        self.error, self.at, self.calls = error, at, 0
        self.pulse = SimBackend.pulse

    def __call__(self, backend: SimBackend, mask: Any, pulse: Any) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return self.pulse(backend, mask, pulse)


def cut_off(hil: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> tuple[Any, Path]:
    """A run that ends at the third of four pulses."""
    stops = Stops(error, 3)
    with monkeypatch.context() as patch:
        patch.setattr(SimBackend, "pulse", lambda *arguments: stops(*arguments))
        ran = form(hil, *options) if isinstance(error, KeyboardInterrupt) else None
        if ran is None:
            with pytest.raises(RuntimeError, match="boom"):
                form(hil)
    return ran, next(Path("runs").glob("*.h5"))


@UNDRAWN
def test_ctrl_c_ends_safely_says_how_to_resume_and_the_resumed_run_forms_the_rest(
    hil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, path = cut_off(hil, monkeypatch, KeyboardInterrupt())
    assert ran.code == 130
    assert f"hil array form --resume {path}" in ran.stderr
    assert "the array is at zero bias" in ran.stderr
    with open_run(path) as reader:
        assert reader.status == "aborted"
    found = hil("array", "form", "--resume", path, "--yes", "--json").json
    assert found["resumed"] is True
    assert found["run_file"] == str(path)
    assert found["cells_formed"] == 64
    with open_run(path) as reader:
        assert reader.status == "complete"
        count = reader.results["pulse_count"]
        assert (count.min(), count.max()) == (1, 2)
        # Only cells of the pulse that nobody confirmed have a second one in the records.
        assert (count == 2).sum() == 16


def test_an_error_marks_the_run_failed_with_its_cause(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = cut_off(hil, monkeypatch, RuntimeError("boom"))
    with open_run(path) as reader:
        assert (reader.status, reader.cause) == ("failed", "RuntimeError: boom")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--set", "array.form.voltage_v=3.9"), "began with array.form.voltage_v = 4.0, not 3.9"),
        (("--set", "limits.v_pulse_max_v=4.5"), "began with limits.v_pulse_max_v = 5.0, not 4.5"),
        (("--backend", "emulator"), "began with --backend = sim, not emulator"),
        (("--seed", "4"), "began with --seed = 0, not 4"),
        (("--region", "0:2,0:2"), "began with --region = all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_run_goes_on_as_it_began_or_not_at_all(
    hil: Any, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    _, path = cut_off(hil, monkeypatch, RuntimeError("boom"))
    before = path.read_bytes()
    ran = hil("array", "form", "--resume", path, "--yes", *options)
    assert ran.code == 2
    assert words in ran.stderr
    assert path.read_bytes() == before


@UNDRAWN
def test_another_verb_and_a_complete_run_are_refused(hil: Any) -> None:
    path = form(hil, "--json").json["run_file"]
    assert "is a run of array-form, not of array-read" in hil("array", "read", "--resume", path).stderr
    ran = hil("array", "form", "--resume", path, "--yes")
    assert ran.code == 1
    assert "is complete" in ran.stderr


def test_a_changed_chip_is_another_array(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = cut_off(hil, monkeypatch, RuntimeError("boom"))
    monkeypatch.setattr(
        SimBackend, "info", property(lambda self, info=SimBackend.info.fget: _renamed(info(self)))  # type: ignore[attr-defined]
    )  # fmt: skip
    ran = hil("array", "form", "--resume", path, "--yes")
    assert ran.code == 2
    assert "another array" in ran.stderr


def _renamed(info: Any) -> Any:
    info.identity["chip"] = "another"
    return info


def test_a_chip_that_was_deleted_is_not_taken_for_the_one_of_the_run(
    hil: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, path = cut_off(hil, monkeypatch, RuntimeError("boom"))
    (chip,) = (tmp_path / "runs" / "chips").iterdir()
    chip.unlink()
    ran = hil("array", "form", "--resume", path, "--yes")
    assert ran.code == 2
    assert "the clock of the array says 0 s" in ran.stderr
    with open_run(path) as reader:
        assert reader.row_count("operations") == 8  # those of before


def test_a_chip_that_is_refused_leaves_no_run(hil: Any, tmp_path: Path) -> None:
    hil("array", "read", *SMALL, "--set", "sim.chip=my.chip", "--out", "elsewhere")
    ran = form(hil, "--set", "sim.chip=my.chip", "--seed", "3")
    assert ran.code == 2
    assert "seed = 0 instead of 3" in ran.stderr
    assert "to go on" not in ran.stderr
    assert not list((tmp_path / "runs").glob("*.h5"))


@UNDRAWN
def test_a_run_goes_on_from_another_folder(hil: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chip = ("--set", "sim.chip=my.chip")
    _, path = cut_off(hil, monkeypatch, KeyboardInterrupt(), *chip)
    path = path.rename(tmp_path / "moved.h5")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    again = ("--resume", path, "--yes", "--json")
    refused = hil("array", "form", *again, *chip)
    assert "began with sim.chip" in refused.stderr
    found = hil("array", "form", *again, "--set", "sim.chip=../my.chip").json
    assert found["chip_file"] == str(tmp_path / "my.chip")
    assert found["cells_formed"] == 64


def test_a_run_of_a_version_with_other_settings_is_refused_by_name(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = cut_off(hil, monkeypatch, RuntimeError("boom"))
    config = RunReader.config.fget(open_run(path))  # type: ignore[attr-defined]
    config["array"]["form"]["burn"] = 1
    monkeypatch.setattr(RunReader, "config", config)
    ran = hil("array", "form", "--resume", path, "--yes")
    assert ran.code == 2
    assert "its settings are not those of this version" in ran.stderr


def test_what_goes_wrong_with_pictures_does_not_fail_a_run(hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("experiments.style.save_figures", full)
    found = hil("array", "read", *SMALL, "--json").json
    assert "No space left on device" in found["note"]
    with open_run(Path(found["run_file"])) as reader:
        assert reader.status == "complete"


@pytest.mark.large
def test_the_whole_array_is_formed_and_read_with_the_statistics_of_the_preset(hil: Any, tmp_path: Path) -> None:
    found = hil("array", "form", "--region", "all", "--yes", "--json").json
    assert found["yield"] > 0.999
    read = hil("array", "read", "--json").json
    assert found["wall_s"] + read["wall_s"] < 60
    for summary in (found, read):
        assert summary["sigma_difference_s"] == pytest.approx(6.61e-6, rel=0.05)
    assert (tmp_path / read["report"]).exists()
