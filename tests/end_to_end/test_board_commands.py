"""The commands around a board: who answers, schedule, speed, and two backends side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hil.runfile import open_run

TINY = ("--backend", "emulator", "--set", "board.profile=tiny-8x8")


def test_info_lists_every_chip(hil: Any) -> None:
    found = hil("backend", "info", *TINY, "--json")
    assert found.code == 0, found.stderr
    info = found.json
    assert info["name"] == "emulator"
    assert info["shape"] == [8, 8]
    assert info["identity"]["profile"] == "tiny-8x8"
    assert info["calibration_id"] is None
    parts = [check["part"] for check in info["self_test"]]
    assert sum("DAC80508" in part for part in parts) == 2
    assert sum("ADS8324" in part for part in parts) == 2
    assert sum("CD4051B" in part for part in parts) == 4
    assert all(check["ok"] for check in info["self_test"])


def test_info_as_text(hil: Any) -> None:
    found = hil("backend", "info", *TINY)
    assert found.code == 0, found.stderr
    assert "DAC80508" in found.stdout
    assert "none: nominal constants" in found.stdout


def test_a_wrong_profile_is_one_message(hil: Any, tmp_path: Path) -> None:
    found = hil("backend", "info", "--backend", "emulator", "--set", "board.profile=no-such-board")
    assert found.code == 2
    assert found.stderr.startswith("error: ")
    assert "paper-guess" in found.stderr
    shipped = (Path(__file__).parents[2] / "firmware_bridge/profiles/tiny-8x8.toml").read_text(encoding="utf-8")
    broken = tmp_path / "broken.toml"
    broken.write_text(shipped.replace("row_chips = [0]", "row_chips = [7]"), encoding="utf-8")
    found = hil("backend", "info", "--backend", "emulator", "--set", f"board.profile={json.dumps(str(broken))}")
    assert found.code == 2
    assert "dac.row_chips" in found.stderr
    assert "Traceback" not in found.stderr


def test_bench_schedule_and_emulator_give_their_figures(hil: Any) -> None:
    found = hil("bench", "schedule", "--profile", "tiny-8x8", "--json").json
    assert found["dense_over_bound"] >= 1.0
    assert set(found["speedup"]) == {"0.02", "0.05", "0.1", "0.2"}
    found = hil("bench", "emulator", "--profile", "tiny-8x8", "--json").json
    assert found["vmm_per_s"] > 0


class TestSideBySide:
    def test_two_simulators_of_one_chip(self, hil: Any, small: list[str], tmp_path: Path) -> None:
        found = hil("lsm", "nmnist", *small, "--samples", "10", "--out", tmp_path, "--json")
        assert found.code == 0, found.stderr
        result = found.json
        assert result["n_samples"] == 10
        # The same chip, with noise of its own: alike, not the same.
        assert 0.9 < result["count_correlation"] < 1.0
        assert -1.0 <= result["accuracy_difference"] <= 1.0
        low, high = result["accuracy_difference_interval"]
        assert low <= result["accuracy_difference"] <= high
        with open_run(Path(result["run_file"])) as reader:
            assert reader.status == "complete"
            for table in ("counts_test", "counts_against"):
                assert reader.row_count(table) == 10

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--samples", "0"), "--samples 0 is below 1"),
            (("--samples", "31"), "--samples 31 is outside 1 to 30"),
            (("--against", "sim"), "without --samples"),
        ],
    )
    def test_bad_numbers_leave_no_file(
        self, hil: Any, small: list[str], tmp_path: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        found = hil("lsm", "nmnist", *small, *arguments, "--out", tmp_path / "out")
        assert found.code == 2
        assert words in found.stderr
        assert not (tmp_path / "out").exists()
