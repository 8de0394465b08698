"""`hil calibrate`: parts, files, instruments, refusals, validation, drift, and what other commands make of the file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from calibrations import NETWORK, calibrated
from links import served

from firmware_bridge.emulator import emulated_backend
from firmware_bridge.link.tcp import TcpListener
from hil.calibration_file import Calibration, Quantity
from hil.runfile import open_run
from sim_backend.settings import SimSettings

#: one worker of pytest-xdist, so that a board is calibrated once
pytestmark = pytest.mark.xdist_group("calibrate")

FILE = "runs/calibrations/emulated-7.h5"
ALL = ["zero", "dac", "tia", "line", "noise", "array"]


@pytest.fixture
def measured() -> Path:
    """Folder in which everything was measured once, with its profile."""
    return calibrated()


@pytest.fixture
def network(hil: Any, tmp_path: Path) -> Callable[..., Any]:
    """Runs `hil ARGUMENTS` with a network that fits on the board, where that is calibrated."""
    shutil.copytree(calibrated(), tmp_path, dirs_exist_ok=True)
    return lambda *arguments: hil(*arguments, "--chip-seed", 7, "--calibration", FILE, *NETWORK)


@pytest.fixture
def calibrate(hil: Any, measured: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs `hil calibrate ARGUMENTS` in a folder where all but gate was measured."""
    shutil.copytree(measured, tmp_path, dirs_exist_ok=True)

    def run(*arguments: object, seed: int = 7) -> Any:
        return hil("calibrate", *arguments, "--chip-seed", seed, "--set", "board.profile=board.toml")

    return run


def newest_run(folder: Path) -> Path:
    return max((folder / "runs").glob("*.h5"), key=lambda path: path.stat().st_mtime)


class TestMeasuring:
    def test_all_parts_are_measured_and_told(self, measured: Path) -> None:
        found = json.loads((measured / "result.json").read_text())
        assert found["measured"] == ALL
        assert list(found["parts"]) == ALL
        resistance = found["parts"]["line"]["quantities"]["r_on_ohm"]
        # Three muxes of 125 ohm with 5 of spread; few columns tell it to some tens.
        assert resistance["median"] == pytest.approx(125, abs=4 * resistance["uncertainty"])
        assert found["parts"]["noise"]["quantities"]["read_noise"]["median"] == pytest.approx(0.02, rel=0.05)
        assert (found["rows_ok"], found["cols_ok"]) == (24, 16)
        assert any("amperes per code are nominal" in text for text in found["findings"])

    def test_the_run_file_keeps_what_was_measured_and_the_figures(self, measured: Path) -> None:
        found = json.loads((measured / "result.json").read_text())
        with open_run(Path(found["run_file"])) as run:
            assert (run.status, run.experiment, run.calibration) == ("complete", "calibrate", None)
            assert run.row_count("vmm") > 1000
            assert {"offsets", "resistances", "conductance_map", "noise", "faults"} <= set(run.figures)
            assert run.results["summary"]["calibration_id"] == found["calibration_id"]
        assert Calibration.load(Path(found["calibration_file"])).calibration_id == found["calibration_id"]

    def test_the_report_needs_nothing_else(self, measured: Path) -> None:
        page = Path(json.loads((measured / "result.json").read_text())["report"]).read_text()
        assert "conductance_map" in page
        assert "emulated-7" in page
        assert not re.search(r'(src|href)="(?!data:)', page)

    def test_what_is_there_is_left_alone(self, calibrate: Any, tmp_path: Path) -> None:
        before = newest_run(tmp_path)
        assert calibrate("all", "--json").json["measured"] == []
        assert "--again" in calibrate("zero").stdout
        assert newest_run(tmp_path) == before

    def test_it_goes_on_after_the_last_part(self, calibrate: Any, tmp_path: Path) -> None:
        known = Calibration.load(tmp_path / FILE)
        kept = {name: part for name, part in known.parts.items() if name not in ("line", "array")}
        replace(known, parts=kept).save(tmp_path / FILE)
        assert calibrate("all", "--dry-run", "--json").json["to_measure"] == ["line", "array"]

    def test_again_drops_what_rested_on_it(self, calibrate: Any, tmp_path: Path) -> None:
        assert calibrate("tia", "--again", "--json").json["measured"] == ["tia"]
        assert list(Calibration.load(tmp_path / FILE).parts) == ["zero", "dac", "tia", "noise"]

    def test_what_is_too_old_is_measured_again(self, calibrate: Any) -> None:
        old = ("--set", "calibration.max_age_days=1e-9")
        assert calibrate("all", "--dry-run", "--json", *old).json["to_measure"] == ALL
        ran = calibrate("array", "--again", *old)
        assert ran.code == 1
        assert "days ago; the limit is 1e-09 days" in ran.stderr
        accepted = ("--set", 'calibration.allow=["stale"]')
        assert calibrate("array", "--again", "--dry-run", "--json", *old, *accepted).json["to_measure"] == ["array"]

    def test_a_failed_run_says_why_and_keeps_the_parts(
        self, calibrate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from hil.errors import DeviceError

        def fail(*_: object) -> None:
            raise DeviceError("the smoke got out", fix="put it back")

        monkeypatch.setattr("calibration.dac.measure", fail)
        ran = calibrate("all", "--again")
        assert ran.code == 1
        assert "error: the smoke got out" in ran.stderr
        assert FILE in ran.stderr
        with open_run(newest_run(tmp_path)) as run:
            assert (run.status, "smoke" in run.cause) == ("failed", True)
        assert list(Calibration.load(tmp_path / FILE).parts) == ["zero"]


class TestDeadParts:
    def test_they_are_named_and_left_out(self, calibrate: Any) -> None:
        dead = ("emulator.dead_dac_channels=[[0,1]]", "emulator.clipping_adcs=[1]", "emulator.dead_columns=0.2")
        settings = [text for setting in dead for text in ("--set", setting)]
        found = calibrate("zero", "--json", *settings, seed=11).json
        told = " ".join(found["findings"])
        assert "DAC80508 chip 0 channel 1" in told
        assert "ADS8324 lane 1" in told
        # Columns are interleaved: half of 16 are on the lane that clips, and some of the others are open.
        assert found["rows_ok"] == 16
        assert 4 <= found["cols_ok"] < 8


class TestInstruments:
    def test_a_source_measure_unit_and_a_multimeter_make_constants_known(self, calibrate: Any) -> None:
        instruments = ("--instrument", "smu=twin", "--instrument", "dmm=twin", "--pad-row", 3)
        found = calibrate("dac", "--again", "--json", *instruments).json
        assert found["parts"]["dac"]["quantities"]["row_gain_error"]["n_ok"] > 0
        assert "DMM6500" in found["parts"]["dac"]["instruments"]["dmm"]
        found = calibrate("tia", "--again", "--json", *instruments).json
        assert found["parts"]["tia"]["quantities"]["amps_per_code"]["n_ok"] > 8

    def test_a_power_supply_feeds_the_dacs_of_a_board_without_a_supply_of_its_own(self, calibrate: Any) -> None:
        fed = ("--set", "emulator.psu_feeds_dacs=true")
        bench = ("--instrument", "smu=twin", "--pad-row", 0)
        ran = calibrate("zero", "--again", *fed, *bench)
        assert ran.code == 1
        assert "DAC80508" in ran.stderr
        found = calibrate("zero", "--again", "--json", *fed, *bench, "--instrument", "psu=twin").json
        assert found["measured"] == ["zero"]

    def test_one_that_is_not_there_is_refused_by_name_before_anything_is_measured(
        self, calibrate: Any, tmp_path: Path
    ) -> None:
        resource = "TCPIP::127.0.0.1::9::SOCKET"
        ran = calibrate("tia", "--again", "--instrument", f"smu={resource}", "--pad-row", 0)
        assert ran.code == 1
        assert resource in ran.stderr
        with open_run(newest_run(tmp_path)) as run:
            assert (run.status, run.row_count("vmm")) == ("failed", 0)

    def test_the_pad_must_be_named(self, calibrate: Any) -> None:
        ran = calibrate("tia", "--again", "--instrument", "smu=TCPIP::127.0.0.1::9::SOCKET")
        assert ran.code == 2
        assert "--pad-row" in ran.stderr


class TestRefusals:
    def test_a_file_of_another_board(self, calibrate: Any) -> None:
        ran = calibrate("zero", "--again", "--calibration", FILE, seed=8)
        assert ran.code == 1
        assert "board emulated-7, this is board emulated-8" in ran.stderr

    def test_a_part_before_those_it_needs(self, calibrate: Any) -> None:
        ran = calibrate("noise", seed=8)
        assert ran.code == 1
        assert "hil calibrate zero" in ran.stderr

    def test_an_edited_file(self, calibrate: Any, tmp_path: Path) -> None:
        import h5py

        with h5py.File(tmp_path / FILE, "r+") as file:
            name = next(n for n in _datasets(file) if n.endswith("r_on_ohm/value"))
            file[name][0] = 1.0
        for ran in (calibrate("zero", "--again"), calibrate("check"), calibrate("validate", "--no-lsm")):
            assert ran.code == 1
            assert "edited" in ran.stderr

    def test_gate_asks_before_it_wears_cells(self, calibrate: Any) -> None:
        assert "--region" in calibrate("gate").stderr
        ran = calibrate("gate", "--region", "0:4,0:4")
        assert ran.code == 2
        assert "would wear 16 cells of emulator (emulated-7)" in ran.stderr

    def test_no_calibration_to_validate_or_check(self, calibrate: Any) -> None:
        for command in ("validate", "check"):
            ran = calibrate(command, seed=9)
            assert ran.code == 1
            assert "there is no calibration runs/calibrations/emulated-9.h5" in ran.stderr


class TestValidating:
    def test_the_outcome_is_kept_in_the_file_and_told_by_who_uses_it(
        self, hil: Any, calibrate: Any, tmp_path: Path
    ) -> None:
        ran = calibrate("validate", "--no-lsm", "--json")
        found = json.loads(ran.stdout)
        verdicts = {one["what"]: one for one in found["verdicts"]}
        judged = [one["ok"] for one in found["verdicts"] if one["ok"] is not None]
        assert len(judged) == 2
        assert ran.code == (0 if all(judged) else 1)
        rms = verdicts["rms error / noise"]
        assert rms["value"] < 1.7
        assert rms["uncalibrated"] > 5
        kept = Calibration.load(tmp_path / FILE).validation
        assert kept is not None
        assert kept["text"] == found["text"]
        with open_run(Path(found["run_file"])) as run:
            assert "validation" in run.figures
        told = hil("backend", "info", "--no-self-test", "--calibration", FILE, "--json").json
        assert told["calibration_text"].endswith(f"calibrated simulator of emulated-7, {found['text']}")

    def test_a_criterion_that_is_not_met_is_exit_code_1(self, calibrate: Any, tmp_path: Path) -> None:
        known = Calibration.load(tmp_path / FILE)
        array = known.parts["array"]
        wrong = replace(array.quantities["conductance_s"], value=1.5 * array.quantities["conductance_s"].value)
        quantities = {**array.quantities, "conductance_s": wrong}
        known.with_part(replace(array, quantities=quantities)).save(tmp_path / FILE)
        ran = calibrate("validate", "--no-lsm")
        assert ran.code == 1
        assert "NOT MET" in ran.stdout
        written = re.search(r"report: +(\S+)", ran.stdout)
        assert written is not None
        assert "NOT ALL CRITERIA ARE MET" in Path(written[1]).read_text()


class TestDaemon:
    """A daemon applies its own calibration: one that a host names must be that one."""

    @pytest.mark.parametrize("applied", [False, True])
    def test_a_named_calibration_must_be_applied_there(
        self, hil: Any, measured: Path, tmp_path: Path, applied: bool
    ) -> None:
        shutil.copytree(measured, tmp_path, dirs_exist_ok=True)
        known = Calibration.load(tmp_path / FILE)
        board = emulated_backend(str(tmp_path / "board.toml"), SimSettings(), 7, calibration=known if applied else None)
        listener = TcpListener("127.0.0.1", 0)
        with served(board, listener):
            ran = hil("calibrate", "check", "--backend", listener.url, "--calibration", FILE)
        if applied:
            assert "the calibration still holds" in ran.stdout
        else:
            assert f"no calibration applied, not {known.calibration_id}" in ran.stderr
            assert "--set calibration.file=FILE" in ran.stderr


@pytest.mark.usefixtures("blank_figures")
class TestNetwork:
    def test_spike_counts_are_compared_too(self, network: Any) -> None:
        ran = network("calibrate", "validate", "--samples", 6, "--json")
        found = json.loads(ran.stdout)
        verdicts = {one["what"]: one for one in found["verdicts"]}
        assert verdicts["spike counts, without noise"]["value"] > 0.98
        assert any(one["name"] == "spikes" for one in found["sets"])
        assert found["lsm"]["n_samples"] == 6
        with open_run(Path(found["lsm"]["run_file"])) as run:
            assert run.experiment == "lsm-nmnist-compare"

    def test_results_say_which_calibration_they_were_made_with(self, network: Any, tmp_path: Path) -> None:
        known = Calibration.load(tmp_path / FILE)
        found = network("lsm", "nmnist", "--backend", "emulator", "--samples", 4, "--repeats", 2, "--json").json
        assert found["calibration"] == found["calibration_against"] == known.calibration_id
        assert found["calibration_text"] == f"{known.calibration_id}, board emulated-7, not validated"
        assert "calibrated simulator of emulated-7" in found["calibration_text_against"]
        assert found["n_repeats"] == 2
        assert found["faults_from"] is None

    def test_the_network_keeps_away_from_lines_that_the_calibration_found_dead(
        self, network: Any, tmp_path: Path
    ) -> None:
        known = Calibration.load(tmp_path / FILE)
        zero = known.parts["zero"]
        works = zero.quantities["col_works"].value.copy()
        works[3] = False
        quantities = {**zero.quantities, "col_works": Quantity.of(works)}
        known.with_part(replace(zero, quantities=quantities)).save(tmp_path / FILE)
        found = network("lsm", "nmnist", "--backend", "sim", "--json").json
        assert found["faults_from"] == "the calibration"
        assert found["faults"]["cols_out"] == 1

    def test_transfer(self, network: Any) -> None:
        found = network("lsm", "transfer", "--train", 40, "--test", 10, "--json").json
        assert [(one["trained_on"], one["tested_on"]) for one in found["transfer"]] == [
            ("board", "board"), ("board", "simulator"), ("simulator", "board"), ("simulator", "simulator"),
        ]  # fmt: skip
        assert len(found["lost_by_transfer"]) == 2

    def test_transfer_needs_a_calibration(self, hil: Any) -> None:
        ran = hil("lsm", "transfer")
        assert ran.code == 2
        assert "--calibration FILE" in ran.stderr


class TestDriftWatch:
    def test_a_board_that_is_as_it_was(self, calibrate: Any) -> None:
        ran = calibrate("check")
        assert ran.code == 0, ran.stdout
        assert "still holds" in ran.stdout

    def test_a_board_that_is_not(self, calibrate: Any) -> None:
        ran = calibrate("check", "--json", "--set", "emulator.dead_rows=0.2")
        assert ran.code == 1
        found = json.loads(ran.stdout)
        assert found["redo"]
        assert "hil calibrate" in found["text"]

    def test_one_that_is_too_old_may_be_checked(self, calibrate: Any) -> None:
        assert calibrate("check", "--set", "calibration.max_age_days=1e-9").code == 0


class TestShowing:
    def test_show(self, hil: Any, calibrate: Any) -> None:
        del calibrate
        found = hil("calibrate", "show", FILE, "--json").json
        assert (found["board"]["serial"], found["missing"]) == ("emulated-7", ["gate"])
        assert set(found["age_days"]) == set(ALL)
        assert "mux resistance" in hil("calibrate", "show", FILE).stdout

    def test_report_again(self, hil: Any, calibrate: Any) -> None:
        del calibrate
        written = Path(hil("calibrate", "report", "last", "--json").json["report"])
        assert "<h2>What was measured</h2>" in written.read_text()

    def test_no_report_of_another_run(self, hil: Any, tmp_path: Path) -> None:
        from array_runs import array_run

        array_run(tmp_path / "runs")
        ran = hil("calibrate", "report", "last")
        assert ran.code == 2
        assert "hil calibrate" in ran.stderr


def _datasets(file: Any) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names
