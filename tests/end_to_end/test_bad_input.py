"""Bad input: one message that names the thing, the value and the fix; the right exit code; nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RUN = ("lsm", "nmnist")


def leftovers(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def refused(hil: Any, small: list[str], tmp_path: Path, _own_cache: Path) -> Any:
    """Runs a command that must fail, and checks everything that all failures have in common."""

    def run(code: int, *arguments: object, parts: tuple[str, ...], before: tuple[object, ...] = ()) -> str:
        files, cache = leftovers(tmp_path), leftovers(_own_cache)
        ran = hil(*before, *RUN, *small, *arguments)
        assert ran.code == code, ran.stderr
        assert ran.stdout == ""
        for part in parts:
            assert part in ran.stderr
        assert "Traceback" not in ran.stderr
        if code == 1 or not ran.stderr.startswith("Usage:"):
            assert ran.stderr.startswith("error: ")
            assert ran.stderr.count("\n") == 1
            assert "Fix: " in ran.stderr
        assert leftovers(tmp_path) == files
        # A generated set that is complete may stay; it is what the cache is for.
        assert {name for name in leftovers(_own_cache) - cache if not name.startswith("digits-saccade-")} == set()
        return str(ran.stderr)

    return run


class TestData:
    def test_missing_path(self, refused: Any) -> None:
        parts = ("nowhere.tar.gz does not exist", "Train/<digit>")
        refused(2, "--dataset", "nmnist", "--data", "nowhere.tar.gz", parts=parts)

    @pytest.mark.parametrize("name", ["nmnist", "mnist-saccade"])
    def test_no_path(self, refused: Any, name: str) -> None:
        refused(2, "--dataset", name, parts=(name, "add --data PATH"))

    def test_path_where_none_belongs(self, refused: Any, tmp_path: Path) -> None:
        refused(2, "--data", tmp_path, parts=("digits-saccade", str(tmp_path), "leave out --data"))

    def test_unknown_data_set(self, refused: Any) -> None:
        refused(2, "--dataset", "nmist", parts=("'nmist'", "nmnist", "mnist-saccade", "digits-saccade"))

    def test_truncated_archive(self, refused: Any, nmnist_archive: Path, tmp_path: Path) -> None:
        content = nmnist_archive.read_bytes()
        for n_bytes in (0, 1, 100, len(content) // 2, len(content) - 1):
            (tmp_path / "cut.tar.gz").write_bytes(content[:n_bytes])
            refused(1, "--dataset", "nmnist", "--data", "cut.tar.gz", parts=("cut.tar.gz",))

    def test_foreign_files(self, refused: Any, tmp_path: Path) -> None:
        (tmp_path / "text.npz").write_text("no archive\n")
        np.savez(tmp_path / "other.npz", weights=np.zeros(3))
        (tmp_path / "empty").mkdir()
        for name, file in (("mnist-saccade", "text.npz"), ("mnist-saccade", "other.npz"), ("mnist-saccade", "empty"),
                           ("nmnist", "text.npz"), ("nmnist", "other.npz"), ("nmnist", "empty")):  # fmt: skip
            refused(1, "--dataset", name, "--data", file, parts=(file,))

    @pytest.mark.parametrize(
        ("setting", "parts"),
        [
            ("data.n_train=-5", ("'data.n_train' = -5", "greater than or equal to 1")),
            ("data.n_test=0", ("'data.n_test' = 0", "greater than or equal to 1")),
            ("data.n_test=361", ("n_test is 361", "1..360", "choose n_test")),
            ("data.n_train=99999", ("n_train is 99999", "choose n_train")),
            ("data.bin_width_s=0", ("'data.bin_width_s' = 0", "greater than 0")),
            ("data.bin_rule=other", ("'data.bin_rule' = 'other'", "'equal' or 'fixed'")),
        ],
    )
    def test_settings(self, refused: Any, setting: str, parts: tuple[str, ...]) -> None:
        refused(2, "--set", setting, parts=parts)


@pytest.mark.parametrize(
    "setting",
    [
        "readout.weight_decays=[]", "readout.weight_decays=[-1.0]", "readout.validation_fraction=0.999",
        "data.n_train=1", "data.n_test=1", "data.n_test=2", "lsm.n_neurons=1",
    ],
)  # fmt: skip
def test_too_little(hil: Any, small: list[str], setting: str) -> None:
    """A value at the edge either works or is refused with a message; it never ends in a traceback."""
    ran = hil(*RUN, *small, "--set", setting, "--json")
    if setting == "readout.weight_decays=[-1.0]":
        assert ran.code == 2
    assert ran.code == 0 or (ran.code in (1, 2) and ran.stderr.startswith("error: "))


class TestSettings:
    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--backend", "bord"], ("unknown backend 'bord'", "choose one of: sim")),
            (["--set", "lsm.n_neuron=3"], ("unknown configuration key", "did you mean 'lsm.n_neurons'?")),
            (["--set", "lsm.decay=1.5"], ("'lsm.decay' = 1.5", "less than or equal to 1")),
            (["--set", "lsm.decay=fast"], ("'lsm.decay' = 'fast'", "valid number")),
            (["--set", "lsm.decay"], ("'lsm.decay' is not of the form key=value",)),
            (["--set", "sim.lines.row_ohm=nan"], ("'sim.lines.row_ohm' = nan",)),
            (["--config", "none.toml"], ("none.toml cannot be read: No such file",)),
            (["--config", "bad.toml"], ("bad.toml is not TOML", "line 1")),
            (["--set", "limits.v_read_max_v=9"], ("limit v_read_max_v = 9", "0 to 0.5", "at most 0.5")),
            (["--set", "limits.pulses_per_cell_max=-1"], ("limit pulses_per_cell_max = -1",)),
            (["--set", "lsm.v_read_v=2"], ("lsm.v_read_v = 2 V", "0 to 0.5 V", "use at most 0.5 V")),
            (["--set", "lsm.n_neurons=400"], ("lsm.n_neurons = 400", "256 inputs", "use at most 256 neurons")),
            (["--set", "sim.rows=100"], ("lsm.n_neurons = 16", "larger array (sim.rows, sim.cols)")),
            (["--set", "lsm.engine=torch", "--set", "lsm.device=gpu9"], ("'gpu9' cannot be used", "lsm.device=cpu")),
            (["--seed", "-1"], ("--seed", "-1 is not a whole number from 0", "choose one")),
            (["--seed", "one"], ("--seed", "one is not a whole number")),
            (["--seed", str(2**64)], ("seed", str(2**64))),
            (["--colour"], ("No such option", "--colour")),
        ],
    )  # fmt: skip
    def test_refused(self, refused: Any, tmp_path: Path, arguments: list[str], parts: tuple[str, ...]) -> None:
        (tmp_path / "bad.toml").write_text("decay = = 1\n")
        refused(2, *arguments, parts=parts)

    @pytest.mark.parametrize("command", [("backend", "info"), ("config", "show")])
    def test_other_commands(self, hil: Any, command: tuple[str, ...]) -> None:
        ran = hil(*command, "--set", "sim.noise.relativ=1")
        assert (ran.code, ran.stdout) == (2, "")
        assert "did you mean 'sim.noise.relative'?" in ran.stderr


class TestPlaces:
    def test_out_below_a_file(self, refused: Any, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        refused(2, "--out", "file/runs", parts=("run folder file/runs cannot be written: Not a directory", "another"))
        refused(2, "--out", "file", parts=("run folder file cannot be written",))

    def test_out_is_read_only(self, refused: Any, tmp_path: Path) -> None:
        (tmp_path / "locked").mkdir(mode=0o555)
        if os.access(tmp_path / "locked", os.W_OK):
            pytest.skip("this user may write everywhere, as root may")
        refused(2, "--out", "locked", parts=("run folder locked cannot be written: Permission denied",))

    def test_log_file_in_a_missing_folder(self, refused: Any) -> None:
        parts = ("log file nowhere/log.txt cannot be written: No such file", "choose another --log-file")
        refused(2, before=("--log-file", "nowhere/log.txt"), parts=parts)

    def test_cache_that_cannot_be_written(
        self, hil: Any, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not an error: a cache is never needed."""
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("CROSSBAR_HIL_CACHE", str(tmp_path / "file" / "cache"))
        ran = hil(*RUN, *small, "--json")
        assert ran.json["n_test"] == 30
        assert "cannot be kept in" in ran.stderr
