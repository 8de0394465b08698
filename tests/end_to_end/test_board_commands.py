"""Commands that look at a board: `hil backend info` with a self-test, `hil bench schedule`, `hil bench emulator`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hil.factory
from firmware_bridge.board_backend import BoardBackend
from firmware_bridge.emulator import EmulatedBoard, EmulatedFabric
from firmware_bridge.emulator.board import Faults
from firmware_bridge.profile import SHIPPED_FOLDER, load_profile
from hil.backend import Check
from hil.cli.backend import grouped
from sim_backend.settings import SimSettings

INFO = ("backend", "info", "--backend", "emulator", "--set", "board.profile=tiny-8x8")
#: chips of tiny-8x8 that can be told apart
PARTS = [
    "DAC80508 chip 0 (row drive)",
    "DAC80508 chip 1 (word lines and source-line bias)",
    *(f"ADS8324 lane {lane}" for lane in range(2)),
    *(f"CD4051B mux {mux}" for mux in range(4)),
]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Faults], None]], None]:
    """Makes the emulated board of the next command a broken one."""

    def apply(fault: Callable[[Faults], None]) -> None:
        def make(settings: Any, seed: int) -> BoardBackend:
            profile = load_profile(settings.board.profile)
            size = {"rows": profile.rows, "cols": profile.cols, "mux": {"width": profile.mux.width}}
            board = EmulatedBoard(profile, SimSettings.model_validate(size), seed)
            fault(board.faults)
            return BoardBackend(EmulatedFabric(board), profile, name="emulator", identity={"seed": seed})

        monkeypatch.setitem(hil.factory.BACKENDS, "emulator", make)

    return apply


class TestInfo:
    def test_json_has_every_key_and_a_check_per_chip(self, hil: Any) -> None:
        found = hil(*INFO, "--seed", 5, "--json").json
        assert set(found) == {
            "name", "shape", "calibration_id", "calibration_text", "identity", "profile", "limits", "pulse_kinds",
            "analogue_rows", "tensors", "self_test", "error",
        }  # fmt: skip
        assert (found["name"], found["shape"], found["identity"]["seed"]) == ("emulator", [8, 8], 5)
        profile = load_profile("tiny-8x8")
        assert found["profile"] == {"name": "tiny-8x8", "hash": profile.fingerprint, "guesses": 0}
        assert found["limits"]["v_pulse_max_v"] == profile.limits.v_pulse_max_v
        assert [check["part"] for check in found["self_test"]] == PARTS
        assert all(check["ok"] is True and check["text"] for check in found["self_test"])
        assert found["error"] is None

    def test_text_says_the_same_in_few_lines(self, hil: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        shown = hil(*INFO).stdout
        for part in ("tiny-8x8, hash ", "8 rows x 8 columns", "8 ok", "CD4051B mux 0-3", "conducts at every position"):
            assert part in shown
        assert "FAILED" not in shown

    def test_guesses_are_counted(self, hil: Any) -> None:
        found = hil("backend", "info", "--backend", "emulator", "--no-self-test", "--json").json
        assert found["profile"]["guesses"] == len(load_profile("paper-guess").guesses) > 0
        assert found["self_test"] is None

    def test_without_a_self_test_nothing_is_opened(self, hil: Any, broken: Any) -> None:
        broken(lambda faults: faults.dead_dacs.add(0))
        ran = hil(*INFO, "--no-self-test")
        assert (ran.code, ran.stderr) == (0, "")
        assert "not run" in ran.stdout

    def test_a_backend_without_parts(self, hil: Any) -> None:
        found = hil("backend", "info", "--json").json
        assert (found["self_test"], found["profile"], found["error"]) == ([], None, None)

    @pytest.mark.parametrize(
        ("fault", "part", "text"),
        [
            (lambda faults: faults.dead_dacs.add(1), PARTS[1], "chip dead or unpowered"),
            (lambda faults: faults.frozen_adcs.update({1: 100}), "ADS8324 lane 1", "it gives 100 on every column"),
            (lambda faults: faults.stuck_muxes.update({2: 1}), "CD4051B mux 2", "selects stuck"),
        ],
        ids=["dead DAC", "frozen ADC", "stuck mux"],
    )
    def test_a_failed_part_is_named(
        self, hil: Any, broken: Any, fault: Callable[[Faults], None], part: str, text: str
    ) -> None:
        broken(fault)
        ran = hil(*INFO, "--json")
        assert ran.code == 1
        found = json.loads(ran.stdout)
        failed = [check for check in found["self_test"] if check["ok"] is False]
        assert [check["part"] for check in failed] == [part]
        assert text in failed[0]["text"]
        assert found["identity"]["profile"] == "tiny-8x8"
        assert f"error: {found['error']}\n" == ran.stderr
        assert part in ran.stderr

    def test_a_failed_part_stands_out_in_the_table(
        self, hil: Any, broken: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "120")
        broken(lambda faults: faults.stuck_muxes.update({2: -1}))
        ran = hil(*INFO)
        assert ran.code == 1
        assert "7 ok, 1 FAILED" in ran.stdout
        assert "CD4051B mux 0-1, 3" in ran.stdout
        line = next(line for line in ran.stdout.splitlines() if "CD4051B mux 2" in line)
        assert "FAILED" in line

    def test_identity_is_shown_when_the_link_fails(self, hil: Any, broken: Any) -> None:
        broken(lambda faults: setattr(faults.link, "flip_program_bit", (0, 3)))
        ran = hil(*INFO)
        assert ran.code == 1
        assert "tiny-8x8" in ran.stdout
        assert "broke off" in ran.stdout
        assert "changes bits" in ran.stderr

    @pytest.mark.parametrize("options", [(), ("--no-self-test",), ("--json",)], ids=str)
    def test_a_wrong_profile_is_one_message(self, hil: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
        text = (SHIPPED_FOLDER / "tiny-8x8.toml").read_text()
        (tmp_path / "mine.toml").write_text(text.replace("vdd_v = 5.25", "vdd_v = 4.0"))
        ran = hil("backend", "info", "--backend", "emulator", "--set", "board.profile=mine.toml", *options)
        assert (ran.code, ran.stdout) == (2, "")
        assert ran.stderr.count("\n") == 1
        for part in ("error: ", "mine.toml", "dac.vdd_v", "Fix: "):
            assert part in ran.stderr

    def test_an_unknown_profile_names_the_known_ones(self, hil: Any) -> None:
        ran = hil("backend", "info", "--backend", "emulator", "--set", "board.profile=tiny")
        assert (ran.code, ran.stdout) == (2, "")
        assert "'tiny'" in ran.stderr
        assert "paper-guess, tiny-8x8" in ran.stderr


class TestGrouping:
    def test_parts_found_alike_share_a_line(self) -> None:
        checks = [Check(f"mux {k}", k != 5, "stuck" if k == 5 else "fine") for k in (0, 1, 2, 4, 5, 6)]
        assert grouped(checks) == [Check("mux 0-2, 4, 6", True, "fine"), Check("mux 5", False, "stuck")]

    def test_others_do_not(self) -> None:
        checks = [
            Check("DAC 0 (rows)", True, "fine"),
            Check("DAC 1 (bias)", True, "fine"),
            Check("ADC 2", None, "fine"),
            Check("ADC 3", True, "fine"),
            Check("supply", True, "fine"),
        ]
        assert grouped(checks) == checks


def test_bench_schedule(hil: Any) -> None:
    command = ("bench", "schedule", "--profile", "tiny-8x8")
    found = hil(*command, "--json").json
    assert {
        "profile", "rows", "outputs", "adcs", "batch", "conversions_per_phase", "phases", "bound_s", "dense_s",
        "dense_over_bound", "single_s", "single_dense_over_bound", "fill_s", "speedup",
    } == set(found)  # fmt: skip
    # Two phases of four conversions at 24 clocks of 0.6 MHz.
    assert found["bound_s"] == pytest.approx(2 * 4 * 40e-6)
    assert 1.0 <= found["dense_over_bound"] <= 1.10
    assert list(found["speedup"]) == ["0.02", "0.05", "0.1", "0.2"]
    for at in found["speedup"].values():
        assert set(at) == {"phases", "expected_phases", "measured", "expected", "over_bound"}
        assert at["measured"] == pytest.approx(at["expected"], rel=0.2)
    assert found == hil(*command, "--json").json
    assert "x bound" in hil(*command).stdout


def test_bench_emulator(hil: Any) -> None:
    command = ("bench", "emulator", "--profile", "tiny-8x8")
    found = hil(*command, "--json").json
    assert set(found) == {
        "profile", "rows", "cols", "vmm_per_s", "vmm_per_s_dense", "emulated_over_wall", "emulated_over_wall_dense",
        "host_fraction", "open_s", "prepare_s", "threads",
    }  # fmt: skip
    assert found["vmm_per_s"] > 0
    assert 0 < found["host_fraction"] < 1
    assert "VMM/s" in hil(*command).stdout


@pytest.mark.parametrize("command", ["schedule", "emulator"])
def test_bench_refuses_an_unknown_profile(hil: Any, command: str) -> None:
    ran = hil("bench", command, "--profile", "nowhere.toml")
    assert (ran.code, ran.stdout) == (2, "")
    assert "nowhere.toml" in ran.stderr
    assert ran.stderr.count("\n") == 1
